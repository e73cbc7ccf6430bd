//! The thread of one recording: takes what its tap holds, writes what the recorder makes of it.
//!
//! It looks every few milliseconds by itself, so that the shard need not wake it. A write that fails ends
//! the recording and nothing else: what was written before stays whole.

use super::container::Part;
use super::recorder::{End, Recorder};
use super::store::State;
use super::{Active, Format, Inner, StartError, lock};
use crate::clock::rfc3339;
use crate::shard::Tapping;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

/// How often it looks: some packets of 20 ms fit many times into the tap.
const TURN: Duration = Duration::from_millis(20);
/// How often the note says how far it is: what a crash leaves is told from that.
const NOTE_EVERY: Duration = Duration::from_secs(5);
const UNNOTED: &str = "the end of a recording could not be written down";
const NO_PICTURE: &str = "the device sent no picture that a file could begin with";

/// Why a recording ended, where nobody asked for it.
#[derive(Debug)]
enum Over {
    Asked,
    File(End),
    Quota,
    Disk(io::Error),
}

impl Over {
    fn state(&self) -> State {
        match self {
            Over::Asked | Over::File(End::MaxDuration | End::CodecChanged | End::Gone) => {
                State::Completed
            }
            Over::File(End::NoPicture | End::Format(..) | End::Codec(..))
            | Over::Quota
            | Over::Disk(_) => State::Failed,
        }
    }

    fn reason(&self) -> Option<String> {
        match self {
            Over::Asked => None,
            Over::File(End::Gone) => Some("the device was gone for 30 s".to_owned()),
            Over::File(End::NoPicture) => Some(format!("{NO_PICTURE} for 30 s")),
            Over::File(End::MaxDuration) => Some("it was as long as it may be".to_owned()),
            Over::File(End::CodecChanged) => {
                Some("the device went over to another codec".to_owned())
            }
            Over::File(End::Format(codec, format)) => {
                let (codec, format) = (codec.clone(), *format);
                Some(StartError::Format { codec, format }.to_string())
            }
            Over::File(End::Codec(codec, asked)) => {
                let (codec, asked) = (codec.clone(), *asked);
                Some(StartError::Codec { codec, asked }.to_string())
            }
            Over::Quota => Some("recordings take as much as they may".to_owned()),
            Over::Disk(error) if error.kind() == io::ErrorKind::StorageFull => {
                Some("the disk is full".to_owned())
            }
            Over::Disk(error) => Some(format!("failed to write: {error}")),
        }
    }
}

/// See the module.
pub(super) struct Writer {
    inner: Arc<Inner>,
    active: Arc<Active>,
    recorder: Recorder,
    tapping: Tapping,
    /// Made with the first bytes: its name tells the format, which the codec may decide.
    file: Option<File>,
    written: u64,
    /// When the note was written last.
    noted: Instant,
    /// Gaps that were counted.
    lost: u64,
    overflowed: u64,
}

