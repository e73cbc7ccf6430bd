//! Frames → fragmented MP4 (ISO/IEC 14496-12 §8.8): `ftyp` and `moov`, then `moof` and `mdat`.
//!
//! While it is written nothing says how long it is: it plays at any moment. At the end the durations are
//! written into `moov`, and an index of the fragments that begin with a keyframe follows the last one.

use super::container::{Part, Patch};
use super::frame::{Frame, Tracks};
use super::headers::Av1;
use media_core::media::clock_rate;
use media_core::negotiated::{Codec, Kind};
use mp4_atom::{
    Audio, Av01, Av1c, Avc1, Avcc, AvccExt, Dinf, Dops, Dref, Encode, FourCC, FragmentInfo, Ftyp,
    Hdlr, Mdat, Mdhd, Mdia, Mehd, Mfhd, Mfra, Mfro, Minf, Moof, Moov, Mvex, Mvhd, Opus, Smhd, Stbl,
    Stco, Stsd, Tfdt, Tfhd, Tfra, Tkhd, Traf, Trak, Trex, Trun, TrunEntry, Url, Visual, Vmhd,
};

const VIDEO: u32 = 1;
const AUDIO: u32 = 2;
/// Ticks per second of what concerns both tracks.
const MOVIE_RATE: u64 = 1_000;
/// Flags of a sample that others depend on and that depends on none, and of one that depends on others
/// and at which decoding can't start (ISO/IEC 14496-12 §8.8.3.1).
const SYNC: u32 = 0x0200_0000;
const NOT_SYNC: u32 = 0x0101_0000;
/// What is written of each sample: how long it lasts, its size and its flags, in four bytes each.
const SAMPLE: u64 = 12;
/// How long the last frame is shown where no other tells: a thirtieth of a second, and 20 ms of sound.
const PICTURE_TICKS: u64 = 3_000;
const SOUND_TICKS: u64 = 960;

/// See the module.
pub struct Mp4 {
    tracks: Tracks,
    /// Bytes given out so far.
    written: u64,
    moov: u64,
    fragments: u32,
    /// Fragments that begin with a keyframe.
    index: Vec<FragmentInfo>,
    /// Ends of the tracks in ticks: video, audio.
    ends: [u64; 2],
    /// The last picture, if none that followed has told how long it lasts.
    last: Option<Picture>,
}

/// A picture that was given out.
struct Picture {
    time: u64,
    /// Where the file has how long it lasts.
    at: u64,
}

impl Mp4 {
    /// The file and its header.
    pub fn new(tracks: &Tracks) -> (Mp4, Vec<u8>) {
        let mut header = encode(&Ftyp {
            major_brand: FourCC::new(b"iso6"),
            minor_version: 0,
            compatible_brands: vec![
                FourCC::new(b"iso6"),
                FourCC::new(b"mp41"),
                match tracks.video.codec {
                    Codec::Av1 { .. } => FourCC::new(b"av01"),
                    _ => FourCC::new(b"avc1"),
                },
            ],
        });
        let mut mp4 = Mp4 {
            tracks: tracks.clone(),
            written: 0,
            moov: header.len() as u64,
            fragments: 0,
            index: Vec::new(),
            ends: [0; 2],
            last: None,
        };
        header.extend(encode(&mp4.moov(0)));
        mp4.written = header.len() as u64;
        (mp4, header)
    }

