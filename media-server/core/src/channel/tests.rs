//! The channel against a client of the same SCTP library, with and without loss, on a virtual clock.

use super::*;
use rtc_sctp::ClientConfig;
use std::time::Duration;

/// A client and the channel, with the packets between them.
struct Pair {
    now: Instant,
    endpoint: Endpoint,
    handle: AssociationHandle,
    association: Association,
    channel: Channel,
    to_client: Vec<Vec<u8>>,
    /// What the channel got, and whether all packets were taken.
    messages: Vec<Message>,
    taken: bool,
    /// What the client got, by stream.
    answers: Vec<(u16, Ppid, Vec<u8>)>,
}

impl Pair {
    fn new() -> Pair {
        Pair::with(Channel::new(None, false))
    }

    fn with(channel: Channel) -> Pair {
        let now = Instant::now();
        let mut config = EndpointConfig::new();
        config.max_payload_size(1_100);
        let mut endpoint = Endpoint::new(peer(), TransportProtocol::UDP, Arc::new(config), None);
        let (handle, association) = endpoint
            .connect(now, ClientConfig::default(), peer())
            .expect("an association");
        Pair {
            now,
            endpoint,
            handle,
            association,
            channel,
            to_client: Vec::new(),
            messages: Vec::new(),
            taken: true,
            answers: Vec::new(),
        }
    }

    /// Carries packets for a while, but for those that `lose` names: whether from the client, and its number.
    fn run(&mut self, time: Duration, mut lose: impl FnMut(bool, usize) -> bool) {
        let end = self.now + time;
        let mut numbers = [0, 0];
        while self.now <= end {
            let mut packets = Vec::new();
            while let Some(transmit) = self.association.poll_transmit(self.now) {
                if let Payload::RawEncode(raw) = transmit.message {
                    packets.extend(raw);
                }
            }
            let to_client = &mut self.to_client;
            let mut send = |packet: &[u8]| to_client.push(packet.to_vec());
            for packet in packets {
                numbers[0] += 1;
                if !lose(true, numbers[0]) {
                    self.taken &=
                        self.channel
                            .handle_packet(self.now, packet, &mut self.messages, &mut send);
                }
            }
            self.channel.handle_timeout(self.now, &mut send);
            for packet in std::mem::take(&mut self.to_client) {
                numbers[1] += 1;
                if lose(false, numbers[1]) {
                    continue;
                }
                let event = self.endpoint.handle(self.now, peer(), None, packet.into());
                if let Some((handle, DatagramEvent::AssociationEvent(event))) = event {
                    assert_eq!(handle, self.handle);
                    self.association.handle_event(event);
                }
            }
            self.association.handle_timeout(self.now);
            while let Some(event) = self.association.poll() {
                if let Event::Stream(StreamEvent::Readable { id }) = event {
                    let mut stream = self.association.stream(id).expect("a stream");
                    while let Ok(Some(chunks)) = stream.read_sctp() {
                        let payload = chunks.to_payload(1 << 20).expect("short");
                        self.answers.push((id, chunks.ppi, payload.to_vec()));
                    }
                }
            }
            self.now += Duration::from_millis(10);
        }
    }

    fn settle(&mut self) {
        self.run(Duration::from_millis(500), |_, _| false);
    }

    fn connected() -> Pair {
        let mut pair = Pair::new();
        pair.settle();
        assert!(!pair.association.is_handshaking());
        pair
    }

    /// Opens a channel as a browser does.
    fn open(&mut self, id: u16, label: &str, channel_type: ChannelType) {
        let asked = Establishment::DataChannelOpen(DataChannelOpen {
            channel_type,
            priority: 256,
            reliability_parameter: 0,
            label: label.into(),
            protocol: Vec::new(),
        });
        let asked = asked.marshal().expect("marshals");
        self.association
            .open_stream(id, Ppid::Binary)
            .expect("a stream");
        self.write(id, Ppid::Dcep, &asked);
    }

    fn write(&mut self, id: u16, ppid: Ppid, bytes: &[u8]) {
        let mut stream = self.association.stream(id).expect("a stream");
        stream
            .write_chunk_with_ppi(self.now, &Bytes::copy_from_slice(bytes), ppid)
            .expect("written");
    }

    fn send(&mut self, message: &[u8]) -> Result<(), Unsent> {
        let to_client = &mut self.to_client;
        self.channel
            .send(self.now, message, &mut |p| to_client.push(p.to_vec()))
    }

    /// A client whose channel is open.
    fn opened() -> Pair {
        let mut pair = Pair::connected();
        pair.open(0, "control", ChannelType::Reliable);
        pair.settle();
        assert_eq!(pair.answers, [(0, Ppid::Dcep, vec![2])], "acknowledged");
        pair.answers.clear();
        pair
    }
}

