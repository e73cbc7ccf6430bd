//! `cargo xtask bench`: ours and other servers under the same loads in the same run, with ratios.
//!
//! Owns the order of the runs and what they leave in `target/bench`. The loads are `scenarios`, the
//! servers `bench/servers.toml`, the load tool is `media-load`. A long stage of the gate alone: it takes
//! minutes and builds Go, and its times mean something only on a machine that does nothing else.

mod flame;
mod metrics;
mod page;
mod results;
mod scenarios;
mod servers;
mod stages;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::sh::{self, Counts};
use flame::Recording;
use results::Results;
use scenarios::{ALL, Scenario};
use servers::{OURS, Places, Running, Server};

#[derive(clap::Args)]
pub struct Args {
    /// What to run [default: all loads]: names of loads, `stages` for instruction counts by stage, or `metrics`
    /// for what figures cost
    names: Vec<String>,
    /// Servers to run beside ours, by their names in bench/servers.toml [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    servers: Option<Vec<String>>,
    /// Times that each load is given to each server, in turn; the table has medians, and the worst where
    /// the goal is a bound
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
    /// Write the tables into docs/benchmarks.md
    #[arg(long)]
    write: bool,
    /// Also draw a flame graph of our server in each load (needs perf)
    #[arg(long)]
    flame: bool,
    /// Say what there is to run, and run nothing
    #[arg(long)]
    list: bool,
}

pub const STAGES: &str = "stages";
pub const METRICS: &str = "metrics";

impl Args {
    /// Those names, or all loads; once on every server, with nothing written into the page.
    pub fn named(names: &[&str]) -> Self {
        Self {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            servers: None,
            rounds: 1,
            write: false,
            flame: false,
            list: false,
        }
    }
}

/// Runs the benchmark.
///
/// # Errors
/// If something can't be built or started, a name is unknown, or a load does not end in its time. What
/// was measured until then is in `target/bench`.
pub fn run(args: Args) -> anyhow::Result<()> {
    if args.list {
        for scenario in ALL {
            println!("{:<12} {}", scenario.name, scenario.about);
        }
        println!("{STAGES:<12} instructions a packet by stage of the fast path, by callgrind");
        println!(
            "{METRICS:<12} what figures and the registry cost, and a server with 10 000 sessions"
        );
        return Ok(());
    }
    let scenarios = chosen(&args.names)?;
    let wanted = |name: &str| args.names.iter().any(|wanted| wanted == name);
    let servers = servers(args.servers.as_deref())?;
    let folder = sh::target()?.join("bench");
    std::fs::create_dir_all(&folder)?;
    let target = build()?;
    if wanted(METRICS) {
        let load_before = load_average();
        let tables = metrics::measure(&target)?;
        println!("\n{tables}");
        if args.write {
            let body = format!(
                "{}; commit {}.\n\n```console\n$ cargo xtask bench metrics\n```\n\n{tables}",
                machine(&load_before),
                commit()
            );
            page::write(METRICS, &body)?;
        }
    }
    if wanted(STAGES) {
        let table = stages::count(&target, &folder)?;
        println!("\n{table}");
        if args.write {
            let body = format!("```console\n$ cargo xtask bench stages\n```\n\n{table}");
            page::write(STAGES, &body)?;
        }
    }
    if scenarios.is_empty() {
        return Ok(());
    }
    let places = Places {
        pion_sfu: match servers.iter().any(Server::is_pion) {
            true => servers::build_pion()?,
            false => PathBuf::new(),
        },
        key: key(&folder)?,
        target,
    };
    let bench = Bench {
        args: &args,
        servers: &servers,
        places: &places,
        folder: &folder,
        load_before: load_average(),
    };
    let mut all: Vec<Results<'_>> = scenarios.iter().map(|s| bench.empty(s)).collect();
    for round in 1..=args.rounds {
        for results in &mut all {
            bench.measure(results, round)?;
        }
    }
    for results in &all {
        let scenario = results.scenario;
        let table = results.table(&all);
        println!("\n{}: {}\n\n{table}", scenario.name, scenario.about);
        if args.write {
            page::write(scenario.name, &bench.section(scenario, &table))?;
        }
    }
    Ok(())
}

