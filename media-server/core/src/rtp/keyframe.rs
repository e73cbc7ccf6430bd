//! Does a keyframe start in this payload? Asked for each video packet of a publisher.
//!
//! Reads the payload descriptors of the codecs only as far as the answer needs; payloads come from
//! the network and may be cut anywhere.

use crate::negotiated::Codec;

/// Whether decoding can start with this packet. Audio always can.
pub fn starts_keyframe(codec: &Codec, payload: &[u8]) -> bool {
    let answer = match codec {
        Codec::H264 { .. } => h264(payload),
        Codec::Vp8 => vp8(payload),
        Codec::Vp9 { .. } => vp9(payload),
        Codec::Av1 { .. } => av1(payload),
        Codec::Opus | Codec::Red => Some(true),
    };
    answer.unwrap_or(false)
}

/// RFC 6184 §5.2: a sequence parameter set or an IDR slice, alone, aggregated or as first fragment.
fn h264(payload: &[u8]) -> Option<bool> {
    const IDR: u8 = 5;
    const SPS: u8 = 7;
    const STAP_A: u8 = 24;
    const FU_A: u8 = 28;
    let starts = |nal: u8| matches!(nal & 0x1f, IDR | SPS);
    match payload.first()? & 0x1f {
        STAP_A => {
            let mut rest = &payload[1..];
            while !rest.is_empty() {
                let len = usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?]));
                if starts(*rest.get(2)?) {
                    return Some(true);
                }
                rest = rest.get(2 + len..)?;
            }
            Some(false)
        }
        FU_A => {
            let fragment = *payload.get(1)?;
            Some(fragment & 0x80 != 0 && starts(fragment))
        }
        _ => Some(starts(payload[0])),
    }
}

/// RFC 7741 §4.2, §4.3: first packet of the first partition, and the frame header's P bit is 0.
fn vp8(payload: &[u8]) -> Option<bool> {
    let first = *payload.first()?;
    let mut at = 1;
    if first & 0x80 != 0 {
        let fields = *payload.get(1)?;
        at = 2;
        if fields & 0x80 != 0 {
            at += if payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
        }
        at += usize::from(fields & 0x40 != 0);
        at += usize::from(fields & 0x30 != 0);
    }
    let partition_start = first & 0x10 != 0 && first & 0x0f == 0;
    Some(partition_start && payload.get(at)? & 0x01 == 0)
}

/// RFC 9628 §4.2: begin of a frame that is not inter-picture predicted, in the lowest layer.
fn vp9(payload: &[u8]) -> Option<bool> {
    let first = *payload.first()?;
    let (picture_id, predicted, layers, begin) = (
        first & 0x80 != 0,
        first & 0x40 != 0,
        first & 0x20 != 0,
        first & 0x08 != 0,
    );
    let mut at = 1;
    if picture_id {
        at += if payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
    }
    let spatial = if layers {
        payload.get(at)? >> 1 & 0x07
    } else {
        0
    };
    Some(begin && !predicted && spatial == 0)
}

/// AV1 RTP §4.4: the N bit marks the first packet of a coded video sequence.
fn av1(payload: &[u8]) -> Option<bool> {
    Some(payload.first()? & 0x08 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const H264: Codec = Codec::H264 {
        packetization_mode: 1,
        profile_iop: 0x42e0,
    };

    #[test]
    fn h264_keyframes_start_with_a_parameter_set_or_an_idr_slice() {
        assert!(starts_keyframe(&H264, &[0x67, 1, 2]));
        assert!(starts_keyframe(&H264, &[0x65, 1, 2]));
        assert!(starts_keyframe(
            &H264,
            &[0x78, 0, 2, 0x09, 0xf0, 0, 2, 0x67, 1]
        ));
        assert!(starts_keyframe(&H264, &[0x7c, 0x85, 1]));
        assert!(
            !starts_keyframe(&H264, &[0x7c, 0x05, 1]),
            "a later fragment"
        );
        assert!(!starts_keyframe(&H264, &[0x41, 1, 2]));
        assert!(!starts_keyframe(&H264, &[0x78, 0, 9, 0x09]), "cut");
    }

    #[test]
    fn vp8_keyframes_start_with_the_first_partition_of_an_intra_frame() {
        assert!(starts_keyframe(&Codec::Vp8, &[0x10, 0x00]));
        assert!(starts_keyframe(
            &Codec::Vp8,
            &[0x90, 0xf0, 0x81, 0x02, 0x03, 0x04, 0x00]
        ));
        assert!(!starts_keyframe(&Codec::Vp8, &[0x10, 0x01]));
        assert!(!starts_keyframe(&Codec::Vp8, &[0x00, 0x00]), "not a start");
        assert!(
            !starts_keyframe(&Codec::Vp8, &[0x11, 0x00]),
            "another partition"
        );
        assert!(!starts_keyframe(&Codec::Vp8, &[0x90, 0xf0, 0x81]), "cut");
    }

    #[test]
    fn vp9_keyframes_begin_in_the_lowest_layer_without_prediction() {
        let vp9 = Codec::Vp9 { profile: 0 };
        assert!(starts_keyframe(&vp9, &[0x88, 0x81, 0x02]));
        assert!(starts_keyframe(&vp9, &[0x28, 0x00, 0x00]));
        assert!(
            !starts_keyframe(&vp9, &[0x28, 0x02, 0x00]),
            "an upper layer"
        );
        assert!(!starts_keyframe(&vp9, &[0xc8, 0x01]));
        assert!(!starts_keyframe(&vp9, &[0x80, 0x01]));
    }

    #[test]
    fn av1_keyframes_begin_a_coded_video_sequence() {
        let av1 = Codec::Av1 { profile: 0 };
        assert!(starts_keyframe(&av1, &[0x18]));
        assert!(!starts_keyframe(&av1, &[0x10]));
        assert!(!starts_keyframe(&av1, &[]));
    }
}
