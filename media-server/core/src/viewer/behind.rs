//! A viewer that is behind: it joined, or its share of the bandwidth was used up. It is sent what there is in
//! the ring, a share in each slot, until it has all.

use super::*;

/// A player that lost the beginning of what it is to begin with can't know, and NACK does not help: without
/// a picture it asks for a keyframe. Browsers do so 200 ms after the first packet, others within seconds.
const BEGINNING: Duration = Duration::from_secs(2);
/// Times that one beginning is sent again; then it is not loss that keeps the viewer from a picture.
const MAX_AGAIN: u8 = 2;

/// When video began for a viewer, and when it was last sent from there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beginning {
    at: Instant,
    sent: Instant,
    again: u8,
}

impl Beginning {
    fn new(now: Instant) -> Self {
        Beginning {
            at: now,
            sent: now,
            again: 0,
        }
    }
}

impl Viewer {
    /// Says once since when what it watches goes out: video, if it takes some.
    pub(super) fn tell_of_media(&mut self, out: &mut Output) {
        let began = self.quality.take_first().map(SessionEvent::MediaBegan);
        out.events.extend(began);
    }

    /// Starts with the last keyframe, if the viewer needs one and the ring of its
    /// [`target_layer`](Self::target_layer) has it with all that follows. Returns whether a new keyframe
    /// is needed instead.
    pub fn join(&mut self, now: Instant, rings: &[Ring], out: &mut Output) -> bool {
        if !self.needs_keyframe() {
            return self.wants_keyframe();
        }
        let target = self.selection.target();
        if self.start(now, target, rings).is_none() {
            return true;
        }
        self.begin(now, Served::Cache, out);
        self.catch_up(now, rings, out);
        false
    }

    /// A viewer that asks for a keyframe so soon after it began has no picture, and what it needs is in
    /// the ring: it is sent that once more. Returns whether the device need not be asked.
    pub fn begin_again(&mut self, now: Instant, rings: &[Ring], out: &mut Output) -> bool {
        let recent = |beginning: &Beginning| now < beginning.at + BEGINNING;
        let Some(mut beginning) = self.beginning.filter(recent) else {
            return false;
        };
        let round_trip = self.transport.cells.rtt().unwrap_or_default();
        if now < beginning.sent + round_trip {
            // It asked before it could have what is on its way.
            return true;
        }
        if beginning.again == MAX_AGAIN {
            return false;
        }
        beginning.sent = now;
        beginning.again += 1;
        self.send_again(now, beginning, rings, out)
    }

    /// A viewer whose path moved has lost what was on its way to the former one, and goes on from the last
    /// keyframe. Returns whether the device need not be asked for one.
    pub fn go_on(&mut self, now: Instant, rings: &[Ring], out: &mut Output) -> bool {
        if self.congested || self.congestion.is_cut() {
            // What is held back comes when there is room for it.
            return true;
        }
        self.beginning.is_some() && self.send_again(now, Beginning::new(now), rings, out)
    }

    fn send_again(
        &mut self,
        now: Instant,
        beginning: Beginning,
        rings: &[Ring],
        out: &mut Output,
    ) -> bool {
        if self.start(now, self.selection.on(), rings).is_none() {
            return false;
        }
        self.beginning = Some(beginning);
        out.cells().count_join(Served::Again);
        self.behind = Some(now);
        self.congestion.resume(now);
        self.catch_up(now, rings, out);
        true
    }

    /// Puts the video at the last keyframe of the ring of a layer, if that has one to start with that the
    /// viewer can take.
    fn start(&mut self, now: Instant, layer: u8, rings: &[Ring]) -> Option<()> {
        let ring = rings.get(usize::from(layer))?;
        let start = ring.start(now)?;
        let (_, first) = ring.packet(start.seq)?;
        let mut tracks = self.tracks.iter_mut().filter(|t| t.kind == Kind::Video);
        let starts = tracks.any(|track| track.start(now, first, start));
        starts.then(|| self.selection.went_to(layer))
    }

    /// Whether a part of what there is must still be sent, see [`catch_up`](Self::catch_up).
    pub fn is_behind(&self) -> bool {
        self.behind.is_some()
    }

    /// Bits per second that there is room for on the way, if that is less than the viewer would take.
    pub fn bottleneck(&self) -> Option<u64> {
        self.congestion.bottleneck()
    }

    pub(super) fn begin(&mut self, now: Instant, served: Served, out: &mut Output) {
        self.behind = Some(now);
        self.congestion.resume(now);
        // Later ones are no joins.
        if self.beginning.replace(Beginning::new(now)).is_none() {
            out.cells().count_join(served);
        }
    }

    /// Sends the next share of the ring to a viewer that is behind. Called when
    /// [`poll_timeout`](Session::poll_timeout) says so, with the ring of the viewer's device.
    pub fn catch_up(&mut self, now: Instant, rings: &[Ring], out: &mut Output) {
        if self.congested || self.behind.take().is_none() {
            return;
        }
        let Some(to) = self
            .transport
            .media_path()
            .filter(|_| self.sealer.is_some())
        else {
            return;
        };
        let behind = self.tracks.iter().find(|track| track.cursor.is_some());
        let source = behind.and_then(Track::source);
        let none = Ring::default();
        let held = rings.iter().find(|ring| ring.source() == source);
        let ring = held.unwrap_or(&none);
        self.look_at_rate(now, rings);
        for at in 0..self.tracks.len() {
            while let Some(seq) = self.tracks[at].cursor {
                let track = &mut self.tracks[at];
                let same = track.source() == ring.source();
                if !same || seq < ring.first() {
                    // What it needs next is gone: a newer keyframe came, as a rule.
                    let limited = self.congestion.is_limited();
                    if same && (limited || ring.keyframe_after(seq).is_some()) {
                        self.skip(now, at, seq, ring, out);
                    } else {
                        track.waiting = track.source();
                        track.cursor = None;
                    }
                    continue;
                }
                if seq >= ring.next() {
                    track.cursor = None;
                    break;
                }
                if let Some((batch, packet)) = ring.packet(seq) {
                    let arrived = batch.arrived();
                    if let Some(arrived) = arrived {
                        self.hurry(now, at, arrived);
                    }
                    let late = arrived.is_some_and(|at| self.congestion.is_late(now, at));
                    if late && ring.begins_frame(seq) {
                        self.skip(now, at, seq, ring, out);
                        continue;
                    }
                    let bytes = packet.payload.len();
                    let room = out.slab.room() >= rtp::MAX_HEADER + bytes + MAX_TAG;
                    if !room || !self.congestion.has_room(bytes) || !self.transport.spend(bytes) {
                        self.behind = Some(now);
                        return;
                    }
                    match self.tracks[at].admit(now, packet, None) {
                        Ok(admitted) => self.send(now, to, at, admitted, batch, packet, out),
                        Err(reason) => reason.into_iter().for_each(|reason| out.drop(reason)),
                    }
                }
                // Unless a keyframe is needed again.
                if self.tracks[at].cursor.is_some() {
                    self.tracks[at].cursor = Some(seq + 1);
                }
            }
        }
    }
}
