//! From the bandwidth of a device's viewers, here and on other shards, to what its publisher is asked to
//! send. Called once a second for a device that sends; never waits.

use super::State;
use crate::shard::bandwidth::ANY;
use crate::shard::link::Parcel;
use crate::shard::table::Peer;
use media_core::publisher::Wanted;
use std::time::Instant;

impl State {
    /// Tells the publisher, or the shard that has it, what the viewers here have room for.
    pub(super) fn share_bandwidth(&mut self, now: Instant, device: &str) {
        let Some(known) = self.devices.find(device) else {
            return;
        };
        let mut own = Vec::with_capacity(known.viewers.len());
        for index in &known.viewers {
            if let Some(Peer::Viewer(viewer)) = self.table.entry(*index).map(|e| &e.peer) {
                own.push(viewer.bottleneck().unwrap_or(ANY));
            }
        }
        if let Some(index) = known.publisher {
            let wanted = match self.worker.idle_limit {
                Some(limit) if known.is_idle(now) && known.taps.is_empty() => Wanted::Idle(limit),
                _ => known.wanted_bandwidth(&own),
            };
            let most = self.worker.video_limit;
            if let Some(Peer::Publisher(publisher)) = self.table.entry(index).map(|e| &mut e.peer) {
                publisher.limit_bandwidth(now, wanted, most, &mut self.out);
            }
        } else if let Some(shard) = known.remote_publisher {
            let parcel = Parcel::Bandwidth {
                device: device.into(),
                shard: self.worker.shard,
                wanted: own.into(),
            };
            self.parcel(shard, parcel);
        }
    }

    pub(super) fn note_bandwidth(&mut self, device: &str, shard: u8, wanted: Box<[u64]>) {
        if let Some(known) = self.devices.find(device) {
            known.note_bandwidth(shard, wanted);
        }
    }
}
