//! What a viewer does about congestion, apart from going slower: goes to a lower layer, leaves out the
//! pictures of higher temporal layers, then the rest of a group of pictures, and sends padding to find out
//! whether there is room again.

use super::probe::PADDING;
use super::*;

impl Viewer {
    /// Tells the time and the rate of what the viewer would take: of the best layer, if there are several.
    pub(super) fn look_at_rate(&mut self, now: Instant, rings: &[Ring]) {
        let (selection, temporal) = (&self.selection, &mut self.temporal_choice);
        self.congestion.begin(now, || {
            let on = rings.get(usize::from(selection.on()));
            let rates = on.map(Ring::temporal_rates);
            temporal.note(selection.on(), rates.unwrap_or_default());
            let rate = on.map_or(0, Ring::stream_rate);
            rate.max(selection.wanted_rate().unwrap_or(0))
        });
    }

    /// Goes to another layer, if there is no room for the one that the viewer is on, or room for a better.
    /// Where there is no lesser one, takes as many of its pictures as there is room for.
    pub(super) fn choose_layer(&mut self, now: Instant, out: &mut Output) {
        let room = self.congestion.bottleneck();
        if let Some((layers, current)) = self.selection.free()
            && let Some(layer) = self.layer_choice.next(now, layers, current, room)
        {
            let best = layers.best() == Some(layer);
            self.set_target_layer((!best).then_some(layer));
            if self.orphaned.is_none() && self.selection.is_switching() {
                out.events
                    .push(SessionEvent::KeyframeWanted(KeyframeCause::Layer));
            }
        }
        let choice = &mut self.temporal_choice;
        let (on, least) = (self.selection.on(), self.selection.is_least());
        if let Some(track) = self.tracks.iter_mut().find(|t| t.kind == Kind::Video) {
            let thinning = &mut track.thinning;
            thinning.advise(if least {
                choice.next(now, on, thinning.asked(), room)
            } else {
                choice.reset();
                None
            });
        }
    }

    /// Leaves out more pictures of a track if one that arrived then is late.
    pub(super) fn hurry(&mut self, now: Instant, at: usize, arrived: Instant) {
        let due = self.congestion.due(arrived);
        if self.temporal_choice.is_late(now, due)
            && self.selection.is_least()
            && let Some(room) = self.congestion.bottleneck()
        {
            let (choice, thinning) = (&mut self.temporal_choice, &mut self.tracks[at].thinning);
            choice.hurry(now, self.selection.on(), thinning.asked(), room);
            thinning.advise(choice.highest());
        }
    }

    /// Each second: whether there is room for pictures that nothing but a keyframe lets begin.
    pub(super) fn wants_more_pictures(&mut self, now: Instant) -> bool {
        let waits = self.tracks.iter().any(|track| track.thinning.waits());
        self.temporal_choice.wants_keyframe(now, waits)
    }

    /// Leaves out what is late or of no use any more, from `from` on: up to the next keyframe of the ring,
    /// or to one to come.
    pub(super) fn skip(
        &mut self,
        now: Instant,
        at: usize,
        from: u64,
        ring: &Ring,
        out: &mut Output,
    ) {
        let keyframe = ring
            .keyframe_after(from)
            .filter(|_| !self.congestion.is_paused())
            .and_then(|seq| ring.packet(seq));
        let end = match keyframe {
            Some((_, first)) => {
                self.tracks[at].go_on(now, first);
                first.seq
            }
            None => {
                self.cut(now, at);
                ring.next()
            }
        };
        let left_out = (from..end).filter(|seq| ring.packet(*seq).is_some());
        let left_out = left_out.count() as u64;
        let reason = match self.congestion.is_limited() {
            true => Drop::Congestion,
            false => Drop::NoKeyframe,
        };
        out.cells().count_drops(reason, left_out);
    }

    /// Holds back the video of a track until the next keyframe.
    pub(super) fn cut(&mut self, now: Instant, at: usize) {
        let track = &mut self.tracks[at];
        track.waiting = track.source();
        track.cursor = None;
        if track.waiting.is_some() && !self.congestion.is_cut() {
            self.congestion.cut(now);
        }
    }

    /// The payload type of padding: of retransmissions of what is sent now, if the viewer takes those and
    /// tells of each packet.
    pub(super) fn padding_type(&self) -> Option<u8> {
        let video = self.tracks.iter().find(|t| t.kind == Kind::Video);
        let track = video.filter(|t| t.extensions.transport_cc.is_some())?;
        self.repair.as_ref().and_then(|_| track.current_rtx())
    }

    /// Sends the padding of a probe: to the viewer it is a retransmission of nothing.
    pub(super) fn probe(&mut self, now: Instant, out: &mut Output) {
        let packets = self.congestion.take_probe(now);
        let payload_type = self.padding_type();
        let video = self.tracks.iter().find(|t| t.kind == Kind::Video);
        if let (Some(to), Some(payload_type), Some(track), Some(repair), Some(sealer)) = (
            self.transport.media_path(),
            payload_type,
            video,
            self.repair.as_mut(),
            self.sealer.as_mut(),
        ) {
            for _ in 0..packets {
                if !self.transport.spend(PADDING) {
                    break;
                }
                let index = repair.next();
                let fields = Outgoing {
                    padding: true,
                    marker: false,
                    payload_type,
                    seq: index as u16,
                    timestamp: track.last.map_or(0, |(timestamp, _)| timestamp),
                    ssrc: repair.ssrc,
                };
                let passed = Passed {
                    transport_seq: Some(self.congestion.transport_seq()),
                    ..Passed::default()
                };
                let max = rtp::MAX_HEADER + PADDING + MAX_TAG;
                let sent = out.slab.write(to, max, |room| {
                    let header = rtp::write_header(room, &fields, &track.extensions, &passed)?;
                    let body = header + PADDING;
                    let padding = room.get_mut(header..body)?;
                    padding.fill(0);
                    *padding.last_mut()? = PADDING as u8;
                    let packet = room.get_mut(..body + sealer.tag_len())?;
                    sealer.seal(repair.ssrc, index, packet, header).ok()?;
                    Some(packet.len())
                });
                if sent.is_some() {
                    self.congestion.sent(PADDING, true);
                }
            }
        }
        self.congestion.probed();
    }
}