    /// A fragment. `next` tells how long its last frames last; if there is no picture among it, the next
    /// fragment changes that of this one's last.
    pub fn fragment(&mut self, frames: &[Frame], next: &[Frame]) -> Part {
        let Some(first) = frames.first() else {
            return Part::default();
        };
        self.fragments += 1;
        if first.kind == Kind::Video && first.key {
            self.index.push(FragmentInfo {
                time: first.time,
                moof_offset: self.written,
                traf_number: 1,
                trun_number: 1,
                sample_delta: 1,
            });
        }
        let of = |kind| frames.iter().filter(move |frame| frame.kind == kind);
        let picture = of(Kind::Video).next();
        let patches = picture.and_then(|picture| self.last_lasts_until(picture.time));
        let mut runs = Vec::new();
        let mut data = Vec::new();
        for kind in [Kind::Video, Kind::Audio] {
            if let Some(first) = of(kind).next() {
                let after = next.iter().find(|frame| frame.kind == kind);
                let entries = self.entries(kind, of(kind).collect(), after);
                runs.push((kind, first.time, entries, data.len()));
                of(kind).for_each(|frame| data.extend_from_slice(&frame.data));
            }
        }
        let sequence_number = self.fragments;
        let moof = |runs: &[(Kind, u64, Vec<TrunEntry>, usize)], payload: usize| Moof {
            mfhd: Mfhd { sequence_number },
            traf: runs
                .iter()
                .map(|(kind, time, entries, at)| traf(*kind, *time, entries, payload + at))
                .collect(),
        };
        // Offsets count from the start of `moof`, whose length does not depend on them.
        let len = encode(&moof(&runs, 0)).len();
        let mut bytes = encode(&moof(&runs, len + MDAT_HEADER));
        bytes.extend(encode(&Mdat { data }));
        if let Some(last) = of(Kind::Video).next_back() {
            // Pictures come first, and the last of them ends their run.
            let end = self.written + encode(&moof(&runs[..1], 0)).len() as u64;
            let told = next.iter().any(|frame| frame.kind == Kind::Video);
            self.last = (!told).then_some(Picture {
                time: last.time,
                at: end - SAMPLE,
            });
        }
        self.written += bytes.len() as u64;
        Part {
            bytes,
            patches: patches.into_iter().collect(),
        }
    }

    /// Has the last picture last until then, if it was not known.
    fn last_lasts_until(&mut self, time: u64) -> Option<Patch> {
        let last = self.last.take()?;
        self.ends[track_index(Kind::Video)] = time;
        Some(Patch {
            at: last.at,
            bytes: duration(time.saturating_sub(last.time))
                .to_be_bytes()
                .to_vec(),
        })
    }

    fn entries(
        &mut self,
        kind: Kind,
        frames: Vec<&Frame>,
        after: Option<&Frame>,
    ) -> Vec<TrunEntry> {
        let mut usual = usual_ticks(kind);
        let follows = frames.iter().skip(1).copied().chain(after).map(Some);
        let follows = follows.chain(std::iter::repeat(None));
        let mut entries = Vec::with_capacity(frames.len());
        for (frame, next) in frames.iter().zip(follows) {
            let ticks = next.map_or(usual, |next| next.time.saturating_sub(frame.time));
            usual = ticks;
            self.ends[track_index(kind)] = frame.time + ticks;
            entries.push(TrunEntry {
                duration: Some(duration(ticks)),
                size: Some(frame.data.len() as u32),
                flags: Some(if frame.key { SYNC } else { NOT_SYNC }),
                cts: None,
            });
        }
        entries
    }

    /// The index, and the header with the durations. `end` is in microseconds: the last picture is shown until then.
    pub fn finish(&mut self, end: u64) -> Part {
        let ticks = end * u64::from(clock_rate(Kind::Video)) / 1_000_000;
        let longer = ticks > self.ends[track_index(Kind::Video)];
        let last = longer.then(|| self.last_lasts_until(ticks)).flatten();
        let mut mfra = Mfra {
            tfra: vec![Tfra {
                track_id: VIDEO,
                entries: self.index.clone(),
            }],
            mfro: Mfro::default(),
        };
        mfra.mfro.parent_size = encode(&mfra).len() as u32;
        let header = Patch {
            at: self.moov,
            bytes: encode(&self.moov(end)),
        };
        Part {
            bytes: encode(&mfra),
            patches: last.into_iter().chain([header]).collect(),
        }
    }

