//! Sockets for media: many datagrams per system call in both directions, and a thread that sleeps
//! on one file descriptor.
//!
//! Linux only. All unsafe code of the project is in `sys`; what this crate offers is safe, knows
//! nothing of the protocols above UDP, and never blocks but in [`Waiter::wait`]. Called by the
//! shard threads.

#[allow(unsafe_code)]
mod sys;
mod udp;
mod waiter;

pub use udp::{Message, Received, Receiver, Sent, UdpSocket};
pub use waiter::{Waiter, Waker};
