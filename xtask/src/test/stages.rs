//! The stages of the gate, in order. Each is a function that runs programs and fails or not.

use super::Args;
use crate::sh::{self, Counts};
use crate::{r#gen, tidy};

pub struct Stage {
    pub name: &'static str,
    pub run: fn(&mut Counts) -> anyhow::Result<()>,
}

/// The stages of this run, in order.
pub fn all(_args: Args) -> Vec<Stage> {
    vec![
        Stage {
            name: "fmt",
            run: fmt,
        },
        Stage {
            name: "tidy",
            run: |_| tidy::run(),
        },
        Stage {
            name: "clippy",
            run: clippy,
        },
        Stage {
            name: "doc",
            run: doc,
        },
        Stage {
            name: "gen --check",
            run: |_| r#gen::run(r#gen::Args { check: true }),
        },
        Stage {
            name: "unit",
            run: unit,
        },
        Stage {
            name: "programs",
            run: programs,
        },
    ]
}

fn fmt(counts: &mut Counts) -> anyhow::Result<()> {
    sh::run(&mut sh::cargo(["fmt", "--all", "--check"]), counts)
}

/// With no feature, with the default ones and with all: each set is one that somebody builds.
fn clippy(counts: &mut Counts) -> anyhow::Result<()> {
    for features in [
        &["--workspace"][..],
        &["--workspace", "--all-features"],
        &["-p", "media-server", "--no-default-features"],
    ] {
        let mut clippy = sh::cargo(["clippy", "--locked", "--all-targets"]);
        clippy.args(features).args(["--", "-D", "warnings"]);
        sh::run(&mut clippy, counts)?;
    }
    Ok(())
}

fn doc(counts: &mut Counts) -> anyhow::Result<()> {
    let mut doc = sh::cargo([
        "doc",
        "--locked",
        "--workspace",
        "--no-deps",
        "--document-private-items",
    ]);
    sh::run(doc.env("RUSTDOCFLAGS", "-D warnings"), counts)
}

fn unit(counts: &mut Counts) -> anyhow::Result<()> {
    sh::run(
        &mut sh::cargo([
            "test",
            "--locked",
            "--workspace",
            "--lib",
            "--bins",
            "--no-fail-fast",
        ]),
        counts,
    )
}

/// Whole programs over loopback: the HTTP surface, then media with the project's own client.
fn programs(counts: &mut Counts) -> anyhow::Result<()> {
    sh::run(
        &mut sh::cargo([
            "test",
            "--locked",
            "-p",
            "tests",
            "--tests",
            "--no-fail-fast",
        ]),
        counts,
    )
}
