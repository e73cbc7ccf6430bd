//! SDP answers to an offer of ours.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::answer(data));
