//! Answers a receiver's reference time with DLRR (RFC 3611 §4.4, §4.5): how a device that gets no media
//! lets the server know the round trip.
//!
//! Generates RTCP, one answer to each question, and takes nothing away.

use std::collections::VecDeque;
use std::time::Instant;

use rtc::interceptor::{AttributedPacket, Interceptor, Packet, StreamInfo, TaggedPacket};
use rtc::rtcp;
use rtc::rtcp::extended_report::{
    DLRRReport, DLRRReportBlock, ExtendedReport, ReceiverReferenceTimeReportBlock,
};
use rtc::sansio::Protocol;
use rtc::shared::TransportContext;
use rtc::shared::error::Error;

#[derive(Default)]
pub(crate) struct ReferenceTime {
    /// SSRC of a stream of ours, which answers come from.
    ssrc: Option<u32>,
    read_queue: VecDeque<TaggedPacket>,
    write_queue: VecDeque<TaggedPacket>,
}

impl ReferenceTime {
    fn answer(&mut self, now: Instant, question: &ExtendedReport) {
        let times = question.reports.iter().filter_map(|block| {
            let block = block.as_any();
            block.downcast_ref::<ReceiverReferenceTimeReportBlock>()
        });
        let reports: Vec<DLRRReport> = times
            .map(|time| DLRRReport {
                ssrc: question.sender_ssrc,
                last_rr: (time.ntp_timestamp >> 16) as u32,
                // Answered at once.
                dlrr: 0,
            })
            .collect();
        let Some(sender_ssrc) = self.ssrc.filter(|_| !reports.is_empty()) else {
            return;
        };
        let answer: Box<dyn rtcp::Packet> = Box::new(ExtendedReport {
            sender_ssrc,
            reports: vec![Box::new(DLRRReportBlock { reports })],
        });
        self.write_queue.push_back(TaggedPacket {
            now,
            transport: TransportContext::default(),
            message: AttributedPacket::new(Packet::Rtcp(vec![answer])),
        });
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for ReferenceTime {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, msg: TaggedPacket) -> Result<(), Self::Error> {
        if let Packet::Rtcp(packets) = &msg.message.packet {
            for packet in packets {
                if let Some(report) = packet.as_any().downcast_ref::<ExtendedReport>() {
                    self.answer(msg.now, report);
                }
            }
        }
        self.read_queue.push_back(msg);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<Self::Rout> {
        self.read_queue.pop_front()
    }

    fn handle_write(&mut self, msg: TaggedPacket) -> Result<(), Self::Error> {
        self.write_queue.push_back(msg);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<Self::Wout> {
        self.write_queue.pop_front()
    }
}

impl Interceptor for ReferenceTime {
    fn bind_local_stream(&mut self, info: &StreamInfo) {
        self.ssrc = Some(info.ssrc);
    }
    fn unbind_local_stream(&mut self, info: &StreamInfo) {
        self.ssrc = self.ssrc.filter(|ssrc| *ssrc != info.ssrc);
    }
    fn bind_remote_stream(&mut self, _info: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _info: &StreamInfo) {}
}
