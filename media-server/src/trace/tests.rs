//! Tests of spans: what a collector is sent of a session, when it is asked again, and how many traces are kept.

use super::*;
use crate::api::count_created;
use crate::app::tests::app_with;
use crate::limits::Limiter;
use crate::outbound::collector_url;
use crate::registry::Protocol;
use crate::registry::tests::{older, record};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use opentelemetry_sdk::trace::SamplingDecision;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What waits as long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A collector that answers with these statuses, one after the other, and keeps the bodies of what it was asked.
async fn collector(statuses: &'static [u16]) -> (Traces, JoinHandle<Vec<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let asked = tokio::spawn(async move {
        let mut bodies = Vec::new();
        for status in statuses {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let (mut bytes, mut body) = (Vec::new(), None);
            while body.is_none() {
                let read = stream.read_buf(&mut bytes).await.expect("readable");
                assert!(read > 0, "a request is whole");
                body = whole(&bytes);
            }
            bodies.extend(body);
            let answer =
                format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.expect("taken");
        }
        bodies
    });
    let config = TraceConfig {
        endpoint: collector_url(&url).expect("a URL"),
        sample_percent: 100,
    };
    let sender = Sender {
        pod: "cam-0",
        namespace: "media",
        boot: "first",
    };
    let traces = Traces::start(&config, &sender, None).expect("a client");
    (traces, asked)
}

/// The body of a request, once all of it is there.
fn whole(bytes: &[u8]) -> Option<Vec<u8>> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let (_, length) = head.split_once("content-length: ")?;
    let length: usize = length.lines().next()?.parse().ok()?;
    bytes.get(end..end + length).map(<[u8]>::to_vec)
}

fn sent(body: &[u8]) -> ResourceSpans {
    let request = ExportTraceServiceRequest::decode(body).expect("an ExportTraceServiceRequest");
    let [of_pod] = &request.resource_spans[..] else {
        panic!("one who sends: {request:?}");
    };
    of_pod.clone()
}

