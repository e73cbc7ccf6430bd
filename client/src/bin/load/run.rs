//! One load run: publishers connect, viewers join, media flows, everything is closed and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use client::synthetic::FrameSource;
use client::{Codec, Http, HttpOptions, Options, Publisher, Viewer};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::report::{DeviceReport, Percentiles, Report, ServerReport, SetupReport, Shape, rounded};
use crate::server::{self, Usage};
use crate::{Args, endpoint};

/// Media before the measured window: the first keyframes and the caches' first misses.
const WARM_UP: Duration = Duration::from_secs(1);

/// How long memory must stay the same before the sessions count as at rest.
const AT_REST: Duration = Duration::from_secs(2);

/// Longest wait for packets still under way when the publishers stop.
const DRAIN: Duration = Duration::from_secs(2);

/// Reasons of failure that the report repeats.
const MAX_FAILURES: usize = 5;

/// Bytes of an RTP header without extensions.
const RTP_HEADER: usize = 12;

struct Watching {
    viewer: Arc<Viewer>,
    device: usize,
}

pub async fn run(args: &Args) -> anyhow::Result<Report> {
    let http = Http::new(&HttpOptions {
        token: args.token.clone(),
        insecure_tls: args.insecure,
        resolve: args.resolve.clone(),
    })?;
    let mut options = Options {
        bind: args.bind,
        ..Options::default()
    };
    if let Some(profile) = args.srtp {
        options.srtp_profiles = vec![profile];
    }
    let measure = || args.server_pid.map(server::usage).transpose();
    let at_rest = args.server_pid.is_some() && args.publishers > 0;
    let devices = args.devices();

    let publishers = publish(args, &http, &options, &devices).await?;
    let (go, started) = watch::channel(!at_rest);
    let stop = Arc::new(AtomicBool::new(false));
    let mut sending = JoinSet::new();
    for (index, publisher) in publishers.iter().enumerate() {
        sending.spawn(send(
            publisher.clone(),
            source(args, index),
            Pace::new(args),
            started.clone(),
            stop.clone(),
        ));
    }

    if at_rest {
        tokio::time::sleep(AT_REST).await;
    }
    let before_viewers = measure()?;
    let (watching, failures) = watch_all(args, &http, &options, &devices).await;
    let failed = args.viewers as usize - watching.len();
    if at_rest {
        tokio::time::sleep(AT_REST).await;
    }
    let with_viewers = measure()?;
    go.send_replace(true);

    progress(format!(
        "media flows for {} s to {} viewers ({failed} failed)",
        args.duration,
        watching.len()
    ));
    tokio::time::sleep(WARM_UP).await;
    let window_start = Instant::now();
    let own_before = server::usage(std::process::id())?;
    let server_before = measure()?;
    let delivered_before = delivered(&watching);
    tokio::time::sleep(args.measured()).await;
    let delivered_after = delivered(&watching);
    let server_after = measure()?;
    let own_after = server::usage(std::process::id())?;
    let window = window_start.elapsed();

    stop.store(true, Ordering::Relaxed);
    while let Some(sent) = sending.join_next().await {
        sent.context("a publisher's task failed")??;
    }
    drain(&watching).await;

    let report = Report {
        expected_packets: expected(args, &publishers, &watching, at_rest),
        delivered_packets: watching.iter().map(|w| w.viewer.packets()).sum(),
        delivered_payload_bytes: sum(&watching, |reception| reception.payload_bytes()),
        lost_packets: sum(&watching, |reception| reception.lost()),
        delivered_ratio: 0.0,
        video_frames: sum(&watching, |reception| reception.video_frames()),
        viewers_connected: watching.len(),
        viewers_failed: failed,
        failures,
        joined: if at_rest { "at_rest" } else { "live" },
        publisher_setup_ms: SetupReport {
            answered: Percentiles::of(publishers.iter().map(|p| p.setup_times().answered)),
            connected: Percentiles::of(publishers.iter().map(|p| p.setup_times().connected)),
            first_packet: None,
        },
        viewer_setup_ms: viewer_setups(&watching, at_rest).await,
        window_seconds: rounded(window.as_secs_f64()),
        window_delivered_packets: delivered_after - delivered_before,
        own_cpu_cores: cores(own_before, own_after, window),
        server: server_report(
            [before_viewers, with_viewers, server_before, server_after],
            watching.len(),
            at_rest,
            delivered_after - delivered_before,
            window,
        ),
        devices: device_reports(args, &devices, &publishers, &watching),
        shape: Shape {
            codec: args.codec,
            publishers: args.publishers,
            viewers: args.viewers,
            frames_per_second: args.frames_per_second,
            packets_per_frame: args.packets_per_frame,
            packet_bytes: args.packet_bytes,
        },
    };
    let report = Report {
        delivered_ratio: match report.expected_packets {
            0 => 0.0,
            expected => rounded(report.delivered_packets as f64 / expected as f64),
        },
        ..report
    };
    close(publishers, watching).await;
    Ok(report)
}

