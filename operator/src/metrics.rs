//! The operator's own metrics, as the catalogue lists them.

use catalogue::operator::{DURATION, ERRORS, LEADER, RECONCILES, WRITES};
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

/// Every family, registered. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    errors: IntCounterVec,
    writes: IntCounterVec,
    duration: Histogram,
    pub leader: IntGauge,
}

impl Metrics {
    pub fn new() -> Self {
        let counter = |family: &catalogue::families::Family| {
            IntCounterVec::new(Opts::new(family.name, family.help), family.labels)
                .expect("catalogue names are valid")
        };
        let duration =
            HistogramOpts::new(DURATION.name, DURATION.help).buckets(DURATION.buckets.to_vec());
        let metrics = Self {
            registry: Registry::new(),
            reconciles: counter(&RECONCILES),
            errors: counter(&ERRORS),
            writes: counter(&WRITES),
            duration: Histogram::with_opts(duration).expect("catalogue names are valid"),
            leader: IntGauge::new(LEADER.name, LEADER.help).expect("catalogue names are valid"),
        };
        let collectors: [Box<dyn prometheus::core::Collector>; 5] = [
            Box::new(metrics.reconciles.clone()),
            Box::new(metrics.errors.clone()),
            Box::new(metrics.writes.clone()),
            Box::new(metrics.duration.clone()),
            Box::new(metrics.leader.clone()),
        ];
        for collector in collectors {
            metrics
                .registry
                .register(collector)
                .expect("catalogue names are unique");
        }
        for result in ["success", "error"] {
            metrics.reconciles.with_label_values(&[result]);
        }
        metrics
    }

    /// Counts a reconciliation; `error` is its reason.
    pub fn reconciled(&self, seconds: f64, error: Option<&'static str>) {
        self.duration.observe(seconds);
        let result = if error.is_some() { "error" } else { "success" };
        self.reconciles.with_label_values(&[result]).inc();
        if let Some(reason) = error {
            self.errors.with_label_values(&[reason]).inc();
        }
    }

    /// Counts a write to an object of that kind.
    pub fn wrote(&self, kind: &str) {
        self.writes.with_label_values(&[kind]).inc();
    }

    /// The exposition, `text/plain; version=0.0.4`.
    pub fn render(&self) -> Vec<u8> {
        let mut out = Vec::new();
        // Writing to memory can't fail.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut out);
        out
    }
}
