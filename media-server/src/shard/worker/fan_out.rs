//! From a publisher's batch to its viewers, on this shard and on the others, and key frame requests
//! the other way. Called by the shard's turn; never waits.

use super::State;
use crate::shard::link::Parcel;
use crate::shard::table::Peer;
use media_core::cells::Drop;
use media_core::media::MediaBatch;
use std::sync::Arc;
use std::time::Instant;

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
            let parcel = Parcel::KeyframeWanted {
                device: device.into(),
            };
            if !self.worker.links[usize::from(shard)].send(parcel) {
                self.out.drop(Drop::RingFull);
            }
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
            let (mut batch, device) = (publisher.take_batch(), entry.device.clone());
            let Some(known) = self
                .devices
                .find(&device)
                .filter(|d| d.publisher == Some(index))
            else {
                continue;
            };
            if known.subscribers != 0 {
                let shared = Arc::new(batch);
                for shard in known.subscribed() {
                    let parcel = Parcel::Media {
                        device: device.clone(),
                        batch: shared.clone(),
                    };
                    if !self
                        .worker
                        .links
                        .get(usize::from(shard))
                        .is_some_and(|link| link.send(parcel))
                    {
                        self.out.drop(Drop::RingFull);
                    }
                }
                self.forward(now, &device, &shared);
                continue;
            }
            self.forward(now, &device, &batch);
            batch.clear();
            if let Some(Peer::Publisher(publisher)) = self.table.entry(index).map(|e| &mut e.peer) {
                publisher.recycle(batch);
            }
        }
    }

    /// Sends a batch to the viewers here.
    pub(super) fn forward(&mut self, now: Instant, device: &str, batch: &MediaBatch) {
        let Some(known) = self.devices.find(device) else {
            return;
        };
        let room = batch.max_sent_bytes();
        let viewers = std::mem::take(&mut known.viewers);
        let mut wanted = false;
        for index in &viewers {
            if self.out.slab.room() < room {
                self.flush();
            }
            if let Some(Peer::Viewer(viewer)) = self.table.entry(*index).map(|e| &mut e.peer) {
                wanted |= viewer.forward(now, batch, &mut self.out);
            }
        }
        if let Some(known) = self.devices.find(device) {
            known.viewers = viewers;
        }
        if wanted {
            self.request_keyframe(now, device);
        }
    }
}
