//! Reads an offer: limits, m-lines, credentials, directions.

use super::codecs::{self, OfferedCodec};
use super::{
    Agreement, Line, MAX_CANDIDATES, MAX_CODECS, MAX_LINE_BYTES, MAX_MEDIA, MAX_SDP_BYTES,
};
use super::{OfferError, data_channels, extensions, feedback, fragment, simulcast};
use crate::negotiated::{
    DataChannels, Extensions, Fingerprint, Kind, Negotiated, PayloadType, Role, Track,
};
use rtc_sdp::description::media::MediaDescription;
use rtc_sdp::description::session::SessionDescription;
use std::io::Cursor;

/// Which way an m-line's media goes, as its sender sees it (RFC 8866 §6.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    fn sends(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::SendOnly)
    }

    pub(super) fn receives(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::RecvOnly)
    }

    fn as_str(self) -> &'static str {
        match self {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        }
    }
}

/// One m-line of an offer.
#[derive(Debug)]
pub struct OfferedMedia {
    /// `None` for anything but audio and video.
    pub kind: Option<Kind>,
    /// First word of the m-line.
    pub media: String,
    pub protocol: String,
    pub formats: Vec<String>,
    pub mid: String,
    pub direction: Direction,
    /// Port 0 without `a=bundle-only`: the client has stopped this m-line.
    pub stopped: bool,
    pub rtcp_mux: bool,
    pub(super) codecs: Vec<OfferedCodec>,
    pub(super) extensions: Extensions,
    pub(super) ssrc: Option<u32>,
    /// Layers that it offers to send.
    pub(super) rids: Vec<Box<str>>,
    /// MediaStreams that its track belongs to (RFC 8830 §2).
    pub(super) streams: Vec<String>,
    /// Of an m-line for data channels, the longest message that its sender takes; 0 is any.
    pub(super) data_channels: Option<usize>,
}

/// An offer within the limits and with everything that ICE and DTLS need.
#[derive(Debug)]
pub struct Offer {
    pub media: Vec<OfferedMedia>,
    pub ice_ufrag: String,
    pub ice_pwd: String,
    pub fingerprint: Fingerprint,
    /// Usable candidates, which the server counts but never dials.
    pub candidates: u32,
    /// Header extensions of both forms may stand in one stream (RFC 8285 §6).
    pub(super) extmap_allow_mixed: bool,
}

impl Offer {
    /// Reads an offer.
    ///
    /// # Errors
    /// [`OfferError::Malformed`] for what is no SDP, exceeds a limit or lacks credentials,
    /// [`OfferError::Unsupported`] for what is correct but can't be answered.
    pub fn parse(body: &[u8]) -> Result<Offer, OfferError> {
        Self::read(body, "offer", &["actpass", "active"])
    }

    /// Reads a description. `what` it is stands in messages; the server never opens DTLS, so its sender must
    /// say one of `setups`, or nothing.
    pub(super) fn read(body: &[u8], what: &str, setups: &[&str]) -> Result<Offer, OfferError> {
        let text = within_limits(body)?;
        // The parser wants every line ended.
        let mut text = text.to_owned();
        if !text.ends_with('\n') {
            text.push_str("\r\n");
        }
        let session = SessionDescription::unmarshal(&mut Cursor::new(text.as_bytes()))
            .map_err(|e| malformed(format!("the body is no SDP: {e}")))?;
        let described = &session.media_descriptions;
        if described.is_empty() {
            return Err(malformed(format!(
                "the {what} has no m-line; it needs at least one of audio and video"
            )));
        }
        if described.len() > MAX_MEDIA {
            return Err(malformed(format!(
                "the {what} has {} m-lines; at most {MAX_MEDIA} are taken",
                described.len()
            )));
        }
        let mut media = Vec::with_capacity(described.len());
        let mut codec_count = 0;
        for (index, description) in described.iter().enumerate() {
            let parsed = read_media(&session, description, index)?;
            codec_count += parsed.formats.len();
            if codec_count > MAX_CODECS {
                return Err(malformed(format!(
                    "the {what} has more than {MAX_CODECS} codecs; at most those are taken"
                )));
            }
            media.push(parsed);
        }
        check_mids(&media)?;
        check_bundle(&session, &media)?;
        // All m-lines share the transport of the first one in use, which is the BUNDLE tag.
        let first = media.iter().position(|m| !m.stopped).unwrap_or(0);
        let tag = &described[first];
        let (ice_ufrag, ice_pwd) = credentials(&session, tag, what)?;
        if session.has_attribute("ice-lite") {
            return Err(unsupported(format!(
                "the {what} says ice-lite, and so is this server: one side must send checks. Use full ICE"
            )));
        }
        check_setup(&session, tag, what, setups)?;
        Ok(Offer {
            fingerprint: fingerprint(&session, tag, what)?,
            candidates: described
                .iter()
                .flat_map(|m| &m.attributes)
                .filter(|a| a.key == "candidate")
                .filter(|a| a.value.as_deref().is_some_and(fragment::usable_candidate))
                .count() as u32,
            extmap_allow_mixed: session.has_attribute("extmap-allow-mixed"),
            media,
            ice_ufrag,
            ice_pwd,
        })
    }

