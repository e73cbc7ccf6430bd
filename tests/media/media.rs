//! Clients of a test server, and media whose every byte is known.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use client::synthetic::FrameSource;
use client::{Codec, Http, HttpOptions, Options, PacketSink, Publisher, ReceivedPacket, Viewer};
use tests::{MediaServer, wait_for};
use tokio::time::MissedTickBehavior;

/// Long enough for a busy machine; what waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// No viewer of a device that sends goes without a packet for so long, on the busiest machine.
pub const GAP: Duration = Duration::from_secs(1);

/// Time between the frames of [`send_frames`].
const FRAME: Duration = Duration::from_millis(10);

pub fn http() -> Http {
    Http::new(&HttpOptions::default()).expect("an HTTP client")
}

pub async fn publish(server: &MediaServer, device: &str, codecs: &[Codec]) -> Publisher {
    publish_with(server, device, codecs, &Options::default()).await
}

pub async fn publish_with(
    server: &MediaServer,
    device: &str,
    codecs: &[Codec],
    options: &Options,
) -> Publisher {
    let url = server.url(&format!("/whip/{device}"));
    // A test that has a device come again and again comes too fast for the server at last.
    wait_for(&format!("{device} to publish"), PATIENCE, || async {
        Publisher::connect(&url, &http(), options, codecs)
            .await
            .map_err(|error| {
                assert_eq!(
                    error.status(),
                    Some(429),
                    "{device} cannot publish: {error:?}"
                );
                error
            })
    })
    .await
}

/// A viewer that keeps what it gets.
pub struct Watching {
    pub viewer: Viewer,
    pub record: Arc<Record>,
}

pub async fn watch(server: &MediaServer, device: &str, codecs: &[Codec]) -> Watching {
    watch_with(server, device, codecs, &Options::default()).await
}

pub async fn watch_with(
    server: &MediaServer,
    device: &str,
    codecs: &[Codec],
    options: &Options,
) -> Watching {
    let url = server.url(&format!("/whep/{device}"));
    let record = Arc::new(Record::default());
    // The server lets viewers in as soon as it, too, has seen the publisher connect.
    let viewer = wait_for("the viewer to be let in", PATIENCE, || {
        let (url, record) = (url.clone(), record.clone());
        async move {
            let sink: Arc<dyn PacketSink> = record;
            Viewer::connect(&url, &http(), options, codecs, Some(sink))
                .await
                .map_err(|error| {
                    assert_eq!(error.status(), Some(409), "{error:?}");
                    error
                })
        }
    })
    .await;
    Watching { viewer, record }
}

/// Payloads in the order of arrival.
#[derive(Default)]
pub struct Record {
    packets: Mutex<Vec<Recorded>>,
}

struct Recorded {
    at: Instant,
    codec: Option<Codec>,
    payload: Vec<u8>,
}

impl PacketSink for Record {
    fn packet(&self, packet: &ReceivedPacket<'_>) {
        self.packets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Recorded {
                at: Instant::now(),
                codec: packet.codec,
                payload: packet.payload.to_vec(),
            });
    }
}

impl Record {
    pub fn payloads(&self, codec: Codec) -> Vec<Vec<u8>> {
        self.packets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .filter(|packet| packet.codec == Some(codec))
            .map(|packet| packet.payload.clone())
            .collect()
    }

    /// When each packet since then came, and the size of its payload.
    pub fn since(&self, start: Instant) -> Vec<(Instant, usize)> {
        let packets = self.packets.lock().unwrap_or_else(PoisonError::into_inner);
        let since = packets.iter().filter(|packet| packet.at >= start);
        since
            .map(|packet| (packet.at, packet.payload.len()))
            .collect()
    }

    /// The longest time without a packet since then.
    pub fn largest_gap(&self, start: Instant) -> Duration {
        let came = self.since(start);
        let pairs = came.windows(2).map(|pair| pair[1].0 - pair[0].0);
        pairs.max().unwrap_or_else(|| start.elapsed())
    }

    pub fn len(&self) -> usize {
        self.packets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }
}

/// Sends frames, the first of them a keyframe, at 100 a second; returns the payloads.
pub async fn send_frames(
    publisher: &Publisher,
    codec: Codec,
    frames: usize,
    seed: u64,
) -> Vec<Vec<u8>> {
    let track = publisher.track(codec).expect("a track of that codec");
    let mut source = FrameSource::new(codec, 3, 700, seed);
    let mut tick = tokio::time::interval(FRAME);
    // On a busy machine frames come later, not in bursts that overrun a socket's buffer.
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent = Vec::new();
    for index in 0..frames {
        tick.tick().await;
        let timestamp = codec.clock_rate() / 100 * index as u32;
        let payloads = source.frame(index == 0);
        let last = payloads.len() - 1;
        for (position, payload) in payloads.into_iter().enumerate() {
            sent.push(payload.to_vec());
            track
                .send(timestamp, position == last, payload)
                .await
                .unwrap_or_else(|error| panic!("frame {index} cannot be sent: {error:?}"));
        }
    }
    sent
}

/// Waits until the viewer has that many packets of the codec, then gives them.
pub async fn received(watching: &Watching, codec: Codec, packets: usize) -> Vec<Vec<u8>> {
    wait_for("every packet to arrive", PATIENCE, || async {
        let got = watching.record.payloads(codec);
        if got.len() >= packets {
            Ok(got)
        } else {
            Err(format!(
                "{} of {packets} packets of {codec}, {:?}, {:?}",
                got.len(),
                watching.viewer.state(),
                watching.viewer.reception(),
            ))
        }
    })
    .await
}

/// Waits until a family's sum is that value.
pub async fn metric_becomes(server: &MediaServer, name: &str, labels: &[(&str, &str)], value: f64) {
    wait_for(
        &format!("{name}{labels:?} to be {value}"),
        PATIENCE,
        || async {
            let sum = server.metrics().await.sum(name, labels);
            if sum == value { Ok(()) } else { Err(sum) }
        },
    )
    .await;
}

/// Sessions on each of two shards, once there are so many.
pub async fn shard_sessions(server: &MediaServer, count: f64) -> [f64; 2] {
    wait_for(&format!("{count} sessions"), PATIENCE, || async {
        let metrics = server.metrics().await;
        let on = |shard| metrics.sum("media_shard_sessions", &[("shard", shard)]);
        let sessions = [on("0"), on("1")];
        if sessions.iter().sum::<f64>() == count {
            Ok(sessions)
        } else {
            Err(format!("{sessions:?}"))
        }
    })
    .await
}

/// Lets a device come back until it is on another shard than its viewers; `sessions` are there then.
/// A device goes on where its packets arrive: the kernel chooses one of two sockets, as good as by chance.
pub async fn until_apart<D, F: Future<Output = D>>(
    server: &MediaServer,
    sessions: f64,
    come_back: impl Fn() -> F,
) -> D {
    // Each is kept until the next is there, so that the viewers always have one.
    let mut device = come_back().await;
    for _ in 0..64 {
        if shard_sessions(server, sessions).await.contains(&1.0) {
            return device;
        }
        device = come_back().await;
    }
    panic!("64 times on the shard of its viewers");
}
