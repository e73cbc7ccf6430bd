//! `cargo xtask cluster`: the local Kubernetes cluster.
//!
//! Owns the command line and the way into the cluster for the other commands. The cluster itself, from
//! checks and builds to namespaces and their end, is the script `cluster/cluster`. Called by people,
//! by `cargo xtask demo` and by the gate.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::sh;

/// Where the state of the cluster lies unless `CLUSTER_DIR` says otherwise.
const DEFAULT_STATE: &str = "/tmp/mediaservice-cluster";

/// The first node: its hostPorts and NodePorts, and the ingress at :80 and :443.
pub const NODE_ADDRESS: &str = "198.18.0.11";
pub const NODE_ADDRESS_V6: &str = "fd00:198:18::11";

/// The cluster's Prometheus, from the cluster's outside network.
pub const PROMETHEUS: &str = "http://198.18.1.90:9090";

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Build what is not in the cache yet and start the cluster; with ingress controller and Prometheus
    Up {
        /// Number of nodes, 1 to 9
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9))]
        nodes: u8,
        /// Kubernetes and DNS only: no ingress controller, no Prometheus
        #[arg(long)]
        bare: bool,
    },
    /// End the cluster and leave nothing behind
    Down,
    /// Print how to reach the cluster, to be eval'ed by a shell
    Env,
    /// Compile programs of the cluster into the cache; all of them without a name
    Build {
        /// Folders of `cluster/` that hold a Go module
        tools: Vec<String>,
    },
    /// Say what this machine lacks for the cluster, each with its fix
    Check,
    /// Compare what the operator did on the cluster with the rights that its chart grants
    Rights,
}

/// Runs one action of `cargo xtask cluster`.
///
/// # Errors
/// If the script fails; it has said why on standard error. A failed `up` leaves the logs; the next
/// `up` starts anew and builds only what is missing.
pub fn run(args: Args) -> anyhow::Result<()> {
    let cluster = Cluster::here();
    match args.action {
        Action::Up { nodes, bare } => {
            cluster.up(nodes)?;
            if !bare {
                for part in PARTS {
                    cluster.add(part)?;
                }
            }
            println!("`eval \"$(cargo xtask cluster env)\"` sets up a shell for it");
            Ok(())
        }
        Action::Down => cluster.down(),
        Action::Env => cluster.run(["env"]),
        Action::Build { tools } if tools.is_empty() => {
            cluster.run(["build"].into_iter().chain(KUBERNETES).chain([
                "tools",
                "definitions",
                "ingress",
                "prometheus-operator",
                "prometheus",
            ]))
        }
        Action::Build { tools } => cluster.run(["build".to_owned()].into_iter().chain(tools)),
        Action::Check => {
            cluster.run(["check"])?;
            println!("nothing is missing");
            Ok(())
        }
        Action::Rights => crate::test::rights::check(&cluster),
    }
}

/// What `up` itself needs.
const KUBERNETES: [&str; 2] = ["kube", "coredns"];

/// What joins a running cluster, in the order in which a user misses it.
pub const PARTS: [&str; 3] = ["tools", "ingress", "monitoring"];

/// What this machine must have enough for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Rust's programs and the two images.
    Images,
    /// The cluster too: Go, root, more disk.
    Cluster,
}

/// The cluster of this machine, running or not.
#[derive(Debug, Clone)]
pub struct Cluster {
    state: PathBuf,
}

impl Cluster {
    /// Environment variable of every process that belongs to a cluster and ends with it; its value
    /// is the cluster's state folder.
    pub const MARK: &str = "MEDIASERVICE_CLUSTER_MACHINE";

    /// The cluster that `CLUSTER_DIR` names.
    pub fn here() -> Self {
        let state = std::env::var_os("CLUSTER_DIR").unwrap_or_else(|| DEFAULT_STATE.into());
        Self {
            state: state.into(),
        }
    }

    /// The cluster whose state lies in `state`.
    pub fn at(state: PathBuf) -> Self {
        Self { state }
    }

    /// Where the cluster keeps its state: certificates, logs, images.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Whether the cluster has come up and was not taken down since.
    pub fn is_up(&self) -> bool {
        self.state.join("up").exists() && self.control().is_ok()
    }

    /// Installs what packages have, where that can be done, and says all that is missing then. To be
    /// called before anything is built or started.
    ///
    /// # Errors
    /// If something is missing: each with its fix.
    pub fn prepare(&self, wanted: Wanted) -> anyhow::Result<()> {
        let what: &[&str] = match wanted {
            Wanted::Images => &["image"],
            Wanted::Cluster => &[],
        };
        self.run(["install"].iter().chain(what))?;
        let out = self
            .script(["check"].iter().chain(what))
            .output()
            .context("can't start cluster/cluster")?;
        if !out.status.success() {
            bail!(
                "this machine lacks what is needed; nothing was built\n{}",
                String::from_utf8_lossy(&out.stderr).trim_end()
            );
        }
        Ok(())
    }

    /// Builds what is missing and starts the cluster; one that is up stays as it is.
    pub fn up(&self, nodes: u8) -> anyhow::Result<()> {
        self.run(["up".to_owned(), nodes.to_string()])
    }

    /// Builds and starts one of [`PARTS`] in a running cluster.
    pub fn add(&self, part: &str) -> anyhow::Result<()> {
        self.run([part])
    }

    /// Loads image archives on every node.
    pub fn load(&self, archives: &[PathBuf]) -> anyhow::Result<()> {
        let mut command = self.script(["load"]);
        drive(command.args(archives))
    }

