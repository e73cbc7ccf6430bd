//! Transport-wide congestion control feedback: which packets of a transport arrived, and when
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).
//!
//! Plain RTCP, both directions: viewers' feedback is read, feedback for publishers is written.

use super::{TRANSPORT_FEEDBACK, Writer, packets, u32_at};

const FEEDBACK_TRANSPORT_CC: u8 = 15;
/// RTCP header, two SSRCs, and what stands in front of the chunks.
const HEAD: usize = 20;
/// Times are multiples of this.
const TICK_MICROS: i64 = 250;
/// The reference time counts so many ticks: 64 ms.
const REFERENCE_TICKS: i64 = 256;
/// Packets that the feedback of a compound may be about. Receivers send one for every 50 to 250 ms; a few
/// bytes can claim 65 535 packets, which would cost more to read than they cost to send.
pub const MAX_READ: u16 = 2048;
/// Packets that one written feedback is about: with two bytes for each it still fits a datagram.
const MAX_WRITTEN: u64 = 512;
const MAX_RUN: usize = 0x1fff;
/// Statuses in a chunk of two-bit symbols.
const VECTOR: usize = 7;

const NOT_RECEIVED: u8 = 0;
const SMALL_DELTA: u8 = 1;
const LARGE_DELTA: u8 = 2;

/// One feedback packet.
#[derive(Debug, Clone, Copy)]
pub struct Feedback<'a> {
    base: u16,
    count: u16,
    reference: i64,
    /// Chunks, then deltas.
    body: &'a [u8],
}

/// Calls `feedback` for each such packet of a compound; returns how many were about too much to be read.
pub fn read<'a>(compound: &'a [u8], mut feedback: impl FnMut(Feedback<'a>)) -> u64 {
    let (mut left, mut unread) = (MAX_READ, 0);
    for (kind, count, packet) in packets(compound) {
        if kind == TRANSPORT_FEEDBACK
            && count == FEEDBACK_TRANSPORT_CC
            && let Some(parsed) = Feedback::parse(packet)
        {
            match left.checked_sub(parsed.count) {
                Some(rest) => {
                    left = rest;
                    feedback(parsed);
                }
                None => unread += 1,
            }
        }
    }
    unread
}

impl<'a> Feedback<'a> {
    fn parse(packet: &'a [u8]) -> Option<Self> {
        let (counts, times) = (u32_at(packet, 12)?, u32_at(packet, 16)?);
        let count = counts as u16;
        // The upper 24 bits, signed.
        let reference = i64::from(times.cast_signed() >> 8);
        Some(Feedback {
            base: (counts >> 16) as u16,
            count,
            reference,
            body: packet.get(HEAD..)?,
        })
    }

    /// Calls `status` for each packet in order: its number, and when it arrived in microseconds of the
    /// receiver's clock, or `None` if it has not. Returns `None` where the feedback is malformed.
    pub fn for_each(&self, mut status: impl FnMut(u16, Option<i64>)) -> Option<()> {
        let mut deltas = self.deltas()?;
        let mut ticks = self.reference * REFERENCE_TICKS;
        let (mut seq, mut left) = (self.base, usize::from(self.count));
        for chunk in self.body.as_chunks().0 {
            let chunk = u16::from_be_bytes(*chunk);
            for at in 0..chunk_len(chunk).min(left) {
                let arrived = match symbol(chunk, at) {
                    NOT_RECEIVED => None,
                    SMALL_DELTA => {
                        let (delta, rest) = deltas.split_first()?;
                        deltas = rest;
                        ticks += i64::from(*delta);
                        Some(ticks * TICK_MICROS)
                    }
                    LARGE_DELTA => {
                        let (delta, rest) = deltas.split_first_chunk()?;
                        deltas = rest;
                        ticks += i64::from(i16::from_be_bytes(*delta));
                        Some(ticks * TICK_MICROS)
                    }
                    _ => return None,
                };
                status(seq, arrived);
                seq = seq.wrapping_add(1);
                left -= 1;
            }
            if left == 0 {
                return Some(());
            }
        }
        None
    }

    fn deltas(&self) -> Option<&'a [u8]> {
        let (mut left, mut at) = (usize::from(self.count), 0);
        while left > 0 {
            let chunk = self.body.get(at..at + 2)?;
            left = left.saturating_sub(chunk_len(u16::from_be_bytes([chunk[0], chunk[1]])));
            at += 2;
        }
        self.body.get(at..)
    }
}

