//! A server, a device that sends, viewers, and all that a service sees in a day, in half a minute.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use client::synthetic::FrameSource;
use client::{Codec, Http, HttpOptions, Options, Publisher, Viewer};
use futures::{SinkExt as _, StreamExt as _};
use reqwest::{Client, StatusCode};
use serde_json::json;
use tests::link::Conditions;
use tests::process::TempDir;
use tests::scraping::{PATIENCE, Scraping};
use tests::{Link, MediaServer, wait_for};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const VP8: &[Codec] = &[Codec::Vp8];
/// One way, of one viewer.
pub const DELAY: Duration = Duration::from_millis(50);
/// Sessions that the server takes.
const MOST: &str = "5";
const PACKETS: usize = 4;
const PAYLOAD: usize = 300;
const PACE: Duration = Duration::from_millis(20);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub struct Traffic {
    pub server: MediaServer,
    publisher: Publisher,
    link: Link,
    source: Mutex<FrameSource>,
    frames: AtomicU64,
    began: Instant,
    stop: AtomicBool,
    _recordings: TempDir,
}

/// What has happened, as somebody outside counts it.
pub struct Done {
    /// Of both devices.
    pub created: f64,
    pub closed_normally: f64,
    pub superseded: f64,
    pub refused: f64,
    /// Bytes of each message that a WebSocket was sent, and there were three.
    pub message_bytes: f64,
    pub since: Instant,
    /// They stay until the end.
    _viewers: Vec<Viewer>,
    _sockets: Vec<Socket>,
}

impl Traffic {
    pub async fn start() -> Self {
        let recordings = TempDir::new("recordings");
        let folder = recordings.path().display().to_string();
        let server =
            MediaServer::closed(&["--sessions-per-pod", MOST, "--recording-dir", &folder]).await;
        let publisher = publish(&server, "cam-1").await;
        let link = Link::start(server.media, 71);
        link.set_both(Conditions {
            delay: DELAY,
            ..Conditions::default()
        });
        Self {
            publisher,
            link,
            source: Mutex::new(FrameSource::new(Codec::Vp8, PACKETS, PAYLOAD, 1)),
            frames: AtomicU64::new(0),
            began: Instant::now(),
            stop: AtomicBool::new(false),
            server,
            _recordings: recordings,
        }
    }

    /// The device sends, 50 frames a second, until `looking` is done.
    pub async fn while_sending(&self, looking: impl Future<Output = ()>) {
        let looking = async {
            looking.await;
            self.stop.store(true, Relaxed);
        };
        let sending = async {
            let mut tick = tokio::time::interval(PACE);
            let track = self.publisher.track(Codec::Vp8).expect("a VP8 track");
            let mut answered = u64::MAX;
            while !self.stop.load(Relaxed) {
                tick.tick().await;
                let asked = self.publisher.keyframe_requests();
                let keyframe = std::mem::replace(&mut answered, asked) != asked;
                let payloads = self.source.lock().expect("nobody panicked").frame(keyframe);
                let passed = self.began.elapsed().as_secs_f64();
                let timestamp = (passed * f64::from(Codec::Vp8.clock_rate())) as u32;
                self.frames.fetch_add(1, Relaxed);
                let last = payloads.len() - 1;
                for (at, payload) in payloads.into_iter().enumerate() {
                    track
                        .send(timestamp, at == last, payload)
                        .await
                        .expect("sent");
                }
            }
        };
        tokio::join!(looking, sending);
    }

    /// Frames and bits a second that the device sends, over the next two seconds.
    pub async fn rates(&self) -> (f64, f64) {
        let (from, at) = (self.frames.load(Relaxed), Instant::now());
        wait_for("the device to send a hundred frames", PATIENCE, || async {
            match self.frames.load(Relaxed) - from {
                frames if frames >= 100 => Ok(()),
                frames => Err(frames),
            }
        })
        .await;
        let frames = (self.frames.load(Relaxed) - from) as f64 / at.elapsed().as_secs_f64();
        (frames, frames * (PACKETS * PAYLOAD * 8) as f64)
    }

