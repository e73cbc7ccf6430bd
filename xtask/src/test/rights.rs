//! Compares what the operator did on a cluster with the rights that its chart grants.
//!
//! The API server's audit log has every request of the operator's account with verb and answer. A right
//! that was never used is one too many, and a request that was refused one that is missing or should not
//! have been made. Reads the log and renders the chart; asks the cluster nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::sh;

/// Where the chart is installed by the tests and by the demo, and as what.
const NAMESPACE: &str = "mediaservice-system";
const RELEASE: &str = "mediaservice-operator";

/// `--audit-log-maxbackup` of the local cluster's API server: with one more file, some may be gone.
const KEPT_LOGS: usize = 20;

/// Rights that no request shows, with what asks for them.
const UNSEEN: &[(&str, &str, &str)] = &[
    // The admission plugin OwnerReferencesPermissionEnforcement, which the local cluster has on, looks for
    // it when a child is written whose owner reference blocks deletion; without it every apply is refused.
    ("mediaservice.io", "mediaservices/finalizers", "update"),
];

/// Parts of what the API server says where a request was refused by admission and not for want of a right.
const BY_ADMISSION: &[&str] = &[
    // A test's namespace goes while the operator still works in it.
    "because it is being terminated",
    "exceeded quota",
    // For some seconds after a definition was made, the plugin of `UNSEEN` does not know its kind yet.
    "cannot find RESTMapping for APIVersion mediaservice.io",
];

/// A verb on a resource, as RBAC names them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    group: String,
    resource: String,
    verb: String,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = if self.group.is_empty() {
            "core"
        } else {
            &self.group
        };
        write!(f, "{} {} ({group})", self.verb, self.resource)
    }
}

/// Reads the cluster's audit log and prints what was compared.
///
/// # Errors
/// If a granted right was not used, or a request was refused; each is named.
pub fn check(cluster: &Cluster) -> anyhow::Result<()> {
    let account = format!("system:serviceaccount:{NAMESPACE}:{RELEASE}");
    let mut seen = Seen::default();
    for file in logs(&cluster.state().join("log"))? {
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("can't read {}", file.display()))?;
        seen.read(&text, &account)
            .with_context(|| file.display().to_string())?;
    }
    ensure!(
        seen.requests > 0,
        "the audit log knows no request of {account}"
    );
    let granted = granted(cluster)?;
    let findings = findings(&granted, &seen);
    println!(
        "{} requests of {account}: {} of {} granted rights used, {} refused, {} kept out by admission or at the end",
        seen.requests,
        granted
            .iter()
            .filter(|right| seen.used.contains_key(*right))
            .count(),
        granted.len(),
        seen.refused.len(),
        seen.kept_out,
    );
    for (right, count) in &seen.used {
        println!("  {count:>7} {right}");
    }
    if !findings.is_empty() {
        bail!("{}", findings.join("\n"));
    }
    Ok(())
}

/// The log and what was rotated away from it.
fn logs(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("audit") && name.ends_with(".log") {
            found.push(path);
        }
    }
    ensure!(!found.is_empty(), "{}: no audit log", folder.display());
    ensure!(
        found.len() <= KEPT_LOGS,
        "{}: the oldest audit logs are gone",
        folder.display()
    );
    Ok(found)
}

/// What the chart grants, cluster-wide and in the operator's own namespace.
fn granted(cluster: &Cluster) -> anyhow::Result<BTreeSet<Right>> {
    let helm = cluster.state().join("bin/helm");
    let chart = sh::root().join("charts/mediaservice-operator");
    let mut render = Command::new(helm);
    render.args(["template", RELEASE]).arg(chart).args([
        "--namespace",
        NAMESPACE,
        "--kube-version",
        "1.33.0",
    ]);
    grants(&sh::output(&mut render)?)
}

