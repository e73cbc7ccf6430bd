//! `cargo xtask soak`: a hundred viewers who come and go at random for half an hour, while the network
//! loses packets; then whether the server is as large as it was, has no session left, and counted what
//! the load tool counted.
//!
//! It runs in a network namespace of its own, where nftables drop at random. Called by people and by
//! the long gate.

use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::bench::{self, Ours};
use crate::demo::machine;
use crate::sh::{self, Counts};
use crate::test::packages;

#[derive(clap::Args)]
pub struct Args {
    /// Seconds that viewers come and go
    #[arg(long, value_name = "N", default_value_t = 1_800)]
    seconds: u32,
    /// In the namespace already
    #[arg(long, hide = true)]
    inside: bool,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            seconds: 1_800,
            inside: false,
        }
    }
}

const VIEWERS: u64 = 100;
/// Changes a second, in the mean.
const CHURN: &str = "2";
/// Of a hundred UDP packets, how many are lost each way.
const LOST: f64 = 2.0;
/// Between two looks at the server's memory.
const LOOK: Duration = Duration::from_secs(10);
/// The first part fills what is kept for later, pools and the allocator's own.
const WARM_UP: f64 = 0.25;
/// What memory may grow in an hour, as a part of what it is: the noise of half an hour is some percent.
const GROWTH: f64 = 0.1;

/// # Errors
/// With everything that is not as it should be.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if args.inside {
        return inside(args.seconds);
    }
    packages::install(&[packages::SOAK])?;
    // In the namespace there is no network to fetch crates over.
    bench::build()?;
    let this = std::env::current_exe().context("can't find this program")?;
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "--"]).arg(this).args([
        "soak",
        "--inside",
        "--seconds",
        &args.seconds.to_string(),
    ]);
    sh::run(&mut unshare, &mut Counts::default())
}

fn inside(seconds: u32) -> anyhow::Result<()> {
    sh::output(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    // Half an hour later is too late to hear that it can't.
    nft(&["-c", "-f", "-"])?;
    let ours = Ours::start("soak")?;
    let (viewers, duration) = (VIEWERS.to_string(), seconds.to_string());
    let flags = [
        ["--viewers", &viewers],
        ["--churn", CHURN],
        ["--duration", &duration],
        ["--frames-per-second", "15"],
        ["--packets-per-frame", "4"],
    ]
    .concat();
    let limit = Duration::from_secs(u64::from(seconds) + 300);
    let (report, resident) = while_watched(ours.pid(), || {
        std::thread::scope(|scope| {
            let loss = scope.spawn(|| lose_once_all_are_there(&ours));
            let report = ours.load("soak", &flags, limit);
            loss.join().expect("it does not panic")?;
            report
        })
    })?;
    let metrics = metrics(
        &ours,
        "the server has no session",
        Duration::from_secs(90),
        |metrics| metrics.sum("media_active_sessions", "") == Some(0.0),
    )?;

    let slope = slope(&resident).context("too few looks at its memory")?;
    let mean = resident.iter().map(|(_, kib)| kib).sum::<f64>() / resident.len() as f64;
    println!("{}", summary(&report, &metrics));
    println!("memory: {mean:.0} KiB in the mean, {slope:+.1} KiB an hour");
    let mut complaints = complaints(&report, &metrics);
    if seconds >= Args::default().seconds && slope > mean * GROWTH {
        complaints.push(format!("memory grows: {resident:.0?}"));
    }
    ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    Ok(())
}

/// Has the network of this namespace lose packets, behind the set-up of those who are there from the
/// start: the device has to be among them.
fn lose_once_all_are_there(ours: &Ours) -> anyhow::Result<()> {
    let all = 1.0 + VIEWERS as f64;
    let what = format!("the server has connected {all} sessions");
    metrics(ours, &what, Duration::from_secs(120), |metrics| {
        metrics.sum("media_setup_total", "result=\"connected\"") >= Some(all)
    })?;
    nft(&["-f", "-"])
}

/// Gives `nft` the rules that lose packets.
fn nft(args: &[&str]) -> anyhow::Result<()> {
    let rules = format!(
        "table inet soak {{
            chain input {{
                type filter hook input priority 0
                meta l4proto udp numgen random mod 1000 < {} drop
            }}
        }}",
        LOST * 10.0
    );
    machine::feed(Command::new("nft").args(args), &rules).map(drop)
}

