//! A viewer's session: gives each packet of a publisher the header that this viewer negotiated,
//! seals it, and reports on what it sent.
//!
//! To the viewer its streams never break: when one publisher succeeds another, sequence numbers and
//! timestamps go on, and video resumes with a keyframe.

use crate::cells::Drop;
use crate::clock::round_trip;
use crate::media::{MediaBatch, MediaPacket, TimeMapping, clock_rate};
use crate::negotiated::{Codec, Extensions, Kind, PayloadType};
use crate::output::{End, Output, SessionEvent};
use crate::rtcp::{self, ReportBlock};
use crate::rtp::{self, Outgoing, Passed};
use crate::session::{Received, Session, SessionConfig, TICK, Transport};
use crate::srtp::{MAX_TAG, Sealer};
use crate::stats::{Loss, Rates, ticks};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long a viewer waits for a publisher.
const PUBLISHER_LIMIT: Duration = Duration::from_secs(30);
/// First sequence numbers are random below this, so that the roll-over count is 0 for any receiver
/// that misses the first packets (RFC 3711 §3.3.1).
const MAX_FIRST_SEQ: u64 = 1 << 15;

/// Maps one source onto the viewer's stream.
#[derive(Debug, Clone, Copy)]
struct Attached {
    source: u64,
    /// Packets below were withheld, or came too late.
    first_seq: u64,
    /// Added to the source's sequence number.
    seq_offset: u64,
    timestamp_offset: u32,
}

struct Track {
    kind: Kind,
    ssrc: u32,
    mid: Box<str>,
    payload_types: Vec<PayloadType>,
    extensions: Extensions,
    /// The publisher's codec of the last packet and our payload type for it, if negotiated.
    codec: Option<(Codec, Option<u8>)>,
    attached: Option<Attached>,
    /// Source whose deltas are withheld.
    waiting: Option<u64>,
    next_seq: u64,
    last: Option<(u32, Instant)>,
    mapping: Option<TimeMapping>,
    /// Sent until a report shows that the viewer knows the SSRC.
    send_mid: bool,
    packets: u32,
    octets: u32,
    /// Highest sequence number and total loss of the last report block.
    reported: Option<(u32, i32)>,
}

/// See the module.
pub struct Viewer {
    transport: Transport,
    tracks: Vec<Track>,
    sealer: Option<Sealer>,
    cname: Box<str>,
    /// Since when there is no publisher.
    orphaned: Option<Instant>,
    tick: Option<Instant>,
    rates: Rates,
    loss: Loss,
}

impl Viewer {
    /// The viewer waits for a publisher until [`set_publisher_live`](Self::set_publisher_live).
    pub fn new(now: Instant, config: SessionConfig) -> Self {
        let id = u128::from_be_bytes(config.id.0);
        let tracks = config
            .negotiated
            .tracks
            .iter()
            .enumerate()
            .map(|(at, track)| {
                // The id is random in all but a few bits, and no two tracks may start alike.
                let random = (id >> (16 * at)) as u64;
                Track {
                    kind: track.kind,
                    ssrc: track.ssrc.unwrap_or((random as u32) ^ at as u32),
                    mid: track.mid.as_str().into(),
                    payload_types: track.payload_types.clone(),
                    extensions: track.extensions,
                    codec: None,
                    attached: None,
                    waiting: None,
                    next_seq: random % MAX_FIRST_SEQ,
                    last: None,
                    mapping: None,
                    send_mid: true,
                    packets: 0,
                    octets: 0,
                    reported: None,
                }
            });
        Viewer {
            tracks: tracks.collect(),
            sealer: None,
            cname: config.negotiated.cname.as_str().into(),
            orphaned: Some(now),
            tick: None,
            rates: Rates::default(),
            loss: Loss::default(),
            transport: Transport::new(now, config),
        }
    }

