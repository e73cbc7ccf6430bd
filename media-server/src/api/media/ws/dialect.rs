//! What clients say over a WebSocket, and what they are answered: the dialects of the pages, the player and the
//! manual of the service before, told apart by their messages.
//!
//! One object a message. `sdp` is a text or a description; it is answered as it was asked. A socket has one
//! session at a time: its own, which ends with it, or one of the API that it joined or, as clients of the manual do,
//! named last. What is refused is counted, and what makes or changes a session has a span, as with requests; a
//! message may have a `traceparent` of its own.

use super::Outbox;
use crate::api::device_name;
use crate::api::error::ApiError;
use crate::api::media::offered::{self, Asked};
use crate::api::media::sessions::screen;
use crate::api::whip::check_grant;
use crate::api::{check_rate, error::media::MediaError};
use crate::app::App;
use crate::auth::Principal;
use crate::limits::Rate;
use crate::registry::{Protocol, Record};
use crate::shard::{CloseReason, ControlMessage, Outcome};
use crate::trace;
use media_core::channel::MAX_MESSAGE;
use opentelemetry::trace::{FutureExt as _, TraceContextExt as _};
use opentelemetry::{Context, KeyValue};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Instant;

/// Messages of a socket each second, and at once: as many as on the data channel. A longer one counts as so many
/// of those.
const MESSAGES: (u32, u32) = (200, 200);

/// One client.
pub(super) struct Dialect {
    principal: Principal,
    user: String,
    /// The device that messages mean which name none.
    device: Option<Arc<str>>,
    rate: Rate,
    session: Option<Arc<Record>>,
    /// The session was made by this socket.
    own: bool,
    /// What the client calls it, where that is the session whose place it took.
    alias: String,
    /// The client's span when it opened the socket, if it had one.
    parent: Context,
}

/// Why nothing came of a message.
struct Refused {
    /// What the client is told.
    told: String,
    /// Labels, as of an error in a response.
    kind: &'static str,
    limit: Option<&'static str>,
}

type Object = Map<String, Value>;

impl Dialect {
    pub(super) fn new(
        principal: Principal,
        user: String,
        device: Option<Arc<str>>,
        parent: Context,
    ) -> Dialect {
        Dialect {
            principal,
            user,
            device,
            rate: Rate::new(Instant::now(), MESSAGES, 1),
            session: None,
            own: false,
            alias: String::new(),
            parent,
        }
    }

    pub(super) fn holder(&self) -> Option<Arc<str>> {
        self.principal.holder()
    }

