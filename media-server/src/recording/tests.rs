//! Recordings whose clients hang up, whose disk is stuck, and how many of them there may be.

use super::*;
use crate::config::RecordingConfig;
use crate::events::tests::captured;
use crate::registry::Protocol;
use crate::registry::tests::record;
use crate::shard::ShardConfig;
use std::path::PathBuf;
use std::pin::pin;
use std::task::{Context, Waker};

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Folder {
    fn files(&self) -> usize {
        std::fs::read_dir(&self.0).expect("a folder").count()
    }
}

fn recordings(name: &str) -> (Recordings, Arc<Inner>, Folder) {
    recordings_told(name, Events::default())
}

fn recordings_told(name: &str, events: Events) -> (Recordings, Arc<Inner>, Folder) {
    let name = format!("media-server-recordings-{name}-{}", std::process::id());
    let folder = Folder(std::env::temp_dir().join(name));
    let _ = std::fs::remove_dir_all(&folder.0);
    let (shards, _) = Shards::start(ShardConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        shards: 2,
        tcp_connections: 10,
        ufrag_key: [7; 16],
        cache_bytes: 1 << 20,
        video_kbps: 12_000,
        idle_publisher_kbps: None,
    })
    .expect("starts");
    let inner = Arc::new(Inner {
        store: Store::open(&folder.0).expect("a folder"),
        shards,
        events: Arc::new(events),
        ordinal: 0,
        config: RecordingConfig {
            dir: folder.0.clone(),
            size_limit: 1 << 30,
            max: None,
        },
        counts: Arc::default(),
        active: Mutex::default(),
        used: AtomicU64::new(0),
    });
    let recordings = Recordings {
        inner: Some(inner.clone()),
        counts: inner.counts.clone(),
    };
    (recordings, inner, folder)
}

fn request(device: &str) -> Request {
    Request {
        session: record(1, Protocol::Whip, device),
        wanted: Wanted::default(),
    }
}

fn active(device: &str, number: u8) -> Arc<Active> {
    let id = SessionId::new(0, 0, [number; 16]);
    Arc::new(Active::new(id, &request(device)))
}

