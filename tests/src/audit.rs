//! What the local cluster's API server saw somebody do: its audit log.

use std::path::PathBuf;

use anyhow::Context;
use serde_json::Value;

/// Every request of `account`, each answered one, in no order. What somebody did with its
/// rights (`--as`) is not among them.
///
/// # Errors
/// If the log can't be read: `CLUSTER_DIR` says where the cluster keeps its state.
pub fn requests(account: &str) -> anyhow::Result<Vec<Value>> {
    let state = std::env::var("CLUSTER_DIR").context("CLUSTER_DIR")?;
    let folder = PathBuf::from(state).join("log");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with("audit") || !name.ends_with(".log") {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        for line in text.lines().filter(|line| line.contains(account)) {
            let event: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            if event["user"]["username"] == account && event.get("impersonatedUser").is_none() {
                found.push(event);
            }
        }
    }
    Ok(found)
}

/// A request in a line: verb, resource, namespace, and what the API server said.
pub fn line(request: &Value) -> String {
    let target = &request["objectRef"];
    format!(
        "{} {}/{} in {}: {} {}",
        request["verb"],
        target["resource"],
        target["name"],
        target["namespace"],
        request["responseStatus"]["code"],
        request["responseStatus"]["message"]
    )
}
