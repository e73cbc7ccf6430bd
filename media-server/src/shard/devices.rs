//! Who publishes and who watches a device, as far as one shard needs to know.

use super::table::Index;
use media_core::media::MediaBatch;
use media_core::ring::{IDLE_BYTES, Ring, WATCHED_BYTES};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A ring that nobody watched for this long holds less.
const IDLE_AFTER: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(super) struct Device {
    /// The publisher whose media goes out: the one that connected last.
    pub(super) publisher: Option<Index>,
    /// The shard of the publisher, if it is another.
    pub(super) remote_publisher: Option<u8>,
    /// Publisher sessions here, connected or not.
    pub(super) publishers: u32,
    pub(super) viewers: Vec<Index>,
    /// Other shards with viewers, one bit each.
    pub(super) subscribers: u64,
    /// The last packets of the publisher's video.
    pub(super) ring: Ring,
    /// Since when nobody watches; `None` while somebody does, or before anybody did.
    idle: Option<Instant>,
}

impl Device {
    /// Notes whether anybody watches now, here or elsewhere.
    pub(super) fn watched(&mut self, now: Instant) {
        if !self.viewers.is_empty() || self.subscribers != 0 {
            self.idle = None;
            self.ring.limit(WATCHED_BYTES);
        } else {
            self.idle.get_or_insert(now);
            if self.publisher.is_none() {
                // Nothing comes from the other shard any more.
                self.ring = Ring::default();
            }
        }
    }

    /// Keeps the video of a batch.
    pub(super) fn keep(&mut self, now: Instant, batch: &Arc<MediaBatch>) {
        self.ring.push(batch);
        if self.idle.is_some_and(|since| now >= since + IDLE_AFTER) {
            self.ring.limit(IDLE_BYTES);
        }
    }

    fn watchers(&self) -> usize {
        self.viewers.len() + self.subscribers.count_ones() as usize
    }

    pub(super) fn has_publisher(&self) -> bool {
        self.publisher.is_some() || self.remote_publisher.is_some()
    }

    fn is_unused(&self) -> bool {
        !self.has_publisher()
            && self.publishers == 0
            && self.viewers.is_empty()
            && self.subscribers == 0
    }

    /// Other shards with viewers.
    pub(super) fn subscribed(&self) -> impl Iterator<Item = u8> + use<> {
        let bits = self.subscribers;
        (0..64).filter(move |shard| bits & 1 << shard != 0)
    }
}

#[derive(Default)]
pub(super) struct Devices {
    map: HashMap<Arc<str>, Device>,
}

impl Devices {
    pub(super) fn find(&mut self, name: &str) -> Option<&mut Device> {
        self.map.get_mut(name)
    }

    pub(super) fn make(&mut self, name: &Arc<str>) -> &mut Device {
        self.map.entry(name.clone()).or_default()
    }

    /// Payload bytes that all rings hold.
    pub(super) fn cached_bytes(&self) -> usize {
        self.map.values().map(|device| device.ring.bytes()).sum()
    }

    /// Lets the least watched rings shrink, then go, until all together hold no more than `bytes`;
    /// returns how many it met.
    pub(super) fn shrink(&mut self, bytes: usize) -> usize {
        let mut held = self.cached_bytes();
        let mut devices: Vec<&mut Device> = self.map.values_mut().collect();
        devices.sort_by_key(|device| device.watchers());
        let mut met = 0;
        for last_resort in [false, true] {
            for device in &mut devices {
                if held <= bytes {
                    return met;
                }
                let before = device.ring.bytes();
                if last_resort {
                    device.ring = Ring::default();
                } else {
                    device.ring.limit(IDLE_BYTES);
                }
                held -= before - device.ring.bytes();
                met += usize::from(before > device.ring.bytes());
            }
        }
        met
    }

    /// Forgets a device that nobody here or elsewhere uses.
    pub(super) fn tidy(&mut self, name: &str) {
        if self.map.get(name).is_some_and(Device::is_unused) {
            self.map.remove(name);
        }
    }
}
