//! Who may do what under `/api/media`: tokens, subjects and tenants.

use crate::identity::of_tenant;
use crate::requests::*;
use crate::sockets::{Socket, refused};
use crate::table::*;
use reqwest::Method;
use serde_json::{Value, json};
use tests::MediaServer;
use tests::server::mint_token_for;

#[tokio::test]
async fn tokens_are_asked_for_in_the_words_of_the_service_before() {
    let server = MediaServer::closed(&[]).await;
    let sessions = ("POST", "/api/media/sessions");
    let ann = json!({"deviceId": "cam-1", "userId": "ann"});
    let refused = json!({"error": "Unauthorized", "message": "未授权访问"});
    let forbidden = json!({"error": "Forbidden", "message": "*"});

    let mut nobody = Table::new(&server, None);
    nobody
        .run(vec![
            row("no token", sessions, &ann, 401, refused.clone()),
            row("no token, and no body", sessions, "", 401, refused.clone()),
            row(
                "no token for the rest",
                ("GET", "/api/media/sfu/stats"),
                "",
                401,
                refused.clone(),
            ),
            row(
                "an unknown route needs none",
                ("GET", "/api/media/x"),
                "",
                404,
                json!("404 page not found"),
            ),
        ])
        .await;
    nobody.check(4);
    let mut nonsense = Table::new(&server, Some("x.y.z".to_owned()));
    nonsense
        .run(vec![row("no JWT", sessions, &ann, 401, refused)])
        .await;
    nonsense.check(1);
    let token =
        |grants: &str, subject: &str| mint_token_for(server.key_file(), "cam-1", grants, subject);
    let mut empty = Table::new(&server, Some(token("view", "")));
    let no_subject = json!({"error": "Unauthorized", "message": "无效的 Token"});
    empty
        .run(vec![row("an empty sub", sessions, &ann, 401, no_subject)])
        .await;
    empty.check(1);

    let created =
        json!({"sessionId": "*", "offer": {"type": "offer", "sdp": "v=0*"}, "iceServers": []});
    let mut viewer = Table::new(&server, Some(token("view", "ann")));
    viewer
        .run(vec![
            row(
                "the wrong user",
                sessions,
                json!({"deviceId": "cam-1", "userId": "bob"}),
                403,
                forbidden.clone(),
            ),
            row(
                "the wrong device",
                sessions,
                json!({"deviceId": "cam-2", "userId": "ann"}),
                403,
                forbidden.clone(),
            ),
            row("the right ones", sessions, &ann, 200, created.clone())
                .keep(&[("session", "/sessionId")]),
        ])
        .await;
    let session = viewer.kept["session"].clone();
    viewer.check(3);
    let mut publisher = Table::new(&server, Some(token("publish", "ann")));
    publisher
        .run(vec![row("no view grant", sessions, &ann, 403, forbidden)])
        .await;
    publisher.check(1);
    let mut other = Table::new(&server, Some(token("view", "bob")));
    other.kept.insert("session", session.clone());
    other
        .run(vec![
            row(
                "another's session",
                ("GET", "/api/media/sessions/{session}"),
                "",
                404,
                error("Session not found"),
            ),
            row(
                "its end",
                ("DELETE", "/api/media/sessions/{session}"),
                "",
                404,
                error("Session not found"),
            ),
            row(
                "its answer",
                ("POST", "/api/media/sessions/answer"),
                json!({"sessionId": "{session}", "answer": {"type": "answer", "sdp": "x"}}),
                500,
                error("Failed to handle answer"),
            ),
        ])
        .await;
    other.check(3);
    let mut admin = Table::new(&server, Some(token("admin", "root")));
    admin.kept.insert("session", session);
    admin
        .run(vec![
            row(
                "an administrator speaks for others",
                sessions,
                &ann,
                200,
                created,
            ),
            row(
                "and ends their sessions",
                ("DELETE", "/api/media/sessions/{session}"),
                "",
                200,
                ok(),
            ),
        ])
        .await;
    admin.check(2);
    let metrics = server.metrics().await;
    for (reason, count) in [("user_id", 1.0), ("grant", 2.0)] {
        let counted = metrics.value("media_auth_failures_total", &[("reason", reason)]);
        assert_eq!(counted, Some(count), "{reason}");
    }
}