/// Connects the publishers, all of them or none.
async fn publish(
    args: &Args,
    http: &Http,
    options: &Options,
    devices: &[String],
) -> anyhow::Result<Vec<Arc<Publisher>>> {
    let mut publishers = Vec::new();
    let Some(whip) = args.whip.as_deref().filter(|_| args.publishers > 0) else {
        return Ok(publishers);
    };
    for device in devices {
        let url = endpoint(whip, device);
        let publisher = Publisher::connect(&url, http, options, &[args.codec])
            .await
            .with_context(|| format!("failed to publish {device}"))?;
        publishers.push(Arc::new(publisher));
    }
    progress(format!("{} publishers connected", publishers.len()));
    Ok(publishers)
}

/// Lets the viewers join, some at a time; returns the connected ones and why others failed.
async fn watch_all(
    args: &Args,
    http: &Http,
    options: &Options,
    devices: &[String],
) -> (Vec<Watching>, Vec<String>) {
    let permits = Arc::new(Semaphore::new(args.concurrency as usize));
    let mut joins = JoinSet::new();
    for index in 0..args.viewers as usize {
        let device = index % devices.len();
        let Some(whep) = &args.whep else { break };
        let url = endpoint(whep, &devices[device]);
        let (http, options, permits) = (http.clone(), options.clone(), permits.clone());
        let codec = args.codec;
        joins.spawn(async move {
            let _permit = permits.acquire().await;
            let viewer = Viewer::connect(&url, &http, &options, &[codec], None).await?;
            Ok::<_, client::ClientError>(Watching {
                viewer: Arc::new(viewer),
                device,
            })
        });
    }
    let (mut watching, mut failures) = (Vec::new(), Vec::new());
    while let Some(joined) = joins.join_next().await {
        let failure = match joined {
            Ok(Ok(watch)) => {
                watching.push(watch);
                if watching.len().is_multiple_of(50) {
                    progress(format!("{} of {} viewers", watching.len(), args.viewers));
                }
                continue;
            }
            Ok(Err(error)) => format!("{:#}", anyhow::Error::from(error)),
            Err(error) => error.to_string(),
        };
        if failures.len() < MAX_FAILURES {
            progress(format!("a viewer failed: {failure}"));
            failures.push(failure);
        }
    }
    (watching, failures)
}

fn source(args: &Args, index: usize) -> FrameSource {
    FrameSource::new(
        args.codec,
        args.packets_per_frame as usize,
        args.packet_bytes as usize - RTP_HEADER,
        index as u64,
    )
}

/// When frames and keyframes are due.
struct Pace {
    codec: Codec,
    frame: Duration,
    ticks: u32,
    frames_per_keyframe: u32,
}

