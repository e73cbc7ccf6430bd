//! STUN as far as an ICE-lite server needs it: read a Binding request, check it, answer it
//! (RFC 8489, RFC 8445 §7.3).
//!
//! Works on slices and never allocates; keeps nothing between calls. Called by the demultiplexer
//! (whose user fragment is it?) and by the sessions (is it authentic?).

use aws_lc_rs::{constant_time, hmac};
use std::net::{IpAddr, SocketAddr};

const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const HEADER_LEN: usize = 20;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;
const ATTR_USERNAME: u16 = 0x0006;
const ATTR_MESSAGE_INTEGRITY: u16 = 0x0008;
const ATTR_ERROR_CODE: u16 = 0x0009;
const ATTR_XOR_MAPPED_ADDRESS: u16 = 0x0020;
const ATTR_USE_CANDIDATE: u16 = 0x0025;
const ATTR_FINGERPRINT: u16 = 0x8028;
const FINGERPRINT_XOR: u32 = 0x5354_554e;
const HMAC_LEN: usize = 20;

/// Room that any answer of this module fits in: header, the largest mapped address or error,
/// integrity and fingerprint.
pub const MAX_ANSWER: usize = HEADER_LEN + 24 + 24 + 8;

/// Whether the datagram is STUN and not DTLS or RTP (RFC 7983 §7).
pub fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= HEADER_LEN && datagram[0] < 4 && datagram[4..8] == MAGIC_COOKIE
}

/// A well-formed Binding request with a right FINGERPRINT. Not authenticated yet.
#[derive(Debug, Clone, Copy)]
pub struct BindingRequest<'a> {
    message: &'a [u8],
    /// Part of USERNAME before the colon: the receiver's user fragment.
    pub local_ufrag: &'a [u8],
    /// Part after the colon: the sender's.
    pub remote_ufrag: &'a [u8],
    pub use_candidate: bool,
    integrity_at: usize,
}

impl<'a> BindingRequest<'a> {
    /// Reads a request. `None` for anything else, also for requests that lack USERNAME,
    /// MESSAGE-INTEGRITY or FINGERPRINT, which ICE requires (RFC 8445 §7.1).
    pub fn parse(message: &'a [u8]) -> Option<Self> {
        if !is_stun(message) || read_u16(message, 0)? != BINDING_REQUEST {
            return None;
        }
        let body = usize::from(read_u16(message, 2)?);
        if body % 4 != 0 || message.len() != HEADER_LEN + body {
            return None;
        }
        let mut username = None;
        let mut integrity_at = None;
        let mut use_candidate = false;
        let mut at = HEADER_LEN;
        loop {
            let kind = read_u16(message, at)?;
            let len = usize::from(read_u16(message, at + 2)?);
            let value = message.get(at + 4..at + 4 + len)?;
            match kind {
                ATTR_FINGERPRINT => {
                    let sum = crc32(&message[..at]) ^ FINGERPRINT_XOR;
                    if at + 8 != message.len() || value != sum.to_be_bytes() {
                        return None;
                    }
                    break;
                }
                // What follows the integrity is not covered by it and means nothing (RFC 8489 §14.5).
                _ if integrity_at.is_some() => {}
                ATTR_MESSAGE_INTEGRITY if len == HMAC_LEN => integrity_at = Some(at),
                ATTR_USERNAME => username = Some(value),
                ATTR_USE_CANDIDATE => use_candidate = true,
                _ => {}
            }
            at += 4 + len.next_multiple_of(4);
        }
        let username = username?;
        let colon = username.iter().position(|b| *b == b':')?;
        Some(BindingRequest {
            message,
            local_ufrag: &username[..colon],
            remote_ufrag: &username[colon + 1..],
            use_candidate,
            integrity_at: integrity_at?,
        })
    }

    /// Whether MESSAGE-INTEGRITY was made with this password (RFC 8489 §9.1.3).
    pub fn is_authentic(&self, pwd: &[u8]) -> bool {
        let expected = integrity(&self.message[..self.integrity_at], pwd);
        let value = &self.message[self.integrity_at + 4..self.integrity_at + 4 + HMAC_LEN];
        constant_time::verify_slices_are_equal(expected.as_ref(), value).is_ok()
    }

