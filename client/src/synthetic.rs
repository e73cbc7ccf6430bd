//! Made-up frames that look like real ones on the wire: the payload headers by which a server
//! finds frame starts and keyframes are true, the rest is noise.
//!
//! No decoder will show them. The load tool and the tests send them.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::Role;
use crate::{Codec, Stamp};

/// Makes frames of one codec, as RTP payloads.
#[derive(Debug, Clone)]
pub struct FrameSource {
    codec: Codec,
    packets_per_frame: usize,
    payload_bytes: usize,
    noise: u64,
    next_frame: u32,
    /// Width and height that VP8 keyframes name.
    size: (u16, u16),
    layer: u8,
}

/// A payload that is stamped when it is sent.
#[derive(Debug)]
pub struct Unsent {
    payload: BytesMut,
    stamp: Stamp,
}

impl Unsent {
    /// The payload, as sent at that moment of the clock that the receivers share.
    pub fn sent_at(mut self, sent: Duration) -> Bytes {
        // A payload has room for it: MIN_PAYLOAD.
        Stamp { sent, ..self.stamp }.write(&mut self.payload);
        self.payload.freeze()
    }
}

impl FrameSource {
    /// Frames of `packets_per_frame` packets with `payload_bytes` bytes of RTP payload each; an
    /// Opus frame is always one packet. The same `seed` gives the same bytes.
    ///
    /// Sizes too small for the codec's headers are raised to what these need.
    pub fn new(codec: Codec, packets_per_frame: usize, payload_bytes: usize, seed: u64) -> Self {
        Self {
            codec,
            packets_per_frame: match codec {
                Codec::Opus | Codec::Red => 1,
                _ => packets_per_frame.max(2),
            },
            payload_bytes: payload_bytes.max(MIN_PAYLOAD),
            noise: seed,
            next_frame: 0,
            size: (640, 360),
            layer: 0,
        }
    }

    /// The same frames with VP8 keyframes that name another size.
    pub fn with_size(mut self, width: u16, height: u16) -> Self {
        self.size = (width, height);
        self
    }

    /// The same frames with stamps of that simulcast layer.
    pub fn with_layer(mut self, layer: u8) -> Self {
        self.layer = layer;
        self
    }

    /// The payloads of the next frame, in order; the last one takes the marker bit.
    pub fn frame(&mut self, keyframe: bool) -> Vec<Bytes> {
        let last = self.packets_per_frame - 1;
        (0..=last)
            .map(|index| self.payload(keyframe, index, last).freeze())
            .collect()
    }

    /// As [`Self::frame`], with a [`Stamp`] at the end of each payload.
    pub fn stamped_frame(&mut self, keyframe: bool) -> Vec<Unsent> {
        let last = self.packets_per_frame - 1;
        let frame = self.next_frame;
        self.next_frame = frame.wrapping_add(1);
        (0..=last)
            .map(|index| Unsent {
                payload: self.payload(keyframe, index, last),
                stamp: Stamp {
                    frame,
                    index: index as u16,
                    last: last as u16,
                    keyframe,
                    layer: self.layer,
                    sent: Duration::ZERO,
                },
            })
            .collect()
    }

    fn payload(&mut self, keyframe: bool, index: usize, last: usize) -> BytesMut {
        let mut payload = BytesMut::with_capacity(self.payload_bytes);
        header(self.codec, keyframe, index, last, self.size, &mut payload);
        self.fill(&mut payload);
        payload
    }

    /// Noise up to the payload's size (SplitMix64).
    fn fill(&mut self, payload: &mut BytesMut) {
        while payload.len() < self.payload_bytes {
            self.noise = self.noise.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = self.noise;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let room = (self.payload_bytes - payload.len()).min(8);
            payload.put_slice(&(word ^ (word >> 31)).to_le_bytes()[..room]);
        }
    }
}

/// Room for the longest header below and a stamp.
const MIN_PAYLOAD: usize = 24 + Stamp::LEN;

/// A parameter set pair as openh264 writes it for 640x360, constrained baseline.
const SPS: &[u8] = &[
    0x67, 0x42, 0xc0, 0x1e, 0x8c, 0x8d, 0x40, 0x50, 0x17, 0xfc, 0xb0, 0x0f, 0x08, 0x84, 0x6a,
];
const PPS: &[u8] = &[0x68, 0xce, 0x3c, 0x80];

