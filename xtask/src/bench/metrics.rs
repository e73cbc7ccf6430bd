//! `cargo xtask bench metrics`: what figures and the registry cost beside the usual way to have them, and what
//! they cost a server with 10 000 sessions, its media and its health.
//!
//! The first part is the example `costs` of media-server, the second `metrics/live.rs`. All but the samples'
//! number depends on the machine, so what is compared takes turns.

mod ask;
mod live;

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use super::Ours;
use super::results::at_most;
use crate::sh;
use live::Live;

/// What recording one more may take, as the design has it.
const RECORDING_NS: f64 = 20.0;
/// The same for a scrape with 10 000 sessions of 100 devices.
const SCRAPE_MS: f64 = 50.0;
const SCRAPE_MB: f64 = 25.0;
/// What scrapes may add to the latency of media at p99.
const JITTER_MS: f64 = 5.0;

/// Measures all of it and returns the tables.
///
/// # Errors
/// If something can't be started, or 10 000 sessions do not come to be.
pub fn measure(target: &Path) -> anyhow::Result<String> {
    let costs = sh::output(&mut Command::new(target.join("examples/costs")))?;
    let costs: Value = serde_json::from_str(&costs).context("the costs are not JSON")?;
    let mut tables = of_costs(&costs)?;
    println!("\n{tables}");
    let ours = Ours::start_with("metrics", live::FLAGS)?;
    let live = live::measure(&ours)?;
    tables.push_str(&of_live(&live));
    Ok(tables)
}

/// Ours beside others', from the report of the example.
fn of_costs(costs: &Value) -> anyhow::Result<String> {
    let number = |at: &str| {
        let value = costs.pointer(at).and_then(Value::as_f64);
        value.with_context(|| format!("the costs have no {at}"))
    };
    let mut out = String::from(
        "| One more of something, ns | ours | `with_label_values().inc()` | a child kept by hand | ÷ ours | to reach |\n\
         |---|---|---|---|---|---|\n",
    );
    for (threads, about) in [("one_thread", "one thread"), ("two_threads", "two threads")] {
        let of = |what: &str| number(&format!("/recording_ns/{threads}/{what}"));
        let by_labels = of("prometheus_with_label_values")?;
        let resolved = of("prometheus_resolved")?;
        for (what, cost) in [
            ("cell", "the cell of a shard"),
            ("family", "a family of the server by its name"),
        ] {
            let ours = of(what)?;
            let goal = at_most(
                &format!("≤ {RECORDING_NS} ns"),
                Some(ours),
                Some(RECORDING_NS),
            );
            let _ = writeln!(
                out,
                "| {cost}, {about} | {ours:.1} | {by_labels:.1} | {resolved:.1} | {:.1}, {:.1} | {} |",
                by_labels / ours,
                resolved / ours,
                goal
            );
        }
    }
    let of = |what: &str| number(&format!("/exposition/{what}"));
    let (ours, open, theirs) = (
        of("ours_ms")?,
        of("ours_openmetrics_ms")?,
        of("prometheus_ms")?,
    );
    let (ours_mb, theirs_mb) = (of("ours_mb")?, of("prometheus_mb")?);
    let _ = write!(
        out,
        "\n| {} sessions, {} samples | ours | OpenMetrics | the crate's encoder | ÷ ours | to reach |\n\
         |---|---|---|---|---|---|\n\
         | time, ms | {ours:.1} | {open:.1} | {theirs:.1} | {:.1} | {} |\n\
         | size, MB | {ours_mb:.1} | | {theirs_mb:.1} | {:.1} | {} |\n",
        of("sessions")?,
        of("samples")?,
        theirs / ours,
        at_most(&format!("≤ {SCRAPE_MS} ms"), Some(ours), Some(SCRAPE_MS)),
        theirs_mb / ours_mb,
        at_most(&format!("≤ {SCRAPE_MB} MB"), Some(ours_mb), Some(SCRAPE_MB)),
    );
    out.push_str(
        "\n| Threads that look for sessions | ours, millions a second | one lock | ours ÷ one lock |\n\
         |---|---|---|---|\n",
    );
    for line in costs["lookups"].as_array().into_iter().flatten() {
        let of = |what: &str| {
            line[what]
                .as_f64()
                .with_context(|| format!("no {what}: {line}"))
        };
        let (ours, one) = (of("sharded")?, of("one_lock")?);
        let _ = writeln!(
            out,
            "| {} | {ours:.2} | {one:.2} | {:.2} |",
            of("threads")?,
            ours / one
        );
    }
    Ok(out)
}

