//! What containers say of a codec, in bytes.

use super::depacketize::leb128;
use media_core::rtp::size::Bits;

/// Identification header of Opus in WebRTC: two channels, nothing to skip (RFC 7845 §5.1).
pub const OPUS_HEAD: [u8; 19] = *b"OpusHead\x01\x02\0\0\x80\xbb\0\0\0\0\0";

/// What a configuration record has of an AV1 sequence header OBU (AV1 §5.5), which has its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Av1 {
    pub profile: u8,
    pub level: u8,
    pub tier: bool,
    /// 10 bits, or 12.
    pub high_bitdepth: bool,
    pub twelve_bit: bool,
    pub monochrome: bool,
    pub subsampling_x: bool,
    pub subsampling_y: bool,
    pub sample_position: u8,
}

/// What nearly all of it is: 8 bits, 4:2:0.
impl Default for Av1 {
    fn default() -> Av1 {
        Av1 {
            profile: 0,
            level: 0,
            tier: false,
            high_bitdepth: false,
            twelve_bit: false,
            monochrome: false,
            subsampling_x: true,
            subsampling_y: true,
            sample_position: 0,
        }
    }
}

impl Av1 {
    pub fn of(obu: &[u8]) -> Av1 {
        Av1::read(obu).unwrap_or_default()
    }

    fn read(obu: &[u8]) -> Option<Av1> {
        let header = if obu.first()? & 0x04 != 0 { 2 } else { 1 };
        let (_, size) = leb128(obu.get(header..)?)?;
        let mut bits = Bits::new(obu.get(header + size..)?);
        let mut av1 = Av1 {
            profile: bits.read(3)? as u8,
            ..Av1::default()
        };
        // A still picture, and a header reduced to that of one.
        bits.read(1)?;
        let reduced = flag(&mut bits)?;
        if reduced {
            av1.level = bits.read(5)? as u8;
        } else {
            av1.read_operating_points(&mut bits)?;
        }
        skip_tools(&mut bits, reduced)?;
        av1.read_color(&mut bits)?;
        Some(av1)
    }

    /// Of the first one level and tier count.
    fn read_operating_points(&mut self, bits: &mut Bits) -> Option<()> {
        let mut delay_bits = None;
        if flag(bits)? {
            skip(bits, 64)?;
            if flag(bits)? {
                bits.golomb()?;
            }
            if flag(bits)? {
                delay_bits = Some(bits.read(5)? + 1);
                skip(bits, 32 + 5 + 5)?;
            }
        }
        let display_delay = flag(bits)?;
        for point in 0..=bits.read(5)? {
            skip(bits, 12)?;
            let level = bits.read(5)? as u8;
            let tier = level > 7 && flag(bits)?;
            if let Some(delay_bits) = delay_bits
                && flag(bits)?
            {
                skip(bits, 2 * delay_bits + 1)?;
            }
            if display_delay && flag(bits)? {
                skip(bits, 4)?;
            }
            if point == 0 {
                (self.level, self.tier) = (level, tier);
            }
        }
        Some(())
    }

    /// AV1 §5.5.2.
    fn read_color(&mut self, bits: &mut Bits) -> Option<()> {
        /// CP_BT_709, TC_SRGB and MC_IDENTITY: RGB.
        const RGB: [u32; 3] = [1, 13, 0];
        self.high_bitdepth = flag(bits)?;
        self.twelve_bit = self.profile == 2 && self.high_bitdepth && flag(bits)?;
        self.monochrome = self.profile != 1 && flag(bits)?;
        let mut color = [2; 3];
        if flag(bits)? {
            color = [bits.read(8)?, bits.read(8)?, bits.read(8)?];
        }
        if self.monochrome {
            return Some(());
        }
        if color == RGB {
            (self.subsampling_x, self.subsampling_y) = (false, false);
            return Some(());
        }
        // Its range.
        skip(bits, 1)?;
        (self.subsampling_x, self.subsampling_y) = match self.profile {
            0 => (true, true),
            1 => (false, false),
            _ if self.twelve_bit => {
                let x = flag(bits)?;
                (x, x && flag(bits)?)
            }
            _ => (true, false),
        };
        if self.subsampling_x && self.subsampling_y {
            self.sample_position = bits.read(2)? as u8;
        }
        Some(())
    }
}

/// What lies between the operating points and the colours.
fn skip_tools(bits: &mut Bits, reduced: bool) -> Option<()> {
    let (width, height) = (bits.read(4)? + 1, bits.read(4)? + 1);
    skip(bits, width + height)?;
    if !reduced && flag(bits)? {
        skip(bits, 4 + 3)?;
    }
    skip(bits, 3)?;
    if !reduced {
        skip(bits, 4)?;
        let order_hint = flag(bits)?;
        if order_hint {
            skip(bits, 2)?;
        }
        // Screen content: as each picture says, or as is said here.
        let screen_content = flag(bits)? || flag(bits)?;
        if screen_content && !flag(bits)? {
            skip(bits, 1)?;
        }
        if order_hint {
            skip(bits, 3)?;
        }
    }
    skip(bits, 3)
}

fn flag(bits: &mut Bits) -> Option<bool> {
    bits.read(1).map(|bit| bit == 1)
}

fn skip(bits: &mut Bits, count: u32) -> Option<()> {
    (0..count).try_for_each(|_| bits.read(1).map(drop))
}

