//! The data channel `control` of a session: SCTP over the session's DTLS (RFC 8831), one channel that the
//! peer opens, or we where the offer was ours (RFC 8832), and whole messages.
//!
//! Wraps `rtc-sctp` and keeps from it what it would hold or do without bound for a peer, see `guard`. The
//! association is made when its INIT comes, so a peer that negotiated it and never uses it costs next to
//! nothing. Only an ordered and reliable channel of that label is accepted, and only while there is none;
//! others are closed again. Knows nothing of what messages say. Fed by `session`, with the packets that DTLS decrypted.

mod guard;

use bytes::Bytes;
use guard::{Guard, Init, Verdict};
use rtc_datachannel::message::Message as Establishment;
use rtc_datachannel::message::message_channel_ack::DataChannelAck;
use rtc_datachannel::message::message_channel_open::{ChannelType, DataChannelOpen};
use rtc_sctp::{
    Association, AssociationHandle, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier as Ppid, ServerConfig, StreamEvent, TransportConfig,
    max_payload_size_for_mtu,
};
use rtc_shared::TransportProtocol;
use rtc_shared::marshal::{Marshal, Unmarshal};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// Longest message, either way.
pub const MAX_MESSAGE: usize = 16 * 1024;
/// The one channel there is.
const LABEL: &[u8] = b"control";

/// Largest SCTP packet of ours: with the 37 bytes of a DTLS record it fills a datagram of 1200.
const MTU: u32 = 1163;
/// Bytes that wait to be acknowledged: the peer takes that much in a round trip.
const SEND_BUFFER: usize = 16 * 1024;
/// Packets sent in one go; what is beyond is sent for again, as if the network had lost it.
const MAX_BURST: usize = 64;
/// Associations that a peer may begin.
const MAX_BEGINNINGS: u8 = 8;
/// Type of the message that opens a channel (RFC 8832 §8.2.1).
const OPEN: u8 = 3;
/// The answer to it (RFC 8832 §8.2.1).
const ACK: [u8; 1] = [2];
/// Stream of the channel that we open: the peer opens DTLS, so ours have odd numbers (RFC 8832 §6).
const OWN_STREAM: u16 = 1;
/// Its priority, `normal` (RFC 8831 §6.4).
const NORMAL: u16 = 256;
/// Longest message that opens a channel: label and protocol have 512 bytes.
const MAX_ESTABLISHMENT: usize = 1024;
/// Channels refused in the life of an association: the association remembers a reset for each.
const MAX_REFUSALS: u8 = 32;

/// What came on the channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Whole(Box<[u8]>),
    /// Of more than [`MAX_MESSAGE`] bytes.
    TooLarge,
}

/// Why a message was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsent {
    /// The peer has no channel.
    Closed,
    /// The peer is behind: [`ChannelRoom`](crate::output::SessionEvent::ChannelRoom) says when to try again.
    Full,
    /// It is longer than the peer takes.
    TooLarge,
}

pub(crate) struct Channel {
    max_message: usize,
    state: State,
    beginnings: u8,
    /// Stream of the channel, while it is open.
    open: Option<u16>,
    /// We open it, once there is an association.
    opens: bool,
    /// We have, and the peer has not acknowledged it yet.
    unanswered: bool,
    /// Something was not sent because the peer is behind.
    blocked: bool,
    #[cfg(any(test, feature = "test-util"))]
    out_of_step: bool,
}

enum State {
    Idle,
    Begun(Box<Begun>),
    /// For good: it was closed or given up.
    Over,
}

struct Begun {
    endpoint: Endpoint,
    handle: AssociationHandle,
    association: Association,
    guard: Guard,
    init: Init,
    /// Our answer to the INIT, for repeats of it; until the association is up.
    answer: Vec<Bytes>,
    up: bool,
    /// The last sequence number that what was written takes.
    written: u32,
    refusals: u8,
}

