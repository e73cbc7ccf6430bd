//! A peer for the unit tests, built from other code than the server: `rtc-dtls` as client and
//! `rtc-srtp` contexts, on a virtual clock and without sockets.

pub(crate) mod camera;

use crate::cells::{SessionCells, ShardCells};
use crate::clock::WallClock;
use crate::dtls::Identity;
use crate::ids::{IcePwd, SessionId, Ufrag};
use crate::negotiated::{Codec, Extensions, Kind, Negotiated, PayloadType, Role, Track};
use crate::output::{Output, SessionEvent};
use crate::rtcp;
use crate::session::{Session, SessionConfig};
use crate::stun;
use bytes::BytesMut;
use rtc_crypto::providers::AwsLcRsProvider;
use rtc_crypto::{HashAlgorithm, RTCCryptoProvider};
use rtc_dtls::config::{ConfigBuilder, ExtendedMasterSecretType};
use rtc_dtls::crypto::Certificate;
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_shared::TransportProtocol;
use rtc_srtp::config::{Config, LABEL_EXTRACTOR_DTLS_SRTP};
use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) const REMOTE_UFRAG: &str = "peer";
pub(crate) const VIDEO_PT: u8 = 96;
pub(crate) const VIDEO_RTX_PT: u8 = 97;
pub(crate) const AUDIO_PT: u8 = 111;
pub(crate) const GCM: SrtpProtectionProfile = SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm;
pub(crate) const SHA1: SrtpProtectionProfile = SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80;

/// A full ICE agent and DTLS client with its own keys.
pub(crate) struct Peer {
    pub(crate) addr: SocketAddr,
    endpoint: Endpoint,
    config: Arc<rtc_dtls::config::HandshakeConfig>,
    provider: Arc<dyn RTCCryptoProvider>,

    pub(crate) fingerprint: [u8; 32],
    keys: Option<(Context, Context)>,
    pub(crate) profile: Option<SrtpProtectionProfile>,
    transactions: u64,
    pub(crate) stun_answers: Vec<Vec<u8>>,
    pub(crate) rtp: Vec<Vec<u8>>,
    pub(crate) rtcp: Vec<Vec<u8>>,
    /// Application data that came.
    pub(crate) data: Vec<Vec<u8>>,
    pub(crate) closed: bool,
    pwd: IcePwd,
    ufrag: Ufrag,
    remote_ufrag: &'static str,
}

fn association() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 2))
}

impl Peer {
    pub(crate) fn new(seed: u8, profiles: &[SrtpProtectionProfile], flight: Duration) -> Self {
        Self::with_mtu(seed, profiles, flight, 1_200)
    }

    /// A peer whose handshake messages come in pieces of `mtu` bytes.
    pub(crate) fn with_mtu(
        seed: u8,
        profiles: &[SrtpProtectionProfile],
        flight: Duration,
        mtu: usize,
    ) -> Self {
        let provider: Arc<dyn RTCCryptoProvider> = Arc::new(AwsLcRsProvider::new());
        let certificate =
            Certificate::generate_self_signed(vec!["peer".to_owned()], provider.crypto())
                .expect("certificate");
        let hash = provider
            .crypto()
            .hash(HashAlgorithm::Sha256, certificate.certificate[0].as_ref())
            .expect("hash");
        let config = ConfigBuilder::default()
            .with_crypto_provider(provider.clone())
            .with_certificates(vec![certificate.clone()])
            .with_srtp_protection_profiles(profiles.to_vec())
            .with_insecure_skip_verify(true)
            .with_extended_master_secret(ExtendedMasterSecretType::Require)
            .with_flight_interval(flight)
            .with_mtu(mtu)
            .build(true, None)
            .expect("client config");
        Peer {
            addr: SocketAddr::from(([192, 0, 2, seed], 40_000)),
            endpoint: Endpoint::new(association(), TransportProtocol::UDP, None),
            config: Arc::new(config),
            provider,

            fingerprint: hash.as_slice().try_into().expect("SHA-256"),
            keys: None,
            profile: None,
            transactions: 0,
            stun_answers: Vec::new(),
            rtp: Vec::new(),
            rtcp: Vec::new(),
            data: Vec::new(),
            closed: false,
            pwd: pwd(seed),
            ufrag: ufrag(seed),
            remote_ufrag: REMOTE_UFRAG,
        }
    }

