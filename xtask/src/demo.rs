//! `cargo xtask demo`: from nothing to a live picture that came through the operator.
//!
//! Owns the order of the stages and what is said about them. Everything that runs afterwards belongs
//! to the cluster and ends with it. Called by people and by the gate.

pub mod forward;

mod current;
mod local;
pub mod machine;
mod made;
mod picture;
mod processes;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use serde_json::Value;

#[derive(clap::Args)]
pub struct Args {
    /// Address of this machine to serve at; one that is not loopback gets https
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,
    /// Stay in front once all is up, until interrupted; everything keeps running then too
    #[arg(long)]
    hold: bool,
    /// Remove all that the demo made
    #[arg(long)]
    down: bool,
    /// `local`: a cluster on this machine. `current`: the one of $KUBECONFIG, which needs its images
    #[arg(long, value_parser = ["local", "current"], default_value = "local")]
    cluster: String,
    /// With --cluster current: push both images to this registry and prefix, as ghcr.io/team
    #[arg(long, value_name = "REGISTRY/PREFIX")]
    push: Option<String>,
    /// With --cluster current: its nodes have both images already
    #[arg(long)]
    images_present: bool,
}

/// The device that the demo publishes.
const DEVICE: &str = "test-picture";

/// Where the MediaService goes, and the operator.
const NAMESPACE: &str = "media";
const OPERATOR_NAMESPACE: &str = "mediaservice-system";

/// Runs the demo, or removes it.
///
/// # Errors
/// If a stage fails; it says which, and what was seen. The next run goes on with what is there.
pub fn run(args: Args) -> anyhow::Result<()> {
    let on_current = args.cluster == "current";
    if on_current && args.address != IpAddr::V4(Ipv4Addr::LOCALHOST) {
        bail!(
            "--address is for the local cluster: on another the page is at this machine's loopback"
        );
    }
    if !on_current && (args.push.is_some() || args.images_present) {
        bail!("--push and --images-present are for --cluster current");
    }
    match (on_current, args.down) {
        (true, true) => current::down(),
        (true, false) => current::up(args.push.as_deref(), args.images_present, args.hold),
        (false, true) => local::down(),
        (false, false) => local::up(args.address, args.hold),
    }
}

/// Says what is begun, what it took the last time, and afterwards what it took now.
struct Stages {
    started: Instant,
    stage: Instant,
    name: String,
}

impl Stages {
    fn start() -> Self {
        let started = Instant::now();
        Self {
            started,
            stage: started,
            name: String::new(),
        }
    }

    fn begin(&mut self, name: &str) {
        self.stage = Instant::now();
        self.name = name.to_owned();
        match self.note().map(std::fs::read_to_string) {
            Some(Ok(before)) => println!("\n=== {name} ({before} s the last time)"),
            _ => println!("\n=== {name}"),
        }
    }

    fn ready(&self, what: &str) {
        let took = self.stage.elapsed().as_secs();
        println!(
            "--- {what} ({took} s, {} s in all)",
            self.started.elapsed().as_secs()
        );
        if let Some(note) = self.note() {
            // Only a convenience: without it the next run names no time.
            let _ = std::fs::write(note, took.to_string());
        }
    }

    /// Where the stage's time is kept: beside what the cluster's builds took.
    fn note(&self) -> Option<PathBuf> {
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
        Some(cache.join(format!("mediaservice-cluster/demo {}.seconds", self.name)))
    }
}

/// The example as the demo applies it, in JSON: as it is, with `more` merged into its `spec`.
fn example(more: &Value) -> anyhow::Result<String> {
    let file = crate::sh::root().join("crds/examples/minimal.yaml");
    let text =
        std::fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
    let mut value: Value = serde_yaml::from_str(&text)?;
    merge(&mut value["spec"], more);
    Ok(value.to_string())
}

/// Merges objects key by key; anything else replaces what was there (RFC 7396 without removal).
fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_demo_adds_leaves_the_rest_of_the_example_as_it_is() {
        let plain: Value = serde_json::from_str(&example(&json!({})).expect("is there")).expect("");
        let more = json!({"media": {"port": 9000}, "pod": {"annotations": {"a": "b"}}});
        let changed: Value = serde_json::from_str(&example(&more).expect("is there")).expect("");
        assert_eq!(changed["spec"]["media"]["port"], 9000);
        assert_eq!(changed["spec"]["pod"]["annotations"]["a"], "b");
        assert_eq!(
            changed["spec"]["media"]["exposure"],
            plain["spec"]["media"]["exposure"]
        );
        assert_eq!(changed["spec"]["signalling"], plain["spec"]["signalling"]);
    }
}
