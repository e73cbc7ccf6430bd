//! What the design has and the tree has not yet: families, alerts and dashboards come with the part that they are
//! about, and not before, so that none is there without values. Read by the generated page, which says so.

/// A part that is not there yet.
#[derive(Debug, Clone, Copy)]
pub struct Absent {
    pub part: &'static str,
    /// Families, or how they will begin.
    pub families: &'static [&'static str],
    pub alerts: &'static [&'static str],
    pub dashboards: &'static [&'static str],
}

pub const ABSENT: &[Absent] = &[
    Absent {
        part: "gateway",
        families: &[
            "media_gateway_pins",
            "media_gateway_lookups_total",
            "media_gateway_packets_total",
            "media_gateway_drops_total",
        ],
        alerts: &["MediaGatewayDown", "MediaGatewayLookupsHigh"],
        dashboards: &["gateway and network"],
    },
    Absent {
        part: "shared directory",
        families: &["media_directory_"],
        alerts: &["MediaDirectoryDown"],
        dashboards: &[],
    },
    Absent {
        part: "cascade",
        families: &["media_cascade_"],
        alerts: &[],
        dashboards: &[],
    },
    Absent {
        part: "autoscaling",
        families: &[],
        alerts: &["MediaAtMaxReplicas"],
        dashboards: &[],
    },
    Absent {
        part: "rollouts of several pods",
        families: &[],
        alerts: &["MediaRolloutHeldBack"],
        dashboards: &[],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::dashboards;
    use crate::families::FAMILIES;
    use crate::rules::{ALERTS, Selector};

    #[test]
    fn what_is_not_there_yet_is_not_there() {
        let cam = Selector {
            namespace: "media",
            service: "cam",
        };
        for absent in ABSENT {
            for begin in absent.families {
                let there = FAMILIES
                    .iter()
                    .find(|family| family.name.starts_with(begin));
                assert!(there.is_none(), "{}: {there:?}", absent.part);
            }
            for name in absent.alerts {
                assert!(ALERTS.iter().all(|alert| alert.name != *name), "{name}");
            }
            for title in absent.dashboards {
                for dashboard in dashboards(&cam) {
                    let found = dashboard.json["title"].as_str().expect("a title");
                    assert!(!found.contains(title), "{title}");
                }
            }
        }
    }
}
