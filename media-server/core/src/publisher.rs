//! A publisher's session: opens what the device sends and hands it on at once; reports on it and
//! asks it for keyframes and for what was lost.

mod device_clock;
mod feedback;
mod missing;
mod stream;
mod track;

use crate::cells::{Drop, KeyframeCause, VideoLimit};
use crate::channel::Unsent;
use crate::clock::{compact, round_trip};
use crate::flow::Flow;
use crate::layers::Layers;
use crate::media::{MediaBatch, MediaPacket, TimeMapping, clock_rate, kind_index};
use crate::negotiated::{Codec, Kind, PayloadType};
use crate::output::{Output, SessionEvent};
use crate::pulse::Pulse;
use crate::rtcp;
use crate::rtp::numbering::Numbering;
use crate::rtp::size::picture_size;
use crate::rtp::{self, keyframe, red};
use crate::session::{Credentials, Received, Session, SessionConfig, Transport};
use crate::srtp::{OpenError, Opener};
use crate::stats::{Loss, Rates};
use device_clock::DeviceClock;
pub use feedback::Wanted;
use feedback::{Arrivals, Limit};
use std::sync::Arc;
use std::time::{Duration, Instant};
use stream::{Stream, extend};
use track::Track;

/// One keyframe answers every viewer that joined meanwhile, and costs the device several times a
/// normal frame. A request may be lost, or its keyframe: asked again at this pace until one starts.
const KEYFRAME_INTERVAL: Duration = Duration::from_millis(500);
/// A stream silent for this long yields to another of the same payload types.
const SILENT_STREAM: Duration = Duration::from_millis(500);
/// Stands for the round trip until one was measured.
const USUAL_ROUND_TRIP: Duration = Duration::from_millis(100);

/// See the module.
pub struct Publisher {
    transport: Transport,
    tracks: Vec<Track>,
    opener: Option<Opener>,
    /// One for each layer of the video; the first has the audio too.
    batches: Vec<MediaBatch>,
    /// As viewers see them; `None` without simulcast.
    layers: Option<Arc<Layers>>,
    /// SSRC of our reports.
    ssrc: u32,
    first_source: u64,
    next_source: u64,
    device_clock: DeviceClock,
    arrivals: Arrivals,
    /// If the device takes REMB.
    limit: Option<Limit>,
    tick: Option<Instant>,
    rates: Rates,
    loss: Loss,
    pulse: Arc<Pulse>,
}

impl Publisher {
    pub fn new(now: Instant, config: SessionConfig) -> Self {
        let tracks: Vec<Track> = config.negotiated.tracks.iter().map(Track::new).collect();
        let layers = tracks.iter().map(|track| track.layers.len()).max();
        let id = u128::from_be_bytes(config.id.0);
        Publisher {
            batches: (0..layers.unwrap_or(1))
                .map(|_| MediaBatch::default())
                .collect(),
            layers: None,
            tracks,
            opener: None,
            ssrc: id as u32 | 1,
            // Sources of different sessions differ in their upper bits.
            first_source: (id as u64) << 8,
            next_source: (id as u64) << 8,
            device_clock: DeviceClock::default(),
            arrivals: Arrivals::default(),
            limit: config.negotiated.remb.then(Limit::default),
            tick: None,
            rates: Rates::default(),
            loss: Loss::default(),
            pulse: Arc::new(Pulse::new(now)),
            transport: Transport::new(now, config),
        }
    }

    /// Its signs, for its viewers.
    pub fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// What arrived of one layer since the last call; of another while [`has_batch`](Self::has_batch).
    pub fn take_batch(&mut self) -> MediaBatch {
        let filled = self.batches.iter().position(|batch| !batch.is_empty());
        let Some(batch) = self.batches.get_mut(filled.unwrap_or(0)) else {
            return MediaBatch::default();
        };
        batch.layers.clone_from(&self.layers);
        let next = batch.next();
        let mut batch = std::mem::replace(batch, next);
        batch.trim();
        batch
    }

    pub fn has_batch(&self) -> bool {
        self.batches.iter().any(|batch| !batch.is_empty())
    }

