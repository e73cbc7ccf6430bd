//! A viewer's session: gives each packet of a publisher the header that this viewer negotiated,
//! seals it, sends again what was lost, and reports on what it sent.
//!
//! Reads packets from batches as they come, and from its device's ring when it is behind: after it
//! joined, and for retransmissions.

mod acts;
mod behind;
mod congestion;
mod estimate;
mod history;
mod layer_choice;
mod pacer;
mod probe;
mod quality;
mod repair;
mod selection;
mod temporal_choice;
mod thinning;
mod track;
mod trend;

use crate::cells::{Drop, Forgotten, KeyframeCause, Served};
use crate::channel::Unsent;
use crate::clock::round_trip;
use crate::flow::Flow;
use crate::layers::Layers;
use crate::media::{MediaBatch, MediaPacket, clock_rate};
use crate::negotiated::Kind;
use crate::output::{End, Output, SessionEvent};
use crate::ring::Ring;
use crate::rtcp;
use crate::rtp::{self, Outgoing, Passed, red};
use crate::session::{Credentials, Received, Session, SessionConfig, Transport};
use crate::srtp::{MAX_TAG, Sealer};
use crate::stats::{Loss, Rates};
use behind::Beginning;
use congestion::Congestion;
use layer_choice::LayerChoice;
use pacer::SLOT;
use quality::Quality;
use repair::Repair;
use selection::Selection;
use std::sync::Arc;
use std::time::{Duration, Instant};
use temporal_choice::TemporalChoice;
use track::{Admitted, Body, Track};

/// How long a viewer waits for a publisher.
const PUBLISHER_LIMIT: Duration = Duration::from_secs(30);
/// Video begins so long after the handshake: a client that gets the first packet of a keyframe together
/// with the end of the handshake may have no keys for it yet, and can't know that it lost it.
const KEYS_READY: Duration = Duration::from_millis(5);

/// See the module.
pub struct Viewer {
    transport: Transport,
    tracks: Vec<Track>,
    selection: Selection,
    sealer: Option<Sealer>,
    /// If the viewer takes retransmissions.
    repair: Option<Repair>,
    cname: Box<str>,
    /// Until then there are keys, but no video yet.
    begins: Option<Instant>,
    congestion: Congestion,
    layer_choice: LayerChoice,
    temporal_choice: TemporalChoice,
    /// While a track is behind: when it last got its share.
    behind: Option<Instant>,
    /// The connection to the viewer takes no more video for now.
    congested: bool,
    /// How the last beginning went; `None` until the first picture was sent.
    beginning: Option<Beginning>,
    /// Since when there is no publisher.
    orphaned: Option<Instant>,
    tick: Option<Instant>,
    rates: Rates,
    loss: Loss,
    quality: Quality,
}

impl Viewer {
    /// The viewer waits for a publisher until [`set_publisher_live`](Self::set_publisher_live).
    pub fn new(now: Instant, config: SessionConfig) -> Self {
        let id = u128::from_be_bytes(config.id.0);
        // The id is random in all but a few bits, and no two streams may start alike.
        let random = |at: usize| (id >> (16 * at)) as u64 ^ at as u64;
        let agreed = &config.negotiated.tracks;
        let tracks = (0..)
            .zip(agreed)
            .map(|(at, track)| Track::new(track, random(at)));
        let rtx_ssrc = agreed.iter().find_map(|track| track.rtx_ssrc);
        Viewer {
            tracks: tracks.collect(),
            selection: Selection::default(),
            sealer: None,
            repair: rtx_ssrc.map(|ssrc| Repair::new(ssrc, random(3))),
            begins: None,
            congestion: Congestion::new(now, &config.negotiated),
            layer_choice: LayerChoice::default(),
            temporal_choice: TemporalChoice::default(),
            behind: None,
            congested: false,
            beginning: None,
            cname: config.negotiated.cname.as_str().into(),
            orphaned: Some(now),
            tick: None,
            rates: Rates::default(),
            loss: Loss::default(),
            quality: Quality::new(now, agreed.iter().any(|t| t.kind == Kind::Video)),
            transport: Transport::new(now, config),
        }
    }

    /// Whether there is a publisher to wait for.
    pub fn set_publisher_live(&mut self, now: Instant, live: bool) {
        if !live {
            self.orphaned.get_or_insert(now);
        } else if self.orphaned.take().is_some() {
            self.quality.begin(now);
        }
    }

