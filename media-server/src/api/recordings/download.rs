//! The file of a recording, whole or in part (RFC 9110 §13, §14): a download that was cut goes on where
//! it stopped, if the file is still the same.

use super::{RecordingError, find, principal};
use crate::api::Names;
use crate::app::App;
use crate::devices::name_of;
use crate::recording::{Format, Note};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use media_core::ids::SessionId;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

/// Bytes read at once.
const CHUNK: u64 = 256 * 1024;

/// `GET` and `HEAD` of a file.
pub async fn download(
    State(app): State<Arc<App>>,
    Names(id): Names<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, RecordingError> {
    let principal = principal(&app, &headers).await?;
    let note = find(&app, &principal, &id).await?;
    let id: SessionId = id.parse().map_err(|_| RecordingError::NotFound)?;
    let (file, format) = match app.recordings.file(id).await {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(RecordingError::NoFile);
        }
        Err(error) => return Err(RecordingError::Read(error)),
    };
    let meta = file.metadata().map_err(RecordingError::Read)?;
    let len = meta.len();
    // One that is under way grows: what it has now is what is sent.
    let etag = format!(
        "\"{id}-{len:x}-{:x}\"",
        meta.mtime_nsec() ^ meta.mtime() << 30
    );
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::IF_NONE_MATCH).is_some_and(|tags| matches_any(tags, &etag)) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    let same = text(header::IF_RANGE).is_none_or(|tag| tag == etag);
    // A range is of a GET alone (RFC 9110 §14.2).
    let wanted = text(header::RANGE).filter(|_| same && method == Method::GET);
    let (status, range) = match wanted.and_then(|wanted| range(wanted, len)) {
        None => (StatusCode::OK, (0, len)),
        Some(Some((start, end))) => (StatusCode::PARTIAL_CONTENT, (start, end)),
        Some(None) => return Err(RecordingError::Range { bytes: len }),
    };
    let (start, end) = range;
    let body = match method {
        Method::HEAD => Body::empty(),
        _ => stream(file, start, end),
    };
    let mut response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, format.media_type())
        .header(header::CONTENT_LENGTH, end - start)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, etag)
        .header(header::CACHE_CONTROL, "private, no-cache")
        .header(header::CONTENT_DISPOSITION, disposition(&note, format));
    if status == StatusCode::PARTIAL_CONTENT {
        let value = format!("bytes {start}-{}/{len}", end - 1);
        response = response.header(header::CONTENT_RANGE, value);
    }
    Ok(response
        .body(body)
        .expect("the values are of plain characters"))
}

/// The file under the name that it has for people: device, start, the start of its id.
fn disposition(note: &Note, format: Format) -> String {
    let digits = |text: &str| {
        text.chars()
            .filter(char::is_ascii_digit)
            .collect::<String>()
    };
    let (day, time) = note.started_at.split_once('T').unwrap_or_default();
    let (day, time) = (digits(day), digits(time));
    let id = note.id.get(..8).unwrap_or_default();
    let (device, ending) = (name_of(&note.device_id), format.as_str());
    format!("attachment; filename={device}_{day}_{time}_{id}.{ending}")
}

/// The comparison is the weak one (RFC 9110 §13.1.2): a proxy may have weakened the tag.
fn matches_any(tags: &str, etag: &str) -> bool {
    let mut tags = tags.split(',').map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// Start and end of the bytes that a header asks for; the inner `None` if there are none such. What is
/// no single range of bytes is no range at all, and the answer is the whole file.
fn range(header: &str, len: u64) -> Option<Option<(u64, u64)>> {
    let (first, last) = header.strip_prefix("bytes=")?.trim().split_once('-')?;
    let number = |text: &str| text.parse::<u64>().ok();
    let (start, end) = match (first, last) {
        ("", last) => (len.saturating_sub(number(last)?), len),
        (first, "") => (number(first)?, len),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(())?;
            (first, last.saturating_add(1).min(len))
        }
    };
    Some((start < end).then_some((start, end)))
}

/// The bytes of a part. A client that reads slowly holds one chunk and the open file.
fn stream(file: File, start: u64, end: u64) -> Body {
    let file = Arc::new(file);
    let chunks = futures::stream::try_unfold(start, move |at| {
        let file = file.clone();
        async move {
            if at >= end {
                return Ok(None);
            }
            let len = CHUNK.min(end - at) as usize;
            let read = tokio::task::spawn_blocking(move || {
                let mut bytes = vec![0; len];
                file.read_exact_at(&mut bytes, at)
                    .map(|()| Bytes::from(bytes))
            });
            let bytes = read.await??;
            let next = at + bytes.len() as u64;
            Ok::<_, io::Error>(Some((bytes, next)))
        }
    });
    Body::from_stream(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_called_by_the_name_of_its_device_without_the_tenant() {
        let note = serde_json::json!({
            "id": "0123456789", "sessionId": "", "deviceId": "acme/cam-1", "state": "completed", "format": "webm",
            "fileSize": 0, "durationSeconds": 0.0, "width": 0, "height": 0, "frameRate": 0.0, "bitrate": 0,
            "startedAt": "2026-01-31T12:00:00Z", "framesWritten": 0,
        });
        let note: Note = serde_json::from_value(note).expect("a note");
        assert_eq!(
            disposition(&note, Format::WebM),
            "attachment; filename=cam-1_20260131_120000_01234567.webm"
        );
    }

    #[test]
    fn a_tag_is_known_again_also_weakened() {
        for tags in ["*", "\"a\"", "\"b\", \"a\"", "W/\"a\""] {
            assert!(matches_any(tags, "\"a\""), "{tags}");
        }
        assert!(!matches_any("W/\"b\", a", "\"a\""));
    }

    #[test]
    fn a_single_range_of_bytes_is_a_part_and_anything_else_the_whole() {
        for (header, part) in [
            ("bytes=0-9", Some(Some((0, 10)))),
            ("bytes=90-", Some(Some((90, 100)))),
            ("bytes=90-500", Some(Some((90, 100)))),
            ("bytes=-10", Some(Some((90, 100)))),
            ("bytes=-500", Some(Some((0, 100)))),
            ("bytes=100-", Some(None)),
            ("bytes=-0", Some(None)),
            ("bytes=9-3", None),
            ("bytes=0-1,5-6", None),
            ("items=0-1", None),
            ("bytes=x", None),
        ] {
            assert_eq!(range(header, 100), part, "{header}");
        }
        assert_eq!(range("bytes=0-", 0), Some(None));
    }
}
