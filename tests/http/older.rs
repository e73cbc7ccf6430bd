//! `/api/media` row by row: each call and each error of the service before.

use crate::requests::*;
use crate::table::*;
use reqwest::Method;
use serde_json::{Value, json};
use tests::process::TempDir;
use tests::{MediaServer, wait_for};

#[tokio::test]
async fn every_call_to_sessions_is_answered_as_the_service_before_did() {
    let server = MediaServer::open(&[]).await;
    let mut table = Table::new(&server, None);
    let sessions = ("POST", "/api/media/sessions");
    let answers = ("POST", "/api/media/sessions/answer");
    let candidate = ("POST", "/api/media/sessions/ice-candidate");
    let candidates = ("POST", "/api/media/sessions/ice-candidates");
    let one = json!({"candidate": CANDIDATE, "sdpMid": "0", "sdpMLineIndex": 0, "usernameFragment": null});
    let created = json!({
        "sessionId": "*", "offer": {"type": "offer", "sdp": "v=0*"},
        "iceServers": [],
    });
    let session = |state: &str| {
        json!({
            "sessionId": "{session}", "deviceId": "cam-1", "userId": "ann",
            "state": state, "createdAt": "20*", "lastActive": "20*",
        })
    };
    let no_device = required("CreateSessionRequest", "DeviceID");
    let no_user = required("CreateSessionRequest", "UserID");
    table
        .run(vec![
            row("no sessions yet", ("GET", "/api/media/sessions"), "", 200, json!({"sessions": [], "total": 0})),
            row("create: no body", sessions, "", 400, error("EOF")),
            row("create: half a body", sessions, "{\"deviceId\":", 400, error("unexpected EOF")),
            row("create: no JSON", sessions, "hello", 400, error("invalid character 'h' looking for beginning of value")),
            row("create: too long", sessions, "x".repeat(64 * 1024 + 1), 413, error("the body is larger than 64 KiB")),
            row("create: an array", sessions, "[]", 400, error("json: cannot unmarshal array into Go value of type handlers.CreateSessionRequest")),
            row("create: no device", sessions, json!({"userId": "ann"}), 400, error(&no_device)),
            row("create: no user", sessions, json!({"deviceId": "cam-1"}), 400, error(&no_user)),
            row("create: neither", sessions, "{}", 400, error(&format!("{no_device}\n{no_user}"))),
            row("create: a number", sessions, json!({"deviceId": 1, "userId": "ann"}), 400, error("json: cannot unmarshal number into Go struct field CreateSessionRequest.deviceId of type string")),
            row("create: no device's name", sessions, json!({"deviceId": "../x", "userId": "ann"}), 400, error("a device is named by*")),
            row("create, with a field that is not known", sessions, json!({"deviceId": "cam-1", "userId": "ann", "x": 1}), 200, created.clone())
                .keep(&[("session", "/sessionId"), ("offer", "/offer/sdp")]),
            row("get", ("GET", "/api/media/sessions/{session}"), "", 200, session("connecting")),
            row("list", ("GET", "/api/media/sessions"), "", 200, json!({"sessions": [session("connecting")], "total": 1})),
            row("stats", ("GET", "/api/media/stats"), "", 200, json!({
                "totalSessions": 1, "activeSessions": 0, "connectingSessions": 1, "failedSessions": 0,
                "wsConnections": 0, "framePool": {"allocations": 0, "reuses": 0, "reuseRate": "0.0%"},
            })),
            row("candidate: no session", candidate, json!({"candidate": one}), 400, error(&required("AddICECandidateRequest", "SessionID"))),
            row("candidate: unknown session", candidate, json!({"sessionId": NOWHERE, "candidate": one}), 400, error("Failed to add ICE candidate")),
            row("candidate: no id", candidate, json!({"sessionId": "x", "candidate": one}), 400, error("Failed to add ICE candidate")),
            row("candidate before the answer", candidate, json!({"sessionId": "{session}", "candidate": one}), 200, ok()),
            row("no candidate is the end of them", candidate, json!({"sessionId": "{session}"}), 200, ok()),
            row("an empty candidate", candidate, json!({"sessionId": "{session}", "candidate": {"candidate": ""}}), 200, ok()),
            row("candidate: not one", candidate, json!({"sessionId": "{session}", "candidate": {"candidate": "hello"}}), 400, error("Failed to add ICE candidate")),
            row("candidate: a text", candidate, json!({"sessionId": "{session}", "candidate": "x"}), 400, error("json: cannot unmarshal string into Go struct field AddICECandidateRequest.candidate of type webrtc.ICECandidateInit")),
            row("candidates: none", candidates, json!({"sessionId": "{session}", "candidates": []}), 200, json!({"status": "ok", "added": 0, "total": 0})),
            row("candidates: no list", candidates, json!({"sessionId": "{session}"}), 400, error(&required("AddICECandidatesRequest", "Candidates"))),
            row("candidates: none of an unknown session", candidates, json!({"sessionId": NOWHERE, "candidates": []}), 200, json!({"status": "ok", "added": 0, "total": 0})),
            row("candidates of an unknown session", candidates, json!({"sessionId": NOWHERE, "candidates": [one]}), 400, error("Failed to add ICE candidates")),
            row("candidates: one of two is right", candidates, json!({"sessionId": "{session}", "candidates": [one, {"candidate": "x"}]}), 200, json!({"status": "ok", "added": 1, "total": 2})),
            row("candidates: all wrong", candidates, json!({"sessionId": "{session}", "candidates": [{"candidate": "x"}]}), 400, error("Failed to add ICE candidates")),
            row("candidates: more than are kept", candidates, json!({"sessionId": "{session}", "candidates": vec![one.clone(); 60]}), 200, json!({"status": "ok", "added": 60, "total": 60})),
            row("answer: no session", answers, json!({"answer": {"type": "answer", "sdp": "v=0"}}), 400, error(&required("SetAnswerRequest", "SessionID"))),
            row("answer: an unknown type", answers, json!({"sessionId": "{session}", "answer": {"type": "x", "sdp": "v=0"}}), 400, error("unknown")),
            row("answer: a text", answers, json!({"sessionId": "{session}", "answer": "v=0"}), 400, error("json: cannot unmarshal string into Go struct field SetAnswerRequest.answer of type webrtc.SessionDescription")),
            row("answer: none", answers, json!({"sessionId": "{session}"}), 500, error("Failed to handle answer")),
            row("answer: an offer", answers, json!({"sessionId": "{session}", "answer": {"type": "offer", "sdp": "{answer offer}"}}), 500, error("Failed to handle answer")),
            row("answer to an unknown session", answers, json!({"sessionId": NOWHERE, "answer": {"type": "answer", "sdp": "v=0"}}), 500, error("Failed to handle answer")),
            row("answer: no SDP", answers, json!({"sessionId": "{session}", "answer": {"type": "answer", "sdp": "hello"}}), 500, json!({"error": "Failed to handle answer", "message": "the body is no SDP*"})),
            row("the offer as its own answer", answers, json!({"sessionId": "{session}", "answer": {"type": "answer", "sdp": "{offer}"}}), 500, json!({"error": "Failed to handle answer", "message": "the answer says ice-lite*"})),
            row("answer, its type in capitals", answers, json!({"sessionId": "{session}", "answer": {"type": "ANSWER", "sdp": "{answer offer}"}}), 200, ok()).odd(),
            row("a second answer", answers, json!({"sessionId": "{session}", "answer": {"type": "answer", "sdp": "{answer offer}"}}), 500, json!({"error": "Failed to handle answer", "message": "the session has its answer"})),
            row("candidate after the answer", candidate, json!({"sessionId": "{session}", "candidate": one}), 200, ok()),
            row("get after the answer", ("GET", "/api/media/sessions/{session}"), "", 200, session("connecting")),
            row("delete", ("DELETE", "/api/media/sessions/{session}"), "", 200, ok()),
            row("delete again", ("DELETE", "/api/media/sessions/{session}"), "", 404, error("Session not found")),
            row("get after the end", ("GET", "/api/media/sessions/{session}"), "", 404, error("Session not found")),
            row("answer after the end", answers, json!({"sessionId": "{session}", "answer": {"type": "answer", "sdp": "{answer offer}"}}), 500, error("Failed to handle answer")),
            row("another", sessions, json!({"DEVICEID": "cam-1", "userid": "ann"}), 200, created).keep(&[("session", "/sessionId")]).odd(),
            row("delete without an answer", ("DELETE", "/api/media/sessions/{session}"), "", 200, ok()),
            row("and again", ("DELETE", "/api/media/sessions/{session}"), "", 404, error("Session not found")),
            row("TURN that is not configured", ("GET", "/api/media/turn-credentials"), "", 500, error("TURN service not configured")),
            row("an unknown route", ("GET", "/api/media/nothing"), "", 404, json!("404 page not found")).header("content-type", "text/plain"),
            row("an unknown method", ("PUT", "/api/media/sessions"), "", 404, json!("404 page not found")),
            row("the API itself", ("GET", "/api/media"), "", 404, json!("404 page not found")),
            row("a slash too many", ("GET", "/api/media/sessions/?a=b"), "", 301, json!("")).header("location", "/api/media/sessions?a=b"),
            row("a slash too many, with a body", ("POST", "/api/media/sessions/"), "{}", 307, json!("")).header("location", "/api/media/sessions"),
            row("a slash too many at nothing", ("GET", "/api/media/nothing/"), "", 404, json!("404 page not found")),
        ])
        .await;
    let session = table.kept["session"].clone();
    table.check(50);

    let metrics = server.metrics().await;
    let value = |name: &str, labels: &[(&str, &str)]| metrics.value(name, labels);
    assert_eq!(value("media_active_sessions", &[]), Some(0.0));
    let created = |device| value("media_sessions_created_total", &[("device_id", device)]);
    assert_eq!(
        (created("other"), created("cam-1")),
        (Some(2.0), None),
        "it never came"
    );
    let closed = [("device_id", "other"), ("reason", "normal_close")];
    assert_eq!(value("media_sessions_closed_total", &closed), Some(2.0));
    let added = value(
        "media_ice_candidates_added_total",
        &[("session_id", &session)],
    );
    assert_eq!(added, Some(0.0), "the second one had none");
    let beyond = value("media_bound_hits_total", &[("bound", "candidates")]);
    assert_eq!(beyond, Some(13.0), "1, 1, 60 and 1, less 50");
    let path = [
        ("method", "DELETE"),
        ("path", "/api/media/sessions/:id"),
        ("status", "404"),
    ];
    assert_eq!(value("media_http_requests_total", &path), Some(2.0));
    let cancelled = [("protocol", "session"), ("result", "cancelled")];
    assert_eq!(value("media_setup_total", &cancelled), Some(2.0));
}

