//! Traces: a span for each request that makes or changes a session, and one from its POST to its first media.
//!
//! Off unless an address of a collector is configured; then `app.traces` is there, and nothing else of the server
//! knows whether it is. Spans of requests are made around the router (`http.rs`), which names them by their route;
//! what handlers add are attributes of the session that they found. No span is made or ended by a shard, and none
//! for a packet. `export.rs` sends them. A span's attributes never hold a token, SDP, a password or an address.

mod export;
pub mod http;

use crate::config::TraceConfig;
use crate::outbound::OutboundError;
use crate::recording::codec_name;
use crate::registry::Record;
use export::Exporter;
pub use export::{Outcome, Sender};
use media_core::negotiated::Kind;
use opentelemetry::trace::{
    Link, Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceId,
    Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{
    Sampler, SamplingResult, SdkTracer, SdkTracerProvider, ShouldSample, Span,
};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Makes spans and has them sent.
pub struct Traces {
    tracer: SdkTracer,
    share: Share,
    exporter: Exporter,
}

impl Traces {
    /// Begins to send spans to the collector. Called on the runtime that will do so.
    ///
    /// # Errors
    /// [`OutboundError`]
    pub fn start(
        config: &TraceConfig,
        sender: &Sender<'_>,
        ca_file: Option<&Path>,
    ) -> Result<Traces, OutboundError> {
        let share = Share(Arc::new(AtomicU8::new(config.sample_percent)));
        let (exporter, queue) = Exporter::start(config.endpoint.clone(), sender, ca_file)?;
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(share.clone())))
            .with_span_processor(queue)
            .build();
        Ok(Traces {
            tracer: provider.tracer("media-server"),
            share,
            exporter,
        })
    }

    /// Changes how many of a hundred traces that begin here are kept.
    pub fn set_sample_percent(&self, percent: u8) {
        self.share.0.store(percent, Relaxed);
    }

    /// Spans of kept traces that came to that end.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.exporter.count(outcome)
    }

    /// Sends what waits, within that time; nothing is sent afterwards.
    pub async fn flush(&self, within: Duration) {
        self.exporter.flush(within).await;
    }

    /// Begins the span from a session's POST to its first media, in the trace of the request at hand.
    pub fn begin_session(&self, record: &Record) {
        let since = SystemTime::now() - record.asked().elapsed();
        let span = self
            .tracer
            .span_builder("session.establish")
            .with_kind(SpanKind::Internal)
            .with_start_time(since)
            .with_attributes(attributes(record))
            .start_with_context(&self.tracer, &Context::current());
        let _ = record.trace.set(SessionTrace {
            context: span.span_context().clone(),
            establishing: Mutex::new(Some(span)),
        });
    }
}

/// The trace that a session began in.
#[derive(Debug)]
pub struct SessionTrace {
    context: SpanContext,
    /// Until its media began, or it ended.
    establishing: Mutex<Option<Span>>,
}

impl SessionTrace {
    pub fn trace_id(&self) -> TraceId {
        self.context.trace_id()
    }

    pub fn span_id(&self) -> SpanId {
        self.context.span_id()
    }

    /// Whether a collector is told of it.
    pub fn is_sampled(&self) -> bool {
        self.context.is_sampled()
    }

    /// Its first packet came, or went out.
    pub fn media_began(&self, at: Instant) {
        if let Some(mut span) = self.take() {
            span.end_with_timestamp(SystemTime::now() - at.elapsed());
        }
    }

    /// It is over. One without media is a failure, whoever ended it.
    pub fn session_ended(&self, reason: &str) {
        if let Some(mut span) = self.take() {
            span.set_status(Status::error(format!("no media before {reason}")));
            span.end();
        }
    }

    #[cfg(test)]
    pub fn is_established(&self) -> bool {
        let span = self.establishing.lock();
        span.unwrap_or_else(PoisonError::into_inner).is_none()
    }

    fn take(&self) -> Option<Span> {
        let mut span = self
            .establishing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        span.take()
    }
}

/// Says on the request's span which session it is about, and leads to the trace that the session began in: a request
/// without a `traceparent` begins one of its own.
pub fn note_session(record: &Record) {
    Context::map_current(|context| {
        let span = context.span();
        if !span.is_recording() {
            return;
        }
        span.set_attributes(attributes(record));
        let began = record.trace.get().map(|trace| &trace.context);
        if let Some(began) =
            began.filter(|began| began.trace_id() != span.span_context().trace_id())
        {
            span.add_link(began.clone(), Vec::new());
        }
    });
}

/// Says on the request's span which candidates it brings: how many, or of one what kind. Not more, because
/// they are addresses of people.
pub fn note_candidates(lines: &[String]) {
    Context::map_current(|context| {
        let span = context.span();
        if !span.is_recording() {
            return;
        }
        span.set_attribute(KeyValue::new("candidates.count", lines.len() as i64));
        if let [line] = lines {
            span.set_attribute(KeyValue::new("ice.candidate", candidate_type(line)));
        }
    });
}

/// Calls the request's span by what it turned out to be.
pub fn rename(name: &'static str) {
    Context::map_current(|context| context.span().update_name(name));
}

/// In the names of the service that this one replaces.
fn attributes(record: &Record) -> Vec<KeyValue> {
    let protocol = record.protocol.as_str();
    let mut attributes = vec![
        KeyValue::new("session.id", record.id.to_string()),
        KeyValue::new("session.type", protocol),
        KeyValue::new("device.id", record.device.to_string()),
    ];
    let older = record.older.as_ref();
    let user = older.map(|older| &older.user).or(record.subject.as_ref());
    attributes.extend(user.map(|user| KeyValue::new("user.id", user.clone())));
    let role = match protocol {
        "sfu_publisher" => Some("publisher.id"),
        "sfu_subscriber" => Some("subscriber.id"),
        _ => None,
    };
    if let (Some(role), Some(older)) = (role, older) {
        attributes.push(KeyValue::new(role, older.name.to_string()));
    }
    let video = record.codecs.iter().find(|c| c.kind() == Kind::Video);
    attributes.extend(video.map(|codec| KeyValue::new("video.codec", codec_name(codec))));
    attributes
}

/// The type of a candidate line (RFC 8839 §5.1).
fn candidate_type(line: &str) -> &'static str {
    let mut words = line.split_ascii_whitespace();
    let named = words.find(|word| *word == "typ").and(words.next());
    match named {
        Some("host") => "host",
        Some("srflx") => "srflx",
        Some("prflx") => "prflx",
        Some("relay") => "relay",
        _ => "",
    }
}

/// Keeps so many of a hundred traces, told by their ids. May change at any time.
#[derive(Debug, Clone)]
struct Share(Arc<AtomicU8>);

impl ShouldSample for Share {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let ratio = f64::from(self.0.load(Relaxed)) / 100.0;
        let sampler = Sampler::TraceIdRatioBased(ratio);
        sampler.should_sample(parent, trace_id, name, kind, attributes, links)
    }
}

#[cfg(test)]
mod tests;
