//! Media over TCP alone (RFC 6544), for a network that lets no UDP through.
//!
//! The connection of `webrtc` sends to a socket on loopback; from there each datagram goes over one TCP
//! connection to the server, framed as RFC 4571 says, and the server's come back the same way. `peer`
//! owns it; it ends with its value.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinHandle;

use crate::ClientError;

/// Longest datagram that a length of two bytes can announce.
const MAX_DATAGRAM: usize = 65_535;

pub(crate) struct Carrier {
    /// Where the connection's datagrams go instead of to the server.
    pub at: SocketAddr,
    task: JoinHandle<()>,
}

impl Carrier {
    /// Connects to the first address that takes a connection.
    pub async fn connect(addresses: &[SocketAddr], within: Duration) -> Result<Self, ClientError> {
        let mut reason = "the answer has no TCP candidate".to_owned();
        for address in addresses {
            let connected = tokio::time::timeout(within, TcpStream::connect(address)).await;
            match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => return Self::start(stream).await.map_err(no_tcp),
                Err(error) => reason = format!("{address}: {error}"),
            }
        }
        Err(ClientError::NoTcp { reason })
    }

    async fn start(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let at = socket.local_addr()?;
        let task = tokio::spawn(async move {
            let (read, write) = stream.into_split();
            let peer = Mutex::new(None);
            let ended = tokio::select! {
                ended = up(&socket, &peer, write) => ended,
                ended = down(&socket, &peer, read) => ended,
            };
            tracing::debug!(?ended, "the TCP connection of a session ended");
        });
        Ok(Self { at, task })
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn no_tcp(error: io::Error) -> ClientError {
    ClientError::NoTcp {
        reason: error.to_string(),
    }
}

/// Where the connection of `webrtc` sends from, once it has.
type Peer = Mutex<Option<SocketAddr>>;

async fn up(socket: &UdpSocket, peer: &Peer, mut write: OwnedWriteHalf) -> io::Result<()> {
    let mut framed = vec![0; 2 + MAX_DATAGRAM];
    loop {
        let (len, from) = socket.recv_from(&mut framed[2..]).await?;
        *peer.lock().unwrap_or_else(PoisonError::into_inner) = Some(from);
        framed[..2].copy_from_slice(&(len as u16).to_be_bytes());
        write.write_all(&framed[..2 + len]).await?;
    }
}

async fn down(socket: &UdpSocket, peer: &Peer, mut read: OwnedReadHalf) -> io::Result<()> {
    let mut held = BytesMut::new();
    while read.read_buf(&mut held).await? > 0 {
        while let Some(len) = held.first_chunk().map(|len| u16::from_be_bytes(*len)) {
            if held.len() < 2 + usize::from(len) {
                break;
            }
            held.advance(2);
            let datagram = held.split_to(len.into());
            let to = *peer.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(to) = to {
                socket.send_to(&datagram, to).await?;
            }
        }
    }
    Ok(())
}

/// Addresses of the passive TCP candidates of an answer (RFC 6544 §4.5), in their order.
pub(crate) fn candidates(answer: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        // foundation component transport priority address port "typ" type … "tcptype" passive
        let mut words = line.strip_prefix("a=candidate:")?.split_whitespace();
        let transport = words.nth(2)?;
        let ip: IpAddr = words.nth(1)?.parse().ok()?;
        let port = words.next()?.parse().ok()?;
        let passive = line.contains(" tcptype passive");
        (transport.eq_ignore_ascii_case("tcp") && passive).then(|| SocketAddr::new(ip, port))
    };
    answer.lines().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn only_passive_tcp_candidates_can_be_connected_to() {
        let answer = "a=candidate:1 1 udp 2130706431 192.0.2.1 8443 typ host\r\n\
            a=candidate:2 1 tcp 1520434943 192.0.2.1 443 typ host tcptype passive\r\n\
            a=candidate:3 1 TCP 1520434687 2001:db8::1 443 typ host tcptype passive\r\n\
            a=candidate:4 1 tcp 1520434431 192.0.2.2 9 typ host tcptype active\r\n";
        let found: Vec<String> = candidates(answer).iter().map(|a| a.to_string()).collect();
        assert_eq!(found, ["192.0.2.1:443", "[2001:db8::1]:443"]);
    }

    #[tokio::test]
    async fn datagrams_keep_their_bounds_in_both_directions() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let refused = "127.0.0.1:1".parse().expect("address");
        let at = [refused, listener.local_addr().expect("address")];
        let carrier = Carrier::connect(&at, Duration::from_secs(10)).await;
        let carrier = carrier.expect("the second takes it");
        let (mut server, _) = listener.accept().await.expect("accept");
        let peer = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
        for datagram in [&b"one"[..], b"three"] {
            peer.send_to(datagram, carrier.at).await.expect("sent");
        }
        let mut stream = [0; 12];
        server.read_exact(&mut stream).await.expect("read");
        assert_eq!(&stream, b"\0\x03one\0\x05three");
        server.write_all(b"\0\x02").await.expect("written");
        server.flush().await.expect("flushed");
        server.write_all(b"ab\0\x01c").await.expect("written");
        let mut datagram = [0; 8];
        for expected in [&b"ab"[..], b"c"] {
            let len = peer.recv(&mut datagram).await.expect("received");
            assert_eq!(&datagram[..len], expected);
        }
        drop(server);
        drop(carrier);
    }
}
