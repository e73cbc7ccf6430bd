//! A camera that speaks RTSP (RFC 2326), with media over the same connection, for one test.
//!
//! It knows what a client of it needs and no more: no authentication, no UDP. Pictures are the test's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::interval;

/// The second stream of a camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sound {
    Opus,
    /// Described, and never sent.
    Aac,
}

/// NAL units of the picture with that number.
type Picture = Arc<dyn Fn(u32) -> Vec<Vec<u8>> + Send + Sync>;

/// See the module. Gone when dropped.
pub struct Camera {
    address: SocketAddr,
    hang_up: Arc<Notify>,
    task: JoinHandle<()>,
}

/// Between two pictures, and two packets of sound.
const PICTURE: Duration = Duration::from_millis(40);

impl Camera {
    /// A camera on a port of its own, whose pictures begin at 0 for each client.
    ///
    /// # Panics
    /// If there is no port.
    pub async fn start(
        sound: Sound,
        picture: impl Fn(u32) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let picture: Picture = Arc::new(picture);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let hang_up = Arc::new(Notify::new());
        let told = hang_up.clone();
        let task = tokio::spawn(async move {
            // A client that is gone ends with an error, and the next one is served.
            while let Ok((stream, _)) = listener.accept().await {
                let client = Client::new(stream, sound, picture.clone());
                tokio::select! {
                    result = client.serve() => drop(result),
                    () = told.notified() => {}
                }
            }
        });
        Self {
            address,
            hang_up,
            task,
        }
    }

    pub fn url(&self) -> String {
        format!("rtsp://{}/live", self.address)
    }

    /// Closes the connection to its client.
    pub fn hang_up(&self) {
        self.hang_up.notify_one();
    }

    /// Whether a packet of sound is one of its own.
    pub fn is_sound(packet: &[u8]) -> bool {
        packet.starts_with(SOUND)
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const SOUND: &[u8] = b"\xfcsound";

struct Client {
    stream: BufReader<TcpStream>,
    sound: Sound,
    picture: Picture,
    number: u32,
    sequences: [u16; 2],
}

impl Client {
    fn new(stream: TcpStream, sound: Sound, picture: Picture) -> Self {
        Self {
            stream: BufReader::new(stream),
            sound,
            picture,
            number: 0,
            // Numbers wrap while it plays.
            sequences: [65_500, 65_530],
        }
    }

    async fn serve(mut self) -> std::io::Result<()> {
        let mut playing = false;
        let mut tick = interval(PICTURE);
        loop {
            let waiting = tokio::select! {
                waiting = self.stream.fill_buf() => waiting?.len(),
                _ = tick.tick(), if playing => {
                    self.play().await?;
                    continue;
                }
            };
            if waiting == 0 {
                return Ok(());
            }
            let mut request = String::new();
            self.stream.read_line(&mut request).await?;
            let (method, rest) = request.split_once(' ').unwrap_or_default();
            let headers = self.headers().await?;
            let cseq = header(&headers, "cseq");
            let url = rest.split(' ').next().unwrap_or_default();
            let mut answer =
                format!("RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\nSession: 1;timeout=60\r\n");
            let mut body = String::new();
            match method {
                "DESCRIBE" => {
                    body = self.description();
                    let len = body.len();
                    answer +=
                        &format!("Content-Type: application/sdp\r\nContent-Length: {len}\r\n");
                }
                "SETUP" => {
                    let channel = if url.ends_with("video") { "0-1" } else { "2-3" };
                    answer += &format!("Transport: RTP/AVP/TCP;unicast;interleaved={channel}\r\n");
                }
                "PLAY" => playing = true,
                _ => {}
            }
            answer += "\r\n";
            answer += &body;
            self.stream.write_all(answer.as_bytes()).await?;
        }
    }

    async fn headers(&mut self) -> std::io::Result<Vec<String>> {
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).await?;
            match line.trim() {
                "" => return Ok(headers),
                header => headers.push(header.to_owned()),
            }
        }
    }

    fn description(&self) -> String {
        let sound = match self.sound {
            Sound::Opus => "opus/48000/2",
            Sound::Aac => "MPEG4-GENERIC/16000",
        };
        let lines = [
            "v=0",
            "o=- 1 1 IN IP4 127.0.0.1",
            "s=camera",
            "c=IN IP4 0.0.0.0",
            "t=0 0",
            "a=control:*",
            "m=video 0 RTP/AVP 96",
            "a=rtpmap:96 H264/90000",
            "a=fmtp:96 packetization-mode=1",
            "a=control:video",
            "m=audio 0 RTP/AVP 97",
            &format!("a=rtpmap:97 {sound}"),
            "a=control:audio",
        ];
        lines.map(|line| format!("{line}\r\n")).concat()
    }

    /// One picture, and the sound that goes with it. Parameter sets go together, and what is long in two
    /// halves.
    async fn play(&mut self) -> std::io::Result<()> {
        let mut nals = (self.picture)(self.number);
        let last = nals.pop().expect("a picture has a slice");
        let mut payloads = Vec::new();
        if !nals.is_empty() {
            let sized = |nal: &Vec<u8>| [&(nal.len() as u16).to_be_bytes()[..], nal].concat();
            payloads.push(
                [
                    &[0x78][..],
                    &nals.iter().map(sized).collect::<Vec<_>>().concat(),
                ]
                .concat(),
            );
        }
        if last.len() > 1_000 {
            let (indicator, kind) = ((last[0] & 0xe0) | 28, last[0] & 0x1f);
            let (first, second) = last[1..].split_at(last.len() / 2);
            payloads.push([&[indicator, 0x80 | kind][..], first].concat());
            payloads.push([&[indicator, 0x40 | kind][..], second].concat());
        } else {
            payloads.push(last);
        }
        let time = self.number.wrapping_mul(3_600);
        let count = payloads.len();
        for (index, payload) in payloads.into_iter().enumerate() {
            self.send(0, index + 1 == count, time, &payload).await?;
        }
        if self.sound == Sound::Opus {
            let time = self.number.wrapping_mul(1_920);
            let packet = [SOUND, &self.number.to_be_bytes()].concat();
            self.send(1, false, time, &packet).await?;
        }
        self.number += 1;
        Ok(())
    }

    /// RTP in a frame of RTSP (RFC 2326 §10.12).
    async fn send(
        &mut self,
        stream: usize,
        mark: bool,
        time: u32,
        payload: &[u8],
    ) -> std::io::Result<()> {
        let sequence = &mut self.sequences[stream];
        *sequence = sequence.wrapping_add(1);
        let kind = 96 + stream as u8 + if mark { 128 } else { 0 };
        let len = (payload.len() + 12) as u16;
        let frame = [
            &[b'$', 2 * stream as u8][..],
            &len.to_be_bytes(),
            &[0x80, kind],
            &sequence.to_be_bytes(),
            &time.to_be_bytes(),
            &(stream as u32 + 7).to_be_bytes(),
            payload,
        ];
        self.stream.write_all(&frame.concat()).await
    }
}

fn header<'a>(headers: &'a [String], name: &str) -> &'a str {
    let pairs = headers.iter().filter_map(|line| line.split_once(':'));
    let mut named = pairs.filter(|(own, _)| own.trim().eq_ignore_ascii_case(name));
    named.next().map_or("", |(_, value)| value.trim())
}
