//! Leadership: one operator acts at a time.
//!
//! Holds the Lease `mediaservice-operator` with the timings of client-go: valid 15 s, given up 10 s
//! after the last renewal, renewed and tried every 2 s. Expiry is judged by the local monotonic
//! clock and the Lease's resourceVersion, so clocks of machines need not agree. Every write is a
//! replace at a known resourceVersion: of two takers one gets a conflict. Called by `main`, which
//! ends the process when leadership is lost. Until it has ended, and however long it was stopped before,
//! the [`Fence`] around its client lets no write through.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};

pub use self::fence::Fence;

mod fence;

pub const NAME: &str = "mediaservice-operator";

/// How long things of the Lease take.
#[derive(Debug, Clone, Copy)]
pub struct Timings {
    /// Without a renewal for this long, anybody may take the Lease.
    pub valid: Duration,
    /// Without a renewal for this long, the leader stops: less than `valid`, so that it has stopped
    /// before the next one starts.
    pub deadline: Duration,
    /// Between two renewals, and between two tries to take it.
    pub retry: Duration,
}

/// Those of client-go.
pub const TIMINGS: Timings = Timings {
    valid: Duration::from_secs(15),
    deadline: Duration::from_secs(10),
    retry: Duration::from_secs(2),
};

/// A contender for the Lease.
pub struct Contender {
    api: Api<Lease>,
    identity: String,
    timings: Timings,
    fence: Fence,
}

/// The Lease as it was last written by us.
pub struct Held {
    lease: Lease,
    renewed: Instant,
}

impl Contender {
    /// `pod` names this process for people; a random part makes it differ from the one before.
    pub fn new(client: Client, namespace: &str, pod: &str, timings: Timings) -> Self {
        let mut random = [0u8; 4];
        // Without random bytes two processes of one pod name share an identity, as without this.
        let _ = aws_lc_rs::rand::fill(&mut random);
        let suffix = u32::from_be_bytes(random);
        Self {
            api: Api::namespaced(client, namespace),
            identity: format!("{pod}_{suffix:08x}"),
            timings,
            fence: Fence::new(timings.deadline),
        }
    }

    /// What lets writes through only while this contender holds the Lease.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Waits until the Lease is ours.
    pub async fn acquire(&self) -> Held {
        let mut seen: Option<(String, Instant)> = None;
        loop {
            match self.try_acquire(&mut seen).await {
                Ok(Some(held)) => {
                    tracing::info!(identity = self.identity, "leading");
                    return held;
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "can't take the Lease yet"),
            }
            tokio::time::sleep(self.timings.retry).await;
        }
    }

    /// Renews until that has failed for too long, or the Lease is another's. Returns why.
    pub async fn renew(&self, held: &mut Held) -> &'static str {
        loop {
            tokio::time::sleep(self.timings.retry).await;
            // A request that hangs must not hold up the end.
            let left = self.timings.deadline.saturating_sub(held.renewed.elapsed());
            match tokio::time::timeout(left, self.renew_once(held)).await {
                Ok(None) | Err(_) => {}
                Ok(Some(lost)) => return lost,
            }
            if held.renewed.elapsed() >= self.timings.deadline {
                return "the Lease could not be renewed in time";
            }
        }
    }

    /// Returns why the Lease is lost, if it is.
    async fn renew_once(&self, held: &mut Held) -> Option<&'static str> {
        let mut lease = held.lease.clone();
        let started = Instant::now();
        spec(&mut lease).renew_time = Some(MicroTime(Timestamp::now()));
        let replaced = self.api.replace(NAME, &PostParams::default(), &lease).await;
        match replaced {
            Ok(lease) => *held = self.hold(lease, started),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                // Somebody wrote to it: a person's annotation, or another leader.
                match self.api.get(NAME).await {
                    Ok(lease) if holder(&lease) == self.identity => held.lease = lease,
                    Ok(_) => return Some("another operator holds the Lease"),
                    Err(error) => tracing::warn!(%error, "can't read the Lease"),
                }
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {
                return Some("the Lease was deleted");
            }
            Err(error) => tracing::warn!(%error, "can't renew the Lease"),
        }
        None
    }

    /// Gives the Lease up, so that the next operator need not wait for its end. To be called once nothing
    /// is under way any more.
    pub async fn release(&self, held: Held) {
        self.fence.shut();
        match tokio::time::timeout(self.timings.retry, self.release_once(held.lease)).await {
            Ok(Ok(())) => tracing::info!("gave up the Lease"),
            Ok(Err(error)) => {
                tracing::warn!(%error, "can't give up the Lease; the next operator waits for its end");
            }
            Err(_) => {
                tracing::warn!(
                    "can't give up the Lease in time; the next operator waits for its end"
                );
            }
        }
    }

    async fn release_once(&self, mut lease: Lease) -> Result<(), kube::Error> {
        loop {
            spec(&mut lease).holder_identity = Some(String::new());
            match self.api.replace(NAME, &PostParams::default(), &lease).await {
                // A renewal that was cut short may have been written all the same.
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    lease = self.api.get(NAME).await?;
                    if holder(&lease) != self.identity {
                        return Ok(());
                    }
                }
                other => return other.map(drop),
            }
        }
    }

    fn hold(&self, lease: Lease, renewed: Instant) -> Held {
        self.fence.open(renewed);
        Held { lease, renewed }
    }

    async fn try_acquire(
        &self,
        seen: &mut Option<(String, Instant)>,
    ) -> Result<Option<Held>, kube::Error> {
        let started = Instant::now();
        let Some(mut lease) = self.api.get_opt(NAME).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(NAME.into()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.claim(0)),
            };
            let lease = self.api.create(&PostParams::default(), &lease).await?;
            return Ok(Some(self.hold(lease, started)));
        };
        if !holder(&lease).is_empty() {
            let version = lease.resource_version().unwrap_or_default();
            match seen {
                Some((last, since)) if *last == version => {
                    if since.elapsed() < self.timings.valid {
                        return Ok(None);
                    }
                }
                _ => {
                    *seen = Some((version, Instant::now()));
                    return Ok(None);
                }
            }
        }
        let transitions = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.lease_transitions)
            .unwrap_or(0);
        lease.spec = Some(self.claim(transitions.saturating_add(1)));
        match self.api.replace(NAME, &PostParams::default(), &lease).await {
            Ok(lease) => Ok(Some(self.hold(lease, started))),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn claim(&self, transitions: i32) -> LeaseSpec {
        let now = Timestamp::now();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(self.timings.valid.as_secs().max(1) as i32),
            acquire_time: Some(MicroTime(now)),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

fn holder(lease: &Lease) -> &str {
    lease
        .spec
        .as_ref()
        .and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default()
}

fn spec(lease: &mut Lease) -> &mut LeaseSpec {
    lease.spec.get_or_insert_default()
}

#[cfg(test)]
mod tests;
