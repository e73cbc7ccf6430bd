//! The alerts that name a cause, as a table: one entry, one page in `docs/runbooks/`.

/// Who is told, and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Viewers see it now: wakes somebody.
    Critical,
    /// Will hurt, or hurts a few: looked at on the next working day.
    Warning,
}

impl Severity {
    /// The value of the label `severity`.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Critical => "critical",
            Severity::Warning => "warning",
        }
    }
}

/// One alert. `expr` has `$S` where the matchers of the MediaService go.
#[derive(Debug, Clone, Copy)]
pub struct Alert {
    pub name: &'static str,
    /// File name, without `.md`, in `docs/runbooks/`.
    pub runbook: &'static str,
    pub expr: &'static str,
    /// How long the expression holds before anybody is told: a Prometheus duration, or [`DRAIN_IS_OVER`].
    pub lasts: &'static str,
    pub severity: Severity,
    pub summary: &'static str,
    /// `$NAMESPACE` and `$MEDIASERVICE` stand for those that the rule is about: what is absent has no
    /// labels.
    pub description: &'static str,
}

impl Alert {
    /// The description of a rule that is about those. Only alerts of a MediaService name one.
    pub fn describe(&self, namespace: &str, service: &str) -> String {
        self.description
            .replace("$NAMESPACE", namespace)
            .replace("$MEDIASERVICE", service)
    }
}

/// Stands for two minutes more than a pod may drain: for the operator to look, and for Kubernetes to end the pod.
pub const DRAIN_IS_OVER: &str = "drainTimeoutSeconds + 2m";

