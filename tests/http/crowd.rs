//! WebSockets of which one in twenty never reads, 200 or as many as is said: what that is to the others, and to
//! the memory.

use crate::media_port::resident_kib;
use crate::requests::*;
use futures::{SinkExt as _, StreamExt as _, stream};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tests::process::TempDir;
use tests::{MediaServer, wait_for};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

/// One in so many never reads.
const ONE_IN: usize = 20;
/// A server lets a message wait so long for one who does not read. Nobody else may.
const QUEUED_WITHIN: Duration = Duration::from_secs(1);
/// What each that never reads asks for: many times what may wait for it.
const ASKED: usize = 2000;
/// Messages that wait for a socket: those queued, one for room, and one being written.
const WAITING: usize = 256 + 2;
/// What else may be there for all of them, such as the buffers that were used once.
const ELSE_KIB: usize = 64 * 1024;
/// Times that all who read are asked. The best of them is what the server can do, whatever else the machine does.
const ROUNDS: usize = 3;

type Socket = WebSocketStream<TcpStream>;

/// Opens one. A `narrow` one has the least room for what it does not read, in its kernel and in the server's.
async fn open(server: &MediaServer, narrow: bool) -> Socket {
    let socket = TcpSocket::new_v4().expect("a socket");
    if narrow {
        socket.set_recv_buffer_size(4096).expect("it is settable");
        let small = nix::sys::socket::sockopt::TcpMaxSeg;
        nix::sys::socket::setsockopt(&socket, small, &536).expect("it is settable");
    }
    let stream = socket.connect(server.http).await.expect("a connection");
    stream.set_nodelay(true).expect("it is settable");
    let url = format!("ws://{}/api/media/ws?userId=ann", server.http);
    client_async(url, stream).await.expect("it is let in").0
}

/// Opens so many of them.
async fn crowd(server: &MediaServer, count: usize, narrow: bool) -> Vec<Socket> {
    let all = stream::iter(0..count).map(|_| open(server, narrow));
    all.buffer_unordered(32).collect().await
}

/// What is allowed where the machine does nothing else (`cargo xtask test --long`): the median of all rounds, in
/// quarters of the worse of before and after, and the longest of 99 of 100.
const QUIET_QUARTERS: u32 = 6;
const QUIET_MOST: Duration = Duration::from_millis(50);

/// How long those who read waited for an answer: in the best round, and in all of them.
struct Waited {
    median: Duration,
    /// Of 100, 99 waited no longer.
    most: Duration,
    of_all: (Duration, Duration),
    /// Length of an answer.
    bytes: usize,
}

/// A short request with a long answer: the whole SDP of a session, which stays half a minute without its client.
async fn join(server: &MediaServer) -> Message {
    let body = json!({"deviceId": "cam-1", "offer": VIEW}).to_string();
    let created = post(server, "/api/media/sessions", &body).await;
    let created: Value = created.json().await.expect("JSON");
    let join = json!({"type": "join", "sessionId": created["id"]}).to_string();
    Message::Text(join.into())
}

/// Asks over each socket, one after the other, several times.
async fn ask_all(server: &MediaServer, sockets: &mut [Socket]) -> Waited {
    let mut best = Waited {
        median: Duration::MAX,
        most: Duration::MAX,
        of_all: (Duration::MAX, Duration::MAX),
        bytes: 0,
    };
    let mut all = Vec::new();
    for _ in 0..ROUNDS {
        let request = join(server).await;
        let mut took = Vec::new();
        for socket in &mut *sockets {
            let asked = Instant::now();
            socket.send(request.clone()).await.expect("it is taken");
            let answer = tokio::time::timeout(PATIENCE, socket.next()).await;
            took.push(asked.elapsed());
            match answer {
                Ok(Some(Ok(Message::Text(text)))) if text.contains("v=0") => {
                    best.bytes = text.len();
                }
                other => panic!("{other:?}"),
            }
        }
        let (median, most) = of(&mut took);
        best.median = best.median.min(median);
        best.most = best.most.min(most);
        all.append(&mut took);
    }
    best.of_all = of(&mut all);
    best
}

