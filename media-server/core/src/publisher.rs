//! A publisher's session: opens what the device sends and hands it on at once; reports on it and
//! asks it for keyframes and for what was lost.

mod missing;

use crate::cells::Drop;
use crate::clock::{compact, round_trip};
use crate::media::{MediaBatch, MediaPacket, TimeMapping, clock_rate, kind_index};
use crate::negotiated::{Extensions, Kind, PayloadType};
use crate::output::Output;
use crate::rtcp::{self, ReportBlock};
use crate::rtp::{self, keyframe};
use crate::session::{Credentials, Received, Session, SessionConfig, TICK, Transport};
use crate::srtp::{OpenError, Opener};
use crate::stats::{Jitter, Loss, Rates, ticks};
use missing::Missing;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// One keyframe answers every viewer that joined meanwhile, and costs the device several times a
/// normal frame. A request may be lost, or its keyframe: asked again at this pace until one starts.
const KEYFRAME_INTERVAL: Duration = Duration::from_millis(500);
/// A stream silent for this long yields to another of the same payload types.
const SILENT_STREAM: Duration = Duration::from_millis(500);
/// Stands for the round trip until one was measured.
const USUAL_ROUND_TRIP: Duration = Duration::from_millis(100);

/// A stream as received.
struct Stream {
    ssrc: u32,
    source: u64,
    first_seq: u64,
    highest_seq: u64,
    received: u64,
    heard: Instant,
    timestamp: u32,
    jitter: Jitter,
    /// Expected and received at the last report.
    reported: (u64, u64),
    /// Compact NTP time of the last sender report, and when it came.
    sender_report: Option<(u32, Instant)>,
    missing: Missing,
}

struct Track {
    kind: Kind,
    payload_types: Vec<PayloadType>,
    extensions: Extensions,
    stream: Option<Stream>,
}

/// See the module.
pub struct Publisher {
    transport: Transport,
    tracks: Vec<Track>,
    opener: Option<Opener>,
    batch: MediaBatch,
    /// SSRC of our reports.
    ssrc: u32,
    next_source: u64,
    /// Our clock less the device's, in NTP units; one for all tracks, or they would drift apart.
    clock_offset: Option<u64>,
    /// When the last keyframe was asked for, and whether one is still wanted.
    keyframe_asked: Option<Instant>,
    keyframe_wanted: bool,
    tick: Option<Instant>,
    rates: Rates,
    loss: Loss,
}

impl Publisher {
    pub fn new(now: Instant, config: SessionConfig) -> Self {
        let tracks = config.negotiated.tracks.iter().map(|track| Track {
            kind: track.kind,
            payload_types: track.payload_types.clone(),
            extensions: track.extensions,
            stream: None,
        });
        let id = u128::from_be_bytes(config.id.0);
        Publisher {
            tracks: tracks.collect(),
            opener: None,
            batch: MediaBatch::default(),
            ssrc: id as u32 | 1,
            // Sources of different sessions differ in their upper bits.
            next_source: (id as u64) << 8,
            clock_offset: None,
            keyframe_asked: None,
            keyframe_wanted: false,
            tick: None,
            rates: Rates::default(),
            loss: Loss::default(),
            transport: Transport::new(now, config),
        }
    }

    /// What arrived since the last call.
    pub fn take_batch(&mut self) -> MediaBatch {
        let next = self.batch.next();
        std::mem::replace(&mut self.batch, next)
    }

    pub fn has_batch(&self) -> bool {
        !self.batch.is_empty()
    }

    /// Asks the device for a keyframe, now or as soon as the last request is old enough.
    pub fn request_keyframe(&mut self, now: Instant, out: &mut Output) {
        self.keyframe_wanted = true;
        self.ask_for_keyframe(now, out);
    }

    fn ask_for_keyframe(&mut self, now: Instant, out: &mut Output) {
        if !self.keyframe_wanted
            || self
                .keyframe_asked
                .is_some_and(|at| now < at + KEYFRAME_INTERVAL)
        {
            return;
        }
        let stream = self
            .tracks
            .iter()
            .find(|t| t.kind == Kind::Video)
            .and_then(|t| t.stream.as_ref());
        let Some(media) = stream
            .map(|s| s.ssrc)
            .filter(|_| self.transport.media_path().is_some())
        else {
            return;
        };
        let mut compound = rtcp::Writer::default();
        compound.receiver_report(self.ssrc, &[]);
        compound.cname(self.ssrc, "media");
        compound.picture_loss(self.ssrc, media);
        self.transport.send_rtcp(&compound, out);
        out.cells().count_keyframe_request();
        self.keyframe_asked = Some(now);
    }

