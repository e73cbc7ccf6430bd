//! Sans-IO WebRTC sessions: ICE-lite, DTLS, SRTP and the forwarding path.
//!
//! Nothing here opens a socket, reads a clock or awaits: the shard thread of `media-server` feeds
//! datagrams and the time in, and carries transmits and events out.
#![forbid(unsafe_code)]
// The virtual clocks of the tests begin somewhere, see clippy.toml.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod cells;
pub mod channel;
pub mod clock;
pub mod dtls;
pub mod flow;
pub mod framing;
pub mod ids;
pub mod layers;
pub mod media;
pub mod negotiated;
pub mod output;
pub mod publisher;
pub mod pulse;
pub mod ring;
pub mod rtcp;
pub mod rtp;
pub mod sdp;
pub mod session;
pub mod srtp;
mod stats;
pub mod stun;
pub mod viewer;

#[cfg(test)]
mod testing;
