//! Leadership against an API server in this process: lost races, silence, a second holder.

use super::*;
use crate::testing::FakeLease;

const FAST: Timings = Timings {
    valid: Duration::from_millis(600),
    deadline: Duration::from_millis(300),
    retry: Duration::from_millis(20),
};

/// Generous: the machine may be busy.
const BOUND: Duration = Duration::from_secs(20);

fn contender(fake: &FakeLease, pod: &str) -> Contender {
    Contender::new(fake.client(), "system", pod, FAST)
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future)
        .await
        .expect("it happens in time")
}

#[tokio::test]
async fn a_second_operator_leads_only_after_the_first_has_not_renewed_for_as_long_as_the_lease_is_valid()
 {
    let fake = FakeLease::default();
    let _held = within(contender(&fake, "one").acquire()).await;
    let first_seen = Instant::now();
    within(contender(&fake, "two").acquire()).await;
    assert!(
        first_seen.elapsed() >= FAST.valid,
        "{:?}",
        first_seen.elapsed()
    );
    assert!(fake.holder().starts_with("two_"), "{}", fake.holder());
}

#[tokio::test]
async fn a_lease_that_was_given_up_is_taken_at_once() {
    let fake = FakeLease::default();
    let one = contender(&fake, "one");
    let held = within(one.acquire()).await;
    one.release(held).await;
    assert_eq!(fake.holder(), "");
    within(contender(&fake, "two").acquire()).await;
    assert!(fake.holder().starts_with("two_"));
}

#[tokio::test]
async fn a_leader_stops_when_another_holds_the_lease() {
    let fake = FakeLease::default();
    let one = contender(&fake, "one");
    let mut held = within(one.acquire()).await;
    fake.take_by("two_1");
    assert_eq!(
        within(one.renew(&mut held)).await,
        "another operator holds the Lease"
    );
}

#[tokio::test]
async fn a_leader_that_can_not_renew_stops_before_its_lease_ends() {
    let fake = FakeLease::default();
    let one = contender(&fake, "one");
    let mut held = within(one.acquire()).await;
    fake.break_down();
    assert_eq!(
        within(one.renew(&mut held)).await,
        "the Lease could not be renewed in time"
    );
}

#[test]
fn the_leader_stops_before_the_next_may_start() {
    assert!(TIMINGS.deadline + TIMINGS.retry < TIMINGS.valid);
}
