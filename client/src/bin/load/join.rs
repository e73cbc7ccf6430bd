//! How viewers come in: one by one, at a rate, or as a wave.

use std::sync::Arc;
use std::time::Duration;

use client::{Codec, Http, Options, PreparedViewer, Reception, Viewer};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::blind::{Blind, Reason};
use crate::layers::Layers;
use crate::meter::{Eye, Meter};
use crate::report::Joined;
use crate::tokens::Tokens;
use crate::{Args, endpoint, progress};

/// Reasons of failure that are told.
const MAX_FAILURES: usize = 5;

/// Everything a viewer needs to come in. Shared by the tasks that let them.
pub struct Door {
    whep: String,
    devices: Vec<String>,
    http: Http,
    options: Options,
    codec: Codec,
    tokens: Tokens,
    meter: Arc<Meter>,
    layers: Arc<Layers>,
}

/// Why a viewer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Of `--viewers`, before media began: all of it is owed to them.
    AtRest,
    /// Of `--viewers`, while media flows.
    Live,
    Wave,
    Churn,
}

/// A viewer that is watching.
pub struct Watching {
    /// In the order in which they were to come.
    pub number: usize,
    pub viewer: Viewer,
    pub eye: Arc<Eye>,
    pub device: usize,
    pub group: Group,
    /// When it was connected.
    pub since: Instant,
}

/// A viewer whose offer is ready.
pub struct Prepared {
    pub number: usize,
    viewer: PreparedViewer,
    http: Http,
    eye: Arc<Eye>,
    device: usize,
    /// The layer that it asks for.
    layer: Option<String>,
}

impl Door {
    pub fn new(
        args: &Args,
        http: Http,
        options: Options,
        tokens: Tokens,
        meter: Arc<Meter>,
        layers: Arc<Layers>,
    ) -> Arc<Self> {
        Arc::new(Self {
            whep: args.whep.clone().unwrap_or_default(),
            devices: args.devices(),
            http,
            options,
            codec: args.codec,
            tokens,
            meter,
            layers,
        })
    }

    /// Makes the offer of the viewer of that number; they are spread over the devices.
    ///
    /// # Errors
    /// If the offer or its token can't be made.
    pub async fn prepare(&self, number: usize) -> anyhow::Result<Prepared> {
        let device = number % self.devices.len();
        let name = &self.devices[device];
        let choice = self.layers.choice(number, self.devices.len());
        let eye = Arc::new(Eye::new(self.meter.clone(), self.layers.clone(), choice));
        let url = endpoint(&self.whep, name);
        let mut options = self.options.clone();
        options.loss = options.loss.map(|loss| loss.of(number as u64));
        let viewer = PreparedViewer::new(&url, &options, &[self.codec], Some(eye.clone())).await?;
        Ok(Prepared {
            number,
            viewer,
            http: self.http.with_token(self.tokens.viewer(number, name)?),
            eye,
            device,
            layer: self.layers.wanted(choice).map(str::to_owned),
        })
    }
}

impl Prepared {
    /// Opens the session, and asks for its layer.
    ///
    /// # Errors
    /// Why it could not be.
    pub async fn join(self, group: Group) -> anyhow::Result<Watching> {
        let viewer = self.viewer.join(&self.http).await?;
        if let Some(layer) = &self.layer
            && let Err(error) = viewer.select_layer(Some(layer)).await
        {
            // It would watch what it does not want. What the server makes of the end changes nothing.
            viewer.close().await.ok();
            return Err(error.into());
        }
        Ok(Watching {
            number: self.number,
            viewer,
            eye: self.eye,
            device: self.device,
            group,
            since: Instant::now(),
        })
    }
}

impl Watching {
    /// How its set-up went.
    pub fn joined(&self, reception: &Reception) -> Joined {
        let times = self.viewer.setup_times();
        let live = |at: Option<std::time::Instant>| {
            at.filter(|_| self.group != Group::AtRest)
                .map(|at| self.viewer.since_start(at))
        };
        Joined {
            offered: times.offered,
            answered: times.answered,
            connected: times.connected,
            first_packet: live(reception.first_at()),
            picture: live(self.eye.picture()),
        }
    }
}

/// The viewers that came in, and why others did not.
#[derive(Default)]
pub struct Joins {
    pub watching: Vec<Watching>,
    pub failed: usize,
    pub failures: Vec<String>,
    /// Those who failed.
    pub blind: Blind,
}

impl Joins {
    /// Adds the viewer of that number, or why it is not there.
    pub fn add(&mut self, number: usize, joined: anyhow::Result<Watching>) {
        let error = match joined {
            Ok(watch) => return self.watching.push(watch),
            Err(error) => error,
        };
        let failure = format!("{error:#}");
        self.blind.add(number, Reason::of_failure(&error));
        self.failed += 1;
        if self.failures.len() < MAX_FAILURES {
            progress(&format!("a viewer failed: {failure}"));
            self.failures.push(failure);
        }
    }
}

/// How a number of viewers is let in.
#[derive(Debug, Clone, Copy)]
pub enum Rhythm {
    /// So many set-ups at a time, each as soon as there is room.
    Concurrent(u32),
    /// Evenly over time, whatever the ones before are at. Offers are made shortly before.
    PerSecond(f64),
}

/// Lets `count` viewers join, numbered from `first`.
pub async fn join_all(
    door: &Arc<Door>,
    first: usize,
    count: usize,
    rhythm: Rhythm,
    group: Group,
) -> Joins {
    let permits = Arc::new(Semaphore::new(match rhythm {
        Rhythm::Concurrent(permits) => permits as usize,
        Rhythm::PerSecond(_) => count.max(1),
    }));
    let start = Instant::now() + LEAD;
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let due = match rhythm {
            Rhythm::Concurrent(_) => None,
            Rhythm::PerSecond(rate) => Some(start + Duration::from_secs_f64(number as f64 / rate)),
        };
        let (door, permits, number) = (door.clone(), permits.clone(), first + number);
        let join = async move {
            if let Some(due) = due {
                tokio::time::sleep_until(due - LEAD).await;
            }
            let _permit = permits.acquire().await;
            let prepared = door.prepare(number).await?;
            if let Some(due) = due {
                tokio::time::sleep_until(due).await;
            }
            prepared.join(group).await
        };
        tasks.spawn(async move { (number, join.await) });
    }
    let mut joins = Joins::default();
    while let Some(joined) = tasks.join_next().await {
        let (number, joined) = joined.expect("no viewer's task panics or is aborted");
        joins.add(number, joined);
        let done = joins.watching.len();
        if done > 0 && done.is_multiple_of(50) {
            progress(&format!("{done} of {count} viewers"));
        }
    }
    joins
}

/// How long before its POST a viewer makes its offer.
const LEAD: Duration = Duration::from_millis(200);
