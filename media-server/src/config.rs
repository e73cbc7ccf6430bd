//! Flags, environment and configuration file → [`Config`], once, at the start.
//!
//! Owns every name that a user sets: flags, their variables `MEDIA_…`, the names of the service that
//! this one replaces (`PORT`, `JWT_SECRET`, `NAT_1TO1_IPS`, and those of `config/turn.rs` and `config/events.rs`), and the
//! keys of the file. A flag beats its variable, which beats the file, which beats the default. Reads no
//! secret; called by `main.rs`.
//!
//! The file (`--config`), with every key and its default:
//!
//! ```toml
//! [http]
//! listen = "127.0.0.1:30006"       # signalling; in a pod "[::]:8080"
//! metrics_listen = "…"             # /metrics, health and /load; absent: on the signalling address
//! tls_cert = "…"                   # PEM files; both or none
//! tls_key = "…"
//! cors_origins = []                # e.g. "https://app.example.com"; "*" for any
//! connections = 4096               # open at once on each address, and at most half of the files that media over TCP leaves
//!
//! [media]
//! listen = "127.0.0.1:8443"        # UDP and TCP
//! tcp = true                       # for clients that can reach TCP alone; false: UDP only
//! advertise = []                   # IP, IP:port or host name; replaces all discovery; "…/udp", "…/tcp": that alone
//! addresses_file = "…"             # {"lb":[…],"nodes":{"<NODE_NAME>":["host:port"]}}, re-read every 2 s; UDP
//!                                  # but for "host:port/tcp"; names are resolved every minute
//! shards = 1                       # threads, 1 to 64; absent: one for each core allowed
//!
//! [auth]
//! mode = "jwt"                     # or "none"; absent: jwt where there is a key, none on loopback
//! issuer = "cloudphone-platform"
//! audience = "cloudphone-users"
//! hmac_file = "…"                  # re-read every 5 s; "<file>-previous" beside it is accepted too
//! jwks_url = "https://…"           # keys of an identity provider, fetched every 10 min; beside hmac_file or instead of it
//! tenant_claim = ""                # claim with the tenant, such as tenantId: each sees its own devices alone
//! enforce_grants = true            # false: any valid token may use any device (of its tenant), and need not expire
//!
//! [cluster]
//! key_file = "…"                   # ≥ 32 random bytes; absent: a key of this boot
//! uid = ""                         # salt of the derived keys: the MediaService's uid
//! ordinal = 0                      # absent: the number at the end of POD_NAME, else 0
//!
//! [limits]
//! sessions_per_pod = 2000
//! viewers_per_device = 8000
//! video_kbps = 12000               # b=AS of answers
//! idle_publisher_kbps = 0          # asked of who has had no viewer for 30 s; 0: nothing is asked
//! max_session_seconds = 0          # 0: sessions may last for ever
//!
//! [turn]
//! urls = []                        # "turn:turn.example.com:3478", "stun:…"; at most 8
//! secret_file = "…"                # shared with the TURN server; re-read every 5 s
//! ttl_seconds = 21600              # lifetime of TURN credentials, 600 to 86400
//!
//! [recording]
//! dir = "…"                        # folder that recordings are written to; absent: there are none
//! size_limit = "10Gi"              # of all together: bytes, or a number and Ki, Mi, Gi, Ti
//! max_seconds = 14400              # of one; 0: it may last for ever
//!
//! [metrics]
//! per_session_series = true
//! max_series_per_family = 20000
//! scrape_interval_seconds = 15     # series of a session stay two of them after its end
//!
//! [drain]
//! timeout_seconds = 5              # how long SIGTERM waits for sessions to end by themselves; the end itself takes 24 s at most
//! file = "/etc/media/pod/drain"    # no new sessions while it says "true"; looked at each second
//!
//! [events]
//! amqp_url_file = "…"              # holds amqps://user:password@broker.example.com/vhost; read at each connection
//! webhook_url = "https://…"        # both or none
//! webhook_secret_file = "…"        # text, or whsec_ and base64; read for each event
//!
//! [outbound]
//! ca_file = "…"                    # certificates in PEM that are trusted beside the system's
//!
//! [trace]
//! otlp_endpoint = "http://…:4318"  # collector that spans are posted to, below it at v1/traces; absent: there are none
//! sample_percent = 10              # of a hundred traces that begin here; re-read every 5 s
//!
//! [log]
//! level = "info"                   # a filter of tracing-subscriber; re-read every 5 s
//! ```

