//! An H.264 byte stream (ITU-T H.264 Annex B) in NAL units, wherever the pieces that it comes in are cut.
//!
//! Pure, and bounded: what is no such stream ends in an error, never in a buffer that grows. `input` feeds it.

use bytes::{Buf as _, Bytes, BytesMut};

/// Longest NAL unit: 4K keyframes of the best quality stay below. More is no H.264, or nobody's to send.
pub(super) const LONGEST_NAL: usize = 8 * 1024 * 1024;

/// Why bytes are no stream that can be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnnexB {
    #[error(
        "it is not H.264 in Annex B format: it begins with {start:02x?} and not with a start code \
         (of MP4 or MKV: ffmpeg -i FILE -c:v copy -bsf:v h264_mp4toannexb -f h264 OUT)"
    )]
    NoStartCode { start: Vec<u8> },
    #[error("it is H.265, and only H.264 can be sent")]
    H265,
    #[error("it is not H.264 in Annex B format: no start code in {LONGEST_NAL} bytes")]
    TooLong,
}

/// Cuts a stream into NAL units.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    /// In a unit, from its first byte on.
    buffer: BytesMut,
    /// No start code begins before this.
    searched: usize,
    state: State,
    first_seen: bool,
    torn: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing but zeros has come.
    #[default]
    Start,
    Unit,
    /// The last unit was ended without a start code.
    Pause,
}

impl Splitter {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole NAL unit; `None` until more bytes come.
    pub fn next_nal(&mut self) -> Result<Option<Bytes>, NotAnnexB> {
        if self.state != State::Unit && !self.begin()? {
            return Ok(None);
        }
        while let Some(end) = self.find() {
            let nal = self.buffer.split_to(end);
            self.buffer.advance(START_CODE.len());
            self.searched = 0;
            if let Some(nal) = self.trimmed(nal)? {
                return Ok(Some(nal));
            }
        }
        if self.buffer.len() > LONGEST_NAL {
            return Err(NotAnnexB::TooLong);
        }
        Ok(None)
    }

    /// What is left as the last NAL unit: the stream has come to its end, or to a pause.
    pub fn finish(&mut self) -> Result<Option<Bytes>, NotAnnexB> {
        match self.state {
            // Zeros, which stand before some streams.
            State::Start | State::Pause => Ok(None),
            State::Unit => {
                self.state = State::Pause;
                self.searched = 0;
                let rest = self.buffer.split();
                self.trimmed(rest)
            }
        }
    }

    /// Whether a pause turned out to be in the middle of a unit, since this was last asked.
    pub fn was_torn(&mut self) -> bool {
        std::mem::take(&mut self.torn)
    }

    /// Skips to the first byte behind a start code; `false` until that has come.
    fn begin(&mut self) -> Result<bool, NotAnnexB> {
        let found = self.find();
        let before = found.unwrap_or(self.buffer.len());
        if self.buffer[..before].iter().any(|byte| *byte != 0) {
            if self.state == State::Start {
                return Err(self.no_start_code());
            }
            self.torn = true;
        }
        match found {
            Some(at) => {
                self.buffer.advance(at + START_CODE.len());
                self.state = State::Unit;
            }
            // Zeros at the end may be the beginning of a start code.
            None => {
                let zeros = self.buffer.iter().rev().take_while(|byte| **byte == 0);
                let kept = zeros.take(2).count();
                self.buffer.advance(self.buffer.len() - kept);
            }
        }
        self.searched = 0;
        Ok(found.is_some())
    }

    fn no_start_code(&self) -> NotAnnexB {
        let start = self.buffer.iter().take(8).copied().collect();
        NotAnnexB::NoStartCode { start }
    }

    /// Where the next start code begins.
    fn find(&mut self) -> Option<usize> {
        let rest = &self.buffer[self.searched..];
        let found = rest.windows(3).position(|three| three == START_CODE);
        let found = found.map(|at| self.searched + at);
        self.searched = self.buffer.len().saturating_sub(2);
        found
    }

    /// Without the zeros that may stand between it and the next start code (`trailing_zero_8bits`).
    fn trimmed(&mut self, mut nal: BytesMut) -> Result<Option<Bytes>, NotAnnexB> {
        let zeros = nal.iter().rev().take_while(|byte| **byte == 0).count();
        nal.truncate(nal.len() - zeros);
        // A VPS, which H.264 has not: 0x40 would be a NAL unit of no type.
        if !std::mem::replace(&mut self.first_seen, true) && nal.starts_with(&[0x40, 1]) {
            return Err(NotAnnexB::H265);
        }
        Ok((!nal.is_empty()).then(|| nal.freeze()))
    }
}

