//! The queries that users' dashboards and alerts already contain, each with the value that follows from
//! what the test did.

use std::time::Duration;

use anyhow::{bail, ensure};
use catalogue::rules::{Selector, rule_groups};
use tests::prometheus::{Element, Prometheus};
use tests::wait_for;

use crate::service::NAME;

/// Two scrapes and the evaluation of a five-minute window.
const ANSWERED: Duration = Duration::from_secs(120);

/// What the test did, as far as the queries can tell.
pub struct Done {
    pub namespace: String,
    /// From joining to leaving of the viewer that left.
    pub watched: Duration,
    pub closed_normally: u32,
    pub closed_otherwise: u32,
}

/// An error that shows both values, unless they are equal.
pub fn equals(seen: f64, wanted: f64) -> anyhow::Result<()> {
    ensure!(seen == wanted, "{seen}, not {wanted}");
    Ok(())
}

/// What an answer has to be.
enum Right {
    /// One value between two.
    One(f64, f64),
    /// At least one value, all between two.
    Some(f64, f64),
    /// Any answer: nothing speaks WebSocket yet.
    Any,
}

/// Asks every query as it stands, until its answer is right.
///
/// # Panics
/// If one of them does not become right in time.
pub async fn all_answer(prometheus: &Prometheus, done: &Done) {
    let watched = done.watched.as_secs_f64();
    let abnormal =
        f64::from(done.closed_otherwise) / f64::from(done.closed_normally + done.closed_otherwise);
    let queries = [
        // The publisher is still there, alone.
        ("media_active_sessions", Right::One(1.0, 1.0)),
        // Three sessions in all: between none and three of them in the last minute.
        (
            "rate(media_sessions_created_total[1m])",
            Right::One(0.0, 3.0 / 45.0),
        ),
        // The mean of the viewer that left and of the one that never came (15 s).
        (
            "rate(media_session_duration_seconds_sum[5m]) / rate(media_session_duration_seconds_count[5m])",
            Right::One(10.0, watched + 5.0),
        ),
        (
            "sum(rate(media_sessions_closed_total{reason!=\"normal_close\"}[5m])) / sum(rate(media_sessions_closed_total[5m]))",
            Right::One(abnormal - 0.05, abnormal + 0.05),
        ),
        // Idle routes have no quantile; the largest bucket ends at 0.512 s.
        (
            "histogram_quantile(0.99, rate(media_http_duration_seconds_bucket[5m]))",
            Right::Some(0.0, 0.512),
        ),
        // Two of several hundred.
        (
            "sum(rate(media_http_requests_total{status=~\"5..\"}[5m])) / sum(rate(media_http_requests_total[5m]))",
            Right::One(f64::MIN_POSITIVE, 0.2),
        ),
        // Two pages ask for the devices every 2 s each.
        (
            "sum(rate(media_http_requests_total[1m]))",
            Right::One(0.7, 20.0),
        ),
        ("media_http_requests_in_flight", Right::One(0.0, 8.0)),
        (
            "media_memory_usage_bytes / 1024 / 1024",
            Right::One(2.0, 512.0),
        ),
        ("media_goroutine_count", Right::One(2.0, 200.0)),
        ("deriv(media_goroutine_count[5m])", Right::One(-2.0, 2.0)),
        ("media_websocket_connections", Right::One(0.0, 0.0)),
        ("rate(media_websocket_messages_total[1m])", Right::Any),
        (
            "rate(media_websocket_message_size_bytes_sum[5m]) / rate(media_websocket_message_size_bytes_count[5m])",
            Right::Any,
        ),
    ];
    for (expression, right) in &queries {
        wait_for(expression, ANSWERED, || async {
            let answer = prometheus.query(expression).await?;
            let values = values(&answer, &done.namespace);
            match (right, values.as_slice()) {
                (Right::Any, _) => Ok(()),
                (Right::One(low, high), [value]) if (low..=high).contains(&value) => Ok(()),
                (Right::Some(low, high), [_, ..])
                    if values.iter().all(|value| (low..=high).contains(&value)) =>
                {
                    Ok(())
                }
                (Right::One(low, high) | Right::Some(low, high), _) => {
                    bail!("{values:?}, not from {low} to {high}")
                }
            }
        })
        .await;
        println!("ok: {expression}");
    }
    alerts_are_evaluated(prometheus, &done.namespace).await;
}

/// Every alert of the service is known to Prometheus, which finds nothing wrong with it.
async fn alerts_are_evaluated(prometheus: &Prometheus, namespace: &str) {
    let selector = Selector {
        namespace,
        service: NAME,
    };
    let groups = rule_groups(&selector);
    let groups = groups.as_array().into_iter().flatten();
    let rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
    let wanted = rules.filter(|rule| rule["alert"].is_string()).count();
    wait_for("every alert to be evaluated", ANSWERED, || async {
        let all = prometheus.alerting_rules().await?;
        let own = all
            .iter()
            .filter(|rule| rule["labels"]["namespace"] == namespace);
        let (right, wrong): (Vec<_>, Vec<_>) = own.partition(|rule| rule["health"] == "ok");
        ensure!(
            right.len() == wanted && wrong.is_empty(),
            "{} of {wanted}, and {wrong:?}",
            right.len()
        );
        anyhow::Ok(())
    })
    .await;
}

/// Values of this service's series, and of sums that keep no label. NaN is "nothing happened".
fn values(answer: &[Element], namespace: &str) -> Vec<f64> {
    let own = |element: &&Element| {
        element
            .labels
            .get("namespace")
            .is_none_or(|name| name == namespace)
    };
    answer
        .iter()
        .filter(own)
        .map(|element| element.value)
        .filter(|value| !value.is_nan())
        .collect()
}
