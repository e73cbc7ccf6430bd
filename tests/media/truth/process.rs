//! The process: what the kernel says of it, what the test makes it hold, and a clock that is set on to the next
//! look of its monitor.

use std::time::{Duration, Instant};

use reqwest::Client;
use tests::truth::Row;
use tests::{Metrics, wait_for};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_tungstenite::connect_async;

use super::{Set, becomes, seconds};
use crate::media::PATIENCE;

const RESIDENT: &str = "media_memory_usage_bytes";
const ALLOCATED: &str = "media_memory_heap_alloc_bytes";
const MAPPED: &str = "media_memory_heap_sys_bytes";
const TASKS: &str = "media_goroutine_count";
const MOST_TASKS: &str = "media_goroutine_count_max";
const LEAK: &str = "media_potential_goroutine_leak";
const CPU: &str = "media_cpu_usage_ratio";

/// From one look of the monitor to the next, and a little.
const LOOK: Duration = Duration::from_millis(10_100);

const CONNECTIONS: usize = 150;
const SOCKETS: usize = 40;
/// Of an unfinished message of each socket. With what is read at once before it, it has the room of 512 KiB.
const MESSAGE: usize = 519_000;
/// How long the server is kept busy.
const BUSY: Duration = Duration::from_millis(1_500);
/// Memory moves by a few connections of the test's own.
const MEMORY: f64 = 0.05;

pub async fn rows(set: &Set) -> Vec<Row> {
    let mut rows = memory(set).await;
    rows.push(cpu(set).await);
    rows.push(no_request(set).await);
    rows
}

/// Hours after all that the test did.
pub async fn no_leak(set: &Set) -> Row {
    let metrics = look(set, LOOK).await;
    Row::exact(
        LEAK,
        // That one which is left over is told, no whole server can be made to show.
        "no task is left over (that one is told: by a unit test)",
        0.0,
        Some(value(&metrics, LEAK)),
    )
}

/// Connections that had an answer and stay: a task each. Before anything else, so that never were so many.
pub async fn tasks(set: &Set) -> Vec<Row> {
    let before = value(&look(set, LOOK).await, TASKS);
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(set.server.http).await.expect("connects");
        let request = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
        stream.write_all(request).await.expect("written");
        stream.readable().await.expect("answered");
        open.push(stream);
    }
    let while_open = value(&look(set, LOOK).await, TASKS);
    drop(open);
    let after = look(set, LOOK).await;
    // Each scrape of this test is a connection too.
    let more = |truth: &str, expected: usize, read: f64| {
        let more = Some(read - before);
        Row::new(TASKS, truth, expected as f64, 2.0, more)
    };
    let opened = format!("{CONNECTIONS} connections more are open");
    vec![
        more(&opened, CONNECTIONS, while_open),
        more("they are closed", 0, value(&after, TASKS)),
        Row::exact(
            MOST_TASKS,
            "the count while they were open",
            while_open,
            Some(value(&after, MOST_TASKS)),
        ),
    ]
}

/// Messages that are not at their end are held by the server, byte for byte.
async fn memory(set: &Set) -> Vec<Row> {
    let mut rows = Vec::new();
    let without = value(&look(set, LOOK).await, ALLOCATED);
    let url = format!("ws://{}/api/media/ws?userId=ann", set.server.http);
    let mut sockets = Vec::new();
    for _ in 0..SOCKETS {
        sockets.push(connect_async(&url).await.expect("it is let in").0);
    }
    let before = look(set, LOOK).await;
    rows.push(resident(set, &before, "before"));
    let resident_before = resident_bytes(set.server.pid());
    // A text, masked with nothing, whose last byte does not come.
    let head = [
        &[0x81_u8, 0xff][..],
        &(MESSAGE as u64).to_be_bytes(),
        &[0; 4],
    ]
    .concat();
    let most = [head, vec![b'x'; MESSAGE - 1]].concat();
    for socket in &mut sockets {
        let stream = socket.get_mut();
        stream.write_all(&most).await.expect("it is taken");
    }
    let held = (SOCKETS * MESSAGE) as f64;
    wait_for("the server to hold them", PATIENCE, || async {
        let more = resident_bytes(set.server.pid()) - resident_before;
        if more >= 0.9 * held {
            Ok(())
        } else {
            Err(more)
        }
    })
    .await;
    let holding = look(set, LOOK).await;
    rows.push(resident(set, &holding, "while messages are held"));
    drop(sockets);
    let after = look(set, LOOK).await;
    let more = |family| value(&holding, family) - value(&before, family);
    let truth = format!("{SOCKETS} messages of {MESSAGE} bytes are held");
    let left = value(&after, ALLOCATED) - without;
    let mapped = value(&holding, MAPPED);
    let private = kernel_bytes(set.server.pid(), "VmData:");
    let lacking = |truth, bytes: f64| Row::exact(MAPPED, truth, 0.0, Some(bytes.max(0.0)));
    rows.extend([
        Row::new(
            ALLOCATED,
            &*truth,
            held,
            MEMORY * held,
            Some(more(ALLOCATED)),
        ),
        Row::new(
            ALLOCATED,
            "they and their sockets go",
            0.0,
            MEMORY * held,
            Some(left),
        ),
        // It takes from the system in pieces of megabytes, and keeps some of what it got back.
        lacking("what it grew by less than them", held - more(MAPPED)),
        lacking(
            "what it is less than the allocated",
            value(&holding, ALLOCATED) - mapped,
        ),
        lacking("what it is more than VmData of /proc", mapped - private),
    ]);
    rows
}

