//! What the process may use of the machine: the smallest limit on the way up its control groups, of
//! both cgroup versions, else what the machine has.

use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// Cores, from the CPU quota.
pub fn cores() -> f64 {
    let cores = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
    least(Path::new(ROOT), &own(), "cpu", quota).map_or(cores, |quota| quota.min(cores))
}

/// Bytes of memory.
pub fn memory_bytes() -> Option<u64> {
    let limit = least(Path::new(ROOT), &own(), "memory", memory_limit);
    let machine = machine_memory(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default());
    let least = [limit, machine].into_iter().flatten().reduce(f64::min)?;
    Some(least as u64)
}

fn own() -> String {
    std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default()
}

fn machine_memory(meminfo: &str) -> Option<f64> {
    let line = meminfo.lines().find(|l| l.starts_with("MemTotal:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024.0)
}

/// The least of what `read` finds in the process's group of a controller and in those above it. `read`
/// is told whether the group is of version 2.
fn least(
    root: &Path,
    own: &str,
    controller: &str,
    read: fn(&Path, bool) -> Option<f64>,
) -> Option<f64> {
    let mut least: Option<f64> = None;
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let v2 = controllers.is_empty();
        if !v2 && !controllers.split(',').any(|c| c == controller) {
            continue;
        }
        let mount = if v2 {
            root.to_owned()
        } else {
            root.join(controller)
        };
        for dir in Path::new(path.trim_start_matches('/')).ancestors() {
            if let Some(found) = read(&mount.join(dir), v2) {
                least = Some(least.map_or(found, |l| l.min(found)));
            }
        }
    }
    least
}

fn quota(dir: &Path, v2: bool) -> Option<f64> {
    if v2 {
        let text = std::fs::read_to_string(dir.join("cpu.max")).ok()?;
        let (quota, period) = text.trim().split_once(' ')?;
        return Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?);
    }
    let quota = number(dir.join("cpu.cfs_quota_us")).filter(|quota| *quota > 0.0)?;
    Some(quota / number(dir.join("cpu.cfs_period_us"))?)
}

fn memory_limit(dir: &Path, v2: bool) -> Option<f64> {
    number(dir.join(if v2 {
        "memory.max"
    } else {
        "memory.limit_in_bytes"
    }))
}

/// A file that holds one number; "max" is none.
fn number(file: PathBuf) -> Option<f64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_on_the_way_up_counts_in_both_cgroup_versions() {
        let root = std::env::temp_dir().join(format!("media-cgroup-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        write("pod/c1/cpu.max", "max 100000\n");
        write("pod/cpu.max", "150000 100000\n");
        write("pod/c1/memory.max", "2147483648\n");
        write("pod/memory.max", "max\n");
        let v2 = "0::/pod/c1\n";
        assert_eq!(least(&root, v2, "cpu", quota), Some(1.5));
        assert_eq!(
            least(&root, v2, "memory", memory_limit),
            Some(2_147_483_648.0)
        );
        write("cpu/x/cpu.cfs_quota_us", "50000\n");
        write("cpu/x/cpu.cfs_period_us", "100000\n");
        write("cpu/cpu.cfs_quota_us", "-1\n");
        write("memory/y/memory.limit_in_bytes", "1048576\n");
        let v1 = "4:cpu,cpuacct:/x\n3:memory:/y\n";
        assert_eq!(least(&root, v1, "cpu", quota), Some(0.5));
        assert_eq!(least(&root, v1, "memory", memory_limit), Some(1_048_576.0));
        assert_eq!(least(&root, "3:memory:/y\n", "cpu", quota), None);
        std::fs::remove_dir_all(&root).expect("removed");
    }

    #[test]
    fn a_machine_has_memory_and_cores() {
        assert!(cores() > 0.0);
        assert!(memory_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
