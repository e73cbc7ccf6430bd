//! H.264 out of the payloads of RTP (RFC 6184): single NAL units, aggregates (STAP-A) and fragments (FU-A).
//!
//! Pure. `rtsp` gives it what comes, in order; what is malformed makes a gap, never a panic.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::device::annex_b::LONGEST_NAL;
use crate::device::source::Sample;
use crate::device::units::{AccessUnit, nal_type};

/// Collects pictures.
#[derive(Debug)]
pub(super) struct Depacketizer {
    unit: AccessUnit,
    bytes: usize,
    /// Of the unit, once it has anything from the network.
    at: Option<Duration>,
    fragment: Option<BytesMut>,
    /// Something of the unit, or of one before it, is missing.
    damaged: bool,
}

/// What goes with a payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub at: Duration,
    /// It ends a picture.
    pub mark: bool,
    /// Packets before it are missing: of its picture, of the one before, or of both.
    pub after_loss: bool,
}

const STAP_A: u8 = 24;
const FU_A: u8 = 28;

impl Depacketizer {
    /// `first` goes before the first picture.
    pub fn new(first: AccessUnit) -> Self {
        Self {
            unit: first,
            bytes: 0,
            at: None,
            fragment: None,
            damaged: false,
        }
    }

    /// Takes a payload, and gives the picture that it ends.
    pub fn push(&mut self, header: Header, payload: &Bytes, ready: &mut VecDeque<Sample>) {
        let Header {
            at,
            mark,
            after_loss,
        } = header;
        if self.at.is_some_and(|before| before != at) {
            self.damaged |= after_loss;
            self.end(ready);
        }
        self.at = Some(at);
        if after_loss {
            self.lose();
        }
        if self.take(payload).is_none() {
            self.lose();
        }
        if mark {
            self.end(ready);
        }
    }

    fn lose(&mut self) {
        self.damaged = true;
        self.fragment = None;
    }

    fn take(&mut self, payload: &Bytes) -> Option<()> {
        match nal_type(payload) {
            1..=23 => self.add(payload.clone()),
            STAP_A => {
                let mut rest = payload.slice(1..);
                while !rest.is_empty() {
                    let [high, low] = *rest.first_chunk()?;
                    let end = 2 + usize::from(u16::from_be_bytes([high, low]));
                    let nal = (rest.len() >= end).then(|| rest.split_to(end))?;
                    self.add(nal.slice(2..))?;
                }
                Some(())
            }
            FU_A => {
                let [indicator, header] = *payload.first_chunk()?;
                let (starts, ends) = (header & 0x80 != 0, header & 0x40 != 0);
                if starts {
                    let first = (indicator & 0xe0) | (header & 0x1f);
                    self.fragment = Some(BytesMut::from(&[first][..]));
                }
                let fragment = self.fragment.as_mut()?;
                if fragment.len() + payload.len() > LONGEST_NAL {
                    return None;
                }
                fragment.put_slice(&payload[2..]);
                if ends {
                    let nal = self.fragment.take()?;
                    self.add(nal.freeze())?;
                }
                Some(())
            }
            _ => None,
        }
    }

    fn add(&mut self, nal: Bytes) -> Option<()> {
        self.bytes += nal.len();
        if nal.is_empty() || self.bytes > LONGEST_NAL {
            return None;
        }
        self.unit.nals.push(nal);
        Some(())
    }

