//! A UDP socket that receives and sends in batches.

use crate::sys::{self, Arrival, BATCH, Kind, Outgoing};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes per received datagram. Media stays below the Ethernet MTU of 1500; what is longer is cut
/// and then fails authentication.
const DATAGRAM: usize = 2048;
/// Asked of the kernel for both directions: a burst of 100 keyframes. It gives what
/// `net.core.rmem_max` allows.
const BUFFER: i32 = 4 << 20;

/// A non-blocking socket. Receiving is [`Receiver`]'s.
#[derive(Debug)]
pub struct UdpSocket {
    fd: OwnedFd,
    v6: bool,
    gso: bool,
}

/// One message: `len` bytes at `offset` of the bytes given to [`UdpSocket::send`], as datagrams of
/// `segment` bytes, the last one maybe shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    pub to: SocketAddr,
    /// The address of ours that it leaves from; `None` leaves the choice to the kernel.
    pub from: Option<IpAddr>,
    pub offset: usize,
    pub len: usize,
    pub segment: usize,
}

/// What became of a batch, in datagrams and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    pub datagrams: u64,
    pub bytes: u64,
    /// Datagrams that the kernel did not take.
    pub dropped: u64,
}

impl UdpSocket {
    /// Binds a socket; `shared` ones can be bound to one port several times, and the kernel spreads
    /// their input by address. An IPv6 wildcard takes IPv4 as well, and is the IPv4 one where there is no
    /// IPv6. A wildcard's datagrams say which address they came to: what answers them has to leave from
    /// there.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub fn bind(addr: SocketAddr, shared: bool) -> io::Result<Self> {
        let v6 = addr.is_ipv6();
        let fd = match sys::socket(Kind::Udp, v6) {
            Err(e) if v6 && addr.ip().is_unspecified() && is_unknown_family(&e) => {
                return Self::bind((Ipv4Addr::UNSPECIFIED, addr.port()).into(), shared);
            }
            fd => fd?,
        };
        if v6 {
            sys::set_option(fd.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0)?;
        }
        if shared {
            sys::set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        }
        for (force, plain) in [
            (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
            (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
        ] {
            // Without the capability for the first, the second gives what the system allows.
            sys::set_option(fd.as_fd(), libc::SOL_SOCKET, force, BUFFER)
                .or_else(|_| sys::set_option(fd.as_fd(), libc::SOL_SOCKET, plain, BUFFER))?;
        }
        sys::set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
        if addr.ip().is_unspecified() {
            sys::tell_destination(fd.as_fd(), v6)?;
        }
        sys::bind(fd.as_fd(), addr)?;
        // Kernels before 4.18 do not know it.
        let gso = sys::option(fd.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT).is_ok();
        Ok(UdpSocket { fd, v6, gso })
    }

    /// # Errors
    /// None that a bound socket gives.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        sys::local_addr(self.fd.as_fd())
    }

    /// Bytes that the kernel granted for input and output.
    ///
    /// # Errors
    /// None that an open socket gives.
    pub fn buffer_sizes(&self) -> io::Result<(i32, i32)> {
        let size = |name| sys::option(self.fd.as_fd(), libc::SOL_SOCKET, name);
        Ok((size(libc::SO_RCVBUF)?, size(libc::SO_SNDBUF)?))
    }

    /// Sends all messages, or drops what the kernel does not take: it never waits. Segmentation is
    /// given up for good once a path refuses it.
    pub fn send(&mut self, bytes: &[u8], messages: impl Iterator<Item = Message>) -> Sent {
        let mut sent = Sent::default();
        let mut batch: Vec<Outgoing<'_>> = Vec::with_capacity(BATCH);
        for message in messages {
            let Some(all) = bytes.get(message.offset..message.offset + message.len) else {
                continue;
            };
            if self.gso {
                batch.push(Outgoing {
                    to: message.to,
                    from: message.from,
                    bytes: all,
                    segment: message.segment as u16,
                });
            } else {
                let single = |bytes| Outgoing {
                    to: message.to,
                    from: message.from,
                    bytes,
                    segment: u16::MAX,
                };
                batch.extend(all.chunks(message.segment.max(1)).map(single));
            }
            if batch.len() >= BATCH {
                self.send_all(&batch, &mut sent);
                batch.clear();
            }
        }
        self.send_all(&batch, &mut sent);
        sent
    }