fn whole(bytes: &[u8]) -> Message {
    Message::Whole(bytes.into())
}

#[test]
fn messages_of_all_lengths_go_both_ways_with_every_tenth_packet_lost() {
    let mut pair = Pair::opened();
    let messages: Vec<Vec<u8>> = [1, 100, 1_100, 5_000, MAX_MESSAGE]
        .into_iter()
        .map(|len| vec![b'x'; len])
        .collect();
    for message in &messages {
        pair.write(0, Ppid::String, message);
        while pair.send(message).is_err() {
            pair.run(Duration::from_secs(5), |_, n| n % 10 == 9);
        }
    }
    pair.run(Duration::from_secs(60), |_, n| n % 10 == 9);
    let got: Vec<Message> = messages.iter().map(|m| whole(m)).collect();
    assert!(pair.messages == got, "{}", pair.messages.len());
    let answers: Vec<_> = pair.answers.iter().map(|(_, _, bytes)| bytes).collect();
    assert!(
        answers == messages.iter().collect::<Vec<_>>(),
        "{}",
        answers.len()
    );
    assert!(pair.taken);
}

#[test]
fn the_association_comes_up_whichever_single_packet_is_lost() {
    for from_client in [true, false] {
        for lost in 1..=4 {
            let mut pair = Pair::new();
            pair.run(Duration::from_secs(5), |up, n| {
                up == from_client && n == lost
            });
            pair.open(0, "control", ChannelType::Reliable);
            pair.run(Duration::from_secs(5), |_, _| false);
            pair.send(b"hello").expect("open");
            pair.settle();
            assert_eq!(pair.answers.len(), 2, "lost {lost}, up {from_client}");
        }
    }
}

#[test]
fn a_repeated_init_gets_the_answer_that_it_had() {
    let mut pair = Pair::new();
    let Some(Payload::RawEncode(init)) = pair
        .association
        .poll_transmit(pair.now)
        .map(|transmit| transmit.message)
    else {
        panic!("an INIT");
    };
    let mut answers = Vec::new();
    for _ in 0..3 {
        pair.channel
            .handle_packet(pair.now, init[0].clone(), &mut Vec::new(), &mut |packet| {
                answers.push(packet.to_vec())
            });
    }
    assert_eq!(answers.len(), 3);
    assert!(answers.iter().all(|answer| *answer == answers[0]));
}

#[test]
fn only_one_ordered_and_reliable_channel_of_the_label_is_open() {
    for (id, label, channel_type) in [
        (0, "chat", ChannelType::Reliable),
        (0, "control", ChannelType::ReliableUnordered),
        (0, "control", ChannelType::PartialReliableRexmit),
        (1, "control", ChannelType::Reliable),
    ] {
        let mut pair = Pair::connected();
        pair.open(id, label, channel_type);
        pair.write(id, Ppid::String, b"unheard");
        pair.settle();
        assert!(!pair.taken, "{label} {channel_type:?} on {id} is counted");
        assert_eq!(pair.messages, []);
        assert_eq!(pair.answers, [], "not acknowledged");
        assert!(pair.association.stream(id).is_err(), "and closed");
        assert_eq!(pair.send(b"x"), Err(Unsent::Closed));
    }
    let mut pair = Pair::opened();
    pair.open(2, "control", ChannelType::Reliable);
    pair.settle();
    assert!(!pair.taken && pair.association.stream(2).is_err());
    pair.write(0, Ppid::Binary, b"still here");
    pair.settle();
    assert_eq!(pair.messages, [whole(b"still here")]);
}

#[test]
fn a_channel_that_was_closed_can_be_opened_again() {
    let mut pair = Pair::opened();
    pair.association
        .stream(0)
        .and_then(|mut stream| stream.close(pair.now))
        .expect("closed");
    pair.settle();
    assert_eq!(pair.send(b"x"), Err(Unsent::Closed));
    pair.open(4, "control", ChannelType::Reliable);
    pair.settle();
    assert_eq!(pair.send(b"x"), Ok(()));
}

