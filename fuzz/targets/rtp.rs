//! RTP headers and their extensions, and the search for keyframes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::rtp(data));
