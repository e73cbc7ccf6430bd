//! `media-load`: publishes to a media server and watches it from many viewers, then reports what was
//! delivered and how fast, how long set-ups took and, for a server on this machine, what it cost.
//!
//! It speaks WHIP and WHEP, so any server of them will do. Standard output carries the report alone;
//! progress goes to standard error. A viewer that saw nothing makes it end with exit code 3.
#![forbid(unsafe_code)]

#[path = "load/blind.rs"]
mod blind;
#[path = "load/churn.rs"]
mod churn;
#[path = "load/join.rs"]
mod join;
#[path = "load/layers.rs"]
mod layers;
#[path = "load/meter.rs"]
mod meter;
#[path = "load/report.rs"]
mod report;
#[path = "load/run.rs"]
mod run;
#[path = "load/send.rs"]
mod send;
#[path = "load/server.rs"]
mod server;
#[path = "load/tally.rs"]
mod tally;
#[path = "load/text.rs"]
mod text;
#[path = "load/tokens.rs"]
mod tokens;
#[path = "load/wave.rs"]
mod wave;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{CommandFactory as _, Parser, ValueEnum};
use client::flags::{endpoint, resolve};
use client::{Codec, SrtpProfile};
use join::Rhythm;
use layers::Layers;
use tokens::{Minter, Tokens};

/// Publishes to a media server and watches it from many viewers; prints a report.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
struct Args {
    /// WHIP endpoint. `{device}` is replaced by the device's name; without it the name is
    /// appended where the address ends with `/whip`.
    #[arg(long)]
    whip: Option<String>,
    /// WHEP endpoint, read in the same way.
    #[arg(long)]
    whep: Option<String>,
    /// Bearer token for both.
    #[arg(long, env = "MEDIA_LOAD_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// File with the viewers' tokens, one a line; they take them in turn.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Key to sign with: each session gets a token of its own, as `media-server token` makes them.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["token", "token_file"])]
    jwt_hmac_file: Option<PathBuf>,
    /// `iss` of these tokens.
    #[arg(long, default_value = "cloudphone-platform", value_name = "TEXT")]
    jwt_issuer: String,
    /// `aud` of these tokens.
    #[arg(long, default_value = "cloudphone-users", value_name = "TEXT")]
    jwt_audience: String,
    /// Devices that publish. 0 watches the device named by `--device`, which must be live.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    publishers: u32,
    /// Viewers over all devices, spread evenly.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=5_000))]
    viewers: u32,
    /// Seconds of measured media, after one second of warming up.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    duration: u64,
    /// Name of the devices; with several, `-0`, `-1` and so on are appended.
    #[arg(long, default_value = "load")]
    device: String,
    /// h264, vp8, vp9, av1 or opus.
    #[arg(long, default_value = "vp8")]
    codec: Codec,
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    frames_per_second: u32,
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    packets_per_frame: u32,
    /// Size of an RTP packet, header included.
    #[arg(long, default_value_t = 1_200, value_parser = clap::value_parser!(u32).range(100..=1_400))]
    packet_bytes: u32,
    /// Seconds between keyframes; one is also sent on demand.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    keyframe_seconds: u32,
    /// Set-ups under way at the same time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    concurrency: u32,
    /// Viewers join evenly at this rate while media flows, instead of as fast as `--concurrency`
    /// lets them.
    #[arg(long, value_parser = rate, value_name = "RATE")]
    joins_per_second: Option<f64>,
    /// Viewers that arrive beside the others within `--wave-seconds`, before the measured window.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=5_000))]
    wave: u32,
    /// Time over which a wave arrives, evenly.
    #[arg(long, default_value_t = 1.0, value_parser = seconds, value_name = "SECONDS")]
    wave_seconds: f64,
    /// In the measured window, so many times a second in the mean, at random moments, a viewer chosen
    /// at random leaves and another joins.
    #[arg(long, value_parser = rate, value_name = "RATE")]
    churn: Option<f64>,
    /// The server's process on this machine: adds its CPU and memory to the report. Viewers then
    /// join before media flows, so that the figures at rest are what a session alone costs; not
    /// with `--joins-per-second`.
    #[arg(long)]
    server_pid: Option<u32>,
    /// SRTP profile: gcm or sha1-80. Default: both offered, gcm first.
    #[arg(long, value_parser = srtp_profile)]
    srtp: Option<SrtpProfile>,
    /// Loses so many of a hundred datagrams at random, each way, at the tool's own sockets. As on a real
    /// link that begins with the first one of a session: handshakes get lost too, and a viewer whose last
    /// flight is lost fails after 15 s; a publisher tries again. The report says what was dropped on
    /// purpose, apart from what nobody sent again. Not with `--tcp`.
    #[arg(long, value_parser = percent, value_name = "PERCENT")]
    loss: Option<f64>,
    /// Which datagrams `--loss` drops: the same ones of each session with the same number.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Simulcast layers of each publisher: q, h and f, as Chromium names them, the largest alone or the
    /// larger two. f is as the other flags say, each of the others a quarter of the next. VP8 alone.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=3), value_name = "N")]
    layers: u32,
    /// The layer that viewers ask for when they have joined, by its RID, or `auto` for the server's
    /// choice, which is the default. Of several, with commas, the viewers of a device take them in turn.
    #[arg(long, value_delimiter = ',', value_name = "RID")]
    viewer_layer: Vec<String>,
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
    #[arg(long, value_parser = resolve)]
    resolve: Vec<(String, SocketAddr)>,
    /// How the report is written to standard output.
    #[arg(long, value_enum, default_value = "json")]
    report: Format,
}

