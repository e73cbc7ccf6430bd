//! `media-device`: publishes a device's H.264 from a file, a pipe or an RTSP camera to a WHIP endpoint, carries
//! out what its viewers ask for, and comes back by itself whoever was away.
//!
//! Standard output carries the actions of `--control log` alone; what happens is told on standard error.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{CommandFactory as _, Parser, ValueEnum};
use client::device::{Adb, Device, DeviceOptions, Injector, Input, Log, Place, Rtsp, Source};
use client::{Http, HttpOptions, Options, Transport, flags};

/// Publishes a device's picture (H.264) from a file, a pipe or an RTSP camera, until it gets SIGINT or SIGTERM;
/// then it deletes its session. Connects again for ever.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
struct Args {
    /// WHIP endpoint. `{device}` is replaced by the device's name; without it the name is appended where the
    /// address ends with `/whip`.
    #[arg(long, env = "MEDIA_DEVICE_WHIP", value_name = "URL")]
    whip: String,
    /// Name of the device, where the endpoint does not have it.
    #[arg(long, env = "MEDIA_DEVICE_NAME", value_name = "NAME")]
    device: Option<String>,
    /// Bearer token.
    #[arg(long, env = "MEDIA_DEVICE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// File with the bearer token, read anew for each session: it may be replaced before it expires.
    #[arg(
        long,
        env = "MEDIA_DEVICE_TOKEN_FILE",
        value_name = "FILE",
        conflicts_with = "token"
    )]
    token_file: Option<PathBuf>,
    /// What to publish: a file or FIFO in H.264 (Annex B), `-` for standard input, or an RTSP address, which
    /// may have a user and a password.
    #[arg(
        long,
        env = "MEDIA_DEVICE_INPUT",
        hide_env_values = true,
        value_name = "PATH|-|rtsp://…"
    )]
    input: String,
    /// Pictures a second of a file or pipe. Default: 30 for a file; a pipe's have the time at which they come.
    #[arg(long, value_parser = fps, value_name = "RATE")]
    fps: Option<f64>,
    /// Begins a file again at its end.
    #[arg(long = "loop")]
    repeat: bool,
    /// What carries out the messages of viewers: nothing, so that there is no control channel; a line of JSON
    /// on standard output for each; or adb.
    #[arg(long, value_enum, default_value = "none")]
    control: Control,
    /// The device's serial number for `adb -s`, with `--control adb`.
    #[arg(long, value_name = "SERIAL", required_if_eq("control", "adb"))]
    adb_serial: Option<String>,
    /// Seconds without a packet after which an RTSP camera is opened anew; it has as long to answer.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600), value_name = "SECONDS")]
    idle: u64,
    /// Local address for media. Default: loopback towards a loopback server, else every address.
    #[arg(long)]
    bind: Option<IpAddr>,
    /// Carries media over TCP alone, as from a network without UDP.
    #[arg(long)]
    tcp: bool,
    /// Takes any TLS certificate.
    #[arg(long)]
    insecure: bool,
    /// HOST=IP:PORT: reaches that host there instead of asking DNS. Repeatable.
    #[arg(long, value_parser = flags::resolve)]
    resolve: Vec<(String, SocketAddr)>,
}

const EXIT_CODES: &str = "Exit codes: 0, it was told to end, or the file or standard input came to its end; \
    1, it could not run; 2, wrong flags; 3, the file or pipe can't be read or is no H.264.";

/// See [`EXIT_CODES`].
const BAD_INPUT: u8 = 3;

/// Of a file, which does not say.
const DEFAULT_FPS: f64 = 30.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Control {
    None,
    Log,
    Adb,
}

fn fps(value: &str) -> Result<f64, String> {
    match value.parse() {
        Ok(rate) if (0.1..=240.0).contains(&rate) => Ok(rate),
        _ => Err("give a number from 0.1 to 240".to_owned()),
    }
}

impl Args {
    /// # Errors
    /// What can't be had together.
    fn check(&self) -> anyhow::Result<()> {
        let rtsp = self.is_rtsp();
        anyhow::ensure!(
            !(rtsp && self.fps.is_some()),
            "--fps is for files and pipes: an RTSP camera says when its pictures are"
        );
        anyhow::ensure!(
            !(self.repeat && (rtsp || self.input == "-")),
            "--loop is for files: {} can't be read from its beginning again",
            if rtsp { "a camera" } else { "standard input" }
        );
        anyhow::ensure!(
            self.device.is_some()
                || flags::endpoint(&self.whip, "a") == flags::endpoint(&self.whip, "b"),
            "--whip {} needs --device, the name to publish under",
            self.whip
        );
        anyhow::ensure!(
            self.adb_serial.is_none() || self.control == Control::Adb,
            "--adb-serial needs --control adb"
        );
        if rtsp {
            self.rtsp()?;
        }
        Ok(())
    }

    fn is_rtsp(&self) -> bool {
        self.input.contains("://")
    }