/// Does `work`, and says how much memory a process had meanwhile, behind the warm-up: hours since the
/// start, and KiB.
fn while_watched<T>(
    pid: u32,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, Vec<(f64, f64)>)> {
    let start = Instant::now();
    let (done, over) = mpsc::channel::<()>();
    let watcher = std::thread::spawn(move || {
        let mut looks = Vec::new();
        while over.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            let hours = start.elapsed().as_secs_f64() / 3_600.0;
            looks.extend(resident(pid).map(|kib| (hours, kib)));
        }
        looks
    });
    let result = work();
    drop(done);
    let looks = watcher.join().expect("it only reads a file");
    let skipped = (looks.len() as f64 * WARM_UP) as usize;
    Ok((result?, looks[skipped..].to_vec()))
}

fn resident(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Of the line that fits best (least squares), in units of the second for one of the first.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let over: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    let under: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
    (points.len() > 2 && under > 0.0).then(|| over / under)
}

/// Waits until the server's metrics are as wanted; returns them then.
fn metrics(
    ours: &Ours,
    what: &str,
    within: Duration,
    wanted: impl Fn(&Metrics) -> bool,
) -> anyhow::Result<Metrics> {
    let origin = ours.whip().split("/whip").next().unwrap_or_default();
    let ask = || {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-m", "5", &format!("{origin}/metrics")]);
        Ok(curl)
    };
    let good = |metrics: &str| wanted(&Metrics(metrics.to_owned()));
    Ok(Metrics(machine::until(what, within, ask, good)?))
}

/// What a server exposes.
struct Metrics(String);

impl Metrics {
    /// Over all series of a family whose labels contain `label`; `None` if there is none.
    fn sum(&self, family: &str, label: &str) -> Option<f64> {
        let value = |line: &str| -> Option<f64> {
            let rest = line.strip_prefix(family)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            let own = labels.is_empty() || labels.starts_with('{');
            (own && labels.contains(label)).then(|| value.parse().ok())?
        };
        let values: Vec<f64> = self.0.lines().filter_map(value).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    fn of(&self, family: &str, label: &str) -> f64 {
        self.sum(family, label).unwrap_or(0.0)
    }
}

fn number(report: &Value, at: &str) -> f64 {
    report
        .pointer(at)
        .and_then(Value::as_f64)
        .unwrap_or(f64::NAN)
}

fn summary(report: &Value, metrics: &Metrics) -> String {
    format!(
        "{} joined, {} left, {} failed; {:.5} of all packets came; {} asked for again, {} sent again",
        number(report, "/churn/joined"),
        number(report, "/churn/left"),
        number(report, "/churn/failed"),
        number(report, "/delivered_ratio"),
        metrics.of("media_nacked_packets_total", "direction=\"in\""),
        metrics.of("media_retransmitted_packets_total", "direction=\"out\""),
    )
}

/// What is not as it should be, each with the figures.
fn complaints(report: &Value, metrics: &Metrics) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut expect = |what: &str, seen: f64, least: f64, most: f64| {
        // Not a number is not good either.
        if !(least..=most).contains(&seen) {
            complaints.push(format!("{what} is {seen}, not {least} to {most}"));
        }
    };
    let joined = number(report, "/churn/joined");
    expect("/churn/joined", joined, 1.0, f64::MAX);
    for none in ["/viewers_failed", "/churn/not_deleted"] {
        expect(none, number(report, none), 0.0, 0.0);
    }
    // Who loses its first keyframe, asks for none as the tool's viewers do, and leaves before the next.
    let blind = number(report, "/viewers_without_picture");
    let few = (joined * LOST / 100.0).ceil();
    expect("/viewers_without_picture", blind, 0.0, few);
    // The DTLS of the tool's library, as a client, sends its last flight once: where that is lost the
    // handshake ends by time, however often the server repeats its own (RFC 6347 §4.2.4 wants it sent
    // again). With both its flights behind the first that is a few in a hundred.
    let failed = number(report, "/churn/failed");
    expect("/churn/failed", failed, 0.0, joined * 3.0 * LOST / 100.0);
    // What is lost twice comes a third time, and once in a while is late for that. What is only late, and
    // asked for meanwhile, comes twice.
    expect(
        "/delivered_ratio",
        number(report, "/delivered_ratio"),
        0.999,
        1.001,
    );

