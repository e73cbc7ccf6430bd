//! `media-load`: publishes to a media server and watches it from many viewers, then reports in
//! JSON what was delivered, how long set-ups took and, for a server on this machine, what it cost.
//!
//! Standard output carries the report alone; progress goes to standard error.
#![forbid(unsafe_code)]

#[path = "load/report.rs"]
mod report;
#[path = "load/run.rs"]
mod run;
#[path = "load/server.rs"]
mod server;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use client::{Codec, SrtpProfile};

/// Publishes to a media server and watches it from many viewers; prints a JSON report.
#[derive(Debug, Parser)]
#[command(version)]
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
    /// The server's process on this machine: adds its CPU and memory to the report. Viewers then
    /// join before media flows, so that the figures at rest are what a session alone costs.
    #[arg(long)]
    server_pid: Option<u32>,
    /// SRTP profile: gcm or sha1-80. Default: both offered, gcm first.
    #[arg(long, value_parser = srtp_profile)]
    srtp: Option<SrtpProfile>,
    /// Local address for media. Default: loopback towards a loopback server, else every address.
    #[arg(long)]
    bind: Option<IpAddr>,
    /// Takes any TLS certificate.
    #[arg(long)]
    insecure: bool,
    /// HOST=IP:PORT: reaches that host there instead of asking DNS. Repeatable.
    #[arg(long, value_parser = resolve)]
    resolve: Vec<(String, SocketAddr)>,
}

fn srtp_profile(name: &str) -> Result<SrtpProfile, String> {
    match name {
        "gcm" => Ok(SrtpProfile::AeadAes128Gcm),
        "sha1-80" => Ok(SrtpProfile::Aes128CmSha1_80),
        _ => Err("choose gcm or sha1-80".to_owned()),
    }
}

fn resolve(value: &str) -> Result<(String, SocketAddr), String> {
    let (host, address) = value.split_once('=').ok_or("expected HOST=IP:PORT")?;
    let address = address
        .parse()
        .map_err(|error| format!("{address} is no address with a port: {error}"))?;
    Ok((host.to_owned(), address))
}

impl Args {
    fn measured(&self) -> Duration {
        Duration::from_secs(self.duration)
    }

    fn devices(&self) -> Vec<String> {
        match self.publishers {
            0 | 1 => vec![self.device.clone()],
            n => (0..n).map(|i| format!("{}-{i}", self.device)).collect(),
        }
    }
}

/// The endpoint of one device.
fn endpoint(base: &str, device: &str) -> String {
    let trimmed = base.trim_end_matches('/');
    if base.contains("{device}") {
        base.replace("{device}", device)
    } else if trimmed.ends_with("/whip") || trimmed.ends_with("/whep") {
        format!("{trimmed}/{device}")
    } else {
        base.to_owned()
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("MEDIA_LOG")
                .unwrap_or_else(|_| "error".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();
    anyhow::ensure!(
        args.publishers == 0 || args.whip.is_some(),
        "--publishers {} needs --whip, the address to publish to",
        args.publishers
    );
    anyhow::ensure!(
        args.viewers == 0 || args.whep.is_some(),
        "--viewers {} needs --whep, the address to watch at",
        args.viewers
    );
    anyhow::ensure!(
        args.publishers < 2
            || args
                .whip
                .as_deref()
                .is_none_or(|whip| endpoint(whip, "a") != endpoint(whip, "b")),
        "with several publishers --whip must hold {{device}} or end with /whip"
    );
    let report = tokio::select! {
        report = run::run(&args) => report?,
        interrupt = tokio::signal::ctrl_c() => {
            interrupt.context("failed to wait for an interrupt")?;
            anyhow::bail!("interrupted; the server ends the open sessions when their consent expires");
        }
    };
    println!(
        "{}",
        serde_json::to_string_pretty(&report).context("failed to write the report")?
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_goes_where_the_address_wants_it() {
        assert_eq!(endpoint("http://h/whip", "a"), "http://h/whip/a");
        assert_eq!(endpoint("http://h/whip/", "a"), "http://h/whip/a");
        assert_eq!(endpoint("http://h/x/{device}/in", "a"), "http://h/x/a/in");
        assert_eq!(endpoint("http://h/whep/cam-1", "a"), "http://h/whep/cam-1");
    }

    #[test]
    fn the_flags_are_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
