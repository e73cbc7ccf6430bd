//! One PeerConnection: its sockets, its certificate, its life from offer to close.
//!
//! It owns the `webrtc` connection and closes it when dropped (an open one that is only dropped
//! keeps its sockets and about 0.7 MB). It never speaks HTTP. `publisher` and `viewer` use it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Url;
use rtc::ice::mdns::MulticastDnsMode;
use rtc::interceptor::{
    NackGeneratorBuilder, NackResponderBuilder, ReceiverReportBuilder, SenderReportBuilder, Slot,
};
use rtc::peer_connection::configuration::RTCOfferOptions;
use rtc::peer_connection::configuration::interceptor_registry::{
    configure_twcc_receiver_only, configure_twcc_sender_only,
};
use rtc::peer_connection::transport::RTCDtlsTransportState;
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpHeaderExtensionCapability, RtpCodecKind,
};
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use webrtc::media_stream::track_remote::TrackRemote;
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler,
    RTCConfigurationBuilder, RTCIceConnectionState, RTCIceGatheringState, RTCPeerConnectionState,
    RTCSessionDescription, Registry, SettingEngineBuilder, SrtpProtectionProfile,
};

use crate::codec::Role;
use crate::in_order::{Arrival, InOrder};
use crate::reference_time::ReferenceTime;
use crate::repair::Repair;
use crate::stage::Staged;
use crate::tap::{PacketSink, Tap, TapShared};
use crate::tcp::{self, Carrier};
use crate::traffic::{Line, Loss, Traffic};
use crate::{ClientError, Codec, Control, Http, Resource, restart};

/// How a session's media is carried.
#[derive(Debug, Clone)]
pub struct Options {
    /// The SRTP profiles to offer, the preferred one first.
    pub srtp_profiles: Vec<SrtpProfile>,
    /// The local address for media. Default: loopback if the server's host is loopback, else
    /// every address of the machine.
    pub bind: Option<IpAddr>,
    /// Where media goes instead of to the candidates of the answer: towards a server behind a port
    /// mapping that its answers do not name, or through a link of a test.
    pub media_address: Option<SocketAddr>,
    /// Whether retransmissions of video have a stream of their own (RTX, RFC 4588). Those of simulcast
    /// layers have none.
    pub retransmission: bool,
    /// What media goes over.
    pub transport: Transport,
    /// Longest wait from the answer to a connected session.
    pub connect_timeout: Duration,
    /// Whether to offer transport-wide congestion control, and to send what it takes: numbers with the
    /// media of a publisher, feedback from a viewer. A publisher offers REMB too.
    pub transport_cc: bool,
    /// A publisher's simulcast layers of the video, by RID (RFC 8851), the preferred one first. None
    /// is a single stream.
    pub rids: Vec<String>,
    /// What the session's own sockets lose on purpose. Over UDP alone.
    pub loss: Option<Loss>,
    /// Where what crosses its sockets is counted, with that of other sessions whose options share it.
    pub traffic: Arc<Traffic>,
    /// Whether to open the data channel `control`.
    pub control: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            srtp_profiles: vec![SrtpProfile::AeadAes128Gcm, SrtpProfile::Aes128CmSha1_80],
            bind: None,
            media_address: None,
            retransmission: true,
            transport: Transport::Udp,
            connect_timeout: Duration::from_secs(15),
            transport_cc: false,
            rids: Vec::new(),
            loss: None,
            traffic: Arc::default(),
            control: false,
        }
    }
}

/// What the datagrams of a session go over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    /// One TCP connection to the server and nothing else, as from a network without UDP.
    Tcp,
}

/// A DTLS-SRTP protection profile (RFC 5764 §4.1.2, RFC 7714 §14.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SrtpProfile {
    AeadAes128Gcm,
    Aes128CmSha1_80,
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    Connecting,
    Connected,
    /// Consent is late; it may come back.
    Disconnected,
    Failed,
    Closed,
}

impl PeerState {
    /// Whether the session is over for good.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Failed | Self::Closed)
    }
}

