//! The stages of the gate, in order. Each is a function that runs programs and fails or not.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

use super::background::Background;
use super::{Args, Gate, deny, long, packages, rights};
use crate::clients::Which;
use crate::cluster::Wanted;
use crate::sh::{self, Counts};
use crate::{clients, cluster, fuzz, r#gen, image, tidy};

pub struct Stage {
    pub name: &'static str,
    pub run: fn(&mut Gate, &mut Counts) -> anyhow::Result<()>,
}

/// The stages of this run, in order. What finds most mistakes fastest comes first.
pub fn all(args: &Args) -> Vec<Stage> {
    let on_machine = Stage {
        name: MACHINE,
        run: machine,
    };
    if let Some(name) = &args.stage {
        return [on_machine].into_iter().chain(long::alone(name)).collect();
    }
    let mut stages = vec![
        on_machine,
        Stage {
            name: "start builds",
            run: start_builds,
        },
        Stage {
            name: "fmt",
            run: fmt,
        },
        Stage {
            name: "tidy",
            run: |_, _| tidy::run(),
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
            run: |_, _| r#gen::run(r#gen::Args { check: true }),
        },
        Stage {
            name: "unit",
            run: unit,
        },
        Stage {
            name: "programs",
            run: programs,
        },
        Stage {
            name: "fuzz, 20 s",
            run: |_, _| fuzz::run(fuzz::Args::default()),
        },
        Stage {
            name: "web clients",
            run: |_, counts| clients::test(Which::Web, counts),
        },
        Stage {
            name: "deny",
            run: deny,
        },
    ];
    if !args.fast {
        stages.extend([
            Stage {
                name: "cluster build",
                run: cluster_build,
            },
            Stage {
                name: "chart",
                run: chart,
            },
            IMAGES,
            Stage {
                name: "cluster up",
                run: cluster_up,
            },
            Stage {
                name: "chart on the cluster",
                run: |gate, counts| on_cluster(gate, counts, "chart-live"),
            },
            Stage {
                name: "reconcile",
                run: |gate, counts| on_cluster(gate, counts, "reconcile"),
            },
            Stage {
                name: "e2e",
                run: |gate, counts| on_cluster(gate, counts, "e2e"),
            },
            Stage {
                name: "demo on the cluster",
                run: |gate, counts| on_cluster(gate, counts, "demo-current"),
            },
            Stage {
                name: "rights",
                run: rights,
            },
            Stage {
                name: "demo",
                run: demo,
            },
            Stage {
                name: "cluster down",
                run: cluster_down,
            },
        ]);
    }
    if args.long {
        stages.extend(long::stages());
    }
    stages
}

/// The first stage: without what it looks for, nothing else is begun.
pub const MACHINE: &str = "machine";

/// Installs packages, and says all that the machine lacks then, each with its fix.
fn machine(gate: &mut Gate, _: &mut Counts) -> anyhow::Result<()> {
    let wanted = match &gate.args {
        Args { fast: true, .. } => Wanted::Images,
        Args {
            stage: Some(name), ..
        } if !long::needs_cluster(name) => Wanted::Images,
        _ => Wanted::Cluster,
    };
    let lacks: Vec<String> = [
        packages::install(match gate.args.is_long() {
            true => &[packages::FAST, packages::LONG, packages::SOAK],
            false => &[packages::FAST],
        }),
        gate.cluster.prepare(wanted),
    ]
    .into_iter()
    .filter_map(|result| Some(format!("{:#}", result.err()?)))
    .collect();
    if !lacks.is_empty() {
        bail!("{}", lacks.join("\n"));
    }
    Ok(())
}

/// Go compiles for 40 CPU minutes from empty caches; it begins first and has the lowest priority.
fn start_builds(gate: &mut Gate, _: &mut Counts) -> anyhow::Result<()> {
    if let Some(install) = deny::install()? {
        gate.deny_build = Some(Background::start("cargo-deny", &install, &gate.logs)?);
    }
    if !gate.args.fast {
        let mut build = gate.cluster.script(["build"]);
        build.args([
            "kube",
            "coredns",
            "tools",
            "definitions",
            "ingress",
            "prometheus-operator",
            "prometheus",
        ]);
        gate.cluster_build = Some(Background::start("cluster-build", &build, &gate.logs)?);
    }
    Ok(())
}

fn fmt(_: &mut Gate, counts: &mut Counts) -> anyhow::Result<()> {
    sh::run(&mut sh::cargo(["fmt", "--all", "--check"]), counts)
}

/// With the default features and with none; all of them are the default ones. Tests that are started
/// by name are not among all targets.
fn clippy(_: &mut Gate, counts: &mut Counts) -> anyhow::Result<()> {
    let named = test_binaries()?;
    let mut by_name = vec!["--workspace".to_owned()];
    for binary in named.iter().filter(|binary| binary.by_name) {
        by_name.extend(["--test".to_owned(), binary.name.clone()]);
    }
    let all: &[&str] = &["--workspace", "--all-targets"];
    let none: &[&str] = &[
        "-p",
        "media-server",
        "--all-targets",
        "--no-default-features",
    ];
    let sets = [
        all.iter().map(|s| (*s).to_owned()).collect(),
        by_name,
        none.iter().map(|s| (*s).to_owned()).collect(),
    ];
    for set in sets {
        let mut clippy = sh::cargo(["clippy", "--locked"]);
        clippy.args(set).args(["--", "-D", "warnings"]);
        sh::run(&mut clippy, counts)?;
    }
    Ok(())
}

fn doc(_: &mut Gate, counts: &mut Counts) -> anyhow::Result<()> {
    let mut doc = sh::cargo([
        "doc",
        "--locked",
        "--workspace",
        "--no-deps",
        "--document-private-items",
    ]);
    sh::run(doc.env("RUSTDOCFLAGS", "-D warnings"), counts)
}

fn unit(_: &mut Gate, counts: &mut Counts) -> anyhow::Result<()> {
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
    )?;
    sh::run(
        &mut sh::cargo(["test", "--locked", "--workspace", "--doc", "--no-fail-fast"]),
        counts,
    )
}

