//! A RabbitMQ that is away, twice, while devices publish and viewers watch: no session notices, and every event is there
//! afterwards, in order. And one that is away for more events than may wait.
//!
//! It is away for a quarter of a minute; for a minute where the variable `BROKER_AWAY_SECONDS` says so, as `cargo xtask test
//! --long` does.
#![forbid(unsafe_code)]

mod overflow;

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::namespace::in_network_with;
use tests::process::{TempDir, program};
use tests::rabbit::{Got, Rabbit};
use tests::{MediaServer, wait_for};

/// Held by a test while it runs: a broker and a load want the machine for themselves.
static ALONE: Mutex<()> = Mutex::new(());

/// How long the broker is away: longer than the server waits for its word.
const AWAY: Duration = Duration::from_secs(15);
/// After that it is asked again within 30 s.
const BACK_WITHIN: Duration = Duration::from_secs(120);
/// An offer to publish, as Chromium writes it.
const PUBLISH: &str = include_str!("../../media-server/core/src/sdp/data/chromium-publish.sdp");
/// Viewers that come and go each second: two events each.
const CHURN: &str = "4";

#[test]
fn no_session_notices_a_broker_that_is_away_and_no_event_is_lost() {
    let _alone = ALONE.lock();
    in_network_with(&[], async {
        let away = std::env::var("BROKER_AWAY_SECONDS").ok();
        let away = away.map_or(AWAY, |text| {
            Duration::from_secs(text.parse().expect("seconds"))
        });
        let dir = TempDir::new("rabbit");
        let mut rabbit = Rabbit::start(dir.path()).await;
        rabbit.bind().await;
        let url = dir.path().join("url");
        std::fs::write(&url, rabbit.url()).expect("written");
        let url = url.display().to_string();
        let server = MediaServer::open(&["--amqp-url-file", &url]).await;

        let mut fails = String::new();
        let usual = under_load(&server, Duration::from_secs(10), async || {
            fails = never_connects(&server).await;
        })
        .await;
        let calm = arrived(&server, &rabbit).await;
        check("calm", &calm, &[fails]);

        let seen = under_load(&server, away, async || {
            rabbit.signal("STOP");
            tokio::time::sleep(away).await;
            rabbit.signal("CONT");
        })
        .await;
        seen.is_like(&usual);
        let stopped = arrived(&server, &rabbit).await;
        check("stopped", &stopped, &[]);

        let seen = under_load(&server, away, async || {
            rabbit.stop().await;
            tokio::time::sleep(away).await;
        })
        .await;
        seen.is_like(&usual);
        rabbit = Rabbit::start(dir.path()).await;
        let ended = arrived(&server, &rabbit).await;
        check("ended", &ended, &[]);

        let metrics = server.metrics().await;
        for reason in ["full", "old", "refused"] {
            let labels = [("sink", "amqp"), ("reason", reason)];
            assert_eq!(
                metrics.value("media_events_dropped_total", &labels),
                Some(0.0),
                "{reason}"
            );
        }
        let retries = metrics.value("media_events_retries_total", &[("sink", "amqp")]);
        println!("attempts after a failed one: {retries:?}");
        assert!(
            retries >= Some(2.0),
            "the broker was never away: {retries:?}"
        );
    });
}

/// Posts an offer that nobody goes on with: its set-up ends as an error. Returns the session's id.
async fn never_connects(server: &MediaServer) -> String {
    let posted = reqwest::Client::new().post(server.url("/whip/never"));
    let posted = posted
        .header("content-type", "application/sdp")
        .body(PUBLISH);
    let response = posted.send().await.expect("an answer");
    assert_eq!(response.status(), 201);
    let location = response.headers()["location"].to_str().expect("text");
    location.rsplit('/').next().expect("an id").to_owned()
}

/// What sessions notice of what goes on.
struct Seen {
    lost: u64,
    expected: u64,
    /// From POST to connected, ms.
    setup_p99: f64,
}

impl Seen {
    /// Whether nothing is worse than in a calm phase, but for what a busy machine does to a few sessions.
    fn is_like(&self, usual: &Seen) {
        let share = |seen: &Seen| seen.lost as f64 / seen.expected as f64;
        let (lost, before) = (share(self), share(usual));
        assert!(lost <= before + 0.001, "{lost} lost, in the calm {before}");
        let (took, before) = (self.setup_p99, usual.setup_p99);
        assert!(
            took <= 2.0 * before + 100.0,
            "{took} ms, in the calm {before}"
        );
    }
}