fn header(
    codec: Codec,
    keyframe: bool,
    index: usize,
    last: usize,
    size: (u16, u16),
    payload: &mut BytesMut,
) {
    let first = index == 0;
    let end = index == last;
    match codec {
        Codec::Vp8 => {
            // Payload descriptor (RFC 7741 §4.2): S marks the start of partition 0.
            payload.put_u8(if first { 0x10 } else { 0x00 });
            if first && keyframe {
                // Frame tag with P = 0, the start code, then the size (RFC 6386 §9.1).
                payload.put_slice(&[0x50, 0x10, 0x00, 0x9d, 0x01, 0x2a]);
                payload.put_u16_le(size.0);
                payload.put_u16_le(size.1);
            } else if first {
                payload.put_slice(&[0x51, 0x10, 0x00]);
            }
        }
        Codec::Vp9 => {
            // Payload descriptor (RFC 9628 §4.2): P = inter-predicted, B and E = start and end.
            let predicted = if keyframe { 0 } else { 0x40 };
            let start = if first { 0x08 } else { 0 };
            let stop = if end { 0x04 } else { 0 };
            payload.put_u8(predicted | start | stop);
            if first {
                // Uncompressed header: frame marker 2, profile 0, frame type, shown.
                payload.put_u8(if keyframe { 0x82 } else { 0x86 });
            }
            if first && keyframe {
                payload.put_slice(&[0x49, 0x83, 0x42]);
            }
        }
        Codec::H264 => {
            if first && keyframe {
                // STAP-A with both parameter sets (RFC 6184 §5.7.1), and noise after them as SEI.
                payload.put_u8(0x78);
                for unit in [SPS, PPS] {
                    payload.put_u16(unit.len() as u16);
                    payload.put_slice(unit);
                }
                return;
            }
            // FU-A (RFC 6184 §5.8) of an IDR slice, or of a slice of another picture.
            let start_index = usize::from(keyframe);
            let unit = if keyframe { 5 } else { 1 };
            let start = if index == start_index { 0x80 } else { 0 };
            let stop = if end { 0x40 } else { 0 };
            payload.put_u8(0x60 | 28);
            payload.put_u8(start | stop | unit);
        }
        Codec::Av1 => {
            // Aggregation header (AV1 RTP specification §4.4): Z and Y continue an OBU over
            // packets, W counts OBUs, N starts a coded video sequence.
            let continued = if first { 0 } else { 0x80 };
            let continues = if end { 0 } else { 0x40 };
            if first && keyframe {
                payload.put_u8(continues | 0x20 | 0x08);
                // A sequence header OBU with its length, then a frame OBU without.
                let sequence_header = [0x08, 0x00, 0x00, 0x00, 0x24, 0xcf, 0x7f, 0x0d];
                payload.put_u8(sequence_header.len() as u8);
                payload.put_slice(&sequence_header);
                payload.put_slice(&[0x30, 0x10]);
            } else {
                payload.put_u8(continued | continues | 0x10);
                if first {
                    payload.put_slice(&[0x30, 0x30]);
                }
            }
        }
        // TOC byte (RFC 6716 §3.1): CELT, 20 ms, stereo, one frame.
        Codec::Opus => payload.put_u8(0xfc),
        // Headers (RFC 2198 §3) of a block of three bytes, 20 ms old, and of the newest; these blocks.
        Codec::Red => {
            let block = Codec::Opus.payload_type(Role::Publisher);
            payload.put_slice(&[0x80 | block, 0x0f, 0x00, 3, block]);
            payload.put_slice(&[0xfc, 1, 2]);
            payload.put_u8(0xfc);
        }
    }
}

#[cfg(test)]
mod tests {
    use rtc::rtp::codec::h264::H264Packet;
    use rtc::rtp::codec::vp8::Vp8Packet;
    use rtc::rtp::packetizer::Depacketizer;

    use super::*;

    #[test]
    fn every_packet_has_the_size_that_was_asked_for() {
        for codec in Codec::ALL {
            let mut source = FrameSource::new(codec, 7, 1_188, 1);
            for keyframe in [true, false] {
                let frame = source.frame(keyframe);
                assert_eq!(frame.len(), if codec == Codec::Opus { 1 } else { 7 });
                for payload in frame {
                    assert_eq!(payload.len(), 1_188, "{codec}");
                }
            }
        }
    }

    #[test]
    fn a_stamped_payload_has_its_size_its_header_and_its_stamp() {
        for codec in Codec::ALL {
            let plain = FrameSource::new(codec, 3, 48, 1).frame(true);
            let mut source = FrameSource::new(codec, 3, 48, 1).with_layer(2);
            let sent = Duration::from_micros(5);
            let stamped: Vec<Bytes> = source
                .stamped_frame(true)
                .into_iter()
                .map(|unsent| unsent.sent_at(sent))
                .collect();
            let last = stamped.len() - 1;
            for (index, payload) in stamped.iter().enumerate() {
                assert_eq!(payload.len(), 48, "{codec}");
                assert_eq!(payload[..24], plain[index][..24], "{codec}");
                let expected = Stamp {
                    frame: 0,
                    index: index as u16,
                    last: last as u16,
                    keyframe: true,
                    layer: 2,
                    sent,
                };
                assert_eq!(Stamp::read(payload), Some(expected), "{codec}");
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_frames_and_another_does_not() {
        let frames = |seed| FrameSource::new(Codec::Vp8, 3, 200, seed).frame(true);
        assert_eq!(frames(1), frames(1));
        assert_ne!(frames(1), frames(2));
    }

    #[test]
    fn a_vp8_keyframe_is_one_to_another_parser() {
        for keyframe in [true, false] {
            let frame = FrameSource::new(Codec::Vp8, 3, 200, 1).frame(keyframe);
            let mut packet = Vp8Packet::default();
            let body = packet.depacketize(&frame[0]).expect("a VP8 payload");
            assert_eq!(packet.s, 1);
            assert_eq!(body[0] & 1 == 0, keyframe);
        }
    }

    #[test]
    fn an_h264_keyframe_brings_parameter_sets_and_one_idr_slice() {
        let frame = FrameSource::new(Codec::H264, 4, 200, 1).frame(true);
        assert_eq!(frame[0][0] & 0x1f, 24);
        assert_eq!(frame[0][3] & 0x1f, 7);
        let mut packet = H264Packet::default();
        for payload in &frame[1..3] {
            assert!(packet.depacketize(payload).expect("an FU-A").is_empty());
        }
        let unit = packet.depacketize(&frame[3]).expect("the last FU-A");
        assert_eq!(unit[4] & 0x1f, 5);
    }
}
