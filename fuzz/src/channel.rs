//! The data channel of a session, and SCTP packets of a peer that has keys.

use media_core::channel::{Bare, MAX_MESSAGE, Message};
use std::time::{Duration, Instant};

const HEADER: usize = 12;
/// Packets that one packet may be answered with, timers included.
const MOST_SENT: usize = 2 * 64;
/// Longest packet that a record has room for.
const MTU: usize = 1163;
/// Chunks of the peer that wait to be read, and of ours that wait to be acknowledged: what the guard lets be,
/// with the longest message and an answer to each channel that may be opened.
const MOST_HELD: usize = 384;
const MOST_UNACKNOWLEDGED: usize = 1024;
/// What the association may keep of the peer's data, as its SACKs have it, and how far ahead a block of them is.
const RECEIVE_BUFFER: usize = 192 * 1024;
const WINDOW: u32 = 128;
/// Longest chunks of one packet.
const MOST_CHUNKS: usize = 2_000;

/// Chunks of packets lie behind each other, each with two bytes before them: how much later they come, in
/// units of 100 ms (5 bits), and their length (11 bits). The association is up, and header and checksum are
/// right. What has both upper bits of its time set comes with what ever stands in its place. The channel is the
/// peer's to open; then all of it once more with one that we open.
pub fn channel(data: &[u8]) {
    for opens in [false, true] {
        packets(data, Bare::new(opens));
    }
}

fn packets(data: &[u8], mut channel: Bare) {
    let mut now = Instant::now();
    let tag = handshake(now, &mut channel);
    let mut rest = data;
    while let Some((head, behind)) = rest.split_first_chunk() {
        let head = u16::from_be_bytes(*head);
        now += Duration::from_millis(100) * u32::from(head >> 11);
        let len = usize::from(head & 0x7ff).min(behind.len()).min(MOST_CHUNKS);
        let (chunks, behind) = behind.split_at(len);
        rest = behind;
        let sent = if head >> 14 == 3 {
            channel.handle(now, chunks)
        } else {
            channel.handle(now, &packet(tag, chunks))
        };
        let (sent, messages) = sent;
        assert!(sent.len() <= MOST_SENT, "{} packets", sent.len());
        assert!(sent.iter().all(|packet| packet.len() <= MTU));
        // The association and its guard have counted the same.
        assert!(!channel.is_out_of_step(), "it has counted what was dropped");
        if let Some(complete) = channel.complete() {
            let least = RECEIVE_BUFFER.saturating_sub(channel.held_bytes());
            for sack in sacks(&sent) {
                assert_eq!(sack.complete, complete);
                assert!(sack.room >= least, "it keeps what was not counted");
                assert!(sack.furthest <= WINDOW, "{} ahead", sack.furthest);
            }
        }
        let (held, unacknowledged) = channel.waiting();
        assert!(held <= MOST_HELD, "{held} chunks");
        // Beyond the half: the peer acknowledges what was never sent, and nothing is sent any more.
        let bounded =
            unacknowledged <= MOST_UNACKNOWLEDGED || unacknowledged > u32::MAX as usize / 2;
        assert!(bounded, "{unacknowledged} chunks");
        let whole = messages.iter().all(|message| match message {
            Message::Whole(bytes) => bytes.len() <= MAX_MESSAGE,
            Message::TooLarge => true,
        });
        assert!(whole);
        for message in messages.iter().take(4) {
            if let Message::Whole(bytes) = message {
                // Whether there is room depends on the peer.
                let _ = channel.send(now, bytes);
            }
        }
    }
}

/// Brings an association up whose first sequence number is 1; returns the tag that packets carry.
fn handshake(now: Instant, channel: &mut Bare) -> u32 {
    let init = [
        1, 0, 0, 20, 0, 0, 0, 7, 0, 2, 0, 0, 0, 16, 0, 16, 0, 0, 0, 1,
    ];
    let (sent, _) = channel.handle(now, &packet(0, &init));
    let answer = &sent[0];
    let word = |at: usize| u32::from_be_bytes(answer[at..at + 4].try_into().expect("four bytes"));
    let tag = word(HEADER + 4);
    let mut at = HEADER + 20;
    while answer[at..at + 2] != [0, 7] {
        at += usize::from(answer[at + 3]).next_multiple_of(4);
    }
    let len = answer[at + 3];
    let mut echo = vec![10, 0, 0, len];
    echo.extend(&answer[at + 4..at + usize::from(len)]);
    echo.resize(echo.len().next_multiple_of(4), 0);
    let (sent, _) = channel.handle(now, &packet(tag, &echo));
    assert_eq!(sent[0][HEADER], 11, "a COOKIE ACK");
    tag
}

/// What a SACK says (RFC 9260 §3.3.4).
struct Sack {
    complete: u32,
    room: usize,
    /// The end of its last block.
    furthest: u32,
}

fn sacks(packets: &[Vec<u8>]) -> impl Iterator<Item = Sack> {
    let sacks = packets
        .iter()
        .filter(|packet| packet.get(HEADER) == Some(&3));
    sacks.map(|packet| {
        let value = &packet[HEADER + 4..];
        let word =
            |at: usize| u32::from_be_bytes(value[at..at + 4].try_into().expect("four bytes"));
        let blocks = (word(8) >> 16) as usize;
        Sack {
            complete: word(0),
            room: word(4) as usize,
            furthest: (0..blocks)
                .map(|at| word(12 + 4 * at) & 0xffff)
                .max()
                .unwrap_or(0),
        }
    })
}

fn packet(tag: u32, chunks: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x13, 0x88, 0x13, 0x88];
    packet.extend(tag.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend(chunks);
    let checksum = crc32c(&packet);
    packet[8..HEADER].copy_from_slice(&checksum.to_le_bytes());
    packet
}

/// RFC 9260 appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc: u32, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}
