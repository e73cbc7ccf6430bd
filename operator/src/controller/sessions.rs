//! Says in `.status.sessions` how many sessions there are, and in `.status.pods` what each pod does.
//!
//! Asks the pods every 10 s, beside the reconciliations: these read all that belongs to a MediaService.
//! Writes under its own field manager, by a merge: an apply is refused as a whole where the definition is older
//! and lacks one field of it. Only what moved is written: each write is a watch event of the MediaService, and the
//! reconciliation that it causes finds nothing to do. Numbers are written at most every 30 s, and when a sum
//! changed by 5 % or more; states at once, but that a pod does not answer once it has not for 30 s. Started by the
//! controller, which tells it of the pods.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde::Serialize;
use serde_json::json;

use super::apply::is_status;
use super::build::meta;
use super::drain;
use super::fetch::Fetched;
use super::load::{self, Load, Loads};
use crate::crd::{MediaService, PodReport, PodState, Sessions};
use crate::metrics::Metrics;

pub const FIELD_MANAGER: &str = "mediaservice-operator-sessions";

const ASK_EVERY: Duration = Duration::from_secs(10);
/// Least time between two writes for one MediaService, if there is no more to say than other numbers.
const WRITE_EVERY: Duration = Duration::from_secs(30);
/// For as long a pod may be silent before that is told: one that starts answers by then, and one answer may be late.
const SILENCE: Duration = Duration::from_secs(30);
/// Pods asked at the same time.
const AT_ONCE: usize = 16;
/// A MediaService that was not reconciled for so long is gone: it is every ten minutes.
const FORGET_AFTER: Duration = Duration::from_secs(1300);
/// As many as the definition allows, and the most that a MediaService can have while one more starts.
const MAX_PODS: usize = 65;

/// Namespace and name.
type Key = (String, String);

/// The pods to ask. Cheap to clone.
#[derive(Clone, Default)]
pub struct SessionCounts {
    followed: Arc<Mutex<HashMap<Key, Followed>>>,
}

#[derive(Clone)]
struct Followed {
    places: Vec<Place>,
    written: Report,
    written_at: Option<Instant>,
    /// Since when the silence of a pod is to be told.
    silent_since: Option<Instant>,
    seen: Instant,
}

/// A pod that is there, or that the spec asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    name: String,
    /// `None` if there is none.
    pod: Option<Found>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    address: Option<String>,
    spec_hash: Option<String>,
    /// Somebody has asked it to go.
    going: bool,
}

/// These parts of the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Report {
    sessions: Sessions,
    pods: Vec<PodReport>,
}

impl SessionCounts {
    /// From now on the pods that were fetched are asked.
    pub fn follow(&self, fetched: &Fetched) {
        let service = &fetched.service;
        let key = (service.namespace().unwrap_or_default(), service.name_any());
        let places = places(&key.1, service.spec.replicas, &fetched.pods);
        let status = service.status.clone().unwrap_or_default();
        let mut followed = self.followed.lock().expect("no panic while it is held");
        let before = followed.get(&key);
        let (written_at, silent_since) =
            before.map_or((None, None), |it| (it.written_at, it.silent_since));
        followed.insert(
            key,
            Followed {
                places,
                written: Report {
                    sessions: status.sessions,
                    pods: status.pods,
                },
                written_at,
                silent_since,
                seen: Instant::now(),
            },
        );
    }

    /// Asks and writes for ever.
    pub async fn run(&self, client: &Client, metrics: &Metrics, loads: &Loads) {
        let mut every = tokio::time::interval(ASK_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let services = self.take_stock();
            stream::iter(services)
                .for_each_concurrent(AT_ONCE, |(key, followed)| async move {
                    let said = ask(loads, &followed.places).await;
                    let report = report(&followed, &said);
                    let news = News::of(&followed.written, &report);
                    let now = Instant::now();
                    let silent_since = self.note_silence(&key, news.silent, now);
                    if !news.are_due(followed.written_at, silent_since, now) {
                        return;
                    }
                    match write(client, &key, &report).await {
                        Ok(()) => {
                            metrics.wrote("MediaService");
                            self.wrote(&key, report);
                        }
                        Err(error) if is_status(&error, 404) => self.forget(&key),
                        Err(error) => tracing::warn!(namespace = key.0, name = key.1, %error, "can't write what the pods say"),
                    }
                })
                .await;
        }
    }

