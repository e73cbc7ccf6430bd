//! One request followed, from a browser's POST through all that tells of it: its trace in an OpenTelemetry Collector,
//! its log lines in a server that takes them as Loki does, its exemplar in Prometheus.
//!
//! Started by `cargo xtask test --long`, with the servers on `PATH`, in a network of the test's own.
#![forbid(unsafe_code)]

mod servers;

use std::time::Duration;

use serde_json::{Value, json};
use servers::{Logs, OtelCollector, PrometheusServer};
use tests::browser::Options;
use tests::namespace::{add_interface, in_network_with};
use tests::process::TempDir;
use tests::{Browser, Connections, MediaServer, wait_for};

/// Chromium and five servers on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// Of the page, which begins the trace.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Watches the device as a page with a trace of its own does.
const WATCH: &str = r"
const [url, traceparent] = arguments;
const pc = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
connections.viewer = pc;
pc.addTransceiver('video', {direction: 'recvonly'});
return (async () => {
  await pc.setLocalDescription();
  const headers = {'content-type': 'application/sdp', traceparent};
  const response = await fetch(url, {method: 'POST', headers, body: pc.localDescription.sdp});
  const answer = await response.text();
  if (response.status !== 201) throw new Error(answer);
  await pc.setRemoteDescription({type: 'answer', sdp: answer});
  return response.headers.get('location');
})();";

#[test]
fn one_request_is_followed_through_traces_logs_and_exemplars() {
    in_network_with(&[], async {
        add_interface("198.51.100.1/24");
        let dir = TempDir::new("followed");
        let collector = OtelCollector::start(dir.path()).await;
        let logs = Logs::start(dir.path()).await;
        // None that begins here is kept: what is found below is there because the page asked for it.
        let server = MediaServer::demo_with(&[
            "--otlp-endpoint",
            OtelCollector::URL,
            "--trace-sample-percent",
            "0",
        ])
        .await;
        let prometheus = PrometheusServer::start(dir.path(), &server.operations.to_string()).await;
        let browser = Browser::start(Options::default()).await;
        let page = Connections::open(&browser, &server.url("/favicon.svg")).await;
        let traceparent = format!("00-{TRACE}-{PARENT}-01");
        let location = wait_for("the demo device to be live", SOON, || async {
            let args = vec![json!(server.url("/whep/demo")), json!(traceparent)];
            browser.run(WATCH, args).await
        })
        .await;
        let location = location.as_str().expect("a Location").to_owned();
        let session = location.rsplit('/').next().expect("an id");
        wait_for("the page to see frames", SOON, || async {
            let seen = page.received("viewer").await?;
            match seen["framesDecoded"].as_u64() {
                Some(frames) if frames >= 30 => Ok(()),
                _ => anyhow::bail!("{seen}"),
            }
        })
        .await;

        // Its trace.
        let spans = wait_for("its trace in the collector", SOON, || async {
            let spans = collector.spans_of(TRACE);
            let named = |name: &str| spans.iter().find(|s| s["name"] == name).cloned();
            let admitted = named("whep.create").filter(|span| status_of(span) == 201);
            match (admitted, named("session.establish")) {
                (Some(create), Some(establish)) => Ok([create, establish]),
                _ => Err(json!(spans)),
            }
        })
        .await;
        let [create, establish] = &spans;
        assert_eq!(create["parentSpanId"], PARENT, "{create}");
        assert_eq!(establish["parentSpanId"], create["spanId"], "{establish}");
        assert_eq!(establish["status"], json!({}), "media came: {establish}");
        for span in &spans {
            assert_eq!(attribute(span, "session.id"), session, "{span}");
        }
        let nanos = |key: &str| {
            establish[key]
                .as_str()
                .and_then(|text| text.parse::<u64>().ok())
        };
        let took = nanos("endTimeUnixNano").zip(nanos("startTimeUnixNano"));
        let took = took.map(|(end, start)| Duration::from_nanos(end - start));
        println!("POST to first media: {took:?}");

        // Its life in the logs, by its id and by that of its trace.
        let left = page.run(
            "return fetch(arguments[0], {method: 'DELETE'}).then(r => r.status)",
            vec![json!(location)],
        );
        assert_eq!(left.await, 200);
        wait_for("the session to end", SOON, || async {
            let log = server.log();
            let ended = |line: &str| line.contains(session) && line.contains("session closed");
            if log.lines().any(ended) {
                Ok(())
            } else {
                Err(log)
            }
        })
        .await;
        logs.push(&server.log()).await;
        let life = ["session admitted", "session connected", "session closed"];
        for query in [
            format!("session_id:={session:?}"),
            format!("trace_id:={TRACE:?}"),
        ] {
            let lines = wait_for("its lines", SOON, || logs.find(&query)).await;
            let told: Vec<&str> = lines
                .iter()
                .filter_map(|line| line["msg"].as_str())
                .collect();
            assert_eq!(told, life, "{query}: {lines:#?}");
            for line in &lines {
                assert_eq!(line["session_id"], session, "{line}");
                assert_eq!(line["trace_id"], TRACE, "{line}");
                assert_eq!(line["span_id"], establish["spanId"], "{line}");
                assert_eq!(line["device_id"], "demo", "{line}");
            }
        }

        // Its exemplar.
        let exemplar = wait_for("its exemplar in Prometheus", SOON, || async {
            let found = prometheus
                .exemplars("media_setup_seconds_bucket{role=\"viewer\"}")
                .await;
            let its = |one: &&Value| one["labels"]["trace_id"] == TRACE;
            found.iter().find(its).cloned().ok_or(json!(found))
        })
        .await;
        println!("exemplar: {exemplar}");
        let seconds = exemplar["value"]
            .as_str()
            .and_then(|text| text.parse::<f64>().ok());
        let seconds = seconds.expect("a number");
        let took = took.expect("both times").as_secs_f64();
        assert!(
            seconds > 0.0 && seconds <= took,
            "connected after {seconds} s, media after {took} s"
        );
        browser.close().await;
    });
}

fn attribute<'a>(span: &'a Value, name: &str) -> &'a str {
    let mut all = span["attributes"].as_array().into_iter().flatten();
    let found = all.find(|attribute| attribute["key"] == name);
    found
        .and_then(|a| a["value"]["stringValue"].as_str())
        .unwrap_or_default()
}

fn status_of(span: &Value) -> u64 {
    let mut all = span["attributes"].as_array().into_iter().flatten();
    let found = all.find(|attribute| attribute["key"] == "http.response.status_code");
    // 64 bits are a string in OTLP's JSON.
    let text = found.and_then(|a| a["value"]["intValue"].as_str());
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}
