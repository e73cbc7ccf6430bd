//! The device's end of the data channel `control`: reads what viewers ask, has it done in order, answers.
//!
//! What waits is bounded, and a finger that moves takes only its last place, as at the server. Called by
//! `device` for as long as a session lasts.

use std::collections::VecDeque;

use serde_json::{Map, Value, json};

use super::inject::{Action, Injector};
use crate::Control;
use crate::error::with_causes;

/// Messages that wait for the injector, of all viewers: what the server lets one viewer have waiting.
const MOST: usize = 64;

/// What a viewer asks for.
#[derive(Debug, Clone, PartialEq)]
struct Order {
    from: Sender,
    action: Action,
}

/// To whom the answer goes, and what it answers.
#[derive(Debug, Clone, PartialEq)]
struct Sender {
    /// The number that the server gave its viewer.
    viewer: Value,
    /// What the viewer gave its message, if it did.
    id: Option<Value>,
}

impl Sender {
    fn answer(&self, result: Result<(), &str>) -> String {
        let mut answer = match result {
            Ok(()) => json!({"type": "ack"}),
            Err(code) => json!({"type": "error", "code": code}),
        };
        answer["viewer"] = self.viewer.clone();
        if let Some(id) = &self.id {
            answer["id"] = id.clone();
        }
        answer.to_string()
    }
}

/// What became of a message.
#[derive(Debug, PartialEq)]
enum Read {
    Order(Order),
    /// No order; its sender is told.
    Refused(Sender),
    /// Of no viewer: the server's own word, or nobody's.
    Stray,
}

fn read(text: &str) -> Read {
    let Ok(mut message) = serde_json::from_str::<Map<String, Value>>(text) else {
        return Read::Stray;
    };
    let Some(viewer) = message.remove("viewer").filter(Value::is_u64) else {
        return Read::Stray;
    };
    let id = message.remove("id");
    let from = Sender { viewer, id };
    match serde_json::from_value(Value::Object(message)) {
        Ok(action) => Read::Order(Order { from, action }),
        Err(_) => Read::Refused(from),
    }
}

/// Orders that wait.
#[derive(Debug, Default)]
struct Queue(VecDeque<Order>);

impl Queue {
    /// `false` if there is no room. A viewer's move takes the place of its move that waits, if nothing else
    /// of that viewer came between them.
    fn push(&mut self, order: Order) -> bool {
        let of_viewer = |waiting: &&mut Order| waiting.from.viewer == order.from.viewer;
        let last = self.0.iter_mut().rev().find(of_viewer);
        if let Some(last) = last
            && last.action.is_move()
            && order.action.is_move()
        {
            *last = order;
            return true;
        }
        let room = self.0.len() < MOST;
        if room {
            self.0.push_back(order);
        }
        room
    }
}

/// Serves the channel until it is closed.
pub(super) async fn serve(control: &Control, injector: &mut dyn Injector) {
    if !control.opened().await {
        tracing::warn!("the server takes no control channel");
        return;
    }
    let mut queue = Queue::default();
    loop {
        let Some(order) = queue.0.pop_front() else {
            match control.receive().await {
                Some(text) => take(control, &mut queue, &text).await,
                None => return,
            }
            continue;
        };
        let done = {
            let injecting = injector.inject(&order.action);
            tokio::pin!(injecting);
            loop {
                tokio::select! {
                    done = &mut injecting => break done,
                    text = control.receive() => match text {
                        Some(text) => take(control, &mut queue, &text).await,
                        None => return,
                    },
                }
            }
        };
        if let Err(error) = &done {
            tracing::warn!(error = %with_causes(error), "a control message was not carried out");
        }
        let result = done.map_err(|error| error.code());
        send(control, &order.from.answer(result)).await;
    }
}

