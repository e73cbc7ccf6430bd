//! The load tool against the real server: its report is right about what it did.

use std::process::Command;

use tests::MediaServer;
use tests::process::program;

use crate::media::metric_becomes;

#[tokio::test]
async fn media_load_reports_every_packet_and_what_the_server_used() {
    let server = MediaServer::open(&[]).await;
    let mut command = Command::new(program("MEDIA_LOAD_BIN", "media-load"));
    command.args([
        "--whip",
        &server.url("/whip"),
        "--whep",
        &server.url("/whep"),
        "--publishers",
        "2",
        "--viewers",
        "6",
        "--duration",
        "2",
        "--server-pid",
        &server.pid().to_string(),
    ]);
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("the tool's task ends")
        .expect("media-load can be started");
    let progress = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{progress}");
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("standard output is one JSON report");

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
    let cost = &report["server"]["cpu_us_per_forwarded_packet"];
    assert!(cost.as_f64().is_some_and(|cost| cost > 0.0), "{report:#}");
    metric_becomes(&server, "media_active_sessions", &[], 0.0).await;
}
