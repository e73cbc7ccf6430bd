//! The player and publisher page: its files, embedded, and the headers they are served with.
//!
//! Owns what a browser loads before it talks to the API. Holds no state, reads no file at run time and
//! asks for no token: the page is public, its requests are not. Called by the app when it builds the
//! router.

use axum::Router;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// Scripts, styles and connections from this origin only, and no inline script: text that a device or
/// a problem body brings in can never run.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; worker-src 'self'; \
     style-src 'self'; connect-src 'self'; img-src 'self' data:; media-src 'self' blob: mediastream:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page may ask for what it publishes, and nothing that it embeds may.
const PERMISSIONS_POLICY: &str = "camera=(self), microphone=(self), display-capture=(self), \
     autoplay=(self), fullscreen=(self), geolocation=(), usb=(), serial=()";

struct Page {
    path: &'static str,
    content_type: &'static str,
    body: &'static str,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

const PAGES: &[Page] = &[
    Page {
        path: "/",
        content_type: "text/html; charset=utf-8",
        body: include_str!("pages/index.html"),
    },
    Page {
        path: "/app.js",
        content_type: SCRIPT,
        body: include_str!("pages/app.js"),
    },
    Page {
        path: "/session.js",
        content_type: SCRIPT,
        body: include_str!("pages/session.js"),
    },
    Page {
        path: "/figures.js",
        content_type: SCRIPT,
        body: include_str!("pages/figures.js"),
    },
    Page {
        path: "/testpicture.js",
        content_type: SCRIPT,
        body: include_str!("pages/testpicture.js"),
    },
    Page {
        path: "/ticker.js",
        content_type: SCRIPT,
        body: include_str!("pages/ticker.js"),
    },
    Page {
        path: "/style.css",
        content_type: "text/css; charset=utf-8",
        body: include_str!("pages/style.css"),
    },
    Page {
        path: "/favicon.svg",
        content_type: "image/svg+xml",
        body: include_str!("pages/favicon.svg"),
    },
];

/// Routes of the page and of every file it loads, for `GET` and `HEAD`.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    PAGES.iter().fold(Router::new(), |router, page| {
        let etag = etag(page.body);
        router.route(
            page.path,
            get(async move |headers: HeaderMap| serve(page, &etag, &headers)),
        )
    })
}

/// A strong validator over the bytes (RFC 9110 §8.8.3): the files change with the program only.
fn etag(body: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body.as_bytes());
    let hex: String = digest.as_ref()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("\"{hex}\"")
}

fn serve(page: &Page, etag: &str, request: &HeaderMap) -> Response {
    let unchanged = request
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| {
            value
                .split(',')
                .any(|tag| tag.trim().trim_start_matches("W/") == etag)
        });
    let headers: [(HeaderName, &str); 7] = [
        (header::CONTENT_TYPE, page.content_type),
        // Asked again each time, answered 304: a browser never mixes files of two versions for long.
        (header::CACHE_CONTROL, "no-cache"),
        (header::ETAG, etag),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("permissions-policy"),
            PERMISSIONS_POLICY,
        ),
    ];
    if unchanged {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, page.body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    async fn fetch(request: Request<Body>) -> Response {
        router::<()>()
            .with_state(())
            .oneshot(request)
            .await
            .expect("a router never fails")
    }

    #[tokio::test]
    async fn every_file_the_page_names_is_served_with_its_type_and_the_policy() {
        for page in PAGES {
            let response = fetch(Request::get(page.path).body(Body::empty()).unwrap()).await;
            assert_eq!(response.status(), StatusCode::OK, "{}", page.path);
            assert_eq!(response.headers()[header::CONTENT_TYPE], page.content_type);
            assert_eq!(
                response.headers()[header::CONTENT_SECURITY_POLICY],
                CONTENT_SECURITY_POLICY
            );
            let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
            assert_eq!(body, page.body.as_bytes());
        }
        for page in PAGES {
            // `from "./x.js"`, `new URL("x.js"`, `href="x"`, `src="x"` of our own files.
            for quoted in page.body.split('"').skip(1).step_by(2) {
                let name = quoted.trim_start_matches("./");
                let ours = [".js", ".css", ".svg"]
                    .iter()
                    .any(|end| name.ends_with(end));
                if ours && !name.contains([' ', '/']) {
                    let path = format!("/{name}");
                    assert!(
                        PAGES.iter().any(|p| p.path == path),
                        "{} names {path}",
                        page.path
                    );
                }
            }
        }
    }

    #[tokio::test]
    async fn the_page_has_no_inline_script_or_style_that_its_policy_would_stop() {
        let html = PAGES[0].body;
        assert!(!html.contains("<style"), "inline style");
        assert!(!html.contains(" style="), "style attribute");
        for tag in html.split('<').filter_map(|rest| rest.split('>').next()) {
            assert!(!tag.contains(" on"), "event handler attribute in <{tag}>");
        }
        assert_eq!(
            html.matches("<script").count(),
            html.matches("<script type=\"module\" src=").count()
        );
        assert!(
            !PAGES.iter().any(|page| page.body.contains("https://")),
            "an external resource"
        );
    }

    #[tokio::test]
    async fn a_browser_that_has_the_file_gets_304_without_a_body() {
        let first = fetch(Request::get("/app.js").body(Body::empty()).unwrap()).await;
        let etag = first.headers()[header::ETAG].clone();
        let again = Request::get("/app.js")
            .header(header::IF_NONE_MATCH, &etag)
            .body(Body::empty())
            .unwrap();
        let again = fetch(again).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(again.headers()[header::ETAG], etag);
        assert!(to_bytes(again.into_body(), 1024).await.unwrap().is_empty());
        let other = Request::get("/app.js")
            .header(header::IF_NONE_MATCH, "\"0\"")
            .body(Body::empty())
            .unwrap();
        assert_eq!(fetch(other).await.status(), StatusCode::OK);
    }
}
