//! `GET /api/media/ws` and `/ws/device/{id}`: signalling and control over a WebSocket (RFC 6455).
//!
//! Checks the token before the upgrade, which browsers can send as a subprotocol or in the query alone, runs the
//! socket (pings, deadlines, a bounded queue), and hands each message to `dialect.rs`. Two tasks a socket: one
//! reads and works, one writes, so that a client that takes nothing holds up only itself.

mod dialect;

use super::offered;
use crate::api::cors::allowed_origin;
use crate::api::error::ApiError;
use crate::api::error::media::MediaError;
use crate::api::openapi::{Operation, Parameter};
use crate::api::whip::check_grant;
use crate::api::{Names, Pairs, authorize, check_rate, device_name};
use crate::app::App;
use crate::auth::Principal;
use crate::metrics::websocket::{Direction, measure};
use crate::registry::Protocol;
use crate::sockets::SocketPlace;
use crate::trace;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use dialect::Dialect;
use futures::{Sink, SinkExt as _, Stream, StreamExt as _};
use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite;

/// Longest message of a client; beyond, the socket is closed with 1009.
const MAX_INBOUND: usize = 512 * 1024;
/// What is read of a longer one before it is given up: a client that said a little too much hears why.
const MAX_READ: usize = MAX_INBOUND + 64 * 1024;
/// Each socket has that always. Most messages are shorter.
const READ_BUFFER: usize = 4096;
const PING_EVERY: Duration = Duration::from_secs(54);
/// Only pongs show that the peer is there.
const PONG_WITHIN: Duration = Duration::from_secs(60);
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// Messages that wait to be written.
const QUEUE: usize = 256;
/// How long a message waits for room in the queue before it is dropped.
const QUEUED_WITHIN: Duration = Duration::from_secs(1);
/// Answers to control messages that wait, beside those.
const ANSWERS: usize = 64;
/// The subprotocol whose next word is the token, and which is answered.
const SUBPROTOCOL: &str = "bearer";

/// The query of an upgrade. Never logged: it may have a token in it.
const TOKEN: Parameter = Parameter {
    name: "token",
    description: "The token, where it can be neither in a header nor behind the subprotocol `bearer`",
};
const USER: Parameter = Parameter {
    name: "userId",
    description: "Who the client is, the `sub` of its token; it may be left out with `sessionId`",
};
const DEVICE: Parameter = Parameter {
    name: "deviceId",
    description: "The device that messages mean which name none",
};
const SESSION: Parameter = Parameter {
    name: "sessionId",
    description: "A session of the client's that the socket joins",
};

const ANSWERED: &[(u16, &str)] = &[(101, ""), (400, "Error"), (403, "Unauthorized")];

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        method: "get",
        path: "/api/media/ws",
        summary: "Open a WebSocket; userId must be in the query, or the sessionId that it joins",
        query: &[USER, DEVICE, SESSION, TOKEN],
        request: None,
        answers: ANSWERED,
        handler: || get(open),
    },
    Operation {
        method: "get",
        path: "/ws/device/{id}",
        summary: "Open a WebSocket for a device, whose sessions end with it",
        query: &[SESSION, TOKEN],
        request: None,
        answers: ANSWERED,
        handler: || get(open_for_device),
    },
];

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

