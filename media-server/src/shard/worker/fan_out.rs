//! From a publisher's batch to its ring and its viewers, on this shard and on the others, and keyframe
//! requests the other way. Called by the shard's turn; never waits.

use super::State;
use crate::shard::link::Parcel;
use crate::shard::table::{Index, Peer};
use crate::shard::{Event, LayerPin};
use media_core::cells::{Drop, KeyframeCause};
use media_core::layers::MAX_LAYERS;
use media_core::media::MediaBatch;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the size of all rings is looked at: in between they grow by a tenth of a second.
const CACHE_INTERVAL: Duration = Duration::from_millis(100);
/// While a batch goes out to many viewers, what was sealed is sent whenever there is so much of it: the
/// first viewers need not wait for the last, and the kernel copies what the cache still has.
const FLUSH_BYTES: usize = 64 * 1024;

impl State {
    /// Media of a session flows since then.
    pub(super) fn media_began(&mut self, index: Index, at: Instant) {
        let id = self.table.entry(index).map(|entry| entry.id);
        let event = id.map(|id| Event::MediaBegan { id, at });
        self.events.extend(event);
    }

    pub(super) fn request_keyframe(
        &mut self,
        now: Instant,
        device: &str,
        layer: u8,
        cause: KeyframeCause,
    ) {
        let Some(known) = self.devices.find(device) else {
            return;
        };
        if let Some(index) = known.publisher {
            if let Some(Peer::Publisher(publisher)) = self.table.entry(index).map(|e| &mut e.peer) {
                publisher.request_keyframe(now, layer, cause, &mut self.out);
                self.schedule(index);
            }
        } else if let Some(shard) = known.remote_publisher {
            // If it is lost, the viewer asks again within a second.
            let device = device.into();
            let parcel = Parcel::KeyframeWanted {
                device,
                layer,
                cause,
            };
            self.parcel(shard, parcel);
        }
    }

    /// Hands the media of each publisher to its viewers, here and on other shards.
    pub(super) fn fan_out_ready(&mut self, now: Instant) {
        while let Some(index) = self.ready.pop() {
            while let Some((batch, device)) = self.take_batch(index) {
                let Some(known) = self
                    .devices
                    .find(&device)
                    .filter(|d| d.publisher == Some(index))
                else {
                    continue;
                };
                let recorded = !known.taps.is_empty();
                for shard in known.subscribed() {
                    let parcel = Parcel::Media {
                        device: device.clone(),
                        batch: batch.clone(),
                    };
                    self.parcel(shard, parcel);
                }
                if recorded {
                    self.record(now, &device, &batch);
                }
                self.forward(now, &device, &batch);
            }
        }
    }

    fn take_batch(&mut self, index: Index) -> Option<(Arc<MediaBatch>, Arc<str>)> {
        let entry = self.table.entry(index)?;
        let Peer::Publisher(publisher) = &mut entry.peer else {
            return None;
        };
        let filled = publisher.has_batch();
        filled.then(|| (Arc::new(publisher.take_batch()), entry.device.clone()))
    }

    pub(super) fn parcel(&self, shard: u8, parcel: Parcel) {
        let link = self.worker.links.get(usize::from(shard));
        if !link.is_some_and(|link| link.send(parcel)) {
            self.out.drop(Drop::RingFull);
        }
    }

    /// Keeps a batch and sends it to the viewers here.
    pub(super) fn forward(&mut self, now: Instant, device: &str, batch: &Arc<MediaBatch>) {
        let known = self.devices.find(device);
        if !known.is_some_and(|known| known.takes_media()) {
            return;
        }
        self.take_layers(now, device, batch);
        let Some(known) = self.devices.find(device) else {
            return;
        };
        known.keep(now, batch);
        let share = known.bandwidth.is_due(now);
        let room = batch.max_sent_bytes();
        let rings = std::mem::take(&mut known.rings);
        let viewers = std::mem::take(&mut known.viewers);
        // Layers, one bit each: those that a keyframe is wanted of, and those in use.
        let (mut wanted, mut used) = (0, 0);
        for index in &viewers {
            if self.out.slab.room() < room || self.out.slab.bytes().len() >= FLUSH_BYTES {
                self.flush();
            }
            let Some(entry) = self.table.entry(*index) else {
                continue;
            };
            if let Peer::Viewer(viewer) = &mut entry.peer {
                if viewer.forward(now, batch, &rings, &mut self.out) {
                    wanted |= 1 << viewer.target_layer();
                }
                used |= 1 << viewer.layer() | 1 << viewer.target_layer();
                if viewer.is_behind() {
                    self.schedule(*index);
                }
            }
        }
        if let Some(known) = self.devices.find(device) {
            known.viewers = viewers;
            known.rings = rings;
            known.use_layers(now, used);
        }
        self.request_keyframes(now, device, wanted, KeyframeCause::Start);
        if share {
            self.share_bandwidth(now, device);
        }
    }

    fn request_keyframes(&mut self, now: Instant, device: &str, layers: u8, cause: KeyframeCause) {
        for layer in (0..MAX_LAYERS as u8).filter(|layer| layers & 1 << layer != 0) {
            self.request_keyframe(now, device, layer, cause);
        }
    }

