//! What lies between packets and files: whole pictures and sound packets with their time.

use media_core::media::clock_rate;
use media_core::negotiated::{Codec, Kind};

/// A picture or a packet of sound, as a container takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: Kind,
    /// Since the start of the file, in ticks of its kind's clock.
    pub time: u64,
    /// Decoding can start here.
    pub key: bool,
    pub data: Vec<u8>,
}

impl Frame {
    /// Its time in microseconds, by which frames of both kinds compare.
    pub fn micros(&self) -> u64 {
        self.time * 1_000_000 / u64::from(clock_rate(self.kind))
    }
}

/// What a file says of its tracks before the first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracks {
    pub video: VideoTrack,
    /// Whether there is sound; it is Opus.
    pub audio: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoTrack {
    pub codec: Codec,
    /// Of the first picture, in pixels.
    pub width: u16,
    pub height: u16,
    pub headers: Headers,
}

/// What a decoder needs before the first picture and a container keeps apart from pictures.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers {
    /// H.264: the last parameter sets.
    pub sequence: Vec<u8>,
    pub picture: Vec<u8>,
    /// AV1: the sequence header OBU, with its size.
    pub obu: Vec<u8>,
}