/// The median, and what 99 of 100 do not exceed.
fn of(took: &mut [Duration]) -> (Duration, Duration) {
    took.sort();
    (took[took.len() / 2], took[took.len() * 99 / 100])
}

fn allow_open_files() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("it is readable");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("it may be all that there may be");
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_that_never_read_cost_the_others_nothing_and_no_more_than_their_queues() {
    allow_open_files();
    let asked = std::env::var("CROWD").ok();
    let is_quiet = asked.is_some();
    let all: usize = asked.map_or(200, |all| all.parse().expect("a number"));
    let stuck_ones = all / ONE_IN;
    let reading = all - stuck_ones;
    let dir = TempDir::new("crowd");
    let config = dir.path().join("config.toml");
    std::fs::write(&config, "[http]\nconnections = 8192\n").expect("it can be written");
    let config = config.display().to_string();
    // Without tokens no subject has a bound: the worst that can come.
    let server = MediaServer::open(&["--config", &config]).await;
    let value =
        async |name: &str, labels: &[(&str, &str)]| server.metrics().await.sum(name, labels);
    let open = async || value("media_websocket_connections", &[]).await;
    let dropped = async || value("media_bound_hits_total", &[("bound", "websocket_queue")]).await;

    let mut readers = crowd(&server, reading, false).await;
    let stuck = crowd(&server, stuck_ones, true).await;
    assert_eq!(open().await, all as f64);
    let before = ask_all(&server, &mut readers).await;
    let resident = resident_kib(&server);

    let request = join(&server).await;
    for mut socket in stuck {
        let mut asked = stream::repeat(request.clone()).take(ASKED).map(Ok);
        tokio::spawn(async move {
            // Ends with an error when the server gives it up; the socket stays all the same.
            let _ = socket.send_all(&mut asked).await;
            std::future::pending::<Socket>().await
        });
    }
    wait_for("their queues to be full", PATIENCE, || async {
        match dropped().await {
            hits if hits >= stuck_ones as f64 => Ok(()),
            hits => Err(hits),
        }
    })
    .await;
    let full = dropped().await;
    let during = ask_all(&server, &mut readers).await;
    let grown = resident_kib(&server).saturating_sub(resident) as usize;
    let (still, more) = (open().await, dropped().await - full);

    // Each has 10 s to take what is written to it.
    wait_for("those that do not read to be cut off", PATIENCE, || async {
        match open().await {
            left if left == reading as f64 => Ok(()),
            left => Err(left),
        }
    })
    .await;
    let after = ask_all(&server, &mut readers).await;
    let bound = stuck_ones * WAITING * before.bytes / 1024 + ELSE_KIB;
    let seen = format!(
        "answers of {} bytes: median {:?}, with {stuck_ones} that do not read {:?}; 99 of 100 {:?}, with them {:?}; \
         in all rounds, before, with them and after {:?}, {:?}, {:?}; {grown} KiB more of {bound}; {more} messages dropped meanwhile, and {still} sockets open at its end",
        before.bytes,
        before.median,
        during.median,
        before.most,
        during.most,
        before.of_all,
        during.of_all,
        after.of_all
    );
    println!("{seen}");
    assert!(still > reading as f64, "{seen}");
    assert!(during.median < 4 * before.median, "{seen}");
    assert!(during.most < QUEUED_WITHIN, "{seen}");
    if is_quiet {
        let (median, most) = during.of_all;
        let usual = before.of_all.0.max(after.of_all.0);
        assert!(4 * median < QUIET_QUARTERS * usual, "{seen}");
        assert!(most < QUIET_MOST, "{seen}");
    }
    assert!(grown < bound, "{seen}");
}
