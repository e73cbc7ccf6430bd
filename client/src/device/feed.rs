//! The task that has the source: opens it, opens it anew when it fails, and passes on what it gives.
//!
//! It knows no session: the stream goes on whether anybody takes it or not. `device` starts it and listens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::backoff::Backoff;
use super::source::{Opened, Sample, Source, SourceError};
use crate::error::with_causes;
use crate::publisher::random_share;

/// What comes of the source.
#[derive(Debug)]
pub(super) enum Fed {
    Opened(Opened),
    /// Times are those of the device: they go on when the source begins again.
    Sample(Sample),
    /// It is opened anew after the pause.
    Failed {
        reason: String,
        pause: Duration,
    },
}

/// Samples that wait for the session, which takes them as fast as they come.
const WAITING: usize = 16;

/// See the module. Ends with the task when dropped.
pub(super) struct Feed {
    pub fed: mpsc::Receiver<Fed>,
    keyframe: Arc<Notify>,
    task: JoinHandle<Result<(), SourceError>>,
}

impl Feed {
    pub fn start(source: Box<dyn Source>) -> Self {
        let (sender, fed) = mpsc::channel(WAITING);
        let keyframe = Arc::new(Notify::new());
        let task = tokio::spawn(feed(source, sender, keyframe.clone()));
        Self {
            fed,
            keyframe,
            task,
        }
    }

    /// Has the source make a keyframe, if it can.
    pub fn request_keyframe(&self) {
        self.keyframe.notify_one();
    }

    /// How it ended, once nothing more is fed.
    pub async fn end(&mut self) -> Result<(), SourceError> {
        (&mut self.task)
            .await
            .expect("the task does not panic and is not ended here")
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn feed(
    mut source: Box<dyn Source>,
    sender: mpsc::Sender<Fed>,
    keyframe: Arc<Notify>,
) -> Result<(), SourceError> {
    let mut timeline = Timeline::new();
    let mut backoff = Backoff::new(random_share);
    loop {
        let (failed, lasted) = match source.open().await {
            Err(error) => (error, Duration::ZERO),
            Ok(opened) => {
                let opened_at = Instant::now();
                timeline.begin();
                if sender.send(Fed::Opened(opened)).await.is_err() {
                    return Ok(());
                }
                loop {
                    let next = tokio::select! {
                        next = source.next() => next,
                        () = keyframe.notified() => {
                            source.request_keyframe();
                            continue;
                        }
                    };
                    match next {
                        Ok(Some(sample)) => {
                            let sample = timeline.place(sample);
                            if sender.send(Fed::Sample(sample)).await.is_err() {
                                return Ok(());
                            }
                        }
                        Ok(None) => return Ok(()),
                        Err(error) => break (error, opened_at.elapsed()),
                    }
                }
            }
        };
        if failed.is_final() {
            return Err(failed);
        }
        let pause = backoff.pause(lasted, None);
        let reason = with_causes(&failed);
        if sender.send(Fed::Failed { reason, pause }).await.is_err() {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
    }
}

/// Puts the times of a source that begins again behind those that it had before.
#[derive(Debug)]
struct Timeline {
    started: Instant,
    offset: Duration,
    last: Duration,
}

/// Between the last picture of a source and the first after it began again, at the least.
const STEP: Duration = Duration::from_millis(10);

impl Timeline {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            offset: Duration::ZERO,
            last: Duration::ZERO,
        }
    }

    fn begin(&mut self) {
        self.offset = self.started.elapsed().max(self.last + STEP);
    }

    fn place(&mut self, mut sample: Sample) -> Sample {
        if let Sample::Video { at, .. } | Sample::Audio { at, .. } = &mut sample {
            *at += self.offset;
            self.last = self.last.max(*at);
        }
        sample
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use async_trait::async_trait;
    use bytes::Bytes;

    use super::*;
    use crate::device::units::AccessUnit;

    /// Does what it is told, call by call.
    struct Script {
        steps: VecDeque<Step>,
        keyframes: Arc<Notify>,
    }

    enum Step {
        Open,
        Give(u64),
        Fail,
        Keyframe,
        End,
        Spoiled,
    }

    fn ended() -> SourceError {
        let url = "rtsp://192.0.2.1/".to_owned();
        SourceError::Ended { url }
    }

    #[async_trait]
    impl Source for Script {
        async fn open(&mut self) -> Result<Opened, SourceError> {
            match self.steps.pop_front() {
                Some(Step::Open) => Ok(Opened::default()),
                Some(Step::Spoiled) => Err(SourceError::NoKeyframe {
                    name: "x.h264".to_owned(),
                }),
                _ => Err(ended()),
            }
        }

        async fn next(&mut self) -> Result<Option<Sample>, SourceError> {
            if let Some(Step::Keyframe) = self.steps.front() {
                // Until it is asked for one.
                std::future::pending::<()>().await;
            }
            match self.steps.pop_front() {
                Some(Step::Give(ms)) => Ok(Some(Sample::Video {
                    at: Duration::from_millis(ms),
                    unit: AccessUnit {
                        nals: vec![Bytes::from_static(&[0x65])],
                    },
                })),
                Some(Step::End) => Ok(None),
                _ => Err(ended()),
            }
        }

        fn request_keyframe(&mut self) {
            if let Some(Step::Keyframe) = self.steps.front() {
                self.steps.pop_front();
                self.keyframes.notify_one();
            }
        }
    }

    fn start(steps: impl IntoIterator<Item = Step>) -> (Feed, Arc<Notify>) {
        let keyframes = Arc::new(Notify::new());
        let script = Script {
            steps: steps.into_iter().collect(),
            keyframes: keyframes.clone(),
        };
        (Feed::start(Box::new(script)), keyframes)
    }

    #[tokio::test]
    async fn a_source_that_fails_is_opened_anew_and_its_time_goes_on() {
        use Step::{End, Fail, Give, Open};
        let (mut feed, _) = start([Open, Give(0), Give(900_000), Fail, Fail, Open, Give(0), End]);
        let (mut times, mut opened, mut failed) = (Vec::new(), 0, 0);
        while let Some(fed) = feed.fed.recv().await {
            match fed {
                Fed::Opened(_) => opened += 1,
                Fed::Failed { reason, .. } => {
                    assert!(reason.contains("has ended"), "{reason}");
                    failed += 1;
                }
                Fed::Sample(Sample::Video { at, .. }) => times.push(at),
                Fed::Sample(other) => panic!("{other:?}"),
            }
        }
        assert_eq!((opened, failed), (2, 2));
        assert!(times.is_sorted() && times[2] > times[1], "{times:?}");
        assert!(feed.end().await.is_ok(), "it came to its end");
    }

    #[tokio::test]
    async fn input_that_can_not_be_sent_is_not_tried_again() {
        let (mut feed, _) = start([Step::Spoiled, Step::Open]);
        assert!(feed.fed.recv().await.is_none());
        let error = feed.end().await.expect_err("it is spoiled");
        assert!(error.to_string().contains("x.h264"), "{error}");
    }

    #[tokio::test]
    async fn a_source_is_asked_for_a_keyframe_while_it_is_waited_for() {
        use Step::{End, Give, Keyframe, Open};
        let (mut feed, keyframes) = start([Open, Keyframe, Give(0), End]);
        assert!(matches!(feed.fed.recv().await, Some(Fed::Opened(_))));
        feed.request_keyframe();
        keyframes.notified().await;
        assert!(matches!(feed.fed.recv().await, Some(Fed::Sample(_))));
    }
}