/// Test binaries that need more than the programs: helm, the cluster, clients of other people.
const OTHER_STAGES: &[&str] = &[
    "alerts",
    "clients",
    "chart",
    "prometheus",
    "chart-live",
    "reconcile",
    "e2e",
    "demo-current",
    "demo-local",
    "scale",
    "followed",
];

/// Whole programs over loopback: the HTTP surface, media with the project's own client, the page in a
/// browser. Every test binary that no other stage runs.
fn programs(gate: &mut Gate, counts: &mut Counts) -> anyhow::Result<()> {
    build(gate, counts)?;
    let names = test_binaries()?.into_iter().map(|binary| binary.name);
    let here = names.filter(|name| !OTHER_STAGES.contains(&name.as_str()));
    let (waiting, others): (Vec<_>, Vec<_>) =
        here.partition(|name| WAITING.contains(&name.as_str()));
    let others = run_tests(&others, &[], counts);
    run_tests(&waiting, &["--", WAITING_THREADS], counts).and(others)
}

/// Binaries whose tests wait most of their time. At two at a time `http` leaves two cores idle for four
/// fifths of it.
const WAITING: &[&str] = &["http"];

/// Tests of [`WAITING`] that run at a time, on whatever machine: more than the cores that it has.
const WAITING_THREADS: &str = "--test-threads=6";

fn run_tests(binaries: &[String], options: &[&str], counts: &mut Counts) -> anyhow::Result<()> {
    let mut test = sh::cargo(["test", "--locked", "--workspace", "--no-fail-fast"]);
    test.args(binaries.iter().flat_map(|binary| ["--test", binary]));
    sh::run(test.args(options), counts)
}

/// The test of the gate with a broker that is away for as long as a restart may take.
pub fn broker(_: &mut Gate, counts: &mut Counts) -> anyhow::Result<()> {
    let test = [
        "test",
        "--locked",
        "--workspace",
        "--test",
        "broker",
        "--",
        "--nocapture",
    ];
    sh::run(sh::cargo(test).env("BROKER_AWAY_SECONDS", "60"), counts)
}

/// Seconds of the long recordings: sound and picture drift apart, and places for figures overflow, after
/// minutes.
const RECORDING_SECONDS: &str = "600";

/// The tests of recordings that last as long as they are told.
pub fn long_recordings(gate: &mut Gate, counts: &mut Counts) -> anyhow::Result<()> {
    build(gate, counts)?;
    let mut test = sh::cargo(["test", "--locked", "--workspace", "--test", "media", "--"]);
    // They wait most of their time, all of them at once.
    test.args(["recording::long::", "--nocapture", "--test-threads=3"]);
    sh::run(test.env("RECORDING_SECONDS", RECORDING_SECONDS), counts)
}

/// The test of the gate with as many WebSockets as one server is to have.
pub fn crowd(gate: &mut Gate, counts: &mut Counts) -> anyhow::Result<()> {
    build(gate, counts)?;
    let mut test = sh::cargo(["test", "--locked", "--workspace", "--test", "http", "--"]);
    test.args(["crowd::", "--nocapture"]);
    sh::run(test.env("CROWD", "2000"), counts)
}