/// What was seen of a server with its sessions.
fn of_live(live: &Live) -> String {
    let mut out =
        String::from("\n| A server with its sessions | seen | to reach |\n|---|---|---|\n");
    let mut line = |what: &str, seen: String, goal: String| {
        let _ = writeln!(out, "| {what} | {seen} | {goal} |");
    };
    let connected = live.connected;
    line(
        "connected sessions in the scrape, of 100 devices",
        connected.to_string(),
        String::new(),
    );
    let scrape = &live.scrapes;
    let goal = at_most(
        &format!("≤ {SCRAPE_MS} ms"),
        Some(scrape.first_byte),
        Some(SCRAPE_MS),
    );
    line(
        "scrape to its first byte, median ms",
        format!("{:.1}", scrape.first_byte),
        goal,
    );
    line(
        "CPU of the server's threads for HTTP for it, median ms",
        format!("{:.1}", scrape.cpu),
        String::new(),
    );
    line(
        "scrape to its last byte, median ms",
        format!("{:.1}", scrape.last_byte),
        String::new(),
    );
    let goal = at_most(
        &format!("≤ {SCRAPE_MB} MB"),
        Some(scrape.megabytes),
        Some(SCRAPE_MB),
    );
    line("its size, MB", format!("{:.1}", scrape.megabytes), goal);
    for (what, with, without) in [
        ("p50", live.scraped.p50, live.alone.p50),
        ("p99", live.scraped.p99, live.alone.p99),
        ("longest", live.scraped.max, live.alone.max),
    ] {
        let goal = match what {
            "p99" => at_most(
                &format!("≤ {JITTER_MS} ms more"),
                Some(with - without),
                Some(JITTER_MS),
            ),
            _ => String::new(),
        };
        let seen = format!("{with:.2}, {without:.2}");
        line(
            &format!(
                "latency of media {what} with a scrape each {} s, and without, ms",
                live::SCRAPE_SECONDS
            ),
            seen,
            goal,
        );
    }
    for (connections, idle, busy) in &live.health {
        line(
            &format!(
                "`/health` p50 and p99 with {connections} connections under that, and on an idle server, ms"
            ),
            format!(
                "{:.2} and {:.2}, {:.2} and {:.2}",
                busy.p50, busy.p99, idle.p50, idle.p99
            ),
            String::new(),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ours_is_set_beside_the_others_and_judged() {
        let recording = json!({
            "cell": 2.0, "family": 100.0, "prometheus_with_label_values": 50.0, "prometheus_resolved": 5.0,
        });
        let costs = json!({
            "recording_ns": {"one_thread": recording, "two_threads": recording},
            "exposition": {
                "sessions": 10_000, "samples": 9, "ours_ms": 60.0, "ours_openmetrics_ms": 61.0,
                "prometheus_ms": 240.0, "ours_mb": 20.0, "prometheus_mb": 21.0,
            },
            "lookups": [{"threads": 8, "sharded": 6.0, "one_lock": 1.5}],
        });
        let tables = of_costs(&costs).expect("all is there");
        for line in [
            "| the cell of a shard, one thread | 2.0 | 50.0 | 5.0 | 25.0, 2.5 | ≤ 20 ns: met |",
            "| a family of the server by its name, one thread | 100.0 | 50.0 | 5.0 | 0.5, 0.1 | ≤ 20 ns: missed |",
            "| time, ms | 60.0 | 61.0 | 240.0 | 4.0 | ≤ 50 ms: missed |",
            "| 8 | 6.00 | 1.50 | 4.00 |",
        ] {
            assert!(tables.contains(line), "{line} not in\n{tables}");
        }
        assert!(of_costs(&json!({})).is_err(), "nothing was measured");
    }
}
