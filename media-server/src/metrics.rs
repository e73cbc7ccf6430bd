//! The metrics registry: values of the catalogue's families, and their text.
//!
//! Every family is announced from the first scrape; a family that is full folds; series of a device
//! go 15 min after their last change. What the crate `prometheus` does not do (announce an empty
//! family, bound it, let its children expire) is most of this file, so it stands on its own. Knows
//! nothing of sessions: `collect.rs` brings those at each scrape. Called from anywhere; recording
//! costs a hash look-up and an atomic.

pub mod collect;
pub mod http;
pub mod totals;

use catalogue::families::{FAMILIES, Family, Kind, Scope};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How long the series of a device stay after their last change.
const DEVICE_SERIES_STAY: Duration = Duration::from_secs(15 * 60);
/// Label value that takes what a full family has no room for.
pub const OTHER: &str = "other";
const FOLDED: &str = "media_metrics_series_folded_total";

/// All families of the process.
pub struct Metrics {
    families: Vec<Cells>,
    by_name: HashMap<&'static str, usize>,
    max_series: usize,
    started: Instant,
}

struct Cells {
    family: &'static Family,
    /// By rendered labels, such as `device_id="cam-1",reason="drained"`.
    children: RwLock<HashMap<String, Arc<Child>>>,
}

/// One series; of a histogram, all its series.
struct Child {
    /// Bits of an `f64`. Of a histogram: its sum.
    value: AtomicU64,
    /// One more than the family's, for +Inf; not cumulative.
    buckets: Box<[AtomicU64]>,
    /// Milliseconds since the start of the process.
    changed: AtomicU64,
}

impl Metrics {
    /// An empty registry whose families hold at most `max_series` label sets each.
    pub fn new(max_series: usize) -> Metrics {
        Metrics {
            families: FAMILIES
                .iter()
                .map(|family| Cells {
                    family,
                    children: RwLock::default(),
                })
                .collect(),
            by_name: FAMILIES
                .iter()
                .enumerate()
                .map(|(index, family)| (family.name, index))
                .collect(),
            max_series,
            started: Instant::now(),
        }
    }

    /// Makes a series exist, at 0, so that its first increment shows in a rate.
    /// One that exists stays for as long again as if it had changed at `now`.
    pub fn touch(&self, name: &str, labels: &[&str], now: Instant) {
        self.with(name, labels, now, |_, _| {});
    }

    /// Counts one.
    pub fn count(&self, name: &str, labels: &[&str]) {
        self.add(name, labels, 1.0);
    }

    /// Adds to a counter or gauge.
    pub fn add(&self, name: &str, labels: &[&str], amount: f64) {
        self.with(name, labels, Instant::now(), |child, _| child.add(amount));
    }

    /// Sets a gauge, or a counter whose total is kept elsewhere.
    pub fn set(&self, name: &str, labels: &[&str], value: f64) {
        self.with(name, labels, Instant::now(), |child, _| {
            child.value.store(value.to_bits(), Relaxed);
        });
    }

    /// Adds an observation to a histogram.
    pub fn observe(&self, name: &str, labels: &[&str], value: f64) {
        self.with(name, labels, Instant::now(), |child, family| {
            let at = family.buckets.partition_point(|bound| *bound < value);
            child.buckets[at].fetch_add(1, Relaxed);
            child.add(value);
        });
    }

    /// Forgets device series that have not changed for a while. Called about once a minute.
    pub fn expire(&self, now: Instant) {
        let now = self.millis(now);
        let stay = DEVICE_SERIES_STAY.as_millis() as u64;
        for cells in &self.families {
            if cells.family.scope == Scope::Device {
                let mut children = cells
                    .children
                    .write()
                    .unwrap_or_else(PoisonError::into_inner);
                children.retain(|_, child| child.changed.load(Relaxed).saturating_add(stay) >= now);
            }
        }
    }

