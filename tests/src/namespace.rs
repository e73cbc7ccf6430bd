//! A network of its own for the programs of one test, or for the test itself: the addresses that it asks for, and nothing
//! outside in reach.

use nix::sched::{CloneFlags, unshare};
use std::ffi::OsStr;
use std::process::Command;
use std::time::Duration;

use crate::process::Process;
use crate::wait::wait_for;

/// Ends with its value; programs that still run in it keep it for themselves.
pub struct Namespace {
    holder: Process,
}

/// Runs a test in a network of its own, with these addresses beside those of loopback: its sockets, and the programs that it
/// starts, are there.
///
/// # Panics
/// As the test does, and if it is not run by root.
pub fn in_network_with<T>(addresses: &[&str], test: T)
where
    T: Future<Output = ()> + Send + 'static,
{
    let addresses: Vec<String> = addresses.iter().map(|text| (*text).to_owned()).collect();
    // Threads and programs of a thread are born into its network.
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network");
        for address in &addresses {
            ip(&["address", "add", address, "dev", "lo"]);
        }
        ip(&["link", "set", "lo", "up"]);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(test);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Gives the network that this runs in an interface with a default route, without which a browser looks for no
/// path to anywhere.
///
/// # Panics
/// If there is one already, or none can be made.
pub fn add_interface(address: &str) {
    ip(&[
        "link", "add", "eth0", "type", "veth", "peer", "name", "eth1",
    ]);
    ip(&["address", "add", address, "dev", "eth0"]);
    for link in ["eth0", "eth1"] {
        ip(&["link", "set", link, "up"]);
    }
    ip(&["route", "add", "default", "dev", "eth0"]);
}

fn ip(args: &[&str]) {
    let status = Command::new("ip").args(args).status();
    assert!(status.is_ok_and(|status| status.success()), "ip {args:?}");
}

/// Adds the addresses, to an interface that does multicast as those of real machines do, and stays,
/// because a namespace lives as long as a process in it.
const HOLD: &str = "ip link add eth0 type veth peer name eth1
for address in \"$@\"; do
    case $address in *:*) more=nodad;; *) more=;; esac
    ip address add \"$address\" dev eth0 $more
done
for link in lo eth0 eth1; do ip link set $link up; done
ip route add default dev eth0
echo ready
exec sleep infinity";

impl Namespace {
    /// With these addresses, each with its prefix length, beside those of loopback.
    ///
    /// # Panics
    /// If the system makes none: it takes root, or leave to make user namespaces.
    pub async fn with(addresses: &[&str]) -> Self {
        let mut command = Command::new("unshare");
        command.args([
            "--user",
            "--map-root-user",
            "--net",
            "sh",
            "-ec",
            HOLD,
            "sh",
        ]);
        let mut holder = Process::start("namespace", command.args(addresses));
        wait_for("the namespace", Duration::from_secs(20), || {
            let log = holder.log();
            let ended = holder.ended();
            async move {
                match ended {
                    Some(status) => panic!("no network namespace: {status}: {log}"),
                    None if log.ends_with("ready\n") => Ok(()),
                    None => Err(log),
                }
            }
        })
        .await;
        Self { holder }
    }

    /// A command in it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.holder.pid().to_string()])
            .args(["--user", "--preserve-credentials", "--net", "--"])
            .arg(program);
        command
    }
}
