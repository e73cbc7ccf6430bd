//! Figures that a session or a shard keeps up to date while it runs, readable at any time.
//!
//! Plain relaxed atomics with one writer each (the shard thread; `candidates_added` is the HTTP
//! side's). Nothing here adds up over sessions: `/metrics` and the API do that when they are asked.

mod kinds;

pub use kinds::{Drop, Forgotten, KeyframeCause, Served, VideoLimit, Watched};

use crate::layers::{Layer, MAX_LAYERS};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Connection state as the W3C names it; the value is the one that the metrics show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum IceState {
    /// No authenticated check has arrived yet.
    New = 0,
    /// A check has been answered; nothing shows yet that the answer arrived.
    Checking = 1,
    /// The peer has used the path, which it only does after it heard our answer.
    Connected = 2,
    Completed = 3,
    /// No check for 15 s.
    Disconnected = 4,
    /// No check for 30 s.
    Failed = 5,
    Closed = 6,
}

impl IceState {
    pub const ALL: [IceState; 7] = [
        IceState::New,
        IceState::Checking,
        IceState::Connected,
        IceState::Completed,
        IceState::Disconnected,
        IceState::Failed,
        IceState::Closed,
    ];

    /// The name that the W3C gives the state and the metrics use as label.
    pub fn as_str(self) -> &'static str {
        match self {
            IceState::New => "new",
            IceState::Checking => "checking",
            IceState::Connected => "connected",
            IceState::Completed => "completed",
            IceState::Disconnected => "disconnected",
            IceState::Failed => "failed",
            IceState::Closed => "closed",
        }
    }
}

/// A figure that may not be known yet.
#[derive(Debug)]
struct Figure(AtomicU64);

impl Figure {
    fn new() -> Self {
        Figure(AtomicU64::new(f64::NAN.to_bits()))
    }

    fn set(&self, value: Option<f64>) {
        self.0.store(value.unwrap_or(f64::NAN).to_bits(), Relaxed);
    }

    fn read(&self) -> Option<f64> {
        Some(f64::from_bits(self.0.load(Relaxed))).filter(|v| !v.is_nan())
    }
}

/// What is known of one session. Made by the HTTP side, written by the session's shard.
#[derive(Debug)]
pub struct SessionCells {
    ice_state: AtomicU8,
    candidates_added: AtomicU32,
    connection_time: Figure,
    frame_rate: Figure,
    bitrate_bps: Figure,
    loss_ratio: Figure,
    rtt_seconds: Figure,
    jitter_seconds: Figure,
    estimate_bps: Figure,
    packets: AtomicU64,
    bytes: AtomicU64,
    messages: AtomicU64,
    /// Width, height and kbit/s of each simulcast layer, from the high bits down, in one word so
    /// that they belong together.
    layers: [AtomicU64; MAX_LAYERS],
}

impl Default for SessionCells {
    fn default() -> Self {
        Self::new()
    }
}

impl SessionCells {
    pub fn new() -> Self {
        SessionCells {
            ice_state: AtomicU8::new(IceState::New as u8),
            candidates_added: AtomicU32::new(0),
            connection_time: Figure::new(),
            frame_rate: Figure::new(),
            bitrate_bps: Figure::new(),
            loss_ratio: Figure::new(),
            rtt_seconds: Figure::new(),
            jitter_seconds: Figure::new(),
            estimate_bps: Figure::new(),
            packets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            layers: Default::default(),
        }
    }

    pub fn ice_state(&self) -> IceState {
        IceState::ALL[usize::from(self.ice_state.load(Relaxed)).min(IceState::ALL.len() - 1)]
    }

    /// Remote candidates that signalling accepted.
    pub fn candidates_added(&self) -> u32 {
        self.candidates_added.load(Relaxed)
    }

    /// Called by the HTTP side alone.
    pub fn add_candidates(&self, count: u32) {
        self.candidates_added.fetch_add(count, Relaxed);
    }

    /// From the first authenticated check to the first datagram that shows the peer heard us.
    pub fn connection_time(&self) -> Option<Duration> {
        self.connection_time.read().map(Duration::from_secs_f64)
    }

    /// Video frames per second, received (publisher) or forwarded (viewer), in the last window of
    /// about a second. `None` before the first window of a connected session has passed.
    pub fn frame_rate(&self) -> Option<f64> {
        self.frame_rate.read()
    }

    /// RTP payload bits per second of the video track in the last window.
    pub fn bitrate_bps(&self) -> Option<f64> {
        self.bitrate_bps.read()
    }

    /// 0 to 1, over the last ten seconds: from sequence gaps (publisher) or receiver reports (viewer).
    pub fn loss_ratio(&self) -> Option<f64> {
        self.loss_ratio.read()
    }

    pub fn rtt(&self) -> Option<Duration> {
        self.rtt_seconds.read().map(Duration::from_secs_f64)
    }

