//! Which SCTP packets of a peer may reach the association, and when it is given up.
//!
//! `rtc-sctp` trusts its peer with memory and time: it keeps what was sent out of order without a bound on
//! how far, keeps pieces of a message that never ends beyond its receive buffer, opens any stream, and walks
//! through every sequence number that a FORWARD-TSN skips and every block of a SACK. What comes on a stream
//! that it has closed can't be read any more, and is kept. It also panics where the cause of an ABORT or ERROR
//! is cut short, and takes the rest of a chunk that is longer than its contents for another one. So each packet
//! is looked at here first, an INIT is written anew, and an ABORT ends here.
//!
//! This holds only while both count the same packets: whatever the association would drop is dropped here, and
//! `channel` ends an association whose SACK is not of [`Guard::complete`]. Pure; knows only what the packets
//! say. Called by `channel`.

mod packet;

use bytes::Bytes;
pub(super) use packet::acknowledges;
use packet::{Left, chunks, is_whole, seal, word};

/// Streams of each direction, told to the peer in the handshake. A browser numbers its channels from 0 in
/// steps of two, so that a page may have seven others.
pub(super) const STREAMS: u16 = 16;

/// How far ahead of what is complete a packet's data may be, in chunks. Beyond, the peer sends it again.
const WINDOW: u32 = u128::BITS;
/// Chunks, and bytes of them, that wait for others: more is taken only if it is what they wait for. A
/// message of the longest kind that is still answered takes 60.
const HELD_CHUNKS: usize = 256;
const HELD_BYTES: usize = 96 * 1024;
/// The association is given up beyond: its peer sends a message that does not end. Below its receive buffer,
/// so that it refuses nothing itself. A chunk keeps the packet that it came in: with the longest packets, of
/// 2048 bytes, and what the association adds, these many are 1 MiB.
const MOST_HELD_CHUNKS: usize = 384;
const MOST_HELD_BYTES: usize = 160 * 1024;
pub(super) const RECEIVE_BUFFER: u32 = 192 * 1024;
/// Chunks of one packet.
const MAX_CHUNKS: usize = 64;
/// Streams reset in the life of an association: each makes it remember a reset of its own, or two.
const MAX_RESETS: usize = 128;
/// Chunks of ours that the peer has not acknowledged without a gap, beyond which no message is sent: the
/// association looks at all of them for each SACK, also at those that are acknowledged behind a gap.
pub(super) const MAX_UNACKNOWLEDGED: u32 = 512;
/// Furthest that a SACK may reach: those, a message, and an answer to each channel that may be opened.
const MAX_GAP: u16 = 1024;

const DATA_HEADER: usize = 12;

const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const SACK: u8 = 3;
const HEARTBEAT: u8 = 4;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const COOKIE_ECHO: u8 = 10;
const SHUTDOWN_COMPLETE: u8 = 14;
const RE_CONFIG: u8 = 130;
const FORWARD_TSN: u8 = 192;

/// What an INIT has before its parameters, and the parameter that says which chunks its sender knows.
const INIT_FIXED: usize = 16;
const SUPPORTED_EXTENSIONS: [u8; 8] = [
    0x80,
    0x08,
    0,
    8,
    RE_CONFIG,
    FORWARD_TSN,
    RE_CONFIG,
    FORWARD_TSN,
];
const HEARTBEAT_INFO: u16 = 1;

/// Parameters of RE-CONFIG (RFC 6525 §4).
const OUTGOING_RESET: u16 = 13;
const RESET_RESPONSE: u16 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Take,
    /// As if the network had lost it.
    Drop,
    /// The peer has ended the association.
    Ended,
    /// No correct peer gets here.
    GiveUp,
}

/// The INIT that a packet is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Init {
    ports: [u8; 4],
    /// From the initiate tag to the first sequence number.
    fixed: [u8; INIT_FIXED],
}

impl Init {
    /// `None` for every other packet, and for an INIT that is not alone, has a verification tag or no port, or
    /// says that it comes from nobody (RFC 9260 §3.1, §3.3.2).
    pub(super) fn of(packet: &[u8]) -> Option<Init> {
        let mut chunks = chunks(packet);
        let (INIT, _, value) = chunks.next()?? else {
            return None;
        };
        let alone = chunks.next().is_none() && word(packet, 4)? == 0;
        word(value, 0).filter(|tag| *tag != 0 && alone)?;
        let ports: [u8; 4] = *packet.first_chunk()?;
        if ports[..2] == [0; 2] || ports[2..] == [0; 2] {
            return None;
        }
        Some(Init {
            ports,
            fixed: *value.first_chunk()?,
        })
    }

