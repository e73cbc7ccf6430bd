//! The HTTP half of WHIP and WHEP: the POST that opens a session, the PATCH that restarts its ICE and
//! the DELETE that ends it.
//!
//! It never touches media. `publisher` and `viewer` call it.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::header::{
    AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_MATCH, LINK, LOCATION,
    RETRY_AFTER,
};
use reqwest::{Method, Url};

use crate::{ClientError, Problem};

/// Longest an HTTP exchange may take before it counts as failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How the server is reached over HTTP.
#[derive(Debug, Clone, Default)]
pub struct HttpOptions {
    /// Bearer token, sent with every request.
    pub token: Option<String>,
    /// Takes any TLS certificate: for the self-signed one of a local ingress.
    pub insecure_tls: bool,
    /// Host names with the address that they are to be reached at, instead of asking DNS.
    pub resolve: Vec<(String, SocketAddr)>,
}

/// A connection pool with the options applied. Clones share the pool.
#[derive(Debug, Clone)]
pub struct Http {
    client: reqwest::Client,
    token: Option<String>,
}

/// A session resource: where the session lives on the server.
#[derive(Debug, Clone)]
pub struct Resource {
    /// The `Location`, resolved against the address that answered.
    pub url: Url,
    /// The strong `ETag` of the ICE session, if the server gave one.
    pub etag: Option<String>,
    /// Where a viewer chooses its simulcast layer, if the server lets it.
    pub layer: Option<Url>,
}

/// What a server's choice of layers is known by (draft-ietf-wish-whep, "Video Layer Selection").
const LAYER_REL: &str = "urn:ietf:params:whep:ext:core:layer";

impl Http {
    /// Builds the pool. No connection is made yet.
    ///
    /// # Errors
    /// [`ClientError::HttpClient`] if TLS cannot be set up.
    pub fn new(options: &HttpOptions) -> Result<Self, ClientError> {
        let mut builder = reqwest::Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .danger_accept_invalid_certs(options.insecure_tls);
        for (host, address) in &options.resolve {
            builder = builder.resolve(host, *address);
        }
        Ok(Self {
            client: builder
                .build()
                .map_err(|source| ClientError::HttpClient { source })?,
            token: options.token.clone(),
        })
    }

    /// The same pool with another token.
    pub fn with_token(&self, token: Option<String>) -> Self {
        Self {
            client: self.client.clone(),
            token,
        }
    }

    /// Opens a session: POSTs the offer, returns the answer and the session resource.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the server's reason, or [`ClientError::Answer`] if a 201 lacks
    /// what RFC 9725 §4.2 demands.
    pub(crate) async fn post_offer(
        &self,
        endpoint: &Url,
        offer: String,
    ) -> Result<(String, Resource), ClientError> {
        let mut headers = self.headers();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/sdp"));
        let response = self
            .send(Method::POST, "POST", endpoint, headers, offer)
            .await?;
        let broken = |reason: &str| ClientError::Answer {
            url: endpoint.to_string(),
            reason: reason.to_owned(),
        };
        if response.status != 201 {
            return Err(broken(&format!("status {} is not 201", response.status)));
        }
        if !response
            .header(CONTENT_TYPE.as_str())
            .starts_with("application/sdp")
        {
            return Err(broken("the content type is not application/sdp"));
        }
        let location = response.header(LOCATION.as_str());
        if location.is_empty() {
            return Err(broken("there is no Location header"));
        }
        let url = response
            .url
            .join(&location)
            .map_err(|error| broken(&format!("the Location {location} is no address: {error}")))?;
        let etag = Some(response.header(ETAG.as_str())).filter(|etag| !etag.is_empty());
        let layer = response
            .link(LAYER_REL)
            .and_then(|link| url.join(link).ok());
        Ok((response.body, Resource { url, etag, layer }))
    }

    /// Restarts the ICE of a session: PATCHes the fragment, returns the server's, and takes the new
    /// `ETag` over.
    ///
    /// # Errors
    /// [`ClientError::Refused`], or [`ClientError::Answer`] if a 200 lacks what RFC 9725 §4.3.3
    /// demands.
    pub(crate) async fn patch_restart(
        &self,
        resource: &mut Resource,
        fragment: String,
    ) -> Result<String, ClientError> {
        let mut headers = self.headers();
        let media_type = HeaderValue::from_static("application/trickle-ice-sdpfrag");
        headers.insert(CONTENT_TYPE, media_type);
        headers.insert(IF_MATCH, HeaderValue::from_static("*"));
        let response = self
            .send(Method::PATCH, "PATCH", &resource.url, headers, fragment)
            .await?;
        if response.status != 200 {
            return Err(ClientError::Answer {
                url: resource.url.to_string(),
                reason: format!("status {} is not 200", response.status),
            });
        }
        resource.etag = Some(response.header(ETAG.as_str())).filter(|etag| !etag.is_empty());
        Ok(response.body)
    }

