//! One track of a viewer: under which numbers and times a publisher's packets go out.
//!
//! Pure bookkeeping, sends nothing. To the viewer its stream never breaks: a new source goes on right
//! behind what was sent last.

use super::thinning::Thinning;
use crate::cells::Drop;
use crate::media::{MediaBatch, MediaPacket, TimeMapping, clock_rate};
use crate::negotiated::{self, Codec, Extensions, Kind, PayloadType};
use crate::ring::Start;
use crate::rtcp::ReportBlock;
use crate::rtp::Passed;
use crate::rtp::numbering::Numbers;
use crate::stats::ticks;
use std::collections::VecDeque;
use std::time::Instant;

/// First sequence numbers are random below this, so that the roll-over count is 0 for any receiver
/// that misses the first packets (RFC 3711 §3.3.1).
pub(super) const MAX_FIRST_SEQ: u64 = 1 << 15;
/// Segments remembered for retransmissions. One begins with a keyframe, or behind a picture that was
/// left out; every other one of 30 a second makes these four seconds.
const MAX_SEGMENTS: usize = 64;
/// Frames that a viewer gets at once when it joins are this much closer in time than they were taken.
/// Receivers show a frame when its timestamp is due: at their own distance the viewer would lag behind
/// by the age of the keyframe. Frames 8 ms apart still differ, by 22 ticks.
const SQUEEZE: u32 = 32;

/// Packets of one source, mapped onto the viewer's stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) source: u64,
    /// Packets below were withheld, or came too late.
    first_seq: u64,
    /// Added to the source's sequence number.
    seq_offset: u64,
    timestamp_offset: u32,
    /// The source's timestamps before this one are squeezed towards it.
    squeezed_to: Option<u32>,
    /// Added to the numbers that payloads have.
    pub(super) shift: Numbers,
    /// It goes on with the source of the segment before, behind something that was left out.
    continues: bool,
}

impl Segment {
    fn index(&self, seq: u64) -> u64 {
        seq.wrapping_add(self.seq_offset)
    }

    pub(super) fn seq(&self, index: u64) -> u64 {
        index.wrapping_sub(self.seq_offset)
    }

    pub(super) fn timestamp(&self, timestamp: u32) -> u32 {
        squeezed(timestamp, self.squeezed_to).wrapping_add(self.timestamp_offset)
    }
}

fn squeezed(timestamp: u32, to: Option<u32>) -> u32 {
    let Some(to) = to else { return timestamp };
    match to.wrapping_sub(timestamp).cast_signed() {
        ahead @ 1.. => to.wrapping_sub(ahead.cast_unsigned() / SQUEEZE),
        _ => timestamp,
    }
}

/// Under what a packet goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Admitted {
    pub(super) pt: u8,
    pub(super) index: u64,
    pub(super) timestamp: u32,
    /// Added to the payload's numbers.
    pub(super) shift: Numbers,
    pub(super) body: Body,
}

/// What goes out of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Whole,
    /// Redundant audio, whose blocks are of this payload type.
    Redundant(u8),
    /// The newest block of redundant audio: all that a viewer without RED can take.
    Primary,
}

pub(super) struct Track {
    pub(super) kind: Kind,
    pub(super) ssrc: u32,
    pub(super) mid: Box<str>,
    payload_types: Vec<PayloadType>,
    pub(super) extensions: Extensions,
    /// The publisher's codec of the last packet and ours for it, if negotiated.
    codec: Option<(Codec, Option<PayloadType>)>,
    body: Body,
    /// The last one is in use.
    segments: VecDeque<Segment>,
    /// Source whose deltas are withheld.
    pub(super) waiting: Option<u64>,
    /// Next packet to send from the ring, while the track is behind the source.
    pub(super) cursor: Option<u64>,
    next_seq: u64,
    /// The first of all.
    begun: u64,
    /// Numbers of the newest packet sent, as the viewer has them.
    numbers: Option<Numbers>,
    pub(super) thinning: Thinning,
    pub(super) last: Option<(u32, Instant)>,
    pub(super) mapping: Option<TimeMapping>,
    /// Sent until a report shows that the viewer knows the SSRC.
    pub(super) send_mid: bool,
    pub(super) packets: u32,
    pub(super) octets: u32,
    /// Highest sequence number and total loss of the last report block.
    reported: Option<(u32, i32)>,
}

