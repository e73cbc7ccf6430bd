//! Sockets for media: many datagrams per system call in both directions, connections for those who
//! can reach TCP alone, and a thread that sleeps on all of them.
//!
//! Linux only. All unsafe code of the project is in `sys`; what this crate offers is safe, knows
//! nothing of the protocols above UDP and TCP, and never blocks but in [`Waiter::wait`]. Called by the
//! shard threads.

#[allow(unsafe_code)]
mod sys;
mod tcp;
mod udp;
mod waiter;

pub use sys::raise_open_files;
pub use tcp::{TcpListener, TcpStream};
pub use udp::{Message, Received, Receiver, Sent, UdpSocket};
pub use waiter::{Ready, Waiter, Waker, Woken};
