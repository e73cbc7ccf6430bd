//! RTP headers: read the publisher's, write the viewer's (RFC 3550 §5.1, RFC 8285).
//!
//! Payloads are opaque here but for the question whether a keyframe starts, see `keyframe`.

pub mod keyframe;
pub mod numbering;
pub mod red;
pub mod size;

use crate::negotiated::Extensions;

pub const FIXED_HEADER: usize = 12;
/// Bytes that a viewer's header may grow to: a MID of 16, a dependency descriptor, and small ones.
pub const MAX_HEADER: usize = FIXED_HEADER + 4 + 384;
const ONE_BYTE: u16 = 0xbede;
const TWO_BYTE: u16 = 0x1000;

/// Whether a datagram with this second byte is RTCP (RFC 5761 §4).
pub fn is_rtcp(datagram: &[u8]) -> bool {
    datagram.get(1).is_some_and(|pt| (192..=223).contains(pt))
}

/// The parts of a header that forwarding needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub padding: bool,
    pub marker: bool,
    pub payload_type: u8,
    pub seq: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    /// Header with CSRCs and extension.
    pub len: usize,
    extensions: Option<(u16, usize, usize)>,
}

impl Header {
    /// Reads a header; `None` if it is cut short or of another version.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        if packet.len() < FIXED_HEADER || packet[0] >> 6 != 2 {
            return None;
        }
        let mut len = FIXED_HEADER + 4 * usize::from(packet[0] & 0x0f);
        let mut extensions = None;
        if packet[0] & 0x10 != 0 {
            let words = packet.get(len..len + 4)?;
            let profile = u16::from_be_bytes([words[0], words[1]]);
            let end = len + 4 + 4 * usize::from(u16::from_be_bytes([words[2], words[3]]));
            extensions = Some((profile, len + 4, end));
            len = end;
        }
        if len > packet.len() {
            return None;
        }
        Some(Header {
            padding: packet[0] & 0x20 != 0,
            marker: packet[1] & 0x80 != 0,
            payload_type: packet[1] & 0x7f,
            seq: u16::from_be_bytes([packet[2], packet[3]]),
            timestamp: u32::from_be_bytes(packet[4..8].try_into().ok()?),
            ssrc: u32::from_be_bytes(packet[8..12].try_into().ok()?),
            len,
            extensions,
        })
    }

    /// The transport-wide sequence number, under the id that was agreed on.
    pub fn transport_seq(&self, packet: &[u8], id: u8) -> Option<u16> {
        let (_, value) = self.extensions(packet).find(|(known, _)| *known == id)?;
        Some(u16::from_be_bytes(*value.first_chunk()?))
    }

    /// Header extensions as (id, value), of both the one-byte and the two-byte form.
    pub fn extensions<'a>(
        &self,
        packet: &'a [u8],
    ) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        let (two_byte, block) = match self.extensions {
            Some((ONE_BYTE, start, end)) => (false, &packet[start..end]),
            Some((profile, start, end)) if profile & 0xfff0 == TWO_BYTE => {
                (true, &packet[start..end])
            }
            _ => (false, &[][..]),
        };
        let mut rest = block;
        std::iter::from_fn(move || {
            loop {
                let (&first, tail) = rest.split_first()?;
                if first == 0 {
                    rest = tail;
                    continue;
                }
                let (id, len, value) = if two_byte {
                    let (&len, tail) = tail.split_first()?;
                    (first, usize::from(len), tail)
                } else if first >> 4 == 15 {
                    return None;
                } else {
                    (first >> 4, usize::from(first & 0x0f) + 1, tail)
                };
                let (value, tail) = value.split_at_checked(len)?;
                rest = tail;
                return Some((id, value));
            }
        })
    }
}

/// Extension values that go from a publisher to its viewers under the viewers' ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passed<'a> {
    pub mid: Option<&'a [u8]>,
    pub video_orientation: Option<u8>,
    pub audio_level: Option<u8>,
    pub dependency_descriptor: Option<&'a [u8]>,
    /// Added to the descriptor's frame number.
    pub frame_shift: u16,
    /// Our own, see `viewer::congestion`.
    pub transport_seq: Option<u16>,
}

/// Fields of a header to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing {
    pub padding: bool,
    pub marker: bool,
    pub payload_type: u8,
    pub seq: u16,
    pub timestamp: u32,
    pub ssrc: u32,
}

