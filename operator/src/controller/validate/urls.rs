//! Whether the media server takes an address of the spec: one that it can't read ends the pod that it comes to.
//!
//! The rules are those of `media-server/src/outbound.rs`, which says why; the two share no code but a table of
//! examples, `tests/data/urls.txt`. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Of identity providers and of receivers of events.
///
/// # Errors
/// What would be right.
pub(super) fn https(text: &str) -> Result<(), &'static str> {
    let url = read(text, &["https"])?;
    let refused = match url.host() {
        Some(Host::Ipv4(ip)) => is_refused(ip.into()),
        Some(Host::Ipv6(ip)) => is_refused(ip.into()),
        Some(Host::Domain(_)) | None => false,
    };
    match refused {
        true => {
            Err("an address of the pod itself, of its link or of a metadata service is never asked")
        }
        false => Ok(()),
    }
}

/// Of a collector of traces.
///
/// # Errors
/// What would be right.
pub(super) fn collector(text: &str) -> Result<(), &'static str> {
    read(text, &["http", "https"]).map(drop)
}

fn read(text: &str, schemes: &[&str]) -> Result<Url, &'static str> {
    let url = Url::parse(text)
        .map_err(|_| "it must be a URL, with a port of at most 65535 if it has one")?;
    if !schemes.contains(&url.scheme()) {
        return Err("it must begin with https://, or for traces http://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it must have no user name and no password");
    }
    Ok(url)
}

/// Metadata services of clouds outside of link-local.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

fn is_refused(ip: IpAddr) -> bool {
    let of_machine_or_link = match ip {
        IpAddr::V4(ip) => {
            ip.octets()[0] == 0
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_broadcast()
                || ip.is_multicast()
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_unicast_link_local()
                || ip.is_multicast()
                || embedded(ip).is_some_and(|ip| is_refused(ip.into()))
        }
    };
    of_machine_or_link || METADATA.contains(&ip)
}

/// The IPv4 address that an IPv6 address leads to.
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match ip.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => of(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => of(high, low),
        [0x2002, high, low, ..] => of(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_if_the_media_server_takes_it() {
        let table = include_str!("../../../../tests/data/urls.txt");
        let lines = table.lines().filter(|line| !line.starts_with('#'));
        let mut seen = 0;
        for line in lines.filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [kind, judged, url] = words[..] else {
                panic!("{line}");
            };
            let taken = match kind {
                "https" => https(url),
                "collector" => collector(url),
                other => panic!("{other}"),
            };
            assert_eq!(taken.is_ok(), judged == "taken", "{line}: {taken:?}");
            seen += 1;
        }
        assert!(seen > 40, "{seen}");
    }
}
