//! A scrape of 10 000 sessions of 100 devices: ours, and the crate `prometheus` with the same families, labels
//! and values.

use crate::by_turns;
use catalogue::families::{CLOSE_REASONS, FAMILIES, Family, Kind, Scope};
use media_core::cells::SessionCells;
use media_core::ids::SessionId;
use media_server::measured::{Format, Metrics, Session, render_labels, write_sessions};
use prometheus::{
    Encoder as _, GaugeVec, HistogramOpts, HistogramVec, Opts, Registry, TextEncoder,
};
use serde_json::{Value, json};
use std::time::Instant;

const SESSIONS: u32 = 10_000;
const DEVICES: u32 = 100;

pub fn measure() -> Value {
    let sessions: Vec<(SessionId, SessionCells)> = (0..SESSIONS).map(session).collect();
    let metrics = Metrics::new(20_000);
    let now = Instant::now();
    for (family, labels) in of_devices() {
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        metrics.touch(family.name, &labels, now);
    }
    let ours = |format| {
        // As for a scrape, the labels included.
        let sessions: Vec<Session<'_>> = sessions
            .iter()
            .map(|(id, cells)| Session {
                labels: render_labels(&["session_id"], &[&id.to_string()]),
                cells,
            })
            .collect();
        metrics.render(format, |lines| {
            if lines.family.scope == Scope::Session {
                write_sessions(lines, &sessions);
            }
        })
    };
    let text = ours(Format::Prometheus);
    let theirs = fill(&text);
    let encoded = String::from_utf8(encode(&theirs, 0)).expect("text");
    assert_eq!(samples(&text), samples(&encoded), "the same series");
    let [prometheus, openmetrics, crate_prometheus] = by_turns([
        &mut || millis(|| ours(Format::Prometheus).len()),
        &mut || millis(|| ours(Format::OpenMetrics).len()),
        &mut || millis(|| encode(&theirs, encoded.len()).len()),
    ]);
    json!({
        "sessions": SESSIONS,
        "samples": samples(&text),
        "ours_ms": prometheus,
        "ours_openmetrics_ms": openmetrics,
        "prometheus_ms": crate_prometheus,
        "ours_mb": text.len() as f64 / 1e6,
        "prometheus_mb": encoded.len() as f64 / 1e6,
    })
}

/// A session whose figures are all known, and as long as real ones.
fn session(n: u32) -> (SessionId, SessionCells) {
    let mut random = [0; 16];
    let hash = u64::from(n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    random[..8].copy_from_slice(&hash.to_be_bytes());
    random[8..].copy_from_slice(&hash.rotate_left(31).to_be_bytes());
    let cells = SessionCells::new();
    cells.add_candidates(n % 5);
    cells.note_figures(f64::from(n) / 7.0);
    (SessionId::new(0, (n % 2) as u8, random), cells)
}

/// Families of devices with the labels of their children.
fn of_devices() -> Vec<(&'static Family, Vec<String>)> {
    let mut all = Vec::new();
    for family in FAMILIES
        .iter()
        .filter(|family| family.scope == Scope::Device)
    {
        for device in (0..DEVICES).map(|n| format!("cam-{n}")) {
            match family.labels.len() {
                1 => all.push((family, vec![device])),
                _ => all.extend(
                    CLOSE_REASONS
                        .iter()
                        .map(|reason| (family, vec![device.clone(), (*reason).to_owned()])),
                ),
            }
        }
    }
    all
}

/// Puts the samples of a text into a registry of the crate.
fn fill(text: &str) -> Registry {
    let registry = Registry::new();
    for family in FAMILIES {
        let (name, labels) = (family.name, family.labels);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let of_family = lines.filter(|line| line.split(['{', ' ']).next() == Some(name));
        match family.kind {
            // Counters as gauges: it writes them alike, and they can be set.
            Kind::Counter | Kind::Gauge => {
                let vec =
                    GaugeVec::new(Opts::new(name, family.help), labels).expect("a valid name");
                for line in of_family {
                    vec.with_label_values(&values(line)).set(value(line));
                }
                registry.register(Box::new(vec)).expect("once");
            }
            Kind::Histogram => {
                let options =
                    HistogramOpts::new(name, family.help).buckets(family.buckets.to_vec());
                let vec = HistogramVec::new(options, labels).expect("a valid name");
                let count = format!("{name}_count{{");
                for line in text.lines().filter(|line| line.starts_with(&count)) {
                    let child = vec.with_label_values(&values(line));
                    if value(line) > 0.0 {
                        child.observe(50.0);
                    }
                }
                registry.register(Box::new(vec)).expect("once");
            }
        }
    }
    registry
}

/// The label values of a line.
fn values(line: &str) -> Vec<&str> {
    line.split('"').skip(1).step_by(2).collect()
}

fn value(line: &str) -> f64 {
    line.rsplit(' ')
        .next()
        .and_then(|value| value.parse().ok())
        .expect("a number")
}

/// With room for as much as there was the last time, as ours has it.
fn encode(registry: &Registry, last: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(last);
    TextEncoder::new()
        .encode(&registry.gather(), &mut text)
        .expect("it can be written");
    text
}

fn samples(text: &str) -> usize {
    text.lines().filter(|line| !line.starts_with('#')).count()
}

fn millis(work: impl FnOnce() -> usize) -> f64 {
    let start = Instant::now();
    std::hint::black_box(work());
    start.elapsed().as_secs_f64() * 1e3
}