/// Media to four viewers, and others that come and go, while something happens: nobody fails or goes without.
async fn under_load(server: &MediaServer, lasts: Duration, happens: impl AsyncFnOnce()) -> Seen {
    let mut load = Command::new(program("MEDIA_LOAD_BIN", "media-load"));
    load.args([
        "--whip",
        &server.url("/whip"),
        "--whep",
        &server.url("/whep"),
    ]);
    load.args(["--publishers", "1", "--viewers", "4", "--churn", CHURN]);
    load.args(["--duration", &(lasts.as_secs() + 5).to_string()]);
    let load = tokio::task::spawn_blocking(move || load.output());
    happens().await;
    let output = load.await.expect("no panic").expect("it starts");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
    });
    for count in [
        &report["viewers_failed"],
        &report["churn"]["failed"],
        &report["churn"]["not_deleted"],
    ] {
        assert_eq!(count, 0, "{report:#}");
    }
    let packets = |name: &str| report[name].as_u64().expect("a number");
    let (lost, expected) = (packets("lost_packets"), packets("expected_packets"));
    println!("{lost} of {expected} packets lost");
    let setup = &report["churn"]["setup_ms"]["post_to_connected"];
    println!("post to connected, ms: {setup}");
    Seen {
        lost,
        expected,
        setup_p99: setup["p99"].as_f64().expect("a number"),
    }
}

/// What the broker got since the last time, once every event of the server has arrived.
async fn arrived(server: &MediaServer, rabbit: &Rabbit) -> Vec<Got> {
    let since = Instant::now();
    let amqp = [("sink", "amqp")];
    wait_for("all events to be confirmed", BACK_WITHIN, || async {
        let metrics = server.metrics().await;
        let open = metrics.value("media_active_sessions", &[]);
        let waiting = metrics.value("media_events_waiting", &amqp);
        match (open, waiting) {
            (Some(0.0), Some(0.0)) => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    })
    .await;
    println!("all confirmed {:?} after the load ended", since.elapsed());
    rabbit.take().await
}

/// Each session is told of as created and then as closed, those that `fail` as an error just before, each event in
/// the order of its time.
fn check(when: &str, got: &[Got], fail: &[String]) {
    let mut seen = BTreeSet::new();
    let first: Vec<&Got> = got.iter().filter(|event| seen.insert(&event.id)).collect();
    println!(
        "{when}: {} events, {} of them twice",
        first.len(),
        got.len() - first.len()
    );
    let text = |event: &Got, field: &str| event.body[field].as_str().expect("text").to_owned();
    let times: Vec<String> = first.iter().map(|event| text(event, "timestamp")).collect();
    assert!(times.is_sorted(), "{when}: {times:?}");
    let of = |key: &str| -> Vec<String> {
        let events = first.iter().filter(|event| event.key == key);
        events.map(|event| text(event, "session_id")).collect()
    };
    let (created, closed) = (of("media.session.created"), of("media.session.closed"));
    // A publisher, four viewers, and churn.
    assert!(created.len() > 5, "{when}: {} sessions", created.len());
    let all = |ids: &[String]| ids.iter().cloned().collect::<BTreeSet<String>>();
    assert_eq!(all(&created), all(&closed), "{when}");
    assert_eq!(of("media.session.error"), fail, "{when}");
    for id in fail {
        let own = first
            .iter()
            .filter(|event| text(event, "session_id") == *id);
        let keys: Vec<&str> = own.map(|event| &*event.key).collect();
        let told = ["created", "error", "closed"].map(|kind| format!("media.session.{kind}"));
        assert_eq!(keys, told, "{when}");
    }
    assert_eq!(
        created.len() + closed.len() + fail.len(),
        first.len(),
        "{when}: other events, or one for two sessions"
    );
    for event in &first {
        assert_eq!(
            event.body["event_type"],
            event.key.trim_start_matches("media.")
        );
        assert_eq!(event.body["service"], "media-service");
        assert!(event.persistent, "{when}");
        let closed = event.key.ends_with("closed");
        assert_eq!(
            event.body["duration_seconds"].is_u64(),
            closed,
            "{}",
            event.body
        );
    }
}
