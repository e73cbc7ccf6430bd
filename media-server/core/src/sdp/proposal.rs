//! The offer that the server itself writes, for clients that wait for one, and what its answer makes of it.
//!
//! Such an offer is what the client would have been answered had it offered all of this itself, so it is kept
//! as that: an offer and its agreement. An answer then only takes away from it.

use super::offer::{Direction, OfferedMedia};
use super::{Agreement, Bundle, Local, Offer, OfferError, answer, codecs, extensions};
use crate::channel::MAX_MESSAGE;
use crate::negotiated::{Codec, Kind, Negotiated, Role};

/// What is proposed to a viewer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposed {
    /// Video in these codecs, in the order of preference; none is no video.
    pub video: Vec<Codec>,
    pub audio: bool,
    /// The channel `control`, which we open.
    pub control: bool,
    /// Name of the MediaStream.
    pub stream: String,
}

/// Why an answer is not taken; the text is for the client's author.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AnswerError(String);

impl From<OfferError> for AnswerError {
    fn from(error: OfferError) -> Self {
        AnswerError(error.to_string())
    }
}

/// An offer of ours that waits for its answer.
#[derive(Debug)]
pub struct Proposal {
    offer: Offer,
    agreement: Agreement,
    ssrcs: [u32; 3],
    stream: String,
}

impl Proposal {
    /// `ssrcs` are ours to send with: audio, video, and retransmissions of video. `cname` names our end in
    /// sender reports.
    ///
    /// # Errors
    /// [`OfferError`] if there is neither video nor audio in it.
    pub fn new(proposed: Proposed, ssrcs: [u32; 3], cname: String) -> Result<Proposal, OfferError> {
        let mut media: Vec<OfferedMedia> = Vec::new();
        // In the order of the service that this one replaces; it had no audio.
        if !proposed.video.is_empty() {
            media.push(track(Kind::Video, &proposed.video, media.len()));
        }
        if proposed.control {
            media.push(data_channels(media.len()));
        }
        if proposed.audio {
            media.push(track(Kind::Audio, &[Codec::Opus], media.len()));
        }
        let offer = Offer {
            media,
            // The client's are not known before its answer.
            ice_ufrag: String::new(),
            ice_pwd: String::new(),
            fingerprint: [0; 32],
            candidates: 0,
            extmap_allow_mixed: true,
        };
        let mut agreement = offer.agree(Role::Viewer, ssrcs, cname)?;
        // The answer chooses between this and transport-wide feedback.
        agreement.negotiated.remb = true;
        Ok(Proposal {
            offer,
            agreement,
            ssrcs,
            stream: proposed.stream,
        })
    }

    /// Writes the offer. It leaves the DTLS role to the client (RFC 8842 §5.1), whose answer must take the
    /// active one.
    pub fn write(&self, local: &Local<'_>) -> String {
        let stream = Some(self.stream.as_str());
        answer::write(&self.offer, &self.agreement, local, "actpass", stream)
    }

    /// Our end of the bundle.
    pub fn bundle(&self) -> Bundle {
        Bundle::of(&self.offer, &self.agreement).expect("an offer of ours has a track")
    }

    /// Index and MID of the video m-line.
    pub fn video(&self) -> Option<(usize, &str)> {
        self.offer.video()
    }

    /// Reads the answer; returns what holds, and the usable candidates in it, which are counted and never
    /// dialled.
    ///
    /// # Errors
    /// [`AnswerError`]; another answer may be tried.
    pub fn agree(&self, body: &[u8]) -> Result<(Negotiated, u32), AnswerError> {
        let mut answer = Offer::read(body, "answer", &["active"])?;
        let same = |ours: &OfferedMedia, theirs: &OfferedMedia| {
            ours.media == theirs.media && ours.mid == theirs.mid
        };
        let (ours, theirs) = (&self.offer.media, &mut answer.media);
        let right =
            ours.len() == theirs.len() && ours.iter().zip(&*theirs).all(|(o, t)| same(o, t));
        if !right {
            let message = "the answer's m-lines are not those of the offer, in its order";
            return Err(AnswerError(message.to_owned()));
        }
        for (ours, theirs) in ours.iter().zip(theirs) {
            let Some(kind) = ours.kind else { continue };
            theirs.stopped |= !theirs.direction.receives();
            let proposed = |codec: &_| ours.codecs.iter().any(|known| known.is_same(codec, kind));
            theirs.codecs.retain(proposed);
            theirs.extensions = extensions::common(theirs.extensions, ours.extensions);
        }
        let cname = self.agreement.negotiated.cname.clone();
        let mut negotiated = answer.agree(Role::Viewer, self.ssrcs, cname)?.negotiated;
        if let Some(data_channels) = &mut negotiated.data_channels {
            data_channels.opens = true;
        }
        Ok((negotiated, answer.candidates))
    }
}

/// The m-line of a track, as a client would offer to receive it.
fn track(kind: Kind, wanted: &[Codec], index: usize) -> OfferedMedia {
    let codecs = codecs::propose(kind, wanted);
    OfferedMedia {
        kind: Some(kind),
        media: match kind {
            Kind::Audio => "audio".to_owned(),
            Kind::Video => "video".to_owned(),
        },
        protocol: "UDP/TLS/RTP/SAVPF".to_owned(),
        formats: codecs.iter().map(|codec| codec.pt().to_string()).collect(),
        mid: index.to_string(),
        direction: Direction::RecvOnly,
        stopped: false,
        rtcp_mux: true,
        codecs,
        extensions: extensions::propose(kind),
        ssrc: None,
        rids: Vec::new(),
        streams: Vec::new(),
        data_channels: None,
    }
}

fn data_channels(index: usize) -> OfferedMedia {
    OfferedMedia {
        kind: None,
        media: "application".to_owned(),
        protocol: "UDP/DTLS/SCTP".to_owned(),
        formats: vec!["webrtc-datachannel".to_owned()],
        mid: index.to_string(),
        direction: Direction::SendRecv,
        stopped: false,
        rtcp_mux: true,
        codecs: Vec::new(),
        extensions: Default::default(),
        ssrc: None,
        rids: Vec::new(),
        streams: Vec::new(),
        data_channels: Some(MAX_MESSAGE),
    }
}

#[cfg(test)]
mod tests;
