//! Sleeping on sockets and on other threads at once.

use crate::sys::{self, Watch};
use crate::udp::UdpSocket;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

const SOCKET: u64 = 0;
const WAKER: u64 = 1;
/// The caller's tokens come behind ours.
const FIRST: u64 = 2;

/// Ends the sleep of one [`Waiter`], from any thread. A wake before the sleep is not lost.
#[derive(Debug, Clone)]
pub struct Waker {
    event: Arc<File>,
}

impl Waker {
    pub fn wake(&self) {
        // Fails only if the counter is full, which it is not: then the sleeper wakes anyway.
        let _ = (&*self.event).write(&1u64.to_ne_bytes());
    }
}

/// One of the descriptors that are watched beside the UDP socket, see [`Waiter::watch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    pub token: u64,
    /// There is input, or the end of it, or an error to be read.
    pub input: bool,
    /// There is room for output.
    pub output: bool,
}

/// What ended a sleep, beside watched descriptors; nothing did where time was up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Woken {
    /// The UDP socket has input, or an error to be read.
    pub socket: bool,
    /// By a [`Waker`].
    pub waker: bool,
}

/// Where one thread sleeps until a socket has input, it is woken, or time is up.
#[derive(Debug)]
pub struct Waiter {
    epoll: OwnedFd,
    event: Arc<File>,
}

impl Waiter {
    /// # Errors
    /// The process has too many descriptors.
    pub fn new(socket: &UdpSocket) -> io::Result<Self> {
        let (epoll, event) = (sys::epoll()?, sys::eventfd()?);
        sys::epoll_watch(epoll.as_fd(), socket.as_fd(), SOCKET, Watch::Add)?;
        sys::epoll_watch(epoll.as_fd(), event.as_fd(), WAKER, Watch::Add)?;
        Ok(Waiter {
            epoll,
            event: Arc::new(File::from(event)),
        })
    }

    pub fn waker(&self) -> Waker {
        Waker {
            event: self.event.clone(),
        }
    }

    /// Watches one more descriptor for input, until it is closed; `token` is of the caller's choice.
    ///
    /// # Errors
    /// The user has too many watched descriptors.
    pub fn watch(&self, fd: &impl AsFd, token: u64) -> io::Result<()> {
        self.change(fd, token, Watch::Add)
    }

    /// Whether a watched descriptor is watched for room for output too.
    ///
    /// # Errors
    /// None for a watched descriptor.
    pub fn watch_output(&self, fd: &impl AsFd, token: u64, output: bool) -> io::Result<()> {
        self.change(fd, token, Watch::Change { output })
    }

    /// Ends the watch of a descriptor that stays open.
    ///
    /// # Errors
    /// None for a watched descriptor.
    pub fn unwatch(&self, fd: &impl AsFd) -> io::Result<()> {
        self.change(fd, 0, Watch::Remove)
    }

    fn change(&self, fd: &impl AsFd, token: u64, watch: Watch) -> io::Result<()> {
        sys::epoll_watch(self.epoll.as_fd(), fd.as_fd(), FIRST + token, watch)
    }

    /// Sleeps; leaves in `ready` which of the watched descriptors are, and returns what else ended the sleep.
    ///
    /// # Errors
    /// The kernel refused to wait, which it does not do for valid descriptors.
    pub fn wait(&self, timeout: Duration, ready: &mut Vec<Ready>) -> io::Result<Woken> {
        ready.clear();
        let mut woken = Woken::default();
        sys::epoll_wait(self.epoll.as_fd(), timeout, |token, input, output| {
            woken.waker |= token == WAKER;
            woken.socket |= token == SOCKET;
            if let Some(token) = token.checked_sub(FIRST) {
                ready.push(Ready {
                    token,
                    input,
                    output,
                });
            }
        })?;
        if woken.waker {
            // Takes all wakes so far; there is at least one.
            let _ = (&*self.event).read(&mut [0; 8]);
        }
        Ok(woken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::udp::Receiver;
    use std::time::Instant;

    fn waiter() -> (UdpSocket, Waiter) {
        let socket = UdpSocket::bind("127.0.0.1:0".parse().expect("address"), false).expect("bind");
        let waiter = Waiter::new(&socket).expect("waiter");
        (socket, waiter)
    }

    #[test]
    fn a_wake_before_the_sleep_is_not_lost_and_counts_once() {
        let (_socket, waiter) = waiter();
        let mut ready = Vec::new();
        waiter.waker().wake();
        waiter.waker().wake();
        let by_waker = Woken {
            socket: false,
            waker: true,
        };
        let mut wait = |time| waiter.wait(time, &mut ready).expect("wait");
        assert_eq!(wait(Duration::from_secs(10)), by_waker);
        let start = Instant::now();
        assert_eq!(wait(Duration::from_millis(20)), Woken::default());
        assert!(start.elapsed() >= Duration::from_millis(20));
        assert_eq!(ready, []);
    }

    #[test]
    fn another_thread_ends_the_sleep() {
        let (_socket, waiter) = waiter();
        let waker = waiter.waker();
        let thread = std::thread::spawn(move || waker.wake());
        let woken = waiter.wait(Duration::from_secs(10), &mut Vec::new());
        assert!(woken.expect("wait").waker);
        thread.join().expect("the thread ends");
    }

    #[test]
    fn a_datagram_ends_the_sleep_until_it_is_read() {
        let (socket, waiter) = waiter();
        let to = socket.local_addr().expect("an address");
        let other = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        other.send_to(b"1", to).expect("sent");
        let wait = |time| waiter.wait(time, &mut Vec::new()).expect("wait").socket;
        assert!(wait(Duration::from_secs(10)));
        assert!(wait(Duration::ZERO), "it is still there");
        assert_eq!(Receiver::new().receive(&socket).0, 1);
        assert!(!wait(Duration::ZERO));
    }
}