    /// Deals with a message; returns its kind, a label.
    pub(super) async fn handle(
        &mut self,
        app: &Arc<App>,
        bytes: &[u8],
        outbox: &mut Outbox,
    ) -> &'static str {
        let messages = 1 + bytes.len() / MAX_MESSAGE;
        if self.rate.take_many(Instant::now(), "", messages).is_err() {
            let code = Outcome::RateLimited.as_str();
            count(app, code, "message");
            outbox.send(json!({"type": "error", "code": code})).await;
            return "invalid";
        }
        let Ok(message) = serde_json::from_slice::<Object>(bytes) else {
            let refused = Refused::invalid("a message is one JSON object");
            refused.tell(app, outbox, "message").await;
            return "invalid";
        };
        let kind = text(&message, "type").to_owned();
        if let "control" | "touch" | "key" | "text" = &*kind {
            if let Err(refused) = self.control(app, message, outbox).await {
                refused.tell(app, outbox, "control").await;
            }
            return "control";
        }
        // What it is called in a trace, and in a count of errors.
        let (span, operation) = match &*kind {
            "start-stream" | "offer" => (Some("webrtc.create_session"), "session_create"),
            "answer" => (Some("webrtc.set_answer"), "session_answer"),
            "ice-candidate" => (Some("webrtc.add_ice_candidate"), "session_candidates"),
            "join" => (None, "session_read"),
            other => {
                let known = "start-stream, join, offer, answer, ice-candidate and control";
                let other: String = other.chars().take(32).collect();
                let told = format!("{other:?} is no type; known are {known}");
                Refused::invalid(told).tell(app, outbox, "message").await;
                return "invalid";
            }
        };
        // Each is a request. Candidates are not: they come many at once, and cost nothing.
        if kind != "ice-candidate"
            && let Err(error) = check_rate(app, &self.principal)
        {
            Refused::from(error).tell(app, outbox, operation).await;
            return "signaling";
        }
        let context = self.span(app, span, &message);
        let doing = async {
            match &*kind {
                "start-stream" => self.start(app, &message, outbox).await,
                "offer" => self.offer(app, &message, outbox).await,
                "answer" => self.answer(app, &message).await,
                "ice-candidate" => self.candidate(app, &message).await,
                _ => self.join(app, text(&message, "sessionId"), outbox).await,
            }
        };
        let done = doing.with_context(context.clone()).await;
        if let Err(refused) = &done {
            let kind = KeyValue::new("error.type", refused.kind);
            context.span().set_attribute(kind);
        }
        // The task that opens a session may hold the context for longer.
        context.span().end();
        if let Err(refused) = done {
            refused.tell(app, outbox, operation).await;
        }
        "signaling"
    }

    /// Begins the span of a message that has one, in the trace that it names, or its socket's.
    fn span(&self, app: &App, name: Option<&'static str>, message: &Object) -> Context {
        let (Some(traces), Some(name)) = (&app.traces, name) else {
            return Context::new();
        };
        let parent = match text(message, "traceparent") {
            "" => self.parent.clone(),
            own => trace::http::parent_of(Some(own)),
        };
        let sdp = match text(message, "type") {
            "offer" => Some("offer"),
            "answer" => Some("answer"),
            _ => None,
        };
        traces.begin(name, &parent, sdp)
    }

    /// Goes on with a session of the API. One that the client offered for is answered here once more.
    async fn join(
        &mut self,
        app: &Arc<App>,
        name: &str,
        outbox: &mut Outbox,
    ) -> Result<(), Refused> {
        let found = offered::find(app, Protocol::Session, name, &self.principal);
        let record = found.ok_or_else(Refused::unknown)?;
        let answer = record.older.as_ref().and_then(|older| older.answer.clone());
        let name = record.id.to_string();
        self.device = Some(record.device.clone());
        self.take_up(app, record, false).await;
        match answer {
            Some(answer) => {
                let answer =
                    json!({"type": "answer", "sessionId": name, "answer": answer, "sdp": answer});
                outbox.send(answer).await;
            }
            None => {
                outbox
                    .send(json!({"type": "joined", "sessionId": name}))
                    .await
            }
        }
        Ok(())
    }

    /// The same as the socket opens.
    pub(super) async fn begin(&mut self, app: &Arc<App>, name: &str, outbox: &mut Outbox) {
        if let Err(refused) = self.join(app, name, outbox).await {
            refused.tell(app, outbox, "session_read").await;
        }
    }

    /// The end of the socket, and of its own session.
    pub(super) async fn end(&mut self, app: &Arc<App>) {
        let Some(record) = self.session.take().filter(|_| self.own) else {
            return;
        };
        app.end_unasked(&record, CloseReason::Normal, "session_delete")
            .await;
    }

    /// Goes on with a session. Its own before ends, unless it is that.
    async fn take_up(&mut self, app: &Arc<App>, record: Arc<Record>, own: bool) {
        if self.session.as_ref().is_some_and(|old| old.id == record.id) {
            return;
        }
        self.end(app).await;
        self.session = Some(record);
        self.own = own;
        self.alias.clear();
    }

    /// Makes a session and offers.
    async fn start(
        &mut self,
        app: &Arc<App>,
        message: &Object,
        outbox: &mut Outbox,
    ) -> Result<(), Refused> {
        let asked = self.asked(app, message)?;
        let (record, sdp) = offered::offer(app, asked, screen())?;
        let name = record.id.to_string();
        self.take_up(app, record, true).await;
        let offer = json!({"type": "offer", "sessionId": name, "sdp": sdp});
        outbox.send(offer).await;
        Ok(())
    }

    /// Answers an offer of the client's.
    async fn offer(
        &mut self,
        app: &Arc<App>,
        message: &Object,
        outbox: &mut Outbox,
    ) -> Result<(), Refused> {
        let (sdp, described) =
            sdp(message).ok_or_else(|| Refused::invalid("an offer has its sdp"))?;
        // A session that the client would rather offer for itself.
        let called = text(message, "sessionId");
        let before = self.meant_by_name(app, message);
        if let Some(before) = &before {
            self.device = Some(before.device.clone());
        }
        let keeps_name = before.is_some() || called == self.alias;
        let asked = self.asked(app, message)?;
        let (record, answer) = offered::answer_to(app, asked, sdp).await?;
        let name = record.id.to_string();
        self.take_up(app, record, true).await;
        if keeps_name {
            self.alias = called.to_owned();
        }
        if let Some(before) = before {
            app.end_unasked(&before, CloseReason::Superseded, "session_delete")
                .await;
        }
        let answered = match described {
            true => json!({"type": "answer", "sdp": answer}),
            false => json!(answer),
        };
        let answer =
            json!({"type": "answer", "sessionId": name, "sdp": answered, "answer": answer});
        outbox.send(answer).await;
        Ok(())
    }

    async fn answer(&mut self, app: &Arc<App>, message: &Object) -> Result<(), Refused> {
        let (sdp, _) = sdp(message).ok_or_else(|| Refused::invalid("an answer has its sdp"))?;
        let record = self.meant(app, message).ok_or_else(Refused::unknown)?;
        Ok(offered::answer(app, record, sdp.to_owned()).await?)
    }

    async fn candidate(&mut self, app: &Arc<App>, message: &Object) -> Result<(), Refused> {
        let record = self.meant(app, message).ok_or_else(Refused::unknown)?;
        let line = match message.get("candidate") {
            Some(Value::String(line)) => line.clone(),
            Some(Value::Object(candidate)) => text(candidate, "candidate").to_owned(),
            _ => String::new(),
        };
        match offered::candidates(app, &record, &[line]).await {
            0 => Err(Refused::invalid("Failed to add ICE candidate")),
            _ => Ok(()),
        }
    }

    /// Passes a control message on as if it had come on the data channel of the session, and its answers back.
    async fn control(
        &mut self,
        app: &Arc<App>,
        message: Object,
        outbox: &mut Outbox,
    ) -> Result<(), Refused> {
        let record = self.meant(app, &message).ok_or_else(Refused::unknown)?;
        let Some(orders) = orders(message, record.device_name()) else {
            count(app, "bad_request", "control");
            let error = json!({"type": "error", "code": "bad_request"});
            outbox.send(error).await;
            return Ok(());
        };
        for order in orders {
            let bytes = order.to_string().into_bytes().into();
            let message = ControlMessage::new(bytes, outbox.answers.clone());
            match app.shards.handle_control(record.id, message).await {
                Ok(true) => {}
                Ok(false) => return Err(Refused::unknown()),
                Err(error) => {
                    return Err(Refused {
                        told: error.to_string(),
                        kind: "busy",
                        limit: None,
                    });
                }
            }
        }
        Ok(())
    }

    /// The session that a message names, else this socket's.
    fn meant(&mut self, app: &App, message: &Object) -> Option<Arc<Record>> {
        let name = text(message, "sessionId");
        if name.is_empty() || name == self.alias {
            let record = self.session.as_ref()?;
            record.called(Instant::now());
            return Some(record.clone());
        }
        let named = self.meant_by_name(app, message);
        // What comes later without a name, as control does, means it too.
        let own = self.session.as_ref().filter(|_| self.own);
        let has_own = own.is_some_and(|own| app.registry.find(own.id).is_some());
        if let Some(record) = named.as_ref().filter(|_| !has_own) {
            self.session = Some(record.clone());
            self.own = false;
            self.device = Some(record.device.clone());
        }
        named
    }

    /// The session that a message names.
    fn meant_by_name(&self, app: &App, message: &Object) -> Option<Arc<Record>> {
        let name = text(message, "sessionId");
        offered::find(app, Protocol::Session, name, &self.principal)
    }

    /// A session that a message asks for.
    fn asked(&self, app: &App, message: &Object) -> Result<Asked, Refused> {
        let device = match (text(message, "deviceId"), &self.device) {
            ("", Some(device)) => device.clone(),
            (device, _) => self.principal.key_of(device_name(device)?),
        };
        check_grant(app, Protocol::Session, &self.principal, &device)?;
        let user = match text(message, "userId") {
            "" => self.user.clone(),
            user => {
                let checked = offered::check_user(app, &self.principal, user);
                checked.map_err(|error| match error {
                    MediaError::Invalid(error) => Refused::invalid(error),
                    _ => Refused {
                        told: "userId is not the token's sub".to_owned(),
                        kind: "user_id",
                        limit: None,
                    },
                })?;
                user.to_owned()
            }
        };
        Ok(Asked {
            protocol: Protocol::Session,
            device,
            user,
            principal: self.principal.clone(),
            name: None,
            publisher: None,
        })
    }
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Refused {
        Refused {
            told: error.to_string(),
            kind: error.kind(),
            limit: error.limit(),
        }
    }
}

