//! How `/metrics` is written: the two formats, and what a family that is full does.

use crate::requests::*;
use catalogue::families::{CLOSE_REASONS, FAMILIES, Kind, Scope};
use reqwest::header::ACCEPT;
use std::collections::BTreeSet;
use tests::process::TempDir;
use tests::{MediaServer, Metrics, wait_for};

/// What Prometheus 3 asks for.
const OPENMETRICS: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
    text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

/// A scrape in the format that is asked for, and its media type.
async fn scrape(server: &MediaServer, accept: &str) -> (String, String) {
    let url = format!("http://{}/metrics", server.operations);
    let response = send(reqwest::Client::new().get(url).header(ACCEPT, accept)).await;
    let media_type = header(&response, "content-type");
    (media_type, response.text().await.expect("text"))
}

#[tokio::test]
async fn a_scraper_that_asks_for_openmetrics_gets_it_and_others_get_text() {
    let server = MediaServer::open(&[]).await;
    let (media_type, text) = scrape(&server, "*/*").await;
    assert_eq!(media_type, "text/plain; version=0.0.4");
    assert!(!text.contains("# EOF"), "there is none in text");
    let (media_type, text) = scrape(&server, OPENMETRICS).await;
    assert_eq!(
        media_type,
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    assert!(text.ends_with("\n# EOF\n"), "its end is marked");
}

#[tokio::test]
async fn openmetrics_has_the_same_series_under_its_own_rules() {
    let server = MediaServer::open(&[]).await;
    open(&server, "/whip/cam-1", PUBLISH).await;
    // So that both scrapes know the requests of one.
    scrape(&server, OPENMETRICS).await;
    wait_for("resources to be looked at", PATIENCE, || async {
        let metrics = server.metrics().await;
        metrics
            .value("media_cpu_usage_ratio", &[])
            .ok_or("no value")
    })
    .await;
    let (_, open) = scrape(&server, OPENMETRICS).await;
    let (mut announced, mut all) = (None, BTreeSet::new());
    let lines = open.strip_suffix("# EOF\n").expect("an end").lines();
    for line in lines {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a kind");
            assert!(!name.ends_with("_total"), "{line}");
            assert!(all.insert(name), "{name} is announced twice");
            announced = Some((name.to_owned(), kind.to_owned()));
        } else if !line.starts_with("# HELP ") {
            let (name, kind) = announced.as_ref().expect("announced first");
            let sample = line.split(['{', ' ']).next().expect("a name");
            let suffix = sample.strip_prefix(name.as_str());
            let of_kind = match (kind.as_str(), suffix) {
                ("counter", Some("_total")) | ("gauge", Some("")) => true,
                ("histogram", Some("_sum" | "_count")) => true,
                ("histogram", Some("_bucket")) => {
                    let (_, bound) = line.rsplit_once("le=\"").expect("a bound");
                    let bound = bound.split('"').next().expect("its end");
                    bound == "+Inf" || bound.contains('.')
                }
                _ => false,
            };
            assert!(of_kind, "{line} in the {kind} {name}");
        }
    }
    let series = |text: &str| -> BTreeSet<String> {
        let metrics = Metrics::parse(text).expect("readable");
        let samples = metrics.samples.into_iter().map(|mut sample| {
            let bound = sample.labels.remove("le");
            let bound = bound.map(|bound| bound.parse::<f64>().expect("a number"));
            format!("{} {:?} {bound:?}", sample.name, sample.labels)
        });
        samples.collect()
    };
    let (_, text) = scrape(&server, "text/plain").await;
    assert_eq!(series(&open), series(&text));
}

#[tokio::test]
async fn a_device_begins_with_all_its_series_at_zero() {
    let server = MediaServer::open(&[]).await;
    open(&server, "/whip/cam-1", PUBLISH).await;
    let metrics = server.metrics().await;
    let device = ("device_id", "cam-1");
    for reason in CLOSE_REASONS {
        let labels = [device, ("reason", *reason)];
        let closed = metrics.value("media_sessions_closed_total", &labels);
        assert_eq!(closed, Some(0.0), "{reason}");
    }
    let ended = metrics.value("media_session_duration_seconds_count", &[device]);
    assert_eq!(ended, Some(0.0));
}

#[tokio::test]
async fn a_full_family_leaves_gauges_out_and_counts_the_rest_as_other() {
    const CAP: usize = 64;
    const MORE: usize = 3;
    let dir = TempDir::new("config");
    let file = dir.path().join("config.toml");
    let config = format!("[metrics]\nmax_series_per_family = {CAP}\nscrape_interval_seconds = 1\n");
    std::fs::write(&file, config).expect("written");
    let server = MediaServer::open(&["--config", &file.display().to_string()]).await;
    let mut paths = Vec::new();
    for n in 0..CAP + MORE {
        paths.push(open(&server, &format!("/whip/cam-{n}"), PUBLISH).await);
    }
    let metrics = server.metrics().await;
    let (states, candidates) = (
        "media_ice_connection_state",
        "media_ice_candidates_added_total",
    );
    let other = ("session_id", "other");
    assert_eq!(metrics.matching(states, &[]).count(), CAP);
    assert_eq!(metrics.matching(states, &[other]).count(), 0, "no gauge");
    assert_eq!(metrics.matching(candidates, &[]).count(), CAP + 1);
    let of_one = metrics.sum(candidates, &[]) / (CAP + MORE) as f64;
    let of_others = of_one * MORE as f64;
    assert!(of_one >= 1.0, "{of_one}");
    assert_eq!(metrics.value(candidates, &[other]), Some(of_others));
    for family in FAMILIES.iter().filter(|f| f.scope == Scope::Session) {
        let folded = metrics.value(
            "media_metrics_series_folded_total",
            &[("family", family.name)],
        );
        assert_eq!(folded, Some(MORE as f64), "{}", family.name);
        if family.kind == Kind::Histogram {
            let count = format!("{}_count", family.name);
            assert_eq!(metrics.matching(&count, &[other]).count(), 1, "{count}");
        }
    }
    let created =
        |device: &str| metrics.value("media_sessions_created_total", &[("device_id", device)]);
    assert_eq!(created("other"), Some(MORE as f64));
    assert_eq!(
        metrics.sum("media_sessions_created_total", &[]),
        (CAP + MORE) as f64
    );

    // When some with series are gone there is room for new ones, and the others stay what they are.
    for path in &paths[..MORE] {
        send(request(&server, reqwest::Method::DELETE, path, SDP, "")).await;
    }
    wait_for("the series of those to go", PATIENCE, || async {
        match server.metrics().await.matching(states, &[]).count() {
            left if left == CAP - MORE => Ok(()),
            left => Err(format!("{left} are left")),
        }
    })
    .await;
    open(&server, "/whip/cam-0", PUBLISH).await;
    let metrics = server.metrics().await;
    assert_eq!(metrics.matching(states, &[]).count(), CAP - MORE + 1);
    assert_eq!(metrics.value(candidates, &[other]), Some(of_others));
}
