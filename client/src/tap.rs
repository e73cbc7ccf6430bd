//! The application-most stage of a connection's interceptor chain: counts media, gives it to the
//! caller's sink and notices keyframe requests, right where a packet is decrypted.
//!
//! `webrtc` would otherwise carry each packet through a channel to a task of its own, which is
//! most of the cost of a viewer in a process with a hundred of them. The tap never generates a
//! packet. It runs on the task that drives the connection, so a sink must be quick.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use rtc::interceptor::{Packet, StreamInfo, TaggedPacket};
use rtc::rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc::rtcp::transport_feedbacks::transport_layer_cc::TransportLayerCc;
use tokio::sync::Notify;

use crate::Codec;
use crate::codec::Role;
use crate::in_order::Arrival;
use crate::reception::{PacketFacts, Reception};
use crate::stage::{Queues, Stage};

/// Where a viewer's packets go, in the order of arrival.
///
/// Called on the task that drives the connection: it must not block.
pub trait PacketSink: Send + Sync + 'static {
    fn packet(&self, packet: &ReceivedPacket<'_>);
}

impl<F: Fn(&ReceivedPacket<'_>) + Send + Sync + 'static> PacketSink for F {
    fn packet(&self, packet: &ReceivedPacket<'_>) {
        self(packet);
    }
}

/// A media packet as it arrived, decrypted.
#[derive(Debug)]
pub struct ReceivedPacket<'a> {
    /// When the kernel had it; when it was read, where the kernel does not say. Over TCP no segment has such
    /// a time: it is when the bytes were read there.
    pub at: Instant,
    /// The codec that the payload type was offered for; `None` for one that nobody offered.
    pub codec: Option<Codec>,
    pub payload_type: u8,
    pub ssrc: u32,
    pub sequence: u16,
    /// In ticks of the codec's clock rate.
    pub timestamp: u32,
    pub marker: bool,
    pub payload: &'a Bytes,
}

/// What the tap and the owner of the session share.
#[derive(Default)]
pub(crate) struct TapShared {
    reception: Mutex<Reception>,
    keyframe_requests: AtomicU64,
    /// The same by SSRC, at most [`MAX_PASSED_STREAMS`].
    keyframe_requests_of: Mutex<Vec<(u32, u64)>>,
    keyframe_requested: Notify,
    first_packet: Notify,
    /// Packets that transport-wide feedback says arrived.
    acknowledged: AtomicU64,
    /// The last bandwidth that the server asked to keep (REMB), in bits per second; 0 before.
    bandwidth: AtomicU64,
}

impl TapShared {
    pub fn reception(&self) -> Reception {
        self.lock().clone()
    }

    pub fn packets(&self) -> u64 {
        self.lock().packets()
    }

