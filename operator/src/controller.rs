//! Runs the five steps for each MediaService: fetch, validate, build, apply, status.
//!
//! Owns the watches, the queue and what happens after an error. Builds the watches anew whenever an
//! optional API appears or vanishes. Knows no field of any child. Called
//! by `main` once this process leads.

pub mod addresses;
pub mod apply;
pub mod build;
mod detached;
mod drain;
mod events;
pub mod fetch;
mod live;
pub mod load;
pub mod nodes;
mod pace;
pub mod quantity;
mod replace;
mod scale_down;
mod sessions;
mod status;
mod trouble;
mod turns;
pub mod validate;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::{StreamExt, future};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::core::{DeserializeGuard, error_boundary::InvalidObject};
use kube::runtime::controller::{self, Action, Config, Controller};
use kube::runtime::events::{EventType, Recorder};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use tokio::sync::{Notify, watch};

pub use self::detached::{build_offline, offline};

use self::apply::{ApplyError, Writer};
use self::build::meta;
use self::drain::DrainError;
use self::events::{Told, publish};
use self::fetch::{FetchError, Fetched, Reader};
use self::load::Loads;
use self::pace::{Pause, Reports, WORDS, next_look};
use self::scale_down::{ScaleDown, ScaleDownError};
use self::sessions::SessionCounts;
use self::status::{Outcome, StatusError};
use self::trouble::Trouble;
use self::turns::Turns;
use self::validate::ValidateError;
use crate::capabilities::{Availability, OptionalApi, Served};
use crate::crd::{MediaService, MediaServiceStatus};
use crate::metrics::Metrics;
use crate::scope;

/// A MediaService, or why this operator can't read it: one such object must not end the watch of all
/// the others. The CRD of a newer operator may let through what this one does not know.
type Guarded = DeserializeGuard<MediaService>;

/// Everything that ends a reconciliation early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("this version of the operator can't read it")]
    Decode(#[source] Box<InvalidObject>),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Validate(#[from] ValidateError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    ScaleDown(#[from] ScaleDownError),
    #[error(transparent)]
    Replace(#[from] DrainError),
    #[error(transparent)]
    Status(#[from] StatusError),
    /// The same, while a pod drains whose time must not slip.
    #[error("{error}")]
    WhileDraining {
        #[source]
        error: Box<Error>,
        look_again: Duration,
    },
}

impl Error {
    /// Condition reason, event reason and `reason` label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Decode(_) => "InvalidSpec",
            Self::Fetch(error) => error.reason(),
            Self::Validate(error) => error.reason(),
            Self::Apply(error) => error.reason(),
            Self::ScaleDown(error) => error.reason(),
            Self::Replace(error) => error.reason(),
            Self::Status(error) => error.reason(),
            Self::WhileDraining { error, .. } => error.reason(),
        }
    }

    /// The same, and when to look at a pod that drains, if one does.
    fn looking_again(self, soon: Option<Duration>) -> Self {
        match soon {
            Some(look_again) => Self::WhileDraining {
                error: Box::new(self),
                look_again,
            },
            None => self,
        }
    }
}

/// What a reconciliation works with.
pub struct Context {
    pub reader: Reader,
    pub metrics: Metrics,
    pub recorder: Recorder,
    pub served: watch::Receiver<Served>,
    /// Notified when something suggests that `served` is out of date.
    pub doubt: Arc<Notify>,
    /// How pods are asked what they do.
    pub loads: Loads,
    sessions: SessionCounts,
    /// Failures in a row, by object.
    failures: Mutex<HashMap<ObjectRef<Guarded>, u32>>,
    reports: Reports,
    turns: Turns,
}

impl Context {
    pub fn new(
        reader: Reader,
        metrics: Metrics,
        recorder: Recorder,
        served: watch::Receiver<Served>,
        doubt: Arc<Notify>,
    ) -> Self {
        Self {
            reader,
            metrics,
            recorder,
            served,
            doubt,
            loads: Loads::default(),
            sessions: SessionCounts::default(),
            failures: Mutex::default(),
            reports: Reports::default(),
            turns: Turns::default(),
        }
    }
}

/// Everything is looked at again after this time, whatever the watches say.
const RESYNC: Duration = Duration::from_secs(600);

/// While it is not known whether an optional API is served: nothing tells when it is.
const UNCLEAR: Duration = Duration::from_secs(30);

