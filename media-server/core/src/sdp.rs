//! SDP as WHIP and WHEP use it: read an offer, agree on codecs, write the answer. Also the other way round,
//! for clients that wait for an offer: write one, and read its answer.
//!
//! Owns the limits on what a client may send and the words it is refused with. Never keeps state and
//! never logs. Called by signalling, on a tokio thread; the result is a [`Negotiated`] for the shard
//! and the text of the answer.

mod answer;
mod codecs;
mod data_channels;
mod extensions;
mod feedback;
mod fragment;
mod offer;
mod proposal;
mod simulcast;
#[cfg(test)]
mod tests;

pub use answer::{Bundle, Candidate, CandidateKind, Local, write_answer, write_restart};
pub use fragment::{Fragment, FragmentError, component};
pub use offer::{Direction, Offer, OfferedMedia};
pub use proposal::{AnswerError, Proposal, Proposed};

use crate::negotiated::Negotiated;

/// Longest offer or fragment in bytes. A Chromium offer of both kinds with every codec is 6 to 8 KiB.
pub const MAX_SDP_BYTES: usize = 64 * 1024;
/// Most m-lines of an offer. One of each kind and one for data are used; browsers that never stop
/// transceivers offer a few more.
pub const MAX_MEDIA: usize = 8;
/// Most codecs of an offer, over all m-lines.
pub const MAX_CODECS: usize = 64;
/// Most candidates of an offer or fragment.
pub const MAX_CANDIDATES: usize = 64;
/// Longest line in bytes.
pub const MAX_LINE_BYTES: usize = 4096;

/// Why an offer can't be answered. The text is for the client's author: it says what was wrong and
/// what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// Not an SDP offer of a WebRTC endpoint, or beyond a limit.
    #[error("{0}")]
    Malformed(String),
    /// A correct offer that asks for what this server does not do.
    #[error("{0}")]
    Unsupported(String),
    /// No codec of this kind is known to both sides.
    #[error("{0}")]
    NoCommonCodec(String),
}

/// An offer and what was agreed on, from which the answer is written.
#[derive(Debug)]
pub struct Agreement {
    pub negotiated: Negotiated,
    /// What each m-line of the offer became.
    pub(crate) lines: Vec<Line>,
}

/// An m-line of the offer, in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// Index into `negotiated.tracks`.
    Track(usize),
    DataChannels,
    /// Answered with port 0.
    Refused,
}
