//! Frames → WebM (RFC 9559): a header, then clusters.
//!
//! While it is written the segment has no size and no duration, as in a live stream: it plays at any
//! moment. At the end size, duration and index go into places that were kept free for them.

use super::container::{Part, Patch};
use super::frame::{Frame, Tracks, VideoTrack};
use super::headers;
use media_core::negotiated::{Codec, Kind};
use webm_iterable::matroska_spec::{Master, MatroskaSpec as Tag, SimpleBlock};
use webm_iterable::{WebmWriter, WriteOptions};

/// Identifier of a segment, and the size that says that nobody knows it yet.
const SEGMENT: [u8; 12] = *b"\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff";
const VOID: u64 = 0xec;
/// Bytes kept free for the list of what is where: three entries of up to 21 bytes, and its header.
const SEEK_HEAD: usize = 80;
/// An identifier of two bytes, a length of one, a float of eight.
const DURATION: usize = 11;
const VIDEO: u64 = 1;
const AUDIO: u64 = 2;
/// What a decoder of Opus is given before the moment that it is to be right at (RFC 7845 §4.6).
const SEEK_PREROLL_NS: u64 = 80_000_000;

/// See the module.
pub struct WebM {
    /// Bytes given out so far.
    written: u64,
    /// Where the segment's data begins: positions count from there.
    segment: u64,
    info: u64,
    tracks: u64,
    duration: u64,
    /// Milliseconds and position of each cluster that begins with a keyframe.
    cues: Vec<(u64, u64)>,
}

impl WebM {
    /// The file and its header.
    pub fn new(tracks: &Tracks) -> (WebM, Vec<u8>) {
        let mut header = document();
        header.extend_from_slice(&SEGMENT);
        let segment = header.len() as u64;
        header.extend(void(SEEK_HEAD));
        let info = header.len() as u64;
        header.extend(element(Tag::Info(Master::Full(vec![
            Tag::TimestampScale(1_000_000),
            Tag::MuxingApp("media-server".to_owned()),
            Tag::WritingApp("media-server".to_owned()),
            Tag::RawTag(VOID, vec![0; DURATION - 2]),
        ]))));
        let duration = (header.len() - DURATION) as u64;
        let at = header.len() as u64;
        let mut entries = vec![video_entry(&tracks.video)];
        entries.extend(tracks.audio.then(audio_entry));
        header.extend(element(Tag::Tracks(Master::Full(entries))));
        let webm = WebM {
            written: header.len() as u64,
            segment,
            info,
            tracks: at,
            duration,
            cues: Vec::new(),
        };
        (webm, header)
    }

    /// A cluster. Its frames are in the order of their times, and span no more than 32 s.
    pub fn fragment(&mut self, frames: &[Frame]) -> Vec<u8> {
        let Some(first) = frames.first() else {
            return Vec::new();
        };
        let start = first.micros() / 1_000;
        if first.kind == Kind::Video && first.key {
            self.cues.push((start, self.written - self.segment));
        }
        let mut children = vec![Tag::Timestamp(start)];
        children.extend(frames.iter().map(|frame| {
            let (track, key) = match frame.kind {
                Kind::Video => (VIDEO, frame.key),
                Kind::Audio => (AUDIO, true),
            };
            let at = (frame.micros() / 1_000).saturating_sub(start);
            let at = i16::try_from(at).expect("a cluster is about a second long");
            SimpleBlock::new_uncheked(&frame.data, track, at, false, None, false, key).into()
        }));
        let cluster = element(Tag::Cluster(Master::Full(children)));
        self.written += cluster.len() as u64;
        cluster
    }

    /// The index, and what goes into the places kept free. `end` is in microseconds.
    pub fn finish(&self, end: u64) -> Part {
        let points = self.cues.iter().map(|(time, position)| {
            Tag::CuePoint(Master::Full(vec![
                Tag::CueTime(*time),
                Tag::CueTrackPositions(Master::Full(vec![
                    Tag::CueTrack(VIDEO),
                    Tag::CueClusterPosition(*position),
                ])),
            ]))
        });
        let tail = element(Tag::Cues(Master::Full(points.collect())));
        let cues = self.written - self.segment;
        let mut list = element(Tag::SeekHead(Master::Full(vec![
            seek(0x1549_a966, self.info - self.segment),
            seek(0x1654_ae6b, self.tracks - self.segment),
            seek(0x1c53_bb6b, cues),
        ])));
        list.extend(void(SEEK_HEAD - list.len()));
        let duration = (end as f64 / 1_000.0).to_be_bytes();
        let size = 1 << 56 | (cues + tail.len() as u64);
        Part {
            bytes: tail,
            patches: vec![
                Patch {
                    at: self.segment,
                    bytes: list,
                },
                Patch {
                    at: self.duration,
                    bytes: [&[0x44, 0x89, 0x88][..], &duration].concat(),
                },
                Patch {
                    at: self.segment - 8,
                    bytes: u64::to_be_bytes(size).to_vec(),
                },
            ],
        }
    }
}

