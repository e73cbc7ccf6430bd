//! DTLS 1.2, server side: one handshake per session, then the SRTP keys (RFC 5764).
//!
//! Wraps `rtc-dtls` and keeps three things from it that it does not handle: a repeated ClientHello
//! after a lost flight, which would hang the handshake for ever; memory that a peer could make it
//! hold; and the choice of the SRTP profile, which it would leave to the client. Fed only with
//! datagrams from an address that authenticated itself by STUN.

mod hello;

use crate::negotiated::Fingerprint;
use crate::srtp::{Keys, Profile};
use bytes::BytesMut;
use hello::Hello;
use rtc_crypto::providers::AwsLcRsProvider;
use rtc_crypto::{HashAlgorithm, RTCCryptoProvider};
use rtc_dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc_dtls::crypto::Certificate;
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_shared::TransportProtocol;
use rtc_shared::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Largest DTLS datagram we send. Below the 1280 B that every IPv6 path carries, less its headers.
const MTU: usize = 1200;
/// Retransmission interval of a flight; the crate knows no backoff and gives up after 8 of them.
/// Longer than most round trips, short enough for eight to end before the set-up limit.
const FLIGHT_INTERVAL: Duration = Duration::from_millis(500);
/// Bytes fed to a handshake. A browser's takes 3 KiB, and a certificate chain stays far below.
const MAX_HANDSHAKE_BYTES: usize = 64 * 1024;
/// Datagrams with other records than alerts, and data where there may be, after the handshake: repeats of the
/// last flight.
const MAX_LATE_DATAGRAMS: u8 = 8;
/// Copies of our flight sent for repeated ClientHellos.
const MAX_RESENDS: u8 = 16;
/// Broken handshakes after which the session stops trying.
const MAX_RESTARTS: u8 = 3;

/// Label of the SRTP keys among those that a DTLS association exports (RFC 5764 §4.2).
const LABEL_EXTRACTOR_DTLS_SRTP: &str = "EXTRACTOR-dtls_srtp";

const RECORD_HEADER: usize = 13;
/// Where a record that begins a datagram has the fragment offset of its handshake message.
const FRAGMENT_OFFSET: std::ops::Range<usize> = RECORD_HEADER + 6..RECORD_HEADER + 9;
/// Where it has the message's number, which is 0 in a first ClientHello only.
const MESSAGE_SEQ: std::ops::Range<usize> = RECORD_HEADER + 4..RECORD_HEADER + 6;
const RECORD_ALERT: u8 = 21;
const RECORD_HANDSHAKE: u8 = 22;
const RECORD_APPLICATION_DATA: u8 = 23;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const HELLO_VERIFY_REQUEST: u8 = 3;

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("failed to make the DTLS certificate")]
    Certificate { source: Error },
    #[error("failed to hash the DTLS certificate")]
    Hash,
}

/// The DTLS certificate of this boot and what every handshake shares. Cheap to clone.
#[derive(Clone)]
pub struct Identity {
    provider: Arc<dyn RTCCryptoProvider>,
    fingerprint: Fingerprint,
    gcm: Arc<HandshakeConfig>,
    any: Arc<HandshakeConfig>,
}

