//! What is told to others of sessions and recordings: five events, to a message broker and to a web server.
//!
//! Owns the events' form, which is that of the service that this one replaces, and gives each to the queue of every receiver.
//! Waits for nobody: media and signalling go on whatever becomes of an event. Called where sessions are admitted and end, and
//! by the app, which runs the receivers' tasks and ends them.

mod amqp;
pub mod queue;
mod webhook;

use self::amqp::Amqp;
use self::queue::{Queue, Sink};
use self::webhook::Webhook;
use crate::clock::rfc3339_millis;
use crate::config::EventsConfig;
use crate::outbound::{self, OutboundError};
use crate::registry::Record;
use crate::shard::CloseReason;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Why events can't be sent.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    #[error("failed to read {path}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} is empty")]
    Empty { path: PathBuf },
    #[error("what follows whsec_ in {path} is not base64 of 24 bytes or more")]
    Base64 { path: PathBuf },
    #[error(
        "the broker's URL is not right; write it as amqps://user:password@broker.example.com/vhost"
    )]
    Url,
    #[error("failed to prepare asking the webhook")]
    Outbound(#[from] OutboundError),
}

/// One event, as every receiver gets it.
#[derive(Debug)]
pub struct Message {
    /// The same whenever it is sent again: by it a receiver knows that.
    id: String,
    /// Routing key, such as `media.session.created`.
    key: &'static str,
    /// JSON.
    body: String,
    at: Instant,
}

/// All receivers; none where none is configured.
#[derive(Default)]
pub struct Events {
    receivers: Vec<Receiver>,
    /// Held while an event gets its time and goes to the queues: all have them in that order.
    order: Mutex<()>,
}