    fn first_tsn(&self) -> u32 {
        word(&self.fixed, INIT_FIXED - 4).unwrap_or_default()
    }

    /// A packet that says the same, and that its sender knows what every browser does. Other parameters are
    /// of no use here, and the association would refuse those that it does not know.
    pub(super) fn packet(&self) -> Bytes {
        let mut packet = Vec::with_capacity(40);
        packet.extend(self.ports);
        packet.extend([0; 8]);
        packet.extend([INIT, 0, 0, 28]);
        packet.extend(self.fixed);
        packet.extend(SUPPORTED_EXTENSIONS);
        seal(&mut packet);
        packet.into()
    }
}

/// What is known of one association.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    /// What each packet of the peer begins with: ports, and the tag of our INIT ACK.
    header: [u8; 8],
    /// All up to this sequence number has come.
    complete: u32,
    /// What came beyond; the lowest bit is the next one.
    ahead: u128,
    held: [Held; STREAMS as usize],
    resets: usize,
    /// Streams that we have closed and the peer has not.
    closed: u16,
    /// All of ours up to this sequence number has come.
    acknowledged: u32,
}

/// What a stream waits with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Held {
    chunks: usize,
    bytes: usize,
}

impl Guard {
    /// Of the association that answers an INIT so; `None` if that is no answer.
    pub(super) fn new(init: Init, answer: &[u8]) -> Option<Guard> {
        let (INIT_ACK, _, value) = chunks(answer).next()?? else {
            return None;
        };
        let mut header = [0; 8];
        header[..4].copy_from_slice(&init.ports);
        header[4..].copy_from_slice(value.first_chunk::<4>()?);
        Some(Guard {
            header,
            complete: init.first_tsn().wrapping_sub(1),
            ahead: 0,
            held: [Held::default(); STREAMS as usize],
            resets: 0,
            closed: 0,
            acknowledged: word(value, INIT_FIXED - 4)?.wrapping_sub(1),
        })
    }

    /// Judges a packet that is no INIT; taken note of if it is taken. Before the association is `up`, it
    /// must echo the cookie. What is for a stream that is closed is taken out of it.
    pub(super) fn judge(&mut self, packet: &mut Bytes, up: bool) -> Verdict {
        if packet.get(..8) != Some(&self.header[..]) || !is_whole(packet) {
            return Verdict::Drop;
        }
        let mut next = self.clone();
        let mut left = Left::of(packet);
        let mut count = 0;
        let (mut sacks, mut resets) = (0, 0);
        for chunk in chunks(packet) {
            let Some((kind, flags, value)) = chunk else {
                return Verdict::Drop;
            };
            count += 1;
            sacks += usize::from(kind == SACK);
            resets += usize::from(kind == RE_CONFIG);
            let many = count > MAX_CHUNKS || sacks > 1 || resets > 1;
            if many || count == 1 && !up && kind != COOKIE_ECHO {
                return Verdict::Drop;
            }
            let verdict = match kind {
                DATA if next.is_closed(value.get(4..6)) => {
                    next.skip_data(value, &mut left);
                    continue;
                }
                DATA => next.take_data(value),
                FORWARD_TSN => match next.forward(value) {
                    Verdict::Take => {
                        next.leave_out_closed(value, &mut left);
                        continue;
                    }
                    verdict => verdict,
                },
                RE_CONFIG => next.reset(value),
                COOKIE_ECHO => Verdict::Take,
                SACK => next.take_sack(value),
                HEARTBEAT => exactly(value, parameter(value, HEARTBEAT_INFO)),
                SHUTDOWN => exactly(value, Some(4)),
                SHUTDOWN_ACK | SHUTDOWN_COMPLETE => exactly(value, Some(0)),
                ABORT => Verdict::Ended,
                // The association does not know it, or has no use for it: an ERROR, for instance, is for the
                // log of its receiver.
                _ => Verdict::Drop,
            };
            if verdict != Verdict::Take {
                return verdict;
            }
            left.push(kind, flags, value);
        }
        if left.is_empty() {
            return Verdict::Drop;
        }
        *self = next;
        if let Some(other) = left.finish() {
            *packet = other;
        }
        Verdict::Take
    }