    /// Asks for a simulcast layer by its RID, or leaves the choice to the server again.
    ///
    /// # Errors
    /// [`ClientError::NoLayerChoice`], or as `post_offer`.
    pub(crate) async fn select_layer(
        &self,
        resource: &Resource,
        rid: Option<&str>,
    ) -> Result<(), ClientError> {
        let url = resource.layer.as_ref().ok_or(ClientError::NoLayerChoice)?;
        let mut headers = self.headers();
        let sent = match rid {
            Some(rid) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                let body = serde_json::json!({ "encodingId": rid }).to_string();
                self.send(Method::POST, "POST", url, headers, body).await
            }
            None => {
                self.send(Method::DELETE, "DELETE", url, headers, String::new())
                    .await
            }
        };
        sent.map(drop)
    }

    /// Ends a session. One that the server no longer knows is ended too.
    ///
    /// # Errors
    /// As `post_offer`.
    pub async fn delete(&self, resource: &Resource) -> Result<(), ClientError> {
        let sent = self
            .send(
                Method::DELETE,
                "DELETE",
                &resource.url,
                self.headers(),
                String::new(),
            )
            .await;
        match sent {
            Ok(_) => Ok(()),
            Err(error) if error.status() == Some(404) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether the session resource is still there: any answer but 404 says so, as not every server lets
    /// its sessions be asked for.
    ///
    /// # Errors
    /// If the server can't be asked, or says that something is wrong with it (5xx).
    pub(crate) async fn exists(&self, resource: &Resource) -> Result<bool, ClientError> {
        let (url, headers) = (&resource.url, self.headers());
        match self
            .send(Method::GET, "GET", url, headers, String::new())
            .await
        {
            Ok(_) => Ok(true),
            Err(error) => match error.status() {
                Some(404) => Ok(false),
                Some(500..) | None => Err(error),
                Some(_) => Ok(true),
            },
        }
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(token) = &self.token
            && let Ok(mut value) = HeaderValue::try_from(format!("Bearer {token}"))
        {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        headers
    }

    async fn send(
        &self,
        method: Method,
        name: &'static str,
        url: &Url,
        headers: HeaderMap,
        body: String,
    ) -> Result<Response, ClientError> {
        let failed = |source| ClientError::Request {
            method: name,
            url: url.to_string(),
            source,
        };
        let response = self
            .client
            .request(method, url.clone())
            .headers(headers)
            .body(body)
            .send()
            .await
            .map_err(failed)?;
        let response = Response {
            status: response.status().as_u16(),
            url: response.url().clone(),
            headers: response.headers().clone(),
            body: response.text().await.map_err(failed)?,
        };
        if (200..300).contains(&response.status) {
            return Ok(response);
        }
        Err(ClientError::Refused {
            method: name,
            url: url.to_string(),
            status: response.status,
            problem: Box::new(Problem::read(
                &response.header(CONTENT_TYPE.as_str()),
                &response.body,
            )),
            retry_after_seconds: response.header(RETRY_AFTER.as_str()).parse().ok(),
        })
    }
}

struct Response {
    status: u16,
    url: Url,
    headers: HeaderMap,
    body: String,
}

impl Response {
    /// Target of the first `Link` with that relation (RFC 8288 §3).
    fn link(&self, rel: &str) -> Option<&str> {
        let rel = format!("rel=\"{rel}\"");
        let links = self.headers.get_all(LINK).iter();
        links
            .filter_map(|link| link.to_str().ok())
            .find_map(|link| {
                let (target, parameters) = link.strip_prefix('<')?.split_once('>')?;
                let mut parameters = parameters.split(';').map(str::trim);
                parameters
                    .any(|parameter| parameter == rel)
                    .then_some(target)
            })
    }

    fn header(&self, name: &str) -> String {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    }
}

/// Reads an endpoint address.
pub(crate) fn endpoint(url: &str) -> Result<Url, ClientError> {
    Url::parse(url).map_err(|error| ClientError::Url {
        url: url.to_owned(),
        reason: error.to_string(),
    })
}
