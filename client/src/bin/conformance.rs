//! `media-conformance`: the WHIP and WHEP checklist against any server, as a table.
//!
//! Owns flags and exit code; the checks are in `client::conformance`. Never leaves a session behind.

use clap::Parser;
use client::conformance::{Target, run};
use std::process::ExitCode;

/// Check a WHIP and WHEP server against RFC 9725 and draft-ietf-wish-whep-04.
///
/// Publishes on the WHIP endpoint and watches on the WHEP endpoint, which should play the same.
/// Takes some seconds. Exit code: 0 when no MUST fails, 1 when one does, 2 when the checks
/// can't be run.
#[derive(Debug, Parser)]
#[command(name = "media-conformance", version)]
struct Args {
    /// WHIP endpoint to publish on
    #[arg(long, value_name = "URL", required_unless_present = "whep")]
    whip: Option<String>,
    /// WHEP endpoint that plays what the WHIP endpoint takes
    #[arg(long, value_name = "URL")]
    whep: Option<String>,
    /// Bearer token for both
    #[arg(
        long,
        env = "MEDIA_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    token: Option<String>,
    /// Take any TLS certificate
    #[arg(long)]
    insecure: bool,
    /// Origin whose pages the server lets in (CORS)
    #[arg(long, value_name = "ORIGIN")]
    origin: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let target = Target {
        whip: args.whip,
        whep: args.whep,
        token: args.token,
        insecure_tls: args.insecure,
        origin: args.origin,
    };
    let report = tokio::runtime::Runtime::new()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| Ok(runtime.block_on(run(&target))?));
    match report {
        Ok(report) => {
            print!("{report}");
            if report.conforms() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("media-conformance: {error:#}");
            ExitCode::from(2)
        }
    }
}