    pub fn keyframe_requests(&self) -> u64 {
        self.keyframe_requests.load(Ordering::Relaxed)
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    pub fn bandwidth(&self) -> Option<u64> {
        Some(self.bandwidth.load(Ordering::Relaxed)).filter(|bits| *bits > 0)
    }

    fn note_feedback(&self, packet: &dyn std::any::Any) {
        if let Some(feedback) = packet.downcast_ref::<TransportLayerCc>() {
            let arrived = feedback.recv_deltas.len() as u64;
            self.acknowledged.fetch_add(arrived, Ordering::Relaxed);
        } else if let Some(remb) = packet.downcast_ref::<ReceiverEstimatedMaximumBitrate>() {
            self.bandwidth.store(remb.bitrate as u64, Ordering::Relaxed);
        }
    }

    pub fn keyframe_requests_of(&self, ssrc: u32) -> u64 {
        let counts = self
            .keyframe_requests_of
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = counts.iter().find(|(own, _)| *own == ssrc);
        count.map_or(0, |(_, count)| *count)
    }

    fn count_keyframe_request(&self, ssrc: u32) {
        self.keyframe_requests.fetch_add(1, Ordering::Relaxed);
        let mut counts = self
            .keyframe_requests_of
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((_, count)) = counts.iter_mut().find(|(own, _)| *own == ssrc) {
            *count += 1;
        } else if counts.len() < MAX_PASSED_STREAMS {
            counts.push((ssrc, 1));
        }
        self.keyframe_requested.notify_one();
    }

    pub async fn keyframe_requested(&self) {
        self.keyframe_requested.notified().await;
    }

    pub async fn first_packet(&self) -> Instant {
        loop {
            let notified = self.first_packet.notified();
            if let Some(at) = self.lock().first_at() {
                return at;
            }
            notified.await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Reception> {
        self.reception
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Packets of an SSRC that are passed on to the connection, which needs them to bind the stream:
/// only then does it send receiver reports and announce the track. Later ones end at the tap.
const PASSED_ON: u8 = 8;

/// SSRCs whose passed-on packets are counted.
const MAX_PASSED_STREAMS: usize = 16;

pub(crate) struct Tap {
    role: Role,
    shared: Arc<TapShared>,
    arrival: Arc<Arrival>,
    sink: Option<Arc<dyn PacketSink>>,
    passed: Vec<(u32, u8)>,
    bound: Vec<u32>,
}

impl Tap {
    pub fn new(
        role: Role,
        shared: Arc<TapShared>,
        arrival: Arc<Arrival>,
        sink: Option<Arc<dyn PacketSink>>,
    ) -> Self {
        Self {
            role,
            shared,
            arrival,
            sink,
            passed: Vec::new(),
            bound: Vec::new(),
        }
    }

    fn passes_on(&mut self, ssrc: u32) -> bool {
        let bound = self.bound.contains(&ssrc);
        let room = self.passed.len() < MAX_PASSED_STREAMS;
        match self.passed.iter_mut().find(|(seen, _)| *seen == ssrc) {
            Some((_, count)) => {
                *count = count.saturating_add(1);
                !bound || *count <= PASSED_ON
            }
            None if room => {
                self.passed.push((ssrc, 1));
                true
            }
            None => false,
        }
    }
}

impl Stage for Tap {
    fn read(&mut self, msg: TaggedPacket, queues: &mut Queues) {
        match &msg.message.packet {
            Packet::Rtp(packet) => {
                let header = &packet.header;
                // Datagrams are read one by one, each up to here.
                let at = self.arrival.last().unwrap_or(msg.now);
                let codec = Codec::of_payload_type(header.payload_type, self.role);
                let first = {
                    let mut reception = self.shared.lock();
                    let first = reception.streams().is_empty();
                    reception.record(
                        at,
                        codec,
                        PacketFacts {
                            ssrc: header.ssrc,
                            sequence: header.sequence_number,
                            marker: header.marker,
                            payload_bytes: packet.payload.len(),
                        },
                    );
                    first
                };
                if first {
                    self.shared.first_packet.notify_waiters();
                }
                if let Some(sink) = &self.sink {
                    sink.packet(&ReceivedPacket {
                        at,
                        codec,
                        payload_type: header.payload_type,
                        ssrc: header.ssrc,
                        sequence: header.sequence_number,
                        timestamp: header.timestamp,
                        marker: header.marker,
                        payload: &packet.payload,
                    });
                }
                let ssrc = header.ssrc;
                if self.passes_on(ssrc) {
                    queues.read.push_back(msg);
                }
            }
            Packet::Rtcp(packets) => {
                for packet in packets {
                    self.shared.note_feedback(packet.as_any());
                    let packet = packet.as_any();
                    let asked = packet
                        .downcast_ref::<PictureLossIndication>()
                        .map(|request| request.media_ssrc)
                        .or(packet
                            .downcast_ref::<FullIntraRequest>()
                            .map(|request| request.media_ssrc));
                    if let Some(ssrc) = asked {
                        self.shared.count_keyframe_request(ssrc);
                    }
                }
                queues.read.push_back(msg);
            }
            _ => queues.read.push_back(msg),
        }
    }

    fn bind_remote(&mut self, info: &StreamInfo) {
        if self.bound.len() < MAX_PASSED_STREAMS && !self.bound.contains(&info.ssrc) {
            self.bound.push(info.ssrc);
        }
    }
    fn unbind_remote(&mut self, info: &StreamInfo) {
        self.bound.retain(|ssrc| *ssrc != info.ssrc);
    }
}
