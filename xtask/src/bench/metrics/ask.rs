//! One HTTP connection to a server on this machine, with the times of its answers. HTTP/1.1 with a
//! Content-Length, which is all that our server answers these requests with.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

/// Longest wait for an answer.
const WITHIN: Duration = Duration::from_secs(30);

pub struct Connection(BufReader<TcpStream>);

/// What came, and when.
pub struct Answer {
    pub first_byte: Duration,
    pub last_byte: Duration,
    pub body: String,
}

impl Connection {
    pub fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream =
            TcpStream::connect(address).with_context(|| format!("can't reach {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(WITHIN))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// # Errors
    /// If the answer is not 200, or not whole.
    pub fn get(&mut self, path: &str) -> anyhow::Result<Answer> {
        let start = Instant::now();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes())?;
        // The other reads begin again by themselves when a signal interrupts them.
        let waited = loop {
            match self.0.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                waited => break waited,
            }
        };
        ensure!(!waited?.is_empty(), "{path}: no answer");
        let first_byte = start.elapsed();
        let (mut line, mut length) = (String::new(), None);
        self.0.read_line(&mut line)?;
        ensure!(line.starts_with("HTTP/1.1 200 "), "{path}: {line}");
        while line.trim() != "" {
            line.clear();
            self.0.read_line(&mut line)?;
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = Some(value.trim().parse()?);
            }
        }
        let mut body = vec![0; length.with_context(|| format!("{path}: no length"))?];
        self.0.read_exact(&mut body)?;
        let last_byte = start.elapsed();
        Ok(Answer {
            first_byte,
            last_byte,
            body: String::from_utf8(body)?,
        })
    }
}
