//! SRTCP: control packets of both directions (RFC 3711 §3.4, RFC 7714 §9).
//!
//! A packet ends in a word of its own, the E-flag and a 31-bit index, so nothing is estimated. State
//! changes only for packets that verify, and for a bounded number of SSRCs. Called by the transport.

use super::{CipherError, IndexWindow, OpenError, SessionCipher, cm_iv, cm_tag, gcm_iv, keystream};
use aws_lc_rs::aead::{Aad, Nonce};
use aws_lc_rs::constant_time;

/// Header and SSRC of the first packet of a compound: they stay readable.
const HEADER: usize = 8;
/// E-flag and index.
const WORD: usize = 4;
/// Set in a packet that is encrypted (RFC 3711 §3.4).
const ENCRYPTED: u32 = 1 << 31;
/// SSRCs that one peer may report from, as many as it may send media from.
const MAX_SENDERS: usize = 32;

/// Encrypts outgoing RTCP.
pub struct ControlSealer {
    cipher: SessionCipher,
    /// One count for all SSRCs of the key, so that no pair of SSRC and index comes twice.
    next: u32,
}

impl ControlSealer {
    pub(crate) fn new(cipher: SessionCipher) -> Self {
        ControlSealer { cipher, next: 0 }
    }

    /// Bytes that sealing adds to a compound.
    pub fn overhead(&self) -> usize {
        WORD + self.cipher.tag_len()
    }

    /// Writes the sealed `compound` into `out`, which has room for it and
    /// [`overhead`](Self::overhead); returns its length. `None` if it has not, if `compound` is
    /// shorter than a header, or if the key has sealed all that it may (2^31 packets).
    pub fn seal(&mut self, compound: &[u8], out: &mut [u8]) -> Option<usize> {
        let ssrc = sender(compound)?;
        let packet = out.get_mut(..compound.len() + self.overhead())?;
        let index = self.next;
        if index & ENCRYPTED != 0 {
            return None;
        }
        self.next += 1;
        packet[..compound.len()].copy_from_slice(compound);
        self.cipher
            .seal_control(ssrc, index, packet)
            .map(|()| packet.len())
            .ok()
    }
}

/// Decrypts incoming RTCP of one session.
pub struct ControlOpener {
    cipher: SessionCipher,
    senders: Vec<(u32, Box<IndexWindow>)>,
}

impl ControlOpener {
    pub(crate) fn new(cipher: SessionCipher) -> Self {
        ControlOpener {
            cipher,
            senders: Vec::new(),
        }
    }

    /// Verifies and decrypts in place; returns the compound packet. One that is not encrypted does
    /// not verify: WebRTC has none (RFC 8827 §6.5).
    ///
    /// # Errors
    /// [`OpenError`]; the packet's bytes are then of no use.
    pub fn open<'a>(&mut self, packet: &'a mut [u8]) -> Result<&'a [u8], OpenError> {
        let (Some(ssrc), Some(word)) = (sender(packet), self.cipher.control_word(packet)) else {
            return Err(OpenError::Unauthenticated);
        };
        if word & ENCRYPTED == 0 {
            return Err(OpenError::Unauthenticated);
        }
        let index = word & !ENCRYPTED;
        let at = self.senders.iter().position(|(s, _)| *s == ssrc);
        match at {
            Some(at) if !self.senders[at].1.is_free(index.into()) => return Err(OpenError::Replay),
            None if self.senders.len() == MAX_SENDERS => return Err(OpenError::Streams),
            _ => {}
        }
        let end = self
            .cipher
            .open_control(ssrc, index, packet)
            .map_err(|_| OpenError::Unauthenticated)?;
        let at = at.unwrap_or_else(|| {
            self.senders.push((ssrc, Box::default()));
            self.senders.len() - 1
        });
        self.senders[at].1.mark(index.into());
        Ok(&packet[..end])
    }

    /// SSRCs that state is held for, and how many they may be.
    #[cfg(test)]
    pub(crate) fn held(&self) -> (&'static str, usize, usize) {
        ("control senders", self.senders.len(), MAX_SENDERS)
    }

    /// SSRCs that state is held for.
    #[cfg(test)]
    pub(crate) fn senders(&self) -> usize {
        self.senders.len()
    }
}

