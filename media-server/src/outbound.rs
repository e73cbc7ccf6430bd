//! HTTPS to addresses that the configuration names, such as where token keys come from; and http to a collector of
//! traces, which alone may be on this machine.
//!
//! Keeps the rules of media-urls on the way: https alone, no redirect, no proxy, and no address that is refused, whatever
//! the name resolves to. The address that was looked at is the one that is connected to, so a name that changes meanwhile
//! changes nothing. No client gives a URL.

pub use media_urls::{collector as collector_url, https as url};

use media_urls::is_refused;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Response, Url};
use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A whole exchange. Who has not answered by then is asked again later.
const WITHIN: Duration = Duration::from_secs(5);
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

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

/// A URL as logs may have it: what is behind the path may be a key.
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.into()
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

#[cfg(test)]
mod tests {
    use super::*;

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
