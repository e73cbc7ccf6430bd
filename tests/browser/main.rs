//! The page and the server in a real browser, over loopback and without a cluster.
//!
//! Each test starts its own server and its own Chromium. Screenshots are left in `target/screenshots`.

mod congestion;
mod control;
mod demo;
mod device;
mod figures;
mod insecure;
mod lipsync;
mod networks;
mod older;
mod recording;
mod simulcast;
mod stream;