impl Channel {
    /// `max_message` is the longest message that the peer takes; `opens`: we open the channel.
    pub(crate) fn new(max_message: Option<usize>, opens: bool) -> Channel {
        Channel {
            max_message: max_message.unwrap_or(MAX_MESSAGE).min(MAX_MESSAGE),
            state: State::Idle,
            beginnings: 0,
            open: None,
            opens,
            unanswered: false,
            blocked: false,
            #[cfg(any(test, feature = "test-util"))]
            out_of_step: false,
        }
    }

    /// Takes an SCTP packet; messages that it completes go to `messages`. `false` if it, or something in it,
    /// was not taken.
    pub(crate) fn handle_packet(
        &mut self,
        now: Instant,
        packet: Bytes,
        messages: &mut Vec<Message>,
        send: &mut dyn FnMut(&[u8]),
    ) -> bool {
        let taken = match Init::of(&packet) {
            Some(init) => self.begin(now, init, send),
            None => self.go_on(now, packet),
        };
        let right = self.handle_events(now, messages);
        self.flush(now, send);
        taken && right
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, send: &mut dyn FnMut(&[u8])) {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        if let State::Begun(begun) = &mut self.state {
            begun.association.handle_timeout(now);
        }
        self.flush(now, send);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Begun(begun) => begun.association.poll_timeout(),
            State::Idle | State::Over => None,
        }
    }

    /// Sends a message as text.
    ///
    /// # Errors
    /// [`Unsent`]; nothing of it is kept.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        message: &[u8],
        send: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Unsent> {
        let (Some(id), State::Begun(begun)) = (self.open, &mut self.state) else {
            return Err(Unsent::Closed);
        };
        if message.len() > self.max_message {
            return Err(Unsent::TooLarge);
        }
        let Ok(stream) = begun.association.stream(id) else {
            return Err(Unsent::Closed);
        };
        let waiting = stream.buffered_amount().unwrap_or(0);
        let much = waiting > 0 && waiting + message.len() > SEND_BUFFER;
        if much || begun.unacknowledged() >= guard::MAX_UNACKNOWLEDGED {
            self.blocked = true;
            return Err(Unsent::Full);
        }
        if !begun.write(now, id, Bytes::copy_from_slice(message), Ppid::String) {
            return Err(Unsent::Closed);
        }
        self.flush(now, send);
        Ok(())
    }

    /// Whether what found the peer behind may be tried again; `true` once.
    pub(crate) fn has_room_again(&mut self) -> bool {
        if !self.blocked {
            return false;
        }
        self.blocked = match (self.open, &mut self.state) {
            (Some(id), State::Begun(begun)) => {
                let stream = begun.association.stream(id);
                let waiting = stream.and_then(|stream| stream.buffered_amount());
                waiting.unwrap_or(0) > SEND_BUFFER / 2
                    || begun.unacknowledged() > guard::MAX_UNACKNOWLEDGED / 2
            }
            _ => false,
        };
        !self.blocked
    }

    /// Takes an INIT. A repeat gets the answer that it had: another would have another cookie, and the peer
    /// may have the first one.
    fn begin(&mut self, now: Instant, init: Init, send: &mut dyn FnMut(&[u8])) -> bool {
        match &self.state {
            State::Over => return false,
            State::Begun(begun) if begun.up => return false,
            State::Begun(begun) if begun.init == init => {
                begun.answer.iter().for_each(|packet| send(packet));
                return true;
            }
            State::Begun(_) | State::Idle => {}
        }
        self.beginnings = self.beginnings.saturating_add(1);
        if self.beginnings > MAX_BEGINNINGS {
            self.state = State::Over;
            return false;
        }
        let (endpoint_config, server_config) = configs();
        let mut endpoint = Endpoint::new(
            peer(),
            TransportProtocol::UDP,
            endpoint_config,
            Some(server_config),
        );
        let Some((handle, DatagramEvent::NewAssociation(mut association))) =
            endpoint.handle(now, peer(), None, init.packet())
        else {
            return false;
        };
        let mut answer = Vec::new();
        transmit(now, &mut association, &mut |packet| {
            send(packet);
            answer.push(Bytes::copy_from_slice(packet));
        });
        let answered = answer.first();
        let Some(guard) = answered.and_then(|answer| Guard::new(init, answer)) else {
            return false;
        };
        self.state = State::Begun(Box::new(Begun {
            endpoint,
            handle,
            association,
            written: guard.acknowledged(),
            guard,
            init,
            answer,
            up: false,
            refusals: 0,
        }));
        true
    }

    fn go_on(&mut self, now: Instant, mut packet: Bytes) -> bool {
        let State::Begun(begun) = &mut self.state else {
            return false;
        };
        match begun.guard.judge(&mut packet, begun.up) {
            Verdict::Take => begun.handle(now, packet),
            Verdict::Drop => false,
            Verdict::Ended => {
                self.state = State::Over;
                self.open = None;
                true
            }
            Verdict::GiveUp => {
                begun.give_up();
                false
            }
        }
    }

    /// Deals with what the association said; `false` if a channel was refused, or it is over.
    fn handle_events(&mut self, now: Instant, messages: &mut Vec<Message>) -> bool {
        let State::Begun(begun) = &mut self.state else {
            return true;
        };
        let mut right = true;
        while let Some(event) = begun.association.poll() {
            match event {
                Event::Connected => {
                    begun.up = true;
                    begun.answer = Vec::new();
                    if self.opens && begun.ask(now) {
                        self.open = Some(OWN_STREAM);
                        self.unanswered = true;
                    }
                }
                Event::Stream(StreamEvent::Readable { id }) => {
                    let mut refused = false;
                    // All of it: once the stream is closed, the rest could not be read any more.
                    while let Some((ppid, message)) = begun.read(id) {
                        if ppid == Ppid::Dcep && self.open == Some(id) {
                            // Once it is open, another answer would wait for the peer as well.
                            let awaited = std::mem::take(&mut self.unanswered);
                            right &= awaited && message == Message::Whole(ACK.into());
                        } else if ppid == Ppid::Dcep {
                            refused |= !begun.establish(now, id, &message, &mut self.open);
                        } else if self.open == Some(id) {
                            messages.push(message);
                        }
                    }
                    if refused {
                        right = false;
                        begun.refuse(now, id);
                    }
                }
                // The peer has closed it.
                Event::AssociationLost { id, .. } if self.open == Some(id) => self.open = None,
                _ => {}
            }
        }
        while begun.association.poll_endpoint_event().is_some() {}
        while begun.association.accept_stream().is_some() {}
        right
    }

    fn flush(&mut self, now: Instant, send: &mut dyn FnMut(&[u8])) {
        let State::Begun(begun) = &mut self.state else {
            return;
        };
        let complete = begun.guard.complete();
        let mut in_step = true;
        transmit(now, &mut begun.association, &mut |packet| {
            in_step &= guard::acknowledges(packet).is_none_or(|tsn| tsn == complete);
            send(packet);
        });
        if !in_step {
            #[cfg(any(test, feature = "test-util"))]
            {
                self.out_of_step = true;
            }
            begun.give_up();
            transmit(now, &mut begun.association, send);
        }
        if begun.is_over() {
            self.state = State::Over;
            self.open = None;
        }
    }
}