    /// Asks the device for a keyframe of a layer, now or as soon as the last request is old enough.
    pub fn request_keyframe(
        &mut self,
        now: Instant,
        layer: u8,
        cause: KeyframeCause,
        out: &mut Output,
    ) {
        let mut video = self.tracks.iter_mut().filter(|t| t.kind == Kind::Video);
        let layers = video.next().map(|track| &mut track.layers);
        // A viewer may name one of the publisher before.
        if let Some(layer) = layers.and_then(|layers| layers.get_mut(usize::from(layer))) {
            layer.want_keyframe(cause);
        }
        self.ask_for_keyframes(now, out);
    }

    fn ask_for_keyframes(&mut self, now: Instant, out: &mut Output) {
        if self.transport.media_path().is_none() {
            return;
        }
        let video = self.tracks.iter_mut().filter(|t| t.kind == Kind::Video);
        for layer in video.flat_map(|track| &mut track.layers) {
            let Some((media, cause)) = layer.keyframe_to_ask(now) else {
                continue;
            };
            let mut compound = rtcp::Writer::default();
            compound.receiver_report(self.ssrc, &[]);
            compound.cname(self.ssrc, "media");
            compound.picture_loss(self.ssrc, media);
            self.transport.send_rtcp(&compound, out);
            out.cells().count_keyframe_request(cause);
            layer.keyframe_asked = Some(now);
        }
    }

    /// Next time that a wanted keyframe is asked for.
    fn keyframe_due(&self) -> Option<Instant> {
        self.tracks.iter().filter_map(Track::keyframe_due).min()
    }

