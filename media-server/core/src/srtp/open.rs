//! Opening: verification, decryption and the replay window of incoming RTP.

use super::{IndexWindow, SessionCipher};

/// Streams that one peer may send; each holds a window of 128 bytes. Audio, three layers of video and
/// their repair make seven, and a publisher that changes its source takes new ones.
const MAX_STREAMS: usize = 32;

/// Decrypts incoming RTP of one session.
pub struct Opener {
    cipher: SessionCipher,
    streams: Vec<(u32, Box<IndexWindow>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Roll-over count and sequence number: the extended sequence number of the stream.
    pub index: u64,
    /// Where the payload ends in the packet.
    pub end: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("the packet does not verify")]
    Unauthenticated,
    #[error("the packet was seen before, or is too old to tell")]
    Replay,
    #[error("too many streams in one session")]
    Streams,
}

impl Opener {
    pub(crate) fn new(cipher: SessionCipher) -> Self {
        Opener {
            cipher,
            streams: Vec::with_capacity(2),
        }
    }

    /// Verifies and decrypts `packet` in place; `header` is the length of its RTP header with
    /// extension. State changes only for packets that verify.
    ///
    /// # Errors
    /// [`OpenError`]; the packet's bytes are then of no use.
    pub fn open(
        &mut self,
        ssrc: u32,
        seq: u16,
        packet: &mut [u8],
        header: usize,
    ) -> Result<Opened, OpenError> {
        let at = self.streams.iter().position(|(s, _)| *s == ssrc);
        let index = match at {
            Some(at) => estimate_index(self.streams[at].1.end, seq),
            None if self.streams.len() == MAX_STREAMS => return Err(OpenError::Streams),
            None => u64::from(seq),
        };
        if at.is_some_and(|at| !self.streams[at].1.is_free(index)) {
            return Err(OpenError::Replay);
        }
        let end = self
            .cipher
            .open(ssrc, index, packet, header)
            .map_err(|_| OpenError::Unauthenticated)?;
        let at = at.unwrap_or_else(|| {
            self.streams.push((ssrc, Box::default()));
            self.streams.len() - 1
        });
        self.streams[at].1.mark(index);
        Ok(Opened { index, end })
    }

    /// SSRCs that state is held for, and how many they may be.
    #[cfg(test)]
    pub(crate) fn held(&self) -> (&'static str, usize, usize) {
        ("opened streams", self.streams.len(), MAX_STREAMS)
    }
}

/// The index nearest to the highest one seen that ends in `seq` (RFC 3711 §3.3.1). `end` is that
/// highest one plus one.
fn estimate_index(end: u64, seq: u16) -> u64 {
    let highest = end.saturating_sub(1);
    let step = i64::from(seq.wrapping_sub(highest as u16) as i16);
    highest.checked_add_signed(step).unwrap_or(u64::from(seq))
}
