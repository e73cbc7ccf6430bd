//! The publishers: how they connect and at what pace they send.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use client::synthetic::FrameSource;
use client::{ClientError, Http, Options, Publisher, Track};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::layers::Layers;
use crate::meter::Meter;
use crate::tokens::Tokens;
use crate::{Args, endpoint, progress};

/// Set-ups of a publisher whose handshake was lost on purpose.
const TRIES: u64 = 5;

/// Tells the luck of publishers from that of viewers, who count from 0.
const FIRST_SESSION: u64 = 1 << 32;

/// Connects the publishers, all of them or none. Also says how many set-ups were made again because loss
/// on purpose had ended them.
///
/// # Errors
/// Why the first of them could not.
pub async fn publish(
    args: &Args,
    http: &Http,
    tokens: &Tokens,
    options: &Options,
) -> anyhow::Result<(Vec<Arc<Publisher>>, u64)> {
    let (mut publishers, mut repeated) = (Vec::new(), 0);
    let Some(whip) = args.whip.as_deref().filter(|_| args.publishers > 0) else {
        return Ok((publishers, repeated));
    };
    for (index, device) in args.devices().into_iter().enumerate() {
        let url = endpoint(whip, &device);
        let http = http.with_token(tokens.publisher(&device)?);
        let mut tries = 0;
        let publisher = loop {
            let mut options = options.clone();
            let session = FIRST_SESSION + index as u64 * TRIES + tries;
            options.loss = options.loss.map(|loss| loss.of(session));
            tries += 1;
            match Publisher::connect(&url, &http, &options, &[args.codec]).await {
                Ok(publisher) => break publisher,
                Err(error @ (ClientError::Timeout { .. } | ClientError::NotConnected { .. }))
                    if options.loss.is_some() && tries < TRIES =>
                {
                    progress(&format!("{device} tries again: {error}"));
                    repeated += 1;
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("failed to publish {device}"));
                }
            }
        };
        publishers.push(Arc::new(publisher));
    }
    progress(&format!("{} publishers connected", publishers.len()));
    Ok((publishers, repeated))
}

/// What was sent so far, over all layers.
pub fn packets_sent(publisher: &Publisher) -> u64 {
    publisher.tracks().iter().map(Track::packets).sum()
}

/// The publishers' tasks.
pub struct Sending {
    tasks: JoinSet<anyhow::Result<()>>,
    go: watch::Sender<bool>,
    stop: Arc<AtomicBool>,
}

impl Sending {
    /// Makes a task for each publisher, which waits for [`Self::go`].
    pub fn start(
        args: &Args,
        publishers: &[Arc<Publisher>],
        meter: &Arc<Meter>,
        layers: &Arc<Layers>,
    ) -> Self {
        let (go, started) = watch::channel(false);
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for (index, publisher) in publishers.iter().enumerate() {
            let sources = layers.sources(
                args.codec,
                args.packets_per_frame as usize,
                args.packet_bytes as usize,
                index as u64,
            );
            let device = Device {
                publisher: publisher.clone(),
                streams: sources.into_iter().map(Stream::new).collect(),
                pace: Pace::new(args, index, publishers.len()),
                meter: meter.clone(),
                layers: layers.clone(),
            };
            tasks.spawn(device.send(started.clone(), stop.clone()));
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
            frame,
            phase: frame.mul_f64(index as f64 / devices.max(1) as f64),
            ticks: args.codec.clock_rate() / args.frames_per_second,
            frames_per_keyframe: args.keyframe_seconds.saturating_mul(args.frames_per_second),
        }
    }
}

/// A publisher and what it sends.
struct Device {
    publisher: Arc<Publisher>,
    /// In the order of its tracks.
    streams: Vec<Stream>,
    pace: Pace,
    meter: Arc<Meter>,
    layers: Arc<Layers>,
}

/// The frames of one track.
struct Stream {
    source: FrameSource,
    since_keyframe: u32,
    /// Keyframe requests that have had their keyframe.
    answered: u64,
}

impl Stream {
    fn new(source: FrameSource) -> Self {
        Self {
            source,
            since_keyframe: u32::MAX,
            answered: 0,
        }
    }
}

impl Device {
    /// Sends frames from the moment `started` holds true until `stop`.
    async fn send(
        mut self,
        mut started: watch::Receiver<bool>,
        stop: Arc<AtomicBool>,
    ) -> anyhow::Result<()> {
        started
            .wait_for(|started| *started)
            .await
            .context("the run ended before media began")?;
        let Pace {
            frame,
            phase,
            ticks,
            frames_per_keyframe,
        } = self.pace;
        let mut tick = tokio::time::interval_at(Instant::now() + phase, frame);
        // A camera does not make up for frames that it missed; a burst of them would overrun sockets.
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut timestamp = 0u32;
        while !stop.load(Ordering::Relaxed) {
            tick.tick().await;
            let tracks = self.publisher.tracks();
            for (layer, (track, stream)) in tracks.iter().zip(&mut self.streams).enumerate() {
                let requests = match tracks.len() {
                    // Of a server that names another SSRC too.
                    1 => self.publisher.keyframe_requests(),
                    _ => self.publisher.keyframe_requests_of(track),
                };
                let keyframe =
                    stream.since_keyframe >= frames_per_keyframe || requests > stream.answered;
                stream.answered = requests;
                stream.since_keyframe = if keyframe {
                    1
                } else {
                    stream.since_keyframe + 1
                };
                let payloads = stream.source.stamped_frame(keyframe);
                let last = payloads.len() - 1;
                for (index, payload) in payloads.into_iter().enumerate() {
                    let payload = payload.sent_at(self.meter.now());
                    let bytes = payload.len();
                    track
                        .send(timestamp, index == last, payload)
                        .await
                        .with_context(|| {
                            format!("the publisher is {:?}", self.publisher.state())
                        })?;
                    if self.meter.is_recording() {
                        self.layers.sent(layer, bytes);
                    }
                }
            }
            timestamp = timestamp.wrapping_add(ticks);
        }
        Ok(())
    }
}
