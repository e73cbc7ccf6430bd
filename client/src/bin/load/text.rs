//! The report as a person reads it (`--report text`).

use std::fmt::Write as _;

use crate::blind::Blind;
use crate::layers::LayerReport;
use crate::report::{Percentiles, Report, SetupReport};

/// The whole report, a line for each fact.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<28} {value}");
    };
    let shape = &report.shape;
    line(
        "load",
        format!(
            "{} publishers, {} viewers, {} at {} frames/s of {} packets of {} B",
            shape.publishers,
            shape.viewers,
            shape.codec,
            shape.frames_per_second,
            shape.packets_per_frame,
            shape.packet_bytes
        ),
    );
    line(
        "viewers",
        format!(
            "{} connected, {} failed, joined {}{}",
            report.viewers_connected,
            report.viewers_failed,
            report.joined.replace('_', " "),
            report
                .viewers_without_picture
                .map_or_else(String::new, |n| format!(", {n} without a picture"))
        ),
    );
    for failure in &report.failures {
        line("  failure", failure.clone());
    }
    if let Some(blind) = &report.blind {
        without_picture(&mut line, "  ", blind);
    }
    line(
        "packets",
        format!(
            "{} of {} delivered ({:.4} %), {} lost",
            report.delivered_packets,
            report.expected_packets,
            report.delivered_ratio * 100.0,
            report.lost_packets
        ),
    );
    loss(&mut line, report);
    layers(&mut line, report);
    line(
        "measured",
        format!(
            "{} packets in {:.1} s",
            report.window_delivered_packets, report.window_seconds
        ),
    );
    if let Some(latency) = &report.forwarding_latency_ms {
        line("forwarding latency", percentiles(latency));
    }
    if report.arrival_clock != "kernel" {
        line(
            "arrival",
            "when this tool had read it: of TCP the kernel does not tell".to_owned(),
        );
    }
    setup(&mut line, "", &report.viewer_setup_ms);
    if let Some(wave) = &report.wave {
        line(
            "wave",
            format!(
                "{} viewers within {:.2} s: {} connected, {} failed, {} without a picture",
                wave.viewers,
                wave.last_post_after_seconds,
                wave.connected,
                wave.failed,
                wave.without_picture
            ),
        );
        without_picture(&mut line, "    ", &wave.blind);
        let seconds = |at: Option<f64>| at.map_or("never".to_owned(), |s| format!("{s:.2} s"));
        line(
            "  picture for 50 % / 99 %",
            format!(
                "{} / {} after the first POST",
                seconds(wave.half_see_after_seconds),
                seconds(wave.most_see_after_seconds)
            ),
        );
        setup(&mut line, "  ", &wave.setup_ms);
        line("  keyframe requests", wave.keyframe_requests.to_string());
        line(
            "  viewers there before",
            format!(
                "{} lost {} packets",
                wave.earlier_viewers, wave.lost_by_earlier_viewers
            ),
        );
        line(
            "  CPU",
            format!(
                "{:.2} cores for this tool{}",
                wave.own_cpu_cores,
                wave.server_cpu_cores
                    .map_or_else(String::new, |cores| format!(", {cores:.2} for the server"))
            ),
        );
    }
    if let Some(churn) = &report.churn {
        line(
            "churn",
            format!(
                "{} joined, {} left, {} failed, {} ends not taken, {} left out",
                churn.joined, churn.left, churn.failed, churn.not_deleted, churn.left_out
            ),
        );
        if let Some(failure) = &churn.first_failure {
            line("  failure", failure.clone());
        }
        setup(&mut line, "  ", &churn.setup_ms);
    }
    line(
        "keyframe requests",
        report
            .devices
            .iter()
            .map(|device| device.keyframe_requests)
            .sum::<u64>()
            .to_string(),
    );
    line(
        "this tool",
        format!(
            "{:.2} cores, {:.1} µs a received packet",
            report.own_cpu_cores, report.own_cpu_us_per_received_packet
        ),
    );
    if let Some(server) = &report.server {
        line(
            "server",
            format!(
                "{:.2} cores, {:.2} µs a forwarded packet, {} MiB at the end",
                server.cpu_cores,
                server.cpu_us_per_forwarded_packet,
                server.rss_kib_at_end / 1024
            ),
        );
        if let (Some(rss), Some(cpu)) = (server.rss_kib_per_viewer_at_rest, server.cpu_ms_per_setup)
        {
            line(
                "  a viewer at rest",
                format!("{rss:.1} KiB, {cpu:.2} ms CPU to set up"),
            );
        }
    }
    out
}

/// What was dropped on purpose, which is not what was lost for good.
fn loss(line: &mut impl FnMut(&str, String), report: &Report) {
    let Some(loss) = &report.loss else {
        return;
    };
    line(
        "dropped on purpose",
        format!(
            "{} % of datagrams each way, handshakes too, seed {}; {} set-ups of publishers repeated",
            loss.percent, loss.seed, loss.publisher_setups_repeated
        ),
    );
    let traffic = &report.traffic;
    for (name, counts) in [
        ("  viewers", &traffic.viewers),
        ("  publishers", &traffic.publishers),
    ] {
        let [received, sent] = [counts.received, counts.sent].map(|way| {
            let all = way.datagrams + way.dropped;
            format!("{} of {all} ({} media)", way.dropped, way.dropped_media)
        });
        line(name, format!("{received} received, {sent} sent"));
    }
}

fn layers(line: &mut impl FnMut(&str, String), report: &Report) {
    let Some(layers) = &report.layers else {
        return;
    };
    let rates = |layers: &[LayerReport]| -> String {
        let rate = |layer: &LayerReport| {
            let kilobits = layer.bits_per_second as f64 / 1e3;
            format!("{} {kilobits:.0}", layer.rid)
        };
        layers.iter().map(rate).collect::<Vec<_>>().join(", ")
    };
    if !layers.sent.is_empty() {
        line("layers, kbit/s of a device", rates(&layers.sent));
    }
    for choice in &layers.viewers {
        let got = match choice.got.is_empty() {
            true => String::new(),
            false => format!(", kbit/s of each: {}", rates(&choice.got)),
        };
        line(
            &format!("  viewers of {}", choice.layer),
            format!("{}{got}", choice.viewers),
        );
    }
}

fn without_picture(line: &mut impl FnMut(&str, String), indent: &str, blind: &Blind) {
    if blind.by_reason.is_empty() {
        return;
    }
    let counts = blind.by_reason.iter();
    let counts: Vec<String> = counts.map(|(reason, n)| format!("{n} {reason}")).collect();
    line(&format!("{indent}no picture"), counts.join(", "));
    for viewer in &blind.viewers {
        let why = serde_json::to_string(&viewer.reason).unwrap_or_default();
        line(&format!("{indent}  viewer {}", viewer.viewer), why);
    }
}

fn setup(line: &mut impl FnMut(&str, String), indent: &str, setup: &SetupReport) {
    line(
        &format!("{indent}POST to connected"),
        percentiles(&setup.post_to_connected),
    );
    if let Some(keyframe) = &setup.post_to_first_keyframe {
        line(
            &format!("{indent}POST to whole keyframe"),
            percentiles(keyframe),
        );
    }
    if let Some(keyframe) = &setup.connected_to_first_keyframe {
        line(&format!("{indent}connected to that"), percentiles(keyframe));
    }
}

fn percentiles(values: &Percentiles) -> String {
    format!(
        "p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        values.p50, values.p99, values.max
    )
}
