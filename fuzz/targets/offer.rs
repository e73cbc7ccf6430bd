//! SDP offers, and the answers to them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::offer(data));
