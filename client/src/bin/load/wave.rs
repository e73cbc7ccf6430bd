//! A wave: many viewers of live devices who arrive within a moment, each as a player that has its
//! offer ready.

use std::sync::Arc;
use std::time::Duration;

use client::Codec;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::join::{Door, Group, Joins, Prepared, Watching};
use crate::progress;
use crate::report::{SetupReport, WaveReport, rounded};
use crate::server::{self, Usage};

/// Longest wait after the last viewer connected for all of them to see a picture.
const PICTURES: Duration = Duration::from_secs(15);

/// How often pictures are looked for; when each came is known exactly.
const LOOK: Duration = Duration::from_millis(50);

/// Offers made at the same time.
const PREPARING: usize = 16;

/// What a wave is made of.
pub struct Wave<'a> {
    pub door: &'a Arc<Door>,
    /// Number of its first viewer.
    pub first: usize,
    pub viewers: usize,
    /// The time over which they arrive, evenly.
    pub within: Duration,
    pub codec: Codec,
    /// This run publishes what they watch.
    pub stamped: bool,
    pub server_pid: Option<u32>,
}

impl Wave<'_> {
    /// Lets the wave in beside those who are watching. `requests` counts the keyframe requests that
    /// the publishers have had.
    ///
    /// # Errors
    /// If an offer can't be made, or the use of a process can't be read.
    pub async fn run(
        &self,
        earlier: &[Watching],
        requests: impl Fn() -> u64,
    ) -> anyhow::Result<(Joins, WaveReport)> {
        let prepared = self.prepare().await?;
        let measure = || -> anyhow::Result<(Usage, Option<Usage>)> {
            let server = self.server_pid.map(server::usage).transpose()?;
            Ok((server::usage(std::process::id())?, server))
        };
        let lost = || -> u64 { earlier.iter().map(|w| w.viewer.reception().lost()).sum() };
        let (lost_before, requests_before) = (lost(), requests());
        let (own_before, server_before) = measure()?;

        let start = Instant::now();
        let mut arriving = JoinSet::new();
        for (index, viewer) in prepared.into_iter().enumerate() {
            let due = start + self.within.mul_f64(index as f64 / self.viewers as f64);
            arriving.spawn(async move {
                tokio::time::sleep_until(due).await;
                let (number, posted) = (viewer.number, start.elapsed());
                (number, posted, viewer.join(Group::Wave).await)
            });
        }
        let (mut joins, mut last_post) = (Joins::default(), Duration::ZERO);
        while let Some(arrived) = arriving.join_next().await {
            let (number, posted, joined) = arrived.expect("no viewer's task panics or is aborted");
            last_post = last_post.max(posted);
            joins.add(number, joined);
        }
        let connected = start.elapsed();
        progress(&format!(
            "{} of {} viewers of the wave connected after {:.1} s",
            joins.watching.len(),
            self.viewers,
            connected.as_secs_f64()
        ));
        let deadline = Instant::now() + PICTURES;
        let blind = |joins: &Joins| {
            let none = |w: &&Watching| w.eye.picture().is_none();
            joins.watching.iter().filter(none).count()
        };
        while blind(&joins) > 0 && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
        let took = start.elapsed();
        let (own_after, server_after) = measure()?;

        let start = start.into_std();
        let seen: Vec<Duration> = joins
            .watching
            .iter()
            .filter_map(|watch| watch.eye.picture())
            .map(|at| at.saturating_duration_since(start))
            .collect();
        let cores = |before: Usage, after: Usage| {
            let cpu = after.cpu.saturating_sub(before.cpu);
            rounded(cpu.as_secs_f64() / took.as_secs_f64())
        };
        let mut all_blind = joins.blind.clone();
        all_blind.look_at(&joins.watching, self.codec, self.stamped);
        let report = WaveReport {
            viewers: self.viewers,
            connected: joins.watching.len(),
            failed: joins.failed,
            without_picture: blind(&joins),
            blind: all_blind,
            last_post_after_seconds: rounded(last_post.as_secs_f64()),
            all_connected_after_seconds: rounded(connected.as_secs_f64()),
            half_see_after_seconds: seen_by(&seen, self.viewers, 0.5),
            most_see_after_seconds: seen_by(&seen, self.viewers, 0.99),
            setup_ms: SetupReport::of(
                joins
                    .watching
                    .iter()
                    .map(|watch| watch.joined(&watch.viewer.reception())),
            ),
            keyframe_requests: requests() - requests_before,
            earlier_viewers: earlier.len(),
            lost_by_earlier_viewers: lost().saturating_sub(lost_before),
            own_cpu_cores: cores(own_before, own_after),
            server_cpu_cores: server_before
                .zip(server_after)
                .map(|(before, after)| cores(before, after)),
        };
        Ok((joins, report))
    }

    async fn prepare(&self) -> anyhow::Result<Vec<Prepared>> {
        let permits = Arc::new(Semaphore::new(PREPARING));
        let mut tasks = JoinSet::new();
        for number in 0..self.viewers {
            let (door, permits, number) = (self.door.clone(), permits.clone(), self.first + number);
            tasks.spawn(async move {
                let _permit = permits.acquire().await;
                door.prepare(number).await
            });
        }
        let mut prepared = Vec::with_capacity(self.viewers);
        while let Some(done) = tasks.join_next().await {
            prepared.push(done??);
            if prepared.len().is_multiple_of(200) {
                progress(&format!(
                    "{} of {} offers ready",
                    prepared.len(),
                    self.viewers
                ));
            }
        }
        Ok(prepared)
    }
}

/// After how many seconds that part of all viewers saw a picture; `None` if so many never did.
fn seen_by(seen: &[Duration], viewers: usize, part: f64) -> Option<f64> {
    let mut seen = seen.to_vec();
    seen.sort_unstable();
    let rank = (part * viewers as f64).ceil() as usize;
    let at = seen.get(rank.checked_sub(1)?)?;
    Some(rounded(at.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_until_most_see_a_picture_counts_those_who_never_do() {
        let seen: Vec<Duration> = (1..=98).rev().map(Duration::from_secs).collect();
        assert_eq!(seen_by(&seen, 100, 0.5), Some(50.0));
        assert_eq!(seen_by(&seen, 100, 0.99), None, "two of a hundred see none");
        assert_eq!(seen_by(&seen, 98, 0.99), Some(98.0));
        assert_eq!(seen_by(&[], 0, 0.5), None);
    }
}