fn document() -> Vec<u8> {
    let mut out = WebmWriter::new(Vec::new());
    out.write(&Tag::Ebml(Master::Full(vec![
        Tag::EbmlVersion(1),
        Tag::EbmlReadVersion(1),
        Tag::EbmlMaxIdLength(4),
        Tag::EbmlMaxSizeLength(8),
        Tag::DocType("webm".to_owned()),
        Tag::DocTypeVersion(4),
        Tag::DocTypeReadVersion(2),
    ])))
    .and_then(|()| out.into_inner())
    .expect(WELL_FORMED)
}

/// An element of a segment, as bytes.
fn element(tag: Tag) -> Vec<u8> {
    let mut out = WebmWriter::new(Vec::new());
    let options = WriteOptions::is_unknown_sized_element();
    out.write_advanced(&Tag::Segment(Master::Start), options)
        .and_then(|()| out.write(&tag))
        .and_then(|()| out.into_inner())
        .map(|bytes| bytes[SEGMENT.len()..].to_vec())
        .expect(WELL_FORMED)
}

const WELL_FORMED: &str = "elements stand where the format has them, and a Vec takes all bytes";

/// So many bytes that mean nothing: 2 to 128, or none.
fn void(len: usize) -> Vec<u8> {
    if len < 2 {
        return Vec::new();
    }
    let mut bytes = vec![0; len];
    bytes[0] = VOID as u8;
    bytes[1] = 0x80 | (len - 2) as u8;
    bytes
}

fn seek(id: u32, position: u64) -> Tag {
    Tag::Seek(Master::Full(vec![
        Tag::SeekID(id.to_be_bytes().to_vec()),
        Tag::SeekPosition(position),
    ]))
}

fn video_entry(track: &VideoTrack) -> Tag {
    let (codec, private) = match track.codec {
        Codec::Vp9 { .. } => ("V_VP9", None),
        Codec::Av1 { .. } => ("V_AV1", Some(headers::av1c_bytes(&track.headers.obu))),
        _ => ("V_VP8", None),
    };
    let mut children = vec![
        Tag::TrackNumber(VIDEO),
        Tag::TrackUID(VIDEO),
        Tag::TrackType(1),
        Tag::FlagLacing(0),
        Tag::CodecID(codec.to_owned()),
    ];
    children.extend(private.map(Tag::CodecPrivate));
    children.push(Tag::Video(Master::Full(vec![
        Tag::PixelWidth(track.width.into()),
        Tag::PixelHeight(track.height.into()),
    ])));
    Tag::TrackEntry(Master::Full(children))
}

fn audio_entry() -> Tag {
    Tag::TrackEntry(Master::Full(vec![
        Tag::TrackNumber(AUDIO),
        Tag::TrackUID(AUDIO),
        Tag::TrackType(2),
        Tag::FlagLacing(0),
        Tag::CodecID("A_OPUS".to_owned()),
        Tag::CodecPrivate(headers::OPUS_HEAD.to_vec()),
        Tag::SeekPreRoll(SEEK_PREROLL_NS),
        Tag::Audio(Master::Full(vec![
            Tag::SamplingFrequency(48_000.0),
            Tag::Channels(2),
        ])),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::container::tests::{apply, frames, tracks};
    use webm_iterable::WebmIterator;

    fn read(bytes: &[u8]) -> Vec<Tag> {
        WebmIterator::new(&mut &bytes[..], &[])
            .collect::<Result<_, _>>()
            .expect("well-formed")
    }

    fn file() -> (Vec<u8>, Vec<u8>) {
        let (mut webm, mut bytes) = WebM::new(&tracks(Codec::Vp8));
        bytes.extend(webm.fragment(&frames(0)));
        bytes.extend(webm.fragment(&frames(1)));
        let unfinished = bytes.clone();
        (unfinished, apply(bytes, webm.finish(2_000_000)))
    }

    #[test]
    fn a_file_that_was_never_finished_reads_to_its_last_cluster() {
        let (unfinished, _) = file();
        let tags = read(&unfinished);
        let blocks = tags.iter().filter(|t| matches!(t, Tag::SimpleBlock(_)));
        assert_eq!(blocks.count(), frames(0).len() + frames(1).len());
        assert!(!tags.iter().any(|tag| matches!(tag, Tag::Duration(_))));
    }

    #[test]
    fn a_finished_file_has_its_duration_and_says_where_its_keyframes_are() {
        let (unfinished, finished) = file();
        let tags = read(&finished);
        assert!(tags.contains(&Tag::Duration(2_000.0)), "{tags:?}");
        let positions: Vec<usize> = tags
            .iter()
            .filter_map(|tag| match tag {
                Tag::CueClusterPosition(at) => Some(*at as usize),
                _ => None,
            })
            .collect();
        assert_eq!(positions.len(), 2);
        let segment = document().len() + SEGMENT.len();
        for at in positions {
            assert_eq!(finished[segment + at..][..4], [0x1f, 0x43, 0xb6, 0x75]);
        }
        let cues = tags.iter().find_map(|tag| match tag {
            Tag::SeekPosition(at) if segment + *at as usize == unfinished.len() => Some(()),
            _ => None,
        });
        assert!(cues.is_some(), "{tags:?}");
    }
}
