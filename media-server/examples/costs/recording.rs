//! One more of something: the cell of a shard, the server's own families, and the crate `prometheus`.

use crate::by_turns;
use media_core::cells::{Drop, ShardCells};
use media_server::measured::Metrics;
use prometheus::{IntCounterVec, Opts};
use serde_json::{Value, json};
use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

const TIMES: u32 = 200_000;

/// Nanoseconds for one, on one thread and on two that count at once.
pub fn measure() -> Value {
    let [one, two] = [1, 2].map(of_threads);
    json!({"one_thread": one, "two_threads": two})
}

fn of_threads(threads: usize) -> Value {
    // As shards have them: one for each thread.
    let cells: Vec<ShardCells> = (0..threads).map(|_| ShardCells::default()).collect();
    let families = Metrics::new(1_000);
    let name = Opts::new("media_errors_total", "Errors.");
    let vec = IntCounterVec::new(name, &["type", "operation"]).expect("a valid name");
    let child = vec.with_label_values(&["http", "accept"]);
    let [cell, family, by_labels, resolved] = by_turns([
        &mut || {
            timed(threads, |thread| {
                cells[thread].count_drops(black_box(Drop::Duplicate), 1)
            })
        },
        &mut || {
            timed(threads, |_| {
                families.count(
                    black_box("media_errors_total"),
                    black_box(&["http", "accept"]),
                )
            })
        },
        &mut || {
            timed(threads, |_| {
                vec.with_label_values(black_box(&["http", "accept"])).inc()
            })
        },
        &mut || timed(threads, |_| black_box(&child).inc()),
    ]);
    json!({
        "cell": cell,
        "family": family,
        "prometheus_with_label_values": by_labels,
        "prometheus_resolved": resolved,
    })
}

fn timed(threads: usize, record: impl Fn(usize) + Sync) -> f64 {
    let (begin, record) = (&Barrier::new(threads), &record);
    let each = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    begin.wait();
                    let start = Instant::now();
                    (0..TIMES).for_each(|_| record(thread));
                    start.elapsed().as_secs_f64() * 1e9 / f64::from(TIMES)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .sum::<f64>()
    });
    each / threads as f64
}