const CONCURRENCY: u16 = 8;
/// One change of ours comes back as several watch events.
const DEBOUNCE: Duration = Duration::from_millis(500);

/// Runs until `stop` is done. `namespaces` empty: the whole cluster.
pub async fn run(context: Arc<Context>, namespaces: &[String], stop: watch::Receiver<bool>) {
    let counts = context
        .sessions
        .run(&context.reader.client, &context.metrics, &context.loads);
    tokio::select! {
        () = run_controllers(context.clone(), namespaces, stop) => {}
        () = counts => {}
    }
}

async fn run_controllers(
    context: Arc<Context>,
    namespaces: &[String],
    stop: watch::Receiver<bool>,
) {
    let mut changes = context.served.clone();
    loop {
        let served = *changes.borrow_and_update();
        let (end, ended) = watch::channel(false);
        let controllers = future::join_all(
            scope::places(namespaces)
                .into_iter()
                .map(|namespace| run_scope(context.clone(), namespace, served, ended.clone())),
        );
        tokio::pin!(controllers);
        let mut stopping = stop.clone();
        let over = tokio::select! {
            _ = &mut controllers => return,
            changed = changes.changed() => changed.is_err(),
            _ = stopping.wait_for(|stop| *stop) => true,
        };
        // Lets the reconciliations under way finish.
        let _ = end.send(true);
        controllers.await;
        if over {
            return;
        }
        tracing::info!("watching anew, because an optional API appeared or vanished");
    }
}

async fn run_scope(
    context: Arc<Context>,
    namespace: Option<&str>,
    served: Served,
    mut end: watch::Receiver<bool>,
) {
    let client = context.reader.client.clone();
    let owned = || {
        watcher::Config::default().labels(&format!(
            "{}={}",
            meta::MANAGED_BY_LABEL,
            meta::MANAGED_BY
        ))
    };
    let mut controller = Controller::new(
        scope::typed::<Guarded>(&client, namespace),
        watcher::Config::default(),
    )
    .with_config(
        Config::default()
            .debounce(DEBOUNCE)
            .concurrency(CONCURRENCY),
    )
    .trigger_backoff(Pause::default())
    .owns(scope::typed::<ServiceAccount>(&client, namespace), owned())
    .owns(scope::typed::<ConfigMap>(&client, namespace), owned())
    .owns(scope::typed::<Service>(&client, namespace), owned())
    .owns(scope::typed::<StatefulSet>(&client, namespace), owned())
    .owns(scope::typed::<Ingress>(&client, namespace), owned())
    .owns(scope::typed::<NetworkPolicy>(&client, namespace), owned())
    .owns(
        scope::typed::<PodDisruptionBudget>(&client, namespace),
        owned(),
    )
    .watches(scope::typed::<Pod>(&client, namespace), owned(), |pod| {
        service_of(&pod)
    });
    let present = |api: &OptionalApi| served.get(*api) == Availability::Present;
    for api in OptionalApi::ALL.into_iter().filter(present) {
        for resource in api.kinds() {
            let api = scope::dynamic(&client, namespace, &resource);
            controller = controller.owns_with(api, resource, owned());
        }
    }
    let store = controller.store();
    context.turns.follow(namespace, store.clone());
    context.metrics.queue(namespace, move || {
        let services = store.state();
        services
            .iter()
            .filter(|service| is_unreported(service))
            .count()
    });
    if let Some(nodes) = &context.reader.nodes {
        controller = controller.reconcile_all_on(nodes::address_changes(nodes.clone()));
    }
    let doubt = context.doubt.clone();
    let metrics = context.metrics.clone();
    controller
        .graceful_shutdown_on(async move {
            let _ = end.wait_for(|end| *end).await;
        })
        .run(reconcile, after_error, context)
        .for_each(|result| {
            match result {
                // Deleted meanwhile, or told by `after_error` already.
                Err(
                    error @ (controller::Error::ObjectNotFound(_)
                    | controller::Error::ReconcilerFailed(..)),
                ) => {
                    tracing::debug!(error = with_sources(&error), "not reconciled");
                }
                Err(error) => {
                    metrics.watch_failed();
                    tracing::warn!(error = with_sources(&error), "can't watch");
                    // Perhaps the API has gone; until that is known, this watch holds up all others.
                    doubt.notify_one();
                }
                Ok(_) => {}
            }
            future::ready(())
        })
        .await;
}

