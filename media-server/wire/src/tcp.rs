//! TCP for media: a listener and its connections, none of which ever blocks.

use crate::sys::{self, Kind};
use crate::udp::is_unknown_family;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

/// Connections that the kernel holds until they are accepted: a thousand clients that come at once wait no
/// second for their first packet to be repeated. The system's `somaxconn` may allow fewer.
const BACKLOG: i32 = 1024;
/// Bytes that the kernel takes ahead of what the path carries. The rest is better kept by the sender,
/// who can see how far behind the peer is.
const UNSENT: i32 = 64 * 1024;

/// A non-blocking listener.
#[derive(Debug)]
pub struct TcpListener {
    inner: std::net::TcpListener,
}

impl TcpListener {
    /// Binds and listens; `shared` and the wildcards are as for [`crate::UdpSocket::bind`].
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub fn bind(addr: SocketAddr, shared: bool) -> io::Result<Self> {
        let v6 = addr.is_ipv6();
        let fd = match sys::socket(Kind::Tcp, v6) {
            Err(e) if v6 && addr.ip().is_unspecified() && is_unknown_family(&e) => {
                return Self::bind((Ipv4Addr::UNSPECIFIED, addr.port()).into(), shared);
            }
            fd => fd?,
        };
        if v6 {
            sys::set_option(fd.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0)?;
        }
        // Connections of the process before may still be in TIME_WAIT.
        sys::set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        if shared {
            sys::set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        }
        sys::bind(fd.as_fd(), addr)?;
        sys::listen(fd.as_fd(), BACKLOG)?;
        Ok(TcpListener { inner: fd.into() })
    }

    /// # Errors
    /// None that a bound listener gives.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// The next connection and its peer; `None` if none waits.
    ///
    /// # Errors
    /// No descriptor or memory is left; the connection still waits.
    pub fn accept(&self) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        match self.inner.accept() {
            Ok((inner, from)) => {
                inner.set_nonblocking(true)?;
                inner.set_nodelay(true)?;
                let unsent = libc::TCP_NOTSENT_LOWAT;
                sys::set_option(inner.as_fd(), libc::IPPROTO_TCP, unsent, UNSENT)?;
                Ok(Some((TcpStream { inner }, canonical(from))))
            }
            // The next call takes the next one.
            Err(e) if e.kind() == ErrorKind::WouldBlock || is_of_one_connection(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

/// For a runtime that waits for connections itself. Non-blocking, as before.
impl From<TcpListener> for std::net::TcpListener {
    fn from(listener: TcpListener) -> Self {
        listener.inner
    }
}

/// A non-blocking connection.
#[derive(Debug)]
pub struct TcpStream {
    inner: std::net::TcpStream,
}

impl TcpStream {
    /// Reads what is there; `None` if nothing is yet, `Some(0)` at the end.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn read(&self, bytes: &mut [u8]) -> io::Result<Option<usize>> {
        would_block((&self.inner).read(bytes))
    }

    /// Writes what the kernel takes; `None` if it takes nothing now.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn write(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        would_block((&self.inner).write(bytes))
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

fn would_block(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(len) => Ok(Some(len)),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(e) => Err(e),
    }
}

/// What accept(2) reports of a connection that is gone, and not of the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::Interrupted
            | ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
    ) || matches!(
        error.raw_os_error(),
        Some(libc::EPROTO | libc::EPERM | libc::ENETDOWN | libc::ENONET)
    )
}

/// IPv4 peers of an IPv6 listener have IPv4 addresses.
fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(IpAddr::V4(ip), addr.port()),
        IpAddr::V6(_) => addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ready, UdpSocket, Waiter};
    use std::time::{Duration, Instant};

    #[test]
    fn a_full_connection_takes_no_more_and_says_when_it_does_again() {
        let listener = TcpListener::bind("127.0.0.1:0".parse().expect("address"), false);
        let listener = listener.expect("bind");
        let addr = listener.local_addr().expect("address");
        assert!(listener.accept().expect("accept").is_none(), "nobody yet");
        let peer = std::net::TcpStream::connect(addr).expect("connect");
        let udp = UdpSocket::bind("127.0.0.1:0".parse().expect("address"), false).expect("bind");
        let waiter = Waiter::new(&udp).expect("waiter");
        waiter.watch(&listener, 0).expect("watched");
        let mut ready = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(10);
        while ready.is_empty() {
            assert!(Instant::now() < deadline, "the listener is not ready");
            waiter
                .wait(Duration::from_secs(1), &mut ready)
                .expect("wait");
        }
        let (stream, from) = listener.accept().expect("accept").expect("one waits");
        assert_eq!(from, peer.local_addr().expect("address"));
        waiter.watch(&stream, 7).expect("watched");

        let bytes = vec![1; 1 << 20];
        let mut written = 0;
        while let Some(len) = stream.write(&bytes).expect("open") {
            written += len;
        }
        waiter.watch_output(&stream, 7, true).expect("watched");
        let mut all = vec![0; 64 * 1024];
        let mut read = 0;
        let room = Ready {
            token: 7,
            input: false,
            output: true,
        };
        ready.clear();
        while !ready.contains(&room) {
            assert!(Instant::now() < deadline, "no room after {read} bytes");
            read += (&peer).read(&mut all).expect("read");
            waiter.wait(Duration::ZERO, &mut ready).expect("wait");
        }
        assert!(read <= written);
        assert!(stream.write(&bytes).expect("open").is_some());
        drop(peer);
        waiter.watch_output(&stream, 7, false).expect("watched");
        ready.clear();
        while !ready.iter().any(|ready| ready.token == 7 && ready.input) {
            assert!(Instant::now() < deadline, "the end is not seen");
            waiter
                .wait(Duration::from_secs(1), &mut ready)
                .expect("wait");
        }
        waiter.unwatch(&stream).expect("watched");
    }

    #[test]
    fn an_ipv6_wildcard_listener_takes_ipv4_and_shares_its_port() {
        let first = TcpListener::bind("[::]:0".parse().expect("address"), true).expect("bind");
        let addr = first.local_addr().expect("address");
        let second = TcpListener::bind(addr, true).expect("the port can be shared");
        let peer = (Ipv4Addr::LOCALHOST, addr.port());
        let peer = std::net::TcpStream::connect(peer).expect("connect");
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            assert!(Instant::now() < deadline, "neither accepts");
            let accepted = [&first, &second].map(|l| l.accept().expect("accept"));
            if let Some((_, from)) = accepted.into_iter().flatten().next() {
                assert_eq!(from, peer.local_addr().expect("address"));
                break;
            }
        }
    }
}
