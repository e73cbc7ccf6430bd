//! `cargo xtask soak --sessions N`: so many sessions are opened, connected and closed again in one run; then
//! whether the server has the series and the memory that it had before.
//!
//! What came before is a short run of the same load: labels that are not of sessions (devices, routes, statuses)
//! have their series from then on. Without loss, so it needs no network of its own.

use std::collections::BTreeSet;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::accounts::Metrics;
use super::{metrics, resident};
use crate::bench::Ours;
use crate::sh;

/// Sessions that come, and as many that go, a second. Both sides of a set-up take some 3 ms of a core together.
const A_SECOND: u32 = 150;
/// Of so many devices, and so many viewers at a time.
const DEVICES: &str = "20";
const VIEWERS: &str = "400";
/// Longest time for all of them: what is not there by then will not be.
const WITHIN: Duration = Duration::from_secs(540);
/// Between two scrapes; series of a session stay two of them after its end.
const SCRAPE_SECONDS: u32 = 5;
/// The allocator's figures are 10 s old at the most, and pages that nobody uses go back within 10 s.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// Bytes that may stay of a session of the second half: less than the smallest thing that can be allocated. Tables with
/// a bound, connections that a client keeps open and the like have grown in the first.
const STAYS: f64 = 4.0;
/// What may in any case: allocations of threads at rest differ by so much from one moment to another.
const ANYWAY: f64 = 64.0 * 1024.0;
/// Resident memory after all beside before, of which the allocator keeps pages in part used.
const RESIDENT: f64 = 0.5;

/// Series that may be new beside those of sessions: statuses and errors that a busy machine brings about. A label
/// that is not of a bounded set would make more.
const STATUSES: usize = 20;

const SESSION: &str = "session_id=\"";
const DEVICE: &str = "device_id=\"";

/// What a server is like at one moment.
struct State {
    series: BTreeSet<String>,
    /// Bytes.
    allocated: f64,
    resident: f64,
}

/// # Errors
/// With everything that is not as it should be.
pub fn run(sessions: u32) -> anyhow::Result<()> {
    let config = sh::target()?.join("bench/turnover.toml");
    let file = config.display().to_string();
    std::fs::create_dir_all(config.parent().context("a folder")?)?;
    std::fs::write(
        &config,
        format!("[metrics]\nscrape_interval_seconds = {SCRAPE_SECONDS}\n"),
    )?;
    let ours = Ours::start_with("turnover", &["--config", &file])?;
    turn_over(&ours, 5)?;
    let before = settled(&ours, f64::MAX)?;

    let started = Instant::now();
    let [created_before, connected_before] = counts(&ours)?;
    let mut most = open_and_close(&ours, created_before + f64::from(sessions / 2), started)?;
    let middle = settled(&ours, f64::MAX)?;
    let half = counts(&ours)?[0];
    let all = created_before + f64::from(sessions);
    most = most.max(open_and_close(&ours, all, started)?);
    let took = started.elapsed().as_secs();

    let allowed = middle.allocated + ANYWAY.max(STAYS * (all - half));
    let after = settled(&ours, allowed)?;
    let [created, connected] = counts(&ours)?;
    let (created, connected) = (created - created_before, connected - connected_before);
    println!("sessions opened and closed: {created} in {took} s, connected: {connected}");
    println!(
        "series: {} before, {most} at the most, {} after",
        before.series.len(),
        after.series.len()
    );
    let kib = |bytes: f64| bytes / 1024.0;
    println!(
        "allocated: {:.0} KiB before, {:.0} after half of them, {:.0} after; resident: {:.0} before, {:.0} after",
        kib(before.allocated),
        kib(middle.allocated),
        kib(after.allocated),
        kib(before.resident),
        kib(after.resident)
    );
    let new: Vec<_> = after.series.difference(&before.series).collect();
    let gone: Vec<_> = before.series.difference(&after.series).collect();
    println!("series that are new: {new:#?}");
    ensure!(gone.is_empty(), "series are gone: {gone:#?}");
    let of_device = new.iter().any(|series| series.contains(DEVICE));
    ensure!(
        new.len() <= STATUSES && !of_device,
        "{} series are new",
        new.len()
    );
    ensure!(
        connected >= created * 0.99,
        "of {created} sessions {connected} connected"
    );
    ensure!(
        most > before.series.len() + 1_000,
        "hardly a series was ever there: {most}"
    );
    ensure!(
        after.allocated <= allowed,
        "more than {:.0} KiB are allocated",
        kib(allowed)
    );
    let allowed = before.resident * (1.0 + RESIDENT);
    ensure!(
        after.resident <= allowed,
        "more than {:.0} KiB are resident",
        kib(allowed)
    );
    Ok(())
}

