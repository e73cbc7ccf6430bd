//! TCP and TLS in front of a router: accepts, bounds and ends connections.
//!
//! Owns the limits that a router can't have: connections open at once, time for a request head, and a
//! graceful end. Never looks into a request. Called by the app, once per listen address.

mod places;
mod write_timeout;

use crate::app::App;
use crate::config::TlsFiles;
use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use places::{Place, Places};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tower::ServiceExt as _;
use write_timeout::WriteTimeout;

/// Time for the head of a connection's first request. Clients connect because they have one.
const FIRST_HEAD_WITHIN: Duration = Duration::from_secs(10);
/// The same for each after: the longest idle time between two requests. A proxy that keeps connections for
/// requests to come closes them first: after 60 s, as a rule.
const HEAD_WITHIN: Duration = Duration::from_secs(75);
/// Longest head of a request, and what is read of a body at once: each connection may hold as much. Twice what
/// proxies let pass for one header; hyper alone would take 408 KiB, which with all places is more than a pod has.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Time for a TLS handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// Time for the client to take in what was written. Longer, and it reads nothing or is gone.
const WRITE_WITHIN: Duration = Duration::from_secs(30);
/// After an error of accept, such as no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("failed to listen on {address}")]
    Bind {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("failed to read {path}: {message}")]
    Pem { path: PathBuf, message: String },
    #[error("certificate and key do not fit")]
    Tls { source: tokio_rustls::rustls::Error },
}

/// A bound address and what is served there.
pub struct Listener {
    tcp: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    /// Connections open at once; for more, those that ask for nothing make room.
    max_connections: u32,
}

impl Listener {
    /// Binds the address, within the runtime. An IPv6 wildcard takes IPv4 as well, and is the IPv4 one where
    /// there is no IPv6, as that of the media port.
    ///
    /// # Errors
    /// [`ListenError`]
    pub fn bind(
        address: SocketAddr,
        tls: Option<&TlsFiles>,
        router: Router,
        max_connections: u32,
    ) -> Result<Listener, ListenError> {
        let tcp = media_wire::TcpListener::bind(address, false)
            .and_then(|bound| TcpListener::from_std(bound.into()))
            .map_err(|source| ListenError::Bind { address, source })?;
        Ok(Listener {
            tcp,
            tls: tls.map(acceptor).transpose()?,
            router,
            max_connections,
        })
    }

    /// The bound address, with its real port.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until `stop` turns true, then lets open requests end.
    pub async fn serve(self, app: Arc<App>, mut stop: watch::Receiver<bool>) {
        let places = Places::new(self.max_connections);
        loop {
            let stream = tokio::select! {
                accepted = self.tcp.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "failed to accept a connection");
                        app.metrics.count("media_errors_total", &["http", "accept"]);
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
                () = stopped(&mut stop) => break,
            };
            let place = match places.try_take() {
                Some(place) => place,
                None => {
                    app.metrics
                        .count("media_bound_hits_total", &["http_connections"]);
                    tokio::select! {
                        place = places.take() => place,
                        () = stopped(&mut stop) => break,
                    }
                }
            };
            let _ = stream.set_nodelay(true);
            let stalls = place.clone();
            let stream = WriteTimeout::new(stream, WRITE_WITHIN, move |stalled| {
                stalls.write_stalls(stalled);
            });
            let router = self.router.clone();
            let tls = self.tls.clone();
            let stop = stop.clone();
            let app = app.clone();
            app.usage.connection_opened();
            tokio::spawn(async move {
                let ended = match tls {
                    None => connection(stream, router, stop, &place).await,
                    Some(tls) => {
                        let handshake = tokio::time::timeout(HANDSHAKE_WITHIN, tls.accept(stream));
                        tokio::select! {
                            shaken = handshake => match shaken {
                                Ok(Ok(stream)) => connection(stream, router, stop, &place).await,
                                _ => Err(["tls", "handshake"]),
                            },
                            () = place.crowded_out() => Err(CROWDED_OUT),
                        }
                    }
                };
                if let Err(labels) = ended {
                    app.metrics.count("media_errors_total", &labels);
                }
                app.usage.connection_closed();
            });
        }
        drop(self.tcp);
        // Every connection has ended then.
        places.all_free().await;
    }
}