impl Identity {
    /// Makes a self-signed P-256 certificate.
    ///
    /// # Errors
    /// [`IdentityError`]: the crypto library refused.
    pub fn generate() -> Result<Self, IdentityError> {
        let provider: Arc<dyn RTCCryptoProvider> = Arc::new(AwsLcRsProvider::new());
        let certificate = |source| IdentityError::Certificate { source };
        let own =
            Certificate::generate_self_signed(vec!["media-server".to_owned()], provider.crypto())
                .map_err(certificate)?;
        let der = own.certificate.first().ok_or(IdentityError::Hash)?;
        let fingerprint = sha256(&*provider, der.as_ref()).ok_or(IdentityError::Hash)?;
        let config = |profiles: &[SrtpProtectionProfile]| {
            // One configuration serves all sessions, so it can't know the peer's certificate: that is
            // compared with the SDP fingerprint before any key is exported.
            ConfigBuilder::default()
                .with_crypto_provider(provider.clone())
                .with_certificates(vec![own.clone()])
                .with_srtp_protection_profiles(profiles.to_vec())
                .with_client_auth(ClientAuthType::RequireAnyClientCert)
                .with_insecure_skip_verify(true)
                .with_extended_master_secret(ExtendedMasterSecretType::Require)
                .with_mtu(MTU)
                .with_flight_interval(FLIGHT_INTERVAL)
                .build(false, None)
                .map(Arc::new)
                .map_err(certificate)
        };
        let gcm = config(&[SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm])?;
        let any = config(&[
            SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
            SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
        ])?;
        Ok(Identity {
            provider,
            fingerprint,
            gcm,
            any,
        })
    }

    /// SHA-256 of the certificate, for `a=fingerprint`.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

/// What a datagram or a timeout led to.
pub(crate) enum Progress {
    None,
    /// The handshake completed and the certificate is the one that signalling announced.
    Keyed(Box<Keys>),
    /// The peer closed the association, or there is no use in going on.
    Closed {
        by_peer: bool,
    },
    /// The datagram was not taken.
    Dropped,
}

/// The association of one session.
pub(crate) struct Dtls {
    endpoint: Option<Box<Endpoint>>,
    /// The first ClientHello, while it decides how the endpoint is made.
    hello: Hello,
    /// Our ServerHello flight, for repeated ClientHellos.
    flight: Vec<BytesMut>,
    /// The client answers our HelloVerifyRequest. The endpoint repeats it for each piece of that
    /// answer all the same, and a repeat stops the retransmission timer of some clients.
    verified: bool,
    keyed: bool,
    /// Data channels are negotiated.
    takes_data: bool,
    bytes_fed: usize,
    resends: u8,
    late: u8,
    restarts: u8,
    verify_sent: Option<Instant>,
    round_trip: Option<Duration>,
}

impl Dtls {
    /// `takes_data`: the peer may send application data once there are keys.
    pub(crate) fn new(takes_data: bool) -> Self {
        Dtls {
            takes_data,
            endpoint: None,
            hello: Hello::default(),
            flight: Vec::new(),
            verified: false,
            keyed: false,
            bytes_fed: 0,
            resends: 0,
            late: 0,
            restarts: 0,
            verify_sent: None,
            round_trip: None,
        }
    }

    /// Time between our HelloVerifyRequest and its answer: an early measure of the path.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        // The crate never retransmits on its own once keyed: the peer repeats its flight instead.
        self.endpoint
            .as_ref()
            .filter(|_| !self.keyed)?
            .poll_timeout(&peer())
    }

    /// Takes a DTLS datagram of an authenticated address. Application data goes to `data`; before
    /// [`Progress::Keyed`] nobody vouches for its sender.
    pub(crate) fn handle_datagram(
        &mut self,
        now: Instant,
        datagram: &[u8],
        identity: &Identity,
        expected: &Fingerprint,
        send: &mut dyn FnMut(&[u8]),
        data: &mut Vec<BytesMut>,
    ) -> Progress {
        if !is_framed(datagram) || !self.admit(datagram, send) {
            return Progress::Dropped;
        }
        if self.endpoint.is_some() {
            return self.read(now, datagram, identity, expected, send, data);
        }
        let Some(gcm) = self.hello.add(datagram) else {
            return Progress::None;
        };
        let config = if gcm { &identity.gcm } else { &identity.any };
        let endpoint = Endpoint::new(peer(), TransportProtocol::UDP, Some(config.clone()));
        self.endpoint = Some(Box::new(endpoint));
        let mut progress = Progress::None;
        for held in self.hello.take() {
            if matches!(progress, Progress::None) && self.endpoint.is_some() {
                progress = self.read(now, &held, identity, expected, send, data);
            }
        }
        progress
    }

