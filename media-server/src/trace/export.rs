//! The way of spans to the collector: a bounded queue, and a task that posts batches (OTLP over HTTP, protobuf).
//!
//! Who ends a span never waits. A collector that is slow or away fills the queue; what finds no place then is
//! counted and gone.

use crate::app::random;
use crate::outbound::{self, OutboundError};
use opentelemetry::{Context, KeyValue};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use prost::Message as _;
use reqwest::{Client, Response, StatusCode, Url, header};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// Spans that wait. One is about a kilobyte: two megabytes at the most.
const QUEUE: usize = 2048;
/// Spans in one request.
const BATCH: usize = 512;
/// Time for a batch to fill: spans of one request end within it.
const LINGER: Duration = Duration::from_secs(1);
/// A batch is tried once more after each of these; meanwhile spans wait. A collector is restarted in that time.
const RETRY_AFTER: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(10),
];
/// Longest time that a collector may have us wait for.
const MOST_PAUSE: Duration = Duration::from_secs(60);
/// Of an answer: it counts spans that were refused, and says why.
const MAX_ANSWER: usize = 64 * 1024;

/// What became of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The collector took it.
    Exported,
    /// There was no place in the queue.
    Full,
    /// The collector did not take it.
    Failed,
}

impl Outcome {
    pub const ALL: [Outcome; 3] = [Outcome::Exported, Outcome::Full, Outcome::Failed];

    /// Value of the `result` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Exported => "exported",
            Outcome::Full => "full",
            Outcome::Failed => "failed",
        }
    }
}

type Counts = [AtomicU64; Outcome::ALL.len()];

/// The task that sends spans.
pub(super) struct Exporter {
    counts: Arc<Counts>,
    stop: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Exporter {
    /// Starts it; returns the queue that spans go into.
    pub(super) fn start(
        collector: Url,
        sender: &Sender<'_>,
        ca_file: Option<&Path>,
    ) -> Result<(Exporter, Queue), OutboundError> {
        let (spans, waiting) = mpsc::channel(QUEUE);
        let (stop, stopped) = watch::channel(false);
        let counts = Arc::new(Counts::default());
        let sending = Sending {
            client: outbound::collector_client(ca_file)?,
            collector,
            resource: resource(sender),
            waiting,
            stopped,
            counts: counts.clone(),
            fails: false,
        };
        let exporter = Exporter {
            counts: counts.clone(),
            stop,
            task: Mutex::new(Some(tokio::spawn(sending.run()))),
        };
        Ok((exporter, Queue { spans, counts }))
    }

    pub(super) fn count(&self, outcome: Outcome) -> u64 {
        self.counts[outcome as usize].load(Relaxed)
    }

    pub(super) async fn flush(&self, within: Duration) {
        let _ = self.stop.send(true);
        let mut task = self
            .task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(task) = &mut task
            && tokio::time::timeout(within, &mut *task).await.is_err()
        {
            task.abort();
            tracing::warn!("spans were not sent before the end");
        }
    }
}

/// Who sends spans. Names of pods are the same in every namespace and after every start, so the rest tells them apart.
pub struct Sender<'a> {
    pub pod: &'a str,
    pub namespace: &'a str,
    /// Differs at each start.
    pub boot: &'a str,
}

