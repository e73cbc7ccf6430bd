//! The WebSocket of the older API: who is let in, what is said on it, how it ends.

use crate::requests::*;
use crate::table::answer_to;
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tests::process::TempDir;
use tests::{MediaServer, wait_for};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

pub struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    /// Opens one, with a token as a subprotocol if there is one.
    pub async fn open(
        server: &MediaServer,
        path: &str,
        token: Option<&str>,
    ) -> Result<Socket, Refused> {
        let url = format!("ws://{}{path}", server.http);
        let mut request = url.into_client_request().expect("a request");
        if let Some(token) = token {
            let value = format!("bearer, {token}").parse().expect("a header");
            request
                .headers_mut()
                .insert("sec-websocket-protocol", value);
        }
        match connect_async(request).await {
            Ok((socket, response)) => {
                let protocol = response.headers().get("sec-websocket-protocol");
                assert_eq!(protocol.is_some(), token.is_some(), "{response:?}");
                Ok(Socket(socket))
            }
            Err(Error::Http(response)) => {
                let body = response.body().as_deref().unwrap_or_default();
                let body = serde_json::from_slice(body).expect("JSON");
                Err((response.status().as_u16(), body))
            }
            Err(error) => panic!("{error}"),
        }
    }

    pub async fn say(&mut self, message: Value) {
        let message = Message::Text(message.to_string().into());
        self.0.send(message).await.expect("it is taken");
    }

    async fn next(&mut self) -> Option<Message> {
        let next = tokio::time::timeout(PATIENCE, self.0.next()).await;
        let next = next.unwrap_or_else(|_| panic!("nothing within {PATIENCE:?}"));
        next.and_then(Result::ok)
    }

    /// The next object.
    pub async fn hear(&mut self) -> Value {
        match self.next().await {
            Some(Message::Text(text)) => serde_json::from_str(&text).expect("one object"),
            other => panic!("{other:?}"),
        }
    }

    /// The code that it is closed with.
    async fn closed_with(&mut self) -> u16 {
        loop {
            match self.next().await {
                Some(Message::Close(Some(frame))) => return frame.code.into(),
                Some(Message::Text(_) | Message::Ping(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

pub type Refused = (u16, Value);

async fn opened(server: &MediaServer, path: &str) -> Socket {
    let socket = Socket::open(server, path, None).await;
    socket.unwrap_or_else(|refused| panic!("{path}: {refused:?}"))
}

pub async fn refused(server: &MediaServer, path: &str, token: Option<&str>) -> Refused {
    match Socket::open(server, path, token).await {
        Ok(_) => panic!("{path} is let in"),
        Err(refused) => refused,
    }
}

async fn state(server: &MediaServer, session: &str) -> Value {
    let path = format!("/api/media/sessions/{session}");
    get(server, &path).await.json().await.expect("JSON")
}

#[tokio::test]
async fn a_socket_needs_a_token_before_the_upgrade_and_takes_it_where_browsers_can_put_it() {
    let mut server = MediaServer::closed(&[]).await;
    let unauthorized = json!({"error": "Unauthorized", "message": "未授权访问"});
    let token = server.token("cam-1", "view");
    for path in [
        "/api/media/ws",
        "/api/media/ws?userId=ann",
        "/ws/device/cam-1",
    ] {
        assert_eq!(
            refused(&server, path, None).await,
            (401, unauthorized.clone())
        );
        let bad = format!(
            "{path}{}token=x.y.z",
            if path.contains('?') { '&' } else { '?' }
        );
        assert_eq!(refused(&server, &bad, None).await.0, 401, "{bad}");
    }
    let required = json!({"error": "userId is required"});
    let bare = refused(&server, "/api/media/ws", Some(&token)).await;
    assert_eq!(bare, (400, required));
    let other = refused(&server, "/api/media/ws?userId=bob", Some(&token)).await;
    assert_eq!(other.0, 403);
    let other = refused(&server, "/ws/device/cam-2", Some(&token)).await;
    assert_eq!(other.0, 403);
    for path in ["/api/media/ws?userId=ann", "/ws/device/cam-1"] {
        let by_protocol = Socket::open(&server, path, Some(&token)).await;
        assert!(by_protocol.is_ok(), "{path}");
        let query = format!(
            "{path}{}token={token}",
            if path.contains('?') { '&' } else { '?' }
        );
        let mut by_query = opened(&server, &query).await;
        by_query
            .say(json!({"type": "start-stream", "deviceId": "cam-1"}))
            .await;
        assert_eq!(by_query.hear().await["type"], "offer");
        by_query
            .say(json!({"type": "start-stream", "deviceId": "cam-2"}))
            .await;
        assert_eq!(by_query.hear().await["type"], "error");
    }
    let log = server.process().log();
    assert!(log.contains("session admitted"), "{log}");
    assert!(!log.contains(&token), "{log}");
    let plain = get(&server, &format!("/api/media/ws?userId=ann&token={token}")).await;
    assert_eq!(plain.status(), 400, "no upgrade is asked for");
}

#[tokio::test]
async fn a_player_for_a_device_is_offered_a_stream_and_its_session_ends_with_the_socket() {
    let server = MediaServer::open(&[]).await;
    let mut socket = opened(&server, "/ws/device/cam-1").await;
    socket
        .say(json!({"type": "start-stream", "deviceId": "cam-1"}))
        .await;
    let offer = socket.hear().await;
    assert_eq!(offer["type"], "offer", "{offer}");
    let sdp = offer["sdp"].as_str().expect("a text");
    let session = offer["sessionId"].as_str().expect("an id").to_owned();
    let candidate = json!({"candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host", "sdpMid": "0"});
    socket
        .say(json!({"type": "ice-candidate", "candidate": candidate}))
        .await;
    socket.say(json!({"type": "answer", "sdp": "hello"})).await;
    let error = socket.hear().await;
    assert_eq!(error["type"], "error", "{error}");
    socket
        .say(json!({"type": "answer", "sdp": answer_to(sdp)}))
        .await;
    socket
        .say(json!({"type": "answer", "sdp": answer_to(sdp)}))
        .await;
    let again = json!({"type": "error", "error": "the session has its answer"});
    assert_eq!(socket.hear().await, again, "so the first was taken");
    assert_eq!(state(&server, &session).await["state"], "connecting");
    socket.say(json!({"type": "start-stream"})).await;
    let second = socket.hear().await["sessionId"].clone();
    assert_ne!(second, json!(session), "a player that starts anew");
    assert_eq!(state(&server, &session).await["error"], "Session not found");
    drop(socket);
    wait_for("the session to end with its socket", PATIENCE, || async {
        match state(&server, second.as_str().expect("an id")).await {
            gone if gone["error"] == "Session not found" => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_offers_gets_its_answer_in_the_form_that_it_asked_in() {
    let server = MediaServer::open(&[]).await;
    let body = json!({"deviceId": "cam-1", "offer": VIEW}).to_string();
    let created: Value = post(&server, "/api/media/sessions", &body)
        .await
        .json()
        .await
        .expect("JSON");
    let session = created["id"].as_str().expect("an id");
    let mut socket = opened(&server, "/api/media/ws?userId=ann").await;
    socket
        .say(json!({"type": "join", "sessionId": session}))
        .await;
    let joined = socket.hear().await;
    assert_eq!(joined["answer"], created["answer"], "{joined}");
    assert_eq!(joined["type"], "answer");
    let mut by_query = opened(&server, &format!("/api/media/ws?sessionId={session}")).await;
    assert_eq!(by_query.hear().await["answer"], created["answer"]);

    for (offer, pointer) in [
        (json!(VIEW), "/sdp"),
        (json!({"type": "offer", "sdp": VIEW}), "/sdp/sdp"),
    ] {
        let mut socket = opened(&server, "/api/media/ws?userId=ann&deviceId=cam-1").await;
        socket.say(json!({"type": "offer", "sdp": offer})).await;
        let answer = socket.hear().await;
        let sdp = answer.pointer(pointer).and_then(Value::as_str);
        assert!(sdp.is_some_and(|sdp| sdp.starts_with("v=0")), "{answer}");
    }
    drop((socket, by_query));
    let still = state(&server, session).await;
    assert_eq!(still["sessionId"], session, "it was not the socket's own");
}

#[tokio::test]
async fn what_a_client_of_the_manual_says_of_its_session_makes_it_the_sockets() {
    let server = MediaServer::open(&[]).await;
    let create = async || -> Value {
        let body = json!({"deviceId": "cam-1", "userId": "ann"}).to_string();
        let created = post(&server, "/api/media/sessions", &body).await;
        created.json().await.expect("JSON")
    };
    let created = create().await;
    let session = created["sessionId"].as_str().expect("an id");
    let mut socket = opened(&server, "/api/media/ws?userId=ann").await;
    let touch = json!({"type": "control", "action": "touch", "deviceId": "cam-1", "x": 5, "y": 6});
    socket.say(touch.clone()).await;
    let unknown = json!({"type": "error", "error": "Session not found"});
    assert_eq!(socket.hear().await, unknown, "before it has one");
    let sdp = answer_to(created["offer"]["sdp"].as_str().expect("a text"));
    socket
        .say(json!({"type": "answer", "sessionId": session, "sdp": sdp}))
        .await;
    socket.say(touch.clone()).await;
    let no_device = json!({"type": "error", "code": "no_publisher"});
    assert_eq!(socket.hear().await, no_device, "it went as far as it could");
    drop(socket);
    assert_eq!(state(&server, session).await["sessionId"], session);

    // One that would rather offer for the session that it made, and calls what it gets by that name.
    let created = create().await;
    let session = created["sessionId"].as_str().expect("an id");
    let mut socket = opened(&server, "/api/media/ws?userId=ann").await;
    let mut own = String::new();
    for _ in 0..2 {
        let offer = json!({"type": "offer", "sessionId": session, "sdp": VIEW});
        socket.say(offer).await;
        let answer = socket.hear().await;
        assert_eq!(answer["type"], "answer", "{answer}");
        assert_ne!(answer["sessionId"], session);
        own = answer["sessionId"].as_str().expect("an id").to_owned();
        let state = state(&server, session).await;
        assert_eq!(
            state["error"], "Session not found",
            "its offer is of no use"
        );
        let candidate = json!({"type": "ice-candidate", "sessionId": session, "candidate": ""});
        socket.say(candidate).await;
        let mut named = touch.clone();
        named["sessionId"] = json!(session);
        socket.say(named).await;
        assert_eq!(socket.hear().await, no_device, "and none of the candidate");
    }
    let list = get(&server, "/api/media/sessions").await;
    let list: Value = list.json().await.expect("JSON");
    assert_eq!(list["total"], 2, "{list}");

    // Its own is over: the one that it names next is the socket's.
    let path = server.url(&format!("/api/media/sessions/{own}"));
    let ended = reqwest::Client::new()
        .delete(path)
        .send()
        .await
        .expect("an answer");
    assert_eq!(ended.status(), 200);
    let created = create().await;
    let sdp = answer_to(created["offer"]["sdp"].as_str().expect("a text"));
    let answer = json!({"type": "answer", "sessionId": created["sessionId"], "sdp": sdp});
    socket.say(answer).await;
    socket.say(touch).await;
    assert_eq!(socket.hear().await, no_device);
}

#[tokio::test]
async fn messages_are_counted_by_what_they_are_and_a_long_one_closes_with_1009() {
    let server = MediaServer::open(&[]).await;
    let mut socket = opened(&server, "/api/media/ws?userId=ann").await;
    for (message, error) in [
        ("hello", "one JSON object"),
        (r#"{"type":"x"}"#, "no type"),
        (r#"{"type":"join","sessionId":"x"}"#, "Session not found"),
        (
            r#"{"type":"control","action":"touch"}"#,
            "Session not found",
        ),
        (r#"{"type":"answer","sdp":"v=0"}"#, "Session not found"),
    ] {
        socket
            .0
            .send(Message::Text(message.into()))
            .await
            .expect("taken");
        let heard = socket.hear().await;
        let text = heard["error"].as_str().unwrap_or_default();
        assert!(text.contains(error), "{message}: {heard}");
    }
    // A message is counted after it is written, when the client may have it already.
    wait_for("all messages to be counted", PATIENCE, || async {
        let metrics = server.metrics().await;
        let count = |kind: &str, direction: &str| {
            metrics.value(
                "media_websocket_messages_total",
                &[("type", kind), ("direction", direction)],
            )
        };
        let counted = [
            count("invalid", "inbound"),
            count("signaling", "inbound"),
            count("control", "inbound"),
            count("signaling", "outbound"),
            metrics.value(
                "media_websocket_message_size_bytes_sum",
                &[("type", "control")],
            ),
            metrics.value("media_websocket_connections", &[]),
        ];
        let expected = [2.0, 2.0, 1.0, 5.0, 35.0, 1.0].map(Some);
        if counted == expected {
            Ok(())
        } else {
            Err(format!("{counted:?}"))
        }
    })
    .await;

    let long = json!({"type": "x", "y": "z".repeat(512 * 1024)});
    socket.say(long).await;
    assert_eq!(socket.closed_with().await, 1009);
    wait_for("the socket to be gone", PATIENCE, || async {
        let open = server
            .metrics()
            .await
            .value("media_websocket_connections", &[]);
        if open == Some(0.0) {
            Ok(())
        } else {
            Err(format!("{open:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn a_player_that_joins_the_session_of_its_socket_keeps_it() {
    let server = MediaServer::open(&[]).await;
    let mut socket = opened(&server, "/ws/device/cam-1").await;
    socket.say(json!({"type": "start-stream"})).await;
    let session = socket.hear().await["sessionId"].clone();
    socket
        .say(json!({"type": "join", "sessionId": session}))
        .await;
    let joined = json!({"type": "joined", "sessionId": session});
    assert_eq!(socket.hear().await, joined);
    let session = session.as_str().expect("an id");
    assert_eq!(state(&server, session).await["sessionId"], session);
}

#[tokio::test]
async fn a_control_message_that_the_data_channel_would_not_take_is_too_large_here_too() {
    let server = MediaServer::open(&[]).await;
    let mut socket = opened(&server, "/ws/device/cam-1").await;
    socket.say(json!({"type": "start-stream"})).await;
    let offer = socket.hear().await;
    let sdp = answer_to(offer["sdp"].as_str().expect("a text"));
    // The second is answered, so the first was taken.
    for _ in 0..2 {
        socket.say(json!({"type": "answer", "sdp": sdp})).await;
    }
    socket.hear().await;
    for (bytes, code) in [(10_000, "no_publisher"), (20_000, "too_large")] {
        let text = "x".repeat(bytes);
        socket.say(json!({"type": "text", "text": text})).await;
        let error = json!({"type": "error", "code": code});
        assert_eq!(socket.hear().await, error, "{bytes} bytes");
    }
}

#[tokio::test]
async fn what_a_subject_says_to_a_socket_counts_as_its_requests_do() {
    let server = MediaServer::closed(&[]).await;
    let token = server.token("cam-1", "view");
    let socket = Socket::open(&server, "/ws/device/cam-1", Some(&token)).await;
    let mut socket = socket.unwrap_or_else(|refused| panic!("{refused:?}"));
    for n in 0.. {
        assert!(n < 1_000, "answers have no limit");
        socket.say(json!({"type": "answer", "sdp": "v=0"})).await;
        let heard = socket.hear().await;
        let error = heard["error"].as_str().expect("a text").to_owned();
        if error.starts_with("requests of this subject come too fast") {
            break;
        }
        assert_eq!(error, "Session not found");
    }
    let metrics = server.metrics().await;
    let limit = [("limit", "subject")];
    assert_eq!(metrics.value("media_refused_total", &limit), Some(1.0));
}

#[tokio::test]
async fn pages_of_other_origins_open_no_socket_unless_they_are_allowed() {
    let server = MediaServer::open(&["--cors-origin", "https://app.example.com"]).await;
    let own = format!("http://{}", server.http);
    for (origin, expected) in [
        (own.as_str(), 101),
        ("https://app.example.com", 101),
        ("https://evil.example", 403),
        ("null", 403),
    ] {
        let url = format!("ws://{}/ws/device/cam-1", server.http);
        let mut request = url.into_client_request().expect("a request");
        let value = origin.parse().expect("a header");
        request.headers_mut().insert("origin", value);
        let status = match connect_async(request).await {
            Ok((_, response)) => response.status(),
            Err(Error::Http(response)) => response.status(),
            Err(error) => panic!("{origin}: {error}"),
        };
        assert_eq!(status.as_u16(), expected, "{origin}");
    }
}

#[tokio::test]
async fn what_is_no_frame_closes_with_1002() {
    let server = MediaServer::open(&[]).await;
    let mut socket = opened(&server, "/ws/device/cam-1").await;
    let unknown = Frame::message(Vec::new(), OpCode::Data(Data::Reserved(3)), true);
    let sent = socket.0.send(Message::Frame(unknown)).await;
    sent.expect("it is taken");
    assert_eq!(socket.closed_with().await, 1002);
}

#[tokio::test]
async fn a_user_has_a_name_of_256_bytes_at_most() {
    let server = MediaServer::open(&[]).await;
    let mut socket = opened(&server, "/ws/device/cam-1").await;
    for (bytes, status, kind) in [(256, 200, "offer"), (257, 400, "error")] {
        let user = "u".repeat(bytes);
        let start = json!({"type": "start-stream", "userId": user});
        socket.say(start).await;
        assert_eq!(socket.hear().await["type"], kind, "{bytes} bytes");
        for path in ["sessions", "sfu/publishers"] {
            let body = json!({"deviceId": "cam-1", "userId": user}).to_string();
            let created = post(&server, &format!("/api/media/{path}"), &body).await;
            assert_eq!(created.status(), status, "{path}: {bytes} bytes");
        }
    }
}

#[tokio::test]
async fn sockets_have_a_bound_and_are_closed_when_the_server_stops() {
    let dir = TempDir::new("sockets");
    let config = dir.path().join("config.toml");
    std::fs::write(&config, "[http]\nconnections = 16\n").expect("it can be written");
    let config = config.display().to_string();
    let mut server = MediaServer::open(&["--config", &config]).await;
    let mut sockets = Vec::new();
    for _ in 0..4 {
        sockets.push(opened(&server, "/ws/device/cam-1").await);
    }
    let (status, body) = refused(&server, "/ws/device/cam-1", None).await;
    assert_eq!(status, 503, "{body}");
    let metrics = server.metrics().await;
    let bound = [("bound", "websockets")];
    assert_eq!(metrics.value("media_bound_hits_total", &bound), Some(1.0));
    sockets[0].say(json!({"type": "start-stream"})).await;
    assert_eq!(sockets[0].hear().await["type"], "offer");
    server.process().signal("INT");
    for socket in &mut sockets {
        assert_eq!(socket.closed_with().await, 1001);
    }
    let ended = wait_for("the server to end", PATIENCE, || {
        let ended = server.process().ended();
        async move { ended.ok_or("still running") }
    });
    assert!(ended.await.success());
}