    /// Next time that a wanted keyframe is asked for.
    fn keyframe_due(&self) -> Option<Instant> {
        let at = self.keyframe_asked.filter(|_| self.keyframe_wanted)?;
        Some(at + KEYFRAME_INTERVAL)
    }

    fn handle_rtp(&mut self, now: Instant, packet: &mut [u8], out: &mut Output) {
        let Some(header) = rtp::Header::parse(packet) else {
            return out.drop(Drop::Malformed);
        };
        let pt = header.payload_type;
        let found = self.tracks.iter_mut().find_map(|track| {
            let agreed = |p: &&PayloadType| p.pt == pt || p.rtx == Some(pt);
            let payload_type = track.payload_types.iter().find(agreed)?.clone();
            Some((track, payload_type))
        });
        let (Some((track, payload_type)), Some(opener)) = (found, self.opener.as_mut()) else {
            return out.drop(Drop::UnknownStream);
        };
        let opened = match opener.open(header.ssrc, header.seq, packet, header.len) {
            Ok(opened) => opened,
            Err(OpenError::Replay) => return out.drop(Drop::SrtpReplay),
            Err(OpenError::Unauthenticated) => return out.drop(Drop::SrtpUnauthenticated),
            Err(OpenError::Streams) => return out.drop(Drop::UnknownStream),
        };
        let (kind, codec) = (track.kind, payload_type.codec);
        let repairs = payload_type.rtx == Some(pt);
        let (stream, seq, payload, new_frame) = if repairs {
            // The original sequence number goes in front of the payload (RFC 4588 §4).
            let Some((original, payload)) = packet[header.len..opened.end].split_first_chunk()
            else {
                return out.drop(Drop::Malformed);
            };
            let Some(stream) = track.stream.as_mut() else {
                return out.drop(Drop::UnknownStream);
            };
            let seq = extend(stream.highest_seq, u16::from_be_bytes(*original));
            if !stream.missing.arrived(seq) {
                // Came twice, or fills the line to probe it.
                return out.drop(Drop::Duplicate);
            }
            stream.heard = now;
            out.cells().count_retransmitted_in();
            (stream, seq, payload, false)
        } else {
            let Some(stream) = track.stream_for(now, &header, opened.index, &mut self.next_source)
            else {
                return out.drop(Drop::UnknownStream);
            };
            let new_frame = stream.received == 0
                || header.timestamp != stream.timestamp && opened.index > stream.highest_seq;
            let given_up =
                stream.handle_packet(now, header.timestamp, opened.index, kind, payload_type.nack);
            out.cells().count_drops(Drop::NackOverflow, given_up);
            let payload = &packet[header.len..opened.end];
            (stream, opened.index, payload, new_frame)
        };
        let source = stream.source;
        self.rates
            .add(payload.len(), (kind == Kind::Video).then_some(new_frame));
        let starts_keyframe = keyframe::starts_keyframe(&codec, payload);
        if starts_keyframe && kind == Kind::Video {
            self.keyframe_wanted = false;
        }
        let mut passed = rtp::Passed::default();
        for (id, value) in header.extensions(packet) {
            let id = Some(id);
            if id == track.extensions.video_orientation {
                passed.video_orientation = value.first().copied();
            } else if id == track.extensions.audio_level {
                passed.audio_level = value.first().copied();
            } else if id == track.extensions.dependency_descriptor {
                passed.dependency_descriptor = Some(value);
            }
        }
        let dependency_descriptor = self
            .batch
            .append(passed.dependency_descriptor.unwrap_or_default());
        let payload = self.batch.append(payload);
        let packet = MediaPacket {
            kind,
            source,
            codec,
            seq,
            timestamp: header.timestamp,
            marker: header.marker,
            padding: header.padding,
            starts_keyframe,
            payload,
            video_orientation: passed.video_orientation,
            audio_level: passed.audio_level,
            dependency_descriptor,
        };
        self.batch.push(now, packet);
        // Until the device has reported, arrival stands for sending.
        let mapping = &mut self.batch.mappings[kind_index(kind)];
        if !repairs && (mapping.is_none_or(|m| m.source != source) || self.clock_offset.is_none()) {
            let ntp = self.transport.clock.ntp(now);
            *mapping = Some(TimeMapping {
                source,
                ntp,
                timestamp: header.timestamp,
            });
        }
    }

