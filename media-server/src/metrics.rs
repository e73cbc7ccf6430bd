//! The metrics registry: values of the catalogue's families, and their text.
//!
//! Every family is announced from the first scrape; a family that is full folds; series of a device
//! go 15 min after their last change. What the crate `prometheus` does not do (announce an empty
//! family, bound it, let its children expire) is most of this file, so it stands on its own. Knows
//! nothing of sessions: `collect.rs` brings those at each scrape. Called from anywhere; recording
//! again into a series that never goes costs a look into `seen.rs` and an atomic, else two hash look-ups more.

pub mod collect;
mod exemplar;
pub mod http;
mod seen;
pub mod sessions;
pub mod text;
pub mod totals;
pub mod websocket;

use catalogue::families::{FAMILIES, Family, Kind, Scope, values};
use exemplar::{Exemplar, Exemplars};
use foldhash::fast::RandomState;
use opentelemetry::trace::TraceId;
use seen::Place;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};
use text::{Format, Lines};

/// How long the series of a device stay after their last change.
const DEVICE_SERIES_STAY: Duration = Duration::from_secs(15 * 60);
/// Label value that takes what a full family has no room for.
pub const OTHER: &str = "other";
const FOLDED: &str = "media_metrics_series_folded_total";

/// All families of the process.
pub struct Metrics {
    families: Vec<Cells>,
    by_name: HashMap<&'static str, usize, RandomState>,
    max_series: usize,
    /// Differs from that of every other registry of the process.
    id: u64,
    started: Instant,
    /// Bytes of the last text: the next one is about as large, and growing to it would copy it often.
    last_text: AtomicUsize,
}

struct Cells {
    family: &'static Family,
    /// By rendered labels, such as `device_id="cam-1",reason="drained"`.
    children: RwLock<HashMap<String, Arc<Child>, RandomState>>,
}

/// One series; of a histogram, all its series.
struct Child {
    /// Bits of an `f64`. Of a histogram: its sum.
    value: AtomicU64,
    /// One more than the family's, for +Inf; not cumulative.
    buckets: Box<[AtomicU64]>,
    /// Milliseconds since the start of the process.
    changed: AtomicU64,
    exemplars: Mutex<Exemplars>,
}

