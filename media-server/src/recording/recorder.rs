//! Packets of a device → bytes of a file: order, pictures, time, fragments.
//!
//! Told the time and given batches, it gives bytes to append; it opens nothing and waits for nothing.
//! The writer's thread owns one for each recording.

use super::codec_name;
use super::container::{Container, Format, Part};
use super::depacketize::Picture;
use super::frame::{Frame, Tracks, VideoTrack};
use super::mp4::usual_ticks;
use super::order::{Held, Next, Order};
use super::timeline::{Stamp, Timeline};
use media_core::clock::WallClock;
use media_core::media::{MediaBatch, clock_rate};
use media_core::negotiated::{Codec, Kind};
use media_core::rtp::red;
use media_core::rtp::size::picture_size;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Media of one fragment: what a crash loses at most, but for what is still on its way through here.
const FRAGMENT: u64 = 1_000_000;
/// A keyframe begins a fragment, so that the index knows it, unless one did just before: a device may send
/// nothing else.
const INDEX_EVERY: u64 = 100_000;
/// A kind of media that is behind the other by more is not waited for: longer than a lost packet is.
const STALLED: u64 = 2_000_000;
/// How often a keyframe is asked for while one is needed.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// A device that was away for so long does not come back: as long as its viewers wait for it.
const GONE_AFTER: Duration = Duration::from_secs(30);
/// How long a first picture is waited for.
const PICTURE_WITHIN: Duration = Duration::from_secs(30);
/// What a device sends is in its place after so much: a second for a lost packet, and one to get here. A picture
/// that nothing follows for so long is written without.
const LATE: Duration = Duration::from_secs(2);
/// A device that sent nothing for so long shows its last picture.
const STILL: Duration = Duration::from_secs(1);

/// What is asked of a file.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// `None`: by the codec.
    pub format: Option<Format>,
    /// Name of the only codec that will do, if one was named.
    pub codec: Option<&'static str>,
    pub max: Option<Duration>,
}

/// Why a file can't go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It is as long as it may be.
    MaxDuration,
    /// The device was not there for too long.
    Gone,
    /// No picture came that it could begin with.
    NoPicture,
    /// The device went over to another codec, which this file can't hold.
    CodecChanged,
    /// The format that was asked for does not hold what the device sends.
    Format(Codec, Format),
    /// The device sends another codec than the one that was asked for.
    Codec(Codec, &'static str),
}

/// What came of it so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    pub pictures: u64,
    pub micros: u64,
    pub width: u16,
    pub height: u16,
    /// Times that video was lost and a keyframe had to be waited for.
    pub gaps: u64,
}

/// See the module.
pub struct Recorder {
    clock: WallClock,
    wanted: Wanted,
    max_micros: u64,
    /// When it was asked for.
    begun: Instant,
    /// Since when the device is away.
    gone: Option<Instant>,
    orders: [Order; 2],
    timelines: [Timeline; 2],
    picture: Option<Picture>,
    /// What the picture under way is of.
    under_way: Option<Stamp>,
    /// Packets are skipped up to the end of a picture that has lost some; its timestamp, once one came.
    skipping: bool,
    skipped: Option<u32>,
    /// The device marks the last packet of a picture.
    marks: bool,
    needs_keyframe: bool,
    asked: Option<Instant>,
    /// Wall-clock time (NTP) that the file begins at, and when its first picture was there.
    start: Option<u64>,
    began: Option<Instant>,
    first: Option<VideoTrack>,
    /// Sound came, in time to have a track.
    heard: bool,
    /// Frames that no fragment has yet, in the order of their times.
    pending: Vec<Frame>,
    /// Time of the newest frame of each kind, in microseconds.
    newest: [Option<u64>; 2],
    /// When the last frame of all came.
    came: Option<Instant>,
    /// All before it has been given out.
    given: u64,
    /// Time of the last keyframe that began a fragment.
    indexed: Option<u64>,
    container: Option<Container>,
    progress: Progress,
    ended: Option<End>,
}

