//! The sets of values with which the chart is rendered, linted, and shown to an API server.

/// What a set is for, and its settings. Namespaces to watch are one that the tests on a cluster make.
pub const VARIANTS: &[(&str, &[&str])] = &[
    ("as it comes", &[]),
    ("several replicas", &["replicas=3"]),
    ("no replica", &["replicas=0"]),
    ("one namespace", &["watchNamespaces={chart-live}"]),
    ("definition from elsewhere", &["crds.enabled=false"]),
    (
        "rights and account from elsewhere",
        &[
            "rbac.create=false",
            "serviceAccount.create=false",
            "serviceAccount.name=default",
        ],
    ),
    (
        "monitored",
        &[
            "metrics.serviceMonitor.enabled=true",
            "metrics.serviceMonitor.labels.team=video",
            "metrics.prometheusRule.enabled=true",
            "metrics.prometheusRule.runbookBaseURL=https://example.com/media/",
            "metrics.dashboard.enabled=true",
            "metrics.dashboard.annotations.folder=media",
            "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.team=monitoring",
        ],
    ),
    (
        "no policies",
        &[
            "replicas=2",
            "networkPolicy.enabled=false",
            "podDisruptionBudget.enabled=false",
        ],
    ),
    (
        "placed",
        &[
            "priorityClassName=system-cluster-critical",
            "nodeSelector.a=b",
            "tolerations[0].key=a",
            "tolerations[0].operator=Exists",
            "affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight=1",
            "affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey=zone",
            "affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelector.matchLabels.a=b",
            "topologySpreadConstraints[0].maxSkew=1",
            "topologySpreadConstraints[0].topologyKey=zone",
            "topologySpreadConstraints[0].whenUnsatisfiable=DoNotSchedule",
            "topologySpreadConstraints[0].labelSelector.matchLabels.a=b",
            "podLabels.a=b",
            "podAnnotations.a=b",
        ],
    ),
    (
        "images of a registry",
        &[
            "image.repository=r.example/op",
            "image.tag=v2",
            "image.pullPolicy=Always",
            "image.pullSecrets[0].name=registry",
            "mediaServer.image.repository=r.example/ms",
            "mediaServer.image.tag=v3",
            "serviceAccount.annotations.a=b",
            "log.level=debug",
        ],
    ),
    ("renamed", &["nameOverride=op", "fullnameOverride=media-op"]),
];
