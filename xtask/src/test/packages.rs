//! Debian packages that the gate needs and Rust does not bring: installed by the gate itself where it
//! is root, named with their fix where it is not.

use std::process::Command;

use anyhow::bail;

use crate::sh;

/// A program that has to be on PATH, and the package that has it.
const FAST: &[(&str, &str)] = &[
    ("git", "git"),
    ("c++", "g++"),
    ("make", "make"),
    ("ip", "iproute2"),
    ("chromium", "chromium"),
    ("chromedriver", "chromium-driver"),
    ("turnserver", TURN_SERVER),
];

/// What the long stages need too.
const LONG: &[(&str, &str)] = &[("valgrind", "valgrind")];

const TURN_SERVER: &str = "coturn";

/// Makes sure that every program is there.
///
/// # Errors
/// If one is missing and can't be installed; the message has the command that would.
pub fn install(long: bool) -> anyhow::Result<()> {
    let missing = missing(match long {
        true => &[FAST, LONG],
        false => &[FAST],
    });
    if missing.is_empty() {
        return Ok(());
    }
    let fix = format!(
        "apt-get install -y --no-install-recommends {}",
        missing.join(" ")
    );
    if sh::which("apt-get").is_none() {
        bail!(
            "not installed: {}; on Debian or Ubuntu: {fix}",
            missing.join(", ")
        );
    }
    println!("installing {}", missing.join(", "));
    if missing.contains(&TURN_SERVER) && sh::which("systemctl").is_some() {
        // The tests start their own. The package would start one too, open to everybody. Where systemd
        // does not run this changes nothing, and nothing would be started.
        let _ = sh::output(Command::new("systemctl").args(["mask", "coturn.service"]));
    }
    if apt(&[
        &["install", "-qq", "-y", "--no-install-recommends"],
        missing.as_slice(),
    ]
    .concat())
    .is_err()
    {
        // The lists of a fresh machine are empty or old.
        let _ = apt(&["update", "-qq"]);
        if let Err(error) = apt(&[
            &["install", "-qq", "-y", "--no-install-recommends"],
            missing.as_slice(),
        ]
        .concat())
        {
            bail!(
                "{error:#}\nnot installed: {}; as root: {fix}",
                missing.join(", ")
            );
        }
    }
    Ok(())
}

fn missing(lists: &[&[(&str, &'static str)]]) -> Vec<&'static str> {
    lists
        .concat()
        .iter()
        .filter(|(program, _)| sh::which(program).is_none())
        .map(|(_, package)| *package)
        .collect()
}

fn apt(args: &[&str]) -> anyhow::Result<()> {
    sh::output(
        Command::new("apt-get")
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
    .map(drop)
}
