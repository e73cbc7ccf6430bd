//! The program `media-server`; all of it is in `lib.rs`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    media_server::run()
}