    /// Whether the connection to the viewer is behind. As long as it is, video is withheld, and goes on
    /// at the first keyframe after; what is being sent from the ring just waits.
    pub fn set_congested(&mut self, congested: bool) {
        self.congested = congested;
    }

    /// Takes note of the layers of its publisher: before the first packet, and when they change.
    pub fn set_layers(&mut self, layers: Option<&Arc<Layers>>) {
        self.selection.set_layers(layers);
    }

    /// The layers that it can be on, if its publisher has several.
    pub fn layers(&self) -> Option<&Layers> {
        self.selection.layers()
    }

    /// What the viewer itself asks for: a layer by its RID, or `None` for the server's choice, and the
    /// highest temporal layer. While that layer is stopped, the server chooses.
    pub fn pin_layer(&mut self, rid: Option<Box<str>>, max_temporal: Option<u8>) {
        self.selection.pin(rid);
        self.set_max_temporal_layer(max_temporal);
    }

    /// The hook of congestion control: the layer of [`layers`](Self::layers) that the viewer's path has
    /// room for; `None` is the best one. What the viewer asked for itself goes before. Takes effect
    /// with the next keyframe of that layer, for which the caller asks
    /// ([`SessionEvent::KeyframeWanted`]). Forgotten when the publisher changes.
    pub fn set_target_layer(&mut self, layer: Option<u8>) {
        self.selection.advise(layer);
    }

    /// Leaves out pictures of higher temporal layers than this one; `None` is all that there is room for.
    /// Takes effect with the next picture, upwards with the next that can be decoded.
    pub fn set_max_temporal_layer(&mut self, highest: Option<u8>) {
        for track in &mut self.tracks {
            track.thinning.limit(highest);
        }
    }

    /// The layer that it is sent, or will be first.
    pub fn layer(&self) -> u8 {
        self.selection.on()
    }

    /// The layer that it should be on.
    pub fn target_layer(&self) -> u8 {
        self.selection.target()
    }

    /// Whether it cannot start, go on or change to another layer without a keyframe.
    pub fn wants_keyframe(&self) -> bool {
        self.needs_keyframe() || self.is_ready() && self.selection.is_switching()
    }

    fn needs_keyframe(&self) -> bool {
        let mut video = self.tracks.iter().filter(|t| t.kind == Kind::Video);
        // What is cut off for congestion goes on by itself.
        self.is_ready() && !self.congestion.is_cut() && video.any(Track::needs_keyframe)
    }

    fn is_ready(&self) -> bool {
        self.sealer.is_some() && self.begins.is_none() && !self.congested
    }

    /// Sends what this viewer may get of a batch, which is in the ring already. The slab must have
    /// room for [`MediaBatch::max_sent_bytes`]. `rings` has one for each layer. Returns whether the
    /// viewer now waits for a keyframe of its [`target_layer`](Self::target_layer) and did not before.
    pub fn forward(
        &mut self,
        now: Instant,
        batch: &MediaBatch,
        rings: &[Ring],
        out: &mut Output,
    ) -> bool {
        let waited = self.is_withholding();
        let Some(to) = self
            .transport
            .media_path()
            .filter(|_| self.sealer.is_some())
        else {
            return false;
        };
        self.look_at_rate(now, rings);
        for packet in batch.packets() {
            let Some(at) = self.tracks.iter().position(|t| t.kind == packet.kind) else {
                continue;
            };
            let track = &mut self.tracks[at];
            let is_video = track.kind == Kind::Video;
            let begins = self.begins.is_some() && is_video;
            if begins || !self.selection.takes(packet) || track.is_behind(packet) {
                continue;
            }
            if is_video && self.congested {
                // What is being sent from the ring waits there.
                if track.cursor.is_none() {
                    track.withhold(packet.source);
                }
                out.drop(Drop::TcpFull);
                continue;
            }
            if is_video && self.congestion.is_paused() && begins_frame(rings, packet) {
                self.cut(now, at);
            }
            let track = &mut self.tracks[at];
            if is_video && self.congestion.withholds(packet.starts_keyframe) {
                out.drop(Drop::Congestion);
                continue;
            }
            // It waits in the ring, with all after it.
            if is_video
                && track.goes_on_with(packet)
                && !self.congestion.has_room_live(packet.payload.len())
            {
                track.cursor = Some(packet.seq);
                self.behind = Some(now);
                continue;
            }
            match track.admit(now, packet, batch.mapping(packet.kind)) {
                // It begins here, and the ring has what belongs to it.
                Ok(_) if track.is_behind(packet) => {
                    self.selection.went_to(packet.layer);
                    self.begin(now, Served::Keyframe, out);
                }
                Ok(admitted) => {
                    if self.transport.spend(packet.payload.len()) {
                        self.send(now, to, at, admitted, batch, packet, out);
                    } else {
                        out.drop(Drop::UnprovenPath);
                    }
                }
                Err(reason) => {
                    if self.tracks[at].has_forgotten(packet) {
                        out.cells().count_forgotten(Forgotten::Segment);
                    }
                    reason.into_iter().for_each(|reason| out.drop(reason));
                }
            }
        }
        for track in &mut self.tracks {
            let source = track.source();
            track.mapping = batch
                .mapping(track.kind)
                .filter(|m| Some(m.source) == source)
                .or(track.mapping);
        }
        if self.is_behind() {
            self.catch_up(now, rings, out);
        }
        !waited && !self.congested && self.is_withholding()
    }

