//! A byte stream from a file, from a FIFO or from standard input, as a [`Source`].
//!
//! A thread reads, because a file and standard input can be waited for in no other way, and one that waits
//! for ever must not keep the program from ending. The async side cuts and paces.

use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::annex_b::{NotAnnexB, Splitter};
use super::source::{Opened, Sample, Source, SourceError};
use super::units::{AccessUnit, Units};

/// Where the stream is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file; `repeat` begins it again at its end, without a gap in time.
    File {
        path: PathBuf,
        repeat: bool,
    },
    /// A FIFO, which waits for who writes it.
    Fifo(PathBuf),
    Stdin,
}

impl Place {
    /// What that path is: `-` is standard input.
    ///
    /// # Errors
    /// If there is nothing that could be read.
    pub fn at(path: &Path, repeat: bool) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Stdin);
        }
        let kind = std::fs::metadata(path)?.file_type();
        let path = path.to_owned();
        if kind.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(match kind.is_fifo() {
            true => Self::Fifo(path),
            false => Self::File { path, repeat },
        })
    }

    fn name(&self) -> String {
        match self {
            Self::File { path, .. } | Self::Fifo(path) => path.display().to_string(),
            Self::Stdin => "standard input".to_owned(),
        }
    }

    /// Reads to the end, as long as somebody takes it.
    fn read(&self, sender: &Sender) -> io::Result<()> {
        match self {
            Self::Stdin => read_all(&mut io::stdin(), sender).map(drop),
            Self::Fifo(path) => {
                let mut pipe = File::open(path)?;
                while !sender.is_closed() {
                    read_all(&mut pipe, sender)?;
                    let _ = sender.blocking_send(Ok(WRITER_GONE));
                    // It waits for the next writer. Until then the last one is open: a writer that has come
                    // already would lose its reader.
                    pipe = File::open(path)?;
                }
                Ok(())
            }
            Self::File { path, repeat } => {
                let mut file = File::open(path)?;
                while read_all(&mut file, sender)? && *repeat {
                    file.rewind()?;
                }
                Ok(())
            }
        }
    }
}

type Sender = mpsc::Sender<io::Result<Bytes>>;

/// Instead of a piece.
const WRITER_GONE: Bytes = Bytes::new();

/// Bytes that are read at once.
const PIECE: usize = 64 * 1024;
/// Pieces that wait for the async side.
const PIECES: usize = 4;

/// `false` once nobody takes it any more, or there was nothing.
fn read_all(from: &mut impl Read, sender: &Sender) -> io::Result<bool> {
    let mut buffer = vec![0; PIECE];
    let mut any = false;
    loop {
        let len = match from.read(&mut buffer) {
            Ok(0) => return Ok(any),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        any = true;
        let piece = Bytes::copy_from_slice(&buffer[..len]);
        if sender.blocking_send(Ok(piece)).is_err() {
            return Ok(false);
        }
    }
}

/// After so long without a byte a pipe's last picture is taken for whole: what shows that it is would be the
/// next one, and a screen where nothing moves has none. Longer delays the last picture of a movement; shorter
/// may cut a picture in two whose writer was held up.
const PAUSE: Duration = Duration::from_millis(200);

/// Further behind its pace, the stream goes on from there instead of making up for it.
const LATE: Duration = Duration::from_secs(1);

/// See the module.
pub struct Input {
    place: Place,
    /// Between two pictures; `None` takes them as they come.
    pace: Option<Duration>,
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    splitter: Splitter,
    units: Units,
    opened: Instant,
    clock: Clock,
    /// Waits for its time.
    ready: Option<(Duration, AccessUnit)>,
    /// To be told before the next picture.
    gap: bool,
    keyframe_seen: bool,
    flushing: Option<Then>,
}

/// What follows the pictures that are taken for whole without another behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    GoOn,
    Gap,
    End,
}

impl Input {
    /// Pictures are `pace` apart; without one they have the time at which they come.
    pub fn new(place: Place, pace: Option<Duration>) -> Self {
        Self {
            place,
            pace,
            pieces: mpsc::channel(1).1,
            splitter: Splitter::default(),
            units: Units::default(),
            opened: Instant::now(),
            clock: Clock::default(),
            ready: None,
            gap: false,
            keyframe_seen: false,
            flushing: None,
        }
    }

