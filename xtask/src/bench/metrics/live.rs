//! A server with 10 000 connected sessions of 100 devices, scraped and asked for its health while it carries
//! media.
//!
//! Two load tools hold the sessions at a packet a second each. A third measures the latency of full media, with
//! scrapes and without in turn; meanwhile the two stand still, since ten thousand clients are not on the machine of
//! their server. No session is lost by that: their checks go on before the server misses them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::ask::Connection;
use crate::bench::results::median;
use crate::bench::{Load, Ours};

/// Load tools that hold sessions, of so many devices and viewers each: the most that one takes.
const TOOLS: usize = 2;
const DEVICES: usize = 50;
const VIEWERS: usize = 4_950;
/// All of those, and of the tool that measures.
pub const FLAGS: &[&str] = &["--sessions-per-pod", "10100"];
/// Time for all of them to be there: a set-up takes both sides some 3 ms of a core.
const THERE_WITHIN: Duration = Duration::from_secs(400);
/// A set-up that fails does so within so long.
const SETTLED: Duration = Duration::from_secs(20);
/// Turns with scrapes, and as many without.
const TURNS: usize = 3;
/// Seconds of media in each.
const SECONDS: u64 = 8;
/// When the tool that measures has its sessions, and a moment before it begins to measure.
const JOINED: Duration = Duration::from_millis(4_800);
/// From then until the measurement is over: scrapes beyond it would meet the crowd.
const MEASURED: Duration = Duration::from_secs(SECONDS + 1);
/// For the checks of all sessions, which the tools send every few seconds.
const RECOVERED: Duration = Duration::from_secs(8);
/// More than twice as often as a Prometheus that is in a hurry.
pub const SCRAPE_SECONDS: u64 = 2;
/// How long health is asked for, and how often on each connection.
const HEALTH: Duration = Duration::from_secs(4);
const HEALTH_EVERY: Duration = Duration::from_millis(20);

/// What was seen. Times are in milliseconds.
pub struct Live {
    /// Sessions that the last scrape shows as connected.
    pub connected: usize,
    pub scrapes: Scrapes,
    /// Latency of media with scrapes and without, each the median of its turns.
    pub scraped: Times,
    pub alone: Times,
    /// By connections: of an idle server, and of one with all this.
    pub health: Vec<(usize, Times, Times)>,
}

/// Medians.
pub struct Scrapes {
    pub first_byte: f64,
    pub last_byte: f64,
    pub cpu: f64,
    pub megabytes: f64,
}

#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

pub fn measure(ours: &Ours) -> anyhow::Result<Live> {
    let address = ours.http()?;
    let idle = [1, 32].map(|connections| (connections, health(address, connections)));
    let crowd = (0..TOOLS)
        .map(|tool| hold(ours, tool))
        .collect::<anyhow::Result<Vec<Load>>>()?;
    until_there(address)?;
    let (mut alone, mut scraped, mut scrapes) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 1..=TURNS {
        let name = format!("metrics-alone-{turn}");
        alone.push(media(ours, &crowd, &name, || Ok(()))?.0);
        let name = format!("metrics-scraped-{turn}");
        let (times, seen) = media(ours, &crowd, &name, || {
            let ((), seen) = while_scraped(ours, || {
                std::thread::sleep(MEASURED);
                Ok(())
            })?;
            Ok(seen)
        })?;
        scraped.push(times);
        scrapes.extend(seen);
    }
    let (_, (busy, seen)) = media(ours, &crowd, "metrics-health", || {
        while_scraped(ours, || {
            Ok([1, 32].map(|connections| health(address, connections)))
        })
    })?;
    scrapes.extend(seen);
    let last = Connection::open(address)?.get("/metrics")?;
    let mut health = Vec::new();
    for ((connections, idle), busy) in idle.into_iter().zip(busy) {
        health.push((connections, idle?, busy?));
    }
    let middle = |of: fn(&Seen) -> f64| median(scrapes.iter().map(of).collect());
    Ok(Live {
        connected: last
            .body
            .lines()
            .filter(|line| {
                line.starts_with("media_ice_connection_state{")
                    && line.contains("state=\"connected\"")
            })
            .count(),
        scrapes: Scrapes {
            first_byte: middle(|seen| seen.first_byte).context("nothing was scraped")?,
            last_byte: middle(|seen| seen.last_byte).context("nothing was scraped")?,
            cpu: middle(|seen| seen.cpu).context("nothing was scraped")?,
            megabytes: last.body.len() as f64 / 1e6,
        },
        scraped: Times::middle(&scraped)?,
        alone: Times::middle(&alone)?,
        health,
    })
}

