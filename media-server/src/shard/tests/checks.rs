//! Checks by hand: who gets an answer, over UDP and TCP, and who gets none.

use super::*;
use media_core::stun;
use std::io::{Read, Write};
use std::net::TcpStream;

/// A Binding request with which the session's peer nominates.
pub(super) fn check(session: &OpenSession, pwd: &IcePwd, number: u8) -> Vec<u8> {
    let username = format!("{}:peer", session.ufrag);
    stun::request(&username, pwd.as_str().as_bytes(), [number; 12], true)
}

pub(super) fn over_udp(shards: &Shards, message: &[u8]) -> StdSocket {
    let socket = StdSocket::bind("127.0.0.1:0").expect("bind");
    socket.set_read_timeout(Some(WITHIN)).expect("set");
    socket.send_to(message, shards.local_addr()).expect("sent");
    socket
}

pub(super) fn over_tcp(shards: &Shards, message: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(shards.local_addr()).expect("connect");
    stream.set_read_timeout(Some(WITHIN)).expect("set");
    let framed = [&(message.len() as u16).to_be_bytes()[..], message].concat();
    // In two pieces, of which the first is no datagram yet.
    let (first, second) = framed.split_at(framed.len() / 2);
    stream.write_all(first).expect("written");
    stream.write_all(second).expect("written");
    stream
}

/// The type of the STUN message that comes back.
pub(super) fn answer(socket: &StdSocket) -> (u16, Vec<u8>) {
    let mut bytes = [0; 1500];
    let len = socket.recv(&mut bytes).expect("an answer");
    (
        u16::from_be_bytes([bytes[0], bytes[1]]),
        bytes[..len].to_vec(),
    )
}

pub(super) fn framed_answer(stream: &mut TcpStream) -> u16 {
    let mut len = [0; 2];
    stream.read_exact(&mut len).expect("an answer");
    let mut bytes = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut bytes).expect("all of it");
    u16::from_be_bytes([bytes[0], bytes[1]])
}

/// Whether the other end closed the connection, with whatever was unread.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 16]) {
        Ok(len) => len == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

const WITHIN: Duration = Duration::from_secs(20);
pub(super) const SUCCESS: u16 = 0x0101;
pub(super) const ERROR: u16 = 0x0111;

/// On a thread of its own the test can wait without keeping the runtime from its work.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("it ends")
}

#[tokio::test]
async fn a_closed_session_answers_its_peer_with_403_and_others_not_at_all() {
    let (shards, _events) = start(2);
    let open = session(1, 9, Role::Viewer);
    let (id, pwd) = (open.id, open.pwd);
    let checks: Vec<_> = (0..4).map(|n| check(&open, &pwd, n)).collect();
    let forged = check(&open, &IcePwd::new([0; 24]), 9);
    shards.open(open).await.expect("taken");
    let (asked, message) = (shards.clone(), checks[0].clone());
    let (kind, _) = blocking(move || answer(&over_udp(&asked, &message))).await;
    assert_eq!(kind, SUCCESS);
    assert_eq!(shards.close(id, CloseReason::Normal).await, Ok(true));

    over_udp(&shards, &forged);
    let drops = || shards.cells()[1].drops(Drop::StunUnauthenticated);
    eventually("forged checks", drops, 1).await;
    for message in checks.into_iter().skip(1) {
        let (asked, len) = (shards.clone(), message.len());
        let (kind, bytes) = blocking(move || answer(&over_udp(&asked, &message))).await;
        assert_eq!(kind, ERROR);
        // ERROR-CODE (RFC 8489 §14.8): class 4, number 3.
        assert_eq!(bytes[20..28], [0, 9, 0, 13, 0, 0, 4, 3], "{bytes:?}");
        assert!(bytes.len() <= len, "no larger than what it answers");
    }
    // The forged one got nothing. An answer is counted after it is sent.
    let sent = || shards.cells().iter().map(|c| c.packets_out()).sum();
    eventually("answers", sent, 4).await;
}