    fn handle_rtp(&mut self, now: Instant, packet: &mut [u8], out: &mut Output) {
        let Some(header) = rtp::Header::parse(packet) else {
            return out.drop(Drop::Malformed);
        };
        let pt = header.payload_type;
        let found = self.tracks.iter_mut().find_map(|track| {
            let agreed = |p: &&PayloadType| p.pt == pt || p.rtx == Some(pt);
            let payload_type = track.payload_types.iter().find(agreed)?.clone();
            Some((track, payload_type))
        });
        let (Some((track, payload_type)), Some(opener)) = (found, self.opener.as_mut()) else {
            return out.drop(Drop::UnknownStream);
        };
        let opened = match opener.open(header.ssrc, header.seq, packet, header.len) {
            Ok(opened) => opened,
            Err(OpenError::Replay) => return out.drop(Drop::SrtpReplay),
            Err(OpenError::Unauthenticated) => return out.drop(Drop::SrtpUnauthenticated),
            Err(OpenError::Streams) => return out.drop(Drop::UnknownStream),
        };
        self.transport.heard(now);
        if let Some(id) = track.extensions.transport_cc
            && let Some(seq) = header.transport_seq(packet, id)
            && !self.arrivals.note(now, seq)
        {
            out.drop(Drop::Feedback);
        }
        let (kind, codec) = (track.kind, payload_type.codec);
        let is_video = kind == Kind::Video;
        let repairs = payload_type.rtx == Some(pt);
        if repairs || !is_video {
            self.pulse.hear(now);
        }
        let at = match track.layer_of(&header, packet, repairs) {
            Ok(at) => at,
            Err(reason) => return out.drop(reason),
        };
        let layer = &mut track.layers[at];
        let mut heard_before = None;
        let (stream, seq, payload, new_frame) = if repairs {
            // The original sequence number goes in front of the payload (RFC 4588 §4).
            let Some((original, payload)) = packet[header.len..opened.end].split_first_chunk()
            else {
                return out.drop(Drop::Malformed);
            };
            let Some(stream) = layer.stream_of_repair(header.ssrc) else {
                return out.drop(Drop::UnknownStream);
            };
            let seq = extend(stream.highest_seq, u16::from_be_bytes(*original));
            if stream.missing.arrived(seq).is_none() {
                // Came twice, or fills the line to probe it.
                return out.drop(Drop::Duplicate);
            }
            stream.heard = now;
            out.cells().count_retransmitted_in();
            (stream, seq, payload, false)
        } else {
            let Some(stream) = layer.stream_for(now, &header, opened.index, &mut self.next_source)
            else {
                return out.drop(Drop::UnknownStream);
            };
            let late = payload_type.nack && opened.index < stream.highest_seq;
            let asked = late && stream.missing.arrived(opened.index).is_some_and(|n| n > 0);
            let mut new_frame = false;
            if asked {
                // A device without a stream for repair sends the lost packet itself once more. To
                // count it as received would hide the loss.
                stream.heard = now;
                out.cells().count_retransmitted_in();
            } else {
                new_frame = stream.received == 0
                    || header.timestamp != stream.timestamp && opened.index > stream.highest_seq;
                heard_before = Some(stream.heard);
                if is_video {
                    self.pulse.picture(now, |pause| {
                        stream.was_cut_off(pause, header.timestamp, opened.index)
                    });
                }
                let nack = payload_type.nack;
                let given_up =
                    stream.handle_packet(now, header.timestamp, opened.index, kind, nack);
                out.cells().count_drops(Drop::NackOverflow, given_up);
            }
            let payload = &packet[header.len..opened.end];
            (stream, opened.index, payload, new_frame)
        };
        if codec == Codec::Red && red::primary(payload).is_none() {
            return out.drop(Drop::Malformed);
        }
        let source = stream.source;
        // Frames are counted by layer: all layers show the same ones.
        self.rates.add(payload.len(), is_video.then_some(false));
        layer
            .rates
            .add(payload.len(), is_video.then_some(new_frame));
        let starts_keyframe = keyframe::starts_keyframe(&codec, payload);
        if starts_keyframe && is_video {
            layer.keyframe_wanted = None;
        }
        if is_video && track.is_simulcast() {
            let size = if starts_keyframe {
                picture_size(&codec, payload)
            } else {
                None
            };
            let mut changed = track.layers[at].note_packet(size);
            // Told from the frame before, so that the first one after a pause tells nothing.
            if let Some(before) = heard_before.filter(|_| new_frame) {
                changed |= track.note_stopped(before);
            }
            if changed {
                self.layers = Some(Arc::new(track.describe(self.first_source)));
            }
        }
        let mut passed = rtp::Passed::default();
        for (id, value) in header.extensions(packet) {
            let id = Some(id);
            if id == track.extensions.video_orientation {
                passed.video_orientation = value.first().copied();
            } else if id == track.extensions.audio_level {
                passed.audio_level = value.first().copied();
            } else if id == track.extensions.dependency_descriptor {
                passed.dependency_descriptor = Some(value);
            }
        }
        let descriptor = passed.dependency_descriptor.unwrap_or_default();
        let numbering = Numbering::read(&codec, payload, descriptor);
        let batch = &mut self.batches[at];
        let dependency_descriptor = batch.append(descriptor);
        let payload = batch.append(payload);
        let packet = MediaPacket {
            kind,
            source,
            layer: at as u8,
            codec,
            seq,
            timestamp: header.timestamp,
            marker: header.marker,
            padding: header.padding,
            starts_keyframe,
            payload,
            video_orientation: passed.video_orientation,
            audio_level: passed.audio_level,
            dependency_descriptor,
            numbering,
        };
        batch.push(now, packet);
        // Until the device has reported, arrival stands for sending.
        let mapping = &mut batch.mappings[kind_index(kind)];
        let mapped = mapping.is_some_and(|m| m.source == source) && self.device_clock.is_known();
        if !repairs && !mapped {
            let ntp = self.transport.clock.ntp(now);
            *mapping = Some(TimeMapping {
                source,
                ntp,
                timestamp: header.timestamp,
                reported: false,
            });
        }
    }

    /// Asks again for what did not come.
    fn ask_for_missing(&mut self, now: Instant, out: &mut Output) {
        let round_trip = self.transport.cells.rtt().unwrap_or(USUAL_ROUND_TRIP);
        let layers = self.tracks.iter_mut().flat_map(|t| &mut t.layers);
        for stream in layers.filter_map(|layer| layer.stream.as_mut()) {
            let seqs = stream.missing.ask(now, round_trip);
            if seqs.is_empty() {
                continue;
            }
            let mut compound = rtcp::Writer::default();
            compound.receiver_report(self.ssrc, &[]);
            compound.cname(self.ssrc, "media");
            compound.nack(self.ssrc, stream.ssrc, &seqs);
            self.transport.send_rtcp(&compound, out);
            out.cells().count_nacked_out(seqs.len() as u64);
        }
    }

    /// Says which packets arrived (RFC 5506: without a report in front).
    fn report_arrivals(&mut self, out: &mut Output) {
        let media = self.video_or_any().map_or(0, |stream| stream.ssrc);
        let transport = &mut self.transport;
        self.arrivals.write([self.ssrc, media], |feedback| {
            transport.send_rtcp(feedback, out)
        });
    }