fn grants(manifests: &str) -> anyhow::Result<BTreeSet<Right>> {
    let mut granted = BTreeSet::new();
    for text in manifests.split("\n---\n") {
        let object: Value = serde_yaml::from_str(text)?;
        if !matches!(object["kind"].as_str(), Some("Role" | "ClusterRole")) {
            continue;
        }
        for rule in list(&object["rules"]) {
            for group in list(&rule["apiGroups"]) {
                for resource in list(&rule["resources"]) {
                    for verb in list(&rule["verbs"]) {
                        granted.insert(Right {
                            group: word(group),
                            resource: word(resource),
                            verb: word(verb),
                        });
                    }
                }
            }
        }
    }
    ensure!(!granted.is_empty(), "the chart grants nothing");
    Ok(granted)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What the log says of one account.
#[derive(Debug, Default)]
struct Seen {
    requests: u64,
    used: BTreeMap<Right, u64>,
    /// Each with what the API server said.
    refused: BTreeSet<String>,
    kept_out: u64,
}

impl Seen {
    /// Takes in one event a line. What somebody did with the account's rights (`kubectl --as`) is not
    /// what the account did.
    /// The API server may still be writing: what follows the last end of a line is half of one.
    fn read(&mut self, log: &str, account: &str) -> anyhow::Result<()> {
        let (whole, _half) = log.rsplit_once('\n').unwrap_or_default();
        for line in whole.lines().filter(|line| line.contains(account)) {
            let event: Value = serde_json::from_str(line).context("not an audit event")?;
            if event["user"]["username"] != account || event.get("impersonatedUser").is_some() {
                continue;
            }
            self.take(&event);
        }
        Ok(())
    }

    fn take(&mut self, event: &Value) {
        self.requests += 1;
        let code = event["responseStatus"]["code"].as_u64();
        let target = &event["objectRef"];
        let right = |verb: &str| Right {
            group: word(&target["apiGroup"]),
            resource: match target["subresource"].as_str() {
                Some(sub) => format!("{}/{sub}", word(&target["resource"])),
                None => word(&target["resource"]),
            },
            verb: verb.to_owned(),
        };
        let verb = word(&event["verb"]);
        if code == Some(403) {
            let said = word(&event["responseStatus"]["message"]);
            // An operator that is uninstalled gives its Lease up, and helm may have deleted its roles by
            // then. Without the right nobody would lead, and every test of the operator fail.
            let gives_up = verb == "update" && target["resource"] == "leases";
            if gives_up || BY_ADMISSION.iter().any(|part| said.contains(part)) {
                self.kept_out += 1;
            } else {
                self.refused.insert(format!("{}: {said}", right(&verb)));
            }
            return;
        }
        if target.is_null() {
            return;
        }
        // An apply of what is not there is authorized as a patch and as a create.
        if verb == "patch" && code == Some(201) {
            *self.used.entry(right("create")).or_default() += 1;
        }
        *self.used.entry(right(&verb)).or_default() += 1;
    }
}

fn findings(granted: &BTreeSet<Right>, seen: &Seen) -> Vec<String> {
    let refused = seen.refused.iter().map(|what| format!("refused: {what}"));
    let unused = granted
        .iter()
        .filter(|right| !seen.used.contains_key(*right) && !is_unseen(right))
        .map(|right| format!("granted and never used: {right}"));
    let stale = UNSEEN
        .iter()
        .filter(|(group, resource, verb)| {
            !granted.iter().any(|right| {
                (
                    right.group.as_str(),
                    right.resource.as_str(),
                    right.verb.as_str(),
                ) == (group, resource, verb)
            })
        })
        .map(|(_, resource, verb)| format!("not granted, though it is needed: {verb} {resource}"));
    refused.chain(unused).chain(stale).collect()
}

fn is_unseen(right: &Right) -> bool {
    UNSEEN.contains(&(&right.group, &right.resource, &right.verb))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ME: &str = "system:serviceaccount:ops:operator";

    fn event(verb: &str, resource: &str, code: u64, message: &str) -> String {
        json!({
            "kind": "Event", "verb": verb, "user": {"username": ME},
            "objectRef": {"resource": resource, "namespace": "media", "apiGroup": "apps"},
            "responseStatus": {"code": code, "message": message},
        })
        .to_string()
    }

    fn seen(lines: &[String]) -> Seen {
        let mut seen = Seen::default();
        let log: String = lines.iter().map(|line| format!("{line}\n")).collect();
        seen.read(&log, ME).expect("audit events");
        seen
    }

    fn chart(verbs: &str) -> BTreeSet<Right> {
        let role = format!(
            "kind: Role\nrules:\n- {{apiGroups: [apps], resources: [statefulsets], verbs: [{verbs}]}}\n\
             - {{apiGroups: [mediaservice.io], resources: [mediaservices/finalizers], verbs: [update]}}\n---\nkind: Service\n"
        );
        grants(&role).expect("roles")
    }

    #[test]
    fn a_line_that_is_half_written_is_no_event_yet() {
        let line = event("get", "statefulsets", 200, "");
        let half = &line[..line.len() - 1];
        let mut seen = Seen::default();
        seen.read(&format!("{line}\n{half}"), ME)
            .expect("audit events");
        assert_eq!(seen.requests, 1);
    }

    #[test]
    fn an_apply_that_makes_something_uses_patch_and_create() {
        let made = seen(&[event("patch", "statefulsets", 201, "")]);
        assert_eq!(findings(&chart("patch, create"), &made), [""; 0]);
        let changed = seen(&[event("patch", "statefulsets", 200, "")]);
        assert_eq!(
            findings(&chart("patch, create"), &changed),
            ["granted and never used: create statefulsets (apps)"]
        );
    }

    #[test]
    fn a_refusal_for_want_of_a_right_is_found_and_one_by_admission_is_counted() {
        let going = "configmaps is forbidden: unable to create new content in namespace media because it is being terminated";
        let unknown = "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion mediaservice.io/v1alpha1 Kind MediaService";
        let lines = [
            event("list", "statefulsets", 403, "User cannot list"),
            event("patch", "statefulsets", 403, going),
            event("patch", "statefulsets", 403, unknown),
            event("delete", "statefulsets", 200, ""),
        ];
        let seen = seen(&lines);
        assert_eq!((seen.requests, seen.kept_out), (4, 2));
        assert_eq!(
            findings(&chart("delete"), &seen),
            ["refused: list statefulsets (apps): User cannot list"]
        );
    }

    #[test]
    fn a_lease_that_is_given_up_after_the_roles_are_gone_is_no_finding() {
        let lines = [
            event("update", "leases", 403, "User cannot update"),
            event("get", "leases", 403, "User cannot get"),
        ];
        let seen = seen(&lines);
        assert_eq!(seen.kept_out, 1);
        assert_eq!(
            findings(&chart(""), &seen),
            ["refused: get leases (apps): User cannot get"]
        );
    }

    #[test]
    fn what_others_do_and_what_somebody_does_as_the_account_does_not_count() {
        let other = event("get", "statefulsets", 403, "no").replace(ME, "somebody");
        let mut as_me: Value =
            serde_json::from_str(&event("get", "statefulsets", 403, "no")).expect("JSON");
        as_me["user"]["username"] = "admin".into();
        as_me["impersonatedUser"] = json!({"username": ME});
        let seen = seen(&[other, as_me.to_string()]);
        assert_eq!(seen.requests, 0);
        assert!(seen.refused.is_empty());
    }

    #[test]
    fn a_right_that_admission_asks_for_must_be_granted() {
        let seen = seen(&[event("get", "statefulsets", 200, "")]);
        let without: BTreeSet<Right> = chart("get")
            .into_iter()
            .filter(|right| right.verb != "update")
            .collect();
        assert_eq!(
            findings(&without, &seen),
            ["not granted, though it is needed: update mediaservices/finalizers"]
        );
    }
}
