//! FFmpeg: real pictures and sound to send, and its word on files.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::process::TempDir;

/// Pictures in real time, none held back, none that only others are made from.
pub const VP8: &[&str] = &["libvpx", "-deadline", "realtime", "-auto-alt-ref", "0"];
pub const VP9: &[&str] = &[
    "libvpx-vp9",
    "-deadline",
    "realtime",
    "-cpu-used",
    "8",
    "-lag-in-frames",
    "0",
    "-auto-alt-ref",
    "0",
];
pub const AV1: &[&str] = &["libaom-av1", "-usage", "realtime", "-cpu-used", "8"];
pub const AV1_10_BITS: &[&str] = &[
    "libaom-av1",
    "-usage",
    "realtime",
    "-cpu-used",
    "8",
    "-pix_fmt",
    "yuv420p10le",
];

/// Pictures as an encoder gives them: 25 a second, a keyframe each second.
///
/// # Panics
/// If FFmpeg has no such encoder.
pub fn pictures(encoder: &[&str], seconds: u32) -> Vec<Vec<u8>> {
    let source = format!("testsrc2=size=320x180:rate=25:duration={seconds}");
    let input = ["-f", "lavfi", "-i", &source, "-g", "25", "-c:v"];
    let file = encode(&[&input, encoder].concat(), "ivf");
    let mut rest = &file[32..];
    let mut frames = Vec::new();
    while rest.len() > 12 {
        let len = u32::from_le_bytes(rest[..4].try_into().expect("four bytes")) as usize;
        frames.push(rest[12..12 + len].to_vec());
        rest = &rest[12 + len..];
    }
    assert_eq!(frames.len(), 25 * seconds as usize, "{encoder:?}");
    frames
}

/// The same in H.264, each a byte stream (Annex B) as WebRTC carries it: baseline, with parameter sets at each keyframe.
///
/// # Panics
/// If FFmpeg has no such encoder.
pub fn h264(seconds: u32) -> Vec<Vec<u8>> {
    let source = format!("testsrc2=size=320x180:rate=25:duration={seconds}");
    let input = ["-f", "lavfi", "-i", &source, "-g", "25"];
    let encoder = [
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-tune",
        "zerolatency",
    ];
    let stream = [
        "-pix_fmt",
        "yuv420p",
        "-profile:v",
        "baseline",
        "-x264-params",
        "aud=1:scenecut=0",
    ];
    let file = encode(&[&input[..], &encoder, &stream].concat(), "h264");
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for unit in units(&file) {
        // A delimiter is where a picture begins; WebRTC has its own.
        match unit[0] & 0x1f {
            9 => frames.push(Vec::new()),
            _ => {
                let frame = frames.last_mut().expect("a delimiter comes first");
                frame.extend([&[0, 0, 0, 1], unit].concat());
            }
        }
    }
    assert_eq!(frames.len(), 25 * seconds as usize);
    frames
}

/// A frame of H.264 as MP4 holds it: each unit behind its length (ISO/IEC 14496-15 §5.2.3).
pub fn behind_lengths(frame: &[u8]) -> Vec<u8> {
    let long = |unit: &[u8]| [&(unit.len() as u32).to_be_bytes(), unit].concat();
    units(frame).into_iter().flat_map(long).collect()
}

/// The NAL units of a byte stream; none ends in a zero.
fn units(stream: &[u8]) -> Vec<&[u8]> {
    let codes = stream.windows(3).enumerate();
    let codes = codes.filter(|(_, bytes)| *bytes == [0, 0, 1]);
    let starts: Vec<usize> = codes.map(|(at, _)| at + 3).collect();
    let ends = starts.iter().skip(1).map(|start| start - 3);
    let ends = ends.chain([stream.len()]);
    let unit = |(start, end): (&usize, usize)| {
        let unit = &stream[*start..end];
        // The zero of the next code's longer form.
        unit.strip_suffix(&[0]).unwrap_or(unit)
    };
    starts.iter().zip(ends).map(unit).collect()
}

