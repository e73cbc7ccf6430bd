//! The link with real sockets. Time is only ever compared one way: nothing comes too early.

use std::time::{Duration, Instant};

use super::*;

/// Longest wait for a datagram on loopback.
const PATIENCE: Duration = Duration::from_secs(20);

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

fn client(link: &Link) -> UdpSocket {
    let client = socket();
    client.connect(link.address()).expect("connected");
    client
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2_048];
    let (length, from) = socket.recv_from(&mut buffer).expect("a datagram");
    (buffer[..length].to_vec(), from)
}

#[test]
fn each_client_has_an_address_of_its_own_and_gets_its_own_answers() {
    let server = socket();
    let link = Link::start(server.local_addr().expect("bound"), 1);
    let clients = [client(&link), client(&link)];
    let mut seen = Vec::new();
    for (index, client) in clients.iter().enumerate() {
        client.send(&[index as u8]).expect("sent");
        let (bytes, from) = receive(&server);
        assert_eq!(bytes, [index as u8]);
        seen.push(from);
    }
    assert_eq!(link.server_side(), seen);
    assert_ne!(seen[0], seen[1]);
    for (index, from) in seen.iter().enumerate().rev() {
        server.send_to(&[10 + index as u8], from).expect("sent");
        assert_eq!(receive(&clients[index]).0, [10 + index as u8]);
    }
    assert_eq!(link.tally(Direction::ToServer).all(Fate::Delivered), 2);
    assert_eq!(link.tally(Direction::ToClient).all(Fate::Delivered), 2);
}

#[test]
fn after_a_rebind_the_server_sees_another_port_and_the_old_one_leads_nowhere() {
    let server = socket();
    let link = Link::start(server.local_addr().expect("bound"), 1);
    let client = client(&link);
    client.send(b"one").expect("sent");
    let (_, old) = receive(&server);
    link.rebind();
    client.send(b"two").expect("sent");
    let (bytes, new) = receive(&server);
    assert_eq!(bytes, b"two");
    assert_ne!(old, new);
    server.send_to(b"lost", old).expect("sent");
    server.send_to(b"found", new).expect("sent");
    assert_eq!(receive(&client).0, b"found");
}

#[test]
fn nothing_comes_before_its_delay_and_a_change_takes_effect_at_once() {
    let server = socket();
    let link = Link::start(server.local_addr().expect("bound"), 1);
    let client = client(&link);
    let delay = Duration::from_millis(80);
    link.set(
        Direction::ToServer,
        Conditions {
            delay,
            ..Conditions::default()
        },
    );
    let sent = Instant::now();
    client.send(b"late").expect("sent");
    let (_, from) = receive(&server);
    assert!(sent.elapsed() >= delay, "{:?}", sent.elapsed());
    // The other direction has no delay: an answer goes straight back.
    server.send_to(b"back", from).expect("sent");
    assert_eq!(receive(&client).0, b"back");
    let long = Duration::from_secs(3_600);
    link.set(
        Direction::ToServer,
        Conditions {
            delay: long,
            loss: 1.0,
            ..Conditions::default()
        },
    );
    client.send(b"gone").expect("sent");
    wait_until(|| link.tally(Direction::ToServer).all(Fate::Lost) == 1);
}

#[test]
fn in_a_blackout_nothing_passes_and_after_it_everything() {
    let server = socket();
    let link = Link::start(server.local_addr().expect("bound"), 1);
    let client = client(&link);
    link.set_dark(true);
    client.send(b"dark").expect("sent");
    wait_until(|| link.tally(Direction::ToServer).all(Fate::Blackout) == 1);
    link.set_dark(false);
    client.send(b"light").expect("sent");
    assert_eq!(receive(&server).0, b"light");
}

#[test]
fn a_link_without_a_server_behind_it_goes_on() {
    let nobody = socket().local_addr().expect("bound");
    let link = Link::start(nobody, 1);
    let client = client(&link);
    for number in 1..=5 {
        client.send(b"hello").expect("sent");
        wait_until(|| link.tally(Direction::ToServer).all(Fate::Delivered) == number);
    }
}

fn wait_until(holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
