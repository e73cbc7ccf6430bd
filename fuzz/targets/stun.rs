//! STUN: a Binding request, and the answers to it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::stun(data));
