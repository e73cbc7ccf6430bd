//! A span for each request that makes or changes a session, around the router; no handler knows of it. Messages of
//! WebSockets that do so have the same spans, which `api/media/ws/dialect.rs` begins.
//!
//! The client's `traceparent` (W3C Trace Context) makes the span a part of its trace. `tracestate` is not kept:
//! nobody is called who would want it back.

use super::Traces;
use crate::api::error::ErrorKind;
use crate::app::App;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{FutureExt as _, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use std::sync::Arc;

/// Runs the request within its span, if it is one that has one.
pub async fn follow(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Some(traces) = &app.traces else {
        return next.run(request).await;
    };
    let path = request.extensions().get::<MatchedPath>().cloned();
    let named = path
        .as_ref()
        .and_then(|path| named(request.method(), path.as_str()));
    let (Some(path), Some((name, sdp))) = (path, named) else {
        return next.run(request).await;
    };
    let parent = parent(request.headers());
    let context = traces.begin(name, &parent, sdp);
    context.span().set_attributes([
        KeyValue::new("http.request.method", request.method().to_string()),
        KeyValue::new("http.route", path.as_str().to_owned()),
    ]);
    let response = next.run(request).with_context(context.clone()).await;
    let (span, status) = (context.span(), response.status());
    span.set_attribute(KeyValue::new(
        "http.response.status_code",
        i64::from(status.as_u16()),
    ));
    if let Some(error) = response.extensions().get::<ErrorKind>() {
        span.set_attribute(KeyValue::new("error.type", error.kind));
    }
    if status.is_server_error() {
        span.set_status(Status::error(""));
    }
    // A task that opens the session may hold the context for longer.
    span.end();
    response
}

impl Traces {
    /// Begins the span of what a client asks for, in its trace if it has one.
    pub fn begin(
        &self,
        name: &'static str,
        parent: &Context,
        sdp: Option<&'static str>,
    ) -> Context {
        let span = self
            .tracer
            .span_builder(name)
            .with_kind(SpanKind::Server)
            .with_attributes(sdp.map(|sdp| KeyValue::new("sdp.type", sdp)))
            .start_with_context(&self.tracer, parent);
        parent.with_span(span)
    }
}

/// The client's span, if the headers name one.
pub fn parent(headers: &HeaderMap) -> Context {
    let value = headers.get("traceparent");
    parent_of(value.and_then(|value| value.to_str().ok()))
}

/// The span that a `traceparent` names.
pub fn parent_of(traceparent: Option<&str>) -> Context {
    let extractor = Parent(traceparent);
    TraceContextPropagator::new().extract_with_context(&Context::new(), &extractor)
}

/// The one header that is taken.
struct Parent<'a>(Option<&'a str>);

impl Extractor for Parent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.filter(|_| key == "traceparent")
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}

/// What the span of a route is called, and the type of the SDP that its requests bring. The names below
/// `webrtc` and `sfu` are those of the service that this one replaces.
pub(crate) fn named(method: &Method, path: &str) -> Option<(&'static str, Option<&'static str>)> {
    let (offer, answer) = (Some("offer"), Some("answer"));
    let named = match (method.as_str(), path) {
        ("POST", "/whip/{device}") => ("whip.create", offer),
        ("POST", "/whep/{device}") => ("whep.create", offer),
        // An ICE restart says so itself.
        ("PATCH", "/whip/{device}/{session}" | "/whep/{device}/{session}") => {
            ("webrtc.add_ice_candidate", None)
        }
        ("DELETE", "/whip/{device}/{session}" | "/whep/{device}/{session}") => {
            ("session.delete", None)
        }
        ("DELETE", path) if path.starts_with("/api/media/s") => ("session.delete", None),
        ("POST" | "DELETE", "/whep/{device}/{session}/layer") => ("layer.select", None),
        ("POST", "/api/media/recordings") => ("recording.start", None),
        ("POST", "/api/media/recordings/{id}/stop") => ("recording.stop", None),
        ("GET", "/api/media/turn-credentials") => ("webrtc.get_turn_credentials", None),
        ("POST", path) => match path.strip_prefix("/api/media/")? {
            "sessions" => ("webrtc.create_session", None),
            "sessions/answer" => ("webrtc.set_answer", answer),
            "sessions/ice-candidate" => ("webrtc.add_ice_candidate", None),
            "sessions/ice-candidates" => ("webrtc.add_ice_candidates_batch", None),
            "sfu/publishers" => ("sfu.create_publisher", None),
            "sfu/publishers/answer" => ("sfu.set_publisher_answer", answer),
            "sfu/publishers/ice-candidate" => ("sfu.add_publisher_ice_candidate", None),
            "sfu/subscribers" => ("sfu.create_subscriber", None),
            "sfu/subscribers/by-device" => ("sfu.create_subscriber_by_device", None),
            "sfu/subscribers/answer" => ("sfu.set_subscriber_answer", answer),
            "sfu/subscribers/ice-candidate" => ("sfu.add_subscriber_ice_candidate", None),
            _ => return None,
        },
        _ => return None,
    };
    Some(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_the_older_api_have_the_span_names_of_the_service_that_is_replaced() {
        for (path, name, sdp) in [
            ("sessions", "webrtc.create_session", None),
            ("sessions/answer", "webrtc.set_answer", Some("answer")),
            ("sessions/ice-candidate", "webrtc.add_ice_candidate", None),
            (
                "sessions/ice-candidates",
                "webrtc.add_ice_candidates_batch",
                None,
            ),
            ("sfu/publishers", "sfu.create_publisher", None),
            (
                "sfu/publishers/answer",
                "sfu.set_publisher_answer",
                Some("answer"),
            ),
            (
                "sfu/publishers/ice-candidate",
                "sfu.add_publisher_ice_candidate",
                None,
            ),
            ("sfu/subscribers", "sfu.create_subscriber", None),
            (
                "sfu/subscribers/by-device",
                "sfu.create_subscriber_by_device",
                None,
            ),
            (
                "sfu/subscribers/answer",
                "sfu.set_subscriber_answer",
                Some("answer"),
            ),
            (
                "sfu/subscribers/ice-candidate",
                "sfu.add_subscriber_ice_candidate",
                None,
            ),
        ] {
            let path = format!("/api/media/{path}");
            assert_eq!(named(&Method::POST, &path), Some((name, sdp)), "{path}");
            assert_eq!(named(&Method::GET, &path), None, "it changes nothing");
        }
        let turn = named(&Method::GET, "/api/media/turn-credentials");
        assert_eq!(turn, Some(("webrtc.get_turn_credentials", None)));
    }
}
