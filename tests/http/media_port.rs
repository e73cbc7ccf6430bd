//! What strangers send to the media port: no answer, no panic, no growth.

use crate::requests::*;
use std::time::Duration;
use tests::{MediaServer, wait_for};
use tokio::net::UdpSocket;

/// Datagrams sent. The bar.
const DATAGRAMS: u32 = 1_000;

#[tokio::test]
async fn a_thousand_random_datagrams_get_no_answer_and_leave_nothing() {
    let mut server = MediaServer::open(&[]).await;
    open(&server, "/whip/cam-1", PUBLISH).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
    socket.connect(server.media).await.expect("connects");
    let before = resident_kib(&server);
    // A small linear congruential generator: a failure comes back with the same bytes.
    let mut random: u32 = 7;
    let mut next = || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 16) as u8
    };
    for n in 0..DATAGRAMS {
        let len = usize::from(next()) * 5 + 1;
        let mut datagram: Vec<u8> = (0..len).map(|_| next()).collect();
        // A third looks like STUN, DTLS and RTP each by its first byte (RFC 7983).
        datagram[0] = [next() & 3, 20 + (next() & 31), 128 + (next() & 63)][n as usize % 3];
        if n % 3 == 0 && len >= 8 {
            datagram[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
        }
        socket.send(&datagram).await.expect("sends");
        // Loopback drops what the receiver has no room for; each must reach it to count.
        if n % 50 == 49 {
            let sent = f64::from(n + 1);
            wait_for("the datagrams to be taken in", PATIENCE, || async {
                let taken = server
                    .metrics()
                    .await
                    .sum("media_packets_total", &[("direction", "in")]);
                if taken >= sent { Ok(()) } else { Err(taken) }
            })
            .await;
        }
    }
    let mut buffer = [0; 2048];
    let answer = tokio::time::timeout(Duration::from_millis(500), socket.recv(&mut buffer)).await;
    assert!(!matches!(answer, Ok(Ok(_))), "an answer: {answer:?}");
    let metrics = server.metrics().await;
    assert_eq!(
        metrics.sum("media_packets_total", &[("direction", "out")]),
        0.0
    );
    assert_eq!(metrics.sum("media_drops_total", &[]), f64::from(DATAGRAMS));
    // On a slow machine the session, which nobody uses, may have come to its own end meanwhile.
    let closed = metrics.sum("media_sessions_closed_total", &[]);
    let unused = metrics.sum(
        "media_sessions_closed_total",
        &[("reason", "setup_timeout")],
    );
    assert_eq!(closed, unused, "nothing that was sent ended the session");
    assert_eq!(get(&server, "/livez").await.status(), 200);
    let grown = resident_kib(&server).saturating_sub(before);
    assert!(grown < 4096, "{grown} KiB more");
    assert!(server.process().ended().is_none());
    assert!(!server.process().log().contains("panicked"));
}

pub fn resident_kib(server: &MediaServer) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()))
        .expect("the process is there");
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .expect("a resident set")
}