/// Serves a connection to its end.
///
/// # Errors
/// The labels of `media_errors_total` to count, if we ended it.
async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    mut stop: watch::Receiver<bool>,
    place: &Arc<Place>,
) -> Result<(), [&'static str; 2]> {
    let (begins, answers) = (place.clone(), place.clone());
    let service = router
        .map_request(move |request: hyper::Request<Incoming>| begins.begin(request))
        .map_response(move |response| answers.answer(response));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        // A WebSocket leaves here, and keeps its place until it ends.
        .with_upgrades();
    let mut serving = pin!(serving);
    let late = async {
        tokio::time::sleep(FIRST_HEAD_WITHIN).await;
        if place.has_requested() {
            std::future::pending().await
        }
    };
    let ended = tokio::select! {
        // An error is the client's: cut off, too slow, no HTTP. There is nobody to tell.
        _ = serving.as_mut() => return Ok(()),
        () = stopped(&mut stop) => Ok(()),
        () = late => return Err(["http", "no_request"]),
        () = place.crowded_out() => {
            if place.may_break_off() {
                return Err(CROWDED_OUT);
            }
            Err(CROWDED_OUT)
        }
    };
    // At rest it closes now, else with the end of its request, unless the client holds that up.
    serving.as_mut().graceful_shutdown();
    loop {
        tokio::select! {
            _ = serving.as_mut() => return ended,
            () = place.crowded_out() => {
                if place.may_break_off() {
                    return Err(CROWDED_OUT);
                }
            }
        }
    }
}

/// Labels of a connection that made room for another.
const CROWDED_OUT: [&str; 2] = ["http", "crowded_out"];

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, ListenError> {
    let pem = |path: &PathBuf, error: &dyn std::fmt::Display| ListenError::Pem {
        path: path.clone(),
        message: error.to_string(),
    };
    let chain = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| pem(&files.cert, &e))?;
    if chain.is_empty() {
        return Err(pem(&files.cert, &"there is no certificate in it"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| pem(&files.key, &e))?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|source| ListenError::Tls { source })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn one_that_was_asked_to_go_while_it_worked_is_asked_again_when_its_answer_is_not_taken()
    {
        let work = Arc::new(Notify::new());
        let (begun, done) = (Arc::new(Notify::new()), work.clone());
        let begins = begun.clone();
        let router = Router::new().fallback(move || async move {
            begins.notify_one();
            done.notified().await;
            vec![0; 1_000_000]
        });
        let places = Places::new(1);
        let place = places.try_take().expect("free");
        let (mut client, ours) = tokio::io::duplex(1024);
        let stalls = place.clone();
        let stream = WriteTimeout::new(ours, Duration::from_secs(3_600), move |stalled| {
            stalls.write_stalls(stalled);
        });
        let (_running, stop) = watch::channel(false);
        let asked = place.clone();
        let served = tokio::spawn(async move { connection(stream, router, stop, &place).await });
        let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        client.write_all(request).await.expect("written");
        begun.notified().await;
        // As one is that begins with a request at the moment in which it is asked.
        asked.ask();
        drop(asked);
        tokio::task::yield_now().await;
        work.notify_one();
        let within = Duration::from_secs(10);
        tokio::time::timeout(within, places.take())
            .await
            .expect("there is room");
        let ended = tokio::time::timeout(within, served).await.expect("it ends");
        assert_eq!(ended.expect("no panic"), Err(CROWDED_OUT));
    }

    #[tokio::test]
    async fn a_head_without_an_end_is_refused_before_it_takes_much() {
        let places = Places::new(1);
        let place = places.try_take().expect("free");
        let (mut client, ours) = tokio::io::duplex(1024);
        let (_running, stop) = watch::channel(false);
        let served =
            tokio::spawn(async move { connection(ours, Router::new(), stop, &place).await });
        let head = [
            b"GET / HTTP/1.1\r\nCookie: ",
            &vec![b'x'; 2 * MAX_HEAD_BYTES][..],
        ]
        .concat();
        // It is closed before all of it was sent.
        let _ = client.write_all(&head).await;
        let mut answer = Vec::new();
        let within = Duration::from_secs(5);
        let read = tokio::time::timeout(within, client.read_to_end(&mut answer)).await;
        read.expect("it ends").expect("an answer");
        assert!(answer.starts_with(b"HTTP/1.1 431 "));
        assert_eq!(served.await.expect("no panic"), Ok(()));
    }
}
