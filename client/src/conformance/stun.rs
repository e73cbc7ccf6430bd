//! A connectivity check by hand (RFC 8445 §7.1, RFC 8489): shows whether a server answers a session's
//! credentials, and whether it stops when it must. Nothing else here sends a datagram.

use aws_lc_rs::hmac;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};

/// A check is sent again after this.
const AGAIN: Duration = Duration::from_millis(250);

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    Success,
    /// The code of an error response; 403 revokes consent (RFC 7675 §5.2).
    Error(u16),
    Silence,
}

/// Sends checks to each address until one is answered, for at most `within`.
///
/// `username` is the server's user fragment, a colon and ours; `pwd` is the server's.
pub(super) async fn check(
    addresses: &[SocketAddr],
    username: &str,
    pwd: &str,
    within: Duration,
) -> Reply {
    let until = Instant::now() + within;
    let Some((v4, v6)) = bind(addresses).await else {
        return Reply::Silence;
    };
    let mut number = 0u64;
    while Instant::now() < until {
        for address in addresses {
            let Some(socket) = (if address.is_ipv4() { &v4 } else { &v6 }) else {
                continue;
            };
            number += 1;
            let transaction = transaction(number);
            // An address that can't be reached from here is one that does not answer.
            let sent = socket
                .send_to(&request(username, pwd, transaction), address)
                .await;
            if sent.is_err() {
                continue;
            }
            let mut answer = [0; 1_500];
            let arrives = async {
                loop {
                    let len = socket.recv(&mut answer).await.ok()?;
                    if let Some(reply) = read(&answer[..len], transaction) {
                        return Some(reply);
                    }
                }
            };
            if let Ok(Some(reply)) = timeout(AGAIN, arrives).await {
                return reply;
            }
        }
        if addresses.is_empty() {
            break;
        }
    }
    Reply::Silence
}

async fn bind(addresses: &[SocketAddr]) -> Option<(Option<UdpSocket>, Option<UdpSocket>)> {
    let v4 = addresses.iter().any(SocketAddr::is_ipv4);
    let v6 = addresses.iter().any(SocketAddr::is_ipv6);
    let v4 = match v4 {
        true => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.ok(),
        false => None,
    };
    let v6 = match v6 {
        true => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await.ok(),
        false => None,
    };
    (v4.is_some() || v6.is_some()).then_some((v4, v6))
}

fn transaction(number: u64) -> [u8; 12] {
    use std::hash::BuildHasher as _;
    let mut id = [0; 12];
    id[..8].copy_from_slice(&std::hash::RandomState::new().hash_one(number).to_be_bytes());
    id[8..].copy_from_slice(&(number as u32).to_be_bytes());
    id
}

/// A Binding request of a controlling agent that nominates.
fn request(username: &str, pwd: &str, transaction: [u8; 12]) -> Vec<u8> {
    let mut message = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    message.extend(transaction);
    attribute(&mut message, 0x0006, username.as_bytes());
    // PRIORITY of a peer-reflexive candidate, ICE-CONTROLLING, USE-CANDIDATE.
    attribute(&mut message, 0x0024, &0x6e00_01ff_u32.to_be_bytes());
    attribute(&mut message, 0x802a, &[0x5a; 8]);
    attribute(&mut message, 0x0025, &[]);
    set_length(&mut message, 24);
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, pwd.as_bytes());
    let tag = hmac::sign(&key, &message);
    attribute(&mut message, 0x0008, tag.as_ref());
    set_length(&mut message, 8);
    let sum = crc32(&message) ^ 0x5354_554e;
    attribute(&mut message, 0x8028, &sum.to_be_bytes());
    message
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend(kind.to_be_bytes());
    message.extend((value.len() as u16).to_be_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
    set_length(message, 0);
}

/// The length field counts what follows the header, `more` bytes of it still to come.
fn set_length(message: &mut [u8], more: usize) {
    let length = (message.len() - 20 + more) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
}

fn read(answer: &[u8], transaction: [u8; 12]) -> Option<Reply> {
    let kind = u16::from_be_bytes([*answer.first()?, *answer.get(1)?]);
    if answer.get(8..20)? != transaction {
        return None;
    }
    match kind {
        0x0101 => Some(Reply::Success),
        0x0111 => Some(Reply::Error(error_code(answer).unwrap_or(0))),
        _ => None,
    }
}

fn error_code(answer: &[u8]) -> Option<u16> {
    let mut at = 20;
    loop {
        let kind = u16::from_be_bytes([*answer.get(at)?, *answer.get(at + 1)?]);
        let len = usize::from(u16::from_be_bytes([
            *answer.get(at + 2)?,
            *answer.get(at + 3)?,
        ]));
        if kind == 0x0009 {
            let (class, number) = (*answer.get(at + 6)?, *answer.get(at + 7)?);
            return Some(u16::from(class) * 100 + u16::from(number));
        }
        at += 4 + len.next_multiple_of(4);
    }
}

/// CRC-32 of ITU-T V.42, bit by bit: once per check.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            if sum & 1 == 1 {
                sum >> 1 ^ 0xedb8_8320
            } else {
                sum >> 1
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_is_the_checksum_of_its_standard() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_request_counts_its_own_length_and_an_error_tells_its_code() {
        let transaction = transaction(1);
        let message = request("them:us", "password", transaction);
        let length = usize::from(u16::from_be_bytes([message[2], message[3]]));
        assert_eq!((message.len() - 20, length % 4), (length, 0));
        let mut answer = vec![1, 0x11, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        answer.extend(transaction);
        attribute(&mut answer, 0x0009, b"\0\0\x04\x03Forbidden");
        assert_eq!(read(&answer, transaction), Some(Reply::Error(403)));
        assert_eq!(read(&answer, [0; 12]), None, "another's answer");
    }
}
