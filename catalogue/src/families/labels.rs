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