/// The workspace's programs alone, for a stage that starts them.
pub const BUILD: Stage = Stage {
    name: "build",
    run: build,
};

fn build(_: &mut Gate, counts: &mut Counts) -> anyhow::Result<()> {
    sh::run(
        &mut sh::cargo(["build", "--locked", "--workspace", "--bins"]),
        counts,
    )
}

fn deny(gate: &mut Gate, counts: &mut Counts) -> anyhow::Result<()> {
    if let Some(build) = gate.deny_build.take() {
        build.wait()?;
    }
    deny::run(counts)
}

fn cluster_build(gate: &mut Gate, _: &mut Counts) -> anyhow::Result<()> {
    let build = gate.cluster_build.take().context("it was not started")?;
    let result = build.wait();
    if result.is_err() {
        gate.no_cluster = Some("its programs were not built");
    }
    result
}

fn chart(gate: &mut Gate, counts: &mut Counts) -> anyhow::Result<()> {
    // helm and kubeconform, promtool.
    let binaries = ["chart", "prometheus"];
    with_tools(gate, counts, &["tools", "prometheus"], &binaries)
}

/// One request followed through the servers of others that tell of it.
pub fn traces(gate: &mut Gate, counts: &mut Counts) -> anyhow::Result<()> {
    let tools = ["collector", "logs", "prometheus"];
    with_tools(gate, counts, &tools, &["followed"])
}

/// Runs test binaries with programs of these folders of `cluster/` on their path.
fn with_tools(
    gate: &Gate,
    counts: &mut Counts,
    tools: &[&str],
    binaries: &[&str],
) -> anyhow::Result<()> {
    // `build` prints the folder of what it built, now or before.
    let build = ["build"].iter().chain(tools);
    let built = sh::output(&mut gate.cluster.script(build))?;
    let mut test = sh::cargo(["test", "--locked", "--workspace"]);
    test.args(binaries.iter().flat_map(|binary| ["--test", binary]));
    let path = std::env::var("PATH").unwrap_or_default();
    let folders: Vec<&str> = built.lines().chain([&*path]).collect();
    sh::run(test.env("PATH", folders.join(":")), counts)
}

/// Both images, for the nodes of the cluster.
pub const IMAGES: Stage = Stage {
    name: "images",
    run: images,
};

fn images(gate: &mut Gate, _: &mut Counts) -> anyhow::Result<()> {
    match image::build() {
        Ok(archives) => {
            gate.archives = archives;
            Ok(())
        }
        Err(error) => {
            gate.no_cluster = Some("the images were not made");
            Err(error)
        }
    }
}

fn cluster_up(gate: &mut Gate, _: &mut Counts) -> anyhow::Result<()> {
    if let Some(reason) = gate.no_cluster {
        bail!("not run: {reason}");
    }
    let result = start_cluster(gate);
    if result.is_err() {
        gate.no_cluster = Some("the cluster did not come up");
    }
    result
}

fn start_cluster(gate: &Gate) -> anyhow::Result<()> {
    // What a run that was killed left behind.
    gate.cluster.down()?;
    gate.cluster.up(1)?;
    for part in cluster::PARTS {
        gate.cluster.add(part)?;
    }
    gate.cluster.load(&gate.archives)
}

/// Longest that one test binary may take on the cluster: three times what the longest takes.
const LIMIT_SECONDS: &str = "1500";

/// The same for [`scale`], which watches for ten minutes that nothing happens, and for [`alerts`], which
/// waits as long as the rules do.
const LONG_LIMIT_SECONDS: &str = "3600";

/// A thousand MediaServices on a cluster of their own, whose Prometheus Operator would be busier with
/// them than the operator.
pub fn scale(gate: &mut Gate, counts: &mut Counts) -> anyhow::Result<()> {
    on_new_cluster(gate, counts, "scale", &["tools"])
}

/// Faults, and what Prometheus fires for them. A second node comes and goes, and what other tests did
/// would be among what has ever fired.
pub fn alerts(gate: &mut Gate, counts: &mut Counts) -> anyhow::Result<()> {
    on_new_cluster(gate, counts, "alerts", &["tools", "monitoring"])
}

/// A test binary on a cluster of its own with these parts.
fn on_new_cluster(
    gate: &Gate,
    counts: &mut Counts,
    binary: &str,
    parts: &[&str],
) -> anyhow::Result<()> {
    if let Some(reason) = gate.no_cluster {
        bail!("not run: {reason}");
    }
    gate.cluster.down()?;
    let result = start_new_cluster(gate, parts).and_then(|()| {
        let limited = gate.cluster.outside("timeout")?;
        with_cluster(gate, counts, binary, limited)
    });
    // Also one that came up in parts only: the stages after this one want the machine for themselves.
    let down = gate.cluster.down();
    result.and(down)
}

