//! A Prometheus of the test's own, with the rules of the MediaService `cam` in the namespace `media`.

use std::fmt::Display;
use std::process::Command;
use std::time::Duration;

use catalogue::rules::{Selector, rule_groups};
use serde_json::json;
use tests::process::{Process, TempDir};
use tests::{MediaServer, Prometheus, wait_for};

/// The MediaService that the server stands for.
pub const CAM: Selector<'static> = Selector {
    namespace: "media",
    service: "cam",
};

/// Some scrapes and evaluations, of one a second, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Scraped {
    prometheus: Prometheus,
    _process: Process,
    _folder: TempDir,
}

impl Scraped {
    /// Scrapes `server` each second, as a pod of the MediaService.
    pub async fn start(server: &MediaServer) -> Self {
        let folder = TempDir::new("prometheus");
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.json"],
            "scrape_configs": [{
                "job_name": "media-server",
                "static_configs": [{
                    "targets": [server.operations.to_string()],
                    "labels": {"namespace": CAM.namespace, "mediaservice": CAM.service, "pod": "cam-0"},
                }],
            }],
        });
        let rules = json!({"groups": rule_groups(&CAM)});
        for (name, value) in [("config.json", config), ("rules.json", rules)] {
            std::fs::write(folder.path().join(name), value.to_string()).expect("can be written");
        }
        let mut command = Command::new("prometheus");
        command.current_dir(folder.path()).args([
            "--config.file=config.json",
            "--storage.tsdb.path=data",
            "--web.listen-address=127.0.0.1:0",
        ]);
        let mut process = Process::start("prometheus", &mut command);
        let address = wait_for("Prometheus to listen", PATIENCE, || {
            assert!(process.ended().is_none(), "{}", process.log());
            let log = process.log();
            let mut lines = log
                .lines()
                .filter(|line| line.contains("msg=\"Listening on\""));
            let address = lines.next().and_then(|line| line.rsplit_once("address="));
            let address = address.map(|(_, address)| address.to_owned());
            async move { address.ok_or(log) }
        })
        .await;
        Self {
            prometheus: Prometheus::new(&format!("http://{address}")),
            _process: process,
            _folder: folder,
        }
    }

    /// Values of an expression, without those that say that nothing happened (NaN).
    pub async fn values(&self, expression: &str) -> anyhow::Result<Vec<f64>> {
        let elements = self.prometheus.query(expression).await?;
        let values = elements.iter().map(|element| element.value);
        Ok(values.filter(|value| !value.is_nan()).collect())
    }

    /// Waits until an expression has values and all of them are right.
    pub async fn becomes(
        &self,
        expression: &str,
        wanted: impl Display,
        right: impl Fn(f64) -> bool,
    ) {
        wait_for(
            &format!("{expression} to be {wanted}"),
            PATIENCE,
            || async {
                let values = self.values(expression).await?;
                match values.is_empty() || !values.iter().all(|value| right(*value)) {
                    true => Err(anyhow::anyhow!("{values:?}")),
                    false => Ok(()),
                }
            },
        )
        .await;
    }

    /// Waits until an expression has one value, this one.
    pub async fn is(&self, expression: &str, wanted: f64) {
        self.becomes(expression, wanted, |value| value == wanted)
            .await;
    }

    /// Waits until all values of an expression are from `low` to `high`.
    pub async fn within(&self, expression: &str, low: f64, high: f64) {
        let wanted = format!("from {low} to {high}");
        self.becomes(expression, wanted, |value| (low..=high).contains(&value))
            .await;
    }
}