fn sender(packet: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(packet.get(4..HEADER)?.try_into().ok()?))
}

impl SessionCipher {
    /// The word: AES-CM puts it before the tag, GCM behind (RFC 7714 §9.2). `None` if the packet is
    /// too short for all that it must have.
    fn control_word(&self, packet: &[u8]) -> Option<u32> {
        let body = packet
            .len()
            .checked_sub(WORD + self.tag_len())
            .filter(|b| *b >= HEADER)?;
        let at = match self {
            SessionCipher::Gcm { .. } => body + self.tag_len(),
            SessionCipher::CmSha1 { .. } => body,
        };
        let word = packet.get(at..at + WORD)?;
        Some(u32::from_be_bytes(word.try_into().ok()?))
    }

    /// Encrypts a compound that lies at the start of `packet`; word and tag fill its end.
    fn seal_control(&self, ssrc: u32, index: u32, packet: &mut [u8]) -> Result<(), CipherError> {
        let word = (index | ENCRYPTED).to_be_bytes();
        let body = packet.len() - WORD - self.tag_len();
        let (text, end) = packet.split_at_mut(body);
        match self {
            SessionCipher::Gcm { key, salt } => {
                let (header, payload) = text.split_at_mut(HEADER);
                let nonce = Nonce::assume_unique_for_key(gcm_iv(salt, ssrc, index.into()));
                let sealed = key
                    .seal_in_place_separate_tag(nonce, Aad::from(aad(header, word)), payload)
                    .map_err(|_| CipherError)?;
                let (tag, last) = end.split_at_mut(self.tag_len());
                tag.copy_from_slice(sealed.as_ref());
                last.copy_from_slice(&word);
            }
            SessionCipher::CmSha1 { key, salt, auth } => {
                keystream(key, cm_iv(salt, ssrc, index.into()), &mut text[HEADER..])?;
                let (first, tag) = end.split_at_mut(WORD);
                first.copy_from_slice(&word);
                tag.copy_from_slice(&cm_tag(auth, text, word)[..10]);
            }
        }
        Ok(())
    }

    /// Verifies and decrypts in place; returns the end of the compound. `packet` has a word.
    fn open_control(&self, ssrc: u32, index: u32, packet: &mut [u8]) -> Result<usize, CipherError> {
        let word = (index | ENCRYPTED).to_be_bytes();
        let body = packet.len() - WORD - self.tag_len();
        match self {
            SessionCipher::Gcm { key, salt } => {
                let last = packet.len() - WORD;
                let (header, payload) = packet[..last].split_at_mut(HEADER);
                let nonce = Nonce::assume_unique_for_key(gcm_iv(salt, ssrc, index.into()));
                key.open_in_place(nonce, Aad::from(aad(header, word)), payload)
                    .map_err(|_| CipherError)?;
            }
            SessionCipher::CmSha1 { key, salt, auth } => {
                let (text, end) = packet.split_at_mut(body);
                let expected = cm_tag(auth, text, word);
                constant_time::verify_slices_are_equal(&expected[..10], &end[WORD..])
                    .map_err(|_| CipherError)?;
                keystream(key, cm_iv(salt, ssrc, index.into()), &mut text[HEADER..])?;
            }
        }
        Ok(body)
    }
}

/// Header and word are authenticated, and readable (RFC 7714 §9.2).
fn aad(header: &[u8], word: [u8; WORD]) -> [u8; HEADER + WORD] {
    let mut aad = [0; HEADER + WORD];
    aad[..HEADER].copy_from_slice(header);
    aad[HEADER..].copy_from_slice(&word);
    aad
}