    fn read(
        &mut self,
        now: Instant,
        datagram: &[u8],
        identity: &Identity,
        expected: &Fingerprint,
        send: &mut dyn FnMut(&[u8]),
        data: &mut Vec<BytesMut>,
    ) -> Progress {
        let Some(endpoint) = self.endpoint.as_mut() else {
            return Progress::None;
        };
        if handshake_type(datagram) == Some(CLIENT_HELLO) {
            self.verified = datagram.get(MESSAGE_SEQ) != Some(&[0, 0]);
        }
        let result = endpoint.read(now, peer(), None, BytesMut::from(datagram));
        self.drain(now, send);
        match result {
            Ok(events) => {
                let mut progress = Progress::None;
                for event in events {
                    match event {
                        EndpointEvent::HandshakeComplete => {
                            progress = self.complete(identity, expected)
                        }
                        EndpointEvent::PeerClosed => progress = Progress::Closed { by_peer: true },
                        EndpointEvent::ApplicationData(bytes) if self.takes_data => {
                            data.push(bytes);
                        }
                        _ => {}
                    }
                }
                progress
            }
            // Once keyed, alerts are authentic; whatever else fails anyone may have sent, and is
            // discarded silently (RFC 6347 §4.1.2.7).
            Err(Error::ErrAlertFatalOrClose) if self.keyed => Progress::Closed { by_peer: true },
            Err(_) if self.keyed => Progress::Dropped,
            Err(_) => self.restart(),
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, send: &mut dyn FnMut(&[u8])) -> Progress {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return Progress::None;
        }
        let result = self
            .endpoint
            .as_mut()
            .map_or(Ok(()), |e| e.handle_timeout(peer(), now));
        self.drain(now, send);
        if result.is_err() {
            self.restart()
        } else {
            Progress::None
        }
    }

    /// Encrypts and sends application data; nothing before there are keys.
    pub(crate) fn write(&mut self, now: Instant, data: &[u8], send: &mut dyn FnMut(&[u8])) {
        let Some(endpoint) = self.endpoint.as_mut().filter(|_| self.keyed) else {
            return;
        };
        // It fails where the association is closed, and the session with it.
        if endpoint.write(now, peer(), data).is_ok() {
            self.drain(now, send);
        }
    }

    /// Sends close_notify, if there is an association, and frees it.
    pub(crate) fn close(&mut self, now: Instant, send: &mut dyn FnMut(&[u8])) {
        if let Some(mut endpoint) = self.endpoint.take().filter(|_| self.keyed) {
            endpoint.stop(now, peer());
            while let Some(transmit) = endpoint.poll_transmit() {
                send(&transmit.message);
            }
        }
    }

    /// Whether the endpoint may see the datagram. A repeated ClientHello is answered here: the
    /// endpoint would drop it and its retransmission timer with it.
    fn admit(&mut self, datagram: &[u8], send: &mut dyn FnMut(&[u8])) -> bool {
        if self.keyed {
            if only(RECORD_ALERT, datagram)
                || self.takes_data && only(RECORD_APPLICATION_DATA, datagram)
            {
                return true;
            }
            self.late = self.late.saturating_add(1);
            return self.late <= MAX_LATE_DATAGRAMS;
        }
        if handshake_type(datagram) == Some(CLIENT_HELLO) && !self.flight.is_empty() {
            // Once for a hello in pieces: at its first.
            let first = datagram.get(FRAGMENT_OFFSET) == Some(&[0, 0, 0]);
            if first && self.resends < MAX_RESENDS {
                self.resends += 1;
                self.flight.iter().for_each(|sent| send(sent));
            }
            return false;
        }
        self.bytes_fed += datagram.len();
        self.bytes_fed <= MAX_HANDSHAKE_BYTES
    }