/// In the words of the semantic conventions; `OTEL_RESOURCE_ATTRIBUTES` adds to them, and is right where both say
/// something.
fn resource(sender: &Sender<'_>) -> ResourceAttributesWithSchema {
    let known = [
        ("service.name", "media-server"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", sender.boot),
        ("service.namespace", sender.namespace),
        ("k8s.namespace.name", sender.namespace),
        ("k8s.pod.name", sender.pod),
    ];
    let known = known.into_iter().filter(|(_, value)| !value.is_empty());
    let resource = Resource::builder_empty()
        .with_attributes(known.map(|(key, value)| KeyValue::new(key, value.to_owned())))
        .with_detector(Box::new(EnvResourceDetector::new()))
        .build();
    ResourceAttributesWithSchema::from(&resource)
}

/// Where spans go when they end.
#[derive(Debug)]
pub(super) struct Queue {
    spans: mpsc::Sender<SpanData>,
    counts: Arc<Counts>,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.spans.try_send(span).is_err() {
            self.counts[Outcome::Full as usize].fetch_add(1, Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

struct Sending {
    client: Client,
    collector: Url,
    resource: ResourceAttributesWithSchema,
    waiting: mpsc::Receiver<SpanData>,
    stopped: watch::Receiver<bool>,
    counts: Arc<Counts>,
    /// The last batch was not taken, of which there is a line.
    fails: bool,
}

impl Sending {
    async fn run(mut self) {
        loop {
            let mut batch = Vec::new();
            let first = tokio::select! {
                first = self.waiting.recv() => first,
                _ = self.stopped.wait_for(|stopped| *stopped) => None,
            };
            match first {
                Some(span) => batch.push(span),
                // What is there now is the last.
                None => self.waiting.close(),
            }
            self.fill(&mut batch).await;
            if batch.is_empty() {
                return;
            }
            self.send(batch).await;
        }
    }

    /// Adds what comes within [`LINGER`], or what is there if that is all.
    async fn fill(&mut self, batch: &mut Vec<SpanData>) {
        let full = async {
            while batch.len() < BATCH {
                match self.waiting.recv().await {
                    Some(span) => batch.push(span),
                    None => return,
                }
            }
        };
        tokio::select! {
            () = full => {}
            () = tokio::time::sleep(LINGER) => {}
        }
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        let request = ExportTraceServiceRequest {
            resource_spans: group_spans_by_resource_and_scope(batch, &self.resource),
        };
        let body = bytes::Bytes::from(request.encode_to_vec());
        let mut pauses = RETRY_AFTER.iter();
        let refused = loop {
            let (why, asked) = match self.post(body.clone()).await {
                Ok(refused) => {
                    self.goes_on();
                    break refused.min(count);
                }
                Err(Refusal::ForGood(why)) => {
                    self.failed(&why);
                    break count;
                }
                Err(Refusal::ForNow { why, asked }) => (why, asked),
            };
            self.failed(&why);
            let Some(planned) = pauses.next() else {
                break count;
            };
            let [dice] = random();
            tokio::select! {
                () = tokio::time::sleep(pause(*planned, asked, dice)) => {}
                _ = self.stopped.wait_for(|stopped| *stopped) => break count,
            }
        };
        self.counts[Outcome::Failed as usize].fetch_add(refused, Relaxed);
        self.counts[Outcome::Exported as usize].fetch_add(count - refused, Relaxed);
    }

    fn failed(&mut self, why: &str) {
        if !std::mem::replace(&mut self.fails, true) {
            tracing::warn!(why, "spans are not taken by their collector");
        }
    }

    fn goes_on(&mut self) {
        if std::mem::take(&mut self.fails) {
            tracing::info!("spans are taken again by their collector");
        }
    }

    /// Returns how many spans were refused though the rest was taken. Which answers are worth another try: OTLP 1.5,
    /// "Failures".
    async fn post(&self, body: bytes::Bytes) -> Result<u64, Refusal> {
        let request = self.client.post(self.collector.clone());
        let request = request.header(header::CONTENT_TYPE, "application/x-protobuf");
        let answer = request.body(body).send().await;
        let answer = answer.map_err(|error| Refusal::ForNow {
            // Its text, and that of what caused it; the address may hold a key.
            why: format!("{:#}", anyhow::Error::new(error.without_url())),
            asked: None,
        })?;
        match answer.status() {
            status if status.is_success() => Ok(refused(answer).await),
            status @ (StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT) => Err(Refusal::ForNow {
                why: status.to_string(),
                asked: retry_after(&answer),
            }),
            status => Err(Refusal::ForGood(status.to_string())),
        }
    }
}

enum Refusal {
    ForNow {
        why: String,
        /// The collector's own word for when to try again.
        asked: Option<Duration>,
    },
    ForGood(String),
}

/// Spans that the collector took the others without. What can't be read says of none.
async fn refused(answer: Response) -> u64 {
    let body = outbound::read(answer, MAX_ANSWER).await.unwrap_or_default();
    let answer = ExportTraceServiceResponse::decode(&*body).unwrap_or_default();
    let refused = answer.partial_success.map_or(0, |part| part.rejected_spans);
    refused.try_into().unwrap_or(0)
}

/// In seconds: dates are not read (RFC 9110 §10.2.3).
fn retry_after(answer: &Response) -> Option<Duration> {
    let value = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    Some(Duration::from_secs(value.trim().parse().ok()?))
}

/// What was planned, or longer if the collector asks for it, and up to a fifth more: pods that were refused together
/// do not come back together. `dice` is random.
fn pause(planned: Duration, asked: Option<Duration>, dice: u8) -> Duration {
    let pause = asked.map_or(planned, |asked| planned.max(asked.min(MOST_PAUSE)));
    pause + pause.mul_f64(f64::from(dice) / 255.0 / 5.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::extract::State;
    use axum::response::IntoResponse as _;
    use axum::routing::post;
    use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;
    use opentelemetry_sdk::trace::SdkTracerProvider;

    type Script = Arc<Mutex<Vec<axum::response::Response>>>;

    /// Sends two spans to a collector that answers so, one after the other; what became of them, and the answers that
    /// nobody asked for.
    async fn send(answers: Vec<axum::response::Response>) -> ([u64; 3], usize) {
        let script: Script = Arc::new(Mutex::new(answers));
        let answer = async |State(script): State<Script>| {
            let mut script = script.lock().expect("no panic");
            assert!(!script.is_empty(), "a request too many");
            script.remove(0)
        };
        let router = Router::new().route("/v1/traces", post(answer));
        let router = router.with_state(script.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("loopback");
        let at = listener.local_addr().expect("an address");
        let serving = tokio::spawn(async move { axum::serve(listener, router).await });
        let url = outbound::collector_url(&format!("http://{at}")).expect("right");
        let sender = Sender {
            pod: "",
            namespace: "",
            boot: "",
        };
        let (exporter, queue) = Exporter::start(url, &sender, None).expect("a client");
        let provider = SdkTracerProvider::builder().with_span_processor(queue);
        let provider = provider.build();
        let tracer = provider.tracer("test");
        (0..2).for_each(|_| tracer.start("span").end());
        let counts = || Outcome::ALL.map(|outcome| exporter.count(outcome));
        let within = Duration::from_secs(30);
        let told = tokio::time::timeout(within, async {
            let mut look = tokio::time::interval(Duration::from_millis(10));
            while counts().iter().sum::<u64>() < 2 {
                look.tick().await;
            }
        });
        told.await.expect("in time");
        serving.abort();
        let left = script.lock().expect("no panic").len();
        (counts(), left)
    }

    #[tokio::test]
    async fn what_the_collector_refused_is_told_and_what_it_can_not_take_now_is_sent_again() {
        let ok = || StatusCode::OK.into_response();
        let later = || {
            let wait = [(header::RETRY_AFTER, "0")];
            (StatusCode::SERVICE_UNAVAILABLE, wait).into_response()
        };
        let one_of_two = ExportTraceServiceResponse {
            partial_success: Some(ExportTracePartialSuccess {
                rejected_spans: 1,
                error_message: String::new(),
            }),
        };
        let (part, bad) = (one_of_two.encode_to_vec(), StatusCode::BAD_REQUEST);
        // Exported, full and failed.
        for (answers, became) in [
            (vec![ok()], [2, 0, 0]),
            (vec![later(), ok()], [2, 0, 0]),
            (vec![part.into_response()], [1, 0, 1]),
            (vec!["all is well".into_response()], [2, 0, 0]),
            (vec![bad.into_response()], [0, 0, 2]),
        ] {
            let answers_were = format!("{answers:?}");
            assert_eq!(send(answers).await, (became, 0), "{answers_were}");
        }
    }

    #[test]
    fn a_pause_is_as_long_as_the_collector_asks_for_within_a_minute_and_is_not_the_same_for_all() {
        let s = Duration::from_secs;
        assert_eq!(pause(s(1), None, 0), s(1));
        assert_eq!(pause(s(1), Some(s(30)), 0), s(30));
        assert_eq!(pause(s(10), Some(s(2)), 0), s(10));
        assert_eq!(pause(s(10), Some(s(3600)), 0), s(60));
        assert_eq!(pause(s(10), None, 255), s(12));
    }
}
