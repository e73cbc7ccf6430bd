//! Carries TCP and UDP from addresses of this machine into the cluster's outside network.
//!
//! Owns the sockets of both sides. It never looks into what it carries. Runs as a process of its own
//! (`cargo xtask forward`, not shown in the help), started by the demo and ended with the cluster.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use nix::sched::{CloneFlags, setns};

/// Connections and UDP clients at a time, each; beyond it a new one is refused. A browser has six
/// connections and one UDP client for each session.
const MAX_CLIENTS: usize = 256;

/// How long a UDP client is remembered without an answer from the cluster. ICE asks at least
/// every 30 s for consent (RFC 7675 §5.1), and is answered.
const IDLE: Duration = Duration::from_secs(60);

/// Largest UDP payload.
const DATAGRAM: usize = 65_507;

#[derive(clap::Args)]
pub struct Args {
    /// A process in the network to carry to
    #[arg(long)]
    control: u32,
    /// LISTEN=TARGET; a target that is no address is a file that holds one, read for each connection
    #[arg(long)]
    tcp: Vec<String>,
    /// LISTEN=TARGET
    #[arg(long)]
    udp: Vec<String>,
}

#[derive(Clone)]
enum Target {
    Address(SocketAddr),
    Named(String),
}

impl Target {
    fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Address(address) => Ok(*address),
            Self::Named(file) => std::fs::read_to_string(file)?
                .trim()
                .parse()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}

/// Listens, moves into the cluster's network, says so on standard output, and carries for ever.
///
/// # Errors
/// If an address can't be listened on or the network can't be entered.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut tcp = Vec::new();
    for pair in &args.tcp {
        let (listen, target) = split(pair)?;
        let listener =
            TcpListener::bind(listen).with_context(|| format!("can't listen on {listen}/tcp"))?;
        tcp.push((listener, target));
    }
    let mut udp = Vec::new();
    for pair in &args.udp {
        let (listen, target) = split(pair)?;
        let socket =
            UdpSocket::bind(listen).with_context(|| format!("can't listen on {listen}/udp"))?;
        udp.push((socket, target.address()?));
    }
    // Only this thread is there yet, so every later one, and every socket made from now on, is in
    // the cluster's network; those above stay in this machine's.
    let network = format!("/proc/{}/ns/net", args.control);
    let file = File::open(&network).with_context(|| format!("can't open {network}"))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("can't enter {network}"))?;

    let mut threads = Vec::new();
    for (listener, target) in tcp {
        threads.push(thread::spawn(move || accept(&listener, &target)));
    }
    for (socket, target) in udp {
        threads.push(thread::spawn(move || Udp::carry(Arc::new(socket), target)));
    }
    println!("carrying");
    for thread in threads {
        thread.join().ok().context("a carrying thread ended")??;
    }
    Ok(())
}

fn split(pair: &str) -> anyhow::Result<(SocketAddr, Target)> {
    let (listen, target) = pair
        .split_once('=')
        .with_context(|| format!("{pair} is not LISTEN=TARGET"))?;
    let listen = listen
        .parse()
        .with_context(|| format!("{listen} is no address with a port"))?;
    let target = match target.parse() {
        Ok(address) => Target::Address(address),
        Err(_) => Target::Named(target.to_owned()),
    };
    Ok((listen, target))
}