/// Whether no status was written for its present generation yet.
fn is_unreported(service: &Guarded) -> bool {
    service.0.as_ref().is_ok_and(|service| {
        let status = service.status.as_ref();
        status.and_then(|status| status.observed_generation) != service.metadata.generation
    })
}

/// A pod belongs to a StatefulSet; the MediaService is named by its label.
fn service_of(pod: &Pod) -> Option<ObjectRef<Guarded>> {
    let name = pod.labels().get(meta::INSTANCE_LABEL)?;
    Some(ObjectRef::new(name).within(&pod.namespace()?))
}

async fn reconcile(service: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    if let Some(wait) = context.turns.put_off(&service, started) {
        return Ok(Action::requeue(wait));
    }
    let _under_way = context.metrics.begin();
    let key = ObjectRef::from_obj(&*service);
    let result = match decoded(&service) {
        Ok(service) => steps(service, &context).await,
        Err(error) => {
            // Its status may be unreadable as well; an event reaches who looks at the object.
            publish(
                &context,
                &*service,
                EventType::Warning,
                error.reason(),
                with_sources(&error),
            )
            .await;
            Err(error)
        }
    };
    let reason = result.as_ref().err().map(Error::reason);
    context
        .metrics
        .reconciled(started.elapsed().as_secs_f64(), reason);
    if result.is_ok() {
        context
            .failures
            .lock()
            .expect("no panic while it is held")
            .remove(&key);
    }
    result
}

fn decoded(service: &Guarded) -> Result<Arc<MediaService>, Error> {
    match &service.0 {
        Ok(service) => Ok(Arc::new(service.clone())),
        Err(invalid) => Err(Error::Decode(Box::new(invalid.clone()))),
    }
}

async fn steps(service: Arc<MediaService>, context: &Context) -> Result<Action, Error> {
    if service.metadata.deletion_timestamp.is_some() {
        // Its children go by garbage collection.
        return Ok(Action::await_change());
    }
    let client = &context.reader.client;
    let served = *context.served.borrow();
    let fetched = match fetch::fetch(&context.reader, service.clone(), served).await {
        Ok(fetched) => fetched,
        Err(error) => {
            let error = Error::from(error);
            report_unread(context, &service, &error).await;
            return Err(error);
        }
    };
    if fetched.served != served {
        context.doubt.notify_one();
    }
    context.sessions.follow(&fetched);
    let mut valid = match validate::validate(&fetched) {
        Ok(valid) => valid,
        Err(error) => {
            let trouble = Trouble {
                reason: error.reason(),
                message: error.to_string(),
            };
            report(context, &fetched, &Outcome::Invalid { trouble }).await?;
            return Err(error.into());
        }
    };
    if valid.spec.paused {
        let reported = report(context, &fetched, &Outcome::Paused { service: &valid }).await?;
        return Ok(Action::requeue(reported.look_by(RESYNC)));
    }
    let mut refused: Vec<Error> = Vec::new();
    let scaling = scale_down::advance(context, &fetched, &valid).await;
    let scaling = scaling.unwrap_or_else(|error| {
        refused.push(error.into());
        ScaleDown::none(&fetched, &valid)
    });
    valid.replicas = scaling.replicas;
    let children = build::build(&valid);
    let writer = Writer {
        client,
        metrics: &context.metrics,
        namespace: &valid.namespace,
        uid: valid.uid.as_deref().unwrap_or_default(),
        create_secret: fetched.live.stateful_sets.is_empty()
            || valid
                .keys
                .generated
                .as_ref()
                .is_some_and(|secret| trouble::misses_generated_secret(&fetched, secret)),
    };
    // What pods wait for goes on as far as it can, whatever was refused: a drain that nobody ends, because
    // of an object that has nothing to do with it, would keep everybody out.
    let replaced = match apply::apply(&writer, &fetched.live, children).await {
        Ok(applied) => replace::advance(context, &fetched, &applied.stateful_set, &valid).await,
        Err(error) => {
            refused.push(error.into());
            replace::advance_unapplied(context, &fetched, &valid).await
        }
    };
    let replaced = replaced.unwrap_or_else(|error| {
        refused.push(error.into());
        replace::Rollout::default()
    });
    let (service, replaced, scaling) = (&valid, &replaced, &scaling);
    let outcome = match Trouble::of(&refused) {
        None => Outcome::Applied {
            service,
            replaced,
            scaling,
        },
        Some(trouble) => Outcome::Refused {
            service,
            replaced,
            scaling,
            trouble,
        },
    };
    let soon = replaced.look_again.or(scaling.look_again);
    let reported = report(context, &fetched, &outcome).await;
    let reported = reported.map_err(|error| Error::from(error).looking_again(soon))?;
    if let Some(first) = refused.into_iter().next() {
        return Err(first.looking_again(soon));
    }
    let next = match soon.or_else(|| next_look(&reported.status, Timestamp::now())) {
        Some(soon) => soon,
        _ if fetched.served.is_unclear() => UNCLEAR,
        _ => RESYNC,
    };
    Ok(Action::requeue(reported.look_by(next)))
}

