//! What a server process on this machine has used so far, from procfs.

use std::time::Duration;

use anyhow::Context;

/// CPU time and memory of a process, at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    pub cpu: Duration,
    pub rss_kib: u64,
}

/// Reads what `pid` has used.
///
/// CPU is the scheduler's own nanosecond count over its threads; a thread that ended takes its
/// count along, which a media server's fixed threads do not do.
pub fn usage(pid: u32) -> anyhow::Result<Usage> {
    let mut nanoseconds = 0u64;
    let tasks = format!("/proc/{pid}/task");
    let entries = std::fs::read_dir(&tasks)
        .with_context(|| format!("failed to read {tasks}: is {pid} the server's process?"))?;
    for entry in entries {
        let path = entry.context("failed to list threads")?.path();
        // A thread may end between the listing and the reading.
        let Ok(stat) = std::fs::read_to_string(path.join("schedstat")) else {
            continue;
        };
        let on_cpu = stat.split_whitespace().next();
        nanoseconds += on_cpu
            .and_then(|field| field.parse::<u64>().ok())
            .context("schedstat has no count of nanoseconds")?;
    }
    let path = format!("/proc/{pid}/status");
    let status =
        std::fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
    let rss_kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|value| value.split_whitespace().next())
        .and_then(|value| value.parse().ok())
        .context("the process has no VmRSS")?;
    Ok(Usage {
        cpu: Duration::from_nanos(nanoseconds),
        rss_kib,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_process_uses_more_and_more_cpu() {
        let pid = std::process::id();
        let before = usage(pid).expect("own usage");
        let mut sum = 0u64;
        // The kernel adds a thread's time up at its ticks, so one short loop may not show.
        let after = loop {
            for i in 0..5_000_000u64 {
                sum = std::hint::black_box(sum.wrapping_add(i));
            }
            let after = usage(pid).expect("own usage");
            if after.cpu > before.cpu {
                break after;
            }
        };
        assert!(after.rss_kib > 0);
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = usage(u32::MAX).expect_err("no such process");
        assert!(format!("{error:#}").contains("4294967295"), "{error:#}");
    }
}