    /// Whether there is a publisher to wait for.
    pub fn set_publisher_live(&mut self, now: Instant, live: bool) {
        self.orphaned = if live {
            None
        } else {
            self.orphaned.or(Some(now))
        };
    }

    /// Whether video cannot start or go on without a keyframe.
    pub fn wants_keyframe(&self) -> bool {
        self.sealer.is_some()
            && self
                .tracks
                .iter()
                .any(|t| t.kind == Kind::Video && t.needs_keyframe())
    }

    /// Sends what this viewer may get of a batch. The slab must have room for
    /// [`MediaBatch::max_sent_bytes`]. Returns whether the viewer now waits for a keyframe and did
    /// not before.
    pub fn forward(&mut self, now: Instant, batch: &MediaBatch, out: &mut Output) -> bool {
        let waited = self.is_withholding();
        let Some(to) = self.transport.media_path() else {
            return false;
        };
        let Some(sealer) = self.sealer.as_mut() else {
            return false;
        };
        for packet in batch.packets() {
            let Some(track) = self.tracks.iter_mut().find(|t| t.kind == packet.kind) else {
                continue;
            };
            let payload = batch.slice(&packet.payload);
            let (pt, index, timestamp) = match track.admit(now, packet) {
                Ok(admitted) => admitted,
                Err(reason) => {
                    out.drop(reason);
                    continue;
                }
            };
            let fields = Outgoing {
                padding: packet.padding,
                marker: packet.marker,
                payload_type: pt,
                seq: index as u16,
                timestamp,
                ssrc: track.ssrc,
            };
            let descriptor = batch.slice(&packet.dependency_descriptor);
            let passed = Passed {
                mid: track.send_mid.then_some(track.mid.as_bytes()),
                video_orientation: packet.video_orientation,
                audio_level: packet.audio_level,
                dependency_descriptor: (!descriptor.is_empty()).then_some(descriptor),
            };
            let max = rtp::MAX_HEADER + payload.len() + MAX_TAG;
            if !self.transport.spend(payload.len()) {
                out.drop(Drop::UnprovenPath);
                continue;
            }
            let sent = out.slab.write(to, max, |room| {
                let header = rtp::write_header(room, &fields, &track.extensions, &passed)?;
                let body = header + payload.len();
                room.get_mut(header..body)?.copy_from_slice(payload);
                let packet = room.get_mut(..body + sealer.tag_len())?;
                sealer.seal(track.ssrc, index, packet, header).ok()?;
                Some(packet.len())
            });
            if sent.is_some() {
                let new_frame = track.last.is_none_or(|(last, _)| last != timestamp);
                track.sent(now, timestamp, payload.len());
                self.rates
                    .add(payload.len(), new_frame && track.kind == Kind::Video);
            }
        }
        for track in &mut self.tracks {
            let attached = track.attached.map(|a| a.source);
            track.mapping = batch
                .mapping(track.kind)
                .filter(|m| Some(m.source) == attached)
                .or(track.mapping);
        }
        !waited && self.is_withholding()
    }

    fn is_withholding(&self) -> bool {
        self.tracks.iter().any(|t| t.waiting.is_some())
    }

    fn handle_rtcp(&mut self, now: Instant, compound: &[u8], out: &mut Output) {
        let ntp = self.transport.clock.ntp(now);
        let mut keyframe = false;
        rtcp::read(compound, |item| match item {
            rtcp::Item::Report(block) => {
                let Some(track) = self.tracks.iter_mut().find(|t| t.ssrc == block.ssrc) else {
                    return;
                };
                if let Some(rtt) = round_trip(ntp, block.last_sr, block.delay) {
                    self.transport.cells.set_rtt(rtt);
                }
                if let Some((expected, lost)) = track.handle_report(&block) {
                    self.loss.add(expected, lost);
                    self.transport.cells.set_loss(self.loss.ratio());
                }
                if track.kind == Kind::Video || self.tracks.len() == 1 {
                    let rate = self
                        .tracks
                        .iter()
                        .find(|t| t.ssrc == block.ssrc)
                        .map_or(90_000, |t| clock_rate(t.kind));
                    self.transport
                        .cells
                        .set_jitter(f64::from(block.jitter) / f64::from(rate));
                }
            }
            rtcp::Item::KeyframeRequest { ssrc } => {
                keyframe |= self
                    .tracks
                    .iter()
                    .any(|t| t.ssrc == ssrc && t.kind == Kind::Video);
            }
            rtcp::Item::SenderInfo { .. } | rtcp::Item::Dlrr { .. } => {}
        });
        if keyframe {
            out.events.push(SessionEvent::KeyframeWanted);
        }
    }