mod auth;
mod events;
mod file;
mod parse;
mod recording;
mod trace;
mod turn;

use self::auth::AuthArgs;
pub use self::auth::{JwtConfig, KeySource};
use self::events::EventsArgs;
pub use self::events::{EventsConfig, WebhookConfig};
use self::file::File;
use self::parse::{duration, listen_address};
use self::recording::RecordingArgs;
pub use self::recording::RecordingConfig;
use self::trace::TraceArgs;
pub use self::trace::TraceConfig;
use self::turn::TurnArgs;
pub use self::turn::TurnConfig;
use crate::auth::Grant;
use clap::{Args, Parser, Subcommand};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a pod has its configuration; `token` looks here when nothing else is given.
const POD_CONFIG: &str = "/etc/media/config/config.toml";
/// Where a pod has its annotation `mediaservice.io/drain`.
const POD_DRAIN: &str = "/etc/media/pod/drain";
const DEFAULT_LEVEL: &str = "info";
/// With what follows (`app.rs`) below 30 s, which service managers and Kubernetes give a process for its end.
const DEFAULT_DRAIN_SECONDS: u64 = 5;
const DEFAULT_HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 30006);
const DEFAULT_MEDIA: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8443);

#[derive(Debug, Parser)]
#[command(
    name = "media-server",
    version,
    about = "WebRTC media server: WHIP in, WHEP out",
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

impl Cli {
    /// The command, which is `serve` when none is named.
    pub fn command(self) -> Command {
        self.command.unwrap_or(Command::Serve(Box::new(self.serve)))
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve sessions (the default)
    Serve(Box<ServeArgs>),
    /// Print a token for people and scripts
    Token(Box<TokenArgs>),
}

#[derive(Debug, Args, Default)]
pub struct ServeArgs {
    /// Address of signalling and pages [default: 127.0.0.1:30006, or with PORT that port of every address]
    #[arg(long, env = "MEDIA_HTTP_LISTEN", value_name = "ADDR", value_parser = listen_address)]
    http_listen: Option<SocketAddr>,
    /// UDP and TCP address of media [default: 127.0.0.1:8443, or with PORT or NAT_1TO1_IPS that port of every address]
    #[arg(long, env = "MEDIA_MEDIA_LISTEN", value_name = "ADDR")]
    media_listen: Option<SocketAddr>,
    /// Serve clients that can reach TCP alone, on the same port [default: true]
    #[arg(long, env = "MEDIA_MEDIA_TCP", value_name = "BOOL")]
    media_tcp: Option<bool>,
    /// Address that clients reach media at: IP, IP:port or host name, with /udp or /tcp behind it for
    /// one protocol alone; repeatable [default: the listen address, or every non-loopback address of
    /// the machine]
    #[arg(
        long,
        env = "MEDIA_ADVERTISE",
        value_name = "ADDRESS",
        value_delimiter = ','
    )]
    advertise: Vec<String>,
    /// Certificate chain in PEM; makes signalling https
    #[arg(
        long,
        env = "MEDIA_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    tls_cert: Option<PathBuf>,
    /// Private key in PEM
    #[arg(
        long,
        env = "MEDIA_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    tls_key: Option<PathBuf>,
    /// Address of /metrics, health and /load [default: same as HTTP]
    #[arg(long, env = "MEDIA_METRICS_LISTEN", value_name = "ADDR", value_parser = listen_address)]
    metrics_listen: Option<SocketAddr>,
    #[command(flatten)]
    auth: AuthArgs,
    /// Certificates in PEM that are trusted beside the system's, where this server asks others over https
    #[arg(long, env = "MEDIA_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Origin that browsers may call from; repeatable, `*` for any
    #[arg(
        long,
        env = "MEDIA_CORS_ORIGIN",
        value_name = "ORIGIN",
        value_delimiter = ','
    )]
    cors_origin: Vec<String>,
    /// Threads for media, 1 to 64 [default: one for each core allowed]
    #[arg(long, env = "MEDIA_SHARDS", value_name = "N",
          value_parser = clap::value_parser!(u8).range(1..=64))]
    shards: Option<u8>,
    /// Sessions at most [default: 2000]
    #[arg(long, env = "MEDIA_SESSIONS_PER_POD", value_name = "N")]
    sessions_per_pod: Option<u32>,
    /// Viewers of one device at most [default: 8000]
    #[arg(long, env = "MEDIA_VIEWERS_PER_DEVICE", value_name = "N")]
    viewers_per_device: Option<u32>,
    /// Seconds that a session may last, 0 for ever [default: 0]
    #[arg(long, env = "MEDIA_MAX_SESSION_SECONDS", value_name = "SECONDS")]
    max_session_seconds: Option<u32>,
    #[command(flatten)]
    turn: TurnArgs,
    #[command(flatten)]
    events: EventsArgs,
    #[command(flatten)]
    recording: RecordingArgs,
    #[command(flatten)]
    trace: TraceArgs,
    /// Configuration file (TOML)
    #[arg(long, env = "MEDIA_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Publish a live test picture with a clock, as the device `demo`
    #[cfg(feature = "demo")]
    #[arg(long, env = "MEDIA_DEMO")]
    demo: bool,
    /// Filter of log messages, such as `info` or `media_server=debug`; without it, that of the file may change at
    /// any time [default: info]
    #[arg(long, env = "MEDIA_LOG_LEVEL", value_name = "FILTER")]
    log_level: Option<String>,
}