    /// Checks are made with these from now on.
    pub(crate) fn restart(&mut self, seed: u8, remote_ufrag: &'static str) {
        (self.ufrag, self.pwd) = (ufrag(seed), pwd(seed));
        self.remote_ufrag = remote_ufrag;
    }

    pub(crate) fn check(&mut self, use_candidate: bool) -> Vec<u8> {
        self.transactions += 1;
        let mut transaction = [0; 12];
        transaction[..8].copy_from_slice(&self.transactions.to_be_bytes());
        let username = format!(
            "{}:{}",
            std::str::from_utf8(&self.ufrag.0).expect("ASCII"),
            self.remote_ufrag
        );
        stun::request(&username, &self.pwd.0, transaction, use_candidate)
    }

    pub(crate) fn start_handshake(&mut self, now: Instant) {
        self.endpoint
            .connect(now, association(), self.config.clone(), None)
            .expect("connect");
    }

    pub(crate) fn close(&mut self, now: Instant) {
        self.endpoint.stop(now, association());
    }

    /// Sends application data.
    pub(crate) fn write(&mut self, now: Instant, data: &[u8]) {
        self.endpoint
            .write(now, association(), data)
            .expect("an association");
    }

    pub(crate) fn is_keyed(&self) -> bool {
        self.keys.is_some()
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.endpoint.poll_transmit().map(|t| t.message.to_vec())
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let _ = self.endpoint.handle_timeout(association(), now);
    }

    pub(crate) fn receive(&mut self, now: Instant, datagram: &[u8]) {
        match datagram[0] {
            0..=3 => self.stun_answers.push(datagram.to_vec()),
            20..=63 => {
                for event in self
                    .endpoint
                    .read(now, association(), None, BytesMut::from(datagram))
                    .unwrap_or_default()
                {
                    match event {
                        EndpointEvent::HandshakeComplete => self.export(),
                        EndpointEvent::PeerClosed => self.closed = true,
                        EndpointEvent::ApplicationData(bytes) => self.data.push(bytes.to_vec()),
                        _ => {}
                    }
                }
            }
            _ => {
                let (_, incoming) = self.keys.as_mut().expect("media only after keys");
                if crate::rtp::is_rtcp(datagram) {
                    self.rtcp.push(
                        incoming
                            .decrypt_rtcp(datagram)
                            .expect("SRTCP verifies")
                            .to_vec(),
                    );
                } else {
                    self.rtp.push(
                        incoming
                            .decrypt_rtp(datagram)
                            .expect("SRTP verifies")
                            .to_vec(),
                    );
                }
            }
        }
    }

    fn export(&mut self) {
        let state = self
            .endpoint
            .get_connection_state(association())
            .expect("connected");
        let selected = state.srtp_protection_profile();
        let profile = if selected == GCM {
            ProtectionProfile::AeadAes128Gcm
        } else {
            ProtectionProfile::Aes128CmHmacSha1_80
        };
        let mut config = Config {
            profile,
            ..Config::default()
        };
        let material = state
            .export_keying_material(LABEL_EXTRACTOR_DTLS_SRTP, &[], config.keying_material_len())
            .expect("export");
        config
            .set_session_keys_from_keying_material(material.as_ref(), true)
            .expect("length fits");
        let context = |key: &[u8], salt: &[u8]| {
            Context::new(key, salt, profile, None, None, self.provider.crypto()).expect("context")
        };
        let keys = &config.keys;
        self.profile = Some(selected);
        self.keys = Some((
            context(&keys.local_master_key, &keys.local_master_salt),
            context(&keys.remote_master_key, &keys.remote_master_salt),
        ));
    }

