//! Series that are there before their first event, and those that go after their last.

use super::App;
use crate::metrics::Metrics;
use crate::registry::{Protocol, Registry, role_name};
use catalogue::families::{CLOSE_REASONS, REFUSAL_LIMITS, SETUP_RESULTS, SIGNALLING_RESULTS};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often series of devices are looked through.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);

pub(super) async fn expire_series(app: Arc<App>) {
    let mut every = tokio::time::interval(EXPIRE_EVERY);
    loop {
        every.tick().await;
        let grace = app.config.series.session_grace;
        expire(&app.metrics, &app.registry, grace, Instant::now());
    }
}

/// Forgets the series of devices that had no session for a while. A session that lasts changes none
/// of them, so those of devices that have one are kept by hand. Forgets ended sessions too, which a scrape
/// does as well: where nobody scrapes they would stay, up to their bound.
fn expire(metrics: &Metrics, registry: &Registry, grace: Duration, now: Instant) {
    if let Some(limit) = now.checked_sub(grace) {
        registry.expire(limit);
    }
    for view in registry.devices().iter().filter(|v| v.publisher.is_some()) {
        births(metrics, &view.device, now);
    }
    metrics.expire(now);
}

/// Makes what rules look at exist at 0, so that they see the first event of each, and a share of nothing is no gap.
pub(super) fn births_of_process(metrics: &Metrics, now: Instant) {
    for limit in REFUSAL_LIMITS {
        metrics.touch("media_refused_total", &[limit], now);
    }
    for result in SIGNALLING_RESULTS {
        metrics.touch("media_signalling_total", &[result], now);
    }
    for family in [
        "media_ice_restarts_total",
        "media_first_media_seconds",
        "media_viewers_without_media_total",
    ] {
        metrics.touch(family, &[], now);
    }
    for protocol in Protocol::ALL {
        let role = role_name(protocol.role());
        metrics.touch("media_setup_seconds", &[role], now);
        for result in SETUP_RESULTS {
            let labels = [role, protocol.as_str(), result];
            metrics.touch("media_setup_total", &labels, now);
        }
    }
    metrics.touch_folded();
}

pub(super) fn births(metrics: &Metrics, device: &str, now: Instant) {
    metrics.touch("media_sessions_created_total", &[device], now);
    for reason in CLOSE_REASONS {
        metrics.touch("media_sessions_closed_total", &[device, reason], now);
    }
    metrics.touch("media_session_duration_seconds", &[device], now);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::tests::app;
    use crate::metrics::text::Format;
    use crate::registry::tests::record;

    #[tokio::test]
    async fn what_rules_look_at_is_there_at_zero_before_anything_happens() {
        let app = app().await;
        let text = app.metrics.render(Format::Prometheus, |_| {});
        for line in [
            "media_signalling_total{result=\"failed\"} 0\n",
            "media_setup_total{role=\"viewer\",protocol=\"whep\",result=\"failed\"} 0\n",
            "media_setup_total{role=\"publisher\",protocol=\"whip\",result=\"connected\"} 0\n",
            "media_setup_total{role=\"viewer\",protocol=\"sfu_subscriber\",result=\"refused\"} 0\n",
            "media_setup_seconds_bucket{role=\"publisher\",le=\"10\"} 0\n",
            "media_setup_seconds_bucket{role=\"viewer\",le=\"10\"} 0\n",
            "media_metrics_series_folded_total{family=\"media_rtt_milliseconds\"} 0\n",
            "media_metrics_series_folded_total{family=\"media_sessions_created_total\"} 0\n",
        ] {
            assert!(text.contains(line), "no {line}");
        }
        let setups = text.matches("\nmedia_setup_total{").count();
        assert_eq!(setups, Protocol::ALL.len() * SETUP_RESULTS.len());
    }

    #[test]
    fn the_series_of_a_device_stay_as_long_as_its_session_and_go_after_it() {
        let (metrics, registry) = (Metrics::new(100), Registry::new(10, 10, 10));
        let record = record(1, Protocol::Whip, "cam");
        registry.admit(&record).expect("room");
        let start = Instant::now();
        births(&metrics, "cam", start);
        let shown = |minutes: std::ops::Range<u64>| {
            for minute in minutes {
                let now = start + Duration::from_secs(60 * minute);
                expire(&metrics, &registry, Duration::from_secs(30), now);
            }
            metrics
                .render(Format::Prometheus, |_| {})
                .contains("media_sessions_created_total{device_id=\"cam\"} 0\n")
        };
        assert!(shown(1..60), "an hour into the session");
        registry.remove(record.id).expect("known");
        assert_eq!(registry.with_series().len(), 1);
        assert!(shown(60..70), "some minutes after it");
        assert!(registry.with_series().is_empty(), "though nobody scraped");
        assert!(!shown(70..90));
    }
}
