//! Retransmissions at a viewer (RFC 4588): a packet of a repair stream becomes the packet that was
//! lost, under its own SSRC, payload type and sequence number.
//!
//! Stands behind the receiver reports, which tell what the network lost, and before the NACKs, which
//! ask for what is still missing. Counts both. Never sends.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rtc::interceptor::{Packet, StreamInfo, TaggedPacket};
use rtc::rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;

use crate::stage::{Queues, Stage};
use crate::traffic::Traffic;

/// Repair streams that are told apart: a session has one for its video.
const MAX_STREAMS: usize = 16;

/// A repair stream and what it repairs, each as SSRC and payload type.
struct Repaired {
    repair: (u32, u8),
    media: (u32, u8),
}

pub(crate) struct Repair {
    streams: Vec<Repaired>,
    traffic: Arc<Traffic>,
}

impl Repair {
    pub fn new(traffic: Arc<Traffic>) -> Self {
        let streams = Vec::new();
        Self { streams, traffic }
    }
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
                self.traffic.received_again.fetch_add(1, Ordering::Relaxed);
            }
        }
        queues.read.push_back(msg);
    }

    fn written(&mut self, msg: &TaggedPacket) {
        let Packet::Rtcp(packets) = &msg.message.packet else {
            return;
        };
        let asked = packets
            .iter()
            .filter_map(|packet| packet.as_any().downcast_ref::<TransportLayerNack>())
            .flat_map(|nack| &nack.nacks)
            .map(|pair| 1 + u64::from(pair.lost_packets.count_ones()))
            .sum();
        self.traffic.asked_again.fetch_add(asked, Ordering::Relaxed);
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
    use rtc::rtcp::transport_feedbacks::transport_layer_nack::NackPair;
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
        let traffic = Arc::new(Traffic::default());
        let mut repair = Staged::new(Repair::new(traffic.clone()));
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
        assert_eq!(traffic.counts().received_again, 1);
    }

    #[test]
    fn every_packet_that_is_asked_for_again_is_counted() {
        let traffic = Arc::new(Traffic::default());
        let mut repair = Staged::new(Repair::new(traffic.clone()));
        let nack: Box<dyn rtc::rtcp::Packet> = Box::new(TransportLayerNack {
            sender_ssrc: 1,
            media_ssrc: 2,
            nacks: vec![
                NackPair {
                    packet_id: 7,
                    lost_packets: 0b101,
                },
                NackPair {
                    packet_id: 90,
                    lost_packets: 0,
                },
            ],
        });
        let nack = TaggedPacket {
            now: Instant::now(),
            transport: TransportContext::default(),
            message: AttributedPacket::new(Packet::Rtcp(vec![nack])),
        };
        repair.handle_write(nack).expect("taken");
        assert!(repair.poll_write().is_some(), "it passes");
        assert_eq!(traffic.counts().asked_again, 4);
    }
}
