//! What the guard takes, packet by packet.

use super::*;

const HEADER: [u8; 8] = [0x13, 0x88, 0x13, 0x88, 7, 7, 7, 7];
/// The last sequence number of the peer before its first, and of ours.
const OURS: u32 = 500;

fn packet(chunks: &[(u8, &[u8])]) -> Bytes {
    let mut packet = [&HEADER[..], &[0; 4]].concat();
    for (kind, value) in chunks {
        packet.extend([*kind, 3]);
        packet.extend((4 + value.len() as u16).to_be_bytes());
        packet.extend(*value);
        packet.resize(packet.len().next_multiple_of(4), 0);
    }
    seal(&mut packet);
    packet.into()
}

fn data(tsn: u32, stream: u16, len: usize) -> Bytes {
    packet(&[(DATA, &data_value(tsn, stream, len))])
}

fn data_value(tsn: u32, stream: u16, len: usize) -> Vec<u8> {
    let mut value = tsn.to_be_bytes().to_vec();
    value.extend(stream.to_be_bytes());
    value.extend([0; 6]);
    value.extend(vec![7; len]);
    value
}

fn sack(tsn: u32, blocks: &[(u16, u16)]) -> Bytes {
    let mut value = [tsn.to_be_bytes(), [0, 1, 0, 0]].concat();
    value.extend((blocks.len() as u16).to_be_bytes());
    value.extend([0; 2]);
    for (start, end) in blocks {
        value.extend(start.to_be_bytes());
        value.extend(end.to_be_bytes());
    }
    packet(&[(SACK, &value)])
}

fn reset(last: u32, streams: &[u16]) -> Bytes {
    packet(&[(RE_CONFIG, &reset_value(last, streams))])
}

fn reset_value(last: u32, streams: &[u16]) -> Vec<u8> {
    let mut value = vec![0, 13];
    value.extend((16 + 2 * streams.len() as u16).to_be_bytes());
    value.extend([0; 8]);
    value.extend(last.to_be_bytes());
    value.extend(streams.iter().flat_map(|stream| stream.to_be_bytes()));
    value
}

trait Judge {
    fn take(&mut self, packet: &Bytes, up: bool) -> Verdict;
}

impl Judge for Guard {
    fn take(&mut self, packet: &Bytes, up: bool) -> Verdict {
        self.judge(&mut packet.clone(), up)
    }
}

fn guard(first_tsn: u32) -> Guard {
    let mut fixed = [1; INIT_FIXED];
    fixed[12..].copy_from_slice(&first_tsn.to_be_bytes());
    let init = Init {
        ports: [0x13, 0x88, 0x13, 0x88],
        fixed,
    };
    let mut ack = [7; INIT_FIXED];
    ack[12..].copy_from_slice(&(OURS + 1).to_be_bytes());
    Guard::new(init, &packet(&[(INIT_ACK, &ack)])).expect("an answer")
}

#[test]
fn data_is_taken_in_any_order_within_the_window_also_where_numbers_wrap() {
    let mut guard = guard(u32::MAX);
    for tsn in [u32::MAX, 1, 0, 1, 3, 127 + 2] {
        assert_eq!(guard.take(&data(tsn, 0, 9), true), Verdict::Take, "{tsn}");
    }
    assert_eq!(guard.complete, 1);
    assert_eq!(guard.take(&data(130, 0, 9), true), Verdict::Drop);
    assert_eq!(guard.held_chunks(), 5, "the repeat is not held");
}

#[test]
fn a_message_that_does_not_end_is_the_end_of_the_association() {
    let mut guard = guard(0);
    let mut verdicts = (0..).map(|tsn| guard.take(&data(tsn, 0, 1), true));
    let taken = verdicts.by_ref().take_while(|v| *v == Verdict::Take);
    assert_eq!(taken.count(), MOST_HELD_CHUNKS);
    let mut guard = self::guard(0);
    for tsn in 0..10_000 {
        assert_eq!(guard.take(&data(tsn, 0, 1_000), true), Verdict::Take);
        guard.read(0, 1, 1_000);
    }
}

