//! What comes to a session before it has keys: demultiplexing, STUN, DTLS.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::session(data));
