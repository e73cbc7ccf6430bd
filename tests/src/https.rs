//! A web server of somebody else that is spoken to over https: what an identity provider or the receiver of events is to a
//! `media-server`. What it answers can change at any time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rcgen::CertifiedKey;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::process::TempDir;

/// Ends with its value: connections are refused then.
pub struct Https {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
    dir: TempDir,
}

struct Shared {
    answer: Mutex<Answer>,
    requests: Mutex<Vec<Request>>,
}

/// What every request gets.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Such as `200 OK`.
    pub status: &'static str,
    /// Lines of the head, each with its end.
    pub headers: String,
    pub body: String,
}

impl Answer {
    pub fn ok(body: impl Into<String>) -> Self {
        Self {
            status: "200 OK",
            headers: String::new(),
            body: body.into(),
        }
    }

    pub fn status(status: &'static str) -> Self {
        Self {
            status,
            ..Self::ok("")
        }
    }
}

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// Method and path.
    pub line: String,
    /// By their names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
    /// What it got.
    pub status: &'static str,
}

impl Https {
    /// Serves at a port that is free, with a certificate for that address, which [`Self::ca_file`] vouches for.
    ///
    /// # Panics
    /// If the machine does not have the address.
    pub async fn start(ip: &str, answer: Answer) -> Self {
        let listener = TcpListener::bind(format!("{ip}:0")).await;
        let listener = listener.expect("the machine has the address");
        let address = listener.local_addr().expect("an address");
        let names = vec![ip.to_owned(), "localhost".to_owned()];
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(names).expect("a certificate can be made");
        let dir = TempDir::new("https");
        std::fs::write(dir.path().join("ca.pem"), cert.pem()).expect("it can be written");
        let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], PrivateKeyDer::Pkcs8(key))
            .expect("the key is the certificate's");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let shared = Arc::new(Shared {
            answer: Mutex::new(answer),
            requests: Mutex::default(),
        });
        let serving = tokio::spawn({
            let shared = shared.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (acceptor, shared) = (acceptor.clone(), shared.clone());
                    // A client that goes away or trusts nobody does not matter.
                    tokio::spawn(async move {
                        let mut stream = acceptor.accept(stream).await.ok()?;
                        shared.exchange(&mut stream).await
                    });
                }
            }
        });
        Self {
            address,
            shared,
            serving,
            dir,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Its certificate in PEM.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// What requests get from now on.
    pub fn answer(&self, answer: Answer) {
        *self.shared.answer.lock().expect("no panic") = answer;
    }

    /// What was asked until now, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().expect("no panic").clone()
    }
}

impl Drop for Https {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Shared {
    /// One request a connection; `None` if the client went away.
    async fn exchange(&self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Option<()> {
        let mut request = read(stream).await?;
        let Answer {
            status,
            headers,
            body,
        } = self.answer.lock().expect("no panic").clone();
        request.status = status;
        self.requests.lock().expect("no panic").push(request);
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(body.as_bytes()).await.ok()?;
        stream.shutdown().await.ok()
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8(bytes.clone()).ok()?;
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let mut lines = head.lines();
        let line = lines.next()?.trim_end_matches(" HTTP/1.1").to_owned();
        let headers: BTreeMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length = headers
            .get("content-length")
            .map_or(Some(0), |n| n.parse().ok())?;
        if body.len() >= length {
            return Some(Request {
                line,
                headers,
                body: body.to_owned(),
                status: "",
            });
        }
    }
}
