//! Values of flags that are more than a number or a name.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// `IP:port`. Brackets may stand around an IPv4 address too: a pod in its node's network listens on
/// `[$(HOST_IP)]:8080`, and who writes that knows no family.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let bracketed_v4 = || {
        let (ip, port) = text.strip_prefix('[')?.split_once("]:")?;
        let ip: Ipv4Addr = ip.parse().ok()?;
        Some(SocketAddr::new(ip.into(), port.parse().ok()?))
    };
    let address = text.parse().ok().or_else(bracketed_v4);
    address.ok_or_else(|| "give an IP address and a port, such as 127.0.0.1:8080".to_owned())
}

/// `90s`, `15m`, `1h`; a bare number is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("give a number and s, m or h, such as 90s or 1h".to_owned()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(factor))
        .map(Duration::from_secs)
        .ok_or_else(|| "give a number and s, m or h, such as 90s or 1h".to_owned())
}
