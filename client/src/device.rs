//! A device: publishes what its source gives, carries out what viewers ask of it, and comes back by itself
//! when the server or the source was away.
//!
//! It is the library half of `media-device`. The source is read by a task of its own (`feed`); a session takes
//! from it for as long as it lasts, and while there is none what comes is left out, because a picture that is
//! late is no picture. Programs with a back end of their own fill [`Source`] or [`Injector`].

mod adb;
mod annex_b;
mod backoff;
mod control;
mod feed;
mod inject;
mod input;
mod liveness;
mod rtsp;
mod source;
mod units;

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use adb::Adb;
pub use annex_b::NotAnnexB;
pub use inject::{Action, InjectError, Injector, Log, Press, Touch};
pub use input::{Input, Place};
pub use rtsp::Rtsp;
pub use source::{Opened, Sample, Source, SourceError};
pub use units::AccessUnit;

use crate::error::with_causes;
use crate::publisher::random_share;
use crate::{ClientError, Codec, Http, Options, Publisher, Traffic};
use backoff::Backoff;
use feed::{Fed, Feed};
use units::Entry;

/// Where and how a device publishes.
pub struct DeviceOptions {
    /// The WHIP endpoint, with the device in it.
    pub url: String,
    pub http: Http,
    /// Has the bearer token; read anew for each session, so that it can be renewed in place.
    pub token_file: Option<PathBuf>,
    /// How media is carried. `control` and `traffic` in it are the device's own.
    pub session: Options,
}

/// See the module.
pub struct Device {
    options: DeviceOptions,
    source: Box<dyn Source>,
    injector: Option<Box<dyn Injector>>,
}

/// What a device tells its owner.
#[derive(Debug)]
pub enum DeviceEvent {
    /// The source is open.
    Source(Opened),
    /// The source failed and is opened anew after the pause; the session goes on.
    SourceFailed { reason: String, pause: Duration },
    /// The session is up.
    Live,
    /// The session ended or could not be opened; another attempt follows after the pause.
    Lost { reason: String, pause: Duration },
    /// Pictures have come for so long, and none that anybody could begin to watch with.
    NoKeyframe { after: Duration },
}

impl fmt::Display for DeviceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(Opened { audio, left_out }) => {
                let with = if *audio { "video and audio" } else { "video" };
                write!(f, "the source is open, with {with}")?;
                match left_out {
                    Some(reason) => write!(f, "; left out: {reason}"),
                    None => Ok(()),
                }
            }
            Self::SourceFailed { reason, pause } => {
                write!(f, "{reason}; opening the source again in {pause:.1?}")
            }
            Self::Live => f.write_str("live"),
            Self::Lost { reason, pause } => write!(f, "{reason}; next attempt in {pause:.1?}"),
            Self::NoKeyframe { after } => write!(
                f,
                "no keyframe with its parameter sets (SPS and PPS) came for {after:?}, and nothing is sent \
                 before one: have the encoder make them more often"
            ),
        }
    }
}

/// Pictures that are left out for so long, waiting for a keyframe, are told of.
const NO_KEYFRAME: Duration = Duration::from_secs(10);

/// How long a session stays behind the source's last picture, so that it leaves before the DELETE overtakes it,
/// and what of it is lost can be asked for again.
const LAST_REPAIRS: Duration = Duration::from_millis(500);

/// Longest that the end of the session may take: the server ends it by itself some time after.
const GOODBYE: Duration = Duration::from_secs(3);

impl DeviceOptions {
    /// With the token as it is now.
    fn http(&self) -> Result<Http, ClientError> {
        let Some(path) = &self.token_file else {
            return Ok(self.http.clone());
        };
        let token = std::fs::read_to_string(path).map_err(|source| ClientError::Token {
            path: path.clone(),
            source,
        })?;
        Ok(self.http.with_token(Some(token.trim().to_owned())))
    }

    /// A session as the source and the injector have it be.
    async fn connect(&self, audio: bool, session: &Options) -> Result<Publisher, ClientError> {
        let codecs: &[Codec] = match audio {
            true => &[Codec::H264, Codec::Opus],
            false => &[Codec::H264],
        };
        Publisher::connect(&self.url, &self.http()?, session, codecs).await
    }
}

