//! Values of labels that more than one place has to know.

/// Every value of the label `reason` of `media_sessions_closed_total`.
pub const CLOSE_REASONS: &[&str] = &[
    "normal_close",
    "error_cleanup",
    "inactive_timeout",
    "ice_failed",
    "setup_timeout",
    "superseded",
    "drained",
    "publisher_gone",
    "limit",
];

/// Every value of the label `result` of `media_setup_total`.
pub const SETUP_RESULTS: &[&str] = &["connected", "failed", "cancelled", "refused"];

/// Every value of the label `result` of `media_signalling_total`.
pub const SIGNALLING_RESULTS: &[&str] = &["ok", "client", "refused", "draining", "failed"];

/// Every value of the label `limit` of `media_refused_total`.
pub const REFUSAL_LIMITS: &[&str] = &[
    "subject",
    "device",
    "sessions",
    "viewers",
    "waiting",
    "handshakes",
    "recordings",
];

const DIRECTIONS: &[&str] = &["in", "out"];
const ROLES: &[&str] = &["publisher", "viewer"];

/// Every value of a label of a family, where expressions choose among them. The server makes no other, and an expression
/// that names another is wrong.
pub const VALUES: &[(&str, &str, &[&str])] = &[
    ("media_sessions_closed_total", "reason", CLOSE_REASONS),
    ("media_sessions", "role", ROLES),
    ("media_setup_total", "role", ROLES),
    ("media_setup_total", "result", SETUP_RESULTS),
    ("media_setup_seconds", "role", ROLES),
    ("media_refused_total", "limit", REFUSAL_LIMITS),
    ("media_signalling_total", "result", SIGNALLING_RESULTS),
    (
        "media_viewer_seconds_total",
        "quality",
        &["good", "gap", "loss", "still"],
    ),
    ("media_handshakes", "state", &["in_flight", "waiting"]),
    (
        "media_drops_total",
        "where",
        &[
            "malformed",
            "stun_unauthenticated",
            "stun_replay",
            "unknown_address",
            "dtls",
            "srtp_unauthenticated",
            "srtp_replay",
            "unknown_stream",
            "unknown_layer",
            "duplicate",
            "nack_overflow",
            "no_keyframe",
            "codec_mismatch",
            "socket_full",
            "tcp_full",
            "tcp_closed",
            "receive_overflow",
            "ring_full",
            "unproven_path",
            "not_sealed",
            "not_held",
            "retransmission_limit",
            "congestion",
            "feedback",
            "sctp",
        ],
    ),
    ("media_packets_total", "direction", DIRECTIONS),
    ("media_bytes_total", "direction", DIRECTIONS),
    ("media_nacked_packets_total", "direction", DIRECTIONS),
    ("media_retransmitted_packets_total", "direction", DIRECTIONS),
    (
        "media_keyframe_requests_total",
        "cause",
        &["start", "lost", "layer", "room", "moved", "recording"],
    ),
    (
        "media_recordings_total",
        "result",
        &["completed", "failed", "empty"],
    ),
    ("media_recording_gaps_total", "cause", &["overflow", "lost"]),
    (
        "media_auth_failures_total",
        "reason",
        &[
            "missing",
            "malformed",
            "algorithm",
            "key_id",
            "signature",
            "expired",
            "claims",
            "lifetime",
            "tenant",
            "grant",
            "user_id",
            "no_keys",
        ],
    ),
    (
        "media_jwks_fetches_total",
        "result",
        &[
            "ok",
            "unreachable",
            "address",
            "status",
            "too_large",
            "malformed",
            "empty",
        ],
    ),
    (
        "media_trace_spans_total",
        "result",
        &["exported", "full", "failed"],
    ),
];

/// Every value of that label, if [`VALUES`] has them.
pub fn values(family: &str, label: &str) -> Option<&'static [&'static str]> {
    let mut all = VALUES.iter();
    let found = all.find(|(of, name, _)| (*of, *name) == (family, label));
    found.map(|(_, _, values)| *values)
}
