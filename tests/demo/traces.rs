//! What a local cluster holds of this machine, seen from outside it: processes, namespaces, mounts, control
//! groups, network interfaces, its folder.
//!
//! Reads /proc and /sys. Knows of the cluster only where its state lies and the variable of its processes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Kinds of namespaces that the machines of a cluster have of their own.
const KINDS: [&str; 5] = ["net", "mnt", "pid", "uts", "ipc"];

pub struct Traces {
    state: PathBuf,
    /// As `net:[4026532000]`.
    namespaces: BTreeSet<String>,
    interfaces: BTreeSet<String>,
}

impl Traces {
    /// What there is before the cluster.
    pub fn before(state: &Path) -> Self {
        Self {
            state: state.to_owned(),
            namespaces: BTreeSet::new(),
            interfaces: interfaces(),
        }
    }

    /// Takes note of the namespaces that the cluster has now: its processes' and those of the containers
    /// below them.
    pub fn note(&mut self) {
        let mut parents = BTreeMap::new();
        for pid in processes() {
            parents.insert(pid, parent(pid));
        }
        let marked: BTreeSet<u32> = processes().filter(|pid| self.is_marked(*pid)).collect();
        let below = |pid: u32| {
            let mut pid = Some(pid);
            while let Some(number) = pid {
                if marked.contains(&number) {
                    return true;
                }
                pid = parents.get(&number).copied().flatten();
            }
            false
        };
        let own: BTreeSet<String> = namespaces(std::process::id()).collect();
        for pid in parents.keys().filter(|pid| below(**pid)) {
            self.namespaces.extend(namespaces(*pid));
        }
        self.namespaces.retain(|namespace| !own.contains(namespace));
    }

    /// Number of namespaces that were noted.
    pub fn namespaces(&self) -> usize {
        self.namespaces.len()
    }

    /// All that is there of the cluster, a line each.
    pub fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for pid in processes() {
            let command = command(pid);
            if self.is_marked(pid) || self.is_script(pid, &command) {
                left.push(format!("process {pid}: {command}"));
            }
            for namespace in namespaces(pid).filter(|one| self.namespaces.contains(one)) {
                left.push(format!("{namespace}, held by process {pid}: {command}"));
            }
        }
        let state = self.state.display().to_string();
        // A namespace without a process stays where it is mounted.
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let held = |line: &&str| {
            line.contains(&state) || self.namespaces.iter().any(|one| line.contains(one))
        };
        left.extend(mounts.lines().filter(held).map(|m| format!("mount {m}")));
        left.extend(self.control_groups());
        let new = |name: &String| !self.interfaces.contains(name);
        left.extend(interfaces().into_iter().filter(new));
        if self.state.exists() {
            left.push(state);
        }
        left
    }

    fn is_marked(&self, pid: u32) -> bool {
        let mark = format!("MEDIASERVICE_CLUSTER_MACHINE={}", self.state.display());
        has(pid, &mark)
    }

    /// Whether it is the cluster's script, at work on this cluster.
    fn is_script(&self, pid: u32, command: &str) -> bool {
        let state = format!("CLUSTER_DIR={}", self.state.display());
        command.contains("cluster/cluster") && has(pid, &state)
    }

    /// One, or with version 1 one for each controller; named by the last part of the state's folder.
    fn control_groups(&self) -> Vec<String> {
        let groups = Path::new("/sys/fs/cgroup");
        let name = self.state.file_name().expect("it is a folder's name");
        let mut places = vec![groups.to_owned()];
        let inner = fs::read_dir(groups).into_iter().flatten().flatten();
        places.extend(inner.map(|entry| entry.path()));
        let places = places.into_iter().map(|place| place.join(name));
        places
            .filter(|place| place.is_dir())
            .map(|place| format!("control group {}", place.display()))
            .collect()
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A process that has ended meanwhile has none.
fn namespaces(pid: u32) -> impl Iterator<Item = String> {
    KINDS.into_iter().filter_map(move |kind| {
        let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?;
        Some(link.display().to_string())
    })
}

fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

fn has(pid: u32, variable: &str) -> bool {
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|all| {
        all.split(|byte| *byte == 0)
            .any(|one| one == variable.as_bytes())
    })
}

fn command(pid: u32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ")
}

fn interfaces() -> BTreeSet<String> {
    let all = fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten();
    all.map(|entry| format!("interface {}", entry.file_name().display()))
        .collect()
}
