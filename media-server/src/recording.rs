//! Recordings: which are under way, which there are on the disk, and how much they may take.
//!
//! Owns the folder and a thread for each recording. A shard gives media into a tap and never waits (see
//! `shard/tap.rs`); the thread puts it together and writes. Called by the API, and by the app at the end.

mod container;
mod depacketize;
mod frame;
mod headers;
mod mp4;
mod order;
mod recorder;
mod store;
#[cfg(test)]
pub(crate) mod testing;
mod timeline;
mod webm;
mod writer;

pub use container::Format;
pub use store::{Note, State};

use crate::clock::rfc3339;
use crate::config::{Config, RecordingConfig};
use crate::events::Events;
use crate::registry::Record;
use crate::shard::{MailboxError, Shards, Tap, tap};
use media_core::ids::SessionId;
use media_core::negotiated::Codec;
use recorder::Recorder;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use store::Store;
use tokio::sync::watch;
use writer::Writer;

/// Recordings at once. Each is a thread, and some MiB while the disk is slow.
const MOST: usize = 64;
/// How long a stop is waited for: a slow disk has time to take what is still in memory.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Why a recording does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("recording is off: the server was started without --recording-dir")]
    Off,
    #[error("{MOST} recordings are under way, which is the most")]
    Busy,
    #[error("recordings take {used} of {limit} bytes; delete some")]
    Full { used: u64, limit: u64 },
    #[error("the device sends {}, which {} does not hold", codec_name(.codec), .format.as_str())]
    Format { codec: Codec, format: Format },
    #[error("unsupported codec: {asked}")]
    UnknownCodec { asked: String },
    #[error("the device sends {}, not {asked}", codec_name(.codec))]
    Codec { codec: Codec, asked: String },
    #[error("{0}")]
    Shard(#[from] MailboxError),
    #[error("failed to write to the recording folder: {0}")]
    Disk(#[from] io::Error),
}

/// Why the folder can't be used.
#[derive(Debug, thiserror::Error)]
#[error("failed to use {path} for recordings")]
pub struct FolderError {
    path: PathBuf,
    source: io::Error,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    pub session: Arc<Record>,
    /// `None`: by the codec.
    pub format: Option<Format>,
    /// Name of the only codec that will do, if one was named.
    pub codec: Option<String>,
    pub max: Option<Duration>,
}

/// A recording under way, or just ended.
pub struct Active {
    pub id: SessionId,
    session: Arc<Record>,
    started: SystemTime,
    note: Mutex<Note>,
    over: watch::Sender<bool>,
}

impl Active {
    /// The key of its device, see `devices.rs`.
    pub fn device(&self) -> &Arc<str> {
        &self.session.device
    }

    /// What is known of it now.
    pub fn note(&self) -> Note {
        lock(&self.note).clone()
    }
}

/// Totals of the process, for metrics.
#[derive(Debug, Default)]
pub struct Counts {
    pub completed: AtomicU64,
    pub failed: AtomicU64,
    pub bytes: AtomicU64,
    /// Gaps because the writer did not keep up, and because the device's packets did not come.
    pub gaps_overflow: AtomicU64,
    pub gaps_lost: AtomicU64,
}

/// All recordings.
pub struct Recordings {
    inner: Option<Arc<Inner>>,
    pub counts: Arc<Counts>,
}

struct Inner {
    store: Store,
    shards: Shards,
    events: Arc<Events>,
    ordinal: u16,
    config: RecordingConfig,
    counts: Arc<Counts>,
    active: Mutex<HashMap<SessionId, Arc<Active>>>,
    /// Bytes that all recordings take, as far as this process knows.
    used: AtomicU64,
}

impl Recordings {
    /// Opens the folder, if there is to be one. What a process before this one left unfinished is marked.
    ///
    /// # Errors
    /// [`FolderError`] if it can't be written to.
    pub fn open(
        config: &Config,
        shards: Shards,
        events: Arc<Events>,
    ) -> Result<Recordings, FolderError> {
        let counts = Arc::<Counts>::default();
        let ordinal = config.ordinal;
        let inner = match config.recording.clone() {
            None => None,
            Some(config) => {
                let path = &config.dir;
                let error = |source| FolderError {
                    path: path.clone(),
                    source,
                };
                let store = Store::open(path).map_err(error)?;
                let left = store.recover(ordinal).map_err(error)?;
                if left > 0 {
                    tracing::warn!(
                        recordings = left,
                        "recordings were cut short by an end without notice"
                    );
                }
                Some(Arc::new(Inner {
                    store,
                    shards,
                    events,
                    ordinal,
                    config,
                    counts: counts.clone(),
                    active: Mutex::default(),
                    used: AtomicU64::new(0),
                }))
            }
        };
        Ok(Recordings { inner, counts })
    }

    /// Starts a recording.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left of it.
    pub async fn start(&self, request: Request, random: [u8; 16]) -> Result<Note, StartError> {
        let inner = self.inner.as_ref().ok_or(StartError::Off)?;
        let id = SessionId::new(inner.ordinal, 0, random);
        let (tap, tapping) = tap();
        let started = SystemTime::now();
        let active = Arc::new(Active {
            id,
            session: request.session.clone(),
            started,
            note: Mutex::new(first_note(id, &request, started)),
            over: watch::Sender::new(false),
        });
        {
            let mut all = lock(&inner.active);
            if all.len() >= MOST {
                return Err(StartError::Busy);
            }
            all.insert(id, active.clone());
        }
        let begun = inner.begin(&active, &request, &tap).await;
        let begun = begun.and_then(|recorder| {
            let writer = Writer::new(inner.clone(), active.clone(), recorder, tapping);
            writer.spawn().map_err(StartError::Disk)
        });
        if let Err(error) = begun {
            active.end(inner);
            inner.shards.end_recording(active.device(), &tap).await;
            inner.blocking(move |inner| inner.store.remove(id)).await?;
            return Err(error);
        }
        tracing::info!(recording = %id, device = %active.device(), "recording started");
        let (inner, recorded) = (inner.clone(), active.clone());
        tokio::spawn(async move {
            recorded.is_over().await;
            inner.shards.end_recording(recorded.device(), &tap).await;
        });
        Ok(active.note())
    }

    /// A recording under way.
    pub fn active(&self, id: SessionId) -> Option<Arc<Active>> {
        lock(&self.inner.as_ref()?.active).get(&id).cloned()
    }

    /// All that are under way, the oldest first.
    pub fn all_active(&self) -> Vec<Arc<Active>> {
        let Some(inner) = &self.inner else {
            return Vec::new();
        };
        let mut all: Vec<_> = lock(&inner.active).values().cloned().collect();
        all.sort_by_key(|active| active.started);
        all
    }

    /// Ends a recording and waits until its file is complete; a slow disk may take longer than is
    /// waited for.
    pub async fn stop(&self, active: &Active) -> Note {
        active.ask_to_stop();
        // In vain only while the disk takes nothing: the note says so.
        let _ = tokio::time::timeout(STOP_WITHIN, active.is_over()).await;
        active.note()
    }

    /// Ends all recordings and waits for them, no longer than that.
    pub async fn finish(&self, within: Duration) {
        let all = self.all_active();
        all.iter().for_each(|active| active.ask_to_stop());
        let ended = async {
            for active in &all {
                active.is_over().await;
            }
        };
        if tokio::time::timeout(within, ended).await.is_err() {
            tracing::warn!("recordings were still being written at the end");
        }
    }

    /// What is known of a recording that has ended, from the disk.
    pub async fn ended(&self, id: SessionId) -> Option<Note> {
        let inner = self.inner.as_ref()?;
        inner
            .blocking(move |inner| Ok(inner.store.find(id)))
            .await
            .ok()?
    }

    /// The file of a recording.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is none.
    pub async fn file(&self, id: SessionId) -> io::Result<(File, Format)> {
        let inner = self.inner.as_ref().ok_or(io::ErrorKind::NotFound)?;
        inner.blocking(move |inner| inner.store.read(id)).await
    }

    /// Deletes a recording; one that is under way is ended first.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub async fn delete(&self, id: SessionId) -> io::Result<()> {
        if let Some(active) = self.active(id) {
            self.stop(&active).await;
        }
        let inner = self.inner.as_ref().ok_or(io::ErrorKind::NotFound)?;
        inner
            .blocking(move |inner| {
                inner.store.remove(id)?;
                inner.measure().map(drop)
            })
            .await
    }

    /// All recordings on the disk that have ended.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub async fn all_ended(&self) -> io::Result<Vec<(Note, SystemTime)>> {
        let Some(inner) = &self.inner else {
            return Ok(Vec::new());
        };
        inner
            .blocking(|inner| {
                let mut all = inner.store.list()?;
                all.retain(|stored| !lock(&inner.active).contains_key(&stored.id));
                let note = |s: store::Stored| Some((inner.store.find(s.id)?, s.modified));
                Ok(all.into_iter().filter_map(note).collect())
            })
            .await
    }
}

