//! Where a device's pictures and sound come from.
//!
//! [`Source`] is what a back end fills: files, pipes and RTSP are here; what an encoder on a device gives,
//! as the server of scrcpy does, can be another (`docs/devices.md`). `feed` calls it.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::annex_b::NotAnnexB;
use super::units::AccessUnit;

/// A stream of one video and at most one audio track.
///
/// One task calls it. A call of [`Self::next`] may be dropped before it is done, for a keyframe that is
/// asked for, and nothing may be lost by that; [`Self::open`] runs to its end.
#[async_trait]
pub trait Source: Send {
    /// Opens it, or opens it anew after it failed.
    ///
    /// # Errors
    /// [`SourceError`]; one that is final is not tried again.
    async fn open(&mut self) -> Result<Opened, SourceError>;

    /// What comes next; `None` once it has come to its end, which is the device's.
    ///
    /// # Errors
    /// As [`Self::open`]. It is opened anew then.
    async fn next(&mut self) -> Result<Option<Sample>, SourceError>;

    /// Has the next picture be a keyframe, where it can.
    fn request_keyframe(&mut self) {}
}

/// What a source turned out to have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// Whether Opus comes too.
    pub audio: bool,
    /// Why something of it is left out.
    pub left_out: Option<String>,
}

/// A piece of the stream. Times are the source's own, from when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sample {
    /// A picture in H.264.
    Video { at: Duration, unit: AccessUnit },
    /// A packet of Opus.
    Audio { at: Duration, packet: Bytes },
    /// Something between the pictures before and after is missing.
    Gap,
}

/// Why a source gives nothing.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("failed to read {name}")]
    Read {
        name: String,
        source: std::io::Error,
    },
    #[error("{name} can't be sent")]
    Format { name: String, source: NotAnnexB },
    #[error(
        "{name} has no keyframe with its parameter sets (SPS and PPS), so nobody could begin to watch"
    )]
    NoKeyframe { name: String },
    #[error("failed to play {url}")]
    Rtsp { url: String, source: retina::Error },
    #[error("{url} has no video in H.264, only {has}")]
    NoVideo { url: String, has: String },
    #[error("{url} has ended")]
    Ended { url: String },
    #[error("nothing came from {url} for {after:?}")]
    Idle { url: String, after: Duration },
}

impl SourceError {
    /// Whether another try with the same input can't succeed: it is here, and it is not a camera that
    /// comes back.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Read { .. } | Self::Format { .. } | Self::NoKeyframe { .. } => true,
            Self::Rtsp { .. } | Self::NoVideo { .. } | Self::Ended { .. } | Self::Idle { .. } => {
                false
            }
        }
    }
}
