//! Session ids and ICE credentials: both carry the pod ordinal and the shard, so that any process
//! can route by them without a table.
//!
//! Takes random bytes from its caller and never draws any. Made by signalling, read by shards and by
//! whatever routes a request or a datagram.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use siphasher::sip::SipHasher24;
use std::fmt;
use std::hash::Hasher as _;
use std::str::FromStr;

/// Highest pod ordinal: ids have 12 bits for it.
pub const MAX_ORDINAL: u16 = 0x0fff;
/// Highest shard: ids have 6 bits for it.
pub const MAX_SHARD: u8 = 63;

/// Layout version of a ufrag, in its first four bits.
const UFRAG_VERSION: u8 = 1;

/// UUIDv8 (RFC 9562 §5.8): 12 bits pod ordinal, 6 bits shard, 104 random bits.
///
/// The custom bits, in the order of the UUID's bytes with version and variant left out: ordinal,
/// shard, random. So the text starts with the ordinal in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub [u8; 16]);

impl SessionId {
    /// Makes an id. Of `random`, 104 bits are used. Ordinal and shard must be in range, see
    /// [`MAX_ORDINAL`] and [`MAX_SHARD`]; higher bits are cut off.
    pub fn new(ordinal: u16, shard: u8, random: [u8; 16]) -> SessionId {
        let mut bytes = random;
        let ordinal = ordinal & MAX_ORDINAL;
        let shard = shard & MAX_SHARD;
        bytes[0] = (ordinal >> 4) as u8;
        bytes[1] = ((ordinal & 0x0f) as u8) << 4 | shard >> 2;
        bytes[2] = (shard & 0b11) << 6 | bytes[2] & 0b0011_1111;
        bytes[6] = 0x80 | bytes[6] & 0x0f;
        bytes[8] = 0x80 | bytes[8] & 0x3f;
        SessionId(bytes)
    }

    pub fn ordinal(self) -> u16 {
        u16::from(self.0[0]) << 4 | u16::from(self.0[1] >> 4)
    }

    pub fn shard(self) -> u8 {
        (self.0[1] & 0x0f) << 2 | self.0[2] >> 6
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(36);
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 0x0f)]));
        }
        f.write_str(&text)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no session id: not a UUID in its usual form, or not of version 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a session id")]
pub struct NotASessionId;

impl FromStr for SessionId {
    type Err = NotASessionId;

    fn from_str(text: &str) -> Result<Self, NotASessionId> {
        let text = text.as_bytes();
        if text.len() != 36 {
            return Err(NotASessionId);
        }
        let mut bytes = [0; 16];
        let mut nibbles = 0;
        for (at, &c) in text.iter().enumerate() {
            if matches!(at, 8 | 13 | 18 | 23) {
                if c != b'-' {
                    return Err(NotASessionId);
                }
                continue;
            }
            let nibble = (c as char).to_digit(16).ok_or(NotASessionId)? as u8;
            bytes[nibbles / 2] = bytes[nibbles / 2] << 4 | nibble;
            nibbles += 1;
        }
        if bytes[6] >> 4 != 8 || bytes[8] >> 6 != 0b10 {
            return Err(NotASessionId);
        }
        Ok(SessionId(bytes))
    }
}

/// Local ICE user fragment: 12 bytes as 16 base64 characters, all of them ice-char (RFC 8839 §5.4).
///
/// | bits | 0–3 | 4–15 | 16–21 | 22–23 | 24–71 | 72–95 |
/// |---|---|---|---|---|---|---|
/// | field | version 1 | ordinal | shard | 0 | random | tag |
///
/// The tag is the first 24 bits of SipHash-2-4 over bits 0–71, so that whoever has the key drops
/// blind guesses without a table.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ufrag(pub [u8; 16]);

impl Ufrag {
    /// Makes a ufrag. Ordinal and shard must be in range; higher bits are cut off.
    pub fn new(key: &[u8; 16], ordinal: u16, shard: u8, random: [u8; 6]) -> Ufrag {
        let ordinal = ordinal & MAX_ORDINAL;
        let mut bytes = [0; 12];
        bytes[0] = UFRAG_VERSION << 4 | (ordinal >> 8) as u8;
        bytes[1] = ordinal as u8;
        bytes[2] = (shard & MAX_SHARD) << 2;
        bytes[3..9].copy_from_slice(&random);
        let tag = tag(key, &bytes[..9]);
        bytes[9..].copy_from_slice(&tag);
        let mut text = [0; 16];
        STANDARD_NO_PAD
            .encode_slice(bytes, &mut text)
            .expect("12 bytes are 16 base64 characters");
        Ufrag(text)
    }