impl Inner {
    /// What may fail of a start, but the thread.
    async fn begin(
        self: &Arc<Self>,
        active: &Arc<Active>,
        request: &Request,
        tap: &Tap,
    ) -> Result<Recorder, StartError> {
        let limit = self.config.size_limit;
        let (id, note) = (active.id, active.note());
        let used = self
            .blocking(move |inner| {
                let used = inner.measure()?;
                if used < limit {
                    inner.store.note(id, &note)?;
                }
                Ok(used)
            })
            .await?;
        if used >= limit {
            return Err(StartError::Full { used, limit });
        }
        let codec = self.shards.record(active.device(), tap).await?;
        if let Some(codec) = codec {
            check(&codec, request)?;
            let format = request.format.unwrap_or(Format::of(&codec));
            lock(&active.note).format = format.as_str().to_owned();
        }
        let max = match (request.max, self.config.max) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        Ok(Recorder::new(self.shards.clock(), request.format, max))
    }

    /// Does what waits for the disk where that delays nobody.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        act: impl FnOnce(&Inner) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let inner = self.clone();
        tokio::task::spawn_blocking(move || act(&inner)).await?
    }

    /// Looks how many bytes all recordings take, those of other processes too.
    fn measure(&self) -> io::Result<u64> {
        let used = self.store.list()?.iter().map(|stored| stored.bytes).sum();
        self.used.store(used, Relaxed);
        Ok(used)
    }

    /// Bytes that recordings may still take.
    fn room(&self) -> u64 {
        self.config
            .size_limit
            .saturating_sub(self.used.load(Relaxed))
    }
}