#[tokio::test]
async fn a_publisher_is_its_users_alone_and_of_two_requests_at_once_the_second_takes_its_place() {
    let server = MediaServer::open(&[]).await;
    let publish = async |user: &str| {
        let body = json!({"deviceId": "cam-1", "userId": user}).to_string();
        let url = "/api/media/sfu/publishers";
        let response = send(request(
            &server,
            Method::POST,
            url,
            "application/json",
            body,
        ))
        .await;
        let created: Value = response.json().await.expect("JSON");
        created["publisherId"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let (ann, again) = tokio::join!(publish("ann"), publish("ann"));
    assert_eq!(ann, again, "one name");
    let bob = publish("bob").await;
    assert_ne!(ann, bob);
    let list = get(&server, "/api/media/sfu/publishers").await;
    let list: Value = list.json().await.expect("JSON");
    assert_eq!(list["total"], 2, "{list}");
    for (user, own) in [("bob", &bob), ("ann", &ann), ("eve", &ann)] {
        let body = json!({"deviceId": "cam-1", "userId": user}).to_string();
        let url = "/api/media/sfu/subscribers/by-device";
        let response = send(request(
            &server,
            Method::POST,
            url,
            "application/json",
            body,
        ))
        .await;
        let created: Value = response.json().await.expect("JSON");
        assert_eq!(created["publisherId"], **own, "{user}'s own, or the oldest");
    }
}

#[tokio::test]
async fn what_one_subject_ends_or_asks_tells_and_takes_nothing_of_anothers() {
    let server = MediaServer::closed(&["--turn-url", "stun:stun.example:3478"]).await;
    let token =
        |grants: &str, subject: &str| mint_token_for(server.key_file(), "cam-1", grants, subject);
    let publishers = ("POST", "/api/media/sfu/publishers");
    let mut ann = Table::new(&server, Some(token("view", "ann")));
    let body = json!({"deviceId": "cam-1", "userId": "ann"});
    let offer = json!({"type": "offer", "sdp": "v=0*"});
    let servers = json!([{"urls": ["stun:stun.example:3478"]}]);
    let created =
        json!({"publisherId": "*", "deviceId": "cam-1", "offer": offer, "iceServers": servers});
    ann.run(vec![
        row("publisher", publishers, body, 200, created).keep(&[("publisher", "/publisherId")]),
    ])
    .await;
    let mut bob = Table::new(&server, Some(token("view", "bob")));
    bob.kept = ann.kept.clone();
    let subscribe = json!({"publisherId": "{publisher}", "userId": "bob"});
    let subscribed = json!({
        "subscriberId": "*", "publisherId": "{publisher}", "deviceId": "cam-1", "offer": offer, "iceServers": servers,
    });
    let subscribers = ("POST", "/api/media/sfu/subscribers");
    bob.run(vec![
        row("bob's", subscribers, subscribe, 200, subscribed)
            .keep(&[("subscriber", "/subscriberId")]),
    ])
    .await;
    ann.run(vec![row(
        "ann's end",
        ("DELETE", "/api/media/sfu/publishers/{publisher}"),
        "",
        200,
        ok(),
    )])
    .await;
    let subscriber = json!({
        "id": "{subscriber}", "publisherId": "{publisher}", "deviceId": "cam-1", "userId": "bob",
        "state": "connecting", "createdAt": "20*",
    });
    bob.run(vec![row(
        "bob's goes on",
        ("GET", "/api/media/sfu/subscribers/{subscriber}"),
        "",
        200,
        subscriber,
    )])
    .await;
    let mut carl = Table::new(&server, Some(token("control", "carl")));
    let forbidden = json!({"error": "Forbidden", "message": "*"});
    carl.run(vec![row(
        "no relay for who may see nothing",
        ("GET", "/api/media/turn-credentials"),
        "",
        403,
        forbidden,
    )])
    .await;
    let session = ("POST", "/api/media/sessions");
    let created = json!({"sessionId": "*", "offer": offer, "iceServers": servers});
    bob.run(vec![row(
        "a session",
        session,
        json!({"deviceId": "cam-1", "userId": "bob"}),
        200,
        created,
    )])
    .await;
    let none = json!({
        "totalSessions": 0, "activeSessions": 0, "connectingSessions": 0, "failedSessions": 0,
        "wsConnections": 0, "framePool": {"allocations": 0, "reuses": 0, "reuseRate": "0.0%"},
    });
    carl.run(vec![row(
        "which others do not see",
        ("GET", "/api/media/stats"),
        "",
        200,
        none,
    )])
    .await;
    for table in [ann, bob, carl] {
        table.check(2);
    }
}

/// A server with tenants, and a token of each of two, whose users and devices have the same names.
async fn two_tenants() -> (MediaServer, [String; 2]) {
    let server = MediaServer::closed(&["--tenant-claim", "tenantId"]).await;
    let tokens = ["acme", "globex"].map(|t| of_tenant(&server, t, "view,control,admin"));
    (server, tokens)
}

/// The open sessions that a tenant sees by `/api/v1`.
async fn sessions(server: &MediaServer, token: &str) -> usize {
    let asked = request(server, Method::GET, "/api/v1/sessions", SDP, "").bearer_auth(token);
    let body: Value = send(asked).await.json().await.expect("JSON");
    body["sessions"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn a_tenant_sees_and_touches_no_session_of_another() {
    let (server, [acme, globex]) = two_tenants().await;
    let create = ("POST", "/api/media/sessions");
    let list = ("GET", "/api/media/sessions");
    let one = ("GET", "/api/media/sessions/{session}");
    let answers = ("POST", "/api/media/sessions/answer");
    let candidate = ("POST", "/api/media/sessions/ice-candidate");
    let candidates = ("POST", "/api/media/sessions/ice-candidates");
    let ann = json!({"deviceId": "cam-1", "userId": "ann"});
    let created =
        json!({"sessionId": "*", "offer": {"type": "offer", "sdp": "v=0*"}, "iceServers": []});
    let session = |name: &str| {
        json!({
            "sessionId": name, "deviceId": "cam-1", "userId": "ann", "state": "connecting",
            "createdAt": "20*", "lastActive": "20*",
        })
    };
    let none = json!({"sessions": [], "total": 0});
    let stats = |connecting: u32| {
        json!({
            "totalSessions": connecting, "activeSessions": 0, "connectingSessions": connecting, "failedSessions": 0,
            "wsConnections": 0, "framePool": {"allocations": 0, "reuses": 0, "reuseRate": "0.0%"},
        })
    };
    let answer =
        json!({"sessionId": "{session}", "answer": {"type": "answer", "sdp": "{answer offer}"}});
    let added = json!({"sessionId": "{session}", "candidate": {"candidate": CANDIDATE}});
    let all = json!({"sessionId": "{session}", "candidates": [{"candidate": CANDIDATE}]});
    let gone = error("Session not found");

    let mut theirs = Table::new(&server, Some(acme.clone()));
    let keep = &[("session", "/sessionId"), ("offer", "/offer/sdp")];
    let row_of = row("acme's", create, &ann, 200, created.clone()).keep(keep);
    theirs.run(vec![row_of]).await;

    let mut ours = Table::new(&server, Some(globex.clone()));
    ours.kept = theirs.kept.clone();
    let end = ("DELETE", one.1);
    ours.run(vec![
        row("list", list, "", 200, none),
        row("stats", ("GET", "/api/media/stats"), "", 200, stats(0)),
        row("get", one, "", 404, gone.clone()),
        row("end", end, "", 404, gone),
        row(
            "answer",
            answers,
            &answer,
            500,
            error("Failed to handle answer"),
        ),
        row(
            "candidate",
            candidate,
            &added,
            400,
            error("Failed to add ICE candidate"),
        ),
        row(
            "candidates",
            candidates,
            &all,
            400,
            error("Failed to add ICE candidates"),
        ),
        row("one of the same names", create, &ann, 200, created).keep(&[("own", "/sessionId")]),
        row(
            "is all that there is",
            list,
            "",
            200,
            json!({"sessions": [session("{own}")], "total": 1}),
        ),
    ])
    .await;
    assert_eq!(sessions(&server, &globex).await, 1);
    ours.check(9);

    theirs
        .run(vec![
            row(
                "it is as it was",
                list,
                "",
                200,
                json!({"sessions": [session("{session}")], "total": 1}),
            ),
            row("and takes its answer", answers, &answer, 200, ok()),
            row("stats", ("GET", "/api/media/stats"), "", 200, stats(1)),
            row("end", end, "", 200, ok()),
        ])
        .await;
    theirs.check(5);
    assert_eq!(sessions(&server, &globex).await, 1, "the other one goes on");
}

#[tokio::test]
async fn a_tenant_sees_and_touches_no_publisher_or_subscriber_of_another() {
    let (server, [acme, globex]) = two_tenants().await;
    let publishers = ("POST", "/api/media/sfu/publishers");
    let subscribers = ("POST", "/api/media/sfu/subscribers");
    let by_device = ("POST", "/api/media/sfu/subscribers/by-device");
    let (publisher, subscriber) = (
        "/api/media/sfu/publishers/{publisher}",
        "/api/media/sfu/subscribers/{subscriber}",
    );
    let list = ("GET", "/api/media/sfu/publishers");
    let ann = json!({"deviceId": "cam-1", "userId": "ann"});
    let offer = json!({"type": "offer", "sdp": "v=0*"});
    let created =
        json!({"publisherId": "*", "deviceId": "cam-1", "offer": offer, "iceServers": []});
    let subscribe = json!({"publisherId": "{publisher}", "userId": "ann"});
    let subscribed = json!({
        "subscriberId": "*", "publisherId": "{publisher}", "deviceId": "cam-1", "offer": offer, "iceServers": [],
    });
    let described = |name: &str, count: u32| {
        json!({
            "id": name, "deviceId": "cam-1", "userId": "ann", "state": "connecting", "subscriberCount": count,
            "createdAt": "20*",
        })
    };
    let mut theirs = Table::new(&server, Some(acme));
    theirs
        .run(vec![
            row("acme's", publishers, &ann, 200, created.clone())
                .keep(&[("publisher", "/publisherId"), ("offer", "/offer/sdp")]),
            row("its subscriber", subscribers, &subscribe, 200, subscribed)
                .keep(&[("subscriber", "/subscriberId")]),
        ])
        .await;

    let mut ours = Table::new(&server, Some(globex));
    ours.kept = theirs.kept.clone();
    let answer = json!({"type": "answer", "sdp": "{answer offer}"});
    let one = json!({"candidate": CANDIDATE});
    let unknown =
        "Failed to create subscriber: publisher not found: publisher not found: {publisher}";
    let nothing = json!({"totalPublishers": 0, "totalSubscribers": 0, "publishers": []});
    let no_answer = error("Failed to handle answer");
    let no_candidate = error("Failed to add ICE candidate");
    let (no_publisher, no_subscriber) =
        (error("Publisher not found"), error("Subscriber not found"));
    ours.run(vec![
        row("list", list, "", 200, json!({"publishers": [], "total": 0})),
        row("stats", ("GET", "/api/media/sfu/stats"), "", 200, nothing),
        row(
            "publisher",
            ("GET", publisher),
            "",
            404,
            no_publisher.clone(),
        ),
        row("its end", ("DELETE", publisher), "", 404, no_publisher),
        row(
            "its answer",
            ("POST", "/api/media/sfu/publishers/answer"),
            json!({"publisherId": "{publisher}", "answer": answer}),
            500,
            no_answer.clone(),
        ),
        row(
            "its candidate",
            ("POST", "/api/media/sfu/publishers/ice-candidate"),
            json!({"publisherId": "{publisher}", "candidate": one}),
            400,
            no_candidate.clone(),
        ),
        row(
            "subscriber",
            ("GET", subscriber),
            "",
            404,
            no_subscriber.clone(),
        ),
        row("its end", ("DELETE", subscriber), "", 404, no_subscriber),
        row(
            "its answer",
            ("POST", "/api/media/sfu/subscribers/answer"),
            json!({"subscriberId": "{subscriber}", "answer": answer}),
            500,
            no_answer,
        ),
        row(
            "its candidate",
            ("POST", "/api/media/sfu/subscribers/ice-candidate"),
            json!({"subscriberId": "{subscriber}", "candidate": one}),
            400,
            no_candidate,
        ),
        row(
            "a subscriber of it",
            subscribers,
            &subscribe,
            500,
            error(unknown),
        ),
        row(
            "or of its device",
            by_device,
            &ann,
            404,
            error("No active publisher for this device"),
        ),
        row("one of the same names", publishers, &ann, 200, created)
            .keep(&[("own", "/publisherId")]),
        row(
            "is all that there is",
            list,
            "",
            200,
            json!({"publishers": [described("{own}", 0)], "total": 1}),
        ),
    ])
    .await;
    assert_ne!(ours.kept["own"], ours.kept["publisher"], "its own name");
    let refused = [("reason", "grant")];
    let metrics = server.metrics().await;
    assert_eq!(
        metrics.value("media_auth_failures_total", &refused),
        Some(1.0),
        "the subscriber"
    );

    theirs
        .run(vec![
            row(
                "it is as it was",
                list,
                "",
                200,
                json!({"publishers": [described("{publisher}", 1)], "total": 1}),
            ),
            row(
                "and takes its answer",
                ("POST", "/api/media/sfu/publishers/answer"),
                json!({"publisherId": "{publisher}", "answer": answer}),
                200,
                ok(),
            ),
            row("and ends", ("DELETE", publisher), "", 200, ok()),
        ])
        .await;
    theirs.check(5);
    ours.run(vec![row(
        "the other one goes on",
        list,
        "",
        200,
        json!({"publishers": [described("{own}", 0)], "total": 1}),
    )])
    .await;
    ours.check(15);
}

#[tokio::test]
async fn a_socket_of_a_tenant_reaches_no_session_of_another() {
    let (server, [acme, globex]) = two_tenants().await;
    let open = async |path: &str, token: &str| {
        let socket = Socket::open(&server, path, Some(token)).await;
        socket.unwrap_or_else(|refused| panic!("{path}: {refused:?}"))
    };
    let mut theirs = open("/ws/device/cam-1", &acme).await;
    theirs.say(json!({"type": "start-stream"})).await;
    let offer = theirs.hear().await;
    let session = offer["sessionId"].as_str().expect("an id");

    let gone = json!({"type": "error", "error": "Session not found"});
    let mut ours = open(&format!("/api/media/ws?sessionId={session}"), &globex).await;
    assert_eq!(ours.hear().await, gone, "by the query");
    let answer = answer_to(offer["sdp"].as_str().expect("a text"));
    for message in [
        json!({"type": "join"}),
        json!({"type": "answer", "sdp": answer}),
        json!({"type": "ice-candidate", "candidate": CANDIDATE}),
        json!({"type": "touch", "action": "tap", "x": 1, "y": 1}),
        json!({"type": "control", "action": "key", "keyCode": 4}),
    ] {
        let mut message = message;
        message["sessionId"] = session.into();
        ours.say(message.clone()).await;
        assert_eq!(ours.hear().await, gone, "{message}");
    }
    let stats = async |token: &str| -> Value {
        let asked = request(&server, Method::GET, "/api/media/stats", SDP, "").bearer_auth(token);
        send(asked).await.json().await.expect("JSON")
    };
    for (token, connecting) in [(&acme, 1), (&globex, 0)] {
        let stats = stats(token).await;
        let counts = [&stats["connectingSessions"], &stats["wsConnections"]];
        assert_eq!(counts, [&json!(connecting), &json!(1)], "{stats}");
    }
    // The name of the device is another device.
    ours.say(json!({"type": "start-stream", "deviceId": "cam-1"}))
        .await;
    assert_ne!(ours.hear().await["sessionId"], *session);
    theirs.say(json!({"type": "answer", "sdp": answer})).await;
    theirs.say(json!({"type": "answer", "sdp": answer})).await;
    let again = json!({"type": "error", "error": "the session has its answer"});
    assert_eq!(
        theirs.hear().await,
        again,
        "it took the first, from its own socket alone"
    );
    assert_eq!(sessions(&server, &acme).await, 1);
}

#[tokio::test]
async fn what_is_wrong_with_an_address_is_said_after_the_token_and_in_json() {
    let server = MediaServer::closed(&[]).await;
    let token = mint_token_for(server.key_file(), "cam-1", "view,record", "ann");
    let unauthorized = json!({"error": "Unauthorized", "message": "未授权访问"});
    for (path, status) in [
        ("/api/media/sessions/%ff", 404),
        ("/api/media/sfu/publishers/%ff", 404),
        ("/api/media/sfu/subscribers/%ff", 404),
        ("/api/media/recordings/%ff", 404),
        ("/api/media/recordings/%ff/download", 404),
    ] {
        let ask = async |token: Option<&str>| {
            let asked = request(&server, Method::GET, path, SDP, "");
            let answer = match token {
                Some(token) => send(asked.bearer_auth(token)).await,
                None => send(asked).await,
            };
            let status = answer.status().as_u16();
            (status, answer.json::<Value>().await.expect("JSON"))
        };
        assert_eq!(ask(None).await, (401, unauthorized.clone()), "{path}");
        let (found, body) = ask(Some(&token)).await;
        assert_eq!(found, status, "{path}: {body}");
        assert!(body["error"].is_string(), "{path}: {body}");
    }
    let of_v1 = request(&server, Method::GET, "/api/v1/sessions/%ff", SDP, "");
    problem(send(of_v1).await, 401, "token").await;
    let twice = "/api/media/ws?userId=ann&userId=bob";
    for path in ["/ws/device/%ff", twice] {
        assert_eq!(
            refused(&server, path, None).await,
            (401, unauthorized.clone()),
            "{path}"
        );
    }
    let (status, body) = refused(&server, "/ws/device/%ff", Some(&token)).await;
    assert_eq!(status, 400, "{body}");
    let first = Socket::open(&server, twice, Some(&token)).await;
    assert!(first.is_ok(), "the first counts, as it always did");
    let other = "/api/media/ws?userId=bob&userId=ann";
    assert_eq!(refused(&server, other, Some(&token)).await.0, 403);
}
