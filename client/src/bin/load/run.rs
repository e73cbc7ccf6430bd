//! One load run: publishers connect, viewers join, media flows, everything is closed and counted.

use std::sync::Arc;
use std::time::Duration;

use client::{Http, HttpOptions, Loss, Options, Publisher, Traffic, Transport};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::churn::churn;
use crate::join::{Door, Group, Joins, Rhythm, Watching, join_all};
use crate::layers::Layers;
use crate::meter::Meter;
use crate::report::{
    DeviceReport, LossReport, Report, ServerReport, SetupReport, Shape, TrafficReport, rounded,
};
use crate::send::{Sending, packets_sent, publish};
use crate::server::{self, Usage};
use crate::tally::{Departed, Totals};
use crate::wave::Wave;
use crate::{Args, progress};

/// Media before the measured window: the first keyframes and the caches' first misses.
const WARM_UP: Duration = Duration::from_secs(1);

/// How long memory must stay the same before the sessions count as at rest.
const AT_REST: Duration = Duration::from_secs(2);

/// Longest wait for packets still under way when the publishers stop.
const DRAIN: Duration = Duration::from_secs(2);

/// Runs the load that the flags describe.
///
/// # Errors
/// If a publisher can't connect or fails, or the use of a process can't be read. Viewers that fail
/// are counted, not an error.
pub async fn run(args: &Args) -> anyhow::Result<Report> {
    let http = Http::new(&HttpOptions {
        token: None,
        insecure_tls: args.insecure,
        resolve: args.resolve.clone(),
    })?;
    let mut options = Options {
        bind: args.bind,
        ..Options::default()
    };
    if args.tcp {
        options.transport = Transport::Tcp;
    }
    if let Some(profile) = args.srtp {
        options.srtp_profiles = vec![profile];
    }
    if args.wave > 0 {
        options.connect_timeout = WAVE_CONNECT;
    }
    options.loss = args.loss.map(|percent| Loss {
        ratio: percent / 100.0,
        seed: args.seed,
    });
    let layers = Arc::new(Layers::new(args.layers as usize, &args.viewer_layer));
    let publishing = Options {
        rids: layers.rids(),
        traffic: Arc::new(Traffic::default()),
        ..options.clone()
    };
    let traffic = [options.traffic.clone(), publishing.traffic.clone()];
    let tokens = args.tokens()?;
    let meter = Arc::new(Meter::new());
    let measure = || args.server_pid.map(server::usage).transpose();
    let group = match args.joins_at_rest() {
        true => Group::AtRest,
        false => Group::Live,
    };

    let (publishers, publisher_setups_repeated) =
        publish(args, &http, &tokens, &publishing).await?;
    let stamped = !publishers.is_empty();
    let sending = Sending::start(args, &publishers, &meter, &layers);
    if group == Group::Live {
        sending.go();
        // Whoever joins now joins a stream, not its first frame.
        tokio::time::sleep(WARM_UP).await;
    } else {
        tokio::time::sleep(AT_REST).await;
    }
    let door = Door::new(args, http, options, tokens, meter.clone(), layers.clone());
    let before_viewers = measure()?;
    let joins = join_all(&door, 0, args.viewers as usize, args.rhythm(), group).await;
    if group == Group::AtRest {
        tokio::time::sleep(AT_REST).await;
    }
    let with_viewers = measure()?;
    let at_rest_viewers = joins.watching.len();
    sending.go();

    let Joins {
        mut watching,
        mut failed,
        mut failures,
        mut blind,
    } = joins;
    progress(&format!(
        "media flows for {} s to {} viewers ({failed} failed)",
        args.duration,
        watching.len()
    ));
    tokio::time::sleep(WARM_UP).await;
    let requests = || -> u64 { publishers.iter().map(|p| p.keyframe_requests()).sum() };
    let mut wave = None;
    if args.wave > 0 {
        let plan = Wave {
            door: &door,
            first: args.viewers as usize,
            viewers: args.wave as usize,
            within: Duration::from_secs_f64(args.wave_seconds),
            codec: args.codec,
            stamped,
            server_pid: args.server_pid,
        };
        let (joins, report) = plan.run(&watching, requests).await?;
        failed += joins.failed;
        failures.extend(joins.failures);
        blind.merge(joins.blind);
        watching.extend(joins.watching);
        wave = Some(report);
    }

    let mut departed = Departed::new(args.devices().len(), args.codec, stamped);
    let window_start = Instant::now();
    let own_before = server::usage(std::process::id())?;
    let server_before = measure()?;
    let delivered_before = departed.delivered(&watching);
    meter.record(true);
    let churned = match args.churn {
        Some(rate) => {
            let next = (args.viewers + args.wave) as usize;
            let time = args.measured();
            Some(churn(&door, next, rate, time, &mut watching, &mut departed).await)
        }
        None => {
            tokio::time::sleep(args.measured()).await;
            None
        }
    };
    meter.record(false);
    let delivered = departed.delivered(&watching) - delivered_before;
    let server_after = measure()?;
    let own_after = server::usage(std::process::id())?;
    let window = window_start.elapsed();

    if stamped {
        see(&watching).await;
    }
    sending.stop().await?;
    drain(&watching).await;

    // Of several layers a viewer gets one at a time, so not all is owed to it.
    let sent = |device: usize| -> Option<u64> {
        let publisher = publishers.get(device).filter(|_| !layers.is_simulcast());
        publisher.map(|publisher| packets_sent(publisher))
    };
    let by_device = departed.by_device(&watching, sent);
    let total = Totals::sum(by_device.iter().copied());
    blind.merge(std::mem::take(&mut departed.blind));
    blind.look_at(&watching, args.codec, stamped);
    let churn_failed = churned.as_ref().map_or(0, |churn| churn.failed);
    let viewers_that_saw_nothing = blind.count() + churn_failed;
    let choosing = |choice: usize| {
        let with_it = watching.iter().filter(|watch| watch.eye.choice() == choice);
        with_it.count()
    };
    let latency = meter.latency();
    let report = Report {
        expected_packets: total.expected,
        delivered_packets: total.packets,
        delivered_payload_bytes: total.payload_bytes,
        lost_packets: total.lost,
        delivered_ratio: match total.expected {
            0 => 0.0,
            expected => rounded(total.packets as f64 / expected as f64),
        },
        video_frames: total.video_frames,
        viewers_connected: watching.len(),
        viewers_failed: failed,
        viewers_without_picture: stamped.then_some(total.without_picture),
        viewers_that_saw_nothing,
        blind: (stamped || blind.count() > 0).then_some(blind),
        failures,
        loss: args.loss.map(|percent| LossReport {
            percent,
            seed: args.seed,
            publisher_setups_repeated,
        }),
        traffic: TrafficReport {
            viewers: traffic[0].counts(),
            publishers: traffic[1].counts(),
        },
        layers: layers.report(window, args.publishers as usize, choosing),
        arrival_clock: match args.tcp {
            true => "tcp_read",
            false => "kernel",
        },
        joined: match group {
            Group::AtRest => "at_rest",
            _ => "live",
        },
        publisher_setup_ms: publisher_setups(&publishers),
        viewer_setup_ms: SetupReport::of(departed.joined(&watching, group)),
        wave,
        churn: churned,
        window_seconds: rounded(window.as_secs_f64()),
        window_delivered_packets: delivered,
        forwarding_latency_ms: latency.map(|(percentiles, _)| percentiles),
        forwarding_latency_samples: latency.map_or(0, |(_, samples)| samples),
        own_cpu_cores: cores(own_before, own_after, window),
        own_cpu_us_per_received_packet: us_per_packet(own_before, own_after, delivered),
        server: server_report(
            [before_viewers, with_viewers, server_before, server_after],
            (group == Group::AtRest).then_some(at_rest_viewers),
            delivered,
            window,
        ),
        devices: device_reports(args, &publishers, &by_device),
        shape: Shape {
            codec: args.codec,
            publishers: args.publishers,
            viewers: args.viewers,
            frames_per_second: args.frames_per_second,
            packets_per_frame: args.packets_per_frame,
            packet_bytes: args.packet_bytes,
            keyframe_seconds: args.keyframe_seconds,
            joins_per_second: match args.rhythm() {
                Rhythm::PerSecond(rate) => Some(rate),
                Rhythm::Concurrent(_) => None,
            },
            wave: args.wave,
            churn_per_second: args.churn,
            layers: args.layers,
        },
    };
    close(publishers, watching).await;
    Ok(report)
}