    fn drain(&mut self, now: Instant, send: &mut dyn FnMut(&[u8])) {
        let Some(endpoint) = self.endpoint.as_mut() else {
            return;
        };
        while let Some(transmit) = endpoint.poll_transmit() {
            let message = transmit.message;
            match handshake_type(&message) {
                Some(HELLO_VERIFY_REQUEST) if self.verified => continue,
                Some(HELLO_VERIFY_REQUEST) => self.verify_sent = Some(now),
                Some(SERVER_HELLO) => {
                    self.flight.clear();
                    self.round_trip = self.round_trip.or(self.verify_sent.map(|at| now - at));
                    self.flight.push(message.clone());
                }
                _ if !self.keyed && !self.flight.is_empty() => self.flight.push(message.clone()),
                _ => {}
            }
            send(&message);
        }
    }

    fn complete(&mut self, identity: &Identity, expected: &Fingerprint) -> Progress {
        self.flight = Vec::new();
        self.keyed = true;
        let keys = self.endpoint.as_ref().and_then(|endpoint| {
            let state = endpoint.get_connection_state(peer())?;
            let certificate = state.peer_certificates.first()?;
            if sha256(&*identity.provider, certificate)? != *expected {
                return None;
            }
            let profile = match state.srtp_protection_profile() {
                SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => Profile::AeadAes128Gcm,
                SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => Profile::Aes128CmHmacSha1_80,
                _ => return None,
            };
            let len = profile.keying_material_len();
            let material = state
                .export_keying_material(LABEL_EXTRACTOR_DTLS_SRTP, &[], len)
                .ok()?;
            Keys::new(profile, material.as_ref(), false).ok()
        });
        match keys {
            Some(keys) => Progress::Keyed(Box::new(keys)),
            None => Progress::Closed { by_peer: false },
        }
    }

    /// Forgets a broken handshake, so that the client's next ClientHello starts a new one.
    fn restart(&mut self) -> Progress {
        self.restarts += 1;
        self.endpoint = None;
        self.hello = Hello::default();
        self.verified = false;
        self.flight.clear();
        if self.restarts > MAX_RESTARTS {
            Progress::Closed { by_peer: false }
        } else {
            Progress::None
        }
    }
}

/// `rtc-dtls` tells associations apart by address. A session has one, which moves freely, so it
/// goes by a constant.
fn peer() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 1))
}

fn sha256(provider: &dyn RTCCryptoProvider, bytes: &[u8]) -> Option<Fingerprint> {
    provider
        .crypto()
        .hash(HashAlgorithm::Sha256, bytes)
        .ok()?
        .as_slice()
        .try_into()
        .ok()
}

/// Type of the handshake message that the datagram begins with, if it can be read.
fn handshake_type(datagram: &[u8]) -> Option<u8> {
    let plain = *datagram.first()? == RECORD_HANDSHAKE && datagram.get(3..5)? == [0, 0];
    datagram.get(RECORD_HEADER).copied().filter(|_| plain)
}

/// Whether the datagram is made of whole records with something in each. The library fails where it
/// is not, and from its errors a broken datagram and a broken association look the same.
fn is_framed(datagram: &[u8]) -> bool {
    !datagram.is_empty() && records(datagram).all(|record| record.is_some())
}

fn only(content_type: u8, datagram: &[u8]) -> bool {
    records(datagram).all(|record| record.is_some_and(|r| r[0] == content_type))
}

/// The records of a datagram with their headers; `None` ends it where one is cut short or empty.
fn records(mut rest: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let len = rest.get(RECORD_HEADER - 2..RECORD_HEADER).map_or(0, |len| {
            RECORD_HEADER + usize::from(u16::from_be_bytes([len[0], len[1]]))
        });
        let split = rest
            .split_at_checked(len)
            .filter(|(record, _)| record.len() > RECORD_HEADER);
        rest = split.map_or(&[], |(_, tail)| tail);
        Some(split.map(|(record, _)| record))
    })
}

#[cfg(test)]
mod tests;
