//! `cargo xtask clients`: WHIP and WHEP clients that other people wrote, against this server.
//!
//! Fetches or builds them into the cache, each under a name made of all that decides what comes out, and
//! runs `tests/clients`, which finds them by its environment. Called by people and by the gate.

use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::sh::{self, Counts};
use crate::test::packages;

#[derive(clap::Args)]
pub struct Args {
    /// Only these
    which: Option<Which>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Which {
    /// @binbat/whip-whep and @eyevinn/webrtc-player, in Chromium
    Web,
    /// whipsink and whepsrc, and the RTSP server
    Gstreamer,
}

/// Installs what the clients need, and runs their tests.
///
/// # Errors
/// If something is missing, a client can't be built, or a test failed.
pub fn run(args: Args) -> anyhow::Result<()> {
    packages::install(match args.which {
        Some(Which::Web) => &[packages::FAST],
        _ => &[packages::FAST, packages::LONG],
    })?;
    let mut counts = Counts::default();
    let build = ["build", "--locked", "--workspace", "--bins"];
    sh::run(&mut sh::cargo(build), &mut counts)?;
    for which in [Which::Web, Which::Gstreamer] {
        if args.which.is_none_or(|only| only == which) {
            test(which, &mut counts)?;
        }
    }
    Ok(())
}

/// Runs the tests of some of them; the workspace's programs have been built.
///
/// # Errors
/// If a client can't be built, or a test failed.
pub fn test(which: Which, counts: &mut Counts) -> anyhow::Result<()> {
    let (variable, built, module) = match which {
        Which::Web => ("WEB_CLIENTS", bundle()?, "web::"),
        Which::Gstreamer => ("GSTREAMER_CLIENTS", plugin()?, "gstreamer::"),
    };
    let mut test = sh::cargo(["test", "--locked", "--workspace", "--test", "clients"]);
    sh::run(test.args(["--", module]).env(variable, built), counts)
}

const WEB: &[&str] = &["package.json", "package-lock.json", "clients.js"];

/// One script with the packages of `tests/clients/web`: some are written for a bundler, which every user
/// of theirs has. The registry is npm's own configuration.
fn bundle() -> anyhow::Result<PathBuf> {
    let folder = sh::root().join("tests/clients/web");
    let script = place("web-clients", &folder, WEB, "")?.join("clients.js");
    if script.exists() {
        return Ok(script);
    }
    let work = sh::target()?.join("web-clients");
    std::fs::create_dir_all(&work)?;
    for file in WEB {
        std::fs::copy(folder.join(file), work.join(file))?;
    }
    let mut npm = Command::new("npm");
    // No script of a package is run: none is needed.
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    sh::run(npm.current_dir(&work), &mut Counts::default())
        .context("the packages can't be fetched with npm")?;
    let mut esbuild = Command::new(work.join("node_modules/.bin/esbuild"));
    esbuild.args(["clients.js", "--bundle", "--global-name=clients"]);
    esbuild.arg("--outfile=bundle.js").current_dir(&work);
    sh::run(&mut esbuild, &mut Counts::default())?;
    keep(&work.join("bundle.js"), &script)?;
    Ok(script)
}

const GSTREAMER: &[&str] = &["Cargo.toml", "Cargo.lock", "lib.rs"];

/// The folder of the plugin of `tests/clients/gstreamer`.
fn plugin() -> anyhow::Result<PathBuf> {
    let folder = sh::root().join("tests/clients/gstreamer");
    let rustc = sh::output(Command::new("rustc").arg("--version"))?;
    let mut pkg_config = Command::new("pkg-config");
    let gstreamer = sh::output(pkg_config.args(["--modversion", "gstreamer-webrtc-1.0"]))?;
    let place = place(
        "gstreamer-clients",
        &folder,
        GSTREAMER,
        &(rustc + &gstreamer),
    )?;
    // GStreamer takes a plugin's name from its file's.
    let library = place.join("libgstwebrtchttp.so");
    if library.exists() {
        return Ok(place);
    }
    let work = sh::target()?.join("gstreamer-clients");
    let mut build = sh::cargo(["build", "--locked", "--manifest-path"]);
    build.arg(folder.join("Cargo.toml"));
    build.arg("--target-dir").arg(&work);
    sh::run(&mut build, &mut Counts::default())?;
    keep(&work.join("debug/libwebrtc_http.so"), &library)?;
    Ok(place)
}

/// A folder in the cache for what comes of these files and of the versions of what makes it.
fn place(name: &str, folder: &Path, files: &[&str], versions: &str) -> anyhow::Result<PathBuf> {
    let mut key = std::hash::DefaultHasher::new();
    key.write(versions.as_bytes());
    for file in files {
        key.write(&std::fs::read(folder.join(file))?);
    }
    Ok(sh::cache()?.join(format!("{name}-{:016x}", key.finish())))
}

/// Copies a file there. Renamed when it is whole: a copy that is cut off leaves nothing that looks like
/// one.
fn keep(made: &Path, kept: &Path) -> anyhow::Result<()> {
    let folder = kept.parent().context("a file has a folder")?;
    std::fs::create_dir_all(folder)?;
    let part = folder.join("part");
    std::fs::copy(made, &part)?;
    std::fs::rename(&part, kept)?;
    Ok(())
}
