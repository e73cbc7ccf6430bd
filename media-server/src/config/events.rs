//! Settings of events: `[events]` of the file, its flags, and `RABBITMQ_URL` and `RABBITMQ_ENABLED` of the service that this one
//! replaces. Part of `config.rs`, which calls it once.

use super::{ConfigError, KeySource};
use crate::outbound;
use clap::Args;
use reqwest::Url;
use serde::Deserialize;
use std::path::PathBuf;

#[derive(Debug, Args, Default)]
pub struct EventsArgs {
    /// File with the URL of a RabbitMQ that events go to, as `amqps://user:password@broker.example.com/vhost`
    #[arg(long, env = "MEDIA_AMQP_URL_FILE", value_name = "FILE")]
    amqp_url_file: Option<PathBuf>,
    /// https address that events are posted to
    #[arg(long, env = "MEDIA_WEBHOOK_URL", value_name = "URL")]
    webhook_url: Option<String>,
    /// Secret that those are signed with
    #[arg(long, env = "MEDIA_WEBHOOK_SECRET_FILE", value_name = "FILE")]
    webhook_secret_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileEvents {
    amqp_url_file: Option<PathBuf>,
    webhook_url: Option<String>,
    webhook_secret_file: Option<PathBuf>,
}

/// Who is told of sessions and recordings.
#[derive(Debug, Clone, Default)]
pub struct EventsConfig {
    /// Where the broker's URL is.
    pub amqp: Option<KeySource>,
    pub webhook: Option<WebhookConfig>,
}

#[derive(Debug, Clone)]
pub struct WebhookConfig {
    pub url: Url,
    pub secret_file: PathBuf,
}

pub(super) fn merge(
    args: EventsArgs,
    file: FileEvents,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<EventsConfig, ConfigError> {
    let url = args.webhook_url.or(file.webhook_url);
    let url = url.filter(|url| !url.is_empty());
    let secret_file = args.webhook_secret_file.or(file.webhook_secret_file);
    let webhook = match (url, secret_file) {
        (Some(url), Some(secret_file)) => Some(WebhookConfig {
            url: outbound::url(&url)
                .map_err(|why| ConfigError::Wrong(format!("webhook_url: {why}")))?,
            secret_file,
        }),
        (None, None) => None,
        _ => {
            return Err(ConfigError::Wrong(
                "webhook_url and webhook_secret_file go together; give both or none".to_owned(),
            ));
        }
    };
    let amqp = args.amqp_url_file.or(file.amqp_url_file);
    let amqp = amqp.map(KeySource::File).or_else(|| {
        // The words for no that the replaced service took (Go's ParseBool).
        let off = env("RABBITMQ_ENABLED")
            .is_some_and(|text| matches!(&*text, "0" | "f" | "F" | "false" | "False" | "FALSE"));
        let url = env("RABBITMQ_URL").filter(|url| !off && !url.is_empty());
        url.map(KeySource::Text)
    });
    Ok(EventsConfig { amqp, webhook })
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;
    use super::*;

    #[test]
    fn a_webhook_has_an_address_and_a_secret() {
        let file =
            "[events]\nwebhook_url = \"https://a.example.com/\"\nwebhook_secret_file = \"s\"";
        let events = load(&[], file, &[]).expect("right").events;
        let webhook = events.webhook.expect("a webhook");
        assert_eq!(webhook.url.as_str(), "https://a.example.com/");
        assert!(load(&["--webhook-url", "https://a.example.com/"], "", &[]).is_err());
        assert!(load(&["--webhook-secret-file", "s"], "", &[]).is_err());
        let local = [
            "--webhook-url",
            "https://127.0.0.1/",
            "--webhook-secret-file",
            "s",
        ];
        assert!(load(&local, "", &[]).is_err());
    }

    #[test]
    fn the_broker_of_the_replaced_service_is_used_unless_it_is_turned_off() {
        let url = ("RABBITMQ_URL", "amqp://ann:word@broker");
        let amqp = |env: &[(&str, &str)]| load(&[], "", env).expect("right").events.amqp;
        assert!(matches!(amqp(&[url]), Some(KeySource::Text(_))));
        assert!(amqp(&[url, ("RABBITMQ_ENABLED", "true")]).is_some());
        assert!(amqp(&[url, ("RABBITMQ_ENABLED", "false")]).is_none());
        assert!(amqp(&[("RABBITMQ_ENABLED", "true")]).is_none());
        assert!(!format!("{:?}", amqp(&[url])).contains("word"));
        let file = load(&["--amqp-url-file", "f"], "", &[url])
            .expect("right")
            .events;
        assert!(
            matches!(file.amqp, Some(KeySource::File(_))),
            "a flag beats it"
        );
    }
}
