//! `media-test-publisher`: publishes the live test picture to a WHIP endpoint until it is stopped.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use client::picture::{Feed, FeedEvent, PictureOptions};
use client::{Http, HttpOptions, Options, flags};

/// Publishes a live test picture (H.264) to a WHIP endpoint, as a device would, until it gets
/// SIGINT or SIGTERM; then it deletes its session.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The WHIP endpoint, with the device in it.
    #[arg(long)]
    whip: String,
    /// Bearer token.
    #[arg(long, env = "MEDIA_PUBLISH_TOKEN", hide_env_values = true)]
    token: Option<String>,
    #[arg(long, default_value_t = 640, value_parser = clap::value_parser!(u32).range(160..=3_840))]
    width: u32,
    #[arg(long, default_value_t = 360, value_parser = clap::value_parser!(u32).range(90..=2_160))]
    height: u32,
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=60))]
    frames_per_second: u32,
    /// A line in the picture.
    #[arg(long, default_value = "LIVE TEST PICTURE")]
    title: String,
    /// Stops by itself after so many seconds.
    #[arg(long)]
    duration: Option<u64>,
    /// Local address for media. Default: loopback towards a loopback server, else every address.
    #[arg(long)]
    bind: Option<IpAddr>,
    /// Takes any TLS certificate.
    #[arg(long)]
    insecure: bool,
    /// HOST=IP:PORT: reaches that host there instead of asking DNS. Repeatable.
    #[arg(long, value_parser = flags::resolve)]
    resolve: Vec<(String, SocketAddr)>,
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
    let http = Http::new(&HttpOptions {
        token: args.token,
        insecure_tls: args.insecure,
        resolve: args.resolve,
    })?;
    let options = Options {
        bind: args.bind,
        ..Options::default()
    };
    let feed = Feed::new(
        args.whip.clone(),
        http,
        options,
        PictureOptions {
            width: args.width,
            height: args.height,
            frames_per_second: args.frames_per_second,
            title: args.title,
        },
    );
    let stop = stopped(args.duration.map(Duration::from_secs))?;
    feed.run(stop, |event| match event {
        FeedEvent::Live => eprintln!("media-test-publisher: live at {}", args.whip),
        FeedEvent::Retrying { reason, pause } => {
            eprintln!("media-test-publisher: {reason}; next attempt in {pause:?}");
        }
    })
    .await;
    let frames = feed.frames().load(Ordering::Relaxed);
    eprintln!("media-test-publisher: sent {frames} frames");
    anyhow::ensure!(frames > 0, "no frame was sent");
    Ok(())
}

/// Done at SIGINT, SIGTERM or after the time given.
fn stopped(after: Option<Duration>) -> anyhow::Result<impl Future<Output = ()>> {
    let told = flags::stopped().context("failed to listen for signals")?;
    Ok(async move {
        let late = async {
            match after {
                Some(after) => tokio::time::sleep(after).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = told => {}
            () = late => {}
        }
    })
}
