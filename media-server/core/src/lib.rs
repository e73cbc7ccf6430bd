//! Sans-IO WebRTC sessions: ICE-lite, DTLS, SRTP and the forwarding path.
//!
//! Nothing here opens a socket, reads a clock or awaits: the shard thread of `media-server` feeds
//! datagrams and the time in, and carries transmits and events out.
#![forbid(unsafe_code)]

pub mod cells;
pub mod ids;
pub mod negotiated;
pub mod sdp;
