//! `cargo xtask bench stages`: instructions a packet by stage of the fast path, counted by callgrind.
//!
//! The counts are of user space, for a processor as valgrind models it (AES-NI and AVX2, no AVX-512), so
//! they tell stages and versions apart, not one machine from another.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::sh;

/// Packets of a run; a multiple of a frame's seven. The counts are exact: more would say the same.
const PACKETS: u64 = 2_100;

/// Stage, and what it is. `forward` holds the three before it.
const STAGES: &[(&str, &str)] = &[
    ("open", "publisher's datagram → batch, once for all viewers"),
    ("rewrite", "header written, payload copied"),
    ("seal", "AEAD_AES_128_GCM over 1188 B"),
    ("slab", "place in the slab, run of equal datagrams"),
    ("forward", "all of a viewer's part, with the three above"),
    ("send", "slab → sendmmsg with GSO, the kernel not counted"),
];

/// Counts every stage and returns the table.
///
/// # Errors
/// If valgrind is missing, or a stage fails.
pub fn count(target: &Path, folder: &Path) -> anyhow::Result<String> {
    ensure!(
        sh::which("valgrind").is_some(),
        "valgrind is missing\n    fix: apt-get install -y valgrind"
    );
    let mut counts = Vec::new();
    for (stage, about) in STAGES {
        println!("{stage}: {about}");
        let file = folder.join(format!("callgrind-{stage}.out"));
        let mut valgrind = Command::new("valgrind");
        valgrind
            .args(["--tool=callgrind", "--toggle-collect=stages::measured*"])
            .arg(format!("--callgrind-out-file={}", file.display()))
            .arg(target.join("examples/stages"))
            .args(["--stage", stage, "--packets", &PACKETS.to_string()]);
        sh::output(&mut valgrind)?;
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("can't read {}", file.display()))?;
        let total = total(&text).with_context(|| format!("{} has no total", file.display()))?;
        ensure!(total > 0, "{stage}: callgrind found nothing to count");
        counts.push((*stage, *about, total as f64 / PACKETS as f64));
    }
    Ok(table(&counts))
}

/// The instructions of a callgrind file.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| {
        line.strip_prefix("totals:")
            .or_else(|| line.strip_prefix("summary:"))
    })?;
    line.split_whitespace().next()?.parse().ok()
}

fn table(counts: &[(&str, &str, f64)]) -> String {
    let of = |wanted: &str| {
        let found = counts.iter().find(|(stage, _, _)| *stage == wanted);
        found.map_or(0.0, |(_, _, count)| *count)
    };
    let parts = of("rewrite") + of("seal") + of("slab");
    let mut out = String::from("| Stage | What | Instructions a packet |\n|---|---|---|\n");
    for (stage, about, count) in counts {
        let _ = writeln!(out, "| {stage} | {about} | {count:.0} |");
        if *stage == "forward" {
            let _ = writeln!(
                out,
                "| | of these outside rewrite, seal and slab: admission, counters | {:.0} |",
                (count - parts).max(0.0)
            );
        }
    }
    let _ = writeln!(
        out,
        "| sum | forward and send: what one more viewer costs | {:.0} |",
        of("forward") + of("send")
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_a_callgrind_file_is_read() {
        let file = "version: 1\nevents: Ir\nsummary: 12\n\nfn=(1) x\n+3 4\n\ntotals: 4200\n";
        assert_eq!(total(file), Some(12), "the first of the two; they agree");
        assert_eq!(total("version: 1\n"), None);
    }

    #[test]
    fn the_table_tells_what_forwarding_costs_beyond_its_parts() {
        let counts = [
            ("rewrite", "r", 100.0),
            ("seal", "s", 600.0),
            ("slab", "l", 20.4),
            ("forward", "f", 800.0),
            ("send", "k", 30.0),
        ];
        let table = table(&counts);
        assert!(table.contains("| slab | l | 20 |"), "{table}");
        assert!(table.contains("counters | 80 |"), "{table}");
        assert!(table.contains("| sum | forward and send: what one more viewer costs | 830 |"));
    }
}