    /// Sends again what the viewer asked for, see [`Output::lost`].
    pub fn retransmit(&mut self, now: Instant, seqs: &[u16], rings: &[Ring], out: &mut Output) {
        if self.congested {
            let lost = seqs.len() as u64;
            return out.cells().count_drops(Drop::RetransmissionLimit, lost);
        }
        let Some(to) = self.transport.media_path() else {
            return;
        };
        self.look_at_rate(now, rings);
        let video = self.tracks.iter().find(|t| t.kind == Kind::Video);
        let (Some(track), Some(repair), Some(sealer)) =
            (video, self.repair.as_mut(), self.sealer.as_mut())
        else {
            return;
        };
        for seq in seqs {
            let held = track.sent_as(*seq).and_then(|(segment, index)| {
                let source = Some(segment.source);
                let ring = rings.iter().find(|ring| ring.source() == source)?;
                Some((segment, index, ring.packet(segment.seq(index))?))
            });
            let Some((segment, index, (batch, packet))) = held else {
                if track.has_forgotten_seq(*seq) {
                    out.cells().count_forgotten(Forgotten::Segment);
                }
                out.drop(Drop::NotHeld);
                continue;
            };
            let Some(pt) = track.payload_type(&packet.codec).and_then(|own| own.rtx) else {
                continue;
            };
            let payload = batch.slice(&packet.payload);
            let max = rtp::MAX_HEADER + 2 + payload.len() + MAX_TAG;
            let own = repair
                .spend(index, payload.len())
                .filter(|_| self.transport.spend(payload.len()));
            let Some(own) = own else {
                out.drop(Drop::RetransmissionLimit);
                continue;
            };
            let fields = Outgoing {
                padding: packet.padding,
                marker: packet.marker,
                payload_type: pt,
                seq: own as u16,
                timestamp: segment.timestamp(packet.timestamp),
                ssrc: repair.ssrc,
            };
            let number = self.congestion.transport_seq();
            let passed = track.passed(batch, packet, segment.shift.frame, number);
            let sent = out.slab.write(to, max, |room| {
                let header = rtp::write_header(room, &fields, &track.extensions, &passed)?;
                let (start, body) = (header + 2, header + 2 + payload.len());
                room.get_mut(header..start)?
                    .copy_from_slice(&seq.to_be_bytes());
                let copy = room.get_mut(start..body)?;
                copy.copy_from_slice(payload);
                packet.numbering.shift(&segment.shift, copy);
                let packet = room.get_mut(..body + sealer.tag_len())?;
                sealer.seal(repair.ssrc, own, packet, header).ok()?;
                Some(packet.len())
            });
            if sent.is_none() {
                out.drop(Drop::NotSealed);
                continue;
            }
            let numbered = track.extensions.transport_cc.is_some();
            self.congestion.sent(payload.len(), numbered);
            out.cells().count_retransmitted_out();
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one packet on the fast path"
    )]
    fn send(
        &mut self,
        now: Instant,
        to: Flow,
        at: usize,
        admitted: Admitted,
        batch: &MediaBatch,
        packet: &MediaPacket,
        out: &mut Output,
    ) {
        let track = &mut self.tracks[at];
        let Some(sealer) = self.sealer.as_mut() else {
            return;
        };
        let mut payload = batch.slice(&packet.payload);
        if admitted.body == Body::Primary {
            // A publisher takes none that is cut short.
            let start = red::primary(payload).unwrap_or(payload.len());
            payload = &payload[start..];
        }
        let fields = Outgoing {
            padding: packet.padding,
            marker: packet.marker,
            payload_type: admitted.pt,
            seq: admitted.index as u16,
            timestamp: admitted.timestamp,
            ssrc: track.ssrc,
        };
        let number = self.congestion.transport_seq();
        let passed = track.passed(batch, packet, admitted.shift.frame, number);
        let max = rtp::MAX_HEADER + payload.len() + MAX_TAG;
        let sent = out.slab.write(to, max, |room| {
            let header = rtp::write_header(room, &fields, &track.extensions, &passed)?;
            let body = header + payload.len();
            let copy = room.get_mut(header..body)?;
            copy.copy_from_slice(payload);
            packet.numbering.shift(&admitted.shift, copy);
            if let Body::Redundant(pt) = admitted.body {
                red::rename(copy, pt);
            }
            let packet = room.get_mut(..body + sealer.tag_len())?;
            sealer
                .seal(track.ssrc, admitted.index, packet, header)
                .ok()?;
            Some(packet.len())
        });
        if sent.is_none() {
            return out.drop(Drop::NotSealed);
        }
        let numbered = track.extensions.transport_cc.is_some();
        self.congestion.sent(payload.len(), numbered);
        // One that comes late, because it was repaired, belongs to a frame that was counted.
        let new_frame = track.is_newer(admitted.timestamp);
        track.sent(now, admitted.timestamp, payload.len());
        let is_video = track.kind == Kind::Video;
        self.rates.add(payload.len(), is_video.then_some(new_frame));
        self.quality.sent(now, is_video);
        if let Some(repair) = self.repair.as_mut().filter(|_| is_video) {
            repair.earn(payload.len());
        }
    }