impl Begun {
    fn handle(&mut self, now: Instant, packet: Bytes) -> bool {
        match self.endpoint.handle(now, peer(), None, packet) {
            Some((handle, DatagramEvent::AssociationEvent(event))) if handle == self.handle => {
                self.association.handle_event(event);
                true
            }
            _ => false,
        }
    }

    /// Before it is up it is closed as well.
    fn is_over(&self) -> bool {
        self.up && self.association.is_closed()
    }

    /// The next whole message of a stream.
    fn read(&mut self, id: u16) -> Option<(Ppid, Message)> {
        let mut stream = self.association.stream(id).ok()?;
        let chunks = stream.read_sctp().ok()??;
        self.guard.read(id, chunks.chunks.len(), chunks.len());
        let message = match chunks.ppi {
            // One byte stands for none, which SCTP can't send (RFC 8831 §6.6).
            Ppid::StringEmpty | Ppid::BinaryEmpty => Message::Whole(Box::default()),
            _ => match chunks.to_payload(MAX_MESSAGE) {
                Ok(payload) => Message::Whole(payload.as_ref().into()),
                Err(_) => Message::TooLarge,
            },
        };
        Some((chunks.ppi, message))
    }

    /// Opens the channel from our side. Messages may follow before the peer acknowledges it (RFC 8832 §6).
    fn ask(&mut self, now: Instant) -> bool {
        let asked = Establishment::DataChannelOpen(DataChannelOpen {
            channel_type: ChannelType::Reliable,
            priority: NORMAL,
            reliability_parameter: 0,
            label: LABEL.to_vec(),
            protocol: Vec::new(),
        });
        let opened = self.association.open_stream(OWN_STREAM, Ppid::String);
        opened.is_ok()
            && asked
                .marshal()
                .is_ok_and(|asked| self.write(now, OWN_STREAM, asked.freeze(), Ppid::Dcep))
    }

