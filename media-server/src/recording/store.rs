//! The folder of recordings: a file of media for each, and a note of what it is.
//!
//! Names are made of ids alone and opened beneath the folder, following no link. A note has a fixed
//! length and is written in place, so that it can still tell how a recording ended on a full disk. Calls
//! wait for the disk: they come from writers' threads, and from tokio's for blocking work.

use super::container::Format;
use crate::clock::rfc3339;
use media_core::ids::SessionId;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{DirBuilder, File};
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::Path;
#[cfg(test)]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::SystemTime;

/// Bytes of a note: the longest device name and reason fit.
const NOTE: usize = 1024;
const NOTE_ENDING: &str = "json";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Recording,
    Stopping,
    Completed,
    Failed,
}

/// What is known of a recording. Its fields are those of the API, where the device has the name that clients call it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    pub id: String,
    pub session_id: String,
    /// The device's key, see `devices.rs`.
    pub device_id: String,
    pub state: State,
    pub format: String,
    pub file_size: u64,
    pub duration_seconds: f64,
    pub width: u16,
    pub height: u16,
    pub frame_rate: f64,
    pub bitrate: u64,
    /// UTC.
    pub started_at: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stopped_at: Option<String>,
    pub frames_written: u64,
    /// Why it ended, where nobody asked for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

impl Note {
    /// Of a file that nothing is known of but when it was written last.
    fn nameless(id: SessionId, modified: SystemTime) -> Note {
        Note {
            id: id.to_string(),
            session_id: String::new(),
            device_id: String::new(),
            state: State::Failed,
            format: String::new(),
            file_size: 0,
            duration_seconds: 0.0,
            width: 0,
            height: 0,
            frame_rate: 0.0,
            bitrate: 0,
            started_at: rfc3339(modified),
            stopped_at: None,
            frames_written: 0,
            reason: None,
        }
    }
}

/// What a process before this one left.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Recordings that were under way.
    pub cut_short: u64,
    /// Files whose note is gone, and with it whose they are.
    pub nameless: Vec<SessionId>,
}

/// A file of media that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    pub id: SessionId,
    pub bytes: u64,
    pub modified: SystemTime,
}

/// See the module.
pub struct Store {
    dir: File,
    /// The folder itself can't be brought to the disk, which was told.
    unsynced: AtomicBool,
    /// How often it was looked through.
    #[cfg(test)]
    pub listed: AtomicU64,
}

