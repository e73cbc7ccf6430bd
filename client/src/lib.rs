//! WHIP and WHEP client (RFC 9725, draft-ietf-wish-whep): publishes RTP to a media server and
//! watches it, as a device and a player would.
//!
//! It owns signalling over HTTP, one `webrtc` PeerConnection per session and the counting of what
//! arrives. It never depends on a crate of the server: it is written against the RFCs, so that one
//! bug cannot hide in both ends. Callers are the demo device, `media-device`, the load tool, the conformance
//! checks and the tests.
#![forbid(unsafe_code)]

mod codec;
pub mod conformance;
mod control;
#[cfg(feature = "device")]
pub mod device;
mod error;
pub mod flags;
mod http;
mod in_order;
mod peer;
#[cfg(feature = "test-picture")]
pub mod picture;
mod publisher;
mod reception;
mod reference_time;
mod repair;
mod restart;
mod setup;
mod stage;
mod stamp;
pub mod synthetic;
mod tap;
mod tcp;
mod traffic;
mod viewer;

pub use codec::{Codec, Kind};
pub use control::Control;
pub use error::{ClientError, Problem};
pub use http::{Http, HttpOptions, Resource};
pub use peer::{Options, PeerState, SrtpProfile, Transport};
pub use publisher::{Publisher, Track};
pub use reception::{Reception, StreamReception};
pub use setup::SetupTimes;
pub use stamp::{KeyframeWatch, Stamp};
pub use tap::{PacketSink, ReceivedPacket};
pub use traffic::{Loss, Traffic, TrafficCounts, WayCounts};
pub use viewer::{PreparedViewer, Viewer};