    /// Tells the viewers here if the publisher's layers changed.
    fn take_layers(&mut self, now: Instant, device: &str, batch: &MediaBatch) {
        let Some(known) = self.devices.find(device) else {
            return;
        };
        let same = match (&known.layers, batch.layers()) {
            (Some(known), Some(new)) => Arc::ptr_eq(known, new),
            (known, new) => known.is_none() && new.is_none(),
        };
        if same {
            return;
        }
        known.layers = batch.layers().cloned();
        let (mut wanted, mut used) = (0, 0);
        for index in known.viewers.clone() {
            if let Some(Peer::Viewer(viewer)) = self.table.entry(index).map(|e| &mut e.peer) {
                let before = viewer.target_layer();
                viewer.set_layers(batch.layers());
                used |= 1 << viewer.target_layer();
                if viewer.target_layer() != before && viewer.wants_keyframe() {
                    wanted |= 1 << viewer.target_layer();
                }
            }
        }
        if let Some(known) = self.devices.find(device) {
            known.use_layers(now, used);
        }
        self.request_keyframes(now, device, wanted, KeyframeCause::Layer);
    }

    /// A viewer asks for a layer, or leaves the choice to the server again.
    pub(super) fn pin_layer(&mut self, now: Instant, index: Index, pin: LayerPin) {
        let Some(entry) = self.table.entry(index) else {
            return;
        };
        let device = entry.device.clone();
        let Peer::Viewer(viewer) = &mut entry.peer else {
            return;
        };
        viewer.pin_layer(pin.rid, pin.max_temporal);
        let (target, wanted) = (viewer.target_layer(), viewer.wants_keyframe());
        if let Some(known) = self.devices.find(&device) {
            known.use_layers(now, 1 << target);
        }
        if wanted {
            self.request_keyframe(now, &device, target, KeyframeCause::Layer);
        }
    }

    /// Fills the rings of a device that is published on another shard, for the viewers who came first.
    pub(super) fn keep_all(&mut self, now: Instant, device: &str, batches: &[Arc<MediaBatch>]) {
        let Some(known) = self.devices.find(device).filter(|d| d.takes_media()) else {
            return;
        };
        // What came by itself meanwhile is newer.
        if known.rings.iter().all(|ring| ring.source().is_none()) {
            for batch in batches {
                self.take_layers(now, device, batch);
                if let Some(known) = self.devices.find(device) {
                    known.keep(now, batch);
                }
            }
        }
        let viewers = self.devices.find(device).map(|known| known.viewers.clone());
        for index in viewers.unwrap_or_default() {
            self.join(now, index);
        }
    }

    /// A viewer starts from the ring, or its publisher is asked.
    pub(super) fn keyframe_wanted(&mut self, now: Instant, index: Index, cause: KeyframeCause) {
        let Some(entry) = self.table.entry(index) else {
            return;
        };
        let device = entry.device.clone();
        let (starts, layer) = match &entry.peer {
            Peer::Viewer(viewer) => (viewer.wants_keyframe(), viewer.layer()),
            // Its path has moved, and with it all layers.
            Peer::Publisher(_) => return self.request_keyframes(now, &device, u8::MAX, cause),
        };
        // One that was sent a picture asks because it can't go on from what it has, or has none yet.
        if !starts {
            if !self.serve_again(now, index, cause) {
                self.request_keyframe(now, &device, layer, cause);
            }
        } else if let Some(target) = self.join(now, index) {
            self.request_keyframe(now, &device, target, cause);
        }
    }

    /// Sends a viewer the cached keyframe once more, if that is what it lacks; returns whether the device
    /// need not be asked.
    fn serve_again(&mut self, now: Instant, index: Index, cause: KeyframeCause) -> bool {
        let Some(entry) = self.table.entry(index) else {
            return false;
        };
        let (Peer::Viewer(viewer), Some(known)) =
            (&mut entry.peer, self.devices.find(&entry.device))
        else {
            return false;
        };
        let served = match cause {
            KeyframeCause::Lost => viewer.begin_again(now, &known.rings, &mut self.out),
            KeyframeCause::Moved => viewer.go_on(now, &known.rings, &mut self.out),
            _ => false,
        };
        self.schedule(index);
        served
    }

    /// Lets a viewer that needs a keyframe start from the ring. Returns the layer that it needs a new
    /// one of, if it does.
    pub(super) fn join(&mut self, now: Instant, index: Index) -> Option<u8> {
        let entry = self.table.entry(index)?;
        let Peer::Viewer(viewer) = &mut entry.peer else {
            return None;
        };
        let wanted = match self.devices.find(&entry.device) {
            Some(known) => {
                viewer.set_layers(known.layers.as_ref());
                let wanted = viewer.join(now, &known.rings, &mut self.out);
                known.use_layers(now, 1 << viewer.target_layer());
                wanted
            }
            None => viewer.wants_keyframe(),
        };
        let target = viewer.target_layer();
        self.schedule(index);
        wanted.then_some(target)
    }

    /// Sends a viewer what it asked for again, and its next share if it is behind.
    pub(super) fn send_from_ring(&mut self, now: Instant, index: Index) {
        let lost = std::mem::take(&mut self.out.lost);
        if let Some(entry) = self.table.entry(index)
            && let Peer::Viewer(viewer) = &mut entry.peer
            && (viewer.is_behind() || !lost.is_empty())
        {
            let known = self.devices.find(&entry.device);
            let rings = known.map_or(&[][..], |known| &known.rings[..]);
            viewer.retransmit(now, &lost, rings, &mut self.out);
            viewer.catch_up(now, rings, &mut self.out);
        }
        self.out.lost = lost;
        self.out.lost.clear();
    }

    /// Looks now and then whether all rings together hold too much.
    pub(super) fn bound_cache(&mut self, now: Instant) {
        if now < self.cache_looked_at + CACHE_INTERVAL {
            return;
        }
        self.cache_looked_at = now;
        let most = self.worker.cache_bytes;
        if self.devices.cached_bytes() > most {
            // To a little less, so that it is not needed again at once.
            for _ in 0..self.devices.shrink(most - most / 8) {
                self.worker.cells.count_cache_shrink();
            }
        }
        let held = self.devices.cached_bytes() as u64;
        self.worker.cells.set_cache_bytes(held);
    }
}
