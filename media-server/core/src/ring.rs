//! The last packets of one video stream: what a viewer that joins starts with, and what a viewer that
//! lost packets gets again.
//!
//! One for each device on each shard that has viewers of it. Holds the publisher's batches by
//! reference, so that shards share the bytes. Never sends: viewers read from it.

use crate::media::{MediaBatch, MediaPacket};
use crate::negotiated::Kind;
use crate::stats::{TemporalCount, TemporalRates};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Packets, a power of two: 2.3 s of 10 Mbit/s in packets of 1 200 bytes, at 16 bytes a slot.
const CAPACITY: u64 = 2048;
/// Bytes of a ring that is watched. Fewer would lose the keyframe of a long group of pictures.
pub const WATCHED_BYTES: usize = 4 << 20;
/// Bytes of a ring that nobody watches, or that had to shrink.
pub const IDLE_BYTES: usize = 512 << 10;
/// Packets older than the last keyframe are kept this long: a viewer asks again for a second at most.
const REPAIR_TIME: Duration = Duration::from_secs(1);
/// A rate is told from no less.
const MIN_SPAN: Duration = Duration::from_millis(200);
/// A viewer joins from the ring if it gets no more than this; else a new keyframe is cheaper.
const MAX_JOIN_BYTES: usize = 1 << 20;
const MAX_JOIN_FRAMES: usize = 90;

struct Slot {
    batch: Arc<MediaBatch>,
    index: u32,
    /// All of the batch, sound and headers too, counts for its last packet here: the batch goes with
    /// that one. A device that sends little video among much else can't make a ring hold more.
    bytes: u32,
}

impl Slot {
    fn packet(&self) -> &MediaPacket {
        &self.batch.packets()[self.index as usize]
    }
}

/// Where decoding can start.
#[derive(Debug, Clone, Copy)]
struct Keyframe {
    seq: u64,
    timestamp: u32,
}

/// What a viewer that joins now would be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    pub source: u64,
    /// First packet of the keyframe.
    pub seq: u64,
    pub timestamp: u32,
    /// Timestamp of the newest packet.
    pub newest: u32,
}

/// See the module.
#[derive(Default)]
pub struct Ring {
    source: Option<u64>,
    /// By sequence number modulo its length; empty until the first packet.
    slots: Vec<Option<Slot>>,
    /// Oldest packet that may be there, and the newest one plus one.
    first: u64,
    next: u64,
    bytes: usize,
    /// Of these, payload of video.
    payload: usize,
    limit: usize,
    keyframe: Option<Keyframe>,
    newest_timestamp: u32,
    /// What the stream brings. Counted here, for all viewers.
    counted: TemporalCount,
}

