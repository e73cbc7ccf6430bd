//! The handle to the shard threads: open and close sessions, hear what became of them.
//!
//! Each shard is one thread that owns a UDP socket and the sessions placed on it; nothing else
//! touches a session. Calls go through a bounded mailbox and are answered by the thread. Called by
//! the HTTP side; the threads are in `shard/worker.rs`.

mod admission;
mod away;
mod bandwidth;
mod bounds;
mod connections;
mod control;
mod devices;
mod heartbeat;
mod link;
mod placement;
mod routes;
mod table;
mod tap;
mod worker;

pub use bounds::{Bound, BoundHits};
pub use control::{ControlCounts, Outcome};
pub use media_core::cells::{SessionCells, ShardCells};
pub use tap::{Tap, Tapping, tap};

use admission::Admission;
use heartbeat::Heartbeat;
use media_core::channel::{MAX_MESSAGE, Message};
use media_core::clock::WallClock;
use media_core::dtls::{Identity, IdentityError};
use media_core::ids::{IcePwd, SessionId, Ufrag};
use media_core::negotiated::{Codec, Fingerprint, Negotiated, Role};
use media_core::output::End;
use media_core::session::Credentials;
use media_wire::{TcpListener, UdpSocket, Waiter, Waker};
use placement::Placement;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};

/// Commands that wait for one shard. A burst beyond it is answered 503 at once, which is better
/// than an answer after the client gave up.
const MAILBOX: usize = 256;
/// A shard that does not answer within this is overloaded; the caller stops waiting.
const REPLY_WITHIN: Duration = Duration::from_secs(2);
/// Events that wait for the HTTP side. A shard keeps those that do not fit, one per session at most.
const EVENTS: usize = 1024;
/// A shard beats with every batch of 64 datagrams, and twice a second without any; one that has not
/// for this long hangs, however much there is to do.
const STUCK_AFTER: Duration = Duration::from_secs(5);
/// When a call that has to come through is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Ids carry the shard in six bits.
const MAX_SHARDS: u8 = 64;

#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// Address of the media sockets; port 0 takes a free one.
    pub listen: SocketAddr,
    /// TCP connections that all shards together may hold, on the same port; 0: none is listened for.
    pub tcp_connections: usize,
    /// Threads, 1 to 64.
    pub shards: u8,
    /// Key of the tag in every ufrag.
    pub ufrag_key: [u8; 16],
    /// Payload bytes of recent media that all shards together may hold, for joins and repair.
    pub cache_bytes: usize,
    /// Bandwidth of one video that publishers are asked to keep.
    pub video_kbps: u32,
    /// The same for all video of a publisher that nobody watches; `None`: it is left alone.
    pub idle_publisher_kbps: Option<u32>,
}

/// A session as signalling agreed on it.
pub struct OpenSession {
    /// Its shard field says where the session goes, see [`Shards::place`].
    pub id: SessionId,
    pub ufrag: Ufrag,
    pub pwd: IcePwd,
    pub device: Arc<str>,
    pub negotiated: Negotiated,
    /// A viewer may control its device.
    pub may_control: bool,
    pub cells: Arc<SessionCells>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Keys exist: media can flow.
    Connected { id: SessionId },
    /// The first packet came of a publisher then, or went to a viewer. At most one for each session, within a
    /// second of it.
    MediaBegan { id: SessionId, at: Instant },
    /// The session is gone. Exactly one for each session that was opened.
    Closed { id: SessionId, reason: CloseReason },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    Normal,
    ErrorCleanup,
    IceFailed,
    SetupTimeout,
    Superseded,
    Drained,
    PublisherGone,
    /// It lived as long as a session may.
    Limit,
    /// It was of no use for half an hour, though its peer was there.
    Inactive,
}

impl CloseReason {
    /// Value of the `reason` label.
    pub fn as_str(self) -> &'static str {
        match self {
            CloseReason::Normal => "normal_close",
            CloseReason::ErrorCleanup => "error_cleanup",
            CloseReason::IceFailed => "ice_failed",
            CloseReason::SetupTimeout => "setup_timeout",
            CloseReason::Superseded => "superseded",
            CloseReason::Drained => "drained",
            CloseReason::PublisherGone => "publisher_gone",
            CloseReason::Limit => "limit",
            CloseReason::Inactive => "inactive_timeout",
        }
    }
}

