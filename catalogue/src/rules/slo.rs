//! Service levels: what is counted as failed, how much of it a month may have, and the alerts for when that is
//! spent too fast.
//!
//! Owns the four indicators, their recording rules and their burn alerts. Factors, windows and waits are those
//! of the SRE workbook, chapter 5. Called by [`rule_groups_with`](super::rule_groups_with).

use serde_json::{Value, json};

use super::alerts::{Alert, Severity};
use super::{Options, Selector, alert_rule, expand};

/// One service level indicator.
#[derive(Debug, Clone, Copy)]
pub struct Sli {
    /// Part of the names of its recorded series, and of its key in `spec.monitoring.sloTargets`.
    pub name: &'static str,
    /// Name of its alerts, and of their one runbook.
    pub alert: &'static str,
    /// What failed of [`Self::all`]. `$S` stands for matchers, `$W` for a window, `$R` for `rate` or `increase`.
    pub bad: &'static str,
    pub all: &'static str,
    /// With fewer failures in the long window nobody is woken: on a quiet service one is a large share.
    floor: u32,
    /// What is spent too fast, for a summary.
    pub summary: &'static str,
    /// What the value is a share of, for a description; goes on with the objective.
    failed: &'static str,
}

/// Every indicator. A session that was refused or given up by its client says nothing about setting up. Of requests
/// those count that were right: mistakes of clients, answered with 5xx or not, are no fault of the service and no proof
/// that it works, and a pod that drains is told of by other alerts. A still screen is watched as well as a moving one:
/// without its seconds, one device that loses its network among a hundred that stand still would be all that there is.
///
/// Prometheus 3 writes a whole bound as `10.0`, Prometheus 2 as it was scraped.
pub const SLIS: &[Sli] = &[
    Sli {
        name: "setup",
        alert: "MediaSetupBurn",
        // Where none has connected, of a server before this one, the buckets are not there.
        bad: concat!(
            "sum by (namespace, mediaservice) ($R(media_setup_total{$S,result=~\"connected|failed\"}[$W]))",
            " - (sum by (namespace, mediaservice) ($R(media_setup_seconds_bucket{$S,le=~\"10|10.0\"}[$W]))",
            " or 0 * sum by (namespace, mediaservice) ($R(media_setup_total{$S,result=~\"connected|failed\"}[$W])))",
        ),
        all: "sum by (namespace, mediaservice) ($R(media_setup_total{$S,result=~\"connected|failed\"}[$W]))",
        floor: 5,
        summary: "Sessions fail to connect so often that the month's error budget runs out early",
        failed: "of the sessions of {{ $labels.namespace }}/{{ $labels.mediaservice }} did not connect within 10 s",
    },
    Sli {
        name: "latency",
        alert: "MediaLatencyBurn",
        bad: concat!(
            "sum by (namespace, mediaservice) ($R(media_first_media_seconds_count{$S}[$W]))",
            " + sum by (namespace, mediaservice) ($R(media_viewers_without_media_total{$S}[$W]))",
            " - sum by (namespace, mediaservice) ($R(media_first_media_seconds_bucket{$S,le=~\"1|1.0\"}[$W]))",
        ),
        all: concat!(
            "(sum by (namespace, mediaservice) ($R(media_first_media_seconds_count{$S}[$W]))",
            " + sum by (namespace, mediaservice) ($R(media_viewers_without_media_total{$S}[$W])))",
        ),
        floor: 5,
        summary: "Viewers wait so long for the first media that the month's error budget runs out early",
        failed: "of the viewers of {{ $labels.namespace }}/{{ $labels.mediaservice }} got no media within 1 s",
    },
    Sli {
        name: "continuity",
        alert: "MediaContinuityBurn",
        bad: "sum by (namespace, mediaservice) ($R(media_viewer_seconds_total{$S,quality=~\"gap|loss\"}[$W]))",
        all: "sum by (namespace, mediaservice) ($R(media_viewer_seconds_total{$S}[$W]))",
        // Seconds: half of what the only viewer of a device sees when that device's network dies.
        floor: 15,
        summary: "Pictures stand still or break so often that the month's error budget runs out early",
        failed: "of the time that {{ $labels.namespace }}/{{ $labels.mediaservice }} was watched had a gap of 1 s or a loss of 5 %",
    },
    Sli {
        name: "availability",
        alert: "MediaAvailabilityBurn",
        bad: "sum by (namespace, mediaservice) ($R(media_signalling_total{$S,result=~\"failed|refused\"}[$W]))",
        all: "sum by (namespace, mediaservice) ($R(media_signalling_total{$S,result=~\"ok|failed|refused\"}[$W]))",
        floor: 5,
        summary: "Signalling fails or is refused so often that the month's error budget runs out early",
        failed: "of the right signalling requests of {{ $labels.namespace }}/{{ $labels.mediaservice }} fail or find no room",
    },
];

/// Windows over which failed shares are recorded: those that the burn alerts name.
pub const WINDOWS: &[&str] = &["5m", "30m", "1h", "2h", "6h", "1d", "3d"];

