//! The stages of `cargo xtask test --long`: what takes minutes of wall time, or another server's build.
//!
//! They run after the others; only the first needs a cluster, and starts its own. What is judged is what holds on a busy machine too;
//! the benchmarks' times are told.

use std::process::Command;
use std::time::Duration;

use anyhow::{bail, ensure};
use serde_json::Value;

use super::Gate;
use super::stages::{self, Stage};
use crate::bench::{self, Ours};
use crate::clients::{self, Which};
use crate::demo::machine;
use crate::fuzz;
use crate::sh::Counts;

/// Each is named and timed in the report like any other.
pub fn stages() -> Vec<Stage> {
    vec![
        Stage {
            name: "scale",
            run: stages::scale,
        },
        Stage {
            name: "GStreamer",
            run: |_, counts| clients::test(Which::Gstreamer, counts),
        },
        Stage {
            name: "soak",
            run: soak,
        },
        Stage {
            name: "bench",
            run: |_, _| bench::run(bench::Args::named(&[])),
        },
        Stage {
            name: "bench stages",
            run: |_, _| bench::run(bench::Args::named(&[bench::STAGES])),
        },
        Stage {
            name: "fuzz",
            run: |_, _| fuzz::run(fuzz::Args::long()),
        },
    ]
}

/// Rounds of the soak. The first fills what is kept for later, pools and the allocator's own: memory
/// may not grow from the second to the last.
const ROUNDS: usize = 3;

/// Four devices, forty who stay, and five a second who come and go: five hundred sessions a round.
const LOAD: &[&str] = &[
    "--publishers",
    "4",
    "--viewers",
    "40",
    "--churn",
    "5",
    "--duration",
    "100",
];

/// Most that memory may grow, as a part of what it was: noise of the allocator is some percent.
const GROWTH: f64 = 1.1;

/// The same load over and over on one server: everybody gets a picture, every session ends, and the
/// server is as large afterwards as it was.
fn soak(_: &mut Gate, _: &mut Counts) -> anyhow::Result<()> {
    let ours = Ours::start("soak")?;
    let mut resident = Vec::new();
    for round in 1..=ROUNDS {
        println!("round {round} of {ROUNDS}");
        let name = format!("soak-{round}");
        let report = ours.load(&name, LOAD, Duration::from_secs(180))?;
        let complaints = complaints(&report);
        if !complaints.is_empty() {
            bail!("round {round}: {}", complaints.join(", "));
        }
        ended(&ours)?;
        let kib = report["server"]["rss_kib_at_end"].as_f64();
        println!(
            "{} of all packets came, {} joined; the server has {} KiB",
            report["delivered_ratio"],
            report["churn"]["joined"],
            kib.unwrap_or_default()
        );
        resident.extend(kib);
    }
    ensure!(!grows(&resident), "memory grows: {resident:?} KiB");
    Ok(())
}

/// What is wrong with a round.
fn complaints(report: &Value) -> Vec<String> {
    let mut complaints = Vec::new();
    for at in [
        "/viewers_failed",
        "/viewers_without_picture",
        "/churn/failed",
        "/churn/not_deleted",
    ] {
        match report.pointer(at).and_then(Value::as_u64) {
            Some(0) => {}
            seen => complaints.push(format!("{at} is {seen:?}")),
        }
    }
    if report["churn"]["joined"].as_u64().unwrap_or(0) == 0 {
        complaints.push("nobody came".to_owned());
    }
    complaints
}

/// Whether the last is larger than the second.
fn grows(resident: &[f64]) -> bool {
    match (resident.get(1), resident.last()) {
        (Some(second), Some(last)) => *last > second * GROWTH,
        _ => true,
    }
}

/// Waits until the server counts no session.
fn ended(ours: &Ours) -> anyhow::Result<()> {
    let origin = ours.whip().split("/whip").next().unwrap_or_default();
    let ask = || {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-m", "5", &format!("{origin}/metrics")]);
        Ok(curl)
    };
    machine::until(
        "the server has no session",
        Duration::from_secs(60),
        ask,
        |metrics| sessions(metrics) == Some(0.0),
    )?;
    Ok(())
}

fn sessions(metrics: &str) -> Option<f64> {
    let of = |line: &str| -> Option<f64> { line.rsplit(' ').next()?.parse().ok() };
    let lines = metrics
        .lines()
        .filter(|line| line.starts_with("media_active_sessions"));
    let values: Option<Vec<f64>> = lines.map(of).collect();
    values
        .filter(|all| !all.is_empty())
        .map(|all| all.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_round_in_which_one_viewer_had_no_picture_is_not_good() {
        let good = json!({
            "viewers_failed": 0, "viewers_without_picture": 0,
            "churn": {"failed": 0, "not_deleted": 0, "joined": 500},
        });
        assert_eq!(complaints(&good), [""; 0]);
        let mut bad = good.clone();
        bad["viewers_without_picture"] = json!(1);
        assert_eq!(complaints(&bad), ["/viewers_without_picture is Some(1)"]);
        bad["churn"] = Value::Null;
        assert_eq!(complaints(&bad).len(), 4);
    }

    #[test]
    fn memory_may_settle_in_the_first_round_and_not_grow_later() {
        assert!(!grows(&[30_000.0, 60_000.0, 61_000.0]));
        assert!(grows(&[60_000.0, 60_000.0, 90_000.0]));
        assert!(grows(&[60_000.0]));
    }

    #[test]
    fn sessions_are_those_of_all_labels() {
        let metrics = "# TYPE media_active_sessions gauge\nmedia_active_sessions{type=\"whip\"} 1\nmedia_active_sessions{type=\"whep\"} 4\n";
        assert_eq!(sessions(metrics), Some(5.0));
        assert_eq!(sessions("media_active_sessions 0\n"), Some(0.0));
        assert_eq!(sessions(""), None, "no answer is not none of them");
    }
}
