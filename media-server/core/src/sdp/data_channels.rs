//! What the m-line for data channels of an offer says (RFC 8841). Called by `offer`.

use super::OfferError;
use super::offer::{malformed, value};
use rtc_sdp::description::media::MediaDescription;

/// Longest message of who says nothing about it (RFC 8841 §6.1).
const DEFAULT_MAX_MESSAGE: usize = 64 * 1024;

/// What an m-line for data channels says of its messages (RFC 8841); `None` for other m-lines, and for the
/// drafts before it, which carried `a=sctpmap`.
pub(super) fn read(
    description: &MediaDescription,
    protocol: &str,
) -> Result<Option<usize>, OfferError> {
    let name = &description.media_name;
    let formats = name.formats.iter().map(String::as_str);
    if name.media != "application"
        || !matches!(protocol, "UDP/DTLS/SCTP" | "TCP/DTLS/SCTP")
        || !formats.eq(["webrtc-datachannel"])
    {
        return Ok(None);
    }
    let port = value(description, "sctp-port").map(|port| port.trim().parse::<u16>());
    if !matches!(port, None | Some(Ok(1..))) {
        return Err(malformed("a=sctp-port must be a number from 1 to 65535"));
    }
    let max_message = match value(description, "max-message-size").map(|max| max.trim().parse()) {
        None => DEFAULT_MAX_MESSAGE,
        Some(Ok(max)) => max,
        Some(Err(_)) => {
            return Err(malformed(
                "a=max-message-size must be a number of bytes, 0 for no limit",
            ));
        }
    };
    Ok(Some(max_message))
}
