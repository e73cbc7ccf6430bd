//! One resource applied, one browser publishing, one watching, Prometheus counting.

use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::Value;
use tests::page::Source;
use tests::process::target_dir;
use tests::{Browser, Page, Prometheus, wait_for};

use crate::queries::{self, Done};
use crate::service::{self, Service};

const SOON: Duration = Duration::from_secs(90);
/// Two scrapes, and time for Prometheus to take up a new ServiceMonitor.
const SCRAPED: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
async fn an_applied_media_service_streams_from_browser_to_browser_and_prometheus_sees_it() {
    // Two sessions and no more, so that a third is answered with an honest 503. A scrape every 5 s: most of
    // this test waits for the next one, a dozen times.
    let patch = r#"{"spec":{
        "limits":{"sessionsPerPod":2},
        "monitoring":{"serviceMonitor":{"intervalSeconds":5,"scrapeTimeoutSeconds":5}}
    }}"#;
    let service = Service::apply("e2e-thread", Some(patch));
    service.reachable().await;
    let token = service.token("cam-1");
    let prometheus = Prometheus::of_cluster();
    let namespace = service.kubectl.namespace.clone();
    let of = |name: &str, labels: &str| format!("sum({name}{{namespace=\"{namespace}\"{labels}}})");

    let pool = format!("serviceMonitor/{namespace}/{}/", service::NAME);
    wait_for(
        "Prometheus to scrape the pod through the ServiceMonitor",
        SCRAPED,
        || async {
            let targets = prometheus.targets().await?;
            let own = |target: &&Value| target["labels"]["namespace"] == namespace.as_str();
            let ours: Vec<_> = targets.iter().filter(own).collect();
            let by_monitor = |target: &&Value| {
                target["scrapePool"]
                    .as_str()
                    .is_some_and(|name| name.starts_with(&pool))
                    && target["health"] == "up"
            };
            if !ours.is_empty() && ours.iter().all(by_monitor) {
                return Ok(());
            }
            bail!("{ours:?}")
        },
    )
    .await;

    let (sender, receiver) = tokio::join!(service.browser(), service.browser());
    let sending = Page::open(&sender, &service.url(), Some(&token)).await;
    sending.publish("cam-1", Source::Camera).await;
    sending.published(SOON).await;
    // A rate needs two scrapes that differ: the first session is seen before the second is made.
    let created = of("media_sessions_created_total", "");
    wait_for("Prometheus to see the publisher", SCRAPED, || async {
        queries::equals(prometheus.value(&created).await?, 1.0)
    })
    .await;

    let watching = Page::open(&receiver, &service.url(), Some(&token)).await;
    let joined = Instant::now();
    watching.watch("cam-1", SOON).await;
    watching.frames_grow_by(100, SOON).await;
    watching.picture_changes(SOON).await;
    receiver
        .screenshot(&target_dir().join("screenshots/e2e-watching.png"))
        .await;

    let active = of("media_active_sessions", "");
    wait_for("media_active_sessions to be 2", SCRAPED, || async {
        queries::equals(prometheus.value(&active).await?, 2.0)
    })
    .await;
    assert_eq!(
        prometheus
            .value(&created)
            .await
            .expect("it was there a moment ago"),
        2.0
    );
    wait_for(
        "media_video_frame_rate to be the browser's",
        SCRAPED,
        || async {
            let shown = sending.figure("#publish-figures", "fps").await?;
            let rates = prometheus
                .query(&format!(
                    "media_video_frame_rate{{namespace=\"{namespace}\"}}"
                ))
                .await?;
            if rates.len() == 2
                && rates
                    .iter()
                    .all(|rate| (rate.value - shown).abs() <= shown * 0.1)
            {
                return Ok(());
            }
            bail!("browser {shown}, Prometheus {rates:?}")
        },
    )
    .await;

    // The pod is full: twice, with a scrape between, because a rate needs two values of a series.
    let refused = of("media_http_requests_total", ",status=\"503\"");
    for count in 1..=2 {
        let (status, detail) = post_offer(&receiver, "cam-1").await;
        assert_eq!(status, 503, "a session beyond sessionsPerPod: {detail}");
        wait_for("Prometheus to see the 503", SCRAPED, || async {
            queries::equals(prometheus.value(&refused).await?, f64::from(count))
        })
        .await;
    }

    watching.stop_watching().await;
    let watched = joined.elapsed();
    wait_for("media_active_sessions to be 1", SCRAPED, || async {
        queries::equals(prometheus.value(&active).await?, 1.0)
    })
    .await;
    let normal = of("media_sessions_closed_total", ",reason=\"normal_close\"");
    assert_eq!(
        prometheus
            .value(&normal)
            .await
            .expect("the session was closed"),
        1.0
    );

    // One that never connects, so that not every close is a normal one.
    let (status, detail) = post_offer(&receiver, "cam-1").await;
    assert_eq!(status, 201, "{detail}");
    let late = of("media_sessions_closed_total", ",reason=\"setup_timeout\"");
    wait_for(
        "the session that never connected to be closed",
        SCRAPED,
        || async { queries::equals(prometheus.value(&late).await?, 1.0) },
    )
    .await;

    let done = Done {
        namespace,
        watched,
        closed_normally: 1,
        closed_otherwise: 1,
    };
    queries::all_answer(&prometheus, &done).await;
    tokio::join!(sender.close(), receiver.close());
}

/// Posts a good offer from the page, and never sends a check: status and problem detail.
async fn post_offer(browser: &Browser, device: &str) -> (u64, String) {
    let script = "const pc = new RTCPeerConnection();
        pc.addTransceiver('video', {direction: 'recvonly'});
        const authorization = 'Bearer ' + sessionStorage.getItem('token');
        return pc.setLocalDescription()
            .then(() => fetch('whep/' + arguments[0], {
                method: 'POST',
                headers: {'content-type': 'application/sdp', authorization},
                body: pc.localDescription.sdp,
            }))
            .then((response) => response.text().then((body) => { pc.close(); return [response.status, body]; }));";
    let value = browser
        .run(script, vec![device.into()])
        .await
        .expect("the page can fetch");
    (value[0].as_u64().unwrap_or(0), value[1].to_string())
}
