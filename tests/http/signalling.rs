//! Rows of the WHIP and WHEP checklist that need no media, and every kind of bad input.

use crate::requests::*;
use reqwest::{Client, Method};
use serde_json::Value;
use tests::{MediaServer, wait_for};

#[tokio::test]
async fn a_publisher_gets_an_answer_a_location_and_an_etag() {
    let server = MediaServer::open(&[]).await;
    let response = post(&server, "/whip/cam-1", PUBLISH).await;
    assert_eq!(response.status(), 201);
    assert_eq!(header(&response, "content-type"), SDP);
    let path = location(&response);
    assert!(path.starts_with("/whip/cam-1/"), "{path}");
    let etag = header(&response, "etag");
    assert!(
        etag.len() == 18 && etag.starts_with('"'),
        "a strong one: {etag}"
    );
    let answer = response.text().await.expect("SDP");
    let ufrag = etag.trim_matches('"');
    assert!(
        answer.contains(&format!("a=ice-ufrag:{ufrag}\r\n")),
        "{answer}"
    );
    let media = server.media;
    let candidate = format!(" {} {} typ host\r\n", media.ip(), media.port());
    for line in [
        "a=recvonly\r\n",
        "a=setup:passive\r\n",
        "a=end-of-candidates\r\n",
        &candidate,
    ] {
        assert!(answer.contains(line), "{line:?} not in {answer}");
    }
}

#[tokio::test]
async fn each_kind_of_wrong_post_is_told_apart_and_says_why() {
    let server = MediaServer::open(&[]).await;
    for path in ["/whip/cam-1", "/whep/cam-1"] {
        let typed = request(&server, Method::POST, path, "text/plain", "v=0");
        problem(send(typed).await, 415, "application/sdp").await;
        let untyped = Client::new().post(server.url(path)).body("v=0");
        problem(send(untyped).await, 415, "application/sdp").await;
        problem(post(&server, path, "hello").await, 400, "v=0").await;
        problem(post(&server, path, "").await, 400, "v=0").await;
        problem(
            post(&server, path, &"x".repeat(64 * 1024 + 1)).await,
            413,
            "64 KiB",
        )
        .await;
    }
    problem(post(&server, "/whip/cam%201", PUBLISH).await, 400, "A-Z").await;
    problem(
        post(&server, &format!("/whip/{}", "x".repeat(129)), PUBLISH).await,
        400,
        "128",
    )
    .await;
    let unencrypted = PUBLISH.replace("a=fingerprint", "a=nothing");
    problem(
        post(&server, "/whip/cam-1", &unencrypted).await,
        400,
        "a=fingerprint",
    )
    .await;
    let twice = PUBLISH.replace("m=audio", "m=video");
    problem(
        post(&server, "/whip/cam-1", &twice).await,
        422,
        "more than one video",
    )
    .await;
    problem(post(&server, "/whip/cam-1", VIEW).await, 422, "sendonly").await;
    problem(get(&server, "/nothing").await, 404, "/nothing").await;
    let put = request(&server, Method::PUT, "/whip/cam-1", SDP, "");
    problem(send(put).await, 405, "OPTIONS").await;
    let metrics = server.metrics().await;
    assert_eq!(metrics.value("media_active_sessions", &[]), Some(0.0));
    let errors = [("type", "media_type"), ("operation", "whip_create")];
    assert_eq!(metrics.value("media_errors_total", &errors), Some(2.0));
}

#[tokio::test]
async fn without_a_live_publisher_a_viewer_is_told_when_to_come_back() {
    let server = MediaServer::open(&[]).await;
    let response = post(&server, "/whep/cam-1", VIEW).await;
    assert_eq!(header(&response, "retry-after"), "2");
    problem(response, 409, "no live publisher").await;
    // Admitted, but without media yet.
    open(&server, "/whip/cam-1", PUBLISH).await;
    problem(
        post(&server, "/whep/cam-1", VIEW).await,
        409,
        "no live publisher",
    )
    .await;
}

#[tokio::test]
async fn endpoints_and_resources_answer_get_head_and_options() {
    let server = MediaServer::open(&[]).await;
    let path = open(&server, "/whip/cam-1", PUBLISH).await;
    for path in ["/whip/cam-1", "/whep/cam-1", &path] {
        let response = get(&server, path).await;
        assert_eq!(response.status(), 204, "{path}");
        assert!(response.bytes().await.expect("a body").is_empty());
    }
    let head = send(Client::new().head(server.url("/whep/cam-1"))).await;
    assert_eq!(
        (head.status().as_u16(), header(&head, "content-type")),
        (200, SDP.to_owned())
    );
    for path in ["/whip/cam-1", "/whep/cam-1"] {
        let options = request(&server, Method::OPTIONS, path, SDP, "");
        let response = send(options).await;
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "accept-post"), SDP);
    }
}