impl Store {
    /// Opens the folder; makes it if it is not there.
    ///
    /// # Errors
    /// If that is not possible, or nothing can be written to it.
    pub fn open(path: &Path) -> io::Result<Store> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let flags = OFlag::O_DIRECTORY.bits();
        let dir = File::options().read(true).custom_flags(flags).open(path)?;
        let store = Store::of(dir);
        let probe = ".writable";
        store.open_file(probe, OFlag::O_WRONLY | OFlag::O_CREAT)?;
        store.unlink(probe)?;
        Ok(store)
    }

    fn of(dir: File) -> Store {
        Store {
            dir,
            unsynced: AtomicBool::new(false),
            #[cfg(test)]
            listed: AtomicU64::new(0),
        }
    }

    /// A new file for media, open to its owner alone.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn create(&self, id: SessionId, format: Format) -> io::Result<File> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        self.open_file(&name(id, format.as_str()), flags)
    }

    /// The file of a recording, and what it is.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is none.
    pub fn read(&self, id: SessionId) -> io::Result<(File, Format)> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for format in Format::ALL {
            match self.open_file(&name(id, format.as_str()), OFlag::O_RDONLY) {
                Ok(file) => return Ok((file, format)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Writes down what is known of a recording; returns the note's file.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn note(&self, id: SessionId, note: &Note) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT;
        let file = self.open_file(&name(id, NOTE_ENDING), flags)?;
        let mut bytes = serde_json::to_vec(note)?;
        bytes.resize(bytes.len().max(NOTE), b' ');
        file.write_all_at(&bytes, 0)?;
        Ok(file)
    }

    /// What is known of a recording, if there is one.
    pub fn find(&self, id: SessionId) -> Option<Note> {
        self.read_note(id).ok()?
    }

    /// `None` if there is no note, or one that can't be read: the power was cut before all of it was written.
    fn read_note(&self, id: SessionId) -> io::Result<Option<Note>> {
        let file = match self.open_file(&name(id, NOTE_ENDING), OFlag::O_RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut bytes = Vec::with_capacity(NOTE);
        file.take(4 * NOTE as u64).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes).ok())
    }

    /// Waits until the disk has what was written of a recording, and that it is there.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn sync(&self, id: SessionId) -> io::Result<()> {
        for ending in endings() {
            match self.open_file(&name(id, ending), OFlag::O_RDONLY) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                opened => opened?.sync_data()?,
            }
        }
        match self.dir.sync_all() {
            // Some file systems take no such request for a folder (9p, SMB, FUSE), and keep it as they can.
            Err(error) if is_unknown_to_folder(&error) => {
                if !self.unsynced.swap(true, Relaxed) {
                    tracing::warn!(%error, "the folder of recordings can't be synced: a power cut may take a new one");
                }
                Ok(())
            }
            synced => synced,
        }
    }

    /// Deletes a recording; returns how many bytes that frees.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn remove(&self, id: SessionId) -> io::Result<u64> {
        let mut freed = 0;
        for ending in endings() {
            let name = name(id, ending);
            let bytes = self.open_file(&name, OFlag::O_RDONLY);
            let bytes = bytes.and_then(|file| Ok(file.metadata()?.len()));
            match self.unlink(&name) {
                Ok(()) => freed += bytes.unwrap_or(0),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(freed)
    }

    /// All recordings with a note or a file.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn list(&self) -> io::Result<Vec<Stored>> {
        #[cfg(test)]
        self.listed.fetch_add(1, Relaxed);
        let mut dir = Dir::openat(&self.dir, ".", OFlag::O_RDONLY, Mode::empty())?;
        let mut stored: HashMap<SessionId, Stored> = HashMap::new();
        for entry in dir.iter() {
            let entry = entry?;
            let Some((id, ending)) = entry.file_name().to_str().ok().and_then(split) else {
                continue;
            };
            let Ok(file) = self.open_file(&name(id, ending), OFlag::O_RDONLY) else {
                // Deleted meanwhile.
                continue;
            };
            let meta = file.metadata()?;
            let one = Stored {
                id,
                bytes: meta.len(),
                modified: meta.modified()?,
            };
            let both = stored.entry(id).or_insert(Stored { bytes: 0, ..one });
            both.bytes += one.bytes;
            both.modified = both.modified.max(one.modified);
        }
        Ok(stored.into_values().collect())
    }

    /// Marks as failed what a process of this ordinal left as under way: it was killed. A file whose note
    /// is gone has one again, or it would take its place for ever. What the disk does not let be marked is left
    /// as it is: it may be full, and the server is what makes room.
    ///
    /// # Errors
    /// Whatever the disk says of the folder.
    pub fn recover(&self, ordinal: u16) -> io::Result<Recovered> {
        let mut recovered = Recovered::default();
        let all = self.list()?.into_iter().map(|stored| stored.id);
        for id in all.filter(|id| id.ordinal() == ordinal) {
            if let Err(error) = self.recover_one(id, &mut recovered) {
                tracing::warn!(recording = %id, %error, "what was left of a recording could not be marked");
            }
        }
        Ok(recovered)
    }

    fn recover_one(&self, id: SessionId, recovered: &mut Recovered) -> io::Result<()> {
        let file = match self.read(id) {
            Ok((file, format)) => Some((file.metadata()?, format)),
            Err(_) => None,
        };
        let Ok(noted) = self.read_note(id) else {
            // Somebody put something else there.
            return Ok(());
        };
        let (mut note, reason) = match (noted, &file) {
            (Some(note), _) if !matches!(note.state, State::Recording | State::Stopping) => {
                return Ok(());
            }
            (Some(note), _) => {
                recovered.cut_short += 1;
                (
                    note,
                    "the server ended without notice; what was written plays",
                )
            }
            (None, Some((meta, _))) => {
                recovered.nameless.push(id);
                let note = Note::nameless(id, meta.modified()?);
                (note, "its note was lost; what was written plays")
            }
            (None, None) => return self.remove(id).map(drop),
        };
        note.state = State::Failed;
        note.reason = Some(reason.to_owned());
        if let Some((meta, format)) = &file {
            note.file_size = meta.len();
            note.format = format.as_str().to_owned();
            note.stopped_at = Some(rfc3339(meta.modified()?));
        }
        let written = self.note(id, &note)?;
        match file {
            // It is as old as what was recorded, not as this start.
            Some((meta, _)) => written.set_modified(meta.modified()?),
            None => Ok(()),
        }
    }

    fn open_file(&self, name: &str, flags: OFlag) -> io::Result<File> {
        let mode = match flags.contains(OFlag::O_CREAT) {
            true => Mode::S_IRUSR | Mode::S_IWUSR,
            false => Mode::empty(),
        };
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .mode(mode)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        Ok(openat2(self.dir.as_fd(), name, how)?.into())
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.dir, name, UnlinkatFlags::NoRemoveDir)?)
    }
}

