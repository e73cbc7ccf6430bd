//! Asks a Prometheus through its HTTP API.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde_json::Value;

/// One element of an instant vector.
#[derive(Debug, Clone)]
pub struct Element {
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

#[derive(Debug, Clone)]
pub struct Prometheus {
    base: String,
    client: reqwest::Client,
}

impl Prometheus {
    /// `base` is the address in front of `/api/v1`.
    pub fn new(base: &str) -> Self {
        Self {
            base: base.trim_end_matches('/').to_owned(),
            client: reqwest::Client::new(),
        }
    }

    /// That of the local cluster, from its outside network.
    pub fn of_cluster() -> Self {
        let base = std::env::var("PROMETHEUS_URL");
        Self::new(base.as_deref().unwrap_or("http://198.18.1.90:9090"))
    }

    async fn api(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Value> {
        let mut url = reqwest::Url::parse(&format!("{}/api/v1/{path}", self.base))?;
        url.query_pairs_mut().extend_pairs(query);
        let response = self.client.get(url).send().await?;
        let body: Value = serde_json::from_str(&response.text().await?)?;
        if body["status"] != "success" {
            bail!("{path}: {}", body["error"]);
        }
        Ok(body["data"].clone())
    }

    /// An instant query; an empty vector is an answer, not an error.
    ///
    /// # Errors
    /// If Prometheus refuses the expression or cannot be reached.
    pub async fn query(&self, expression: &str) -> anyhow::Result<Vec<Element>> {
        let data = self.api("query", &[("query", expression)]).await?;
        let result = data["result"]
            .as_array()
            .with_context(|| format!("{expression}: no vector"))?;
        result
            .iter()
            .map(|element| {
                let labels = element["metric"].as_object().context("labels")?;
                let value = element["value"][1].as_str().context("a value")?.parse()?;
                let label = |(name, value): (&String, &Value)| {
                    (name.clone(), value.as_str().unwrap_or_default().to_owned())
                };
                Ok(Element {
                    labels: labels.iter().map(label).collect(),
                    value,
                })
            })
            .collect()
    }

    /// The single value of an expression.
    ///
    /// # Errors
    /// If there is none or more than one.
    pub async fn value(&self, expression: &str) -> anyhow::Result<f64> {
        match self.query(expression).await?.as_slice() {
            [one] => Ok(one.value),
            other => bail!("{expression}: {} elements: {other:?}", other.len()),
        }
    }

    /// Active targets, as `/api/v1/targets` shows them.
    ///
    /// # Errors
    /// If Prometheus cannot be reached.
    pub async fn targets(&self) -> anyhow::Result<Vec<Value>> {
        let data = self.api("targets", &[("state", "active")]).await?;
        Ok(data["activeTargets"]
            .as_array()
            .cloned()
            .unwrap_or_default())
    }

    /// Every alert that it evaluates, as `/api/v1/rules` shows them.
    ///
    /// # Errors
    /// If Prometheus cannot be reached.
    pub async fn alerting_rules(&self) -> anyhow::Result<Vec<Value>> {
        let data = self.api("rules", &[("type", "alert")]).await?;
        let groups = data["groups"].as_array().into_iter().flatten();
        let rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
        Ok(rules.cloned().collect())
    }
}
