//! Which SCTP packets of a peer may reach the association, and when it is given up.
//!
//! `rtc-sctp` trusts its peer with memory and time: it keeps what was sent out of order without a bound on
//! how far, keeps pieces of a message that never ends beyond its receive buffer, opens any stream, and walks
//! through every sequence number that a FORWARD-TSN skips. It also panics where the cause of an ABORT or ERROR
//! is cut short, and takes the rest of a chunk that is longer than its contents for another one. So each packet
//! is looked at here first, an INIT is written anew, and an ABORT ends here. Pure; knows only what the packets
//! say. Called by `channel`.

use bytes::Bytes;

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
/// so that it refuses nothing itself.
const MOST_HELD_CHUNKS: usize = 512;
const MOST_HELD_BYTES: usize = 160 * 1024;
pub(super) const RECEIVE_BUFFER: u32 = 192 * 1024;
/// Chunks of one packet.
const MAX_CHUNKS: usize = 64;
/// Resets of streams in the life of an association: each makes it remember one of its own.
const MAX_RESETS: u16 = 256;

const COMMON_HEADER: usize = 12;
const CHUNK_HEADER: usize = 4;
const DATA_HEADER: usize = 12;

const DATA: u8 = 0;
const INIT: u8 = 1;
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
    /// `None` for every other packet, and for an INIT that is not alone, has a verification tag, or says
    /// that it comes from nobody (RFC 9260 §3.3.2).
    pub(super) fn of(packet: &[u8]) -> Option<Init> {
        let mut chunks = chunks(packet);
        let (INIT, value) = chunks.next()?? else {
            return None;
        };
        let alone = chunks.next().is_none() && word(packet, 4)? == 0;
        word(value, 0).filter(|tag| *tag != 0 && alone)?;
        Some(Init {
            ports: *packet.first_chunk()?,
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
        let checksum = crc32c::crc32c(&packet).to_le_bytes();
        packet[8..COMMON_HEADER].copy_from_slice(&checksum);
        packet.into()
    }
}

/// What is known of one association.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    /// All up to this sequence number has come.
    complete: u32,
    /// What came beyond; the lowest bit is the next one.
    ahead: u128,
    held_chunks: usize,
    held_bytes: usize,
    resets: u16,
}

impl Guard {
    pub(super) fn new(init: Init) -> Guard {
        Guard {
            complete: init.first_tsn().wrapping_sub(1),
            ahead: 0,
            held_chunks: 0,
            held_bytes: 0,
            resets: 0,
        }
    }