    /// The header of a movie that ends then, in microseconds. All of them have one length.
    fn moov(&self, end: u64) -> Moov {
        let kinds = [Some(Kind::Video), self.tracks.audio.then_some(Kind::Audio)];
        let kinds = || kinds.into_iter().flatten();
        let duration = end * MOVIE_RATE / 1_000_000;
        Moov {
            mvhd: Mvhd {
                timescale: MOVIE_RATE as u32,
                duration,
                rate: 1u16.into(),
                volume: 1u8.into(),
                next_track_id: AUDIO + 1,
                ..Mvhd::default()
            },
            trak: kinds().map(|kind| self.trak(kind, end)).collect(),
            mvex: Some(Mvex {
                mehd: Some(Mehd {
                    fragment_duration: duration,
                }),
                trex: kinds()
                    .map(|kind| Trex {
                        track_id: track_id(kind),
                        default_sample_description_index: 1,
                        ..Trex::default()
                    })
                    .collect(),
            }),
            ..Moov::default()
        }
    }

    fn trak(&self, kind: Kind, end: u64) -> Trak {
        let video = &self.tracks.video;
        let rate = u64::from(clock_rate(kind));
        let ticks = match end {
            0 => 0,
            _ => self.ends[track_index(kind)],
        };
        let (width, height) = match kind {
            Kind::Video => (video.width, video.height),
            Kind::Audio => (0, 0),
        };
        let (handler, name) = match kind {
            Kind::Video => (b"vide", "video"),
            Kind::Audio => (b"soun", "sound"),
        };
        Trak {
            tkhd: Tkhd {
                track_id: track_id(kind),
                duration: ticks * MOVIE_RATE / rate,
                enabled: true,
                in_movie: true,
                volume: u8::from(kind == Kind::Audio).into(),
                width: width.into(),
                height: height.into(),
                ..Tkhd::default()
            },
            mdia: Mdia {
                mdhd: Mdhd {
                    timescale: clock_rate(kind),
                    duration: ticks,
                    language: "und".to_owned(),
                    ..Mdhd::default()
                },
                hdlr: Hdlr {
                    handler: FourCC::new(handler),
                    name: name.to_owned(),
                },
                minf: Minf {
                    vmhd: (kind == Kind::Video).then(Vmhd::default),
                    smhd: (kind == Kind::Audio).then(Smhd::default),
                    dinf: Dinf {
                        dref: Dref {
                            entries: vec![Url::default().into()],
                        },
                    },
                    stbl: Stbl {
                        stsd: Stsd {
                            codecs: vec![match kind {
                                Kind::Video => self.picture_entry(),
                                Kind::Audio => sound_entry(),
                            }],
                        },
                        stco: Some(Stco::default()),
                        ..Stbl::default()
                    },
                    ..Minf::default()
                },
            },
            ..Trak::default()
        }
    }

    fn picture_entry(&self) -> mp4_atom::Codec {
        let video = &self.tracks.video;
        let visual = Visual {
            data_reference_index: 1,
            width: video.width,
            height: video.height,
            ..Visual::default()
        };
        if let Codec::Av1 { .. } = video.codec {
            let av1 = Av1::of(&video.headers.obu);
            return mp4_atom::Codec::Av01(Av01 {
                visual,
                av1c: Av1c {
                    seq_profile: av1.profile,
                    seq_level_idx_0: av1.level,
                    seq_tier_0: av1.tier,
                    high_bitdepth: av1.high_bitdepth,
                    twelve_bit: av1.twelve_bit,
                    monochrome: av1.monochrome,
                    chroma_subsampling_x: av1.subsampling_x,
                    chroma_subsampling_y: av1.subsampling_y,
                    chroma_sample_position: av1.sample_position,
                    config_obus: video.headers.obu.clone(),
                    ..Av1c::default()
                },
                ..Av01::default()
            });
        }
        let sequence = &video.headers.sequence;
        let at = |index: usize| sequence.get(index).copied().unwrap_or_default();
        // Parameter sets stay in the pictures too: a size that changes comes with new ones, which all
        // decoders take from there. `avc3` would say so, and is what fewer players open.
        mp4_atom::Codec::Avc1(Avc1 {
            visual,
            avcc: Avcc {
                configuration_version: 1,
                avc_profile_indication: at(1),
                profile_compatibility: at(2),
                avc_level_indication: at(3),
                length_size: 4,
                sequence_parameter_sets: vec![sequence.clone()],
                picture_parameter_sets: vec![video.headers.picture.clone()],
                // The high profiles have more fields; in WebRTC they are 8 bits, 4:2:0.
                ext: matches!(at(1), 100 | 110 | 122 | 144).then(AvccExt::default),
            },
            ..Avc1::default()
        })
    }
}