impl Refused {
    fn invalid(told: impl Into<String>) -> Refused {
        Refused {
            told: told.into(),
            kind: "invalid",
            limit: None,
        }
    }

    fn unknown() -> Refused {
        Refused {
            told: "Session not found".to_owned(),
            ..Refused::from(ApiError::UnknownSession)
        }
    }

    /// Counts it, and tells the client.
    async fn tell(self, app: &App, outbox: &Outbox, operation: &str) {
        count(app, self.kind, operation);
        if let Some(limit) = self.limit {
            app.metrics.count("media_refused_total", &[limit]);
        }
        let error = json!({"type": "error", "error": self.told});
        outbox.send(error).await;
    }
}

/// Counts an error as the middleware does those of requests.
fn count(app: &App, kind: &str, operation: &str) {
    app.metrics.count("media_errors_total", &[kind, operation]);
}

fn text<'a>(message: &'a Object, field: &str) -> &'a str {
    message
        .get(field)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The SDP of a message, under each name and in each form that clients have for it, and whether it is a
/// description.
fn sdp(message: &Object) -> Option<(&str, bool)> {
    let mut found = ["sdp", "answer", "offer"].into_iter();
    found.find_map(|name| match message.get(name)? {
        Value::String(sdp) => Some((sdp.as_str(), false)),
        Value::Object(description) => Some((text(description, "sdp"), true)),
        _ => None,
    })
}

