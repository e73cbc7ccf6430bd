//! `cargo xtask tidy`: rules about the tree that no compiler checks.
//!
//! Owns the rules and their messages. Reads files that git knows, writes nothing.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::sh;

/// Lines of a source file without its tests. Past this, look for the second subject in it.
const MAX_LINES: usize = 600;

/// Which crates of ours a crate may depend on (style: one direction). `tests` and `xtask` may use
/// anything. `client` uses none of ours, so that one bug cannot hide in both ends.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("catalogue", &[]),
    ("client", &[]),
    ("media-core", &[]),
    ("media-urls", &[]),
    ("media-wire", &[]),
    (
        "media-server",
        &[
            "media-core",
            "media-urls",
            "media-wire",
            "catalogue",
            "client",
        ],
    ),
    ("operator", &["catalogue", "media-urls"]),
];

/// Runs every rule and prints each breach.
///
/// # Errors
/// If a rule is broken.
pub fn run() -> anyhow::Result<()> {
    let root = sh::root();
    let mut breaches = Vec::new();
    for path in tracked(&root)? {
        let Ok(text) = std::fs::read_to_string(root.join(&path)) else {
            continue;
        };
        let name = path.to_string_lossy();
        if name.ends_with(".rs") {
            breaches.extend(source_breaches(&name, &text));
        }
        if name.ends_with(".md") {
            breaches.extend(broken_links(&root, &path, &text));
            breaches.extend(missing_tests(&root, &path, &text));
        }
        breaches.extend(machine_paths(&name, &text));
    }
    let metadata = sh::output(&mut sh::cargo([
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
    ]))?;
    breaches.extend(manifest_breaches(
        &serde_json::from_str(&metadata).context("cargo metadata is not JSON")?,
    ));
    for breach in &breaches {
        eprintln!("{breach}");
    }
    if !breaches.is_empty() {
        bail!("tidy: {} broken rules", breaches.len());
    }
    Ok(())
}

fn tracked(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut git = std::process::Command::new("git");
    git.args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ])
    .current_dir(root);
    let list = sh::output(&mut git)?;
    Ok(list
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        .collect())
}

fn source_breaches(name: &str, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    if !text.starts_with("//!") {
        breaches.push(format!(
            "{name}: does not open with `//!`: what it owns, what it never does, who calls it"
        ));
    }
    let is_test =
        name.starts_with("tests/") || name.ends_with("/tests.rs") || name.contains("/tests/");
    let lines = text
        .lines()
        .take_while(|line| line.trim_end() != "#[cfg(test)]")
        .count();
    if lines > MAX_LINES && !is_test {
        breaches.push(format!("{name}: {lines} lines without tests, more than {MAX_LINES}: look for its second subject"));
    }
    if text.contains("TODO") && !text.contains("TODO(#") && !name.starts_with("xtask/src/tidy") {
        breaches.push(format!("{name}: a TODO without an issue"));
    }
    let crate_root = name.ends_with("src/lib.rs") || name.ends_with("src/main.rs");
    if crate_root
        && !name.starts_with("media-server/wire/")
        && !text.contains("#![forbid(unsafe_code)]")
    {
        breaches.push(format!(
            "{name}: a crate root without `#![forbid(unsafe_code)]`"
        ));
    }
    breaches
}

/// Paths that exist only on the machine where somebody wrote the file.
fn machine_paths(name: &str, text: &str) -> Vec<String> {
    let words = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
    ];
    let mut breaches = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if let Some(word) = words.iter().find(|word| line.contains(**word)) {
            breaches.push(format!(
                "{name}:{}: names a path of one machine ({word})",
                index + 1
            ));
        }
    }
    breaches
}

/// Links of a page to files of the repository that are not there.
fn broken_links(root: &Path, page: &Path, text: &str) -> Vec<String> {
    let folder = page.parent().unwrap_or(Path::new(""));
    let mut breaches = Vec::new();
    for target in links(text) {
        let file = target.split('#').next().unwrap_or_default();
        if file.is_empty() || file.contains("://") || file.starts_with("mailto:") {
            continue;
        }
        if !root.join(folder).join(file).exists() {
            breaches.push(format!(
                "{}: links to {target}, which is not there",
                page.display()
            ));
        }
    }
    breaches
}

