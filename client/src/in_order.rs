//! Sockets that keep a handshake and what follows it in order.
//!
//! `webrtc` 0.21 reads up to 64 datagrams in a row before it acts on any of them, and the keys of media are
//! such an act: media that was read together with the end of the handshake finds none and is dropped,
//! unseen by everybody, since nothing tells how many packets there were before the first. A browser takes one
//! datagram after the other. So do these sockets while there is a handshake: behind each datagram of one
//! they say once that there is no more. They also note when the kernel had what they read, count it, and lose
//! what is to be lost (`traffic`). `peer` hands them to its connection.

use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, RecvMeta, Runtime,
    TokioRuntime, Transmit,
};

use crate::traffic::Line;

/// Tokio, with such sockets: one for each connection.
#[derive(Debug)]
pub(crate) struct InOrder {
    arrival: Arc<Arrival>,
    due: Arc<Notify>,
    line: Arc<Line>,
}

impl InOrder {
    /// With `due` the connection looks at its timers at once instead of sleeping on.
    pub fn new(arrival: Arc<Arrival>, due: Arc<Notify>, line: Line) -> Self {
        Self {
            arrival,
            due,
            line: Arc::new(line),
        }
    }
}

/// When the kernel had the datagram that a connection read last. It is earlier than the reading by as long
/// as this process waited for a core, which with a hundred viewers in one process is most of what a server
/// seems to take.
#[derive(Debug, Default)]
pub(crate) struct Arrival(Mutex<Option<Instant>>);

impl Arrival {
    /// `None` before the first, and where the kernel does not say it.
    pub fn last(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, meta: &RecvMeta) {
        let (read, clock) = (Instant::now(), SystemTime::now());
        let arrived = meta.timestamp.and_then(|stamp| {
            // Negative where the clock was set back meanwhile.
            let waited = clock.duration_since(UNIX_EPOCH + stamp).unwrap_or_default();
            read.checked_sub(waited)
        });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = arrived;
    }
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl Runtime for InOrder {
    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(Socket {
            inner: TokioRuntime.wrap_udp_socket(socket)?,
            pause: AtomicBool::new(false),
            behind: Mutex::default(),
            kept: AtomicBool::new(false),
            arrival: self.arrival.clone(),
            line: self.line.clone(),
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

    fn sleep(&self, duration: Duration) -> Boxed<'static, ()> {
        let due = self.due.clone();
        Box::pin(async move {
            tokio::select! {
                () = TokioRuntime.sleep(duration) => {}
                () = due.notified() => {}
            }
        })
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
    /// What the kernel had put together with it (UDP_GRO).
    behind: Mutex<Option<(Vec<u8>, RecvMeta)>>,
    /// The datagram that waits for room to be sent has escaped loss.
    kept: AtomicBool,
    arrival: Arc<Arrival>,
    line: Arc<Line>,
}

impl AsyncUdpSocket for Socket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let bytes = transmit.contents.len();
        if !self.kept.swap(false, Ordering::Relaxed) && self.line.loses_sent(transmit.contents) {
            return Poll::Ready(Ok(bytes));
        }
        let sent = self.inner.poll_send(cx, transmit);
        match &sent {
            Poll::Pending => self.kept.store(true, Ordering::Relaxed),
            Poll::Ready(Ok(_)) => {
                let segment = transmit.segment_size.unwrap_or(bytes).max(1);
                self.line
                    .traffic
                    .sent
                    .passed(bytes.div_ceil(segment), bytes);
            }
            Poll::Ready(Err(_)) => {}
        }
        sent
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
        // One at a time.
        let most = bufs.len().min(meta.len()).min(1);
        if let (Some(buf), Some(meta)) = (bufs.first_mut(), meta.first_mut())
            && let Some((bytes, kept)) = self.take_behind()
        {
            buf[..bytes.len()].copy_from_slice(&bytes);
            *meta = kept;
            self.end_behind_handshake(buf, meta);
            return Poll::Ready(Ok(1));
        }
        loop {
            let received = self
                .inner
                .poll_recv(cx, &mut bufs[..most], &mut meta[..most]);
            if let (Poll::Ready(Ok(1..)), Some(buf), Some(meta)) =
                (&received, bufs.first_mut(), meta.first_mut())
            {
                if self.line.is_lossy() {
                    let left = self.line.thin_received(&mut buf[..meta.len], meta.stride);
                    if left == 0 {
                        continue;
                    }
                    meta.len = left;
                }
                let datagrams = meta.len.div_ceil(meta.stride.max(1));
                self.line.traffic.received.passed(datagrams, meta.len);
                self.arrival.note(meta);
                self.end_behind_handshake(buf, meta);
            }
            return received;
        }
    }

    fn max_gso_segments(&self) -> usize {
        // Single datagrams get lost, so they are sent as such.
        match self.line.is_lossy() {
            true => 1,
            false => self.inner.max_gso_segments(),
        }
    }

    fn max_gro_segments(&self) -> usize {
        self.inner.max_gro_segments()
    }
}

impl Socket {
    /// Lets a read end behind a datagram of a handshake.
    fn end_behind_handshake(&self, buf: &[u8], meta: &mut RecvMeta) {
        let handshake = is_dtls(buf);
        self.pause.store(handshake, Ordering::Relaxed);
        if handshake && meta.stride > 0 && meta.len > meta.stride {
            let mut behind = *meta;
            behind.len -= meta.stride;
            let bytes = buf[meta.stride..meta.len].to_vec();
            meta.len = meta.stride;
            *self.behind.lock().unwrap_or_else(PoisonError::into_inner) = Some((bytes, behind));
        }
    }

