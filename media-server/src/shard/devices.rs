//! Who publishes and who watches a device, as far as one shard needs to know.

use super::bandwidth::Bandwidth;
use super::table::Index;
use super::tap::Tap;
use media_core::layers::{Layers, MAX_LAYERS};
use media_core::media::MediaBatch;
use media_core::negotiated::Kind;
use media_core::publisher::Wanted;
use media_core::pulse::Pulse;
use media_core::ring::{IDLE_BYTES, Ring, WATCHED_BYTES};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A ring that nobody watched for this long holds less, and its publisher may be asked to send less. What
/// is shorter is a viewer that loads its page again.
const IDLE_AFTER: Duration = Duration::from_secs(30);
/// A layer that no viewer is on any more is kept for what they may still ask for again.
const UNUSED_AFTER: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct Device {
    /// The publisher whose media goes out: the one that connected last. Changed by [`Self::set_publisher`].
    pub(super) publisher: Option<Index>,
    /// The shard of the publisher, if it is another.
    pub(super) remote_publisher: Option<u8>,
    /// The signs of the publisher, here or there; of the last one, if there is none.
    pub(super) pulse: Option<Arc<Pulse>>,
    /// Publisher sessions here, connected or not.
    pub(super) publishers: u32,
    pub(super) viewers: Vec<Index>,
    /// Other shards with viewers, one bit each.
    pub(super) subscribers: u64,
    /// The last packets of the publisher's video, for each layer that somebody here is on or should
    /// be on. While nobody is, those of the best layer, which the next viewer starts with.
    pub(super) rings: [Ring; MAX_LAYERS],
    /// The publisher's layers, if it has several.
    pub(super) layers: Option<Arc<Layers>>,
    /// When a viewer here last had a use for each layer.
    used: [Option<Instant>; MAX_LAYERS],
    pub(super) bandwidth: Bandwidth,
    /// Recordings. Every shard has them, and that of the publisher serves them.
    pub(super) taps: Vec<Tap>,
    /// Since when it is there and nobody watches; `None` while somebody does.
    idle: Option<Instant>,
}

impl Device {
    /// Notes whether anybody watches now, here or elsewhere.
    pub(super) fn watched(&mut self, now: Instant) {
        if !self.viewers.is_empty() || self.subscribers != 0 {
            if self.idle.take().is_some() {
                self.bandwidth.look_now();
            }
            self.limit(WATCHED_BYTES);
        } else {
            self.idle.get_or_insert(now);
            if self.publisher.is_none() {
                // Nothing comes from the other shard any more.
                self.clear();
            }
        }
    }

    /// Another session is its publisher here from now on, or none, which recordings are told.
    pub(super) fn set_publisher(&mut self, publisher: Option<Index>) {
        let before = std::mem::replace(&mut self.publisher, publisher);
        if before.is_some() != publisher.is_some() {
            let taps = self.taps.iter();
            taps.for_each(|tap| tap.set_publisher(publisher.is_some()));
        }
    }

    /// A session here publishes it from now on.
    pub(super) fn publish(&mut self, now: Instant, publisher: Index, pulse: Arc<Pulse>) {
        self.set_publisher(Some(publisher));
        self.remote_publisher = None;
        self.pulse = Some(pulse);
        self.clear();
        self.watched(now);
    }

    /// A session on another shard publishes it from now on. The newest wins; the registry closes the other.
    pub(super) fn publish_elsewhere(&mut self, shard: u8, pulse: Arc<Pulse>) {
        self.set_publisher(None);
        self.remote_publisher = Some(shard);
        self.pulse = Some(pulse);
        self.clear();
    }

    /// Whether media of it is of use here. Some of a publisher elsewhere may come after the last viewer
    /// left, when nothing would clear the rings any more.
    pub(super) fn takes_media(&self) -> bool {
        self.publisher.is_some() || !self.viewers.is_empty()
    }

    /// Keeps the video of a batch, if its layer is one of those.
    pub(super) fn keep(&mut self, now: Instant, batch: &Arc<MediaBatch>) {
        if self.layers.is_some() {
            self.forget_unused(now);
        }
        let video = batch.packets().iter().find(|p| p.kind == Kind::Video);
        let layer = video.map_or(0, |packet| packet.layer);
        if self.keeps(layer)
            && let Some(ring) = self.rings.get_mut(usize::from(layer))
        {
            ring.push(batch);
        }
        if self.is_idle(now) {
            self.limit(IDLE_BYTES);
        }
    }