    /// Tells this request from others, also from retransmissions of other requests.
    pub fn transaction(&self) -> [u8; 12] {
        let mut id = [0; 12];
        id.copy_from_slice(&self.message[8..HEADER_LEN]);
        id
    }

    /// Writes the success response, which tells the sender its address as we see it. Returns the
    /// length.
    pub fn write_success(
        &self,
        from: SocketAddr,
        pwd: &[u8],
        answer: &mut [u8; MAX_ANSWER],
    ) -> usize {
        let mut value = [0; 20];
        let len = match from.ip() {
            IpAddr::V4(ip) => {
                value[1] = 1;
                value[4..8].copy_from_slice(&ip.octets());
                8
            }
            IpAddr::V6(ip) => {
                value[1] = 2;
                value[4..20].copy_from_slice(&ip.octets());
                20
            }
        };
        value[2..4].copy_from_slice(&from.port().to_be_bytes());
        // XOR with cookie and transaction id (RFC 8489 §14.2); the port only with the cookie's front.
        let key = &self.message[4..HEADER_LEN];
        value[2] ^= key[0];
        value[3] ^= key[1];
        value[4..len]
            .iter_mut()
            .zip(key)
            .for_each(|(byte, k)| *byte ^= k);
        self.write(
            BINDING_SUCCESS,
            ATTR_XOR_MAPPED_ADDRESS,
            &value[..len],
            pwd,
            answer,
        )
    }

    /// Writes error 403 (Forbidden), by which a peer knows that its consent is revoked (RFC 7675
    /// §5.2). Returns the length.
    pub fn write_forbidden(&self, pwd: &[u8], answer: &mut [u8; MAX_ANSWER]) -> usize {
        let mut value = *b"\0\0\x04\x03Forbidden";
        value[2] = 4;
        self.write(BINDING_ERROR, ATTR_ERROR_CODE, &value, pwd, answer)
    }

    fn write(
        &self,
        class: u16,
        attr: u16,
        value: &[u8],
        pwd: &[u8],
        answer: &mut [u8; MAX_ANSWER],
    ) -> usize {
        answer[..2].copy_from_slice(&class.to_be_bytes());
        answer[4..HEADER_LEN].copy_from_slice(&self.message[4..HEADER_LEN]);
        let mut at = HEADER_LEN;
        at += write_attr(&mut answer[at..], attr, value);
        let tag = integrity(&answer[..at], pwd);
        at += write_attr(&mut answer[at..], ATTR_MESSAGE_INTEGRITY, tag.as_ref());
        let body = (at + 8 - HEADER_LEN) as u16;
        answer[2..4].copy_from_slice(&body.to_be_bytes());
        let sum = crc32(&answer[..at]) ^ FINGERPRINT_XOR;
        at + write_attr(&mut answer[at..], ATTR_FINGERPRINT, &sum.to_be_bytes())
    }
}

fn write_attr(at: &mut [u8], kind: u16, value: &[u8]) -> usize {
    let padded = value.len().next_multiple_of(4);
    at[..2].copy_from_slice(&kind.to_be_bytes());
    at[2..4].copy_from_slice(&(value.len() as u16).to_be_bytes());
    at[4..4 + value.len()].copy_from_slice(value);
    at[4 + value.len()..4 + padded].fill(0);
    4 + padded
}

/// HMAC-SHA1 over the message up to the integrity attribute, with the length field counting that
/// attribute as the last (RFC 8489 §14.5).
fn integrity(message: &[u8], pwd: &[u8]) -> hmac::Tag {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, pwd);
    let mut mac = hmac::Context::with_key(&key);
    let len = (message.len() - HEADER_LEN + 4 + HMAC_LEN) as u16;
    mac.update(&message[..2]);
    mac.update(&len.to_be_bytes());
    mac.update(&message[4..]);
    mac.sign()
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        CRC_TABLE[usize::from(sum as u8 ^ byte)] ^ sum >> 8
    })
}

/// CRC-32 of ITU-T V.42, as FINGERPRINT wants it (RFC 8489 §14.7).
const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut sum = i as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 {
                sum >> 1 ^ 0xedb8_8320
            } else {
                sum >> 1
            };
            bit += 1;
        }
        table[i] = sum;
        i += 1;
    }
    table
};