    /// Reads a ufrag that came from the network: `None` unless length, alphabet, version and tag are
    /// right.
    pub fn verify(key: &[u8; 16], text: &[u8]) -> Option<Ufrag> {
        let ufrag = Ufrag(text.try_into().ok()?);
        let bytes = ufrag.bytes()?;
        let right = bytes[0] >> 4 == UFRAG_VERSION && bytes[9..] == tag(key, &bytes[..9]);
        right.then_some(ufrag)
    }

    /// Ordinal of the pod that made it.
    pub fn ordinal(self) -> u16 {
        self.bytes()
            .map_or(0, |b| u16::from(b[0] & 0x0f) << 8 | u16::from(b[1]))
    }

    /// Shard that the session lives on.
    pub fn shard(self) -> u8 {
        self.bytes().map_or(0, |b| b[2] >> 2)
    }

    /// The 16 characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    fn bytes(self) -> Option<[u8; 12]> {
        let mut bytes = [0; 12];
        let len = STANDARD_NO_PAD.decode_slice(self.0, &mut bytes).ok()?;
        (len == bytes.len()).then_some(bytes)
    }
}

impl fmt::Display for Ufrag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Ufrag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn tag(key: &[u8; 16], head: &[u8]) -> [u8; 3] {
    let mut hasher = SipHasher24::new_with_key(key);
    hasher.write(head);
    let [a, b, c, ..] = hasher.finish().to_be_bytes();
    [a, b, c]
}

/// Local ICE password: 24 random bytes as 32 base64 characters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IcePwd(pub [u8; 32]);

impl IcePwd {
    pub fn new(random: [u8; 24]) -> IcePwd {
        let mut text = [0; 32];
        STANDARD_NO_PAD
            .encode_slice(random, &mut text)
            .expect("24 bytes are 32 base64 characters");
        IcePwd(text)
    }

    /// The 32 characters: a secret, never logged.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for IcePwd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IcePwd(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 16] = *b"0123456789abcdef";

    #[test]
    fn session_id_carries_ordinal_and_shard_through_its_text() {
        for (ordinal, shard) in [(0, 0), (1, 63), (64, 5), (4095, 63)] {
            let id = SessionId::new(ordinal, shard, [0xa5; 16]);
            let text = id.to_string();
            let back: SessionId = text.parse().expect("its own text");
            assert_eq!(
                (back, back.ordinal(), back.shard()),
                (id, ordinal, shard),
                "{text}"
            );
            assert_eq!(&text[14..15], "8", "version 8: {text}");
            assert!("89ab".contains(&text[19..20]), "RFC variant: {text}");
            assert_eq!(text.len(), 36);
        }
    }

    #[test]
    fn session_id_keeps_104_random_bits() {
        let zero = SessionId::new(0, 0, [0; 16]).0;
        let ones = SessionId::new(0, 0, [0xff; 16]).0;
        let differ: u32 = zero
            .iter()
            .zip(ones)
            .map(|(a, b)| (a ^ b).count_ones())
            .sum();
        assert_eq!(differ, 104);
    }

    #[test]
    fn text_that_is_no_session_id_is_refused() {
        let good = SessionId::new(3, 2, [7; 16]).to_string();
        for bad in [
            "",
            "x",
            &good[1..],
            &format!("{good}0"),
            &good.replace('-', "0"),
            "00000000-0000-4000-8000-000000000000",
            "é0000000-0000-8000-8000-00000000000",
        ] {
            assert_eq!(bad.parse::<SessionId>(), Err(NotASessionId), "{bad}");
        }
    }

    #[test]
    fn ufrag_carries_ordinal_and_shard_and_verifies_with_its_key_only() {
        for (ordinal, shard) in [(0, 0), (5, 63), (4095, 1)] {
            let ufrag = Ufrag::new(&KEY, ordinal, shard, [1, 2, 3, 4, 5, 6]);
            let back = Ufrag::verify(&KEY, ufrag.as_str().as_bytes()).expect("right key");
            assert_eq!((back.ordinal(), back.shard()), (ordinal, shard));
            assert_eq!(Ufrag::verify(&[0; 16], ufrag.as_str().as_bytes()), None);
            assert!(
                ufrag
                    .as_str()
                    .bytes()
                    .all(|c| c.is_ascii_alphanumeric() || c == b'+' || c == b'/')
            );
        }
    }

    #[test]
    fn every_changed_character_breaks_the_ufrag() {
        let ufrag = Ufrag::new(&KEY, 7, 9, [9; 6]);
        for at in 0..16 {
            let mut text = ufrag.0;
            text[at] = if text[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(Ufrag::verify(&KEY, &text), None, "character {at}");
        }
        assert_eq!(Ufrag::verify(&KEY, b"short"), None);
        assert_eq!(Ufrag::verify(&KEY, &[0xff; 16]), None);
    }

    #[test]
    fn the_password_is_not_shown_by_debug() {
        let pwd = IcePwd::new([3; 24]);
        assert_eq!(pwd.as_str().len(), 32);
        assert!(!format!("{pwd:?}").contains(pwd.as_str()));
    }
}
