//! What publishers and viewers share: ICE-lite, the path, DTLS, SRTCP and the set-up limits.
//!
//! Decides by which flow a session talks to its peer, and that nothing but STUN answers goes anywhere
//! before an address authenticated itself. An ICE restart changes credentials and, with them, the
//! path; keys and counters go on. Owns no media.

use crate::cells::{Drop, Forgotten, IceState, KeyframeCause, SessionCells};
use crate::channel::{Channel, Unsent};
use crate::clock::WallClock;
use crate::dtls::{Dtls, Identity, Progress};
use crate::flow::Flow;
use crate::ids::{IcePwd, Ufrag};
use crate::negotiated::Fingerprint;
use crate::output::{End, Output, SessionEvent};
use crate::rtcp;
use crate::rtp;
use crate::session::SessionConfig;
use crate::srtp::{ControlOpener, ControlSealer, OpenError, SessionCipher};
use crate::stun::{self, BindingRequest};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Reports, figures and liveness are looked at this often once media can flow.
const TICK: Duration = Duration::from_secs(1);
/// From opening to keys.
const SETUP_LIMIT: Duration = Duration::from_secs(15);
/// Consent: an ICE-lite server sends no checks, so the peer's are the liveness (RFC 7675 §5.1). So are its
/// reports: they come from the same address and take the keys, and a peer without RFC 7675 sends nothing
/// else (RFC 8445 §11; GStreamer 1.22 with libnice 0.1.21).
const CONSENT_LIMIT: Duration = Duration::from_secs(30);
/// Peers check every 2.5 to 6 s, and report every 7.5 s at least; two missed ones are worth showing.
pub(crate) const DISCONNECTED_AFTER: Duration = Duration::from_secs(15);
/// A path silent for this long yields to any authenticated check from elsewhere.
const SILENT_PATH: Duration = Duration::from_secs(5);
/// What an address gets before a second check shows that it is really where the peer is.
const UNPROVEN_BYTES: usize = 128 * 1024;
/// Transactions remembered against replays from other addresses.
const TRANSACTIONS: usize = 64;
/// At the fastest that peers check once they are connected, every 2.5 s, one is remembered for 160 s. One that
/// is forgotten within fewer seconds than these was pushed out by a burst: the bound was too small.
const USUAL_MEMORY: u32 = 60;

struct Path {
    flow: Flow,
    heard: Instant,
    bound_by: [u8; 12],
    /// Bytes that may still be sent; `None` once proven.
    budget: Option<usize>,
}

/// What a check must have been made with (RFC 8445 §7.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub ufrag: Ufrag,
    pub pwd: IcePwd,
    pub remote_ufrag: Box<str>,
}

impl Credentials {
    fn authenticate(&self, request: &BindingRequest<'_>) -> bool {
        request.local_ufrag == self.ufrag.0
            && request.remote_ufrag == self.remote_ufrag.as_bytes()
            && request.is_authentic(&self.pwd.0)
    }
}

/// Keys of the control channel; those of media go to publisher or viewer.
struct Control {
    rtcp_out: ControlSealer,
    rtcp_in: ControlOpener,
}

/// Keys of media, one per direction.
pub(crate) struct MediaKeys {
    pub(crate) ours: SessionCipher,
    pub(crate) theirs: SessionCipher,
}

