//! RTP payloads of one picture → the picture, as containers take it.
//!
//! Payloads come from the network and may be cut anywhere: a picture that does not fit together is
//! an error, never a panic. The depacketizers of `rtc-rtp` are not used because theirs are, see
//! docs/decisions/0012.

use super::frame::Headers;
use media_core::negotiated::Codec;
use media_core::rtp::size::picture_size;

/// Largest picture. One of 4K at the highest rate has 2 MiB; what claims more is no picture.
const MAX_PICTURE: usize = 8 << 20;

/// The payload is not what its codec's RTP format says, or too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// A picture under way, and what earlier ones said of the stream.
pub struct Picture {
    codec: Codec,
    data: Vec<u8>,
    key: bool,
    /// H.264: where the length of the unit goes whose fragments are being added.
    fragmented: Option<usize>,
    /// AV1: what there is of the OBU whose fragments are being added.
    obu: Vec<u8>,
    size: Option<(u16, u16)>,
    headers: Headers,
}

impl Picture {
    pub fn new(codec: Codec) -> Picture {
        Picture {
            codec,
            data: Vec::new(),
            key: false,
            fragmented: None,
            obu: Vec::new(),
            size: None,
            headers: Headers::default(),
        }
    }

    pub fn codec(&self) -> &Codec {
        &self.codec
    }

    /// Width and height of the last keyframe that named them.
    pub fn size(&self) -> Option<(u16, u16)> {
        self.size
    }

    /// Whether the picture under way begins a keyframe.
    pub fn is_key(&self) -> bool {
        self.key
    }

    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Whether a file could begin with the pictures from here on.
    pub fn can_begin(&self) -> bool {
        let headers = match self.codec {
            Codec::H264 { .. } => {
                self.headers.sequence.len() >= 4 && !self.headers.picture.is_empty()
            }
            Codec::Av1 { .. } => !self.headers.obu.is_empty(),
            _ => true,
        };
        headers && self.size.is_some()
    }

    /// Adds the next payload of the picture.
    ///
    /// # Errors
    /// [`Malformed`]; the picture is of no use any more.
    pub fn push(&mut self, payload: &[u8], starts_keyframe: bool) -> Result<(), Malformed> {
        self.key |= starts_keyframe;
        if starts_keyframe && let Some(size) = picture_size(&self.codec, payload) {
            self.size = Some(size);
        }
        let pushed = match self.codec {
            Codec::Vp8 => self.append(payload, vp8_descriptor(payload)),
            Codec::Vp9 { .. } => self.append(payload, vp9_descriptor(payload)),
            Codec::H264 { .. } => self.push_h264(payload),
            Codec::Av1 { .. } => self.push_av1(payload),
            Codec::Opus | Codec::Red => None,
        };
        if self.data.len() + self.obu.len() > MAX_PICTURE {
            return Err(Malformed);
        }
        pushed.ok_or(Malformed)
    }

    /// The finished picture and whether it is a keyframe; nothing if no payload had any of it.
    ///
    /// # Errors
    /// [`Malformed`] if its end is missing.
    pub fn take(&mut self) -> Result<Option<(Vec<u8>, bool)>, Malformed> {
        let cut = self.fragmented.take().is_some() || !self.obu.is_empty();
        self.obu.clear();
        let key = std::mem::take(&mut self.key);
        let data = std::mem::take(&mut self.data);
        if cut {
            return Err(Malformed);
        }
        if key && let Codec::Av1 { .. } = self.codec {
            self.note_sequence_header(&data);
        }
        Ok((!data.is_empty()).then_some((data, key)))
    }

    /// Lets go of what there is of a picture whose rest will not come.
    pub fn drop_rest(&mut self) {
        self.data.clear();
        self.key = false;
        self.fragmented = None;
        self.obu.clear();
    }

    fn append(&mut self, payload: &[u8], descriptor: Option<usize>) -> Option<()> {
        self.data.extend_from_slice(payload.get(descriptor?..)?);
        Some(())
    }

