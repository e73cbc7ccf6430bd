//! Control messages: what a viewer may ask of a device, what the device answers, and how much of both waits.
//!
//! Pure: JSON and queues, without sessions. Limits and the words that errors have are here; who gets what is
//! in `worker/control.rs`.

use serde_json::{Map, Value};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// Messages a second of one viewer, and how many may come at once.
const VIEWER_RATE: f64 = 200.0;
/// Those of a device: answers to several viewers.
const DEVICE_RATE: f64 = 1_000.0;
/// Messages that wait for a device whose connection is behind.
const DEVICE_QUEUE: usize = 256;
/// Those of them that are one viewer's, and answers that wait for a viewer.
const VIEWER_QUEUE: usize = 64;
/// Bytes that wait for one session: messages are small, and a full queue of long ones would take 4 MiB.
const QUEUE_BYTES: usize = 256 * 1024;
/// What the server adds to a message: who asks, and to whom an answer goes.
const VIEWER: &str = "viewer";

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Outcome {
    /// From a viewer to its device.
    Forwarded,
    /// By a device, to the viewer that had asked.
    Answered,
    Forbidden,
    BadRequest,
    NoPublisher,
    Busy,
    TooLarge,
    RateLimited,
    /// An answer whose viewer is gone, or takes no more.
    Undeliverable,
}

impl Outcome {
    pub const ALL: [Outcome; 9] = [
        Outcome::Forwarded,
        Outcome::Answered,
        Outcome::Forbidden,
        Outcome::BadRequest,
        Outcome::NoPublisher,
        Outcome::Busy,
        Outcome::TooLarge,
        Outcome::RateLimited,
        Outcome::Undeliverable,
    ];

    /// Value of the label `result`; of an error, the `code` that its sender is answered.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Forwarded => "forwarded",
            Outcome::Answered => "answered",
            Outcome::Forbidden => "forbidden",
            Outcome::BadRequest => "bad_request",
            Outcome::NoPublisher => "no_publisher",
            Outcome::Busy => "busy",
            Outcome::TooLarge => "too_large",
            Outcome::RateLimited => "rate_limited",
            Outcome::Undeliverable => "undeliverable",
        }
    }

    /// What the sender of a message is told.
    pub(super) fn error(self) -> Box<[u8]> {
        let code = self.as_str();
        format!(r#"{{"type":"error","code":"{code}"}}"#)
            .into_bytes()
            .into()
    }
}

/// Counts of one shard. Written by its thread, read at each scrape.
#[derive(Debug, Default)]
pub struct ControlCounts([AtomicU64; Outcome::ALL.len()]);

impl ControlCounts {
    pub(super) fn count(&self, outcome: Outcome) {
        self.0[outcome as usize].fetch_add(1, Relaxed);
    }

    pub fn of(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize].load(Relaxed)
    }
}

/// A message on its way to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    /// Number of the viewer that asks, see [`ViewerNumber`].
    pub(super) viewer: ViewerNumber,
    /// A finger that moves: only the last place counts.
    pub(super) is_move: bool,
    pub(super) bytes: Box<[u8]>,
}

/// Names a viewer to its device, and finds it again: shard, index in its table, and generation. Fits what
/// JavaScript takes for an integer. Not the session's id, which is a secret of its viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ViewerNumber(pub(super) u64);

const SHARD_BITS: u32 = 6;
const INDEX_BITS: u32 = 20;
const GENERATION_BITS: u32 = 27;

impl ViewerNumber {
    /// Of what the server itself says: no viewer has it.
    pub(super) const NOBODY: ViewerNumber = ViewerNumber(u64::MAX);

    pub(super) fn new(shard: u8, index: usize, generation: u64) -> ViewerNumber {
        let generation = generation & ((1 << GENERATION_BITS) - 1);
        let index = index as u64 & ((1 << INDEX_BITS) - 1);
        let number = (generation << INDEX_BITS | index) << SHARD_BITS | u64::from(shard);
        ViewerNumber(number)
    }

    pub(super) fn shard(self) -> u8 {
        (self.0 & ((1 << SHARD_BITS) - 1)) as u8
    }

    pub(super) fn index(self) -> usize {
        (self.0 >> SHARD_BITS & ((1 << INDEX_BITS) - 1)) as usize
    }
}