    /// The text of all families (Prometheus text format 0.0.4). `more` adds series of a family that
    /// are not kept here; it gets the family, the label sets that it may still add, and the text.
    pub fn render(&self, mut more: impl FnMut(&'static Family, usize, &mut String)) -> String {
        let mut text = String::with_capacity(32 * 1024);
        // The fold counter comes last in the catalogue's order or is rendered with what it has now;
        // a fold during this scrape shows in the next one.
        for cells in &self.families {
            let family = cells.family;
            let _ = writeln!(text, "# HELP {} {}", family.name, family.help);
            let _ = writeln!(text, "# TYPE {} {}", family.name, family.kind.as_str());
            let children = cells
                .children
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            let mut sorted: Vec<_> = children.iter().collect();
            sorted.sort_by(|a, b| a.0.cmp(b.0));
            for (labels, child) in sorted {
                child.write(family, labels, &mut text);
            }
            let room = self.max_series.saturating_sub(children.len());
            drop(children);
            more(family, room, &mut text);
        }
        text
    }

    /// Counts label sets that a full family has folded or left out.
    pub fn count_folded(&self, family: &str, count: usize) {
        self.add(FOLDED, &[family], count as f64);
    }

    fn with(&self, name: &str, labels: &[&str], now: Instant, act: impl FnOnce(&Child, &Family)) {
        let index = *self
            .by_name
            .get(name)
            .unwrap_or_else(|| unreachable!("{name} is in no catalogue"));
        let cells = &self.families[index];
        let key = render_labels(cells.family.labels, labels);
        let known = cells
            .children
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .cloned();
        let Some(child) = known.or_else(|| self.insert(cells, key, labels)) else {
            return;
        };
        act(&child, cells.family);
        child.changed.store(self.millis(now), Relaxed);
    }

    fn insert(&self, cells: &Cells, key: String, labels: &[&str]) -> Option<Arc<Child>> {
        let family = cells.family;
        let mut children = cells
            .children
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let fold = children.len() >= self.max_series && !children.contains_key(&key);
        let key = if !fold {
            key
        } else if family.kind == Kind::Gauge {
            drop(children);
            self.count_folded(family.name, 1);
            return None;
        } else {
            folded_labels(family, labels)
        };
        let child = children
            .entry(key)
            .or_insert_with(|| Arc::new(Child::new(family)))
            .clone();
        drop(children);
        if fold {
            self.count_folded(family.name, 1);
        }
        Some(child)
    }

    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_millis() as u64
    }
}

impl Child {
    fn new(family: &Family) -> Child {
        let buckets = match family.kind {
            Kind::Histogram => family.buckets.len() + 1,
            Kind::Counter | Kind::Gauge => 0,
        };
        Child {
            value: AtomicU64::new(0f64.to_bits()),
            buckets: (0..buckets).map(|_| AtomicU64::new(0)).collect(),
            changed: AtomicU64::new(0),
        }
    }

    fn add(&self, amount: f64) {
        let _ = self.value.fetch_update(Relaxed, Relaxed, |bits| {
            Some((f64::from_bits(bits) + amount).to_bits())
        });
    }

    fn write(&self, family: &Family, labels: &str, text: &mut String) {
        let value = f64::from_bits(self.value.load(Relaxed));
        if family.kind != Kind::Histogram {
            write_series(text, family.name, "", labels, value);
            return;
        }
        let counts: Vec<u64> = self.buckets.iter().map(|b| b.load(Relaxed)).collect();
        write_histogram(text, family, labels, &counts, value);
    }
}

/// Writes the series of a histogram. `counts` has one entry for each bucket and one for +Inf.
pub fn write_histogram(text: &mut String, family: &Family, labels: &str, counts: &[u64], sum: f64) {
    let comma = if labels.is_empty() { "" } else { "," };
    let mut cumulative = 0;
    let bounds = family
        .buckets
        .iter()
        .map(ToString::to_string)
        .chain(["+Inf".to_owned()]);
    for (bound, count) in bounds.zip(counts) {
        cumulative += count;
        let _ = writeln!(
            text,
            "{}_bucket{{{labels}{comma}le=\"{bound}\"}} {cumulative}",
            family.name
        );
    }
    write_series(text, family.name, "_sum", labels, sum);
    write_series(text, family.name, "_count", labels, cumulative as f64);
}

/// Writes one line.
pub fn write_series(text: &mut String, name: &str, part: &str, labels: &str, value: f64) {
    let _ = if labels.is_empty() {
        writeln!(text, "{name}{part} {value}")
    } else {
        writeln!(text, "{name}{part}{{{labels}}} {value}")
    };
}

/// `a="x",b="y"`, escaped.
pub fn render_labels(names: &[&str], values: &[&str]) -> String {
    assert_eq!(names.len(), values.len(), "a value for each of {names:?}");
    let mut text = String::new();
    for (name, value) in names.iter().zip(values) {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                c => text.push(c),
            }
        }
        text.push('"');
    }
    text
}

