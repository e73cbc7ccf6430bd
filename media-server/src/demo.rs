//! The built-in device of `--demo`: a live picture with a clock, published through WHIP to this
//! very process, as any other device would.
//!
//! It owns one task and, while the picture is live, one thread that draws and encodes. It never
//! reaches into the registry or a shard. `app` starts it once HTTP listens and stops it first.

use std::net::{Ipv4Addr, SocketAddr};

use crate::app::App;
use crate::auth;
use client::picture::{Feed, FeedEvent, PictureOptions};
use client::{ClientError, Http, HttpOptions, Options};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The device that it publishes as.
pub const DEVICE: &str = "demo";

/// Starts the built-in device, where it was asked for. Without it the server is as useful as ever, so
/// a failure is told and not the end.
pub fn start(app: &App, listen: SocketAddr) -> Option<DemoDevice> {
    if !app.config.demo {
        return None;
    }
    let token = match &app.config.auth {
        None => None,
        Some(jwt) => {
            let holder = auth::Holder {
                subject: DEVICE,
                tenant: Some(DEVICE),
                devices: &[DEVICE.to_owned()],
                grants: &[auth::Grant::Publish],
            };
            match auth::mint(jwt, holder, auth::MAX_LIFETIME) {
                Ok(token) => Some(token),
                Err(error) => {
                    tracing::error!(%error, "no token for the built-in device");
                    return None;
                }
            }
        }
    };
    let server = OwnServer {
        listen,
        tls: app.config.tls.is_some(),
        token,
    };
    match DemoDevice::start(&server) {
        Ok(device) => Some(device),
        Err(error) => {
            tracing::error!(%error, "the built-in device does not start");
            None
        }
    }
}

/// The running device. Dropped, it stops without waiting.
pub struct DemoDevice {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Where the own HTTP server listens, and what it asks for.
#[derive(Debug, Clone)]
pub struct OwnServer {
    pub listen: SocketAddr,
    pub tls: bool,
    /// Bearer token with the grant to publish [`DEVICE`], where tokens are asked for.
    pub token: Option<String>,
}

impl DemoDevice {
    /// Starts publishing. It goes on trying until it is stopped, so the order of start does not
    /// matter. Must be called within the runtime.
    ///
    /// # Errors
    /// [`ClientError`] if the HTTP client cannot be set up.
    pub fn start(server: &OwnServer) -> Result<Self, ClientError> {
        let http = Http::new(&HttpOptions {
            token: server.token.clone(),
            // The certificate is this process's own, and names no loopback address.
            insecure_tls: server.tls,
            resolve: Vec::new(),
        })?;
        let feed = Feed::new(
            endpoint(server),
            http,
            Options::default(),
            PictureOptions {
                width: 1_280,
                height: 720,
                title: "DEMO DEVICE".to_owned(),
                ..PictureOptions::default()
            },
        );
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            // A dropped sender stops it too.
            let stopped = async {
                stopped.await.ok();
            };
            feed.run(stopped, |event| match event {
                FeedEvent::Live => tracing::info!(device = DEVICE, "demo device is live"),
                FeedEvent::Retrying { reason, pause } => tracing::warn!(
                    device = DEVICE,
                    reason,
                    pause_ms = pause.as_millis() as u64,
                    "demo device is away"
                ),
            })
            .await;
        });
        Ok(Self { stop, task })
    }

    /// Ends the session and waits until it has ended.
    pub async fn stop(self) {
        self.stop.send(()).ok();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "demo device ended badly");
        }
    }
}

/// The WHIP endpoint of this process; a wildcard address is reached over loopback.
fn endpoint(server: &OwnServer) -> String {
    let ip = match server.listen.ip() {
        // Also that of IPv6: it takes IPv4, and loopback has no other where IPv6 is switched off.
        ip if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        ip => ip,
    };
    let scheme = if server.tls { "https" } else { "http" };
    let address = SocketAddr::new(ip, server.listen.port());
    format!("{scheme}://{address}/whip/{DEVICE}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_server_is_reached_over_loopback() {
        let at = |listen: &str, tls| {
            endpoint(&OwnServer {
                listen: listen.parse().expect("a literal address"),
                tls,
                token: None,
            })
        };
        assert_eq!(
            at("0.0.0.0:30006", false),
            "http://127.0.0.1:30006/whip/demo"
        );
        assert_eq!(at("[::]:443", true), "https://127.0.0.1:443/whip/demo");
        assert_eq!(at("127.0.0.1:1", false), "http://127.0.0.1:1/whip/demo");
    }
}
