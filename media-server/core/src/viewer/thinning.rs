//! Which pictures a viewer does without: those of temporal layers above the one it should get. Pure
//! bookkeeping; the track closes the numbers up.

use crate::cells::Drop;
use crate::media::MediaPacket;

/// Lower takes effect with the next picture. Higher does where a picture says that the viewer has all
/// it needs (RFC 7741 §4.2, Y; RFC 9628 §4.2, U, which Chromium sets on pictures that build on the base
/// alone), one id after the other, or with a keyframe.
#[derive(Debug)]
pub(super) struct Thinning {
    /// The highest temporal id that the viewer asked for, and the highest that there is room for.
    asked: u8,
    room: u8,
    /// The highest that it gets now, and whether that is for want of room.
    current: u8,
    congested: bool,
    /// Something was left out only because it can't be decoded yet.
    waits: bool,
    /// Timestamp of the newest picture, and of the newest that was left out.
    picture: Option<u32>,
    left_out: Option<u32>,
}

impl Default for Thinning {
    fn default() -> Self {
        Thinning {
            asked: u8::MAX,
            room: u8::MAX,
            current: u8::MAX,
            congested: false,
            waits: false,
            picture: None,
            left_out: None,
        }
    }
}

impl Thinning {
    /// What the viewer asks for; `None` is no limit.
    pub(super) fn limit(&mut self, highest: Option<u8>) {
        self.asked = highest.unwrap_or(u8::MAX);
    }

    /// The highest that the viewer asked for.
    pub(super) fn asked(&self) -> u8 {
        self.asked
    }

    /// What there is room for; `None` is no limit.
    pub(super) fn advise(&mut self, highest: Option<u8>) {
        self.room = highest.unwrap_or(u8::MAX);
    }

    /// Whether pictures that the viewer should get wait for one to begin with.
    pub(super) fn waits(&self) -> bool {
        self.waits
    }

    /// Whether the viewer does without a packet, which is newer than all before it.
    pub(super) fn leaves_out(&mut self, packet: &MediaPacket) -> bool {
        let temporal = packet.numbering.temporal;
        if self.picture.replace(packet.timestamp) != Some(packet.timestamp) {
            let wanted = self.asked.min(self.room);
            let next = temporal.sync && u16::from(temporal.id) == u16::from(self.current) + 1;
            if wanted <= self.current || packet.starts_keyframe {
                self.congested = self.room < self.asked;
                self.current = wanted;
                self.waits = false;
            } else if next {
                self.current = temporal.id;
                self.waits = false;
            }
            self.waits |= temporal.id > self.current && temporal.id <= wanted;
        }
        // What a viewer begins with it gets in any case.
        temporal.id > self.current && !packet.starts_keyframe
    }

    /// Why it does without; nothing to count if that is what it asked for.
    pub(super) fn reason(&self) -> Option<Drop> {
        self.congested.then_some(Drop::Congestion)
    }

    /// Whether no packet of the same picture was left out before. Asked for each that is.
    pub(super) fn is_first_of_picture(&mut self, packet: &MediaPacket) -> bool {
        self.left_out.replace(packet.timestamp) != Some(packet.timestamp)
    }
}
