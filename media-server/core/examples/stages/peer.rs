//! The other end of a session, as far as a measurement needs it: an ICE check, and a DTLS client and a
//! sealer of RTP of other code than the server's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::BytesMut;
use media_core::cells::SessionCells;
use media_core::clock::WallClock;
use media_core::dtls::Identity;
use media_core::ids::{IcePwd, SessionId, Ufrag};
use media_core::negotiated::{
    Codec, Extensions, Fingerprint, Kind, Negotiated, PayloadType, Role, Track,
};
use media_core::output::Output;
use media_core::session::{Session, SessionConfig};
use media_core::stun;
use rtc_crypto::providers::AwsLcRsProvider;
use rtc_crypto::{HashAlgorithm, RTCCryptoProvider};
use rtc_dtls::config::{ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc_dtls::crypto::Certificate;
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_shared::TransportProtocol;
use rtc_srtp::config::{Config, LABEL_EXTRACTOR_DTLS_SRTP};
use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;

use crate::PATIENCE;

pub const VIDEO_PT: u8 = 96;
const REMOTE_UFRAG: &str = "peer";

/// A DTLS client with its own certificate.
pub struct Peer {
    pub addr: SocketAddr,
    endpoint: Endpoint,
    config: Arc<HandshakeConfig>,
    provider: Arc<dyn RTCCryptoProvider>,
    fingerprint: Fingerprint,
    ufrag: Ufrag,
    pwd: IcePwd,
    keys: Option<Context>,
}

fn association() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 2))
}

impl Peer {
    pub fn new(seed: u8) -> anyhow::Result<Self> {
        let provider: Arc<dyn RTCCryptoProvider> = Arc::new(AwsLcRsProvider::new());
        let certificate =
            Certificate::generate_self_signed(vec!["peer".to_owned()], provider.crypto())?;
        let hash = provider
            .crypto()
            .hash(HashAlgorithm::Sha256, certificate.certificate[0].as_ref())?;
        let config = ConfigBuilder::default()
            .with_crypto_provider(provider.clone())
            .with_certificates(vec![certificate])
            .with_srtp_protection_profiles(vec![SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm])
            .with_insecure_skip_verify(true)
            .with_extended_master_secret(ExtendedMasterSecretType::Require)
            .build(true, None)?;
        Ok(Self {
            addr: SocketAddr::from(([192, 0, 2, seed], 40_000)),
            endpoint: Endpoint::new(association(), TransportProtocol::UDP, None),
            config: Arc::new(config),
            provider,
            fingerprint: hash.as_slice().try_into().context("SHA-256 has 32 bytes")?,
            ufrag: Ufrag::new(&[seed; 16], 0, 0, [seed; 6]),
            pwd: IcePwd::new([seed; 24]),
            keys: None,
        })
    }

    /// What the server's session with this peer is made from: one VP8 track.
    pub fn config(&self, role: Role) -> anyhow::Result<SessionConfig> {
        let payload_type = PayloadType {
            pt: VIDEO_PT,
            codec: Codec::Vp8,
            nack: true,
            pli: true,
            rtx: None,
        };
        Ok(SessionConfig {
            id: SessionId::new(0, 0, [9; 16]),
            ufrag: self.ufrag,
            pwd: self.pwd,
            negotiated: Negotiated {
                role,
                remote_ufrag: REMOTE_UFRAG.to_owned(),
                remote_pwd: "unused".to_owned(),
                fingerprint: self.fingerprint,
                tracks: vec![Track {
                    kind: Kind::Video,
                    mid: "0".to_owned(),
                    payload_types: vec![payload_type],
                    extensions: Extensions::default(),
                    ssrc: (role == Role::Viewer).then_some(9),
                    rtx_ssrc: None,
                    rids: Vec::new(),
                }],
                data_channels: None,
                cname: "media".to_owned(),
                remb: false,
            },
            cells: Arc::new(SessionCells::new()),
            identity: Identity::generate()?,
            clock: WallClock::new(Instant::now(), Duration::from_secs(1_800_000_000)),
        })
    }

    /// Checks and shakes hands until both ends have keys.
    ///
    /// # Errors
    /// If they have none after [`PATIENCE`].
    pub fn connect(
        &mut self,
        start: Instant,
        session: &mut dyn Session,
        out: &mut Output,
    ) -> anyhow::Result<()> {
        // The second check makes the first's address the one that media goes to.
        let username = format!("{}:{REMOTE_UFRAG}", self.ufrag.as_str());
        for transaction in 0..2 {
            let pwd = self.pwd.as_str().as_bytes();
            let mut check = stun::request(&username, pwd, [transaction; 12], true);
            session.handle_datagram(start, self.addr.into(), &mut check, out);
            out.slab.clear();
        }
        self.endpoint
            .connect(start, association(), self.config.clone(), None)?;
        let mut now = start;
        while self.keys.is_none() || !out.slab.is_empty() {
            ensure!(now < start + PATIENCE, "the handshake does not complete");
            now += Duration::from_millis(10);
            let _ = self.endpoint.handle_timeout(association(), now);
            if session.poll_timeout() <= now {
                session.handle_timeout(now, out);
            }
            while let Some(datagram) = self.endpoint.poll_transmit() {
                let mut datagram = datagram.message.to_vec();
                session.handle_datagram(now, self.addr.into(), &mut datagram, out);
            }
            let runs = out.slab.runs().iter();
            let sent: Vec<Vec<u8>> = runs
                .flat_map(|run| {
                    out.slab.bytes()[run.offset..run.offset + run.len].chunks(run.segment)
                })
                .map(<[u8]>::to_vec)
                .collect();
            out.slab.clear();
            for datagram in sent.iter().filter(|d| matches!(d[0], 20..=63)) {
                self.receive(now, datagram)?;
            }
        }
        out.events.clear();
        Ok(())
    }

    fn receive(&mut self, now: Instant, datagram: &[u8]) -> anyhow::Result<()> {
        let events = self
            .endpoint
            .read(now, association(), None, BytesMut::from(datagram))?;
        if events
            .iter()
            .any(|event| matches!(event, EndpointEvent::HandshakeComplete))
        {
            self.keys = Some(self.export()?);
        }
        Ok(())
    }

    fn export(&self) -> anyhow::Result<Context> {
        let profile = ProtectionProfile::AeadAes128Gcm;
        let state = self
            .endpoint
            .get_connection_state(association())
            .context("a complete handshake has a state")?;
        let mut config = Config {
            profile,
            ..Config::default()
        };
        let material = state.export_keying_material(
            LABEL_EXTRACTOR_DTLS_SRTP,
            &[],
            config.keying_material_len(),
        )?;
        config.set_session_keys_from_keying_material(material.as_ref(), true)?;
        let keys = &config.keys;
        Ok(Context::new(
            &keys.local_master_key,
            &keys.local_master_salt,
            profile,
            None,
            None,
            self.provider.crypto(),
        )?)
    }

    /// Encrypts a packet to the server.
    pub fn seal(&mut self, packet: &[u8]) -> anyhow::Result<Vec<u8>> {
        let keys = self.keys.as_mut().context("sealing comes after keys")?;
        Ok(keys.encrypt_rtp(packet)?.to_vec())
    }
}
