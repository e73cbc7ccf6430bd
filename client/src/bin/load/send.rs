//! The publishers: how they connect and at what pace they send.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use client::synthetic::FrameSource;
use client::{Codec, Http, Options, Publisher};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::meter::Meter;
use crate::tokens::Tokens;
use crate::{Args, endpoint, progress};

/// Bytes of an RTP header without extensions.
const RTP_HEADER: usize = 12;

/// Connects the publishers, all of them or none.
///
/// # Errors
/// Why the first of them could not.
pub async fn publish(
    args: &Args,
    http: &Http,
    tokens: &Tokens,
    options: &Options,
) -> anyhow::Result<Vec<Arc<Publisher>>> {
    let mut publishers = Vec::new();
    let Some(whip) = args.whip.as_deref().filter(|_| args.publishers > 0) else {
        return Ok(publishers);
    };
    for device in args.devices() {
        let url = endpoint(whip, &device);
        let http = http.with_token(tokens.publisher(&device)?);
        let publisher = Publisher::connect(&url, &http, options, &[args.codec])
            .await
            .with_context(|| format!("failed to publish {device}"))?;
        publishers.push(Arc::new(publisher));
    }
    progress(&format!("{} publishers connected", publishers.len()));
    Ok(publishers)
}

/// The publishers' tasks.
pub struct Sending {
    tasks: JoinSet<anyhow::Result<()>>,
    go: watch::Sender<bool>,
    stop: Arc<AtomicBool>,
}

impl Sending {
    /// Makes a task for each publisher, which waits for [`Self::go`].
    pub fn start(args: &Args, publishers: &[Arc<Publisher>], meter: &Arc<Meter>) -> Self {
        let (go, started) = watch::channel(false);
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for (index, publisher) in publishers.iter().enumerate() {
            let source = FrameSource::new(
                args.codec,
                args.packets_per_frame as usize,
                args.packet_bytes as usize - RTP_HEADER,
                index as u64,
            );
            let pace = Pace::new(args, index, publishers.len());
            tasks.spawn(send(
                publisher.clone(),
                source,
                pace,
                meter.clone(),
                started.clone(),
                stop.clone(),
            ));
        }
        Self { tasks, go, stop }
    }

    /// Media flows from now on.
    pub fn go(&self) {
        self.go.send_replace(true);
    }

    /// Ends all tasks.
    ///
    /// # Errors
    /// If one had failed.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(sent) = self.tasks.join_next().await {
            sent.context("a publisher's task failed")??;
        }
        Ok(())
    }
}

/// When frames and keyframes are due.
struct Pace {
    codec: Codec,
    frame: Duration,
    /// From the start of media to the first frame: devices do not tick together.
    phase: Duration,
    ticks: u32,
    frames_per_keyframe: u32,
}

impl Pace {
    fn new(args: &Args, index: usize, devices: usize) -> Self {
        let frame = Duration::from_secs(1) / args.frames_per_second;
        Self {
            codec: args.codec,
            frame,
            phase: frame.mul_f64(index as f64 / devices.max(1) as f64),
            ticks: args.codec.clock_rate() / args.frames_per_second,
            frames_per_keyframe: args.keyframe_seconds.saturating_mul(args.frames_per_second),
        }
    }
}

/// Sends frames from the moment `started` holds true until `stop`.
async fn send(
    publisher: Arc<Publisher>,
    mut source: FrameSource,
    pace: Pace,
    meter: Arc<Meter>,
    mut started: watch::Receiver<bool>,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<()> {
    started
        .wait_for(|started| *started)
        .await
        .context("the run ended before media began")?;
    let track = publisher.track(pace.codec)?;
    let mut tick = tokio::time::interval_at(Instant::now() + pace.phase, pace.frame);
    // A camera does not make up for frames that it missed; a burst of them would overrun sockets.
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut timestamp, mut since_keyframe, mut answered) = (0u32, u32::MAX, 0);
    while !stop.load(Ordering::Relaxed) {
        tick.tick().await;
        let requests = publisher.keyframe_requests();
        let keyframe = since_keyframe >= pace.frames_per_keyframe || requests > answered;
        answered = requests;
        since_keyframe = if keyframe { 1 } else { since_keyframe + 1 };
        let payloads = source.stamped_frame(keyframe);
        let last = payloads.len() - 1;
        for (index, payload) in payloads.into_iter().enumerate() {
            track
                .send(timestamp, index == last, payload.sent_at(meter.now()))
                .await
                .with_context(|| format!("the publisher is {:?}", publisher.state()))?;
        }
        timestamp = timestamp.wrapping_add(pace.ticks);
    }
    Ok(())
}
