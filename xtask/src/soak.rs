//! `cargo xtask soak`: a hundred viewers who come and go at random for half an hour, while the network
//! loses packets; then whether the server is as large as it was, has no session left, and counted what
//! the load tool and nftables counted.
//!
//! It runs in a network namespace of its own, where nftables drop at random. Called by people and by
//! the long gate. With `--sessions` it is `turnover.rs` instead.

mod accounts;
mod turnover;

use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::bench::{self, Ours};
use crate::demo::machine;
use crate::sh::{self, Counts};
use crate::test::packages;
use accounts::{Dropped, Metrics, Network, complaints, summary};

#[derive(clap::Args)]
pub struct Args {
    /// Seconds that viewers come and go
    #[arg(long, value_name = "N", default_value_t = 1_800)]
    seconds: u32,
    /// Instead, so many sessions are opened and closed as fast as a small machine does it; whether series and
    /// memory are as before
    #[arg(long, value_name = "N", conflicts_with = "seconds")]
    sessions: Option<u32>,
    /// In the namespace already
    #[arg(long, hide = true)]
    inside: bool,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            seconds: 1_800,
            sessions: None,
            inside: false,
        }
    }
}

impl Args {
    /// The sessions of the long gate.
    pub fn turnover() -> Self {
        Self {
            sessions: Some(50_000),
            ..Self::default()
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
    if let Some(sessions) = args.sessions {
        return turnover::run(sessions);
    }
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
    nft(&["-c", "-f", "-"], 8_443)?;
    let ours = Ours::start("soak")?;
    let (viewers, duration) = (VIEWERS.to_string(), seconds.to_string());
    let flags = [
        ["--viewers", &viewers],
        ["--churn", CHURN],
        ["--duration", &duration],
        ["--frames-per-second", "15"],
        ["--packets-per-frame", "4"],
        // More than the cache serves (decision 2): some who join have the device asked.
        ["--keyframe-seconds", "10"],
    ]
    .concat();
    let limit = Duration::from_secs(u64::from(seconds) + 300);
    let (report, looks) = while_watched(&ours, || {
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

    let network = Network {
        to_server: dropped(TO_SERVER)?,
        to_clients: dropped(TO_CLIENTS)?,
        told: mean(looks.iter().map(|look| look.loss)),
        overflows: overflows().context("the kernel does not tell of full sockets")?,
    };

    let resident: Vec<(f64, f64)> = looks.iter().map(|look| (look.hours, look.kib)).collect();
    let slope = slope(&resident).context("too few looks at its memory")?;
    let mean = mean(resident.iter().map(|(_, kib)| *kib));
    println!("{}", summary(&report, &metrics, &network));
    println!("memory: {mean:.0} KiB in the mean, {slope:+.1} KiB an hour");
    let mut complaints = complaints(&report, &metrics, &network);
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
    nft(&["-f", "-"], ours.media().port())
}

const TO_SERVER: &str = "to_server";
const TO_CLIENTS: &str = "to_clients";

/// Gives `nft` the rules that lose packets to and from a server at that port, and count them.
fn nft(args: &[&str], port: u16) -> anyhow::Result<()> {
    let lose = format!("numgen random mod 1000 < {}", LOST * 10.0);
    let rules = format!(
        "table inet soak {{
            counter {TO_SERVER} {{}}
            counter {TO_CLIENTS} {{}}
            chain input {{
                type filter hook input priority 0
                udp dport {port} {lose} counter name {TO_SERVER} drop
                udp sport {port} {lose} counter name {TO_CLIENTS} drop
            }}
        }}"
    );
    machine::feed(Command::new("nft").args(args), &rules).map(drop)
}

/// What the rules have counted.
fn dropped(counter: &str) -> anyhow::Result<Dropped> {
    let mut nft = Command::new("nft");
    nft.args(["-j", "list", "counter", "inet", "soak", counter]);
    let told: Value = serde_json::from_str(&sh::output(&mut nft)?)?;
    let of = |name: &str| {
        let objects = told["nftables"].as_array().into_iter().flatten();
        let mut counts = objects.filter_map(|object| object["counter"][name].as_f64());
        counts.next().with_context(|| format!("no {name}: {told}"))
    };
    Ok(Dropped {
        packets: of("packets")?,
        bytes: of("bytes")?,
    })
}

/// Datagrams that a socket of this namespace had no room for.
fn overflows() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/net/snmp").ok()?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split(' ').position(|name| name == "RcvbufErrors")?;
    values.split(' ').nth(at)?.parse().ok()
}

/// What is seen at one moment.
#[derive(Clone)]
struct Look {
    /// Since the start.
    hours: f64,
    /// The server's memory.
    kib: f64,
    /// What the server says is lost, in the mean over its sessions.
    loss: f64,
}

/// Does `work`, and says what was seen of the server meanwhile, behind the warm-up.
fn while_watched<T>(
    ours: &Ours,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, Vec<Look>)> {
    let start = Instant::now();
    let (done, over) = mpsc::channel::<()>();
    let (result, looks) = std::thread::scope(|scope| {
        let watcher = scope.spawn(move || -> anyhow::Result<Vec<Look>> {
            let mut looks = Vec::new();
            while over.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                let metrics = metrics(ours, "the server tells of itself", LOOK, |_| true)?;
                let losses = metrics.values("media_packet_loss_ratio", "");
                // Behind the last session and before the load's end there are none.
                if losses.is_empty() {
                    continue;
                }
                looks.push(Look {
                    hours: start.elapsed().as_secs_f64() / 3_600.0,
                    kib: resident(ours.pid()).context("the server has no memory")?,
                    loss: mean(losses.into_iter()),
                });
            }
            Ok(looks)
        });
        let result = work();
        drop(done);
        (result, watcher.join().expect("it does not panic"))
    });
    let (result, looks) = (result?, looks?);
    let skipped = (looks.len() as f64 * WARM_UP) as usize;
    Ok((result, looks[skipped..].to_vec()))
}

/// Not a number without values.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sum / count
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
    let good = |metrics: &str| wanted(&Metrics(metrics.to_owned()));
    let ask = || Ok(scrape(ours));
    Ok(Metrics(machine::until(what, within, ask, good)?))
}

fn scrape(ours: &Ours) -> Command {
    let origin = ours.whip().split("/whip").next().unwrap_or_default();
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-m", "5", &format!("{origin}/metrics")]);
    curl
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