#[test]
fn a_channel_that_we_open_is_there_with_the_association_and_takes_messages_both_ways() {
    let mut pair = Pair::with(Channel::new(None, true));
    assert_eq!(pair.send(b"early"), Err(Unsent::Closed), "no association");
    // The message that opens it is lost once, and comes all the same.
    pair.run(Duration::from_secs(5), |up, n| !up && n == 3);
    let [(1, Ppid::Dcep, asked)] = &pair.answers[..] else {
        panic!("{:?}", pair.answers);
    };
    let asked = DataChannelOpen::unmarshal(&mut &asked[1..]).expect("an OPEN");
    assert_eq!(asked.label, b"control");
    assert_eq!(asked.channel_type, ChannelType::Reliable);
    pair.answers.clear();

    assert_eq!(pair.send(b"before the answer"), Ok(()));
    pair.settle();
    pair.write(1, Ppid::Dcep, &ACK);
    pair.write(1, Ppid::String, b"hello");
    pair.settle();
    assert!(pair.taken);
    assert_eq!(pair.messages, [whole(b"hello")]);
    let sent = (1, Ppid::String, b"before the answer".to_vec());
    assert_eq!(pair.answers, [sent]);

    // It is the only one, and is acknowledged once.
    pair.open(0, "control", ChannelType::Reliable);
    pair.settle();
    assert!(!std::mem::replace(&mut pair.taken, true), "another");
    assert!(pair.association.stream(0).is_err());
    pair.write(1, Ppid::Dcep, &ACK);
    pair.settle();
    assert!(!pair.taken, "acknowledged again");
    pair.write(1, Ppid::String, b"still here");
    pair.settle();
    assert_eq!(pair.messages[1..], [whole(b"still here")]);
}

#[test]
fn what_is_no_answer_to_our_opening_is_not_taken_for_one() {
    for wrong in [&[0][..], &[3], &[2, 0]] {
        let mut pair = Pair::with(Channel::new(None, true));
        pair.settle();
        pair.write(1, Ppid::Dcep, wrong);
        pair.settle();
        assert!(!pair.taken, "{wrong:?}");
    }
}

#[test]
fn a_channel_of_ours_that_the_peer_closes_is_closed_and_the_peer_may_open_one() {
    let mut pair = Pair::with(Channel::new(None, true));
    pair.settle();
    pair.write(1, Ppid::Dcep, &ACK);
    pair.settle();
    pair.association
        .stream(1)
        .and_then(|mut stream| stream.close(pair.now))
        .expect("closed");
    pair.settle();
    assert_eq!(pair.send(b"x"), Err(Unsent::Closed));
    pair.open(0, "control", ChannelType::Reliable);
    pair.settle();
    assert_eq!(pair.send(b"x"), Ok(()));
}

#[test]
fn a_message_that_is_too_long_is_told_and_the_next_one_is_heard() {
    let mut pair = Pair::opened();
    pair.write(0, Ppid::String, &[b'x'; MAX_MESSAGE + 1]);
    pair.write(0, Ppid::StringEmpty, &[0]);
    pair.settle();
    assert_eq!(pair.messages, [Message::TooLarge, whole(b"")]);
    assert_eq!(pair.send(&[b'x'; MAX_MESSAGE + 1]), Err(Unsent::TooLarge));
    pair.channel.max_message = 10;
    assert_eq!(pair.send(&[b'x'; 11]), Err(Unsent::TooLarge));
}

#[test]
fn a_message_without_end_is_the_end_of_the_association_alone() {
    let mut pair = Pair::opened();
    pair.write(0, Ppid::String, &vec![b'x'; 250_000]);
    pair.run(Duration::from_secs(5), |_, _| false);
    assert_eq!(pair.messages, []);
    assert!(!pair.taken);
    assert!(matches!(pair.channel.state, State::Over));
    assert!(pair.association.is_closed(), "the client is told");
    assert_eq!(pair.channel.poll_timeout(), None);
}

#[test]
fn a_peer_that_takes_nothing_is_sent_no_more_than_the_buffer_holds() {
    let mut pair = Pair::opened();
    let mut sent = 0;
    while pair.send(&[b'x'; 100]).is_ok() {
        sent += 1;
        pair.to_client.clear();
    }
    assert_eq!(pair.send(&[b'x'; 100]), Err(Unsent::Full));
    assert_eq!(sent, SEND_BUFFER / 100);
    assert!(!pair.channel.has_room_again());
    pair.run(Duration::from_secs(60), |_, _| false);
    assert!(pair.channel.has_room_again(), "it was told of once");
    assert!(!pair.channel.has_room_again());
    assert_eq!(pair.answers.len(), sent);
}

#[test]
fn what_is_no_sctp_of_the_association_is_dropped() {
    let mut pair = Pair::opened();
    let mut messages = Vec::new();
    let mut send = |_: &[u8]| panic!("nothing is answered");
    for junk in [&b""[..], b"junk", &[0; 12], &[0; 40], &[255; 1_000]] {
        let junk = Bytes::copy_from_slice(junk);
        assert!(
            !pair
                .channel
                .handle_packet(pair.now, junk, &mut messages, &mut send)
        );
    }
    assert_eq!(messages, []);
}
