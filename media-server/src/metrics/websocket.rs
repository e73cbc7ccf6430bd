//! Counts the messages of WebSockets where they cross the socket; what deals with them knows nothing of it.

use super::Metrics;

/// Which way a message went, as the label has it.
#[derive(Debug, Clone, Copy)]
pub enum Direction {
    Inbound,
    Outbound,
}

/// Records a message of that kind, a label, and its size.
pub fn measure(metrics: &Metrics, kind: &str, direction: Direction, bytes: usize) {
    let direction = match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    };
    metrics.count("media_websocket_messages_total", &[kind, direction]);
    metrics.observe("media_websocket_message_size_bytes", &[kind], bytes as f64);
}
