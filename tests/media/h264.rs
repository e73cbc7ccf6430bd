//! Pictures of H.264 whose every byte is known, and what of them came to a viewer.

use client::Codec;
use tests::wait_for;

use crate::media::{PATIENCE, Watching};

/// Pictures from one keyframe to the next.
pub const GOP: u32 = 10;

/// The NAL units of a picture: a keyframe has its parameter sets. They have no zeros, so no start code.
pub fn picture(number: u32) -> Vec<Vec<u8>> {
    let slice = |header: u8, len: u32| {
        let digits = (0..4).map(|place| 0x80 | (number >> (7 * place)) as u8);
        let filling = (0..len).map(|at| ((at * 7 + number) % 255) as u8 + 1);
        let header = [header, 0x88];
        header.into_iter().chain(digits).chain(filling).collect()
    };
    match number.is_multiple_of(GOP) {
        true => vec![SPS.to_vec(), PPS.to_vec(), slice(0x65, 3_000)],
        false => vec![slice(0x41, 300 + number % 50)],
    }
}

const SPS: &[u8] = &[0x67, 0x42, 0xc0, 0x1f, 0xda, 0x14, 0x07, 0xe4];
const PPS: &[u8] = &[0x68, 0xce, 0x3c, 0x80];

/// A byte stream of those pictures.
pub fn stream(numbers: impl IntoIterator<Item = u32>) -> Vec<u8> {
    let nals = numbers.into_iter().flat_map(picture);
    nals.flat_map(|nal| [&[0, 0, 0, 1][..], &nal].concat())
        .collect()
}

/// The numbers of the pictures that came, each as it was sent to the byte.
pub fn numbers(payloads: &[Vec<u8>]) -> Vec<u32> {
    let mut numbers = Vec::new();
    let mut sets = Vec::new();
    for nal in nals(payloads) {
        if nal == SPS || nal == PPS {
            sets.push(nal);
            continue;
        }
        let digits = (0..4).map(|place| u32::from(nal[2 + place] & 0x7f) << (7 * place));
        let number = digits.sum();
        let mut sent = picture(number);
        assert!(sent.pop() == Some(nal), "picture {number} was changed");
        assert!(
            sent == sets,
            "picture {number} has other parameter sets: {sets:02x?}"
        );
        sets.clear();
        numbers.push(number);
    }
    numbers
}

/// NAL units out of the payloads of RTP (RFC 6184); the last may be cut off.
fn nals(payloads: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut nals: Vec<Vec<u8>> = Vec::new();
    let mut fragment = Vec::new();
    for payload in payloads {
        match payload[0] & 0x1f {
            24 => {
                let mut rest = &payload[1..];
                while let [high, low, ..] = *rest {
                    let end = 2 + usize::from(u16::from_be_bytes([high, low]));
                    nals.push(rest[2..end].to_vec());
                    rest = &rest[end..];
                }
            }
            28 => {
                if payload[1] & 0x80 != 0 {
                    fragment = vec![(payload[0] & 0xe0) | (payload[1] & 0x1f)];
                }
                fragment.extend(&payload[2..]);
                if payload[1] & 0x40 != 0 {
                    nals.push(std::mem::take(&mut fragment));
                }
            }
            _ => nals.push(payload.clone()),
        }
    }
    nals
}

/// Waits until the viewer has had that many pictures; returns their numbers.
pub async fn seen(watching: &Watching, pictures: usize, log: impl Fn() -> String) -> Vec<u32> {
    wait_for("pictures to come", PATIENCE, || async {
        match numbers(&watching.record.payloads(Codec::H264)) {
            got if got.len() >= pictures => Ok(got),
            got => Err(format!("{} of {pictures}: {}", got.len(), log())),
        }
    })
    .await
}

/// Asserts that each picture is the one after the last, or the first of `of` after the last of them.
pub fn assert_in_order(numbers: &[u32], of: u32) {
    assert!(
        numbers[0].is_multiple_of(GOP),
        "a keyframe is first: {numbers:?}"
    );
    let follows = |pair: &[u32]| pair[1] == (pair[0] + 1) % of;
    assert!(numbers.windows(2).all(follows), "{numbers:?}");
}
