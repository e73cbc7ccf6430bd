//! Clients that other people wrote, of other stacks than this project's, against the real server with
//! tokens: they publish and watch as their users would have them do.
//!
//! `cargo xtask clients` builds or fetches them and says in the environment where they lie. Chromium by
//! itself is in `tests/browser`. What each of them exercises is told in `docs/conformance.md`.
#![forbid(unsafe_code)]

mod gstreamer;
mod server;
mod web;