    /// Takes a message about a stream's channel; `false` if the stream is to be closed.
    fn establish(
        &mut self,
        now: Instant,
        id: u16,
        message: &Message,
        open: &mut Option<u16>,
    ) -> bool {
        let right = match message {
            Message::Whole(bytes) if bytes.len() <= MAX_ESTABLISHMENT => match &bytes[..] {
                // Messages of other types are refused unread: the parser of one panics where it is short.
                [OPEN, asked @ ..] => DataChannelOpen::unmarshal(&mut &*asked)
                    .is_ok_and(|asked| is_ours(&asked, id) && open.is_none()),
                _ => false,
            },
            _ => false,
        };
        let ack = Establishment::DataChannelAck(DataChannelAck {}).marshal();
        let opened = right && ack.is_ok_and(|ack| self.write(now, id, ack.freeze(), Ppid::Dcep));
        if opened {
            *open = Some(id);
        }
        opened
    }

    /// Closes a stream by resetting it (RFC 8831 §6.7). One that is closing already is left so.
    fn refuse(&mut self, now: Instant, id: u16) {
        let Ok(mut stream) = self.association.stream(id) else {
            return;
        };
        if stream.close(now).is_err() {
            return self.give_up();
        }
        self.guard.close(id);
        self.refusals += 1;
        if self.refusals > MAX_REFUSALS {
            self.give_up();
        }
    }

    fn write(&mut self, now: Instant, id: u16, message: Bytes, ppid: Ppid) -> bool {
        let chunks = message
            .len()
            .div_ceil(max_payload_size_for_mtu(MTU) as usize);
        let stream = self.association.stream(id);
        let written = stream.and_then(|mut s| s.write_chunk_with_ppi(now, &message, ppid));
        if written.is_ok() {
            self.written = self.written.wrapping_add(chunks as u32);
        }
        written.is_ok()
    }

    /// Chunks of ours that the peer has not acknowledged, or not without a gap before them.
    fn unacknowledged(&self) -> u32 {
        self.written.wrapping_sub(self.guard.acknowledged())
    }

    /// Ends the association; the peer is told with the next flush.
    fn give_up(&mut self) {
        // It fails in no state.
        let _ = self.association.abort();
        self.up = true;
    }
}

/// The peer opens DTLS, so its streams have even numbers (RFC 8832 §6).
fn is_ours(asked: &DataChannelOpen, id: u16) -> bool {
    id.is_multiple_of(2) && asked.label == LABEL && asked.channel_type == ChannelType::Reliable
}

