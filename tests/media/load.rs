//! The load tool against the real server: its report is right about what it did.

use std::process::Command;

use tests::MediaServer;
use tests::process::program;

use crate::media::metric_becomes;

/// Runs the tool against the server; returns what it wrote to standard output.
async fn media_load(server: &MediaServer, args: &[&str]) -> String {
    let mut command = Command::new(program("MEDIA_LOAD_BIN", "media-load"));
    command
        .args(["--whip", &server.url("/whip")])
        .args(["--whep", &server.url("/whep")])
        .args(args);
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("the tool's task ends")
        .expect("media-load can be started");
    let progress = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{progress}");
    String::from_utf8(output.stdout).expect("a report is text")
}

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
    let report = json(&media_load(&server, &load).await);
    assert_eq!(report["wave"]["failed"], 2, "{report:#}");
    for blind in [&report["blind"], &report["wave"]["blind"]] {
        assert_eq!(blind["by_reason"], serde_json::json!({"refused_503": 2}));
        let viewers = blind["viewers"].as_array().expect("viewers");
        assert_eq!(viewers.len(), 2, "{blind:#}");
        for viewer in viewers {
            assert!(viewer["viewer"].as_u64() >= Some(1), "{viewer}");
            assert_eq!(viewer["status"], 503, "{viewer}");
        }
    }
    let text = media_load(&server, &[&load[..], &["--report", "text"]].concat()).await;
    assert!(text.contains("2 refused_503"), "{text}");
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