    fn take_behind(&self) -> Option<(Vec<u8>, RecvMeta)> {
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        behind.take()
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
    use crate::traffic::{Loss, Traffic};

    fn lossless() -> Line {
        Line::new(Arc::default(), None)
    }

    #[tokio::test]
    async fn behind_a_datagram_of_a_handshake_there_is_a_pause_and_no_other() {
        let bind = || std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let (from, to) = (bind(), bind());
        let address = to.local_addr().expect("an address");
        let socket = InOrder::new(Arc::default(), Arc::default(), lossless())
            .wrap_udp_socket(to)
            .expect("a socket");
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

    #[tokio::test]
    async fn what_the_kernel_puts_together_with_a_handshake_comes_behind_the_pause() {
        let bind = || std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let (from, to) = (bind(), bind());
        let destination = to.local_addr().expect("an address");
        let from = TokioRuntime.wrap_udp_socket(from).expect("a socket");
        let socket = InOrder::new(Arc::default(), Arc::default(), lossless())
            .wrap_udp_socket(to)
            .expect("a socket");
        // The end of a handshake twice, and a parameter set, which is shorter.
        let contents = [[20; 75], [22; 75], [128; 75]].concat();
        let transmit = Transmit {
            destination,
            contents: &contents[..200],
            segment_size: Some(75),
            ecn: None,
            src_ip: None,
        };
        poll_fn(|cx| from.poll_send(cx, &transmit))
            .await
            .expect("sent");
        let mut came = Vec::new();
        while came.len() < 3 {
            let (mut bytes, mut meta) = ([0; 2_000], [RecvMeta::default()]);
            let mut polls = 0;
            let received = poll_fn(|cx| {
                polls += 1;
                socket.poll_recv(cx, &mut [IoSliceMut::new(&mut bytes)], &mut meta)
            });
            assert_eq!(received.await.expect("received"), 1);
            assert!(meta[0].len <= meta[0].stride, "{:?}", meta[0]);
            came.push((bytes[0], meta[0].len, polls));
        }
        // The first may be waited for.
        came[0].2 = 1;
        assert_eq!(came, [(20, 75, 1), (22, 75, 2), (128, 50, 2)]);
    }

    #[tokio::test]
    async fn a_datagram_has_arrived_when_it_was_sent_however_late_it_is_read() {
        let bind = || std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let (from, to) = (bind(), bind());
        let address = to.local_addr().expect("an address");
        let arrival = Arc::new(Arrival::default());
        let socket = InOrder::new(arrival.clone(), Arc::default(), lossless()).wrap_udp_socket(to);
        let socket = socket.expect("a socket");
        assert_eq!(arrival.last(), None);
        let mut late = Vec::new();
        // The kernel begins to stamp a moment after the first socket of all asks for it.
        let (before, arrived) = loop {
            let before = Instant::now();
            from.send_to(&[128], address).expect("sent");
            // Loopback has delivered it by now.
            let sent = Instant::now();
            std::thread::sleep(Duration::from_millis(50));
            let (mut bytes, mut meta) = ([0; 2_000], [RecvMeta::default()]);
            let received =
                poll_fn(|cx| socket.poll_recv(cx, &mut [IoSliceMut::new(&mut bytes)], &mut meta));
            assert_eq!(received.await.expect("received"), 1);
            let arrived = arrival.last().expect("Linux says it");
            if arrived <= sent + Duration::from_millis(20) {
                break (before, arrived);
            }
            late.push(arrived - sent);
            assert!(late.len() < 20, "{late:?} late");
        };
        // Two clocks are read one after the other, and on a busy machine that takes a while.
        assert!(
            arrived + Duration::from_secs(10) >= before,
            "{:?} early",
            before - arrived
        );
    }

    #[tokio::test]
    async fn a_connection_that_has_something_due_does_not_sleep_on() {
        let due = Arc::new(Notify::new());
        let runtime = InOrder::new(Arc::default(), due.clone(), lossless());
        let sleep =
            |duration| tokio::time::timeout(Duration::from_secs(10), runtime.sleep(duration));
        let long = Duration::from_secs(3_600);
        let (slept, ()) = tokio::join!(sleep(long), async { due.notify_one() });
        slept.expect("woken from it");
        // Said between two sleeps it is not lost.
        due.notify_one();
        sleep(long).await.expect("woken at once");
        let start = Instant::now();
        let short = Duration::from_millis(20);
        sleep(short).await.expect("over");
        assert!(start.elapsed() >= short, "it was said once too often");
    }

    #[tokio::test]
    async fn a_lossy_socket_delivers_what_it_did_not_drop_and_counts_both() {
        let loss = Loss {
            ratio: 0.5,
            seed: 3,
        };
        let line = |traffic: &Arc<Traffic>| Line::new(traffic.clone(), Some(loss));
        let (traffic, far_traffic) = (Arc::default(), Arc::default());
        let bind = || std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let far = bind();
        let address = far.local_addr().expect("an address");
        let wrap = |socket, traffic: &Arc<Traffic>| {
            let runtime = InOrder::new(Arc::default(), Arc::default(), line(traffic));
            runtime.wrap_udp_socket(socket).expect("a socket")
        };
        let (near, far) = (wrap(bind(), &traffic), wrap(far, &far_traffic));
        for number in 0..100 {
            let contents = [128, 96, number];
            let transmit = Transmit {
                destination: address,
                ecn: None,
                contents: &contents,
                segment_size: None,
                src_ip: None,
            };
            let sent = poll_fn(|cx| near.poll_send(cx, &transmit)).await;
            assert_eq!(sent.expect("taken, dropped or not"), 3);
        }
        let sent = traffic.counts().sent;
        assert_eq!(sent.datagrams + sent.dropped, 100, "{sent:?}");
        assert!((20..80).contains(&sent.dropped), "{sent:?}");
        let mut got = Vec::new();
        loop {
            let (mut bytes, mut meta) = ([0; 2_000], [RecvMeta::default()]);
            let received = poll_fn(|cx| {
                let polled = far.poll_recv(cx, &mut [IoSliceMut::new(&mut bytes)], &mut meta);
                let counts = far_traffic.counts().received;
                match polled {
                    Poll::Ready(received) => Poll::Ready(Some(received)),
                    // Where the last of them are dropped, nothing more is received.
                    Poll::Pending if counts.datagrams + counts.dropped == sent.datagrams => {
                        Poll::Ready(None)
                    }
                    Poll::Pending => Poll::Pending,
                }
            });
            let Some(received) = received.await else {
                break;
            };
            assert_eq!(received.expect("received"), 1);
            got.extend_from_slice(&bytes[..meta[0].len]);
        }
        let received = far_traffic.counts().received;
        assert_eq!(got.len() as u64, 3 * received.datagrams);
        assert!(received.dropped > 0 && received.dropped_media == received.dropped);
    }
}
