//! The way of spans to the collector: a bounded queue, and a task that posts batches (OTLP over HTTP, protobuf).
//!
//! Who ends a span never waits. A collector that is slow or away fills the queue; what finds no place then is
//! counted and gone.

use crate::outbound::{self, OutboundError};
use opentelemetry::{Context, KeyValue};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use prost::Message as _;
use reqwest::{Client, StatusCode, Url, header};
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
        pod: &str,
        ca_file: Option<&Path>,
    ) -> Result<(Exporter, Queue), OutboundError> {
        let (spans, waiting) = mpsc::channel(QUEUE);
        let (stop, stopped) = watch::channel(false);
        let counts = Arc::new(Counts::default());
        let sending = Sending {
            client: outbound::collector_client(ca_file)?,
            collector,
            resource: resource(pod),
            waiting,
            stopped,
            counts: counts.clone(),
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

/// Who sends them.
fn resource(pod: &str) -> ResourceAttributesWithSchema {
    let mut attributes = vec![
        KeyValue::new("service.name", "media-server"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
    ];
    if !pod.is_empty() {
        attributes.push(KeyValue::new("service.instance.id", pod.to_owned()));
        attributes.push(KeyValue::new("k8s.pod.name", pod.to_owned()));
    }
    let resource = Resource::builder_empty()
        .with_attributes(attributes)
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
        let outcome = loop {
            match self.post(body.clone()).await {
                Ok(()) => break Outcome::Exported,
                Err(Refusal::ForGood) => break Outcome::Failed,
                Err(Refusal::ForNow) => {}
            }
            let Some(pause) = pauses.next() else {
                break Outcome::Failed;
            };
            tokio::select! {
                () = tokio::time::sleep(*pause) => {}
                _ = self.stopped.wait_for(|stopped| *stopped) => break Outcome::Failed,
            }
        };
        self.counts[outcome as usize].fetch_add(count, Relaxed);
    }

    /// Which answers are worth another try: OTLP 1.5, "Failures".
    async fn post(&self, body: bytes::Bytes) -> Result<(), Refusal> {
        let request = self.client.post(self.collector.clone());
        let request = request.header(header::CONTENT_TYPE, "application/x-protobuf");
        let answer = request.body(body).send().await;
        match answer.map(|answer| answer.status()) {
            Ok(status) if status.is_success() => Ok(()),
            Err(_)
            | Ok(
                StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT,
            ) => Err(Refusal::ForNow),
            Ok(_) => Err(Refusal::ForGood),
        }
    }
}

enum Refusal {
    ForNow,
    ForGood,
}