    /// RFC 6184 §5.6 to §5.8, into units behind their length.
    fn push_h264(&mut self, payload: &[u8]) -> Option<()> {
        const STAP_A: u8 = 24;
        const FU_A: u8 = 28;
        const START: u8 = 0x80;
        const END: u8 = 0x40;
        match payload.first()? & 0x1f {
            1..=23 => self.push_unit(payload)?,
            STAP_A => {
                let mut rest = &payload[1..];
                while !rest.is_empty() {
                    let (len, tail) = rest.split_first_chunk::<2>()?;
                    let (unit, tail) =
                        tail.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
                    self.push_unit(unit)?;
                    rest = tail;
                }
            }
            FU_A => {
                let fragment = *payload.get(1)?;
                if fragment & START != 0 {
                    self.end_fragments(false)?;
                    self.fragmented = Some(self.data.len());
                    self.data.extend_from_slice(&[0; 4]);
                    self.data.push(payload[0] & 0xe0 | fragment & 0x1f);
                }
                self.fragmented?;
                self.data.extend_from_slice(&payload[2..]);
                if fragment & END != 0 {
                    self.end_fragments(true)?;
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn push_unit(&mut self, unit: &[u8]) -> Option<()> {
        const SPS: u8 = 7;
        const PPS: u8 = 8;
        const DELIMITER: u8 = 9;
        const FILLER: u8 = 12;
        self.end_fragments(false)?;
        match unit.first()? & 0x1f {
            DELIMITER | FILLER => return Some(()),
            SPS => {
                self.headers.sequence = unit.to_vec();
                self.size = picture_size(&self.codec, unit).or(self.size);
            }
            PPS => self.headers.picture = unit.to_vec(),
            _ => {}
        }
        let len = u32::try_from(unit.len()).ok()?;
        self.data.extend_from_slice(&len.to_be_bytes());
        self.data.extend_from_slice(unit);
        Some(())
    }

    /// Writes the length of a unit whose last fragment came; `None` if that is still missing.
    fn end_fragments(&mut self, last_came: bool) -> Option<()> {
        let Some(at) = self.fragmented.take() else {
            return Some(());
        };
        let len = u32::try_from(self.data.len() - at - 4).ok()?;
        self.data[at..at + 4].copy_from_slice(&len.to_be_bytes());
        last_came.then_some(())
    }

    /// AV1 RTP §4.4, into OBUs with their size.
    fn push_av1(&mut self, payload: &[u8]) -> Option<()> {
        const CONTINUES: u8 = 0x80;
        const UNFINISHED: u8 = 0x40;
        let (&aggregation, mut rest) = payload.split_first()?;
        let count = usize::from(aggregation >> 4 & 3);
        for index in 1.. {
            // The last of a known number has no length.
            let (element, tail) = if index == count {
                (rest, &[][..])
            } else {
                let (len, bytes) = leb128(rest)?;
                rest[bytes..].split_at_checked(len)?
            };
            rest = tail;
            let continues = index == 1 && aggregation & CONTINUES != 0;
            if continues == self.obu.is_empty() {
                return None;
            }
            self.obu.extend_from_slice(element);
            if !rest.is_empty() {
                self.end_obu()?;
                continue;
            }
            if aggregation & UNFINISHED == 0 {
                self.end_obu()?;
            }
            break;
        }
        Some(())
    }

    /// Adds the OBU that has come to its end (AV1 §5.3), unless a file has no use for it.
    fn end_obu(&mut self) -> Option<()> {
        const TEMPORAL_DELIMITER: u8 = 2;
        const TILE_LIST: u8 = 8;
        const PADDING: u8 = 15;
        const EXTENSION: u8 = 0x04;
        const HAS_SIZE: u8 = 0x02;
        let obu = std::mem::take(&mut self.obu);
        let first = *obu.first()?;
        if matches!(first >> 3 & 0x0f, TEMPORAL_DELIMITER | TILE_LIST | PADDING) {
            return Some(());
        }
        let header = if first & EXTENSION != 0 { 2 } else { 1 };
        let body = obu.get(header..)?;
        if first & HAS_SIZE != 0 {
            let (len, bytes) = leb128(body)?;
            self.data
                .extend_from_slice(obu.get(..header + bytes + len)?);
            return Some(());
        }
        self.data.push(first | HAS_SIZE);
        self.data.extend_from_slice(&obu[1..header]);
        let mut len = body.len();
        while len > 0x7f {
            self.data.push(len as u8 | 0x80);
            len >>= 7;
        }
        self.data.push(len as u8);
        self.data.extend_from_slice(body);
        Some(())
    }

    /// Finds the sequence header among the OBUs of a keyframe, all of which have a size (AV1 §5.3).
    fn note_sequence_header(&mut self, data: &[u8]) {
        const SEQUENCE_HEADER: u8 = 1;
        let mut rest = data;
        while let Some((obu, tail)) = split_obu(rest) {
            if obu[0] >> 3 & 0x0f == SEQUENCE_HEADER {
                self.headers.obu = obu.to_vec();
                return;
            }
            rest = tail;
        }
    }
}

/// The first OBU, with header and size, and what follows it.
fn split_obu(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let header = if data.first()? & 0x04 != 0 { 2 } else { 1 };
    let (len, bytes) = leb128(data.get(header..)?)?;
    data.split_at_checked(header + bytes + len)
}

/// A number and the bytes that it takes (AV1 §4.10.5).
pub fn leb128(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
    }
    None
}

/// Length of the descriptor in front of the bitstream (RFC 7741 §4.2).
fn vp8_descriptor(payload: &[u8]) -> Option<usize> {
    if payload.first()? & 0x80 == 0 {
        return Some(1);
    }
    let fields = *payload.get(1)?;
    let mut at = 2;
    if fields & 0x80 != 0 {
        at += if payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
    }
    at += usize::from(fields & 0x40 != 0) + usize::from(fields & 0x30 != 0);
    Some(at)
}

/// Length of the descriptor in front of the bitstream (RFC 9628 §4.2).
fn vp9_descriptor(payload: &[u8]) -> Option<usize> {
    let first = *payload.first()?;
    let (picture_id, predicted, layers, flexible, structure) = (
        first & 0x80 != 0,
        first & 0x40 != 0,
        first & 0x20 != 0,
        first & 0x10 != 0,
        first & 0x02 != 0,
    );
    let mut at = 1;
    if picture_id {
        at += if payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
    }
    if layers {
        at += if flexible { 1 } else { 2 };
    }
    if flexible && predicted {
        let mut more = true;
        while more {
            more = payload.get(at)? & 1 != 0;
            at += 1;
        }
    }
    if structure {
        let bits = *payload.get(at)?;
        at += 1;
        if bits & 0x10 != 0 {
            at += 4 * (usize::from(bits >> 5) + 1);
        }
        if bits & 0x08 != 0 {
            let pictures = *payload.get(at)?;
            at += 1;
            for _ in 0..pictures {
                at += 1 + usize::from(*payload.get(at)? >> 2 & 3);
            }
        }
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const H264: Codec = Codec::H264 {
        packetization_mode: 1,
        profile_iop: 0x42e0,
    };

    fn picture(codec: Codec, payloads: &[&[u8]]) -> Result<Option<(Vec<u8>, bool)>, Malformed> {
        let mut picture = Picture::new(codec);
        for payload in payloads {
            picture.push(payload, false)?;
        }
        picture.take()
    }

    #[test]
    fn h264_units_come_behind_their_length_alone_aggregated_or_in_fragments() {
        let taken = picture(
            H264,
            &[
                &[0x78, 0, 2, 0x09, 0xf0, 0, 3, 0x67, 1, 2],
                &[0x68, 9],
                &[0x7c, 0x85, 1, 2],
                &[0x7c, 0x05, 3],
                &[0x7c, 0x45, 4],
            ],
        );
        let expected = [
            &[0, 0, 0, 3, 0x67, 1, 2][..],
            &[0, 0, 0, 2, 0x68, 9],
            &[0, 0, 0, 5, 0x65, 1, 2, 3, 4],
        ];
        assert_eq!(taken, Ok(Some((expected.concat(), false))), "no delimiter");
    }

    #[test]
    fn a_unit_without_its_first_or_last_fragment_is_no_picture() {
        assert_eq!(picture(H264, &[&[0x7c, 0x05, 3]]), Err(Malformed));
        assert_eq!(picture(H264, &[&[0x7c, 0x85, 3]]), Err(Malformed));
        assert_eq!(
            picture(H264, &[&[0x7c, 0x85, 3], &[0x41, 1]]),
            Err(Malformed)
        );
    }

    #[test]
    fn descriptors_of_vp8_and_vp9_are_left_out() {
        let vp8 = picture(
            Codec::Vp8,
            &[&[0x90, 0xf0, 0x81, 0x02, 0x03, 0x04, 7, 8], &[0x00, 9]],
        );
        assert_eq!(vp8, Ok(Some((vec![7, 8, 9], false))));
        // Flexible mode with two references, then a scalability structure of one layer.
        let vp9 = picture(
            Codec::Vp9 { profile: 0 },
            &[
                &[0xd8, 0x81, 0x02, 0x03, 0x04, 7],
                &[0x8a, 0x01, 0x18, 2, 128, 1, 104, 1, 0x04, 1, 8],
            ],
        );
        assert_eq!(vp9, Ok(Some((vec![7, 8], false))));
    }

    #[test]
    fn the_sequence_header_of_av1_is_kept() {
        let mut picture = Picture::new(Codec::Av1 { profile: 0 });
        // One sequence header and one frame, both without a size of their own.
        picture
            .push(&[0x28, 3, 0x08, 5, 6, 0x30, 1, 2], true)
            .expect("well-formed");
        let taken = picture.take();
        assert_eq!(taken, Ok(Some((vec![0x0a, 2, 5, 6, 0x32, 2, 1, 2], true))));
        assert_eq!(picture.headers().obu, [0x0a, 2, 5, 6]);
    }

    #[test]
    fn an_obu_of_av1_is_put_together_from_its_fragments() {
        let av1 = Codec::Av1 { profile: 0 };
        // A delimiter and the start of a frame, its middle, its end and a tile group with a size.
        let parts: [&[u8]; 3] = [
            &[0x60, 1, 0x10, 0x30, 1, 2],
            &[0xd0, 3],
            &[0xa0, 1, 4, 0x22, 1, 9],
        ];
        let whole = vec![0x32, 4, 1, 2, 3, 4, 0x22, 1, 9];
        assert_eq!(picture(av1.clone(), &parts), Ok(Some((whole, false))));
        assert_eq!(picture(av1.clone(), &parts[..2]), Err(Malformed));
        assert_eq!(picture(av1.clone(), &parts[1..]), Err(Malformed));
        // Whole in themselves, but for what they say of each other.
        let rest: &[u8] = &[0x90, 0x30, 1, 2];
        assert_eq!(picture(av1.clone(), &[rest]), Err(Malformed));
        let (begun, other): (&[u8], &[u8]) = (&[0x50, 0x30, 1], &[0x10, 0x30, 2]);
        assert_eq!(picture(av1, &[begun, other]), Err(Malformed));
    }

    #[test]
    fn no_cut_or_random_payload_panics() {
        let mut state = 1u64;
        let codecs = [
            Codec::Vp8,
            Codec::Vp9 { profile: 0 },
            Codec::Av1 { profile: 0 },
            H264,
        ];
        let mut pictures = codecs.map(Picture::new);
        for round in 0..20_000usize {
            let payload: Vec<u8> = (0..round % 24)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    (state >> 33) as u8
                })
                .collect();
            for picture in &mut pictures {
                if picture.push(&payload, round % 3 == 0).is_err() {
                    picture.drop_rest();
                }
                if round % 5 == 0 {
                    let _ = picture.take();
                }
            }
        }
    }
}