#[derive(Debug, Args)]
pub struct TokenArgs {
    /// Device that the token is for; a trailing * means all that start so; repeatable
    #[arg(long, required = true, value_name = "DEVICE", value_delimiter = ',')]
    pub device: Vec<String>,
    /// What it allows: publish, view, control, record, admin
    #[arg(long, required = true, value_enum, value_delimiter = ',')]
    pub grant: Vec<Grant>,
    /// Lifetime, at most 24h
    #[arg(long, default_value = "1h", value_parser = duration, value_name = "TIME")]
    pub ttl: Duration,
    /// Name of the holder
    #[arg(long, default_value = "media-server-token", value_name = "TEXT")]
    pub subject: String,
    /// Tenant of the holder, where the server reads one from a claim
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
    /// Claim that the tenant goes into [default: the one the server reads]
    #[arg(long, env = "MEDIA_TENANT_CLAIM", value_name = "CLAIM")]
    pub tenant_claim: Option<String>,
    /// Key to sign with [default: the one the server has]
    #[arg(long, env = "MEDIA_JWT_HMAC_FILE", value_name = "FILE")]
    pub jwt_hmac_file: Option<PathBuf>,
    /// Its `iss` [default: the one the server asks for]
    #[arg(long, env = "MEDIA_JWT_ISSUER", value_name = "TEXT")]
    pub jwt_issuer: Option<String>,
    /// Its `aud` [default: the one the server asks for]
    #[arg(long, env = "MEDIA_JWT_AUDIENCE", value_name = "TEXT")]
    pub jwt_audience: Option<String>,
    /// Configuration file (TOML) to take key, issuer, audience and tenant claim from
    #[arg(long, env = "MEDIA_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Everything the process was told, checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub http: SocketAddr,
    /// `None`: metrics and health are on `http`.
    pub metrics_listen: Option<SocketAddr>,
    pub tls: Option<TlsFiles>,
    pub cors_origins: Vec<String>,
    pub http_connections: u32,
    pub media: SocketAddr,
    /// Media over TCP as well.
    pub media_tcp: bool,
    pub advertise: Vec<String>,
    pub addresses_file: Option<PathBuf>,
    /// Key of this pod's row in the addresses file.
    pub node_name: String,
    pub shards: u8,
    pub ordinal: u16,
    pub cluster_key_file: Option<PathBuf>,
    pub cluster_uid: String,
    /// `None`: no token is asked for.
    pub auth: Option<JwtConfig>,
    pub ca_file: Option<PathBuf>,
    pub limits: Limits,
    pub turn: TurnConfig,
    pub events: EventsConfig,
    /// `None`: there are no recordings.
    pub recording: Option<RecordingConfig>,
    pub series: SeriesPolicy,
    pub drain_timeout: Duration,
    /// Says `true` while the pod's annotation asks for a drain; need not exist.
    pub drain_file: PathBuf,
    pub log_level: String,
    /// `None`: there are no traces.
    pub trace: Option<TraceConfig>,
    pub live: LiveFile,
    /// Name of the pod, if this is one.
    pub pod: String,
    /// Where that is.
    pub namespace: String,
    /// Whether the built-in device publishes.
    #[cfg(feature = "demo")]
    pub demo: bool,
}