    /// All of the peer's up to this sequence number has come.
    pub(super) fn complete(&self) -> u32 {
        self.complete
    }

    /// All of ours up to this sequence number has come.
    pub(super) fn acknowledged(&self) -> u32 {
        self.acknowledged
    }

    /// A message of so many chunks and bytes was read.
    pub(super) fn read(&mut self, stream: u16, chunks: usize, bytes: usize) {
        if let Some(held) = self.held.get_mut(usize::from(stream)) {
            held.chunks = held.chunks.saturating_sub(chunks);
            held.bytes = held.bytes.saturating_sub(bytes);
        }
    }

    /// We have closed a stream.
    pub(super) fn close(&mut self, stream: u16) {
        self.closed |= 1u16.checked_shl(stream.into()).unwrap_or(0);
    }

    /// All that waits.
    pub(super) fn held_chunks(&self) -> usize {
        self.held.iter().map(|held| held.chunks).sum()
    }

    /// Bytes of all that waits.
    pub(super) fn held_bytes(&self) -> usize {
        self.held.iter().map(|held| held.bytes).sum()
    }

    fn is_closed(&self, stream: Option<&[u8]>) -> bool {
        let Some([high, low]) = stream else {
            return false;
        };
        let stream = u16::from_be_bytes([*high, *low]);
        let bit = 1u16.checked_shl(stream.into()).unwrap_or(0);
        self.closed & bit != 0
    }

    /// Data of a closed stream: given up as its sender would do it, once it is next.
    fn skip_data(&mut self, value: &[u8], left: &mut Left) {
        let tsn = word(value, 0).unwrap_or(self.complete);
        match self.ahead_by(tsn) {
            Some(1) => {
                self.advance(1);
                left.replace(FORWARD_TSN, &tsn.to_be_bytes());
            }
            // So that it is acknowledged once more.
            None => left.replace(FORWARD_TSN, &self.complete.to_be_bytes()),
            Some(_) => left.leave_out(),
        }
    }

    /// A FORWARD-TSN that was taken, without the streams that are closed: they could become readable.
    fn leave_out_closed(&self, value: &[u8], left: &mut Left) {
        let (tsn, streams) = value.split_at(4);
        let open = |stream: &&[u8]| !self.is_closed(stream.get(..2));
        let kept: Vec<u8> = streams.chunks(4).filter(open).flatten().copied().collect();
        if kept.len() == streams.len() {
            left.push(FORWARD_TSN, 0, value);
        } else {
            left.replace(FORWARD_TSN, &[tsn, &kept].concat());
        }
    }

    /// Its length and blocks have to be right (RFC 9260 §3.3.4), each block beyond the one before.
    fn take_sack(&mut self, value: &[u8]) -> Verdict {
        let (Some(tsn), Some(counts)) = (word(value, 0), word(value, 8)) else {
            return Verdict::Drop;
        };
        let (blocks, repeats) = ((counts >> 16) as usize, (counts & 0xffff) as usize);
        if value.len() != 12 + 4 * blocks + 4 * repeats {
            return Verdict::Drop;
        }
        let mut last = 0;
        for at in 0..blocks {
            let block = word(value, 12 + 4 * at).unwrap_or_default();
            let (start, end) = ((block >> 16) as u16, block as u16);
            if start <= last || end < start || end > MAX_GAP {
                return Verdict::Drop;
            }
            last = end;
        }
        if (1..=u32::MAX / 2).contains(&tsn.wrapping_sub(self.acknowledged)) {
            self.acknowledged = tsn;
        }
        Verdict::Take
    }