    /// Index and MID of the video m-line in use.
    pub fn video(&self) -> Option<(usize, &str)> {
        let mut lines = self.media.iter().enumerate();
        let (index, line) = lines.find(|(_, m)| m.kind == Some(Kind::Video) && !m.stopped)?;
        Some((index, &line.mid))
    }

    /// Agrees on tracks and codecs.
    ///
    /// `ssrcs` are ours to send with: audio, video, and retransmissions of video; a publisher has
    /// none. `cname` names our end in sender reports.
    ///
    /// # Errors
    /// [`OfferError::Unsupported`] for two tracks of a kind or a wrong direction,
    /// [`OfferError::NoCommonCodec`].
    pub fn agree(
        &self,
        role: Role,
        ssrcs: [u32; 3],
        cname: String,
    ) -> Result<Agreement, OfferError> {
        check_kinds(&self.media)?;
        if role == Role::Publisher {
            check_streams(&self.media)?;
        }
        let mut tracks: Vec<Track> = Vec::new();
        let mut lines = Vec::with_capacity(self.media.len());
        let mut data_channels = None;
        let mut no_codec = None;
        for media in &self.media {
            let line = match media.kind {
                None if !media.stopped => match media.data_channels {
                    Some(max_message) if data_channels.is_none() => {
                        data_channels = Some(DataChannels {
                            mid: media.mid.clone(),
                            max_message: Some(max_message).filter(|max| *max > 0),
                            opens: false,
                        });
                        Line::DataChannels
                    }
                    _ => Line::Refused,
                },
                Some(kind) if !media.stopped => {
                    check_direction(role, media)?;
                    let payload_types = codecs::common(kind, &media.codecs);
                    if payload_types.is_empty() {
                        let message = format!(
                            "none of the offered {} codecs is known here; offer one of {}",
                            media.media,
                            codecs::names(kind)
                        );
                        // A publisher's m-line is never refused alone (RFC 9725 §4.4.3).
                        if role == Role::Publisher {
                            return Err(OfferError::NoCommonCodec(message));
                        }
                        no_codec = Some(message);
                        Line::Refused
                    } else {
                        tracks.push(track(role, kind, media, payload_types, ssrcs));
                        Line::Track(tracks.len() - 1)
                    }
                }
                _ => Line::Refused,
            };
            lines.push(line);
        }
        if tracks.is_empty() {
            return Err(match no_codec {
                Some(message) => OfferError::NoCommonCodec(message),
                None => {
                    unsupported("the offer has no audio or video m-line in use; offer at least one")
                }
            });
        }
        let remb = feedback::remb(role, &self.media, &tracks);
        Ok(Agreement {
            negotiated: Negotiated {
                role,
                remote_ufrag: self.ice_ufrag.clone(),
                remote_pwd: self.ice_pwd.clone(),
                fingerprint: self.fingerprint,
                tracks,
                data_channels,
                cname,
                remb,
            },
            lines,
        })
    }
}