    /// Each second: sender reports, figures, and whether there is still something to wait for.
    fn tick(&mut self, now: Instant, out: &mut Output) {
        let ntp = self.transport.clock.ntp(now);
        let mut compound = rtcp::Writer::default();
        for track in self.tracks.iter().filter(|t| t.packets > 0) {
            if let Some(timestamp) = track.timestamp_at(ntp) {
                compound.sender_report(track.ssrc, ntp, timestamp, track.packets, track.octets);
                compound.cname(track.ssrc, &self.cname);
            }
        }
        self.transport.send_rtcp(&compound, out);
        if let Some((frames, bits)) = self.rates.roll(now) {
            self.transport.cells.set_rates(frames, bits);
        }
        self.transport
            .cells
            .set_totals(self.rates.packets, self.rates.bytes);
        if self.orphaned.is_none() && self.wants_keyframe() {
            out.events.push(SessionEvent::KeyframeWanted);
        }
    }
}

impl Session for Viewer {
    fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &mut [u8],
        out: &mut Output,
    ) {
        match self.transport.handle_datagram(now, from, datagram, out) {
            Received::Nothing => {}
            Received::Keyed(keys) => {
                self.sealer = Some(Sealer::new(keys.ours));
                self.tick = Some(now + TICK);
                self.rates.roll(now);
                if self.wants_keyframe() {
                    out.events.push(SessionEvent::KeyframeWanted);
                }
            }
            // A viewer has nothing to send.
            Received::Rtp(_) => out.drop(Drop::UnknownStream),
            Received::Rtcp(compound) => self.handle_rtcp(now, compound, out),
        }
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Output) {
        self.transport.handle_timeout(now, out);
        if self.tick.is_some_and(|at| now >= at) {
            self.tick(now, out);
            self.tick = Some(now + TICK);
        }
        if self.transport.is_keyed() && self.orphaned.is_some_and(|at| now >= at + PUBLISHER_LIMIT)
        {
            self.transport.end(End::PublisherGone, out);
        }
    }

    fn poll_timeout(&self) -> Instant {
        let orphaned = self
            .orphaned
            .filter(|_| self.transport.is_keyed())
            .map(|at| at + PUBLISHER_LIMIT);
        [self.tick, orphaned]
            .into_iter()
            .flatten()
            .fold(self.transport.poll_timeout(), Instant::min)
    }

    fn close(&mut self, now: Instant, out: &mut Output) {
        self.transport.close(now, out);
    }
}

impl Track {
    fn needs_keyframe(&self) -> bool {
        self.attached.is_none() || self.waiting.is_some()
    }

