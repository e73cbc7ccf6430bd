//! The HTTP surface of a running `media-server`, as a client without media sees it: every answer to
//! right and wrong requests, tokens, metrics, health and the end.
//!
//! Every test starts a server of its own. Media itself is tested in `tests/media`.
#![forbid(unsafe_code)]

mod conformance;
mod crowd;
mod events;
mod exposition;
mod extensions;
mod identity;
mod limits;
mod media_port;
mod older;
mod older_access;
mod older_load;
mod operations;
mod recordings;
mod requests;
mod restart;
mod service_levels;
mod signalling;
mod sockets;
mod table;
mod tokens;
