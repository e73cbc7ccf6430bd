//! An RTSP camera (RFC 2326) as a [`Source`]: its H.264, and its Opus where it has that.
//!
//! Media comes over the connection of RTSP itself, so that nothing is lost between camera and device and no
//! port has to be open. RTP timestamps become the times of samples. What is dialled is what the person who
//! started the program named, and nothing that a server says.

mod depacketize;

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use reqwest::Url;
use retina::client::{
    Credentials, InitialTimestampPolicy, PacketItem, PlayOptions, Playing, Session, SessionOptions,
    SetupOptions, Stream,
};
use retina::codec::{ParametersRef, VideoParametersCodec};
use retina::rtp::ReceivedPacket;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout, timeout_at};

use super::source::{Opened, Sample, Source, SourceError};
use super::units::AccessUnit;
use depacketize::{Depacketizer, Header};

/// See the module.
pub struct Rtsp {
    /// Without the credentials.
    url: Url,
    credentials: Option<Credentials>,
    /// Longest time without a packet, and that opening it may take.
    idle: Duration,
    playing: Option<Camera>,
}

struct Camera {
    session: Session<Playing>,
    video: usize,
    audio: Option<usize>,
    depacketizer: Depacketizer,
    ready: VecDeque<Sample>,
    /// When something came last.
    heard: Instant,
}

/// How the server is told who asks.
const USER_AGENT: &str = concat!("media-device/", env!("CARGO_PKG_VERSION"));

/// Clock rate of Opus (RFC 7587 §4.1), whatever it was sampled at.
const OPUS_RATE: u32 = 48_000;

impl Rtsp {
    /// Plays that address; a user and a password may stand in it.
    ///
    /// # Errors
    /// What is wrong with the address, without repeating the password.
    pub fn new(url: &str, idle: Duration) -> Result<Self, String> {
        let mut url = Url::parse(url).map_err(|error| format!("it is no address: {error}"))?;
        match url.scheme() {
            "rtsp" => {}
            "rtsps" => return Err("RTSP over TLS is not supported".to_owned()),
            other => return Err(format!("{other}:// is not supported, only rtsp://")),
        }
        if url.host().is_none() {
            return Err("it names no host".to_owned());
        }
        let decoded = |text: &str| percent_decoded(text).ok_or("its user or password is no text");
        let credentials = match (decoded(url.username())?, url.password()) {
            (user, None) if user.is_empty() => None,
            (username, password) => Some(Credentials {
                username,
                password: decoded(password.unwrap_or_default())?,
            }),
        };
        // Both can be changed in an address with a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(Self {
            url,
            credentials,
            idle,
            playing: None,
        })
    }

    fn idle(&self) -> SourceError {
        SourceError::Idle {
            url: told(&self.url),
            after: self.idle,
        }
    }
}

/// Has the camera play what can be sent of it.
async fn play(
    url: &Url,
    credentials: Option<Credentials>,
) -> Result<(Camera, Opened), SourceError> {
    let failed = failed(url);
    let options = SessionOptions::default()
        .creds(credentials)
        .user_agent(USER_AGENT.to_owned());
    let session = Session::describe(url.clone(), options).await;
    let mut session = session.map_err(&failed)?;
    let streams = session.streams();
    let video = streams.iter().position(is_h264);
    let video = video.ok_or_else(|| SourceError::NoVideo {
        url: told(url),
        has: names(streams),
    })?;
    let audio = streams.iter().position(is_opus);
    let others = streams.iter().find(|stream| stream.media() == "audio");
    let left_out = others.filter(|_| audio.is_none()).map(|stream| {
        let codec = stream.encoding_name();
        format!("audio in {codec}: only Opus can be sent, so video goes without it")
    });
    let depacketizer = Depacketizer::new(parameter_sets(&streams[video]));
    for index in [Some(video), audio].into_iter().flatten() {
        let setup = session.setup(index, SetupOptions::default()).await;
        setup.map_err(&failed)?;
    }
    // Cameras that say no times for all of their streams are many.
    let options = PlayOptions::default().initial_timestamp(InitialTimestampPolicy::Permissive);
    let session = session.play(options).await.map_err(&failed)?;
    let camera = Camera {
        session,
        video,
        audio,
        depacketizer,
        ready: VecDeque::new(),
        heard: Instant::now(),
    };
    let opened = Opened {
        audio: audio.is_some(),
        left_out,
    };
    Ok((camera, opened))
}