impl Metrics {
    /// An empty registry whose families hold at most `max_series` label sets each.
    pub fn new(max_series: usize) -> Metrics {
        static REGISTRIES: AtomicU64 = AtomicU64::new(0);
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
            id: REGISTRIES.fetch_add(1, Relaxed),
            started: Instant::now(),
            last_text: AtomicUsize::new(0),
        }
    }

    /// Makes a series exist, at 0, so that its first increment shows in a rate.
    /// One that exists stays for as long again as if it had changed at `now`.
    pub fn touch(&self, name: &'static str, labels: &[&str], now: Instant) {
        self.with(name, labels, Some(now), |_, _| {});
    }

    /// Counts one.
    pub fn count(&self, name: &'static str, labels: &[&str]) {
        self.add(name, labels, 1.0);
    }

    /// Adds to a counter or gauge.
    pub fn add(&self, name: &'static str, labels: &[&str], amount: f64) {
        self.with(name, labels, None, |child, _| child.add(amount));
    }

    /// Sets a gauge, or a counter whose total is kept elsewhere.
    pub fn set(&self, name: &'static str, labels: &[&str], value: f64) {
        self.with(name, labels, None, |child, _| {
            child.value.store(value.to_bits(), Relaxed);
        });
    }

    /// Adds an observation to a histogram.
    pub fn observe(&self, name: &'static str, labels: &[&str], value: f64) {
        self.with(name, labels, None, |child, family| {
            child.observe(family, value);
        });
    }

    /// The same of something that belongs to a trace, if that is kept.
    pub fn observe_in_trace(
        &self,
        name: &'static str,
        labels: &[&str],
        value: f64,
        trace: Option<TraceId>,
    ) {
        let at = SystemTime::now();
        self.with(name, labels, None, |child, family| {
            let bucket = child.observe(family, value);
            if let Some(trace) = trace {
                let exemplar = Exemplar { trace, value, at };
                lock(&child.exemplars).insert(bucket, exemplar);
            }
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

    /// The text of all families. `more` adds series of a family that are not kept here.
    pub fn render(&self, format: Format, mut more: impl FnMut(&mut Lines<'_>)) -> String {
        let last = self.last_text.load(Relaxed);
        let mut text = String::with_capacity(last + last / 8 + 32 * 1024);
        // The fold counter comes last in the catalogue's order or is rendered with what it has now;
        // a fold during this scrape shows in the next one.
        for cells in &self.families {
            let mut lines = Lines::of(cells.family, format, &mut text);
            let children = cells
                .children
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            let mut sorted: Vec<_> = children.iter().collect();
            sorted.sort_by(|a, b| a.0.cmp(b.0));
            for (labels, child) in sorted {
                child.write(labels, &mut lines);
            }
            drop(children);
            more(&mut lines);
        }
        text.push_str(format.end());
        self.last_text.store(text.len(), Relaxed);
        text
    }

    /// Makes the series exist that tell of full families, at 0: what is folded between two scrapes would
    /// otherwise be in the first value of one, which no rate sees.
    pub fn touch_folded(&self) {
        for family in FAMILIES
            .iter()
            .filter(|family| family.scope != Scope::Process)
        {
            self.touch(FOLDED, &[family.name], Instant::now());
        }
    }

    /// Sets how many sessions a family whose series are not kept here has none for.
    pub fn set_folded(&self, family: &str, count: u64) {
        self.set(FOLDED, &[family], count as f64);
    }

    fn with(
        &self,
        name: &'static str,
        labels: &[&str],
        now: Option<Instant>,
        act: impl Fn(&Child, &Family),
    ) {
        let place = Place::of(self.id, name, labels);
        if !place.act(labels, &act) {
            self.look_up(name, labels, now, &place, act);
        }
    }

    fn look_up(
        &self,
        name: &'static str,
        labels: &[&str],
        now: Option<Instant>,
        place: &Place,
        act: impl Fn(&Child, &Family),
    ) {
        thread_local! {
            /// Of the labels that are looked for: made anew each time, it would be most of the cost.
            static KEY: RefCell<String> = const { RefCell::new(String::new()) };
        }
        let index = *self
            .by_name
            .get(name)
            .unwrap_or_else(|| unreachable!("{name} is in no catalogue"));
        let cells = &self.families[index];
        let family = cells.family;
        // The others stay, so nobody asks when they changed; a clock costs as much as the rest.
        let now = (family.scope == Scope::Device).then(|| now.unwrap_or_else(Instant::now));
        let act = |child: &Child| {
            act(child, family);
            if let Some(now) = now {
                child.changed.store(self.millis(now), Relaxed);
            }
        };
        let unknown = KEY.with_borrow_mut(|key| {
            key.clear();
            push_labels(key, family.labels, labels);
            let children = cells
                .children
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            match children.get(key.as_str()) {
                Some(child) => {
                    act(child);
                    if family.scope == Scope::Process {
                        place.keep(family, labels, child.clone());
                    }
                    None
                }
                None => Some(key.clone()),
            }
        });
        if let Some(child) = unknown.and_then(|key| self.insert(cells, key, labels, now)) {
            act(&child);
        }
    }

    fn insert(
        &self,
        cells: &Cells,
        key: String,
        labels: &[&str],
        now: Option<Instant>,
    ) -> Option<Arc<Child>> {
        let family = cells.family;
        debug_assert!(
            are_known(family, labels),
            "{} has values that rules know nothing of: {labels:?}",
            family.name
        );
        let mut children = cells
            .children
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let full = children.len() >= self.max_series && !children.contains_key(&key);
        // It has a series for each family at the most, and is where folds are counted.
        let fold = full && family.name != FOLDED;
        let key = if !fold {
            key
        } else if family.kind == Kind::Gauge {
            drop(children);
            self.count(FOLDED, &[family.name]);
            return None;
        } else {
            folded_labels(family, labels)
        };
        let child = children
            .entry(key)
            // With its time: who looks for those that have not changed may come before the first change.
            .or_insert_with(|| Arc::new(Child::new(family, now.map_or(0, |now| self.millis(now)))))
            .clone();
        drop(children);
        if fold {
            self.count(FOLDED, &[family.name]);
        }
        Some(child)
    }

    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_millis() as u64
    }
}

impl Child {
    fn new(family: &Family, changed: u64) -> Child {
        let buckets = match family.kind {
            Kind::Histogram => family.buckets.len() + 1,
            Kind::Counter | Kind::Gauge => 0,
        };
        Child {
            value: AtomicU64::new(0f64.to_bits()),
            buckets: (0..buckets).map(|_| AtomicU64::new(0)).collect(),
            changed: AtomicU64::new(changed),
            exemplars: Mutex::default(),
        }
    }

    /// Returns the index of the bucket.
    fn observe(&self, family: &Family, value: f64) -> usize {
        let at = family.buckets.partition_point(|bound| *bound < value);
        self.buckets[at].fetch_add(1, Relaxed);
        self.add(value);
        at
    }

    fn add(&self, amount: f64) {
        let _ = self.value.fetch_update(Relaxed, Relaxed, |bits| {
            Some((f64::from_bits(bits) + amount).to_bits())
        });
    }

    fn write(&self, labels: &str, lines: &mut Lines<'_>) {
        let value = f64::from_bits(self.value.load(Relaxed));
        match lines.family.kind {
            Kind::Histogram => {
                let counts = self.buckets.iter().map(|bucket| bucket.load(Relaxed));
                lines.histogram_with(labels, counts, value, &lock(&self.exemplars));
            }
            Kind::Counter | Kind::Gauge => lines.value(labels, value),
        }
    }
}

fn lock(exemplars: &Mutex<Exemplars>) -> MutexGuard<'_, Exemplars> {
    exemplars.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether every value is one that the catalogue lists, where it lists some.
fn are_known(family: &Family, labels: &[&str]) -> bool {
    let mut pairs = family.labels.iter().zip(labels);
    pairs.all(|(label, value)| values(family.name, label).is_none_or(|known| known.contains(value)))
}

/// `a="x",b="y"`, escaped.
pub fn render_labels(names: &[&str], values: &[&str]) -> String {
    let mut text = String::new();
    push_labels(&mut text, names, values);
    text
}

fn push_labels(text: &mut String, names: &[&str], values: &[&str]) {
    assert_eq!(names.len(), values.len(), "a value for each of {names:?}");
    for (at, (name, value)) in names.iter().zip(values).enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        // Not by characters: decoding them would be a good part of the cost.
        if value.bytes().any(|b| matches!(b, b'\\' | b'"' | b'\n')) {
            push_escaped(text, value);
        } else {
            text.push_str(value);
        }
        text.push('"');
    }
}

fn push_escaped(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
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
        metrics.render(Format::Prometheus, |_| {})
    }

    #[test]
    fn a_value_that_the_catalogue_does_not_list_is_not_known() {
        let known = |name: &str, labels: &[&str]| {
            let family = FAMILIES.iter().find(|family| family.name == name);
            are_known(family.expect("in the catalogue"), labels)
        };
        assert!(known("media_signalling_total", &["failed"]));
        assert!(!known("media_signalling_total", &["fine"]));
        let setup = "media_setup_total";
        assert!(known(setup, &["viewer", "anything", "failed"]));
        assert!(!known(setup, &["viewer", "whep", "broken"]));
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
    fn a_bucket_shows_the_last_trace_of_it_where_the_format_has_room_for_one() {
        let metrics = Metrics::new(10);
        let observe = |value, trace| {
            metrics.observe_in_trace("media_setup_seconds", &["viewer"], value, trace);
        };
        let trace = |id: u8| Some(TraceId::from(u128::from(id)));
        observe(0.3, trace(1));
        observe(0.4, trace(2));
        observe(0.45, None);
        observe(60.0, trace(3));
        let open = metrics.render(Format::OpenMetrics, |_| {});
        let mut lines = open.lines().filter(|line| line.contains(" # "));
        let of = |le: &str, count: u8, id: u8, value: &str| {
            format!(
                "media_setup_seconds_bucket{{role=\"viewer\",le=\"{le}\"}} {count} # {{trace_id=\"{id:032x}\"}} {value} "
            )
        };
        for begins in [of("0.5", 3, 2, "0.4"), of("+Inf", 4, 3, "60")] {
            let line = lines.next().unwrap_or_default();
            let at = line.strip_prefix(&begins).and_then(|at| at.parse().ok());
            let at: f64 = at.unwrap_or_else(|| panic!("{begins}: {open}"));
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let ago = now.expect("after 1970").as_secs_f64() - at;
            assert!((-1.0..60.0).contains(&ago), "{ago} s ago: {line}");
        }
        assert_eq!(lines.next(), None, "one a bucket: {open}");
        assert!(
            !text(&metrics).contains("trace_id"),
            "text has no exemplars"
        );
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
        for left_out in ["2", OTHER] {
            let shard = format!("shard=\"{left_out}\"");
            assert!(!text.contains(&shard), "a gauge is left out: {text}");
        }
        let told = "media_metrics_series_folded_total{family=\"media_sessions_closed_total\"} 2\n";
        assert!(text.contains(told), "{text}");
    }

    #[test]
    fn a_scrape_with_every_family_full_stays_below_the_limit_that_prometheus_is_told() {
        let cap = 1000;
        let metrics = Metrics::new(cap);
        // More than there is room for, with every value of what stays when a family folds.
        let ids: Vec<String> = (0..2 * cap).map(|id| id.to_string()).collect();
        let kept = catalogue::families::CLOSE_REASONS.iter();
        for family in FAMILIES.iter().filter(|f| f.scope == Scope::Device) {
            for (id, kept) in ids.iter().zip(kept.clone().cycle()) {
                let labels: Vec<&str> = family.labels.iter().map(|_| *kept).collect();
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
        let text = metrics.render(Format::Prometheus, |lines| {
            if lines.family.scope == Scope::Session {
                for id in 0..=cap {
                    let labels = render_labels(&["session_id"], &[&id.to_string()]);
                    Child::new(lines.family, 0).write(&labels, lines);
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
    fn a_series_that_is_looked_through_before_its_first_change_stays() {
        let metrics = Metrics::new(10);
        let index = metrics.by_name["media_sessions_created_total"];
        let later = Instant::now() + 2 * DEVICE_SERIES_STAY;
        let key = render_labels(&["device_id"], &["cam-1"]);
        let cells = &metrics.families[index];
        let child = metrics.insert(cells, key, &["cam-1"], Some(later));
        metrics.expire(later);
        child.expect("there is room").add(1.0);
        assert!(text(&metrics).contains("media_sessions_created_total{device_id=\"cam-1\"} 1\n"));
    }

    #[test]
    fn what_counts_folds_is_never_full_itself() {
        let metrics = Metrics::new(0);
        metrics.touch_folded();
        for labels in [["a", "b"], ["c", "d"]] {
            metrics.count("media_errors_total", &labels);
        }
        let text = text(&metrics);
        let folded = |family| format!("media_metrics_series_folded_total{{family=\"{family}\"}} ");
        for family in FAMILIES
            .iter()
            .filter(|family| family.scope != Scope::Process)
        {
            assert!(
                text.contains(&format!("{}0\n", folded(family.name))),
                "{text}"
            );
        }
        assert!(
            text.contains(&format!("{}2\n", folded("media_errors_total"))),
            "{text}"
        );
    }

    #[test]
    fn series_of_the_same_places_and_of_other_registries_are_not_mixed_up() {
        let (one, other) = (Metrics::new(2_000), Metrics::new(2_000));
        // More than a thread has places for, many of one length and with the same ends.
        let values: Vec<String> = (0..1_000).map(|n| format!("a{n:03}z")).collect();
        for times in 1..=3 {
            for value in &values {
                one.count("media_errors_total", &[value, "x"]);
                one.count("media_errors_total", &["x", value]);
            }
            other.count("media_errors_total", &[&values[times], "x"]);
            other.count("media_refused_total", &["sessions"]);
        }
        let (one, other) = (text(&one), text(&other));
        for value in values.iter().map(String::as_str) {
            for labels in [[value, "x"], ["x", value]] {
                let labels = render_labels(&["type", "operation"], &labels);
                let line = format!("media_errors_total{{{labels}}} 3\n");
                assert!(one.contains(&line), "{line}");
            }
        }
        assert_eq!(other.matches("media_errors_total{").count(), 3, "{other}");
        assert!(
            other.contains("media_refused_total{limit=\"sessions\"} 3\n"),
            "{other}"
        );
        assert!(!one.contains("media_refused_total{"), "{one}");
    }

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(render_labels(&["a"], &["x\"\\\n"]), "a=\"x\\\"\\\\\\n\"");
    }
}