    fn take_data(&mut self, value: &[u8]) -> Verdict {
        let (Some(tsn), Some(stream)) = (word(value, 0), value.get(4..6)) else {
            return Verdict::Drop;
        };
        let stream = u16::from_be_bytes([stream[0], stream[1]]);
        // Without data it is an error (RFC 9260 §3.3.1), and would count for nothing while it is held.
        if value.len() <= DATA_HEADER || stream >= STREAMS {
            return Verdict::Drop;
        }
        let Some(distance) = self.ahead_by(tsn) else {
            return Verdict::Take;
        };
        if distance > WINDOW {
            return Verdict::Drop;
        }
        let bit = 1 << (distance - 1);
        if self.ahead & bit != 0 {
            return Verdict::Take;
        }
        let held = &mut self.held[usize::from(stream)];
        held.chunks += 1;
        held.bytes += value.len() - DATA_HEADER;
        let (chunks, bytes) = (self.held_chunks(), self.held_bytes());
        if chunks > MOST_HELD_CHUNKS || bytes > MOST_HELD_BYTES {
            return Verdict::GiveUp;
        }
        let much = chunks > HELD_CHUNKS || bytes > HELD_BYTES;
        if much && distance > 1 {
            return Verdict::Drop;
        }
        self.ahead |= bit;
        self.advance(0);
        Verdict::Take
    }

    fn forward(&mut self, value: &[u8]) -> Verdict {
        // Each stream has one place in it.
        if !value.len().is_multiple_of(4) || value.len() > 4 + 4 * usize::from(STREAMS) {
            return Verdict::Drop;
        }
        match word(value, 0).map(|tsn| self.ahead_by(tsn)) {
            None => Verdict::Drop,
            Some(None) => Verdict::Take,
            Some(Some(distance)) if distance > WINDOW => Verdict::Drop,
            Some(Some(distance)) => {
                self.advance(distance);
                Verdict::Take
            }
        }
    }

    /// One parameter or two, one request at the most.
    fn reset(&mut self, mut params: &[u8]) -> Verdict {
        let mut requests = 0;
        for _ in 0..2 {
            let len = if let Some(len) = parameter(params, OUTGOING_RESET) {
                // Before all data of the stream is here the association would have to remember it, and ask
                // itself of it for each chunk. The peer asks again.
                let here = word(params, 12).map(|last| self.ahead_by(last)) == Some(None);
                requests += 1;
                let right = len >= 16 && len % 2 == 0 && len <= 16 + 2 * usize::from(STREAMS);
                if !here || self.ahead != 0 || !right || requests > 1 {
                    return Verdict::Drop;
                }
                let streams = params.get(16..len).unwrap_or(&[]);
                self.resets += (streams.len() / 2).max(1);
                if self.resets > MAX_RESETS {
                    return Verdict::GiveUp;
                }
                for stream in streams.as_chunks().0 {
                    self.begin_anew(u16::from_be_bytes(*stream));
                }
                len
            } else if let Some(len) = parameter(params, RESET_RESPONSE).filter(|len| *len == 12) {
                len
            } else {
                return Verdict::Drop;
            };
            match params.get(len.next_multiple_of(4)..) {
                Some(rest) if !rest.is_empty() => params = rest,
                _ => return Verdict::Take,
            }
        }
        Verdict::Drop
    }

    /// The association forgets a stream with all that it waits with.
    fn begin_anew(&mut self, stream: u16) {
        self.closed &= !1u16.checked_shl(stream.into()).unwrap_or(0);
        if let Some(held) = self.held.get_mut(usize::from(stream)) {
            *held = Held::default();
        }
    }

    /// How far a sequence number is beyond what is complete; `None` if it is not. Half of all numbers away it
    /// is neither by RFC 1982 §3.2, and the association takes it for one to come.
    fn ahead_by(&self, tsn: u32) -> Option<u32> {
        let distance = tsn.wrapping_sub(self.complete);
        (1..=1 << 31).contains(&distance).then_some(distance)
    }

    /// So many more are complete, and those that follow without a gap.
    fn advance(&mut self, by: u32) {
        for by in [by, self.ahead.checked_shr(by).unwrap_or(0).trailing_ones()] {
            self.complete = self.complete.wrapping_add(by);
            self.ahead = self.ahead.checked_shr(by).unwrap_or(0);
        }
    }
}

/// What is longer than it says would be read as something else.
fn exactly(value: &[u8], len: Option<usize>) -> Verdict {
    match len == Some(value.len()) {
        true => Verdict::Take,
        false => Verdict::Drop,
    }
}

/// Length of the parameter that a chunk's value begins with, if it is of that kind and whole.
fn parameter(value: &[u8], kind: u16) -> Option<usize> {
    let header = word(value, 0)?;
    let len = (header & 0xffff) as usize;
    (header >> 16 == u32::from(kind) && (4..=value.len()).contains(&len)).then_some(len)
}

#[cfg(test)]
mod tests;