pub(crate) struct Peer {
    pub connection: Arc<dyn PeerConnection>,
    /// With [`Options::control`].
    pub control: Option<Control>,
    pub tap: Arc<TapShared>,
    events: Arc<Events>,
    state: watch::Receiver<PeerState>,
    watch: Option<JoinHandle<()>>,
    transport: Transport,
    /// Over TCP, once there is an answer.
    carrier: Option<Carrier>,
    /// The answer that the session was set up with, or its last restart.
    answer: String,
    closed: bool,
}

struct Events {
    gathered: watch::Sender<bool>,
    state: watch::Sender<PeerState>,
    arrival: Arc<Arrival>,
    connected_at: OnceLock<Instant>,
    tracks: Mutex<Vec<Arc<dyn TrackRemote>>>,
    /// Wakes the connection for its timers.
    due: Arc<Notify>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Events {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.gathered.send_replace(true);
        }
    }

    async fn on_ice_connection_state_change(&self, state: RTCIceConnectionState) {
        // `webrtc` 0.21 makes its ClientHello here and sends it with the next tick of ICE, 200 ms later.
        if state == RTCIceConnectionState::Connected {
            self.due.notify_one();
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        let next = match state {
            RTCPeerConnectionState::Connected => {
                // Nothing is read between the datagram that ends the handshake and this.
                let at = self.arrival.last().unwrap_or_else(Instant::now);
                let _ = self.connected_at.set(at);
                PeerState::Connected
            }
            RTCPeerConnectionState::Disconnected => PeerState::Disconnected,
            RTCPeerConnectionState::Failed => PeerState::Failed,
            RTCPeerConnectionState::Closed => PeerState::Closed,
            _ => PeerState::Connecting,
        };
        self.state.send_if_modified(|state| {
            // Closed is for good: ICE runs into its own timeouts after the peer's goodbye.
            let changed = *state != PeerState::Closed && *state != next;
            if changed {
                *state = next;
            }
            changed
        });
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        self.tracks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(track);
    }
}

/// URI of the header extension that names a packet's layer (RFC 8852 §4).
pub(crate) const RID_EXTENSION: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";

/// Longest wait from the answer to an ICE restart to a connected session.
pub(crate) const RESTART_TIMEOUT: Duration = Duration::from_secs(15);

/// Ta of RFC 8445 §14.2, which browsers keep to; the library's own is four times that.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Checks of a candidate until it is given up: 1.4 s as before.
const CHECKS: u16 = 28;

/// Longest wait for the sockets to be bound: there is nothing to ask but the kernel.
const GATHER_TIMEOUT: Duration = Duration::from_secs(5);

/// Reports tell what the network lost, so what is repaired is put in its place behind them; and before
/// the NACKs, or it would be asked for again.
const REPAIR_SLOT: Slot = Slot::Custom(10_400);
const NACK_SLOT: Slot = Slot::Custom(10_500);
const REFERENCE_TIME_SLOT: Slot = Slot::Custom(11_500);

/// Behind every interceptor that acts on RTCP, so that the tap sees what they leave.
const TAP_SLOT: Slot = Slot::Custom(14_000);