struct Receiver {
    /// Value of the `sink` label.
    name: &'static str,
    queue: Arc<Queue>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Events {
    /// Starts the receivers' tasks. `ca_file` as in [`outbound::client`].
    ///
    /// # Errors
    /// [`EventsError`] when a secret can't be had, or makes no sense.
    pub fn start(config: &EventsConfig, ca_file: Option<&Path>) -> Result<Events, EventsError> {
        let mut events = Events::default();
        if let Some(url) = &config.amqp {
            events.add("amqp", Amqp::new(url.clone(), ca_file)?);
        }
        if let Some(webhook) = &config.webhook {
            let client = outbound::client(ca_file)?;
            events.add("webhook", Webhook::new(webhook.clone(), client)?);
        }
        Ok(events)
    }

    fn add(&mut self, name: &'static str, sink: impl Sink + 'static) {
        let queue = Arc::new(Queue::default());
        let followed = queue.clone();
        let task = tokio::spawn(async move { followed.follow(name, sink).await });
        self.receivers.push(Receiver {
            name,
            queue,
            task: Mutex::new(Some(task)),
        });
    }

    /// Receivers by their names.
    pub fn queues(&self) -> impl Iterator<Item = (&'static str, &Queue)> {
        self.receivers.iter().map(|r| (r.name, &*r.queue))
    }

    /// A session was admitted.
    pub fn session_created(&self, record: &Record) {
        self.session("media.session.created", record, json!({}));
    }

    /// A session has ended; that it ended badly is an event of its own, before this one.
    pub fn session_closed(&self, record: &Record, reason: CloseReason) {
        if matches!(
            reason,
            CloseReason::IceFailed | CloseReason::SetupTimeout | CloseReason::ErrorCleanup
        ) {
            let error = json!({"error": reason.as_str()});
            self.session("media.session.error", record, error);
        }
        let seconds = record.created.elapsed().as_secs();
        let more = json!({"duration_seconds": seconds, "reason": reason.as_str()});
        self.session("media.session.closed", record, more);
    }

    /// A recording of a session has begun, in that file.
    pub fn recording_started(&self, record: &Record, path: &str) {
        let more = json!({"recording_path": path});
        self.send("media.recording.started", record, more);
    }

    /// A recording has ended.
    pub fn recording_stopped(&self, record: &Record, path: &str, length: Duration) {
        let more = json!({"recording_path": path, "duration_seconds": length.as_secs()});
        self.send("media.recording.stopped", record, more);
    }

    fn session(&self, key: &'static str, record: &Record, mut more: Value) {
        more["user_id"] = user(record).into();
        self.send(key, record, more);
    }

    fn send(&self, key: &'static str, record: &Record, mut body: Value) {
        if self.receivers.is_empty() {
            return;
        }
        body["session_id"] = record.id.to_string().into();
        body["device_id"] = (*record.device).into();
        body["service"] = "media-service".into();
        body["event_type"] = key.trim_start_matches("media.").into();
        let random: [u8; 16] = crate::app::random();
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        body["timestamp"] = rfc3339_millis(SystemTime::now()).into();
        let message = Arc::new(Message {
            id: format!("msg_{:032x}", u128::from_be_bytes(random)),
            key,
            body: body.to_string(),
            at: Instant::now(),
        });
        for receiver in &self.receivers {
            receiver.queue.push(message.clone());
        }
    }

    /// Takes no more events, and waits until those that there are have arrived, for `within` at the most.
    pub async fn flush(&self, within: Duration) {
        for receiver in &self.receivers {
            receiver.queue.close();
        }
        let end = Instant::now() + within;
        for receiver in &self.receivers {
            let task = receiver
                .task
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            let Some(task) = task else { continue };
            if tokio::time::timeout_at(end, task).await.is_err() {
                let (sink, lost) = (receiver.name, receiver.queue.waiting());
                tracing::error!(sink, lost, "events were not delivered before the end");
            }
        }
    }
}

/// Whose session it is: a service that speaks for many users names one, as the one before did.
fn user(record: &Record) -> &str {
    let older = record.older.as_ref().map(|older| older.user.as_str());
    let named = older.filter(|user| !user.is_empty());
    named.or(record.subject.as_deref()).unwrap_or_default()
}

/// A secret's text, without the newline that editors put at its end.
fn secret(path: &Path) -> Result<String, EventsError> {
    let text = std::fs::read_to_string(path).map_err(|source| EventsError::Read {
        path: path.to_owned(),
        source,
    })?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(EventsError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(text.to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::queue::Undelivered;
    use super::*;
    use crate::registry::Protocol;
    use crate::registry::tests::{older, record};
    use std::collections::BTreeSet;

    /// What a receiver got: routing keys, ids and bodies.
    pub type Got = Arc<Mutex<Vec<(&'static str, String, Value)>>>;

    /// Events with one receiver, and what it gets.
    pub fn captured() -> (Events, Got) {
        let (mut events, got) = (Events::default(), Got::default());
        events.add("first", Capture(got.clone()));
        (events, got)
    }

    struct Capture(Got);

    impl Sink for Capture {
        const BATCH: usize = 8;

        async fn deliver(&mut self, batch: &[Arc<Message>]) -> (usize, Result<(), Undelivered>) {
            let mut got = self.0.lock().expect("no panic");
            got.extend(batch.iter().map(|message| {
                let body = serde_json::from_str(&message.body).expect("JSON");
                (message.key, message.id.clone(), body)
            }));
            (batch.len(), Ok(()))
        }
    }

    #[tokio::test]
    async fn every_event_has_the_key_and_the_fields_of_the_replaced_service_at_every_receiver() {
        let (mut events, first) = captured();
        let second = Got::default();
        events.add("second", Capture(second.clone()));
        let record = record(1, Protocol::Whip, "acme/cam-1");
        events.session_created(&record);
        events.recording_started(&record, "a.webm");
        events.recording_stopped(&record, "a.webm", Duration::from_millis(61_900));
        events.session_closed(&record, CloseReason::IceFailed);
        events.flush(Duration::from_secs(60)).await;
        let got = first.lock().expect("no panic").clone();
        assert_eq!(got, *second.lock().expect("no panic"));
        let expected = [
            ("media.session.created", json!({"user_id": ""})),
            (
                "media.recording.started",
                json!({"recording_path": "a.webm"}),
            ),
            (
                "media.recording.stopped",
                json!({"recording_path": "a.webm", "duration_seconds": 61}),
            ),
            (
                "media.session.error",
                json!({"user_id": "", "error": "ice_failed"}),
            ),
            (
                "media.session.closed",
                json!({"user_id": "", "duration_seconds": 0, "reason": "ice_failed"}),
            ),
        ];
        assert_eq!(got.len(), expected.len());
        for ((key, _, body), (wanted, mut fields)) in got.iter().zip(expected) {
            assert_eq!(*key, wanted);
            let timestamp = body["timestamp"].as_str().expect("text");
            assert!(
                timestamp.ends_with('Z') && timestamp.len() == 24,
                "{timestamp}"
            );
            fields["timestamp"] = timestamp.into();
            fields["session_id"] = record.id.to_string().into();
            fields["device_id"] = "acme/cam-1".into();
            fields["service"] = "media-service".into();
            fields["event_type"] = key.trim_start_matches("media.").into();
            assert_eq!(*body, fields);
        }
        let ids: BTreeSet<&String> = got.iter().map(|(_, id, _)| id).collect();
        assert_eq!(ids.len(), got.len(), "each has an id of its own");
    }

    #[test]
    fn a_session_of_the_older_api_is_its_users_whoever_made_it() {
        let of = |user: &str, subject: Option<&str>| {
            let record = older(1, Protocol::Session, "cam-1", 1);
            let mut record = Arc::into_inner(record).expect("the only one");
            record.older.as_mut().expect("of that API").user = user.to_owned();
            record.subject = subject.map(str::to_owned);
            super::user(&record).to_owned()
        };
        assert_eq!(of("ann", Some("backend")), "ann");
        assert_eq!(of("ann", None), "ann", "no token is asked for");
        assert_eq!(of("", Some("backend")), "backend", "nobody was named");
        assert_eq!(of("", None), "");
    }
}