/// Reads a viewer's message.
///
/// Numbers that must be whole are rounded, because clients send floats; what the server does not know is
/// passed on.
///
/// # Errors
/// [`Outcome::BadRequest`] for what is no message, [`Outcome::Forbidden`] for one to another device.
pub(super) fn order(bytes: &[u8], device: &str, viewer: ViewerNumber) -> Result<Order, Outcome> {
    let mut message: Map<String, Value> =
        serde_json::from_slice(bytes).map_err(|_| Outcome::BadRequest)?;
    let text = |key: &str| message.get(key).and_then(Value::as_str);
    if text("deviceId").ok_or(Outcome::BadRequest)? != device {
        return Err(Outcome::Forbidden);
    }
    let action = text("action");
    let is_move = match (text("type"), action) {
        (Some("touch"), Some("down" | "move" | "up" | "tap")) => {
            for key in ["x", "y"] {
                let place = message.entry(key).or_insert(Value::from(0));
                if !place.is_number() {
                    return Err(Outcome::BadRequest);
                }
            }
            message.get("action").is_some_and(|action| action == "move")
        }
        (Some("key"), Some("press" | "longpress")) if message.contains_key("keyCode") => false,
        (Some("text"), _) if text("text").is_some() => false,
        _ => return Err(Outcome::BadRequest),
    };
    for key in ["keyCode", "timestamp"] {
        if let Some(number) = message.get_mut(key) {
            *number = whole(number).ok_or(Outcome::BadRequest)?;
        }
    }
    message.insert(VIEWER.to_owned(), viewer.0.into());
    Ok(Order {
        viewer,
        is_move,
        bytes: Value::from(message).to_string().into_bytes().into(),
    })
}

/// Whom a device's message is for, and what that viewer gets; `None` if it is no answer.
pub(super) fn answer(bytes: &[u8]) -> Option<(ViewerNumber, Box<[u8]>)> {
    let mut message: Map<String, Value> = serde_json::from_slice(bytes).ok()?;
    let viewer = message.remove(VIEWER)?;
    let viewer = ViewerNumber(whole(&viewer)?.as_u64()?);
    Some((viewer, Value::from(message).to_string().into_bytes().into()))
}

/// The nearest integer; `None` for what is no number, or beyond what a float has exactly.
fn whole(number: &Value) -> Option<Value> {
    const EXACT: f64 = (1u64 << 53) as f64;
    if number.is_i64() || number.is_u64() {
        return Some(number.clone());
    }
    let number = number.as_f64()?.round();
    (number.abs() <= EXACT).then(|| Value::from(number as i64))
}

/// What one session has of control: how often it spoke, and what waits for it. Made with its first message.
#[derive(Debug)]
pub(super) struct Control {
    rate: f64,
    tokens: f64,
    since: Instant,
    waiting: VecDeque<Order>,
    waiting_bytes: usize,
    /// Where its last message came from, if not its data channel: answers go there.
    pub(super) elsewhere: Option<mpsc::Sender<Box<[u8]>>>,
}

impl Control {
    pub(super) fn of_viewer(now: Instant) -> Control {
        Control::new(now, VIEWER_RATE)
    }

    pub(super) fn of_device(now: Instant) -> Control {
        Control::new(now, DEVICE_RATE)
    }

    fn new(now: Instant, rate: f64) -> Control {
        Control {
            rate,
            tokens: rate,
            since: now,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            elsewhere: None,
        }
    }