    pub(crate) fn seal_rtp(&mut self, packet: &[u8]) -> Vec<u8> {
        self.try_seal_rtp(packet).expect("seal")
    }

    pub(crate) fn seal_rtcp(&mut self, compound: &rtcp::Writer) -> Vec<u8> {
        self.try_seal_rtcp(compound.bytes()).expect("seal")
    }

    /// `None` for what the peer's own stack takes for no packet.
    pub(crate) fn try_seal_rtp(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let (outgoing, _) = self.keys.as_mut().expect("keyed");
        outgoing
            .encrypt_rtp(packet)
            .ok()
            .map(|sealed| sealed.to_vec())
    }

    pub(crate) fn try_seal_rtcp(&mut self, compound: &[u8]) -> Option<Vec<u8>> {
        let (outgoing, _) = self.keys.as_mut().expect("keyed");
        outgoing
            .encrypt_rtcp(compound)
            .ok()
            .map(|sealed| sealed.to_vec())
    }

    /// Everything that arrived by RTCP since the last call.
    pub(crate) fn take_reports(&mut self) -> Vec<rtcp::Item> {
        let mut items = Vec::new();
        self.rtcp
            .drain(..)
            .for_each(|compound| rtcp::read(&compound, |item| items.push(item)));
        items
    }
}

/// A plain RTP packet.
pub(crate) fn packet(
    pt: u8,
    seq: u16,
    timestamp: u32,
    ssrc: u32,
    marker: bool,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0x80, u8::from(marker) << 7 | pt];
    packet.extend(seq.to_be_bytes());
    packet.extend(timestamp.to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend(payload);
    packet
}

/// VP8 payloads: the first packet of a keyframe, and of a delta frame.
pub(crate) const VP8_KEY: &[u8] = &[0x10, 0x00, 1, 2, 3];
pub(crate) const VP8_DELTA: &[u8] = &[0x10, 0x01, 1, 2, 3];

pub(crate) fn ufrag(seed: u8) -> Ufrag {
    Ufrag([b'A' + seed % 26; 16])
}

pub(crate) fn pwd(seed: u8) -> IcePwd {
    IcePwd([b'a' + seed % 26; 32])
}

pub(crate) fn id(seed: u8) -> SessionId {
    SessionId(std::array::from_fn(|i| {
        seed.wrapping_mul(37).wrapping_add(i as u8 * 11)
    }))
}