/// The label set that a full family counts under: the unbounded label says `other`, the others stay.
fn folded_labels(family: &Family, labels: &[&str]) -> String {
    let unbounded = |name: &str| matches!(name, "device_id" | "session_id");
    let bounded_only = !family.labels.iter().any(|name| unbounded(name));
    let folded: Vec<&str> = family
        .labels
        .iter()
        .zip(labels)
        .map(|(name, value)| {
            if bounded_only || unbounded(name) {
                OTHER
            } else {
                *value
            }
        })
        .collect();
    render_labels(family.labels, &folded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &Metrics) -> String {
        metrics.render(|_, _, _| {})
    }

    #[test]
    fn every_family_is_announced_before_it_has_a_series() {
        let text = text(&Metrics::new(10));
        for family in FAMILIES {
            assert!(
                text.contains(&format!("# HELP {} ", family.name)),
                "{}",
                family.name
            );
            let kind = format!("# TYPE {} {}\n", family.name, family.kind.as_str());
            assert!(text.contains(&kind), "{}", family.name);
        }
        assert!(text.lines().all(|line| line.starts_with("# ")));
    }

    #[test]
    fn a_touched_series_starts_at_zero_and_counts_up() {
        let metrics = Metrics::new(10);
        metrics.touch("media_sessions_created_total", &["cam-1"], Instant::now());
        assert!(text(&metrics).contains("media_sessions_created_total{device_id=\"cam-1\"} 0\n"));
        metrics.count("media_sessions_created_total", &["cam-1"]);
        assert!(text(&metrics).contains("media_sessions_created_total{device_id=\"cam-1\"} 1\n"));
    }

    #[test]
    fn histogram_buckets_are_cumulative_and_include_their_bound() {
        let metrics = Metrics::new(10);
        for value in [60.0, 61.0, 10_000.0] {
            metrics.observe("media_session_duration_seconds", &["d"], value);
        }
        let text = text(&metrics);
        for line in [
            "media_session_duration_seconds_bucket{device_id=\"d\",le=\"60\"} 1",
            "media_session_duration_seconds_bucket{device_id=\"d\",le=\"300\"} 2",
            "media_session_duration_seconds_bucket{device_id=\"d\",le=\"+Inf\"} 3",
            "media_session_duration_seconds_sum{device_id=\"d\"} 10121",
            "media_session_duration_seconds_count{device_id=\"d\"} 3",
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
    }

    #[test]
    fn a_full_family_folds_and_tells() {
        let metrics = Metrics::new(2);
        for device in ["a", "b", "c", "d"] {
            metrics.count("media_sessions_closed_total", &[device, "drained"]);
        }
        for shard in ["0", "1", "2"] {
            metrics.set("media_shard_busy_ratio", &[shard], 0.5);
        }
        let text = text(&metrics);
        let other = "media_sessions_closed_total{device_id=\"other\",reason=\"drained\"} 2\n";
        assert!(text.contains(other), "{text}");
        assert!(!text.contains("shard=\"2\""), "a gauge is left out: {text}");
        let told = "media_metrics_series_folded_total{family=\"media_sessions_closed_total\"} 2\n";
        assert!(text.contains(told), "{text}");
    }

    #[test]
    fn a_scrape_with_every_family_full_stays_below_the_limit_that_prometheus_is_told() {
        let cap = 1000;
        let metrics = Metrics::new(cap);
        // More than there is room for, with every value of what stays when a family folds.
        let ids: Vec<String> = (0..2 * cap).map(|id| id.to_string()).collect();
        let kept: Vec<String> = (0..catalogue::families::CLOSE_REASONS.len())
            .map(|value| value.to_string())
            .collect();
        for family in FAMILIES.iter().filter(|f| f.scope == Scope::Device) {
            for (id, kept) in ids.iter().zip(kept.iter().cycle()) {
                let labels: Vec<&str> = family.labels.iter().map(|_| kept.as_str()).collect();
                let labels = [&[id.as_str()], &labels[1..]].concat();
                metrics.touch(family.name, &labels, Instant::now());
            }
        }
        for (path, method) in (0..240).map(|n| ((n / 8).to_string(), (n % 8).to_string())) {
            for status in ["200", "201", "204", "400", "401", "404", "409", "503"] {
                metrics.count("media_http_requests_total", &[&method, &path, status]);
            }
            metrics.observe("media_http_duration_seconds", &[&method, &path], 1.0);
        }
        let text = metrics.render(|family, room, text| {
            if family.scope == Scope::Session {
                for id in 0..=room {
                    let labels = render_labels(&["session_id"], &[&id.to_string()]);
                    Child::new(family).write(family, &labels, text);
                }
            }
        });
        let samples = text.lines().filter(|line| !line.starts_with('#')).count() as u64;
        let most = catalogue::samples::most_samples(cap as u32);
        assert!(samples <= most, "{samples} samples, {most} at the most");
        assert!(samples > most / 2, "{samples} samples, {most} at the most");
    }

    #[test]
    fn device_series_go_a_quarter_of_an_hour_after_their_last_change() {
        let metrics = Metrics::new(10);
        metrics.count("media_sessions_created_total", &["cam-1"]);
        metrics.count("media_auth_failures_total", &["missing"]);
        metrics.expire(Instant::now() + DEVICE_SERIES_STAY - Duration::from_secs(5));
        assert!(text(&metrics).contains("cam-1"));
        metrics.expire(Instant::now() + DEVICE_SERIES_STAY + Duration::from_secs(5));
        assert!(!text(&metrics).contains("cam-1"));
        assert!(text(&metrics).contains("reason=\"missing\""));
    }

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(render_labels(&["a"], &["x\"\\\n"]), "a=\"x\\\"\\\\\\n\"");
    }
}
