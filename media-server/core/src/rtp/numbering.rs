//! What a video payload says of its place in the stream: temporal layer and picture numbers.
//!
//! Read once for each packet of a publisher. Written back, moved, into the copies for viewers: a
//! decoder wants numbers that go on when the viewer is switched to another layer.

use crate::negotiated::Codec;

/// The temporal layer of a packet's picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Temporal {
    /// Pictures need none of a higher id; 0 is the base.
    pub id: u8,
    /// It needs only pictures of the base, so that a viewer can take this id up here.
    pub sync: bool,
}

/// Numbers of a picture. All wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Numbers {
    /// PictureID of VP8.
    pub picture: u16,
    /// TL0PICIDX of VP8: counts pictures of the base layer.
    pub base: u8,
    /// Frame number of the dependency descriptor.
    pub frame: u16,
}

/// Temporal layer and numbers of a packet, and where its payload has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Numbering {
    pub temporal: Temporal,
    pub numbers: Numbers,
    /// Offsets in the payload; 0 if it has none.
    picture_at: u8,
    base_at: u8,
    /// The PictureID has 15 bits, not 7.
    wide: bool,
}

impl Numbering {
    /// Reads a payload, which may be cut anywhere, and its dependency descriptor, which may be empty.
    pub fn read(codec: &Codec, payload: &[u8], descriptor: &[u8]) -> Numbering {
        let read = match codec {
            Codec::Vp8 => vp8(payload),
            Codec::Vp9 { .. } => vp9(payload),
            Codec::H264 { .. } => h264(payload),
            Codec::Av1 { .. } | Codec::Opus | Codec::Red => None,
        };
        let mut numbering = read.unwrap_or_default();
        if let Some(frame) = frame_number(descriptor) {
            numbering.numbers.frame = frame;
        }
        numbering
    }

    /// Moves the picture numbers in a copy of the payload.
    pub fn shift(&self, by: &Numbers, payload: &mut [u8]) {
        if *by == Numbers::default() {
            return;
        }
        let at = usize::from(self.picture_at);
        if at > 0
            && let Some(field) = payload.get_mut(at..)
        {
            let picture = self.numbers.picture.wrapping_add(by.picture);
            match field {
                [high, low, ..] if self.wide => {
                    [*high, *low] = (0x8000 | picture).to_be_bytes();
                }
                [only, ..] => *only = picture as u8 & 0x7f,
                [] => {}
            }
        }
        if self.base_at > 0
            && let Some(field) = payload.get_mut(usize::from(self.base_at))
        {
            *field = self.numbers.base.wrapping_add(by.base);
        }
    }
}

impl Numbers {
    pub(crate) fn moved(self, by: Numbers) -> Numbers {
        Numbers {
            picture: self.picture.wrapping_add(by.picture),
            base: self.base.wrapping_add(by.base),
            frame: self.frame.wrapping_add(by.frame),
        }
    }

    /// What makes `next` the picture after this one.
    pub(crate) fn distance_to_follow(self, next: Numbers) -> Numbers {
        Numbers {
            picture: self.picture.wrapping_add(1).wrapping_sub(next.picture),
            base: self.base.wrapping_add(1).wrapping_sub(next.base),
            frame: self.frame.wrapping_add(1).wrapping_sub(next.frame),
        }
    }
}

/// Moves the frame number of a dependency descriptor (AV1 RTP specification, A.8.2): its mandatory
/// fields are 8 bits of flags and template, and this number.
pub(super) fn shift_descriptor(by: u16, descriptor: &mut [u8]) {
    if by != 0
        && let Some(frame) = frame_number(descriptor)
    {
        descriptor[1..3].copy_from_slice(&frame.wrapping_add(by).to_be_bytes());
    }
}

fn frame_number(descriptor: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes([
        *descriptor.get(1)?,
        *descriptor.get(2)?,
    ]))
}

/// RFC 7741 §4.2.
fn vp8(payload: &[u8]) -> Option<Numbering> {
    let mut read = Numbering::default();
    if payload.first()? & 0x80 == 0 {
        return Some(read);
    }
    let fields = *payload.get(1)?;
    let mut at = 2;
    if fields & 0x80 != 0 {
        let first = *payload.get(at)?;
        read.picture_at = at as u8;
        read.wide = first & 0x80 != 0;
        read.numbers.picture = if read.wide {
            u16::from_be_bytes([first & 0x7f, *payload.get(at + 1)?])
        } else {
            u16::from(first)
        };
        at += if read.wide { 2 } else { 1 };
    }
    if fields & 0x40 != 0 {
        read.base_at = at as u8;
        read.numbers.base = *payload.get(at)?;
        at += 1;
    }
    if fields & 0x20 != 0 {
        let byte = payload.get(at)?;
        read.temporal = Temporal {
            id: byte >> 6,
            sync: byte & 0x20 != 0,
        };
    }
    Some(read)
}

/// RFC 9628 §4.2.
fn vp9(payload: &[u8]) -> Option<Numbering> {
    let first = *payload.first()?;
    let mut at = 1;
    if first & 0x80 != 0 {
        at += if payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
    }
    let mut read = Numbering::default();
    if first & 0x20 != 0 {
        let byte = payload.get(at)?;
        read.temporal = Temporal {
            id: byte >> 5,
            sync: byte & 0x10 != 0,
        };
    }
    Some(read)
}