#[test]
fn what_would_cost_without_bound_does_not_pass() {
    let mut guard = guard(10);
    let far = 1_000_000_000u32.to_be_bytes();
    for (what, packet) in [
        ("a far FORWARD-TSN", packet(&[(FORWARD_TSN, &far)])),
        ("data half of all numbers away", data(9 + (1 << 31), 0, 1)),
        ("an empty chunk", data(10, 0, 0)),
        ("a stream that was not agreed on", data(10, STREAMS, 1)),
        ("a reset ahead of data", reset(10, &[0])),
        ("too many chunks", packet(&[(SACK, &[0; 12][..]); 65])),
        ("an error", packet(&[(9, &[0, 1, 0, 200])])),
        ("more than a SACK says", packet(&[(SACK, &[0; 16])])),
        ("more than nothing", packet(&[(SHUTDOWN_ACK, &[0; 8])])),
        (
            "a heartbeat and more",
            packet(&[(HEARTBEAT, &[0, 1, 0, 4, 0, 0, 0, 4])]),
        ),
        ("an odd FORWARD-TSN", packet(&[(FORWARD_TSN, &[0; 6])])),
        ("a chunk that is cut short", {
            let mut cut = data(10, 0, 9)[..28].to_vec();
            seal(&mut cut);
            cut.into()
        }),
        ("nothing", packet(&[])),
        (
            "a FORWARD-TSN of more streams than there are",
            packet(&[(FORWARD_TSN, &[0; 4 + 4 * 17])]),
        ),
        ("a reset of more than there are", reset(9, &[0; 17])),
        ("two resets", {
            let one = reset_value(9, &[0]);
            packet(&[(RE_CONFIG, &one), (RE_CONFIG, &one)])
        }),
        ("two resets in one", {
            let one = reset_value(9, &[0, 0]);
            packet(&[(RE_CONFIG, &[&one[..], &one].concat())])
        }),
        ("two SACKs", {
            let one = [0; 12];
            packet(&[(SACK, &one), (SACK, &one)])
        }),
        ("the same block twice", sack(OURS, &[(2, 9), (2, 9)])),
        ("blocks that overlap", sack(OURS, &[(2, 9), (9, 11)])),
        ("blocks that descend", sack(OURS, &[(8, 9), (2, 3)])),
        ("a block from nothing", sack(OURS, &[(0, 1)])),
        ("a block that ends before it begins", sack(OURS, &[(3, 2)])),
        ("a far block", sack(OURS, &[(2, MAX_GAP + 1)])),
    ] {
        assert_eq!(guard.take(&packet, true), Verdict::Drop, "{what}");
    }
    assert_eq!(guard.take(&data(10, 0, 1), false), Verdict::Drop, "early");
    let abort = packet(&[(ABORT, &[0, 12, 255, 255])]);
    assert_eq!(guard.take(&abort, true), Verdict::Ended);
    for right in [
        sack(OURS, &[]),
        sack(OURS + 1, &[(2, 2), (4, MAX_GAP)]),
        packet(&[(HEARTBEAT, &[0, 1, 0, 6, 1, 2])]),
        packet(&[(RE_CONFIG, &[0, 16, 0, 12, 0, 0, 0, 1, 0, 0, 0, 1])]),
    ] {
        assert_eq!(guard.take(&right, true), Verdict::Take, "{right:?}");
    }
    let verdicts = (0..=MAX_RESETS).map(|_| guard.take(&reset(9, &[0]), true));
    assert_eq!(verdicts.last(), Some(Verdict::GiveUp));
}

#[test]
fn what_the_association_would_drop_is_dropped_and_moves_nothing() {
    let right = packet(&[(FORWARD_TSN, &137u32.to_be_bytes())]);
    let edit = |at: usize, to: u8, sealed: bool| {
        let mut packet = right.to_vec();
        packet[at] = to;
        if sealed {
            seal(&mut packet);
        }
        Bytes::from(packet)
    };
    let odd = {
        let mut packet = data(10, 0, 5)[..12 + 4 + 17].to_vec();
        seal(&mut packet);
        Bytes::from(packet)
    };
    let padded = {
        let mut packet = data(10, 0, 5).to_vec();
        *packet.last_mut().expect("long") = 1;
        seal(&mut packet);
        Bytes::from(packet)
    };
    for (what, packet) in [
        ("a wrong checksum", edit(8, right[8] ^ 1, false)),
        ("another source port", edit(0, 0, true)),
        ("another destination port", edit(3, 1, true)),
        ("another verification tag", edit(7, 8, true)),
        ("a last chunk without padding", odd),
        ("padding that is not zero", padded),
    ] {
        let mut guard = guard(10);
        assert_eq!(guard.take(&packet, true), Verdict::Drop, "{what}");
        assert_eq!((guard.complete, guard.held_chunks()), (9, 0), "{what}");
    }
    let mut guard = guard(10);
    assert_eq!(guard.take(&right, true), Verdict::Take);
    assert_eq!(guard.complete, 137);
}

#[test]
fn data_of_a_closed_stream_is_forwarded_and_never_held() {
    let mut guard = guard(10);
    guard.close(2);
    let mut both = packet(&[
        (DATA, &data_value(10, 2, 9)),
        (DATA, &data_value(11, 0, 9)),
        (DATA, &data_value(13, 2, 9)),
    ]);
    assert_eq!(guard.judge(&mut both, true), Verdict::Take);
    let left: Vec<_> = chunks(&both).flatten().collect();
    assert_eq!(left.len(), 2, "what is not next is sent again");
    assert_eq!(left[0], (FORWARD_TSN, 0, &10u32.to_be_bytes()[..]));
    assert_eq!(left[1].0, DATA);
    assert!(is_whole(&both));
    assert_eq!((guard.complete, guard.held_chunks()), (11, 1));

    let mut forward = packet(&[(FORWARD_TSN, &[0, 0, 0, 12, 0, 2, 0, 9, 0, 0, 0, 1])]);
    assert_eq!(guard.judge(&mut forward, true), Verdict::Take);
    let left: Vec<_> = chunks(&forward).flatten().collect();
    assert_eq!(left, [(FORWARD_TSN, 0, &[0, 0, 0, 12, 0, 0, 0, 1][..])]);

    assert_eq!(guard.take(&reset(12, &[2]), true), Verdict::Take);
    assert_eq!(guard.take(&data(13, 2, 9), true), Verdict::Take);
    assert_eq!(guard.held_chunks(), 2, "it may be opened again");
}

#[test]
fn what_a_stream_waits_with_is_gone_when_it_is_reset() {
    let mut guard = guard(0);
    for tsn in 0..100 {
        assert_eq!(guard.take(&data(tsn, 4, 9), true), Verdict::Take);
    }
    assert_eq!(guard.take(&data(101, 0, 9), true), Verdict::Take);
    let early = guard.take(&reset(99, &[4]), true);
    assert_eq!(early, Verdict::Drop, "while something is missing");
    assert_eq!(guard.take(&data(100, 0, 9), true), Verdict::Take);
    assert_eq!(guard.take(&reset(99, &[4]), true), Verdict::Take);
    assert_eq!((guard.held_chunks(), guard.held_bytes()), (2, 18));
}
