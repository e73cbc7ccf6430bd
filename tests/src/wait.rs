//! Waiting for a condition with a bound, and saying what was seen last when it never came.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Pause between two looks: short against every bound here, long against the cost of a look.
const PAUSE: Duration = Duration::from_millis(100);

/// Looks until `look` returns `Ok`, for at most `within`; the error says what was seen instead.
///
/// # Panics
/// After `within`, with `what` and the last thing seen. A look under way at that time is finished first.
pub async fn wait_for<T, E, F, L>(what: &str, within: Duration, mut look: L) -> T
where
    E: Display,
    F: Future<Output = Result<T, E>>,
    L: FnMut() -> F,
{
    let started = Instant::now();
    loop {
        match look().await {
            Ok(value) => return value,
            Err(seen) if started.elapsed() >= within => {
                panic!("waited {within:?} for {what}; last seen: {seen:#}")
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