    fn is_withholding(&self) -> bool {
        !self.congestion.is_cut() && self.tracks.iter().any(|t| t.waiting.is_some())
    }

    fn handle_rtcp(&mut self, now: Instant, compound: &[u8], out: &mut Output) {
        let ntp = self.transport.clock.ntp(now);
        let mut keyframe = false;
        rtcp::read(compound, |item| match item {
            rtcp::Item::Report(block) => {
                let Some(track) = self.tracks.iter_mut().find(|t| t.ssrc == block.ssrc) else {
                    return;
                };
                if let Some(rtt) = round_trip(ntp, block.last_sr, block.delay) {
                    self.transport.cells.set_rtt(rtt);
                }
                if let Some((expected, lost)) = track.handle_report(&block) {
                    self.loss.add(now, expected, lost);
                    self.transport.cells.set_loss(self.loss.ratio(now));
                    self.congestion.handle_loss(expected, lost);
                }
                if track.kind == Kind::Video || self.tracks.len() == 1 {
                    let rate = self
                        .tracks
                        .iter()
                        .find(|t| t.ssrc == block.ssrc)
                        .map_or(90_000, |t| clock_rate(t.kind));
                    self.transport
                        .cells
                        .set_jitter(f64::from(block.jitter) / f64::from(rate));
                }
            }
            rtcp::Item::KeyframeRequest { ssrc } => {
                keyframe |= self
                    .tracks
                    .iter()
                    .any(|t| t.ssrc == ssrc && t.kind == Kind::Video);
            }
            rtcp::Item::Lost { ssrc, seq } => {
                let of = |t: &Track| t.ssrc == ssrc && t.kind == Kind::Video;
                if self.repair.is_some() && self.tracks.iter().any(of) {
                    out.note_lost(seq);
                }
            }
            rtcp::Item::Bandwidth { bits_per_second } => {
                self.congestion.handle_bandwidth(bits_per_second);
            }
            rtcp::Item::SenderInfo { .. } | rtcp::Item::Dlrr { .. } => {}
        });
        let round_trip = self.transport.cells.rtt();
        let useless = self.congestion.handle_feedback(now, compound, round_trip);
        out.cells().count_drops(Drop::Feedback, useless);
        let padding = self.padding_type().is_some();
        self.congestion.look_for_more(now, padding);
        self.choose_layer(now, out);
        // What is held back for congestion comes when there is room for it.
        if keyframe && !self.congested && !self.congestion.is_cut() {
            out.events
                .push(SessionEvent::KeyframeWanted(KeyframeCause::Lost));
        }
    }