fn track(
    role: Role,
    kind: Kind,
    media: &OfferedMedia,
    mut payload_types: Vec<PayloadType>,
    ssrcs: [u32; 3],
) -> Track {
    for payload_type in &mut payload_types {
        // Audio conceals what it lost. To a viewer nothing is sent twice but by RTX, because an
        // index of an SSRC is sealed once; a device may send the lost packet itself once more.
        let repairs = kind == Kind::Video && payload_type.nack;
        payload_type.rtx = payload_type.rtx.filter(|_| repairs);
        payload_type.nack = repairs && (role == Role::Publisher || payload_type.rtx.is_some());
    }
    let repaired = payload_types.iter().any(|p| p.rtx.is_some());
    let mut extensions = media.extensions;
    if !media.codecs.iter().any(|c| c.feedback.transport_cc) {
        extensions.transport_cc = None;
    }
    let mut rids = Vec::new();
    if role == Role::Publisher && kind == Kind::Video && extensions.rid.is_some() {
        rids.clone_from(&media.rids);
    }
    if rids.is_empty() {
        (extensions.rid, extensions.repaired_rid) = (None, None);
    }
    Track {
        kind,
        mid: media.mid.clone(),
        payload_types,
        extensions,
        rids,
        ssrc: match role {
            Role::Publisher => media.ssrc,
            Role::Viewer => Some(ssrcs[usize::from(kind == Kind::Video)]),
        },
        rtx_ssrc: (role == Role::Viewer && repaired).then_some(ssrcs[2]),
    }
}

fn within_limits(body: &[u8]) -> Result<&str, OfferError> {
    if body.len() > MAX_SDP_BYTES {
        return Err(malformed(format!(
            "the body has {} bytes; at most {MAX_SDP_BYTES} are taken",
            body.len()
        )));
    }
    let text =
        std::str::from_utf8(body).map_err(|_| malformed("the body is no SDP: it is not UTF-8"))?;
    if !text.starts_with("v=0") {
        return Err(malformed(
            "the body is no SDP: it must start with the line v=0",
        ));
    }
    let mut candidates = 0;
    for line in text.lines() {
        if line.len() > MAX_LINE_BYTES {
            return Err(malformed(format!(
                "a line has {} bytes; at most {MAX_LINE_BYTES} are taken",
                line.len()
            )));
        }
        // Words of the offer stand in the answer, where they must not begin a line (RFC 8866 §9).
        if line.contains(['\r', '\0']) {
            return Err(malformed(
                "a line has a carriage return or a NUL in it; end lines with CRLF",
            ));
        }
        candidates += usize::from(line.starts_with("a=candidate:"));
    }
    if candidates > MAX_CANDIDATES {
        return Err(malformed(format!(
            "the body has {candidates} candidates; at most {MAX_CANDIDATES} are taken"
        )));
    }
    Ok(text)
}

fn read_media(
    session: &SessionDescription,
    description: &MediaDescription,
    index: usize,
) -> Result<OfferedMedia, OfferError> {
    let name = &description.media_name;
    let kind = match name.media.as_str() {
        "audio" => Some(Kind::Audio),
        "video" => Some(Kind::Video),
        _ => None,
    };
    let protocol = name.protos.join("/");
    let stopped = name.port.value == 0 && !description.has_attribute("bundle-only");
    if kind.is_some() && !stopped {
        if !matches!(
            protocol.as_str(),
            "UDP/TLS/RTP/SAVPF" | "TCP/DTLS/RTP/SAVPF" | "UDP/TLS/RTP/SAVP"
        ) {
            return Err(unsupported(format!(
                "the {} m-line offers {protocol}; offer UDP/TLS/RTP/SAVPF",
                name.media
            )));
        }
        if !description.has_attribute("rtcp-mux") {
            return Err(unsupported(format!(
                "the {} m-line lacks a=rtcp-mux, without which RTP and RTCP can't share the one port",
                name.media
            )));
        }
    }
    let mid = match value(description, "mid") {
        Some(mid) if !token(mid) || mid.len() > 16 => {
            return Err(malformed(
                "an a=mid has characters other than those of a token, or more than 16",
            ));
        }
        Some(mid) => mid.to_owned(),
        // Only an offer with one m-line can do without.
        None => index.to_string(),
    };
    Ok(OfferedMedia {
        kind,
        media: name.media.clone(),
        formats: name.formats.clone(),
        mid,
        direction: direction(session, description),
        stopped,
        rtcp_mux: description.has_attribute("rtcp-mux"),
        codecs: codecs::read(description),
        extensions: extensions::read(description, session.has_attribute("extmap-allow-mixed")),
        rids: simulcast::read(description),
        streams: streams(description),
        data_channels: data_channels::read(description, &protocol)?,
        ssrc: description
            .attributes
            .iter()
            .filter(|a| a.key == "ssrc")
            .find_map(|a| a.value.as_deref()?.split(' ').next()?.parse().ok()),
        protocol,
    })
}