/// Every alert that names a cause.
pub const ALERTS: &[Alert] = &[
    Alert {
        name: "MediaPodDown",
        runbook: "MediaPodDown",
        expr: "up{$S} == 0",
        lasts: "2m",
        severity: Severity::Critical,
        summary: "A media pod does not answer its scrape",
        description: "Pod {{ $labels.pod }} of {{ $labels.namespace }}/{{ $labels.mediaservice }} has not answered on its metrics port for 2 minutes; its sessions are likely lost.",
    },
    Alert {
        name: "MediaNoAcceptingPods",
        runbook: "MediaNoAcceptingPods",
        expr: "absent(media_drain_state{$S} == 0)",
        lasts: "3m",
        severity: Severity::Critical,
        summary: "No media pod takes sessions: nobody new can publish or watch",
        description: "For 3 minutes no pod of $NAMESPACE/$MEDIASERVICE has both answered its scrape and been open to new sessions.",
    },
    Alert {
        name: "MediaAddressUnknown",
        runbook: "MediaAddressUnknown",
        expr: "max by (namespace, mediaservice, pod) (media_advertised_addresses{$S}) == 0",
        lasts: "5m",
        severity: Severity::Critical,
        summary: "A media pod has no address to give to clients",
        description: "Pod {{ $labels.pod }} of {{ $labels.namespace }}/{{ $labels.mediaservice }} has known no media address for 5 minutes, so it is not ready and takes no session.",
    },
    Alert {
        name: "MediaDrainOverdue",
        runbook: "MediaDrainOverdue",
        expr: "max by (namespace, mediaservice, pod) (media_drain_state{$S}) > 0",
        lasts: DRAIN_IS_OVER,
        severity: Severity::Warning,
        summary: "A media pod that should have gone is still there, and takes no session",
        description: "Pod {{ $labels.pod }} of {{ $labels.namespace }}/{{ $labels.mediaservice }} has drained for 2 minutes longer than spec.rollout.drainTimeoutSeconds allows.",
    },
    Alert {
        name: "MediaSetupFailuresHigh",
        runbook: "MediaSetupFailuresHigh",
        // Refused and cancelled set-ups say nothing about the media path. Fewer than 5 failures in
        // 10 minutes say more about one client's network than about the service.
        expr: concat!(
            "sum by (namespace, mediaservice) (increase(media_setup_total{$S,result=\"failed\"}[10m]))",
            " / sum by (namespace, mediaservice) (increase(media_setup_total{$S,result=~\"failed|connected\"}[10m])) > 0.2",
            " and sum by (namespace, mediaservice) (increase(media_setup_total{$S,result=\"failed\"}[10m])) > 5",
        ),
        lasts: "5m",
        severity: Severity::Critical,
        summary: "Many sessions never connect",
        description: "{{ $value | humanizePercentage }} of the set-ups of {{ $labels.namespace }}/{{ $labels.mediaservice }} in the last 10 minutes never connected. A wrong or closed media address is the usual cause.",
    },
    Alert {
        name: "MediaDropsHigh",
        runbook: "MediaDropsHigh",
        // Every viewer that joins waits for a keyframe, one without the device's codec for ever, and one
        // on a narrow link or a slow TCP connection now and then: what is withheld from them was meant
        // to be. Four causes are datagrams of strangers; and a few of any are nobody's picture.
        expr: concat!(
            "sum by (namespace, mediaservice, pod) (rate(media_drops_total{$S,where!~\"no_keyframe|codec_mismatch|congestion|tcp_full|malformed|unknown_address|stun_unauthenticated|stun_replay\"}[5m]))",
            " / sum by (namespace, mediaservice, pod) (rate(media_packets_total{$S,direction=\"in\"}[5m])) > 0.02",
            " and sum by (namespace, mediaservice, pod) (rate(media_drops_total{$S,where!~\"no_keyframe|codec_mismatch|congestion|tcp_full|malformed|unknown_address|stun_unauthenticated|stun_replay\"}[5m])) > 1",
        ),
        lasts: "5m",
        severity: Severity::Warning,
        summary: "A pod drops media packets itself",
        description: "Pod {{ $labels.pod }} drops {{ $value | humanizePercentage }} of the packets it receives: viewers see a broken picture although their links may be fine.",
    },
    Alert {
        name: "MediaShardSaturated",
        runbook: "MediaShardSaturated",
        expr: "max by (namespace, mediaservice, pod) (media_shard_busy_ratio{$S}) > 0.9",
        lasts: "10m",
        severity: Severity::Warning,
        summary: "A media thread has no time left",
        description: "A shard of pod {{ $labels.pod }} has been busy more than 90 % of the time for 10 minutes; more viewers on it mean delay for all of them.",
    },
    Alert {
        name: "MediaSessionLimitNear",
        runbook: "MediaSessionLimitNear",
        expr: "max by (namespace, mediaservice, pod) (media_active_sessions{$S} / media_session_limit{$S}) > 0.9",
        lasts: "5m",
        severity: Severity::Warning,
        summary: "A pod is close to its limit of sessions",
        description: "Pod {{ $labels.pod }} holds {{ $value | humanizePercentage }} of the sessions it may; beyond the limit new ones are answered with 503.",
    },
    Alert {
        name: "MediaRecordingGaps",
        runbook: "MediaRecordingGaps",
        // What a device's network lost is missing for its viewers too, and says nothing about the server.
        expr: "sum by (namespace, mediaservice, pod) (increase(media_recording_gaps_total{$S,cause=\"overflow\"}[10m])) > 0",
        lasts: "5m",
        severity: Severity::Warning,
        summary: "Recordings have gaps: the disk does not keep up",
        description: "Writers of pod {{ $labels.pod }} of {{ $labels.namespace }}/{{ $labels.mediaservice }} do not keep up: its recordings lack video from there to the next keyframe. Viewers are not affected.",
    },
    Alert {
        name: "MediaRecordingFailed",
        runbook: "MediaRecordingFailed",
        // One is enough: what was not recorded can't be had again.
        expr: "sum by (namespace, mediaservice, pod) (increase(media_recordings_total{$S,result=\"failed\"}[10m])) > 0",
        lasts: "1m",
        severity: Severity::Warning,
        summary: "Recordings fail: what devices publish is not kept",
        description: "In the last 10 minutes recordings of pod {{ $labels.pod }} of {{ $labels.namespace }}/{{ $labels.mediaservice }} ended early or could not begin, because what they write can't be kept: the disk or the room for recordings is full, or writing fails. Viewers are not affected.",
    },
    Alert {
        name: "MediaAuthFailuresHigh",
        runbook: "MediaAuthFailuresHigh",
        // A page without a token, left open, asks every 2 s, and one whose token has expired too: neither
        // is worth a word. Where many clients renew their tokens late, that is a small share of all
        // they ask. Keys of the provider that can't be had are no fault of a token, and counted as 503.
        expr: concat!(
            "sum by (namespace, mediaservice) (rate(media_auth_failures_total{$S,reason!~\"missing|no_keys\"}[5m])) > 1",
            " and sum by (namespace, mediaservice) (rate(media_auth_failures_total{$S,reason!~\"missing|no_keys\"}[5m]))",
            " / sum by (namespace, mediaservice) (rate(media_http_requests_total{$S,path!~\"/metrics|/health|/livez|/readyz|/load\"}[5m])) > 0.1",
        ),
        lasts: "5m",
        severity: Severity::Warning,
        summary: "Many requests are refused for their tokens",
        description: "{{ $value | humanize }} requests a second to {{ $labels.namespace }}/{{ $labels.mediaservice }} come with a token that is not good. Either somebody tries tokens, or clients have ones that are signed, issued or granted wrongly, and are locked out.",
    },
    Alert {
        name: "MediaSeriesFolded",
        runbook: "MediaSeriesFolded",
        // Sessions are counted once, as they are admitted: it is told for an hour after the last one, though they
        // may last for longer.
        expr: "sum by (namespace, mediaservice, family) (increase(media_metrics_series_folded_total{$S}[1h])) > 0",
        lasts: "5m",
        severity: Severity::Warning,
        summary: "A metric family has more series than its cap",
        description: "In the last hour family {{ $labels.family }} of {{ $labels.namespace }}/{{ $labels.mediaservice }} went beyond its cap: sums stay right, but some devices or sessions are shown as `other` or not at all.",
    },
    Alert {
        name: "MediaEventsDropped",
        runbook: "MediaEventsDropped",
        expr: "sum by (namespace, mediaservice, pod, sink, reason) (increase(media_events_dropped_total{$S}[15m])) > 0",
        lasts: "1m",
        severity: Severity::Warning,
        summary: "Events of sessions or recordings are lost",
        description: "Pod {{ $labels.pod }} of {{ $labels.namespace }}/{{ $labels.mediaservice }} dropped events for its receiver {{ $labels.sink }} ({{ $labels.reason }}): whoever counts sessions by them counts wrong.",
    },
    Alert {
        name: "MediaTaskLeak",
        runbook: "MediaTaskLeak",
        expr: "max by (namespace, mediaservice, pod) (media_potential_goroutine_leak{$S}) == 1",
        lasts: "5m",
        severity: Severity::Warning,
        summary: "A media pod has more tasks than its connections explain",
        description: "Pod {{ $labels.pod }} has held more tasks than 100 + 4 for each connection for at least 10 minutes: memory will grow until it is restarted.",
    },
];
