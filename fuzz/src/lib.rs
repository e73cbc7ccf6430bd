//! What each fuzz target does with its bytes, and what must hold whatever they are.
//!
//! Calls the public functions of `media-core` as the server does, and panics where one of them breaks its
//! word. Called by the programs in `targets`, one for each function here.
#![forbid(unsafe_code)]

mod sdp;
mod session;
mod wire;

pub use sdp::{fragment, offer};
pub use session::session;
pub use wire::{rtcp, rtp, stun, ufrag};