impl Peer {
    /// Builds a connection for those codecs. No packet is sent before [`Self::accept_answer`].
    pub async fn new(
        role: Role,
        codecs: &[Codec],
        server: &Url,
        options: &Options,
        sink: Option<Arc<dyn PacketSink>>,
    ) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Peer {
            attempt: "build the connection",
            source,
        };
        if options.loss.is_some() && options.transport == Transport::Tcp {
            return Err(ClientError::LossOverTcp);
        }
        let mut media_engine = MediaEngine::default();
        for codec in codecs.iter().flat_map(|codec| codec.offered()) {
            let repair = codec
                .repair_parameters(role)
                .filter(|_| options.retransmission && options.rids.is_empty());
            for parameters in [Some(codec.parameters(role)), repair].into_iter().flatten() {
                media_engine
                    .register_codec(parameters, codec.rtp_kind())
                    .map_err(failed)?;
            }
        }
        if !options.rids.is_empty() {
            let uri = RID_EXTENSION.to_owned();
            media_engine
                .register_header_extension(
                    RTCRtpHeaderExtensionCapability { uri },
                    RtpCodecKind::Video,
                    None,
                )
                .map_err(failed)?;
        }
        let tap = Arc::new(TapShared::default());
        let arrival = Arc::new(Arrival::default());
        let registry = match role {
            Role::Publisher => Registry::new()
                .with(Slot::NackResponder, NackResponderBuilder::new().build())
                .with(Slot::SenderReport, SenderReportBuilder::new().build())
                .with(REFERENCE_TIME_SLOT, Staged::new(ReferenceTime::default())),
            Role::Viewer => Registry::new()
                .with(Slot::ReceiverReport, ReceiverReportBuilder::new().build())
                .with(
                    REPAIR_SLOT,
                    Staged::new(Repair::new(options.traffic.clone())),
                )
                .with(NACK_SLOT, NackGeneratorBuilder::new().build()),
        };
        let registry = match (options.transport_cc, role) {
            (false, _) => registry,
            (true, Role::Publisher) => {
                let remb = RTCPFeedback {
                    typ: "goog-remb".to_owned(),
                    parameter: String::new(),
                };
                media_engine.register_feedback(remb, RtpCodecKind::Video);
                configure_twcc_sender_only(registry, &mut media_engine).map_err(failed)?
            }
            (true, Role::Viewer) => {
                configure_twcc_receiver_only(registry, &mut media_engine).map_err(failed)?
            }
        }
        .with(
            TAP_SLOT,
            Staged::new(Tap::new(role, tap.clone(), arrival.clone(), sink)),
        );
        let profiles = options
            .srtp_profiles
            .iter()
            .map(|profile| match profile {
                SrtpProfile::AeadAes128Gcm => SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
                SrtpProfile::Aes128CmSha1_80 => SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
            })
            .collect();
        let (state_sender, state) = watch::channel(PeerState::Connecting);
        let due = Arc::new(Notify::new());
        let events = Arc::new(Events {
            gathered: watch::Sender::new(false),
            state: state_sender,
            arrival: arrival.clone(),
            connected_at: OnceLock::new(),
            tracks: Mutex::default(),
            due: due.clone(),
        });
        let connection = PeerConnectionBuilder::new()
            .with_configuration(RTCConfigurationBuilder::new().build())
            .with_media_engine(media_engine)
            .with_interceptor_registry(registry)
            .with_setting_engine(
                SettingEngineBuilder::new()
                    .with_srtp_protection_profiles(profiles)
                    .with_ice_connection_attempts(Some(CHECK_INTERVAL), Some(CHECKS))
                    // An ICE restart takes new sockets, as one on a new network does.
                    .with_discard_local_candidates_during_ice_restart(true)
                    // A server's candidates are addresses, and the socket for names (mDNS) can't be made
                    // on a machine without a default route.
                    .with_multicast_dns_mode(MulticastDnsMode::Disabled)
                    .build(),
            )
            .with_handler(events.clone())
            .with_runtime(Arc::new(InOrder::new(
                arrival,
                due,
                Line::new(options.traffic.clone(), options.loss),
            )))
            .with_udp_addrs(vec![local_address(server, options)])
            .build()
            .await
            .map_err(failed)?;
        Ok(Self {
            control: Control::create(&connection, options).await?,
            connection: Arc::new(connection),
            tap,
            events,
            state,
            watch: None,
            transport: options.transport,
            carrier: None,
            answer: String::new(),
            closed: false,
        })
    }

    /// The offer, with every candidate in it.
    pub async fn offer(&self) -> Result<String, ClientError> {
        self.offer_with(None).await
    }

    async fn offer_with(&self, options: Option<RTCOfferOptions>) -> Result<String, ClientError> {
        let failed = |source| ClientError::Peer {
            attempt: "make the offer",
            source,
        };
        let offer = self
            .connection
            .create_offer(options)
            .await
            .map_err(failed)?;
        self.connection
            .set_local_description(offer)
            .await
            .map_err(failed)?;
        let mut gathered = self.events.gathered.subscribe();
        // The sender lives in `events`, which `self` holds: waiting ends by value or by time.
        let late = tokio::time::timeout(GATHER_TIMEOUT, gathered.wait_for(|gathered| *gathered))
            .await
            .is_err();
        if late {
            return Err(ClientError::Timeout {
                awaited: "local candidates",
                after: GATHER_TIMEOUT,
            });
        }
        match self.connection.local_description().await {
            Some(description) => Ok(description.sdp),
            None => Err(failed(webrtc::error::Error::ErrConnectionClosed)),
        }
    }

    /// Applies the answer and waits until media can flow.
    pub async fn accept_answer(
        &mut self,
        answer: String,
        options: &Options,
    ) -> Result<(), ClientError> {
        let failed = |source| ClientError::Peer {
            attempt: "apply the answer",
            source,
        };
        self.answer.clone_from(&answer);
        let timeout = options.connect_timeout;
        let answer = match (self.transport, options.media_address) {
            (Transport::Udp, None) => answer,
            (Transport::Udp, Some(address)) => lead_media(&answer, address),
            (Transport::Tcp, address) => {
                let addresses = match address {
                    Some(address) => vec![address],
                    None => tcp::candidates(&answer),
                };
                let carrier = Carrier::connect(&addresses, timeout).await?;
                let led = lead_media(&answer, carrier.at);
                self.carrier = Some(carrier);
                led
            }
        };
        let answer = RTCSessionDescription::answer(answer).map_err(failed)?;
        self.connection
            .set_remote_description(answer)
            .await
            .map_err(failed)?;
        let mut state = self.state.clone();
        let connected = state.wait_for(|state| *state == PeerState::Connected || state.is_over());
        match tokio::time::timeout(timeout, connected).await {
            Ok(Ok(state)) if *state == PeerState::Connected => {
                let (connection, events) = (self.connection.clone(), self.events.clone());
                self.watch
                    .get_or_insert_with(|| tokio::spawn(watch_dtls(connection, events)));
                Ok(())
            }
            Ok(_) => Err(ClientError::NotConnected {
                state: self.state(),
            }),
            Err(_) => Err(ClientError::Timeout {
                awaited: "ICE and DTLS",
                after: timeout,
            }),
        }
    }

    /// Restarts ICE on new sockets (RFC 9725 §4.3.3) and waits until media can flow again. DTLS and
    /// the streams go on.
    pub async fn restart_ice(
        &mut self,
        http: &Http,
        resource: &mut Resource,
        timeout: Duration,
    ) -> Result<(), ClientError> {
        self.events.gathered.send_replace(false);
        let offer = self
            .offer_with(Some(RTCOfferOptions { ice_restart: true }))
            .await?;
        let fragment = http
            .patch_restart(resource, restart::fragment(&offer))
            .await?;
        let answer =
            restart::answer(&self.answer, &fragment).ok_or_else(|| ClientError::Answer {
                url: resource.url.to_string(),
                reason: "the fragment lacks credentials or candidates".to_owned(),
            })?;
        let options = Options {
            connect_timeout: timeout,
            ..Options::default()
        };
        self.accept_answer(answer, &options).await
    }

    pub fn answer(&self) -> &str {
        &self.answer
    }

    pub fn state(&self) -> PeerState {
        *self.state.borrow()
    }

    /// When it was first connected; `None` before.
    pub fn connected_at(&self) -> Option<Instant> {
        self.events.connected_at.get().copied()
    }

    /// Waits until the session is over, whoever ended it.
    pub async fn over(&self) -> PeerState {
        let mut state = self.state.clone();
        let over = state.wait_for(|state| state.is_over()).await;
        over.map_or(PeerState::Closed, |state| *state)
    }

    /// The tracks that the server has sent media for.
    pub fn tracks(&self) -> Vec<Arc<dyn TrackRemote>> {
        self.events
            .tracks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub async fn close(&mut self) {
        self.closed = true;
        if let Some(watch) = self.watch.take() {
            watch.abort();
        }
        if let Err(error) = self.connection.close().await {
            tracing::debug!(%error, "connection did not close cleanly");
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        if let Some(watch) = self.watch.take() {
            watch.abort();
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let connection = self.connection.clone();
            runtime.spawn(async move { connection.close().await });
        }
    }
}

/// Time between two looks at the DTLS state.
const DTLS_LOOK: Duration = Duration::from_millis(500);

/// Ends the session when the peer said goodbye (close_notify). The connection of `webrtc` goes on
/// being connected then, as the W3C's definition has it while ICE lives, and tells nobody.
///
/// A viewer's transport is in reach only after its first media; before, the end shows when ICE
/// misses its answers.
async fn watch_dtls(connection: Arc<dyn PeerConnection>, events: Arc<Events>) {
    loop {
        tokio::time::sleep(DTLS_LOOK).await;
        let mut transport = None;
        for sender in connection.get_senders().await {
            transport = transport.or(sender.transport().await.ok().flatten());
        }
        for receiver in connection.get_receivers().await {
            transport = transport.or(receiver.transport().await.ok().flatten());
        }
        if let Some(transport) = transport
            && let Ok(RTCDtlsTransportState::Closed) = transport.state().await
        {
            events.state.send_if_modified(|state| {
                let open = !state.is_over();
                if open {
                    *state = PeerState::Closed;
                }
                open
            });
            return;
        }
    }
}

fn local_address(server: &Url, options: &Options) -> SocketAddr {
    let host = match server.host_str() {
        Some("localhost") => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        Some(host) => host.trim_matches(['[', ']']).parse().ok(),
        None => None,
    };
    let local = match host {
        Some(ip) if ip.is_loopback() => ip,
        Some(IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let local = match options.transport {
        Transport::Udp => options.bind.unwrap_or(local),
        // No further than to the carrier.
        Transport::Tcp => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    SocketAddr::new(local, 0)
}

/// The answer with one candidate, `address`, in place of its own (RFC 8839 §5.1).
fn lead_media(answer: &str, address: SocketAddr) -> String {
    let mut led = String::with_capacity(answer.len());
    let mut given = false;
    for line in answer.lines() {
        if !line.starts_with("a=candidate:") {
            led.push_str(line);
        } else if std::mem::replace(&mut given, true) {
            continue;
        } else {
            let (ip, port) = (address.ip(), address.port());
            // The priority of the only host candidate of a component (RFC 8445 §5.1.2.1).
            led.push_str(&format!(
                "a=candidate:1 1 udp 2130706431 {ip} {port} typ host"
            ));
        }
        led.push_str("\r\n");
    }
    led
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_leaves_by_loopback_only_towards_a_loopback_server() {
        let local = |server: &str| {
            local_address(
                &Url::parse(server).expect("a literal address"),
                &Options::default(),
            )
            .ip()
            .to_string()
        };
        assert_eq!(local("http://127.0.0.1:30006/whip/a"), "127.0.0.1");
        assert_eq!(local("http://localhost:30006/whip/a"), "127.0.0.1");
        assert_eq!(local("http://[::1]:30006/whip/a"), "::1");
        assert_eq!(local("https://cam.example/whip/a"), "0.0.0.0");
        assert_eq!(local("https://[2001:db8::1]/whip/a"), "::");
    }

    #[test]
    fn media_is_led_to_the_one_address_whatever_the_answer_names() {
        let answer = "v=0\r\na=mid:0\r\na=candidate:1 1 udp 2130706431 192.0.2.1 8443 typ host\r\n\
            a=candidate:2 1 tcp 1671430143 192.0.2.1 8443 typ host tcptype passive\r\n\
            a=end-of-candidates\r\n";
        let led = lead_media(answer, SocketAddr::from(([127, 0, 0, 1], 9)));
        assert_eq!(
            led,
            "v=0\r\na=mid:0\r\na=candidate:1 1 udp 2130706431 127.0.0.1 9 typ host\r\n\
            a=end-of-candidates\r\n"
        );
    }
}
