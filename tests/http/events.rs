//! Events to a webhook: what arrives, that it is signed, and what happens when it is not taken.

use crate::requests::*;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tests::https::{Answer, Https};
use tests::namespace::in_network_with;
use tests::process::TempDir;
use tests::recordings;
use tests::webhook::{is_signed, secret, taken};
use tests::{MediaServer, wait_for};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

/// An address of documentation (RFC 5737): none of this machine or its link.
const RECEIVER: &str = "192.0.2.1";
const NETWORK: &[&str] = &["192.0.2.1/32"];
const KEY: &[u8] = b"a secret that both sides have";

/// A server that tells a receiver.
struct Told {
    server: MediaServer,
    receiver: Https,
    _secret: TempDir,
}

impl Told {
    /// `more` are its other flags.
    async fn start(more: &[&str]) -> Self {
        let receiver = Https::start(RECEIVER, Answer::status("204 No Content")).await;
        let dir = TempDir::new("webhook");
        let file = dir.path().join("secret");
        std::fs::write(&file, format!("{}\n", secret(KEY))).expect("written");
        let (file, ca) = (
            file.display().to_string(),
            receiver.ca_file().display().to_string(),
        );
        let url = receiver.url("/events");
        let webhook = ["--webhook-url", &url, "--webhook-secret-file", &file];
        let server = MediaServer::closed(&[&webhook[..], &["--ca-file", &ca], more].concat()).await;
        Self {
            server,
            receiver,
            _secret: dir,
        }
    }

    async fn open(&self, device: &str) -> String {
        let token = self.server.token(device, "publish");
        let path = format!("/whip/{device}");
        let posted = request(&self.server, Method::POST, &path, SDP, PUBLISH).bearer_auth(token);
        let response = send(posted).await;
        assert_eq!(response.status(), 201, "{device}");
        location(&response)
    }

    async fn close(&self, session: &str) {
        let token = self.server.token("x", "view");
        let deleted = request(&self.server, Method::DELETE, session, SDP, "").bearer_auth(token);
        assert_eq!(send(deleted).await.status(), 200, "{session}");
    }

    /// Type and device of the events that were taken, once there are so many.
    async fn taken(&self, count: usize) -> Vec<(String, String)> {
        let events = wait_for(&format!("{count} events"), PATIENCE, || async {
            let taken = taken(&self.receiver);
            if taken.len() >= count {
                Ok(taken)
            } else {
                Err(taken.len())
            }
        })
        .await;
        let text = |event: &Value, field: &str| event[field].as_str().expect("text").to_owned();
        events
            .iter()
            .map(|request| {
                let event: Value = serde_json::from_str(&request.body).expect("JSON");
                (text(&event, "event_type"), text(&event, "device_id"))
            })
            .collect()
    }
}

fn pairs(devices: &[&str]) -> Vec<(String, String)> {
    let events = |device: &&str| {
        ["session.created", "session.closed"].map(|kind| (kind.to_owned(), (*device).to_owned()))
    };
    devices.iter().flat_map(events).collect()
}

