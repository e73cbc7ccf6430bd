//! What comes to a data channel from a peer that has keys: SCTP and the messages that open channels.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::channel(data));
