//! The channel against a peer with keys that writes its packets itself.

use super::*;

const HEADER: usize = 12;
const DATA: u8 = 0;
const SACK: u8 = 3;
const FORWARD_TSN: u8 = 192;
const RE_CONFIG: u8 = 130;

/// A peer whose association is up.
struct Peer {
    now: Instant,
    channel: Bare,
    tag: u32,
    tsn: u32,
}

impl Peer {
    fn up() -> Peer {
        let mut peer = Peer {
            now: Instant::now(),
            channel: Bare::new(false),
            tag: 0,
            tsn: 1,
        };
        let mut init = 7u32.to_be_bytes().to_vec();
        init.extend([0x7f, 255, 255, 255, 0, 16, 0, 16, 0, 0, 0, 1]);
        let answer = peer.say(&[chunk(1, 0, &init)]).remove(0);
        peer.tag = word(&answer, HEADER + 4);
        let mut at = HEADER + 20;
        while answer[at..at + 2] != [0, 7] {
            at += usize::from(answer[at + 3]).next_multiple_of(4);
        }
        let cookie = &answer[at + 4..at + usize::from(answer[at + 3])];
        let sent = peer.say(&[chunk(10, 0, cookie)]);
        assert_eq!(sent[0][HEADER], 11, "a COOKIE ACK");
        peer
    }

    fn say(&mut self, chunks: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let packet = self.packet(chunks);
        self.channel.handle(self.now, &packet).0
    }

    fn packet(&self, chunks: &[Vec<u8>]) -> Vec<u8> {
        let mut packet = vec![0x13, 0x88, 0x13, 0x88];
        packet.extend(self.tag.to_be_bytes());
        packet.extend([0; 4]);
        packet.extend(chunks.concat());
        let checksum = crc32c::crc32c(&packet).to_le_bytes();
        packet[8..HEADER].copy_from_slice(&checksum);
        packet
    }

    /// The next message on a stream, of one chunk.
    fn message(&mut self, stream: u16, ssn: u16, ppid: u32, bytes: &[u8]) -> Vec<u8> {
        let mut value = self.tsn.to_be_bytes().to_vec();
        self.tsn += 1;
        value.extend(stream.to_be_bytes());
        value.extend(ssn.to_be_bytes());
        value.extend(ppid.to_be_bytes());
        value.extend(bytes);
        chunk(DATA, 3, &value)
    }

    fn open(&mut self, stream: u16, ssn: u16, label: &[u8]) -> Vec<u8> {
        let mut asked = vec![3, 0, 1, 0, 0, 0, 0, 0];
        asked.extend((label.len() as u16).to_be_bytes());
        asked.extend([0, 0]);
        asked.extend(label);
        self.message(stream, ssn, 50, &asked)
    }

    fn reset(&mut self, number: u32, stream: u16) -> Vec<Vec<u8>> {
        let mut value = vec![0, 13, 0, 18];
        value.extend(number.to_be_bytes());
        value.extend([0; 4]);
        value.extend((self.tsn - 1).to_be_bytes());
        value.extend(stream.to_be_bytes());
        self.say(&[chunk(RE_CONFIG, 0, &value)])
    }
}