/// A request as a full ICE agent sends it (RFC 8445 §7.1), which the server is not: what tests, fuzzing and
/// measurements check a session with.
#[cfg(any(test, feature = "test-util"))]
pub fn request(username: &str, pwd: &[u8], transaction: [u8; 12], use_candidate: bool) -> Vec<u8> {
    let mut message = vec![0; 512];
    message[..2].copy_from_slice(&BINDING_REQUEST.to_be_bytes());
    message[4..8].copy_from_slice(&MAGIC_COOKIE);
    message[8..20].copy_from_slice(&transaction);
    let mut at = HEADER_LEN;
    at += write_attr(&mut message[at..], ATTR_USERNAME, username.as_bytes());
    at += write_attr(&mut message[at..], 0x0024, &[0x6e, 0, 0, 1]);
    at += write_attr(&mut message[at..], 0x802a, &[7; 8]);
    if use_candidate {
        at += write_attr(&mut message[at..], ATTR_USE_CANDIDATE, &[]);
    }
    let tag = integrity(&message[..at], pwd);
    at += write_attr(&mut message[at..], ATTR_MESSAGE_INTEGRITY, tag.as_ref());
    let body = (at + 8 - HEADER_LEN) as u16;
    message[2..4].copy_from_slice(&body.to_be_bytes());
    let sum = crc32(&message[..at]) ^ FINGERPRINT_XOR;
    at += write_attr(&mut message[at..], ATTR_FINGERPRINT, &sum.to_be_bytes());
    message.truncate(at);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5769 §2.1: sample request with short-term credentials.
    const SAMPLE: &[u8] = b"\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
\x80\x22\x00\x10STUN test client\x00\x24\x00\x04\x6e\x00\x01\xff\x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\
\x00\x06\x00\x09\x65\x76\x74\x6a\x3a\x68\x36\x76\x59\x20\x20\x20\x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\
\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\xa2\x80\x28\x00\x04\xe5\x7a\x3b\xcf";
    const SAMPLE_PWD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";

    #[test]
    fn the_sample_request_of_rfc_5769_is_authentic() {
        let request = BindingRequest::parse(SAMPLE).expect("well-formed");
        assert_eq!(
            (request.local_ufrag, request.remote_ufrag),
            (&b"evtj"[..], &b"h6vY"[..])
        );
        assert!(request.is_authentic(SAMPLE_PWD));
        assert!(!request.is_authentic(b"another password of size"));
    }

    #[test]
    fn an_answer_carries_the_address_and_verifies() {
        let message = request("us:them", b"secret", [9; 12], true);
        let request = BindingRequest::parse(&message).expect("well-formed");
        assert!(request.use_candidate);
        for from in [
            "192.0.2.1:32853",
            "[2001:db8:1234:5678:11:2233:4455:6677]:32853",
        ] {
            let from: SocketAddr = from.parse().expect("address");
            let mut answer = [0; MAX_ANSWER];
            let len = request.write_success(from, b"secret", &mut answer);
            let answer = &answer[..len];
            let end = len - 8 - 24;
            assert_eq!(
                integrity(&answer[..end], b"secret").as_ref(),
                &answer[end + 4..end + 24]
            );
            assert_eq!(
                crc32(&answer[..len - 8]) ^ FINGERPRINT_XOR,
                u32::from_be_bytes(answer[len - 4..].try_into().unwrap())
            );
            let port = u16::from_be_bytes([answer[26], answer[27]]) ^ 0x2112;
            assert_eq!(port, from.port());
            assert!(
                len < message.len() || from.is_ipv6(),
                "an answer is no larger than its request"
            );
        }
    }

    #[test]
    fn every_changed_or_missing_byte_is_noticed() {
        for cut in 0..SAMPLE.len() {
            assert!(
                BindingRequest::parse(&SAMPLE[..cut]).is_none(),
                "cut at {cut}"
            );
        }
        for at in 0..SAMPLE.len() {
            let mut changed = SAMPLE.to_vec();
            changed[at] ^= 0x10;
            assert!(
                BindingRequest::parse(&changed).is_none_or(|r| !r.is_authentic(SAMPLE_PWD)),
                "byte {at}"
            );
        }
    }
}