impl Writer {
    pub(super) fn new(
        inner: Arc<Inner>,
        active: Arc<Active>,
        recorder: Recorder,
        tapping: Tapping,
    ) -> Writer {
        Writer {
            inner,
            active,
            recorder,
            tapping,
            file: None,
            written: 0,
            noted: Instant::now(),
            lost: 0,
            overflowed: 0,
        }
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// If the system has none left.
    pub(super) fn spawn(self) -> io::Result<()> {
        let thread = std::thread::Builder::new().name("recording".to_owned());
        thread.spawn(move || self.run()).map(drop)
    }

    fn run(mut self) {
        let _ends = Ends(self.inner.clone(), self.active.clone());
        let (events, session) = (&self.inner.events, &self.active.session);
        events.recording_started(session, &self.active.file_name());
        let over = loop {
            if let Some(over) = self.turn() {
                break over;
            }
            std::thread::sleep(TURN);
        };
        self.end(over);
    }

    /// Takes and writes what there is; says why it is over, once it is.
    fn turn(&mut self) -> Option<Over> {
        let stopping = self.active.is_stopping();
        let now = Instant::now();
        self.take(now);
        if self.recorder.poll_keyframe(now) {
            self.tapping.want_keyframe();
        }
        while let Some(part) = self.recorder.poll_output(now) {
            if let Err(error) = self.write(&part) {
                return Some(Over::Disk(error));
            }
            // A fragment too much, so that the file can be completed.
            if self.inner.room() == 0 {
                return Some(Over::Quota);
            }
        }
        self.tell();
        if let Some(end) = self.recorder.ended() {
            return Some(Over::File(end.clone()));
        }
        if stopping {
            return Some(Over::Asked);
        }
        if now >= self.noted + NOTE_EVERY {
            self.noted = now;
            return self.note().err().map(Over::Disk);
        }
        None
    }

    /// Takes all that there is. What has waited while the disk was slow ends nothing that it goes on with: whether
    /// it is over is looked at behind it.
    fn take(&mut self, now: Instant) {
        let there = self.tapping.has_publisher();
        self.recorder.handle_device(now, there);
        while let Some(tapped) = self.tapping.next() {
            self.recorder
                .handle_batch(now, &tapped.batch, tapped.layer, tapped.after_gap);
        }
        self.recorder.handle_timeout(now);
    }

    /// Writes down what is known of it.
    fn note(&self) -> io::Result<()> {
        let note = self.active.note();
        self.inner.store.note(self.active.id, &note).map(drop)
    }

    /// Completes the file, as far as the disk lets it, and writes down how it ended.
    fn end(&mut self, over: Over) {
        let mut over = over;
        let ending = self.recorder.finish(Instant::now());
        let had_picture = ending.is_some();
        if let Some(parts) = ending
            && !matches!(over, Over::Disk(_))
            && let Err(error) = self.complete(&parts)
        {
            over = Over::Disk(error);
        }
        self.tell();
        let (mut state, mut reason) = (over.state(), over.reason());
        if !had_picture && state == State::Completed {
            state = State::Failed;
            reason = Some(NO_PICTURE.to_owned());
        }
        let counts = &self.inner.counts;
        match (state, over) {
            (State::Completed, _) => counts.completed.fetch_add(1, Relaxed),
            (_, Over::Quota | Over::Disk(_)) => counts.failed.fetch_add(1, Relaxed),
            _ => counts.empty.fetch_add(1, Relaxed),
        };
        tell_end(&self.inner, &self.active, state, reason);
    }

    fn complete(&mut self, parts: &[Part]) -> io::Result<()> {
        parts.iter().try_for_each(|part| self.write(part))?;
        let file = self.file.as_ref().expect("bytes were written");
        file.sync_all()
    }

    fn write(&mut self, part: &Part) -> io::Result<()> {
        self.append(&part.bytes)?;
        let file = self.file.as_ref().expect("bytes were written");
        for patch in &part.patches {
            file.write_all_at(&patch.bytes, patch.at)?;
        }
        Ok(())
    }

    /// Writes bytes at the end, all of them or none.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            let format = self.recorder.format().unwrap_or(Format::WebM);
            lock(&self.active.note).format = format.as_str().to_owned();
            self.file = Some(self.inner.store.create(self.active.id, format)?);
            self.note()?;
        }
        let file = self.file.as_ref().expect("it was made above");
        if let Err(error) = file.write_all_at(bytes, self.written) {
            // What is left of a part would be in a player's way.
            let _ = file.set_len(self.written);
            return Err(error);
        }
        self.written += bytes.len() as u64;
        self.inner.used.fetch_add(bytes.len() as u64, Relaxed);
        self.inner
            .counts
            .bytes
            .fetch_add(bytes.len() as u64, Relaxed);
        Ok(())
    }

    /// Writes down for others how far it is.
    fn tell(&mut self) {
        let progress = self.recorder.progress();
        let counts = &self.inner.counts;
        let lost = progress.gaps.saturating_sub(self.tapping.gaps());
        counts
            .gaps_lost
            .fetch_add(lost.saturating_sub(self.lost), Relaxed);
        self.lost = self.lost.max(lost);
        let overflowed = self.tapping.gaps();
        counts
            .gaps_overflow
            .fetch_add(overflowed - self.overflowed, Relaxed);
        self.overflowed = overflowed;
        let seconds = progress.micros as f64 / 1e6;
        let per_second = |count: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
        let mut note = lock(&self.active.note);
        if let (0, Some(start)) = (note.frames_written, self.recorder.start()) {
            note.started_at = rfc3339(SystemTime::UNIX_EPOCH + start);
        }
        note.file_size = self.written;
        note.duration_seconds = (seconds * 1e3).round() / 1e3;
        note.width = progress.width;
        note.height = progress.height;
        note.frames_written = progress.pictures;
        note.frame_rate = (per_second(progress.pictures as f64) * 10.0).round() / 10.0;
        note.bitrate = per_second(self.written as f64 * 8.0) as u64;
    }
}

/// Writes down how a recording ended, and tells whoever follows it.
fn tell_end(inner: &Inner, active: &Active, state: State, reason: Option<String>) {
    let id = active.id;
    let note = {
        let mut note = lock(&active.note);
        note.state = state;
        note.reason = reason;
        note.stopped_at = Some(rfc3339(SystemTime::now()));
        note.clone()
    };
    let written = inner.store.note(id, &note);
    if let Err(error) = written.and_then(|_| inner.store.sync(id)) {
        tracing::warn!(recording = %id, %error, "{UNNOTED}");
    }
    tracing::info!(
        recording = %id,
        device_id = %active.device(),
        seconds = note.duration_seconds,
        bytes = note.file_size,
        reason = note.reason.as_deref().unwrap_or("stopped"),
        "recording ended"
    );
    inner.events.recording_stopped(
        &active.session,
        &active.file_name(),
        Duration::from_secs_f64(note.duration_seconds),
    );
}

/// Ends a recording with its thread, also where that panics: nothing waits for it in vain.
pub(super) struct Ends(pub(super) Arc<Inner>, pub(super) Arc<Active>);

impl Drop for Ends {
    fn drop(&mut self) {
        let Ends(inner, active) = self;
        if std::thread::panicking() {
            inner.counts.failed.fetch_add(1, Relaxed);
            let reason = "a fault of the server ended it".to_owned();
            tell_end(inner, active, State::Failed, Some(reason));
        }
        active.end(inner);
    }
}