/// An address for people to read. Cameras take passwords in the query too.
fn told(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

fn failed(url: &Url) -> impl Fn(retina::Error) -> SourceError + use<> {
    let url = told(url);
    move |source| SourceError::Rtsp {
        url: url.clone(),
        source,
    }
}

fn is_h264(stream: &Stream) -> bool {
    stream.media() == "video" && stream.encoding_name() == "h264"
}

fn is_opus(stream: &Stream) -> bool {
    stream.encoding_name() == "opus" && stream.clock_rate_hz() == OPUS_RATE
}

fn names(streams: &[Stream]) -> String {
    let name = |stream: &Stream| format!("{} in {}", stream.media(), stream.encoding_name());
    let names: Vec<String> = streams.iter().map(name).collect();
    match names.is_empty() {
        true => "nothing".to_owned(),
        false => names.join(", "),
    }
}

/// SPS and PPS that the description has: a camera need not send them with its pictures.
fn parameter_sets(stream: &Stream) -> AccessUnit {
    let parameters = match stream.parameters() {
        Some(ParametersRef::Video(video)) => Some(video.codec_params()),
        _ => None,
    };
    let nals = match parameters {
        Some(VideoParametersCodec::H264 { sps, pps }) => vec![sps.clone(), pps.clone()],
        _ => Vec::new(),
    };
    AccessUnit { nals }
}

#[async_trait]
impl Source for Rtsp {
    async fn open(&mut self) -> Result<Opened, SourceError> {
        // The connection goes before the next one is made: some cameras have only one for everybody.
        self.playing = None;
        let playing = play(&self.url, self.credentials.clone());
        let played = timeout(self.idle, playing).await;
        let (camera, opened) = played.map_err(|_| self.idle())??;
        self.playing = Some(camera);
        Ok(opened)
    }

    async fn next(&mut self) -> Result<Option<Sample>, SourceError> {
        let ended = SourceError::Ended {
            url: told(&self.url),
        };
        let (failed, idle) = (failed(&self.url), self.idle());
        let Some(camera) = &mut self.playing else {
            return Err(ended);
        };
        loop {
            if let Some(sample) = camera.ready.pop_front() {
                return Ok(Some(sample));
            }
            let next = next_within(&mut camera.session, &mut camera.heard, self.idle);
            let Ok(item) = next.await else {
                return Err(idle);
            };
            match item.transpose().map_err(&failed)? {
                Some(PacketItem::Rtp(packet)) => camera.take(packet),
                Some(_) => {}
                None => return Err(ended),
            }
        }
    }
}

/// The next item, unless for so long there was none. The time goes on while nobody waits: who does is
/// interrupted by each request for a keyframe.
async fn next_within<S: futures::Stream + Unpin>(
    stream: &mut S,
    heard: &mut Instant,
    idle: Duration,
) -> Result<Option<S::Item>, Elapsed> {
    let item = timeout_at(*heard + idle, stream.next()).await?;
    *heard = Instant::now();
    Ok(item)
}

impl Camera {
    fn take(&mut self, packet: ReceivedPacket) {
        let seconds = packet.timestamp().elapsed_secs();
        // Beyond what a duration holds there is no camera; before the start there are a few packets.
        let at = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default();
        if packet.stream_id() == self.video {
            let header = Header {
                at,
                mark: packet.mark(),
                after_loss: packet.loss() > 0,
            };
            let payload = packet.into_payload_bytes();
            self.depacketizer.push(header, &payload, &mut self.ready);
        } else if Some(packet.stream_id()) == self.audio {
            let packet = packet.into_payload_bytes();
            self.ready.push_back(Sample::Audio { at, packet });
        }
    }
}

/// What `%XX` stands for in a user or a password.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: u8| (byte as char).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                (high * 16 + low) as u8
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rtsp(url: &str) -> Result<Rtsp, String> {
        Rtsp::new(url, Duration::from_secs(1))
    }

    #[test]
    fn a_password_goes_to_the_camera_and_is_not_told() {
        let source = rtsp("rtsp://admin:p%40ss@192.0.2.1/h264").expect("an address");
        assert_eq!(source.url.as_str(), "rtsp://192.0.2.1/h264");
        let credentials = source.credentials.clone().expect("a password");
        assert_eq!(
            (&*credentials.username, &*credentials.password),
            ("admin", "p@ss")
        );
        assert!(!source.idle().to_string().contains("ss@"));
        let query = rtsp("rtsp://192.0.2.1/live?user=admin&password=p").expect("an address");
        assert!(query.url.query().is_some(), "the camera is asked with it");
        let error = query.idle().to_string();
        assert!(
            error.contains("/live") && !error.contains("admin"),
            "{error}"
        );
        assert_eq!(
            rtsp("rtsp://192.0.2.1/").expect("an address").credentials,
            None
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_camera_that_fell_silent_is_noticed_though_keyframes_are_asked_for_all_the_time() {
        let started = Instant::now();
        let (mut heard, idle) = (started, Duration::from_secs(10));
        let mut silent = futures::stream::pending::<()>();
        let noticed = loop {
            let next = next_within(&mut silent, &mut heard, idle);
            match timeout(Duration::from_millis(500), next).await {
                Err(_) if started.elapsed() < 2 * idle => {}
                Err(_) => break false,
                Ok(next) => break next.is_err(),
            }
        };
        assert!(noticed);
        assert!(started.elapsed() <= idle + Duration::from_millis(500));
        let mut speaking = futures::stream::iter([1]);
        let next = next_within(&mut speaking, &mut heard, idle).await;
        assert_eq!(next.expect("it spoke"), Some(1));
        assert_eq!(heard.elapsed(), Duration::ZERO);
    }

    #[test]
    fn an_address_that_can_not_be_played_is_refused_with_the_reason() {
        for (url, word) in [
            ("rtsps://192.0.2.1/", "TLS"),
            ("http://192.0.2.1/", "only rtsp"),
            ("rtsp:///h264", "no host"),
            ("192.0.2.1", "no address"),
            ("rtsp://a%:b@192.0.2.1/", "no text"),
        ] {
            let error = rtsp(url).err().unwrap_or_else(|| panic!("{url} is taken"));
            assert!(error.contains(word), "{url}: {error}");
        }
    }
}