/// Writes a header with those extensions that the receiver negotiated; returns its length, or
/// `None` if `out` is too small.
pub fn write_header(
    out: &mut [u8],
    fields: &Outgoing,
    ids: &Extensions,
    passed: &Passed<'_>,
) -> Option<usize> {
    let small = |id: Option<u8>, value: Option<u8>| Some((id?, value?));
    let large = |id: Option<u8>, value: Option<&'_ [u8]>| id.is_some() && value.is_some();
    let orientation = small(ids.video_orientation, passed.video_orientation);
    let level = small(ids.audio_level, passed.audio_level);
    let transport_seq = passed.transport_seq.map(u16::to_be_bytes);
    let transport_seq = ids.transport_cc.zip(transport_seq.as_ref().map(|v| &v[..]));
    let any = orientation.is_some()
        || level.is_some()
        || transport_seq.is_some()
        || large(ids.mid, passed.mid)
        || large(ids.dependency_descriptor, passed.dependency_descriptor);
    let header = out.get_mut(..FIXED_HEADER)?;
    header[0] = 0x80 | u8::from(fields.padding) << 5 | u8::from(any) << 4;
    header[1] = u8::from(fields.marker) << 7 | fields.payload_type;
    header[2..4].copy_from_slice(&fields.seq.to_be_bytes());
    header[4..8].copy_from_slice(&fields.timestamp.to_be_bytes());
    header[8..12].copy_from_slice(&fields.ssrc.to_be_bytes());
    if !any {
        return Some(FIXED_HEADER);
    }
    let (orientation, level) = (
        orientation.map(|(id, v)| (id, [v])),
        level.map(|(id, v)| (id, [v])),
    );
    let elements = [
        ids.mid.zip(passed.mid),
        orientation.as_ref().map(|(id, v)| (*id, &v[..])),
        level.as_ref().map(|(id, v)| (*id, &v[..])),
        ids.dependency_descriptor.zip(passed.dependency_descriptor),
        transport_seq,
    ];
    let elements = || {
        elements
            .iter()
            .flatten()
            .filter(|(_, v)| !v.is_empty() && v.len() < 256)
    };
    let two_byte = elements().any(|(id, value)| *id > 14 || value.len() > 16);
    let mut at = FIXED_HEADER + 4;
    for (id, value) in elements() {
        if two_byte {
            out.get_mut(at..at + 2)?
                .copy_from_slice(&[*id, value.len() as u8]);
            at += 2;
        } else {
            *out.get_mut(at)? = id << 4 | (value.len() as u8 - 1);
            at += 1;
        }
        let copy = out.get_mut(at..at + value.len())?;
        copy.copy_from_slice(value);
        if Some(*id) == ids.dependency_descriptor {
            numbering::shift_descriptor(passed.frame_shift, copy);
        }
        at += value.len();
    }
    let end = at.next_multiple_of(4);
    out.get_mut(at..end)?.fill(0);
    let words = ((end - FIXED_HEADER - 4) / 4) as u16;
    let profile = if two_byte { TWO_BYTE } else { ONE_BYTE };
    out[FIXED_HEADER..FIXED_HEADER + 2].copy_from_slice(&profile.to_be_bytes());
    out[FIXED_HEADER + 2..FIXED_HEADER + 4].copy_from_slice(&words.to_be_bytes());
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: Outgoing = Outgoing {
        padding: false,
        marker: true,
        payload_type: 96,
        seq: 513,
        timestamp: 70_000,
        ssrc: 0xdead_beef,
    };

    fn ids() -> Extensions {
        Extensions {
            mid: Some(4),
            video_orientation: Some(3),
            audio_level: None,
            dependency_descriptor: Some(9),
            transport_cc: Some(2),
            ..Extensions::default()
        }
    }

    #[test]
    fn a_written_header_reads_back_in_both_extension_forms() {
        for descriptor in [&[1, 2, 3][..], &[7; 40][..]] {
            let passed = Passed {
                mid: Some(b"v0"),
                video_orientation: Some(1),
                audio_level: Some(99),
                dependency_descriptor: Some(descriptor),
                frame_shift: 0,
                transport_seq: Some(0x1234),
            };
            let mut packet = vec![0; 200];
            let len = write_header(&mut packet, &FIELDS, &ids(), &passed).expect("fits");
            let header = Header::parse(&packet).expect("well-formed");
            assert_eq!(
                (header.len, header.marker, header.payload_type),
                (len, true, 96)
            );
            assert_eq!(
                (header.seq, header.timestamp, header.ssrc),
                (513, 70_000, 0xdead_beef)
            );
            let read: Vec<_> = header.extensions(&packet).collect();
            assert_eq!(
                read,
                [
                    (4, &b"v0"[..]),
                    (3, &[1][..]),
                    (9, descriptor),
                    (2, &[0x12, 0x34][..])
                ]
            );
        }
    }

    #[test]
    fn without_anything_to_pass_there_is_no_extension() {
        let mut packet = [0; 12];
        assert_eq!(
            write_header(&mut packet, &FIELDS, &ids(), &Passed::default()),
            Some(12)
        );
        assert_eq!(
            write_header(&mut packet[..11], &FIELDS, &ids(), &Passed::default()),
            None
        );
    }

    #[test]
    fn cut_or_contradictory_headers_are_refused_without_panic() {
        let mut packet = vec![0x9f, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
        packet.resize(12 + 15 * 4, 0);
        packet.extend([0xbe, 0xde, 0, 2, 0x1f, 1, 2, 3, 4, 5, 6, 7]);
        assert!(Header::parse(&packet).is_some_and(|h| h.extensions(&packet).next().is_none()));
        for cut in 0..packet.len() {
            assert!(Header::parse(&packet[..cut]).is_none(), "cut at {cut}");
        }
    }
}
