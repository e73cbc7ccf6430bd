//! Which pictures a viewer does without: those of temporal layers above the one it should get. Pure
//! bookkeeping; the track closes the numbers up.

use crate::media::MediaPacket;

/// Lower takes effect with the next picture. Higher does where a picture says that the viewer has all
/// it needs (RFC 7741 §4.2, Y; RFC 9628 §4.2, U), one id after the other, or with a keyframe.
#[derive(Debug)]
pub(super) struct Thinning {
    /// The highest temporal id that the viewer should get.
    wanted: u8,
    /// The highest that it gets now.
    current: u8,
    /// Timestamp of the newest picture, and of the newest that was left out.
    picture: Option<u32>,
    left_out: Option<u32>,
}

impl Default for Thinning {
    fn default() -> Self {
        Thinning {
            wanted: u8::MAX,
            current: u8::MAX,
            picture: None,
            left_out: None,
        }
    }
}

impl Thinning {
    /// `None` is no limit.
    pub(super) fn limit(&mut self, highest: Option<u8>) {
        self.wanted = highest.unwrap_or(u8::MAX);
    }

    /// Whether the viewer does without a packet, which is newer than all before it.
    pub(super) fn leaves_out(&mut self, packet: &MediaPacket) -> bool {
        let temporal = packet.numbering.temporal;
        if self.picture.replace(packet.timestamp) != Some(packet.timestamp) {
            let next = temporal.sync && u16::from(temporal.id) == u16::from(self.current) + 1;
            if self.wanted <= self.current || packet.starts_keyframe {
                self.current = self.wanted;
            } else if next {
                self.current = temporal.id;
            }
        }
        // What a viewer begins with it gets in any case.
        temporal.id > self.current && !packet.starts_keyframe
    }

    /// Whether no packet of the same picture was left out before. Asked for each that is.
    pub(super) fn is_first_of_picture(&mut self, packet: &MediaPacket) -> bool {
        self.left_out.replace(packet.timestamp) != Some(packet.timestamp)
    }
}
