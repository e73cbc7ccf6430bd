//! Settings of the ICE servers that clients are told of: `[turn]` of the file, its flags, and the
//! names of the service that this one replaces (`TURN_URLS`, `STUN_SERVERS`, `TURN_USERNAME`,
//! `TURN_CREDENTIAL`). Part of `config.rs`, which calls it once.

use super::{ConfigError, non_empty};
use clap::Args;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

/// Most ICE servers of an answer: browsers slow down with every one, and warn above five.
const MAX_URLS: usize = 8;
/// A credential that ends sooner would cut sessions that last.
const TTL_SECONDS: std::ops::RangeInclusive<u64> = 600..=86_400;
const DEFAULT_TTL_SECONDS: u64 = 21_600;

#[derive(Debug, Args, Default)]
pub struct TurnArgs {
    /// STUN or TURN server that clients are told of, such as `turn:turn.example.com:3478`; repeatable,
    /// at most 8
    #[arg(
        long,
        env = "MEDIA_TURN_URL",
        value_name = "URL",
        value_delimiter = ','
    )]
    turn_url: Vec<String>,
    /// Secret shared with the TURN server (coturn: static-auth-secret)
    #[arg(long, env = "MEDIA_TURN_SECRET_FILE", value_name = "FILE")]
    turn_secret_file: Option<PathBuf>,
    /// Lifetime of TURN credentials in seconds, 600 to 86400 [default: 21600]
    #[arg(long, env = "MEDIA_TURN_TTL_SECONDS", value_name = "SECONDS")]
    turn_ttl_seconds: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileTurn {
    urls: Vec<String>,
    secret_file: Option<PathBuf>,
    ttl_seconds: Option<u64>,
}

/// The ICE servers that clients are told of.
#[derive(Clone, Default)]
pub struct TurnConfig {
    /// `stun:`, `stuns:`, `turn:` and `turns:` (RFC 7064, RFC 7065).
    pub urls: Vec<String>,
    /// What TURN credentials are made with.
    pub secret_file: Option<PathBuf>,
    /// User name and password for every client, where there is no secret.
    pub fixed: Option<(String, String)>,
    pub ttl: Duration,
}

impl std::fmt::Debug for TurnConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TurnConfig")
            .field("urls", &self.urls)
            .field("secret_file", &self.secret_file)
            .field("fixed", &self.fixed.is_some())
            .field("ttl", &self.ttl)
            .finish()
    }
}

pub(super) fn merge(
    args: TurnArgs,
    file: FileTurn,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<TurnConfig, ConfigError> {
    let mut urls = non_empty(args.turn_url, file.urls);
    if urls.is_empty() {
        // The replaced service told of STUN servers first.
        for name in ["STUN_SERVERS", "TURN_URLS"] {
            let list = env(name).unwrap_or_default();
            let listed = list.split(',').map(str::trim).filter(|url| !url.is_empty());
            urls.extend(listed.map(str::to_owned));
        }
    }
    if urls.len() > MAX_URLS {
        return Err(ConfigError::Wrong(format!(
            "there are {} STUN and TURN servers; at most {MAX_URLS} are right",
            urls.len()
        )));
    }
    for url in &urls {
        let scheme = ["stun:", "stuns:", "turn:", "turns:"];
        let right = scheme
            .iter()
            .any(|s| url.len() > s.len() && url.starts_with(s))
            && url
                .bytes()
                .all(|c| c.is_ascii_graphic() && !b"<>\"".contains(&c));
        if !right {
            return Err(ConfigError::Wrong(format!(
                "{url:?} is no STUN or TURN server; write it as turn:turn.example.com:3478?transport=udp"
            )));
        }
    }
    let secret_file = args.turn_secret_file.or(file.secret_file);
    let fixed = if secret_file.is_none() {
        env("TURN_USERNAME").zip(env("TURN_CREDENTIAL"))
    } else {
        None
    };
    if secret_file.is_none() && fixed.is_none() && urls.iter().any(|url| url.starts_with("turn")) {
        return Err(ConfigError::Wrong(
            "a TURN server takes nobody without credentials; give --turn-secret-file FILE, \
             or set TURN_USERNAME and TURN_CREDENTIAL"
                .to_owned(),
        ));
    }
    let ttl = args
        .turn_ttl_seconds
        .or(file.ttl_seconds)
        .unwrap_or(DEFAULT_TTL_SECONDS);
    if !TTL_SECONDS.contains(&ttl) {
        return Err(ConfigError::Wrong(format!(
            "turn_ttl_seconds is {ttl}; it must be {} to {}",
            TTL_SECONDS.start(),
            TTL_SECONDS.end()
        )));
    }
    Ok(TurnConfig {
        urls,
        secret_file,
        fixed,
        ttl: Duration::from_secs(ttl),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(
        urls: &[&str],
        secret: bool,
        env: &[(&str, &str)],
    ) -> Result<TurnConfig, ConfigError> {
        let args = TurnArgs {
            turn_url: urls.iter().map(|url| (*url).to_owned()).collect(),
            turn_secret_file: secret.then(|| PathBuf::from("secret")),
            turn_ttl_seconds: None,
        };
        merge(args, FileTurn::default(), &|name| {
            env.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn turn_needs_credentials_and_stun_none() {
        assert!(merged(&["stun:a"], false, &[]).is_ok());
        assert!(merged(&["turn:a"], false, &[]).is_err());
        let config = merged(&["turn:a"], true, &[]).expect("right");
        assert_eq!(config.ttl, Duration::from_secs(21_600));
    }

    #[test]
    fn the_names_of_the_replaced_service_give_servers_and_credentials() {
        let env = [
            ("TURN_URLS", "turn:a:3478"),
            ("STUN_SERVERS", "stun:b, stun:c"),
            ("TURN_USERNAME", "ann"),
            ("TURN_CREDENTIAL", "s3cret"),
        ];
        let config = merged(&[], false, &env).expect("right");
        assert_eq!(config.urls, ["stun:b", "stun:c", "turn:a:3478"]);
        assert!(!format!("{config:?}").contains("s3cret"));
        let config = merged(&["turn:d"], true, &env).expect("right");
        assert_eq!(config.urls, ["turn:d"], "a flag beats them");
        assert!(config.fixed.is_none(), "and so does a secret");
    }

    #[test]
    fn what_is_no_server_and_too_many_are_refused() {
        for wrong in ["http://a", "turn:", "stun:a b", "stun:a>;"] {
            assert!(merged(&[wrong], true, &[]).is_err(), "{wrong}");
        }
        assert!(merged(&["stun:a"; 9], true, &[]).is_err());
    }
}