impl From<End> for CloseReason {
    fn from(end: End) -> CloseReason {
        match end {
            End::PeerClosed => CloseReason::Normal,
            End::IceFailed => CloseReason::IceFailed,
            End::SetupTimeout => CloseReason::SetupTimeout,
            End::PublisherGone => CloseReason::PublisherGone,
            End::Failed => CloseReason::ErrorCleanup,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("shards must be 1 to {MAX_SHARDS}, not {shards}")]
    Shards { shards: u8 },
    #[error("failed to bind the media socket to {listen}/{protocol}")]
    Bind {
        listen: SocketAddr,
        protocol: &'static str,
        source: std::io::Error,
    },
    #[error("failed to start shard {shard}")]
    Thread { shard: u8, source: std::io::Error },
    #[error("failed to make the DTLS identity")]
    Identity { source: IdentityError },
}

/// Why a shard did not answer a call. In doubt (`Timeout`) the call may still take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MailboxError {
    #[error("the shard has too many calls waiting")]
    Full,
    #[error("the shard did not answer in time")]
    Timeout,
    #[error("the shard has stopped")]
    Stopped,
}

/// What the handle asks of a shard.
enum Command {
    Open(Box<OpenSession>, oneshot::Sender<()>),
    /// The answer is whether there is such a session.
    Call(SessionId, Call, oneshot::Sender<bool>),
    Record(RecordChange),
    Shutdown(oneshot::Sender<()>),
}

/// What the handle asks of a device's recordings.
enum RecordChange {
    /// The answer is the codec of the device's video, from the shard that has it.
    Begin(Arc<str>, Tap, oneshot::Sender<Option<Codec>>),
    End(Arc<str>, Tap),
}

/// What the handle asks of one session.
enum Call {
    Restart(Box<Credentials>),
    PinLayer(LayerPin),
    Control(ControlMessage),
    Close(CloseReason),
}

/// A control message that came another way than the viewer's data channel.
pub struct ControlMessage {
    message: Message,
    /// Where answers to it go; what finds no room is lost and counted.
    answers: mpsc::Sender<Box<[u8]>>,
}

impl ControlMessage {
    /// One that the channel would not take is answered as there, and is not carried to the shard.
    pub fn new(bytes: Box<[u8]>, answers: mpsc::Sender<Box<[u8]>>) -> ControlMessage {
        let message = match bytes.len() {
            0..=MAX_MESSAGE => Message::Whole(bytes),
            _ => Message::TooLarge,
        };
        ControlMessage { message, answers }
    }
}

/// What a viewer asks for itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LayerPin {
    /// RID of a simulcast layer; `None` leaves the choice to the server.
    pub rid: Option<Box<str>>,
    /// Highest temporal layer; `None` is all.
    pub max_temporal: Option<u8>,
}

/// Handle to all shards of the process; cheap to clone.
#[derive(Clone)]
pub struct Shards {
    inner: Arc<Inner>,
}

struct Inner {
    mailboxes: Vec<(SyncSender<Command>, Waker)>,
    cells: Arc<[Arc<ShardCells>]>,
    bounds: Vec<Arc<BoundHits>>,
    control: Vec<Arc<ControlCounts>>,
    heartbeats: Vec<Arc<Heartbeat>>,
    placement: Arc<Placement>,
    fingerprint: Fingerprint,
    clock: WallClock,
    local_addr: SocketAddr,
}

impl Shards {
    /// Binds the sockets and starts the threads.
    ///
    /// # Errors
    /// [`StartError`]; threads already started end at once.
    pub fn start(config: ShardConfig) -> Result<(Shards, mpsc::Receiver<Event>), StartError> {
        if config.shards == 0 || config.shards > MAX_SHARDS {
            return Err(StartError::Shards {
                shards: config.shards,
            });
        }
        let identity = Identity::generate().map_err(|source| StartError::Identity { source })?;
        let now = Instant::now();
        let clock = WallClock::new(
            now,
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        );
        let (events, events_out) = mpsc::channel(EVENTS);
        let placement = Arc::new(Placement::new(config.shards));
        // All sockets before any thread: the kernel spreads clients over those that are there.
        let mut sockets = vec![Sockets::bind_first(&config)?];
        let local_addr = sockets[0].addr;
        for _ in 1..config.shards {
            sockets.push(Sockets::bind(local_addr, &config)?);
        }
        let admission = Admission::new(config.tcp_connections, config.shards);
        let (links, inboxes): (Vec<_>, Vec<_>) = sockets
            .iter()
            .map(|sockets| link::link(sockets.waiter.waker()))
            .unzip();
        let mut mailboxes = Vec::new();
        let cells: Arc<[_]> = sockets
            .iter()
            .map(|_| Arc::new(ShardCells::default()))
            .collect();
        let mut bounds = Vec::new();
        let mut control = Vec::new();
        let mut heartbeats = Vec::new();
        for (shard, (sockets, inbox)) in (0..).zip(sockets.into_iter().zip(inboxes)) {
            let Sockets {
                udp: socket,
                tcp: listener,
                waiter,
                ..
            } = sockets;
            let (mailbox, commands) = sync_channel(MAILBOX);
            mailboxes.push((mailbox, waiter.waker()));
            let heartbeat = Arc::new(Heartbeat::new(Instant::now()));
            heartbeats.push(heartbeat.clone());
            let hits = Arc::new(BoundHits::default());
            bounds.push(hits.clone());
            let counts = Arc::new(ControlCounts::default());
            control.push(counts.clone());
            let worker = worker::Worker {
                shard,
                socket,
                listener,
                admission: admission.clone(),
                waiter,
                commands,
                inbox,
                links: links.clone(),
                events: events.clone(),
                placement: placement.clone(),
                cells: cells[usize::from(shard)].clone(),
                all_cells: cells.clone(),
                bounds: hits,
                control: counts,
                heartbeat,
                identity: identity.clone(),
                clock,
                ufrag_key: config.ufrag_key,
                cache_bytes: config.cache_bytes / usize::from(config.shards),
                video_limit: u64::from(config.video_kbps) * 1_000,
                idle_limit: config
                    .idle_publisher_kbps
                    .map(|kbps| u64::from(kbps) * 1_000),
            };
            std::thread::Builder::new()
                .name(format!("shard-{shard}"))
                .spawn(move || worker.run())
                .map_err(|source| StartError::Thread { shard, source })?;
        }
        let inner = Inner {
            mailboxes,
            cells,
            bounds,
            control,
            heartbeats,
            placement,
            fingerprint: identity.fingerprint(),
            clock,
            local_addr,
        };
        Ok((
            Shards {
                inner: Arc::new(inner),
            },
            events_out,
        ))
    }