fn chunk(kind: u8, flags: u8, value: &[u8]) -> Vec<u8> {
    let mut chunk = vec![kind, flags];
    chunk.extend((4 + value.len() as u16).to_be_bytes());
    chunk.extend(value);
    chunk.resize(chunk.len().next_multiple_of(4), 0);
    chunk
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Numbers of the DATA chunks of packets.
fn numbers(packets: &[Vec<u8>]) -> Vec<u32> {
    let mut numbers = Vec::new();
    for packet in packets {
        let mut at = HEADER;
        while at < packet.len() {
            if packet[at] == DATA {
                numbers.push(word(packet, at + 4));
            }
            at += usize::from(u16::from_be_bytes([packet[at + 2], packet[at + 3]]));
            at = at.next_multiple_of(4);
        }
    }
    numbers
}

#[test]
fn packets_that_the_association_drops_open_no_room_for_data() {
    let mut peer = Peer::up();
    for step in 0..5u32 {
        let forwards: Vec<_> = (1..=64)
            .map(|n| chunk(FORWARD_TSN, 0, &(128 * (64 * step + n)).to_be_bytes()))
            .collect();
        let mut packet = peer.packet(&forwards);
        packet[8] ^= 1;
        assert!(peer.channel.handle(peer.now, &packet).0.is_empty());
    }
    assert_eq!(peer.channel.complete(), Some(0), "nothing was forwarded");
    // Ends of messages, highest first: none is ever whole.
    let mut answers = 0;
    for tsn in (3..40_000u32).rev().step_by(7) {
        let value = [tsn.to_be_bytes(), [0; 4], [0, 0, 0, 51], [7; 4]].concat();
        answers += peer.say(&[chunk(DATA, 0, &value)]).len();
    }
    let (held, _) = peer.channel.waiting();
    assert!(held <= 128 && answers <= 128, "{held} held, {answers} sent");
}

/// Data half of all numbers ahead, neither before nor behind what is complete, and something that moves
/// what is complete by one, over and over.
#[test]
fn nothing_is_kept_of_data_that_is_half_of_all_numbers_away() {
    let mut peer = Peer::up();
    let mut sack = Vec::new();
    for complete in 0..2_000u32 {
        let far = complete.wrapping_add(1 << 31).to_be_bytes();
        // The second piece of a message that has no first one.
        let value = [far, [0; 4], [0, 0, 0, 51], [7; 4]].concat();
        peer.say(&[chunk(DATA, 0, &value)]);
        let sent = peer.say(&[chunk(FORWARD_TSN, 0, &(complete + 1).to_be_bytes())]);
        // Not each is acknowledged at once.
        sack = sent.into_iter().next_back().unwrap_or(sack);
    }
    assert_eq!(sack[HEADER], SACK);
    let room = word(&sack, HEADER + 8);
    assert_eq!(room, guard::RECEIVE_BUFFER, "nothing waits");
    assert_eq!(word(&sack, HEADER + 12), 0, "no block and no repeat");
}

#[test]
fn a_reset_behind_data_that_is_half_of_all_numbers_away_is_not_remembered() {
    let mut peer = Peer::up();
    for number in 0..100u32 {
        let last = peer.tsn.wrapping_sub(1).wrapping_add(1 << 31);
        let value = [
            [0, 13, 0, 18],
            number.to_be_bytes(),
            [0; 4],
            last.to_be_bytes(),
        ];
        let value = [&value.concat()[..], &[0, 3]].concat();
        peer.say(&[chunk(RE_CONFIG, 0, &value)]);
    }
    let data: Vec<_> = (0..57).map(|ssn| peer.message(0, ssn, 51, b"z")).collect();
    let sent = peer.say(&data);
    assert!(sent.len() <= 2, "{} packets", sent.len());
}

#[test]
fn an_association_that_counts_otherwise_is_given_up() {
    let mut peer = Peer::up();
    let State::Begun(begun) = &mut peer.channel.0.state else {
        panic!("begun");
    };
    // As if a packet had been taken that the association did not take.
    let mut packet = {
        let mut packet = vec![0x13, 0x88, 0x13, 0x88];
        packet.extend(peer.tag.to_be_bytes());
        packet.extend([0; 4]);
        packet.extend(chunk(FORWARD_TSN, 0, &100u32.to_be_bytes()));
        let checksum = crc32c::crc32c(&packet).to_le_bytes();
        packet[8..HEADER].copy_from_slice(&checksum);
        Bytes::from(packet)
    };
    assert_eq!(begun.guard.judge(&mut packet, true), Verdict::Take);
    peer.tsn = 150;
    let data = peer.message(0, 0, 51, b"x");
    let sent = peer.say(&[data]);
    assert_eq!(sent.last().map(|packet| packet[HEADER]), Some(6), "ABORT");
    assert!(peer.channel.is_out_of_step());
    assert!(matches!(peer.channel.0.state, State::Over));
}

#[test]
fn a_channel_that_is_open_is_acknowledged_once() {
    let mut peer = Peer::up();
    let mut sent = Vec::new();
    for ssn in 0..300 {
        let open = peer.open(0, ssn, b"control");
        sent.extend(peer.say(&[open]));
    }
    assert_eq!(numbers(&sent).len(), 1);
    assert_eq!(peer.channel.waiting(), (0, 1));
    assert!(peer.channel.send(peer.now, b"still open").is_ok());
}

#[test]
fn a_peer_that_acknowledges_all_but_the_first_chunk_is_sent_a_bounded_number() {
    let mut peer = Peer::up();
    let open = peer.open(0, 0, b"control");
    let first = numbers(&peer.say(&[open]))[0];
    let mut last = first;
    for _ in 0..5_000 {
        if let Ok(sent) = peer.channel.send(peer.now, b"x") {
            last = numbers(&sent).into_iter().fold(last, u32::max);
        }
        if last > first {
            let mut value = first.wrapping_sub(1).to_be_bytes().to_vec();
            value.extend([0x7f, 255, 255, 255, 0, 1, 0, 0, 0, 2]);
            value.extend((last.wrapping_sub(first) as u16 + 1).to_be_bytes());
            let sent = peer.say(&[chunk(SACK, 0, &value)]);
            last = numbers(&sent).into_iter().fold(last, u32::max);
        }
    }
    let (_, waiting) = peer.channel.waiting();
    let most = guard::MAX_UNACKNOWLEDGED as usize;
    assert_eq!(waiting, most);
    assert_eq!(last.wrapping_sub(first) as usize + 1, most, "all are sent");
    assert_eq!(peer.channel.send(peer.now, b"x"), Err(Unsent::Full));
    // Once the first one is acknowledged as well, there is room.
    let mut value = last.to_be_bytes().to_vec();
    value.extend([0x7f, 255, 255, 255, 0, 0, 0, 0]);
    peer.say(&[chunk(SACK, 0, &value)]);
    assert!(peer.channel.send(peer.now, b"x").is_ok());
}

#[test]
fn resets_of_a_refused_channel_with_data_behind_its_open_are_performed_at_once() {
    let mut peer = Peer::up();
    let refused = [peer.open(3, 0, b"x"), peer.message(3, 1, 51, b"y")];
    peer.say(&refused);
    assert_eq!(peer.channel.waiting(), (0, 0), "all of it was read");
    let late = peer.message(3, 2, 51, b"z");
    peer.say(&[late]);
    assert_eq!(peer.channel.waiting(), (0, 0), "nothing waits behind it");
    for number in 0..100 {
        peer.reset(1_000 + number, 3);
    }
    let data: Vec<_> = (0..57).map(|ssn| peer.message(0, ssn, 51, b"z")).collect();
    let sent = peer.say(&data);
    assert!(sent.len() <= 2, "{} packets", sent.len());
    assert_eq!(peer.channel.complete(), Some(60));
}

#[test]
fn channels_refused_without_end_are_the_end_of_the_association() {
    let mut peer = Peer::up();
    for number in 0..u32::from(MAX_REFUSALS) {
        let open = peer.open(2, 0, b"x");
        peer.say(&[open]);
        peer.reset(number, 2);
        assert!(peer.channel.complete().is_some(), "after {number}");
    }
    let open = peer.open(2, 0, b"x");
    peer.say(&[open]);
    assert!(matches!(peer.channel.0.state, State::Over));
}

#[test]
fn no_packet_of_ours_is_longer_than_fits_a_record() {
    let mut peer = Peer::up();
    let mut info = vec![0, 1, 7, 208];
    info.resize(2_000, 7);
    assert!(peer.say(&[chunk(4, 0, &info)]).is_empty());
    let mut data = Vec::new();
    for tsn in (3..129u32).step_by(2) {
        let value = [tsn.to_be_bytes(), [0; 4], [0, 0, 0, 51], [7; 4]].concat();
        data.push(chunk(DATA, 0, &value));
    }
    let sent = peer.say(&data);
    assert!(!sent.is_empty() && sent.iter().all(|packet| packet.len() <= MTU as usize));
}

#[test]
fn a_message_about_a_channel_that_is_cut_short_refuses_it() {
    for kind in 0..=255 {
        let mut peer = Peer::up();
        for (ssn, len) in [0, 5, 11].into_iter().enumerate() {
            let bytes = [&[kind][..], &vec![0; len]].concat();
            let message = peer.message(2, ssn as u16, 50, &bytes);
            peer.say(&[message]);
        }
        let open = peer.open(0, 0, b"control");
        assert_eq!(numbers(&peer.say(&[open])).len(), 1, "{kind}");
    }
}