    /// Asks again for what did not come.
    fn ask_for_missing(&mut self, now: Instant, out: &mut Output) {
        let round_trip = self.transport.cells.rtt().unwrap_or(USUAL_ROUND_TRIP);
        for stream in self.tracks.iter_mut().filter_map(|t| t.stream.as_mut()) {
            let seqs = stream.missing.ask(now, round_trip);
            if seqs.is_empty() {
                continue;
            }
            let mut compound = rtcp::Writer::default();
            compound.receiver_report(self.ssrc, &[]);
            compound.cname(self.ssrc, "media");
            compound.nack(self.ssrc, stream.ssrc, &seqs);
            self.transport.send_rtcp(&compound, out);
            out.cells().count_nacked_out(seqs.len() as u64);
        }
    }

    /// When the next missing packet is asked for.
    fn missing_due(&self) -> Option<Instant> {
        let streams = self.tracks.iter().filter_map(|t| t.stream.as_ref());
        streams.filter_map(|stream| stream.missing.due()).min()
    }

    fn handle_rtcp(&mut self, now: Instant, compound: &[u8]) {
        let ntp_now = self.transport.clock.ntp(now);
        rtcp::read(compound, |item| match item {
            rtcp::Item::SenderInfo {
                ssrc,
                ntp,
                timestamp,
            } => {
                let of = |t: &&mut Track| t.stream.as_ref().is_some_and(|s| s.ssrc == ssrc);
                let Some(track) = self.tracks.iter_mut().find(of) else {
                    return;
                };
                let Some(stream) = track.stream.as_mut() else {
                    return;
                };
                stream.sender_report = Some((compact(ntp), now));
                let offset = *self.clock_offset.get_or_insert(ntp_now.wrapping_sub(ntp));
                let mapping = TimeMapping {
                    source: stream.source,
                    ntp: ntp.wrapping_add(offset),
                    timestamp,
                };
                self.batch.mappings[kind_index(track.kind)] = Some(mapping);
            }
            rtcp::Item::Dlrr { last_rr, delay } => {
                if let Some(rtt) = round_trip(ntp_now, last_rr, delay) {
                    self.transport.cells.set_rtt(rtt);
                }
            }
            rtcp::Item::Report(_)
            | rtcp::Item::KeyframeRequest { .. }
            | rtcp::Item::Lost { .. } => {}
        });
    }

    /// Each second: receiver report, figures.
    fn tick(&mut self, now: Instant, out: &mut Output) {
        let mut blocks = Vec::with_capacity(2);
        let (mut expected, mut lost) = (0, 0);
        for stream in self.tracks.iter_mut().filter_map(|t| t.stream.as_mut()) {
            let (block, expected_now, lost_now) = stream.report(now);
            blocks.push(block);
            expected += expected_now;
            lost += lost_now;
        }
        let mut compound = rtcp::Writer::default();
        compound.receiver_report(self.ssrc, &blocks);
        compound.cname(self.ssrc, "media");
        compound.receiver_time(self.ssrc, self.transport.clock.ntp(now));
        self.transport.send_rtcp(&compound, out);
        let cells = &self.transport.cells;
        self.loss.add(expected, lost);
        cells.set_loss(self.loss.ratio());
        if let Some((frames, bits)) = self.rates.roll(now) {
            cells.set_rates(frames, bits);
        }
        cells.set_totals(self.rates.packets, self.rates.bytes);
        let video_first = self
            .tracks
            .iter()
            .max_by_key(|t| (t.stream.is_some(), t.kind == Kind::Video));
        if let Some((track, stream)) = video_first.and_then(|t| Some((t, t.stream.as_ref()?))) {
            cells.set_jitter(f64::from(stream.jitter.ticks()) / f64::from(clock_rate(track.kind)));
        }
    }
}

