//! Retransmissions at a viewer (RFC 4588): a packet of a repair stream becomes the packet that was
//! lost, under its own SSRC, payload type and sequence number.
//!
//! Stands behind the receiver reports, which tell what the network lost, and before the NACKs, which
//! ask for what is still missing. Never sends.

use rtc::interceptor::{Packet, StreamInfo, TaggedPacket};

use crate::stage::{Queues, Stage};

/// Repair streams that are told apart: a session has one for its video.
const MAX_STREAMS: usize = 16;

/// A repair stream and what it repairs, each as SSRC and payload type.
struct Repaired {
    repair: (u32, u8),
    media: (u32, u8),
}

#[derive(Default)]
pub(crate) struct Repair {
    streams: Vec<Repaired>,
}

impl Stage for Repair {
    fn read(&mut self, mut msg: TaggedPacket, queues: &mut Queues) {
        if let Packet::Rtp(packet) = &mut msg.message.packet {
            let from = (packet.header.ssrc, packet.header.payload_type);
            if let Some(stream) = self.streams.iter().find(|s| s.repair == from) {
                // Without room for a sequence number it only probes the line.
                let Some(original) = packet.payload.first_chunk() else {
                    return;
                };
                packet.header.sequence_number = u16::from_be_bytes(*original);
                (packet.header.ssrc, packet.header.payload_type) = stream.media;
                packet.payload = packet.payload.slice(2..);
            }
        }
        queues.read.push_back(msg);
    }

    fn bind_remote(&mut self, info: &StreamInfo) {
        if let Some(repair) = info.ssrc_rtx.zip(info.payload_type_rtx)
            && self.streams.len() < MAX_STREAMS
        {
            self.streams.push(Repaired {
                repair,
                media: (info.ssrc, info.payload_type),
            });
        }
    }
    fn unbind_remote(&mut self, info: &StreamInfo) {
        self.streams.retain(|stream| stream.media.0 != info.ssrc);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use bytes::Bytes;
    use rtc::interceptor::{AttributedPacket, Interceptor as _};
    use rtc::rtp;
    use rtc::sansio::Protocol as _;
    use rtc::shared::TransportContext;

    use super::*;
    use crate::stage::Staged;

    fn packet(ssrc: u32, payload_type: u8, payload: &'static [u8]) -> TaggedPacket {
        let header = rtp::Header {
            ssrc,
            payload_type,
            sequence_number: 7,
            timestamp: 9_000,
            ..Default::default()
        };
        TaggedPacket {
            now: Instant::now(),
            transport: TransportContext::default(),
            message: AttributedPacket::new(Packet::Rtp(rtp::Packet {
                header,
                payload: Bytes::from_static(payload),
            })),
        }
    }

    #[test]
    fn a_retransmission_becomes_the_packet_that_was_lost() {
        let mut repair = Staged::new(Repair::default());
        repair.bind_remote_stream(&StreamInfo {
            ssrc: 1,
            payload_type: 120,
            ssrc_rtx: Some(2),
            payload_type_rtx: Some(110),
            ..Default::default()
        });
        for sent in [
            packet(1, 120, b"media"),
            packet(2, 110, b"\x01\x02lost"),
            packet(2, 110, b""),
        ] {
            repair.handle_read(sent).expect("taken");
        }
        let got: Vec<_> = std::iter::from_fn(|| repair.poll_read())
            .map(|msg| match msg.message.packet {
                Packet::Rtp(packet) => {
                    let header = packet.header;
                    let number = (header.ssrc, header.payload_type, header.sequence_number);
                    (number, header.timestamp, packet.payload)
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            got,
            [
                ((1, 120, 7), 9_000, Bytes::from_static(b"media")),
                ((1, 120, 0x0102), 9_000, Bytes::from_static(b"lost")),
            ],
            "and a probe is nothing"
        );
    }
}
