//! What the local cluster's API server saw somebody do: its audit log.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

/// Every request of `account` as the log has it, in the order of the files: a watch when it begins, and
/// again when it ends. What somebody did with its rights (`--as`) is not among them.
///
/// # Errors
/// If the log can't be read: `CLUSTER_DIR` says where the cluster keeps its state.
pub fn requests(account: &str) -> anyhow::Result<Vec<Value>> {
    requests_since(account, "")
}

/// Those of [`requests`] that came in after `mark`, which is the [`time`] of one of them.
///
/// # Errors
/// As [`requests`].
pub fn requests_since(account: &str, mark: &str) -> anyhow::Result<Vec<Value>> {
    let state = std::env::var("CLUSTER_DIR").context("CLUSTER_DIR")?;
    let folder = PathBuf::from(state).join("log");
    loop {
        let files = files(&folder)?;
        let mut found = Vec::new();
        for path in &files {
            let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
            read(&String::from_utf8_lossy(&bytes), account, mark, &mut found)?;
        }
        // One that was given another name meanwhile was perhaps not read, or twice.
        if files == self::files(&folder)? {
            return Ok(found);
        }
    }
}

/// When the API server received a request: as text, in the order of time.
pub fn time(request: &Value) -> &str {
    request[TIME].as_str().unwrap_or_default()
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

const TIME: &str = "requestReceivedTimestamp";

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("audit") && name.ends_with(".log") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A thousand services make a hundred thousand lines: only those that count are taken apart.
fn read(text: &str, account: &str, mark: &str, found: &mut Vec<Value>) -> anyhow::Result<()> {
    // The API server may be at the last line still.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let counts = |line: &&str| line.contains(account) && received(line) > mark;
    for line in whole.lines().filter(counts) {
        let event: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        if event["user"]["username"] == account && event.get("impersonatedUser").is_none() {
            found.push(event);
        }
    }
    Ok(())
}

/// [`time`] of a line as the API server writes it.
fn received(line: &str) -> &str {
    let after = line.split_once(TIME).map_or("", |(_, after)| after);
    after.split('"').nth(2).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_whole_lines_of_the_account_after_the_mark_are_read() {
        let line = |account: &str, second: u32| {
            json!({
                "user": {"username": account},
                "requestReceivedTimestamp": format!("2026-01-01T00:00:{second:02}.000000Z"),
            })
            .to_string()
        };
        let (mine, others) = ("system:mine", "system:others");
        let text = [
            "torn before the mark, system:mine, never taken apart".to_owned(),
            line(mine, 1),
            line(mine, 2),
            line(others, 3),
            line(mine, 3),
            line(mine, 4).trim_end_matches('}').to_owned(),
        ]
        .join("\n");
        let mut found = Vec::new();
        read(&text, mine, "2026-01-01T00:00:01.000000Z", &mut found).expect("whole lines");
        let times: Vec<&str> = found.iter().map(time).collect();
        let of = |second| format!("2026-01-01T00:00:0{second}.000000Z");
        assert_eq!(times, [of(2), of(3)]);
    }
}
