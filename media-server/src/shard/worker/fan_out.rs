//! From a publisher's batch to its ring and its viewers, on this shard and on the others, and keyframe
//! requests the other way. Called by the shard's turn; never waits.

use super::State;
use crate::shard::link::Parcel;
use crate::shard::table::{Index, Peer};
use media_core::cells::Drop;
use media_core::media::MediaBatch;
use media_core::ring::Ring;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the size of all rings is looked at: in between they grow by a tenth of a second.
const CACHE_INTERVAL: Duration = Duration::from_millis(100);

impl State {
    pub(super) fn request_keyframe(&mut self, now: Instant, device: &str) {
        let Some(known) = self.devices.find(device) else {
            return;
        };
        if let Some(index) = known.publisher {
            if let Some(Peer::Publisher(publisher)) = self.table.entry(index).map(|e| &mut e.peer) {
                publisher.request_keyframe(now, &mut self.out);
                self.schedule(index);
            }
        } else if let Some(shard) = known.remote_publisher {
            // If it is lost, the viewer asks again within a second.
            let device = device.into();
            self.parcel(shard, Parcel::KeyframeWanted { device });
        }
    }

    /// Hands the media of each publisher to its viewers, here and on other shards.
    pub(super) fn fan_out_ready(&mut self, now: Instant) {
        while let Some(index) = self.ready.pop() {
            let Some(entry) = self.table.entry(index) else {
                continue;
            };
            let Peer::Publisher(publisher) = &mut entry.peer else {
                continue;
            };
            let (batch, device) = (Arc::new(publisher.take_batch()), entry.device.clone());
            let Some(known) = self
                .devices
                .find(&device)
                .filter(|d| d.publisher == Some(index))
            else {
                continue;
            };
            for shard in known.subscribed() {
                let parcel = Parcel::Media {
                    device: device.clone(),
                    batch: batch.clone(),
                };
                self.parcel(shard, parcel);
            }
            self.forward(now, &device, &batch);
        }
    }

    pub(super) fn parcel(&self, shard: u8, parcel: Parcel) {
        let link = self.worker.links.get(usize::from(shard));
        if !link.is_some_and(|link| link.send(parcel)) {
            self.out.drop(Drop::RingFull);
        }
    }

    /// Keeps a batch and sends it to the viewers here.
    pub(super) fn forward(&mut self, now: Instant, device: &str, batch: &Arc<MediaBatch>) {
        let Some(known) = self.devices.find(device) else {
            return;
        };
        known.keep(now, batch);
        let room = batch.max_sent_bytes();
        let ring = std::mem::take(&mut known.ring);
        let viewers = std::mem::take(&mut known.viewers);
        let mut wanted = false;
        for index in &viewers {
            if self.out.slab.room() < room {
                self.flush();
            }
            let Some(entry) = self.table.entry(*index) else {
                continue;
            };
            if let Peer::Viewer(viewer) = &mut entry.peer {
                wanted |= viewer.forward(now, batch, &ring, &mut self.out);
                if viewer.is_behind() {
                    self.schedule(*index);
                }
            }
        }
        if let Some(known) = self.devices.find(device) {
            known.viewers = viewers;
            known.ring = ring;
        }
        if wanted {
            self.request_keyframe(now, device);
        }
        self.bound_cache(now);
    }

    /// Fills the ring of a device that is published on another shard, for the viewers who came first.
    pub(super) fn keep_all(&mut self, now: Instant, device: &str, batches: &[Arc<MediaBatch>]) {
        let Some(known) = self.devices.find(device) else {
            return;
        };
        // What came by itself meanwhile is newer.
        if known.ring.source().is_none() {
            batches.iter().for_each(|batch| known.keep(now, batch));
        }
        for index in known.viewers.clone() {
            self.join(now, index);
        }
    }

    /// A viewer starts from the ring, or its publisher is asked.
    pub(super) fn keyframe_wanted(&mut self, now: Instant, index: Index) {
        let Some(entry) = self.table.entry(index) else {
            return;
        };
        let device = entry.device.clone();
        let starts = match &entry.peer {
            Peer::Viewer(viewer) => viewer.wants_keyframe(),
            Peer::Publisher(_) => false,
        };
        // One that has a picture asks because it can't go on from what it has.
        if !starts || self.join(now, index) {
            self.request_keyframe(now, &device);
        }
    }

    /// Lets a viewer that needs a keyframe start from the ring. Returns whether it needs a new one.
    pub(super) fn join(&mut self, now: Instant, index: Index) -> bool {
        let Some(entry) = self.table.entry(index) else {
            return false;
        };
        let Peer::Viewer(viewer) = &mut entry.peer else {
            return false;
        };
        let wanted = match self.devices.find(&entry.device) {
            Some(known) => viewer.join(now, &known.ring, &mut self.out),
            None => viewer.wants_keyframe(),
        };
        self.schedule(index);
        wanted
    }

    /// Sends a viewer what it asked for again, and its next share if it is behind.
    pub(super) fn send_from_ring(&mut self, now: Instant, index: Index) {
        let lost = std::mem::take(&mut self.out.lost);
        if let Some(entry) = self.table.entry(index)
            && let Peer::Viewer(viewer) = &mut entry.peer
            && (viewer.is_behind() || !lost.is_empty())
        {
            let none = Ring::default();
            let known = self.devices.find(&entry.device);
            let ring = known.map_or(&none, |known| &known.ring);
            viewer.retransmit(&lost, ring, &mut self.out);
            viewer.catch_up(now, ring, &mut self.out);
        }
        self.out.lost = lost;
        self.out.lost.clear();
    }

    /// Looks now and then whether all rings together hold too much.
    fn bound_cache(&mut self, now: Instant) {
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
