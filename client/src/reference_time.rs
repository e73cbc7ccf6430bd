//! Answers a receiver's reference time with DLRR (RFC 3611 §4.4, §4.5): how a device that gets no media
//! lets the server know the round trip.
//!
//! Generates RTCP, one answer to each question, and takes nothing away.

use std::time::Instant;

use rtc::interceptor::{AttributedPacket, Packet, StreamInfo, TaggedPacket};
use rtc::rtcp;
use rtc::rtcp::extended_report::{
    DLRRReport, DLRRReportBlock, ExtendedReport, ReceiverReferenceTimeReportBlock,
};
use rtc::shared::TransportContext;

use crate::stage::{Queues, Stage};

#[derive(Default)]
pub(crate) struct ReferenceTime {
    /// SSRC of a stream of ours, which answers come from.
    ssrc: Option<u32>,
}

impl ReferenceTime {
    fn answer(&self, now: Instant, question: &ExtendedReport, queues: &mut Queues) {
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
        queues.write.push_back(TaggedPacket {
            now,
            transport: TransportContext::default(),
            message: AttributedPacket::new(Packet::Rtcp(vec![answer])),
        });
    }
}

impl Stage for ReferenceTime {
    fn read(&mut self, msg: TaggedPacket, queues: &mut Queues) {
        if let Packet::Rtcp(packets) = &msg.message.packet {
            for packet in packets {
                if let Some(report) = packet.as_any().downcast_ref::<ExtendedReport>() {
                    self.answer(msg.now, report, queues);
                }
            }
        }
        queues.read.push_back(msg);
    }

    fn bind_local(&mut self, info: &StreamInfo) {
        self.ssrc = Some(info.ssrc);
    }
    fn unbind_local(&mut self, info: &StreamInfo) {
        self.ssrc = self.ssrc.filter(|ssrc| *ssrc != info.ssrc);
    }
}