const EXIT_CODES: &str = "Exit codes: 0, and every viewer saw a picture; 1, it could not run; 2, wrong flags; \
    3, the report is there and says how many viewers saw none (of what others publish: got no packet).";

/// See [`EXIT_CODES`].
const SAW_NOTHING: u8 = 3;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Json,
    Text,
}

/// A rate for which a thousandth of a second is enough.
fn rate(value: &str) -> Result<f64, String> {
    match value.parse() {
        Ok(rate) if (0.001..=1_000.0).contains(&rate) => Ok(rate),
        _ => Err("give a number from 0.001 to 1000".to_owned()),
    }
}

fn seconds(value: &str) -> Result<f64, String> {
    match value.parse() {
        Ok(seconds) if (0.0..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("give a number from 0 to 600".to_owned()),
    }
}

fn percent(value: &str) -> Result<f64, String> {
    match value.parse() {
        Ok(percent) if (0.0..=90.0).contains(&percent) => Ok(percent),
        _ => Err("give a number from 0 to 90".to_owned()),
    }
}

fn srtp_profile(name: &str) -> Result<SrtpProfile, String> {
    match name {
        "gcm" => Ok(SrtpProfile::AeadAes128Gcm),
        "sha1-80" => Ok(SrtpProfile::Aes128CmSha1_80),
        _ => Err("choose gcm or sha1-80".to_owned()),
    }
}

impl Args {
    fn measured(&self) -> Duration {
        Duration::from_secs(self.duration)
    }

    fn joins_at_rest(&self) -> bool {
        self.server_pid.is_some() && self.publishers > 0 && self.joins_per_second.is_none()
    }

    fn rhythm(&self) -> Rhythm {
        match self.joins_per_second {
            Some(rate) => Rhythm::PerSecond(rate),
            None => Rhythm::Concurrent(self.concurrency),
        }
    }

    fn tokens(&self) -> anyhow::Result<Tokens> {
        if let Some(file) = &self.token_file {
            return Tokens::lines(file, self.token.clone());
        }
        let Some(file) = &self.jwt_hmac_file else {
            return Ok(Tokens::One(self.token.clone()));
        };
        // An hour beyond the run, and never more than the day that a server takes.
        let lifetime = (self.measured() + Duration::from_secs(3_600)).min(MAX_LIFETIME);
        Ok(Tokens::Minted(Minter::new(
            file,
            &self.jwt_issuer,
            &self.jwt_audience,
            lifetime,
        )?))
    }

    /// # Errors
    /// What can't be had together.
    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.publishers == 0 || self.whip.is_some(),
            "--publishers {} needs --whip, the address to publish to",
            self.publishers
        );
        anyhow::ensure!(
            self.viewers + self.wave == 0 || self.whep.is_some(),
            "{} viewers need --whep, the address to watch at",
            self.viewers + self.wave
        );
        anyhow::ensure!(
            self.publishers < 2
                || self
                    .whip
                    .as_deref()
                    .is_none_or(|whip| endpoint(whip, "a") != endpoint(whip, "b")),
            "with several publishers --whip must hold {{device}} or end with /whip"
        );
        anyhow::ensure!(
            !self.tcp || self.loss.is_none(),
            "--loss drops datagrams, and with --tcp there are none: what is lost on the way, TCP sends again"
        );
        anyhow::ensure!(
            self.layers == 1 || self.codec == Codec::Vp8,
            "--layers {} needs --codec vp8: made-up frames of {} do not say how large they are",
            self.layers,
            self.codec
        );
        let own = Layers::new(self.layers as usize, &[]).rids();
        for layer in &self.viewer_layer {
            anyhow::ensure!(
                layer == layers::AUTO || self.publishers == 0 || own.contains(layer),
                "--viewer-layer {layer}: the publishers have no such layer, only {own:?}"
            );
        }
        Ok(())
    }

    fn devices(&self) -> Vec<String> {
        match self.publishers {
            0 | 1 => vec![self.device.clone()],
            n => (0..n).map(|i| format!("{}-{i}", self.device)).collect(),
        }
    }
}