#[derive(Debug, Clone)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub sessions_per_pod: u32,
    pub viewers_per_device: u32,
    pub video_kbps: u32,
    /// What a publisher without viewers is asked to keep to; `None`: it is left alone.
    pub idle_publisher_kbps: Option<u32>,
    /// `None`: for ever.
    pub max_session: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
pub struct SeriesPolicy {
    pub per_session: bool,
    pub max_per_family: usize,
    /// How long series of a session stay after its end.
    pub session_grace: Duration,
}

/// The settings of the file that may change while the server runs.
#[derive(Debug, Clone, Default)]
pub struct LiveFile {
    path: Option<PathBuf>,
    /// Whether the file is who says it.
    level: bool,
    sample_percent: bool,
}

/// What the file says of them now; nothing that a flag has said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LiveSettings {
    pub log_level: Option<String>,
    pub sample_percent: Option<u8>,
}

impl LiveSettings {
    /// What is not as it was in `last`. The rest may come from elsewhere, such as a variable, and stays.
    pub fn since(&self, last: &LiveSettings) -> LiveSettings {
        let LiveSettings {
            log_level,
            sample_percent,
        } = self.clone();
        LiveSettings {
            log_level: log_level.filter(|_| self.log_level != last.log_level),
            sample_percent: sample_percent.filter(|_| self.sample_percent != last.sample_percent),
        }
    }
}

impl LiveFile {
    /// Reads the file again.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn read(&self) -> Result<LiveSettings, ConfigError> {
        let Some(path) = &self.path else {
            return Ok(LiveSettings::default());
        };
        let file = File::read(path)?;
        let level = file.log.level.unwrap_or_else(|| DEFAULT_LEVEL.to_owned());
        let percent = file.trace.sample_percent()?;
        Ok(LiveSettings {
            log_level: self.level.then_some(level),
            sample_percent: self.sample_percent.then_some(percent),
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("failed to read {path}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} is not right: {message}")]
    Parse { path: PathBuf, message: String },
    #[error("{0}")]
    Wrong(String),
}

impl Config {
    /// Merges flags (with their variables), the file and the defaults.
    ///
    /// # Errors
    /// [`ConfigError`] with the setting that is wrong and what would be right.
    pub fn load(args: ServeArgs) -> Result<Config, ConfigError> {
        let file = match &args.config {
            Some(path) => File::read(path)?,
            None => File::default(),
        };
        Config::merge(args, file, &|name| std::env::var(name).ok())
    }

    /// Whether others reach signalling and no media: every session of theirs would end without a picture.
    pub fn hides_media(&self) -> bool {
        let is_told = |address: &String| {
            let with_port = address.parse::<SocketAddr>().map(|at| at.ip());
            let ip = with_port.or_else(|_| address.parse::<IpAddr>());
            ip.is_ok_and(|ip| !ip.is_loopback())
        };
        let reached = !self.http.ip().is_loopback() || self.advertise.iter().any(is_told);
        self.media.ip().is_loopback() && reached
    }