/// Longest wait, with media, for those who came last to see a picture.
const PICTURES: Duration = Duration::from_secs(15);

/// Waits until all see a picture.
async fn see(watching: &[Watching]) {
    let deadline = Instant::now() + PICTURES;
    let blind = |watch: &Watching| watch.eye.picture().is_none() && !watch.viewer.state().is_over();
    while Instant::now() < deadline && watching.iter().any(blind) {
        tokio::time::sleep(DRAIN / 8).await;
    }
}

/// A thousand handshakes at once take the cores of a small machine for longer than one does.
const WAVE_CONNECT: Duration = Duration::from_secs(60);

/// Waits until nothing more arrives.
async fn drain(watching: &[Watching]) {
    let delivered = || -> u64 { watching.iter().map(|watch| watch.viewer.packets()).sum() };
    let deadline = Instant::now() + DRAIN;
    let mut before = delivered();
    while Instant::now() < deadline {
        tokio::time::sleep(DRAIN / 8).await;
        let now = delivered();
        if now == before {
            return;
        }
        before = now;
    }
}

fn publisher_setups(publishers: &[Arc<Publisher>]) -> SetupReport {
    SetupReport::of(publishers.iter().map(|publisher| {
        let times = publisher.setup_times();
        crate::report::Joined {
            offered: times.offered,
            answered: times.answered,
            connected: times.connected,
            ..Default::default()
        }
    }))
}

