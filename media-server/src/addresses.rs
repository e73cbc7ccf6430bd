//! Which addresses answers name as candidates.
//!
//! Owns their discovery: flags, the addresses file (looked at again every 2 s), the listen address, or
//! every address of the machine; and the resolution of names (every minute). Never asks a cluster. The
//! app runs [`refresh`] and the API reads [`Addresses::current`].

use crate::config::Config;
use media_core::sdp::{Candidate, CandidateKind};
use serde::Deserialize;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How often the file is looked at again, and names that have not resolved yet.
pub const REFRESH_EVERY: Duration = Duration::from_secs(2);
/// How often a name that resolved is asked for again: what stands behind it changes its address rarely,
/// and the old one keeps working for about as long.
const RESOLVE_EVERY: Duration = Duration::from_secs(60);
/// A resolver that takes longer is asked again, while the last answer stays.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);
/// Most addresses of one name.
const MAX_OF_NAME: usize = 4;
/// Most UDP candidates of an answer: every one costs each client checks.
const MAX_ADDRESSES: usize = 16;
/// Most TCP candidates: every one costs each client a connection from each of its own addresses.
const MAX_TCP_ADDRESSES: usize = 4;
const UDP: &[CandidateKind] = &[CandidateKind::Udp];
const TCP: &[CandidateKind] = &[CandidateKind::TcpPassive];
const BOTH: &[CandidateKind] = &[CandidateKind::Udp, CandidateKind::TcpPassive];

/// The addresses known now.
#[derive(Debug, Default)]
pub struct Addresses {
    current: RwLock<Arc<[Candidate]>>,
    /// What names stood for when they were asked for last.
    resolved: Mutex<HashMap<String, Resolved>>,
}

#[derive(Debug, Clone)]
struct Resolved {
    at: Instant,
    ips: Vec<IpAddr>,
}

impl Addresses {
    /// UDP first, the best of each kind first; empty while none is known.
    pub fn current(&self) -> Arc<[Candidate]> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What a name stands for, at most a minute old. One that can't be resolved any more keeps its last
    /// addresses: a resolver that fails for a moment must not take candidates away.
    async fn resolve(&self, name: &str, now: Instant) -> Vec<IpAddr> {
        let known = self.names().get(name).cloned();
        if let Some(known) = &known
            && now.duration_since(known.at) < RESOLVE_EVERY
        {
            return known.ips.clone();
        }
        let ips = look_up(name).await.unwrap_or_else(|error| {
            tracing::warn!(%error, name, "address does not resolve");
            Vec::new()
        });
        if ips.is_empty() {
            return known.map(|known| known.ips).unwrap_or_default();
        }
        let resolved = Resolved {
            at: now,
            ips: ips.clone(),
        };
        self.names().insert(name.to_owned(), resolved);
        ips
    }

    fn forget_all_but(&self, names: &[String]) {
        let is_used = |resolved: &str| names.iter().any(|name| name.starts_with(resolved));
        self.names().retain(|name, _| is_used(name));
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, Resolved>> {
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, found: &[(SocketAddr, &[CandidateKind])], tcp: bool) {
        let of = |kind, most| {
            let named = found.iter().filter(move |(_, kinds)| kinds.contains(&kind));
            let candidate = move |(address, _): &(SocketAddr, _)| Candidate {
                kind,
                address: *address,
            };
            named.map(candidate).take(most)
        };
        let most_tcp = if tcp { MAX_TCP_ADDRESSES } else { 0 };
        let udp = of(CandidateKind::Udp, MAX_ADDRESSES);
        let found: Vec<Candidate> = udp.chain(of(CandidateKind::TcpPassive, most_tcp)).collect();
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if **current != *found {
            tracing::info!(count = found.len(), "media addresses changed");
            *current = found.into();
        }
    }
}

/// The file's form, written by the operator.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AddressesFile {
    lb: Vec<String>,
    nodes: HashMap<String, Vec<String>>,
}