    fn send_all(&mut self, batch: &[Outgoing<'_>], sent: &mut Sent) {
        let mut rest = batch;
        while let Some(first) = rest.first() {
            match sys::send_batch(self.fd.as_fd(), self.v6, rest) {
                Ok(count) => {
                    let (done, tail) = rest.split_at(count.clamp(1, rest.len()));
                    for message in done {
                        sent.datagrams += datagrams(message);
                        sent.bytes += message.bytes.len() as u64;
                    }
                    rest = tail;
                }
                // The device cannot checksum for us (EIO), or the route has another MTU (EINVAL). The
                // latter also if the address that it should leave from is gone: then none gets out.
                Err(e)
                    if is_segmented(first)
                        && matches!(e.raw_os_error(), Some(libc::EIO | libc::EINVAL)) =>
                {
                    let before = sent.datagrams;
                    let single = |bytes| Outgoing {
                        to: first.to,
                        from: first.from,
                        bytes,
                        segment: u16::MAX,
                    };
                    let singles: Vec<_> = first
                        .bytes
                        .chunks(usize::from(first.segment))
                        .map(single)
                        .collect();
                    self.send_all(&singles, sent);
                    self.gso = sent.datagrams == before;
                    rest = &rest[1..];
                }
                // An ICMP error of an earlier datagram is reported once, here; this one is as good
                // as before.
                Err(e) if e.raw_os_error() == Some(libc::ECONNREFUSED) => {}
                // Full: waiting would delay every other session.
                Err(_) => {
                    sent.dropped += datagrams(first);
                    rest = &rest[1..];
                }
            }
        }
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The kernel was started without IPv6.
pub(crate) fn is_unknown_family(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

fn is_segmented(message: &Outgoing<'_>) -> bool {
    usize::from(message.segment) < message.bytes.len()
}

fn datagrams(message: &Outgoing<'_>) -> u64 {
    message
        .bytes
        .len()
        .div_ceil(usize::from(message.segment).max(1)) as u64
}

/// A datagram in its buffer, which the caller may work on.
#[derive(Debug)]
pub struct Received<'a> {
    pub from: SocketAddr,
    /// The address of ours that it came to, from a wildcard socket.
    pub to: Option<IpAddr>,
    pub bytes: &'a mut [u8],
}

/// Buffers for one batch of input.
#[derive(Debug)]
pub struct Receiver {
    bytes: Box<[u8]>,
    arrivals: [Arrival; BATCH],
    received: usize,
    overflow: u32,
}

impl Default for Receiver {
    fn default() -> Self {
        Self::new()
    }
}

impl Receiver {
    /// Most datagrams of one call of [`receive`](Self::receive).
    pub const BATCH: usize = BATCH;

    pub fn new() -> Self {
        Receiver {
            bytes: vec![0; BATCH * DATAGRAM].into_boxed_slice(),
            arrivals: [Arrival::default(); BATCH],
            received: 0,
            overflow: 0,
        }
    }

    /// Takes what has arrived, at most 64 datagrams; returns how many, and how many the kernel
    /// dropped since the last call. A full batch means that more may wait.
    pub fn receive(&mut self, socket: &UdpSocket) -> (usize, u32) {
        // Errors are those of earlier sends (ICMP), or that nothing is there.
        let Ok((received, overflow)) = sys::recv_batch(
            socket.as_fd(),
            &mut self.bytes,
            DATAGRAM,
            &mut self.arrivals,
        ) else {
            self.received = 0;
            return (0, 0);
        };
        self.received = received;
        let dropped = overflow.map_or(0, |total| {
            total.wrapping_sub(std::mem::replace(&mut self.overflow, total))
        });
        (received, dropped)
    }

    /// The datagrams of the last batch.
    pub fn datagrams(&mut self) -> impl Iterator<Item = Received<'_>> {
        let arrivals = self.arrivals.iter().take(self.received);
        self.bytes
            .chunks_exact_mut(DATAGRAM)
            .zip(arrivals)
            .filter_map(|(bytes, arrival)| {
                Some(Received {
                    from: arrival.from?,
                    to: arrival.to,
                    bytes: &mut bytes[..arrival.len],
                })
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn receive_all(socket: &UdpSocket, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        let (mut receiver, mut all) = (Receiver::new(), Vec::new());
        let deadline = Instant::now() + Duration::from_secs(10);
        while all.len() < count {
            assert!(
                Instant::now() < deadline,
                "{} of {count} datagrams arrived",
                all.len()
            );
            receiver.receive(socket);
            all.extend(receiver.datagrams().map(|d| (d.from, d.bytes.to_vec())));
        }
        all
    }

    fn message(to: SocketAddr, offset: usize, len: usize, segment: usize) -> Message {
        Message {
            to,
            from: None,
            offset,
            len,
            segment,
        }
    }

    #[test]
    fn segmented_and_single_messages_arrive_as_the_datagrams_they_stand_for() {
        for ip in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(receiver) = UdpSocket::bind(ip.parse().expect("address"), false) else {
                assert!(ip.starts_with('['), "IPv4 loopback is there");
                continue;
            };
            let mut sender = UdpSocket::bind(ip.parse().expect("address"), false).expect("bind");
            let to = receiver.local_addr().expect("address");
            let bytes: Vec<u8> = (0..=255).cycle().take(3_000).collect();
            for gso in [sender.gso, false] {
                sender.gso = gso;
                let messages = [message(to, 0, 2_500, 1_000), message(to, 2_500, 500, 500)];
                let sent = sender.send(&bytes, messages.into_iter());
                assert_eq!(
                    sent,
                    Sent {
                        datagrams: 4,
                        bytes: 3_000,
                        dropped: 0
                    }
                );
                let arrived = receive_all(&receiver, 4);
                assert!(
                    arrived
                        .iter()
                        .all(|(from, _)| *from == sender.local_addr().expect("address"))
                );
                let lens: Vec<_> = arrived.iter().map(|(_, b)| b.len()).collect();
                assert_eq!(lens, [1_000, 1_000, 500, 500]);
                let joined: Vec<u8> = arrived.into_iter().flat_map(|(_, b)| b).collect();
                assert_eq!(joined, bytes);
            }
        }
    }

    #[test]
    fn an_ipv6_wildcard_socket_speaks_ipv4_with_ipv4_addresses() {
        let Ok(mut both) = UdpSocket::bind("[::]:0".parse().expect("address"), false) else {
            return;
        };
        let mut v4 = UdpSocket::bind("127.0.0.1:0".parse().expect("address"), false).expect("bind");
        let port = both.local_addr().expect("address").port();
        let to = SocketAddr::from(([127, 0, 0, 1], port));
        v4.send(b"ping", [message(to, 0, 4, 4)].into_iter());
        let (from, bytes) = receive_all(&both, 1).remove(0);
        assert_eq!(
            (from, &bytes[..]),
            (v4.local_addr().expect("address"), &b"ping"[..])
        );
        both.send(b"pong", [message(from, 0, 4, 4)].into_iter());
        assert_eq!(receive_all(&v4, 1).remove(0), (to, b"pong".to_vec()));
    }

    /// The answer to a datagram that a socket sent to `to`, and whether all of it left from there.
    fn answered(wildcard: &str, to: &str, gso: bool) {
        let any = if to.contains(':') {
            "[::1]:0"
        } else {
            "127.0.0.1:0"
        };
        let mut peer = UdpSocket::bind(any.parse().expect("address"), false).expect("bind");
        let mut server = UdpSocket::bind(wildcard.parse().expect("address"), false).expect("bind");
        server.gso &= gso;
        let to = SocketAddr::new(
            to.parse().expect("address"),
            server.local_addr().expect("address").port(),
        );
        peer.send(b"ping", [message(to, 0, 4, 4)].into_iter());
        let (mut receiver, mut from) = (Receiver::new(), None);
        let deadline = Instant::now() + Duration::from_secs(10);
        while from.is_none() {
            assert!(Instant::now() < deadline, "no datagram at {to}");
            receiver.receive(&server);
            from = receiver.datagrams().next().map(|d| (d.from, d.to));
        }
        let (from, own) = from.expect("one arrived");
        assert_eq!(own, Some(to.ip()), "{wildcard}");
        let answer = Message {
            from: own,
            ..message(from, 0, 30, 10)
        };
        let sent = server.send(&[7; 30], [answer].into_iter());
        assert_eq!((sent.datagrams, sent.dropped), (3, 0), "{wildcard} {to}");
        let answers = receive_all(&peer, 3);
        assert!(answers.iter().all(|(from, _)| *from == to), "{answers:?}");
    }

    #[test]
    fn an_answer_of_a_wildcard_socket_leaves_from_the_address_that_was_asked() {
        for gso in [true, false] {
            // All of 127/8 is this machine; the kernel's own choice would be 127.0.0.1.
            answered("0.0.0.0:0", "127.0.0.2", gso);
            if UdpSocket::bind("[::1]:0".parse().expect("address"), false).is_ok() {
                answered("[::]:0", "127.0.0.3", gso);
                answered("[::]:0", "::1", gso);
            }
        }
    }

    #[test]
    fn an_address_that_went_away_costs_its_own_peer_alone() {
        let receiver =
            UdpSocket::bind("127.0.0.1:0".parse().expect("address"), false).expect("bind");
        let mut sender =
            UdpSocket::bind("0.0.0.0:0".parse().expect("address"), false).expect("bind");
        let gso = sender.gso;
        let to = receiver.local_addr().expect("address");
        let from = |ip: &str| Message {
            from: Some(ip.parse().expect("address")),
            ..message(to, 0, 30, 10)
        };
        // TEST-NET-1 is no address of this machine.
        let messages = [from("192.0.2.1"), from("127.0.0.1")];
        let sent = sender.send(&[7; 30], messages.into_iter());
        assert_eq!((sent.datagrams, sent.dropped), (3, 3));
        assert_eq!(receive_all(&receiver, 3).len(), 3);
        assert_eq!(sender.gso, gso, "segments are still sent");
    }

    #[test]
    fn more_messages_than_a_batch_and_unreachable_peers_do_not_stop_the_rest() {
        let receiver =
            UdpSocket::bind("127.0.0.1:0".parse().expect("address"), false).expect("bind");
        let mut sender =
            UdpSocket::bind("127.0.0.1:0".parse().expect("address"), false).expect("bind");
        let to = receiver.local_addr().expect("address");
        // Nobody listens on the discard port of loopback.
        let nobody = "127.0.0.1:9".parse().expect("address");
        let mut count = 0;
        for _ in 0..3 {
            let messages =
                (0..150).map(|i| message(if i % 10 == 0 { nobody } else { to }, 0, 10, 10));
            sender.send(&[7; 10], messages);
            count += 135;
        }
        assert_eq!(receive_all(&receiver, count).len(), count);
    }

    #[test]
    fn shared_sockets_take_one_port() {
        let first = UdpSocket::bind("127.0.0.1:0".parse().expect("address"), true).expect("bind");
        let addr = first.local_addr().expect("address");
        let second = UdpSocket::bind(addr, true).expect("the port can be shared");
        assert_eq!(second.local_addr().expect("address"), addr);
        assert!(UdpSocket::bind(addr, false).is_err());
    }
}