/// The recorded objectives, by the label `sli`.
pub const OBJECTIVE: &str = "mediaservice:slo_objective:ratio";

/// The share of good ones that is aimed at over 30 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Objective {
    /// A thousandth of a percent each.
    parts: u32,
}

impl Objective {
    /// Reads percents with up to three decimals, such as `99.5`: from 94 to below 100. With a lower one the fastest
    /// of the burn alerts could never fire, with 100 none could stay silent.
    pub fn parse(percent: &str) -> Option<Objective> {
        let (whole, decimals) = percent.split_once('.').unwrap_or((percent, "0"));
        let digits = |text: &str, most| {
            (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
        };
        if !digits(whole, 2) || !digits(decimals, 3) {
            return None;
        }
        let parts = format!("{whole}{decimals:0<3}").parse().ok()?;
        (94_000..100_000)
            .contains(&parts)
            .then_some(Objective { parts })
    }

    /// The share of failed ones that it leaves, such as `0.005`.
    fn budget(self) -> String {
        decimal(100_000 - self.parts, 5)
    }

    /// As a share, such as `0.995`.
    fn ratio(self) -> String {
        decimal(self.parts, 5)
    }

    /// The failed share in percent, such as `0.5`.
    pub fn failed_percent(self) -> String {
        decimal(100_000 - self.parts, 3)
    }
}

/// `number` with its last `places` digits behind the point, without idle zeros.
fn decimal(number: u32, places: usize) -> String {
    let digits = format!("{number:0>width$}", width = places + 1);
    let (whole, rest) = digits.split_at(digits.len() - places);
    format!("{whole}.{rest}")
        .trim_end_matches('0')
        .trim_end_matches('.')
        .to_owned()
}

/// The objective of each indicator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Objectives {
    pub setup: Objective,
    pub latency: Objective,
    pub continuity: Objective,
    pub availability: Objective,
}

impl Default for Objectives {
    fn default() -> Self {
        Self {
            setup: Objective { parts: 99_500 },
            latency: Objective { parts: 95_000 },
            continuity: Objective { parts: 99_900 },
            availability: Objective { parts: 99_900 },
        }
    }
}

impl Objectives {
    pub fn of(&self, sli: &Sli) -> Objective {
        match sli.name {
            "setup" => self.setup,
            "latency" => self.latency,
            "continuity" => self.continuity,
            "availability" => self.availability,
            other => unreachable!("{other} is no indicator"),
        }
    }
}

/// One pair of windows in which an error budget is spent too fast.
#[derive(Debug, Clone, Copy)]
pub struct Burn {
    /// How many times faster than the objective allows.
    factor: &'static str,
    pub long: &'static str,
    pub short: &'static str,
    pub lasts: &'static str,
    severity: Severity,
}

impl Burn {
    pub fn wakes(&self) -> bool {
        self.severity == Severity::Critical
    }
}

pub const BURNS: &[Burn] = &[
    Burn {
        factor: "14.4",
        long: "1h",
        short: "5m",
        lasts: "2m",
        severity: Severity::Critical,
    },
    Burn {
        factor: "6",
        long: "6h",
        short: "30m",
        lasts: "15m",
        severity: Severity::Critical,
    },
    Burn {
        factor: "3",
        long: "1d",
        short: "2h",
        lasts: "1h",
        severity: Severity::Warning,
    },
    Burn {
        factor: "1",
        long: "3d",
        short: "6h",
        lasts: "3h",
        severity: Severity::Warning,
    },
];

/// Rules that record the failed share of every indicator over every window, how many failed over those that somebody
/// is woken by, and the objectives.
pub(super) fn recordings(selector: &Selector<'_>, objectives: &Objectives) -> Vec<Value> {
    let of = |template: &str, function: &str, window: &str| {
        let template = template.replace("$R", function).replace("$W", window);
        expand(&template, selector)
    };
    let shares = SLIS.iter().flat_map(|sli| {
        WINDOWS.iter().map(|window| {
            json!({
                "record": sli.series(window),
                "expr": format!("({}) / {}", of(sli.bad, "rate", window), of(sli.all, "rate", window)),
            })
        })
    });
    let counts = SLIS.iter().flat_map(|sli| {
        BURNS.iter().filter(|burn| burn.wakes()).map(|burn| {
            json!({
                "record": sli.count(burn.long),
                "expr": of(sli.bad, "increase", burn.long),
            })
        })
    });
    let aims = SLIS.iter().map(|sli| {
        json!({
            "record": OBJECTIVE,
            "expr": format!("vector({})", objectives.of(sli).ratio()),
            "labels": {
                "sli": sli.name,
                "namespace": selector.namespace,
                "mediaservice": selector.service,
            },
        })
    });
    shares.chain(counts).chain(aims).collect()
}

/// Alerts for every indicator and pair of windows.
pub(super) fn burn_alerts(selector: &Selector<'_>, options: &Options<'_>) -> Vec<Value> {
    let enabled = SLIS.iter().filter(|sli| options.enables(sli.alert));
    enabled
        .flat_map(|sli| BURNS.iter().map(|burn| sli.rule(burn, selector, options)))
        .collect()
}

