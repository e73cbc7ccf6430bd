//! Packets of a device for the tests: VP8 whose keyframes say 640x360, and sound.

use media_core::media::{MediaBatch, MediaPacket, TimeMapping};
use media_core::negotiated::{Codec, Kind};
use std::sync::Arc;
use std::time::Instant;

pub const VIDEO_SOURCE: u64 = 1;
pub const AUDIO_SOURCE: u64 = 2;

/// Wall-clock time (NTP) of the moment whose timestamps are 0.
pub const ZERO: u64 = 4_000_000_000 << 32;

pub fn packet(kind: Kind, seq: u64, timestamp: u32) -> MediaPacket {
    let (source, codec) = match kind {
        Kind::Video => (VIDEO_SOURCE, Codec::Vp8),
        Kind::Audio => (AUDIO_SOURCE, Codec::Opus),
    };
    MediaPacket {
        kind,
        source,
        layer: 0,
        codec,
        seq,
        timestamp,
        marker: true,
        padding: false,
        starts_keyframe: false,
        payload: 0..0,
        video_orientation: None,
        audio_level: None,
        dependency_descriptor: 0..0,
        numbering: Default::default(),
    }
}

pub fn batch(now: Instant, packet: MediaPacket, payload: &[u8]) -> Arc<MediaBatch> {
    let mapping = |source| {
        Some(TimeMapping {
            source,
            ntp: ZERO,
            timestamp: 0,
            reported: true,
        })
    };
    let mappings = [mapping(AUDIO_SOURCE), mapping(VIDEO_SOURCE)];
    Arc::new(MediaBatch::of(now, mappings, [(packet, payload.to_vec())]))
}

/// One packet of a picture that is not a keyframe.
pub fn video(now: Instant, seq: u64, timestamp: u32, payload: &[u8]) -> Arc<MediaBatch> {
    batch(now, packet(Kind::Video, seq, timestamp), payload)
}

/// A whole keyframe of VP8 in one packet (RFC 7741 §4.2, RFC 6386 §9.1).
pub fn keyframe(now: Instant, seq: u64, timestamp: u32) -> Arc<MediaBatch> {
    let packet = MediaPacket {
        starts_keyframe: true,
        ..packet(Kind::Video, seq, timestamp)
    };
    let payload = [
        0x10, 0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01, 7,
    ];
    batch(now, packet, &payload)
}

pub fn sound(now: Instant, seq: u64, timestamp: u32) -> Arc<MediaBatch> {
    batch(now, packet(Kind::Audio, seq, timestamp), &[0xfc, 1, 2, 3])
}