    /// Asks the device to send no more than is `wanted`, and `most` bits per second if that is anything.
    /// One with several layers has one for each viewer, and is asked for less only while nobody watches:
    /// it leaves out its upper ones then. One that does not take REMB is asked for nothing. Called once a
    /// second: so are the seconds counted in which its video is at the limit.
    pub fn limit_bandwidth(&mut self, now: Instant, wanted: Wanted, most: u64, out: &mut Output) {
        let Some(media) = self.video_or_any().map(|stream| stream.ssrc) else {
            return;
        };
        let simulcast = self.tracks.iter().find(|track| track.is_simulcast());
        let (wanted, most) = match (simulcast, wanted) {
            (None, wanted) => (wanted, most),
            // The limit is one of the whole transport.
            (Some(track), Wanted::Idle(_)) => (wanted, most * track.layers.len() as u64),
            (Some(track), _) => (Wanted::Any, most * track.layers.len() as u64),
        };
        let sent = self.transport.cells.bitrate_bps().unwrap_or_default() as u64;
        let (exceeds, reaches) = (sent * 10 > most * 11, sent * 10 >= most * 9);
        if exceeds {
            out.cells().count_video_limit(VideoLimit::Exceeded);
        } else if reaches {
            out.cells().count_video_limit(VideoLimit::Reached);
        }
        let limit = self.limit.as_mut();
        let Some(bits_per_second) = limit.and_then(|limit| limit.next(now, wanted, most, exceeds))
        else {
            return;
        };
        let mut compound = rtcp::Writer::default();
        compound.receiver_report(self.ssrc, &[]);
        compound.cname(self.ssrc, "media");
        compound.bandwidth(self.ssrc, media, bits_per_second);
        self.transport.send_rtcp(&compound, out);
    }

    fn video_or_any(&self) -> Option<&Stream> {
        let tracks = self.tracks.iter();
        let heard = tracks.flat_map(|t| {
            t.layers
                .iter()
                .filter_map(move |l| Some((t, l.stream.as_ref()?)))
        });
        let (_, stream) = heard.max_by_key(|(t, _)| t.kind == Kind::Video)?;
        Some(stream)
    }

    /// When the next missing packet is asked for.
    fn missing_due(&self) -> Option<Instant> {
        let layers = self.tracks.iter().flat_map(|t| &t.layers);
        let streams = layers.filter_map(|layer| layer.stream.as_ref());
        streams.filter_map(|stream| stream.missing.due()).min()
    }

    fn handle_rtcp(&mut self, now: Instant, compound: &[u8]) {
        let ntp_now = self.transport.clock.ntp(now);
        rtcp::read(compound, |item| match item {
            rtcp::Item::SenderInfo {
                ssrc,
                ntp,
                timestamp,
            } => {
                let streams = self.tracks.iter_mut().flat_map(|track| {
                    let layers = track.layers.iter_mut().enumerate();
                    layers.filter_map(|(at, l)| Some((track.kind, at, l.stream.as_mut()?)))
                });
                let mut of = streams.filter(|(_, _, stream)| stream.ssrc == ssrc);
                let Some((kind, at, stream)) = of.next() else {
                    return;
                };
                stream.sender_report = Some((compact(ntp), now));
                let Some(ntp) = self.device_clock.handle_report(ntp_now, ntp) else {
                    return;
                };
                let mapping = TimeMapping {
                    source: stream.source,
                    ntp,
                    timestamp,
                    reported: true,
                };
                self.batches[at].mappings[kind_index(kind)] = Some(mapping);
            }
            rtcp::Item::Dlrr { last_rr, delay } => {
                if let Some(rtt) = round_trip(ntp_now, last_rr, delay) {
                    self.transport.cells.set_rtt(rtt);
                }
            }
            rtcp::Item::Report(_)
            | rtcp::Item::KeyframeRequest { .. }
            | rtcp::Item::Lost { .. }
            | rtcp::Item::Bandwidth { .. } => {}
        });
    }

