//! Recordings of devices: who has one, and what it is given. Called by the shard's turn; never waits.

use super::State;
use crate::shard::RecordChange;
use crate::shard::tap::Tap;
use media_core::cells::KeyframeCause;
use media_core::media::MediaBatch;
use media_core::negotiated::{Codec, Kind};
use std::sync::Arc;
use std::time::Instant;

impl State {
    pub(super) fn change_recording(&mut self, now: Instant, change: RecordChange) {
        match change {
            RecordChange::Begin(device, tap, reply) => {
                // An error means that the caller waits no longer.
                let _ = reply.send(self.begin_recording(now, &device, tap));
            }
            RecordChange::End(device, tap) => self.end_recording(&device, &tap),
        }
    }

    /// Records a device from now on, or from the keyframe that is kept of it. Returns the codec that it
    /// sends, if that is known here.
    fn begin_recording(&mut self, now: Instant, device: &Arc<str>, tap: Tap) -> Option<Codec> {
        let known = self.devices.make(device);
        let layer = known.best_layer();
        let mut codec = None;
        let mut starts = true;
        if known.publisher.is_some() {
            tap.set_publisher(true);
            let ring = &known.rings[usize::from(layer)];
            let batches = ring.batches();
            let packets = batches.last().map(|batch| batch.packets());
            let video = packets.and_then(|p| p.iter().find(|p| p.kind == Kind::Video));
            codec = video.map(|packet| packet.codec.clone());
            starts = ring.start(now).is_some();
            if starts {
                batches.iter().for_each(|batch| tap.offer(batch, layer));
            }
        }
        known.taps.push(tap);
        if !starts {
            // The writer's own wish would wait for media, and a picture that does not move brings none.
            self.request_keyframe(now, device, layer, KeyframeCause::Recording);
        }
        codec
    }

    fn end_recording(&mut self, device: &str, tap: &Tap) {
        if let Some(known) = self.devices.find(device) {
            known.taps.retain(|other| !other.is(tap));
            self.devices.tidy(device);
        }
    }

    /// Gives the recordings of a publisher here its sound, and the video of its best layer.
    pub(super) fn record(&mut self, now: Instant, device: &str, batch: &Arc<MediaBatch>) {
        let Some(known) = self.devices.find(device) else {
            return;
        };
        let best = batch.layers().and_then(|layers| layers.best());
        let layer = best.unwrap_or_else(|| known.best_layer());
        let mut packets = batch.packets().iter();
        if packets.any(|packet| packet.kind == Kind::Audio || packet.layer == layer) {
            known.taps.iter().for_each(|tap| tap.offer(batch, layer));
        }
        // Each has to be asked, so that none asks again.
        let wishes = known.taps.iter().filter(|tap| tap.takes_keyframe_wish());
        if wishes.count() > 0 {
            self.request_keyframe(now, device, layer, KeyframeCause::Recording);
        }
    }
}
