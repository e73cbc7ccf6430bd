//! How many connections of each kind there may be: all of them are open files, of which a process has a number.
//!
//! Opens and counts none. Called once, at the start.

use crate::config::Config;

/// Each viewer over TCP has one, and for a moment a few more. They hold a quarter of a MiB each when
/// all of them are slow.
const MAX_MEDIA: u64 = 8192;
/// Streams of all sessions, 100 bytes each.
const MAX_EVENT_STREAMS: u64 = 2048;
/// What a process may have open where nobody says otherwise.
const USUAL_OPEN_FILES: u64 = 1024;

/// The most of each kind.
#[derive(Debug, PartialEq, Eq)]
pub struct Connections {
    /// Of media over TCP: half of the open files, so that HTTP always has some.
    pub media: u32,
    /// Of HTTP, on each address: half of the files that those leave, but no more than was said.
    pub http: u32,
    /// Of those of HTTP, half. Each is held as long as its client likes, as WebSockets are.
    pub event_streams: u32,
    /// What event streams leave, but for a quarter of all, which is for requests.
    pub websockets: u32,
}

impl Connections {
    pub fn of(config: &Config, open_files: Option<u64>) -> Connections {
        let files = open_files.unwrap_or(USUAL_OPEN_FILES);
        let media = match config.media_tcp {
            true => MAX_MEDIA.min(files / 2),
            false => 0,
        };
        let http = u64::from(config.http_connections).min((files - media) / 2);
        let event_streams = MAX_EVENT_STREAMS.min(http / 2);
        let websockets = http - event_streams - http.div_ceil(4);
        // None exceeds what was said, or its bound here.
        let [media, http, event_streams, websockets] =
            [media, http.max(1), event_streams, websockets.max(1)].map(|count| count as u32);
        Connections {
            media,
            http,
            event_streams,
            websockets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_for_media_and_http_and_connections_of_http_for_streams_sockets_and_requests() {
        let of = |files: u64, said: u32, media_tcp: bool| {
            let mut config = crate::config::tests::load(&[], "", &[]).expect("right");
            config.http_connections = said;
            config.media_tcp = media_tcp;
            let connections = Connections::of(&config, Some(files));
            let (media, http) = (connections.media, connections.http);
            (
                media,
                http,
                connections.event_streams,
                connections.websockets,
            )
        };
        assert_eq!(of(1 << 20, 4096, true), (8192, 4096, 2048, 1024));
        assert_eq!(of(1 << 20, 8192, true), (8192, 8192, 2048, 4096));
        assert_eq!(
            of(20_000, 8192, true),
            (8192, 5904, 2048, 2380),
            "few files"
        );
        assert_eq!(of(1024, 4096, true), (512, 256, 128, 64), "the usual ones");
        assert_eq!(of(1024, 4096, false), (0, 512, 256, 128), "no TCP");
        assert_eq!(
            of(1024, 16, true),
            (512, 16, 8, 4),
            "fewer than there may be"
        );
        assert_eq!(of(2, 4096, true).1, 1, "somebody always gets in");
    }
}
