//! Which alerts fire: what is waited for, and what has ever been.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::ensure;
use tests::{Prometheus, wait_for};

/// The longest `for` of these is 5 minutes. It begins late for a target that is no longer asked for: the
/// configuration takes minutes to reach Prometheus, which then takes the last answer for another five.
const FIRES: Duration = Duration::from_secs(1200);
/// The longest window of these is 10 minutes.
const ENDS: Duration = Duration::from_secs(900);
/// Between two questions: Prometheus looks at the rules every 15 s.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// A fault, and what it sets off.
pub struct Fault {
    pub what: &'static str,
    /// That of the MediaService `cam` that it befalls, or of the operator.
    pub namespace: &'static str,
    pub alert: &'static str,
    /// What the same fault sets off besides.
    pub companions: &'static [&'static str],
}

impl Fault {
    fn alerts(&self) -> BTreeSet<Alert> {
        let service = match self.namespace {
            tests::operator::NAMESPACE => "",
            _ => "cam",
        };
        let names = [&[self.alert], self.companions].concat();
        let of_name = |name: &str| Alert {
            namespace: self.namespace.to_owned(),
            service: service.to_owned(),
            name: name.to_owned(),
        };
        names.into_iter().map(of_name).collect()
    }
}

/// An alert by whom it is about. A burn alert of several windows is one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alert {
    pub namespace: String,
    /// Empty: the operator.
    pub service: String,
    pub name: String,
}

/// Something that can be broken and mended.
pub trait Breakable {
    async fn breaks(&mut self);
    async fn is_mended(&mut self);
}

/// What became of a fault.
pub struct Seen<'a> {
    fault: &'a Fault,
    fired: BTreeMap<Alert, Duration>,
    ended: BTreeMap<Alert, Duration>,
}

impl Seen<'_> {
    /// Lines of a table, the fault's own alert first.
    pub fn print(&self) {
        let mut alerts = self.alerts();
        alerts.sort_by_key(|alert| alert.name != self.fault.alert);
        for alert in alerts {
            println!(
                "| {} | {} | {} s | {} s |",
                self.fault.what,
                alert.name,
                self.fired[&alert].as_secs(),
                self.ended[&alert].as_secs()
            );
        }
    }

    pub fn alerts(&self) -> Vec<Alert> {
        self.fired.keys().cloned().collect()
    }
}

/// Breaks it, waits until all of the fault's alerts fire, mends it, and waits until they have ended.
///
/// # Panics
/// If one of them does not fire or end in time, or another one fires in that namespace meanwhile.
pub async fn provoke<'a>(
    fault: &'a Fault,
    prometheus: &Prometheus,
    breakable: &mut impl Breakable,
) -> Seen<'a> {
    let declared = fault.alerts();
    breakable.breaks().await;
    let begun = Instant::now();
    println!("{}", fault.what);
    let fired = times(fault, prometheus, begun, FIRES, |firing| {
        let undeclared: Vec<_> = firing.difference(&declared).collect();
        assert!(undeclared.is_empty(), "{}: {undeclared:?}", fault.what);
        declared.intersection(firing).cloned().collect()
    })
    .await;
    println!("{}: {fired:?}", fault.what);
    breakable.is_mended().await;
    let mended = Instant::now();
    let ended = times(fault, prometheus, mended, ENDS, |firing| {
        let undeclared: Vec<_> = firing.difference(&declared).collect();
        assert!(undeclared.is_empty(), "{}: {undeclared:?}", fault.what);
        declared.difference(firing).cloned().collect()
    })
    .await;
    println!("{}, mended: {ended:?}", fault.what);
    Seen {
        fault,
        fired,
        ended,
    }
}

/// When each of the fault's alerts was first among what `reached` finds in those that fire.
async fn times(
    fault: &Fault,
    prometheus: &Prometheus,
    since: Instant,
    within: Duration,
    reached: impl Fn(&BTreeSet<Alert>) -> BTreeSet<Alert>,
) -> BTreeMap<Alert, Duration> {
    let all = fault.alerts();
    let times = std::sync::Mutex::new(BTreeMap::new());
    let tick = tokio::sync::Mutex::new(tokio::time::interval(ASK_EVERY));
    wait_for(fault.what, within, || async {
        tick.lock().await.tick().await;
        let query = format!(
            "ALERTS{{alertstate=\"firing\",namespace=\"{}\"}}",
            fault.namespace
        );
        let firing = alerts(prometheus, &query).await?;
        let mut times = times.lock().expect("nobody panics with it");
        for alert in reached(&firing) {
            times.entry(alert).or_insert_with(|| since.elapsed());
        }
        ensure!(times.len() == all.len(), "{firing:?} fire");
        anyhow::Ok(())
    })
    .await;
    times.into_inner().expect("nobody panics with it")
}

/// Every alert of this project that has fired since the cluster is there.
///
/// # Panics
/// If Prometheus doesn't answer.
pub async fn ever(prometheus: &Prometheus) -> BTreeSet<Alert> {
    let query = "count_over_time(ALERTS{alertstate=\"firing\",alertname=~\"Media.*\"}[2h])";
    alerts(prometheus, query).await.expect("Prometheus answers")
}

/// Those of them that fire now.
///
/// # Panics
/// If Prometheus doesn't answer.
pub async fn now(prometheus: &Prometheus) -> BTreeSet<Alert> {
    let query = "ALERTS{alertstate=\"firing\",alertname=~\"Media.*\"}";
    alerts(prometheus, query).await.expect("Prometheus answers")
}

async fn alerts(prometheus: &Prometheus, query: &str) -> anyhow::Result<BTreeSet<Alert>> {
    let found = prometheus.query(query).await?;
    let alert = |labels: &BTreeMap<String, String>| {
        let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
        Alert {
            namespace: label("namespace"),
            service: label("mediaservice"),
            name: label("alertname"),
        }
    };
    Ok(found.iter().map(|element| alert(&element.labels)).collect())
}
