//! The way that datagrams take between a peer and us: by what they came, answers go.
//!
//! Plain values. The shard makes them of what its sockets say, and finds the socket by them again.

use std::net::{IpAddr, SocketAddr};

/// A peer's address and ours, or the connection between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    pub remote: SocketAddr,
    pub local: Local,
}

/// Our end of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Local {
    /// UDP at this address; `None` where the socket has only one.
    Udp(Option<IpAddr>),
    /// The TCP connection of this number. Numbers are never used again.
    Tcp(u64),
}

impl Local {
    /// Our address, where it must be told which.
    pub fn address(self) -> Option<IpAddr> {
        match self {
            Local::Udp(address) => address,
            Local::Tcp(_) => None,
        }
    }
}

impl Flow {
    /// The flow as far as it tells peers apart. A peer that can reach several of our addresses may
    /// send to another one before its check says so: over UDP only its own address counts.
    pub fn sender(self) -> Flow {
        match self.local {
            Local::Udp(_) => Flow::from(self.remote),
            Local::Tcp(_) => self,
        }
    }

    /// The connection, over TCP.
    pub fn connection(self) -> Option<u64> {
        match self.local {
            Local::Udp(_) => None,
            Local::Tcp(number) => Some(number),
        }
    }
}

/// UDP to a socket with one address.
impl From<SocketAddr> for Flow {
    fn from(remote: SocketAddr) -> Self {
        Flow {
            remote,
            local: Local::Udp(None),
        }
    }
}
