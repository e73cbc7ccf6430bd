//! Real media through the real server: WHIP and WHEP clients with ICE, DTLS and SRTP of another
//! implementation than the server's, on loopback.
//!
//! Every test starts a `media-server` of its own. What was sent is known to the byte, so what
//! arrives is compared, not only counted.
#![forbid(unsafe_code)]

mod addresses;
mod congestion;
mod control;
mod demo;
mod device;
mod device_client;
mod forwarding;
mod h264;
mod link;
mod load;
mod logs;
mod media;
mod quality;
mod recording;
mod restart;
mod sessions;
mod shards;
mod simulcast;
mod tcp;
mod traces;
mod truth;