    fn take_stock(&self) -> Vec<(Key, Followed)> {
        let mut followed = self.followed.lock().expect("no panic while it is held");
        followed.retain(|_, followed| followed.seen.elapsed() < FORGET_AFTER);
        let all = followed.iter();
        all.map(|(key, followed)| (key.clone(), followed.clone()))
            .collect()
    }

    /// Returns since when.
    fn note_silence(&self, key: &Key, silent: bool, now: Instant) -> Option<Instant> {
        let mut followed = self.followed.lock().expect("no panic while it is held");
        let followed = followed.get_mut(key)?;
        followed.silent_since = silent.then(|| followed.silent_since.unwrap_or(now));
        followed.silent_since
    }

    fn wrote(&self, key: &Key, report: Report) {
        let mut followed = self.followed.lock().expect("no panic while it is held");
        if let Some(followed) = followed.get_mut(key) {
            followed.written = report;
            followed.written_at = Some(Instant::now());
        }
    }

    fn forget(&self, key: &Key) {
        self.followed
            .lock()
            .expect("no panic while it is held")
            .remove(key);
    }
}

/// The pods that are there and those of the first `replicas` numbers that are not, by number.
fn places(service: &str, replicas: i32, pods: &[Pod]) -> Vec<Place> {
    let here = pods.iter().map(|pod| Place {
        name: pod.name_any(),
        pod: Some(Found {
            address: load::address(pod).map(str::to_owned),
            spec_hash: pod.annotations().get(meta::SPEC_HASH).cloned(),
            going: pod.metadata.deletion_timestamp.is_some(),
        }),
    });
    let wanted = (0..replicas).map(|number| format!("{service}-{number}"));
    let absent = wanted.filter(|name| pods.iter().all(|pod| pod.name_any() != *name));
    let absent = absent.map(|name| Place { name, pod: None });
    let mut places: Vec<Place> = here.chain(absent.take(MAX_PODS)).collect();
    // One whose name has no number is not of the StatefulSet, and comes last.
    places.sort_by_key(|place| {
        (
            drain::number(&place.name).unwrap_or(i32::MAX),
            place.name.clone(),
        )
    });
    places.truncate(MAX_PODS);
    places
}

/// What each of them says.
async fn ask(loads: &Loads, places: &[Place]) -> Vec<Option<Load>> {
    let mut said = Vec::with_capacity(places.len());
    for place in places {
        let address = place.pod.as_ref().and_then(|pod| pod.address.as_deref());
        said.push(match address {
            Some(address) => loads.of_address(address).await,
            None => None,
        });
    }
    said
}

/// What to tell of that. The sum is the one before while a pod does not answer: what it has is not known.
fn report(followed: &Followed, said: &[Option<Load>]) -> Report {
    let mut sum = Some(Sessions::default());
    let mut pods = Vec::with_capacity(said.len());
    for (place, load) in followed.places.iter().zip(said) {
        let count = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
        let publishers = load.as_ref().map(|load| count(load.publishers));
        let viewers = load.as_ref().map(|load| count(load.viewers));
        if place.pod.as_ref().is_some_and(|pod| !pod.going) {
            sum = sum.and_then(|sum| {
                Some(Sessions {
                    publishers: sum.publishers.saturating_add(publishers?),
                    viewers: sum.viewers.saturating_add(viewers?),
                })
            });
        }
        pods.push(PodReport {
            name: place.name.clone(),
            state: match &place.pod {
                Some(_) => state(load.as_ref()),
                None => PodState::Absent,
            },
            publishers,
            viewers,
            spec_hash: place.pod.as_ref().and_then(|pod| pod.spec_hash.clone()),
        });
    }
    Report {
        sessions: sum.unwrap_or_else(|| followed.written.sessions.clone()),
        pods,
    }
}