impl Pace {
    fn new(args: &Args) -> Self {
        Self {
            codec: args.codec,
            frame: Duration::from_secs(1) / args.frames_per_second,
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
    mut started: watch::Receiver<bool>,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<()> {
    started
        .wait_for(|started| *started)
        .await
        .context("the run ended before media began")?;
    let track = publisher.track(pace.codec)?;
    let mut tick = tokio::time::interval(pace.frame);
    // A camera does not make up for frames that it missed; a burst of them would overrun sockets.
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut timestamp, mut since_keyframe, mut answered) = (0u32, u32::MAX, 0);
    while !stop.load(Ordering::Relaxed) {
        tick.tick().await;
        let requests = publisher.keyframe_requests();
        let keyframe = since_keyframe >= pace.frames_per_keyframe || requests > answered;
        answered = requests;
        since_keyframe = if keyframe { 1 } else { since_keyframe + 1 };
        let payloads = source.frame(keyframe);
        let last = payloads.len() - 1;
        for (index, payload) in payloads.into_iter().enumerate() {
            track
                .send(timestamp, index == last, payload)
                .await
                .with_context(|| format!("the publisher is {:?}", publisher.state()))?;
        }
        timestamp = timestamp.wrapping_add(pace.ticks);
    }
    Ok(())
}

/// Waits until nothing more arrives.
async fn drain(watching: &[Watching]) {
    let deadline = Instant::now() + DRAIN;
    let mut before = delivered(watching);
    while Instant::now() < deadline {
        tokio::time::sleep(DRAIN / 8).await;
        let now = delivered(watching);
        if now == before {
            return;
        }
        before = now;
    }
}

fn delivered(watching: &[Watching]) -> u64 {
    watching.iter().map(|watch| watch.viewer.packets()).sum()
}

fn sum(watching: &[Watching], count: impl Fn(&client::Reception) -> u64) -> u64 {
    watching
        .iter()
        .map(|watch| count(&watch.viewer.reception()))
        .sum()
}

/// What the viewers should have got: all that was sent, if they were there before it began; else
/// what the sequence numbers they saw span.
fn expected(
    args: &Args,
    publishers: &[Arc<Publisher>],
    watching: &[Watching],
    at_rest: bool,
) -> u64 {
    watching
        .iter()
        .map(|watch| match publishers.get(watch.device) {
            Some(publisher) if at_rest => publisher
                .track(args.codec)
                .map_or(0, |track| track.packets()),
            _ => {
                let reception = watch.viewer.reception();
                reception.packets() + reception.lost()
            }
        })
        .sum()
}

async fn viewer_setups(watching: &[Watching], at_rest: bool) -> SetupReport {
    let mut first_packets = Vec::new();
    for watch in watching.iter().filter(|_| !at_rest) {
        // One that never got a packet would wait for ever.
        if watch.viewer.packets() > 0 {
            first_packets.push(watch.viewer.first_packet().await);
        }
    }
    SetupReport {
        answered: Percentiles::of(watching.iter().map(|w| w.viewer.setup_times().answered)),
        connected: Percentiles::of(watching.iter().map(|w| w.viewer.setup_times().connected)),
        first_packet: (!at_rest).then(|| Percentiles::of(first_packets)),
    }
}

fn device_reports(
    args: &Args,
    devices: &[String],
    publishers: &[Arc<Publisher>],
    watching: &[Watching],
) -> Vec<DeviceReport> {
    devices
        .iter()
        .enumerate()
        .map(|(index, device)| {
            let of_device = || watching.iter().filter(move |watch| watch.device == index);
            let publisher = publishers.get(index);
            DeviceReport {
                device: device.clone(),
                packets_sent: publisher
                    .and_then(|publisher| publisher.track(args.codec).ok())
                    .map_or(0, |track| track.packets()),
                keyframe_requests: publisher.map_or(0, |publisher| publisher.keyframe_requests()),
                viewers: of_device().count(),
                delivered_packets: of_device().map(|w| w.viewer.packets()).sum(),
                lost_packets: of_device().map(|w| w.viewer.reception().lost()).sum(),
            }
        })
        .collect()
}

fn server_report(
    [before_viewers, with_viewers, before, after]: [Option<Usage>; 4],
    viewers: usize,
    at_rest: bool,
    delivered: u64,
    window: Duration,
) -> Option<ServerReport> {
    let (before, after) = (before?, after?);
    let (idle, joined) = (before_viewers?, with_viewers?);
    let per_viewer = |total: f64| (at_rest && viewers > 0).then(|| rounded(total / viewers as f64));
    let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
    Some(ServerReport {
        cpu_us_per_forwarded_packet: match delivered {
            0 => 0.0,
            packets => rounded(cpu * 1e6 / packets as f64),
        },
        cpu_cores: cores(before, after, window),
        rss_kib_per_viewer_at_rest: per_viewer(joined.rss_kib as f64 - idle.rss_kib as f64),
        rss_kib_at_end: after.rss_kib,
        cpu_ms_per_setup: per_viewer(joined.cpu.saturating_sub(idle.cpu).as_secs_f64() * 1e3),
    })
}

fn cores(before: Usage, after: Usage, window: Duration) -> f64 {
    rounded(after.cpu.saturating_sub(before.cpu).as_secs_f64() / window.as_secs_f64())
}

/// Ends every session, several at a time. A server that is gone by then is no failure of the run.
async fn close(publishers: Vec<Arc<Publisher>>, watching: Vec<Watching>) {
    let mut closing = JoinSet::new();
    for watch in watching {
        if let Ok(viewer) = Arc::try_unwrap(watch.viewer) {
            closing.spawn(async move { viewer.close().await.is_ok() });
        }
    }
    while closing.join_next().await.is_some() {}
    for publisher in publishers {
        if let Ok(publisher) = Arc::try_unwrap(publisher)
            && let Err(error) = publisher.close().await
        {
            progress(format!("a publisher did not close cleanly: {error}"));
        }
    }
}

fn progress(line: String) {
    eprintln!("media-load: {line}");
}