    /// Whether the session may speak once more.
    pub(super) fn may_speak(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since);
        self.since = now;
        self.tokens = (self.tokens + passed.as_secs_f64() * self.rate).min(self.rate);
        let may = self.tokens >= 1.0;
        if may {
            self.tokens -= 1.0;
        }
        may
    }

    /// Sends an answer to where the last message came from; `false` if there is no room.
    ///
    /// # Errors
    /// The answer: it is for the data channel, also if the other way is gone.
    pub(super) fn send_elsewhere(&mut self, answer: Box<[u8]>) -> Result<bool, Box<[u8]>> {
        let Some(elsewhere) = &self.elsewhere else {
            return Err(answer);
        };
        match elsewhere.try_send(answer) {
            Ok(()) => Ok(true),
            Err(TrySendError::Full(_)) => Ok(false),
            Err(TrySendError::Closed(answer)) => {
                self.elsewhere = None;
                Err(answer)
            }
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Lets a message wait for the session; `false` if there is no room. A viewer's move takes the place of
    /// one that waits, if nothing of that viewer came between them.
    pub(super) fn wait(&mut self, order: Order, most: usize) -> bool {
        let same = |waiting: &&mut Order| waiting.viewer == order.viewer;
        let last = self.waiting.iter_mut().rev().find(same);
        if let Some(last) = last.filter(|last| last.is_move && order.is_move) {
            self.waiting_bytes -= last.bytes.len();
            self.waiting_bytes += order.bytes.len();
            *last = order;
            return true;
        }
        let own = self.waiting.iter().filter(|w| w.viewer == order.viewer);
        let room = self.waiting.len() < most
            && own.count() < VIEWER_QUEUE
            && self.waiting_bytes + order.bytes.len() <= QUEUE_BYTES;
        if room {
            self.waiting_bytes += order.bytes.len();
            self.waiting.push_back(order);
        }
        room
    }

    /// The next message that waits.
    pub(super) fn first(&self) -> Option<&Order> {
        self.waiting.front()
    }

    pub(super) fn take_first(&mut self) -> Option<Order> {
        let first = self.waiting.pop_front()?;
        self.waiting_bytes -= first.bytes.len();
        Some(first)
    }
}

/// Messages that may wait for a device or, from it, for a viewer.
pub(super) const fn most(of_device: bool) -> usize {
    if of_device {
        DEVICE_QUEUE
    } else {
        VIEWER_QUEUE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const VIEWER_7: ViewerNumber = ViewerNumber(7);

    fn read(text: &str) -> Result<Value, Outcome> {
        let order = order(text.as_bytes(), "cam-1", VIEWER_7)?;
        Ok(serde_json::from_slice(&order.bytes).expect("JSON"))
    }

    #[test]
    fn answers_go_the_way_of_the_last_message_and_to_the_channel_once_that_is_gone() {
        let mut control = Control::of_viewer(Instant::now());
        let answer = || -> Box<[u8]> { (*b"{}").into() };
        assert_eq!(control.send_elsewhere(answer()), Err(answer()));
        let (elsewhere, answers) = mpsc::channel(1);
        control.elsewhere = Some(elsewhere);
        assert_eq!(control.send_elsewhere(answer()), Ok(true));
        assert_eq!(control.send_elsewhere(answer()), Ok(false), "no room");
        drop(answers);
        assert_eq!(control.send_elsewhere(answer()), Err(answer()));
        assert!(control.elsewhere.is_none());
    }

    #[test]
    fn the_three_kinds_are_passed_on_with_their_viewer_and_whole_numbers() {
        for (sent, passed) in [
            (
                r#"{"type":"touch","deviceId":"cam-1","action":"down","x":1.5,"timestamp":1.7e12}"#,
                r#"{"type":"touch","deviceId":"cam-1","action":"down","x":1.5,"y":0,"timestamp":1700000000000,"viewer":7}"#,
            ),
            (
                r#"{"type":"key","deviceId":"cam-1","action":"longpress","keyCode":4.0,"viewer":9}"#,
                r#"{"type":"key","deviceId":"cam-1","action":"longpress","keyCode":4,"viewer":7}"#,
            ),
            (
                r#"{"type":"text","deviceId":"cam-1","action":"","text":"hé","id":3}"#,
                r#"{"type":"text","deviceId":"cam-1","action":"","text":"hé","id":3,"viewer":7}"#,
            ),
        ] {
            let passed: Value = serde_json::from_str(passed).expect("JSON");
            assert_eq!(read(sent), Ok(passed), "{sent}");
        }
    }

    #[test]
    fn what_is_no_message_to_the_device_is_refused() {
        for (sent, code) in [
            ("", Outcome::BadRequest),
            ("[]", Outcome::BadRequest),
            ("\u{7f}", Outcome::BadRequest),
            (r#"{"type":"touch","action":"tap"}"#, Outcome::BadRequest),
            (
                r#"{"type":"touch","deviceId":"cam-1","action":"wipe"}"#,
                Outcome::BadRequest,
            ),
            (
                r#"{"type":"touch","deviceId":"cam-1","action":"tap","x":"1"}"#,
                Outcome::BadRequest,
            ),
            (
                r#"{"type":"key","deviceId":"cam-1","action":"press"}"#,
                Outcome::BadRequest,
            ),
            (
                r#"{"type":"key","deviceId":"cam-1","action":"press","keyCode":1e300}"#,
                Outcome::BadRequest,
            ),
            (
                r#"{"type":"text","deviceId":"cam-1","text":1}"#,
                Outcome::BadRequest,
            ),
            (
                r#"{"type":"swipe","deviceId":"cam-1","action":"down"}"#,
                Outcome::BadRequest,
            ),
            (
                r#"{"type":"touch","deviceId":"cam-2","action":"tap"}"#,
                Outcome::Forbidden,
            ),
        ] {
            assert_eq!(read(sent), Err(code), "{sent}");
        }
        let deep = "[".repeat(16_000);
        assert_eq!(read(&deep), Err(Outcome::BadRequest));
    }

    #[test]
    fn an_answer_goes_to_the_viewer_that_it_names_without_its_number() {
        let (viewer, bytes) = answer(br#"{"type":"ack","id":3,"viewer":7.0}"#).expect("an answer");
        assert_eq!(viewer, VIEWER_7);
        assert_eq!(&*bytes, br#"{"id":3,"type":"ack"}"#);
        for bad in [&b"{}"[..], b"7", br#"{"viewer":-1}"#, br#"{"viewer":"7"}"#] {
            assert_eq!(answer(bad), None);
        }
    }

    #[test]
    fn the_number_of_a_viewer_leads_back_to_it_and_is_exact_in_a_float() {
        let number = ViewerNumber::new(63, (1 << 20) - 1, u64::MAX);
        assert_eq!((number.shard(), number.index()), (63, (1 << 20) - 1));
        assert_eq!(number.0 as f64 as u64, number.0);
        assert_ne!(ViewerNumber::new(0, 5, 1), ViewerNumber::new(0, 5, 2));
    }

    #[test]
    fn a_move_takes_the_place_of_the_move_before_and_of_nothing_else() {
        let mut control = Control::of_device(Instant::now());
        let order = |viewer, is_move, text: &str| Order {
            viewer: ViewerNumber(viewer),
            is_move,
            bytes: text.as_bytes().into(),
        };
        for (viewer, is_move, text) in [
            (1, false, "down"),
            (1, true, "a"),
            (2, true, "b"),
            (1, true, "c"),
            (1, false, "up"),
            (1, true, "d"),
        ] {
            assert!(control.wait(order(viewer, is_move, text), most(true)));
        }
        let mut left = Vec::new();
        while let Some(order) = control.take_first() {
            left.push(String::from_utf8_lossy(&order.bytes).into_owned());
        }
        assert_eq!(left, ["down", "c", "b", "up", "d"]);
        assert_eq!(control.waiting_bytes, 0);
    }

    #[test]
    fn a_device_has_256_messages_waiting_and_64_of_one_viewer() {
        let mut control = Control::of_device(Instant::now());
        let order = |viewer| Order {
            viewer: ViewerNumber(viewer),
            is_move: false,
            bytes: b"x"[..].into(),
        };
        let mut waiting = |viewer| {
            (0..100)
                .filter(|_| control.wait(order(viewer), most(true)))
                .count()
        };
        let counts: Vec<usize> = (0..5).map(&mut waiting).collect();
        assert_eq!(counts, [64, 64, 64, 64, 0]);
        let long = Order {
            bytes: vec![0; 16 * 1024].into(),
            ..order(1)
        };
        let mut control = Control::of_device(Instant::now());
        let count = (0..64).filter(|_| control.wait(long.clone(), most(true)));
        assert_eq!(count.count(), 16, "256 KiB");
    }

    #[test]
    fn two_hundred_messages_a_second_are_a_viewers() {
        let start = Instant::now();
        let mut control = Control::of_viewer(start);
        let spoken = |control: &mut Control, ms| {
            let now = start + Duration::from_millis(ms);
            (0..1_000).filter(|_| control.may_speak(now)).count()
        };
        assert_eq!(spoken(&mut control, 0), 200);
        assert_eq!(spoken(&mut control, 100), 20);
        assert_eq!(spoken(&mut control, 60_000), 200);
    }
}