#[tokio::test]
async fn every_call_to_the_sfu_is_answered_as_the_service_before_did() {
    let server = MediaServer::open(&[]).await;
    let mut table = Table::new(&server, None);
    let publishers = ("POST", "/api/media/sfu/publishers");
    let publisher_answer = ("POST", "/api/media/sfu/publishers/answer");
    let publisher_candidate = ("POST", "/api/media/sfu/publishers/ice-candidate");
    let subscribers = ("POST", "/api/media/sfu/subscribers");
    let by_device = ("POST", "/api/media/sfu/subscribers/by-device");
    let subscriber_answer = ("POST", "/api/media/sfu/subscribers/answer");
    let subscriber_candidate = ("POST", "/api/media/sfu/subscribers/ice-candidate");
    let offer = json!({"type": "offer", "sdp": "v=0*"});
    let created = json!({
        "publisherId": "*", "deviceId": "cam-1", "offer": offer, "iceServers": [],
    });
    let again = json!({
        "publisherId": "{publisher}", "deviceId": "cam-1", "offer": offer, "iceServers": [],
    });
    let subscribed = json!({
        "subscriberId": "*", "publisherId": "{publisher}", "deviceId": "cam-1",
        "offer": offer, "iceServers": [],
    });
    let publisher = |count: u32| {
        json!({
            "id": "{publisher}", "deviceId": "cam-1", "userId": "ann", "state": "connecting",
            "subscriberCount": count, "createdAt": "20*",
        })
    };
    let subscriber = json!({
        "id": "{subscriber}", "publisherId": "{publisher}", "deviceId": "cam-1", "userId": "bob",
        "state": "connecting", "createdAt": "20*",
    });
    let one = json!({"candidate": CANDIDATE, "sdpMid": "0"});
    let stats = |publishers: Value, subscribers: u32| {
        json!({
            "totalPublishers": publishers.as_array().map(Vec::len), "totalSubscribers": subscribers,
            "publishers": publishers,
        })
    };
    let stated = |count: u32| json!([{"id": "{publisher}", "deviceId": "cam-1", "state": "connecting", "subscriberCount": count}]);
    let unknown = "Failed to create subscriber: publisher not found: publisher not found: ";
    table
        .run(vec![
            row("no publishers yet", ("GET", "/api/media/sfu/publishers"), "", 200, json!({"publishers": [], "total": 0})),
            row("stats of nothing", ("GET", "/api/media/sfu/stats"), "", 200, stats(json!([]), 0)),
            row("publisher: no device", publishers, json!({"userId": "ann"}), 400, error(&required("CreatePublisherRequest", "DeviceID"))),
            row("publisher: no user", publishers, json!({"deviceId": "cam-1"}), 400, error(&required("CreatePublisherRequest", "UserID"))),
            row("by device, without a publisher", by_device, json!({"deviceId": "cam-1", "userId": "bob"}), 404, error("No active publisher for this device")),
            row("subscriber of an unknown publisher", subscribers, json!({"publisherId": NOWHERE, "userId": "bob"}), 500, error(&format!("{unknown}{NOWHERE}"))),
            row("subscriber of what is no id", subscribers, json!({"publisherId": "x", "userId": "bob"}), 500, error(&format!("{unknown}x"))),
            row("publisher", publishers, json!({"deviceId": "cam-1", "userId": "ann", "videoCodec": "H264"}), 200, created)
                .keep(&[("publisher", "/publisherId"), ("offer", "/offer/sdp")]),
            row("publisher: answered wrong", publisher_answer, json!({"publisherId": "{publisher}", "answer": {"type": "answer", "sdp": "x"}}), 500, json!({"error": "Failed to handle answer", "message": "*"})),
            row("publisher: answered", publisher_answer, json!({"publisherId": "{publisher}", "answer": {"type": "answer", "sdp": "{answer offer}"}}), 200, ok()),
            row("publisher: answered again", publisher_answer, json!({"publisherId": "{publisher}", "answer": {"type": "answer", "sdp": "{answer offer}"}}), 500, json!({"error": "Failed to handle answer", "message": "*"})),
            row("the same publisher, offered anew", publishers, json!({"deviceId": "cam-1", "userId": "ann"}), 200, again).keep(&[("offer", "/offer/sdp")]),
            row("one publisher", ("GET", "/api/media/sfu/publishers"), "", 200, json!({"publishers": [publisher(0)], "total": 1})),
            row("and its new offer answered", publisher_answer, json!({"publisherId": "{publisher}", "answer": {"type": "answer", "sdp": "{answer offer}"}}), 200, ok()),
            row("answer to an unknown publisher", publisher_answer, json!({"publisherId": NOWHERE, "answer": {"type": "answer", "sdp": "x"}}), 500, error("Failed to handle answer")),
            row("answer without a publisher", publisher_answer, json!({"answer": {"type": "answer", "sdp": "x"}}), 400, error(&required("SetPublisherAnswerRequest", "PublisherID"))),
            row("publisher: candidate", publisher_candidate, json!({"publisherId": "{publisher}", "candidate": one}), 200, ok()),
            row("candidate of an unknown publisher", publisher_candidate, json!({"publisherId": NOWHERE, "candidate": one}), 400, error("Failed to add ICE candidate")),
            row("publisher: candidate without an id", publisher_candidate, json!({"candidate": one}), 400, error(&required("AddPublisherICECandidateRequest", "PublisherID"))),
            row("publisher: no candidate", publisher_candidate, json!({"publisherId": "{publisher}", "candidate": {"candidate": "hello"}}), 400, error("Failed to add ICE candidate")),
            row("subscriber: no user", subscribers, json!({"publisherId": "{publisher}"}), 400, error(&required("CreateSubscriberRequest", "UserID"))),
            row("by device: no user", by_device, json!({"deviceId": "cam-1"}), 400, error(&required("CreateSubscriberByDeviceRequest", "UserID"))),
            row("subscriber: no publisher", subscribers, json!({"userId": "bob"}), 400, error(&required("CreateSubscriberRequest", "PublisherID"))),
            row("subscriber", subscribers, json!({"publisherId": "{publisher}", "userId": "bob"}), 200, subscribed.clone())
                .keep(&[("subscriber", "/subscriberId"), ("subscribed", "/offer/sdp")]),
            row("subscriber: candidate before the answer", subscriber_candidate, json!({"subscriberId": "{subscriber}", "candidate": one}), 200, ok()),
            row("subscriber: candidate without an id", subscriber_candidate, json!({"candidate": one}), 400, error(&required("AddSubscriberICECandidateRequest", "SubscriberID"))),
            row("subscriber: no candidate", subscriber_candidate, json!({"subscriberId": "{subscriber}", "candidate": {"candidate": "hello"}}), 400, error("Failed to add ICE candidate")),
            row("candidate of an unknown subscriber", subscriber_candidate, json!({"subscriberId": NOWHERE, "candidate": one}), 400, error("Failed to add ICE candidate")),
            row("subscriber: answered", subscriber_answer, json!({"subscriberId": "{subscriber}", "answer": {"type": "answer", "sdp": "{answer subscribed}"}}), 200, ok()),
            row("answer to an unknown subscriber", subscriber_answer, json!({"subscriberId": NOWHERE, "answer": {"type": "answer", "sdp": "x"}}), 500, error("Failed to handle answer")),
            row("answer without a subscriber", subscriber_answer, json!({"answer": {"type": "answer", "sdp": "x"}}), 400, error(&required("SetSubscriberAnswerRequest", "SubscriberID"))),
            row("subscriber: get", ("GET", "/api/media/sfu/subscribers/{subscriber}"), "", 200, subscriber),
            row("by device: no device", by_device, json!({"userId": "bob"}), 400, error(&required("CreateSubscriberByDeviceRequest", "DeviceID"))),
            row("by device", by_device, json!({"deviceId": "cam-1", "userId": "bob"}), 200, subscribed).keep(&[("second", "/subscriberId")]),
            row("a publisher of two", ("GET", "/api/media/sfu/publishers/{publisher}"), "", 200, publisher(2)),
            row("stats", ("GET", "/api/media/sfu/stats"), "", 200, stats(stated(2), 2)),
            row("the stats of all sessions", ("GET", "/api/media/stats"), "", 200, json!({
                "totalSessions": 3, "activeSessions": 0, "connectingSessions": 3, "failedSessions": 0,
                "wsConnections": 0, "framePool": {"allocations": 0, "reuses": 0, "reuseRate": "0.0%"},
            })),
            row("1:1 sessions are others", ("GET", "/api/media/sessions/{publisher}"), "", 404, error("Session not found")),
            row("subscriber: delete", ("DELETE", "/api/media/sfu/subscribers/{second}"), "", 200, ok()),
            row("subscriber: delete again", ("DELETE", "/api/media/sfu/subscribers/{second}"), "", 404, error("Subscriber not found")),
            row("publisher: delete, with a subscriber", ("DELETE", "/api/media/sfu/publishers/{publisher}"), "", 200, ok()),
            row("publisher: delete again", ("DELETE", "/api/media/sfu/publishers/{publisher}"), "", 404, error("Publisher not found")),
            row("publisher: get after its end", ("GET", "/api/media/sfu/publishers/{publisher}"), "", 404, error("Publisher not found")),
            row("its subscriber has ended with it", ("GET", "/api/media/sfu/subscribers/{subscriber}"), "", 404, error("Subscriber not found")),
            row("there is no batch", ("POST", "/api/media/sfu/publishers/ice-candidates"), "{}", 404, json!("404 page not found")),
            row("there is no list of subscribers", ("GET", "/api/media/sfu/subscribers"), "", 404, json!("404 page not found")),
        ])
        .await;
    table.check(35);
    wait_for("all of them to be closed", PATIENCE, || async {
        let metrics = server.metrics().await;
        let open = metrics.value("media_active_sessions", &[]);
        if open == Some(0.0) {
            Ok(())
        } else {
            Err(format!("{open:?}"))
        }
    })
    .await;
    let metrics = server.metrics().await;
    let device = [("device_id", "other")];
    let created = metrics.value("media_sessions_created_total", &device);
    assert_eq!(created, Some(4.0), "all of them count");
}