    let opened = 1.0 + VIEWERS as f64 + joined;
    let created = metrics.of("media_sessions_created_total", "");
    expect(
        "media_sessions_created_total",
        created,
        opened,
        opened + failed,
    );
    let closed = metrics.of("media_sessions_closed_total", "");
    expect("media_sessions_closed_total", closed, created, created);
    let normal = metrics.of("media_sessions_closed_total", "reason=\"normal_close\"");
    expect("those with normal_close", normal, opened, created);
    let unfinished = metrics.of("media_setup_total", "result=\"failed\"")
        + metrics.of("media_setup_total", "result=\"cancelled\"");
    expect(
        "media_setup_total failed and cancelled",
        unfinished,
        created - opened,
        failed,
    );
    let connected = metrics.of("media_setup_total", "result=\"connected\"");
    expect("media_setup_total connected", connected, opened, created);

    let delivered = number(report, "/delivered_packets");
    let sent = metrics.of("media_packets_total", "direction=\"out\"");
    let again = metrics.of("media_retransmitted_packets_total", "direction=\"out\"");
    // Beside media there are handshakes, reports and probes.
    expect("media_packets_total out", sent, delivered, delivered * 1.2);
    // What was lost was sent again, and some of that too.
    let lost = delivered * LOST / 100.0;
    expect(
        "media_retransmitted_packets_total out",
        again,
        lost * 0.8,
        lost * 1.5,
    );
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn good() -> (Value, String) {
        let report = json!({
            "viewers_failed": 0, "viewers_without_picture": 0, "delivered_ratio": 0.9999,
            "delivered_packets": 100_000,
            "churn": {"failed": 0, "not_deleted": 0, "joined": 500, "left": 500},
        });
        let metrics = "# TYPE media_active_sessions gauge\n\
            media_active_sessions 0\n\
            media_sessions_created_total{device_id=\"load\"} 601\n\
            media_sessions_closed_total{device_id=\"load\",reason=\"normal_close\"} 601\n\
            media_sessions_closed_total{device_id=\"load\",reason=\"ice_failed\"} 0\n\
            media_setup_total{role=\"viewer\",result=\"connected\"} 600\n\
            media_setup_total{role=\"publisher\",result=\"connected\"} 1\n\
            media_packets_total{direction=\"out\"} 104000\n\
            media_packets_total{direction=\"in\"} 9\n\
            media_retransmitted_packets_total{direction=\"out\"} 2100\n";
        (report, metrics.to_owned())
    }

    #[test]
    fn a_run_is_good_if_everybody_saw_everything_and_both_sides_counted_the_same() {
        let (report, metrics) = good();
        assert_eq!(complaints(&report, &Metrics(metrics)), [""; 0]);
    }

    #[test]
    fn whatever_is_out_of_line_is_said() {
        let told =
            |report: &Value, metrics: String| complaints(report, &Metrics(metrics)).join("\n");
        let (report, metrics) = good();
        let mut blind = report.clone();
        blind["viewers_without_picture"] = json!(11);
        assert_eq!(
            told(&blind, metrics.clone()),
            "/viewers_without_picture is 11, not 0 to 10"
        );
        let stuck = metrics.replace("normal_close\"} 601", "normal_close\"} 600");
        assert_eq!(
            told(&report, stuck),
            "media_sessions_closed_total is 600, not 601 to 601\n\
             those with normal_close is 600, not 601 to 601"
        );
        let unheard = metrics.replace("} 2100", "} 20");
        assert!(told(&report, unheard).starts_with("media_retransmitted_packets_total out is 20"));
        assert!(told(&Value::Null, metrics).contains("/churn/joined is NaN"));
    }

    #[test]
    fn the_slope_is_that_of_the_line_through_the_points() {
        let line = |k: f64| -> Vec<(f64, f64)> {
            (0..9).map(|x| (x.into(), k * f64::from(x) + 7.0)).collect()
        };
        assert_eq!(slope(&line(3.0)), Some(3.0));
        assert_eq!(slope(&line(-0.5)), Some(-0.5));
        assert_eq!(slope(&line(1.0)[..2]), None, "too few");
        assert_eq!(
            slope(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]),
            None,
            "at one time"
        );
    }

    #[test]
    fn a_family_is_summed_over_its_own_series() {
        let metrics = Metrics("a_total 1\na{x=\"1\"} 2\na{x=\"2\"} 4\nab{x=\"1\"} 8\n".to_owned());
        assert_eq!(metrics.sum("a", ""), Some(6.0));
        assert_eq!(metrics.sum("a", "x=\"2\""), Some(4.0));
        assert_eq!(metrics.sum("b", ""), None, "no series is not 0");
    }
}