/// Tests that a page names by a link to their file, and that are not there (any more).
fn missing_tests(root: &Path, page: &Path, text: &str) -> Vec<String> {
    let folder = page.parent().unwrap_or(Path::new(""));
    let mut breaches = Vec::new();
    for (name, rest) in text.match_indices("](").filter_map(|(at, _)| {
        let name = text[..at].rsplit_once("[`")?.1.strip_suffix('`')?;
        Some((name, &text[at + 2..]))
    }) {
        let file = rest.split(')').next().unwrap_or_default();
        if !file.ends_with(".rs") {
            continue;
        }
        let source = std::fs::read_to_string(root.join(folder).join(file)).unwrap_or_default();
        let is_test = source.split(&format!("fn {name}(")).collect::<Vec<_>>();
        let marked = |before: &str| {
            let last = before.rsplit("\n\n").next().unwrap_or_default();
            last.contains("#[test]") || last.contains("#[tokio::test")
        };
        if is_test.len() != 2 || !marked(is_test[0]) {
            breaches.push(format!("{}: {file} has no test {name}", page.display()));
        }
    }
    breaches
}

/// What stands between `](` and `)`, outside of code blocks.
fn links(text: &str) -> Vec<&str> {
    let mut in_code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if !in_code {
            let parts = line.split("](").skip(1);
            found.extend(
                parts
                    .filter_map(|rest| rest.split_once(')'))
                    .map(|(target, _)| target),
            );
        }
    }
    found
}

fn manifest_breaches(metadata: &Value) -> Vec<String> {
    let mut breaches = Vec::new();
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    let ours: Vec<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    for package in &packages {
        let name = package["name"].as_str().unwrap_or_default();
        if package["license"].as_str() != Some("Apache-2.0") {
            breaches.push(format!(
                "{name}: its manifest has no `license.workspace = true`"
            ));
        }
        let Some((_, allowed)) = DIRECTIONS.iter().find(|(of, _)| *of == name) else {
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let target = dependency["name"].as_str().unwrap_or_default();
            if ours.contains(&target)
                && !allowed.contains(&target)
                && dependency["kind"].as_str() != Some("dev")
            {
                breaches.push(format!(
                    "{name}: may not depend on {target} (one direction)"
                ));
            }
            if name == "media-server" && target == "client" && dependency["optional"] != true {
                breaches
                    .push("media-server: depends on client outside the feature `demo`".to_owned());
            }
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, dependencies: Value) -> Value {
        json!({"name": name, "license": "Apache-2.0", "dependencies": dependencies})
    }

    #[test]
    fn the_operator_may_not_use_the_media_core() {
        let metadata = json!({"packages": [
            package("operator", json!([{"name": "media-core", "kind": null}])),
            package("media-core", json!([])),
        ]});
        assert_eq!(
            manifest_breaches(&metadata),
            ["operator: may not depend on media-core (one direction)"]
        );
    }

    #[test]
    fn links_are_found_outside_of_code() {
        let page = "See [a](b.md#c) and [d](e/).\n```text\n[f](g)\n```\n";
        assert_eq!(links(page), ["b.md#c", "e/"]);
        let broken = broken_links(
            &sh::root(),
            Path::new("docs/x.md"),
            "[a](../README.md) [b](no-such-page.md)",
        );
        assert_eq!(
            broken,
            ["docs/x.md: links to no-such-page.md, which is not there"]
        );
    }

    #[test]
    fn a_page_may_name_only_tests_that_are_there() {
        let page = "| a | [`links_are_found_outside_of_code`](../xtask/src/tidy.rs), [`links`](../xtask/src/tidy.rs) |\n\
                    [`gone`](../xtask/src/tidy.rs) [`rules.md`](x.md) [no test](../xtask/src/tidy.rs)\n";
        assert_eq!(
            missing_tests(&sh::root(), Path::new("docs/x.md"), page),
            [
                "docs/x.md: ../xtask/src/tidy.rs has no test links",
                "docs/x.md: ../xtask/src/tidy.rs has no test gone",
            ]
        );
    }

    #[test]
    fn a_manifest_without_a_licence_is_named() {
        let metadata =
            json!({"packages": [{"name": "tests", "license": null, "dependencies": []}]});
        assert_eq!(manifest_breaches(&metadata).len(), 1);
    }

    #[test]
    fn tests_at_the_foot_do_not_count_as_length() {
        let long_tests = format!(
            "//! Head.\n#[cfg(test)]\n{}",
            "line\n".repeat(MAX_LINES + 1)
        );
        assert_eq!(
            source_breaches("a/src/b.rs", &long_tests),
            Vec::<String>::new()
        );
        let long_code = format!("//! Head.\n{}", "line\n".repeat(MAX_LINES + 1));
        assert_eq!(source_breaches("a/src/b.rs", &long_code).len(), 1);
    }
}
