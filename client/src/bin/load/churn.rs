//! Viewers that leave and others that come in their place, at random, while media flows.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::join::{Door, Group, Watching};
use crate::report::{ChurnReport, SetupReport};
use crate::tally::Departed;

/// Set-ups and ends under way; a change that is due beyond them is left out and counted.
const UNDER_WAY: usize = 64;

/// Lets media flow for `time`, with so many changes a second in the mean: at random moments (a Poisson
/// process) a viewer chosen at random leaves, and another comes. For one who failed to come another does
/// with the next change. The ones who left are added to `departed`, who came is pushed to `watching`.
pub async fn churn(
    door: &Arc<Door>,
    next_number: usize,
    rate: f64,
    time: Duration,
    watching: &mut Vec<Watching>,
    departed: &mut Departed,
) -> ChurnReport {
    let end = Instant::now() + time;
    let mut next_change = Instant::now() + pause(rate);
    let mut report = ChurnReport::default();
    let mut numbers = next_number..;
    let mut due = 0;
    let mut joins = JoinSet::new();
    let mut ends = JoinSet::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(end) => break,
            () = tokio::time::sleep_until(next_change) => {
                next_change += pause(rate);
                if joins.len() + ends.len() >= UNDER_WAY || watching.is_empty() {
                    report.left_out += 1;
                    continue;
                }
                let chosen = (random() * watching.len() as f64) as usize;
                let leaver = watching.swap_remove(chosen);
                departed.add(&leaver);
                ends.spawn(async move { leaver.viewer.close().await.is_ok() });
                due += 1;
                // Who finds no room now comes later.
                let room = UNDER_WAY.saturating_sub(joins.len()).min(due);
                due -= room;
                for number in numbers.by_ref().take(room) {
                    let door = door.clone();
                    joins.spawn(async move { door.prepare(number).await?.join(Group::Churn).await });
                }
            }
            Some(ended) = ends.join_next() => {
                report.left += 1;
                report.not_deleted += u64::from(!ended.unwrap_or(false));
            }
            Some(result) = joins.join_next() => {
                due += usize::from(!take(result, watching, &mut report));
            }
        }
    }
    // Who is on the way in still counts.
    while let Some(result) = joins.join_next().await {
        take(result, watching, &mut report);
    }
    while let Some(ended) = ends.join_next().await {
        report.left += 1;
        report.not_deleted += u64::from(!ended.unwrap_or(false));
    }
    report.setup_ms = SetupReport::of(departed.joined(watching, Group::Churn));
    report
}

/// The time to the next of events that come at random, `rate` a second in the mean.
fn pause(rate: f64) -> Duration {
    Duration::from_secs_f64(-(1.0 - random()).ln() / rate)
}

/// From 0 to below 1.
fn random() -> f64 {
    let mut bytes = [0; 4];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has random numbers");
    f64::from(u32::from_be_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}

/// Counts one who came, or who failed to; returns whether it came.
fn take(
    result: Result<anyhow::Result<Watching>, tokio::task::JoinError>,
    watching: &mut Vec<Watching>,
    report: &mut ChurnReport,
) -> bool {
    let error = match result {
        Ok(Ok(watch)) => {
            report.joined += 1;
            watching.push(watch);
            return true;
        }
        Ok(Err(error)) => format!("{error:#}"),
        Err(error) => error.to_string(),
    };
    report.failed += 1;
    report.first_failure.get_or_insert(error);
    false
}