impl Active {
    /// Name of its file, as far as its format is known.
    fn file_name(&self) -> String {
        store::name(self.id, &lock(&self.note).format)
    }

    /// The writer looks for it by itself.
    fn ask_to_stop(&self) {
        let state = &mut lock(&self.note).state;
        if *state == State::Recording {
            *state = State::Stopping;
        }
    }

    async fn is_over(&self) {
        // An error would mean that the sender is gone, and that is in here.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// From now on it is found on the disk alone.
    fn end(&self, inner: &Inner) {
        lock(&inner.active).remove(&self.id);
        self.over.send_replace(true);
    }

    /// Whether somebody asked for its end.
    fn is_stopping(&self) -> bool {
        lock(&self.note).state == State::Stopping
    }
}

fn first_note(id: SessionId, request: &Request, started: SystemTime) -> Note {
    Note {
        id: id.to_string(),
        session_id: request.session.id.to_string(),
        device_id: request.session.device.to_string(),
        state: State::Recording,
        format: request.format.unwrap_or(Format::WebM).as_str().to_owned(),
        file_size: 0,
        duration_seconds: 0.0,
        width: 0,
        height: 0,
        frame_rate: 0.0,
        bitrate: 0,
        started_at: rfc3339(started),
        stopped_at: None,
        frames_written: 0,
        reason: None,
    }
}

/// Whether a device that sends this can be recorded as asked.
fn check(codec: &Codec, request: &Request) -> Result<(), StartError> {
    if let Some(asked) = request
        .codec
        .as_ref()
        .filter(|asked| *asked != codec_name(codec))
    {
        return Err(StartError::Codec {
            codec: codec.clone(),
            asked: asked.clone(),
        });
    }
    match request.format {
        Some(format) if !format.holds(codec) => Err(StartError::Format {
            codec: codec.clone(),
            format,
        }),
        _ => Ok(()),
    }
}

/// Names of codecs in requests.
pub const CODECS: [&str; 4] = ["VP8", "VP9", "H264", "AV1"];

fn codec_name(codec: &Codec) -> &'static str {
    match codec {
        Codec::Vp8 => "VP8",
        Codec::Vp9 { .. } => "VP9",
        Codec::H264 { .. } => "H264",
        Codec::Av1 { .. } => "AV1",
        Codec::Opus | Codec::Red => "Opus",
    }
}

/// A poisoned value is still right: no call leaves it half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
