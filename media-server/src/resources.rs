//! What the process uses: memory, CPU, tasks; looked at every 10 s by a task of its own.
//!
//! Reads `/proc`, cgroups (v1 and v2), the allocator and the runtime; sets gauges. Decides nothing.

use crate::app::App;
use crate::cgroup;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;

/// How often everything is looked at.
pub const EVERY: Duration = Duration::from_secs(10);
/// How long tasks must stay above the bound to be called a leak.
const LEAK_AFTER: Duration = Duration::from_secs(300);
/// `/proc` counts CPU time in ticks of 1/100 s on every Linux (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

/// Figures of the last look that `/load` shows, and counts of set-ups.
#[derive(Debug, Default)]
pub struct Usage {
    cpu_ratio: AtomicU64,
    egress_pps: AtomicU64,
    setup_ok: AtomicU64,
    setup_failed: AtomicU64,
    connections: AtomicU64,
}

impl Usage {
    pub fn cpu_ratio(&self) -> f64 {
        f64::from_bits(self.cpu_ratio.load(Relaxed))
    }

    pub fn egress_pps(&self) -> u64 {
        self.egress_pps.load(Relaxed)
    }

    pub fn setup_ok(&self) -> u64 {
        self.setup_ok.load(Relaxed)
    }

    pub fn setup_failed(&self) -> u64 {
        self.setup_failed.load(Relaxed)
    }

    pub fn count_setup(&self, ok: bool) {
        let counter = if ok {
            &self.setup_ok
        } else {
            &self.setup_failed
        };
        counter.fetch_add(1, Relaxed);
    }

    /// HTTP connections now open.
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    pub fn connection_opened(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    pub fn connection_closed(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }
}

/// Looks at everything now and every 10 s, for ever.
pub async fn monitor(app: Arc<App>) {
    let mut monitor = Monitor::new(&app);
    let mut every = tokio::time::interval(EVERY);
    // After a pause of the machine all looks that it missed would come at once, and show a span of no length.
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        monitor.look(&app, Instant::now());
    }
}

struct Monitor {
    at: Instant,
    cpu_seconds: f64,
    packets_out: u64,
    busy: Vec<Duration>,
    most_tasks: usize,
    leak: Leak,
    cores: f64,
}

impl Monitor {
    fn new(app: &App) -> Monitor {
        Monitor {
            at: Instant::now(),
            cpu_seconds: cpu_seconds().unwrap_or(0.0),
            packets_out: packets_out(app),
            busy: app.shards.cells().iter().map(|c| c.busy()).collect(),
            most_tasks: 0,
            leak: Leak::default(),
            cores: cgroup::cores(),
        }
    }

    fn look(&mut self, app: &App, now: Instant) {
        let metrics = &app.metrics;
        if let Some(bytes) = resident_bytes() {
            metrics.set("media_memory_usage_bytes", &[], bytes as f64);
        }
        // The allocator's figures are a snapshot of its epoch.
        if tikv_jemalloc_ctl::epoch::advance().is_ok() {
            if let Ok(bytes) = tikv_jemalloc_ctl::stats::allocated::read() {
                metrics.set("media_memory_heap_alloc_bytes", &[], bytes as f64);
            }
            if let Ok(bytes) = tikv_jemalloc_ctl::stats::mapped::read() {
                metrics.set("media_memory_heap_sys_bytes", &[], bytes as f64);
            }
        }
        let tasks = tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
            + app.shards.cells().len();
        self.most_tasks = self.most_tasks.max(tasks);
        metrics.set("media_goroutine_count", &[], tasks as f64);
        metrics.set("media_goroutine_count_max", &[], self.most_tasks as f64);
        let leak = self.leak.look(tasks, app.usage.connections(), now);
        metrics.set(
            "media_potential_goroutine_leak",
            &[],
            f64::from(u8::from(leak)),
        );
        self.rates(app, now);
    }