#[tokio::test]
async fn a_check_over_tcp_finds_its_session_on_whichever_shard_it_arrives() {
    let (shards, _events) = start(4);
    let mut messages = Vec::new();
    for number in 0..16 {
        let open = session(number % 4, number, Role::Viewer);
        messages.push(check(&open, &open.pwd, number));
        shards.open(open).await.expect("taken");
    }
    let asked = shards.clone();
    let mut streams = blocking(move || {
        let mut streams: Vec<_> = messages.iter().map(|m| over_tcp(&asked, m)).collect();
        for stream in &mut streams {
            assert_eq!(framed_answer(stream), SUCCESS);
        }
        streams
    })
    .await;
    let open = |shard: usize| shards.cells()[shard].tcp_connections();
    for shard in 0..4 {
        eventually("connections of a shard", || open(shard), 4).await;
    }
    let out: u64 = shards.cells().iter().map(|c| c.packets_out()).sum();
    assert_eq!(out, 16);
    streams.clear();
    eventually("connections", || (0..4).map(open).sum(), 0).await;
}

#[tokio::test]
async fn a_connection_that_begins_with_anything_else_is_closed() {
    let (shards, _events) = start(2);
    let open = session(0, 1, Role::Viewer);
    let stranger = OpenSession {
        ufrag: Ufrag::new(&[1; 16], 3, 0, [1; 6]),
        ..session(0, 1, Role::Viewer)
    };
    let unknown = check(&stranger, &open.pwd, 1);
    shards.open(open).await.expect("taken");
    let mut handshake = vec![22, 254, 253];
    handshake.resize(100, 0);
    let asked = shards.clone();
    blocking(move || {
        for message in [unknown, handshake, b"x".to_vec()] {
            assert!(is_closed(&mut over_tcp(&asked, &message)), "{message:?}");
        }
        let mut http = TcpStream::connect(asked.local_addr()).expect("connect");
        http.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("written");
        assert!(is_closed(&mut http));
    })
    .await;
    let open = || shards.cells().iter().map(|c| c.tcp_connections()).sum();
    eventually("connections", open, 0).await;
    let out: u64 = shards.cells().iter().map(|c| c.packets_out()).sum();
    assert_eq!(out, 0);
}

#[tokio::test]
async fn one_source_holds_only_so_many_connections_that_say_nothing() {
    let (shards, _events) = start(2);
    let open = || shards.cells().iter().map(|c| c.tcp_connections()).sum();
    let at = shards.local_addr();
    let connect = move || TcpStream::connect(at).expect("connect");
    let silent = blocking(move || (0..64).map(|_| connect()).collect::<Vec<_>>()).await;
    eventually("connections", open, 64).await;
    let closed = blocking(move || is_closed(&mut connect())).await;
    assert!(closed, "one too many");
    let hits = || {
        shards
            .bounds()
            .iter()
            .map(|b| b.hits(Bound::TcpSource))
            .sum()
    };
    eventually("hits", hits, 1).await;
    drop(silent);
    eventually("connections", open, 0).await;
}

#[tokio::test]
async fn a_session_holds_eight_connections_and_loses_its_oldest_for_the_next() {
    let (shards, _events) = start(2);
    let open = session(1, 5, Role::Viewer);
    let messages: Vec<_> = (0..9).map(|n| check(&open, &open.pwd, n)).collect();
    shards.open(open).await.expect("taken");
    let asked = shards.clone();
    let _open = blocking(move || {
        let mut streams = Vec::new();
        for message in messages {
            let mut stream = over_tcp(&asked, &message);
            assert_eq!(framed_answer(&mut stream), SUCCESS);
            streams.push(stream);
        }
        assert!(is_closed(&mut streams[0]));
        streams
    })
    .await;
    let hits = || shards.bounds()[1].hits(Bound::TcpSession);
    eventually("hits", hits, 1).await;
    let open = || shards.cells().iter().map(|c| c.tcp_connections()).sum();
    eventually("connections", open, 8).await;
}
