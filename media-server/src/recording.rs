//! Recordings: which are under way, which there are on the disk, and how much they may take.
//!
//! Owns the folder and a thread for each recording. A shard gives media into a tap and never waits (see
//! `shard/tap.rs`); the thread puts it together and writes. Called by the API, and by the app at the end.

mod active;
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

pub use active::Active;
pub use container::Format;
pub use recorder::Wanted;
pub use store::{Note, State};

use crate::config::{Config, RecordingConfig};
use crate::devices::tenant_of;
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
use std::time::{Duration, Instant, SystemTime};
use store::{Recovered, Store};
use tokio::sync::oneshot;
use writer::Writer;

/// Recordings at once. Each is a thread, and some MiB while the disk is slow.
const MOST: usize = 64;
/// Of one device, and of one tenant: it leaves room for others.
const MOST_OF_DEVICE: usize = 4;
const MOST_OF_TENANT: usize = 32;
/// How often what was written is brought to the disk: what a power cut takes at most, with a second or two
/// that were not written yet. The writer does not wait for it.
const SYNC_EVERY: Duration = Duration::from_secs(5);
/// How long a stop is waited for: a slow disk has time to take what is still in memory.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Why a recording does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("recording is off: the server was started without --recording-dir")]
    Off,
    #[error("{most} recordings of {of} are under way, which is the most")]
    Busy { most: usize, of: &'static str },
    #[error("recordings take all of their {limit} bytes; delete some")]
    Full { limit: u64 },
    #[error("the device sends {}, which {} does not hold", codec_name(.codec), .format.as_str())]
    Format { codec: Codec, format: Format },
    #[error("unsupported codec: {asked}")]
    UnknownCodec { asked: String },
    #[error("the device sends {}, not {asked}", codec_name(.codec))]
    Codec { codec: Codec, asked: &'static str },
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
    pub wanted: Wanted,
}

/// Totals of the process, for metrics.
#[derive(Debug, Default)]
pub struct Counts {
    pub completed: AtomicU64,
    /// Ended early, or never began, for want of room or because writing failed.
    pub failed: AtomicU64,
    /// Nothing came that a file could hold.
    pub empty: AtomicU64,
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
                let Recovered {
                    cut_short,
                    nameless,
                } = store.recover(ordinal).map_err(error)?;
                if cut_short > 0 {
                    tracing::warn!(
                        recordings = cut_short,
                        "recordings were cut short by an end without notice"
                    );
                }
                for id in nameless {
                    tracing::warn!(
                        recording = %id,
                        "nobody knows whose recording this is; an administrator of no tenant can delete it, or whoever has the folder"
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

    /// Starts a recording. A caller that waits no longer leaves none behind, which nobody would know.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left of it.
    pub async fn start(&self, request: Request, random: [u8; 16]) -> Result<Note, StartError> {
        let inner = self.inner.clone().ok_or(StartError::Off)?;
        let (reply, answer) = oneshot::channel();
        tokio::spawn(async move {
            let begun = inner.start(request, random).await;
            if let Err(Ok(active)) = reply.send(begun) {
                inner.delete(active.id).await.unwrap_or_else(|error| {
                    tracing::warn!(recording = %active.id, %error, "a recording that nobody waited for is left");
                });
            }
        });
        let begun = answer.await.expect("starting a recording does not panic");
        begun.map(|active| active.note())
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

    /// Deletes a recording; one that is under way is ended first. It happens too if nobody waits for it.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub async fn delete(&self, id: SessionId) -> io::Result<()> {
        let inner = self.inner.clone().ok_or(io::ErrorKind::NotFound)?;
        tokio::spawn(async move { inner.delete(id).await }).await?
    }

    /// Deletes recordings that ended before `limit`, if their device is one of `mine`; returns how many. It
    /// happens too if nobody waits for it.
    ///
    /// # Errors
    /// Whatever the disk says, if it let none be deleted.
    pub async fn cleanup(
        &self,
        limit: SystemTime,
        mine: impl Fn(&str) -> bool + Send + 'static,
    ) -> io::Result<usize> {
        match &self.inner {
            None => Ok(0),
            Some(inner) => {
                let inner = inner.clone();
                inner
                    .blocking(move |inner| inner.cleanup(limit, mine))
                    .await
            }
        }
    }

    /// All recordings on the disk that have ended.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub async fn all_ended(&self) -> io::Result<Vec<Note>> {
        let Some(inner) = &self.inner else {
            return Ok(Vec::new());
        };
        inner
            .blocking(|inner| {
                let all = inner.store.list()?.into_iter().map(|stored| stored.id);
                let ended = all.filter(|id| !inner.is_active(*id));
                Ok(ended.filter_map(|id| inner.store.find(id)).collect())
            })
            .await
    }
}

impl Inner {
    async fn start(
        self: &Arc<Self>,
        request: Request,
        random: [u8; 16],
    ) -> Result<Arc<Active>, StartError> {
        let id = SessionId::new(self.ordinal, 0, random);
        let (tap, tapping) = tap();
        let active = Arc::new(Active::new(id, &request));
        self.admit(&active)?;
        let begun = self.begin(&active, request.wanted, &tap).await;
        let begun = begun.and_then(|recorder| {
            let writer = Writer::new(self.clone(), active.clone(), recorder, tapping);
            writer.spawn().map_err(StartError::Disk)
        });
        if let Err(error) = begun {
            if matches!(error, StartError::Full { .. } | StartError::Disk(_)) {
                self.counts.failed.fetch_add(1, Relaxed);
            }
            active.end(self);
            self.shards.end_recording(active.device(), &tap).await;
            let removed = self.blocking(move |inner| inner.store.remove(id)).await;
            if let Err(error) = removed {
                tracing::warn!(recording = %id, %error, "what was left of a start could not be deleted");
            }
            return Err(error);
        }
        tracing::info!(recording = %id, device_id = %active.device(), "recording started");
        tokio::spawn(self.clone().attend(active.clone(), tap));
        Ok(active)
    }

    /// Takes a recording among those under way, if there may be one more.
    fn admit(&self, active: &Arc<Active>) -> Result<(), StartError> {
        let mut all = lock(&self.active);
        let device = active.device();
        let others = all.values().map(|other| other.device());
        let same_tenant = |other: &&Arc<str>| {
            let tenant = tenant_of(device);
            tenant.is_some() && tenant == tenant_of(other)
        };
        for (count, most, of) in [
            (others.clone().count(), MOST, "the server"),
            (
                others.clone().filter(|other| *other == device).count(),
                MOST_OF_DEVICE,
                "the device",
            ),
            (
                others.filter(same_tenant).count(),
                MOST_OF_TENANT,
                "the tenant",
            ),
        ] {
            if count >= most {
                return Err(StartError::Busy { most, of });
            }
        }
        all.insert(active.id, active.clone());
        Ok(())
    }

    /// What may fail of a start, but the thread.
    async fn begin(
        self: &Arc<Self>,
        active: &Arc<Active>,
        wanted: Wanted,
        tap: &Tap,
    ) -> Result<Recorder, StartError> {
        let limit = self.config.size_limit;
        let (id, note) = (active.id, active.note());
        let used = self
            .blocking(move |inner| {
                let used = inner.measure()?;
                if used < limit {
                    inner.store.note(id, &note)?;
                    inner.store.sync(id)?;
                }
                Ok(used)
            })
            .await?;
        if used >= limit {
            return Err(StartError::Full { limit });
        }
        let begun = Instant::now();
        let codec = self.shards.record(active.device(), tap).await?;
        if let Some(codec) = codec {
            check(&codec, wanted)?;
            let format = wanted.format.unwrap_or(Format::of(&codec));
            lock(&active.note).format = format.as_str().to_owned();
        }
        let max = match (wanted.max, self.config.max) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let wanted = Wanted { max, ..wanted };
        Ok(Recorder::new(self.shards.clock(), begun, wanted))
    }

    /// Brings to the disk what the writer writes, and takes the tap away once it is over.
    async fn attend(self: Arc<Self>, active: Arc<Active>, tap: Tap) {
        let id = active.id;
        while tokio::time::timeout(SYNC_EVERY, active.is_over())
            .await
            .is_err()
        {
            let synced = self.blocking(move |inner| inner.store.sync(id)).await;
            if let Err(error) = synced {
                tracing::warn!(recording = %id, %error, "a recording is not safe from a power cut");
            }
        }
        self.shards.end_recording(active.device(), &tap).await;
    }

    async fn delete(self: &Arc<Self>, id: SessionId) -> io::Result<()> {
        let active = lock(&self.active).get(&id).cloned();
        if let Some(active) = active {
            active.ask_to_stop();
            let over = tokio::time::timeout(STOP_WITHIN, active.is_over()).await;
            if over.is_err() {
                // The disk takes nothing now, and takes all of it and a note in the end.
                let inner = self.clone();
                tokio::spawn(async move {
                    active.is_over().await;
                    inner.remove(id).await.unwrap_or_else(|error| {
                        tracing::warn!(recording = %id, %error, "a recording was deleted and is still there");
                    });
                });
            }
        }
        self.remove(id).await
    }

    async fn remove(self: &Arc<Self>, id: SessionId) -> io::Result<()> {
        self.blocking(move |inner| inner.remove_now(id)).await
    }

    /// Waits for the disk.
    fn remove_now(&self, id: SessionId) -> io::Result<()> {
        let freed = self.store.remove(id)?;
        let less = |used: u64| Some(used.saturating_sub(freed));
        // It never says no.
        let _ = self.used.fetch_update(Relaxed, Relaxed, less);
        Ok(())
    }

    /// Waits for the disk. The folder is looked through once, whatever there is to delete.
    fn cleanup(&self, limit: SystemTime, mine: impl Fn(&str) -> bool) -> io::Result<usize> {
        let (mut deleted, mut failed) = (0, None);
        for stored in self.store.list()? {
            let due = stored.modified < limit
                && !self.is_active(stored.id)
                && self
                    .store
                    .find(stored.id)
                    .is_some_and(|note| mine(&note.device_id));
            if due {
                match self.remove_now(stored.id) {
                    Ok(()) => deleted += 1,
                    Err(error) => failed = Some(error),
                }
            }
        }
        match failed {
            Some(error) if deleted == 0 => Err(error),
            Some(error) => {
                tracing::warn!(%error, "some recordings could not be deleted");
                Ok(deleted)
            }
            None => Ok(deleted),
        }
    }

    fn is_active(&self, id: SessionId) -> bool {
        lock(&self.active).contains_key(&id)
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
        let before = self.used.load(Relaxed);
        let found: u64 = self.store.list()?.iter().map(|stored| stored.bytes).sum();
        // What was written meanwhile may have been looked at before that.
        let more = |used: u64| Some(found + used.saturating_sub(before));
        // It never says no.
        let _ = self.used.fetch_update(Relaxed, Relaxed, more);
        Ok(found)
    }

    /// Bytes that recordings may still take.
    fn room(&self) -> u64 {
        self.config
            .size_limit
            .saturating_sub(self.used.load(Relaxed))
    }
}

/// Whether a device that sends this can be recorded as asked.
fn check(codec: &Codec, wanted: Wanted) -> Result<(), StartError> {
    let codec = codec.clone();
    match (wanted.codec, wanted.format) {
        (Some(asked), _) if asked != codec_name(&codec) => Err(StartError::Codec { codec, asked }),
        (_, Some(format)) if !format.holds(&codec) => Err(StartError::Format { codec, format }),
        _ => Ok(()),
    }
}

/// Names of codecs in requests.
pub const CODECS: [&str; 4] = ["VP8", "VP9", "H264", "AV1"];

/// The name of a codec in requests and answers.
pub fn codec_name(codec: &Codec) -> &'static str {
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

#[cfg(test)]
mod tests;