fn accept(listener: &TcpListener, target: &Target) -> io::Result<()> {
    let connections = Arc::new(AtomicUsize::new(0));
    loop {
        let (client, _) = listener.accept()?;
        if connections.load(Ordering::Relaxed) >= MAX_CLIENTS {
            continue;
        }
        connections.fetch_add(1, Ordering::Relaxed);
        let (target, connections) = (target.clone(), connections.clone());
        thread::spawn(move || {
            // A client that goes, or a target that is not there yet, ends this connection alone.
            let _ = carry(&client, &target);
            let _ = client.shutdown(Shutdown::Both);
            connections.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn carry(client: &TcpStream, target: &Target) -> io::Result<()> {
    let server = TcpStream::connect_timeout(&target.address()?, Duration::from_secs(5))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    thread::scope(|scope| {
        scope.spawn(|| copy(client, &server));
        copy(&server, client);
    });
    Ok(())
}

/// Copies until either side ends, and hands the end on.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

/// One listening socket, and one socket into the cluster for each client, so that the cluster sees
/// each client under a port of its own.
struct Udp {
    outer: Arc<UdpSocket>,
    clients: Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>,
}

impl Udp {
    fn carry(outer: Arc<UdpSocket>, target: SocketAddr) -> io::Result<()> {
        let this = Arc::new(Self {
            outer,
            clients: Mutex::default(),
        });
        let mut buf = vec![0; DATAGRAM];
        loop {
            // An ICMP error for an earlier answer shows up here and says nothing about the next.
            let Ok((len, from)) = this.outer.recv_from(&mut buf) else {
                continue;
            };
            if let Some(inner) = this.inner(from, target)? {
                let _ = inner.send(&buf[..len]);
            }
        }
    }

    /// The client's socket into the cluster; `None` if there are too many clients.
    fn inner(
        self: &Arc<Self>,
        client: SocketAddr,
        target: SocketAddr,
    ) -> io::Result<Option<Arc<UdpSocket>>> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(inner) = clients.get(&client) {
            return Ok(Some(inner.clone()));
        }
        if clients.len() >= MAX_CLIENTS {
            return Ok(None);
        }
        let any: SocketAddr = ([0, 0, 0, 0], 0).into();
        let inner = Arc::new(UdpSocket::bind(any)?);
        inner.connect(target)?;
        inner.set_read_timeout(Some(IDLE))?;
        clients.insert(client, inner.clone());
        let (this, answers) = (self.clone(), inner.clone());
        thread::spawn(move || {
            this.answer(client, &answers);
            let mut clients = this.clients.lock().unwrap_or_else(PoisonError::into_inner);
            clients.remove(&client);
        });
        Ok(Some(inner))
    }

    /// Hands answers back until there is none for [`IDLE`].
    fn answer(&self, client: SocketAddr, inner: &UdpSocket) {
        let mut buf = vec![0; DATAGRAM];
        loop {
            match inner.recv(&mut buf) {
                Ok(len) => {
                    let _ = self.outer.send_to(&buf[..len], client);
                }
                // The pod's port is closed for a moment while it is replaced.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    /// A server on loopback that sends back what it gets, for one client.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("is bound");
        thread::spawn(move || {
            let (client, _) = listener.accept().expect("a client comes");
            copy(&client, &client);
        });
        address
    }

    #[test]
    fn a_target_file_is_read_for_each_connection() {
        let file = std::env::temp_dir().join(format!("forward-{}", std::process::id()));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("is bound");
        let target = Target::Named(file.display().to_string());
        thread::spawn(move || accept(&listener, &target));
        for _ in 0..2 {
            std::fs::write(&file, format!("{}\n", echo())).expect("can be written");
            let mut client = TcpStream::connect(address).expect("is listening");
            client.write_all(b"hello").expect("is carried");
            client.shutdown(Shutdown::Write).expect("is connected");
            let mut back = String::new();
            client.read_to_string(&mut back).expect("comes back");
            assert_eq!(back, "hello");
        }
        std::fs::remove_file(&file).expect("was written");
    }

    #[test]
    fn each_udp_client_gets_its_own_answers() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let target = server.local_addr().expect("is bound");
        thread::spawn(move || {
            let mut buf = [0; 64];
            loop {
                let (len, from) = server.recv_from(&mut buf).expect("a datagram comes");
                server.send_to(&buf[..len], from).expect("can be answered");
            }
        });
        let outer = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = outer.local_addr().expect("is bound");
        thread::spawn(move || Udp::carry(Arc::new(outer), target));
        for name in ["one", "two"] {
            let client = UdpSocket::bind("127.0.0.1:0").expect("a free port");
            client
                .set_read_timeout(Some(Duration::from_secs(10)))
                .expect("a time is given");
            client.send_to(name.as_bytes(), address).expect("is sent");
            let mut buf = [0; 64];
            let len = client.recv(&mut buf).expect("an answer comes");
            assert_eq!(&buf[..len], name.as_bytes());
        }
    }
}