#[tokio::test]
async fn a_client_that_offers_itself_is_answered_in_the_reply() {
    let server = MediaServer::open(&[]).await;
    let mut table = Table::new(&server, None);
    let sessions = ("POST", "/api/media/sessions");
    let created = |user: &str| {
        json!({
            "id": "*", "sessionId": "*", "deviceId": "cam-1", "userId": user, "state": "connecting",
            "createdAt": "20*", "lastActive": "20*", "answer": "v=0*", "iceServers": [],
        })
    };
    table
        .run(vec![
            row("an offer", sessions, json!({"deviceId": "cam-1", "offer": VIEW}), 200, created("")).keep(&[("session", "/id")]),
            row("as a description", sessions, json!({"deviceId": "cam-1", "userId": "ann", "offer": {"type": "offer", "sdp": VIEW}}), 200, created("ann")),
            row("an offer to send", sessions, json!({"deviceId": "cam-1", "offer": PUBLISH}), 400, error("the audio m-line is sendonly*")),
            row("no SDP", sessions, json!({"deviceId": "cam-1", "offer": "hello"}), 400, error("the body is no SDP*")),
            row("its answer has been given", ("POST", "/api/media/sessions/answer"), json!({"sessionId": "{session}", "answer": {"type": "answer", "sdp": VIEW}}), 500, json!({"error": "Failed to handle answer", "message": "*"})),
            row("delete", ("DELETE", "/api/media/sessions/{session}"), "", 200, ok()),
        ])
        .await;
    table.check(6);
}