    /// Each counter is seen by Prometheus before it goes on: a rate needs two values.
    pub async fn happens(&self, scraped: &Scraping) -> Done {
        let since = Instant::now();
        scraped.is("sum(media_sessions_created_total)", 1.0).await;
        let mut viewers = vec![self.watch(Some(&self.link)).await];
        for _ in 0..3 {
            viewers.push(self.watch(None).await);
        }
        // A service that nothing has failed of has a share.
        let failed = "mediaservice:availability_errors:ratio_rate5m";
        scraped.is(failed, 0.0).await;
        let full = self.post("/whep/cam-1", "application/sdp", VIEW).await;
        assert_eq!(full, StatusCode::SERVICE_UNAVAILABLE);
        let refused = "sum(media_http_requests_total{status=\"503\"})";
        scraped.is(refused, 1.0).await;
        let full = self.post("/whep/cam-1", "application/sdp", VIEW).await;
        assert_eq!(full, StatusCode::SERVICE_UNAVAILABLE);
        scraped.is("media_active_sessions", 5.0).await;

        for viewer in viewers.drain(2..) {
            viewer.close().await.expect("a viewer can leave");
        }
        let first = publish(&self.server, "cam-2").await;
        let of = |reason: &str| {
            format!("media_sessions_closed_total{{device_id=\"cam-2\",reason=\"{reason}\"}}")
        };
        scraped.is(&of("superseded"), 0.0).await;
        let second = publish(&self.server, "cam-2").await;
        scraped.is(&of("superseded"), 1.0).await;
        second.close().await.expect("a device can leave");
        drop(first);

        let segments = self.publisher.resource().url.path_segments();
        let id = segments.and_then(|mut all| all.next_back()).expect("an id");
        let recording = json!({"sessionId": id, "deviceId": "cam-1"}).to_string();
        let started = self
            .post("/api/media/recordings", "application/json", &recording)
            .await;
        assert_eq!(started, StatusCode::OK);
        let stranger = Client::new().get(self.server.url("/api/v1/devices"));
        let stranger = stranger.bearer_auth("x").send().await.expect("an answer");
        assert_eq!(stranger.status(), StatusCode::UNAUTHORIZED);

        let message = json!({"type": "join", "sessionId": "x"}).to_string();
        let mut sockets = vec![self.socket().await, self.socket().await];
        say(&mut sockets[0], &message).await;
        let heard = "media_websocket_messages_total{direction=\"inbound\",type=\"signaling\"}";
        scraped.is(heard, 1.0).await;
        say(&mut sockets[0], &message).await;
        say(&mut sockets[1], &message).await;
        Done {
            created: 7.0,
            closed_normally: 3.0,
            superseded: 1.0,
            refused: 2.0,
            message_bytes: message.len() as f64,
            since,
            _viewers: viewers,
            _sockets: sockets,
        }
    }

    async fn watch(&self, link: Option<&Link>) -> Viewer {
        let options = Options {
            media_address: link.map(Link::address),
            ..Options::default()
        };
        let url = self.server.url("/whep/cam-1");
        let http = http(&self.server, "cam-1");
        wait_for("the viewer to be let in", PATIENCE, || async {
            Viewer::connect(&url, &http, &options, VP8, None).await
        })
        .await
    }

    async fn post(&self, path: &str, content: &str, body: &str) -> StatusCode {
        let request = Client::new().post(self.server.url(path));
        let request = request
            .bearer_auth(token(&self.server, "cam-1"))
            .header("content-type", content);
        let answer = request.body(body.to_owned()).send().await;
        answer.expect("an answer").status()
    }

    async fn socket(&self) -> Socket {
        let url = format!("ws://{}/api/media/ws?userId=ann", self.server.http);
        let mut request = url.into_client_request().expect("a request");
        let protocol = format!("bearer, {}", token(&self.server, "cam-1"));
        let value = protocol.parse().expect("a header");
        request
            .headers_mut()
            .insert("sec-websocket-protocol", value);
        connect_async(request).await.expect("it is let in").0
    }
}

/// An offer to watch, as Chromium writes it.
const VIEW: &str = include_str!("../../media-server/core/src/sdp/data/chromium-view.sdp");

/// Says something, and waits for the answer.
async fn say(socket: &mut Socket, message: &str) {
    let message = Message::Text(message.to_owned().into());
    socket.send(message).await.expect("it is taken");
    let answer = tokio::time::timeout(PATIENCE, socket.next()).await;
    answer.expect("in time").expect("open").expect("an answer");
}

fn token(server: &MediaServer, device: &str) -> String {
    server.token(device, "publish,view,record")
}

fn http(server: &MediaServer, device: &str) -> Http {
    let options = HttpOptions {
        token: Some(token(server, device)),
        ..HttpOptions::default()
    };
    Http::new(&options).expect("an HTTP client")
}

async fn publish(server: &MediaServer, device: &str) -> Publisher {
    let url = server.url(&format!("/whip/{device}"));
    let http = http(server, device);
    let published = Publisher::connect(&url, &http, &Options::default(), VP8).await;
    published.unwrap_or_else(|error| panic!("{device} cannot publish: {error:?}"))
}