async fn open(
    State(app): State<Arc<App>>,
    query: Pairs,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Result<Response, MediaError> {
    let principal = caller(&app, &headers, &query).await?;
    let [user, device, session] = [USER, DEVICE, SESSION].map(|asked| of(&query, asked));
    if user.is_empty() && session.is_empty() {
        return Err(MediaError::Invalid("userId is required".to_owned()));
    }
    if !user.is_empty() {
        offered::check_user(&app, &principal, user)?;
    }
    let device = match device {
        "" => None,
        device => Some(principal.key_of(device_name(device)?)),
    };
    let parent = trace::http::parent(&headers);
    let dialect = Dialect::new(principal, user.to_owned(), device, parent);
    begin(app, dialect, session.to_owned(), upgrade)
}

async fn open_for_device(
    State(app): State<Arc<App>>,
    Names(device): Names<String>,
    query: Pairs,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Result<Response, MediaError> {
    let principal = caller(&app, &headers, &query).await?;
    let device = principal.key_of(device_name(&device)?);
    check_grant(&app, Protocol::Session, &principal, &device)?;
    let user = principal.subject.clone().unwrap_or_default();
    let parent = trace::http::parent(&headers);
    let dialect = Dialect::new(principal, user, Some(device), parent);
    begin(app, dialect, of(&query, SESSION).to_owned(), upgrade)
}

fn of(query: &Pairs, asked: Parameter) -> &str {
    query.first(asked.name).unwrap_or_default()
}

/// Checks the token, wherever it is.
async fn caller(app: &App, headers: &HeaderMap, query: &Pairs) -> Result<Principal, MediaError> {
    let protocols = headers.get(header::SEC_WEBSOCKET_PROTOCOL);
    let mut words = protocols
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .split(',')
        .map(str::trim);
    let of_protocol = words.find(|word| *word == SUBPROTOCOL).and(words.next());
    let token = of_protocol.or(query.first(TOKEN.name));
    let principal = match token {
        Some(token) => authorize(app, Some(&format!("Bearer {token}"))).await?,
        None => crate::api::principal(app, headers).await?,
    };
    check_rate(app, &principal)?;
    check_origin(app, headers)?;
    Ok(principal)
}

/// Lets in who is no page, pages of this server and those of allowed origins: browsers ask no server whether
/// others may open a WebSocket (RFC 6455 §10.2), as they do for requests.
fn check_origin(app: &App, headers: &HeaderMap) -> Result<(), MediaError> {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(());
    };
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    let authority = origin.to_str().ok().and_then(|o| o.split_once("://"));
    let own = authority.is_some_and(|(_, authority)| Some(authority.as_bytes()) == host);
    if own || allowed_origin(&app.config.cors_origins, origin).is_some() {
        Ok(())
    } else {
        Err(MediaError::Origin)
    }
}

fn begin(
    app: Arc<App>,
    dialect: Dialect,
    session: String,
    upgrade: Upgrade,
) -> Result<Response, MediaError> {
    let upgrade = upgrade.map_err(|rejection| MediaError::Invalid(rejection.body_text()))?;
    let Some(place) = app.sockets.try_take(dialect.holder().as_deref()) else {
        app.metrics.count("media_bound_hits_total", &["websockets"]);
        return Err(MediaError::Api(ApiError::Sockets));
    };
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .read_buffer_size(READ_BUFFER)
        .max_message_size(MAX_READ)
        .max_frame_size(MAX_READ);
    Ok(upgrade.on_upgrade(move |socket| run(app, dialect, session, socket, place)))
}

/// Runs a socket to its end.
async fn run(
    app: Arc<App>,
    mut dialect: Dialect,
    session: String,
    socket: WebSocket,
    mut place: SocketPlace,
) {
    app.usage.connection_opened();
    let (sink, mut stream) = socket.split();
    let (queue, queued) = mpsc::channel(QUEUE);
    let (answers, answered) = mpsc::channel(ANSWERS);
    let mut outbox = Outbox {
        app: app.clone(),
        queue,
        answers,
    };
    let counts = app.clone();
    let written =
        move |kind: &str, bytes| measure(&counts.metrics, kind, Direction::Outbound, bytes);
    let mut writing = tokio::spawn(write(sink, queued, answered, written));
    if !session.is_empty() {
        dialect.begin(&app, &session, &mut outbox).await;
    }
    let ended = async {
        tokio::select! {
            () = place.stopped() => Some(close_code::AWAY),
            _ = &mut writing => None,
        }
    };
    let code = read(&app, &mut stream, &mut dialect, &mut outbox, ended).await;
    dialect.end(&app).await;
    if let Some(code) = code {
        outbox.close(code).await;
        // What waits is written first, within the deadline of each.
        drop(outbox);
        let _ = writing.await;
    }
    app.usage.connection_closed();
}

/// Reads until the client or `ended` ends it; returns the code to close with, if there is somebody to hear it.
async fn read<E: Error>(
    app: &Arc<App>,
    stream: &mut (impl Stream<Item = Result<Message, E>> + Unpin),
    dialect: &mut Dialect,
    outbox: &mut Outbox,
    ended: impl Future<Output = Option<u16>>,
) -> Option<u16> {
    let mut ended = pin!(ended);
    let mut deadline = Instant::now() + PONG_WITHIN;
    loop {
        let next = tokio::select! {
            next = next(stream, &mut deadline) => next,
            code = &mut ended => return code,
        };
        let bytes = match next {
            Ok(bytes) => bytes,
            Err(code) => return Some(code),
        };
        let begun = Instant::now();
        // To its end, which is never far: cut off, it would leave a session that no socket has.
        let kind = dialect.handle(app, &bytes, outbox).await;
        // Pongs were not read meanwhile.
        deadline += begun.elapsed();
        measure(&app.metrics, kind, Direction::Inbound, bytes.len());
    }
}

/// The next message of a client.
///
/// # Errors
/// The code to close with.
async fn next<E: Error>(
    stream: &mut (impl Stream<Item = Result<Message, E>> + Unpin),
    deadline: &mut Instant,
) -> Result<Bytes, u16> {
    loop {
        let message = tokio::select! {
            message = stream.next() => message,
            () = tokio::time::sleep_until(*deadline) => return Err(close_code::POLICY),
        };
        let bytes = match message {
            Some(Ok(Message::Text(text))) => text.into(),
            Some(Ok(Message::Binary(bytes))) => bytes,
            Some(Ok(Message::Pong(_))) => {
                *deadline = Instant::now() + PONG_WITHIN;
                continue;
            }
            Some(Ok(Message::Ping(_))) => continue,
            Some(Ok(Message::Close(_))) | None => return Err(close_code::NORMAL),
            Some(Err(error)) => return Err(code_of(&error)),
        };
        return match bytes.len() {
            0..=MAX_INBOUND => Ok(bytes),
            _ => Err(close_code::SIZE),
        };
    }
}

/// The code of what can't be read (RFC 6455 §7.4.1).
fn code_of(error: &impl Error) -> u16 {
    match error.source().and_then(|cause| cause.downcast_ref()) {
        Some(tungstenite::Error::Capacity(_)) => close_code::SIZE,
        Some(tungstenite::Error::Utf8(_)) => close_code::INVALID,
        _ => close_code::PROTOCOL,
    }
}

/// Writes what is queued, answers to control messages, and pings, until the queue ends or the client takes no
/// more. Texts are told to `written` with their kind, a label.
async fn write(
    mut sink: impl Sink<Message> + Unpin,
    mut queued: mpsc::Receiver<Message>,
    mut answered: mpsc::Receiver<Box<[u8]>>,
    written: impl Fn(&str, usize),
) {
    let mut pings = tokio::time::interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    loop {
        let (kind, message) = tokio::select! {
            message = queued.recv() => match message {
                Some(message) => ("signaling", message),
                None => return,
            },
            Some(answer) = answered.recv() => {
                // An answer is JSON, as the shard made it.
                let text = String::from_utf8_lossy(&answer).into_owned();
                ("control", Message::Text(text.into()))
            }
            _ = pings.tick() => ("ping", Message::Ping(Bytes::new())),
        };
        let text = match &message {
            Message::Text(text) => Some(text.len()),
            _ => None,
        };
        let sent = tokio::time::timeout(WRITE_WITHIN, sink.send(message)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
        if let Some(bytes) = text {
            written(kind, bytes);
        }
    }
}

/// What is sent to a client.
struct Outbox {
    app: Arc<App>,
    queue: mpsc::Sender<Message>,
    answers: mpsc::Sender<Box<[u8]>>,
}

impl Outbox {
    /// Sends one JSON object, a frame of its own.
    async fn send(&self, object: serde_json::Value) {
        let mut text = object.to_string();
        // It may wait for long: without the room that it grew into.
        text.shrink_to_fit();
        let message = Message::Text(text.into());
        if !enqueue(&self.queue, message).await {
            self.app
                .metrics
                .count("media_bound_hits_total", &["websocket_queue"]);
        }
    }

    async fn close(&self, code: u16) {
        let frame = CloseFrame {
            code,
            reason: Default::default(),
        };
        // If there is no room, the connection just ends.
        enqueue(&self.queue, Message::Close(Some(frame))).await;
    }
}

/// Lets a message wait to be written; `false` if there was no room for it in time.
async fn enqueue(queue: &mpsc::Sender<Message>, message: Message) -> bool {
    queue.send_timeout(message, QUEUED_WITHIN).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::tests::app;
    use futures::channel::mpsc as futures_mpsc;
    use futures::stream;
    use std::convert::Infallible;

    const OFFER: &str = include_str!("../../../core/src/sdp/data/chromium-view.sdp");

    type Heard = Result<Message, Infallible>;

    fn text(message: &str) -> Heard {
        Ok(Message::Text(message.into()))
    }

    /// Somebody without a token, and what is sent to them.
    async fn client(app: &Arc<App>) -> (Dialect, Outbox, mpsc::Receiver<Message>) {
        let principal = crate::api::principal(app, &HeaderMap::new()).await;
        let principal = principal.expect("no token is asked for");
        let (queue, queued) = mpsc::channel(QUEUE);
        let (answers, _) = mpsc::channel(ANSWERS);
        let outbox = Outbox {
            app: app.clone(),
            queue,
            answers,
        };
        let (device, parent) = (Some("cam".into()), trace::http::parent_of(None));
        let dialect = Dialect::new(principal, "ann".to_owned(), device, parent);
        (dialect, outbox, queued)
    }

    #[tokio::test]
    async fn a_socket_that_ends_while_it_deals_with_a_message_leaves_no_session_behind() {
        const START: &str = r#"{"type":"start-stream"}"#;
        let app = app().await;
        let (mut dialect, mut outbox, _queued) = client(&app).await;
        dialect.handle(&app, START.as_bytes(), &mut outbox).await;
        let first = app.registry.sessions().pop().expect("a session");
        let older = first.older.as_ref().expect("of the older API");
        // As while an answer waits for a place: the end of the first session waits, and with it the second.
        let answering = older.offered.lock().await;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let reading = tokio::spawn({
            let app = app.clone();
            async move {
                let mut said = pin!(stream::iter([text(START)]).chain(stream::pending()));
                let ended = async move {
                    let _ = stopped.await;
                    Some(close_code::AWAY)
                };
                let code = read(&app, &mut said, &mut dialect, &mut outbox, ended).await;
                dialect.end(&app).await;
                code
            }
        });
        while app.registry.totals() != (0, 2) {
            tokio::task::yield_now().await;
        }
        stop.send(()).expect("it reads");
        tokio::task::yield_now().await;
        drop(answering);
        assert_eq!(reading.await.expect("no panic"), Some(close_code::AWAY));
        assert_eq!(app.registry.totals(), (0, 0));
    }

    #[tokio::test]
    async fn a_socket_may_say_200_messages_at_once_and_fewer_long_ones() {
        let app = app().await;
        for (len, at_once) in [(2, 200..400), (MAX_INBOUND, 7..20)] {
            let (mut dialect, mut outbox, mut queued) = client(&app).await;
            let message = vec![b'x'; len];
            let mut taken = 0;
            loop {
                dialect.handle(&app, &message, &mut outbox).await;
                let Some(Message::Text(answer)) = queued.recv().await else {
                    panic!("no answer");
                };
                if answer.contains("rate_limited") {
                    break;
                }
                taken += 1;
                assert!(taken < 1_000, "no end of {len} bytes");
            }
            assert!(at_once.contains(&taken), "{taken} of {len} bytes");
        }
    }

    #[tokio::test]
    async fn a_pong_that_came_while_a_message_was_dealt_with_counts() {
        let app = app().await;
        let mut places = Vec::new();
        for _ in 0..200 {
            places.push(app.limiter.handshakes.begin().await.expect("free"));
        }
        let (mut dialect, mut outbox, _queued) = client(&app).await;
        tokio::time::pause();
        let start = Instant::now();
        let offer = serde_json::json!({"type": "offer", "sdp": OFFER}).to_string();
        let late = stream::once(async move {
            tokio::time::sleep(Duration::from_secs(55)).await;
            text(&offer)
        });
        // Said while the offer waits 10 s for a place.
        let then = vec!["{}"; 10].into_iter().map(text);
        let pong = stream::iter(then.chain([Ok(Message::Pong(Bytes::new()))]));
        let mut said = pin!(late.chain(pong).chain(stream::pending()));
        let never = std::future::pending();
        let code = read(&app, &mut said, &mut dialect, &mut outbox, never).await;
        assert_eq!(code, Some(close_code::POLICY));
        // The clock of a test goes by milliseconds.
        assert_eq!(start.elapsed().as_secs(), 65 + PONG_WITHIN.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_pong_is_closed_after_a_minute_whatever_else_it_says() {
        let start = Instant::now();
        let mut deadline = start + PONG_WITHIN;
        let (said, mut stream) = futures_mpsc::unbounded::<Heard>();
        let client = tokio::spawn(async move {
            for seconds in [30, 30, 30] {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                let _ = said.unbounded_send(Ok(Message::Text("{}".into())));
            }
            std::future::pending::<()>().await;
        });
        let mut heard = 0;
        let code = loop {
            match next(&mut stream, &mut deadline).await {
                Ok(_) => heard += 1,
                Err(code) => break code,
            }
        };
        client.abort();
        assert_eq!(code, close_code::POLICY);
        assert_eq!(start.elapsed(), PONG_WITHIN);
        assert!((1..=2).contains(&heard), "{heard}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pong_gives_a_client_another_minute() {
        let start = Instant::now();
        let mut deadline = start + PONG_WITHIN;
        let pong = stream::once(async {
            tokio::time::sleep(Duration::from_secs(54)).await;
            Heard::Ok(Message::Pong(Bytes::new()))
        });
        let mut said = std::pin::pin!(pong.chain(stream::pending()));
        let code = next(&mut said, &mut deadline).await;
        assert_eq!(code, Err(close_code::POLICY));
        assert_eq!(start.elapsed(), Duration::from_secs(54 + 60));
    }

    #[tokio::test]
    async fn a_message_of_512_kib_is_taken_and_a_longer_one_closes_with_1009() {
        for (len, expected) in [(MAX_INBOUND, Ok(MAX_INBOUND)), (MAX_INBOUND + 1, Err(1009))] {
            let message = Message::Binary(vec![b'x'; len].into());
            let mut said = stream::iter([Heard::Ok(message)]);
            let mut deadline = Instant::now() + PONG_WITHIN;
            let got = next(&mut said, &mut deadline).await;
            assert_eq!(got.map(|bytes| bytes.len()), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn for_a_client_that_takes_nothing_256_messages_wait_and_the_next_one_a_second() {
        let start = Instant::now();
        let (queue, _queued) = mpsc::channel(QUEUE);
        let message = || Message::Text("{}".into());
        for _ in 0..256 {
            assert!(enqueue(&queue, message()).await);
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(!enqueue(&queue, message()).await);
        assert_eq!(start.elapsed(), QUEUED_WITHIN);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_pinged_every_54_seconds_and_one_that_takes_nothing_has_10() {
        let start = Instant::now();
        let (_queue, queued) = mpsc::channel(QUEUE);
        let (_answers, answered) = mpsc::channel(ANSWERS);
        let (sink, mut taken) = futures_mpsc::channel(1);
        let writing = tokio::spawn(write(sink, queued, answered, |_, _| ()));
        for n in 1..=2 {
            let message = taken.next().await;
            assert!(matches!(message, Some(Message::Ping(_))), "{message:?}");
            assert_eq!(start.elapsed(), PING_EVERY * n);
        }
        // It takes no more: the third finds room, and the fourth waits for it.
        writing.await.expect("no panic");
        assert_eq!(start.elapsed(), PING_EVERY * 4 + WRITE_WITHIN);
    }
}