fn start_new_cluster(gate: &Gate, parts: &[&str]) -> anyhow::Result<()> {
    gate.cluster.up(1)?;
    for part in parts {
        gate.cluster.add(part)?;
    }
    gate.cluster.load(&gate.archives)
}

/// A test binary in the cluster's outside network, as a client beyond the nodes. Cargo builds it
/// before, where the registry is in reach.
fn on_cluster(gate: &mut Gate, counts: &mut Counts, binary: &str) -> anyhow::Result<()> {
    if let Some(reason) = gate.no_cluster {
        bail!("not run: {reason}");
    }
    let limited = gate.cluster.outside("timeout")?;
    with_cluster(gate, counts, binary, limited)
}

/// Over all that was done on the cluster until now: every right was used, and none was missing.
fn rights(gate: &mut Gate, _: &mut Counts) -> anyhow::Result<()> {
    if let Some(reason) = gate.no_cluster {
        bail!("not run: {reason}");
    }
    rights::check(&gate.cluster)
}

/// The local demo with the gate's cluster, on the machine itself. The cluster is gone afterwards.
fn demo(gate: &mut Gate, counts: &mut Counts) -> anyhow::Result<()> {
    if let Some(reason) = gate.no_cluster {
        bail!("not run: {reason}");
    }
    with_cluster(gate, counts, "demo-local", Command::new("timeout"))
}

/// Runs a test binary; `limited` is the command `timeout`, wherever it shall run.
fn with_cluster(
    gate: &Gate,
    counts: &mut Counts,
    binary: &str,
    mut limited: Command,
) -> anyhow::Result<()> {
    let program = test_program(binary)?;
    // A test that hangs must not keep the cluster from going down.
    let limit = match binary {
        "alerts" | "scale" => LONG_LIMIT_SECONDS,
        _ => LIMIT_SECONDS,
    };
    limited.args(["--kill-after=10", limit]);
    limited.arg(program);
    // Its tests wait most of their time, and those that can't have company say so themselves; in the
    // others there is one definition, one Ingress host or a browser that wants both cores.
    let threads = match binary {
        "reconcile" => 3,
        _ => 1,
    };
    limited.args(["--nocapture", &format!("--test-threads={threads}")]);
    limited.env("CLUSTER_DIR", gate.cluster.state());
    limited.env("NODE_ADDRESS", cluster::NODE_ADDRESS);
    limited.env("NODE_ADDRESS_V6", cluster::NODE_ADDRESS_V6);
    limited.env("PROMETHEUS_URL", cluster::PROMETHEUS);
    limited.current_dir(sh::root().join("tests"));
    let result = sh::run(&mut limited, counts);
    if result.is_err() {
        // The cluster goes with the run; its logs are what is left to look at.
        let kept = gate.logs.join(format!("{binary}-cluster"));
        let mut copy = Command::new("cp");
        copy.arg("-rT")
            .arg(gate.cluster.state().join("log"))
            .arg(&kept);
        let _ = sh::output(&mut copy);
        println!("the cluster's logs are kept in {}", kept.display());
    }
    result
}

fn cluster_down(gate: &mut Gate, _: &mut Counts) -> anyhow::Result<()> {
    gate.cluster.down()
}

struct TestBinary {
    name: String,
    /// Needs something that `cargo test` does not provide, so it has `test = false`.
    by_name: bool,
}

fn test_binaries() -> anyhow::Result<Vec<TestBinary>> {
    let metadata: Value = serde_json::from_str(&sh::output(&mut sh::cargo([
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
    ]))?)?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let targets = packages.flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let tests = targets.filter(|target| target["kind"][0] == "test");
    tests
        .map(|target| {
            let name = target["name"]
                .as_str()
                .context("a target has a name")?
                .to_owned();
            Ok(TestBinary {
                name,
                by_name: target["test"] == false,
            })
        })
        .collect()
}

/// Builds a test binary and returns where it lies.
fn test_program(name: &str) -> anyhow::Result<PathBuf> {
    let build = [
        "test",
        "--locked",
        "--workspace",
        "--no-run",
        "--message-format=json",
        "--test",
        name,
    ];
    let messages = sh::output(&mut sh::cargo(build))?;
    for line in messages.lines() {
        let message: Value = serde_json::from_str(line)?;
        if message["reason"] == "compiler-artifact"
            && message["target"]["name"] == name
            && message["target"]["kind"][0] == "test"
        {
            let path = message["executable"]
                .as_str()
                .context("a test has an executable")?;
            return Ok(path.into());
        }
    }
    bail!("cargo names no executable for the test {name}")
}
