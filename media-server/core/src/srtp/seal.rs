//! Sealing: the one place where RTP is encrypted.

use super::{IndexWindow, Keys, SessionCipher};

/// Streams that one key may send: audio and video, with room for their repair streams.
const MAX_STREAMS: usize = 4;

/// Encrypts outgoing RTP. Owns the key, the SSRCs that go out under it, and what was sealed:
/// an index of an SSRC is sealed at most once, because sealing two packets under one nonce would
/// give the key stream away.
pub struct Sealer {
    cipher: SessionCipher,
    streams: Vec<(u32, Box<IndexWindow>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("the index was sealed before, or is too old to tell")]
    Used,
    #[error("too many streams under one key")]
    Streams,
    #[error("the packet has no room for its header and tag")]
    Room,
}

impl Sealer {
    pub(crate) fn new(cipher: SessionCipher) -> Self {
        Sealer {
            cipher,
            streams: Vec::with_capacity(2),
        }
    }

    /// Seals with our direction of those keys, apart from any session: what measurements start from.
    pub fn from_keys(keys: Keys) -> Self {
        Self::new(keys.ours)
    }

    pub fn tag_len(&self) -> usize {
        self.cipher.tag_len()
    }

    /// Seals `packet` in place: `header` bytes stay readable, the last [`tag_len`](Self::tag_len)
    /// bytes receive the tag. `index` is roll-over count and sequence number (48 bits); the header's
    /// sequence number must be its low half.
    ///
    /// # Errors
    /// [`SealError`]; the packet must not be sent.
    pub fn seal(
        &mut self,
        ssrc: u32,
        index: u64,
        packet: &mut [u8],
        header: usize,
    ) -> Result<(), SealError> {
        debug_assert_eq!(packet.get(2..4), Some(&(index as u16).to_be_bytes()[..]));
        let at = match self.streams.iter().position(|(s, _)| *s == ssrc) {
            Some(at) => at,
            None if self.streams.len() == MAX_STREAMS => return Err(SealError::Streams),
            None => {
                self.streams.push((ssrc, Box::default()));
                self.streams.len() - 1
            }
        };
        let window = &mut self.streams[at].1;
        if !window.is_free(index) {
            return Err(SealError::Used);
        }
        // Marked even if sealing fails below: better an index lost than one used twice.
        window.mark(index);
        self.cipher
            .seal(ssrc, index, packet, header)
            .map_err(|_| SealError::Room)
    }

    /// SSRCs that state is held for, and how many they may be.
    #[cfg(test)]
    pub(crate) fn held(&self) -> (&'static str, usize, usize) {
        ("sealed streams", self.streams.len(), MAX_STREAMS)
    }
}