fn state(load: Option<&Load>) -> PodState {
    match load.map(|load| &*load.state) {
        Some("Accepting") => PodState::Accepting,
        Some("Draining") => PodState::Draining,
        Some("Drained") => PodState::Drained,
        _ => PodState::Unknown,
    }
}

/// How a report differs from the one before.
struct News {
    /// A sum moved.
    counts: bool,
    /// A pod went, or says that it does something else.
    states: bool,
    /// A pod does not answer or is not there.
    silent: bool,
}

impl News {
    fn of(before: &Report, now: &Report) -> Self {
        // 1 of 20 is 5 %; from 0 any number is.
        let moved = |before: i32, now: i32| {
            before != now && i64::from(before.abs_diff(now)) * 20 >= i64::from(before)
        };
        let is_listed = |pod: &PodReport| now.pods.iter().any(|now| now.name == pod.name);
        let is_told = |pod: &PodReport| {
            let told = |pod: &PodReport| (pod.name.clone(), pod.state, pod.spec_hash.clone());
            before.pods.iter().any(|before| told(before) == told(pod))
        };
        let is_silent = |pod: &PodReport| matches!(pod.state, PodState::Unknown | PodState::Absent);
        let (silent, others): (Vec<&PodReport>, Vec<&PodReport>) = now
            .pods
            .iter()
            .filter(|pod| !is_told(pod))
            .partition(|pod| is_silent(pod));
        Self {
            counts: moved(before.sessions.publishers, now.sessions.publishers)
                || moved(before.sessions.viewers, now.sessions.viewers),
            states: !others.is_empty() || !before.pods.iter().all(is_listed),
            silent: !silent.is_empty(),
        }
    }

    fn are_due(
        &self,
        written_at: Option<Instant>,
        silent_since: Option<Instant>,
        now: Instant,
    ) -> bool {
        let for_at_least = |time: Duration| move |since| now.duration_since(since) >= time;
        self.states
            || (self.counts && written_at.is_none_or(for_at_least(WRITE_EVERY)))
            || silent_since.is_some_and(for_at_least(SILENCE))
    }
}

