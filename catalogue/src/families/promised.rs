//! The families whose names, kinds, labels and buckets are promised to users, in the order of the contract.

/// A test of [`super::FAMILIES`] holds them to what was promised, and one with a running server their values
/// to what was done to it.
pub const PROMISED: [&str; 26] = [
    "media_active_sessions",
    "media_sessions_created_total",
    "media_sessions_closed_total",
    "media_session_duration_seconds",
    "media_ice_connection_state",
    "media_ice_candidates_added_total",
    "media_ice_connection_time_milliseconds",
    "media_video_frame_rate",
    "media_video_bitrate_bps",
    "media_packet_loss_ratio",
    "media_rtt_milliseconds",
    "media_jitter_milliseconds",
    "media_http_requests_total",
    "media_http_duration_seconds",
    "media_http_requests_in_flight",
    "media_websocket_connections",
    "media_websocket_messages_total",
    "media_websocket_message_size_bytes",
    "media_memory_usage_bytes",
    "media_memory_heap_alloc_bytes",
    "media_memory_heap_sys_bytes",
    "media_goroutine_count",
    "media_goroutine_count_max",
    "media_potential_goroutine_leak",
    "media_cpu_usage_ratio",
    "media_errors_total",
];