/// The loads of those names.
fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static Scenario>> {
    for name in names {
        ensure!(
            [STAGES, METRICS].contains(&name.as_str()) || ALL.iter().any(|s| s.name == name),
            "there is no benchmark {name}; `cargo xtask bench --list` names them"
        );
    }
    let scenarios = ALL
        .iter()
        .filter(|s| names.is_empty() || names.iter().any(|name| name == s.name));
    Ok(scenarios.collect())
}

/// Ours and the wanted others.
fn servers(wanted: Option<&[String]>) -> anyhow::Result<Vec<Server>> {
    let path = sh::root().join("bench/servers.toml");
    let all =
        servers::read(&std::fs::read_to_string(path).context("can't read bench/servers.toml")?)?;
    let Some(wanted) = wanted else {
        return Ok(all);
    };
    for name in wanted {
        if !all.iter().any(|server| server.name == *name) {
            bail!("bench/servers.toml has no line for {name}");
        }
    }
    let ours_or_wanted = |server: &Server| server.name == OURS || wanted.contains(&server.name);
    Ok(all.into_iter().filter(ours_or_wanted).collect())
}

/// Builds what measures and what is measured; returns the release folder.
pub fn build() -> anyhow::Result<PathBuf> {
    let mut cargo = sh::cargo(["build", "--locked", "--release", "--bins", "--examples"]);
    for package in ["media-server", "media-core", "client"] {
        cargo.args(["-p", package]);
    }
    sh::run(&mut cargo, &mut Counts::default())?;
    Ok(sh::target()?.join("release"))
}

/// Our server as it is released, running, and the tool that loads it.
pub struct Ours {
    running: Running,
    places: Places,
    folder: PathBuf,
}

impl Ours {
    /// Builds and starts it.
    ///
    /// # Errors
    /// If it can't be built or started.
    pub fn start(name: &str) -> anyhow::Result<Self> {
        Self::start_with(name, &[])
    }

    /// The same, with flags beside those that it has in each benchmark.
    ///
    /// # Errors
    /// As those of [`Self::start`].
    pub fn start_with(name: &str, flags: &[&str]) -> anyhow::Result<Self> {
        let folder = sh::target()?.join("bench");
        std::fs::create_dir_all(&folder)?;
        let places = Places {
            target: build()?,
            pion_sfu: PathBuf::new(),
            key: key(&folder)?,
        };
        let ours = servers(Some(&[]))?;
        let server = ours.first().context("ours is always there")?;
        let server = server.clone().with(flags);
        let running = server.start(&places, &folder.join(format!("{name}.log")))?;
        Ok(Self {
            running,
            places,
            folder,
        })
    }

    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Where it takes media.
    pub fn media(&self) -> SocketAddr {
        self.running.media
    }

    /// Its WHIP endpoint, with `{device}` for the device.
    pub fn whip(&self) -> &str {
        &self.running.whip
    }

    /// Where it answers HTTP.
    pub fn http(&self) -> anyhow::Result<SocketAddr> {
        let authority = self.whip().split('/').nth(2).unwrap_or_default();
        authority
            .parse()
            .with_context(|| format!("{authority} is no address"))
    }

    /// Begins a load with those flags, which lasts until it is dropped; what it says is kept under that name.
    ///
    /// # Errors
    /// If the tool can't be started.
    pub fn begin(&self, name: &str, flags: &[&str]) -> anyhow::Result<Load> {
        let said = std::fs::File::create(self.folder.join(format!("{name}.log")))?;
        let mut tool = tool(&self.running, &self.places);
        tool.args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said);
        Ok(Load(tool.spawn().context("can't start the load tool")?))
    }

    /// Loads it with those flags and returns the report, which is kept under that name.
    ///
    /// # Errors
    /// If the load is not done within `limit`.
    pub fn load(&self, name: &str, flags: &[&str], limit: Duration) -> anyhow::Result<Value> {
        load(
            &self.running,
            &self.places,
            &self.folder,
            name,
            flags,
            limit,
        )
    }
}

