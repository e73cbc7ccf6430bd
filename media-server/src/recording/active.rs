//! A recording under way: what is known of it now, and whether it is to end or has ended.
//!
//! Its writer changes it, the API reads it and asks for its end. Neither waits for the other here.

use super::{Format, Inner, Note, Request, State, lock, store};
use crate::clock::rfc3339;
use crate::registry::Record;
use media_core::ids::SessionId;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;
use tokio::sync::watch;

/// A recording under way, or just ended.
pub struct Active {
    pub id: SessionId,
    pub(super) session: Arc<Record>,
    pub(super) started: SystemTime,
    pub(super) note: Mutex<Note>,
    over: watch::Sender<bool>,
}

impl Active {
    /// One that begins now.
    pub(super) fn new(id: SessionId, request: &Request) -> Active {
        let started = SystemTime::now();
        Active {
            id,
            session: request.session.clone(),
            started,
            note: Mutex::new(first_note(id, request, started)),
            over: watch::Sender::new(false),
        }
    }

    /// The key of its device, see `devices.rs`.
    pub fn device(&self) -> &Arc<str> {
        &self.session.device
    }

    /// What is known of it now.
    pub fn note(&self) -> Note {
        lock(&self.note).clone()
    }

    /// Name of its file, as far as its format is known.
    pub(super) fn file_name(&self) -> String {
        store::name(self.id, &lock(&self.note).format)
    }

    /// The writer looks for it by itself.
    pub(super) fn ask_to_stop(&self) {
        let state = &mut lock(&self.note).state;
        if *state == State::Recording {
            *state = State::Stopping;
        }
    }

    /// Whether somebody asked for its end.
    pub(super) fn is_stopping(&self) -> bool {
        lock(&self.note).state == State::Stopping
    }

    pub(super) async fn is_over(&self) {
        // An error would mean that the sender is gone, and that is in here.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// From now on it is found on the disk alone.
    pub(super) fn end(&self, inner: &Inner) {
        lock(&inner.active).remove(&self.id);
        self.over.send_replace(true);
    }
}

fn first_note(id: SessionId, request: &Request, started: SystemTime) -> Note {
    let format = request.wanted.format.unwrap_or(Format::WebM);
    Note {
        id: id.to_string(),
        session_id: request.session.id.to_string(),
        device_id: request.session.device.to_string(),
        state: State::Recording,
        format: format.as_str().to_owned(),
        file_size: 0,
        duration_seconds: 0.0,
        width: 0,
        height: 0,
        frame_rate: 0.0,
        bitrate: 0,
        started_at: rfc3339(started),
        stopped_at: None,
        frames_written: 0,
        reason: None,
    }
}
