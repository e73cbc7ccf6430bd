//! Which addresses of a configuration may be asked, and by what name: https alone, no password, and no address that only
//! the machine itself or its cloud should reach.
//!
//! The media server does not start with another, so the operator hands it none: both ask here. No I/O.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use url::Url;

/// Metadata services of clouds outside of link-local: Alibaba, Oracle's old one, Amazon and Google over IPv6.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Reads the address of an identity provider or of a receiver of events.
///
/// # Errors
/// What would be right.
pub fn https(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{text:?} is no URL: {error}"))?;
    if url.scheme() != "https" {
        return Err(format!("{text:?} must begin with https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL with a user name or password shows them in logs; leave them out".into());
    }
    // A name is looked at when it is resolved.
    let host = url.host_str().unwrap_or_default();
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse();
    if literal.is_ok_and(is_refused) {
        return Err(format!(
            "{text:?} is an address of this machine, of its link or of a metadata service; none of them is asked"
        ));
    }
    Ok(url)
}

/// Reads the address of a collector of traces: spans go to `v1/traces` below it. It may be beside its server.
///
/// # Errors
/// What would be right.
pub fn collector(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text).map_err(|error| format!("{text:?} is no URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{text:?} must begin with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL with a user name or password shows them in logs; leave them out".into());
    }
    let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

/// Whether it is of the machine itself, of its link, or of a metadata service. Private addresses are not among them: an
/// identity provider or a receiver may be in the cluster.
pub fn is_refused(ip: IpAddr) -> bool {
    if METADATA.contains(&ip) {
        return true;
    }
    match ip {
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
    }
}

/// The IPv4 address that an IPv6 address leads to: mapped, compatible (RFC 4291 §2.5.5), NAT64 (RFC 6052 §2.1) or 6to4
/// (RFC 3056 §2).
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
    fn addresses_of_the_machine_its_link_and_its_cloud_are_refused_in_every_spelling() {
        for refused in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "169.254.169.254",
            "169.254.0.1",
            "100.100.100.200",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "::127.0.0.1",
        ] {
            assert!(
                is_refused(refused.parse().expect("an address")),
                "{refused}"
            );
        }
        for allowed in [
            "10.0.0.1",
            "192.0.2.1",
            "203.0.113.7",
            "fd00::1",
            "2001:db8::1",
            "::ffff:192.0.2.1",
        ] {
            assert!(
                !is_refused(allowed.parse().expect("an address")),
                "{allowed}"
            );
        }
    }

    #[test]
    fn a_url_is_https_without_a_password_and_leads_away_from_this_machine() {
        let table = include_str!("../urls.txt");
        let lines = table.lines().filter(|line| !line.starts_with('#'));
        let mut seen = 0;
        for line in lines.filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [kind, judged, text] = words[..] else {
                panic!("{line}");
            };
            let taken = match kind {
                "https" => https(text),
                "collector" => collector(text),
                other => panic!("{other}"),
            };
            assert_eq!(taken.is_ok(), judged == "taken", "{line}: {taken:?}");
            seen += 1;
        }
        assert!(seen > 40, "{seen}");
    }

    #[test]
    fn a_collector_may_be_beside_this_process_and_has_no_password() {
        for (text, url) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            (
                "http://otel.monitoring:4318/",
                "http://otel.monitoring:4318/v1/traces",
            ),
            (
                "https://a.example.com/otlp",
                "https://a.example.com/otlp/v1/traces",
            ),
        ] {
            let read = collector(text).map(|url| url.to_string());
            assert_eq!(read.as_deref(), Ok(url));
        }
        assert!(collector("").is_err());
    }
}