    fn rates(&mut self, app: &App, now: Instant) {
        let passed = now.duration_since(self.at).as_secs_f64();
        let cpu = cpu_seconds().unwrap_or(self.cpu_seconds);
        let packets = packets_out(app);
        // The first look comes at once and has no span to divide by.
        let (mut ratio, mut pps) = (0.0, 0);
        if passed > 0.5 {
            ratio = ((cpu - self.cpu_seconds) / passed / self.cores).clamp(0.0, 1.0);
            pps = (packets.saturating_sub(self.packets_out) as f64 / passed) as u64;
        }
        app.metrics.set("media_cpu_usage_ratio", &[], ratio);
        app.usage.cpu_ratio.store(ratio.to_bits(), Relaxed);
        app.usage.egress_pps.store(pps, Relaxed);
        for (shard, cells) in app.shards.cells().iter().enumerate() {
            let busy = cells.busy();
            let share = if passed > 0.5 {
                busy.saturating_sub(self.busy[shard]).as_secs_f64() / passed
            } else {
                0.0
            };
            self.busy[shard] = busy;
            app.metrics.set(
                "media_shard_busy_ratio",
                &[&shard.to_string()],
                share.min(1.0),
            );
        }
        if passed > 0.5 {
            self.at = now;
            self.cpu_seconds = cpu;
            self.packets_out = packets;
        }
    }
}

/// Tells a leak: tasks above what connections explain, for long.
#[derive(Debug, Default)]
struct Leak {
    since: Option<Instant>,
}

impl Leak {
    fn look(&mut self, tasks: usize, connections: u64, now: Instant) -> bool {
        if tasks as u64 <= 100 + 4 * connections {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        now.duration_since(since) >= LEAK_AFTER
    }
}

fn packets_out(app: &App) -> u64 {
    app.shards.cells().iter().map(|c| c.packets_out()).sum()
}

/// Files, sockets among them, that the process may have open.
pub fn open_files_limit() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    soft_limit_of(&limits, "Max open files")
}

/// Lines `name soft hard unit`, where the name has spaces.
fn soft_limit_of(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// User and system time of all threads: fields 14 and 15 of `/proc/self/stat`, counted behind the
/// program's name, which may hold spaces.
fn cpu_seconds() -> Option<f64> {
    cpu_of_stat(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

fn cpu_of_stat(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::tests::app;
    use crate::metrics::text::Format;

    #[test]
    fn the_limit_of_open_files_is_the_soft_one() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax processes  7  7  processes\nMax open files            1024                 524288               files\n";
        assert_eq!(soft_limit_of(limits, "Max open files"), Some(1024));
        assert_eq!(
            soft_limit_of("Max open files unlimited unlimited files", "Max open files"),
            Some(u64::MAX)
        );
        assert!(open_files_limit().is_some());
    }

    #[test]
    fn cpu_time_is_read_behind_a_name_with_spaces() {
        let stat = "7 (a b) c) S 1 1 1 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 5 0 100 1 1";
        assert_eq!(cpu_of_stat(stat), Some(3.0));
        assert!(cpu_seconds().is_some() && resident_bytes().is_some_and(|b| b > 100_000));
    }

    #[tokio::test]
    async fn a_leak_made_on_purpose_is_told_after_5_min() {
        let app = app().await;
        let mut monitor = Monitor::new(&app);
        for _ in 0..200 {
            tokio::spawn(std::future::pending::<()>());
        }
        let start = Instant::now();
        let mut told = |seconds| {
            monitor.look(&app, start + Duration::from_secs(seconds));
            let text = app.metrics.render(Format::Prometheus, |_| {});
            text.contains("media_potential_goroutine_leak 1\n")
        };
        assert!(!told(0));
        assert!(!told(290));
        assert!(told(300));
    }

    #[test]
    fn many_tasks_are_a_leak_only_after_five_minutes_in_a_row() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut leak = Leak::default();
        assert!(!leak.look(200, 10, at(0)));
        assert!(!leak.look(200, 10, at(290)));
        assert!(leak.look(200, 10, at(300)));
        assert!(!leak.look(200, 25, at(310)), "connections explain them");
        assert!(!leak.look(200, 10, at(320)), "counted anew");
    }
}
