//! Exemplars: of each bucket of a histogram the last observation that belongs to a trace which is kept, for those who
//! see a slow one and ask which it was (OpenMetrics 1.0, "Exemplars"). One a bucket, so they are bounded as those are.

use opentelemetry::trace::TraceId;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// By the index of the bucket.
pub(super) type Exemplars = BTreeMap<usize, Exemplar>;

#[derive(Debug, Clone, Copy)]
pub(super) struct Exemplar {
    pub(super) trace: TraceId,
    pub(super) value: f64,
    pub(super) at: SystemTime,
}

impl Exemplar {
    /// Goes behind the value of its bucket.
    pub(super) fn write(&self, text: &mut String) {
        let since = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (trace, value, at) = (self.trace, self.value, since.as_secs_f64());
        let _ = write!(text, " # {{trace_id=\"{trace}\"}} {value} {at:.3}");
    }
}