#[tokio::test]
async fn trickled_candidates_are_taken_and_counted_up_to_their_bound() {
    let server = MediaServer::open(&[]).await;
    let response = post(&server, "/whip/cam-1", PUBLISH).await;
    let (path, etag) = (location(&response), header(&response, "etag"));
    let patch = |body: String, kind: &'static str, tag: &str| {
        request(&server, Method::PATCH, &path, kind, body).header("if-match", tag)
    };
    let candidate = "a=candidate:1 1 udp 2122260223 192.0.2.1 50632 typ host\r\n";
    let good = format!("{CREDENTIALS}m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n{candidate}");
    let response = send(patch(good.clone(), FRAGMENT, &etag)).await;
    assert_eq!(response.status(), 204);
    assert!(response.headers().get("etag").is_none());
    let session = path.rsplit('/').next().expect("an id").to_owned();
    let added = async || {
        server.metrics().await.value(
            "media_ice_candidates_added_total",
            &[("session_id", &session)],
        )
    };
    assert_eq!(added().await, Some(7.0), "six of the offer and one more");
    let many = format!("{CREDENTIALS}{}", candidate.repeat(60));
    assert_eq!(send(patch(many, FRAGMENT, "*")).await.status(), 204);
    assert_eq!(added().await, Some(50.0));
    let beyond = [("bound", "candidates")];
    let metrics = server.metrics().await;
    let beyond = metrics.value("media_bound_hits_total", &beyond);
    assert_eq!(beyond, Some(17.0), "60 and 7, less 50");
    problem(send(patch(good.clone(), SDP, &etag)).await, 415, FRAGMENT).await;
    problem(
        send(patch("hello".to_owned(), FRAGMENT, &etag)).await,
        400,
        "fragment",
    )
    .await;
    problem(
        send(patch(good.clone(), FRAGMENT, "\"old\"")).await,
        412,
        &etag,
    )
    .await;
    let bare = request(&server, Method::PATCH, &path, FRAGMENT, good.clone());
    problem(send(bare).await, 428, "If-Match").await;
}

#[tokio::test]
async fn a_wrong_type_is_answered_with_the_right_one() {
    let server = MediaServer::open(&[]).await;
    let path = open(&server, "/whip/cam-1", PUBLISH).await;
    let posted = send(request(&server, Method::POST, "/whip/cam-1", FRAGMENT, "")).await;
    assert_eq!(
        (posted.status().as_u16(), header(&posted, "accept-post")),
        (415, SDP.to_owned())
    );
    let patched = send(request(&server, Method::PATCH, &path, SDP, "")).await;
    assert_eq!(
        (patched.status().as_u16(), header(&patched, "accept-patch")),
        (415, FRAGMENT.to_owned())
    );
}

