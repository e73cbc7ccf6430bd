//! More events than may wait while the broker is away: it gets the youngest in order when it is back, and the server's figure is
//! that of those it never gets.

use std::collections::HashMap;
use std::time::Instant;

use futures::{StreamExt as _, stream};
use reqwest::Client;
use tests::namespace::in_network_with;
use tests::process::TempDir;
use tests::rabbit::Rabbit;
use tests::{MediaServer, wait_for};

use crate::{ALONE, BACK_WITHIN};

/// Events that may wait, as docs/events.md says.
const ROOM: usize = 10_000;
/// Two events each: 300 too many.
const SESSIONS: usize = 5_150;
/// Events that are with the broker at once: what is under way is not dropped.
const BATCH: usize = 64;
/// Sessions that come and go at once.
const TOGETHER: usize = 16;
/// An offer to publish, as Chromium writes it.
const PUBLISH: &str = include_str!("../../media-server/core/src/sdp/data/chromium-publish.sdp");

#[test]
fn a_broker_that_was_away_too_long_gets_the_youngest_events_and_the_metric_counts_the_others() {
    let _alone = ALONE.lock();
    in_network_with(&[], async {
        let dir = TempDir::new("rabbit");
        let rabbit = Rabbit::start(dir.path()).await;
        rabbit.bind().await;
        rabbit.signal("STOP");
        let url = dir.path().join("url");
        std::fs::write(&url, rabbit.url()).expect("written");
        let url = url.display().to_string();
        let server = MediaServer::open(&["--amqp-url-file", &url]).await;
        let amqp = [("sink", "amqp")];
        let full = [("sink", "amqp"), ("reason", "full")];

        let sessions = come_and_go(&server).await;
        let metrics = server.metrics().await;
        let (waiting, dropped) = (
            metrics.value("media_events_waiting", &amqp),
            metrics.value("media_events_dropped_total", &full),
        );
        let lost = 2 * SESSIONS - ROOM;
        assert_eq!((waiting, dropped), (Some(ROOM as f64), Some(lost as f64)));

        rabbit.signal("CONT");
        wait_for("all events to be confirmed", BACK_WITHIN, || async {
            let waiting = server.metrics().await.value("media_events_waiting", &amqp);
            match waiting {
                Some(0.0) => Ok(()),
                seen => Err(format!("{seen:?}")),
            }
        })
        .await;
        let metrics = server.metrics().await;
        let delivered = metrics.value("media_events_delivered_total", &amqp);
        assert_eq!(delivered, Some(ROOM as f64));
        assert_eq!(
            metrics.value("media_events_dropped_total", &full),
            Some(lost as f64),
            "none was dropped while they went out"
        );

        // In the order of their times; of which sessions they tell says who is missing.
        let got = rabbit.take().await;
        let mut times = Vec::new();
        let mut told: HashMap<&str, usize> = HashMap::new();
        for event in &got {
            let text = |field: &str| event.body[field].as_str().expect("text");
            times.push(text("timestamp"));
            *told.entry(text("session_id")).or_default() += 1;
        }
        assert!(times.is_sorted());
        assert_eq!(got.len(), ROOM, "each once: the broker took none before");
        let missing = sessions.iter().enumerate().map(|(at, session)| {
            let told = told.get(&**session).copied().unwrap_or_default();
            (at, 2 - told)
        });
        let missing: Vec<(usize, usize)> = missing.filter(|(_, events)| *events > 0).collect();
        let events: usize = missing.iter().map(|(_, events)| events).sum();
        assert_eq!(events, lost, "{missing:?}");
        let last = missing.last().expect("some are missing").0;
        let oldest = (BATCH + lost) / 2 + 2 * TOGETHER;
        assert!(last < oldest, "not the oldest: {missing:?}");
    });
}

/// Sessions that are admitted and end before they connect; returns their ids in the order of their beginning.
async fn come_and_go(server: &MediaServer) -> Vec<String> {
    let client = Client::new();
    let began = Instant::now();
    let one = async |number: usize| {
        // A device of its own: one may publish once a second.
        let offer = client.post(server.url(&format!("/whip/cam-{number}")));
        let offer = offer.header("content-type", "application/sdp");
        let opened = offer.body(PUBLISH).send().await.expect("an answer");
        assert_eq!(opened.status(), 201);
        let path = opened.headers()["location"].to_str().expect("text");
        let deleted = client.delete(server.url(path)).send().await;
        assert_eq!(deleted.expect("an answer").status(), 200);
        path.rsplit('/').next().expect("an id").to_owned()
    };
    let sessions = stream::iter(0..SESSIONS).map(one).buffered(TOGETHER);
    let sessions = sessions.collect().await;
    println!("{SESSIONS} sessions came and went in {:?}", began.elapsed());
    sessions
}