fn chunk_len(chunk: u16) -> usize {
    match chunk >> 14 {
        0 | 1 => usize::from(chunk) & MAX_RUN,
        2 => 2 * VECTOR,
        _ => VECTOR,
    }
}

fn symbol(chunk: u16, at: usize) -> u8 {
    (match chunk >> 14 {
        0 | 1 => chunk >> 13,
        2 => chunk >> (13 - at) & 1,
        _ => chunk >> (12 - 2 * at) & 3,
    }) as u8
}

/// Writes a feedback about the packets from `base` up to one of `arrivals`: extended numbers, ascending
/// from `base` on, with times in microseconds. `count` numbers the feedbacks. Returns how many arrivals it
/// is about: at least one, and fewer than all where they do not fit.
pub fn write(
    writer: &mut Writer,
    [ssrc, media]: [u32; 2],
    count: u8,
    base: u64,
    arrivals: &[(u64, i64)],
) -> usize {
    let Some(&(_, first)) = arrivals.first() else {
        return 0;
    };
    let reference = first.div_euclid(TICK_MICROS * REFERENCE_TICKS);
    let mut ticks = reference * REFERENCE_TICKS;
    let (mut symbols, mut deltas) = (Vec::new(), Vec::new());
    let mut written = 0;
    for &(seq, at) in arrivals {
        let delta = at.div_euclid(TICK_MICROS) - ticks;
        let Ok(delta) = i16::try_from(delta) else {
            break;
        };
        if seq - base >= MAX_WRITTEN && written > 0 {
            break;
        }
        ticks += i64::from(delta);
        symbols.resize((seq - base) as usize, NOT_RECEIVED);
        match u8::try_from(delta) {
            Ok(small) => {
                symbols.push(SMALL_DELTA);
                deltas.push(small);
            }
            Err(_) => {
                symbols.push(LARGE_DELTA);
                deltas.extend(delta.to_be_bytes());
            }
        }
        written += 1;
    }
    let mut body: Vec<u8> = Vec::with_capacity(symbols.len() + deltas.len());
    let mut rest = &symbols[..];
    while let Some(first) = rest.first() {
        let run = rest
            .iter()
            .take(MAX_RUN)
            .take_while(|s| *s == first)
            .count();
        let (chunk, len) = if run >= VECTOR || run == rest.len() {
            (u16::from(*first) << 13 | run as u16, run)
        } else {
            let len = rest.len().min(VECTOR);
            let place =
                |chunk, (at, symbol): (usize, &u8)| chunk | u16::from(*symbol) << (12 - 2 * at);
            let bits = rest[..len].iter().enumerate().fold(0xc000, place);
            (bits, len)
        };
        body.extend(chunk.to_be_bytes());
        rest = &rest[len..];
    }
    body.extend(deltas);
    let padding = body.len().next_multiple_of(4) - body.len();
    let padded = if padding > 0 { 0x20 } else { 0 };
    writer.header(
        padded | FEEDBACK_TRANSPORT_CC,
        TRANSPORT_FEEDBACK,
        (HEAD - 4 + body.len() + padding) / 4,
    );
    writer.words(&[
        ssrc,
        media,
        u32::from(base as u16) << 16 | symbols.len() as u32 & 0xffff,
        (reference as u32) << 8 | u32::from(count),
    ]);
    writer.bytes.extend(body);
    // The last byte says how many there are (RFC 3550 §6.4.1).
    writer
        .bytes
        .extend(std::iter::repeat_n(0, padding.saturating_sub(1)));
    writer.bytes.extend((padding > 0).then_some(padding as u8));
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statuses(compound: &[u8]) -> Vec<(u16, Option<i64>)> {
        let mut all = Vec::new();
        read(compound, |feedback| {
            feedback.for_each(|seq, arrived| all.push((seq, arrived)));
        });
        all
    }

    #[test]
    fn chunks_of_every_form_are_understood() {
        // Fifteen statuses from 65 534 on: two that came by a run, two by one-bit symbols among
        // fourteen, and what is left over.
        let packet = [
            0x8f, 205, 0, 7, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xfe, 0, 16, 0, 0, 2, 9, 0x20, 2, 0xa0,
            1, 4, 8, 0, 12, 0, 0, 0, 0,
        ];
        let read = statuses(&packet);
        assert_eq!(read.len(), 16);
        let came: Vec<_> = read.into_iter().filter(|(_, at)| at.is_some()).collect();
        let at = |ticks: i64| Some(128_000 + ticks * 250);
        assert_eq!(
            came,
            [(65_534, at(4)), (65_535, at(12)), (0, at(12)), (13, at(24))]
        );
        // Two-bit symbols: small, none, large and negative.
        let packet = [
            0x8f, 205, 0, 6, 0, 0, 0, 1, 0, 0, 0, 2, 0, 5, 0, 3, 0, 0, 0, 0, 0xd2, 0, 200, 0xff,
            0xfe, 0, 0, 3,
        ];
        assert_eq!(
            statuses(&packet),
            [(5, Some(50_000)), (6, None), (7, Some(49_500))]
        );
    }

    #[test]
    fn what_is_written_reads_back() {
        let arrivals: Vec<(u64, i64)> = [
            (65_530, 1_000_000),
            (65_531, 1_000_250),
            (65_532, 999_000),
            (65_536, 1_200_000),
        ]
        .into_iter()
        .chain((0..40).map(|i| (65_540 + i, 1_200_000 + 500 * i as i64)))
        .collect();
        let mut writer = Writer::default();
        assert_eq!(write(&mut writer, [1, 2], 3, 65_528, &arrivals), 44);
        assert_eq!(writer.bytes().len() % 4, 0);
        let read = statuses(writer.bytes());
        assert_eq!(read.len(), 65_580 - 65_528);
        assert_eq!(read[0], (65_528, None));
        let came = read.iter().filter_map(|(seq, at)| Some((*seq, (*at)?)));
        let sent = arrivals.iter().map(|(seq, at)| (*seq as u16, *at));
        assert!(came.eq(sent), "{read:?}");
    }

    #[test]
    fn what_does_not_fit_one_feedback_is_left_to_the_next() {
        let many: Vec<_> = (0..1_000u64).map(|i| (i, i as i64 * 20_000_000)).collect();
        let mut writer = Writer::default();
        assert_eq!(write(&mut writer, [1, 2], 0, 0, &many), 1, "too far apart");
        let many: Vec<_> = (0..2_000u64).map(|i| (i, i as i64 * 100_000)).collect();
        let mut writer = Writer::default();
        let written = write(&mut writer, [1, 2], 0, 0, &many);
        assert_eq!(written, MAX_WRITTEN as usize);
        assert!(writer.bytes().len() < 1_200, "{}", writer.bytes().len());
    }

    #[test]
    fn a_compound_of_many_claims_costs_no_more_than_one() {
        // Each is 24 bytes long and says of 1 500 packets that none has come.
        let mut claim = vec![0x8f, 205, 0, 5, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0];
        claim.extend(1_500_u16.to_be_bytes());
        claim.extend([0, 0, 0, 0]);
        claim.extend(1_500_u16.to_be_bytes());
        claim.extend([0, 0]);
        let mut seen = 0;
        let unread = read(&claim.repeat(80), |feedback| {
            feedback.for_each(|_, _| seen += 1);
        });
        assert_eq!((seen, unread), (1_500, 79));
    }

    #[test]
    fn cut_or_lying_feedback_is_read_no_further() {
        let arrivals: Vec<_> = (0..30u64).map(|i| (2 * i, i as i64 * 70_000)).collect();
        let mut writer = Writer::default();
        write(&mut writer, [1, 2], 0, 0, &arrivals);
        let whole = writer.bytes().to_vec();
        for cut in 0..whole.len() {
            assert!(statuses(&whole[..cut]).is_empty());
            // The length says that it is whole.
            let mut short = whole[..cut / 4 * 4].to_vec();
            if short.len() >= 4 {
                let words = short.len() as u16 / 4 - 1;
                short[2..4].copy_from_slice(&words.to_be_bytes());
                assert!(statuses(&short).len() <= 59);
            }
        }
        let mut claims = whole;
        claims[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        assert!(statuses(&claims).is_empty(), "more than anybody reports on");
    }
}
