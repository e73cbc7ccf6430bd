//! The picture size that a keyframe announces. Asked for the first packet of each keyframe of a
//! simulcast layer, because only sizes say which layer is the best.
//!
//! Payloads come from the network: `None` for whatever is cut, unusual or contradictory.

use crate::negotiated::Codec;

/// Width and height in pixels.
pub fn picture_size(codec: &Codec, payload: &[u8]) -> Option<(u16, u16)> {
    match codec {
        Codec::Vp8 => vp8(payload),
        Codec::Vp9 { .. } => vp9(payload),
        Codec::H264 { .. } => h264(payload),
        Codec::Av1 { .. } => av1(payload),
        Codec::Opus | Codec::Red => None,
    }
}

/// RFC 7741 §4.2 and RFC 6386 §9.1: behind the descriptor three bytes of tag, a start code, sizes.
fn vp8(payload: &[u8]) -> Option<(u16, u16)> {
    let mut at = 1;
    if payload.first()? & 0x80 != 0 {
        let fields = *payload.get(1)?;
        at = 2;
        if fields & 0x80 != 0 {
            at += if payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
        }
        at += usize::from(fields & 0x40 != 0) + usize::from(fields & 0x30 != 0);
    }
    let frame: &[u8; 10] = payload.get(at..at + 10)?.try_into().ok()?;
    let size = |low, high| u16::from_le_bytes([low, high]) & 0x3fff;
    (frame[3..6] == [0x9d, 0x01, 0x2a])
        .then(|| (size(frame[6], frame[7]), size(frame[8], frame[9])))
}

/// RFC 9628 §4.2, and the uncompressed header of the VP9 bitstream (§6.2).
fn vp9(payload: &[u8]) -> Option<(u16, u16)> {
    let first = *payload.first()?;
    let (picture_id, layers, flexible, structure) = (
        first & 0x80 != 0,
        first & 0x20 != 0,
        first & 0x10 != 0,
        first & 0x02 != 0,
    );
    // A scalability structure names sizes too, but only streams of several spatial layers need it.
    let mut at = 1;
    if picture_id {
        at += if payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
    }
    at += usize::from(layers) + usize::from(layers && !flexible);
    if structure {
        let bits = *payload.get(at)?;
        at += 1;
        let spatial = usize::from(bits >> 5) + 1;
        if bits & 0x10 != 0 {
            let size = payload.get(at + 4 * (spatial - 1)..at + 4 * spatial)?;
            return Some((
                u16::from_be_bytes([size[0], size[1]]),
                u16::from_be_bytes([size[2], size[3]]),
            ));
        }
        if bits & 0x08 != 0 {
            let pictures = *payload.get(at)?;
            at += 1;
            for _ in 0..pictures {
                at += 1 + usize::from(*payload.get(at)? >> 2 & 3);
            }
        }
    }
    let mut bits = Bits::new(payload.get(at..)?);
    if bits.read(2)? != 2 {
        return None;
    }
    let profile = bits.read(1)? | bits.read(1)? << 1;
    if profile == 3 {
        bits.read(1)?;
    }
    // Neither a repetition nor an inter frame.
    if bits.read(2)? != 0 {
        return None;
    }
    bits.read(2)?;
    if bits.read(24)? != 0x49_83_42 {
        return None;
    }
    if profile >= 2 {
        bits.read(1)?;
    }
    if bits.read(3)? != 7 {
        bits.read(1)?;
        if profile & 1 == 1 {
            bits.read(3)?;
        }
    } else if profile & 1 == 1 {
        bits.read(1)?;
    } else {
        return None;
    }
    let width = u16::try_from(bits.read(16)? + 1).ok()?;
    Some((width, u16::try_from(bits.read(16)? + 1).ok()?))
}

