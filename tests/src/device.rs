//! `media-device`, publishing to a server of a test.

use std::process::Command;

use crate::MediaServer;
use crate::process::{Process, program};

/// What it publishes as.
pub const DEVICE: &str = "cam-1";

/// How it is started.
///
/// # Panics
/// If it has not been built.
pub fn command(server: &MediaServer, input: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program("MEDIA_DEVICE_BIN", "media-device"));
    command
        .args(["--whip", &server.url("/whip"), "--device", DEVICE])
        .args(["--input", input])
        .args(args);
    command
}

/// Starts it.
///
/// # Panics
/// If it can't be started.
pub fn start(server: &MediaServer, input: &str, args: &[&str]) -> Process {
    Process::start("media-device", &mut command(server, input, args))
}