    /// Whether nobody has watched for a while.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.idle.is_some_and(|since| now >= since + IDLE_AFTER)
    }

    fn forget_unused(&mut self, now: Instant) {
        for used in &mut self.used {
            *used = used.filter(|at| now <= *at + UNUSED_AFTER);
        }
        for layer in 0..MAX_LAYERS {
            if self.rings[layer].source().is_some() && !self.keeps(layer as u8) {
                self.rings[layer] = Ring::default();
            }
        }
    }

    fn keeps(&self, layer: u8) -> bool {
        let Some(layers) = &self.layers else {
            return true;
        };
        let used = |layer: u8| {
            self.used
                .get(usize::from(layer))
                .is_some_and(Option::is_some)
        };
        used(layer) || layers.best() == Some(layer) && self.used.iter().all(Option::is_none)
    }

    /// Notes that a viewer here has a use for these layers, one bit each.
    pub(super) fn use_layers(&mut self, now: Instant, layers: u8) {
        for layer in (0..MAX_LAYERS).filter(|layer| layers & 1 << layer != 0) {
            if self.used[layer].replace(now).is_none() && self.idle.is_none() {
                self.rings[layer].limit(WATCHED_BYTES);
            }
        }
    }

    /// The layer that is recorded: the best that comes.
    pub(super) fn best_layer(&self) -> u8 {
        let best = self.layers.as_ref().and_then(|layers| layers.best());
        best.unwrap_or_default()
    }

    /// The publisher's media comes from somewhere else from now on, or no more.
    pub(super) fn clear(&mut self) {
        self.rings = Default::default();
        self.layers = None;
        self.used = [None; MAX_LAYERS];
        if self.watchers() > 0 {
            self.limit(WATCHED_BYTES);
        }
    }

    /// Payload bytes that its rings hold.
    fn bytes(&self) -> usize {
        self.rings.iter().map(Ring::bytes).sum()
    }

    fn limit(&mut self, bytes: usize) {
        for ring in &mut self.rings {
            ring.limit(bytes);
        }
    }

    /// Notes what the viewers of another shard have room for, unless the last of them left meanwhile.
    pub(super) fn note_bandwidth(&mut self, shard: u8, wanted: Box<[u64]>) {
        if self.subscribers & 1 << shard != 0 {
            self.bandwidth.note(shard, wanted);
        }
    }

    /// What its publisher should send for its viewers, `own` ones here and those elsewhere. One with layers
    /// sends all of them: who can't take one gets a lesser one.
    pub(super) fn wanted_bandwidth(&self, own: &[u64]) -> Wanted {
        match (&self.layers, self.bandwidth.wanted(own)) {
            (None, Some(limit)) => Wanted::AtMost(limit),
            _ => Wanted::Any,
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
            && self.taps.is_empty()
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
        self.map.values().map(Device::bytes).sum()
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
                for ring in &mut device.rings {
                    let before = ring.bytes();
                    if last_resort {
                        *ring = Ring::default();
                    } else {
                        ring.limit(IDLE_BYTES);
                    }
                    held -= before - ring.bytes();
                    met += usize::from(before > ring.bytes());
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_is_of_use_to_a_publisher_or_viewers_here() {
        let mut device = Device {
            remote_publisher: Some(1),
            ..Device::default()
        };
        assert!(!device.takes_media(), "the last viewer has left");
        device.viewers.push(0);
        assert!(device.takes_media());
        let published = Device {
            publisher: Some(0),
            ..Device::default()
        };
        assert!(published.takes_media(), "kept for viewers to come");
    }

    #[test]
    fn viewers_that_left_limit_nobody() {
        let mut device = Device::default();
        device.note_bandwidth(2, [300].into());
        let wanted = device.wanted_bandwidth(&[]);
        assert_eq!(wanted, Wanted::Any, "none are there");
        device.subscribers = 1 << 2;
        device.note_bandwidth(2, [300].into());
        assert_eq!(device.wanted_bandwidth(&[]), Wanted::AtMost(300));
    }

    #[test]
    fn a_device_is_idle_half_a_minute_after_its_last_viewer_or_its_publisher_came_and_not_from_the_next_on()
     {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut device = Device {
            publisher: Some(0),
            ..Device::default()
        };
        device.watched(at(0));
        assert!(!device.is_idle(at(29)));
        assert!(device.is_idle(at(30)), "nobody ever watched");
        assert!(device.bandwidth.is_due(at(40)));
        device.viewers.push(1);
        device.watched(at(40));
        assert!(!device.is_idle(at(100)));
        assert!(device.bandwidth.is_due(at(40)), "the publisher is told now");
        device.viewers.clear();
        device.watched(at(100));
        assert!(!device.is_idle(at(129)) && device.is_idle(at(130)));
        device.subscribers = 1 << 2;
        device.watched(at(130));
        assert!(!device.is_idle(at(200)), "watched on another shard");
    }

    #[test]
    fn a_recording_knows_whether_its_device_publishes_on_any_shard() {
        let (tap, tapping) = crate::shard::tap();
        let [mut here, mut there] = [(), ()].map(|()| Device {
            taps: vec![tap.clone()],
            ..Device::default()
        });
        assert!(!tapping.has_publisher());
        here.set_publisher(Some(1));
        here.set_publisher(Some(2));
        // It comes to another shard before it leaves this one.
        there.set_publisher(Some(1));
        here.set_publisher(None);
        here.set_publisher(None);
        assert!(tapping.has_publisher());
        there.set_publisher(None);
        assert!(!tapping.has_publisher());
    }

    #[test]
    fn a_device_with_layers_is_not_asked_to_send_less() {
        let mut device = Device::default();
        assert_eq!(device.wanted_bandwidth(&[700]), Wanted::AtMost(700));
        device.layers = Some(Arc::default());
        assert_eq!(device.wanted_bandwidth(&[700]), Wanted::Any);
        device.clear();
        let wanted = device.wanted_bandwidth(&[700]);
        assert_eq!(wanted, Wanted::AtMost(700), "another publisher");
    }
}
