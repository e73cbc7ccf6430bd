//! A library that GStreamer loads as the plugin `webrtchttp`: with the entry points of the crate that has
//! it, and nothing else.
#![forbid(unsafe_code)]

// Named, or the linker would leave it out.
extern crate gstwebrtchttp;
