//! A device and its viewers, who come back as real ones do when their session ends.

use std::sync::Arc;
use std::time::Duration;

use client::synthetic::FrameSource;
use client::{Codec, Http, Options, Publisher, Viewer};
use tokio::task::JoinHandle;
use tokio::time::interval;

use crate::service::{DEVICE, Service};

const CODEC: Codec = Codec::Vp8;
/// Between two attempts, as the page waits.
const RETRY: Duration = Duration::from_secs(2);
/// Between two pictures: 25 in a second, of 4 packets, are 0.9 Mbit/s.
const PICTURE: Duration = Duration::from_millis(40);

/// A device and a viewer. Gone when dropped.
pub struct Stream {
    tasks: Vec<JoinHandle<()>>,
}

impl Stream {
    pub fn start(service: &Service) -> Self {
        let device = publish(service.signalling.clone(), service.http());
        let mut stream = Self {
            tasks: vec![tokio::spawn(device)],
        };
        stream.add_viewers(service, 1);
        stream
    }

    /// Viewers alone, of a device that is somewhere else.
    pub fn of_viewer(service: &Service) -> Self {
        let mut stream = Self { tasks: Vec::new() };
        stream.add_viewers(service, 1);
        stream
    }

    pub fn add_viewers(&mut self, service: &Service, count: usize) {
        for _ in 0..count {
            let viewer = watch(service.signalling.clone(), service.http());
            self.tasks.push(tokio::spawn(viewer));
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Publishes for ever.
pub async fn publish(signalling: String, http: Http) {
    let url = format!("{signalling}/whip/{DEVICE}");
    let mut retry = interval(RETRY);
    loop {
        retry.tick().await;
        match Publisher::connect(&url, &http, &Options::default(), &[CODEC]).await {
            Ok(publisher) => send(&Arc::new(publisher)).await,
            Err(error) => eprintln!("{signalling}, the device: {error:#}"),
        }
    }
}

/// Frames until the session is over.
async fn send(publisher: &Publisher) {
    let track = publisher.track(CODEC).expect("it has one");
    let mut source = FrameSource::new(CODEC, 4, 1_100, 1);
    let mut tick = interval(PICTURE);
    let mut index: u32 = 0;
    while !publisher.state().is_over() {
        tick.tick().await;
        let payloads = source.frame(index.is_multiple_of(25));
        let last = payloads.len() - 1;
        for (position, payload) in payloads.into_iter().enumerate() {
            let timestamp = (CODEC.clock_rate() / 25).wrapping_mul(index);
            if let Err(error) = track.send(timestamp, position == last, payload).await {
                // That and why it is over is for the session's state to tell.
                eprintln!("the device: {error:#}");
                return;
            }
        }
        index += 1;
    }
}

/// Watches for ever.
async fn watch(signalling: String, http: Http) {
    let url = format!("{signalling}/whep/{DEVICE}");
    let mut retry = interval(RETRY);
    loop {
        retry.tick().await;
        match Viewer::connect(&url, &http, &Options::default(), &[CODEC], None).await {
            Ok(viewer) => drop(viewer.over().await),
            Err(error) => eprintln!("{signalling}, a viewer: {error:#}"),
        }
    }
}
