//! What sessions amount to, for families that count over a session's life: sums that outlive the
//! sessions, and their text. Kept by the registry, written by `collect.rs`.

use super::{write_histogram, write_series};
use catalogue::families::{FAMILIES, Family};
use media_core::cells::SessionCells;

#[derive(Debug, Clone)]
pub struct Totals {
    candidates: u64,
    /// Bucket counts of the time to connect, not cumulative, the last for +Inf.
    connected_within: Vec<u64>,
    connection_millis: f64,
}

const CONNECTION_TIME: &str = "media_ice_connection_time_milliseconds";

impl Default for Totals {
    fn default() -> Self {
        Totals {
            candidates: 0,
            connected_within: vec![0; connection_time().buckets.len() + 1],
            connection_millis: 0.0,
        }
    }
}

impl Totals {
    pub fn add(&mut self, cells: &SessionCells) {
        self.candidates += u64::from(cells.candidates_added());
        if let Some(time) = cells.connection_time() {
            let millis = time.as_secs_f64() * 1e3;
            let at = connection_time()
                .buckets
                .partition_point(|bound| *bound < millis);
            self.connected_within[at] += 1;
            self.connection_millis += millis;
        }
    }

    #[cfg(test)]
    pub fn candidates(&self) -> u64 {
        self.candidates
    }

    /// Writes the family's series, if it is one of these sums; `false` if it is not.
    pub(super) fn write(&self, text: &mut String, family: &Family, labels: &str) -> bool {
        match family.name {
            "media_ice_candidates_added_total" => {
                write_series(text, family.name, "", labels, self.candidates as f64);
            }
            CONNECTION_TIME => {
                let (counts, sum) = (&self.connected_within, self.connection_millis);
                write_histogram(text, family, labels, counts, sum);
            }
            _ => return false,
        }
        true
    }
}

fn connection_time() -> &'static Family {
    let mut families = FAMILIES.iter();
    let family = families.find(|family| family.name == CONNECTION_TIME);
    family.expect("the catalogue has it")
}