/// What a reconciliation found, and whether that could be said.
struct Reported {
    status: MediaServiceStatus,
    /// It differs in words from the one that is there, which was written too shortly before.
    held_back: bool,
}

impl Reported {
    /// When to look again, if all else would wait for `otherwise`.
    fn look_by(&self, otherwise: Duration) -> Duration {
        match self.held_back {
            true => otherwise.min(WORDS),
            false => otherwise,
        }
    }
}

/// Says what was found and done.
async fn report(
    context: &Context,
    fetched: &Fetched,
    outcome: &Outcome<'_>,
) -> Result<Reported, StatusError> {
    let status = status::describe(fetched, outcome, Timestamp::now());
    put(context, &fetched.service, status).await
}

/// Says what could not be read, the second time in a row: once is the restart of an API server, which
/// needs no write for each MediaService.
async fn report_unread(context: &Context, service: &MediaService, error: &Error) {
    let key = ObjectRef::new(&service.name_any()).within(&service.namespace().unwrap_or_default());
    let again = {
        let failures = context.failures.lock().expect("no panic while it is held");
        failures.contains_key(&key)
    };
    let trouble = Trouble::of(std::slice::from_ref(error)).filter(|_| again);
    let Some(trouble) = trouble else {
        return;
    };
    let status = status::describe_unread(service, trouble, Timestamp::now());
    if let Err(error) = put(context, service, status).await {
        // Who can't read can't write either, perhaps; what is returned is the first error.
        let error = with_sources(&error);
        tracing::warn!(
            namespace = service.namespace(),
            name = service.name_any(),
            error,
            "can't write the status"
        );
    }
}

/// Writes the status, and an event for each condition whose word changed.
async fn put(
    context: &Context,
    service: &MediaService,
    status: MediaServiceStatus,
) -> Result<Reported, StatusError> {
    let old = service.status.as_ref();
    if old.is_some_and(|old| status::differs_in_words_only(old, &status))
        && !context.reports.words_are_due(service, Instant::now())
    {
        return Ok(Reported {
            status,
            held_back: true,
        });
    }
    let reported = |status| Reported {
        status,
        held_back: false,
    };
    if !status::write(&context.reader.client, service, &status).await? {
        return Ok(reported(status));
    }
    context.metrics.wrote("MediaService");
    context.reports.note(service, Instant::now());
    for Told {
        type_,
        reason,
        note,
    } in events::of_change(old, &status)
    {
        publish(context, service, type_, &reason, note).await;
    }
    Ok(reported(status))
}

/// 1 s, doubling to 300 s, for each object by itself, and less while a pod drains.
fn after_error(service: Arc<Guarded>, error: &Error, context: Arc<Context>) -> Action {
    let mut failures = context.failures.lock().expect("no panic while it is held");
    // Objects that were deleted while they failed leave a count behind; they may not pile up.
    if failures.len() > 10_000 {
        failures.clear();
    }
    let count = failures.entry(ObjectRef::from_obj(&*service)).or_insert(0);
    let wait = Duration::from_secs((1u64 << (*count).min(9)).min(300));
    *count = count.saturating_add(1);
    let wait = match error {
        Error::WhileDraining { look_again, .. } => wait.min(*look_again),
        _ => wait,
    };
    tracing::warn!(
        namespace = service.namespace(),
        name = service.name_any(),
        reason = error.reason(),
        error = with_sources(error),
        retry_seconds = wait.as_secs(),
        "reconciliation failed"
    );
    Action::requeue(wait)
}

/// The error with its causes, which for a refused write is the API server's message.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let (cause_text, next) = match cause.downcast_ref::<kube::Error>() {
            // Below it the same is said once more, with the reason after it.
            Some(kube::Error::Api(status)) => (status.message.clone(), None),
            _ => (cause.to_string(), cause.source()),
        };
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = next;
    }
    text
}

#[cfg(test)]
mod tests;
