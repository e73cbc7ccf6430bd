//! The first ClientHello, which decides the SRTP profile and may come in pieces: browsers put keys
//! of more than a kilobyte into it.
//!
//! Its datagrams are held back until the offer is known, then go to the association unchanged.

use super::{CLIENT_HELLO, RECORD_HANDSHAKE, RECORD_HEADER};

/// Header of a handshake message (RFC 6347 §4.2.2).
const MESSAGE_HEADER: usize = 12;
/// Datagrams held. A browser's hello takes two, three with a small MTU; at one of 256 B, nine.
const MAX_DATAGRAMS: usize = 16;
/// Longest hello that is looked at.
const MAX_LEN: usize = 8 * 1024;
const USE_SRTP: usize = 14;
const AEAD_AES_128_GCM: [u8; 2] = [0, 7];

/// A ClientHello being put together.
#[derive(Debug, Default)]
pub(super) struct Hello {
    datagrams: Vec<Vec<u8>>,
    body: Vec<u8>,
    /// Offsets of the fragments that are there.
    fragments: Vec<usize>,
    received: usize,
}

impl Hello {
    /// Takes a datagram. `Some` once it is known whether AEAD_AES_128_GCM is offered, or clear that
    /// it will not be known: then the client's order decides.
    pub(super) fn add(&mut self, datagram: &[u8]) -> Option<bool> {
        self.datagrams.push(datagram.to_vec());
        let complete = self.add_fragments(datagram);
        match complete {
            Some(true) => Some(offers_gcm(&self.body).unwrap_or(false)),
            Some(false) if self.datagrams.len() < MAX_DATAGRAMS => None,
            _ => Some(false),
        }
    }

    /// The datagrams in the order they came.
    pub(super) fn take(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(self).datagrams
    }

    /// Whether the message is complete; `None` if this is no ClientHello.
    fn add_fragments(&mut self, datagram: &[u8]) -> Option<bool> {
        let mut rest = datagram;
        while !rest.is_empty() {
            let header = rest.get(..RECORD_HEADER)?;
            let len = usize::from(u16::from_be_bytes([header[11], header[12]]));
            let (record, tail) = rest[RECORD_HEADER..].split_at_checked(len)?;
            if header[0] != RECORD_HANDSHAKE
                || header[3..5] != [0, 0]
                || *record.first()? != CLIENT_HELLO
            {
                return None;
            }
            let field =
                |at: usize| Some(usize::from(*record.get(at)?) << 16 | u16_at(record, at + 1)?);
            let (total, offset, fragment) = (field(1)?, field(6)?, field(9)?);
            let bytes = record.get(MESSAGE_HEADER..MESSAGE_HEADER + fragment)?;
            if total > MAX_LEN || offset + fragment > total {
                return None;
            }
            self.body.resize(total, 0);
            self.body[offset..offset + fragment].copy_from_slice(bytes);
            if !self.fragments.contains(&offset) {
                self.fragments.push(offset);
                self.received += fragment;
            }
            rest = tail;
        }
        Some(self.received >= self.body.len())
    }
}

/// Whether a whole ClientHello offers AEAD_AES_128_GCM in use_srtp (RFC 5764 §4.1.1).
fn offers_gcm(hello: &[u8]) -> Option<bool> {
    // Version and random.
    let mut at = 2 + 32;
    at += 1 + usize::from(*hello.get(at)?); // session id
    at += 1 + usize::from(*hello.get(at)?); // cookie
    at += 2 + u16_at(hello, at)?; // cipher suites
    at += 1 + usize::from(*hello.get(at)?); // compression methods
    at += 2;
    while at < hello.len() {
        let (kind, len) = (u16_at(hello, at)?, u16_at(hello, at + 2)?);
        if kind == USE_SRTP {
            let profiles = hello.get(at + 6..at + 6 + u16_at(hello, at + 4)?)?;
            return Some(profiles.chunks_exact(2).any(|p| p == AEAD_AES_128_GCM));
        }
        at += 4 + len;
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes(
        bytes.get(at..at + 2)?.try_into().ok()?,
    )))
}
