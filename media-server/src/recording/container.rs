//! The two kinds of files, behind one face: a header, fragments of about a second, an ending.
//!
//! Frames in, bytes out; whoever calls writes them. What was written up to any fragment plays.

use super::frame::{Frame, Tracks};
use super::mp4::Mp4;
use super::webm::WebM;
use media_core::negotiated::Codec;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    WebM,
    Mp4,
}

impl Format {
    pub const ALL: [Format; 2] = [Format::WebM, Format::Mp4];

    /// Name in requests, and ending of file names.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::WebM => "webm",
            Format::Mp4 => "mp4",
        }
    }

    pub fn media_type(self) -> &'static str {
        match self {
            Format::WebM => "video/webm",
            Format::Mp4 => "video/mp4",
        }
    }

    /// The one that a codec goes into where nobody asks for one.
    pub fn of(codec: &Codec) -> Format {
        match codec {
            Codec::H264 { .. } => Format::Mp4,
            _ => Format::WebM,
        }
    }

    /// Whether browsers play the codec from it.
    pub fn holds(self, codec: &Codec) -> bool {
        match self {
            Format::WebM => matches!(codec, Codec::Vp8 | Codec::Vp9 { .. } | Codec::Av1 { .. }),
            Format::Mp4 => matches!(codec, Codec::H264 { .. } | Codec::Av1 { .. }),
        }
    }
}

/// Bytes to write over others.
#[derive(Debug, PartialEq, Eq)]
pub struct Patch {
    pub at: u64,
    pub bytes: Vec<u8>,
}

/// What a file grows by, and then what that changes of the rest.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Part {
    pub bytes: Vec<u8>,
    pub patches: Vec<Patch>,
}

/// A file under way.
pub enum Container {
    WebM(WebM),
    Mp4(Box<Mp4>),
}

impl Container {
    /// The file and its header.
    pub fn new(format: Format, tracks: &Tracks) -> (Container, Vec<u8>) {
        match format {
            Format::WebM => {
                let (webm, header) = WebM::new(tracks);
                (Container::WebM(webm), header)
            }
            Format::Mp4 => {
                let (mp4, header) = Mp4::new(tracks);
                (Container::Mp4(Box::new(mp4)), header)
            }
        }
    }

    /// The next fragment. `next` are the frames that follow, as far as there are any yet.
    pub fn fragment(&mut self, frames: &[Frame], next: &[Frame]) -> Part {
        match self {
            Container::WebM(webm) => Part {
                bytes: webm.fragment(frames),
                patches: Vec::new(),
            },
            Container::Mp4(mp4) => mp4.fragment(frames, next),
        }
    }

    /// What makes a file complete. `end` is in microseconds: the last picture is shown until then.
    pub fn finish(&mut self, end: u64) -> Part {
        match self {
            Container::WebM(webm) => webm.finish(end),
            Container::Mp4(mp4) => mp4.finish(end),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::recording::frame::{Headers, VideoTrack};
    use media_core::negotiated::Kind;

    pub fn tracks(codec: Codec) -> Tracks {
        Tracks {
            video: VideoTrack {
                codec,
                width: 640,
                height: 360,
                headers: Headers {
                    sequence: vec![0x67, 0x42, 0xc0, 0x1e, 1],
                    picture: vec![0x68, 2],
                    obu: vec![0x0a, 4, 0, 0, 0, 5 << 3],
                },
            },
            audio: true,
        }
    }

    /// A second of 10 pictures, the first a keyframe, and 50 packets of sound.
    pub fn frames(second: u64) -> Vec<Frame> {
        let picture = |n: u64| Frame {
            kind: Kind::Video,
            time: second * 90_000 + n * 9_000,
            key: n == 0,
            data: vec![n as u8; 30],
        };
        let sound = |n: u64| Frame {
            kind: Kind::Audio,
            time: second * 48_000 + n * 960,
            key: true,
            data: vec![n as u8; 5],
        };
        let mut frames: Vec<Frame> = (0..10).map(picture).chain((0..50).map(sound)).collect();
        frames.sort_by_key(Frame::micros);
        frames
    }

    pub fn apply(mut bytes: Vec<u8>, part: Part) -> Vec<u8> {
        bytes.extend(part.bytes);
        for patch in part.patches {
            let at = patch.at as usize;
            bytes[at..at + patch.bytes.len()].copy_from_slice(&patch.bytes);
        }
        bytes
    }

    #[test]
    fn a_format_takes_what_browsers_play_from_it() {
        let h264 = Codec::H264 {
            packetization_mode: 1,
            profile_iop: 0x42e0,
        };
        let av1 = Codec::Av1 { profile: 0 };
        assert_eq!(Format::of(&h264), Format::Mp4);
        assert_eq!(Format::of(&Codec::Vp8), Format::WebM);
        for format in Format::ALL {
            assert!(format.holds(&av1));
            assert_eq!(format.holds(&h264), format == Format::Mp4);
            assert_eq!(format.holds(&Codec::Vp8), format == Format::WebM);
        }
    }
}