#[tokio::test]
async fn a_session_ends_by_delete_once_whatever_the_etag_says() {
    let server = MediaServer::open(&[]).await;
    let path = open(&server, "/whip/cam-1", PUBLISH).await;
    let delete =
        || request(&server, Method::DELETE, &path, SDP, "").header("if-match", "\"stale\"");
    assert_eq!(send(delete()).await.status(), 200);
    problem(send(delete()).await, 404, "no such session").await;
    problem(get(&server, &path).await, 404, "no such session").await;
    wait_for("the session to be counted as closed", PATIENCE, || async {
        let metrics = server.metrics().await;
        let labels = [("device_id", "cam-1"), ("reason", "normal_close")];
        let closed = metrics.value("media_sessions_closed_total", &labels);
        let open = metrics.value("media_active_sessions", &[]);
        if (closed, open) == (Some(1.0), Some(0.0)) {
            Ok(())
        } else {
            Err(format!("closed {closed:?}, open {open:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn a_session_is_found_only_under_its_own_protocol_and_device() {
    let server = MediaServer::open(&[]).await;
    let path = open(&server, "/whip/cam-1", PUBLISH).await;
    for wrong in [
        path.replace("/whip/", "/whep/"),
        path.replace("cam-1", "cam-2"),
        format!("{path}0"),
        "/whip/cam-1/00000000-0000-8000-8000-000000000000".to_owned(),
        "/whip/cam-1/nonsense".to_owned(),
    ] {
        let response = send(request(&server, Method::DELETE, &wrong, SDP, "")).await;
        problem(response, 404, "no such session").await;
    }
    assert_eq!(get(&server, &path).await.status(), 204);
}

#[tokio::test]
async fn a_device_that_publishes_again_supersedes_its_session() {
    let server = MediaServer::open(&[]).await;
    let first = open(&server, "/whip/cam-1", PUBLISH).await;
    let second = open(&server, "/whip/cam-1", PUBLISH).await;
    problem(get(&server, &first).await, 404, "no such session").await;
    assert_eq!(get(&server, &second).await.status(), 204);
    wait_for("the first to be closed", PATIENCE, || async {
        let labels = [("device_id", "cam-1"), ("reason", "superseded")];
        let closed = server
            .metrics()
            .await
            .value("media_sessions_closed_total", &labels);
        if closed == Some(1.0) {
            Ok(())
        } else {
            Err(format!("{closed:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn a_full_server_answers_503_and_when_to_come_back() {
    let server = MediaServer::open(&["--sessions-per-pod", "1"]).await;
    let path = open(&server, "/whip/cam-1", PUBLISH).await;
    let response = post(&server, "/whip/cam-2", PUBLISH).await;
    assert_eq!(header(&response, "retry-after"), "2");
    problem(response, 503, "limit").await;
    send(request(&server, Method::DELETE, &path, SDP, "")).await;
    wait_for("room for another session", PATIENCE, || async {
        let response = post(&server, "/whip/cam-2", PUBLISH).await;
        if response.status() == 201 {
            Ok(())
        } else {
            Err(response.status())
        }
    })
    .await;
    let refused = [
        ("role", "publisher"),
        ("protocol", "whip"),
        ("result", "refused"),
    ];
    let metrics = server.metrics().await;
    assert!(metrics.value("media_setup_total", &refused) >= Some(1.0));
}

#[tokio::test]
async fn a_device_with_all_its_viewers_answers_503() {
    let server = MediaServer::open(&["--viewers-per-device", "1"]).await;
    let publisher = publisher(&server, "cam-1").await;
    let path = open(&server, "/whep/cam-1", VIEW).await;
    assert!(path.starts_with("/whep/cam-1/"), "{path}");
    problem(post(&server, "/whep/cam-1", VIEW).await, 503, "viewers").await;
    let body: Value = get(&server, "/api/v1/devices")
        .await
        .json()
        .await
        .expect("JSON");
    assert_eq!(body["devices"][0]["viewers"], 1, "{body}");
    let body: Value = get(&server, "/api/v1/sessions")
        .await
        .json()
        .await
        .expect("JSON");
    let roles: Vec<&Value> = body["sessions"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|session| &session["role"])
        .collect();
    assert_eq!(roles, ["publisher", "viewer"], "{body}");
    let id = body["sessions"][1]["id"].as_str().expect("an id");
    let one: Value = get(&server, &format!("/api/v1/sessions/{id}"))
        .await
        .json()
        .await
        .expect("JSON");
    assert_eq!(
        (&one["iceState"], &one["connected"]),
        (&"new".into(), &false.into()),
        "{one}"
    );
    problem(
        get(&server, "/api/v1/sessions/x").await,
        404,
        "no such session",
    )
    .await;
    publisher.close().await.expect("closes");
}

#[tokio::test]
async fn pages_of_other_origins_may_call_only_when_they_are_named() {
    let origin = "https://app.example.com";
    let server = MediaServer::open(&["--cors-origin", origin]).await;
    let preflight = |from: &str| {
        request(&server, Method::OPTIONS, "/whip/cam-1", SDP, "")
            .header("origin", from)
            .header("access-control-request-method", "POST")
    };
    let response = send(preflight(origin)).await;
    assert!(response.status().is_success());
    assert_eq!(header(&response, "access-control-allow-origin"), origin);
    assert!(header(&response, "access-control-allow-methods").contains("PATCH"));
    let allowed = header(&response, "access-control-allow-headers");
    for name in ["Authorization", "traceparent", "tracestate"] {
        assert!(allowed.contains(name), "{allowed}");
    }
    let posted =
        request(&server, Method::POST, "/whip/cam-1", SDP, PUBLISH).header("origin", origin);
    let exposed = header(&send(posted).await, "access-control-expose-headers");
    for name in ["Location", "ETag", "Link"] {
        assert!(exposed.contains(name), "{name} not in {exposed}");
    }
    let stranger = send(preflight("https://evil.example.com")).await;
    assert!(
        stranger
            .headers()
            .get("access-control-allow-origin")
            .is_none()
    );
    let api = request(&server, Method::OPTIONS, "/api/v1/devices", SDP, "")
        .header("origin", origin)
        .header("access-control-request-method", "GET");
    assert!(send(api).await.status().is_success());
}