    /// The next whole picture; `None` at the end.
    async fn picture(&mut self) -> Result<Option<AccessUnit>, SourceError> {
        loop {
            while let Some(nal) = self.splitter.next_nal().map_err(self.format())? {
                if let Some(unit) = self.units.push(nal) {
                    return Ok(Some(unit));
                }
            }
            if let Some(then) = self.flushing {
                let last = self.splitter.finish().map_err(self.format())?;
                let whole = last.and_then(|nal| self.units.push(nal));
                if let Some(unit) = whole.or_else(|| self.units.finish()) {
                    return Ok(Some(unit));
                }
                match then {
                    Then::End => return Ok(None),
                    Then::Gap => self.gap = true,
                    Then::GoOn => {}
                }
                self.flushing = None;
            }
            match timeout(PAUSE, self.pieces.recv()).await {
                Ok(Some(Ok(piece))) if piece == WRITER_GONE => self.flushing = Some(Then::Gap),
                Ok(Some(Ok(piece))) => self.splitter.push(&piece),
                Ok(Some(Err(source))) => {
                    let name = self.place.name();
                    return Err(SourceError::Read { name, source });
                }
                Ok(None) => self.flushing = Some(Then::End),
                Err(_) if self.pace.is_none() => self.flushing = Some(Then::GoOn),
                Err(_) => {}
            }
        }
    }

    fn format(&self) -> impl Fn(NotAnnexB) -> SourceError + use<> {
        let name = self.place.name();
        move |source| SourceError::Format {
            name: name.clone(),
            source,
        }
    }
}

#[async_trait]
impl Source for Input {
    async fn open(&mut self) -> Result<Opened, SourceError> {
        let (sender, pieces) = mpsc::channel(PIECES);
        let place = self.place.clone();
        let reading = std::thread::Builder::new().name("input".into());
        let reading = reading.spawn(move || {
            if let Err(error) = place.read(&sender) {
                // Whoever would hear of it may be gone.
                let _ = sender.blocking_send(Err(error));
            }
        });
        reading.map_err(|source| SourceError::Read {
            name: self.place.name(),
            source,
        })?;
        *self = Self {
            pieces,
            ..Self::new(self.place.clone(), self.pace)
        };
        Ok(Opened::default())
    }

    async fn next(&mut self) -> Result<Option<Sample>, SourceError> {
        if self.ready.is_none() {
            let Some(unit) = self.picture().await? else {
                let name = self.place.name();
                return match self.keyframe_seen {
                    true => Ok(None),
                    false => Err(SourceError::NoKeyframe { name }),
                };
            };
            self.gap |= self.splitter.was_torn();
            self.keyframe_seen |= unit.is_keyframe();
            let passed = self.opened.elapsed();
            let at = match self.pace {
                Some(pace) => self.clock.next(pace, passed),
                None => passed,
            };
            self.ready = Some((at, unit));
        }
        if std::mem::take(&mut self.gap) {
            return Ok(Some(Sample::Gap));
        }
        if let Some((at, _)) = &self.ready {
            sleep_until(self.opened + *at).await;
        }
        let sample = self.ready.take();
        Ok(sample.map(|(at, unit)| Sample::Video { at, unit }))
    }
}

/// When the pictures of a paced stream are due, from when it was opened.
#[derive(Debug, Default)]
struct Clock {
    base: Duration,
    pictures: u32,
}

