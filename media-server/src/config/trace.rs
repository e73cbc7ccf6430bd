//! Settings of traces: `[trace]` of the file, its flags, and `TRACING_ENABLED` and `JAEGER_ENDPOINT` of the service that
//! this one replaces. Part of `config.rs`, which calls it once.

use super::ConfigError;
use crate::outbound;
use clap::Args;
use reqwest::Url;
use serde::Deserialize;

const DEFAULT_PERCENT: u8 = 10;

#[derive(Debug, Args, Default)]
pub struct TraceArgs {
    /// Collector of traces (OTLP over HTTP), such as http://otel-collector:4318
    #[arg(long, env = "MEDIA_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Of a hundred traces that begin here, so many are kept [default: 10]
    #[arg(long, env = "MEDIA_TRACE_SAMPLE_PERCENT", value_name = "PERCENT",
          value_parser = clap::value_parser!(u8).range(0..=100))]
    trace_sample_percent: Option<u8>,
}

impl TraceArgs {
    /// Whether the file is left to say how many are kept.
    pub(super) fn has_no_share(&self) -> bool {
        self.trace_sample_percent.is_none()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileTrace {
    otlp_endpoint: Option<String>,
    sample_percent: Option<u8>,
}

impl FileTrace {
    pub(super) fn sample_percent(&self) -> Result<u8, ConfigError> {
        match self.sample_percent.unwrap_or(DEFAULT_PERCENT) {
            percent @ 0..=100 => Ok(percent),
            percent => Err(ConfigError::Wrong(format!(
                "sample_percent is {percent}; it must be 0 to 100"
            ))),
        }
    }
}

/// Who is told of spans, and of how many.
#[derive(Debug, Clone)]
pub struct TraceConfig {
    /// With the path that spans are posted to.
    pub endpoint: Url,
    pub sample_percent: u8,
}

pub(super) fn merge(
    args: TraceArgs,
    file: FileTrace,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<TraceConfig>, ConfigError> {
    let percent = file.sample_percent()?;
    let given = args.otlp_endpoint.or(file.otlp_endpoint);
    let (endpoint, percent) = match given.filter(|text| !text.is_empty()) {
        Some(endpoint) => (endpoint, percent),
        // That service kept all.
        None => match replaced(env) {
            Some(address) => (format!("http://{address}"), 100),
            None => return Ok(None),
        },
    };
    let wrong = |why| ConfigError::Wrong(format!("otlp_endpoint: {why}"));
    Ok(Some(TraceConfig {
        endpoint: outbound::collector_url(&endpoint).map_err(wrong)?,
        sample_percent: args.trace_sample_percent.unwrap_or(percent),
    }))
}

/// `host:port`, where traces were turned on with a word for yes that was taken (Go's ParseBool).
fn replaced(env: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let on = env("TRACING_ENABLED")?;
    let on = matches!(&*on, "1" | "t" | "T" | "true" | "True" | "TRUE");
    env("JAEGER_ENDPOINT").filter(|address| on && !address.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;

    fn trace(args: &[&str], file: &str, env: &[(&str, &str)]) -> Option<(String, u8)> {
        let trace = load(args, file, env).expect("right").trace?;
        Some((trace.endpoint.to_string(), trace.sample_percent))
    }

    #[test]
    fn there_are_no_traces_unless_a_collector_is_named() {
        assert_eq!(trace(&[], "", &[]), None);
        assert_eq!(trace(&["--trace-sample-percent", "50"], "", &[]), None);
        assert_eq!(trace(&[], "[trace]\notlp_endpoint = \"\"", &[]), None);
        let file = "[trace]\notlp_endpoint = \"http://otel:4318\"";
        let at = "http://otel:4318/v1/traces".to_owned();
        assert_eq!(trace(&[], file, &[]), Some((at.clone(), 10)));
        let more = format!("{file}\nsample_percent = 100");
        assert_eq!(trace(&[], &more, &[]), Some((at.clone(), 100)));
        let fewer = ["--trace-sample-percent", "0"];
        assert_eq!(trace(&fewer, &more, &[]), Some((at, 0)));
        assert!(load(&["--otlp-endpoint", "otel:4317"], "", &[]).is_err());
        let wrong = format!("{file}\nsample_percent = 101");
        assert!(load(&[], &wrong, &[]).is_err());
    }

    #[test]
    fn the_collector_of_the_replaced_service_gets_all_traces_if_they_were_turned_on() {
        let endpoint = ("JAEGER_ENDPOINT", "jaeger:4318");
        let all = Some(("http://jaeger:4318/v1/traces".to_owned(), 100));
        assert_eq!(
            trace(&[], "", &[endpoint, ("TRACING_ENABLED", "true")]),
            all
        );
        assert_eq!(trace(&[], "", &[endpoint]), None);
        assert_eq!(
            trace(&[], "", &[endpoint, ("TRACING_ENABLED", "false")]),
            None
        );
    }
}
