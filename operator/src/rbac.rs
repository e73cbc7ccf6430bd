//! The rights that the operator uses, as one table.
//!
//! `operator check` asks the cluster for each; the chart's roles grant exactly these, which a test
//! of the chart compares. A right that is not here must not be used anywhere in this crate.

/// Where a right must be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In every watched namespace, or in the whole cluster.
    Watched,
    /// In the operator's own namespace.
    Own,
    /// In the whole cluster, and only where the operator watches all namespaces.
    Cluster,
}

/// Verbs on one resource.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    pub group: &'static str,
    /// With its sub-resource after a slash.
    pub resource: &'static str,
    pub verbs: &'static [&'static str],
    pub scope: Scope,
    /// What does not work without it.
    pub why: &'static str,
}

const CHILD: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];

const fn rule(
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
    why: &'static str,
) -> Rule {
    Rule {
        group,
        resource,
        verbs,
        scope: Scope::Watched,
        why,
    }
}

/// Every right.
pub const RULES: &[Rule] = &[
    rule(
        "mediaservice.io",
        "mediaservices",
        &["list", "watch"],
        "nothing happens",
    ),
    rule(
        "mediaservice.io",
        "mediaservices/status",
        &["patch"],
        "no status is written",
    ),
    rule(
        "mediaservice.io",
        "mediaservices/finalizers",
        &["update"],
        "children can't be owned where OwnerReferencesPermissionEnforcement is on",
    ),
    rule(
        "",
        "configmaps",
        CHILD,
        "no pod gets its configuration and addresses",
    ),
    rule("", "services", CHILD, "pods can't be reached or scraped"),
    rule("", "serviceaccounts", CHILD, "no pod starts"),
    // No right to read any Secret.
    rule("", "secrets", &["create"], "keys are not generated"),
    rule(
        "",
        "pods",
        &["list", "watch", "patch", "delete"],
        "pods are not drained and replaced",
    ),
    rule("apps", "statefulsets", CHILD, "no pod is made"),
    rule(
        "networking.k8s.io",
        "ingresses",
        CHILD,
        "signalling is not routed",
    ),
    rule(
        "networking.k8s.io",
        "networkpolicies",
        CHILD,
        "pods are open to the whole cluster",
    ),
    rule(
        "policy",
        "poddisruptionbudgets",
        CHILD,
        "a drain of nodes may take pods of one MediaService all at once",
    ),
    rule(
        "gateway.networking.k8s.io",
        "httproutes",
        CHILD,
        "signalling is not routed through a Gateway",
    ),
    rule(
        "cert-manager.io",
        "certificates",
        CHILD,
        "the Ingress gets no certificate",
    ),
    rule(
        "monitoring.coreos.com",
        "servicemonitors",
        CHILD,
        "Prometheus does not find the pods",
    ),
    rule(
        "monitoring.coreos.com",
        "prometheusrules",
        CHILD,
        "there are no alerts",
    ),
    rule(
        "",
        "events",
        &["list"],
        "missing Secrets and refused pods show in no condition",
    ),
    rule(
        "events.k8s.io",
        "events",
        &["create", "patch"],
        "kubectl describe shows no events",
    ),
    Rule {
        group: "",
        resource: "nodes",
        verbs: &["list", "watch"],
        scope: Scope::Cluster,
        why: "addresses of nodes are unknown, and every MediaService that is not behind a load balancer needs spec.media.externalAddresses",
    },
    Rule {
        group: "coordination.k8s.io",
        resource: "leases",
        verbs: &["get", "create", "update"],
        scope: Scope::Own,
        why: "no operator leads",
    },
];