/// Size and name in front of the data.
const MDAT_HEADER: usize = 8;

fn sound_entry() -> mp4_atom::Codec {
    mp4_atom::Codec::Opus(Opus {
        audio: Audio {
            data_reference_index: 1,
            channel_count: 2,
            sample_size: 16,
            sample_rate: 48_000u16.into(),
        },
        dops: Dops {
            output_channel_count: 2,
            pre_skip: 0,
            input_sample_rate: 48_000,
            output_gain: 0,
            channel_mapping: None,
        },
        btrt: None,
    })
}

fn traf(kind: Kind, time: u64, entries: &[TrunEntry], offset: usize) -> Traf {
    Traf {
        tfhd: Tfhd {
            track_id: track_id(kind),
            default_base_is_moof: true,
            ..Tfhd::default()
        },
        tfdt: Some(Tfdt {
            base_media_decode_time: time,
        }),
        trun: vec![Trun {
            data_offset: Some(offset as i32),
            samples: entries.to_vec().into(),
        }],
        ..Traf::default()
    }
}

fn track_id(kind: Kind) -> u32 {
    match kind {
        Kind::Video => VIDEO,
        Kind::Audio => AUDIO,
    }
}

fn track_index(kind: Kind) -> usize {
    track_id(kind) as usize - 1
}

/// Ticks as a sample has them; 13 hours of a picture at the most.
fn duration(ticks: u64) -> u32 {
    u32::try_from(ticks).unwrap_or(u32::MAX)
}

/// How long a frame lasts where no other tells.
pub fn usual_ticks(kind: Kind) -> u64 {
    match kind {
        Kind::Video => PICTURE_TICKS,
        Kind::Audio => SOUND_TICKS,
    }
}

