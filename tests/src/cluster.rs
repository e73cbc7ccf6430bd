//! The script of the local cluster, for tests that change it while it is up: nodes that come and go.

use std::process::Command;

use anyhow::{Context, ensure};

use crate::operator;

/// Runs a command of it on the cluster that `CLUSTER_DIR` names.
///
/// # Errors
/// With what it wrote to stderr.
pub fn run(args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(operator::root().join("cluster/cluster"))
        .args(args)
        .output()
        .context("cluster/cluster can't be started")?;
    ensure!(
        output.status.success(),
        "cluster {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
