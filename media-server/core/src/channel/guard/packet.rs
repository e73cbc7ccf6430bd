//! SCTP packets (RFC 9260 §3): their chunks, their checksum, and packets that some chunks are taken out of.
//!
//! Pure. Called by `guard`.

use super::SACK;
use bytes::Bytes;

pub(super) const COMMON_HEADER: usize = 12;
pub(super) const CHUNK_HEADER: usize = 4;

/// What is left of a packet.
pub(super) struct Left<'a> {
    packet: &'a [u8],
    /// The packet as it is to be, if that differs.
    chunks: Vec<u8>,
    differs: bool,
}

impl<'a> Left<'a> {
    pub(super) fn of(packet: &'a [u8]) -> Left<'a> {
        Left {
            packet,
            chunks: Vec::new(),
            differs: false,
        }
    }

    pub(super) fn push(&mut self, kind: u8, flags: u8, value: &[u8]) {
        self.chunks.extend([kind, flags]);
        let len = (CHUNK_HEADER + value.len()) as u16;
        self.chunks.extend(len.to_be_bytes());
        self.chunks.extend(value);
        self.chunks.resize(self.chunks.len().next_multiple_of(4), 0);
    }

    pub(super) fn replace(&mut self, kind: u8, value: &[u8]) {
        self.push(kind, 0, value);
        self.differs = true;
    }

    pub(super) fn leave_out(&mut self) {
        self.differs = true;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub(super) fn finish(self) -> Option<Bytes> {
        self.differs.then(|| {
            let mut packet = self.packet[..COMMON_HEADER].to_vec();
            packet.extend(self.chunks);
            seal(&mut packet);
            packet.into()
        })
    }
}

/// Writes the checksum of a packet.
pub(super) fn seal(packet: &mut [u8]) {
    packet[8..COMMON_HEADER].fill(0);
    let checksum = crc32c::crc32c(packet).to_le_bytes();
    packet[8..COMMON_HEADER].copy_from_slice(&checksum);
}

/// Whether a packet's checksum is right (RFC 9260 §6.8), its last chunk is padded, and all padding is zero.
pub(super) fn is_whole(packet: &[u8]) -> bool {
    let Some(checksum) = packet.get(8..COMMON_HEADER) else {
        return false;
    };
    let actual = crc32c::crc32c_append(crc32c::crc32c(&packet[..8]), &[0; 4]);
    let actual = crc32c::crc32c_append(actual, &packet[COMMON_HEADER..]);
    if !packet.len().is_multiple_of(4) || *checksum != actual.to_le_bytes() {
        return false;
    }
    let mut rest = &packet[COMMON_HEADER..];
    while let Some(header) = rest.first_chunk::<CHUNK_HEADER>() {
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let padding = rest.get(len..len.next_multiple_of(4));
        if len < CHUNK_HEADER || padding.is_none_or(|padding| padding.iter().any(|b| *b != 0)) {
            return false;
        }
        rest = &rest[len.next_multiple_of(4)..];
    }
    true
}

/// The sequence number that a packet of ours acknowledges, if it is a SACK.
pub(in super::super) fn acknowledges(packet: &[u8]) -> Option<u32> {
    let mut sacks = chunks(packet).flatten().filter(|chunk| chunk.0 == SACK);
    sacks.next().and_then(|(_, _, value)| word(value, 0))
}

/// The chunks of a packet, type, flags and value each; `None` ends it where one is cut short.
pub(super) fn chunks(packet: &[u8]) -> impl Iterator<Item = Option<(u8, u8, &[u8])>> {
    let mut rest = packet.get(COMMON_HEADER..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let chunk = rest.first_chunk::<CHUNK_HEADER>().and_then(|header| {
            let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
            let value = rest.get(CHUNK_HEADER..len)?;
            Some((header[0], header[1], value, len))
        });
        let Some((kind, flags, value, len)) = chunk else {
            rest = &[];
            return Some(None);
        };
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Some((kind, flags, value)))
    })
}

pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*word))
}
