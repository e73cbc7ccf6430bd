//! The WebSocket of the older API: who is let in, what is said on it, how it ends.

use crate::older::answer_to;
use crate::requests::*;
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tests::process::TempDir;
use tests::{MediaServer, wait_for};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    /// Opens one, with a token as a subprotocol if there is one.
    async fn open(
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

    async fn say(&mut self, message: Value) {
        let message = Message::Text(message.to_string().into());
        self.0.send(message).await.expect("it is taken");
    }

    async fn next(&mut self) -> Option<Message> {
        let next = tokio::time::timeout(PATIENCE, self.0.next()).await;
        let next = next.unwrap_or_else(|_| panic!("nothing within {PATIENCE:?}"));
        next.and_then(Result::ok)
    }

    /// The next object.
    async fn hear(&mut self) -> Value {
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

type Refused = (u16, Value);

async fn opened(server: &MediaServer, path: &str) -> Socket {
    let socket = Socket::open(server, path, None).await;
    socket.unwrap_or_else(|refused| panic!("{path}: {refused:?}"))
}

async fn refused(server: &MediaServer, path: &str, token: Option<&str>) -> Refused {
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
    let metrics = server.metrics().await;
    let count = |kind: &str, direction: &str| {
        metrics.value(
            "media_websocket_messages_total",
            &[("type", kind), ("direction", direction)],
        )
    };
    assert_eq!(count("invalid", "inbound"), Some(2.0));
    assert_eq!(count("signaling", "inbound"), Some(2.0));
    assert_eq!(count("control", "inbound"), Some(1.0));
    assert_eq!(count("signaling", "outbound"), Some(5.0));
    let sizes = |name: &str| metrics.value(name, &[("type", "control")]);
    assert_eq!(sizes("media_websocket_message_size_bytes_sum"), Some(35.0));
    assert_eq!(metrics.value("media_websocket_connections", &[]), Some(1.0));

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
