//! Wires everything, runs it, and stops it in order.
//!
//! Owns what handlers share ([`App`]), the tasks that keep it fresh, and the end: not ready, wait for
//! sessions within a bound, close the rest as drained, let requests end, all of it within 30 s where nobody
//! has asked for more. Called by `lib.rs`.

mod connections;
mod ending;
mod live;
mod series;
mod ufrag_key;

use crate::addresses::{self, Addresses};
use crate::api;
use crate::api::count_setup;
use crate::auth::{Authorizer, KeyError};
use crate::cgroup;
use crate::config::Config;
use crate::drain::{self, Drain, DrainState};
use crate::event_streams::EventStreams;
use crate::events::{Events, EventsError};
use crate::limits::Limiter;
use crate::listener::{ListenError, Listener};
use crate::log::of_session;
use crate::metrics::Metrics;
use crate::outbound::OutboundError;
use crate::recording::{FolderError, Recordings};
use crate::registry::{Record, Registry, role_name};
use crate::resources::{self, Usage};
use crate::shard::{CloseReason, Event, ShardConfig, Shards, StartError};
use crate::sockets::{GOODBYE_WITHIN, Sockets};
use crate::trace::{Sender, Traces};
use crate::turn::{IceServers, SecretError};
use aws_lc_rs::rand;
use connections::Connections;
use live::Live;
use media_core::negotiated::Role;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// How often keys and live settings are read again.
const RELOAD_EVERY: Duration = Duration::from_secs(5);
/// How often the end of sessions is looked for while draining.
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(100);
/// Time for the shards to end their sessions; one that hangs has none.
const SHARDS_WITHIN: Duration = Duration::from_secs(2);
/// Time for recordings to be completed at the end: a slow disk has what is still in memory to take.
const RECORDINGS_WITHIN: Duration = Duration::from_secs(8);
/// Time for the shards' last events.
const EVENTS_WITHIN: Duration = Duration::from_secs(1);
/// Time for events that wait for their receivers.
const FLUSH_WITHIN: Duration = Duration::from_secs(8);
/// Time for the last spans to reach their collector, beside events.
const SPANS_WITHIN: Duration = Duration::from_secs(3);
/// Time for requests that are still running at the end.
const REQUESTS_WITHIN: Duration = Duration::from_secs(2);
/// Time for what waits for the disk, after all of it.
pub const DISK_WITHIN: Duration = Duration::from_secs(1);
/// All of it, once sessions had their time: a service manager kills after 30 s what has not ended.
const _: () = assert!(
    GOODBYE_WITHIN.as_secs()
        + SHARDS_WITHIN.as_secs()
        + RECORDINGS_WITHIN.as_secs()
        + EVENTS_WITHIN.as_secs()
        + FLUSH_WITHIN.as_secs()
        + REQUESTS_WITHIN.as_secs()
        + DISK_WITHIN.as_secs()
        <= 24
        && SPANS_WITHIN.as_secs() <= FLUSH_WITHIN.as_secs()
);
/// A set-up that takes longer has failed, whoever ends it: the objective of the indicator `setup`.
const CONNECTS_WITHIN: Duration = Duration::from_secs(10);
/// A device that asks anew after this time does so because its session did not connect.
const ASKS_ANEW_AFTER: Duration = Duration::from_secs(3);
/// A viewer that goes sooner has not waited long enough to say that there was nothing to see.
const SERVED_WITHIN: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("failed to start the shards")]
    Shards(#[from] StartError),
    #[error("failed to read the token key")]
    Key(#[from] KeyError),
    #[error("failed to read the TURN secret")]
    TurnSecret(#[from] SecretError),
    #[error("failed to prepare events")]
    Events(#[from] EventsError),
    #[error("failed to prepare traces")]
    Traces(#[from] OutboundError),
    #[error("failed to listen")]
    Listen(#[from] ListenError),
    #[error("failed to read the cluster key {path}")]
    ClusterKey {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the cluster key {path} has {bytes} bytes; at least 32 random ones are right")]
    ShortClusterKey { path: PathBuf, bytes: usize },
    #[error(transparent)]
    Recordings(#[from] FolderError),
    #[error("failed to listen for signals")]
    Signals(#[source] std::io::Error),
}

/// What all handlers share.
pub struct App {
    pub config: Config,
    pub shards: Shards,
    pub registry: Registry,
    pub auth: Authorizer,
    pub limiter: Limiter,
    pub ice_servers: IceServers,
    pub addresses: Addresses,
    pub metrics: Metrics,
    pub usage: Usage,
    pub event_streams: EventStreams,
    pub sockets: Sockets,
    /// Held from the look for a session whose name another takes until that one is admitted.
    pub naming: tokio::sync::Mutex<()>,
    /// Places of those who are told of all series.
    pub scrapes: Arc<tokio::sync::Semaphore>,
    pub events: Arc<Events>,
    pub recordings: Recordings,
    /// `None`: nobody is told of spans.
    pub traces: Option<Traces>,
    /// Key of the tags in ufrags.
    pub ufrag_key: [u8; 16],
    /// Differs at each start.
    pub boot: String,
    pub drain: Drain,
}

impl App {
    pub fn drain_state(&self) -> DrainState {
        let (publishers, viewers) = self.registry.totals();
        self.drain.state(publishers.saturating_add(viewers))
    }

    /// Why the process should get no new requests, if so.
    pub fn not_ready(&self) -> Option<&'static str> {
        if self.drain_state() != DrainState::Accepting {
            return Some(match self.drain.is_stopping() {
                true => "the server is stopping",
                false => "the server is draining",
            });
        }
        if self.addresses.current().is_empty() {
            return Some("no media address is known");
        }
        None
    }

    /// Random bytes of the system.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        random()
    }

    /// Makes the series of a device exist at 0, so that rates see its first session.
    pub fn births(&self, device: &str) {
        series::births(&self.metrics, device, Instant::now());
    }

    fn handle_event(&self, event: Event) {
        match event {
            Event::Connected { id } => {
                if let Some(record) = self.registry.connected(id) {
                    self.session_connected(&record);
                }
            }
            Event::MediaBegan { id, at } => {
                let Some(record) = self.registry.of_shard(id) else {
                    return;
                };
                if record.role() == Role::Viewer && record.viewing.begins() {
                    let time = at.saturating_duration_since(record.asked());
                    let family = "media_first_media_seconds";
                    self.metrics.observe(family, &[], time.as_secs_f64());
                }
                if let Some(trace) = record.trace.get() {
                    trace.media_began(at);
                }
            }
            Event::Closed { id, reason } => {
                // Unknown: its opening timed out, and nobody was told of it.
                if let Some(record) = self.registry.remove(id) {
                    self.event_streams.close_session(id);
                    self.session_closed(&record, reason, true);
                }
            }
        }
    }

    fn session_connected(&self, record: &Record) {
        count_setup(self, record.protocol, "connected");
        self.usage.count_setup(true);
        let kept = record.trace.get().filter(|trace| trace.is_sampled());
        self.metrics.observe_in_trace(
            "media_setup_seconds",
            &[role_name(record.role())],
            record.setting_up(Instant::now()).as_secs_f64(),
            kept.map(|trace| trace.trace_id()),
        );
        of_session!(info, record, "session connected");
    }

    /// Forgets a session that its shard may or may not have.
    pub fn forget(&self, record: &Record) {
        if self.registry.remove(record.id).is_some() {
            self.session_closed(record, CloseReason::ErrorCleanup, true);
        }
    }

    /// `begun`: there was an answer, so that the set-up was not only the client's to end.
    fn session_closed(&self, record: &Record, reason: CloseReason, begun: bool) {
        let device = record.device_label();
        self.metrics
            .count("media_sessions_closed_total", &[device, reason.as_str()]);
        self.metrics.observe(
            "media_session_duration_seconds",
            &[device],
            record.created.elapsed().as_secs_f64(),
        );
        if !record.connected() {
            let failed = begun && setup_failed(record, reason, Instant::now());
            count_setup(
                self,
                record.protocol,
                if failed { "failed" } else { "cancelled" },
            );
            if failed {
                self.usage.count_setup(false);
            }
        }
        if never_served(record) {
            let family = "media_viewers_without_media_total";
            self.metrics.count(family, &[]);
        }
        self.events.session_closed(record, reason);
        if let Some(trace) = record.trace.get() {
            trace.session_ended(reason.as_str());
        }
        let seconds = record.created.elapsed().as_secs();
        of_session!(
            info,
            record,
            reason = reason.as_str(),
            seconds,
            "session closed"
        );
    }
}

/// Whether a set-up that has ended without keys failed, and was not only given up by a client that is quick.
fn setup_failed(record: &Record, reason: CloseReason, now: Instant) -> bool {
    let took = record.setting_up(now);
    match reason {
        CloseReason::IceFailed | CloseReason::SetupTimeout | CloseReason::ErrorCleanup => true,
        CloseReason::Superseded => took >= ASKS_ANEW_AFTER,
        _ => took >= CONNECTS_WITHIN,
    }
}

/// Whether a viewer that could have had media was sent none for as long as nobody waits for it. Sound that came
/// without the video it takes is some.
fn never_served(record: &Record) -> bool {
    record.role() == Role::Viewer
        && record.connected()
        && record.viewing.is_owed()
        && record.cells.packets() == 0
        && record.asked().elapsed() >= SERVED_WITHIN
}

/// Recent media that may be held for joins and repair: a quarter of the memory.
fn cache_bytes() -> usize {
    let memory = cgroup::memory_bytes().unwrap_or(UNKNOWN_MEMORY);
    usize::try_from(memory / 4).unwrap_or(usize::MAX)
}

/// Where the system does not tell: the least that a pod is sensibly given.
const UNKNOWN_MEMORY: u64 = 512 << 20;

/// A started server: listening, not yet serving.
pub struct Server {
    app: Arc<App>,
    events: mpsc::Receiver<Event>,
    signalling: Listener,
    operations: Option<Listener>,
}

impl Server {
    /// Starts shards, reads keys and binds all addresses.
    ///
    /// # Errors
    /// [`AppError`] with what was attempted.
    pub async fn start(config: Config) -> Result<Server, AppError> {
        let connections = Connections::of(&config, resources::open_files_limit());
        let auth = Authorizer::new(config.auth.clone(), config.ca_file.as_deref())?;
        let ice_servers = IceServers::new(config.turn.clone())?;
        let ufrag_key = ufrag_key::derive(&config)?;
        let (shards, events) = Shards::start(ShardConfig {
            listen: config.media,
            tcp_connections: connections.media as usize,
            shards: config.shards,
            ufrag_key,
            cache_bytes: cache_bytes(),
            video_kbps: config.limits.video_kbps,
            idle_publisher_kbps: config.limits.idle_publisher_kbps,
        })?;
        let told = Arc::new(Events::start(&config.events, config.ca_file.as_deref())?);
        let recordings = Recordings::open(&config, shards.clone(), told.clone())?;
        let ca_file = config.ca_file.as_deref();
        let boot: String = random::<8>().iter().map(|b| format!("{b:02x}")).collect();
        let sender = Sender {
            pod: &config.pod,
            namespace: &config.namespace,
            boot: &boot,
        };
        let traces = config.trace.as_ref();
        let traces = traces.map(|trace| Traces::start(trace, &sender, ca_file));
        let traces = traces.transpose()?;
        let limits = config.limits;
        let app = Arc::new(App {
            registry: Registry::new(
                limits.sessions_per_pod,
                limits.viewers_per_device,
                config.series.max_per_family,
            ),
            metrics: Metrics::new(config.series.max_per_family),
            auth,
            limiter: Limiter::new(Instant::now()),
            ice_servers,
            addresses: Addresses::default(),
            usage: Usage::default(),
            event_streams: EventStreams::new(connections.event_streams as usize),
            naming: tokio::sync::Mutex::default(),
            scrapes: Arc::new(tokio::sync::Semaphore::new(api::SCRAPES)),
            sockets: Sockets::new(connections.websockets),
            events: told,
            recordings,
            traces,
            ufrag_key,
            boot,
            drain: Drain::default(),
            shards,
            config,
        });
        series::births_of_process(&app.metrics, Instant::now());
        addresses::refresh(&app.addresses, &app.config, app.shards.local_addr()).await;
        let together = app.config.metrics_listen.is_none();
        let signalling = Listener::bind(
            app.config.http,
            app.config.tls.as_ref(),
            api::signalling(&app, together),
            connections.http,
        )?;
        let operations = match app.config.metrics_listen {
            Some(address) => Some(Listener::bind(
                address,
                None,
                api::operations(&app),
                connections.http,
            )?),
            None => None,
        };
        Ok(Server {
            app,
            events,
            signalling,
            operations,
        })
    }

    /// Base URL of signalling, for whoever runs on the same machine.
    pub fn base_url(&self) -> String {
        let scheme = if self.app.config.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let address = self.signalling.local_addr().unwrap_or(self.app.config.http);
        format!("{scheme}://{address}")
    }

    /// Serves until SIGTERM or SIGINT, then stops in order.
    ///
    /// # Errors
    /// [`AppError::Signals`]
    pub async fn run(self) -> Result<(), AppError> {
        let base_url = self.base_url();
        #[cfg(feature = "demo")]
        let listen = self.signalling.local_addr().unwrap_or(self.app.config.http);
        let operations_at = self
            .operations
            .as_ref()
            .unwrap_or(&self.signalling)
            .local_addr()
            .unwrap_or(self.app.config.http);
        let Server {
            app,
            events,
            signalling,
            operations,
        } = self;
        tracing::info!(
            url = %base_url,
            media = %app.shards.local_addr(),
            operations = %operations_at,
            shards = app.config.shards,
            tokens = app.auth.asks_for_tokens(),
            "serving"
        );
        if app.config.hides_media() {
            tracing::warn!(
                "media listens on loopback alone, so nobody on another machine gets a picture; give --media-listen"
            );
        }
        let (stop, stopped) = watch::channel(false);
        let mut listeners = vec![tokio::spawn(signalling.serve(app.clone(), stopped.clone()))];
        if let Some(operations) = operations {
            listeners.push(tokio::spawn(operations.serve(app.clone(), stopped)));
        }
        let events = tokio::spawn(follow_events(app.clone(), events));
        let tasks = [
            tokio::spawn(resources::monitor(app.clone())),
            tokio::spawn(refresh_addresses(app.clone())),
            tokio::spawn(reload(app.clone())),
            tokio::spawn(follow_jwks(app.clone())),
            tokio::spawn(series::expire_series(app.clone())),
            tokio::spawn(drain::follow_annotation(app.clone())),
            tokio::spawn(ending::end_overdue_sessions(app.clone())),
        ];
        #[cfg(feature = "demo")]
        let demo = crate::demo::start(&app, listen);
        #[cfg(not(feature = "demo"))]
        let stop_demo = std::future::ready(());
        // First of all: its session would hold up the drain like any other.
        #[cfg(feature = "demo")]
        let stop_demo = async {
            if let Some(demo) = demo {
                demo.stop().await;
            }
        };
        wait_for_end(&app, stop_demo).await?;
        app.sockets.close().await;
        if timeout(SHARDS_WITHIN, app.shards.shutdown()).await.is_err() {
            tracing::error!("shards did not end their sessions");
        }
        // Nothing more comes, so what is written now is all.
        app.recordings.finish(RECORDINGS_WITHIN).await;
        let _ = timeout(EVENTS_WITHIN, events).await;
        ending::end_left(&app);
        for task in tasks {
            task.abort();
        }
        let spans = async {
            if let Some(traces) = &app.traces {
                traces.flush(SPANS_WITHIN).await;
            }
        };
        // Meanwhile the last figures can be asked for.
        tokio::join!(app.events.flush(FLUSH_WITHIN), spans);
        let _ = stop.send(true);
        let requests = futures::future::join_all(listeners);
        if timeout(REQUESTS_WITHIN, requests).await.is_err() {
            tracing::warn!("requests were still running at the end");
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// Returns when the process should end: after SIGTERM, once sessions have ended or the drain timeout
/// is over, of which a drain before the signal is a part; after SIGINT, or a second signal, at once.
/// `first` runs from the first signal on.
async fn wait_for_end(app: &App, first: impl Future<Output = ()>) -> Result<(), AppError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(AppError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AppError::Signals)?;
    let patient = tokio::select! {
        _ = terminate.recv() => true,
        _ = interrupt.recv() => false,
    };
    let since = app.drain.stop(Instant::now());
    let deadline = since + app.config.drain_timeout;
    let (publishers, viewers) = app.registry.totals();
    tracing::info!(publishers, viewers, "draining");
    tokio::select! {
        // Its server is this one, which answers: it takes a moment.
        _ = timeout(app.config.drain_timeout, first) => {}
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    }
    if !patient {
        return Ok(());
    }
    let mut look = tokio::time::interval(DRAIN_LOOK_EVERY);
    loop {
        tokio::select! {
            _ = look.tick() => {
                if app.registry.totals() == (0, 0) || Instant::now() >= deadline {
                    return Ok(());
                }
            }
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
    }
}

async fn follow_events(app: Arc<App>, mut events: mpsc::Receiver<Event>) {
    while let Some(event) = events.recv().await {
        app.handle_event(event);
    }
}

async fn refresh_addresses(app: Arc<App>) {
    let mut every = tokio::time::interval(addresses::REFRESH_EVERY);
    loop {
        every.tick().await;
        addresses::refresh(&app.addresses, &app.config, app.shards.local_addr()).await;
    }
}

async fn follow_jwks(app: Arc<App>) {
    if let Some(jwks) = app.auth.jwks() {
        jwks.follow().await;
    }
}

async fn reload(app: Arc<App>) {
    let mut live = Live::new(&app.config);
    let mut every = tokio::time::interval(RELOAD_EVERY);
    loop {
        every.tick().await;
        app.auth.reload();
        app.ice_servers.reload();
        live.look(&app);
    }
}

/// Random bytes of the system.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the system has random bytes");
    bytes
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::registry::Protocol;
    use crate::registry::tests::record;

    /// What a started server shares, without anybody who serves.
    pub(crate) async fn app() -> Arc<App> {
        app_with(&[]).await
    }

    /// The same with more arguments.
    pub(crate) async fn app_with(args: &[&str]) -> Arc<App> {
        let any_port = [
            "--http-listen",
            "127.0.0.1:0",
            "--media-listen",
            "127.0.0.1:0",
        ];
        let args = [&any_port[..], args].concat();
        let config = crate::config::tests::load(&args, "", &[]).expect("right");
        Server::start(config).await.expect("it starts").app
    }

    #[test]
    fn a_set_up_that_its_client_ends_has_failed_if_it_should_have_connected_by_then() {
        let record = record(1, Protocol::Whep, "cam");
        let failed = |reason, seconds| {
            setup_failed(
                &record,
                reason,
                record.asked() + Duration::from_secs(seconds),
            )
        };
        for reason in [
            CloseReason::IceFailed,
            CloseReason::SetupTimeout,
            CloseReason::ErrorCleanup,
        ] {
            assert!(failed(reason, 0), "{reason:?}");
        }
        assert!(!failed(CloseReason::Normal, 2));
        assert!(!failed(CloseReason::Normal, 9));
        assert!(failed(CloseReason::Normal, 10));
        assert!(failed(CloseReason::PublisherGone, 11));
        assert!(!failed(CloseReason::Superseded, 2));
        assert!(failed(CloseReason::Superseded, 3));
    }
}