async fn write(client: &Client, (namespace, name): &Key, report: &Report) -> kube::Result<()> {
    let api: Api<MediaService> = Api::namespaced(client.clone(), namespace);
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    let patch = json!({"status": report});
    api.patch_status(name, &params, &Patch::Merge(&patch))
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(viewers: i32) -> Sessions {
        Sessions {
            publishers: 0,
            viewers,
        }
    }

    /// A pod that does this, of a spec.
    fn says(name: &str, state: PodState, hash: &str) -> PodReport {
        PodReport {
            name: name.into(),
            state,
            publishers: None,
            viewers: None,
            spec_hash: Some(hash.into()),
        }
    }

    fn said(viewers: i32, pods: &[PodReport]) -> Report {
        Report {
            sessions: sessions(viewers),
            pods: pods.to_vec(),
        }
    }

    #[test]
    fn a_count_is_written_when_it_moved_by_five_percent_and_the_last_write_is_half_a_minute_old() {
        let start = Instant::now();
        let due = |before, after, written_at| {
            let news = News::of(&said(before, &[]), &said(after, &[]));
            news.are_due(written_at, None, start + Duration::from_secs(60))
        };
        let moved = |before, after| due(before, after, None);
        assert!(moved(0, 1) && moved(1, 0) && moved(100, 105) && moved(100, 95));
        assert!(!moved(100, 100) && !moved(100, 104) && !moved(100, 96));
        let written = |seconds| Some(start + Duration::from_secs(seconds));
        assert!(due(0, 9, written(30)) && !due(0, 9, written(31)) && !due(0, 0, written(0)));
    }

    #[test]
    fn a_state_is_written_at_once_and_the_silence_of_a_pod_after_half_a_minute() {
        let start = Instant::now();
        let before = [says("cam-0", PodState::Accepting, "a")];
        let due = |pods: &[PodReport], silent_for| {
            let news = News::of(&said(0, &before), &said(0, pods));
            let since = news.silent.then_some(start);
            news.are_due(Some(start), since, start + Duration::from_secs(silent_for))
        };
        assert!(!due(&before, 100));
        for other in [
            says("cam-0", PodState::Draining, "a"),
            says("cam-0", PodState::Accepting, "b"),
            says("cam-1", PodState::Accepting, "a"),
        ] {
            assert!(due(&[other], 0));
        }
        assert!(due(&[], 0), "it has gone");
        for silent in [PodState::Unknown, PodState::Absent] {
            let now = [says("cam-0", silent, "a")];
            assert_eq!([due(&now, 29), due(&now, 30)], [false, true]);
        }
        let mut fuller = before.clone();
        fuller[0].viewers = Some(900);
        assert!(!due(&fuller, 100), "numbers of pods go with the sum");
    }

    #[test]
    fn each_pod_is_told_of_by_its_number_and_one_that_does_not_answer_hides_the_sum() {
        let pod = |name: &str, going: bool| -> Pod {
            serde_json::from_value(json!({
                "metadata": {
                    "name": name, "annotations": {meta::SPEC_HASH: "9f3c"},
                    "deletionTimestamp": going.then_some("2026-01-01T00:00:00Z"),
                },
                "status": {"podIP": "192.0.2.1"},
            }))
            .unwrap()
        };
        let load = |state: &str| {
            Some(Load {
                state: state.into(),
                publishers: 3,
                viewers: 9,
            })
        };
        let pods = [pod("cam-10", true), pod("cam-2", false), pod("copy", false)];
        let places = places("cam", 2, &pods);
        let names: Vec<&str> = places.iter().map(|place| &*place.name).collect();
        assert_eq!(names, ["cam-0", "cam-1", "cam-2", "cam-10", "copy"]);
        let followed = Followed {
            places,
            written: said(7, &[]),
            written_at: None,
            silent_since: None,
            seen: Instant::now(),
        };
        let answers = [
            None,
            None,
            load("Accepting"),
            load("Draining"),
            load("Drained"),
        ];
        let told = report(&followed, &answers);
        let both = Sessions {
            publishers: 6,
            viewers: 18,
        };
        assert_eq!(told.sessions, both, "without the one that goes");
        let states: Vec<PodState> = told.pods.iter().map(|pod| pod.state).collect();
        use PodState::{Absent, Accepting, Drained, Draining, Unknown};
        assert_eq!(states, [Absent, Absent, Accepting, Draining, Drained]);
        assert_eq!(
            serde_json::to_value(&told.pods[3]).unwrap(),
            json!({"name": "cam-10", "state": "Draining", "publishers": 3, "viewers": 9, "specHash": "9f3c"})
        );
        assert_eq!(
            serde_json::to_value(&told.pods[0]).unwrap(),
            json!({"name": "cam-0", "state": "Absent"})
        );
        let answers = [None, None, None, load("Draining"), load("Refusing")];
        let told = report(&followed, &answers);
        assert_eq!(told.sessions, sessions(7), "as before");
        assert_eq!((told.pods[2].state, told.pods[4].state), (Unknown, Unknown));
    }

    #[test]
    fn no_more_pods_are_told_of_than_the_definition_allows() {
        assert_eq!(places("cam", i32::MAX, &[]).len(), MAX_PODS);
    }
}