    /// SHA-256 of the DTLS certificate of this boot.
    pub fn fingerprint(&self) -> Fingerprint {
        self.inner.fingerprint
    }

    /// The clock that all sessions share.
    pub fn clock(&self) -> WallClock {
        self.inner.clock
    }

    /// Address of the media socket, with its real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.local_addr
    }

    /// The shard that a new session of `device` should carry in its id: viewers join the
    /// publisher's shard up to 50, everything else goes to the least loaded one.
    pub fn place(&self, role: Role, device: &str) -> u8 {
        self.inner.placement.place(role, device, &self.inner.cells)
    }

    /// Hands a session to its shard; on return it answers checks.
    ///
    /// # Errors
    /// [`MailboxError`]; after `Timeout` the caller closes the session to be sure.
    pub async fn open(&self, open: OpenSession) -> Result<(), MailboxError> {
        let (reply, answer) = oneshot::channel();
        self.send(open.id, Command::Open(Box::new(open), reply))?;
        wait(answer).await
    }

    /// Gives a session the ICE credentials of a restart; `false` if there is none of that id. On
    /// return it answers checks with them, and with those before until one came with the new.
    ///
    /// # Errors
    /// [`MailboxError`]; the credentials before are as good as ever. After `Timeout` the new ones may
    /// be too.
    pub async fn restart(
        &self,
        id: SessionId,
        credentials: Credentials,
    ) -> Result<bool, MailboxError> {
        self.call(id, Call::Restart(Box::new(credentials))).await
    }

    /// Tells a viewer's session which layer its viewer asks for; `false` if there is none of that id.
    ///
    /// # Errors
    /// [`MailboxError`]; after `Timeout` it may take effect.
    pub async fn pin_layer(&self, id: SessionId, pin: LayerPin) -> Result<bool, MailboxError> {
        self.call(id, Call::PinLayer(pin)).await
    }

    /// Takes a control message as if it had come on the session's data channel; `false` if there is no session of
    /// that id. Answers, errors too, go where the session's last message came from.
    ///
    /// # Errors
    /// [`MailboxError`]; after `Timeout` it may take effect.
    pub async fn handle_control(
        &self,
        id: SessionId,
        message: ControlMessage,
    ) -> Result<bool, MailboxError> {
        self.call(id, Call::Control(message)).await
    }

    /// Ends a session; `false` if there is none of that id. Its [`Event::Closed`] follows.
    ///
    /// # Errors
    /// [`MailboxError`]; the session may live on.
    pub async fn close(&self, id: SessionId, reason: CloseReason) -> Result<bool, MailboxError> {
        self.call(id, Call::Close(reason)).await
    }

    /// Gives a recording the media of a device from now on, wherever it is published. Returns the codec
    /// of its video, if some has come.
    ///
    /// # Errors
    /// [`MailboxError`]; some shards may have it, so the caller ends it.
    pub async fn record(
        &self,
        device: &Arc<str>,
        tap: &Tap,
    ) -> Result<Option<Codec>, MailboxError> {
        let mut codec = None;
        for shard in 0..self.inner.mailboxes.len() {
            let (reply, answer) = oneshot::channel();
            let begin = RecordChange::Begin(device.clone(), tap.clone(), reply);
            self.send_to(shard, Command::Record(begin))?;
            codec = codec.or(wait(answer).await?);
        }
        Ok(codec)
    }

    /// Ends that, on every shard.
    pub async fn end_recording(&self, device: &Arc<str>, tap: &Tap) {
        for shard in 0..self.inner.mailboxes.len() {
            let end = || RecordChange::End(device.clone(), tap.clone());
            while let Err(MailboxError::Full) = self.send_to(shard, Command::Record(end())) {
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }

    /// Counters, one entry per shard.
    pub fn cells(&self) -> &[Arc<ShardCells>] {
        &self.inner.cells
    }

    /// How often bounded tables had no room, one entry per shard.
    pub fn bounds(&self) -> &[Arc<BoundHits>] {
        &self.inner.bounds
    }

    /// What became of control messages, one entry per shard.
    pub fn control(&self) -> &[Arc<ControlCounts>] {
        &self.inner.control
    }

    /// Shards that have not got on with their work for 5 s. Asks nothing of them, so that load can't
    /// look like a fault and the question costs them nothing.
    pub fn stuck(&self, now: Instant) -> Vec<usize> {
        let beats = self.inner.heartbeats.iter().enumerate();
        beats
            .filter(|(_, beat)| beat.age(now) > STUCK_AFTER)
            .map(|(shard, _)| shard)
            .collect()
    }

    /// Ends every session as drained and stops the threads; returns when their events are out, so
    /// somebody must still take them.
    pub async fn shutdown(&self) {
        // All at once: one that hangs takes no time from the others.
        let each = self.inner.mailboxes.iter().map(async |(mailbox, waker)| {
            let (reply, answer) = oneshot::channel();
            let (mailbox, waker) = (mailbox.clone(), waker.clone());
            // Blocks only while the mailbox is full.
            let sent = tokio::task::spawn_blocking(move || {
                mailbox
                    .send(Command::Shutdown(reply))
                    .map(|()| waker.wake())
            });
            if matches!(sent.await, Ok(Ok(()))) {
                let _ = answer.await;
            }
        });
        futures::future::join_all(each).await;
    }

    async fn call(&self, id: SessionId, call: Call) -> Result<bool, MailboxError> {
        let (reply, answer) = oneshot::channel();
        self.send(id, Command::Call(id, call, reply))?;
        wait(answer).await
    }

    fn send(&self, id: SessionId, command: Command) -> Result<(), MailboxError> {
        self.send_to(usize::from(id.shard()), command)
    }

    fn send_to(&self, shard: usize, command: Command) -> Result<(), MailboxError> {
        let mailboxes = &self.inner.mailboxes;
        let (mailbox, waker) = mailboxes.get(shard).ok_or(MailboxError::Stopped)?;
        mailbox.try_send(command).map_err(|e| match e {
            TrySendError::Full(_) => MailboxError::Full,
            TrySendError::Disconnected(_) => MailboxError::Stopped,
        })?;
        waker.wake();
        Ok(())
    }
}

/// What one shard listens on.
struct Sockets {
    udp: UdpSocket,
    tcp: Option<TcpListener>,
    addr: SocketAddr,
    waiter: Waiter,
}

/// Free UDP ports tried for one that is free for TCP as well.
const PORT_TRIES: u32 = 20;

impl Sockets {
    /// Takes a port that is free for both protocols, if none was asked for.
    fn bind_first(config: &ShardConfig) -> Result<Sockets, StartError> {
        for _ in 1..PORT_TRIES {
            match Self::bind(config.listen, config) {
                Err(StartError::Bind {
                    protocol: "tcp", ..
                }) if config.listen.port() == 0 => {}
                bound => return bound,
            }
        }
        Self::bind(config.listen, config)
    }

    fn bind(listen: SocketAddr, config: &ShardConfig) -> Result<Sockets, StartError> {
        let shared = config.shards > 1;
        let error = |protocol| {
            move |source| StartError::Bind {
                listen,
                protocol,
                source,
            }
        };
        let udp = UdpSocket::bind(listen, shared).map_err(error("udp"))?;
        let addr = udp.local_addr().map_err(error("udp"))?;
        let tcp = match config.tcp_connections {
            0 => None,
            _ => Some(TcpListener::bind(addr, shared).map_err(error("tcp"))?),
        };
        let waiter = Waiter::new(&udp).map_err(error("udp"))?;
        Ok(Sockets {
            udp,
            tcp,
            addr,
            waiter,
        })
    }
}

async fn wait<T>(answer: oneshot::Receiver<T>) -> Result<T, MailboxError> {
    match tokio::time::timeout(REPLY_WITHIN, answer).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(_)) => Err(MailboxError::Stopped),
        Err(_) => Err(MailboxError::Timeout),
    }
}

#[cfg(test)]
mod tests;