/// Looks for the addresses again. `local` is the media socket's. What can't be read or resolved at
/// the moment leaves the last answer in force.
pub async fn refresh(addresses: &Addresses, config: &Config, local: SocketAddr) {
    let tcp = config.media_tcp;
    let (names, kinds) = if !config.advertise.is_empty() {
        (config.advertise.clone(), BOTH)
    } else if let Some(path) = &config.addresses_file {
        // What stands in front of a pod may carry one protocol and not the other.
        match from_file(path, &config.node_name) {
            Ok(names) => (names, UDP),
            Err(error) => {
                tracing::warn!(%error, "addresses file unreadable, the last addresses stay");
                return;
            }
        }
    } else {
        let own = if local.ip().is_unspecified() {
            machine_addresses(local.ip())
        } else {
            vec![local.ip()]
        };
        let port = local.port();
        let found: Vec<_> = own
            .into_iter()
            .map(|ip| (SocketAddr::new(ip, port), BOTH))
            .collect();
        return addresses.set(&found, tcp);
    };
    let mut found: Vec<(SocketAddr, &[CandidateKind])> = Vec::new();
    for name in &names {
        let (name, kinds) = match name.rsplit_once('/') {
            Some((name, "udp")) => (name, UDP),
            Some((name, "tcp")) => (name, TCP),
            _ => (name.as_str(), kinds),
        };
        let (ips, port) = match parse(name, local.port()) {
            (Host::Ip(ip), port) => (vec![ip], port),
            (Host::Name(name), port) => (addresses.resolve(name, Instant::now()).await, port),
        };
        for ip in ips {
            let address = (SocketAddr::new(ip, port), kinds);
            if !found.contains(&address) {
                found.push(address);
            }
        }
    }
    addresses.forget_all_but(&names);
    // A resolver that fails for a moment must not take all candidates away.
    if !found.is_empty() || names.is_empty() {
        addresses.set(&found, tcp);
    }
}

fn from_file(path: &Path, node: &str) -> Result<Vec<String>, std::io::Error> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        // Not written yet: no address.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut file: AddressesFile = serde_json::from_slice(&bytes)?;
    let mut names = file.lb;
    names.extend(file.nodes.remove(node).unwrap_or_default());
    Ok(names)
}

enum Host<'a> {
    Ip(IpAddr),
    Name(&'a str),
}

/// `ip`, `ip:port`, `[v6]:port`, `host` or `host:port`.
fn parse(name: &str, port: u16) -> (Host<'_>, u16) {
    if let Ok(address) = name.parse::<SocketAddr>() {
        return (Host::Ip(address.ip()), address.port());
    }
    if let Ok(ip) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
        return (Host::Ip(ip), port);
    }
    if let Some((host, digits)) = name.rsplit_once(':')
        && let Ok(port) = digits.parse()
    {
        return (Host::Name(host), port);
    }
    (Host::Name(name), port)
}

/// At most [`MAX_OF_NAME`], one of each family in turn. Sorted, so that a resolver which turns its
/// answers round changes nothing.
async fn look_up(name: &str) -> Result<Vec<IpAddr>, std::io::Error> {
    let asked = tokio::net::lookup_host((name, 0));
    let found = tokio::time::timeout(RESOLVE_WITHIN, asked).await??;
    let mut ips: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    ips.sort_unstable();
    ips.dedup();
    let (v4, v6) = ips.into_iter().partition(IpAddr::is_ipv4);
    let mut ips = in_turn(v4, v6);
    ips.truncate(MAX_OF_NAME);
    Ok(ips)
}

/// Non-loopback addresses of the machine that a peer could use, from the kernel's tables.
fn machine_addresses(unspecified: IpAddr) -> Vec<IpAddr> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let v4 = v4_of_fib_trie(&read("/proc/net/fib_trie"));
    let v6 = if unspecified.is_ipv6() {
        v6_of_if_inet6(&read("/proc/net/if_inet6"))
    } else {
        Vec::new()
    };
    // Clients that look at one candidate alone look at the first, and most of them have IPv4.
    let mut found = in_turn(v4, v6);
    found.truncate(MAX_ADDRESSES);
    found
}