fn encode(atom: &impl Encode) -> Vec<u8> {
    let mut bytes = Vec::new();
    atom.encode(&mut bytes)
        .expect("what is small enough for its fields is encoded, and a Vec takes all bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::container::tests::{apply, frames, tracks};
    use mp4_atom::{Any, Decode as _};

    const H264: Codec = Codec::H264 {
        packetization_mode: 1,
        profile_iop: 0x42e0,
    };

    fn read(bytes: &[u8]) -> Vec<Any> {
        let mut rest = bytes;
        let mut atoms = Vec::new();
        while !rest.is_empty() {
            atoms.push(Any::decode(&mut rest).expect("well-formed"));
        }
        atoms
    }

    #[test]
    fn a_finished_file_differs_from_one_under_way_in_durations_and_the_index_alone() {
        let (mut mp4, mut bytes) = Mp4::new(&tracks(H264));
        let (first, second) = (frames(0), frames(1));
        bytes = apply(bytes, mp4.fragment(&first, &second));
        let at = bytes.len() as u64;
        bytes = apply(bytes, mp4.fragment(&second, &[]));
        let unfinished = read(&bytes);
        let finished = read(&apply(bytes.clone(), mp4.finish(2_000_000)));
        assert_eq!(finished.len(), unfinished.len() + 1);
        assert_eq!(finished[2..unfinished.len()], unfinished[2..]);
        let Any::Moov(moov) = &finished[1] else {
            panic!("{finished:?}");
        };
        assert_eq!(moov.mvhd.duration, 2_000);
        assert_eq!(moov.trak[0].mdia.mdhd.duration, 180_000);
        assert_eq!(moov.trak[1].mdia.mdhd.duration, 96_000);
        let Some(Any::Mfra(mfra)) = finished.last() else {
            panic!("{finished:?}");
        };
        assert_eq!(mfra.tfra[0].entries[1].moof_offset, at);
        assert_eq!(mfra.tfra[0].entries[1].time, 90_000);
    }

    #[test]
    fn samples_lie_where_their_run_says_and_last_until_the_next() {
        let (mut mp4, _) = Mp4::new(&tracks(H264));
        let (first, second) = (frames(0), frames(1));
        let bytes = mp4.fragment(&first, &second).bytes;
        let atoms = read(&bytes);
        let Any::Moof(moof) = &atoms[0] else {
            panic!("{atoms:?}");
        };
        for (traf, kind) in moof.traf.iter().zip([Kind::Video, Kind::Audio]) {
            let run = &traf.trun[0];
            let mut at = run.data_offset.expect("an offset") as usize;
            let of = first.iter().filter(|frame| frame.kind == kind);
            for (entry, frame) in run.samples.iter().zip(of) {
                let len = entry.size.expect("a size") as usize;
                assert_eq!(bytes[at..at + len], frame.data);
                at += len;
            }
            let ticks: u32 = run.samples.iter().filter_map(|entry| entry.duration).sum();
            assert_eq!(ticks, clock_rate(kind), "a second");
        }
    }

    #[test]
    fn the_last_picture_lasts_until_the_file_ends() {
        let (mut mp4, mut bytes) = Mp4::new(&tracks(H264));
        bytes = apply(bytes, mp4.fragment(&frames(0), &[]));
        let finished = read(&apply(bytes, mp4.finish(5_000_000)));
        let Any::Moov(moov) = &finished[1] else {
            panic!("{finished:?}");
        };
        assert_eq!(moov.trak[0].mdia.mdhd.duration, 5 * 90_000);
        assert_eq!(moov.trak[1].mdia.mdhd.duration, 48_000);
        assert_eq!(
            durations(&finished),
            [vec![9_000; 9], vec![369_000]].concat()
        );
    }

    /// How long pictures last, in ticks.
    fn durations(atoms: &[Any]) -> Vec<u32> {
        let moofs = atoms.iter().filter_map(|atom| match atom {
            Any::Moof(moof) => Some(moof),
            _ => None,
        });
        let trafs = moofs.flat_map(|moof| &moof.traf);
        let video = trafs.filter(|traf| traf.tfhd.track_id == VIDEO);
        let samples = video.flat_map(|traf| traf.trun[0].samples.iter());
        samples.filter_map(|entry| entry.duration).collect()
    }

    #[test]
    fn a_picture_that_nothing_followed_yet_lasts_until_the_next_one_once_that_comes() {
        let (mut mp4, mut bytes) = Mp4::new(&tracks(H264));
        let (first, later) = (frames(0), frames(60));
        bytes = apply(bytes, mp4.fragment(&first, &[]));
        assert_eq!(durations(&read(&bytes)), [9_000; 10], "as far as it knows");
        let mut sound = frames(1);
        sound.retain(|frame| frame.kind == Kind::Audio);
        bytes = apply(bytes, mp4.fragment(&sound, &[]));
        assert_eq!(durations(&read(&bytes)), [9_000; 10]);
        bytes = apply(bytes, mp4.fragment(&later, &[]));
        let still = 60 * 90_000 - 9 * 9_000;
        let expected = [vec![9_000; 9], vec![still], vec![9_000; 10]].concat();
        assert_eq!(durations(&read(&bytes)), expected);
    }
}