const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3_600);

fn progress(line: &str) {
    eprintln!("media-load: {line}");
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("MEDIA_LOG")
                .unwrap_or_else(|_| "error".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();
    if let Err(wrong) = args.check() {
        Args::command()
            .error(clap::error::ErrorKind::ArgumentConflict, wrong)
            .exit();
    }
    let report = tokio::select! {
        report = run::run(&args) => report?,
        interrupt = tokio::signal::ctrl_c() => {
            interrupt.context("failed to wait for an interrupt")?;
            anyhow::bail!("interrupted; the server ends the open sessions when their consent expires");
        }
    };
    match args.report {
        Format::Json => println!(
            "{}",
            serde_json::to_string_pretty(&report).context("failed to write the report")?
        ),
        Format::Text => print!("{}", text::text(&report)),
    }
    if report.viewers_that_saw_nothing > 0 {
        let blind = report.viewers_that_saw_nothing;
        progress(&format!("{blind} viewers saw no picture"));
        return Ok(ExitCode::from(SAW_NOTHING));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn viewers_join_at_rest_where_a_server_is_measured_and_no_rate_is_asked_for() {
        let at_rest = |more: &[&str]| {
            let args = [&["media-load"], more].concat();
            Args::parse_from(args).joins_at_rest()
        };
        assert!(!at_rest(&[]));
        assert!(at_rest(&["--server-pid", "1"]));
        assert!(!at_rest(&["--server-pid", "1", "--joins-per-second", "10"]));
        assert!(!at_rest(&["--server-pid", "1", "--publishers", "0"]));
    }

    #[test]
    fn rates_that_no_clock_can_keep_are_refused() {
        assert_eq!(rate("2.5"), Ok(2.5));
        for wrong in ["0", "-1", "NaN", "inf", "1e9", "x"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        assert_eq!(seconds("0"), Ok(0.0));
        assert!(seconds("NaN").is_err());
    }

    #[test]
    fn what_can_not_be_had_together_is_said() {
        let told = |more: &[&str]| {
            let ends = [
                "media-load",
                "--whip",
                "http://h/whip",
                "--whep",
                "http://h/whep",
            ];
            let args = Args::parse_from([&ends[..], more].concat());
            args.check().map_err(|error| error.to_string())
        };
        assert_eq!(told(&["--loss", "5", "--layers", "3"]), Ok(()));
        assert_eq!(told(&["--layers", "2", "--viewer-layer", "h,auto"]), Ok(()));
        let others = ["--publishers", "0", "--viewer-layer", "high"];
        assert_eq!(told(&others), Ok(()), "of a device of somebody else");
        for (flags, word) in [
            (&["--loss", "5", "--tcp"][..], "TCP sends again"),
            (&["--layers", "2", "--codec", "av1"], "vp8"),
            (&["--layers", "2", "--viewer-layer", "q"], "no such layer"),
            (&["--viewer-layer", "f"], "no such layer"),
        ] {
            let error = told(flags).expect_err(word);
            assert!(error.contains(word), "{error}");
        }
        assert!(percent("NaN").is_err() && percent("91").is_err());
        assert_eq!(percent("0.5"), Ok(0.5));
    }

    #[test]
    fn the_flags_are_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