/// One of each family in turn, so that neither waits for all of the other's (RFC 8421 §4).
fn in_turn(first: Vec<IpAddr>, second: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut families = [first.into_iter(), second.into_iter()];
    let mut found = Vec::new();
    while families.iter().any(|family| family.len() > 0) {
        found.extend(families.iter_mut().filter_map(Iterator::next));
    }
    found
}

/// Local addresses are the leaves that a line `/32 host LOCAL` follows.
fn v4_of_fib_trie(text: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    let mut leaf = None;
    for line in text.lines().map(str::trim_start) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse::<IpAddr>().ok();
        } else if line.starts_with("/32 host LOCAL")
            && let Some(ip) = leaf
            && !ip.is_loopback()
            && !found.contains(&ip)
        {
            found.push(ip);
        }
    }
    found
}

/// Lines `address index prefix scope flags name`; scope 00 is global, 20 link-local.
///
/// Left out is what must not be used for new sessions: tentative (0x40), deprecated (0x20), or on the
/// link twice (0x08).
fn v6_of_if_inet6(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let digits = words.next()?;
            let scope = words.nth(2)?;
            let flags = u32::from_str_radix(words.next()?, 16).ok()?;
            let bits = u128::from_str_radix(digits, 16).ok()?;
            (scope == "00" && flags & 0x68 == 0).then(|| IpAddr::from(bits.to_be_bytes()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tables_give_the_local_addresses_without_loopback() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.1.0.5\n        /32 host LOCAL\n     |-- 10.1.255.255\n        /32 link BROADCAST\n     |-- 127.0.0.1\n        /32 host LOCAL\nLocal:\n     |-- 10.1.0.5\n        /32 host LOCAL\n";
        assert_eq!(
            v4_of_fib_trie(trie),
            ["10.1.0.5".parse::<IpAddr>().expect("ip")]
        );
        let inet6 = "00000000000000000000000000000001 01 80 10 80       lo\n20010db8000000000000000000000001 02 40 00 80     eth0\nfe80000000000000000000000000abcd 02 40 20 80     eth0\n20010db8000000000000000000000002 02 40 00 a0     eth0\n20010db8000000000000000000000003 02 40 00 c0     eth0\n";
        assert_eq!(
            v6_of_if_inet6(inet6),
            ["2001:db8::1".parse::<IpAddr>().expect("ip")]
        );
    }

    #[test]
    fn the_families_take_turns() {
        let ips = |texts: &[&str]| -> Vec<IpAddr> {
            texts.iter().map(|ip| ip.parse().expect("ip")).collect()
        };
        let (v6, v4) = (
            ips(&["2001:db8::1"]),
            ips(&["192.0.2.1", "192.0.2.2", "192.0.2.3"]),
        );
        assert_eq!(
            in_turn(v4, v6),
            ips(&["192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.3"])
        );
    }

    #[tokio::test]
    async fn a_name_stands_for_both_protocols_or_for_the_one_behind_it() {
        let config = |args| crate::config::tests::load(args, "", &[]).expect("right");
        let local: SocketAddr = "127.0.0.1:8443".parse().expect("address");
        let all = [
            (
                &["--advertise", "192.0.2.1,192.0.2.2:9/udp,192.0.2.3:443/tcp"][..],
                &[
                    "Udp 192.0.2.1:8443",
                    "Udp 192.0.2.2:9",
                    "TcpPassive 192.0.2.1:8443",
                    "TcpPassive 192.0.2.3:443",
                ][..],
            ),
            (
                &[
                    "--advertise",
                    "192.0.2.1,192.0.2.3/tcp",
                    "--media-tcp",
                    "false",
                ],
                &["Udp 192.0.2.1:8443"],
            ),
            (&[], &["Udp 127.0.0.1:8443", "TcpPassive 127.0.0.1:8443"]),
            (&["--media-tcp", "false"], &["Udp 127.0.0.1:8443"]),
        ];
        for (args, wanted) in all {
            let addresses = Addresses::default();
            refresh(&addresses, &config(args), local).await;
            let found: Vec<String> = addresses
                .current()
                .iter()
                .map(|c| format!("{:?} {}", c.kind, c.address))
                .collect();
            assert_eq!(found, wanted, "{args:?}");
        }
    }

    #[test]
    fn names_take_the_media_port_unless_they_have_one() {
        let all = [
            ("192.0.2.1", "192.0.2.1:8443"),
            ("192.0.2.1:9", "192.0.2.1:9"),
            ("2001:db8::1", "[2001:db8::1]:8443"),
            ("[2001:db8::1]:9", "[2001:db8::1]:9"),
        ];
        for (name, wanted) in all {
            let (Host::Ip(ip), port) = parse(name, 8443) else {
                panic!("{name} is a literal");
            };
            assert_eq!(SocketAddr::new(ip, port).to_string(), wanted);
        }
        for (name, port) in [("lb.example.com", 8443), ("lb.example.com:9", 9)] {
            let (Host::Name(host), found) = parse(name, 8443) else {
                panic!("{name} is a name");
            };
            assert_eq!((host, found), ("lb.example.com", port));
        }
    }

    #[tokio::test]
    async fn a_name_is_resolved_once_a_minute_and_keeps_its_addresses_while_it_can_not_be() {
        let addresses = Addresses::default();
        let start = Instant::now();
        let loopback = |ips: &[IpAddr]| !ips.is_empty() && ips.iter().all(IpAddr::is_loopback);
        let found = addresses.resolve("localhost", start).await;
        assert!(loopback(&found), "{found:?}");
        let other: Vec<IpAddr> = vec!["192.0.2.1".parse().expect("address")];
        let known = |name: &str, at| {
            let ips = other.clone();
            let resolved = Resolved { at, ips };
            addresses.names().insert(name.to_owned(), resolved);
        };
        known("localhost", start);
        let before = start + RESOLVE_EVERY - Duration::from_secs(1);
        assert_eq!(addresses.resolve("localhost", before).await, other);
        let after = start + RESOLVE_EVERY;
        assert!(loopback(&addresses.resolve("localhost", after).await));
        // A name that never resolves (RFC 6761 §6.4).
        known("name.invalid", start);
        assert_eq!(addresses.resolve("name.invalid", after).await, other);
        addresses.forget_all_but(&["localhost:1/tcp".to_owned()]);
        assert_eq!(addresses.names().len(), 1);
    }

    #[test]
    fn the_file_that_the_operator_writes_gives_each_node_its_own_address_with_the_port() {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/operator/addresses.json");
        for (node, wanted) in [
            ("node-a", "203.0.113.1:8443"),
            ("node-b", "[2001:db8::2]:8443"),
        ] {
            let names = from_file(&path, node).expect("the operator writes what is right");
            assert_eq!(names, [wanted, &format!("{wanted}/tcp")], "{node}");
            names[0]
                .parse::<SocketAddr>()
                .expect("an address and a port");
        }
        assert!(from_file(&path, "node-c").expect("read").is_empty());
    }

    #[test]
    fn the_file_gives_load_balancers_and_the_own_node() {
        let dir = std::env::temp_dir().join(format!("media-addresses-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let path = dir.join("addresses.json");
        assert!(from_file(&path, "n1").expect("absent is empty").is_empty());
        std::fs::write(
            &path,
            r#"{"lb":["192.0.2.9:1"],"nodes":{"n1":["192.0.2.1:2"],"n2":["192.0.2.2:2"]}}"#,
        )
        .expect("written");
        assert_eq!(
            from_file(&path, "n1").expect("read"),
            ["192.0.2.9:1", "192.0.2.1:2"]
        );
        std::fs::write(&path, "{").expect("written");
        assert!(from_file(&path, "n1").is_err());
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}