    /// Each second: sender reports, figures, and whether there is still something to wait for.
    fn tick(&mut self, now: Instant, out: &mut Output) {
        let ntp = self.transport.clock.ntp(now);
        let mut compound = rtcp::Writer::default();
        for track in self.tracks.iter().filter(|t| t.packets > 0) {
            if let Some(timestamp) = track.timestamp_at(ntp) {
                compound.sender_report(track.ssrc, ntp, timestamp, track.packets, track.octets);
                compound.cname(track.ssrc, &self.cname);
            }
        }
        self.transport.send_rtcp(&compound, out);
        if let Some((frames, bits)) = self.rates.roll(now) {
            self.transport.cells.set_rates(frames, bits);
        }
        self.count_second(now, out);
        let cells = &self.transport.cells;
        cells.set_loss(self.loss.ratio(now));
        cells.set_totals(self.rates.packets, self.rates.bytes);
        cells.set_estimate(self.congestion.estimate());
        self.tell_of_media(out);
        let cut_off = self.congestion.tick(now);
        self.choose_layer(now, out);
        let thinned = self.wants_more_pictures(now);
        let cause = if cut_off || thinned {
            Some(KeyframeCause::Room)
        } else if self.needs_keyframe() {
            Some(KeyframeCause::Start)
        } else {
            self.wants_keyframe().then_some(KeyframeCause::Layer)
        };
        if let Some(cause) = cause.filter(|_| self.orphaned.is_none()) {
            out.events.push(SessionEvent::KeyframeWanted(cause));
        }
    }
}

impl Session for Viewer {
    fn handle_datagram(&mut self, now: Instant, from: Flow, datagram: &mut [u8], out: &mut Output) {
        match self.transport.handle_datagram(now, from, datagram, out) {
            Received::Nothing => {}
            Received::Keyed(keys) => {
                self.sealer = Some(Sealer::new(keys.ours));
                self.tick = Some(self.transport.next_tick(now));
                self.rates.roll(now);
                self.quality.begin(now);
                self.begins = Some(now + KEYS_READY);
            }
            // A viewer has nothing to send.
            Received::Rtp(_) => out.drop(Drop::UnknownStream),
            Received::Rtcp(compound) => self.handle_rtcp(now, compound, out),
        }
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Output) {
        self.transport.handle_timeout(now, out);
        if self.begins.is_some_and(|at| now >= at) {
            self.begins = None;
            if self.wants_keyframe() {
                out.events
                    .push(SessionEvent::KeyframeWanted(KeyframeCause::Start));
            }
        }
        if self.tick.is_some_and(|at| now >= at) {
            self.tick(now, out);
            self.tick = Some(self.transport.next_tick(now));
        }
        if self.congestion.probe_due().is_some_and(|at| now >= at) {
            self.probe(now, out);
        }
        if self.transport.is_keyed() && self.orphaned.is_some_and(|at| now >= at + PUBLISHER_LIMIT)
        {
            self.transport.end(End::PublisherGone, out);
        }
    }

    fn poll_timeout(&self) -> Instant {
        let orphaned = self
            .orphaned
            .filter(|_| self.transport.is_keyed())
            .map(|at| at + PUBLISHER_LIMIT);
        let slot = self.behind.filter(|_| !self.congested);
        let slot = slot.map(|at| at + SLOT);
        let probe = self.congestion.probe_due();
        [self.tick, orphaned, slot, self.begins, probe]
            .into_iter()
            .flatten()
            .fold(self.transport.poll_timeout(), Instant::min)
    }

    fn restart(&mut self, credentials: Credentials) {
        self.transport.restart(credentials);
    }

    fn send_message(
        &mut self,
        now: Instant,
        message: &[u8],
        out: &mut Output,
    ) -> Result<(), Unsent> {
        self.transport.send_message(now, message, out)
    }

    fn close(&mut self, now: Instant, out: &mut Output) {
        self.tell_of_media(out);
        self.quality.end(out.cells());
        self.transport.close(now, out);
    }
}

/// Whether a frame begins with a packet, as far as the ring of its layer tells.
fn begins_frame(rings: &[Ring], packet: &MediaPacket) -> bool {
    let ring = rings.get(usize::from(packet.layer));
    ring.is_some_and(|ring| ring.begins_frame(packet.seq))
}

#[cfg(test)]
mod tests;
