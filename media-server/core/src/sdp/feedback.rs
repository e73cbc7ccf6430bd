//! Feedback on bandwidth, as an m-line offers it and as it is answered: transport-wide congestion
//! control, else REMB.

use super::OfferedMedia;
use super::codecs::OfferedCodec;
use crate::negotiated::{Negotiated, Role, Track};

/// `a=rtcp-fb` lines of a payload type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Feedback {
    pub(super) transport_cc: bool,
    pub(super) remb: bool,
}

impl Feedback {
    /// What holds for a track of ours.
    pub(super) fn agreed(negotiated: &Negotiated, track: &Track) -> Self {
        Feedback {
            transport_cc: track.extensions.transport_cc.is_some(),
            remb: negotiated.remb,
        }
    }

    /// Writes the lines of a payload type that offered them.
    pub(super) fn write(self, offered: &OfferedCodec, mut line: impl FnMut(String)) {
        let pt = offered.pt();
        if self.remb && offered.feedback.remb {
            line(format!("a=rtcp-fb:{pt} goog-remb"));
        }
        if self.transport_cc && offered.feedback.transport_cc {
            line(format!("a=rtcp-fb:{pt} transport-cc"));
        }
    }
}

/// Whether REMB is answered: to a publisher, for which it is a limit beside its own estimate, and to a
/// viewer that has nothing better.
pub(super) fn remb(role: Role, media: &[OfferedMedia], tracks: &[Track]) -> bool {
    let transport_cc = tracks.iter().any(|t| t.extensions.transport_cc.is_some());
    let used = media
        .iter()
        .filter(|m| !m.stopped && m.kind.is_some())
        .flat_map(|m| &m.codecs);
    used.into_iter().any(|codec| codec.feedback.remb) && (role == Role::Publisher || !transport_cc)
}