const START_CODE: [u8; 3] = [0, 0, 1];

#[cfg(test)]
mod tests {
    use super::*;

    /// Three- and four-byte start codes, zeros behind a unit, and bytes that look like a start code's beginning.
    const STREAM: &[u8] = &[
        0, 0, 0, 1, 0x67, 1, 2, 0, 0, 1, 0x68, 3, 0, 0, 3, 0, 0, 0, 0, 1, 0x65, 0x88, 0, 0, 2, 0,
        0, 0, 1, 0x41, 0x9a, 0, 1, 1,
    ];
    const NALS: &[&[u8]] = &[
        &[0x67, 1, 2],
        &[0x68, 3, 0, 0, 3],
        &[0x65, 0x88, 0, 0, 2],
        &[0x41, 0x9a, 0, 1, 1],
    ];

    fn split(pieces: &[&[u8]]) -> Result<Vec<Bytes>, NotAnnexB> {
        let mut splitter = Splitter::default();
        let mut nals = Vec::new();
        for piece in pieces {
            splitter.push(piece);
            while let Some(nal) = splitter.next_nal()? {
                nals.push(nal);
            }
        }
        nals.extend(splitter.finish()?);
        Ok(nals)
    }

    #[test]
    fn a_stream_is_cut_at_start_codes_wherever_its_pieces_are_cut() {
        for first in 0..=STREAM.len() {
            for second in first..=STREAM.len() {
                let pieces = [&STREAM[..first], &STREAM[first..second], &STREAM[second..]];
                assert_eq!(
                    split(&pieces).expect("Annex B"),
                    NALS,
                    "cut at {first} and {second}"
                );
            }
        }
        let bytes: Vec<&[u8]> = STREAM.chunks(1).collect();
        assert_eq!(split(&bytes).expect("Annex B"), NALS);
    }

    #[test]
    fn a_pause_ends_a_unit_and_the_next_one_begins_with_a_start_code() {
        let mut splitter = Splitter::default();
        splitter.push(&[0, 0, 1, 0x41, 7]);
        assert_eq!(splitter.next_nal(), Ok(None));
        assert_eq!(splitter.finish(), Ok(Some(Bytes::from_static(&[0x41, 7]))));
        splitter.push(&[0, 0, 0, 1, 0x41, 8]);
        assert_eq!(splitter.next_nal(), Ok(None));
        assert_eq!(splitter.finish(), Ok(Some(Bytes::from_static(&[0x41, 8]))));
        assert_eq!(splitter.finish(), Ok(None), "there is nothing");
        assert!(!splitter.was_torn());
    }

    #[test]
    fn a_pause_in_the_middle_of_a_unit_is_told_and_its_rest_left_out() {
        let mut splitter = Splitter::default();
        splitter.push(&[0, 0, 1, 0x41, 7]);
        assert_eq!(splitter.next_nal(), Ok(None));
        assert!(splitter.finish().expect("a unit").is_some());
        splitter.push(&[8, 9, 0]);
        assert_eq!(splitter.next_nal(), Ok(None));
        assert!(splitter.was_torn());
        splitter.push(&[0, 1, 0x41, 10, 0, 0, 1]);
        assert_eq!(
            splitter.next_nal(),
            Ok(Some(Bytes::from_static(&[0x41, 10])))
        );
        assert!(!splitter.was_torn(), "told once");
    }

    #[test]
    fn what_is_no_annex_b_stream_is_said_to_be_none() {
        let mp4 = b"\0\0\0\x20ftypisom";
        let error = split(&[mp4]).expect_err("an MP4 file").to_string();
        assert!(error.contains("h264_mp4toannexb"), "{error}");
        assert!(matches!(
            split(&[b"hello"]),
            Err(NotAnnexB::NoStartCode { .. })
        ));
        assert!(matches!(
            split(&[&[0, 1]]),
            Err(NotAnnexB::NoStartCode { .. })
        ));
        assert_eq!(split(&[&[0, 0]]), Ok(Vec::new()), "as far as it goes");
        assert_eq!(
            split(&[&[0, 0, 0, 1, 0x40, 1, 0xc, 0, 0, 1]]),
            Err(NotAnnexB::H265)
        );
        assert_eq!(split(&[]), Ok(Vec::new()));
    }

    #[test]
    fn a_stream_without_start_codes_does_not_fill_memory() {
        let piece = vec![0xff; 1024 * 1024];
        let mut splitter = Splitter::default();
        splitter.push(&[0, 0, 1]);
        let failed = (0..16).find(|_| {
            splitter.push(&piece);
            splitter.next_nal() == Err(NotAnnexB::TooLong)
        });
        assert_eq!(failed, Some(8));
    }
}