/// Lets other tasks run until it is so.
async fn until(what: &str, is: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_start_that_nobody_waits_for_leaves_no_recording() {
    let (recordings, inner, folder) = recordings("hang-up");
    {
        let mut start = pin!(recordings.start(request("cam-1"), [1; 16]));
        let mut context = Context::from_waker(Waker::noop());
        assert!(start.as_mut().poll(&mut context).is_pending(), "the disk");
        until("it starts", || !recordings.all_active().is_empty()).await;
    }
    until("it ends", || recordings.all_active().is_empty()).await;
    until("nothing is left", || folder.files() == 0).await;
    inner.shards.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_recording_that_is_deleted_while_its_disk_is_stuck_does_not_come_back() {
    let (recordings, inner, folder) = recordings("stuck");
    let stuck = active("cam-1", 1);
    inner.admit(&stuck).expect("there is room");
    inner.store.note(stuck.id, &stuck.note()).expect("room");
    recordings.delete(stuck.id).await.expect("writable");
    assert_eq!(folder.files(), 0);
    // The disk goes on, and takes what the writer had for it.
    inner.store.note(stuck.id, &stuck.note()).expect("room");
    stuck.end(&inner);
    until("it is gone", || folder.files() == 0).await;
    assert!(recordings.ended(stuck.id).await.is_none());
}

#[tokio::test]
async fn a_device_and_a_tenant_leave_places_for_others() {
    let (_recordings, inner, _folder) = recordings("places");
    let mut number = 0;
    let mut starts = |device: &str| {
        number += 1;
        inner
            .admit(&active(device, number))
            .map_err(|error| match error {
                StartError::Busy { of, .. } => of,
                other => panic!("{other}"),
            })
    };
    for _ in 0..MOST_OF_DEVICE {
        assert_eq!(starts("acme/cam-1"), Ok(()));
    }
    assert_eq!(starts("acme/cam-1"), Err("the device"));
    for n in MOST_OF_DEVICE..MOST_OF_TENANT {
        assert_eq!(starts(&format!("acme/other-{n}")), Ok(()));
    }
    assert_eq!(starts("acme/one-more"), Err("the tenant"));
    for n in 0..MOST - MOST_OF_TENANT {
        assert_eq!(starts(&format!("of-no-tenant-{n}")), Ok(()));
    }
    assert_eq!(starts("globex/cam-1"), Err("the server"));
}

#[tokio::test]
async fn a_cleanup_of_many_looks_through_the_folder_once() {
    let (recordings, inner, _folder) = recordings("many");
    for n in 0..100u32 {
        let mut random = [0; 16];
        random[..4].copy_from_slice(&n.to_be_bytes());
        let id = SessionId::new(0, 0, random);
        let device = ["cam-1", "cam-2"][n as usize % 2];
        let note = Active::new(id, &request(device)).note();
        inner.store.note(id, &note).expect("room");
    }
    inner.measure().expect("readable");
    let later = SystemTime::now() + Duration::from_secs(60);
    let writers = inner.clone();
    let mine = move |device: &str| {
        // Some recording goes on meanwhile.
        writers.used.fetch_add(1_000, Relaxed);
        device == "cam-1"
    };
    let before = inner.store.listed.load(Relaxed);
    let deleted = recordings.cleanup(later, mine).await;
    assert_eq!(inner.store.listed.load(Relaxed), before + 1);
    assert_eq!(deleted.expect("writable"), 50);
    let left = 50 * 1_024;
    assert_eq!(inner.used.load(Relaxed), left + 100 * 1_000);
    let ended = recordings.all_ended().await.expect("readable");
    assert_eq!(ended.len(), 50);
    assert_eq!(inner.measure().expect("readable"), left);
    assert_eq!(inner.used.load(Relaxed), left);
}

#[tokio::test]
async fn a_start_that_fails_says_why_though_what_it_left_can_not_be_deleted() {
    let (recordings, inner, folder) = recordings("untidy");
    inner.shards.shutdown().await;
    let id = SessionId::new(0, 0, [1; 16]);
    // A folder is no file that could be unlinked.
    let in_the_way = folder.0.join(format!("{id}.webm"));
    std::fs::create_dir(in_the_way).expect("room");
    assert!(inner.store.remove(id).is_err());
    let failed = recordings.start(request("cam-1"), [1; 16]).await;
    assert!(matches!(failed, Err(StartError::Shard(_))), "{failed:?}");
}

#[tokio::test]
async fn a_writer_that_panics_tells_of_its_end_as_any_other() {
    let (events, got) = captured();
    let (recordings, inner, _folder) = recordings_told("panic", events);
    let broken = active("cam-1", 1);
    inner.admit(&broken).expect("there is room");
    let (of, at) = (inner.clone(), broken.clone());
    let writer = std::thread::spawn(move || {
        let _ends = writer::Ends(of, at);
        panic!("of a test");
    });
    assert!(writer.join().is_err());
    assert!(recordings.all_active().is_empty());
    let note = recordings.ended(broken.id).await.expect("a note");
    assert_eq!(note.state, State::Failed);
    assert!(note.stopped_at.is_some(), "{note:?}");
    inner.events.flush(Duration::from_secs(20)).await;
    let told = got.lock().expect("no panic").clone();
    let keys: Vec<_> = told.iter().map(|(key, ..)| *key).collect();
    assert_eq!(keys, ["media.recording.stopped"], "{told:?}");
}

#[tokio::test]
async fn a_cleanup_leaves_what_is_under_way_whatever_its_age() {
    let (recordings, inner, folder) = recordings("under-way");
    let [ended, running] = [1, 2].map(|number| active("cam-1", number));
    for recording in [&ended, &running] {
        let note = inner.store.note(recording.id, &recording.note());
        note.expect("room");
    }
    inner.admit(&running).expect("there is room");
    assert_eq!(inner.measure().expect("readable"), 2_048);
    let later = SystemTime::now() + Duration::from_secs(60);
    let deleted = recordings.cleanup(later, |_| true).await;
    assert_eq!(deleted.expect("writable"), 1);
    assert!(inner.store.find(running.id).is_some());
    assert_eq!(folder.files(), 1);
    let used = inner.used.load(Relaxed);
    assert_eq!(used, 1_024, "there is room again at once");
}
