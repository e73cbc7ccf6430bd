//! A Prometheus of a test's own, and what it is asked. Needs `prometheus` on PATH: that of the local cluster,
//! which the gate builds.

use std::fmt::Display;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::process::{Process, TempDir};
use crate::{Prometheus, wait_for};

/// Some scrapes and evaluations, of one a second, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Ends with its value.
pub struct Scraping {
    prometheus: Prometheus,
    _process: Process,
    _folder: TempDir,
}

impl Scraping {
    /// Scrapes each second what `job` says, one of `scrape_configs`, and evaluates the groups of rules.
    ///
    /// # Panics
    /// If it does not come up.
    pub async fn start(job: Value, rules: Value) -> Self {
        let folder = TempDir::new("prometheus");
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.json"],
            "scrape_configs": [job],
        });
        let rules = json!({"groups": rules});
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
    ///
    /// # Errors
    /// If Prometheus refuses the expression or cannot be reached.
    pub async fn values(&self, expression: &str) -> anyhow::Result<Vec<f64>> {
        let elements = self.prometheus.query(expression).await?;
        let values = elements.iter().map(|element| element.value);
        Ok(values.filter(|value| !value.is_nan()).collect())
    }

    /// Waits until an expression has values and all of them are right.
    ///
    /// # Panics
    /// If they are not in time.
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
    ///
    /// # Panics
    /// If it has not in time.
    pub async fn is(&self, expression: &str, wanted: f64) {
        self.becomes(expression, wanted, |value| value == wanted)
            .await;
    }

    /// Waits until all values of an expression are from `low` to `high`.
    ///
    /// # Panics
    /// If they are not in time.
    pub async fn within(&self, expression: &str, low: f64, high: f64) {
        let wanted = format!("from {low} to {high}");
        self.becomes(expression, wanted, |value| (low..=high).contains(&value))
            .await;
    }

    /// Waits until every one of them has data.
    ///
    /// # Panics
    /// If one has none in time.
    pub async fn have_data(&self, asked: &[&Asked]) {
        let mut empty = Vec::new();
        for asked in asked {
            let values = self.values(&asked.query).await;
            if values
                .unwrap_or_else(|e| panic!("{asked}: {e:#}"))
                .is_empty()
            {
                empty.push(asked);
            }
        }
        for asked in &empty {
            wait_for(&format!("data for {asked}"), PATIENCE, || async {
                match self.values(&asked.query).await?.is_empty() {
                    true => Err(anyhow::anyhow!(
                        "nothing; of {} that had none at first",
                        empty.len()
                    )),
                    false => Ok(()),
                }
            })
            .await;
        }
    }
}

/// A query of a panel, as Grafana asks it.
pub struct Asked {
    /// Id of the dashboard, and title of the panel.
    dashboard: &'static str,
    pub title: String,
    pub query: String,
}

impl Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}: {}", self.dashboard, self.title, self.query)
    }
}

/// Every query for Prometheus of a dashboard, with values for its variables; the interval is a minute.
///
/// # Panics
/// If the dashboard is none.
pub fn queries(
    dashboard: &catalogue::dashboard::Dashboard,
    variables: &[(&str, &str)],
) -> Vec<Asked> {
    let mut all = Vec::new();
    for panel in list(&dashboard.json["panels"]) {
        for target in list(&panel["targets"]) {
            if target["datasource"]["type"] != "prometheus" {
                continue;
            }
            let query = target["expr"].as_str().expect("an expression");
            let query = query.replace("$__rate_interval", "1m");
            all.push(Asked {
                dashboard: dashboard.id,
                title: panel["title"].as_str().expect("a title").to_owned(),
                query: variables
                    .iter()
                    .fold(query, |query, (name, value)| query.replace(name, value)),
            });
        }
    }
    all
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