impl Device {
    /// Without an injector the device has no `control` channel, and its viewers are told so.
    pub fn new(
        options: DeviceOptions,
        source: Box<dyn Source>,
        injector: Option<Box<dyn Injector>>,
    ) -> Self {
        Self {
            options,
            source,
            injector,
        }
    }

    /// Publishes until `stop` is done or the source has come to its end, then ends the session. `report`
    /// hears of every change.
    ///
    /// # Errors
    /// [`SourceError`] if the source has nothing that can be sent. Everything else is tried again.
    pub async fn run(
        self,
        stop: impl Future<Output = ()>,
        report: impl FnMut(DeviceEvent),
    ) -> Result<(), SourceError> {
        tokio::pin!(stop);
        let mut running = Running {
            feed: Feed::start(self.source),
            entry: Entry::default(),
            audio: false,
            waiting: None,
            stop,
            report,
        };
        let injector = self.injector;
        match running.publish(&self.options, injector).await {
            Over::Stopped => Ok(()),
            Over::SourceEnded => running.feed.end().await,
        }
    }
}

/// Why a device ends.
enum Over {
    Stopped,
    SourceEnded,
}

/// How a session came to its end.
enum Ended {
    Over(Over),
    Lost(String),
}

struct Running<'a, S, R> {
    feed: Feed,
    entry: Entry,
    /// Whether the source has Opus.
    audio: bool,
    /// Since when pictures wait for a keyframe.
    waiting: Option<Instant>,
    /// Not looked at again once it is done.
    stop: Pin<&'a mut S>,
    report: R,
}