    /// Ends the cluster.
    pub fn down(&self) -> anyhow::Result<()> {
        self.run(["down"])
    }

    /// A command of the script.
    pub fn script<I, S>(&self, args: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = Command::new(sh::root().join("cluster/cluster"));
        command
            .args(args)
            .env("CLUSTER_DIR", &self.state)
            .stdin(Stdio::null());
        command
    }

    /// A program in the cluster's outside network, with the cluster's own tools first in `PATH` and
    /// `KUBECONFIG` set: as a client beyond the nodes is.
    ///
    /// # Errors
    /// If no cluster is up.
    pub fn outside(&self, program: impl AsRef<OsStr>) -> anyhow::Result<Command> {
        let mut command = Command::new("nsenter");
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .args(["--net", "--target", &self.control()?, "--"])
            .arg(program)
            // It ends with the cluster: whoever started it may have been killed.
            .env(Self::MARK, &self.state)
            .env("KUBECONFIG", self.state.join("pki/admin.conf"))
            .env(
                "PATH",
                format!("{}:{path}", self.state.join("bin").display()),
            )
            .stdin(Stdio::null());
        Ok(command)
    }

    /// The process whose network is the cluster's outside.
    ///
    /// # Errors
    /// If no cluster is up.
    pub fn control(&self) -> anyhow::Result<String> {
        let file = self.state.join("control.pid");
        let pid = std::fs::read_to_string(&file)
            .with_context(|| format!("no cluster is up at {}", self.state.display()))?;
        let pid = pid.trim().to_owned();
        if !self.owns(&pid) {
            bail!("the cluster at {} has ended", self.state.display());
        }
        Ok(pid)
    }

    /// Whether a process runs and belongs to this cluster: a number that is another's by now does not.
    pub fn owns(&self, pid: &str) -> bool {
        sh::has_variable(pid, Self::MARK, &self.state)
    }

    fn run<I, S>(&self, args: I) -> anyhow::Result<()>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        drive(&mut self.script(args))
    }
}

fn drive(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("can't start {}", command.get_program().display()))?;
    if !status.success() {
        let name = Path::new(command.get_program())
            .file_name()
            .unwrap_or_default();
        let action = command.get_args().next().unwrap_or_default();
        bail!(
            "{} {} ended with {status}",
            name.display(),
            action.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A machine that answers what a test wants: programs that stand before the real ones.
    struct Machine(PathBuf);

    impl Machine {
        fn new(name: &str, programs: &[(&str, &str)]) -> Self {
            let folder = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).expect("can be made");
            for (program, script) in programs {
                let file = folder.join(program);
                std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("can be written");
                std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).expect("is ours");
            }
            Self(folder)
        }

        /// What `check` says of it: nothing where nothing is missing.
        fn lacks(&self, wanted: &[&str]) -> String {
            let mut check = Cluster::at("/tmp/xtask-no-cluster".into()).script(["check"]);
            let path = std::env::var("PATH").unwrap_or_default();
            let out = check
                .args(wanted)
                .env("PATH", format!("{}:{path}", self.0.display()))
                .env("XDG_CACHE_HOME", &self.0)
                .output()
                .expect("the script is there");
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            assert_eq!(out.status.success(), said.is_empty(), "{said}");
            said
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_machine_with_an_old_go_no_root_and_a_full_disk_is_told_each_with_its_fix() {
        let full = r#"printf 'Avail\n  1G\n'"#;
        let old = [("go", "echo go1.19.8"), ("id", "echo 1000"), ("df", full)];
        let machine = Machine::new("old", &old);
        let said = machine.lacks(&[]);
        for line in [
            "missing: root rights",
            "missing: go, 1.21 or later: this is go1.19.8",
            "missing: disk: 1 GB are free",
        ] {
            assert!(said.contains(line), "{line} is not in\n{said}");
        }
        let lacks = said.matches("missing: ").count();
        assert_eq!(said.matches("    fix: ").count(), lacks, "{said}");
        let said = machine.lacks(&["image"]);
        assert!(said.contains("missing: disk"), "{said}");
        assert!(!said.contains("go,") && !said.contains("root"), "{said}");
    }

    #[test]
    fn a_machine_without_go_is_told_which_would_be_right() {
        let said = Machine::new("none", &[("go", "exit 127")]).lacks(&[]);
        assert!(said.contains("missing: go, 1.21 or later\n"), "{said}");
        assert!(said.contains("https://go.dev/doc/install"), "{said}");
    }

    #[test]
    fn a_kernel_without_ipv6_is_told_so_before_a_node_fails_for_it() {
        let without = "case $1 in /proc/sys/net/ipv6/*) exit 1 ;; esac\nexec /bin/cat \"$@\"";
        let said = Machine::new("ipv6", &[("go", "exit 127"), ("cat", without)]).lacks(&[]);
        assert!(said.contains("missing: IPv6"), "{said}");
        assert!(said.contains("ipv6.disable=1"), "{said}");
        let said = Machine::new("both", &[("go", "exit 127")]).lacks(&[]);
        assert!(!said.contains("IPv6"), "{said}");
    }

    #[test]
    fn a_go_that_may_not_fetch_the_version_of_a_module_is_told_so() {
        let stuck = "case $PWD in */prometheus) echo 'go.mod requires go >= 1.25.0' >&2; exit 1 ;; esac\necho go1.21.0";
        let said = Machine::new("stuck", &[("go", stuck)]).lacks(&[]);
        assert!(said.contains("go.mod requires go >= 1.25.0"), "{said}");
        assert!(said.contains("unset GOTOOLCHAIN"), "{said}");
    }
}
