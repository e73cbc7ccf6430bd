//! A collector of traces: takes OTLP over HTTP as the protocol says (protobuf), and keeps every span.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Refuses connections once it is dropped.
pub struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    serving: JoinHandle<()>,
}

/// A span as it came, with the attributes as text.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub name: String,
    pub trace_id: String,
    pub span_id: String,
    /// Empty: it begins its trace.
    pub parent: String,
    pub start_nanos: u64,
    pub end_nanos: u64,
    /// Of its status, if that is an error.
    pub error: Option<String>,
    pub attributes: BTreeMap<String, String>,
    /// Traces that it leads to.
    pub links: Vec<String>,
    /// Of who sent it.
    pub resource: BTreeMap<String, String>,
}

impl Collector {
    /// Takes all that comes.
    ///
    /// # Panics
    /// If there is no loopback address.
    pub async fn start() -> Self {
        Self::serve(true).await
    }

    /// Takes connections, and never answers on them.
    ///
    /// # Panics
    /// If there is no loopback address.
    pub async fn silent() -> Self {
        Self::serve(false).await
    }

    async fn serve(answers: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("an address");
        let spans = Arc::new(Mutex::new(Vec::new()));
        let kept = spans.clone();
        let serving = tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                match answers {
                    true => drop(tokio::spawn(take(stream, kept.clone()))),
                    false => held.push(stream),
                }
            }
        });
        Self {
            address,
            spans,
            serving,
        }
    }

    /// What a server is given as `--otlp-endpoint`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What came until now.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().expect("no panic").clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The requests of one connection; ends with the first that is not as the protocol says.
async fn take(mut stream: TcpStream, spans: Arc<Mutex<Vec<Span>>>) -> Option<()> {
    let mut bytes = Vec::new();
    loop {
        let head = loop {
            if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                break at;
            }
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        };
        let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
        assert!(text.starts_with("post /v1/traces http/1.1\r\n"), "{text}");
        assert!(
            text.contains("content-type: application/x-protobuf"),
            "{text}"
        );
        let length = text.split("content-length: ").nth(1)?.lines().next()?;
        let end = head + 4 + length.trim().parse::<usize>().ok()?;
        while bytes.len() < end {
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        }
        let request = ExportTraceServiceRequest::decode(&bytes[head + 4..end]);
        let request = request.expect("an ExportTraceServiceRequest");
        bytes.drain(..end);
        spans.lock().expect("no panic").extend(read(request));
        // An ExportTraceServiceResponse without anything in it has no bytes.
        let answer =
            "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
}

fn read(request: ExportTraceServiceRequest) -> Vec<Span> {
    let mut found = Vec::new();
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.unwrap_or_default();
        let resource = texts(&resource.attributes);
        for span in of_resource.scope_spans.into_iter().flat_map(|s| s.spans) {
            let error = span.status.filter(|status| status.code == 2);
            found.push(Span {
                trace_id: hex(&span.trace_id),
                span_id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                start_nanos: span.start_time_unix_nano,
                end_nanos: span.end_time_unix_nano,
                error: error.map(|status| status.message),
                attributes: texts(&span.attributes),
                links: span.links.iter().map(|link| hex(&link.trace_id)).collect(),
                resource: resource.clone(),
                name: span.name,
            });
        }
    }
    found
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|v| v.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    let pair = |attribute: &KeyValue| (attribute.key.clone(), text(&attribute.value));
    attributes.iter().map(pair).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