impl Recorder {
    /// Of a recording that was begun then.
    pub fn new(clock: WallClock, begun: Instant, wanted: Wanted) -> Recorder {
        let max = wanted.max.map(|max| u64::try_from(max.as_micros()));
        Recorder {
            clock,
            wanted,
            max_micros: max.and_then(Result::ok).unwrap_or(u64::MAX),
            begun,
            gone: None,
            orders: Default::default(),
            timelines: [Timeline::new(Kind::Audio), Timeline::new(Kind::Video)],
            picture: None,
            under_way: None,
            skipping: false,
            skipped: None,
            marks: false,
            needs_keyframe: true,
            asked: None,
            start: None,
            began: None,
            first: None,
            heard: false,
            pending: Vec::new(),
            newest: [None; 2],
            came: None,
            given: 0,
            indexed: None,
            container: None,
            progress: Progress::default(),
            ended: None,
        }
    }

    /// Takes the media of a batch, of video that of one simulcast layer. `after_gap`: some before it is
    /// missing.
    pub fn handle_batch(
        &mut self,
        now: Instant,
        batch: &Arc<MediaBatch>,
        layer: u8,
        after_gap: bool,
    ) {
        if after_gap {
            for order in &mut self.orders {
                if let Some(source) = order.source() {
                    order.follow(source);
                }
            }
            self.lose_picture();
        }
        // Of what came before it is asked for, pictures alone are of use.
        let early = batch.arrived().is_some_and(|at| at < self.begun);
        for (index, packet) in batch.packets().iter().enumerate() {
            let left_out = match packet.kind {
                Kind::Video => packet.layer != layer,
                Kind::Audio => early,
            };
            if left_out {
                continue;
            }
            self.heard |= packet.kind == Kind::Audio && self.container.is_none();
            let order = &mut self.orders[kind_index(packet.kind)];
            if order.source() != Some(packet.source) {
                let first = order.source().is_none();
                order.follow(packet.source);
                if packet.kind == Kind::Video && !first {
                    self.begin_anew();
                    self.skipping = false;
                }
            }
            let batch = batch.clone();
            self.orders[kind_index(packet.kind)].push(now, Held { batch, index });
        }
        self.drain(now, false);
    }

    /// Notes whether the device is there, which it also is while it has nothing to send.
    pub fn handle_device(&mut self, now: Instant, there: bool) {
        self.gone = (!there).then(|| self.gone.unwrap_or(now));
    }

