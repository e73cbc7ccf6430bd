//! Sockets that keep a handshake and what follows it in order.
//!
//! `webrtc` 0.21 reads up to 64 datagrams in a row before it acts on any of them, and the keys of media are
//! such an act: media that was read together with the end of the handshake finds none and is dropped,
//! unseen by everybody, since nothing tells how many packets there were before the first. A browser takes one
//! datagram after the other. So do these sockets while there is a handshake: behind each datagram of one
//! they say once that there is no more. `peer` hands them to its connection.

use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, RecvMeta, Runtime,
    TokioRuntime, Transmit,
};

/// Tokio, with such sockets.
#[derive(Debug)]
pub(crate) struct InOrder;

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl Runtime for InOrder {
    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(Socket {
            inner: TokioRuntime.wrap_udp_socket(socket)?,
            pause: AtomicBool::new(false),
        }))
    }

    fn spawn(&self, future: Boxed<'static, ()>) -> Box<dyn JoinHandle> {
        TokioRuntime.spawn(future)
    }

    fn wrap_tcp_listener(
        &self,
        listener: std::net::TcpListener,
    ) -> io::Result<Arc<dyn AsyncTcpListener>> {
        TokioRuntime.wrap_tcp_listener(listener)
    }

    fn connect_tcp(&self, to: SocketAddr) -> Boxed<'_, io::Result<Arc<dyn AsyncTcpStream>>> {
        TokioRuntime.connect_tcp(to)
    }

    fn resolve_host<'a>(&'a self, host: &'a str) -> Boxed<'a, io::Result<Vec<SocketAddr>>> {
        TokioRuntime.resolve_host(host)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }

    fn sleep(&self, duration: Duration) -> Boxed<'static, ()> {
        TokioRuntime.sleep(duration)
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        TokioRuntime.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        TokioRuntime.block_on(future);
    }

    fn yield_now(&self) -> Boxed<'static, ()> {
        TokioRuntime.yield_now()
    }

    fn name(&self) -> &'static str {
        TokioRuntime.name()
    }
}

#[derive(Debug)]
struct Socket {
    inner: Arc<dyn AsyncUdpSocket>,
    /// The last datagram was of a handshake.
    pause: AtomicBool,
}

impl AsyncUdpSocket for Socket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        self.inner.poll_send(cx, transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if self.pause.swap(false, Ordering::Relaxed) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // One at a time. What the kernel coalesces (UDP_GRO) is never longer than its first datagram, so
        // no video is behind a handshake in it.
        let received = match (bufs.first_mut(), meta.first_mut()) {
            (Some(buf), Some(meta)) => {
                let bufs = std::slice::from_mut(buf);
                self.inner.poll_recv(cx, bufs, std::slice::from_mut(meta))
            }
            _ => self.inner.poll_recv(cx, bufs, meta),
        };
        if let (Poll::Ready(Ok(1..)), Some(buf)) = (&received, bufs.first())
            && is_dtls(buf)
        {
            self.pause.store(true, Ordering::Relaxed);
        }
        received
    }

    fn max_gso_segments(&self) -> usize {
        self.inner.max_gso_segments()
    }

    fn max_gro_segments(&self) -> usize {
        self.inner.max_gro_segments()
    }
}

/// RFC 7983 §7.
fn is_dtls(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(20..=63))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn behind_a_datagram_of_a_handshake_there_is_a_pause_and_no_other() {
        let bind = || std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let (from, to) = (bind(), bind());
        let address = to.local_addr().expect("an address");
        let socket = InOrder.wrap_udp_socket(to).expect("a socket");
        // A check, the end of a handshake, media.
        for first in [0, 22, 20, 128, 129] {
            from.send_to(&[first, 7], address).expect("sent");
        }
        let mut pauses = Vec::new();
        for _ in 0..5 {
            let (mut bytes, mut meta) = ([0; 2_000], [RecvMeta::default()]);
            let mut polls = 0;
            let received = poll_fn(|cx| {
                polls += 1;
                socket.poll_recv(cx, &mut [IoSliceMut::new(&mut bytes)], &mut meta)
            });
            assert_eq!(received.await.expect("received"), 1);
            for datagram in bytes[..meta[0].len].chunks(meta[0].stride) {
                pauses.push((datagram[0], polls));
            }
            if pauses.len() == 5 {
                break;
            }
        }
        let firsts: Vec<u8> = pauses.iter().map(|(first, _)| *first).collect();
        assert_eq!(firsts, [0, 22, 20, 128, 129]);
        // The first may be waited for; behind each of the two there is one more look.
        let looks: Vec<u32> = pauses[1..].iter().map(|(_, polls)| *polls).collect();
        assert_eq!(looks, [1, 2, 2, 1], "{pauses:?}");
    }
}