/// One shard's view, with a clock that only tests move.
pub(crate) struct Bench {
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    pub(crate) out: Output,
    pub(crate) shard: Arc<ShardCells>,
    pub(crate) identity: Identity,
    pub(crate) clock: WallClock,
    /// Events of all sessions, in order.
    pub(crate) events: Vec<SessionEvent>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let start = Instant::now();
        let shard = Arc::new(ShardCells::default());
        Bench {
            start,
            now: start,
            out: Output::new(shard.clone()),
            shard,
            identity: Identity::generate().expect("identity"),
            clock: WallClock::new(start, Duration::from_secs(1_800_000_000)),
            events: Vec::new(),
        }
    }

    pub(crate) fn config(
        &self,
        seed: u8,
        role: Role,
        peer: &Peer,
    ) -> (SessionConfig, Arc<SessionCells>) {
        let track = |kind, mid: &str, pt, codec, ssrc| Track {
            kind,
            mid: mid.to_owned(),
            payload_types: vec![PayloadType {
                pt,
                codec,
                nack: kind == Kind::Video,
                pli: kind == Kind::Video,
                rtx: (kind == Kind::Video).then_some(VIDEO_RTX_PT),
            }],
            extensions: Extensions {
                mid: Some(4),
                video_orientation: Some(3),
                ..Extensions::default()
            },
            ssrc: (role == Role::Viewer).then_some(ssrc),
            rtx_ssrc: (role == Role::Viewer && kind == Kind::Video).then_some(ssrc + 1_000),
            rids: Vec::new(),
        };
        let cells = Arc::new(SessionCells::new());
        let config = SessionConfig {
            id: id(seed),
            ufrag: ufrag(seed),
            pwd: pwd(seed),
            negotiated: Negotiated {
                role,
                remote_ufrag: REMOTE_UFRAG.to_owned(),
                remote_pwd: "unused".to_owned(),
                fingerprint: peer.fingerprint,
                tracks: vec![
                    track(
                        Kind::Audio,
                        "0",
                        AUDIO_PT,
                        Codec::Opus,
                        1_000 + u32::from(seed),
                    ),
                    track(
                        Kind::Video,
                        "1",
                        VIDEO_PT,
                        Codec::Vp8,
                        2_000 + u32::from(seed),
                    ),
                ],
                data_channels: None,
                cname: "media".to_owned(),
                remb: false,
            },
            cells: cells.clone(),
            identity: self.identity.clone(),
            clock: self.clock,
        };
        (config, cells)
    }

    /// Gives the session a datagram; returns what it sends, by address.
    pub(crate) fn feed(
        &mut self,
        session: &mut dyn Session,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Vec<(SocketAddr, Vec<u8>)> {
        session.handle_datagram(self.now, from.into(), &mut datagram.to_vec(), &mut self.out);
        self.sent()
    }

    pub(crate) fn timeout(&mut self, session: &mut dyn Session) -> Vec<(SocketAddr, Vec<u8>)> {
        if session.poll_timeout() <= self.now {
            session.handle_timeout(self.now, &mut self.out);
        }
        self.sent()
    }

    pub(crate) fn sent(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        self.events.append(&mut self.out.events);
        let slab = &self.out.slab;
        let cut = |run: &crate::output::Run| {
            let bytes = &slab.bytes()[run.offset..run.offset + run.len];
            bytes
                .chunks(run.segment)
                .map(|b| (run.to.remote, b.to_vec()))
                .collect::<Vec<_>>()
        };
        let all = slab.runs().iter().flat_map(cut).collect();
        self.out.slab.clear();
        all
    }

    /// Runs both ends for a while in steps of 10 ms. `lose` sees the number of each datagram, by
    /// direction (`true`: from the peer), and says whether it is lost.
    pub(crate) fn run(
        &mut self,
        time: Duration,
        session: &mut dyn Session,
        peer: &mut Peer,
        mut lose: impl FnMut(bool, u32) -> bool,
    ) {
        let end = self.now + time;
        let (mut up, mut down) = (0, 0);
        while self.now < end {
            peer.handle_timeout(self.now);
            let mut sent = self.timeout(session);
            loop {
                let mut quiet = sent.is_empty();
                for (to, datagram) in std::mem::take(&mut sent) {
                    down += 1;
                    if to == peer.addr && !lose(false, down) {
                        peer.receive(self.now, &datagram);
                    }
                }
                while let Some(datagram) = peer.poll_transmit() {
                    quiet = false;
                    up += 1;
                    if !lose(true, up) {
                        sent.extend(self.feed(session, peer.addr, &datagram));
                    }
                }
                if quiet {
                    break;
                }
            }
            self.now += Duration::from_millis(10);
        }
    }

    /// Checks and shakes hands until both ends have keys.
    pub(crate) fn connect(&mut self, session: &mut dyn Session, peer: &mut Peer) {
        for _ in 0..2 {
            let check = peer.check(true);
            for (_, answer) in self.feed(session, peer.addr, &check) {
                peer.receive(self.now, &answer);
            }
        }
        peer.start_handshake(self.now);
        self.run(Duration::from_millis(50), session, peer, |_, _| false);
        assert!(peer.is_keyed(), "the handshake completes");
    }
}