/// A load that runs; dropped, it is cut off.
pub struct Load(Child);

impl Load {
    /// Takes the cores away from it until [`Self::go_on`].
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal("STOP")
    }

    pub fn go_on(&self) -> anyhow::Result<()> {
        self.signal("CONT")
    }

    fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let pid = self.0.id().to_string();
        sh::output(Command::new("kill").args(["-s", signal, &pid])).map(drop)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Both calls are harmless once it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The load tool, for that server.
fn tool(running: &Running, places: &Places) -> Command {
    let mut tool = Command::new(places.target.join("media-load"));
    tool.args(["--whip", &running.whip, "--whep", &running.whep])
        .arg("--jwt-hmac-file")
        .arg(&places.key)
        .env_remove("MEDIA_LOAD_TOKEN");
    tool
}

/// Gives a running server one load; the report is kept in `folder`.
fn load(
    running: &Running,
    places: &Places,
    folder: &Path,
    name: &str,
    flags: &[&str],
    limit: Duration,
) -> anyhow::Result<Value> {
    let report = folder.join(format!("{name}.json"));
    let mut load = tool(running, places);
    load.args(["--server-pid", &running.pid().to_string()])
        .args(flags);
    finish(&mut load, &report, limit)?;
    Ok(serde_json::from_str(&std::fs::read_to_string(&report)?)?)
}

/// A key for the tokens of this benchmark; nothing else takes them.
fn key(folder: &Path) -> anyhow::Result<PathBuf> {
    let path = folder.join("jwt-hmac");
    std::fs::write(&path, b"a key for benchmarks, of 32 bytes")?;
    Ok(path)
}

struct Bench<'a> {
    args: &'a Args,
    servers: &'a [Server],
    places: &'a Places,
    folder: &'a Path,
    load_before: String,
}

impl Bench<'_> {
    fn empty<'s>(&self, scenario: &'s Scenario) -> Results<'s> {
        let taking = self.servers.iter().filter(|s| s.takes(scenario.name));
        Results {
            scenario,
            servers: taking.map(|s| (s.name.clone(), Vec::new())).collect(),
            floors: Vec::new(),
        }
    }

    /// Gives one load to every server, and takes the floor between them.
    fn measure(&self, results: &mut Results<'_>, round: u32) -> anyhow::Result<()> {
        let scenario = results.scenario;
        for (name, reports) in &mut results.servers {
            println!(
                "\n=== {} on {name}, round {round} of {}",
                scenario.name, self.args.rounds
            );
            let server = self.servers.iter().find(|server| server.name == *name);
            let server = server.context("every column is a server's")?;
            reports.push(self.load(scenario, server, round)?);
        }
        if let Some(flags) = scenario.floor {
            let mut floor = Command::new(self.places.target.join("examples/floor"));
            let report: Value = serde_json::from_str(&sh::output(floor.args(flags))?)?;
            let floor = report["cpu_us_per_packet"]
                .as_f64()
                .context("the floor has no figure")?;
            println!("\n=== the machine's floor: {floor:.2} µs a packet");
            results.floors.push(floor);
        }
        Ok(())
    }

    fn load(&self, scenario: &Scenario, server: &Server, round: u32) -> anyhow::Result<Value> {
        let name = format!("{}-{}-{round}", scenario.name, server.name);
        let running = server.start(self.places, &self.folder.join(format!("{name}.log")))?;
        let recording = match self.args.flame && server.name == OURS {
            true => Recording::start(running.pid(), self.folder.join(format!("{name}.perf")))
                .inspect_err(|error| println!("no flame graph: {error:#}"))
                .ok(),
            false => None,
        };
        let flags = scenario.load;
        let report = load(
            &running,
            self.places,
            self.folder,
            &name,
            flags,
            scenario.limit,
        )
        .with_context(|| format!("{} on {}", scenario.name, server.name))?;
        if let Some(recording) = recording {
            match recording.finish() {
                Ok(svg) => println!("flame graph: {}", svg.display()),
                Err(error) => println!("no flame graph: {error:#}"),
            }
        }
        drop(running);
        for measure in scenario.measures {
            if let Some(value) = report.pointer(measure.at).and_then(Value::as_f64) {
                println!("{}: {value} {}", measure.what, measure.unit);
            }
        }
        let blind = report.pointer("/blind/by_reason");
        if let Some(reasons) = blind.and_then(Value::as_object).filter(|r| !r.is_empty()) {
            let reasons: Vec<String> = reasons.iter().map(|(r, n)| format!("{n} {r}")).collect();
            println!("no picture because: {}", reasons.join(", "));
        }
        Ok(report)
    }

    /// What the page says of a load: the commands, the machine, the table.
    fn section(&self, scenario: &Scenario, table: &str) -> String {
        let mut commands = String::new();
        for server in self.servers.iter().filter(|s| s.takes(scenario.name)) {
            commands.push_str(&format!("$ {} &\n", server.shown()));
        }
        commands.push_str(&format!(
            "$ target/release/media-load --whip http://127.0.0.1:30006/whip/{{device}} \
             --whep http://127.0.0.1:30006/whep/{{device}} \\\n    --jwt-hmac-file KEY --server-pid PID {}\n",
            scenario.load.join(" ")
        ));
        if let Some(flags) = scenario.floor {
            commands.push_str(&format!(
                "$ target/release/examples/floor {}\n",
                flags.join(" ")
            ));
        }
        format!(
            "{}. Median of {}; {}; commit {}.\n\n{table}\n```console\n$ cargo xtask bench {}\n```\n\n\
             which runs, one server at a time:\n\n```console\n{commands}```",
            scenario.about,
            match self.args.rounds {
                1 => "1 round".to_owned(),
                rounds =>
                    format!("{rounds} rounds, and the worst of them where the goal is ≤ alone"),
            },
            machine(&self.load_before),
            commit(),
            scenario.name,
        )
    }
}

