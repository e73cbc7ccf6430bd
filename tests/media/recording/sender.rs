//! A device that sends encoded pictures and sound in real time, again and again, and knows when it sent
//! what.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::{Codec, Publisher};
use tests::ffmpeg;

/// Time of a picture.
pub const PICTURE: Duration = Duration::from_millis(40);
/// Time of a packet of sound.
pub const SOUND: Duration = Duration::from_millis(20);

/// See the module.
pub struct Sender<'a> {
    device: &'a Publisher,
    codec: Codec,
    pictures: Vec<Vec<u8>>,
    sounds: Vec<Vec<u8>>,
    sent: Mutex<Sent>,
    stop: AtomicBool,
}

/// Hash and time of what was sent, in seconds; the hash is of a frame as files hold it.
#[derive(Default, Clone)]
pub struct Sent {
    pub pictures: Vec<(u32, f64)>,
    pub sounds: Vec<(u32, f64)>,
}

impl<'a> Sender<'a> {
    /// A moving picture and a tone, with a keyframe each second, for `seconds` and then anew.
    pub fn new(device: &'a Publisher, codec: Codec, seconds: u32) -> Self {
        let pictures = match codec {
            Codec::H264 => ffmpeg::h264(seconds),
            _ => ffmpeg::pictures(ffmpeg::VP8, seconds),
        };
        Self {
            sounds: ffmpeg::sound(seconds),
            ..Self::silent(device, codec, pictures)
        }
    }

    /// These pictures and no sound.
    pub fn silent(device: &'a Publisher, codec: Codec, pictures: Vec<Vec<u8>>) -> Self {
        Self {
            device,
            codec,
            pictures,
            sounds: Vec::new(),
            sent: Mutex::default(),
            stop: AtomicBool::new(false),
        }
    }

    /// Sends until `looking` is done.
    pub async fn while_sending<T>(&self, looking: impl Future<Output = T>) -> T {
        let looking = async {
            let seen = looking.await;
            self.stop.store(true, Relaxed);
            seen
        };
        tokio::join!(looking, self.send()).0
    }

    pub fn sent(&self) -> Sent {
        lock(&self.sent).clone()
    }

    async fn send(&self) {
        let began = Instant::now();
        let (mut picture, mut sound) = (0, 0);
        while !self.stop.load(Relaxed) {
            let (next_picture, next_sound) = (PICTURE * picture, SOUND * sound);
            let due = match self.sounds.is_empty() {
                true => next_picture,
                false => next_picture.min(next_sound),
            };
            tokio::time::sleep_until((began + due).into()).await;
            if due == next_picture {
                self.send_one(self.codec, &self.pictures, picture, 3_600, due)
                    .await;
                picture += 1;
            } else {
                self.send_one(Codec::Opus, &self.sounds, sound, 960, due)
                    .await;
                sound += 1;
            }
        }
    }

    async fn send_one(&self, codec: Codec, of: &[Vec<u8>], number: u32, ticks: u32, due: Duration) {
        let frame = Bytes::from(of[number as usize % of.len()].clone());
        {
            let mut sent = lock(&self.sent);
            let list = match codec {
                Codec::Opus => &mut sent.sounds,
                _ => &mut sent.pictures,
            };
            let hash = match codec {
                Codec::H264 => ffmpeg::adler32(&ffmpeg::behind_lengths(&frame)),
                _ => ffmpeg::adler32(&frame),
            };
            list.push((hash, due.as_secs_f64()));
        }
        let track = self.device.track(codec).expect("a track of that codec");
        // Clocks of devices start anywhere: these wrap.
        let timestamp = (u32::MAX - 50_000).wrapping_add(number * ticks);
        let done = track.send_frame(timestamp, &frame).await;
        assert!(done.is_ok() || self.stop.load(Relaxed), "{done:?}");
    }
}

/// Pictures of VP8 that no decoder shows, each a keyframe of so many bytes that don't compress.
pub fn noise(bytes: usize) -> Vec<Vec<u8>> {
    // RFC 6386 §9.1: a keyframe that is shown, its start code, 640x360.
    let head = [0x10, 0x00, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01];
    let picture = |seed: u32| {
        let noise = (0..bytes as u32)
            .map(|n| (n.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 24) as u8);
        head.into_iter().chain(noise).collect()
    };
    (0..4).map(picture).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