#[test]
fn a_webhook_is_told_of_sessions_in_order_and_signed_and_misses_none_while_it_is_away() {
    in_network_with(NETWORK, async {
        let mut told = Told::start(&[]).await;
        let session = told.open("cam-1").await;
        told.close(&session).await;
        assert_eq!(told.taken(2).await, pairs(&["cam-1"]));
        let requests = told.receiver.requests();
        for request in &requests {
            assert!(is_signed(request, KEY), "{request:?}");
        }
        let closed: Value = serde_json::from_str(&requests[1].body).expect("JSON");
        let id = session.rsplit('/').next().expect("an id");
        let fields = json!({
            "event_type": "session.closed", "service": "media-service", "session_id": id, "device_id": "cam-1",
            "user_id": "ann", "reason": "normal_close", "duration_seconds": closed["duration_seconds"],
            "timestamp": closed["timestamp"],
        });
        assert_eq!(closed, fields);

        told.receiver
            .answer(Answer::status("503 Service Unavailable"));
        for device in ["cam-2", "cam-3", "cam-4"] {
            let session = told.open(device).await;
            told.close(&session).await;
        }
        wait_for("a second attempt", PATIENCE, || async {
            let failed = told.receiver.requests().len() - taken(&told.receiver).len();
            if failed >= 2 { Ok(()) } else { Err(failed) }
        })
        .await;
        let waiting = told
            .server
            .metrics()
            .await
            .value("media_events_waiting", &[("sink", "webhook")]);
        assert_eq!(waiting, Some(6.0));
        told.receiver.answer(Answer::status("200 OK"));
        assert_eq!(
            told.taken(8).await,
            pairs(&["cam-1", "cam-2", "cam-3", "cam-4"])
        );
        let requests = told.receiver.requests();
        let of = |status: &str| {
            requests
                .iter()
                .find(|r| r.status == status)
                .expect("one")
                .headers["webhook-id"]
                .clone()
        };
        assert_eq!(
            of("503 Service Unavailable"),
            of("200 OK"),
            "the same event has the same id again"
        );

        // Whoever says that it is the event which is wrong is not told of it again.
        let wrong = [
            "400 Bad Request",
            "413 Payload Too Large",
            "422 Unprocessable Entity",
        ];
        let refused = [("sink", "webhook"), ("reason", "refused")];
        for (status, count) in wrong.into_iter().zip(1u8..) {
            told.receiver.answer(Answer::status(status));
            let device = format!("wrong-{count}");
            let session = told.open(&device).await;
            wait_for("an event to be dropped", PATIENCE, || async {
                let metrics = told.server.metrics().await;
                match metrics.value("media_events_dropped_total", &refused) {
                    Some(dropped) if dropped == f64::from(count) => Ok(()),
                    other => Err(format!("{status}: {other:?}")),
                }
            })
            .await;
            told.receiver.answer(Answer::status("200 OK"));
            told.close(&session).await;
            let taken = told.taken(8 + usize::from(count)).await;
            assert_eq!(taken.last(), pairs(&[&device]).last());
        }
        let metrics = told.server.metrics().await;
        let webhook = [("sink", "webhook")];
        assert_eq!(
            metrics.value("media_events_delivered_total", &webhook),
            Some(11.0)
        );
        assert!(metrics.value("media_events_retries_total", &webhook) >= Some(1.0));

        // What is left at the end is told before the end, though the receiver is away for a moment.
        let away = "503 Service Unavailable";
        told.receiver.answer(Answer::status(away));
        told.open("cam-6").await;
        told.server.process().signal("INT");
        let failed = || {
            let requests = told.receiver.requests();
            requests.iter().filter(|r| r.status == away).count()
        };
        let before = failed();
        wait_for("attempts after the end was asked for", PATIENCE, || async {
            match failed() {
                attempts if attempts >= before + 4 => Ok(()),
                attempts => Err(attempts - before),
            }
        })
        .await;
        told.receiver.answer(Answer::status("200 OK"));
        assert_eq!(told.taken(13).await[11..], pairs(&["cam-6"]));
        let last = taken(&told.receiver).pop().expect("an event");
        assert!(last.body.contains(r#""reason":"drained""#), "{}", last.body);
    });
}

/// What waits for the answer to an offer of ours is on no shard, and of the SFU's nobody was told at all.
#[test]
fn sessions_that_nobody_answered_are_told_of_as_ended_when_the_server_stops() {
    in_network_with(NETWORK, async {
        let mut told = Told::start(&[]).await;
        let token = told.server.token("*", "view");
        for (path, device) in [("sessions", "cam-1"), ("sfu/publishers", "cam-2")] {
            let body = json!({"deviceId": device, "userId": "ann"}).to_string();
            let path = format!("/api/media/{path}");
            let posted = request(&told.server, Method::POST, &path, "application/json", body);
            assert_eq!(send(posted.bearer_auth(&token)).await.status(), 200);
        }
        told.taken(2).await;
        told.server.process().signal("INT");
        told.taken(4).await;
        let mut ended = BTreeSet::new();
        for event in &taken(&told.receiver)[2..] {
            let event: Value = serde_json::from_str(&event.body).expect("JSON");
            assert_eq!(event["event_type"], "session.closed", "{event}");
            assert_eq!(event["reason"], "drained", "{event}");
            assert_eq!(event["user_id"], "ann", "{event}");
            ended.insert(event["device_id"].to_string());
        }
        let all = ["\"cam-1\"", "\"cam-2\""].map(str::to_owned);
        assert_eq!(ended, BTreeSet::from(all));
    });
}

/// Kubernetes and many a service manager kill what has not ended 30 s after SIGTERM.
#[test]
fn the_end_takes_less_than_30_s_though_a_session_stays_and_a_receiver_and_a_request_do_not_answer()
{
    in_network_with(NETWORK, async {
        let dir = TempDir::new("end");
        let file = dir.path().join("secret");
        std::fs::write(&file, secret(KEY)).expect("written");
        // It takes connections, and says nothing.
        let silent = TcpListener::bind((RECEIVER, 0)).await.expect("a port");
        let url = format!("https://{}/events", silent.local_addr().expect("bound"));
        let file = file.display().to_string();
        let webhook = ["--webhook-url", &url, "--webhook-secret-file", &file];
        let mut server = MediaServer::open(&webhook).await;
        let publisher = publisher(&server, "cam-1").await;
        let mut request = TcpStream::connect(server.http).await.expect("connects");
        let half = "POST /whip/cam-2 HTTP/1.1\r\nHost: x\r\nContent-Type: application/sdp\r\nContent-Length: 10\r\n\r\nv=0";
        let asked = Instant::now();
        server.process().signal("TERM");
        request.write_all(half.as_bytes()).await.expect("writes");
        wait_for("the server to end", Duration::from_secs(60), || {
            let ended = server.process().ended();
            async move { ended.ok_or("still running") }
        })
        .await;
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(30), "{took:?}");
        let log = server.process().log();
        assert!(
            log.contains("events were not delivered before the end"),
            "{log}"
        );
        assert!(log.contains("stopped"), "{log}");
        drop((publisher, request, silent));
    });
}

#[test]
fn a_session_that_never_connects_is_an_error_and_then_closed() {
    in_network_with(NETWORK, async {
        let told = Told::start(&[]).await;
        told.open("cam-1").await;
        // Nothing is sent to it: its set-up ends after 15 s.
        wait_for(
            "the end of the session",
            Duration::from_secs(60),
            || async {
                let count = taken(&told.receiver).len();
                if count >= 3 { Ok(()) } else { Err(count) }
            },
        )
        .await;
        let kinds: Vec<String> = told
            .taken(3)
            .await
            .into_iter()
            .map(|(kind, _)| kind)
            .collect();
        assert_eq!(
            kinds,
            ["session.created", "session.error", "session.closed"]
        );
        let error: Value = serde_json::from_str(&taken(&told.receiver)[1].body).expect("JSON");
        assert_eq!(error["error"], "setup_timeout");
    });
}

#[test]
fn a_webhook_is_told_of_recordings_and_the_names_of_their_files() {
    in_network_with(NETWORK, async {
        let folder = TempDir::new("recordings");
        let path = folder.path().display().to_string();
        let told = Told::start(&["--recording-dir", &path]).await;
        let session = told.open("cam-1").await;
        let session = session.rsplit('/').next().expect("an id");
        let token = told.server.token("cam-1", "record");
        let ask = async |path: &str, body: String| -> Value {
            let path = format!("/api/media/recordings{path}");
            let posted = Client::new().post(told.server.url(&path)).body(body);
            let response = send(posted.bearer_auth(&token)).await;
            recordings::json_of(response, 200).await["recording"].clone()
        };
        let wanted = recordings::request(session, "cam-1", json!({}));
        let started = ask("", wanted.to_string()).await;
        let id = started["id"].as_str().expect("an id");
        ask(&format!("/{id}/stop"), String::new()).await;
        told.taken(3).await;
        let events = taken(&told.receiver);
        let file = format!("{id}.webm");
        for (event, kind) in events[1..].iter().zip(["started", "stopped"]) {
            let event: Value = serde_json::from_str(&event.body).expect("JSON");
            let mut fields = json!({
                "event_type": format!("recording.{kind}"), "service": "media-service", "session_id": session,
                "device_id": "cam-1", "recording_path": file, "timestamp": event["timestamp"],
            });
            if kind == "stopped" {
                fields["duration_seconds"] = json!(0);
            }
            assert_eq!(event, fields);
        }
    });
}
