//! Redundant audio (RFC 2198): a payload of several blocks, the newest, which is the primary one, last.
//!
//! Reads and changes the headers in front of the blocks; never looks into a block.

/// Set in the first byte of each header but the last.
const FOLLOWED: u8 = 0x80;
const HEADER: usize = 4;

/// Where the primary block of a payload begins; `None` if the payload is cut short.
pub fn primary(payload: &[u8]) -> Option<usize> {
    let (mut at, mut redundant) = (0, 0);
    while *payload.get(at)? & FOLLOWED != 0 {
        let [_, _, high, low] = *payload.get(at..at + HEADER)? else {
            return None;
        };
        redundant += usize::from(u16::from_be_bytes([high & 0x03, low]));
        at += HEADER;
    }
    // The last header has one byte, and its block all that is left.
    let start = at + 1 + redundant;
    (start <= payload.len()).then_some(start)
}

/// Gives all blocks of a payload that is not cut short this payload type.
pub fn rename(payload: &mut [u8], pt: u8) {
    let mut at = 0;
    while let Some(first) = payload.get_mut(at) {
        let followed = *first & FOLLOWED;
        *first = followed | pt;
        if followed == 0 {
            return;
        }
        at += HEADER;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of type 111: two redundant ones, of 2 and 300 bytes, and the primary.
    fn payload() -> Vec<u8> {
        let headers = [0xef, 0x1e, 0x00, 2, 0xef, 0x0f, 0x01, 0x2c, 0x6f];
        [&headers[..], &[1; 2], &[2; 300], b"newest"].concat()
    }

    #[test]
    fn the_primary_block_is_what_is_left_behind_the_others() {
        let payload = payload();
        let start = primary(&payload).expect("whole");
        assert_eq!(&payload[start..], b"newest");
        assert_eq!(primary(&[0x6f]), Some(1), "silence");
        assert_eq!(primary(b"\x6fonly"), Some(1));
    }

    #[test]
    fn what_is_cut_short_has_none() {
        let payload = payload();
        for len in 0..payload.len() - b"newest".len() {
            assert_eq!(primary(&payload[..len]), None, "{len}");
        }
        assert_eq!(primary(&[0xff; 1_000]), None);
    }

    #[test]
    fn blocks_are_renamed_and_nothing_else_changes() {
        let before = payload();
        let mut renamed = before.clone();
        rename(&mut renamed, 96);
        let changed: Vec<_> = (0..before.len())
            .filter(|at| before[*at] != renamed[*at])
            .collect();
        assert_eq!(changed, [0, 4, 8]);
        assert_eq!([renamed[0], renamed[4], renamed[8]], [0xe0, 0xe0, 0x60]);
    }
}