    /// Judges a packet that is no INIT; taken note of if it is taken. Before the association is `up`, it
    /// must echo the cookie.
    pub(super) fn judge(&mut self, packet: &[u8], up: bool) -> Verdict {
        let mut next = self.clone();
        let mut count = 0;
        for chunk in chunks(packet) {
            let Some((kind, value)) = chunk else {
                return Verdict::Drop;
            };
            count += 1;
            if count > MAX_CHUNKS || count == 1 && !up && kind != COOKIE_ECHO {
                return Verdict::Drop;
            }
            let verdict = match kind {
                DATA => next.take_data(value),
                FORWARD_TSN => next.forward(value),
                RE_CONFIG => next.reset(value),
                COOKIE_ECHO => Verdict::Take,
                SACK => exactly(value, sack_len(value)),
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
        }
        if count == 0 {
            return Verdict::Drop;
        }
        *self = next;
        Verdict::Take
    }

    /// A message of so many chunks and bytes was read.
    pub(super) fn read(&mut self, chunks: usize, bytes: usize) {
        self.held_chunks = self.held_chunks.saturating_sub(chunks);
        self.held_bytes = self.held_bytes.saturating_sub(bytes);
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
        self.held_chunks += 1;
        self.held_bytes += value.len() - DATA_HEADER;
        if self.held_chunks > MOST_HELD_CHUNKS || self.held_bytes > MOST_HELD_BYTES {
            return Verdict::GiveUp;
        }
        let much = self.held_chunks > HELD_CHUNKS || self.held_bytes > HELD_BYTES;
        if much && distance > 1 {
            return Verdict::Drop;
        }
        self.ahead |= bit;
        self.advance(0);
        Verdict::Take
    }

    fn forward(&mut self, value: &[u8]) -> Verdict {
        if !value.len().is_multiple_of(4) {
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

    /// One parameter or two.
    fn reset(&mut self, mut params: &[u8]) -> Verdict {
        for _ in 0..2 {
            let len = if let Some(len) = parameter(params, OUTGOING_RESET) {
                // Before all data of the stream is here the association would have to remember it. The peer
                // asks again.
                match word(params, 12).map(|last| self.ahead_by(last)) {
                    Some(None) if len >= 16 && len % 2 == 0 => self.resets += 1,
                    _ => return Verdict::Drop,
                }
                if self.resets > MAX_RESETS {
                    return Verdict::GiveUp;
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

    /// How far a sequence number is beyond what is complete; `None` if it is not.
    fn ahead_by(&self, tsn: u32) -> Option<u32> {
        let distance = tsn.wrapping_sub(self.complete);
        (1..=u32::MAX / 2).contains(&distance).then_some(distance)
    }

    /// So many more are complete, and those that follow without a gap.
    fn advance(&mut self, by: u32) {
        for by in [by, self.ahead.checked_shr(by).unwrap_or(0).trailing_ones()] {
            self.complete = self.complete.wrapping_add(by);
            self.ahead = self.ahead.checked_shr(by).unwrap_or(0);
        }
    }
}

/// The chunks of a packet, type and value each; `None` ends it where one is cut short.
fn chunks(packet: &[u8]) -> impl Iterator<Item = Option<(u8, &[u8])>> {
    let mut rest = packet.get(COMMON_HEADER..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let chunk = rest.first_chunk::<CHUNK_HEADER>().and_then(|header| {
            let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
            Some((header[0], rest.get(CHUNK_HEADER..len)?, len))
        });
        let Some((kind, value, len)) = chunk else {
            rest = &[];
            return Some(None);
        };
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Some((kind, value)))
    })
}

/// What is longer than it says would be read as something else.
fn exactly(value: &[u8], len: Option<usize>) -> Verdict {
    match len == Some(value.len()) {
        true => Verdict::Take,
        false => Verdict::Drop,
    }
}

/// Length of a SACK by what it says of its contents (RFC 9260 §3.3.4).
fn sack_len(value: &[u8]) -> Option<usize> {
    let counts = word(value, 8)?;
    Some(12 + 4 * (counts >> 16) as usize + 4 * (counts & 0xffff) as usize)
}

/// Length of the parameter that a chunk's value begins with, if it is of that kind and whole.
fn parameter(value: &[u8], kind: u16) -> Option<usize> {
    let header = word(value, 0)?;
    let len = (header & 0xffff) as usize;
    (header >> 16 == u32::from(kind) && (4..=value.len()).contains(&len)).then_some(len)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(chunks: &[(u8, &[u8])]) -> Vec<u8> {
        let mut packet = vec![0; COMMON_HEADER];
        for (kind, value) in chunks {
            packet.extend([*kind, 3]);
            packet.extend((CHUNK_HEADER as u16 + value.len() as u16).to_be_bytes());
            packet.extend(*value);
            packet.resize(packet.len().next_multiple_of(4), 0);
        }
        packet
    }

    fn data(tsn: u32, stream: u16, len: usize) -> Vec<u8> {
        let mut value = tsn.to_be_bytes().to_vec();
        value.extend(stream.to_be_bytes());
        value.extend([0; 6]);
        value.extend(vec![7; len]);
        packet(&[(DATA, &value)])
    }

    fn guard(first_tsn: u32) -> Guard {
        let mut fixed = [1; INIT_FIXED];
        fixed[12..].copy_from_slice(&first_tsn.to_be_bytes());
        Guard::new(Init {
            ports: [0x13, 0x88, 0x13, 0x88],
            fixed,
        })
    }

    #[test]
    fn data_is_taken_in_any_order_within_the_window_also_where_numbers_wrap() {
        let mut guard = guard(u32::MAX);
        for tsn in [u32::MAX, 1, 0, 1, 3, 127 + 2] {
            assert_eq!(guard.judge(&data(tsn, 0, 9), true), Verdict::Take, "{tsn}");
        }
        assert_eq!(guard.complete, 1);
        assert_eq!(guard.judge(&data(130, 0, 9), true), Verdict::Drop);
        assert_eq!(guard.held_chunks, 5, "the repeat is not held");
    }

    #[test]
    fn a_message_that_does_not_end_is_the_end_of_the_association() {
        let mut guard = guard(0);
        let mut verdicts = (0..).map(|tsn| guard.judge(&data(tsn, 0, 1), true));
        let taken = verdicts.by_ref().take_while(|v| *v == Verdict::Take);
        assert_eq!(taken.count(), MOST_HELD_CHUNKS);
        let mut guard = self::guard(0);
        for tsn in 0..10_000 {
            assert_eq!(guard.judge(&data(tsn, 0, 1_000), true), Verdict::Take);
            guard.read(1, 1_000);
        }
    }

    #[test]
    fn what_would_cost_without_bound_does_not_pass() {
        let mut guard = guard(10);
        let far = 1_000_000_000u32.to_be_bytes();
        let reset = |last: u32| {
            let mut param = vec![0, 13, 0, 18];
            param.extend([0; 8]);
            param.extend(last.to_be_bytes());
            param.extend([0, 0]);
            packet(&[(RE_CONFIG, &param)])
        };
        for (what, packet) in [
            ("a far FORWARD-TSN", packet(&[(FORWARD_TSN, &far)])),
            ("an empty chunk", data(10, 0, 0)),
            ("a stream that was not agreed on", data(10, STREAMS, 1)),
            ("a reset ahead of data", reset(10)),
            ("too many chunks", packet(&[(SACK, &[0; 12][..]); 65])),
            ("an error", packet(&[(9, &[0, 1, 0, 200])])),
            ("more than a SACK says", packet(&[(SACK, &[0; 16])])),
            ("more than nothing", packet(&[(SHUTDOWN_ACK, &[0; 8])])),
            (
                "a heartbeat and more",
                packet(&[(HEARTBEAT, &[0, 1, 0, 4, 0, 0, 0, 4])]),
            ),
            ("an odd FORWARD-TSN", packet(&[(FORWARD_TSN, &[0; 6])])),
            ("a chunk that is cut short", data(10, 0, 9)[..30].to_vec()),
            ("nothing", vec![0; 12]),
        ] {
            assert_eq!(guard.judge(&packet, true), Verdict::Drop, "{what}");
        }
        assert_eq!(guard.judge(&data(10, 0, 1), false), Verdict::Drop, "early");
        let abort = packet(&[(ABORT, &[0, 12, 255, 255])]);
        assert_eq!(guard.judge(&abort, true), Verdict::Ended);
        for right in [
            packet(&[(SACK, &[0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0])]),
            packet(&[(HEARTBEAT, &[0, 1, 0, 6, 1, 2])]),
            packet(&[(RE_CONFIG, &[0, 16, 0, 12, 0, 0, 0, 1, 0, 0, 0, 1])]),
        ] {
            assert_eq!(guard.judge(&right, true), Verdict::Take, "{right:?}");
        }
        let verdicts = (0..=MAX_RESETS).map(|_| guard.judge(&reset(9), true));
        assert_eq!(verdicts.last(), Some(Verdict::GiveUp));
    }
}
