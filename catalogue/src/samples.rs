//! How large a scrape of `media-server` can be.
//!
//! From the table of families and the cap on each; knows no values. The operator tells Prometheus, whose
//! limit must never be the first to bite: a scrape beyond it fails as a whole.

use crate::families::{CLOSE_REASONS, FAMILIES, Family, Kind, Scope};

/// Samples that a pod exposes at the most, where a family holds `max_series` label sets.
///
/// Families of sessions count with the cap and not with the limit on sessions, because ended ones stay
/// for two scrapes: short sessions fill any number of places.
pub fn most_samples(max_series: u32) -> u64 {
    let max_series = u64::from(max_series);
    let families = FAMILIES.iter().filter(|f| f.scope != Scope::Process);
    let each: u64 = families.map(of_label_set).sum();
    OF_PROCESS + each * (max_series + FOLDED)
}

/// Lines of one label set.
fn of_label_set(family: &Family) -> u64 {
    match family.kind {
        // +Inf, sum and count.
        Kind::Histogram => family.buckets.len() as u64 + 3,
        Kind::Counter | Kind::Gauge => 1,
    }
}

/// What a full family has beside: its `other`, with each value of a label that stays.
const FOLDED: u64 = CLOSE_REASONS.len() as u64;

/// All families without `device_id` or `session_id`: most are the 8 methods by some 20 paths of HTTP, 13
/// lines of a histogram and a few statuses each, which is 4000 if somebody tries them all.
const OF_PROCESS: u64 = 10_000;