/// Has sessions come and go until so many were created since the server's start; the most series that there were.
fn open_and_close(ours: &Ours, all: f64, started: Instant) -> anyhow::Result<usize> {
    let mut most = 0;
    // The last of them come while the load ends, and on a busy machine some changes are left out.
    loop {
        let missing = all - counts(ours)?[0];
        if missing <= 0.0 {
            return Ok(most);
        }
        ensure!(
            started.elapsed() < WITHIN,
            "{missing} sessions are missing after {} s",
            WITHIN.as_secs()
        );
        let seconds = (missing / f64::from(A_SECOND)).ceil().max(5.0) as u32;
        most = most.max(most_series(ours, || turn_over(ours, seconds))?);
    }
}

/// Sessions that were created, and that connected, since the server's start.
fn counts(ours: &Ours) -> anyhow::Result<[f64; 2]> {
    let metrics = metrics(ours, "the server tells of itself", SETTLED_WITHIN, |_| true)?;
    let created = metrics.sum("media_sessions_created_total", "");
    let connected = metrics.sum("media_setup_total", "result=\"connected\"");
    Ok([created, connected].map(|count| count.unwrap_or(0.0)))
}

/// Has viewers come and go for so long, and then all leave.
fn turn_over(ours: &Ours, seconds: u32) -> anyhow::Result<()> {
    let (rate, duration) = (A_SECOND.to_string(), seconds.to_string());
    let flags = [
        ["--publishers", DEVICES],
        ["--viewers", VIEWERS],
        ["--churn", &rate],
        ["--duration", &duration],
        ["--frames-per-second", "5"],
        ["--packets-per-frame", "1"],
        ["--keyframe-seconds", "1"],
        ["--concurrency", "24"],
    ]
    .concat();
    let limit = Duration::from_secs(u64::from(seconds) + 120);
    let report = ours.load("turnover", &flags, limit)?;
    println!("churn: {}", report["churn"]);
    Ok(())
}

/// Does `work`; the most series that a scrape showed meanwhile.
fn most_series(ours: &Ours, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<usize> {
    let every = Duration::from_secs(u64::from(SCRAPE_SECONDS));
    let (done, over) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let watcher = scope.spawn(move || -> anyhow::Result<usize> {
            let mut most = 0;
            while over.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let metrics = metrics(ours, "the server tells of itself", every, |_| true)?;
                most = most.max(series(&metrics).len());
            }
            Ok(most)
        });
        let result = work();
        drop(done);
        let most = watcher.join().expect("it does not panic")?;
        result.map(|()| most)
    })
}

/// The server's state once no session has series, and no more than `allowed` bytes are allocated, or the time for
/// that is over.
fn settled(ours: &Ours, allowed: f64) -> anyhow::Result<State> {
    let no_session = |metrics: &Metrics| !metrics.0.contains(SESSION);
    metrics(ours, "no session has series", SETTLED_WITHIN, no_session)?;
    // Once more after the next look at memory: what is told now was seen with sessions there.
    let started = Instant::now();
    let last = metrics(ours, "memory is as it was", 2 * SETTLED_WITHIN, |metrics| {
        let waited = started.elapsed();
        let little = allocated(metrics).is_some_and(|bytes| bytes <= allowed);
        waited > SETTLED_WITHIN / 3 && (little || waited > SETTLED_WITHIN)
    })?;
    Ok(State {
        allocated: allocated(&last).context("the server does not tell what is allocated")?,
        resident: resident(ours.pid()).context("the server has no memory")? * 1024.0,
        series: series(&last),
    })
}

fn allocated(metrics: &Metrics) -> Option<f64> {
    metrics.sum("media_memory_heap_alloc_bytes", "")
}

/// The names and labels of all series.
fn series(metrics: &Metrics) -> BTreeSet<String> {
    let lines = metrics.0.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_a_name_with_its_labels_whatever_its_value() {
        let of = |text: &str| series(&Metrics(text.to_owned()));
        let before = of("# TYPE a counter\na{x=\"1 2\"} 3\nb 4\n");
        assert_eq!(before, of("b 5\na{x=\"1 2\"} 3.5\n"));
        assert_eq!(before.len(), 2);
        assert_ne!(before, of("a{x=\"1 3\"} 3\nb 4\n"));
    }
}
