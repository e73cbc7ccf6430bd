//! HTTPS to addresses that the configuration names, such as where token keys come from; and http to a collector of
//! traces, which alone may be on this machine.
//!
//! Owns the rules against requests to what only this machine or its cloud should reach: https alone, no redirect, no proxy,
//! and no address of loopback, link-local or a metadata service, whatever the name resolves to. The address that was
//! looked at is the one that is connected to, so a name that changes meanwhile changes nothing. No client gives a URL.

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Response, Url};
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A whole exchange. Who has not answered by then is asked again later.
const WITHIN: Duration = Duration::from_secs(5);
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// Metadata services of clouds outside of link-local: Alibaba, Oracle's old one, Amazon and Google over IPv6.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    #[error("failed to read the certificates {path}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} holds no certificates in PEM")]
    Certificates {
        path: PathBuf,
        source: reqwest::Error,
    },
    #[error("failed to set up TLS")]
    Tls(#[source] reqwest::Error),
}

/// Why an exchange failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection, no TLS, or no answer in time.
    Unreachable,
    /// The name resolves to nothing but addresses that are not for us.
    Address,
    TooLarge,
}

/// A client that keeps to the rules. `ca_file` holds certificates that are trusted beside the system's.
///
/// # Errors
/// [`OutboundError`]
pub fn client(ca_file: Option<&Path>) -> Result<Client, OutboundError> {
    build(
        Client::builder().https_only(true).dns_resolver(Resolver),
        ca_file,
    )
}

/// A client for the collector of traces. It may be an agent beside this process and speak plain http: what is sent
/// holds no secret, and of the answer only the status is looked at. [`collector_url`] has read its address.
///
/// # Errors
/// [`OutboundError`]
pub fn collector_client(ca_file: Option<&Path>) -> Result<Client, OutboundError> {
    build(Client::builder(), ca_file)
}

fn build(builder: ClientBuilder, ca_file: Option<&Path>) -> Result<Client, OutboundError> {
    let mut builder = builder
        .redirect(Policy::none())
        .referer(false)
        .no_proxy()
        .connect_timeout(CONNECT_WITHIN)
        .timeout(WITHIN)
        .user_agent(concat!("media-server/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = ca_file {
        let pem = std::fs::read(path).map_err(|source| OutboundError::Read {
            path: path.to_owned(),
            source,
        })?;
        let certificates = Certificate::from_pem_bundle(&pem);
        let certificates = certificates.map_err(|source| OutboundError::Certificates {
            path: path.to_owned(),
            source,
        })?;
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(OutboundError::Tls)
}

/// Reads the URL of a setting; the error says what would be right.
pub fn url(text: &str) -> Result<Url, String> {
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

/// A URL as logs may have it: what is behind the path may be a key.
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

/// Reads the address of a collector of traces; the error says what would be right. Spans go to `v1/traces` below it.
pub fn collector_url(text: &str) -> Result<Url, String> {
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

/// Reads a body of at most `most` bytes.
///
/// # Errors
/// [`Failure`]
pub async fn read(mut response: Response, most: usize) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| failure(&error))? {
        if body.len() + part.len() > most {
            return Err(Failure::TooLarge);
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}

/// What kind of failure an error is.
pub fn failure(error: &reqwest::Error) -> Failure {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.is::<Refused>() {
            return Failure::Address;
        }
        source = error.source();
    }
    Failure::Unreachable
}

#[derive(Debug, thiserror::Error)]
#[error("the name resolves to no address that may be asked")]
struct Refused;

struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found.filter(|at| !is_refused(at.ip())).collect();
            if allowed.is_empty() {
                return Err(Refused.into());
            }
            Ok::<Addrs, _>(Box::new(allowed.into_iter()))
        })
    }
}

/// Private addresses are not among them: an identity provider or a receiver may be in the cluster.
fn is_refused(ip: IpAddr) -> bool {
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

    /// The operator reads the same table: what is refused here must never come to a pod.
    #[test]
    fn a_url_is_https_without_a_password_and_leads_away_from_this_machine() {
        let table = include_str!("../../tests/data/urls.txt");
        let lines = table.lines().filter(|line| !line.starts_with('#'));
        let mut seen = 0;
        for line in lines.filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [kind, judged, text] = words[..] else {
                panic!("{line}");
            };
            let taken = match kind {
                "https" => url(text),
                "collector" => collector_url(text),
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
            let read = collector_url(text).map(|url| url.to_string());
            assert_eq!(read.as_deref(), Ok(url));
        }
        assert!(collector_url("").is_err());
    }

    #[test]
    fn a_url_is_shown_without_what_may_be_a_key() {
        let url = url("https://idp.example.com/keys?code=abc#part").expect("right");
        assert_eq!(shown(&url), "https://idp.example.com/keys");
    }

    #[tokio::test]
    async fn a_name_of_this_machine_is_refused_when_it_is_resolved() {
        let asked = client(None)
            .expect("a client")
            .get("https://localhost:1/")
            .send();
        let error = asked.await.expect_err("nobody may be asked");
        assert_eq!(failure(&error), Failure::Address, "{error:?}");
    }
}
