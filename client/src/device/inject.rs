//! What a viewer wants done on the device, and what does it: [`Injector`] is what a back end fills.
//!
//! `control` reads the messages and calls it, one after the other.

use std::io::Write as _;

use async_trait::async_trait;
use serde::{Deserialize, Deserializer, Serialize};

/// One message, without who sent it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Action {
    /// In pixels of the device.
    Touch {
        action: Touch,
        #[serde(default, deserialize_with = "pixels")]
        x: i32,
        #[serde(default, deserialize_with = "pixels")]
        y: i32,
    },
    Key {
        action: Press,
        #[serde(rename = "keyCode")]
        code: u16,
    },
    Text {
        text: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Touch {
    Down,
    Move,
    Up,
    Tap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Press {
    Press,
    #[serde(rename = "longpress")]
    Long,
}

impl Action {
    pub(super) fn is_move(&self) -> bool {
        let action = Touch::Move;
        matches!(self, Self::Touch { action: own, .. } if *own == action)
    }
}

/// Clients send where a finger is as a float.
fn pixels<'de, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
    f64::deserialize(from).map(|place| place.round() as i32)
}

/// Does on the device what it is told.
#[async_trait]
pub trait Injector: Send {
    /// # Errors
    /// [`InjectError`]; the next one is tried all the same.
    async fn inject(&mut self, action: &Action) -> Result<(), InjectError>;
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    #[error("the device can't be sent {what}")]
    Unsupported { what: &'static str },
    #[error("failed to {attempt}")]
    Io {
        attempt: &'static str,
        source: std::io::Error,
    },
    #[error("adb ended with {status}: {said}")]
    Adb { status: String, said: String },
    #[error("adb took more than {after:?}")]
    Slow { after: std::time::Duration },
}

impl InjectError {
    /// The `code` that the viewer is answered.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Unsupported { .. } => "unsupported",
            Self::Io { .. } | Self::Adb { .. } | Self::Slow { .. } => "failed",
        }
    }
}

/// Does nothing but write each action as a line of JSON to standard output.
#[derive(Debug)]
pub struct Log;

#[async_trait]
impl Injector for Log {
    async fn inject(&mut self, action: &Action) -> Result<(), InjectError> {
        let mut line = serde_json::to_vec(action).expect("an action is JSON");
        line.push(b'\n');
        let mut out = std::io::stdout().lock();
        let written = out.write_all(&line).and_then(|()| out.flush());
        written.map_err(|source| InjectError::Io {
            attempt: "write to standard output",
            source,
        })
    }
}