    /// Interarrival jitter (RFC 3550 §6.4.1) of the video track, else of the audio track.
    pub fn jitter(&self) -> Option<Duration> {
        self.jitter_seconds.read().map(Duration::from_secs_f64)
    }

    /// Bits per second that there is room for on the way to a viewer. `None` for a publisher.
    pub fn estimate_bps(&self) -> Option<f64> {
        self.estimate_bps.read()
    }

    /// Media packets received (publisher) or sent (viewer).
    pub fn packets(&self) -> u64 {
        self.packets.load(Relaxed)
    }

    /// Payload bytes of those packets.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Messages of its data channel, both ways.
    pub fn messages(&self) -> u64 {
        self.messages.load(Relaxed)
    }

    /// Width, height and bits per second of a publisher's simulcast layer. All are 0 while unknown,
    /// and the last while the layer is stopped.
    pub fn layer(&self, index: usize) -> (u16, u16, u64) {
        let word = self.layers.get(index).map_or(0, |cell| cell.load(Relaxed));
        let kbps = u64::from(word as u32);
        ((word >> 48) as u16, (word >> 32) as u16, kbps * 1_000)
    }

    pub(crate) fn set_layer(&self, index: usize, layer: &Layer) {
        if let Some(cell) = self.layers.get(index) {
            let kbps = layer.bits_per_second.div_ceil(1_000) as u32;
            let kbps = if layer.live { kbps } else { 0 };
            let size = u64::from(layer.width) << 48 | u64::from(layer.height) << 32;
            cell.store(size | u64::from(kbps), Relaxed);
        }
    }

    pub(crate) fn count_messages(&self, count: usize) {
        self.messages.fetch_add(count as u64, Relaxed);
    }

    /// As if so many packets and messages had come.
    #[cfg(any(test, feature = "test-util"))]
    pub fn note_traffic(&self, packets: u64, messages: u64) {
        self.packets.store(packets, Relaxed);
        self.messages.store(messages, Relaxed);
    }

    /// As if a connected session had each figure, of about that size.
    #[cfg(any(test, feature = "test-util"))]
    pub fn note_figures(&self, size: f64) {
        self.set_ice_state(IceState::Connected);
        self.set_connection_time(Duration::from_millis(50));
        self.set_rates(size, size * 1e3);
        self.set_loss(Some(size / 1e6));
        self.set_rtt(Duration::from_secs_f64(size / 1e3));
        self.set_jitter(size / 1e3);
        self.set_estimate(size as u64);
    }

    pub fn set_ice_state(&self, state: IceState) {
        self.ice_state.store(state as u8, Relaxed);
    }

    pub(crate) fn set_connection_time(&self, time: Duration) {
        self.connection_time.set(Some(time.as_secs_f64()));
    }

    pub(crate) fn set_rates(&self, frame_rate: f64, bitrate_bps: f64) {
        self.frame_rate.set(Some(frame_rate));
        self.bitrate_bps.set(Some(bitrate_bps));
    }

    pub(crate) fn set_loss(&self, ratio: Option<f64>) {
        self.loss_ratio.set(ratio);
    }

    pub(crate) fn set_rtt(&self, rtt: Duration) {
        self.rtt_seconds.set(Some(rtt.as_secs_f64()));
    }

    pub(crate) fn set_jitter(&self, seconds: f64) {
        self.jitter_seconds.set(Some(seconds));
    }

    pub(crate) fn set_estimate(&self, bits_per_second: u64) {
        self.estimate_bps.set(Some(bits_per_second as f64));
    }

    pub(crate) fn set_totals(&self, packets: u64, bytes: u64) {
        self.packets.store(packets, Relaxed);
        self.bytes.store(bytes, Relaxed);
    }
}

/// What one shard counts. Written by its thread.
#[derive(Debug, Default)]
pub struct ShardCells {
    packets_in: AtomicU64,
    bytes_in: AtomicU64,
    packets_out: AtomicU64,
    bytes_out: AtomicU64,
    keyframe_requests: [AtomicU64; KeyframeCause::ALL.len()],
    /// Of publishers, of viewers.
    nacked: [AtomicU64; 2],
    retransmitted: [AtomicU64; 2],
    joins: [AtomicU64; Served::ALL.len()],
    cache_bytes: AtomicU64,
    cache_shrinks: AtomicU64,
    sessions: AtomicU64,
    tcp_connections: AtomicU64,
    busy_nanos: AtomicU64,
    forgotten: [AtomicU64; Forgotten::ALL.len()],
    video_limit: [AtomicU64; VideoLimit::ALL.len()],
    watched: [AtomicU64; Watched::ALL.len()],
    drops: [AtomicU64; Drop::ALL.len()],
}

