//! Session ids and ICE credentials: both carry the pod ordinal and the shard, so that any process
//! can route by them without a table.

use std::fmt;

/// UUIDv8 (RFC 9562 §5.8): 12 bits pod ordinal, 6 bits shard, 104 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub [u8; 16]);

/// Local ICE user fragment: 12 bytes as 16 base64 characters, all of them ice-char (RFC 8839 §5.4).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ufrag(pub [u8; 16]);

/// Local ICE password: 24 random bytes as 32 base64 characters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IcePwd(pub [u8; 32]);

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x?}", self.0)
    }
}
