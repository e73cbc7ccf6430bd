//! How many lines of one kind are written. A kind is a place in the code: there are as many as the code has, so
//! the map is bounded.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use tracing::callsite::Identifier;

/// Lines of one kind at once: as many as a pod has sessions by default, so that each of them has all of its lines
/// when all come together.
const BURST: f64 = 2000.0;
/// Lines of one kind each second after that: 150 kB/s. More tell nobody more.
const PER_SECOND: f64 = 500.0;

#[derive(Default)]
pub(super) struct Budget {
    kinds: Mutex<HashMap<Identifier, Left>>,
}

struct Left {
    lines: f64,
    at: Instant,
}

impl Budget {
    /// Whether one more line of that kind may be written.
    pub(super) fn take(&self, kind: Identifier, now: Instant) -> bool {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let left = kinds.entry(kind).or_insert(Left {
            lines: BURST,
            at: now,
        });
        let passed = now.saturating_duration_since(left.at).as_secs_f64();
        left.at = now;
        left.lines = (left.lines + passed * PER_SECOND).min(BURST);
        let enough = left.lines >= 1.0;
        if enough {
            left.lines -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tracing::callsite::Callsite;
    use tracing::{Metadata, subscriber::Interest};

    /// Of a size, so that two have two addresses.
    struct Place(#[expect(dead_code)] u8);

    impl Callsite for Place {
        fn set_interest(&self, _: Interest) {}

        fn metadata(&self) -> &Metadata<'_> {
            unreachable!("nobody writes a line here")
        }
    }

    #[test]
    fn a_flood_of_one_kind_of_line_is_cut_and_leaves_the_others_alone() {
        static PLACES: [Place; 2] = [Place(1), Place(2)];
        let [one, other] = [&PLACES[0], &PLACES[1]].map(|place| Identifier(place));
        let (budget, start) = (Budget::default(), Instant::now());
        let written = |kind: &Identifier, now| {
            let lines = (0..10_000).filter(|_| budget.take(kind.clone(), now));
            lines.count()
        };
        assert_eq!(written(&one, start), 2000);
        assert_eq!(written(&one, start + Duration::from_secs(1)), 500);
        assert_eq!(written(&one, start + Duration::from_secs(60)), 2000);
        assert_eq!(written(&other, start), 2000);
    }
}
