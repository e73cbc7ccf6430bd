//! The operator's own metrics, as the catalogue lists them.
//!
//! Owns their registration and exposition. Knows nothing of what is counted; called by whatever does it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use catalogue::families::Family;
use catalogue::operator::{
    API_REQUESTS, CRD_MISSING, DURATION, ERRORS, FAMILIES, IN_FLIGHT, LEADER, QUEUE_DEPTH,
    RECONCILES, WATCH_ERRORS, WRITES,
};
use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

/// Counts what waits in one scope.
type Depth = Box<dyn Fn() -> usize + Send>;

/// Every family, registered. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    errors: IntCounterVec,
    duration: Histogram,
    in_flight: IntGauge,
    queue_depth: IntGauge,
    writes: IntCounterVec,
    api_requests: IntCounterVec,
    watch_errors: IntCounter,
    crd_missing: IntGauge,
    pub leader: IntGauge,
    /// By watched namespace; empty for all of them.
    depths: Arc<Mutex<HashMap<String, Depth>>>,
}

/// One reconciliation under way, until it is dropped.
pub struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    pub fn new() -> Self {
        let registry = Registry::new();
        let duration =
            HistogramOpts::new(DURATION.name, DURATION.help).buckets(DURATION.buckets.to_vec());
        let duration = Histogram::with_opts(duration).expect(VALID);
        let metrics = Self {
            reconciles: counters(&registry, &RECONCILES),
            errors: counters(&registry, &ERRORS),
            duration: registered(&registry, duration),
            in_flight: gauge(&registry, &IN_FLIGHT),
            queue_depth: gauge(&registry, &QUEUE_DEPTH),
            writes: counters(&registry, &WRITES),
            api_requests: counters(&registry, &API_REQUESTS),
            watch_errors: registered(
                &registry,
                IntCounter::new(WATCH_ERRORS.name, WATCH_ERRORS.help).expect(VALID),
            ),
            crd_missing: gauge(&registry, &CRD_MISSING),
            leader: gauge(&registry, &LEADER),
            depths: Arc::default(),
            registry,
        };
        for result in ["success", "error"] {
            metrics.reconciles.with_label_values(&[result]);
        }
        metrics
    }

    /// Counts a reconciliation as under way until the answer is dropped.
    pub fn begin(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
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

    /// From now on `depth` says at each scrape what waits in `namespace`, or everywhere. Takes the place
    /// of the one before.
    pub fn queue(&self, namespace: Option<&str>, depth: impl Fn() -> usize + Send + 'static) {
        let mut depths = self.depths.lock().expect("no panic while it is held");
        depths.insert(namespace.unwrap_or_default().to_owned(), Box::new(depth));
    }

    /// Counts a write to an object of that kind.
    pub fn wrote(&self, kind: &str) {
        self.writes.with_label_values(&[kind]).inc();
    }

    /// Counts a request to the API server; no `code` if it did not answer.
    pub fn requested(&self, verb: &str, code: Option<u16>) {
        let code = code.map_or("none".to_owned(), |code| code.to_string());
        self.api_requests.with_label_values(&[verb, &code]).inc();
    }

    /// Counts a watch that failed.
    pub fn watch_failed(&self) {
        self.watch_errors.inc();
    }

    /// What the API server said of MediaServices.
    pub fn crd(&self, served: bool) {
        self.crd_missing.set(i64::from(!served));
    }

    /// The exposition, `text/plain; version=0.0.4`. Every family is announced, also without a series.
    pub fn render(&self) -> Vec<u8> {
        let waiting: usize = {
            let depths = self.depths.lock().expect("no panic while it is held");
            depths.values().map(|depth| depth()).sum()
        };
        self.queue_depth
            .set(i64::try_from(waiting).unwrap_or(i64::MAX));
        let gathered = self.registry.gather();
        let mut out = Vec::new();
        // Writing to memory can't fail.
        let _ = TextEncoder::new().encode(&gathered, &mut out);
        for family in FAMILIES {
            if !gathered.iter().any(|found| found.name() == family.name) {
                let (name, help, kind) = (family.name, family.help, family.kind.as_str());
                out.extend(format!("# HELP {name} {help}\n# TYPE {name} {kind}\n").into_bytes());
            }
        }
        out
    }
}

const VALID: &str = "catalogue names are valid";

fn registered<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    registry
        .register(Box::new(collector.clone()))
        .expect("catalogue names are unique");
    collector
}

fn counters(registry: &Registry, family: &Family) -> IntCounterVec {
    let options = Opts::new(family.name, family.help);
    registered(
        registry,
        IntCounterVec::new(options, family.labels).expect(VALID),
    )
}

fn gauge(registry: &Registry, family: &Family) -> IntGauge {
    registered(
        registry,
        IntGauge::new(family.name, family.help).expect(VALID),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render()).unwrap()
    }

    #[test]
    fn every_family_of_the_catalogue_and_no_other_is_announced_from_the_first_scrape() {
        let text = text(&Metrics::new());
        let mut announced: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .collect();
        announced.sort_unstable();
        let mut wanted: Vec<String> = FAMILIES
            .iter()
            .map(|family| format!("{} {}", family.name, family.kind.as_str()))
            .collect();
        wanted.sort_unstable();
        assert_eq!(announced, wanted);
    }

    #[test]
    fn what_waits_is_counted_at_the_scrape_and_a_new_watch_takes_the_place_of_the_old() {
        let metrics = Metrics::new();
        metrics.queue(Some("media"), || 3);
        metrics.queue(Some("lab"), || 4);
        metrics.queue(Some("media"), || 1);
        let under_way = metrics.begin();
        let now = text(&metrics);
        assert!(
            now.contains("\nmediaservice_operator_queue_depth 5\n"),
            "{now}"
        );
        assert!(
            now.contains("\nmediaservice_operator_reconciles_in_flight 1\n"),
            "{now}"
        );
        drop(under_way);
        let now = text(&metrics);
        assert!(
            now.contains("\nmediaservice_operator_reconciles_in_flight 0\n"),
            "{now}"
        );
    }
}