impl<S: Future<Output = ()>, R: FnMut(DeviceEvent)> Running<'_, S, R> {
    /// One session after the other.
    async fn publish(
        &mut self,
        options: &DeviceOptions,
        mut injector: Option<Box<dyn Injector>>,
    ) -> Over {
        if let Err(over) = self.opened().await {
            return over;
        }
        let mut backoff = Backoff::new(random_share);
        loop {
            let traffic = Arc::new(Traffic::default());
            let session = Options {
                control: injector.is_some(),
                traffic: traffic.clone(),
                ..options.session.clone()
            };
            let audio = self.audio;
            // A POST that is given up leaves a session that the server ends by itself.
            let connected = match self.meanwhile(options.connect(audio, &session)).await {
                Ok(connected) => connected,
                Err(over) => return over,
            };
            let (reason, lasted, retry_after) = match connected {
                Ok(publisher) => {
                    let began = Instant::now();
                    (self.report)(DeviceEvent::Live);
                    match self.session(&publisher, injector.as_mut(), &traffic).await {
                        Ended::Over(over) => {
                            if let Over::SourceEnded = over {
                                // A stop ends this too.
                                let _ =
                                    tokio::time::timeout(LAST_REPAIRS, self.stop.as_mut()).await;
                            }
                            say_goodbye(publisher).await;
                            return over;
                        }
                        Ended::Lost(reason) => {
                            publisher.abandon().await;
                            (reason, began.elapsed(), None)
                        }
                    }
                }
                Err(error) => (with_causes(&error), Duration::ZERO, error.retry_after()),
            };
            let pause = backoff.pause(lasted, retry_after);
            (self.report)(DeviceEvent::Lost { reason, pause });
            if let Err(over) = self.meanwhile(tokio::time::sleep(pause)).await {
                return over;
            }
        }
    }

    /// Sends what the source gives, until the session is over.
    async fn session(
        &mut self,
        publisher: &Publisher,
        injector: Option<&mut Box<dyn Injector>>,
        traffic: &Traffic,
    ) -> Ended {
        let lost = liveness::lost(publisher, traffic);
        let control = async {
            if let (Some(control), Some(injector)) = (publisher.control(), injector) {
                control::serve(control, &mut **injector).await;
                tracing::warn!("the control channel is closed");
            }
            std::future::pending::<()>().await;
        };
        tokio::pin!(lost, control);
        self.entry.cut();
        self.feed.request_keyframe();
        loop {
            let fed = tokio::select! {
                () = self.stop.as_mut() => return Ended::Over(Over::Stopped),
                state = publisher.over() => return Ended::Lost(format!("the session is {state:?}")),
                reason = &mut lost => return Ended::Lost(reason),
                () = &mut control => continue,
                () = publisher.keyframe_requested() => {
                    self.feed.request_keyframe();
                    continue;
                }
                fed = self.feed.fed.recv() => fed,
            };
            let Some(fed) = fed else {
                return Ended::Over(Over::SourceEnded);
            };
            if let Some(sample) = self.note(fed)
                && let Err(error) = self.send(publisher, sample).await
            {
                return Ended::Lost(with_causes(&error));
            }
        }
    }

    async fn send(&mut self, publisher: &Publisher, sample: Sample) -> Result<(), ClientError> {
        match sample {
            Sample::Gap => {
                self.entry.cut();
                Ok(())
            }
            Sample::Video { at, unit } => match self.entry.pass(&unit) {
                Some(frame) => {
                    self.waiting = None;
                    let track = publisher.track(Codec::H264)?;
                    track.send_frame(ticks(at, Codec::H264), &frame).await
                }
                None => {
                    self.wait_for_keyframe();
                    Ok(())
                }
            },
            // A source that was opened anew may have sound that the session has no track for.
            Sample::Audio { at, packet } => match publisher.track(Codec::Opus) {
                Ok(track) => track.send(ticks(at, Codec::Opus), false, packet).await,
                Err(_) => Ok(()),
            },
        }
    }

    fn wait_for_keyframe(&mut self) {
        let since = *self.waiting.get_or_insert_with(Instant::now);
        if since.elapsed() >= NO_KEYFRAME {
            self.waiting = None;
            (self.report)(DeviceEvent::NoKeyframe { after: NO_KEYFRAME });
        }
    }

    /// Waits for the source to be open, which tells whether there is sound.
    async fn opened(&mut self) -> Result<(), Over> {
        loop {
            let fed = tokio::select! {
                () = self.stop.as_mut() => return Err(Over::Stopped),
                fed = self.feed.fed.recv() => fed.ok_or(Over::SourceEnded)?,
            };
            let is_open = matches!(fed, Fed::Opened(_));
            self.note(fed);
            if is_open {
                return Ok(());
            }
        }
    }

    /// Does that while what the source gives is left out, but for what later pictures need.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Over> {
        tokio::pin!(work);
        loop {
            let fed = tokio::select! {
                done = &mut work => return Ok(done),
                () = self.stop.as_mut() => return Err(Over::Stopped),
                fed = self.feed.fed.recv() => fed.ok_or(Over::SourceEnded)?,
            };
            if let Some(Sample::Video { unit, .. }) = self.note(fed) {
                self.entry.learn(&unit);
            }
        }
    }

    /// Tells what happened to the source; gives back what it gave.
    fn note(&mut self, fed: Fed) -> Option<Sample> {
        match fed {
            Fed::Sample(sample) => return Some(sample),
            Fed::Opened(opened) => {
                self.audio = opened.audio;
                (self.report)(DeviceEvent::Source(opened));
            }
            Fed::Failed { reason, pause } => {
                self.entry.cut();
                (self.report)(DeviceEvent::SourceFailed { reason, pause });
            }
        }
        None
    }
}

async fn say_goodbye(publisher: Publisher) {
    match tokio::time::timeout(GOODBYE, publisher.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(error = %with_causes(&error), "the session was not deleted")
        }
        Err(_) => tracing::warn!("the session was not deleted in time"),
    }
}

/// RTP time on the codec's clock, which wraps.
fn ticks(at: Duration, codec: Codec) -> u32 {
    const SECOND: u128 = Duration::from_secs(1).as_nanos();
    // To the nearest: what came from ticks becomes the same ones.
    ((at.as_nanos() * u128::from(codec.clock_rate()) + SECOND / 2) / SECOND) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_from_ticks_become_the_same_ticks_again() {
        for codec in [Codec::H264, Codec::Opus] {
            let rate = codec.clock_rate();
            for count in [0, 1, 2, 3, 959, 960, 961, 3_003, 123_456_789, u32::MAX] {
                let at = Duration::from_secs_f64(f64::from(count) / f64::from(rate));
                assert_eq!(ticks(at, codec), count);
            }
        }
        assert_eq!(
            ticks(Duration::from_secs(47_722), Codec::H264),
            12_704,
            "it wraps"
        );
    }
}
