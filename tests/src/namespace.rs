//! A network of its own for the programs of one test: the addresses that the test asks for, and
//! nothing outside in reach.

use std::ffi::OsStr;
use std::process::Command;
use std::time::Duration;

use crate::process::Process;
use crate::wait::wait_for;

/// Ends with its value; programs that still run in it keep it for themselves.
pub struct Namespace {
    holder: Process,
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