#[tokio::test]
async fn turn_credentials_are_those_of_the_configured_server() {
    let dir = TempDir::new("turn");
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "north").expect("the secret can be written");
    let secret = secret.display().to_string();
    let urls = [
        "--turn-url",
        "stun:stun.example:3478",
        "--turn-url",
        "turn:turn.example:3478",
    ];
    let server = MediaServer::open(&[&urls[..], &["--turn-secret-file", &secret]].concat()).await;
    let servers = json!([
        {"urls": ["stun:stun.example:3478"]},
        {"urls": ["turn:turn.example:3478"], "username": "*", "credential": "*"},
    ]);
    let mut table = Table::new(&server, None);
    table
        .run(vec![
            row("TURN", ("GET", "/api/media/turn-credentials"), "", 200, json!({"iceServers": servers})),
            row("a session has them too", ("POST", "/api/media/sessions"), json!({"deviceId": "cam-1", "userId": "ann"}), 200, json!({
                "sessionId": "*", "offer": {"type": "offer", "sdp": "v=0*"}, "iceServers": servers,
            })),
        ])
        .await;
    table.check(2);
}

#[tokio::test]
async fn preflights_are_answered_204_with_the_words_of_the_service_before() {
    let server = MediaServer::open(&["--cors-origin", "*"]).await;
    for path in [
        "/api/media/sessions",
        "/api/media/sessions/x",
        "/api/media/nothing",
    ] {
        let preflight = request(&server, Method::OPTIONS, path, "text/plain", "")
            .header("origin", "https://app.example")
            .header("access-control-request-method", "POST");
        let response = send(preflight).await;
        assert_eq!(response.status(), 204, "{path}");
        for (name, value) in [
            ("access-control-allow-origin", "*"),
            (
                "access-control-allow-methods",
                "GET, POST, PUT, PATCH, DELETE, OPTIONS",
            ),
            (
                "access-control-allow-headers",
                "Origin, Content-Type, Authorization, traceparent, tracestate",
            ),
            ("access-control-expose-headers", "Content-Length"),
            ("access-control-max-age", "43200"),
        ] {
            assert_eq!(header(&response, name), value, "{path}");
        }
    }
}