/// Lets other tasks run until so many spans came to that end.
async fn becomes(traces: &Traces, outcome: Outcome, count: u64) {
    let counted = async {
        while traces.count(outcome) < count {
            tokio::task::yield_now().await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, counted).await;
    assert!(in_time.is_ok(), "{outcome:?}: {}", traces.count(outcome));
}

#[tokio::test]
async fn a_session_is_established_from_its_post_to_its_first_media_wherever_these_are_told_of() {
    let (traces, asked) = collector(&[200]).await;
    let ago = |seconds| Instant::now() - Duration::from_secs(seconds);
    let record = record(1, Protocol::Session, "cam-1");
    let place = Limiter::new(Instant::now()).handshakes.begin().await;
    record.begin_handshake(place.expect("there is one"), ago(50));
    traces.begin_session(&record);
    let trace = record.trace.get().expect("it has begun");
    trace.media_began(ago(20));
    trace.session_ended("ice_failed");
    traces.flush(PATIENCE).await;
    let bodies = asked.await.expect("it was asked");
    let of_pod = sent(&bodies[0]);
    let span = &of_pod.scope_spans[0].spans[0];
    let took = (span.end_time_unix_nano - span.start_time_unix_nano) as f64 / 1e9;
    assert!((29.0..31.0).contains(&took), "{took} s");
    let failed = span.status.as_ref().is_some_and(|status| status.code == 2);
    assert!(!failed, "it had media before it ended: {span:?}");
    let resource = of_pod.resource.as_ref().expect("one");
    let mut told: Vec<String> = resource
        .attributes
        .iter()
        .map(|a| {
            let value = a.value.as_ref().and_then(|value| value.value.as_ref());
            format!("{}={value:?}", a.key)
        })
        .collect();
    told.retain(|attribute| !attribute.starts_with("service.version="));
    told.sort_unstable();
    let text = |key: &str, value: &str| format!("{key}=Some(StringValue({value:?}))");
    assert_eq!(
        told,
        [
            text("k8s.namespace.name", "media"),
            text("k8s.pod.name", "cam-0"),
            text("service.instance.id", "first"),
            text("service.name", "media-server"),
            text("service.namespace", "media"),
        ]
    );
}

/// The span of a session that has begun and ended.
fn one_span(traces: &Traces) {
    let record = record(1, Protocol::Whip, "cam-1");
    traces.begin_session(&record);
    let trace = record.trace.get().expect("it has begun");
    trace.session_ended("normal_close");
}

#[tokio::test]
async fn a_batch_that_is_refused_for_now_is_sent_once_more_and_one_that_is_wrong_is_not() {
    let for_now: [&'static [u16]; 4] = [&[429, 200], &[502, 200], &[503, 200], &[504, 200]];
    let sent_again = for_now.map(async |statuses| {
        let (traces, asked) = collector(statuses).await;
        one_span(&traces);
        becomes(&traces, Outcome::Exported, 1).await;
        let bodies = asked.await.expect("it was asked");
        assert_eq!(bodies[0], bodies[1], "{statuses:?}");
        assert_eq!(traces.count(Outcome::Failed), 0, "{statuses:?}");
    });
    let for_good: [&'static [u16]; 3] = [&[400, 200], &[401, 200], &[500, 200]];
    let given_up = for_good.map(async |statuses| {
        let (traces, asked) = collector(statuses).await;
        one_span(&traces);
        becomes(&traces, Outcome::Failed, 1).await;
        traces.flush(PATIENCE).await;
        assert_eq!(traces.count(Outcome::Exported), 0, "{statuses:?}");
        assert!(!asked.is_finished(), "{statuses:?}: a second request");
        asked.abort();
    });
    let all = futures::future::join(
        futures::future::join_all(sent_again),
        futures::future::join_all(given_up),
    );
    all.await;
}

#[tokio::test]
async fn what_waits_at_the_end_is_sent() {
    // Whether the task sees a span or the end first is left to chance.
    let ends = (0..8).map(async |_| {
        let (traces, _) = collector(&[200]).await;
        one_span(&traces);
        traces.flush(PATIENCE).await;
        traces.count(Outcome::Exported)
    });
    let exported = futures::future::join_all(ends).await;
    assert_eq!(exported, [1; 8]);
}

#[tokio::test]
async fn a_collector_that_is_never_there_is_given_up_at_the_end_and_its_spans_are_counted() {
    let (traces, asked) = collector(&[]).await;
    assert!(asked.await.expect("no panic").is_empty(), "it is gone");
    one_span(&traces);
    let flushed = Instant::now();
    traces.flush(PATIENCE).await;
    let took = flushed.elapsed();
    assert_eq!(traces.count(Outcome::Failed), 1);
    assert!(took < Duration::from_secs(10), "no more tries: {took:?}");
}

#[test]
fn a_session_is_told_by_the_attributes_of_the_service_that_is_replaced() {
    for (protocol, role) in [
        (Protocol::SfuPublisher, "publisher.id"),
        (Protocol::SfuSubscriber, "subscriber.id"),
    ] {
        let record = older(1, protocol, "cam-1", 7);
        let found = attributes(&record);
        let of = |key: &str| {
            let mut all = found.iter();
            let found = all.find(|attribute| attribute.key.as_str() == key);
            found.map(|attribute| attribute.value.as_str().into_owned())
        };
        assert_eq!(of("session.id"), Some(record.id.to_string()));
        assert_eq!(of("session.type").as_deref(), Some(protocol.as_str()));
        assert_eq!(of("device.id").as_deref(), Some("cam-1"));
        assert_eq!(of("user.id").as_deref(), Some("ann"));
        let name = record.older.as_ref().map(|older| older.name.to_string());
        assert_ne!(name, of("session.id"), "what clients call it");
        assert_eq!(of(role), name);
    }
}

#[test]
fn of_traces_that_begin_here_so_many_in_a_hundred_are_kept() {
    let share = Share(Arc::new(AtomicU8::new(0)));
    let kept = |percent: u8| {
        share.0.store(percent, Relaxed);
        // Spread evenly over all ids that there are.
        let ids = (0..10_000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let is_kept = |id: &u64| {
            let id = TraceId::from(u128::from(*id));
            let sampled = share.should_sample(None, id, "", &SpanKind::Server, &[], &[]);
            sampled.decision == SamplingDecision::RecordAndSample
        };
        ids.filter(is_kept).count()
    };
    assert_eq!((kept(0), kept(100)), (0, 10_000));
    for percent in [1, 10, 50] {
        let (kept, wanted) = (kept(percent), usize::from(percent) * 100);
        assert!(kept.abs_diff(wanted) < 50, "{percent} %: {kept}");
    }
}

#[tokio::test]
async fn the_span_of_a_session_that_its_shard_closed_before_it_was_counted_ends() {
    let app = app_with(&["--otlp-endpoint", "http://127.0.0.1:1"]).await;
    let (open, over) = (
        record(1, Protocol::Whip, "cam-1"),
        record(2, Protocol::Whip, "cam-2"),
    );
    app.registry.admit(&open).expect("room");
    for record in [&open, &over] {
        count_created(&app, record);
    }
    let is_over = |record: &Record| record.trace.get().expect("one").is_established();
    assert!(!is_over(&open) && is_over(&over));
}