impl ShardCells {
    /// Datagrams received, of any kind.
    pub fn packets_in(&self) -> u64 {
        self.packets_in.load(Relaxed)
    }

    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Relaxed)
    }

    /// Datagrams that the kernel accepted for sending.
    pub fn packets_out(&self) -> u64 {
        self.packets_out.load(Relaxed)
    }

    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Relaxed)
    }

    /// PLI sent to publishers.
    pub fn keyframe_requests(&self, cause: KeyframeCause) -> u64 {
        self.keyframe_requests[cause as usize].load(Relaxed)
    }

    /// Packets that publishers were asked for again.
    pub fn nacked_out(&self) -> u64 {
        self.nacked[0].load(Relaxed)
    }

    /// Packets that viewers asked for again.
    pub fn nacked_in(&self) -> u64 {
        self.nacked[1].load(Relaxed)
    }

    /// Missing packets that publishers sent again.
    pub fn retransmitted_in(&self) -> u64 {
        self.retransmitted[0].load(Relaxed)
    }

    /// Packets sent to viewers again.
    pub fn retransmitted_out(&self) -> u64 {
        self.retransmitted[1].load(Relaxed)
    }

    /// Viewers that began so.
    pub fn joins(&self, served: Served) -> u64 {
        self.joins[served as usize].load(Relaxed)
    }

    /// Payload bytes that the shard's rings hold.
    pub fn cache_bytes(&self) -> u64 {
        self.cache_bytes.load(Relaxed)
    }

    /// Rings that had to let go of packets because all of them together were too large.
    pub fn cache_shrinks(&self) -> u64 {
        self.cache_shrinks.load(Relaxed)
    }

    /// Sessions that the shard holds now.
    pub fn sessions(&self) -> u64 {
        self.sessions.load(Relaxed)
    }

    /// TCP connections that the shard holds now.
    pub fn tcp_connections(&self) -> u64 {
        self.tcp_connections.load(Relaxed)
    }

    /// Time that the thread spent working, not waiting; its rate is the busy ratio.
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_nanos.load(Relaxed))
    }

    pub fn drops(&self, reason: Drop) -> u64 {
        self.drops[reason as usize].load(Relaxed)
    }

    pub fn forgotten(&self, what: Forgotten) -> u64 {
        self.forgotten[what as usize].load(Relaxed)
    }

    /// Seconds that publishers sent so much video.
    pub fn video_limit(&self, sent: VideoLimit) -> u64 {
        self.video_limit[sent as usize].load(Relaxed)
    }

    /// Seconds that viewers watched so.
    pub fn watched(&self, how: Watched) -> u64 {
        self.watched[how as usize].load(Relaxed)
    }

    pub fn count_in(&self, packets: u64, bytes: u64) {
        add(&self.packets_in, packets);
        add(&self.bytes_in, bytes);
    }

    pub fn count_out(&self, packets: u64, bytes: u64) {
        add(&self.packets_out, packets);
        add(&self.bytes_out, bytes);
    }

    pub fn count_drops(&self, reason: Drop, count: u64) {
        add(&self.drops[reason as usize], count);
    }

    pub fn count_keyframe_request(&self, cause: KeyframeCause) {
        add(&self.keyframe_requests[cause as usize], 1);
    }

    pub(crate) fn count_forgotten(&self, what: Forgotten) {
        add(&self.forgotten[what as usize], 1);
    }

    pub(crate) fn count_video_limit(&self, sent: VideoLimit) {
        add(&self.video_limit[sent as usize], 1);
    }

    pub(crate) fn count_watched(&self, how: Watched, seconds: u64) {
        add(&self.watched[how as usize], seconds);
    }

    pub(crate) fn count_nacked_out(&self, packets: u64) {
        add(&self.nacked[0], packets);
    }

    pub(crate) fn count_nacked_in(&self, packets: u64) {
        add(&self.nacked[1], packets);
    }

    pub(crate) fn count_retransmitted_in(&self) {
        add(&self.retransmitted[0], 1);
    }

    pub(crate) fn count_retransmitted_out(&self) {
        add(&self.retransmitted[1], 1);
    }

    pub(crate) fn count_join(&self, served: Served) {
        add(&self.joins[served as usize], 1);
    }

    pub fn set_cache_bytes(&self, bytes: u64) {
        self.cache_bytes.store(bytes, Relaxed);
    }

    pub fn count_cache_shrink(&self) {
        add(&self.cache_shrinks, 1);
    }

    pub fn set_sessions(&self, sessions: u64) {
        self.sessions.store(sessions, Relaxed);
    }

    pub fn set_tcp_connections(&self, connections: u64) {
        self.tcp_connections.store(connections, Relaxed);
    }

    pub fn add_busy(&self, time: Duration) {
        add(&self.busy_nanos, time.as_nanos() as u64);
    }
}

/// One writer: a load and a store are enough, and cost no locked instruction.
fn add(cell: &AtomicU64, count: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(count), Relaxed);
}