/// Every route of the document against the server; the tables hold every answer of theirs against its schema.
#[tokio::test]
async fn the_document_names_what_the_server_serves() {
    let server = MediaServer::open(&[]).await;
    let document: Value = get(&server, "/api/v1/openapi.json")
        .await
        .json()
        .await
        .expect("JSON");
    assert_eq!(document["openapi"], "3.1.0");
    let served = every_call(&server, None).await;
    for call in [
        "POST /api/media/sessions",
        "DELETE /api/media/sfu/publishers/{id}",
        "GET /api/v1/devices",
        "GET /api/v1/openapi.json",
    ] {
        assert!(
            served.iter().any(|(known, _)| known == call),
            "{call} of {served:?}"
        );
    }
    assert_eq!(served.len(), 36, "{served:?}");

    let of_query = |path: &str| -> Vec<String> {
        let parameters = document["paths"][path]["get"]["parameters"].as_array();
        let parameters = parameters.into_iter().flatten();
        let parameters = parameters.filter(|parameter| parameter["in"] == "query");
        let names = parameters.filter_map(|parameter| parameter["name"].as_str());
        names.map(str::to_owned).collect()
    };
    let sockets = of_query("/api/media/ws");
    assert_eq!(sockets, ["userId", "deviceId", "sessionId", "token"]);
    assert_eq!(of_query("/ws/device/{id}"), ["sessionId", "token"]);
}