impl Sli {
    /// Name of the recorded series over a window.
    pub fn series(&self, window: &str) -> String {
        format!("mediaservice:{}_errors:ratio_rate{window}", self.name)
    }

    /// Name of the recorded number of failures over a window.
    pub fn count(&self, window: &str) -> String {
        format!("mediaservice:{}_failed:increase{window}", self.name)
    }

    /// What a share is of, for a page: names no MediaService.
    pub fn of_what(&self) -> String {
        self.failed
            .replace(" of {{ $labels.namespace }}/{{ $labels.mediaservice }}", "")
            .replace(
                "{{ $labels.namespace }}/{{ $labels.mediaservice }}",
                "the MediaService",
            )
    }

    fn rule(&self, burn: &Burn, selector: &Selector<'_>, options: &Options<'_>) -> Value {
        let objective = options.objectives.of(self);
        let alert = Alert {
            name: self.alert,
            runbook: self.alert,
            expr: "",
            lasts: burn.lasts,
            severity: burn.severity,
            summary: self.summary,
            description: "",
        };
        let mut rule = alert_rule(&alert, selector, options);
        let over = |window| {
            let (series, factor) = (self.series(window), burn.factor);
            let budget = objective.budget();
            format!("{series}{{{}}} > {factor} * {budget}", selector.matchers())
        };
        let mut expr = format!("{} and {}", over(burn.long), over(burn.short));
        if burn.wakes() {
            let (count, floor) = (self.count(burn.long), self.floor);
            expr += &format!(" and {count}{{{}}} >= {floor}", selector.matchers());
        }
        rule["expr"] = expr.into();
        rule["annotations"]["description"] = format!(
            "{{{{ $value | humanizePercentage }}}} {}; the objective is at most {} % over 30 days.",
            self.failed,
            objective.failed_percent()
        )
        .into();
        // Two alerts with the same labels are one to Alertmanager, and the first to end would end both.
        rule["labels"]["long"] = burn.long.into();
        rule["labels"]["short"] = burn.short.into();
        rule
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::rule_groups_with;

    #[test]
    fn an_objective_is_read_exactly_and_one_out_of_bounds_is_none() {
        let read = |percent| {
            let objective = Objective::parse(percent)?;
            Some((
                objective.ratio(),
                objective.budget(),
                objective.failed_percent(),
            ))
        };
        let is = |percent, ratio: &str, budget: &str, failed: &str| {
            let wanted = Some((ratio.to_owned(), budget.to_owned(), failed.to_owned()));
            assert_eq!(read(percent), wanted, "{percent}");
        };
        is("99.9", "0.999", "0.001", "0.1");
        is("95", "0.95", "0.05", "5");
        is("94.0", "0.94", "0.06", "6");
        is("99.999", "0.99999", "0.00001", "0.001");
        for wrong in [
            "93.999", "100", "", ".5", "99.", "99.9999", "9", "+99", "99,5", "95.5.5",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        for objective in [Objective::parse("94"), Objective::parse("95")] {
            let budget: f64 = objective
                .expect("right")
                .budget()
                .parse()
                .expect("a number");
            assert!(14.4 * budget < 1.0, "an alert that can't fire");
        }
    }

    #[test]
    fn an_objective_of_the_users_is_in_every_expression_and_description_of_its_indicator_alone() {
        let cam = Selector {
            namespace: "media",
            service: "cam",
        };
        let options = Options {
            objectives: Objectives {
                latency: Objective::parse("97.5").expect("right"),
                ..Objectives::default()
            },
            ..Options::default()
        };
        let changed = rule_groups_with(&cam, &options).to_string();
        let usual = rule_groups_with(&cam, &Options::default()).to_string();
        for factor in ["14.4", "6", "3", "1"] {
            let series = "mediaservice:latency_errors:ratio_rate";
            assert!(usual.contains(series) && changed.contains(series));
            assert_eq!(usual.matches(&format!(" > {factor} * 0.05")).count(), 2);
            assert_eq!(changed.matches(&format!(" > {factor} * 0.025")).count(), 2);
            assert_eq!(changed.matches(&format!(" > {factor} * 0.001")).count(), 4);
        }
        assert_eq!(changed.matches("at most 2.5 % over 30 days").count(), 4);
        assert!(changed.contains("vector(0.975)") && usual.contains("vector(0.95)"));
        assert!(!changed.contains("vector(0.95)") && !changed.contains("* 0.05"));
    }

    #[test]
    fn somebody_is_woken_by_a_share_and_a_number_and_told_by_a_share() {
        let cam = Selector {
            namespace: "media",
            service: "cam",
        };
        for rule in burn_alerts(&cam, &Options::default()) {
            let expr = rule["expr"].as_str().expect("an expression");
            let critical = rule["labels"]["severity"] == "critical";
            assert_eq!(expr.contains("_failed:increase"), critical, "{expr}");
        }
    }

    #[test]
    fn every_window_of_a_burn_alert_is_recorded() {
        for burn in BURNS {
            assert!(WINDOWS.contains(&burn.long) && WINDOWS.contains(&burn.short));
        }
    }
}
