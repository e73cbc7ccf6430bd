//! Logs: JSON lines on stdout, or text for people where stdout is a terminal.
//!
//! A line about a session is written by [`of_session`], so that it has the session's ids and those of the trace
//! that it began in. What others can cause is bounded: of one kind of line no more than [`budget`] allows, the rest
//! is counted. No line holds a token, SDP, a password or a control message, at any level: libraries, whose lines
//! are not ours to write, never say more than [`floor`] lets them.

mod budget;
mod json;

use budget::Budget;
use json::Json;
use std::fmt;
use std::io::IsTerminal as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// What the level is changed by.
static LEVEL: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();
static SUPPRESSED: AtomicU64 = AtomicU64::new(0);

/// Starts logging with `filter`; a filter that can't be read means `info`. `pod` is written in each line of JSON.
pub fn start(filter: &str, pod: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let (filter, level) = reload::Layer::new(filter);
    let registry = tracing_subscriber::registry().with(filter).with(floor());
    let lines = tracing_subscriber::fmt::layer();
    let started = if std::io::stdout().is_terminal() {
        let text = Bounded::new(Format::default());
        registry.with(lines.event_format(text)).try_init()
    } else {
        let json = Bounded::new(Json::new(pod));
        registry.with(lines.event_format(json)).try_init()
    };
    // A second start, as in tests, keeps the first.
    if started.is_ok() {
        let _ = LEVEL.set(level);
    }
}

/// What is never logged, whatever the filter says: at `trace` libraries write whatever they handle, and those of
/// AMQP the broker's URL with its password.
fn floor() -> Targets {
    let ours = ["media_server", "media_core", "media_wire", "client"]
        .map(|ours| (ours, LevelFilter::TRACE));
    let amqp = ["lapin", "amq_protocol"].map(|amqp| (amqp, LevelFilter::INFO));
    Targets::new()
        .with_default(LevelFilter::DEBUG)
        .with_targets(ours)
        .with_targets(amqp)
}

/// Changes what is logged from now on.
///
/// # Errors
/// The filter can't be read; nothing has changed.
pub fn set_filter(filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
    match LEVEL.get() {
        Some(level) => level.reload(filter).map_err(|error| error.to_string()),
        None => Ok(()),
    }
}

/// Lines that were left out, because there were too many of their kind.
pub fn suppressed() -> u64 {
    SUPPRESSED.load(Relaxed)
}

/// Writes a line about a session: level, record, then as for the macros of `tracing`.
macro_rules! of_session {
    ($level:ident, $record:expr, $($line:tt)+) => {{
        let record: &$crate::registry::Record = $record;
        let trace = record.trace.get();
        tracing::$level!(
            session_id = %record.id,
            device_id = %record.device,
            shard = record.id.shard(),
            trace_id = trace.map(|trace| tracing::field::display(trace.trace_id())),
            span_id = trace.map(|trace| tracing::field::display(trace.span_id())),
            $($line)+
        );
    }};
}
pub(crate) use of_session;

/// A format whose lines are bounded by their kind.
struct Bounded<F> {
    format: F,
    budget: Budget,
}

impl<F> Bounded<F> {
    fn new(format: F) -> Bounded<F> {
        Bounded {
            format,
            budget: Budget::default(),
        }
    }
}

impl<S, N, F> FormatEvent<S, N> for Bounded<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self
            .budget
            .take(event.metadata().callsite(), Instant::now())
        {
            return self.format.format_event(context, writer, event);
        }
        SUPPRESSED.fetch_add(1, Relaxed);
        Ok(())
    }
}