fn is_unknown_to_folder(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EINVAL | Errno::ENOTSUP))
}

/// Of all files of a recording. The note last: as long as it is there, what is left can be found and
/// deleted again.
fn endings() -> impl Iterator<Item = &'static str> {
    let formats = Format::ALL.map(Format::as_str).into_iter();
    formats.chain([NOTE_ENDING])
}

/// The name of a recording's file.
pub(super) fn name(id: SessionId, ending: &str) -> String {
    format!("{id}.{ending}")
}

fn split(name: &str) -> Option<(SessionId, &str)> {
    let (id, ending) = name.split_once('.')?;
    let known = ending == NOTE_ENDING || Format::ALL.iter().any(|f| f.as_str() == ending);
    Some((id.parse().ok()?, ending)).filter(|_| known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;
    use std::time::{Duration, UNIX_EPOCH};

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let name = format!("media-server-store-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let _ = std::fs::remove_dir_all(&path);
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn note(id: SessionId, state: State) -> Note {
        Note {
            id: id.to_string(),
            session_id: "s".to_owned(),
            device_id: "cam-1".to_owned(),
            state,
            format: "webm".to_owned(),
            file_size: 0,
            duration_seconds: 1.5,
            width: 640,
            height: 360,
            frame_rate: 25.0,
            bitrate: 1,
            started_at: "2026-01-31T12:00:00Z".to_owned(),
            stopped_at: None,
            frames_written: 3,
            reason: None,
        }
    }

    #[test]
    fn a_recording_is_found_by_its_id_until_it_is_deleted() {
        let folder = Folder::new("found");
        let store = Store::open(&folder.0).expect("a folder");
        let id = SessionId::new(3, 0, [1; 16]);
        assert!(store.find(id).is_none() && store.read(id).is_err());
        let mut file = store.create(id, Format::WebM).expect("room");
        file.write_all(b"media").expect("room");
        store.note(id, &note(id, State::Completed)).expect("room");
        let mut long = note(id, State::Failed);
        long.reason = Some("why".repeat(40));
        store.note(id, &long).expect("room");
        assert_eq!(store.find(id), Some(long));
        store.note(id, &note(id, State::Completed)).expect("room");
        assert_eq!(
            store.find(id),
            Some(note(id, State::Completed)),
            "nothing left of the longer"
        );
        let (_, format) = store.read(id).expect("there");
        assert_eq!(format, Format::WebM);
        let listed = store.list().expect("readable");
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].bytes, 5 + NOTE as u64);
        let path = folder.0.join(format!("{id}.webm"));
        let mode = path.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(store.remove(id).expect("writable"), 5 + NOTE as u64);
        assert_eq!(store.remove(id).expect("writable"), 0);
        assert!(store.list().expect("readable").is_empty());
    }

    #[test]
    fn a_folder_that_can_not_be_synced_takes_recordings_all_the_same() {
        // The kernel's own list of processes is one.
        let dir = File::open("/proc").expect("a folder");
        assert!(dir.sync_all().is_err());
        let store = Store::of(dir);
        for _ in 0..2 {
            store
                .sync(SessionId::new(3, 0, [1; 16]))
                .expect("as far as it goes");
        }
    }

    #[test]
    fn a_link_out_of_the_folder_is_not_followed() {
        let folder = Folder::new("link");
        let store = Store::open(&folder.0).expect("a folder");
        let id = SessionId::new(0, 0, [2; 16]);
        std::os::unix::fs::symlink("/etc/passwd", folder.0.join(format!("{id}.webm")))
            .expect("a link");
        assert!(store.read(id).is_err());
        assert!(store.list().expect("readable").is_empty());
    }

    #[test]
    fn what_a_killed_process_left_is_marked_as_failed_and_that_of_others_is_let_alone() {
        let folder = Folder::new("left");
        let store = Store::open(&folder.0).expect("a folder");
        let [mine, other] = [7, 8].map(|ordinal| SessionId::new(ordinal, 0, [ordinal as u8; 16]));
        let yesterday = UNIX_EPOCH + Duration::from_secs(1_769_860_800);
        for id in [mine, other] {
            let mut file = store.create(id, Format::Mp4).expect("room");
            file.write_all(b"media").expect("room");
            file.set_modified(yesterday).expect("it is ours");
            store.note(id, &note(id, State::Recording)).expect("room");
        }
        let left = Recovered {
            cut_short: 1,
            nameless: Vec::new(),
        };
        assert_eq!(store.recover(7).expect("readable"), left);
        let found = store.find(mine).expect("its note");
        assert_eq!(found.state, State::Failed);
        assert_eq!((found.format.as_str(), found.file_size), ("mp4", 5));
        assert_eq!(found.stopped_at.as_deref(), Some("2026-01-31T12:00:00Z"));
        let listed = store.list().expect("readable");
        let mine = listed.iter().find(|stored| stored.id == mine);
        assert_eq!(mine.map(|stored| stored.modified), Some(yesterday));
        assert_eq!(store.find(other).map(|n| n.state), Some(State::Recording));
        assert_eq!(store.recover(7).expect("readable"), Recovered::default());
    }

    #[test]
    fn a_file_without_its_note_is_found_again_and_a_note_of_nothing_is_not_kept() {
        let folder = Folder::new("nameless");
        let store = Store::open(&folder.0).expect("a folder");
        let [gone, cut, nothing] = [1, 2, 3].map(|n| SessionId::new(7, 0, [n; 16]));
        store.create(gone, Format::WebM).expect("room");
        store.create(cut, Format::Mp4).expect("room");
        for id in [cut, nothing] {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT;
            let name = name(id, NOTE_ENDING);
            store.open_file(&name, flags).expect("room");
        }
        let mut left = store.recover(7).expect("readable");
        left.nameless.sort();
        assert_eq!((left.cut_short, left.nameless), (0, vec![gone, cut]));
        for (id, format) in [(gone, "webm"), (cut, "mp4")] {
            let note = store.find(id).expect("a note");
            assert_eq!((note.state, note.format.as_str()), (State::Failed, format));
        }
        assert_eq!(store.list().expect("readable").len(), 2);
    }
}