    fn rtsp(&self) -> anyhow::Result<Rtsp> {
        Rtsp::new(&self.input, Duration::from_secs(self.idle))
            .map_err(|reason| anyhow::anyhow!("--input can't be played: {reason}"))
    }

    /// # Errors
    /// If there is no such file.
    fn source(&self) -> anyhow::Result<Box<dyn Source>> {
        if self.is_rtsp() {
            return Ok(Box::new(self.rtsp()?));
        }
        let place = Place::at(Path::new(&self.input), self.repeat)
            .with_context(|| format!("failed to read {}", self.input))?;
        anyhow::ensure!(
            !(self.repeat && matches!(place, Place::Fifo(_))),
            "--loop is for files, and {} is a pipe",
            self.input
        );
        let own = matches!(place, Place::File { .. }).then_some(DEFAULT_FPS);
        let pace = self
            .fps
            .or(own)
            .map(|fps| Duration::from_secs_f64(1.0 / fps));
        Ok(Box::new(Input::new(place, pace)))
    }

    fn injector(&self) -> Option<Box<dyn Injector>> {
        match (self.control, &self.adb_serial) {
            (Control::Log, _) => Some(Box::new(Log)),
            (Control::Adb, Some(serial)) => Some(Box::new(Adb {
                serial: serial.clone(),
            })),
            _ => None,
        }
    }

    /// # Errors
    /// If TLS can't be set up, or the token can't be read.
    fn options(&self) -> anyhow::Result<DeviceOptions> {
        if let Some(file) = &self.token_file {
            std::fs::read_to_string(file)
                .with_context(|| format!("failed to read the token in {}", file.display()))?;
        }
        let http = Http::new(&HttpOptions {
            token: self.token.clone(),
            insecure_tls: self.insecure,
            resolve: self.resolve.clone(),
        })?;
        Ok(DeviceOptions {
            url: flags::endpoint(&self.whip, self.device.as_deref().unwrap_or_default()),
            http,
            token_file: self.token_file.clone(),
            session: Options {
                bind: self.bind,
                transport: if self.tcp {
                    Transport::Tcp
                } else {
                    Transport::Udp
                },
                ..Options::default()
            },
        })
    }
}

fn say(line: &str) {
    eprintln!("media-device: {line}");
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("MEDIA_LOG")
                .unwrap_or_else(|_| "error,client=warn".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();
    if let Err(wrong) = args.check() {
        Args::command()
            .error(clap::error::ErrorKind::ArgumentConflict, wrong)
            .exit();
    }
    let options = args.options()?;
    let stop = flags::stopped().context("failed to listen for signals")?;
    let source = match args.source() {
        Ok(source) => source,
        Err(error) => return Ok(bad_input(&error)),
    };
    let device = Device::new(options, source, args.injector());
    match device.run(stop, |event| say(&event.to_string())).await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => Ok(bad_input(&error.into())),
    }
}

fn bad_input(error: &anyhow::Error) -> ExitCode {
    say(&format!("{error:#}"));
    ExitCode::from(BAD_INPUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(flags: &[&str]) -> Result<(), String> {
        let all = [&["media-device", "--whip", "http://h/whip/cam-1"], flags].concat();
        let args = Args::try_parse_from(all).map_err(|error| error.to_string())?;
        args.check().map_err(|error| error.to_string())
    }

    #[test]
    fn what_can_not_be_had_together_is_said() {
        for flags in [
            &["--input", "a.h264", "--loop", "--fps", "29.97"][..],
            &["--input", "-", "--control", "log"],
            &[
                "--input",
                "rtsp://u:p@h/x",
                "--control",
                "adb",
                "--adb-serial",
                "emulator-5554",
            ],
        ] {
            assert_eq!(told(flags), Ok(()), "{flags:?}");
        }
        for (flags, word) in [
            (&["--input", "rtsp://h/x", "--fps", "30"][..], "says when"),
            (&["--input", "rtsp://h/x", "--loop"], "a camera"),
            (&["--input", "-", "--loop"], "standard input"),
            (&["--input", "rtsps://h/x"], "TLS"),
            (&["--input", "https://h/x"], "only rtsp://"),
            (&["--input", "-", "--control", "adb"], "--adb-serial"),
            (&["--input", "-", "--adb-serial", "x"], "--control adb"),
            (&["--input", "-", "--fps", "0"], "from 0.1"),
            (&["--input", "-", "--fps", "NaN"], "from 0.1"),
            (&[], "--input"),
        ] {
            let error = told(flags).expect_err(word);
            assert!(error.contains(word), "{flags:?}: {error}");
        }
        let nameless = ["media-device", "--whip", "http://h/whip", "--input", "-"];
        let error = Args::parse_from(nameless).check().expect_err("no name");
        assert!(error.to_string().contains("--device"), "{error}");
    }

    #[test]
    fn the_flags_are_consistent() {
        Args::command().debug_assert();
    }
}