/// The first words of its `a=msid` lines; `-` is no stream.
fn streams(description: &MediaDescription) -> Vec<String> {
    let msids = description.attributes.iter().filter(|a| a.key == "msid");
    msids
        .filter_map(|a| a.value.as_deref()?.split(' ').next())
        .filter(|stream| *stream != "-")
        .map(str::to_owned)
        .collect()
}

fn direction(session: &SessionDescription, description: &MediaDescription) -> Direction {
    let named = |has: &dyn Fn(&str) -> bool| {
        [
            Direction::SendRecv,
            Direction::SendOnly,
            Direction::RecvOnly,
            Direction::Inactive,
        ]
        .into_iter()
        .find(|d| has(d.as_str()))
    };
    named(&|key| description.has_attribute(key))
        .or_else(|| named(&|key| session.has_attribute(key)))
        .unwrap_or(Direction::SendRecv)
}

fn check_kinds(media: &[OfferedMedia]) -> Result<(), OfferError> {
    for kind in [Kind::Audio, Kind::Video] {
        let mut of_kind = media.iter().filter(|m| m.kind == Some(kind) && !m.stopped);
        if let (Some(m), Some(_)) = (of_kind.next(), of_kind.next()) {
            return Err(unsupported(format!(
                "the offer has more than one {} m-line; a session has one track of a kind at most",
                m.media
            )));
        }
    }
    Ok(())
}

/// What is published is one MediaStream (RFC 9725 §4.4.2).
fn check_streams(media: &[OfferedMedia]) -> Result<(), OfferError> {
    let mut streams = media
        .iter()
        .filter(|m| m.kind.is_some() && !m.stopped)
        .flat_map(|m| &m.streams);
    let first = streams.next();
    match streams.find(|stream| Some(*stream) != first) {
        None => Ok(()),
        Some(_) => Err(unsupported(
            "the a=msid lines name more than one MediaStream; a session publishes one",
        )),
    }
}

fn check_direction(role: Role, media: &OfferedMedia) -> Result<(), OfferError> {
    let (right, wanted) = match role {
        Role::Publisher => (media.direction.sends(), "sendonly"),
        Role::Viewer => (media.direction.receives(), "recvonly"),
    };
    if right {
        return Ok(());
    }
    Err(unsupported(format!(
        "the {} m-line is {}; offer it {wanted}",
        media.media,
        media.direction.as_str()
    )))
}

fn check_mids(media: &[OfferedMedia]) -> Result<(), OfferError> {
    for (index, m) in media.iter().enumerate() {
        if media[..index].iter().any(|other| other.mid == m.mid) {
            return Err(malformed("two m-lines have the same a=mid"));
        }
    }
    Ok(())
}