/// What a datagram means to the session's role.
pub(crate) enum Received<'a> {
    /// Dealt with.
    Nothing,
    /// Keys exist now; a role uses those of its direction.
    Keyed(Box<MediaKeys>),
    /// Still encrypted. The role says if it was authentic, see [`Transport::heard`].
    Rtp(&'a mut [u8]),
    /// Decrypted and authentic.
    Rtcp(&'a [u8]),
}

pub(crate) struct Transport {
    credentials: Credentials,
    /// Those before the restart that is under way.
    previous: Option<Box<Credentials>>,
    fingerprint: Fingerprint,
    identity: Identity,
    pub(crate) clock: WallClock,
    pub(crate) cells: Arc<SessionCells>,
    opened: Instant,
    first_check: Option<Instant>,
    consented: Instant,
    state: IceState,
    path: Option<Path>,
    /// Transaction, the address it came from, and the seconds after `opened`; oldest overwritten.
    transactions: Vec<([u8; 12], SocketAddr, u32)>,
    next_transaction: usize,
    dtls: Dtls,
    control: Option<Control>,
    /// If data channels are negotiated.
    channel: Option<Box<Channel>>,
    ended: bool,
}

impl Transport {
    pub(crate) fn new(now: Instant, config: SessionConfig) -> Self {
        let data_channels = config.negotiated.data_channels;
        Transport {
            credentials: Credentials {
                ufrag: config.ufrag,
                pwd: config.pwd,
                remote_ufrag: config.negotiated.remote_ufrag.into(),
            },
            previous: None,
            fingerprint: config.negotiated.fingerprint,
            identity: config.identity,
            clock: config.clock,
            cells: config.cells,
            opened: now,
            first_check: None,
            consented: now,
            state: IceState::New,
            path: None,
            transactions: Vec::new(),
            next_transaction: 0,
            dtls: Dtls::new(data_channels.is_some()),
            control: None,
            channel: data_channels
                .map(|agreed| Box::new(Channel::new(agreed.max_message, agreed.opens))),
            ended: false,
        }
    }

    /// Takes new ICE credentials (RFC 8445 §9). The last ones that a check came with are accepted
    /// until one comes with the new: a peer that never hears of the restart goes on as it was. DTLS,
    /// keys and counters stay as they are.
    pub(crate) fn restart(&mut self, credentials: Credentials) {
        let before = std::mem::replace(&mut self.credentials, credentials);
        self.previous.get_or_insert_with(|| Box::new(before));
    }

    /// When the session looks at its reports, figures and liveness next.
    pub(crate) fn next_tick(&self, now: Instant) -> Instant {
        self.clock.slot(now + TICK)
    }

    pub(crate) fn is_keyed(&self) -> bool {
        self.control.is_some()
    }

    /// Where media goes, once it can.
    pub(crate) fn media_path(&self) -> Option<Flow> {
        self.path
            .as_ref()
            .filter(|_| self.control.is_some() && !self.ended)
            .map(|p| p.flow)
    }

    /// Whether the path may get `bytes` more.
    pub(crate) fn spend(&mut self, bytes: usize) -> bool {
        match self.path.as_mut().map(|p| &mut p.budget) {
            Some(Some(left)) if *left < bytes => false,
            Some(Some(left)) => {
                *left -= bytes;
                true
            }
            Some(None) => true,
            None => false,
        }
    }

    pub(crate) fn handle_datagram<'a>(
        &mut self,
        now: Instant,
        from: Flow,
        datagram: &'a mut [u8],
        out: &mut Output,
    ) -> Received<'a> {
        if self.ended {
            return Received::Nothing;
        }
        if stun::is_stun(datagram) {
            self.handle_stun(now, from, datagram, out);
            return Received::Nothing;
        }
        let sender = from.sender();
        let Some(path) = self.path.as_mut().filter(|p| p.flow.sender() == sender) else {
            out.drop(Drop::UnknownAddress);
            return Received::Nothing;
        };
        match datagram.first() {
            Some(20..=63) => self.handle_dtls(now, datagram, out),
            Some(128..=191) => {
                let Some(control) = self.control.as_mut() else {
                    out.drop(Drop::SrtpUnauthenticated);
                    return Received::Nothing;
                };
                if !rtp::is_rtcp(datagram) {
                    return Received::Rtp(datagram);
                }
                let reason = match control.rtcp_in.open(datagram) {
                    Ok(compound) => {
                        path.heard = now;
                        self.consent(now);
                        return Received::Rtcp(compound);
                    }
                    Err(OpenError::Unauthenticated) => Drop::SrtpUnauthenticated,
                    Err(OpenError::Replay) => Drop::SrtpReplay,
                    Err(OpenError::Streams) => Drop::UnknownStream,
                };
                out.drop(reason);
                Received::Nothing
            }
            _ => {
                out.drop(Drop::Malformed);
                Received::Nothing
            }
        }
    }

    fn handle_stun(&mut self, now: Instant, from: Flow, datagram: &[u8], out: &mut Output) {
        let Some(request) = BindingRequest::parse(datagram) else {
            return out.drop(Drop::Malformed);
        };
        let pwd = if self.credentials.authenticate(&request) {
            if self.previous.take().is_some() {
                out.events.push(SessionEvent::Restarted);
            }
            self.credentials.pwd
        } else {
            match self.previous.as_ref().filter(|p| p.authenticate(&request)) {
                Some(previous) => previous.pwd,
                None => return out.drop(Drop::StunUnauthenticated),
            }
        };
        let transaction = request.transaction();
        let seen = self.transactions.iter().find(|(id, ..)| *id == transaction);
        match seen.map(|(_, first, _)| *first) {
            // Somebody recorded a check and plays it from elsewhere.
            Some(first) if first != from.remote => return out.drop(Drop::StunReplay),
            // Its sender heard no answer, or somebody plays it from there: whatever it says was done.
            Some(_) => {}
            None => {
                self.remember(now, transaction, from.remote, out);
                self.take_check(now, from, &request, out);
            }
        }
        let mut answer = [0; stun::MAX_ANSWER];
        let len = request.write_success(from.remote, &pwd.0, &mut answer);
        out.slab.push(from, &answer[..len]);
        if from.connection().is_some() {
            out.events.push(SessionEvent::Checked(from));
        }
    }

    /// A check that did not come before: consent, and maybe another path.
    fn take_check(
        &mut self,
        now: Instant,
        from: Flow,
        request: &BindingRequest<'_>,
        out: &mut Output,
    ) {
        let transaction = request.transaction();
        self.consent(now);
        self.first_check.get_or_insert(now);
        if matches!(self.state, IceState::New) {
            self.set_state(IceState::Checking);
        }
        match self.path.as_mut() {
            Some(path) if path.flow == from => {
                path.heard = now;
                if path.bound_by != transaction {
                    path.budget = None;
                }
            }
            Some(path)
                if !request.use_candidate
                    && now.saturating_duration_since(path.heard) < SILENT_PATH => {}
            _ => {
                let same = |path: &&Path| path.flow.sender() == from.sender();
                let same = self.path.as_ref().filter(same);
                // What went to the path before is lost, and with it what later frames build on.
                if self.path.is_some() && same.is_none() && self.control.is_some() {
                    out.events
                        .push(SessionEvent::KeyframeWanted(KeyframeCause::Moved));
                }
                let budget = match same {
                    Some(path) => path.budget,
                    // TCP's own handshake has shown where the peer is.
                    None => from.connection().is_none().then_some(UNPROVEN_BYTES),
                };
                self.path = Some(Path {
                    flow: from,
                    heard: now,
                    bound_by: transaction,
                    budget,
                });
                out.events.push(SessionEvent::Bound(from));
            }
        }
    }

    /// When the peer last sent a check or a report.
    pub(crate) fn consented(&self) -> Instant {
        self.consented
    }

    /// A packet of the path's sender was authentic: it is the peer that sends from there.
    pub(crate) fn heard(&mut self, now: Instant) {
        if let Some(path) = self.path.as_mut() {
            path.heard = now;
        }
    }

    /// The peer is there, and wants to be sent to.
    fn consent(&mut self, now: Instant) {
        self.consented = now;
        if self.state == IceState::Disconnected {
            self.set_state(IceState::Connected);
        }
    }

    fn remember(
        &mut self,
        now: Instant,
        transaction: [u8; 12],
        from: SocketAddr,
        out: &mut Output,
    ) {
        let seconds = now.saturating_duration_since(self.opened).as_secs() as u32;
        let new = (transaction, from, seconds);
        if self.transactions.len() < TRANSACTIONS {
            self.transactions.push(new);
            return;
        }
        let (.., oldest) = std::mem::replace(&mut self.transactions[self.next_transaction], new);
        self.next_transaction = (self.next_transaction + 1) % TRANSACTIONS;
        if seconds - oldest < USUAL_MEMORY {
            out.cells().count_forgotten(Forgotten::Transaction);
        }
    }

    fn handle_dtls(
        &mut self,
        now: Instant,
        datagram: &[u8],
        out: &mut Output,
    ) -> Received<'static> {
        let Some(path) = self.path.as_ref() else {
            return Received::Nothing;
        };
        let to = path.flow;
        // The peer only starts a handshake after it heard an answer to a check.
        if self.state == IceState::Checking {
            self.set_state(IceState::Connected);
            if let Some(first) = self.first_check {
                self.cells.set_connection_time(now - first);
            }
        }
        let slab = &mut out.slab;
        let mut send = |bytes: &[u8]| {
            slab.push(to, bytes);
        };
        let mut data = Vec::new();
        let progress = self.dtls.handle_datagram(
            now,
            datagram,
            &self.identity,
            &self.fingerprint,
            &mut send,
            &mut data,
        );
        let received = self.advance(progress, out);
        for packet in data {
            self.handle_data(now, packet.freeze(), out);
        }
        received
    }

    /// Takes a packet for the data channel.
    fn handle_data(&mut self, now: Instant, packet: Bytes, out: &mut Output) {
        let mut messages = std::mem::take(&mut out.messages);
        let before = messages.len();
        let taken = self.with_channel(now, out, |channel, send| {
            channel.handle_packet(now, packet, &mut messages, send)
        });
        self.cells.count_messages(messages.len() - before);
        out.messages = messages;
        if taken == Some(false) {
            out.drop(Drop::Sctp);
        }
        self.note_channel_room(out);
    }

    /// Sends a message on the data channel.
    ///
    /// # Errors
    /// [`Unsent`].
    pub(crate) fn send_message(
        &mut self,
        now: Instant,
        message: &[u8],
        out: &mut Output,
    ) -> Result<(), Unsent> {
        let sent = self.with_channel(now, out, |channel, send| channel.send(now, message, send));
        sent.unwrap_or(Err(Unsent::Closed))?;
        self.cells.count_messages(1);
        Ok(())
    }

    fn note_channel_room(&mut self, out: &mut Output) {
        if self.channel.as_mut().is_some_and(|c| c.has_room_again()) {
            out.events.push(SessionEvent::ChannelRoom);
        }
    }

    /// Lets the channel work and sends what it has to say; `None` if it can't.
    fn with_channel<T>(
        &mut self,
        now: Instant,
        out: &mut Output,
        work: impl FnOnce(&mut Channel, &mut dyn FnMut(&[u8])) -> T,
    ) -> Option<T> {
        let to = self.media_path()?;
        let mut packets = Vec::new();
        let channel = self.channel.as_mut()?;
        let result = work(channel, &mut |packet| packets.push(packet.to_vec()));
        for packet in packets {
            if !self.spend(packet.len()) {
                out.drop(Drop::UnprovenPath);
                continue;
            }
            let slab = &mut out.slab;
            self.dtls.write(now, &packet, &mut |bytes| {
                slab.push(to, bytes);
            });
        }
        Some(result)
    }

    fn advance(&mut self, progress: Progress, out: &mut Output) -> Received<'static> {
        match progress {
            Progress::None => {}
            Progress::Dropped => out.drop(Drop::Dtls),
            Progress::Closed { by_peer } => {
                // Before keys anyone at that address could have said so; the session then waits for
                // a better handshake until its set-up limit.
                if by_peer && self.control.is_none() {
                    self.dtls = Dtls::new(self.channel.is_some());
                } else {
                    self.end(
                        if by_peer {
                            End::PeerClosed
                        } else {
                            End::Failed
                        },
                        out,
                    );
                }
            }
            Progress::Keyed(keys) => {
                if let Some(rtt) = self.dtls.round_trip() {
                    self.cells.set_rtt(rtt);
                }
                let keys = *keys;
                self.control = Some(Control {
                    rtcp_out: keys.rtcp_out,
                    rtcp_in: keys.rtcp_in,
                });
                out.events.push(SessionEvent::Connected);
                return Received::Keyed(Box::new(MediaKeys {
                    ours: keys.ours,
                    theirs: keys.theirs,
                }));
            }
        }
        Received::Nothing
    }

    /// Set-up limit, DTLS retransmission and consent. The role adds its own deadlines.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut Output) {
        if self.ended {
            return;
        }
        if let Some(to) = self.path.as_ref().map(|p| p.flow) {
            let slab = &mut out.slab;
            let progress = self.dtls.handle_timeout(now, &mut |bytes| {
                slab.push(to, bytes);
            });
            self.advance(progress, out);
        }
        if self.channel.is_some() {
            self.with_channel(now, out, |channel, send| channel.handle_timeout(now, send));
            self.note_channel_room(out);
        }
        if self.control.is_none() {
            if now >= self.opened + SETUP_LIMIT {
                self.end(End::SetupTimeout, out);
            }
        } else if now >= self.consented + CONSENT_LIMIT {
            self.set_state(IceState::Failed);
            self.end(End::IceFailed, out);
        } else if now >= self.consented + DISCONNECTED_AFTER && self.state == IceState::Connected {
            self.set_state(IceState::Disconnected);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        let limit = if self.control.is_none() {
            self.opened + SETUP_LIMIT
        } else if self.state == IceState::Connected {
            self.consented + DISCONNECTED_AFTER
        } else {
            self.consented + CONSENT_LIMIT
        };
        let channel = self.channel.as_ref().and_then(|c| c.poll_timeout());
        [self.dtls.poll_timeout(), channel]
            .into_iter()
            .flatten()
            .fold(limit, Instant::min)
    }

    /// Encrypts and sends a compound packet.
    pub(crate) fn send_rtcp(&mut self, compound: &rtcp::Writer, out: &mut Output) {
        let Some(to) = self.media_path().filter(|_| !compound.is_empty()) else {
            return;
        };
        let Some(control) = self.control.as_mut() else {
            return;
        };
        let max = compound.bytes().len() + control.rtcp_out.overhead();
        out.slab.write(to, max, |room| {
            control.rtcp_out.seal(compound.bytes(), room)
        });
    }

    pub(crate) fn close(&mut self, now: Instant, out: &mut Output) {
        self.ended = true;
        // Without consent not even a goodbye may go there (RFC 7675 §5.1).
        let consents = self.state != IceState::Failed;
        if let Some(to) = self.path.as_ref().filter(|_| consents).map(|p| p.flow) {
            let slab = &mut out.slab;
            self.dtls.close(now, &mut |bytes| {
                slab.push(to, bytes);
            });
        }
        if self.state != IceState::Failed {
            self.set_state(IceState::Closed);
        }
    }

    pub(crate) fn end(&mut self, reason: End, out: &mut Output) {
        if !std::mem::replace(&mut self.ended, true) {
            out.events.push(SessionEvent::Ended(reason));
        }
    }

    fn set_state(&mut self, state: IceState) {
        self.state = state;
        self.cells.set_ice_state(state);
    }
}

#[cfg(test)]
mod tests;
