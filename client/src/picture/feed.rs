//! Publishes the test picture through WHIP, and comes back when the server was away.
//!
//! A thread of its own draws and encodes in the picture's rhythm; an async task sends. Between
//! them lie at most [`QUEUED_FRAMES`] frames: when the network is slower, frames are left out and
//! the next one sent is a keyframe, so that the delay stays small.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;

use super::{EncodedFrame, PictureEncoder, PictureOptions, TestPicture};
use crate::error::with_causes;
use crate::{Codec, Http, Options, Publisher};

/// Frames that may wait for the network.
const QUEUED_FRAMES: usize = 3;

/// Pauses between attempts to connect: the first, and the longest.
const RETRY_AFTER: Duration = Duration::from_millis(250);
const MAX_RETRY_AFTER: Duration = Duration::from_secs(5);

/// The session counts as healthy after this long, and the pauses start small again.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// What a feed tells its owner.
#[derive(Debug)]
pub enum FeedEvent {
    /// The picture is live.
    Live,
    /// The session ended or could not be opened; another attempt follows after the pause.
    Retrying { reason: String, pause: Duration },
}

/// The test picture on its way to one WHIP endpoint.
pub struct Feed {
    url: String,
    http: Http,
    options: Options,
    picture: PictureOptions,
    frames: Arc<AtomicU64>,
}

impl Feed {
    pub fn new(url: String, http: Http, options: Options, picture: PictureOptions) -> Self {
        Self {
            url,
            http,
            options,
            picture,
            frames: Arc::default(),
        }
    }

    /// Counts the frames sent, over all sessions.
    pub fn frames(&self) -> Arc<AtomicU64> {
        self.frames.clone()
    }

    /// Publishes until `stop` is done, then ends the session. `report` hears of every change.
    pub async fn run(&self, stop: impl Future<Output = ()>, mut report: impl FnMut(FeedEvent)) {
        tokio::pin!(stop);
        let mut pause = RETRY_AFTER;
        loop {
            let began = Instant::now();
            let connecting =
                Publisher::connect(&self.url, &self.http, &self.options, &[Codec::H264]);
            let publisher = tokio::select! {
                () = &mut stop => return,
                publisher = connecting => publisher,
            };
            let reason = match publisher {
                Ok(publisher) => {
                    report(FeedEvent::Live);
                    let ended = tokio::select! {
                        () = &mut stop => None,
                        ended = self.stream(&publisher) => Some(ended),
                    };
                    let closed = publisher.close().await;
                    let Some(ended) = ended else {
                        if let Err(error) = closed {
                            tracing::debug!(%error, "the session was not deleted");
                        }
                        return;
                    };
                    ended
                }
                Err(error) => with_causes(&error),
            };
            if began.elapsed() > HEALTHY_AFTER {
                pause = RETRY_AFTER;
            }
            report(FeedEvent::Retrying { reason, pause });
            tokio::select! {
                () = &mut stop => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(MAX_RETRY_AFTER);
        }
    }

    /// Sends frames until the session is over; says why it is.
    async fn stream(&self, publisher: &Publisher) -> String {
        let (queue, mut frames) = mpsc::channel(QUEUED_FRAMES);
        let keyframe = Arc::new(AtomicBool::new(true));
        let picture = self.picture.clone();
        let wanted = keyframe.clone();
        let drawing = std::thread::Builder::new()
            .name("test-picture".into())
            .spawn(move || draw(&picture, &queue, &wanted));
        if let Err(error) = drawing {
            return format!("failed to start a thread: {error}");
        }
        let track = match publisher.track(Codec::H264) {
            Ok(track) => track,
            Err(error) => return with_causes(&error),
        };
        loop {
            tokio::select! {
                state = publisher.over() => return format!("the session is {state:?}"),
                () = publisher.keyframe_requested() => keyframe.store(true, Ordering::Relaxed),
                frame = frames.recv() => {
                    let Some(Frame { ticks, encoded }) = frame else {
                        return "the encoder stopped".to_owned();
                    };
                    if let Err(error) = track.send_frame(ticks, &encoded.data).await {
                        return with_causes(&error);
                    }
                    self.frames.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

struct Frame {
    /// RTP time, at 90 kHz.
    ticks: u32,
    encoded: EncodedFrame,
}

/// Draws and encodes until the receiver is gone.
fn draw(options: &PictureOptions, queue: &mpsc::Sender<Frame>, keyframe: &AtomicBool) {
    let mut encoder = match PictureEncoder::new(options) {
        Ok(encoder) => encoder,
        Err(error) => {
            tracing::error!(%error, "no test picture");
            return;
        }
    };
    let mut picture = TestPicture::new(options);
    let interval = Duration::from_secs(1) / options.frames_per_second.max(1);
    let start = Instant::now();
    let mut due = start;
    while !queue.is_closed() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // After a stall of the machine the missed frames are left out, not sent in a burst.
        due = (due + interval).max(Instant::now());
        let at = start.elapsed();
        // Room first: an encoded frame that is not sent would spoil the ones after it.
        let Ok(place) = queue.try_reserve() else {
            keyframe.store(true, Ordering::Relaxed);
            continue;
        };
        let canvas = picture.draw(SystemTime::now());
        match encoder.encode(canvas, at, keyframe.swap(false, Ordering::Relaxed)) {
            Ok(encoded) if encoded.data.is_empty() => {}
            Ok(encoded) => place.send(Frame {
                ticks: (at.as_micros() * 9 / 100) as u32,
                encoded,
            }),
            Err(error) => {
                tracing::error!(%error, "no test picture");
                return;
            }
        }
    }
}
