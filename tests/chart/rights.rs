//! What the chart's roles grant, where, and to whom.
//!
//! Compares them with the operator's own table of the rights that it uses. Asks no cluster.

use std::collections::BTreeSet;

use serde_yaml::Value;

use crate::{kind, of_kind, one, render, strings};

/// The operator's own table of the rights that it uses.
#[allow(dead_code, reason = "the reasons in it are for `operator check`")]
#[path = "../../operator/src/rbac.rs"]
mod rbac;

fn rules(objects: &[Value]) -> Vec<&Value> {
    objects
        .iter()
        .filter(|object| matches!(kind(object), "Role" | "ClusterRole"))
        .flat_map(|role| role["rules"].as_sequence().expect("a role has rules"))
        .collect()
}

#[test]
fn rights_are_the_least_in_both_scopes() {
    for settings in [&[][..], &["watchNamespaces={media,lab}"]] {
        for rule in rules(&render(settings)) {
            let (resources, verbs) = (strings(&rule["resources"]), strings(&rule["verbs"]));
            for word in resources.iter().chain(&verbs) {
                assert!(!word.contains('*'), "{settings:?}: a wildcard in {rule:?}");
            }
            for forbidden in ["escalate", "bind", "impersonate", "deletecollection"] {
                assert!(
                    !verbs.contains(&forbidden),
                    "{settings:?}: {forbidden} in {rule:?}"
                );
            }
            for forbidden in [
                "pods/exec",
                "nodes/proxy",
                "pods/log",
                "serviceaccounts/token",
            ] {
                assert!(
                    !resources.contains(&forbidden),
                    "{settings:?}: {forbidden} in {rule:?}"
                );
            }
            if resources.contains(&"secrets") {
                assert_eq!(
                    verbs,
                    ["create"],
                    "{settings:?}: Secrets are made, never read"
                );
            }
        }
    }
}

/// Every (group, resource, verb) that the roles in `namespace`, or cluster-wide for None, grant.
fn granted(objects: &[Value], namespace: Option<&str>) -> BTreeSet<(String, String, String)> {
    let mut granted = BTreeSet::new();
    for role in objects
        .iter()
        .filter(|object| matches!(kind(object), "Role" | "ClusterRole"))
    {
        if role["metadata"]["namespace"].as_str() != namespace {
            continue;
        }
        for rule in role["rules"].as_sequence().expect("a role has rules") {
            for group in strings(&rule["apiGroups"]) {
                for resource in strings(&rule["resources"]) {
                    for verb in strings(&rule["verbs"]) {
                        granted.insert((group.to_owned(), resource.to_owned(), verb.to_owned()));
                    }
                }
            }
        }
    }
    granted
}

fn used(scopes: &[rbac::Scope]) -> BTreeSet<(String, String, String)> {
    let rules = rbac::RULES
        .iter()
        .filter(|rule| scopes.contains(&rule.scope));
    rules
        .flat_map(|rule| {
            rule.verbs.iter().map(|verb| {
                (
                    rule.group.to_owned(),
                    rule.resource.to_owned(),
                    (*verb).to_owned(),
                )
            })
        })
        .collect()
}

#[test]
fn the_roles_grant_exactly_what_the_operator_uses() {
    use rbac::Scope::{Cluster, Own, Watched};
    let all = render(&[]);
    assert_eq!(granted(&all, None), used(&[Watched, Cluster]));
    assert_eq!(granted(&all, Some("ops")), used(&[Own]));
    let named = render(&["watchNamespaces={media,lab}"]);
    assert_eq!(granted(&named, Some("media")), used(&[Watched]));
    assert_eq!(granted(&named, Some("lab")), used(&[Watched]));
    assert_eq!(granted(&named, Some("ops")), used(&[Own]));
    assert_eq!(granted(&named, None), BTreeSet::new());
}

#[test]
fn named_namespaces_get_a_role_each_and_nothing_is_cluster_wide() {
    let objects = render(&["watchNamespaces={media,lab}", "crds.enabled=false"]);
    assert!(of_kind(&objects, "ClusterRole").is_empty());
    assert!(of_kind(&objects, "ClusterRoleBinding").is_empty());
    let mut namespaces: Vec<&str> = of_kind(&objects, "Role")
        .iter()
        .map(|role| role["metadata"]["namespace"].as_str().expect("a namespace"))
        .collect();
    namespaces.sort_unstable();
    assert_eq!(namespaces, ["lab", "media", "ops"]);
    assert!(
        objects
            .iter()
            .all(|object| object["metadata"]["namespace"].is_string()),
        "every object has a namespace"
    );
    assert!(
        !rules(&objects)
            .iter()
            .any(|rule| strings(&rule["resources"]).contains(&"nodes"))
    );
    for binding in of_kind(&objects, "RoleBinding") {
        assert_eq!(
            binding["subjects"][0]["namespace"], "ops",
            "the operator stays in its own namespace"
        );
    }
    let deployment = one(&objects, "Deployment");
    let args = strings(&deployment["spec"]["template"]["spec"]["containers"][0]["args"]);
    assert!(args.contains(&"--watch-namespaces=media,lab"), "{args:?}");
}

#[test]
fn all_namespaces_are_watched_by_default() {
    let objects = render(&[]);
    assert_eq!(
        one(&objects, "ClusterRoleBinding")["subjects"][0]["namespace"],
        "ops"
    );
    let deployment = one(&objects, "Deployment");
    let args = strings(&deployment["spec"]["template"]["spec"]["containers"][0]["args"]);
    assert!(
        !args.iter().any(|arg| arg.starts_with("--watch-namespaces")),
        "{args:?}"
    );
}

#[test]
fn rights_and_account_can_be_brought_along() {
    let objects = render(&[
        "rbac.create=false",
        "serviceAccount.create=false",
        "serviceAccount.name=mine",
    ]);
    for absent in [
        "Role",
        "ClusterRole",
        "RoleBinding",
        "ClusterRoleBinding",
        "ServiceAccount",
    ] {
        assert!(of_kind(&objects, absent).is_empty(), "{absent}");
    }
    assert_eq!(
        one(&objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"],
        "mine"
    );
}
