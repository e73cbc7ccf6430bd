//! What sessions amount to, for families that count over a session's life: sums that outlive the
//! sessions, and their text. Kept by the registry, written at each scrape.

use super::text::Lines;
use catalogue::families::FAMILIES;
use media_core::cells::SessionCells;
use std::sync::LazyLock;

pub(super) const CANDIDATES: &str = "media_ice_candidates_added_total";
pub(super) const CONNECTION_TIME: &str = "media_ice_connection_time_milliseconds";

/// Upper bounds of the buckets of the time to connect.
static BOUNDS: LazyLock<&[f64]> = LazyLock::new(|| {
    let family = FAMILIES
        .iter()
        .find(|family| family.name == CONNECTION_TIME);
    family.expect("in the catalogue").buckets
});

/// The buckets with +Inf's: 100 ms to 12.8 s (`metrics.md`).
const BUCKETS: usize = 9;

#[derive(Debug, Clone, Default)]
pub struct Totals {
    candidates: u64,
    /// Bucket counts of the time to connect, not cumulative, the last for +Inf.
    connected_within: [u64; BUCKETS],
    connection_millis: f64,
}

impl Totals {
    /// Those of one session.
    pub fn of(cells: &SessionCells) -> Totals {
        let mut totals = Totals::default();
        totals.add(cells);
        totals
    }

    pub fn add(&mut self, cells: &SessionCells) {
        self.candidates += u64::from(cells.candidates_added());
        if let Some(time) = cells.connection_time() {
            let millis = time.as_secs_f64() * 1e3;
            let at = BOUNDS.partition_point(|bound| *bound < millis);
            self.connected_within[at] += 1;
            self.connection_millis += millis;
        }
    }

    #[cfg(test)]
    pub fn candidates(&self) -> u64 {
        self.candidates
    }

    /// Writes the family's series, if it is one of these sums.
    pub(super) fn write(&self, lines: &mut Lines<'_>, labels: &str) {
        match lines.family.name {
            CANDIDATES => lines.value(labels, self.candidates as f64),
            CONNECTION_TIME => {
                lines.histogram(labels, self.connected_within, self.connection_millis);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_count_for_each_bucket_of_the_catalogue() {
        assert_eq!(BOUNDS.len() + 1, BUCKETS);
    }
}
