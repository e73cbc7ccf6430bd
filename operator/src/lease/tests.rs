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

#[tokio::test]
async fn a_lease_is_given_up_although_its_last_renewal_was_cut_short() {
    let fake = FakeLease::default();
    let one = contender(&fake, "one");
    let held = within(one.acquire()).await;
    // Written by a renewal of which the answer never came.
    fake.take_by(&fake.holder());
    one.release(held).await;
    assert_eq!(fake.holder(), "");
    let held = within(one.acquire()).await;
    fake.take_by("two_1");
    one.release(held).await;
    assert_eq!(fake.holder(), "two_1", "that of another stays");
}

#[tokio::test]
async fn a_leader_whose_requests_hang_stops_before_its_lease_ends() {
    let fake = FakeLease::default();
    let one = contender(&fake, "one");
    let mut held = within(one.acquire()).await;
    let started = Instant::now();
    // First the conflict, then silence: both requests of a renewal are bounded.
    fake.take_by(&fake.holder());
    fake.hang_reads();
    assert_eq!(
        within(one.renew(&mut held)).await,
        "the Lease could not be renewed in time"
    );
    assert!(started.elapsed() < BOUND / 2, "{:?}", started.elapsed());
}

#[tokio::test]
async fn writes_pass_only_while_the_lease_is_held_and_reads_always() {
    let fake = FakeLease::default();
    let one = Contender::new(fake.client(), "system", "one", TIMINGS);
    let client = one.fence().around(fake.client());
    let leases: Api<Lease> = Api::namespaced(client, "system");
    let writes = async || {
        let lease = leases.get(NAME).await.expect("reads pass");
        leases.replace(NAME, &PostParams::default(), &lease).await
    };
    leases
        .create(&PostParams::default(), &Lease::default())
        .await
        .expect_err("nobody leads yet");
    let mut held = within(one.acquire()).await;
    held.lease = writes().await.expect("it leads");
    // As after SIGSTOP: nothing was renewed, and nothing has noticed.
    one.fence().open(Instant::now() - TIMINGS.deadline);
    let refused = writes().await.expect_err("it may not lead any more");
    assert!(format!("{refused:?}").contains("NotLeading"), "{refused:?}");
    assert_eq!(within(one.renew_once(&mut held)).await, None);
    held.lease = writes().await.expect("it leads again");
    one.release(held).await;
    writes().await.expect_err("it gave the Lease up");
}

#[test]
fn the_leader_stops_before_the_next_may_start() {
    assert!(TIMINGS.deadline + TIMINGS.retry < TIMINGS.valid);
}
