//! Which simulcast layer a viewer is on and which one it should be on. Pure bookkeeping, sends nothing.
//!
//! In this order: what the viewer asked for, what congestion control advises, the best one; of these
//! the first whose packets come. The viewer goes over at a keyframe of that layer and not before.

use crate::layers::Layers;
use crate::media::MediaPacket;
use crate::negotiated::Kind;
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Selection {
    /// Those of the publisher, if it has several.
    layers: Option<Arc<Layers>>,
    /// The RID that the viewer asked for. It outlives the publisher.
    pinned: Option<Box<str>>,
    /// What congestion control advises; of this publisher only.
    advised: Option<u8>,
    /// Whose packets go out.
    on: Option<u8>,
    target: u8,
}

impl Selection {
    /// Takes note of a publisher's layers.
    pub(super) fn set_layers(&mut self, layers: Option<&Arc<Layers>>) {
        let publisher = |layers: Option<&Arc<Layers>>| layers.map(|l| l.publisher);
        if publisher(layers) != publisher(self.layers.as_ref()) {
            (self.on, self.advised) = (None, None);
        }
        self.layers = layers.cloned();
        self.choose();
    }

    pub(super) fn layers(&self) -> Option<&Layers> {
        self.layers.as_deref()
    }

    /// Asks for a layer by its RID; `None` leaves the choice to the server.
    pub(super) fn pin(&mut self, rid: Option<Box<str>>) {
        self.pinned = rid;
        self.choose();
    }

    pub(super) fn advise(&mut self, layer: Option<u8>) {
        self.advised = layer;
        self.choose();
    }

    fn choose(&mut self) {
        let Some(layers) = &self.layers else {
            self.target = 0;
            return;
        };
        let pinned = self.pinned.as_deref().and_then(|rid| layers.find(rid));
        let chosen = [pinned, self.advised]
            .into_iter()
            .flatten()
            .find(|layer| layers.is_live(*layer));
        // When none is live the choice stays: it is as good as any.
        let best = || layers.best().unwrap_or(self.target);
        self.target = chosen.unwrap_or_else(best);
    }

    /// The layers, and the one that congestion control has the viewer on, unless that asked for one.
    pub(super) fn free(&self) -> Option<(&Layers, u8)> {
        let layers = self.layers.as_deref().filter(|_| self.pinned.is_none())?;
        Some((layers, self.target))
    }

    /// Whether there is no lesser layer that congestion control could go to, and none that it waits for.
    pub(super) fn is_least(&self) -> bool {
        let least = |(layers, layer): (&Layers, u8)| layers.ranked().last() == Some(&layer);
        !self.is_switching() && self.free().is_none_or(least)
    }

    /// Bits per second of what the viewer would take if there was room for anything.
    pub(super) fn wanted_rate(&self) -> Option<u64> {
        let (layers, _) = self.free()?;
        let best = layers.all.get(usize::from(layers.best()?))?;
        Some(best.bits_per_second)
    }

    pub(super) fn target(&self) -> u8 {
        self.target
    }

    /// The layer whose packets go out, or will.
    pub(super) fn on(&self) -> u8 {
        self.on.unwrap_or(self.target)
    }

    /// Whether packets go out while another layer is waited for.
    pub(super) fn is_switching(&self) -> bool {
        self.on.is_some_and(|on| on != self.target)
    }

    /// Whether the packet is of what goes out, or begins what should.
    pub(super) fn takes(&self, packet: &MediaPacket) -> bool {
        packet.kind == Kind::Audio
            || packet.layer == self.on()
            || packet.layer == self.target && packet.starts_keyframe
    }

    /// The viewer was sent a packet of this layer.
    pub(super) fn went_to(&mut self, layer: u8) {
        self.on = Some(layer);
    }
}
