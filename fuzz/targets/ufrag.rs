//! User fragments and session ids.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::ufrag(data));
