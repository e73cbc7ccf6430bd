//! Servers of others, each with its data in the test's folder, at ports of the test's own network.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tests::process::Process;
use tests::wait_for;

const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// An OpenTelemetry Collector that writes what it gets to a file.
pub struct OtelCollector {
    file: PathBuf,
    _process: Process,
}

impl OtelCollector {
    pub const URL: &str = "http://127.0.0.1:4318";

    pub async fn start(dir: &Path) -> Self {
        let (config, file) = (dir.join("collector.yaml"), dir.join("traces.json"));
        let text = json!({
            "receivers": {"otlp": {"protocols": {"http": {"endpoint": "127.0.0.1:4318"}}}},
            "exporters": {"file": {"path": file, "flush_interval": "100ms"}},
            "service": {
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["file"]}},
            },
        });
        // JSON is YAML.
        std::fs::write(&config, text.to_string()).expect("it can be written");
        let mut command = Command::new("collector");
        command.arg("--config").arg(config);
        let mut process = Process::start("collector", &mut command);
        started(
            "the collector",
            &mut process,
            &format!("{}/v1/traces", Self::URL),
        )
        .await;
        Self {
            file,
            _process: process,
        }
    }

    /// What came of that trace until now, as OTLP writes it in JSON.
    pub fn spans_of(&self, trace: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        let requests = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let mut spans = Vec::new();
        for request in requests.collect::<Vec<Value>>() {
            for scope in in_all(in_all([&request], "resourceSpans"), "scopeSpans") {
                spans.extend(in_all([scope], "spans").into_iter().cloned());
            }
        }
        spans.retain(|span| span["traceId"] == trace);
        spans
    }
}

fn in_all<'a>(values: impl IntoIterator<Item = &'a Value>, key: &str) -> Vec<&'a Value> {
    let lists = values.into_iter().filter_map(|value| value[key].as_array());
    lists.flatten().collect()
}

/// A VictoriaLogs, which takes lines by Loki's push API.
pub struct Logs {
    _process: Process,
}

impl Logs {
    const URL: &str = "http://127.0.0.1:9428";

    pub async fn start(dir: &Path) -> Self {
        let mut command = Command::new("victoria-logs");
        command.arg("-httpListenAddr=127.0.0.1:9428");
        command.arg(format!("-storageDataPath={}", dir.join("logs").display()));
        let mut process = Process::start("victoria-logs", &mut command);
        started(
            "the log server",
            &mut process,
            &format!("{}/health", Self::URL),
        )
        .await;
        Self { _process: process }
    }

    /// Pushes lines as an agent does: each with its time, in the stream of the program. Only `session_id` and its
    /// like are to be searched for, and they are in the lines: none of them is a label of the stream.
    pub async fn push(&self, log: &str) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970");
        let count = log.lines().count() as u128;
        let line = |(at, line): (u128, &str)| {
            // In their order; the time of a line to the millisecond is in it.
            let nanos = now.as_nanos() - count + at;
            json!([nanos.to_string(), line])
        };
        let values: Vec<Value> = (0..).zip(log.lines()).map(line).collect();
        let body = json!({"streams": [{"stream": {"app": "media-server"}, "values": values}]});
        let url = format!("{}/insert/loki/api/v1/push", Self::URL);
        let post = reqwest::Client::new().post(url).json(&body).send();
        assert_eq!(post.await.expect("an answer").status(), 204);
    }

    /// The lines that a query finds, in their order.
    ///
    /// # Errors
    /// If there is none yet.
    pub async fn find(&self, query: &str) -> Result<Vec<Value>, String> {
        let url = format!("{}/select/logsql/query", Self::URL);
        let mut url = reqwest::Url::parse(&url).expect("a URL");
        url.query_pairs_mut().append_pair("query", query);
        let answer = reqwest::get(url).await.map_err(|error| error.to_string())?;
        let text = answer.text().await.map_err(|error| error.to_string())?;
        let lines = text.lines().map(serde_json::from_str);
        let mut lines: Vec<Value> = lines.collect::<Result<_, _>>().map_err(|_| text.clone())?;
        lines.sort_by_key(|line| line["ts"].to_string());
        if lines.is_empty() {
            Err(format!("nothing: {text}"))
        } else {
            Ok(lines)
        }
    }
}

/// A Prometheus that keeps exemplars.
pub struct PrometheusServer {
    _process: Process,
}

impl PrometheusServer {
    const URL: &str = "http://127.0.0.1:9090";

    pub async fn start(dir: &Path, target: &str) -> Self {
        let config = dir.join("prometheus.yaml");
        let text = json!({
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [{"job_name": "media", "static_configs": [{"targets": [target]}]}],
        });
        std::fs::write(&config, text.to_string()).expect("it can be written");
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!(
            "--storage.tsdb.path={}",
            dir.join("prometheus").display()
        ));
        command.args([
            "--web.listen-address=127.0.0.1:9090",
            "--enable-feature=exemplar-storage",
        ]);
        let mut process = Process::start("prometheus", &mut command);
        started(
            "Prometheus",
            &mut process,
            &format!("{}/-/ready", Self::URL),
        )
        .await;
        Self { _process: process }
    }

    /// The exemplars of the last hour of the series that a selector finds.
    pub async fn exemplars(&self, selector: &str) -> Vec<Value> {
        let url = format!("{}/api/v1/query_exemplars", Self::URL);
        let mut url = reqwest::Url::parse(&url).expect("a URL");
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_secs();
        url.query_pairs_mut()
            .append_pair("query", selector)
            .append_pair("start", &(now - 3600).to_string())
            .append_pair("end", &(now + 60).to_string());
        let answer = reqwest::get(url).await.expect("an answer");
        let body: Value = answer.json().await.expect("JSON");
        in_all(in_all([&body], "data"), "exemplars")
            .into_iter()
            .cloned()
            .collect()
    }
}

/// Waits until there is an answer of any kind but that it is not ready.
async fn started(what: &str, process: &mut Process, url: &str) {
    wait_for(&format!("{what} to start"), STARTS_WITHIN, || {
        let log = process.log();
        assert!(process.ended().is_none(), "it ended: {log}");
        async move {
            match reqwest::get(url).await {
                Ok(answer) if answer.status() != 503 => Ok(()),
                answer => Err(format!("{answer:?}: {log}")),
            }
        }
    })
    .await;
}
