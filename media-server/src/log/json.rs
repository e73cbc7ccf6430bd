//! A line of JSON: `ts level target msg`, then the event's fields, among them `trace_id span_id session_id
//! device_id shard` where it is about a session, then `pod`.
//!
//! Within a request that is traced the ids of its span are added, unless the event has some.

use crate::clock::rfc3339_millis;
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt as _;
use std::fmt::{self, Debug};
use std::time::SystemTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

pub(super) struct Json {
    pod: String,
}

impl Json {
    pub(super) fn new(pod: &str) -> Json {
        Json {
            pod: pod.to_owned(),
        }
    }
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut line = Line::default();
        line.text("ts", &rfc3339_millis(SystemTime::now()));
        line.text("level", metadata.level().as_str());
        line.text("target", metadata.target());
        event.record(&mut line);
        if !line.has_trace {
            Context::map_current(|context| {
                let span = context.span();
                let context = span.span_context();
                if context.is_valid() {
                    line.text("trace_id", &context.trace_id().to_string());
                    line.text("span_id", &context.span_id().to_string());
                }
            });
        }
        if !self.pod.is_empty() {
            line.text("pod", &self.pod);
        }
        writeln!(writer, "{{{}}}", line.json)
    }
}

/// The inside of a JSON object.
#[derive(Default)]
struct Line {
    json: String,
    has_trace: bool,
}

impl Line {
    fn text(&mut self, key: &str, value: &str) {
        self.value(key, &serde_json::Value::from(value));
    }

    /// A field of the event. One that is called like a key of every line would be a second one of it.
    fn field(&mut self, field: &Field, value: &serde_json::Value) {
        self.has_trace |= field.name() == "trace_id";
        match field.name() {
            "message" => self.value("msg", value),
            taken @ ("ts" | "level" | "target" | "msg" | "pod") => {
                self.value(&format!("field_{taken}"), value)
            }
            name => self.value(name, value),
        }
    }

    fn value(&mut self, key: &str, value: &serde_json::Value) {
        if !self.json.is_empty() {
            self.json.push(',');
        }
        self.json
            .push_str(&serde_json::Value::from(key).to_string());
        self.json.push(':');
        self.json.push_str(&value.to_string());
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.field(field, &format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field, &value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, &value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field, &value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.field(field, &value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.field(field, &value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::io;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_an_object_with_what_happened_and_the_pod_that_it_happened_in() {
        let written = Written::default();
        let writer = written.clone();
        let lines = tracing_subscriber::fmt()
            .event_format(Json::new("cam-0"))
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(lines, || {
            let device_id = "a \"b\"\n";
            tracing::warn!(device_id, shard = 3, share = 0.5, kept = true, "it is so");
        });
        let text = String::from_utf8(written.0.lock().expect("no panic").clone());
        let text = text.expect("UTF-8");
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: Value = serde_json::from_str(&text).expect("JSON");
        let ts = line["ts"].as_str().expect("a time");
        assert!(ts.ends_with('Z') && ts.len() == 24, "{ts}");
        let wanted = json!({
            "ts": ts, "level": "WARN", "target": module_path!(), "msg": "it is so", "device_id": "a \"b\"\n",
            "shard": 3, "share": 0.5, "kept": true, "pod": "cam-0",
        });
        assert_eq!(line, wanted);
    }
}