/// Begins a load that has its sessions and hardly any media.
fn hold(ours: &Ours, tool: usize) -> anyhow::Result<Load> {
    let (devices, viewers, name) = (
        DEVICES.to_string(),
        VIEWERS.to_string(),
        format!("crowd-{tool}"),
    );
    let flags = [
        "--publishers",
        &devices,
        "--viewers",
        &viewers,
        "--device",
        &name,
        "--concurrency",
        "24",
        "--frames-per-second",
        "1",
        "--packets-per-frame",
        "1",
        "--packet-bytes",
        "200",
        // Longer than anything here; it is ended with the measurement.
        "--duration",
        "3600",
    ];
    ours.begin(&name, &flags)
}

/// Waits until all sessions are there, but for the few whose set-up a busy machine let fail.
fn until_there(address: SocketAddr) -> anyhow::Result<()> {
    let all = (TOOLS * (DEVICES + VIEWERS)) as u64;
    let mut connection = Connection::open(address)?;
    let (started, mut since, mut last) = (Instant::now(), Instant::now(), 0);
    loop {
        let load: Value = serde_json::from_str(&connection.get("/load")?.body)?;
        let of = |what: &str| load[what].as_u64().unwrap_or(0);
        let there = (of("publishers") + of("viewers")).min(of("setupOk"));
        if there != last {
            (since, last) = (Instant::now(), there);
        }
        if there == all || there >= all - all / 100 && since.elapsed() > SETTLED {
            println!("{there} sessions after {} s", started.elapsed().as_secs());
            return Ok(());
        }
        ensure!(
            started.elapsed() < THERE_WITHIN,
            "{there} sessions are connected of {all} after {} s",
            THERE_WITHIN.as_secs()
        );
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Latency of a device's media to twenty viewers while the crowd stands still, and what `meanwhile` says.
fn media<T>(
    ours: &Ours,
    crowd: &[Load],
    name: &str,
    meanwhile: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(Times, T)> {
    let seconds = SECONDS.to_string();
    let flags = [
        "--viewers",
        "20",
        "--device",
        "probe",
        "--duration",
        &seconds,
    ];
    let limit = Duration::from_secs(SECONDS + 60);
    let (report, said) = std::thread::scope(|scope| {
        let load = scope.spawn(|| ours.load(name, &flags, limit));
        std::thread::sleep(JOINED);
        crowd.iter().try_for_each(Load::pause)?;
        let said = meanwhile();
        let report = load.join().expect("it does not panic");
        crowd.iter().try_for_each(Load::go_on)?;
        std::thread::sleep(RECOVERED);
        anyhow::Ok((report?, said?))
    })?;
    let of = |what: &str| {
        let value = report["forwarding_latency_ms"][what].as_f64();
        value.with_context(|| format!("{name} has no {what}"))
    };
    let times = Times {
        p50: of("p50")?,
        p99: of("p99")?,
        max: of("max")?,
    };
    println!("{name}: {times:?}");
    Ok((times, said))
}

/// One scrape, in milliseconds.
#[derive(Debug)]
struct Seen {
    first_byte: f64,
    last_byte: f64,
    /// Of the server's threads for HTTP.
    cpu: f64,
}

/// Does `work` while the server is scraped.
fn while_scraped<T>(
    ours: &Ours,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, Vec<Seen>)> {
    let (address, pid, done) = (ours.http()?, ours.pid(), &AtomicBool::new(false));
    std::thread::scope(|scope| {
        let scrapes = scope.spawn(move || -> anyhow::Result<Vec<Seen>> {
            let mut connection = Connection::open(address)?;
            let every = Duration::from_secs(SCRAPE_SECONDS);
            let (mut seen, mut next) = (Vec::new(), Instant::now() + every);
            while !done.load(Relaxed) {
                std::thread::sleep(Duration::from_millis(50));
                if Instant::now() >= next {
                    next += every;
                    let before = http_cpu(pid)?;
                    let answer = connection.get("/metrics")?;
                    seen.push(Seen {
                        first_byte: answer.first_byte.as_secs_f64() * 1e3,
                        last_byte: answer.last_byte.as_secs_f64() * 1e3,
                        cpu: http_cpu(pid)?.saturating_sub(before).as_secs_f64() * 1e3,
                    });
                }
            }
            Ok(seen)
        });
        let result = work();
        done.store(true, Relaxed);
        let scrapes = scrapes.join().expect("it does not panic")?;
        println!("scrapes: {scrapes:.1?}");
        Ok((result?, scrapes))
    })
}

/// CPU time of a server's threads for HTTP, in the scheduler's nanoseconds.
fn http_cpu(pid: u32) -> anyhow::Result<Duration> {
    let mut nanos = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        // One that ended meanwhile has nothing to tell.
        let read = |file: &str| std::fs::read_to_string(task.join(file)).unwrap_or_default();
        if read("comm").trim() == "http" {
            let run = read("schedstat");
            let run = run
                .split(' ')
                .next()
                .and_then(|run| run.parse::<u64>().ok());
            nanos += run.unwrap_or(0);
        }
    }
    Ok(Duration::from_nanos(nanos))
}

/// How long `/health` takes on so many connections at once, each of which asks fifty times a second.
fn health(address: SocketAddr, connections: usize) -> anyhow::Result<Times> {
    let all = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|_| {
                scope.spawn(move || -> anyhow::Result<Vec<f64>> {
                    let mut connection = Connection::open(address)?;
                    let (end, mut times) = (Instant::now() + HEALTH, Vec::new());
                    while Instant::now() < end {
                        let answer = connection.get("/health")?;
                        times.push(answer.last_byte.as_secs_f64() * 1e3);
                        std::thread::sleep(HEALTH_EVERY.saturating_sub(answer.last_byte));
                    }
                    Ok(times)
                })
            })
            .collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().expect("it does not panic")?);
        }
        anyhow::Ok(all)
    })?;
    Times::of(all)
}

impl Times {
    /// Nearest-rank percentiles.
    fn of(mut values: Vec<f64>) -> anyhow::Result<Times> {
        values.sort_by(f64::total_cmp);
        let rank = |part: f64| {
            let rank = (part * values.len() as f64).ceil() as usize;
            values
                .get(rank.saturating_sub(1))
                .copied()
                .context("no values")
        };
        Ok(Times {
            p50: rank(0.5)?,
            p99: rank(0.99)?,
            max: rank(1.0)?,
        })
    }

    /// The median of each over turns.
    fn middle(turns: &[Times]) -> anyhow::Result<Times> {
        let middle = |of: fn(&Times) -> f64| {
            let values = turns.iter().map(of).collect();
            median(values).context("no turns")
        };
        Ok(Times {
            p50: middle(|times| times.p50)?,
            p99: middle(|times| times.p99)?,
            max: middle(|times| times.max)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let times = Times::of((1..=200).rev().map(f64::from).collect()).expect("values");
        assert_eq!((times.p50, times.p99, times.max), (100.0, 198.0, 200.0));
        assert!(Times::of(Vec::new()).is_err());
    }
}