/// RFC 6184 §5.3: no other picture needs a slice whose nal_ref_idc is 0. Units that are no slices,
/// such as SEI, have it too and stay.
fn h264(payload: &[u8]) -> Option<Numbering> {
    const STAP_A: u8 = 24;
    const FU_A: u8 = 28;
    let slice = |unit: u8| (1..=4).contains(&(unit & 0x1f));
    let disposable = |unit: u8| unit & 0x60 == 0;
    let first = *payload.first()?;
    let unneeded = disposable(first)
        && match first & 0x1f {
            // Its own nal_ref_idc is the highest of its units'.
            STAP_A => {
                let mut rest = &payload[1..];
                let mut any = false;
                while let [a, b, tail @ ..] = rest {
                    any |= slice(*tail.first()?);
                    rest = tail.get(usize::from(u16::from_be_bytes([*a, *b]))..)?;
                }
                any
            }
            FU_A => slice(*payload.get(1)?),
            _ => slice(first),
        };
    Some(Numbering {
        temporal: Temporal {
            id: u8::from(unneeded),
            sync: true,
        },
        ..Numbering::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const H264: Codec = Codec::H264 {
        packetization_mode: 1,
        profile_iop: 0x42e0,
    };

    fn temporal(codec: &Codec, payload: &[u8]) -> (u8, bool) {
        let read = Numbering::read(codec, payload, &[]).temporal;
        (read.id, read.sync)
    }

    #[test]
    fn vp8_numbers_of_both_widths_are_moved_and_nothing_else() {
        // X, then I, L, T and K; the TID is 2 with Y set.
        let wide = [0x90, 0xf0, 0xff, 0xfe, 0xff, 0xa1, 9];
        let read = Numbering::read(&Codec::Vp8, &wide, &[]);
        assert_eq!((read.numbers.picture, read.numbers.base), (0x7ffe, 0xff));
        assert_eq!((read.temporal.id, read.temporal.sync), (2, true));
        let by = Numbers {
            picture: 3,
            base: 2,
            frame: 0,
        };
        let mut copy = wide;
        read.shift(&by, &mut copy);
        assert_eq!(copy, [0x90, 0xf0, 0x80, 0x01, 0x01, 0xa1, 9]);
        let mut narrow = [0x90, 0xc0, 0x7f, 0x05, 9];
        Numbering::read(&Codec::Vp8, &narrow, &[]).shift(&by, &mut narrow);
        assert_eq!(narrow, [0x90, 0xc0, 0x02, 0x07, 9]);
        let mut plain = [0x10, 0x00, 1, 2];
        Numbering::read(&Codec::Vp8, &plain, &[]).shift(&by, &mut plain);
        assert_eq!(plain, [0x10, 0x00, 1, 2]);
    }

    #[test]
    fn the_frame_number_of_a_descriptor_is_moved() {
        let mut descriptor = [0xc3, 0xff, 0xff, 0x80, 7];
        let read = Numbering::read(&Codec::Av1 { profile: 0 }, &[0x10], &descriptor);
        assert_eq!(read.numbers.frame, 0xffff);
        shift_descriptor(2, &mut descriptor);
        assert_eq!(descriptor, [0xc3, 0x00, 0x01, 0x80, 7]);
        let mut cut = [0xc3, 0xff];
        shift_descriptor(2, &mut cut);
        assert_eq!(cut, [0xc3, 0xff]);
    }

    #[test]
    fn the_temporal_layer_is_read_of_vp9_and_of_h264() {
        let vp9 = Codec::Vp9 { profile: 0 };
        assert_eq!(temporal(&vp9, &[0xa8, 0x81, 0x02, 0x50]), (2, true));
        assert_eq!(temporal(&vp9, &[0xa8, 0x01, 0x40]), (2, false));
        assert_eq!(temporal(&vp9, &[0x88, 0x01]), (0, false));
        assert_eq!(temporal(&H264, &[0x01, 9]), (1, true));
        assert_eq!(temporal(&H264, &[0x41, 9]), (0, true));
        assert_eq!(temporal(&H264, &[0x06, 9]), (0, true), "SEI");
        assert_eq!(temporal(&H264, &[0x1c, 0x81, 9]), (1, true), "FU-A");
        assert_eq!(temporal(&H264, &[0x7c, 0x85, 9]), (0, true), "FU-A, IDR");
        let stap = [0x18, 0, 2, 0x06, 1, 0, 2, 0x01, 1];
        assert_eq!(temporal(&H264, &stap), (1, true));
        assert_eq!(temporal(&H264, &stap[..5]), (0, true), "SEI alone");
    }

    #[test]
    fn whatever_is_cut_is_read_no_further() {
        for len in 0..6 {
            let payload = &[0x90, 0xf0, 0x81, 0x02, 0x03, 0xe0][..len];
            for codec in [Codec::Vp8, Codec::Vp9 { profile: 0 }, H264, Codec::Opus] {
                let by = Numbers {
                    picture: 1,
                    base: 1,
                    frame: 1,
                };
                let mut copy = payload.to_vec();
                Numbering::read(&codec, payload, &[]).shift(&by, &mut copy);
                assert_eq!(copy.len(), len);
            }
        }
    }
}
