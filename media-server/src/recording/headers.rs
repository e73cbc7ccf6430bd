//! What containers say of a codec, in bytes.

/// Identification header of Opus in WebRTC: two channels, nothing to skip (RFC 7845 §5.1).
pub const OPUS_HEAD: [u8; 19] = *b"OpusHead\x01\x02\0\0\x80\xbb\0\0\0\0\0";

/// Profile, level and tier of an AV1 sequence header OBU (AV1 §5.5.1), which has its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Av1 {
    pub profile: u8,
    pub level: u8,
    pub tier: bool,
}

impl Av1 {
    pub fn of(obu: &[u8]) -> Av1 {
        Av1::read(obu).unwrap_or_default()
    }

    fn read(obu: &[u8]) -> Option<Av1> {
        let header = if obu.first()? & 0x04 != 0 { 2 } else { 1 };
        let (_, size) = super::depacketize::leb128(obu.get(header..)?)?;
        let body = obu.get(header + size..)?;
        let first = *body.first()?;
        let profile = first >> 5;
        if first & 0x08 != 0 {
            // A header reduced to that of a still picture.
            let level = (first & 0x07) << 2 | body.get(1)? >> 6;
            let tier = false;
            return Some(Av1 {
                profile,
                level,
                tier,
            });
        }
        // Behind profile, flags, number of operating points and the first one's idc. One with timing
        // is not what live encoders write, and its level is told by the OBU alone.
        let last = *body.get(3)?;
        let (level, timed) = (last >> 3, first & 0x04 != 0);
        (!timed).then_some(Av1 {
            profile,
            level,
            tier: level > 7 && last & 0x04 != 0,
        })
    }
}

/// The configuration record of AV1 (AV1-ISOBMFF §2.3.3), as WebM has it: 8 bits, 4:2:0 but for profile 1.
pub fn av1c_bytes(obu: &[u8]) -> Vec<u8> {
    let Av1 {
        profile,
        level,
        tier,
    } = Av1::of(obu);
    let subsampled = if profile == 1 { 0 } else { 0x0c };
    let mut bytes = vec![
        0x81,
        profile << 5 | level,
        u8::from(tier) << 7 | subsampled,
        0,
    ];
    bytes.extend_from_slice(obu);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profile_and_level_of_av1_are_read() {
        // Profile 0, a moving picture, no timing, one operating point of level 5.
        let obu = [0x0a, 5, 0x00, 0x00, 0x00, 5 << 3, 0xff];
        let expected = Av1 {
            profile: 0,
            level: 5,
            tier: false,
        };
        assert_eq!(Av1::of(&obu), expected);
        assert_eq!(av1c_bytes(&obu)[..4], [0x81, 5, 0x0c, 0]);
        // Profile 1, which has all of its colour, and level 13 of the high tier.
        let high = [0x0a, 5, 1 << 5, 0x00, 0x00, 13 << 3 | 0x04, 0xff];
        let expected = Av1 {
            profile: 1,
            level: 13,
            tier: true,
        };
        assert_eq!(Av1::of(&high), expected);
        assert_eq!(av1c_bytes(&high)[..4], [0x81, 1 << 5 | 13, 0x80, 0]);
        for len in 0..6 {
            assert_eq!(Av1::of(&obu[..len]), Av1::default());
        }
    }
}