impl Session for Publisher {
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
                self.opener = Some(Opener::new(keys.theirs));
                self.tick = Some(now + TICK);
                self.rates.roll(now);
            }
            Received::Rtp(packet) => {
                self.handle_rtp(now, packet, out);
                // A viewer may have asked before the first packet told whom to ask.
                if self.keyframe_wanted && self.keyframe_asked.is_none() {
                    self.ask_for_keyframe(now, out);
                }
            }
            Received::Rtcp(compound) => self.handle_rtcp(now, compound),
        }
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Output) {
        self.transport.handle_timeout(now, out);
        if self.tick.is_some_and(|at| now >= at) {
            self.tick(now, out);
            self.tick = Some(now + TICK);
        }
        if self.keyframe_due().is_some_and(|at| now >= at) {
            self.ask_for_keyframe(now, out);
        }
        if self.missing_due().is_some_and(|at| now >= at) {
            self.ask_for_missing(now, out);
        }
    }

    fn poll_timeout(&self) -> Instant {
        let own = [self.tick, self.keyframe_due(), self.missing_due()];
        own.into_iter()
            .flatten()
            .fold(self.transport.poll_timeout(), Instant::min)
    }

    fn restart(&mut self, credentials: Credentials) {
        self.transport.restart(credentials);
    }

    fn close(&mut self, now: Instant, out: &mut Output) {
        self.transport.close(now, out);
    }
}

/// The extended sequence number nearest to `highest` that ends in `seq`.
fn extend(highest: u64, seq: u16) -> u64 {
    let step = i64::from(seq.wrapping_sub(highest as u16).cast_signed());
    highest.checked_add_signed(step).unwrap_or(u64::from(seq))
}

impl Track {
    /// The track's stream, if this packet belongs to it. A new SSRC takes over once the old one is
    /// silent; two at a time were not negotiated.
    fn stream_for(
        &mut self,
        now: Instant,
        header: &rtp::Header,
        seq: u64,
        next_source: &mut u64,
    ) -> Option<&mut Stream> {
        match &self.stream {
            Some(stream) if stream.ssrc == header.ssrc => {}
            Some(stream) if now < stream.heard + SILENT_STREAM => return None,
            _ => {
                *next_source = next_source.wrapping_add(1);
                self.stream = Some(Stream {
                    ssrc: header.ssrc,
                    source: *next_source,
                    first_seq: seq,
                    highest_seq: seq,
                    received: 0,
                    heard: now,
                    timestamp: header.timestamp,
                    jitter: Jitter::default(),
                    reported: (0, 0),
                    sender_report: None,
                    missing: Missing::default(),
                });
            }
        }
        self.stream.as_mut()
    }
}

impl Stream {
    /// Returns how many missing packets had to be given up for new ones.
    fn handle_packet(
        &mut self,
        now: Instant,
        timestamp: u32,
        seq: u64,
        kind: Kind,
        nack: bool,
    ) -> u64 {
        let mut given_up = 0;
        if nack && self.received > 0 && seq > self.highest_seq + 1 {
            given_up = self.missing.gap(now, self.highest_seq + 1..seq);
        } else if nack && seq < self.highest_seq {
            self.missing.arrived(seq);
        }
        self.received += 1;
        self.heard = now;
        self.first_seq = self.first_seq.min(seq);
        if seq >= self.highest_seq {
            self.highest_seq = seq;
            self.timestamp = timestamp;
        }
        self.jitter.add(now, timestamp, clock_rate(kind));
        given_up
    }

    /// The report block (RFC 3550 appendix A.3), with what was expected and lost since the last.
    fn report(&mut self, now: Instant) -> (ReportBlock, u32, u32) {
        let expected = self.highest_seq - self.first_seq + 1;
        let expected_now = expected.saturating_sub(self.reported.0);
        let received_now = self.received.saturating_sub(self.reported.1);
        self.reported = (expected, self.received);
        let lost_now = expected_now.saturating_sub(received_now);
        let block = ReportBlock {
            ssrc: self.ssrc,
            fraction_lost: (lost_now * 256)
                .checked_div(expected_now)
                .unwrap_or(0)
                .min(255) as u8,
            total_lost: (expected as i64 - self.received as i64).clamp(-0x80_0000, 0x7f_ffff)
                as i32,
            highest_seq: self.highest_seq as u32,
            jitter: self.jitter.ticks(),
            last_sr: self.sender_report.map_or(0, |(ntp, _)| ntp),
            delay: self.sender_report.map_or(0, |(_, at)| {
                ticks(now.saturating_duration_since(at), 65_536)
            }),
        };
        (
            block,
            expected_now.min(u64::from(u32::MAX)) as u32,
            lost_now.min(u64::from(u32::MAX)) as u32,
        )
    }
}

#[cfg(test)]
mod tests;