impl Ring {
    /// The stream that the packets are of.
    pub fn source(&self) -> Option<u64> {
        self.source
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Payload bits per second, over what is held; 0 if that is too short a time to tell.
    pub(crate) fn bits_per_second(&self) -> u64 {
        let arrived = |seq| self.slot(seq).and_then(|slot| slot.batch.arrived());
        let (Some(oldest), Some(newest)) =
            (arrived(self.first), arrived(self.next.wrapping_sub(1)))
        else {
            return 0;
        };
        let span = newest.saturating_duration_since(oldest);
        if span < MIN_SPAN {
            return 0;
        }
        self.payload as u64 * 8_000 / span.as_millis() as u64
    }

    /// Bits per second that the stream needs: the more of what is held and of the last second or two.
    /// A picture that begins to move needs many times as much as before.
    pub(crate) fn stream_rate(&self) -> u64 {
        self.bits_per_second().max(self.counted.rates().total())
    }

    /// What the temporal layers of the stream had in the last second or two.
    pub(crate) fn temporal_rates(&self) -> TemporalRates {
        self.counted.rates()
    }

    fn count(&mut self, batch: &MediaBatch) {
        let Some(now) = batch.arrived() else { return };
        self.counted.roll(now);
        for packet in batch.packets().iter().filter(|p| p.kind == Kind::Video) {
            self.counted
                .add(packet.numbering.temporal.id, packet.payload.len());
        }
    }

    /// The oldest packet that may be there.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The newest packet plus one.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Most bytes to hold from now on. Packets beyond are let go, the oldest first; returns
    /// whether there were any.
    pub fn limit(&mut self, bytes: usize) -> bool {
        self.limit = bytes;
        let full = self.bytes > bytes;
        self.evict(None);
        full
    }

    /// Adds the video of a batch. A packet of another source starts the ring anew.
    pub fn push(&mut self, batch: &Arc<MediaBatch>) {
        for (index, packet) in (0..).zip(batch.packets()) {
            if packet.kind == Kind::Video {
                self.insert(batch, index, packet);
            }
        }
        let packets = batch.packets().iter().map(|packet| packet.seq);
        let is_here = |seq: &u64| {
            let slot = self.slot(*seq);
            slot.is_some_and(|slot| Arc::ptr_eq(&slot.batch, batch))
        };
        let last = packets.filter(is_here).max();
        let last = last.and_then(|seq| self.slots[(seq % CAPACITY) as usize].as_mut());
        // Unless the batch came twice.
        if let Some(slot) = last.filter(|slot| slot.bytes == 0) {
            slot.bytes = batch.held_bytes() as u32;
            self.bytes += slot.bytes as usize;
        }
        self.evict(batch.arrived());
        self.count(batch);
    }

    fn insert(&mut self, batch: &Arc<MediaBatch>, index: u32, packet: &MediaPacket) {
        let seq = packet.seq;
        if self.source != Some(packet.source) {
            self.restart(packet.source, seq);
        }
        if seq < self.first {
            return;
        }
        if seq >= self.next {
            // After a gap wider than the ring nothing of it is of use.
            if seq - self.next >= CAPACITY {
                self.restart(packet.source, seq);
            }
            self.next = seq + 1;
            self.newest_timestamp = packet.timestamp;
            while self.next - self.first > CAPACITY {
                self.drop_first();
            }
        }
        let slot = &mut self.slots[(seq % CAPACITY) as usize];
        if slot.is_none() {
            self.payload += packet.payload.len();
            *slot = Some(Slot {
                batch: batch.clone(),
                index,
                bytes: 0,
            });
        }
        if packet.starts_keyframe {
            let keyframe = Keyframe {
                seq,
                timestamp: packet.timestamp,
            };
            match &mut self.keyframe {
                // Another packet that decoding could start with, of the same frame.
                Some(known) if known.timestamp == packet.timestamp => {
                    known.seq = known.seq.min(seq);
                }
                Some(known) if known.seq > seq => {}
                known => *known = Some(keyframe),
            }
        }
    }

    fn restart(&mut self, source: u64, seq: u64) {
        self.slots.clear();
        self.slots.resize_with(CAPACITY as usize, || None);
        if self.source.is_none() {
            self.limit = self.limit.max(IDLE_BYTES);
        }
        self.source = Some(source);
        self.first = seq;
        self.next = seq;
        self.bytes = 0;
        self.payload = 0;
        self.keyframe = None;
        self.counted = TemporalCount::default();
    }

    /// Lets go of what is beyond the limit, and of what is older than both the last keyframe and
    /// [`REPAIR_TIME`].
    fn evict(&mut self, now: Option<Instant>) {
        let useless = |ring: &Ring| {
            let (Some(now), Some(keyframe)) = (now, ring.keyframe) else {
                return false;
            };
            ring.first < keyframe.seq
                && ring
                    .slot(ring.first)
                    .and_then(|slot| slot.batch.arrived())
                    .is_none_or(|arrived| now.saturating_duration_since(arrived) > REPAIR_TIME)
        };
        while self.first < self.next && (self.bytes > self.limit || useless(self)) {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        let dropped = self
            .slots
            .get_mut((self.first % CAPACITY) as usize)
            .and_then(Option::take);
        if let Some(slot) = dropped {
            self.bytes -= slot.bytes as usize;
            self.payload -= slot.packet().payload.len();
        }
        self.first += 1;
        if self.keyframe.is_some_and(|k| k.seq < self.first) {
            self.keyframe = None;
        }
    }

    fn slot(&self, seq: u64) -> Option<&Slot> {
        if seq < self.first || seq >= self.next {
            return None;
        }
        self.slots.get((seq % CAPACITY) as usize)?.as_ref()
    }

    /// A packet and the batch that its offsets refer to.
    pub(crate) fn packet(&self, seq: u64) -> Option<(&MediaBatch, &MediaPacket)> {
        let slot = self.slot(seq)?;
        Some((&slot.batch, slot.packet()))
    }

    /// Whether a frame begins with this packet, as far as the packet before tells.
    pub(crate) fn begins_frame(&self, seq: u64) -> bool {
        let timestamp = |seq| self.slot(seq).map(|slot| slot.packet().timestamp);
        timestamp(seq.wrapping_sub(1)) != timestamp(seq)
    }

    /// First packet of the last keyframe, if that begins after `seq`.
    pub(crate) fn keyframe_after(&self, seq: u64) -> Option<u64> {
        let keyframe = self.keyframe.map(|keyframe| keyframe.seq);
        keyframe.filter(|keyframe| *keyframe > seq)
    }

    /// Where a viewer can start at once: the last keyframe, if all that follows it is there or may
    /// still be repaired, and is little enough to be sent at once.
    pub fn start(&self, now: Instant) -> Option<Start> {
        let keyframe = self.keyframe?;
        let (mut bytes, mut frames, mut gap) = (0, 0, false);
        for seq in keyframe.seq..self.next {
            let Some(slot) = self.slot(seq) else {
                gap = true;
                continue;
            };
            if std::mem::take(&mut gap) {
                let age = now.saturating_duration_since(slot.batch.arrived()?);
                if age > REPAIR_TIME {
                    return None;
                }
            }
            let packet = slot.packet();
            bytes += packet.payload.len();
            frames += usize::from(packet.marker);
            if bytes > MAX_JOIN_BYTES || frames > MAX_JOIN_FRAMES {
                return None;
            }
        }
        Some(Start {
            source: self.source?,
            seq: keyframe.seq,
            timestamp: keyframe.timestamp,
            newest: self.newest_timestamp,
        })
    }

    /// The batches from the last keyframe on, each once and in order: what another shard needs to
    /// have the same ring.
    pub fn batches(&self) -> Vec<Arc<MediaBatch>> {
        let from = self.keyframe.map_or(self.next, |k| k.seq);
        let mut batches: Vec<Arc<MediaBatch>> = Vec::new();
        for slot in (from..self.next).filter_map(|seq| self.slot(seq)) {
            if !batches.last().is_some_and(|b| Arc::ptr_eq(b, &slot.batch)) {
                batches.push(slot.batch.clone());
            }
        }
        batches
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::negotiated::Codec;

    const FRAME: usize = 3;

    /// Frames of three packets; every `gop`th is a keyframe.
    struct Camera {
        ring: Ring,
        now: Instant,
        seq: u64,
        frame: u64,
        payload: usize,
    }

    impl Camera {
        fn new(payload: usize) -> Self {
            let mut ring = Ring::default();
            ring.limit(WATCHED_BYTES);
            Camera {
                ring,
                now: Instant::now(),
                seq: 100,
                frame: 0,
                payload,
            }
        }

        fn packet(&self, source: u64, at: usize, key: bool) -> Arc<MediaBatch> {
            let mut batch = MediaBatch::default();
            let payload = batch.append(&vec![at as u8; self.payload]);
            batch.push(
                self.now,
                MediaPacket {
                    kind: Kind::Video,
                    source,
                    codec: Codec::Vp8,
                    seq: self.seq + at as u64,
                    timestamp: self.frame as u32 * 3_000,
                    marker: at + 1 == FRAME,
                    padding: false,
                    starts_keyframe: key && at == 0,
                    payload,
                    video_orientation: None,
                    audio_level: None,
                    dependency_descriptor: 0..0,
                    layer: 0,
                    numbering: Default::default(),
                },
            );
            Arc::new(batch)
        }

        /// Sends a frame without the packets that `lost` names; they can be sent with
        /// [`repair`](Self::repair).
        fn frame(&mut self, key: bool, lost: &[usize]) -> Vec<Arc<MediaBatch>> {
            let mut held = Vec::new();
            for at in 0..FRAME {
                let batch = self.packet(1, at, key);
                if lost.contains(&at) {
                    held.push(batch);
                } else {
                    self.ring.push(&batch);
                }
            }
            self.seq += FRAME as u64;
            self.frame += 1;
            self.now += Duration::from_millis(33);
            held
        }
    }

    #[test]
    fn a_viewer_starts_at_the_last_keyframe() {
        let mut camera = Camera::new(100);
        assert_eq!(camera.ring.start(camera.now), None);
        camera.frame(false, &[]);
        assert_eq!(camera.ring.start(camera.now), None, "no keyframe yet");
        for key in [true, false, true, false] {
            camera.frame(key, &[]);
        }
        let start = camera.ring.start(camera.now).expect("a keyframe");
        assert_eq!(
            start,
            Start {
                source: 1,
                seq: 109,
                timestamp: 9_000,
                newest: 12_000
            }
        );
    }

    #[test]
    fn a_hole_that_can_still_be_repaired_does_not_prevent_a_start_but_an_old_one_does() {
        let mut camera = Camera::new(100);
        camera.frame(true, &[]);
        let held = camera.frame(false, &[1]);
        camera.frame(false, &[]);
        assert!(camera.ring.start(camera.now).is_some());
        for _ in 0..40 {
            camera.frame(false, &[]);
        }
        assert_eq!(camera.ring.start(camera.now), None, "lost for good");
        camera.ring.push(&held[0]);
        assert!(camera.ring.start(camera.now).is_some(), "late, but there");
    }

    #[test]
    fn a_keyframe_whose_first_packet_was_repaired_starts_there() {
        let mut camera = Camera::new(100);
        camera.frame(true, &[]);
        let held = camera.frame(true, &[0]);
        assert_eq!(camera.ring.start(camera.now).map(|s| s.seq), Some(100));
        camera.ring.push(&held[0]);
        assert_eq!(camera.ring.start(camera.now).map(|s| s.seq), Some(103));
    }

    #[test]
    fn long_groups_of_pictures_are_no_start() {
        let mut camera = Camera::new(100);
        camera.frame(true, &[]);
        (1..MAX_JOIN_FRAMES).for_each(|_| drop(camera.frame(false, &[])));
        assert!(camera.ring.start(camera.now).is_some());
        camera.frame(false, &[]);
        assert_eq!(camera.ring.start(camera.now), None, "too many frames");
        let mut camera = Camera::new(MAX_JOIN_BYTES / FRAME / 4);
        camera.frame(true, &[]);
        (1..4).for_each(|_| drop(camera.frame(false, &[])));
        assert!(camera.ring.start(camera.now).is_some());
        camera.frame(false, &[]);
        assert_eq!(camera.ring.start(camera.now), None, "too many bytes");
    }

    #[test]
    fn packets_and_bytes_stay_within_their_bounds() {
        let mut camera = Camera::new(1_000);
        camera.frame(true, &[]);
        for _ in 0..2_000 {
            camera.frame(false, &[]);
            let ring = &camera.ring;
            assert!(ring.next - ring.first <= CAPACITY);
            assert!(ring.bytes <= WATCHED_BYTES);
        }
        let held = (camera.ring.first..camera.ring.next)
            .filter_map(|seq| camera.ring.packet(seq))
            .map(|(batch, _)| batch.held_bytes());
        assert_eq!(held.sum::<usize>(), camera.ring.bytes());
        assert!(camera.ring.limit(IDLE_BYTES));
        assert!(camera.ring.bytes() <= IDLE_BYTES);
        assert!(!camera.ring.limit(IDLE_BYTES));
    }

    #[test]
    fn what_a_batch_holds_besides_video_counts_until_its_last_packet_goes() {
        let mut ring = Ring::default();
        let (now, mut first) = (Instant::now(), 0);
        for seq in 0..2_000 {
            let mut batch = MediaBatch::default();
            batch.append(&[0; 60_000]); // sound, say
            let mut camera = Camera::new(1);
            (camera.now, camera.seq) = (now, seq);
            let packet = camera.packet(1, 0, false).packets()[0].clone();
            batch.push(now, packet.clone());
            batch.push(
                now,
                MediaPacket {
                    seq: seq + 40,
                    ..packet
                },
            );
            ring.push(&Arc::new(batch));
            assert!(ring.bytes() <= IDLE_BYTES, "{}", ring.bytes());
            first = ring.first();
        }
        let held = (first..ring.next()).filter(|seq| ring.packet(*seq).is_some());
        assert!((1..=2 * IDLE_BYTES / 60_000).contains(&held.count()));
    }

    #[test]
    fn what_is_older_than_the_keyframe_goes_after_a_second() {
        let mut camera = Camera::new(100);
        camera.frame(true, &[]);
        (0..40).for_each(|_| drop(camera.frame(false, &[])));
        assert!(
            camera.ring.packet(100).is_some(),
            "kept while it is the last"
        );
        camera.frame(true, &[]);
        camera.frame(false, &[]);
        assert!(camera.ring.packet(100).is_none());
        assert!(camera.ring.packet(camera.seq - 60).is_some(), "a second");
    }

    #[test]
    fn another_source_and_a_leap_start_anew() {
        let mut camera = Camera::new(100);
        camera.frame(true, &[]);
        camera.seq += 10 * CAPACITY;
        camera.frame(false, &[]);
        assert_eq!(camera.ring.start(camera.now), None);
        let one = 100 + size_of::<MediaPacket>();
        assert_eq!(camera.ring.bytes(), 3 * one);
        camera.seq = 7;
        let batch = camera.packet(2, 0, true);
        camera.ring.push(&batch);
        assert_eq!(camera.ring.start(camera.now).map(|s| s.seq), Some(7));
        assert_eq!(camera.ring.source(), Some(2));
    }

    #[test]
    fn another_shard_gets_the_same_ring_from_the_batches() {
        let mut camera = Camera::new(100);
        for key in [true, false, true, false, false] {
            camera.frame(key, &[]);
        }
        let mut other = Ring::default();
        other.limit(WATCHED_BYTES);
        camera.ring.batches().iter().for_each(|b| other.push(b));
        assert_eq!(other.start(camera.now), camera.ring.start(camera.now));
        assert_eq!(other.bytes(), 9 * (100 + size_of::<MediaPacket>()));
    }
}
