//! What the viewers of a device have room for, and what its publisher should send therefore: what three
//! quarters of them can take. One that can't gets a part, see `media_core::viewer`.

use std::time::{Duration, Instant};

/// How often viewers are asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// Stands for a viewer that takes whatever there is.
pub(super) const ANY: u64 = u64::MAX;

/// What is known of the viewers on other shards, and when to look next.
#[derive(Debug, Default)]
pub(super) struct Bandwidth {
    looked_at: Option<Instant>,
    /// By shard.
    others: Vec<(u8, Box<[u64]>)>,
}

impl Bandwidth {
    /// Whether it is time to look; if so, not again for a second.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let due = self.looked_at.is_none_or(|at| now >= at + INTERVAL);
        if due {
            self.looked_at = Some(now);
        }
        due
    }

    /// What holds for the viewers has changed: it is time to look.
    pub(super) fn look_now(&mut self) {
        self.looked_at = None;
    }

    pub(super) fn note(&mut self, shard: u8, wanted: Box<[u64]>) {
        self.forget(shard);
        self.others.push((shard, wanted));
    }

    pub(super) fn forget(&mut self, shard: u8) {
        self.others.retain(|(of, _)| *of != shard);
    }

    /// What three quarters of all viewers can take, `own` ones and those of other shards; `None` if they
    /// take anything.
    pub(super) fn wanted(&self, own: &[u64]) -> Option<u64> {
        let others = self.others.iter().flat_map(|(_, wanted)| wanted.iter());
        let mut all: Vec<u64> = own.iter().chain(others).copied().collect();
        let quarter = all.len().checked_sub(1)? / 4;
        let (_, wanted, _) = all.select_nth_unstable(quarter);
        Some(*wanted).filter(|wanted| *wanted != ANY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publisher_sends_what_three_quarters_of_its_viewers_can_take() {
        let mut bandwidth = Bandwidth::default();
        assert_eq!(bandwidth.wanted(&[]), None);
        assert_eq!(bandwidth.wanted(&[700]), Some(700), "the only one decides");
        assert_eq!(bandwidth.wanted(&[ANY, ANY]), None);
        assert_eq!(bandwidth.wanted(&[100, ANY, ANY, ANY]), Some(100));
        assert_eq!(bandwidth.wanted(&[100, ANY, ANY, ANY, ANY]), None);
        bandwidth.note(3, [200, 100].into());
        bandwidth.note(3, [200, 300].into());
        bandwidth.note(4, [ANY].into());
        assert_eq!(bandwidth.wanted(&[400, 500]), Some(300));
        bandwidth.forget(3);
        assert_eq!(bandwidth.wanted(&[400, 500]), Some(400));
    }

    #[test]
    fn viewers_are_asked_once_a_second() {
        let (start, mut bandwidth) = (Instant::now(), Bandwidth::default());
        assert!(bandwidth.is_due(start));
        assert!(!bandwidth.is_due(start + Duration::from_millis(999)));
        assert!(bandwidth.is_due(start + INTERVAL));
    }
}
