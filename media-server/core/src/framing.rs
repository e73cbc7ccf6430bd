//! Datagrams over a stream: two bytes of length before each (RFC 4571 §2, for ICE RFC 6544 §3).
//!
//! Pure functions on slices. Called by the shard for what its TCP connections carry.

/// Bytes of the length in front of each datagram.
pub const PREFIX: usize = 2;
/// Longest datagram that is taken: what the UDP socket takes as well. Media, checks and handshakes
/// stay below 1500 bytes.
pub const MAX_FRAME: usize = 2048;

/// What a stream begins with.
#[derive(Debug, PartialEq, Eq)]
pub enum Framed<'a> {
    /// A datagram, and what comes after it.
    Datagram(&'a mut [u8], &'a mut [u8]),
    /// Not all of a datagram yet.
    Incomplete,
    /// A datagram longer than [`MAX_FRAME`]: the stream is of something else, or out of step for good.
    TooLong,
}

/// Splits the first datagram off. One of no bytes, which RFC 4571 allows, is returned as such.
pub fn split(stream: &mut [u8]) -> Framed<'_> {
    let Some((prefix, rest)) = stream.split_first_chunk_mut::<PREFIX>() else {
        return Framed::Incomplete;
    };
    let len = usize::from(u16::from_be_bytes(*prefix));
    if len > MAX_FRAME {
        return Framed::TooLong;
    }
    match rest.split_at_mut_checked(len) {
        Some((datagram, rest)) => Framed::Datagram(datagram, rest),
        None => Framed::Incomplete,
    }
}

/// The length that goes in front of a datagram; `None` if it is too long for two bytes.
pub fn prefix(datagram: &[u8]) -> Option<[u8; PREFIX]> {
    u16::try_from(datagram.len()).ok().map(u16::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every datagram of a stream that arrives in pieces of `step` bytes.
    fn read(stream: &[u8], step: usize) -> Result<Vec<Vec<u8>>, usize> {
        let (mut held, mut all) = (Vec::new(), Vec::new());
        for piece in stream.chunks(step) {
            held.extend_from_slice(piece);
            let mut rest = &mut held[..];
            let left = loop {
                let left = rest.len();
                match split(std::mem::take(&mut rest)) {
                    Framed::Datagram(datagram, after) => {
                        all.push(datagram.to_vec());
                        rest = after;
                    }
                    Framed::Incomplete => break left,
                    Framed::TooLong => return Err(all.len()),
                }
            };
            held.drain(..held.len() - left);
        }
        assert!(held.is_empty(), "all of it was whole");
        Ok(all)
    }

    #[test]
    fn datagrams_come_out_as_they_went_in_however_the_stream_is_cut() {
        let datagrams: Vec<Vec<u8>> = [1, 0, 1200, MAX_FRAME, 20]
            .iter()
            .map(|len| (0..*len).map(|at| at as u8).collect())
            .collect();
        let mut stream = Vec::new();
        for datagram in &datagrams {
            stream.extend(prefix(datagram).expect("short enough"));
            stream.extend(datagram);
        }
        for step in [1, 2, 3, 7, 1201, stream.len()] {
            assert_eq!(read(&stream, step).as_ref(), Ok(&datagrams), "step {step}");
        }
    }

    #[test]
    fn what_is_no_framed_stream_is_noticed_at_its_first_length() {
        let too_long = (MAX_FRAME as u16 + 1).to_be_bytes();
        assert_eq!(split(&mut too_long.to_vec()), Framed::TooLong);
        assert_eq!(read(b"GET / HTTP/1.1\r\n\r\n", 3), Err(0));
        assert_eq!(split(&mut []), Framed::Incomplete);
        assert_eq!(split(&mut [0]), Framed::Incomplete);
        assert_eq!(prefix(&[0; 65_536]), None);
    }
}