    fn merge(
        args: ServeArgs,
        file: File,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Config, ConfigError> {
        // Whoever sets what the service before read means what it did: it listened on every address.
        let mut media_default = DEFAULT_MEDIA;
        let everywhere = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let http = match (args.http_listen.or(file.http.listen), env("PORT")) {
            (Some(http), _) => http,
            (None, None) => DEFAULT_HTTP,
            (None, Some(port)) => {
                media_default.set_ip(everywhere);
                let port = port.parse().map_err(|_| {
                    ConfigError::Wrong(format!("PORT is {port:?}; it must be a port number"))
                })?;
                SocketAddr::new(everywhere, port)
            }
        };
        let tls = match (
            args.tls_cert.or(file.http.tls_cert),
            args.tls_key.or(file.http.tls_key),
        ) {
            (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
            (None, None) => None,
            _ => {
                return Err(ConfigError::Wrong(
                    "tls_cert and tls_key go together; give both or none".to_owned(),
                ));
            }
        };
        let mut advertise = non_empty(args.advertise, file.media.advertise);
        if advertise.is_empty()
            && let Some(list) = env("NAT_1TO1_IPS")
        {
            advertise = list
                .split(',')
                .map(|ip| ip.trim().to_owned())
                .filter(|ip| !ip.is_empty())
                .collect();
            if !advertise.is_empty() {
                media_default.set_ip(everywhere);
            }
        }
        let auth = auth::merge(args.auth, file.auth, http, env)?;
        let shards = match args.shards.or(file.media.shards) {
            Some(shards @ 1..=64) => shards,
            Some(shards) => {
                return Err(ConfigError::Wrong(format!(
                    "shards is {shards}; it must be 1 to 64"
                )));
            }
            None => {
                std::thread::available_parallelism().map_or(1, |cores| cores.get().min(64) as u8)
            }
        };
        let ordinal = file
            .cluster
            .ordinal
            .or_else(|| env("POD_NAME")?.rsplit_once('-')?.1.parse().ok())
            .unwrap_or(0);
        if ordinal > media_core::ids::MAX_ORDINAL {
            return Err(ConfigError::Wrong(format!(
                "the ordinal is {ordinal}; it must be at most {}",
                media_core::ids::MAX_ORDINAL
            )));
        }
        let live = LiveFile {
            path: args.config,
            level: args.log_level.is_none(),
            sample_percent: args.trace.has_no_share(),
        };
        let scrape = file.metrics.scrape_interval_seconds.unwrap_or(15);
        Ok(Config {
            http,
            metrics_listen: args.metrics_listen.or(file.http.metrics_listen),
            tls,
            cors_origins: non_empty(args.cors_origin, file.http.cors_origins),
            http_connections: file.http.connections.unwrap_or(4096),
            media: args
                .media_listen
                .or(file.media.listen)
                .unwrap_or(media_default),
            media_tcp: args.media_tcp.or(file.media.tcp).unwrap_or(true),
            advertise,
            addresses_file: file.media.addresses_file,
            node_name: env("NODE_NAME").unwrap_or_default(),
            shards,
            ordinal,
            cluster_key_file: file.cluster.key_file,
            cluster_uid: file.cluster.uid.unwrap_or_default(),
            auth,
            ca_file: args.ca_file.or(file.outbound.ca_file),
            limits: Limits {
                sessions_per_pod: args
                    .sessions_per_pod
                    .or(file.limits.sessions_per_pod)
                    .unwrap_or(2000),
                viewers_per_device: args
                    .viewers_per_device
                    .or(file.limits.viewers_per_device)
                    .unwrap_or(8000),
                video_kbps: file.limits.video_kbps.unwrap_or(12_000),
                idle_publisher_kbps: file.limits.idle_publisher_kbps.filter(|kbps| *kbps > 0),
                max_session: args
                    .max_session_seconds
                    .or(file.limits.max_session_seconds)
                    .filter(|seconds| *seconds > 0)
                    .map(|seconds| Duration::from_secs(seconds.into())),
            },
            turn: turn::merge(args.turn, file.turn, env)?,
            events: events::merge(args.events, file.events, env)?,
            recording: recording::merge(args.recording, file.recording, env)?,
            series: SeriesPolicy {
                per_session: file.metrics.per_session_series.unwrap_or(true),
                max_per_family: file.metrics.max_series_per_family.unwrap_or(20_000),
                session_grace: Duration::from_secs(2 * scrape),
            },
            drain_timeout: Duration::from_secs(
                file.drain.timeout_seconds.unwrap_or(DEFAULT_DRAIN_SECONDS),
            ),
            drain_file: file.drain.file.unwrap_or_else(|| POD_DRAIN.into()),
            log_level: args
                .log_level
                .or(file.log.level)
                .or_else(|| env("LOG_LEVEL"))
                .unwrap_or_else(|| DEFAULT_LEVEL.to_owned()),
            trace: trace::merge(args.trace, file.trace, env)?,
            live,
            pod: env("POD_NAME").unwrap_or_default(),
            namespace: env("POD_NAMESPACE").unwrap_or_default(),
            #[cfg(feature = "demo")]
            demo: args.demo,
        })
    }
}

/// Key, issuer and audience that `token` signs with: what was given, else what a server on this
/// machine or in this pod has.
///
/// # Errors
/// [`ConfigError`] when there is no key.
pub fn token_signer(args: &TokenArgs) -> Result<JwtConfig, ConfigError> {
    let file = match &args.config {
        Some(path) => File::read(path)?,
        None if Path::new(POD_CONFIG).exists() => File::read(Path::new(POD_CONFIG))?,
        None => File::default(),
    };
    auth::signer(args, file.auth)
}

fn non_empty(first: Vec<String>, second: Vec<String>) -> Vec<String> {
    if first.is_empty() { second } else { first }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn load(
        args: &[&str],
        file: &str,
        env: &[(&str, &str)],
    ) -> Result<Config, ConfigError> {
        let line = ["media-server"].iter().chain(args);
        let Command::Serve(args) = Cli::parse_from(line).command() else {
            panic!("serve is the default command");
        };
        let file = toml::from_str(file).expect("a right file");
        Config::merge(*args, file, &|name| {
            env.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_default_is_loopback_without_tokens() {
        let config = load(&[], "", &[]).expect("defaults are right");
        assert_eq!(config.http.to_string(), "127.0.0.1:30006");
        assert_eq!(config.media.to_string(), "127.0.0.1:8443");
        assert!(config.auth.is_none());
    }

    #[test]
    fn a_flag_beats_the_file_which_beats_the_default() {
        let file = "[http]\nlisten = \"127.0.0.1:1\"\nmetrics_listen = \"127.0.0.1:2\"";
        let config = load(&["--http-listen", "127.0.0.1:9"], file, &[]).expect("right");
        assert_eq!(config.http.port(), 9);
        assert_eq!(config.metrics_listen.map(|a| a.port()), Some(2));
    }

    #[test]
    fn the_file_that_the_operator_writes_is_read_whole() {
        let file = include_str!("../../tests/golden/operator/config.toml");
        let env = [("POD_NAME", "studio-0"), ("NODE_NAME", "node-a")];
        let config = load(&[], file, &env).expect("the operator writes what is right");
        assert_eq!(config.http.to_string(), "[::]:8080");
        assert_eq!(config.metrics_listen.map(|a| a.port()), Some(9090));
        assert_eq!(config.cors_origins, ["https://app.example.com"]);
        assert_eq!(config.shards, 2);
        assert_eq!(config.cluster_uid, "delta");
        assert_eq!(config.limits.sessions_per_pod, 500);
        assert_eq!(config.limits.viewers_per_device, 100);
        assert_eq!(config.limits.video_kbps, 6000);
        assert_eq!(config.limits.idle_publisher_kbps, Some(150));
        assert_eq!(config.limits.max_session, Some(Duration::from_secs(86_400)));
        assert_eq!(config.turn.urls.len(), 2);
        assert_eq!(config.turn.ttl, Duration::from_secs(3600));
        assert!(config.turn.secret_file.is_some());
        let webhook = config.events.webhook.expect("a webhook");
        assert_eq!(webhook.url.as_str(), "https://events.example.com/media");
        assert!(config.events.amqp.is_some());
        assert_eq!(config.series.session_grace, Duration::from_secs(60));
        assert!(!config.series.per_session);
        assert_eq!(config.series.max_per_family, 5000);
        assert_eq!(config.log_level, "debug");
        let trace = config.trace.expect("a collector");
        let endpoint = "http://otel-collector.monitoring:4318/v1/traces";
        assert_eq!(
            (trace.endpoint.as_str(), trace.sample_percent),
            (endpoint, 25)
        );
        let auth = config.auth.expect("tokens are asked for");
        assert_eq!(auth.issuer, "https://login.example.com");
        assert_eq!(auth.audience, "studio");
        let keys = auth.jwks_url.as_ref().map(|url| url.as_str());
        assert_eq!(keys, Some("https://login.example.com/jwks.json"));
        assert_eq!(auth.tenant_claim.as_deref(), Some("tenantId"));
        assert!(auth.hmac.is_some() && !auth.enforce_grants);
    }

    #[test]
    fn no_tokens_on_an_address_that_others_reach_are_refused() {
        for args in [
            &["--http-listen", "0.0.0.0:80", "--auth", "none"][..],
            &["--http-listen", "0.0.0.0:80"],
            &["--http-listen", "[::]:80"],
            &["--auth", "jwt"],
        ] {
            assert!(
                matches!(load(args, "", &[]), Err(ConfigError::Wrong(_))),
                "{args:?}"
            );
        }
        let insist = [
            "--http-listen",
            "0.0.0.0:80",
            "--auth",
            "none",
            "--insecure-no-auth",
        ];
        assert!(load(&insist, "", &[]).expect("insisted").auth.is_none());
    }

    #[test]
    fn the_names_of_the_replaced_service_keep_working() {
        let env = [
            ("PORT", "3003"),
            ("JWT_SECRET", "s3cret"),
            ("NAT_1TO1_IPS", "192.0.2.1, 192.0.2.2"),
        ];
        let config = load(&[], "", &env).expect("right");
        assert_eq!(config.http.to_string(), "[::]:3003");
        assert_eq!(config.media.to_string(), "[::]:8443");
        assert_eq!(config.advertise, ["192.0.2.1", "192.0.2.2"]);
        assert!(matches!(
            config.auth.expect("a key means tokens").hmac,
            Some(KeySource::Text(_))
        ));
    }

    #[test]
    fn the_names_of_the_replaced_service_mean_every_address_unless_another_is_given() {
        let listens = |args: &[&str], env: &[(&str, &str)]| {
            let secret = [("JWT_SECRET", "s3cret")];
            let config = load(args, "", &[env, &secret].concat()).expect("right");
            (config.http.to_string(), config.media.to_string())
        };
        let (loopback, port) = (["127.0.0.1:30006", "127.0.0.1:8443"], ("PORT", "3003"));
        let pair = |[http, media]: [&str; 2]| (http.to_owned(), media.to_owned());
        assert_eq!(listens(&[], &[]), pair(loopback), "neither is set");
        assert_eq!(listens(&[], &[port]), pair(["[::]:3003", "[::]:8443"]));
        let nat = ("NAT_1TO1_IPS", "192.0.2.1");
        assert_eq!(listens(&[], &[nat]), pair([loopback[0], "[::]:8443"]));
        let given = ["--http-listen", "127.0.0.1:1"];
        assert_eq!(listens(&given, &[port]), pair([given[1], loopback[1]]));
        let given = ["--media-listen", "127.0.0.1:2"];
        assert_eq!(listens(&given, &[port, nat]), pair(["[::]:3003", given[1]]));
        let given = ["--http-listen", "0.0.0.0:80"];
        let hidden = load(&given, "", &[("JWT_SECRET", "s3cret")]).expect("right");
        assert!(hidden.hides_media(), "that is told of at the start");
        let given = ["--advertise", "203.0.113.7"];
        let hidden = load(&given, "", &[]).expect("right");
        assert!(hidden.hides_media(), "behind a proxy, too");
        let error = load(&[], "", &[port]).expect_err("anybody could use it");
        assert!(error.to_string().contains("set JWT_SECRET"), "{error}");
    }

    #[test]
    fn the_ordinal_is_the_end_of_the_pod_name() {
        let config = load(&[], "", &[("POD_NAME", "cam-7")]).expect("right");
        assert_eq!(config.ordinal, 7);
        let config = load(&[], "[cluster]\nordinal = 3", &[("POD_NAME", "cam-7")]).expect("right");
        assert_eq!(config.ordinal, 3);
    }

    /// By these words the operator knows that its configuration is for another version.
    #[test]
    fn a_key_that_the_file_does_not_have_is_refused_by_name() {
        let error = toml::from_str::<File>("[http]\nlisten_on = \"x\"").expect_err("unknown key");
        let said = error.to_string();
        assert!(said.contains("unknown field `listen_on`"), "{said}");
    }

    fn token_args(args: &[&str]) -> Result<TokenArgs, clap::Error> {
        let line = ["media-server", "token", "--device", "cam-1"];
        match Cli::try_parse_from(line.iter().chain(args))?.command() {
            Command::Token(args) => Ok(*args),
            Command::Serve(_) => panic!("token was named"),
        }
    }

    #[test]
    fn a_token_is_for_the_issuer_and_audience_that_were_given() {
        let args = ["--grant", "view", "--jwt-hmac-file", "key"];
        let named = ["--jwt-issuer", "i", "--jwt-audience", "a"];
        let signer = token_signer(&token_args(&[&args[..], &named].concat()).expect("right"));
        let signer = signer.expect("a key");
        assert_eq!((&*signer.issuer, &*signer.audience), ("i", "a"));
    }

    #[test]
    fn a_token_that_would_grant_nothing_is_not_made() {
        for grant in ["write", "all"] {
            assert!(token_args(&["--grant", grant]).is_err(), "{grant}");
        }
    }

    #[test]
    fn a_token_finds_the_configuration_where_the_operator_mounts_it() {
        let golden = include_str!("../../tests/golden/operator/minimal.yaml");
        assert!(golden.contains(&format!("value: {POD_CONFIG}\n")));
    }

    #[test]
    fn a_listen_address_may_have_brackets_in_either_family() {
        for (text, wanted) in [
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("[192.0.2.1]:80", "192.0.2.1:80"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
        ] {
            let found = listen_address(text).map(|address| address.to_string());
            assert_eq!(found.as_deref(), Ok(wanted), "{text}");
        }
        for wrong in [
            "192.0.2.1",
            "[192.0.2.1]",
            "[]:80",
            "2001:db8::1:80",
            "host:80",
        ] {
            assert!(listen_address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lifetimes_are_read_with_their_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        assert!(duration("1d").is_err() && duration("").is_err() && duration("h").is_err());
    }

    #[test]
    fn secrets_are_not_shown_by_debug() {
        let config = load(&[], "", &[("JWT_SECRET", "s3cret")]).expect("right");
        assert!(!format!("{config:?}").contains("s3cret"));
    }

    #[test]
    fn a_live_setting_that_changes_leaves_the_other_to_who_said_it() {
        let path =
            std::env::temp_dir().join(format!("media-server-live-{}.toml", std::process::id()));
        let file = path.display().to_string();
        let says = |text: &str| std::fs::write(&path, text).expect("it can be written");
        says("");
        let env = [
            ("LOG_LEVEL", "debug"),
            ("TRACING_ENABLED", "true"),
            ("JAEGER_ENDPOINT", "jaeger:4318"),
        ];
        let config = load(&["--config", &file], "", &env).expect("right");
        assert_eq!(config.log_level, "debug");
        assert_eq!(config.trace.map(|trace| trace.sample_percent), Some(100));
        let mut last = config.live.read().expect("right");
        let mut changed = |text: &str| {
            says(text);
            let read = config.live.read().expect("right");
            let changed = read.since(&last);
            last = read;
            (changed.log_level, changed.sample_percent)
        };
        assert_eq!(
            changed("[log]\nlevel = \"warn\""),
            (Some("warn".to_owned()), None)
        );
        let both = "[log]\nlevel = \"warn\"\n[trace]\nsample_percent = 50";
        assert_eq!(changed(both), (None, Some(50)));
        assert_eq!(changed(both), (None, None));
        std::fs::remove_file(&path).expect("it is there");
    }
}
