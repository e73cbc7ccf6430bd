//! Flame graphs of a server under load, on request: `perf record`, stacks folded here, drawn as SVG.
//!
//! Needs Debian's linux-perf and a kernel that lets it sample; where it does not, the benchmark goes on
//! and this says why.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};

use crate::sh;

/// A recording under way.
pub struct Recording {
    perf: Child,
    data: PathBuf,
}

impl Recording {
    /// Samples the process until [`Self::finish`], or until it ends.
    ///
    /// # Errors
    /// If perf is missing.
    pub fn start(pid: u32, data: PathBuf) -> anyhow::Result<Self> {
        ensure!(
            sh::which("perf").is_some(),
            "perf is missing\n    fix: apt-get install -y linux-perf"
        );
        let log = std::fs::File::create(data.with_extension("log"))?;
        let perf = Command::new("perf")
            // Release builds keep no frame pointers; stacks are unwound from 8 KiB of their memory.
            .args(["record", "-F", "199", "--call-graph", "dwarf,8192", "-p"])
            .arg(pid.to_string())
            .arg("-o")
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("can't start perf")?;
        Ok(Self { perf, data })
    }

    /// Ends the recording and draws it beside its data.
    ///
    /// # Errors
    /// If perf recorded nothing; its log is beside the data too.
    pub fn finish(mut self) -> anyhow::Result<PathBuf> {
        let pid = self.perf.id().to_string();
        let _ = Command::new("kill").args(["-s", "INT", &pid]).status();
        self.perf.wait()?;
        let mut script = Command::new("perf");
        script
            .args(["script", "--no-inline", "-F", "comm,ip,sym", "-i"])
            .arg(&self.data);
        let samples = sh::output(&mut script)?;
        let stacks = folded(&samples);
        ensure!(
            !stacks.is_empty(),
            "perf took no sample, see {}",
            self.data.with_extension("log").display()
        );
        let svg = self.data.with_extension("svg");
        write(&svg, &draw(&stacks))?;
        Ok(svg)
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
}

/// Stacks from the outermost function in, with how often each was seen.
fn folded(samples: &str) -> BTreeMap<Vec<String>, u64> {
    let mut stacks = BTreeMap::new();
    for sample in samples.split("\n\n") {
        let mut lines = sample.lines().filter(|line| !line.trim().is_empty());
        let Some(thread) = lines.next() else { continue };
        let frames = lines.filter_map(|line| line.trim().split_once(' '));
        let mut stack: Vec<String> = frames.map(|(_, name)| short(name)).collect();
        stack.push(thread.trim().to_owned());
        stack.reverse();
        *stacks.entry(stack).or_default() += 1;
    }
    stacks
}

/// A function's name without the hash that Rust ends it with.
fn short(name: &str) -> String {
    match name.rsplit_once("::h") {
        Some((start, hash)) if hash.len() == 16 => start.to_owned(),
        _ => name.to_owned(),
    }
}

#[derive(Default)]
struct Frame {
    samples: u64,
    inner: BTreeMap<String, Frame>,
}

const WIDTH: f64 = 1_400.0;
const HEIGHT: usize = 17;
/// Narrower frames are left out, in pixels.
const NARROW: f64 = 0.4;

fn draw(stacks: &BTreeMap<Vec<String>, u64>) -> String {
    let mut root = Frame::default();
    let mut depth = 0;
    for (stack, samples) in stacks {
        depth = depth.max(stack.len());
        root.samples += samples;
        let mut frame = &mut root;
        for name in stack {
            frame = frame.inner.entry(name.clone()).or_default();
            frame.samples += samples;
        }
    }
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{}\" \
         font-family=\"monospace\" font-size=\"11\">\n",
        (depth + 1) * HEIGHT
    );
    // Outermost on top: each function hangs from its caller.
    let total = root.samples.max(1) as f64;
    hang(&root, 0.0, 0, total, &mut out);
    out.push_str("</svg>\n");
    out
}

fn hang(frame: &Frame, mut x: f64, level: usize, total: f64, out: &mut String) {
    for (name, inner) in &frame.inner {
        let width = inner.samples as f64 / total * WIDTH;
        if width < NARROW {
            continue;
        }
        let (y, name) = (level * HEIGHT, escaped(name));
        let red = 190 + name.len() % 50;
        let green = 90 + (name.len() * 37) % 110;
        let share = inner.samples as f64 / total * 100.0;
        let letters: String = name.chars().take((width / 7.0) as usize).collect();
        // An entity that is cut would break the file.
        let label = letters
            .rsplit_once('&')
            .map_or(letters.as_str(), |(start, end)| {
                if end.contains(';') { &letters } else { start }
            });
        let _ = writeln!(
            out,
            "<g><title>{name}: {share:.1} %</title><rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" \
             height=\"{}\" fill=\"rgb({red},{green},60)\"/><text x=\"{:.1}\" y=\"{}\">{label}</text></g>",
            HEIGHT - 1,
            x + 2.0,
            y + 12
        );
        hang(inner, x, level + 1, total, out);
        x += width;
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLES: &str = "shard-0 \n\t    7f01 seal::h0123456789abcdef\n\t    7f02 run\n\n\
                           shard-0 \n\t    7f03 Vec<u8>::push\n\t    7f02 run\n\n\
                           shard-0 \n\t    7f01 seal::h0123456789abcdef\n\t    7f02 run\n";

    #[test]
    fn samples_fold_into_stacks_from_the_outside_in() {
        let stacks = folded(SAMPLES);
        let seal: Vec<String> = ["shard-0", "run", "seal"].map(str::to_owned).to_vec();
        assert_eq!(stacks.get(&seal), Some(&2));
        assert_eq!(stacks.values().sum::<u64>(), 3);
    }

    #[test]
    fn a_drawing_is_as_wide_as_its_samples_and_escapes_names() {
        let svg = draw(&folded(SAMPLES));
        assert!(svg.contains("<title>seal: 66.7 %</title>"), "{svg}");
        assert!(svg.contains("Vec&lt;u8&gt;::push: 33.3 %"), "{svg}");
        assert!(!svg.contains("Vec<u8>"), "{svg}");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }
}
