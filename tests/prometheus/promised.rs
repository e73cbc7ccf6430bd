//! The families and queries that were promised to users, each with the value that follows from what was done.

use tests::scraping::Scraping;

use crate::traffic::{DELAY, Done, Traffic};

/// Series of what happened once; figures that go up and down are asked for until they are right.
pub async fn families_are_right(scraped: &Scraping, traffic: &Traffic, done: &Done) {
    let equal = [
        // A device and two viewers; of each one state.
        ("media_active_sessions", 3.0),
        ("sum(media_sessions_created_total)", done.created),
        ("media_sessions_created_total{device_id=\"cam-1\"}", 5.0),
        (
            "sum(media_sessions_closed_total{reason=\"normal_close\"})",
            done.closed_normally,
        ),
        (
            "sum(media_sessions_closed_total{reason=\"superseded\"})",
            done.superseded,
        ),
        (
            "sum(media_sessions_closed_total)",
            done.closed_normally + done.superseded,
        ),
        (
            "sum(media_session_duration_seconds_count)",
            done.closed_normally + done.superseded,
        ),
        (
            "count(media_ice_connection_state{state=~\"connected|completed\"})",
            3.0,
        ),
        (
            "media_http_requests_total{method=\"POST\",path=\"/whep/{device}\",status=\"503\"}",
            done.refused,
        ),
        (
            "media_http_requests_total{method=\"POST\",path=\"/whep/{device}\",status=\"201\"}",
            4.0,
        ),
        (
            "media_http_requests_total{method=\"POST\",path=\"/whip/{device}\",status=\"201\"}",
            3.0,
        ),
        (
            "media_http_duration_seconds_count{method=\"POST\",path=\"/whip/{device}\"}",
            3.0,
        ),
        (
            "media_http_duration_seconds_bucket{method=\"POST\",path=\"/whip/{device}\",le=\"+Inf\"}",
            3.0,
        ),
        ("media_websocket_connections", 2.0),
        (
            "media_websocket_messages_total{type=\"signaling\",direction=\"inbound\"}",
            3.0,
        ),
        ("media_potential_goroutine_leak", 0.0),
        ("media_signalling_total{result=\"refused\"}", done.refused),
        ("media_signalling_total{result=\"failed\"}", 0.0),
    ];
    for (query, wanted) in equal {
        scraped.is(query, wanted).await;
    }
    let (frames, bits) = traffic.rates().await;
    let round_trip = DELAY.as_secs_f64() * 2e3;
    let resident = resident_bytes(traffic.server.pid());
    let sent = 3.0 * done.message_bytes;
    let ranges = [
        // The device's own count, and of the scrape a window before or after.
        ("media_video_frame_rate", frames * 0.8, frames * 1.2),
        ("media_video_bitrate_bps", bits * 0.8, bits * 1.2),
        (
            "max(media_rtt_milliseconds)",
            round_trip - 10.0,
            round_trip + 30.0,
        ),
        ("media_packet_loss_ratio", 0.0, 0.02),
        ("count(media_packet_loss_ratio)", 3.0, 3.0),
        ("media_jitter_milliseconds", 0.0, 100.0),
        (
            "sum(media_ice_connection_time_milliseconds_count)",
            3.0,
            done.created,
        ),
        ("sum(media_ice_candidates_added_total)", 3.0, done.created),
        ("media_http_requests_in_flight", 1.0, 5.0),
        // Three from here, and their answers.
        (
            "sum(media_websocket_message_size_bytes_sum{type=\"signaling\"})",
            sent,
            sent + 2000.0,
        ),
        ("media_memory_usage_bytes", resident * 0.7, resident * 1.3),
        (
            "media_memory_heap_alloc_bytes / media_memory_heap_sys_bytes",
            0.01,
            1.0,
        ),
        ("media_goroutine_count", 3.0, 200.0),
        (
            "media_goroutine_count / media_goroutine_count_max",
            0.01,
            1.0,
        ),
        ("media_cpu_usage_ratio", 0.0, 1.0),
        ("sum(media_errors_total)", 1.0, 20.0),
    ];
    for (query, low, high) in ranges {
        scraped.within(query, low, high).await;
    }
}

/// As they stand in the contract.
pub async fn queries_are_right(scraped: &Scraping, done: &Done) {
    // Over a minute; what is counted from the first scrape on is extrapolated by a scrape or two.
    let per_minute = |count: f64| (0.9 * count / 60.0, 1.5 * count / 60.0);
    let abnormal = done.superseded / (done.superseded + done.closed_normally);
    let lived = done.since.elapsed().as_secs_f64();
    let (few, some) = per_minute(2.0);
    let queries = [
        ("media_active_sessions", 3.0, 3.0),
        // One was there before the first scrape; of the second device both came with their family's birth or after.
        (
            "sum(rate(media_sessions_created_total[1m]))",
            per_minute(4.0).0,
            per_minute(6.0).1,
        ),
        (
            "rate(media_session_duration_seconds_sum[5m]) / rate(media_session_duration_seconds_count[5m])",
            0.0,
            lived + 5.0,
        ),
        (
            "sum(rate(media_sessions_closed_total{reason!=\"normal_close\"}[5m])) / sum(rate(media_sessions_closed_total[5m]))",
            abnormal - 0.1,
            abnormal + 0.1,
        ),
        (
            "histogram_quantile(0.99, rate(media_http_duration_seconds_bucket[5m]))",
            0.0,
            0.512,
        ),
        (
            "sum(rate(media_http_requests_total{status=~\"5..\"}[5m])) / sum(rate(media_http_requests_total[5m]))",
            0.001,
            0.2,
        ),
        // A scrape a second is a request too.
        ("sum(rate(media_http_requests_total[1m]))", 0.2, 5.0),
        ("media_http_requests_in_flight", 1.0, 5.0),
        ("media_memory_usage_bytes / 1024 / 1024", 2.0, 512.0),
        ("media_goroutine_count", 3.0, 200.0),
        ("deriv(media_goroutine_count[5m])", -10.0, 10.0),
        ("media_websocket_connections", 2.0, 2.0),
        (
            "rate(media_websocket_messages_total{direction=\"inbound\"}[1m])",
            few,
            some,
        ),
        (
            "rate(media_websocket_message_size_bytes_sum[5m]) / rate(media_websocket_message_size_bytes_count[5m])",
            20.0,
            500.0,
        ),
    ];
    for (query, low, high) in queries {
        scraped.within(query, low, high).await;
    }
    // As they stand, without what makes their value known.
    for query in [
        "rate(media_sessions_created_total[1m])",
        "rate(media_websocket_messages_total[1m])",
    ] {
        scraped.within(query, 0.0, 1.0).await;
    }
}

/// Everybody connected, at once; two requests found no room beside those that went well after the first scrape: six
/// sessions, three that were closed, a recording and two WebSockets, and whatever candidates came beside.
pub async fn service_levels_are_right(scraped: &Scraping) {
    scraped
        .within("mediaservice:setup_errors:ratio_rate5m", 0.0, 0.01)
        .await;
    scraped
        .within("mediaservice:latency_errors:ratio_rate5m", 0.0, 1.0)
        .await;
    scraped
        .within("mediaservice:continuity_errors:ratio_rate5m", 0.0, 0.5)
        .await;
    scraped
        .within(
            "mediaservice:availability_errors:ratio_rate5m",
            2.0 / 20.0,
            2.0 / 13.0,
        )
        .await;
    scraped
        .is("mediaservice:slo_objective:ratio{sli=\"latency\"}", 0.95)
        .await;
}

fn resident_bytes(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse::<f64>().ok()).expect("KiB") * 1024.0
}
