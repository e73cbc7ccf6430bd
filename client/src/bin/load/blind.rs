//! Why viewers saw no picture: how many for each reason, and of the first of them all that is known.

use std::collections::BTreeMap;

use client::{ClientError, Codec, PeerState};
use serde::Serialize;

use crate::join::Watching;

/// Viewers that are told of one by one.
const MAX_TOLD: usize = 20;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Blind {
    /// `refused_503` and the like, `no_layer_choice`, `not_connected`, `no_packet`, `no_keyframe`,
    /// `keyframe_incomplete`.
    pub by_reason: BTreeMap<String, u64>,
    /// The first of them.
    pub viewers: Vec<BlindViewer>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BlindViewer {
    /// In the order in which they were to come, from 0.
    pub viewer: usize,
    #[serde(flatten)]
    pub reason: Reason,
}

/// Why a viewer saw no picture.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// The server refused the session.
    Refused { status: u16, error: String },
    /// The server offers no choice of layers.
    NoLayerChoice,
    /// There was no session, or one that never connected.
    NotConnected { error: String },
    /// It connected and nothing came.
    NoPacket { state: PeerState },
    /// What came was of no keyframe: the ones before were lost unseen, or none was sent.
    NoKeyframe(Came),
    /// A part of one keyframe or more came, `has` of `of` packets at most.
    KeyframeIncomplete {
        has: u32,
        of: u32,
        #[serde(flatten)]
        came: Came,
    },
}

/// What came instead.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Came {
    pub packets: u64,
    /// Missing by sequence gaps.
    pub lost: u64,
    /// Which frame of its device the first packet was of, and its place in there, both from 0.
    pub first_frame: Option<u32>,
    pub first_packet: Option<u16>,
}

impl Reason {
    fn key(&self) -> String {
        match self {
            Self::Refused { status, .. } => format!("refused_{status}"),
            Self::NoLayerChoice => "no_layer_choice".into(),
            Self::NotConnected { .. } => "not_connected".into(),
            Self::NoPacket { .. } => "no_packet".into(),
            Self::NoKeyframe { .. } => "no_keyframe".into(),
            Self::KeyframeIncomplete { .. } => "keyframe_incomplete".into(),
        }
    }

    /// Of a viewer that could not join.
    pub fn of_failure(error: &anyhow::Error) -> Self {
        let cause = error.downcast_ref();
        if let Some(ClientError::NoLayerChoice) = cause {
            return Self::NoLayerChoice;
        }
        let refused = cause.and_then(ClientError::status);
        let error = format!("{error:#}");
        match refused {
            Some(status) => Self::Refused { status, error },
            None => Self::NotConnected { error },
        }
    }

    /// Of a viewer that is there; `None` if it sees a picture. What others publish has no stamps to know
    /// one by: any packet will do.
    fn of_watching(watch: &Watching, codec: Codec, stamped: bool) -> Option<Self> {
        if watch.eye.picture().is_some() || (!stamped && watch.viewer.packets() > 0) {
            return None;
        }
        let reception = watch.viewer.reception();
        let Some(stream) = reception.stream(codec) else {
            let state = watch.viewer.state();
            return Some(Self::NoPacket { state });
        };
        let (first, keyframe) = watch.eye.seen();
        let came = Came {
            packets: stream.packets,
            lost: stream.lost(),
            first_frame: first.map(|stamp| stamp.frame),
            first_packet: first.map(|stamp| stamp.index),
        };
        Some(match keyframe {
            Some((has, of)) => Self::KeyframeIncomplete { has, of, came },
            None => Self::NoKeyframe(came),
        })
    }
}

impl Blind {
    /// Adds a viewer.
    pub fn add(&mut self, viewer: usize, reason: Reason) {
        *self.by_reason.entry(reason.key()).or_default() += 1;
        if self.viewers.len() < MAX_TOLD {
            self.viewers.push(BlindViewer { viewer, reason });
        }
    }

    /// Adds those of them who see none now; `stamped` if this run publishes what they watch.
    pub fn look_at<'a>(
        &mut self,
        watching: impl IntoIterator<Item = &'a Watching>,
        codec: Codec,
        stamped: bool,
    ) {
        for watch in watching {
            if let Some(reason) = Reason::of_watching(watch, codec, stamped) {
                self.add(watch.number, reason);
            }
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.by_reason.values().sum()
    }

    /// Adds those of another group.
    pub fn merge(&mut self, other: Self) {
        for (reason, count) in other.by_reason {
            *self.by_reason.entry(reason).or_default() += count;
        }
        let room = MAX_TOLD - self.viewers.len();
        self.viewers.extend(other.viewers.into_iter().take(room));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_apart_from_a_connection_that_failed() {
        let refused = ClientError::Refused {
            method: "POST",
            url: "http://h/whep/a".into(),
            status: 503,
            problem: Box::default(),
            retry_after_seconds: Some(1),
        };
        let mut blind = Blind::default();
        blind.add(3, Reason::of_failure(&anyhow::Error::new(refused)));
        let state = PeerState::Failed;
        let failed = ClientError::NotConnected { state };
        blind.add(4, Reason::of_failure(&anyhow::Error::new(failed)));
        let counts: Vec<(&str, u64)> = blind
            .by_reason
            .iter()
            .map(|(reason, count)| (reason.as_str(), *count))
            .collect();
        assert_eq!(counts, [("not_connected", 1), ("refused_503", 1)]);
    }

    #[test]
    fn all_are_counted_and_the_first_told_of_one_by_one() {
        let mut blind = Blind::default();
        let incomplete = Reason::KeyframeIncomplete {
            has: 3,
            of: 7,
            came: Came {
                packets: 40,
                ..Came::default()
            },
        };
        blind.add(17, incomplete);
        let mut more = Blind::default();
        let state = PeerState::Connected;
        (100..200).for_each(|viewer| more.add(viewer, Reason::NoPacket { state }));
        blind.merge(more);
        assert_eq!(blind.by_reason["no_packet"], 100);
        assert_eq!(blind.viewers.len(), MAX_TOLD);
        let told = serde_json::to_value(&blind.viewers[0]).expect("JSON");
        let expected = serde_json::json!({
            "viewer": 17, "reason": "keyframe_incomplete", "has": 3, "of": 7,
            "packets": 40, "lost": 0, "first_frame": null, "first_packet": null,
        });
        assert_eq!(told, expected);
    }
}