impl Clock {
    fn next(&mut self, pace: Duration, passed: Duration) -> Duration {
        let mut due = self.base + pace * self.pictures;
        if due + LATE < passed {
            (self.base, self.pictures) = (passed, 0);
            due = passed;
        }
        self.pictures += 1;
        // A year at 30 a second are 2³⁰: the count begins again long before it wraps.
        if self.pictures == u32::MAX {
            (self.base, self.pictures) = (due + pace, 0);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Duration = Duration::from_millis(40);

    #[test]
    fn paced_pictures_are_as_far_apart_as_asked_and_a_long_stall_is_not_made_up_for() {
        let mut clock = Clock::default();
        let at = Duration::from_millis;
        assert_eq!(clock.next(FRAME, at(0)), at(0));
        assert_eq!(clock.next(FRAME, at(1)), at(40));
        assert_eq!(
            clock.next(FRAME, at(500)),
            at(80),
            "a little late is made up for"
        );
        assert_eq!(clock.next(FRAME, at(5_000)), at(5_000));
        assert_eq!(clock.next(FRAME, at(5_001)), at(5_040));
    }

    const KEY: &[u8] = &[0, 0, 1, 0x67, 1, 0, 0, 1, 0x68, 2, 0, 0, 1, 0x65, 0x88, 3];
    const DELTA: &[u8] = &[0, 0, 1, 0x41, 0x9a, 4];

    fn write(bytes: &[u8], name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("{name}-{}.h264", std::process::id()));
        std::fs::write(&path, bytes).expect("the temporary folder can be written");
        path
    }

    async fn all(mut input: Input, most: usize) -> Result<Vec<Sample>, SourceError> {
        input.open().await?;
        let mut samples = Vec::new();
        while samples.len() < most
            && let Some(sample) = input.next().await?
        {
            samples.push(sample);
        }
        Ok(samples)
    }

    fn at(sample: &Sample) -> Duration {
        match sample {
            Sample::Video { at, .. } => *at,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn neither_a_pause_nor_another_writer_behind_the_first_zero_of_a_stream_is_an_end() {
        let path = write(KEY, "pause");
        for (pieces, gap) in [
            (
                vec![Bytes::from_static(&[0]), Bytes::from_static(KEY)],
                false,
            ),
            (
                vec![
                    Bytes::from_static(&[0]),
                    WRITER_GONE,
                    Bytes::from_static(KEY),
                ],
                true,
            ),
        ] {
            let mut input = Input::new(Place::at(&path, false).expect("a file"), None);
            let (sender, read) = mpsc::channel(2);
            input.pieces = read;
            let device = async {
                for piece in pieces {
                    sender.send(Ok(piece)).await.expect("it is read");
                    tokio::time::sleep(2 * PAUSE).await;
                }
            };
            let (picture, ()) = tokio::join!(input.picture(), device);
            assert!(picture.expect("it is H.264").is_some());
            assert_eq!(input.gap, gap);
        }
        std::fs::remove_file(&path).expect("it is there");
    }

    #[tokio::test]
    async fn a_file_is_read_to_its_last_picture_and_again_if_it_is_to_be() {
        let path = write(&[KEY, DELTA, DELTA].concat(), "whole");
        let file = |repeat| Place::at(&path, repeat).expect("a file");
        let once = all(Input::new(file(false), Some(FRAME / 10)), 100).await;
        let once = once.expect("it can be read");
        let times: Vec<Duration> = once.iter().map(at).collect();
        assert_eq!(times, [Duration::ZERO, FRAME / 10, FRAME / 5]);
        let again = all(Input::new(file(true), Some(FRAME / 10)), 7).await;
        let again = again.expect("it can be read");
        assert_eq!(at(&again[6]), FRAME / 10 * 6, "time goes on");
        std::fs::remove_file(&path).expect("it is there");
    }

    #[tokio::test]
    async fn what_can_not_be_sent_ends_with_the_reason() {
        for (bytes, name, word) in [
            (&b"\0\0\0\x20ftypisom...."[..], "mp4", "h264_mp4toannexb"),
            (DELTA, "delta", "no keyframe"),
            (&[], "empty", "no keyframe"),
        ] {
            let path = write(bytes, name);
            let place = Place::at(&path, name == "empty").expect("a file");
            let error = all(Input::new(place, Some(FRAME / 10)), 2).await;
            let error = error.expect_err(name);
            assert!(error.is_final(), "{error}");
            let text = crate::error::with_causes(&error);
            assert!(text.contains(word), "{text}");
            std::fs::remove_file(&path).expect("it is there");
        }
        let gone = Place::at(Path::new("/nowhere/at.h264"), false);
        assert_eq!(gone.expect_err("none").kind(), io::ErrorKind::NotFound);
        let folder = Place::at(&std::env::temp_dir(), false);
        assert_eq!(
            folder.expect_err("none").kind(),
            io::ErrorKind::IsADirectory
        );
    }
}