/// The messages of the data channel that a control message stands for; `None` if it stands for none.
fn orders(mut message: Object, device: &str) -> Option<Vec<Value>> {
    message.remove("sessionId");
    message.entry("deviceId").or_insert(device.into());
    if text(&message, "type") != "control" {
        return Some(vec![message.into()]);
    }
    let action = text(&message, "action").to_owned();
    let order = |kind: &str, action: &str, place: Option<(&str, &str)>| {
        let mut order = message.clone();
        order.insert("type".to_owned(), kind.into());
        order.insert("action".to_owned(), action.into());
        if let Some((x, y)) = place {
            order.insert("x".to_owned(), message.get(x)?.clone());
            order.insert("y".to_owned(), message.get(y)?.clone());
        }
        Some(Value::from(order))
    };
    match &*action {
        "touch" | "tap" => Some(vec![order("touch", "tap", None)?]),
        "key" => Some(vec![order("key", "press", None)?]),
        "text" => Some(vec![order("text", "", None)?]),
        "swipe" => Some(vec![
            order("touch", "down", Some(("x", "y")))?,
            order("touch", "move", Some(("x2", "y2")))?,
            order("touch", "up", Some(("x2", "y2")))?,
        ]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(message: Value) -> Option<Vec<Value>> {
        let Value::Object(message) = message else {
            panic!("an object");
        };
        orders(message, "cam-1")
    }

    #[test]
    fn control_messages_become_those_of_the_data_channel() {
        let touch = json!({"type": "control", "action": "touch", "sessionId": "s", "x": 1, "y": 2});
        let tap = json!({"type": "touch", "action": "tap", "deviceId": "cam-1", "x": 1, "y": 2});
        assert_eq!(of(touch), Some(vec![tap]));
        let key = json!({"type": "control", "action": "key", "deviceId": "cam-2", "keyCode": 4});
        let press = json!({"type": "key", "action": "press", "deviceId": "cam-2", "keyCode": 4});
        assert_eq!(
            of(key),
            Some(vec![press]),
            "of another device, which is refused"
        );
        let own = json!({"type": "text", "deviceId": "cam-1", "text": "a"});
        assert_eq!(of(own.clone()), Some(vec![own]));
        assert_eq!(of(json!({"type": "control", "action": "reboot"})), None);
    }

    #[test]
    fn a_swipe_is_a_finger_that_goes_down_moves_and_goes_up_and_needs_both_ends() {
        let swipe = json!({"type": "control", "action": "swipe", "x": 1, "y": 2, "x2": 3, "y2": 4});
        let steps = of(swipe).expect("three of them");
        let steps: Vec<_> = steps
            .iter()
            .map(|step| (step["action"].clone(), step["x"].clone(), step["y"].clone()))
            .collect();
        let step = |action: &str, x: u32, y: u32| (json!(action), json!(x), json!(y));
        assert_eq!(
            steps,
            [step("down", 1, 2), step("move", 3, 4), step("up", 3, 4)]
        );
        assert_eq!(
            of(json!({"type": "control", "action": "swipe", "x": 1, "y": 2})),
            None
        );
    }

    #[test]
    fn the_sdp_of_a_message_is_a_text_or_a_description() {
        let read = |message: Value| {
            let Value::Object(message) = message else {
                panic!("an object");
            };
            sdp(&message).map(|(sdp, described)| (sdp.to_owned(), described))
        };
        let found = |described| Some(("v=0".to_owned(), described));
        assert_eq!(read(json!({"sdp": "v=0"})), found(false));
        assert_eq!(read(json!({"answer": "v=0"})), found(false));
        assert_eq!(
            read(json!({"sdp": {"type": "offer", "sdp": "v=0"}})),
            found(true)
        );
        assert_eq!(read(json!({"type": "offer"})), None);
    }
}