/// All m-lines in use must be in one BUNDLE group: there is one port and one transport.
fn check_bundle(session: &SessionDescription, media: &[OfferedMedia]) -> Result<(), OfferError> {
    let used = media.iter().filter(|m| !m.stopped);
    if used.clone().count() < 2 {
        return Ok(());
    }
    let groups = session.attributes.iter().filter(|a| a.key == "group");
    let bundles = groups.filter_map(|group| {
        let mut words = group.value.as_deref()?.split_whitespace();
        (words.next() == Some("BUNDLE")).then(|| words.collect::<Vec<_>>())
    });
    let has = |bundle: &Vec<&str>| {
        let mids = used.clone().map(|m| m.mid.as_str());
        mids.filter(|mid| bundle.contains(mid)).count()
    };
    let bundled = bundles.max_by_key(has).unwrap_or_default();
    for m in used {
        if !bundled.contains(&m.mid.as_str()) {
            return Err(unsupported(format!(
                "the {} m-line is not in one a=group:BUNDLE with the others; bundle all m-lines (max-bundle)",
                m.media
            )));
        }
    }
    Ok(())
}

fn credentials(
    session: &SessionDescription,
    tag: &MediaDescription,
    what: &str,
) -> Result<(String, String), OfferError> {
    let find = |key: &str| {
        let found = value(tag, key).or_else(|| session.attribute(key).map(String::as_str));
        found.ok_or_else(|| malformed(format!("the {what} lacks a={key}")))
    };
    let (ufrag, pwd) = (find("ice-ufrag")?, find("ice-pwd")?);
    if !fragment::ice_chars(ufrag, 4) {
        return Err(malformed("a=ice-ufrag must be 4 to 256 ice-chars"));
    }
    if !fragment::ice_chars(pwd, 22) {
        return Err(malformed("a=ice-pwd must be 22 to 256 ice-chars"));
    }
    Ok((ufrag.to_owned(), pwd.to_owned()))
}

/// The server is passive; the client must be ready to be active.
fn check_setup(
    session: &SessionDescription,
    tag: &MediaDescription,
    what: &str,
    right: &[&str],
) -> Result<(), OfferError> {
    let setup = value(tag, "setup").or_else(|| session.attribute("setup").map(String::as_str));
    match setup {
        Some(other) if !right.contains(&other) => Err(unsupported(format!(
            "the {what} says a=setup:{other}, but this server never opens DTLS; {what} a=setup:{}",
            right[0]
        ))),
        _ => Ok(()),
    }
}

fn fingerprint(
    session: &SessionDescription,
    tag: &MediaDescription,
    what: &str,
) -> Result<Fingerprint, OfferError> {
    let lines = |attributes: &[rtc_sdp::description::common::Attribute]| -> Vec<String> {
        attributes
            .iter()
            .filter(|a| a.key == "fingerprint")
            .filter_map(|a| a.value.clone())
            .collect()
    };
    let mut found = lines(&tag.attributes);
    if found.is_empty() {
        found = lines(&session.attributes);
    }
    if found.is_empty() {
        return Err(malformed(format!("the {what} lacks a=fingerprint")));
    }
    for line in &found {
        if let Some((hash, digits)) = line.split_once(' ')
            && hash.eq_ignore_ascii_case("sha-256")
        {
            return sha256(digits.trim()).ok_or_else(|| {
                malformed("the sha-256 a=fingerprint is not 32 bytes in hexadecimal with colons")
            });
        }
    }
    Err(unsupported(format!(
        "the {what} has no sha-256 a=fingerprint; add one"
    )))
}

fn sha256(digits: &str) -> Option<Fingerprint> {
    let mut bytes = [0; 32];
    let mut parts = digits.split(':');
    for byte in &mut bytes {
        let part = parts.next()?;
        if part.len() != 2 {
            return None;
        }
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}

pub(super) fn value<'a>(description: &'a MediaDescription, key: &str) -> Option<&'a str> {
    description.attribute(key).flatten()
}

/// A token of RFC 8866 §9.
fn token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|c| c.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]".contains(&c))
}

pub(super) fn malformed(message: impl Into<String>) -> OfferError {
    OfferError::Malformed(message.into())
}

fn unsupported(message: impl Into<String>) -> OfferError {
    OfferError::Unsupported(message.into())
}
