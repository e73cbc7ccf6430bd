//! Who publishes and who watches a device, as far as one shard needs to know.

use super::table::Index;
use std::collections::HashMap;
use std::sync::Arc;

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
}

impl Device {
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

    /// Forgets a device that nobody here or elsewhere uses.
    pub(super) fn tidy(&mut self, name: &str) {
        if self.map.get(name).is_some_and(Device::is_unused) {
            self.map.remove(name);
        }
    }
}