async fn take(control: &Control, queue: &mut Queue, text: &str) {
    match read(text) {
        Read::Order(order) => {
            let from = order.from.clone();
            if !queue.push(order) {
                send(control, &from.answer(Err("busy"))).await;
            }
        }
        Read::Refused(from) => send(control, &from.answer(Err("bad_request"))).await,
        Read::Stray => tracing::debug!("a control message of no viewer"),
    }
}

async fn send(control: &Control, answer: &str) {
    if let Err(error) = control.send(answer).await {
        tracing::debug!(%error, "an answer was not sent");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::inject::Touch;

    fn order(viewer: u64, action: Touch, x: i32) -> Order {
        Order {
            from: Sender {
                viewer: viewer.into(),
                id: None,
            },
            action: Action::Touch { action, x, y: 0 },
        }
    }

    #[test]
    fn a_message_becomes_an_order_whose_answer_goes_to_its_viewer() {
        let text = r#"{"type":"touch","deviceId":"cam-1","action":"tap","x":540.5,"y":960,"id":"a",
            "timestamp":1700000000000,"viewer":7}"#;
        let Read::Order(order) = read(text) else {
            panic!("it is one");
        };
        let action = Touch::Tap;
        let (x, y) = (541, 960);
        assert_eq!(order.action, Action::Touch { action, x, y });
        let value = |text: String| serde_json::from_str::<Value>(&text).expect("JSON");
        let answer = value(order.from.answer(Ok(())));
        assert_eq!(answer, json!({"type": "ack", "id": "a", "viewer": 7}));
        let answer = value(order.from.answer(Err("busy")));
        assert_eq!(
            answer,
            json!({"type": "error", "code": "busy", "id": "a", "viewer": 7})
        );
    }

    #[test]
    fn what_is_no_order_is_refused_where_its_sender_is_known_and_left_where_not() {
        for text in [
            r#"{"viewer":7}"#,
            r#"{"type":"swipe","viewer":7}"#,
            r#"{"type":"touch","action":"wipe","viewer":7}"#,
            r#"{"type":"touch","action":"tap","x":"1","viewer":7}"#,
            r#"{"type":"key","action":"press","viewer":7}"#,
            r#"{"type":"key","action":"press","keyCode":-1,"viewer":7}"#,
            r#"{"type":"key","action":"press","keyCode":65536,"viewer":7}"#,
            r#"{"type":"text","text":null,"viewer":7}"#,
        ] {
            let refused = Sender {
                viewer: 7.into(),
                id: None,
            };
            assert_eq!(read(text), Read::Refused(refused), "{text}");
        }
        let deep = "[".repeat(100_000);
        for text in [
            "",
            "[]",
            "junk",
            &deep,
            r#"{"type":"error","code":"bad_request"}"#,
        ] {
            assert_eq!(read(text), Read::Stray, "{text:.40}");
        }
        for viewer in ["-1", "\"7\"", "1.5", "null"] {
            let text = format!(r#"{{"type":"text","text":"a","viewer":{viewer}}}"#);
            assert_eq!(read(&text), Read::Stray, "{text}");
        }
    }

    #[test]
    fn a_finger_that_moves_takes_only_its_last_place() {
        let mut queue = Queue::default();
        let (down, moved, up) = (Touch::Down, Touch::Move, Touch::Up);
        let sent = [
            (1, down, 0),
            (1, moved, 1),
            (2, moved, 2),
            (1, moved, 3),
            (1, up, 4),
            (1, moved, 5),
        ];
        for (viewer, action, x) in sent {
            assert!(queue.push(order(viewer, action, x)));
        }
        let left = [
            (1, down, 0),
            (1, moved, 3),
            (2, moved, 2),
            (1, up, 4),
            (1, moved, 5),
        ];
        let left = left.map(|(viewer, action, x)| order(viewer, action, x));
        assert_eq!(queue.0, left);
    }

    #[test]
    fn no_more_than_64_messages_wait() {
        let mut queue = Queue::default();
        let taken = (0..100).filter(|x| queue.push(order(1, Touch::Tap, *x)));
        assert_eq!(taken.count(), MOST);
    }
}
