//! A device that publishes VP8 in three simulcast layers. Each has an SSRC, sequence numbers, a clock
//! and picture numbers of its own, as a browser's have.

use super::{VIDEO_PT, VIDEO_RTX_PT, packet};
use crate::negotiated;

pub(crate) const RID_EXTENSION: u8 = 10;
pub(crate) const REPAIRED_RID_EXTENSION: u8 = 11;
pub(crate) const RIDS: [&str; 3] = ["q", "f", "h"];
/// Index of the largest layer: neither the first nor the last offered.
pub(crate) const BEST: usize = 1;
const SIZES: [(u16, u16); 3] = [(320, 180), (1280, 720), (640, 360)];
/// Packets of a frame.
pub(crate) const PARTS: usize = 3;

pub(crate) struct Layer {
    pub(crate) ssrc: u32,
    pub(crate) seq: u16,
    clock: u32,
    picture: u16,
    base: u8,
    /// Packets name the layer, as they do until a report comes.
    pub(crate) named: bool,
}

pub(crate) struct Camera {
    pub(crate) layers: [Layer; 3],
    frame: u32,
}

impl Camera {
    pub(crate) fn new() -> Camera {
        let layer = |n: u32| Layer {
            ssrc: 70 + n,
            seq: 65_400 + 40 * n as u16,
            clock: n.wrapping_mul(0x5eed_0b5d),
            picture: 32_700 + 20 * n as u16,
            base: 250 - 3 * n as u8,
            named: true,
        };
        Camera {
            layers: [layer(0), layer(1), layer(2)],
            frame: 0,
        }
    }

    /// Agrees on the layers.
    pub(crate) fn agree(track: &mut negotiated::Track) {
        track.rids = RIDS.map(Into::into).into();
        track.extensions.rid = Some(RID_EXTENSION);
        track.extensions.repaired_rid = Some(REPAIRED_RID_EXTENSION);
    }

    /// The next frames are of a thirtieth of a second later.
    pub(crate) fn next_frame(&mut self) {
        self.frame += 1;
    }

    /// The packets of this moment's frame in one layer, of temporal layer 0 if a keyframe.
    pub(crate) fn frame(&mut self, at: usize, key: bool, temporal: u8, sync: bool) -> Vec<Vec<u8>> {
        let time = 3_000 * self.frame;
        let layer = &mut self.layers[at];
        layer.picture = (layer.picture + 1) & 0x7fff;
        if temporal == 0 {
            layer.base = layer.base.wrapping_add(1);
        }
        let [high, low] = (0x8000 | layer.picture).to_be_bytes();
        let (width, height) = SIZES[at];
        let parts = (0..PARTS).map(|part| {
            let start = if part == 0 { 0x90 } else { 0x80 };
            let place = temporal << 6 | u8::from(sync) << 5;
            let mut payload = vec![start, 0xe0, high, low, layer.base, place];
            if part == 0 {
                payload.extend([if key { 0x50 } else { 0x51 }, 0x10, 0]);
            }
            if part == 0 && key {
                payload.extend([0x9d, 0x01, 0x2a]);
                payload.extend(width.to_le_bytes());
                payload.extend(height.to_le_bytes());
            }
            payload.extend([at as u8, part as u8]);
            let time = layer.clock.wrapping_add(time);
            let marker = part + 1 == PARTS;
            let mut packet = packet(VIDEO_PT, layer.seq, time, layer.ssrc, marker, &payload);
            layer.seq = layer.seq.wrapping_add(1);
            if layer.named {
                name(&mut packet, RID_EXTENSION, RIDS[at]);
            }
            packet
        });
        parts.collect()
    }
}

/// Adds a header extension to a packet that has none.
pub(crate) fn name(packet: &mut Vec<u8>, id: u8, value: &str) {
    packet[0] |= 0x10;
    let mut block = vec![id << 4 | (value.len() as u8 - 1)];
    block.extend(value.bytes());
    block.resize(block.len().next_multiple_of(4), 0);
    let words = (block.len() / 4) as u8;
    packet.splice(12..12, [&[0xbe, 0xde, 0, words][..], &block].concat());
}

/// The retransmission of a packet without extensions.
pub(crate) fn repair(lost: &[u8], rtx_ssrc: u32, seq: u16, rid: Option<&str>) -> Vec<u8> {
    let timestamp = u32::from_be_bytes(lost[4..8].try_into().expect("four bytes"));
    let payload = [&lost[2..4], &lost[12..]].concat();
    let marker = lost[1] & 0x80 != 0;
    let mut packet = packet(VIDEO_RTX_PT, seq, timestamp, rtx_ssrc, marker, &payload);
    if let Some(rid) = rid {
        name(&mut packet, REPAIRED_RID_EXTENSION, rid);
    }
    packet
}