/// Packets of Opus, 50 a second, of a tone.
///
/// # Panics
/// If FFmpeg has no such encoder.
pub fn sound(seconds: u32) -> Vec<Vec<u8>> {
    let source = format!("sine=frequency=440:sample_rate=48000:duration={seconds}");
    let file = encode(
        &[
            "-f",
            "lavfi",
            "-i",
            &source,
            "-ac",
            "2",
            "-c:a",
            "libopus",
            "-frame_duration",
            "20",
        ],
        "ogg",
    );
    // RFC 3533 §6: pages, whose segments of 255 bytes go on in the next one.
    let (mut rest, mut packets, mut packet) = (&file[..], Vec::new(), Vec::new());
    while rest.len() > 27 {
        let segments = usize::from(rest[26]);
        let (table, mut data) = rest[27..].split_at(segments);
        for len in table {
            let (segment, tail) = data.split_at(usize::from(*len));
            packet.extend_from_slice(segment);
            data = tail;
            if *len < 255 {
                packets.push(std::mem::take(&mut packet));
            }
        }
        rest = data;
    }
    // Two of them are headers.
    packets.split_off(2)
}

fn encode(args: &[&str], format: &str) -> Vec<u8> {
    let dir = TempDir::new("ffmpeg");
    let path = dir.path().join("encoded");
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin"]).args(args);
    run(command.args(["-f", format]).arg(&path));
    std::fs::read(&path).expect("FFmpeg wrote it")
}

/// What ffprobe says of a file's streams and length. It has nothing to complain of.
///
/// # Panics
/// If it has.
pub fn probe(path: &Path) -> Value {
    let mut command = Command::new("ffprobe");
    command.args([
        "-v",
        "warning",
        "-of",
        "json",
        "-show_format",
        "-show_streams",
    ]);
    serde_json::from_str(&run(command.arg(path))).expect("ffprobe writes JSON")
}

/// A packet of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Packet {
    /// `video` or `audio`.
    pub kind: String,
    pub seconds: f64,
    pub key: bool,
    /// Adler-32 of its bytes.
    pub hash: u32,
}

/// All packets of a file.
///
/// # Panics
/// If ffprobe has anything to complain of.
pub fn packets(path: &Path) -> Vec<Packet> {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "warning", "-of", "json", "-show_packets"]);
    command.args(["-show_data_hash", "adler32"]);
    let said = run(command.arg(path));
    let said: Value = serde_json::from_str(&said).expect("ffprobe writes JSON");
    let packets = said["packets"].as_array().expect("packets");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packet = |packet: &Value| Packet {
        kind: text(&packet["codec_type"]),
        seconds: text(&packet["pts_time"]).parse().unwrap_or(f64::NAN),
        key: text(&packet["flags"]).starts_with('K'),
        hash: u32::from_str_radix(
            text(&packet["data_hash"]).trim_start_matches("adler32:"),
            16,
        )
        .unwrap_or_default(),
    };
    packets.iter().map(packet).collect()
}

/// Adler-32 (RFC 1950 §8.2), as [`packets`] names it.
pub fn adler32(bytes: &[u8]) -> u32 {
    let sums = bytes.iter().fold((1, 0), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (a + b) % 65_521)
    });
    sums.1 << 16 | sums.0
}

/// Decodes all of a file, and has nothing to complain of.
///
/// # Panics
/// If FFmpeg has.
pub fn decode(path: &Path) {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "warning", "-nostdin", "-i"]).arg(path);
    // Every frame at its own time: not as many a second as it believes there are.
    command.args(["-fps_mode", "passthrough", "-enc_time_base", "-1"]);
    run(command.args(["-f", "null", "-"]));
}

/// Seconds that ffprobe says a file lasts; `None` if it does not know.
pub fn seconds(probed: &Value) -> Option<f64> {
    probed["format"]["duration"].as_str()?.parse().ok()
}

fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; install ffmpeg"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.is_empty(),
        "{command:?}: {}: {said}",
        output.status
    );
    String::from_utf8(output.stdout).expect("it writes text")
}