fn device_reports(
    args: &Args,
    publishers: &[Arc<Publisher>],
    by_device: &[Totals],
) -> Vec<DeviceReport> {
    args.devices()
        .into_iter()
        .zip(by_device)
        .enumerate()
        .map(|(index, (device, totals))| {
            let publisher = publishers.get(index);
            DeviceReport {
                device,
                packets_sent: publisher.map_or(0, |publisher| packets_sent(publisher)),
                keyframe_requests: publisher.map_or(0, |publisher| publisher.keyframe_requests()),
                viewers: totals.viewers,
                delivered_packets: totals.packets,
                lost_packets: totals.lost,
            }
        })
        .collect()
}

fn server_report(
    [before_viewers, with_viewers, before, after]: [Option<Usage>; 4],
    at_rest: Option<usize>,
    delivered: u64,
    window: Duration,
) -> Option<ServerReport> {
    let (before, after) = (before?, after?);
    let (idle, joined) = (before_viewers?, with_viewers?);
    let viewers = at_rest.filter(|viewers| *viewers > 0);
    let per_viewer = |total: f64| viewers.map(|viewers| rounded(total / viewers as f64));
    Some(ServerReport {
        cpu_us_per_forwarded_packet: us_per_packet(before, after, delivered),
        cpu_cores: cores(before, after, window),
        rss_kib_per_viewer_at_rest: per_viewer(joined.rss_kib as f64 - idle.rss_kib as f64),
        rss_kib_at_end: after.rss_kib,
        cpu_ms_per_setup: per_viewer(joined.cpu.saturating_sub(idle.cpu).as_secs_f64() * 1e3),
    })
}

fn us_per_packet(before: Usage, after: Usage, packets: u64) -> f64 {
    match packets {
        0 => 0.0,
        packets => {
            let cpu = after.cpu.saturating_sub(before.cpu);
            rounded(cpu.as_secs_f64() * 1e6 / packets as f64)
        }
    }
}

fn cores(before: Usage, after: Usage, window: Duration) -> f64 {
    rounded(after.cpu.saturating_sub(before.cpu).as_secs_f64() / window.as_secs_f64())
}

/// Ends every session, several at a time. A server that is gone by then is no failure of the run.
async fn close(publishers: Vec<Arc<Publisher>>, watching: Vec<Watching>) {
    let mut closing = JoinSet::new();
    for watch in watching {
        closing.spawn(async move { watch.viewer.close().await.is_ok() });
    }
    while closing.join_next().await.is_some() {}
    for publisher in publishers {
        if let Ok(publisher) = Arc::try_unwrap(publisher)
            && let Err(error) = publisher.close().await
        {
            progress(&format!("a publisher did not close cleanly: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_session_costs_at_rest_is_told_only_of_viewers_that_joined_so() {
        let usage = |ms, rss_kib| {
            Some(Usage {
                cpu: Duration::from_millis(ms),
                rss_kib,
            })
        };
        let usages = [
            usage(0, 1_000),
            usage(20, 1_800),
            usage(30, 0),
            usage(130, 2_000),
        ];
        let window = Duration::from_secs(10);
        let report = server_report(usages, Some(10), 50_000, window).expect("all was measured");
        assert_eq!(report.rss_kib_per_viewer_at_rest, Some(80.0));
        assert_eq!(report.cpu_ms_per_setup, Some(2.0));
        assert_eq!(report.cpu_us_per_forwarded_packet, 2.0);
        assert_eq!(report.cpu_cores, 0.01);
        let live = server_report(usages, None, 0, window).expect("all was measured");
        assert_eq!(live.rss_kib_per_viewer_at_rest, None);
        assert_eq!(live.cpu_us_per_forwarded_packet, 0.0);
        assert!(server_report([None; 4], None, 0, window).is_none());
    }
}