    /// Parameter sets alone wait for their picture: some cameras mark each of them as an end.
    fn end(&mut self, ready: &mut VecDeque<Sample>) {
        if self.fragment.take().is_some() {
            self.damaged = true;
        }
        let has_picture = self.unit.has_picture();
        if self.damaged {
            self.damaged = false;
            self.unit.nals.retain(|nal| matches!(nal_type(nal), 7 | 8));
            ready.push_back(Sample::Gap);
        } else if has_picture && let Some(at) = self.at {
            let unit = std::mem::take(&mut self.unit);
            ready.push_back(Sample::Video { at, unit });
        }
        self.at = None;
        self.bytes = self.unit.nals.iter().map(Bytes::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPS: &[u8] = &[0x67, 1];
    const PPS: &[u8] = &[0x68, 2];

    fn header(at: u64, mark: bool) -> Header {
        Header {
            at: Duration::from_millis(at),
            mark,
            after_loss: false,
        }
    }

    /// What comes of payloads, each with its time in ms and its mark.
    fn samples(packets: &[(u64, bool, &[u8])]) -> Vec<Sample> {
        let mut depacketizer = Depacketizer::new(AccessUnit::default());
        let mut ready = VecDeque::new();
        for (at, mark, payload) in packets {
            let payload = Bytes::copy_from_slice(payload);
            depacketizer.push(header(*at, *mark), &payload, &mut ready);
        }
        ready.into()
    }

    fn picture(at: u64, nals: &[&'static [u8]]) -> Sample {
        let nals = nals.iter().map(|nal| Bytes::from_static(nal)).collect();
        Sample::Video {
            at: Duration::from_millis(at),
            unit: AccessUnit { nals },
        }
    }

    #[test]
    fn single_units_aggregates_and_fragments_make_pictures() {
        let aggregate = [&[STAP_A, 0, 2][..], SPS, &[0, 2], PPS].concat();
        let got = samples(&[
            (0, false, &aggregate),
            (0, false, &[0x60 | FU_A, 0x85, 0x88, 1]),
            (0, false, &[0x60 | FU_A, 0x05, 2]),
            (0, true, &[0x60 | FU_A, 0x45, 3]),
            (40, true, &[0x41, 0x9a, 4]),
        ]);
        let expected = [
            picture(0, &[SPS, PPS, &[0x65, 0x88, 1, 2, 3]]),
            picture(40, &[&[0x41, 0x9a, 4]]),
        ];
        assert_eq!(got, expected);
    }

    #[test]
    fn a_picture_ends_with_its_time_where_no_mark_says_so_and_a_set_that_is_marked_waits() {
        let got = samples(&[
            (0, true, SPS),
            (0, true, PPS),
            (0, false, &[0x65, 0x88, 1]),
            (40, false, &[0x41, 0x9a, 2]),
            (80, false, &[0x41, 0x9a, 3]),
        ]);
        let expected = [
            picture(0, &[SPS, PPS, &[0x65, 0x88, 1]]),
            picture(40, &[&[0x41, 0x9a, 2]]),
        ];
        assert_eq!(got, expected);
    }

    #[test]
    fn what_is_missing_or_malformed_makes_a_gap_and_the_next_picture_is_whole() {
        for broken in [
            &[][..],
            &[STAP_A, 0],
            &[STAP_A, 0, 9, 0x65],
            &[STAP_A, 0, 0],
            &[FU_A],
            // A fragment without its start, and one without its end.
            &[FU_A, 0x45, 3],
            &[FU_A, 0x85, 3],
            // FU-B, and no type at all.
            &[29, 0x85, 0, 0, 3],
            &[0, 1],
        ] {
            let got = samples(&[(0, false, broken), (40, true, &[0x41, 0x9a, 2])]);
            assert_eq!(
                got,
                [Sample::Gap, picture(40, &[&[0x41, 0x9a, 2]])],
                "{broken:?}"
            );
        }
        let mut depacketizer = Depacketizer::new(AccessUnit::default());
        let mut ready = VecDeque::new();
        let payload = Bytes::from_static(&[0x41, 0x9a, 2]);
        depacketizer.push(header(0, false), &payload, &mut ready);
        let after_loss = Header {
            after_loss: true,
            ..header(40, true)
        };
        depacketizer.push(after_loss, &payload, &mut ready);
        assert_eq!(
            ready,
            [Sample::Gap, Sample::Gap],
            "either may lack something"
        );
    }

    #[test]
    fn the_sets_of_the_description_go_before_the_first_picture() {
        let nals = vec![Bytes::from_static(SPS), Bytes::from_static(PPS)];
        let mut depacketizer = Depacketizer::new(AccessUnit { nals });
        let mut ready = VecDeque::new();
        let payload = Bytes::from_static(&[0x65, 0x88, 1]);
        depacketizer.push(header(0, true), &payload, &mut ready);
        assert_eq!(ready, [picture(0, &[SPS, PPS, &[0x65, 0x88, 1]])]);
    }

    #[test]
    fn a_fragment_without_end_does_not_fill_memory() {
        let mut depacketizer = Depacketizer::new(AccessUnit::default());
        let mut ready = VecDeque::new();
        let part = Bytes::from([&[FU_A, 0x05][..], &[7; 60_000]].concat());
        let first = Bytes::from_static(&[FU_A, 0x85, 7]);
        depacketizer.push(header(0, false), &first, &mut ready);
        for _ in 0..200 {
            depacketizer.push(header(0, false), &part, &mut ready);
        }
        assert!(depacketizer.fragment.is_none() && depacketizer.damaged);
    }
}