/// How `media-load` ends when its report is there and says that viewers saw nothing: a figure like others,
/// which whoever reads the report judges.
const SAW_NOTHING: i32 = 3;

/// Runs a command with its standard output in `out`, and ends it when it takes too long.
fn finish(command: &mut Command, out: &Path, limit: Duration) -> anyhow::Result<()> {
    let file =
        std::fs::File::create(out).with_context(|| format!("can't write {}", out.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file)
        .spawn()
        .context("can't start the load tool")?;
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            let told = status.success() || status.code() == Some(SAW_NOTHING);
            ensure!(told, "the load tool ended with {status}");
            return Ok(());
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            bail!("the load tool was not done after {} s", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Cores and processor, and how busy the machine was before.
fn machine(load_before: &str) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, model)| model);
    format!(
        "{cores} cores ({model}) for server and load together; load average before: {load_before}"
    )
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}

fn commit() -> String {
    let mut git = Command::new("git");
    git.args(["rev-parse", "--short", "HEAD"])
        .current_dir(sh::root());
    sh::output(&mut git).map_or_else(|_| "unknown".to_owned(), |hash| hash.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_choose_loads_and_none_chooses_all_loads() {
        let names = |names: &[&str]| -> Vec<String> { names.iter().map(|n| (*n).into()).collect() };
        assert_eq!(chosen(&[]).expect("nothing to be wrong").len(), ALL.len());
        let some = chosen(&names(&["wave", "stages"])).expect("known");
        assert_eq!((some.len(), some[0].name), (1, "wave"));
        assert!(
            chosen(&names(&["stages", "metrics"]))
                .expect("known")
                .is_empty()
        );
        assert!(chosen(&names(&["waves"])).is_err());
    }

    #[test]
    fn a_command_that_takes_too_long_is_ended_and_reported() {
        let out = std::env::temp_dir().join(format!("xtask-bench-{}", std::process::id()));
        let result = finish(
            Command::new("sleep").arg("600"),
            &out,
            Duration::from_millis(10),
        );
        std::fs::remove_file(&out).expect("it was made");
        assert!(format!("{:#}", result.expect_err("too long")).contains("not done"));
    }
}
