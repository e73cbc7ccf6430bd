//! Counts every request to the API server, by verb and answer.
//!
//! A layer around the client's own: what passes here is what the operator asked for, before the client
//! tries again. Changes nothing of a request or an answer. Made by `main`.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::http::{Method, Request, Response, Uri};
use kube::client::Body;
use tower::{Layer, Service};

use crate::metrics::Metrics;

#[derive(Clone)]
pub struct CountRequests(pub Metrics);

impl<S> Layer<S> for CountRequests {
    type Service = Counting<S>;

    fn layer(&self, inner: S) -> Counting<S> {
        Counting {
            inner,
            metrics: self.0.clone(),
        }
    }
}

#[derive(Clone)]
pub struct Counting<S> {
    inner: S,
    metrics: Metrics,
}

impl<S, B> Service<Request<Body>> for Counting<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let target = Target::of(request.method(), request.uri());
        let answer = self.inner.call(request);
        let metrics = self.metrics.clone();
        Box::pin(async move {
            let answer = answer.await;
            let code = answer.as_ref().ok().map(|answer| answer.status().as_u16());
            metrics.requested(target.verb, code);
            if target.is_media_services {
                match code {
                    Some(200..300) => metrics.crd(true),
                    Some(404) => metrics.crd(false),
                    // Anything else says nothing about it.
                    _ => {}
                }
            }
            answer
        })
    }
}

/// What a request is about, as the API server's authorization sees it.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    verb: &'static str,
    /// A list or watch of MediaServices: that the definition is not there is its only reason for a 404.
    is_media_services: bool,
}

impl Target {
    fn of(method: &Method, uri: &Uri) -> Self {
        let path: Vec<&str> = uri
            .path()
            .split('/')
            .filter(|part| !part.is_empty())
            .collect();
        // /api/v1/… or /apis/GROUP/VERSION/…; then namespaces/NAME/…, where the resource is in one.
        let resource = match path.as_slice() {
            ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
            _ => &[],
        };
        let resource = match resource {
            ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
            other => other,
        };
        let named = resource.len() > 1;
        let watched = uri
            .query()
            .is_some_and(|query| query.split('&').any(|part| part == "watch=true"));
        let verb = match *method {
            Method::GET if watched => "watch",
            Method::GET if resource.is_empty() || named => "get",
            Method::GET => "list",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if named => "delete",
            Method::DELETE => "deletecollection",
            _ => "other",
        };
        Self {
            verb,
            is_media_services: path.get(1) == Some(&"mediaservice.io")
                && matches!(verb, "list" | "watch"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::MediaService;
    use crate::testing::failure_body;
    use axum::http::StatusCode;
    use axum::routing::any;
    use axum::{Json, Router};
    use kube::Client;
    use kube::api::{Api, ListParams, WatchParams};
    use serde_json::{Value, json};

    #[test]
    fn verbs_are_those_of_rbac() {
        for (method, uri, verb) in [
            (Method::GET, "/version", "get"),
            (Method::GET, "/apis/monitoring.coreos.com/v1", "get"),
            (Method::GET, "/api/v1/pods?labelSelector=a", "list"),
            (
                Method::GET,
                "/api/v1/namespaces/media/pods?limit=500",
                "list",
            ),
            (Method::GET, "/api/v1/namespaces/media", "get"),
            (Method::GET, "/api/v1/namespaces/media/services/cam", "get"),
            (
                Method::GET,
                "/api/v1/nodes?&watch=true&timeoutSeconds=290",
                "watch",
            ),
            (Method::POST, "/api/v1/namespaces/media/secrets?", "create"),
            (
                Method::PATCH,
                "/apis/apps/v1/namespaces/media/statefulsets/cam?force=true",
                "patch",
            ),
            (
                Method::PUT,
                "/apis/coordination.k8s.io/v1/namespaces/ops/leases/mediaservice-operator",
                "update",
            ),
            (
                Method::DELETE,
                "/api/v1/namespaces/media/pods/cam-0",
                "delete",
            ),
            (
                Method::DELETE,
                "/api/v1/namespaces/media/pods",
                "deletecollection",
            ),
        ] {
            let target = Target::of(&method, &uri.parse().unwrap());
            assert_eq!(target.verb, verb, "{method} {uri}");
            assert!(!target.is_media_services, "{uri}");
        }
        for uri in [
            "/apis/mediaservice.io/v1alpha1/mediaservices?&limit=500",
            "/apis/mediaservice.io/v1alpha1/namespaces/media/mediaservices?watch=true",
        ] {
            assert!(
                Target::of(&Method::GET, &uri.parse().unwrap()).is_media_services,
                "{uri}"
            );
        }
        let status = "/apis/mediaservice.io/v1alpha1/namespaces/media/mediaservices/cam/status";
        assert!(!Target::of(&Method::PATCH, &status.parse().unwrap()).is_media_services);
    }

    #[tokio::test]
    async fn answers_are_counted_and_a_missing_definition_shows_until_it_is_there() {
        let metrics = Metrics::new();
        let lines = |wanted: &[&str]| {
            let text = String::from_utf8(metrics.render()).unwrap();
            for line in wanted {
                assert!(
                    text.lines().any(|found| found == *line),
                    "{line} is not in\n{text}"
                );
            }
        };
        let list = json!({"kind": "MediaServiceList", "apiVersion": "mediaservice.io/v1alpha1", "metadata": {}, "items": []});
        let counted = |code: u16, body: Value| {
            let answer = move || async move { (StatusCode::from_u16(code).unwrap(), Json(body)) };
            let server = Router::new().fallback(any(answer));
            Client::new(CountRequests(metrics.clone()).layer(server), "default")
        };
        let missing: Api<MediaService> = Api::all(counted(404, failure_body(404)));
        missing.list(&ListParams::default()).await.expect_err("404");
        drop(missing.watch(&WatchParams::default(), "0").await);
        lines(&[
            "mediaservice_operator_crd_missing 1",
            "mediaservice_operator_api_requests_total{code=\"404\",verb=\"list\"} 1",
            "mediaservice_operator_api_requests_total{code=\"404\",verb=\"watch\"} 1",
        ]);
        let unclear: Api<MediaService> = Api::all(counted(503, failure_body(503)));
        unclear.list(&ListParams::default()).await.expect_err("503");
        lines(&["mediaservice_operator_crd_missing 1"]);
        let there: Api<MediaService> = Api::all(counted(200, list));
        there.list(&ListParams::default()).await.expect("a list");
        lines(&[
            "mediaservice_operator_crd_missing 0",
            "mediaservice_operator_api_requests_total{code=\"200\",verb=\"list\"} 1",
        ]);
    }
}