    /// Payload type, index and timestamp under which the packet goes out, or why it does not.
    fn admit(&mut self, now: Instant, packet: &MediaPacket) -> Result<(u8, u64, u32), Drop> {
        let changed = self
            .codec
            .as_ref()
            .is_none_or(|(codec, _)| *codec != packet.codec);
        if changed {
            let pt = payload_type(&self.payload_types, &packet.codec);
            self.codec = Some((packet.codec.clone(), pt));
        }
        let pt = self
            .codec
            .as_ref()
            .and_then(|(_, pt)| *pt)
            .ok_or(Drop::CodecMismatch)?;
        let same_source = self.attached.filter(|a| a.source == packet.source);
        let is_video = self.kind == Kind::Video;
        let attached = match same_source {
            Some(attached) if !(changed && is_video) && self.waiting.is_none() => attached,
            _ if is_video && !packet.starts_keyframe => {
                self.waiting = Some(packet.source);
                return Err(Drop::NoKeyframe);
            }
            before => self.attach(now, packet, before.map(|a| a.timestamp_offset)),
        };
        if packet.seq < attached.first_seq {
            return Err(Drop::NoKeyframe);
        }
        let index = packet.seq.wrapping_add(attached.seq_offset);
        self.next_seq = self.next_seq.max(index + 1);
        Ok((
            pt,
            index,
            packet.timestamp.wrapping_add(attached.timestamp_offset),
        ))
    }

    /// Goes on with this packet, right behind what was sent last.
    fn attach(
        &mut self,
        now: Instant,
        packet: &MediaPacket,
        timestamp_offset: Option<u32>,
    ) -> Attached {
        let timestamp_offset = timestamp_offset.unwrap_or_else(|| match self.last {
            // The time that passed, and at least a tick, so that no two frames share a timestamp.
            Some((last, at)) => {
                let passed = ticks(now.saturating_duration_since(at), clock_rate(self.kind)).max(1);
                last.wrapping_add(passed).wrapping_sub(packet.timestamp)
            }
            None => self.ssrc.rotate_left(13),
        });
        let attached = Attached {
            source: packet.source,
            first_seq: packet.seq,
            seq_offset: self.next_seq.wrapping_sub(packet.seq),
            timestamp_offset,
        };
        self.attached = Some(attached);
        self.waiting = None;
        self.mapping = None;
        attached
    }

    fn sent(&mut self, now: Instant, timestamp: u32, payload: usize) {
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(payload as u32);
        let newer = self
            .last
            .is_none_or(|(last, _)| timestamp.wrapping_sub(last).cast_signed() >= 0);
        if newer {
            self.last = Some((timestamp, now));
        }
    }

    /// Our timestamp for a moment, from the publisher's sender reports.
    fn timestamp_at(&self, ntp: u64) -> Option<u32> {
        let (attached, mapping) = (self.attached?, self.mapping?);
        let since = i128::from(ntp.wrapping_sub(mapping.ntp).cast_signed());
        let passed = (since * i128::from(clock_rate(self.kind))) >> 32;
        Some(
            mapping
                .timestamp
                .wrapping_add(attached.timestamp_offset)
                .wrapping_add(passed as u32),
        )
    }

    /// Packets expected and lost since the last report.
    fn handle_report(&mut self, block: &ReportBlock) -> Option<(u32, u32)> {
        self.send_mid = false;
        let (highest, lost) = self
            .reported
            .replace((block.highest_seq, block.total_lost))?;
        let expected = block.highest_seq.wrapping_sub(highest);
        // Reports that overtook each other count backwards.
        (expected < 1 << 24).then(|| {
            (
                expected,
                block.total_lost.saturating_sub(lost).max(0).cast_unsigned(),
            )
        })
    }
}

/// The viewer's payload type for a publisher's codec: the same codec, or H.264 of another profile
/// in the same packetization mode, which decoders cope with.
fn payload_type(own: &[PayloadType], codec: &Codec) -> Option<u8> {
    let mode = |codec: &Codec| match codec {
        Codec::H264 {
            packetization_mode, ..
        } => Some(*packetization_mode),
        _ => None,
    };
    let same = own.iter().find(|p| p.codec == *codec);
    let similar = || {
        own.iter()
            .find(|p| mode(codec).is_some() && mode(&p.codec) == mode(codec))
    };
    same.or_else(similar).map(|p| p.pt)
}

#[cfg(test)]
mod tests;
