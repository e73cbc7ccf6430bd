//! `cargo xtask conformance`: builds `media-conformance` and runs it.
//!
//! Owns the command's flags alone; the checks are the program's, which stands on its own in `client`.

use std::process::Command;

use anyhow::{Context, bail};

use crate::sh;

#[derive(clap::Args)]
pub struct Args {
    /// WHIP endpoint to publish on
    #[arg(long, value_name = "URL", required_unless_present = "whep")]
    whip: Option<String>,
    /// WHEP endpoint that plays what the WHIP endpoint takes
    #[arg(long, value_name = "URL")]
    whep: Option<String>,
    /// Bearer token for both
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Take any TLS certificate
    #[arg(long)]
    insecure: bool,
    /// Origin whose pages the server lets in (CORS)
    #[arg(long, value_name = "ORIGIN")]
    origin: Option<String>,
}

/// Runs the checks; their table goes to standard output.
///
/// # Errors
/// If a MUST failed, or the checks could not be run.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut command = Command::new(sh::program("media-conformance")?);
    for (flag, value) in [
        ("--whip", args.whip),
        ("--whep", args.whep),
        ("--origin", args.origin),
    ] {
        command.args(value.iter().flat_map(|value| [flag, value.as_str()]));
    }
    if let Some(token) = args.token {
        // Not an argument: other users of the machine can read those.
        command.env("MEDIA_TOKEN", token);
    }
    if args.insecure {
        command.arg("--insecure");
    }
    let status = command
        .status()
        .context("media-conformance can't be started")?;
    match status.code() {
        Some(0) => Ok(()),
        Some(1) => bail!("the server does what a MUST forbids, or not what one asks for"),
        _ => bail!("media-conformance ended with {status}"),
    }
}
