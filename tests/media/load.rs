//! The load tool against the real server: its report is right about what it did.

use std::process::Command;

use client::Codec;
use tests::MediaServer;
use tests::process::program;

use crate::media::{metric_becomes, publish, send_frames};

/// How a run of the tool ended.
struct Ended {
    code: Option<i32>,
    report: String,
    progress: String,
}

/// Runs the tool against the server.
async fn ended(server: &MediaServer, args: &[&str]) -> Ended {
    let mut command = Command::new(program("MEDIA_LOAD_BIN", "media-load"));
    command
        .args(["--whip", &server.url("/whip")])
        .args(["--whep", &server.url("/whep")])
        .args(args);
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("the tool's task ends")
        .expect("media-load can be started");
    Ended {
        code: output.status.code(),
        report: String::from_utf8(output.stdout).expect("a report is text"),
        progress: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The same for a run in which every viewer sees a picture; returns what it wrote to standard output.
async fn media_load(server: &MediaServer, args: &[&str]) -> String {
    let ended = ended(server, args).await;
    let Ended {
        progress, report, ..
    } = &ended;
    assert_eq!(ended.code, Some(0), "{progress}{report}");
    ended.report
}

/// The exit code where the report is there and a viewer saw nothing.
const SAW_NOTHING: i32 = 3;

fn json(report: &str) -> serde_json::Value {
    serde_json::from_str(report).expect("standard output is one JSON report")
}

#[tokio::test]
async fn media_load_reports_every_packet_and_what_the_server_used() {
    let server = MediaServer::open(&[]).await;
    let pid = server.pid().to_string();
    let load = ["--publishers", "2", "--viewers", "6", "--duration", "2"];
    let report = media_load(&server, &[&load[..], &["--server-pid", &pid]].concat()).await;
    let report = json(&report);

    assert_eq!(report["viewers_connected"], 6, "{report:#}");
    assert_eq!(report["viewers_failed"], 0, "{report:#}");
    let mut expected = 0;
    for device in report["devices"].as_array().expect("devices") {
        assert_eq!(device["viewers"], 3);
        expected += 3 * device["packets_sent"].as_u64().expect("packets sent");
    }
    // Two devices, 3 s of 30 frames of 7 packets, 3 viewers each: 3 780 on a machine at leisure.
    assert!(expected > 1_000, "{report:#}");
    assert_eq!(report["expected_packets"], expected, "{report:#}");
    assert_eq!(report["delivered_packets"], expected, "{report:#}");
    assert_eq!(report["lost_packets"], 0, "{report:#}");
    assert_eq!(report["viewers_without_picture"], 0, "{report:#}");
    let positive = |value: &serde_json::Value| value.as_f64().is_some_and(|value| value > 0.0);
    for cost in ["cpu_us_per_forwarded_packet", "cpu_ms_per_setup"] {
        assert!(positive(&report["server"][cost]), "{cost}: {report:#}");
    }
    assert!(positive(&report["own_cpu_us_per_received_packet"]));
    let latency = &report["forwarding_latency_ms"];
    assert!(positive(&latency["p50"]), "{report:#}");
    assert!(latency["p99"].as_f64() >= latency["p50"].as_f64());
    // Every packet of the window was timed; those at its edges may be on one side only.
    let samples = report["forwarding_latency_samples"].as_f64();
    let window = report["window_delivered_packets"].as_f64();
    let (samples, window) = samples.zip(window).expect("both are numbers");
    assert!((samples - window).abs() <= 0.1 * window, "{report:#}");
    metric_becomes(&server, "media_active_sessions", &[], 0.0).await;
}

#[tokio::test]
async fn a_wave_and_churn_are_counted_apart_and_every_viewer_has_a_token_of_its_own() {
    let server = MediaServer::closed(&[]).await;
    let key = server.key_file().display().to_string();
    let report = media_load(
        &server,
        &[
            &["--jwt-hmac-file", &key, "--viewers", "2", "--duration", "2"][..],
            &["--wave", "5", "--wave-seconds", "0.2", "--churn", "10"],
            &["--joins-per-second", "10"],
        ]
        .concat(),
    )
    .await;
    let report = json(&report);
    assert_eq!(report["joined"], "live", "{report:#}");
    assert_eq!(report["viewers_failed"], 0, "{report:#}");

    let wave = &report["wave"];
    for (name, value) in [
        ("viewers", 5),
        ("connected", 5),
        ("failed", 0),
        ("without_picture", 0),
        ("earlier_viewers", 2),
        ("lost_by_earlier_viewers", 0),
    ] {
        assert_eq!(wave[name], value, "{name}: {wave:#}");
    }
    let after = |name: &str| wave[name].as_f64().expect("seconds");
    assert!(after("half_see_after_seconds") <= after("most_see_after_seconds"));
    let setup = &wave["setup_ms"];
    assert!(
        setup["post_to_first_keyframe"]["p50"].as_f64() > Some(0.0),
        "{wave:#}"
    );

    let churn = &report["churn"];
    assert_eq!(churn["failed"], 0, "{churn:#}");
    assert_eq!(churn["not_deleted"], 0, "{churn:#}");
    let joined = churn["joined"].as_u64().expect("a count");
    // At random: fewer than four or more than forty-five come once in a hundred thousand runs.
    assert!(
        (4..=45).contains(&joined),
        "ten times a second in the mean, for 2 s: {churn:#}"
    );
    assert_eq!(churn["left"], joined, "{churn:#}");
    assert_eq!(report["viewers_connected"], 7, "as many came as left");
    let viewers = report["devices"][0]["viewers"].as_u64();
    assert_eq!(viewers, Some(7 + joined), "{report:#}");
    assert_eq!(report["lost_packets"], 0, "{report:#}");
    metric_becomes(&server, "media_active_sessions", &[], 0.0).await;
}

#[tokio::test]
async fn the_report_says_why_viewers_saw_no_picture() {
    let server = MediaServer::open(&["--viewers-per-device", "3"]).await;
    let load = ["--viewers", "1", "--duration", "1", "--wave", "4"];
    let run = ended(&server, &load).await;
    assert_eq!(run.code, Some(SAW_NOTHING), "{}", run.progress);
    let said = "2 viewers saw no picture";
    assert!(run.progress.contains(said), "{}", run.progress);
    let report = json(&run.report);
    assert_eq!(report["wave"]["failed"], 2, "{report:#}");
    assert_eq!(report["viewers_that_saw_nothing"], 2, "{report:#}");
    for blind in [&report["blind"], &report["wave"]["blind"]] {
        assert_eq!(blind["by_reason"], serde_json::json!({"refused_503": 2}));
        let viewers = blind["viewers"].as_array().expect("viewers");
        assert_eq!(viewers.len(), 2, "{blind:#}");
        for viewer in viewers {
            assert!(viewer["viewer"].as_u64() >= Some(1), "{viewer}");
            assert_eq!(viewer["status"], 503, "{viewer}");
        }
    }
    let run = ended(&server, &[&load[..], &["--report", "text"]].concat()).await;
    assert_eq!(run.code, Some(SAW_NOTHING), "{}", run.progress);
    assert!(run.report.contains("2 refused_503"), "{}", run.report);
}

#[tokio::test]
async fn viewers_of_somebody_elses_device_who_get_no_packet_saw_nothing() {
    let server = MediaServer::open(&[]).await;
    let publisher = publish(&server, "cam-1", &[Codec::Vp8]).await;
    metric_becomes(&server, "media_setup_total", CONNECTED, 1.0).await;
    let load = ["--publishers", "0", "--device", "cam-1", "--viewers", "2"];
    let load = [&load[..], &["--duration", "1"]].concat();
    let run = ended(&server, &load).await;
    assert_eq!(run.code, Some(SAW_NOTHING), "{}", run.progress);
    let said = "2 viewers saw no picture";
    assert!(run.progress.contains(said), "{}", run.progress);
    let report = json(&run.report);
    let reasons = &report["blind"]["by_reason"];
    assert_eq!(*reasons, serde_json::json!({"no_packet": 2}), "{report:#}");

    // Where packets come, nobody can say more of a picture that carries no stamps.
    send_frames(&publisher, Codec::Vp8, 20, 1).await;
    let run = ended(&server, &load).await;
    assert_eq!(run.code, Some(0), "{}", run.progress);
    assert_eq!(json(&run.report)["blind"], serde_json::Value::Null);
}

const CONNECTED: &[(&str, &str)] = &[("role", "publisher"), ("result", "connected")];

#[tokio::test]
async fn of_a_twentieth_lost_on_purpose_nearly_all_is_repaired_and_the_report_tells_both_apart() {
    let server = MediaServer::open(&[]).await;
    let load = ["--viewers", "8", "--duration", "8", "--loss", "5"];
    let run = ended(&server, &[&load[..], &["--seed", "3"]].concat()).await;
    let report = json(&run.report);
    let failed = number(&report, "/viewers_failed");
    // Who lost the end of its handshake, which is sent once, is not there.
    assert!(failed <= 3.0, "{report:#}");
    let expected = if failed == 0.0 { 0 } else { SAW_NOTHING };
    assert_eq!(run.code, Some(expected), "{}", run.progress);
    assert_eq!(report["loss"]["percent"], 5.0);
    assert_eq!(report["loss"]["seed"], 3);

    let of =
        |end: &str, way: &str, what: &str| number(&report, &format!("/traffic/{end}/{way}/{what}"));
    for (end, way) in [("viewers", "received"), ("publishers", "sent")] {
        let [dropped, passed] = ["dropped", "datagrams"].map(|what| of(end, way, what));
        let part = dropped / (dropped + passed);
        assert!((0.03..0.07).contains(&part), "{end} {way}: {report:#}");
    }
    for (end, way) in [("viewers", "sent"), ("publishers", "received")] {
        assert!(of(end, way, "dropped") > 0.0, "{end} {way}: {report:#}");
    }
    let dropped = of("viewers", "received", "dropped_media");
    assert!(dropped > 200.0, "too few to tell: {report:#}");
    // It really was missing: the rest of what was sent again was dropped too.
    let again = number(&report, "/traffic/viewers/received_again");
    assert!(again >= dropped * 0.7, "of {dropped}: {report:#}");
    let lost = number(&report, "/lost_packets");
    assert!(lost <= dropped / 100.0, "of {dropped}: {report:#}");
    assert!(number(&report, "/delivered_ratio") > 0.995, "{report:#}");

    // Both ends counted the repair.
    let metrics = server.metrics().await;
    for (ours, direction, at, arrive) in [
        ("media_nacked_packets_total", "in", "asked_again", 0.95),
        (
            "media_retransmitted_packets_total",
            "out",
            "received_again",
            1.0 / 0.95,
        ),
    ] {
        let counted = metrics.sum(ours, &[("direction", direction)]);
        let told = number(&report, &format!("/traffic/viewers/{at}")) * arrive;
        let apart = (counted - told).abs() / told;
        assert!(apart < 0.15, "{ours} {counted}, {told}: {report:#}");
    }
}

#[tokio::test]
async fn without_loss_on_purpose_none_is_told_and_over_tcp_it_is_refused() {
    let server = MediaServer::open(&[]).await;
    let load = ["--viewers", "1", "--duration", "1"];
    let run = ended(&server, &[&load[..], &["--tcp", "--loss", "5"]].concat()).await;
    assert_eq!((run.code, run.report.as_str()), (Some(2), ""));
    assert!(run.progress.contains("TCP sends again"), "{}", run.progress);

    let report = json(&media_load(&server, &load).await);
    assert_eq!(report["loss"], serde_json::Value::Null);
    assert_eq!(report["traffic"]["viewers"]["received"]["dropped"], 0);
    let text = ["--loss", "0", "--report", "text"];
    let text = media_load(&server, &[&load[..], &text].concat()).await;
    assert!(text.contains("dropped on purpose"), "{text}");
}

#[tokio::test]
async fn the_report_says_by_which_clock_things_arrived() {
    let server = MediaServer::open(&[]).await;
    let load = ["--viewers", "4", "--duration", "1"];
    for (more, clock) in [(&[][..], "kernel"), (&["--tcp"], "tcp_read")] {
        let report = json(&media_load(&server, &[&load[..], more].concat()).await);
        assert_eq!(report["arrival_clock"], clock);
        let setup = &report["viewer_setup_ms"];
        let p50 = |of: &str| number(setup, &format!("/{of}/p50"));
        let after = p50("connected_to_first_keyframe");
        assert!(after > 0.0, "{setup:#}");
        assert!(after <= p50("post_to_first_keyframe"), "{setup:#}");
    }
}

#[tokio::test]
async fn viewers_who_ask_for_a_layer_get_its_bitrate_and_no_other() {
    let server = MediaServer::open(&[]).await;
    let pid = server.pid().to_string();
    let load = ["--layers", "3", "--viewer-layer", "q,h,f,auto"];
    let rest = ["--viewers", "8", "--duration", "3", "--server-pid", &pid];
    let report = json(&media_load(&server, &[&load[..], &rest].concat()).await);
    assert_eq!(report["lost_packets"], 0, "{report:#}");
    let layers = &report["layers"];
    let sent = |rid: &str| bits_of(&layers["sent"], rid);
    assert!(sent("q") > 0.0, "{layers:#}");
    assert!(sent("h") > 2.0 * sent("q"), "{layers:#}");
    assert!(sent("f") > 2.0 * sent("h"), "{layers:#}");
    let choices = layers["viewers"].as_array().expect("choices");
    let names: Vec<&str> = choices.iter().filter_map(|c| c["layer"].as_str()).collect();
    assert_eq!(names, ["q", "h", "f", "auto"]);
    for choice in choices {
        assert_eq!(choice["viewers"], 2, "{layers:#}");
        // Left to choose, with room for all, the server takes the best.
        let own = choice["layer"].as_str().filter(|layer| *layer != "auto");
        let own = own.unwrap_or("f");
        for rid in ["q", "h", "f"] {
            let got = bits_of(&choice["got"], rid);
            let wanted = if rid == own { sent(rid) } else { 0.0 };
            let off = (got - wanted).abs();
            assert!(off <= wanted * 0.1, "{rid} of {choice:#}: {layers:#}");
        }
    }
}

fn bits_of(layers: &serde_json::Value, rid: &str) -> f64 {
    let layers = layers.as_array().expect("layers");
    let layer = layers.iter().find(|layer| layer["rid"] == rid);
    let bits = layer.and_then(|layer| layer["bits_per_second"].as_f64());
    bits.unwrap_or_else(|| panic!("no {rid} in {layers:?}"))
}

fn number(report: &serde_json::Value, at: &str) -> f64 {
    let value = report.pointer(at).and_then(serde_json::Value::as_f64);
    value.unwrap_or_else(|| panic!("{at} is missing: {report:#}"))
}

#[tokio::test]
async fn the_text_report_says_what_a_person_wants_to_know_first() {
    let server = MediaServer::open(&[]).await;
    let pid = server.pid().to_string();
    let load = ["--viewers", "2", "--duration", "1", "--report", "text"];
    let report = media_load(&server, &[&load[..], &["--server-pid", &pid]].concat()).await;
    for said in [
        "2 connected, 0 failed, joined at rest",
        "forwarding latency",
        "POST to connected",
        "µs a forwarded packet",
        "KiB, ",
    ] {
        assert!(report.contains(said), "{said} is missing:\n{report}");
    }
}