/// The configuration record of AV1 (AV1-ISOBMFF §2.3.3), as WebM has it.
pub fn av1c_bytes(obu: &[u8]) -> Vec<u8> {
    let av1 = Av1::of(obu);
    let third = [
        (av1.tier, 7),
        (av1.high_bitdepth, 6),
        (av1.twelve_bit, 5),
        (av1.monochrome, 4),
        (av1.subsampling_x, 3),
        (av1.subsampling_y, 2),
    ];
    let third = third.map(|(is, at)| u8::from(is) << at);
    let mut bytes = vec![
        0x81,
        av1.profile << 5 | av1.level,
        third.iter().fold(av1.sample_position, |all, bit| all | bit),
        0,
    ];
    bytes.extend_from_slice(obu);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sequence header of these bits, each a number and how many of them it has.
    fn header(fields: &[(u64, usize)]) -> Vec<u8> {
        let bits: String = fields
            .iter()
            .map(|&(value, len)| format!("{value:0len$b}"))
            .collect();
        let byte = |bits: &[u8]| {
            let bits = bits.iter().chain(std::iter::repeat(&b'0')).take(8);
            bits.fold(0, |byte, bit| byte << 1 | (bit - b'0'))
        };
        let body: Vec<u8> = bits.as_bytes().chunks(8).map(byte).collect();
        [&[0x0a, body.len() as u8], &body[..]].concat()
    }

    /// A moving picture of 320x180 with what live encoders use: order hints, screen content as each picture says.
    fn moving(profile: u64, level: &[(u64, usize)], color: &[(u64, usize)]) -> Vec<u8> {
        let start = [(profile, 3), (0, 2), (0, 1), (0, 1), (0, 5), (0, 12)];
        let size = [(8, 4), (7, 4), (319, 9), (179, 8), (0, 1), (7, 3)];
        let tools = [(15, 4), (1, 1), (3, 2), (1, 1), (1, 1), (6, 3), (3, 3)];
        header(&[&start[..], level, &size, &tools, color].concat())
    }

    #[test]
    fn profile_level_and_depth_of_av1_are_read() {
        let usual = moving(0, &[(5, 5)], &[(0, 1), (0, 1), (0, 1), (0, 1), (0, 2)]);
        let expected = Av1 {
            level: 5,
            ..Av1::default()
        };
        assert_eq!(Av1::of(&usual), expected);
        assert_eq!(av1c_bytes(&usual)[..4], [0x81, 5, 0x0c, 0]);
        for len in 0..usual.len() {
            assert_eq!(Av1::of(&usual[..len]), Av1::default());
        }
        // 10 bits of BT.2020, its samples beside each other.
        let color = [
            (1, 1),
            (0, 1),
            (1, 1),
            (9, 8),
            (16, 8),
            (9, 8),
            (0, 1),
            (2, 2),
        ];
        let deep = moving(0, &[(5, 5)], &color);
        assert_eq!(av1c_bytes(&deep)[..4], [0x81, 5, 0x4e, 0]);
        // Profile 1, which has all of its colour, and level 13 of the high tier.
        let high = moving(1, &[(13, 5), (1, 1)], &[(0, 1), (0, 1), (0, 1)]);
        let expected = Av1 {
            profile: 1,
            level: 13,
            tier: true,
            subsampling_x: false,
            subsampling_y: false,
            ..Av1::default()
        };
        assert_eq!(Av1::of(&high), expected);
        assert_eq!(av1c_bytes(&high)[..4], [0x81, 1 << 5 | 13, 0x80, 0]);
        // Profile 2: 12 bits with half of the colours, and grey.
        let color = [(1, 1), (1, 1), (0, 1), (0, 1), (0, 1), (1, 1), (0, 1)];
        let half = moving(2, &[(5, 5)], &color);
        assert_eq!(av1c_bytes(&half)[2], 0x68);
        let grey = moving(2, &[(5, 5)], &[(0, 1), (1, 1), (0, 1), (0, 1)]);
        assert_eq!(av1c_bytes(&grey)[2], 0x1c);
    }

    #[test]
    fn an_av1_header_is_read_behind_timing_and_delays() {
        let start = [
            (0, 3),
            (0, 2),
            (1, 1),
            (1, 32),
            (50, 32),
            (1, 1),
            (1, 1),
            (1, 1),
        ];
        let model = [(9, 5), (1, 32), (9, 5), (9, 5)];
        let points = [
            (1, 1),
            (1, 5),
            (1, 12),
            (8, 5),
            (1, 1),
            (1, 1),
            (0, 21),
            (1, 1),
            (3, 4),
        ];
        let second = [(2, 12), (4, 5), (0, 1), (0, 1)];
        let size = [(8, 4), (7, 4), (319, 9), (179, 8), (1, 1), (0, 7), (7, 3)];
        let tools = [(15, 4), (0, 1), (0, 1), (0, 1), (3, 3)];
        let color = [(1, 1), (0, 1), (0, 1), (0, 1), (1, 2)];
        let obu = [&start[..], &model, &points, &second, &size, &tools, &color].concat();
        let expected = Av1 {
            level: 8,
            tier: true,
            high_bitdepth: true,
            sample_position: 1,
            ..Av1::default()
        };
        assert_eq!(Av1::of(&header(&obu)), expected);
    }
}