/// A sequence parameter set (ITU-T H.264 §7.3.2.1.1), alone or aggregated.
fn h264(payload: &[u8]) -> Option<(u16, u16)> {
    const SPS: u8 = 7;
    const STAP_A: u8 = 24;
    let mut set = payload;
    if payload.first()? & 0x1f == STAP_A {
        let mut rest = &payload[1..];
        loop {
            let (len, tail) = rest.split_first_chunk::<2>()?;
            let (unit, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
            set = unit;
            if unit.first()? & 0x1f == SPS {
                break;
            }
            rest = tail;
        }
    }
    if set.first()? & 0x1f != SPS {
        return None;
    }
    // Sizes stand within the first bytes, unless scaling lists come before them.
    let mut plain = Vec::with_capacity(64);
    for byte in set.iter().skip(1).take(1024) {
        // Emulation prevention (§7.4.1).
        if *byte != 3 || !plain.ends_with(&[0, 0]) {
            plain.push(*byte);
        }
    }
    let mut bits = Bits::new(&plain);
    let profile = bits.read(8)?;
    bits.read(16)?;
    bits.golomb()?;
    let mut chroma = 1;
    if matches!(
        profile,
        100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135
    ) {
        chroma = bits.golomb()?;
        if chroma == 3 {
            bits.read(1)?;
        }
        bits.golomb()?;
        bits.golomb()?;
        bits.read(1)?;
        if bits.read(1)? == 1 {
            let lists = if chroma == 3 { 12 } else { 8 };
            for list in 0..lists {
                if bits.read(1)? == 1 {
                    skip_scaling_list(&mut bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    bits.golomb()?;
    match bits.golomb()? {
        0 => {
            bits.golomb()?;
        }
        1 => {
            bits.read(1)?;
            bits.golomb()?;
            bits.golomb()?;
            for _ in 0..bits.golomb()? {
                bits.golomb()?;
            }
        }
        _ => {}
    }
    bits.golomb()?;
    bits.read(1)?;
    let columns = bits.golomb()?.checked_add(1)?;
    let rows = bits.golomb()?.checked_add(1)?;
    let fields = if bits.read(1)? == 1 { 1 } else { 2 };
    if fields == 2 {
        bits.read(1)?;
    }
    bits.read(1)?;
    let mut crop = [0; 4];
    if bits.read(1)? == 1 {
        for edge in &mut crop {
            *edge = bits.golomb()?;
        }
    }
    let unit_x = if matches!(chroma, 1 | 2) { 2 } else { 1 };
    let unit_y = fields * if chroma == 1 { 2 } else { 1 };
    let size = |blocks: u32, edges: u32, unit: u32| {
        let pixels = blocks.checked_mul(16)?;
        u16::try_from(pixels.checked_sub(edges.checked_mul(unit)?)?).ok()
    };
    Some((
        size(columns, crop[0].checked_add(crop[1])?, unit_x)?,
        size(
            rows.checked_mul(fields)?,
            crop[2].checked_add(crop[3])?,
            unit_y,
        )?,
    ))
}

/// ITU-T H.264 §7.3.2.1.1.1.
fn skip_scaling_list(bits: &mut Bits, entries: u32) -> Option<()> {
    let (mut last, mut next) = (8, 8);
    for _ in 0..entries {
        if next != 0 {
            // Signed Exp-Golomb (§9.1.1): odd numbers are positive.
            let code = i64::from(bits.golomb()?);
            let delta = if code % 2 == 1 {
                (code + 1) / 2
            } else {
                -code / 2
            };
            next = (last + delta).rem_euclid(256);
        }
        if next != 0 {
            last = next;
        }
    }
    Some(())
}

/// A sequence header OBU at the start of the packet (AV1 §5.5.1, AV1 RTP §4.4).
fn av1(payload: &[u8]) -> Option<(u16, u16)> {
    const SEQUENCE_HEADER: u8 = 1;
    let (&aggregation, mut rest) = payload.split_first()?;
    if aggregation & 0x80 != 0 {
        return None;
    }
    if aggregation >> 4 & 3 != 1 {
        rest = skip_leb128(rest)?;
    }
    let (&header, mut rest) = rest.split_first()?;
    if header >> 3 & 0x0f != SEQUENCE_HEADER {
        return None;
    }
    if header & 0x04 != 0 {
        rest = rest.get(1..)?;
    }
    if header & 0x02 != 0 {
        rest = skip_leb128(rest)?;
    }
    let mut bits = Bits::new(rest);
    bits.read(4)?;
    if bits.read(1)? == 1 {
        bits.read(5)?;
    } else {
        // Timing would come with a decoder model; live encoders write neither.
        if bits.read(1)? == 1 {
            return None;
        }
        let delays = bits.read(1)? == 1;
        for _ in 0..=bits.read(5)? {
            bits.read(12)?;
            if bits.read(5)? > 7 {
                bits.read(1)?;
            }
            if delays && bits.read(1)? == 1 {
                bits.read(4)?;
            }
        }
    }
    let (width_bits, height_bits) = (bits.read(4)? + 1, bits.read(4)? + 1);
    let width = u16::try_from(bits.read(width_bits)? + 1).ok()?;
    Some((width, u16::try_from(bits.read(height_bits)? + 1).ok()?))
}

fn skip_leb128(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().take(8).position(|byte| byte & 0x80 == 0)?;
    Some(&bytes[end + 1..])
}

/// Reads a header bit by bit.
pub struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Bits { bytes, at: 0 }
    }

    /// At most 32 bits.
    pub fn read(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }

    /// An unsigned Exp-Golomb number (ITU-T H.264 §9.1).
    pub fn golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.read(1)? == 0 {
            zeros += 1;
            if zeros > 16 {
                return None;
            }
        }
        Some((1 << zeros) - 1 + self.read(zeros)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H264: Codec = Codec::H264 {
        packetization_mode: 1,
        profile_iop: 0x42e0,
    };

    #[test]
    fn a_vp8_keyframe_names_its_size_behind_any_descriptor() {
        let frame = [0x50, 0x10, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01];
        let plain = [&[0x10][..], &frame].concat();
        assert_eq!(picture_size(&Codec::Vp8, &plain), Some((640, 360)));
        let full = [&[0x90, 0xf0, 0x81, 0x02, 0x03, 0x04][..], &frame].concat();
        assert_eq!(picture_size(&Codec::Vp8, &full), Some((640, 360)));
        assert_eq!(picture_size(&Codec::Vp8, &[0x10, 0x51, 1, 2]), None);
    }

    #[test]
    fn an_h264_parameter_set_names_its_size_alone_or_aggregated() {
        // Written by openh264 for 640x360, cropped from 368 rows.
        let set = [
            0x67, 0x42, 0xc0, 0x1e, 0x8c, 0x8d, 0x40, 0x50, 0x17, 0xfc, 0xb0, 0x0f, 0x08, 0x84,
            0x6a,
        ];
        assert_eq!(picture_size(&H264, &set), Some((640, 360)));
        let aggregated = [&[0x78, 0, 2, 0x09, 0xf0, 0, 15][..], &set, &[0, 1, 0x68]].concat();
        assert_eq!(picture_size(&H264, &aggregated), Some((640, 360)));
        assert_eq!(picture_size(&H264, &[0x65, 1, 2, 3]), None);
    }

    #[test]
    fn an_h264_parameter_set_names_its_size_behind_scaling_lists() {
        // High profile, level 3.1; 4:2:0 of 8 bits with scaling lists: one of 16 entries, of which the
        // first is 9 and the second the end, and one of 64 that all stay at 8.
        let mut bits = format!("{:08b}{:08b}{:08b}", 100, 0, 31);
        bits += "1";
        bits += "010"; // 4:2:0
        bits += "110"; // two depths, and no bypass
        bits += "1";
        bits += "1";
        bits += "010"; // +1
        bits += "000010011"; // -9: the list ends
        bits += "00000"; // no other of 16
        bits += "1";
        bits += &"1".repeat(64);
        bits += "0";
        bits += "1"; // frame numbers of 4 bits
        bits += "011"; // order by frame number
        bits += "010"; // one reference
        bits += "0";
        bits += &format!("{:013b}", 80); // 80 columns of 16
        bits += &format!("{:011b}", 45); // 45 rows of 16
        bits += "110000000000";
        let eights = bits.as_bytes().chunks(8);
        let set = eights.map(|b| b.iter().fold(0u8, |v, c| v << 1 | (c - b'0')));
        let set: Vec<u8> = [0x67].into_iter().chain(set).collect();
        assert_eq!(picture_size(&H264, &set), Some((1280, 720)));
    }

    #[test]
    fn vp9_and_av1_keyframes_name_their_size() {
        // Frame marker, profile 0, key frame, shown; the sync code; colours; 640 and 360 less one.
        let mut bits = String::from("10000010");
        bits += "010010011000001101000010";
        bits += "0010";
        bits += &format!("{:016b}{:016b}0000", 639, 359);
        let bytes = |bits: &str| -> Vec<u8> {
            let eights = bits.as_bytes().chunks(8);
            eights
                .map(|b| b.iter().fold(0, |v, c| v << 1 | (c - b'0')))
                .collect()
        };
        let vp9 = [&[0x88, 0x81, 0x02][..], &bytes(&bits)].concat();
        let profile = Codec::Vp9 { profile: 0 };
        assert_eq!(picture_size(&profile, &vp9), Some((640, 360)));
        // Profile 0, a moving picture, no timing; one operating point of level 5; ten and nine bits.
        let mut bits = String::from("0000000");
        bits += "00000";
        bits += &format!("{:012b}{:05b}", 0, 5);
        bits += &format!("{:04b}{:04b}{:010b}{:09b}00000", 9, 8, 639, 359);
        let header = bytes(&bits);
        let av1 = [&[0x28, header.len() as u8 + 1, 0x08][..], &header, &[0x30]].concat();
        let profile = Codec::Av1 { profile: 0 };
        assert_eq!(picture_size(&profile, &av1), Some((640, 360)));
    }

    #[test]
    fn no_cut_or_random_payload_panics() {
        let mut state = 1u64;
        for round in 0..4_000usize {
            let payload: Vec<u8> = (0..round % 60)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    (state >> 33) as u8
                })
                .collect();
            for codec in [
                Codec::Vp8,
                Codec::Vp9 { profile: 0 },
                Codec::Av1 { profile: 0 },
                H264,
            ] {
                let _ = picture_size(&codec, &payload);
                let _ = picture_size(&codec, &[&[0x67][..], &payload].concat());
            }
        }
    }
}
