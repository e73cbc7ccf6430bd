//! The WHIP and WHEP checklist against any server: what RFC 9725 and draft-ietf-wish-whep-04 ask of
//! it, row by row, with what was seen.
//!
//! Owns the order of the checks and their report. Knows no server: every expectation is a text of the
//! RFCs. It opens sessions of its own and ends them. Called by `media-conformance` and the tests.

mod endpoint;
mod http;
mod media;
mod offers;
mod report;
mod resource;
mod sdp;
mod stun;

pub use report::{Check, Level, Outcome, Report};

use crate::{ClientError, Http, HttpOptions};
use http::Caller;
use reqwest::Url;
use std::fmt;

/// What is to be checked.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// WHIP endpoint. Without one nothing can be published, and most of WHEP can't be seen.
    pub whip: Option<String>,
    /// WHEP endpoint that plays what the WHIP endpoint takes.
    pub whep: Option<String>,
    /// Bearer token for both.
    pub token: Option<String>,
    /// Takes any TLS certificate.
    pub insecure_tls: bool,
    /// Origin whose pages the server should let in; without one, that of a page that it need not know.
    pub origin: Option<String>,
}

/// One of the two protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Whip,
    Whep,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Protocol::Whip => "WHIP",
            Protocol::Whep => "WHEP",
        })
    }
}

/// Runs every check. Takes some seconds, more where the server limits rates: a 429 is waited
/// out.
///
/// # Errors
/// [`ClientError`] if an address is none, or HTTP can't be set up. What the server does wrong is in
/// the report.
pub async fn run(target: &Target) -> Result<Report, ClientError> {
    let whip = parse(target.whip.as_deref())?;
    let whep = parse(target.whep.as_deref())?;
    let caller = Caller::new(target)?;
    let http = Http::new(&HttpOptions {
        token: target.token.clone(),
        insecure_tls: target.insecure_tls,
        resolve: Vec::new(),
    })?;
    let origin = target.origin.as_deref();
    let mut report = Report::default();
    // Before anything is published.
    if let Some(url) = &whep {
        endpoint::without_publisher(&mut report, &caller, url).await;
    }
    if let Some(url) = &whip {
        let mut checks = Checks::new(&mut report, &caller, Protocol::Whip, url, origin);
        endpoint::check(&mut checks).await;
        resource::check(&mut checks).await;
    }
    let publisher = match &whip {
        Some(url) => media::publish(&mut report, &http, url).await,
        None => None,
    };
    if let Some(url) = &whep {
        let mut checks = Checks::new(&mut report, &caller, Protocol::Whep, url, origin);
        endpoint::check(&mut checks).await;
        if publisher.is_some() {
            resource::check(&mut checks).await;
            media::watch(&mut report, &http, url).await;
        } else {
            checks.skip(1, Level::Must, "sessions", "nothing could be published");
        }
    }
    if let (Some(publisher), Some(_)) = (publisher, &whip) {
        media::restart_publisher(&mut report, publisher).await;
    }
    for (url, protocol) in [(&whip, Protocol::Whip), (&whep, Protocol::Whep)] {
        if let Some(url) = url {
            let mut checks = Checks::new(&mut report, &caller, protocol, url, origin);
            endpoint::check_rate(&mut checks).await;
            endpoint::check_redirects(&mut checks);
        }
    }
    report.sort();
    Ok(report)
}

/// The checks of one endpoint.
struct Checks<'a> {
    report: &'a mut Report,
    caller: &'a Caller,
    protocol: Protocol,
    url: &'a Url,
    origin: Option<&'a str>,
}

impl<'a> Checks<'a> {
    fn new(
        report: &'a mut Report,
        caller: &'a Caller,
        protocol: Protocol,
        url: &'a Url,
        origin: Option<&'a str>,
    ) -> Checks<'a> {
        Checks {
            report,
            caller,
            protocol,
            url,
            origin,
        }
    }

    /// Notes what was seen, and whether it is right.
    fn expect(
        &mut self,
        row: u8,
        level: Level,
        name: &'static str,
        right: bool,
        seen: impl Into<String>,
    ) {
        let outcome = if right { Outcome::Pass } else { Outcome::Fail };
        self.report
            .add(row, self.protocol, level, name, outcome, seen.into());
    }

    /// Notes what could not be looked at, and why.
    fn skip(&mut self, row: u8, level: Level, name: &'static str, why: impl Into<String>) {
        self.report
            .add(row, self.protocol, level, name, Outcome::Skip, why.into());
    }
}

fn parse(url: Option<&str>) -> Result<Option<Url>, ClientError> {
    url.map(crate::http::endpoint).transpose()
}
