//! A Prometheus of the test's own, with the rules of the MediaService `cam` in the namespace `media`.

use catalogue::rules::{Selector, rule_groups};
use serde_json::json;
use tests::MediaServer;
use tests::scraping::Scraping;

/// The MediaService that the server stands for.
pub const CAM: Selector<'static> = Selector {
    namespace: "media",
    service: "cam",
};

/// Scrapes `server`, as a pod of the MediaService.
pub async fn scraped(server: &MediaServer) -> Scraping {
    let job = json!({
        "job_name": "media-server",
        "static_configs": [{
            "targets": [server.operations.to_string()],
            "labels": {"namespace": CAM.namespace, "mediaservice": CAM.service, "pod": "cam-0"},
        }],
    });
    Scraping::start(job, rule_groups(&CAM)).await
}
