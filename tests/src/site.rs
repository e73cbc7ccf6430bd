//! A web site of somebody else: another origin than the server's, with one page and its script.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Ends with its value.
pub struct Site {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

const PAGE: &str =
    "<!doctype html><meta charset=utf-8><title>site</title><script src=script.js></script>";

impl Site {
    /// Serves a page that loads `script`.
    ///
    /// # Panics
    /// If loopback has no free port.
    pub async fn start(script: String) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("loopback has a free port");
        let address = listener.local_addr().expect("an address");
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let script = script.clone();
                // A browser that goes away meanwhile does not matter.
                tokio::spawn(async move { answer(&mut stream, &script).await.ok() });
            }
        });
        Self { address, serving }
    }

    /// As browsers name it in `Origin`.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// One request a connection.
async fn answer(stream: &mut TcpStream, script: &str) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let (status, content, body) = if request.starts_with(b"GET / ") {
        ("200 OK", "text/html", PAGE)
    } else if request.starts_with(b"GET /script.js ") {
        ("200 OK", "text/javascript; charset=utf-8", script)
    } else {
        ("404 Not Found", "text/plain", "")
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await
}
