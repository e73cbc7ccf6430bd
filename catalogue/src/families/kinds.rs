//! What families are: their kinds, units and scopes.

/// What a family's values do over time, as Prometheus names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, and starts at 0 with the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets with a sum and a count.
    Histogram,
}

impl Kind {
    /// The word after the name in a `# TYPE` line.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// Unit of a family's values; dashboards choose the axis by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A number of things.
    Count,
    Seconds,
    Milliseconds,
    Bytes,
    BitsPerSecond,
    PerSecond,
    /// 0 to 1.
    Ratio,
    /// A number that stands for a state, listed in the help text.
    State,
}

/// What a series belongs to, and with that when it goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Lives as long as the process.
    Process,
    /// Labelled `device_id`; goes 15 min after its last change.
    Device,
    /// Labelled `session_id`; goes two scrape intervals after the session's end.
    Session,
}
