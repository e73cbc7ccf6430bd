//! Sleeping on a socket and on other threads at once.

use crate::sys;
use crate::udp::UdpSocket;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

const SOCKET: u64 = 0;
const WAKER: u64 = 1;

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

/// Where one thread sleeps until its socket has input, it is woken, or time is up.
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
        sys::epoll_add(epoll.as_fd(), socket.as_fd(), SOCKET)?;
        sys::epoll_add(epoll.as_fd(), event.as_fd(), WAKER)?;
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

    /// Sleeps; returns whether it was woken by a [`Waker`].
    ///
    /// # Errors
    /// The kernel refused to wait, which it does not do for valid descriptors.
    pub fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let tokens = sys::epoll_wait(self.epoll.as_fd(), timeout)?;
        let woken = tokens.contains(&Some(WAKER));
        if woken {
            // Takes all wakes so far; there is at least one.
            let _ = (&*self.event).read(&mut [0; 8]);
        }
        Ok(woken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_wake_before_the_sleep_is_not_lost_and_counts_once() {
        let socket = UdpSocket::bind("127.0.0.1:0".parse().expect("address"), false).expect("bind");
        let waiter = Waiter::new(&socket).expect("waiter");
        waiter.waker().wake();
        waiter.waker().wake();
        assert!(waiter.wait(Duration::from_secs(10)).expect("wait"));
        let start = Instant::now();
        assert!(!waiter.wait(Duration::from_millis(20)).expect("wait"));
        assert!(start.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn another_thread_ends_the_sleep() {
        let socket = UdpSocket::bind("127.0.0.1:0".parse().expect("address"), false).expect("bind");
        let waiter = Waiter::new(&socket).expect("waiter");
        let waker = waiter.waker();
        let thread = std::thread::spawn(move || waker.wake());
        assert!(waiter.wait(Duration::from_secs(10)).expect("wait"));
        thread.join().expect("the thread ends");
    }
}