    /// Each second: receiver report, figures.
    fn tick(&mut self, now: Instant, out: &mut Output) {
        let mut blocks = Vec::with_capacity(4);
        let (mut expected, mut lost) = (0, 0);
        let layers = self.tracks.iter_mut().flat_map(|t| &mut t.layers);
        for stream in layers.filter_map(|layer| layer.stream.as_mut()) {
            let (block, expected_now, lost_now) = stream.report(now);
            blocks.push(block);
            expected += expected_now;
            lost += lost_now;
        }
        let mut compound = rtcp::Writer::default();
        compound.receiver_report(self.ssrc, &blocks);
        compound.cname(self.ssrc, "media");
        compound.receiver_time(self.ssrc, self.transport.clock.ntp(now));
        self.transport.send_rtcp(&compound, out);
        let mut frame_rate: f64 = 0.0;
        for layer in self.tracks.iter_mut().flat_map(|t| &mut t.layers) {
            layer.figures = layer.rates.roll(now).unwrap_or_default();
            frame_rate = frame_rate.max(layer.figures.0);
        }
        let cells = &self.transport.cells;
        self.loss.add(now, expected, lost);
        cells.set_loss(self.loss.ratio(now));
        if let Some((_, bits)) = self.rates.roll(now) {
            cells.set_rates(frame_rate, bits);
        }
        cells.set_totals(self.rates.packets, self.rates.bytes);
        self.tell_of_media(out);
        let cells = &self.transport.cells;
        if let Some(track) = self.tracks.iter().find(|t| t.is_simulcast()) {
            let layers = track.describe(self.first_source);
            let indexed = layers.all.iter().enumerate();
            indexed.for_each(|(at, layer)| cells.set_layer(at, layer));
            self.layers = Some(Arc::new(layers));
        }
        let best = self.layers.as_ref().and_then(|layers| layers.best());
        let stream = |track: &'_ Track| {
            let at = best.filter(|_| track.is_simulcast()).unwrap_or(0);
            let stream = track.layers.get(usize::from(at))?.stream.as_ref()?;
            Some((
                track.kind,
                f64::from(stream.jitter.ticks()) / f64::from(clock_rate(track.kind)),
            ))
        };
        let video_first = self.tracks.iter().filter_map(stream);
        if let Some((_, jitter)) = video_first.max_by_key(|(kind, _)| *kind == Kind::Video) {
            cells.set_jitter(jitter);
        }
    }
}

impl Publisher {
    fn tell_of_media(&mut self, out: &mut Output) {
        let layers = self.tracks.iter().flat_map(|t| &t.layers);
        let began = layers.filter_map(|layer| layer.began).min();
        if let Some(at) = began.filter(|_| self.rates.begins()) {
            out.events.push(SessionEvent::MediaBegan(at));
        }
    }
}

impl Session for Publisher {
    fn handle_datagram(&mut self, now: Instant, from: Flow, datagram: &mut [u8], out: &mut Output) {
        match self.transport.handle_datagram(now, from, datagram, out) {
            Received::Nothing => self.pulse.hear(self.transport.consented()),
            Received::Keyed(keys) => {
                self.opener = Some(Opener::new(keys.theirs));
                self.tick = Some(self.transport.next_tick(now));
                self.rates.roll(now);
                let layers = self.tracks.iter_mut().flat_map(|t| &mut t.layers);
                for layer in layers {
                    layer.rates.roll(now);
                }
            }
            Received::Rtp(packet) => {
                self.handle_rtp(now, packet, out);
                // A viewer may have asked before the first packet told whom to ask.
                self.ask_for_keyframes(now, out);
            }
            Received::Rtcp(compound) => {
                self.pulse.hear(now);
                self.handle_rtcp(now, compound);
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Output) {
        self.transport.handle_timeout(now, out);
        if self.tick.is_some_and(|at| now >= at) {
            self.tick(now, out);
            self.tick = Some(self.transport.next_tick(now));
        }
        if self.keyframe_due().is_some_and(|at| now >= at) {
            self.ask_for_keyframes(now, out);
        }
        if self.missing_due().is_some_and(|at| now >= at) {
            self.ask_for_missing(now, out);
        }
        if self.arrivals.due().is_some_and(|at| now >= at) {
            self.report_arrivals(out);
        }
    }

    fn poll_timeout(&self) -> Instant {
        let own = [
            self.tick,
            self.keyframe_due(),
            self.missing_due(),
            self.arrivals.due(),
        ];
        own.into_iter()
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
        self.transport.close(now, out);
    }
}

#[cfg(test)]
mod tests;
