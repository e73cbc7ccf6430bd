//! Small questions to this machine and to programs: free ports, programs with input, conditions.

use std::io::Write;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::sh;

/// The first TCP port from `wanted` on that nobody listens on, of the next 100.
///
/// # Errors
/// If none of them is free.
pub fn free_tcp(address: IpAddr, wanted: u16) -> anyhow::Result<u16> {
    (wanted..wanted.saturating_add(100))
        .find(|port| TcpListener::bind((address, *port)).is_ok())
        .with_context(|| format!("no TCP port from {wanted} on is free at {address}"))
}

/// The first UDP port from `wanted` on that nobody has, of the next 100.
///
/// # Errors
/// If none of them is free.
pub fn free_udp(address: IpAddr, wanted: u16) -> anyhow::Result<u16> {
    (wanted..wanted.saturating_add(100))
        .find(|port| UdpSocket::bind((address, *port)).is_ok())
        .with_context(|| format!("no UDP port from {wanted} on is free at {address}"))
}

/// Runs a command with `input` on its standard input and returns its standard output.
///
/// # Errors
/// If it can't be started or exits with anything but 0; the message carries its stderr.
pub fn feed(command: &mut Command, input: &str) -> anyhow::Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't start {}", command.get_program().display()))?;
    child
        .stdin
        .take()
        .expect("stdin is piped")
        .write_all(input.as_bytes())?;
    let out = child.wait_with_output()?;
    if !out.status.success() {
        bail!("{}", String::from_utf8_lossy(&out.stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs what `command` makes until `good` likes its output.
///
/// # Errors
/// After `within`, with what was seen last.
pub fn until(
    what: &str,
    within: Duration,
    mut command: impl FnMut() -> anyhow::Result<Command>,
    good: impl Fn(&str) -> bool,
) -> anyhow::Result<String> {
    let started = Instant::now();
    loop {
        let seen = command().and_then(|mut command| sh::output(&mut command));
        match seen {
            Ok(out) if good(&out) => return Ok(out),
            Ok(out) if started.elapsed() > within => {
                bail!("{what}: not so after {} s; seen: {out}", within.as_secs())
            }
            Err(error) if started.elapsed() > within => {
                return Err(error.context(format!("{what}: not so after {} s", within.as_secs())));
            }
            _ => std::thread::sleep(Duration::from_millis(500)),
        }
    }
}
