//! Media on its way from one publisher to its viewers: opened once, shared by all.

use crate::layers::Layers;
use crate::negotiated::{Codec, Kind};
use crate::rtp::numbering::Numbering;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// One RTP packet of a publisher, opened. Offsets refer to its batch.
#[derive(Debug, Clone)]
pub struct MediaPacket {
    pub kind: Kind,
    /// Tells streams apart, also those of one publisher after another; sequence numbers and
    /// timestamps only compare within one.
    pub source: u64,
    /// Index of its simulcast layer; 0 without simulcast.
    pub layer: u8,
    pub codec: Codec,
    /// Extended: never wraps.
    pub seq: u64,
    pub timestamp: u32,
    pub marker: bool,
    pub padding: bool,
    /// Decoding can start here.
    pub starts_keyframe: bool,
    pub payload: Range<u32>,
    pub video_orientation: Option<u8>,
    pub audio_level: Option<u8>,
    /// Empty if there is none.
    pub dependency_descriptor: Range<u32>,
    pub numbering: Numbering,
}

/// Which wall-clock time a timestamp stands for, on our clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeMapping {
    pub source: u64,
    pub ntp: u64,
    pub timestamp: u32,
    /// The device said so; before its first report, arrival stands for it.
    pub reported: bool,
}

/// Packets of one publisher that arrived together, their video of one simulcast layer: a layer that
/// nobody keeps then holds no memory. Shards and rings share it, so it never changes once it was
/// taken from its publisher.
#[derive(Debug, Default)]
pub struct MediaBatch {
    bytes: Vec<u8>,
    packets: Vec<MediaPacket>,
    arrived: Option<Instant>,
    /// Newest mapping of each kind: audio, video.
    pub(crate) mappings: [Option<TimeMapping>; 2],
    /// All layers as they were then; `None` without simulcast.
    pub(crate) layers: Option<Arc<Layers>>,
}

impl MediaBatch {
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    pub fn packets(&self) -> &[MediaPacket] {
        &self.packets
    }

    pub fn layers(&self) -> Option<&Arc<Layers>> {
        self.layers.as_ref()
    }

    /// A batch of packets with their payloads, as if they had arrived.
    #[cfg(feature = "test-util")]
    pub fn of(
        now: Instant,
        mappings: [Option<TimeMapping>; 2],
        packets: impl IntoIterator<Item = (MediaPacket, Vec<u8>)>,
    ) -> MediaBatch {
        let mut batch = MediaBatch {
            mappings,
            ..MediaBatch::default()
        };
        for (mut packet, payload) in packets {
            packet.payload = batch.append(&payload);
            batch.push(now, packet);
        }
        batch
    }

    /// The payload of one of its packets.
    pub fn payload(&self, packet: &MediaPacket) -> &[u8] {
        self.slice(&packet.payload)
    }

    /// Bytes that all packets can take when they are sent to one viewer.
    pub fn max_sent_bytes(&self) -> usize {
        self.bytes.len() + self.packets.len() * (crate::rtp::MAX_HEADER + crate::srtp::MAX_TAG)
    }

    /// An empty batch with room for another like this one.
    pub(crate) fn next(&self) -> MediaBatch {
        MediaBatch {
            bytes: Vec::with_capacity(self.bytes.len()),
            packets: Vec::with_capacity(self.packets.len()),
            arrived: None,
            mappings: self.mappings,
            layers: None,
        }
    }

    /// Lets go of room that it had from a larger batch before it: what keeps it, keeps it for long.
    pub(crate) fn trim(&mut self) {
        self.bytes.shrink_to(2 * self.bytes.len());
        self.packets.shrink_to(2 * self.packets.len());
    }

    /// Bytes that it takes, at least half of its room.
    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes.len() + self.packets.len() * size_of::<MediaPacket>()
    }

    /// When its first packet arrived, if it has one.
    pub fn arrived(&self) -> Option<Instant> {
        self.arrived
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> Range<u32> {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len() as u32
    }

    pub(crate) fn push(&mut self, now: Instant, packet: MediaPacket) {
        self.arrived.get_or_insert(now);
        self.packets.push(packet);
    }

    pub(crate) fn slice(&self, range: &Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    /// The newest mapping of a kind, of the stream that it names.
    pub fn mapping(&self, kind: Kind) -> Option<TimeMapping> {
        self.mappings[kind_index(kind)]
    }
}

pub(crate) fn kind_index(kind: Kind) -> usize {
    match kind {
        Kind::Audio => 0,
        Kind::Video => 1,
    }
}

/// Timestamp units per second (RFC 7587, and 90 kHz for every video payload format).
pub fn clock_rate(kind: Kind) -> u32 {
    match kind {
        Kind::Audio => 48_000,
        Kind::Video => 90_000,
    }
}