impl Track {
    /// `random` decides the first sequence number, and the SSRC if none was agreed on.
    pub(super) fn new(agreed: &negotiated::Track, random: u64) -> Self {
        Track {
            kind: agreed.kind,
            ssrc: agreed.ssrc.unwrap_or(random as u32),
            mid: agreed.mid.as_str().into(),
            payload_types: agreed.payload_types.clone(),
            extensions: agreed.extensions,
            codec: None,
            body: Body::Whole,
            segments: VecDeque::new(),
            waiting: None,
            cursor: None,
            next_seq: random % MAX_FIRST_SEQ,
            begun: random % MAX_FIRST_SEQ,
            numbers: None,
            thinning: Thinning::default(),
            last: None,
            mapping: None,
            send_mid: true,
            packets: 0,
            octets: 0,
            reported: None,
        }
    }

    /// What the viewer's header repeats of the publisher's, and its number on the path.
    pub(super) fn passed<'a>(
        &'a self,
        batch: &'a MediaBatch,
        packet: &MediaPacket,
        frame_shift: u16,
        transport_seq: u16,
    ) -> Passed<'a> {
        let descriptor = batch.slice(&packet.dependency_descriptor);
        Passed {
            mid: self.send_mid.then_some(self.mid.as_bytes()),
            video_orientation: packet.video_orientation,
            audio_level: packet.audio_level,
            dependency_descriptor: (!descriptor.is_empty()).then_some(descriptor),
            frame_shift,
            transport_seq: Some(transport_seq),
        }
    }

    /// Whether nothing goes out before the next keyframe. One of a codec that the viewer lacks would
    /// not help it.
    pub(super) fn needs_keyframe(&self) -> bool {
        let lacking = matches!(self.codec, Some((_, None)));
        !lacking && (self.segments.is_empty() || self.waiting.is_some())
    }

    /// The source whose packets go out.
    pub(super) fn source(&self) -> Option<u64> {
        self.segments.back().map(|s| s.source)
    }

    /// Whether the packet is still to come from the ring.
    pub(super) fn is_behind(&self, packet: &MediaPacket) -> bool {
        self.cursor.is_some_and(|cursor| packet.seq >= cursor)
            && self.source() == Some(packet.source)
    }

    /// Our payload type for a codec of the publisher.
    pub(super) fn payload_type(&self, codec: &Codec) -> Option<&PayloadType> {
        payload_type(&self.payload_types, codec)
    }

    /// Under what the packet goes out, or why it does not; without a reason it is one of those that the
    /// viewer should not get. A video track that begins here is behind from this packet on. `mapping`
    /// is that of the packet's source.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        packet: &MediaPacket,
        mapping: Option<TimeMapping>,
    ) -> Result<Admitted, Option<Drop>> {
        let changed = self
            .codec
            .as_ref()
            .is_none_or(|(codec, _)| *codec != packet.codec);
        if changed {
            let (own, body) = self.form(&packet.codec);
            self.codec = Some((packet.codec.clone(), own));
            self.body = body;
        }
        let own = self.codec.as_ref().and_then(|(_, own)| own.as_ref());
        let pt = own.ok_or(Some(Drop::CodecMismatch))?.pt;
        let current = self.segments.back().copied();
        let same_source = current.filter(|s| s.source == packet.source);
        let is_video = self.kind == Kind::Video;
        let segment = match same_source {
            Some(segment) if !(changed && is_video) && self.waiting.is_none() => segment,
            _ if is_video && !packet.starts_keyframe => {
                self.withhold(packet.source);
                return Err(Some(Drop::NoKeyframe));
            }
            _ => self.attach(now, packet, mapping, None),
        };
        let segment = if packet.seq < segment.first_seq {
            self.segment_of_late(packet.seq)
                .ok_or(Some(Drop::NoKeyframe))?
        } else {
            segment
        };
        let index = segment.index(packet.seq);
        if index >= self.next_seq {
            if is_video && self.thinning.leaves_out(packet) {
                self.leave_out(packet, segment);
                return Err(self.thinning.reason());
            }
            self.next_seq = index + 1;
            self.numbers = Some(packet.numbering.numbers.moved(segment.shift));
        }
        Ok(Admitted {
            pt,
            index,
            timestamp: segment.timestamp(packet.timestamp),
            shift: segment.shift,
            body: self.body,
        })
    }

    /// Our payload type for a codec of the publisher, and what goes out under it.
    fn form(&self, codec: &Codec) -> (Option<PayloadType>, Body) {
        let own = |codec: &Codec| self.payload_type(codec).cloned();
        match (codec, own(codec)) {
            // RED is negotiated for audio alone, and never without Opus.
            (Codec::Red, Some(red)) => {
                let blocks = own(&Codec::Opus).map(|opus| Body::Redundant(opus.pt));
                (Some(red), blocks.unwrap_or(Body::Whole))
            }
            (Codec::Red, None) => (own(&Codec::Opus), Body::Primary),
            (_, own) => (own, Body::Whole),
        }
    }

    /// Nothing of this source goes out before a keyframe.
    pub(super) fn withhold(&mut self, source: u64) {
        self.waiting = Some(source);
        self.cursor = None;
    }

    /// Begins with a keyframe of the ring, whose first packet is `first`; `false` if the viewer lacks
    /// its codec.
    pub(super) fn start(&mut self, now: Instant, first: &MediaPacket, start: Start) -> bool {
        let own = self.payload_type(&first.codec).cloned();
        let known = own.is_some();
        self.codec = Some((first.codec.clone(), own));
        if known {
            let newest = Some(start.newest);
            self.attach(now, first, None, newest);
        }
        known
    }

    /// Goes on with a later keyframe of the same source.
    pub(super) fn go_on(&mut self, now: Instant, first: &MediaPacket) {
        self.attach(now, first, None, None);
    }

    /// Whether the packet is newer than all that went out of its source.
    pub(super) fn goes_on_with(&self, packet: &MediaPacket) -> bool {
        self.waiting.is_none()
            && self.segments.back().is_some_and(|s| {
                s.source == packet.source
                    && packet.seq >= s.first_seq
                    && s.index(packet.seq) >= self.next_seq
            })
    }

    /// The payload type of retransmissions for the codec in use.
    pub(super) fn current_rtx(&self) -> Option<u8> {
        self.codec.as_ref()?.1.as_ref()?.rtx
    }

    /// Goes on with this packet, right behind what was sent last. Timestamps before `squeezed_to` are
    /// squeezed.
    fn attach(
        &mut self,
        now: Instant,
        first: &MediaPacket,
        mapping: Option<TimeMapping>,
        squeezed_to: Option<u32>,
    ) -> Segment {
        let MediaPacket { source, seq, .. } = *first;
        let current = self.segments.back().copied();
        let same_source = current.filter(|s| s.source == source && squeezed_to.is_none());
        let timestamp_offset = match (same_source, self.last) {
            (Some(segment), _) => segment.timestamp_offset,
            // The time that passed, and at least a tick, so that no two frames share a timestamp.
            (None, Some((last, at))) => {
                let rate = clock_rate(self.kind);
                let passed = self
                    .taken_after(last, first, mapping)
                    .unwrap_or_else(|| ticks(now.saturating_duration_since(at), rate))
                    .max(1);
                last.wrapping_add(passed)
                    .wrapping_sub(squeezed(first.timestamp, squeezed_to))
            }
            (None, None) => self.ssrc.rotate_left(13),
        };
        let numbers = first.numbering.numbers;
        let segment = Segment {
            source,
            first_seq: seq,
            seq_offset: self.next_seq.wrapping_sub(seq),
            timestamp_offset,
            squeezed_to,
            shift: self
                .numbers
                .map_or_else(Numbers::default, |sent| sent.distance_to_follow(numbers)),
            continues: false,
        };
        if self.kind == Kind::Audio {
            // Nothing of it is asked for again.
            self.segments.clear();
        }
        self.push(segment);
        self.waiting = None;
        self.mapping = None;
        if self.kind == Kind::Video {
            self.cursor = Some(seq);
        }
        segment
    }

    /// Ticks from the frame sent last to this one of another layer, by the device's own clock; arrival
    /// would add the jitter of both. `None` if the layers' clocks are not known, or contradict it.
    fn taken_after(
        &self,
        last: u32,
        first: &MediaPacket,
        mapping: Option<TimeMapping>,
    ) -> Option<u32> {
        // Sources of one publisher differ in their low bits.
        let other_layer = |source: u64| source != first.source && source >> 8 == first.source >> 8;
        self.source().filter(|source| other_layer(*source))?;
        let mapping = mapping.filter(|m| m.source == first.source)?;
        let ticks = first
            .timestamp
            .wrapping_sub(mapping.timestamp)
            .cast_signed();
        let rate = i64::from(clock_rate(self.kind));
        let taken = mapping
            .ntp
            .wrapping_add_signed((i64::from(ticks) << 32) / rate);
        let passed = self.timestamp_at(taken)?.wrapping_sub(last).cast_signed();
        (-rate..10 * rate)
            .contains(&i64::from(passed))
            .then(|| passed.max(0).cast_unsigned())
    }

    fn push(&mut self, segment: Segment) {
        if self.segments.len() == MAX_SEGMENTS {
            self.segments.pop_front();
        }
        self.segments.push_back(segment);
    }

    /// Closes the numbers up behind a packet that the viewer does not get.
    fn leave_out(&mut self, packet: &MediaPacket, segment: Segment) {
        let mut after = Segment {
            first_seq: packet.seq + 1,
            seq_offset: segment.seq_offset.wrapping_sub(1),
            continues: true,
            ..segment
        };
        if self.thinning.is_first_of_picture(packet) {
            after.shift.picture = after.shift.picture.wrapping_sub(1);
        }
        match self.segments.back_mut() {
            // Nothing was sent of it.
            Some(last) if last.continues && last.first_seq == packet.seq => *last = after,
            _ => self.push(after),
        }
    }

    /// The segment of a packet that came after later ones. It has none if it came before the keyframe
    /// that the viewer began with, or was left out.
    fn segment_of_late(&self, seq: u64) -> Option<Segment> {
        let mut end = u64::MAX;
        for segment in self.segments.iter().rev() {
            if segment.first_seq <= seq {
                return (segment.index(seq) < end).then_some(*segment);
            }
            if !segment.continues {
                return None;
            }
            end = segment.index(segment.first_seq);
        }
        None
    }

    /// Whether a packet that came after later ones would go out if more segments were remembered.
    pub(super) fn has_forgotten(&self, packet: &MediaPacket) -> bool {
        let oldest = self.segments.front().filter(|s| s.continues);
        oldest.is_some_and(|s| s.source == packet.source && packet.seq < s.first_seq)
    }

    /// Whether a packet went out under that sequence number, and nobody remembers which.
    pub(super) fn has_forgotten_seq(&self, seq: u16) -> bool {
        let behind = u64::from((self.next_seq as u16).wrapping_sub(seq));
        let oldest = self.segments.front().map(|s| s.index(s.first_seq));
        let index = self.next_seq.checked_sub(behind);
        index.is_some_and(|index| {
            behind < 1 << 15 && index >= self.begun && oldest.is_some_and(|oldest| index < oldest)
        })
    }

    /// The index that went out under a sequence number, and the segment it is of, if that is known.
    pub(super) fn sent_as(&self, seq: u16) -> Option<(Segment, u64)> {
        let newest = self.next_seq.checked_sub(1)?;
        let step = i64::from(seq.wrapping_sub(newest as u16).cast_signed());
        let index = newest.checked_add_signed(step).filter(|i| *i <= newest)?;
        let segment = self
            .segments
            .iter()
            .rev()
            .find(|s| s.index(s.first_seq) <= index)?;
        Some((*segment, index))
    }

    /// Segments remembered, and how many they may be.
    #[cfg(test)]
    pub(super) fn held(&self) -> (&'static str, usize, usize) {
        ("segments", self.segments.len(), MAX_SEGMENTS)
    }

    pub(super) fn sent(&mut self, now: Instant, timestamp: u32, payload: usize) {
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(payload as u32);
        let same = self.last.is_some_and(|(last, _)| last == timestamp);
        if same || self.is_newer(timestamp) {
            self.last = Some((timestamp, now));
        }
    }

    /// Whether the timestamp is after all that was sent.
    pub(super) fn is_newer(&self, timestamp: u32) -> bool {
        self.last
            .is_none_or(|(last, _)| timestamp.wrapping_sub(last).cast_signed() > 0)
    }

    /// Our timestamp for a moment, from the publisher's sender reports.
    pub(super) fn timestamp_at(&self, ntp: u64) -> Option<u32> {
        let (segment, mapping) = (self.segments.back()?, self.mapping?);
        let since = i128::from(ntp.wrapping_sub(mapping.ntp).cast_signed());
        let passed = (since * i128::from(clock_rate(self.kind))) >> 32;
        Some(
            mapping
                .timestamp
                .wrapping_add(segment.timestamp_offset)
                .wrapping_add(passed as u32),
        )
    }

    /// Packets expected and lost since the last report.
    pub(super) fn handle_report(&mut self, block: &ReportBlock) -> Option<(u32, i32)> {
        self.send_mid = false;
        let (highest, lost) = self
            .reported
            .replace((block.highest_seq, block.total_lost))?;
        let expected = block.highest_seq.wrapping_sub(highest);
        // Reports that overtook each other count backwards.
        (expected < 1 << 24).then(|| {
            // Less than before if some were only late: each report on its own counts those as lost.
            (expected, block.total_lost.saturating_sub(lost))
        })
    }
}

/// The viewer's payload type for a publisher's codec: the same codec, or one like it.
pub(super) fn payload_type<'a>(own: &'a [PayloadType], codec: &Codec) -> Option<&'a PayloadType> {
    let same = own.iter().find(|p| p.codec == *codec);
    same.or_else(|| own.iter().find(|p| p.codec.is_like(codec)))
}
