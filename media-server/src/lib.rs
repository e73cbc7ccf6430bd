//! `media-server` but for its entry: flags, runtime, exit code.
//!
//! A library only so that `examples/costs.rs` can measure what figures and the registry cost; nobody else
//! depends on it. Called by `main.rs`.
#![forbid(unsafe_code)]

mod addresses;
mod api;
mod app;
mod auth;
mod cgroup;
mod clock;
mod config;
#[cfg(feature = "demo")]
mod demo;
mod devices;
mod drain;
mod event_streams;
mod events;
mod limits;
mod listener;
mod log;
mod metrics;
mod outbound;
mod pages;
mod recording;
mod registry;
mod resources;
mod shard;
mod sockets;
mod trace;
mod turn;

/// What `examples/costs.rs` measures.
#[doc(hidden)]
pub mod measured {
    pub use crate::metrics::sessions::{Session, write as write_sessions};
    pub use crate::metrics::text::Format;
    pub use crate::metrics::{Metrics, render_labels};
    pub use crate::registry::sharded::Sharded;
}

use anyhow::Context as _;
use clap::Parser as _;
use config::{Cli, Command, Config, ServeArgs, TokenArgs};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Threads for HTTP; media has its own.
const HTTP_THREADS: usize = 2;

/// Does what the command line says.
pub fn run() -> ExitCode {
    let outcome = match Cli::parse().command() {
        Command::Serve(args) => serve(*args),
        Command::Token(args) => token(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("media-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let config = Config::load(args)?;
    log::start(&config.log_level, &config.pod);
    // Each viewer over TCP and each request has one. Shells and runtimes often leave 1 024 of a far higher limit.
    if let Err(error) = media_wire::raise_open_files() {
        tracing::warn!(%error, "failed to raise the number of open files");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .thread_name("http")
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    let outcome: anyhow::Result<()> = runtime.block_on(async {
        let server = app::Server::start(config).await?;
        server.run().await?;
        Ok(())
    });
    // A disk that takes nothing holds its threads, and would hold the process.
    runtime.shutdown_timeout(app::DISK_WITHIN);
    outcome
}

fn token(args: &TokenArgs) -> anyhow::Result<()> {
    if args.ttl > auth::MAX_LIFETIME {
        anyhow::bail!("--ttl is more than 24h, which no server would take; give less");
    }
    let signer = config::token_signer(args)?;
    let holder = auth::Holder {
        subject: &args.subject,
        tenant: args.tenant.as_deref(),
        devices: &args.device,
        grants: &args.grant,
    };
    let token = auth::mint(&signer, holder, args.ttl)?;
    println!("{token}");
    Ok(())
}
