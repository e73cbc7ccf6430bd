//! Datagrams over TCP (RFC 4571).
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::framing(data));