    /// Gives up what was waited for long enough. Called every few milliseconds, when all that has come was given.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.drain(now, false);
        if self.ended.is_none() {
            self.stand(now);
            self.ended = self.over(now);
        }
    }

    /// While nothing comes because nothing moves, the last picture stands for it, as long as the device is there.
    fn stand(&mut self, now: Instant) {
        let newest = self.newest.iter().flatten().max();
        if let (Some(came), Some(newest)) = (self.came, newest) {
            let until = self.gone.map_or(now, |gone| gone.min(now));
            let stood = until.saturating_duration_since(came);
            if stood > STILL {
                let end = newest + stood.as_micros() as u64;
                self.progress.micros = self.progress.micros.max(end).min(self.max_micros);
            }
        }
    }

    /// Why it ends now though nothing came that would end it.
    fn over(&self, now: Instant) -> Option<End> {
        let since = |at: Instant| now.saturating_duration_since(at);
        if self.gone.is_some_and(|gone| since(gone) > GONE_AFTER) {
            return Some(End::Gone);
        }
        match (self.began, self.wanted.max) {
            (None, _) if since(self.begun) > PICTURE_WITHIN => Some(End::NoPicture),
            (Some(began), Some(max)) if since(began) > max.saturating_add(LATE) => {
                Some(End::MaxDuration)
            }
            _ => None,
        }
    }

    fn drain(&mut self, now: Instant, end: bool) {
        while self.ended.is_none()
            && let Some(next) = self.orders[kind_index(Kind::Video)].pop(now, end)
        {
            match next {
                Next::Packet(held) => self.take_video(now, &held),
                Next::Gap => self.lose_picture(),
            }
        }
        while let Some(next) = self.orders[kind_index(Kind::Audio)].pop(now, end) {
            if let Next::Packet(held) = next {
                self.take_audio(now, &held);
            }
        }
    }

    /// Whether it is time to ask the device for a keyframe.
    pub fn poll_keyframe(&mut self, now: Instant) -> bool {
        let asked = self.asked.is_some_and(|at| now < at + ASK_EVERY);
        let ask = self.needs_keyframe && self.ended.is_none() && !asked;
        if ask {
            self.asked = Some(now);
        }
        ask
    }

    /// The next part of the file.
    pub fn poll_output(&mut self, now: Instant) -> Option<Part> {
        if self.container.is_none() && !self.knows_tracks(now) {
            return None;
        }
        let newest = self.newest.iter().flatten();
        let last = newest.clone().max()?;
        let stalled = |at: &&u64| *at + STALLED < *last;
        // Nothing from before comes any more.
        let complete = *newest.filter(|at| !stalled(at)).min()?;
        if let Some(count) = self.fragment_len(complete) {
            return Some(self.give(count));
        }
        // Nothing moves: a crash would take the picture that stands.
        let still = self.came.is_some_and(|came| now >= came + LATE);
        let waits = still && self.first.is_some() && !self.pending.is_empty();
        waits.then(|| self.give_rest())
    }

    /// Whether it is time to say which tracks there are. The first picture may be one from the cache, with
    /// seconds of others behind it, and a first packet of sound may wait for one before it.
    fn knows_tracks(&self, now: Instant) -> bool {
        let awaited = self.heard && self.newest[kind_index(Kind::Audio)].is_none();
        let within = Duration::from_micros(if awaited { STALLED } else { FRAGMENT });
        self.began.is_some_and(|began| now >= began + within)
    }

    /// Frames of the next fragment, if all of them are there.
    fn fragment_len(&self, complete: u64) -> Option<usize> {
        let first = self.pending.first()?;
        let start = first.micros();
        let indexed = is_keyframe(first).then_some(start).or(self.indexed);
        let ends = |frame: &Frame| {
            let at = frame.micros();
            let due = || indexed.is_none_or(|last| at >= last + INDEX_EVERY);
            at >= start + FRAGMENT || is_keyframe(frame) && due()
        };
        let count = 1 + self.pending.iter().skip(1).position(ends)?;
        (self.pending[count].micros() <= complete).then_some(count)
    }

    /// The next fragment of what is there, wherever it ends.
    fn give_rest(&mut self) -> Part {
        let count = self.fragment_len(u64::MAX);
        self.give(count.unwrap_or(self.pending.len()))
    }

    fn give(&mut self, count: usize) -> Part {
        let Some(video) = &self.first else {
            return Part::default();
        };
        let mut bytes = Vec::new();
        let mut fragment: Vec<Frame> = self.pending.drain(..count).collect();
        let container = self.container.get_or_insert_with(|| {
            let tracks = Tracks {
                video: video.clone(),
                audio: self.heard,
            };
            let format = self.wanted.format.unwrap_or(Format::of(&video.codec));
            let (container, header) = Container::new(format, &tracks);
            bytes = header;
            container
        });
        if !self.heard {
            fragment.retain(|frame| frame.kind == Kind::Video);
        }
        self.given = fragment.last().map_or(self.given, Frame::micros);
        let first = fragment.first().filter(|frame| is_keyframe(frame));
        self.indexed = first.map(Frame::micros).or(self.indexed);
        let part = container.fragment(&fragment, &self.pending);
        bytes.extend(part.bytes);
        Part { bytes, ..part }
    }

    /// Ends the file: the last parts. `None` if there never was a picture.
    pub fn finish(&mut self, now: Instant) -> Option<Vec<Part>> {
        let gaps = self.progress.gaps;
        self.drain(now, true);
        // What is missing now may be on its way, and is not lost.
        self.progress.gaps = gaps;
        if !self.marks {
            self.finish_picture(now);
        }
        self.stand(now);
        let mut parts = Vec::new();
        while self.first.is_some() && !self.pending.is_empty() {
            parts.push(self.give_rest());
        }
        parts.push(self.container.as_mut()?.finish(self.progress.micros));
        Some(parts)
    }

    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// When the file begins, since the Unix epoch, once it does: when it was asked for, or with the first picture
    /// that came.
    pub fn start(&self) -> Option<Duration> {
        self.start.map(WallClock::unix_seconds)
    }

    /// The format of the file, once that is settled.
    pub fn format(&self) -> Option<Format> {
        let by_codec = || Some(Format::of(&self.first.as_ref()?.codec));
        self.wanted.format.or_else(by_codec)
    }

    /// Why the file can't go on, once that is so.
    pub fn ended(&self) -> Option<&End> {
        self.ended.as_ref()
    }

    fn take_video(&mut self, now: Instant, held: &Held) {
        let packet = held.packet();
        if !self.fits(&packet.codec) {
            return;
        }
        let payload = held.payload();
        self.marks |= packet.marker;
        // The first of a keyframe says its size: whatever was lost before it is not missed.
        if packet.starts_keyframe && picture_size(&packet.codec, payload).is_some() {
            self.skipping = false;
        }
        if self.skipping {
            let same = *self.skipped.get_or_insert(packet.timestamp) == packet.timestamp;
            self.skipping = same && !packet.marker;
            if same {
                return;
            }
        }
        if self
            .under_way
            .is_some_and(|stamp| stamp.timestamp != packet.timestamp)
        {
            // A device that marks no end.
            self.finish_picture(now);
        }
        self.under_way = Some(self.stamp(held));
        let picture = self
            .picture
            .get_or_insert_with(|| Picture::new(packet.codec.clone()));
        let useless = self.needs_keyframe && !picture.is_key() && !packet.starts_keyframe;
        if !payload.is_empty() && !useless && picture.push(payload, packet.starts_keyframe).is_err()
        {
            self.lose_picture();
            self.skipped = Some(packet.timestamp);
        }
        if packet.marker {
            self.finish_picture(now);
            self.skipping = false;
        }
    }

    /// Whether the file can hold a picture of that codec; if not, it ends.
    fn fits(&mut self, codec: &Codec) -> bool {
        let same = |a: &Codec, b: &Codec| std::mem::discriminant(a) == std::mem::discriminant(b);
        let Wanted {
            format,
            codec: named,
            ..
        } = self.wanted;
        if let Some(named) = named.filter(|named| *named != codec_name(codec)) {
            self.ended = Some(End::Codec(codec.clone(), named));
        } else if let Some(format) = format.filter(|format| !format.holds(codec)) {
            self.ended = Some(End::Format(codec.clone(), format));
        }
        let known = self.picture.as_ref().map(Picture::codec);
        if known.is_some_and(|known| !same(known, codec)) {
            if self.start.is_some() {
                self.ended = Some(End::CodecChanged);
            }
            self.picture = None;
        }
        self.ended.is_none()
    }

    fn stamp(&self, held: &Held) -> Stamp {
        let packet = held.packet();
        let arrived = held
            .batch
            .arrived()
            .expect("a batch with a packet has arrived");
        Stamp {
            source: packet.source,
            timestamp: packet.timestamp,
            mapping: held.batch.mapping(packet.kind),
            arrived: self.clock.ntp(arrived),
        }
    }

    /// Some of the device's video is missing.
    fn lose_picture(&mut self) {
        self.progress.gaps += u64::from(self.begin_anew());
    }

    /// What there is of the picture under way is of no use, nor is what follows up to a keyframe. Returns
    /// whether what would have followed was.
    fn begin_anew(&mut self) -> bool {
        if let Some(picture) = &mut self.picture {
            picture.drop_rest();
        }
        self.under_way = None;
        self.skipping = true;
        self.skipped = None;
        let went_on = !std::mem::replace(&mut self.needs_keyframe, true);
        if went_on {
            self.asked = None;
        }
        went_on
    }

    fn finish_picture(&mut self, now: Instant) {
        let (Some(stamp), Some(picture)) = (self.under_way.take(), &mut self.picture) else {
            return;
        };
        let (data, key) = match picture.take() {
            Ok(Some(taken)) => taken,
            Ok(None) => return,
            Err(_) => return self.lose_picture(),
        };
        if self.needs_keyframe && !(key && picture.can_begin()) {
            return;
        }
        self.needs_keyframe = false;
        if let Some((width, height)) = picture.size().filter(|_| key) {
            (self.progress.width, self.progress.height) = (width, height);
            self.first.get_or_insert_with(|| VideoTrack {
                codec: picture.codec().clone(),
                width,
                height,
                headers: picture.headers().clone(),
            });
        }
        if self.start.is_none() {
            self.start = Some(stamp.wall_time().max(self.clock.ntp(self.begun)));
            self.began = Some(now);
        }
        self.add(now, Kind::Video, stamp, key, data);
    }

    fn take_audio(&mut self, now: Instant, held: &Held) {
        let payload = held.payload();
        let payload = match held.packet().codec {
            Codec::Red => red::primary(payload).map_or(&[][..], |at| &payload[at..]),
            _ => payload,
        };
        if self.start.is_some() && !payload.is_empty() {
            self.add(now, Kind::Audio, self.stamp(held), true, payload.to_vec());
        }
    }

    fn add(&mut self, now: Instant, kind: Kind, stamp: Stamp, key: bool, data: Vec<u8>) {
        let (at, Some(start)) = (kind_index(kind), self.start) else {
            return;
        };
        let Stamp {
            source,
            timestamp,
            mapping,
            arrived,
        } = stamp;
        let line = &mut self.timelines[at];
        // Others depend on a picture: one from before the start, or whose place has been given out, comes
        // as soon as it can.
        let given = u128::from(self.given) * u128::from(clock_rate(kind));
        let least = (kind == Kind::Video).then(|| given.div_ceil(1_000_000) as i64);
        let Some(time) = line.place(source, timestamp, mapping, start, arrived, least) else {
            return;
        };
        let frame = Frame {
            kind,
            time,
            key,
            data,
        };
        let micros = frame.micros();
        if micros >= self.max_micros {
            self.ended.get_or_insert(End::MaxDuration);
            return;
        }
        self.newest[at] = Some(micros);
        self.came = Some(now);
        // It was not waited for, and its place has been given out.
        if micros < self.given || kind == Kind::Audio && !self.heard {
            return;
        }
        let end = micros + usual_ticks(kind) * 1_000_000 / u64::from(clock_rate(kind));
        self.progress.micros = self.progress.micros.max(end).min(self.max_micros);
        self.progress.pictures += u64::from(kind == Kind::Video);
        let order = |frame: &Frame| (frame.micros(), frame.kind == Kind::Audio);
        let place = self
            .pending
            .partition_point(|other| order(other) <= order(&frame));
        self.pending.insert(place, frame);
    }
}

fn is_keyframe(frame: &Frame) -> bool {
    frame.kind == Kind::Video && frame.key
}

fn kind_index(kind: Kind) -> usize {
    match kind {
        Kind::Audio => 0,
        Kind::Video => 1,
    }
}

#[cfg(test)]
mod tests;
