//! Reads the Prometheus text format, version 0.0.4, strictly enough to notice a broken line.

use std::collections::BTreeMap;

use anyhow::{Context, bail};

#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// One scrape.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub samples: Vec<Sample>,
    /// Family name → its `# TYPE`.
    pub types: BTreeMap<String, String>,
    /// Family name → its `# HELP`.
    pub help: BTreeMap<String, String>,
}

impl Metrics {
    /// # Errors
    /// If the endpoint does not answer 200 or a line cannot be read.
    pub async fn fetch(url: &str) -> anyhow::Result<Self> {
        let response = reqwest::get(url).await?.error_for_status()?;
        Self::parse(&response.text().await?)
    }

    /// # Errors
    /// On the first line that is neither a comment nor a sample.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut metrics = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').with_context(|| line.to_owned())?;
                metrics.types.insert(name.to_owned(), kind.to_owned());
            } else if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').with_context(|| line.to_owned())?;
                metrics.help.insert(name.to_owned(), help.to_owned());
            } else if !line.starts_with('#') {
                metrics
                    .samples
                    .push(sample(line).with_context(|| line.to_owned())?);
            }
        }
        Ok(metrics)
    }

    /// Samples called `name` that have at least these labels.
    pub fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&str, &str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(key, value)| sample.labels.get(*key).is_some_and(|have| have == value))
        })
    }

    /// The one sample with these labels; `None` when there is none or more than one.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.matching(name, labels);
        let first = found.next()?.value;
        found.next().is_none().then_some(first)
    }

    /// Sum over all samples with these labels; 0 without any, as for a counter that has no series yet.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }
}

fn sample(line: &str) -> anyhow::Result<Sample> {
    let end = line.find(['{', ' ']).context("no value")?;
    let name = line[..end].to_owned();
    let mut labels = BTreeMap::new();
    let mut rest = &line[end..];
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            rest = rest.trim_start_matches(',');
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (key, after) = rest.split_once("=\"").context("a label without a value")?;
            let mut value = String::new();
            let mut chars = after.char_indices();
            let closed = loop {
                match chars.next() {
                    Some((at, '"')) => break at,
                    Some((_, '\\')) => match chars.next() {
                        Some((_, 'n')) => value.push('\n'),
                        Some((_, other)) => value.push(other),
                        None => bail!("an escape without a character"),
                    },
                    Some((_, other)) => value.push(other),
                    None => bail!("a label without an end"),
                }
            };
            labels.insert(key.to_owned(), value);
            rest = &after[closed + 1..];
        }
    }
    let value = rest.split_ascii_whitespace().next().context("no value")?;
    // Rust reads "+Inf", "-Inf" and "NaN" as the format writes them.
    let value = value.parse().context("the value is no number")?;
    Ok(Sample {
        name,
        labels,
        value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let text = "# HELP a_total Things, counted.\n# TYPE a_total counter\n\
            a_total{device_id=\"x\",reason=\"normal\"} 2\na_total{device_id=\"y\\\"z\",reason=\"normal\"} 3\n\
            h_bucket{le=\"+Inf\"} 7 1700000000000\nplain 0.5\n";
        let metrics = Metrics::parse(text).unwrap();
        assert_eq!(metrics.types["a_total"], "counter");
        assert_eq!(metrics.help["a_total"], "Things, counted.");
        assert_eq!(metrics.sum("a_total", &[("reason", "normal")]), 5.0);
        assert_eq!(
            metrics.value("a_total", &[("device_id", "y\"z")]),
            Some(3.0)
        );
        assert_eq!(
            metrics.value("a_total", &[]),
            None,
            "two samples are not one value"
        );
        assert_eq!(metrics.value("h_bucket", &[("le", "+Inf")]), Some(7.0));
        assert_eq!(metrics.value("plain", &[]), Some(0.5));
    }

    #[test]
    fn a_broken_line_is_an_error() {
        for broken in ["a{b=\"c} 1", "a", "a{b=\"c\"} x"] {
            assert!(Metrics::parse(broken).is_err(), "{broken}");
        }
    }
}
