//! Logs: JSON lines on stdout, or text for people where stdout is a terminal.

use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// Starts logging with `filter`; a filter that can't be read means `info`.
pub fn start(filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter);
    // A second start, as in tests, keeps the first.
    if std::io::stdout().is_terminal() {
        let _ = subscriber.try_init();
    } else {
        let _ = subscriber.json().flatten_event(true).try_init();
    }
}