fn transmit(now: Instant, association: &mut Association, send: &mut dyn FnMut(&[u8])) {
    let mut left = MAX_BURST;
    while let Some(transmit) = association.poll_transmit(now) {
        let Payload::RawEncode(packets) = transmit.message else {
            return;
        };
        if left == 0 {
            return;
        }
        let fits = |packet: &&Bytes| packet.len() <= MTU as usize;
        packets
            .iter()
            .take(left)
            .filter(fits)
            .for_each(|packet| send(packet));
        left = left.saturating_sub(packets.len());
    }
}

/// `rtc-sctp` asks for an address. A session has one association.
fn peer() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 1))
}

/// The same for all sessions.
fn configs() -> (Arc<EndpointConfig>, Arc<ServerConfig>) {
    static CONFIGS: OnceLock<(Arc<EndpointConfig>, Arc<ServerConfig>)> = OnceLock::new();
    let configs = CONFIGS.get_or_init(|| {
        let mut endpoint = EndpointConfig::new();
        endpoint.max_payload_size(max_payload_size_for_mtu(MTU));
        let transport = TransportConfig::default()
            .with_max_receive_buffer_size(guard::RECEIVE_BUFFER)
            .with_max_message_size(MAX_MESSAGE as u32)
            .with_max_num_inbound_streams(guard::STREAMS)
            .with_max_num_outbound_streams(guard::STREAMS);
        (Arc::new(endpoint), Arc::new(ServerConfig::new(transport)))
    });
    configs.clone()
}

/// A channel on its own, without the session that encrypts for it.
#[cfg(any(test, feature = "test-util"))]
pub struct Bare(Channel);

#[cfg(any(test, feature = "test-util"))]
impl Bare {
    /// `opens`: from our side.
    pub fn new(opens: bool) -> Bare {
        Bare(Channel::new(None, opens))
    }

    /// Takes a packet and does what is due; returns what it sends and the messages that came.
    pub fn handle(&mut self, now: Instant, packet: &[u8]) -> (Vec<Vec<u8>>, Vec<Message>) {
        let (mut sent, mut messages) = (Vec::new(), Vec::new());
        let mut send = |packet: &[u8]| sent.push(packet.to_vec());
        let packet = Bytes::copy_from_slice(packet);
        self.0.handle_packet(now, packet, &mut messages, &mut send);
        self.0.handle_timeout(now, &mut send);
        (sent, messages)
    }

    /// The sequence number up to which all has come, as `guard` counts it.
    pub fn complete(&self) -> Option<u32> {
        self.begun().map(|begun| begun.guard.complete())
    }

    /// Whether the association was given up because it had taken what the guard had not, or the reverse.
    pub fn is_out_of_step(&self) -> bool {
        self.0.out_of_step
    }

    /// Chunks that wait to be read, and those of ours that wait to be acknowledged.
    pub fn waiting(&self) -> (usize, usize) {
        self.begun().map_or((0, 0), |begun| {
            (begun.guard.held_chunks(), begun.unacknowledged() as usize)
        })
    }

    /// Bytes that wait to be read, as `guard` counts them: not fewer than the association keeps.
    pub fn held_bytes(&self) -> usize {
        self.begun().map_or(0, |begun| begun.guard.held_bytes())
    }

    fn begun(&self) -> Option<&Begun> {
        match &self.0.state {
            State::Begun(begun) => Some(begun),
            State::Idle | State::Over => None,
        }
    }

    /// Sends a message; returns the packets.
    pub fn send(&mut self, now: Instant, message: &[u8]) -> Result<Vec<Vec<u8>>, Unsent> {
        let mut sent = Vec::new();
        let mut send = |packet: &[u8]| sent.push(packet.to_vec());
        self.0.send(now, message, &mut send).map(|()| sent)
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.0.poll_timeout()
    }
}

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;
