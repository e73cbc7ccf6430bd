//! What figures and the registry cost, beside the usual way to have them, as JSON: `cargo xtask bench metrics`
//! runs it.
//!
//! Contenders take turns, and each figure is the best of its turns: what else the machine does only ever makes
//! them slower.
#![forbid(unsafe_code)]

mod exposition;
mod lookups;
mod recording;

use serde_json::json;

/// Turns of each contender.
const TURNS: usize = 15;

fn main() {
    let report = json!({
        "recording_ns": recording::measure(),
        "exposition": exposition::measure(),
        "lookups": lookups::measure(),
    });
    println!("{report:#}");
}

/// Gives each contender its turns; the least that each of them says, in their order.
fn by_turns<const N: usize>(mut contenders: [&mut dyn FnMut() -> f64; N]) -> [f64; N] {
    let mut least = [f64::MAX; N];
    for _ in 0..TURNS {
        for (contender, least) in contenders.iter_mut().zip(&mut least) {
            *least = least.min(contender());
        }
    }
    least
}