fn resident(set: &Set, metrics: &Metrics, when: &str) -> Row {
    let expected = resident_bytes(set.server.pid());
    let truth = format!("VmRSS of /proc, {when}");
    let read = value(metrics, RESIDENT);
    Row::new(RESIDENT, truth, expected, MEMORY * expected, Some(read))
}

/// Busy for a second or two of what its clock takes for half a minute.
async fn cpu(set: &Set) -> Row {
    look(set, LOOK).await;
    let (cpu, at) = (cpu_seconds(set.server.pid()), Instant::now());
    let busy = Client::new();
    while at.elapsed() < BUSY {
        let got = busy.get(set.server.url("/metrics")).send().await;
        got.expect("an answer").bytes().await.expect("a text");
    }
    // The looks that the monitor missed meanwhile are not made up for: each would see no time at all.
    let skipped = seconds(30);
    let metrics = look(set, skipped).await;
    let used = cpu_seconds(set.server.pid()) - cpu;
    let passed = (skipped + at.elapsed()).as_secs_f64();
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let expected = used / passed / cores;
    let truth = format!("{used:.2} s of CPU by /proc, in {passed:.1} s, of {cores} cores");
    Row::new(
        CPU,
        truth,
        expected,
        0.15 * expected,
        Some(value(&metrics, CPU)),
    )
}

/// An error that nobody is answered.
async fn no_request(set: &Set) -> Row {
    let labels = [("type", "http"), ("operation", "no_request")];
    let before = set.server.metrics().await;
    let before = before.value("media_errors_total", &labels).unwrap_or(0.0);
    let stream = TcpStream::connect(set.server.http).await.expect("connects");
    // The server has taken it once a later one is answered.
    set.server.metrics().await;
    set.clock.forward(seconds(11));
    let truth = "no_request to http: a connection that asks for nothing for 11 s";
    let row = becomes(
        &set.server,
        "media_errors_total",
        &labels,
        before + 1.0,
        truth,
    )
    .await;
    drop(stream);
    row
}

/// Sets the clock on and returns a scrape from after the monitor's next look.
async fn look(set: &Set, by: Duration) -> Metrics {
    // A share of the time between two looks, to the nanosecond: no two are the same.
    let busy = |metrics: &Metrics| metrics.sum("media_shard_busy_ratio", &[]);
    let before = busy(&set.server.metrics().await);
    set.clock.forward(by);
    wait_for("the monitor's next look", PATIENCE, || async {
        let metrics = set.server.metrics().await;
        if busy(&metrics) == before {
            Err(before)
        } else {
            Ok(metrics)
        }
    })
    .await
}

fn value(metrics: &Metrics, family: &str) -> f64 {
    metrics
        .value(family, &[])
        .unwrap_or_else(|| panic!("no {family}"))
}

fn resident_bytes(pid: u32) -> f64 {
    kernel_bytes(pid, "VmRSS:")
}

/// What the kernel says of a process's memory.
fn kernel_bytes(pid: u32, line: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|other| other.strip_prefix(line));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.expect("a number of KiB") * 1024.0
}

/// Fields 14 and 15, counted behind the name in parentheses; ticks of 1/100 s (USER_HZ).
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks = ticks.map(|ticks| ticks.parse::<f64>().expect("a number"));
    ticks.sum::<f64>() / 100.0
}
