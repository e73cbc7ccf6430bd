//! Counts what a session received: packets, bytes, loss by sequence gaps, frames.
//!
//! One [`Reception`] belongs to one session; the tap on its packet path writes it, anyone may
//! take a snapshot. It keeps one entry per SSRC, at most [`MAX_STREAMS`].

use std::time::Instant;

use crate::{Codec, Kind};

/// Streams that are told apart. A server sends one per m-line; a few more appear when a publisher
/// is replaced and the server does not keep the SSRC.
const MAX_STREAMS: usize = 16;

/// What one session received.
#[derive(Debug, Clone, Default)]
pub struct Reception {
    streams: Vec<StreamReception>,
    /// Packets of SSRCs beyond the ones that are told apart.
    pub packets_of_further_streams: u64,
}

/// What arrived under one SSRC.
#[derive(Debug, Clone)]
pub struct StreamReception {
    pub ssrc: u32,
    /// The codec that the payload type stands for; `None` for a payload type nobody offered.
    pub codec: Option<Codec>,
    pub packets: u64,
    /// RTP payload, in bytes.
    pub payload_bytes: u64,
    /// Frames, counted by the marker bit that ends one (one per packet for audio).
    pub frames: u64,
    /// Packets that came after one with a higher sequence number.
    pub out_of_order: u64,
    pub first_at: Instant,
    pub last_at: Instant,
    first_sequence: u64,
    highest_sequence: u64,
}

impl StreamReception {
    /// Packets that the sequence numbers say were sent, from the first that arrived to the highest.
    pub fn expected(&self) -> u64 {
        self.highest_sequence - self.first_sequence + 1
    }

    /// Packets missing in between. A duplicate hides a loss, as in RFC 3550 §6.4.1.
    pub fn lost(&self) -> u64 {
        self.expected().saturating_sub(self.packets)
    }
}

impl Reception {
    /// The streams seen so far, in order of appearance.
    pub fn streams(&self) -> &[StreamReception] {
        &self.streams
    }

    /// The latest stream of that codec.
    pub fn stream(&self, codec: Codec) -> Option<&StreamReception> {
        self.streams
            .iter()
            .rev()
            .find(|stream| stream.codec == Some(codec))
    }

    /// Packets over all streams.
    pub fn packets(&self) -> u64 {
        self.streams.iter().map(|stream| stream.packets).sum()
    }

    /// RTP payload over all streams, in bytes.
    pub fn payload_bytes(&self) -> u64 {
        self.streams.iter().map(|stream| stream.payload_bytes).sum()
    }

    /// Missing packets over all streams.
    pub fn lost(&self) -> u64 {
        self.streams.iter().map(StreamReception::lost).sum()
    }

    /// Video frames over all streams.
    pub fn video_frames(&self) -> u64 {
        self.streams
            .iter()
            .filter(|stream| stream.codec.is_none_or(|codec| codec.kind() == Kind::Video))
            .map(|stream| stream.frames)
            .sum()
    }

    /// When the first packet came.
    pub fn first_at(&self) -> Option<Instant> {
        self.streams.iter().map(|stream| stream.first_at).min()
    }

    pub(crate) fn record(&mut self, at: Instant, codec: Option<Codec>, header: PacketFacts) {
        let PacketFacts {
            ssrc,
            sequence,
            marker,
            payload_bytes,
        } = header;
        let frames = u64::from(marker || codec.is_some_and(|codec| codec.kind() == Kind::Audio));
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.ssrc == ssrc) {
            let extended = extend(stream.highest_sequence, sequence);
            if extended > stream.highest_sequence {
                stream.highest_sequence = extended;
            } else {
                stream.out_of_order += 1;
                stream.first_sequence = stream.first_sequence.min(extended);
            }
            stream.codec = codec;
            stream.packets += 1;
            stream.payload_bytes += payload_bytes as u64;
            stream.frames += frames;
            stream.last_at = at;
        } else if self.streams.len() < MAX_STREAMS {
            // Starts one cycle up, so that an early straggler below the first stays positive.
            let first = (1 << 16) | u64::from(sequence);
            self.streams.push(StreamReception {
                ssrc,
                codec,
                packets: 1,
                payload_bytes: payload_bytes as u64,
                frames,
                out_of_order: 0,
                first_at: at,
                last_at: at,
                first_sequence: first,
                highest_sequence: first,
            });
        } else {
            self.packets_of_further_streams += 1;
        }
    }
}

/// What counting needs of a packet.
pub(crate) struct PacketFacts {
    pub ssrc: u32,
    pub sequence: u16,
    pub marker: bool,
    pub payload_bytes: usize,
}

/// The extended sequence number nearest to `highest` (RFC 3550 appendix A.1).
fn extend(highest: u64, sequence: u16) -> u64 {
    let step = sequence.wrapping_sub(highest as u16) as i16;
    highest.saturating_add_signed(i64::from(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(reception: &mut Reception, sequence: u16) {
        reception.record(
            Instant::now(),
            Some(Codec::Vp8),
            PacketFacts {
                ssrc: 7,
                sequence,
                marker: sequence.is_multiple_of(2),
                payload_bytes: 100,
            },
        );
    }

    #[test]
    fn a_gap_over_the_wrap_of_the_sequence_number_is_loss() {
        let mut reception = Reception::default();
        for sequence in [65_533, 65_534, 1, 2] {
            record(&mut reception, sequence);
        }
        assert_eq!(reception.packets(), 4);
        assert_eq!(reception.lost(), 2, "65535 and 0 are missing");
    }

    #[test]
    fn a_late_packet_is_out_of_order_and_not_lost() {
        let mut reception = Reception::default();
        for sequence in [10, 12, 11, 9] {
            record(&mut reception, sequence);
        }
        assert_eq!(reception.lost(), 0);
        assert_eq!(reception.streams()[0].out_of_order, 2);
        assert_eq!(reception.payload_bytes(), 400);
        assert_eq!(reception.video_frames(), 2);
    }

    #[test]
    fn a_flood_of_ssrcs_is_counted_in_bounded_memory() {
        let mut reception = Reception::default();
        for ssrc in 0..1_000 {
            reception.record(
                Instant::now(),
                None,
                PacketFacts {
                    ssrc,
                    sequence: 1,
                    marker: false,
                    payload_bytes: 1,
                },
            );
        }
        assert_eq!(reception.streams().len(), MAX_STREAMS);
        assert_eq!(reception.packets_of_further_streams, 984);
    }
}
