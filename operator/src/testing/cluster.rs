//! A cluster in this process: an API server with watches and server-side apply, and as much of the
//! StatefulSet controller and a kubelet as makes pods come and go.
//!
//! What is real about Kubernetes is tested against the real one; here are the faults that it can't be
//! made to have, and the counting of each write. Used by tests only.

mod workloads;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Json, routing::any};
use futures::stream;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::failure_body;
use super::objects::{is_selected, merge, note_manager, remove_dropped};
use crate::capabilities::OptionalApi;

/// Cheap to clone; all clones are one cluster.
#[derive(Clone)]
pub struct FakeCluster {
    state: Arc<Mutex<Inside>>,
    /// Told of each change that a watch may have to tell.
    changed: watch::Sender<u64>,
}

/// A write that was asked for, whatever the answer was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub method: Method,
    /// Without the query.
    pub path: String,
    pub manager: String,
    /// Name of the client that asked.
    pub client: String,
}

struct Inside {
    version: u64,
    objects: BTreeMap<Key, Value>,
    /// What each field manager applied last.
    applied: HashMap<(Key, String), Value>,
    log: Vec<(u64, &'static str, Key, Value)>,
    writes: Vec<Write>,
    faults: Vec<Fault>,
    /// Names of clients whose requests go nowhere.
    cut_off: Vec<String>,
    /// `status` of each new pod.
    pod_status: Value,
    /// Start of a path, and what each new object there gets.
    added: Vec<(String, Value)>,
}

struct Fault {
    /// Of paths.
    start: String,
    writes_only: bool,
    code: u16,
}

/// Where an object is: group and version as in the path, plural, namespace, name.
type Key = (String, String, String, String);

/// What a path is about.
struct Target {
    api: String,
    plural: String,
    namespace: Option<String>,
    name: Option<String>,
    sub: Option<String>,
}

impl Target {
    fn of(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (api, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => (format!("/api/{version}"), rest),
            ["apis", group, version, rest @ ..] => (format!("/apis/{group}/{version}"), rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            rest => (None, rest),
        };
        let at = |n: usize| rest.get(n).map(|part| (*part).to_owned());
        Some(Self {
            api,
            plural: at(0)?,
            namespace: namespace.map(str::to_owned),
            name: at(1),
            sub: at(2),
        })
    }

    fn key(&self) -> Option<Key> {
        let namespace = self.namespace.clone().unwrap_or_default();
        Some((
            self.api.clone(),
            self.plural.clone(),
            namespace,
            self.name.clone()?,
        ))
    }

    fn holds(&self, key: &Key) -> bool {
        let here = self
            .namespace
            .as_ref()
            .is_none_or(|namespace| *namespace == key.2);
        self.api == key.0 && self.plural == key.1 && here
    }
}

type Asked = HashMap<String, String>;

impl FakeCluster {
    pub fn new() -> Self {
        let inside = Inside {
            version: 1,
            objects: BTreeMap::new(),
            applied: HashMap::new(),
            log: Vec::new(),
            writes: Vec::new(),
            faults: Vec::new(),
            cut_off: Vec::new(),
            pod_status: ready_status("127.0.0.1"),
            added: Vec::new(),
        };
        Self {
            state: Arc::new(Mutex::new(inside)),
            changed: watch::Sender::new(1),
        }
    }

    pub fn client(&self) -> Client {
        self.client_named("")
    }

    /// A client that can be told from others.
    pub fn client_named(&self, name: &str) -> Client {
        let state = (self.clone(), name.to_owned());
        Client::new(
            Router::new().fallback(any(answer)).with_state(state),
            "default",
        )
    }

    /// Nothing of that client arrives any more, and nothing comes back.
    pub fn cut_off(&self, client: &str) {
        let mut inside = self.inside();
        inside.cut_off.push(client.to_owned());
        self.tell(&mut inside);
    }

    /// Ends that.
    pub fn heal(&self, client: &str) {
        let mut inside = self.inside();
        inside.cut_off.retain(|name| name != client);
        self.tell(&mut inside);
    }

    /// Answers requests whose path starts so with `code`, from now on, and ends such watches.
    pub fn fail(&self, start: &str, code: u16) {
        self.fault(start, false, code);
    }

    /// The same for writes alone.
    pub fn refuse_writes(&self, start: &str, code: u16) {
        self.fault(start, true, code);
    }

    fn fault(&self, start: &str, writes_only: bool, code: u16) {
        let mut inside = self.inside();
        inside.faults.push(Fault {
            start: start.to_owned(),
            writes_only,
            code,
        });
        self.tell(&mut inside);
    }

    /// Ends the faults of paths that start so.
    pub fn mend(&self, start: &str) {
        let mut inside = self.inside();
        inside.faults.retain(|fault| fault.start != start);
        self.tell(&mut inside);
    }

    /// Every write so far, in order.
    pub fn writes(&self) -> Vec<Write> {
        self.inside().writes.clone()
    }

    /// The object at `path`, or null.
    pub fn get(&self, path: &str) -> Value {
        let key = Target::of(path)
            .and_then(|target| target.key())
            .expect("a path of an object");
        self.inside().objects.get(&key).cloned().unwrap_or_default()
    }

    /// Every object of that kind, which is given in the plural as in paths.
    pub fn list(&self, plural: &str) -> Vec<Value> {
        let inside = self.inside();
        let objects = inside.objects.iter().filter(|(key, _)| key.1 == plural);
        objects.map(|(_, object)| object.clone()).collect()
    }

    /// Puts an object there, as somebody else would; what belongs to the API server is added.
    pub fn put(&self, path: &str, object: Value) {
        let key = Target::of(path)
            .and_then(|target| target.key())
            .expect("a path of an object");
        let mut inside = self.inside();
        let metadata = &object["metadata"];
        let was_held = !metadata["deletionTimestamp"].is_null();
        if was_held && !has_finalizers(&object) {
            inside.remove(&key);
        } else {
            inside.store(key, object);
        }
        inside.settle();
        self.tell(&mut inside);
    }

    /// Changes the object at `path`, as somebody else would.
    pub fn edit(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.get(path);
        change(&mut object);
        self.put(path, object);
    }

    pub fn delete(&self, path: &str) {
        let key = Target::of(path)
            .and_then(|target| target.key())
            .expect("a path of an object");
        let mut inside = self.inside();
        inside.remove(&key);
        inside.settle();
        self.tell(&mut inside);
    }

    /// Merges this into each object that is made at a path which starts so, as a mutating webhook does.
    pub fn add_to_new(&self, start: &str, patch: Value) {
        self.inside().added.push((start.to_owned(), patch));
    }

    /// `status` of pods that are made from now on.
    pub fn new_pods_are(&self, status: Value) {
        self.inside().pod_status = status;
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.state.lock().expect("no panic while it is held")
    }

    fn tell(&self, inside: &mut Inside) {
        inside.version += 1;
        self.changed.send_replace(inside.version);
    }
}

fn has_finalizers(object: &Value) -> bool {
    let finalizers = object["metadata"]["finalizers"].as_array();
    finalizers.is_some_and(|finalizers| !finalizers.is_empty())
}

/// `status` of a pod that takes traffic at `ip`.
pub fn ready_status(ip: &str) -> Value {
    json!({"podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]})
}

impl Inside {
    fn fault(&self, path: &str, writes: bool) -> Option<u16> {
        let fits =
            |fault: &&Fault| path.starts_with(&fault.start) && (writes || !fault.writes_only);
        self.faults.iter().find(fits).map(|fault| fault.code)
    }

    /// Writes, and logs it unless nothing has changed.
    fn store(&mut self, key: Key, mut object: Value) -> Value {
        let before = self.objects.get(&key).cloned();
        let meta = &mut object["metadata"];
        meta["name"] = key.3.clone().into();
        if !key.2.is_empty() {
            meta["namespace"] = key.2.clone().into();
        }
        match &before {
            Some(before) => {
                for field in ["uid", "creationTimestamp", "resourceVersion", "generation"] {
                    meta[field] = before["metadata"][field].clone();
                }
                if *before == object {
                    return object;
                }
                if before["spec"] != object["spec"] {
                    let generation = before["metadata"]["generation"].as_u64().unwrap_or(0);
                    object["metadata"]["generation"] = (generation + 1).into();
                }
            }
            None => {
                meta["uid"] = meta["uid"]
                    .as_str()
                    .map_or_else(|| format!("uid-{}", self.version), str::to_owned)
                    .into();
                meta["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
                meta["generation"] = 1.into();
            }
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let word = if before.is_some() {
            "MODIFIED"
        } else {
            "ADDED"
        };
        self.log
            .push((self.version, word, key.clone(), object.clone()));
        self.objects.insert(key, object.clone());
        object
    }

    fn remove(&mut self, key: &Key) -> Option<Value> {
        let mut object = self.objects.remove(key)?;
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.applied.retain(|(applied, _), _| applied != key);
        self.log
            .push((self.version, "DELETED", key.clone(), object.clone()));
        Some(object)
    }

    /// As a client asks for it: an object with finalizers stays until somebody has taken them out.
    /// A pod's time to end may be made shorter.
    fn delete(&mut self, key: &Key, grace: Option<u64>) -> Value {
        let live = self.objects.get(key).cloned().unwrap_or_default();
        if !has_finalizers(&live) {
            return self.remove(key).unwrap_or_default();
        }
        let mut going = live;
        if key.1 == "pods" {
            let own = going["spec"]["terminationGracePeriodSeconds"].as_u64();
            let before = going["metadata"]["deletionGracePeriodSeconds"].as_u64();
            let grace = grace.or(own).unwrap_or(30);
            let grace = before.map_or(grace, |before| before.min(grace));
            going["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        }
        going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:01Z".into();
        self.store(key.clone(), going)
    }

    /// Server-side apply: what this manager applied before and does not any more goes. Refused where a
    /// field would change that can't.
    fn apply(&mut self, key: Key, manager: &str, patch: &Value) -> Result<Value, u16> {
        let live = self.objects.get(&key).cloned();
        let mut object = live.clone().unwrap_or_else(|| json!({"metadata": {}}));
        let owner = (key.clone(), manager.to_owned());
        if let Some(before) = self.applied.get(&owner) {
            remove_dropped(&mut object, before, patch);
        }
        merge(&mut object, patch, false);
        match live {
            None => {
                let path = format!("{}/namespaces/{}/{}/{}", key.0, key.2, key.1, key.3);
                let added = self.added.iter();
                for (_, added) in added.filter(|(start, _)| path.starts_with(start)) {
                    merge(&mut object, added, false);
                }
            }
            Some(live) => {
                let class = |object: &Value| object["spec"]["loadBalancerClass"].clone();
                if class(&live) != class(&object) {
                    return Err(422);
                }
            }
        }
        self.applied.insert(owner, patch.clone());
        note_manager(&mut object, manager, patch);
        Ok(self.store(key, object))
    }
}

async fn answer(
    State((fake, client)): State<(FakeCluster, String)>,
    method: Method,
    uri: Uri,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    fake.reached_by(&client).await;
    let path = uri.path().to_owned();
    let writes = method != Method::GET;
    if writes {
        let manager = asked.get("fieldManager").cloned().unwrap_or_default();
        let write = Write {
            method: method.clone(),
            path: path.clone(),
            manager,
            client: client.clone(),
        };
        fake.inside().writes.push(write);
    }
    if let Some(code) = fake.inside().fault(&path, writes) {
        return failure(code);
    }
    if let Some(api) = OptionalApi::ALL
        .into_iter()
        .find(|api| path == format!("/apis/{}", api.group_version()))
    {
        return Json(discovery(api)).into_response();
    }
    let Some(target) = Target::of(&path) else {
        return failure(404);
    };
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    match method {
        Method::GET if asked.get("watch").is_some_and(|watch| watch != "false") => {
            fake.watch(target, path, client, &asked)
        }
        Method::GET => fake.read(&target, &asked),
        _ => {
            let is_apply = headers
                .get("content-type")
                .is_some_and(|kind| kind.as_bytes().starts_with(b"application/apply-patch"));
            let mut inside = fake.inside();
            let answer = inside.write(&method, &target, &asked, body, is_apply);
            inside.settle();
            fake.tell(&mut inside);
            answer.map_or_else(failure, |object| Json(object).into_response())
        }
    }
}

impl Inside {
    fn write(
        &mut self,
        method: &Method,
        target: &Target,
        asked: &Asked,
        body: Value,
        is_apply: bool,
    ) -> Result<Value, u16> {
        let named = body["metadata"]["name"].as_str().map(str::to_owned);
        let generated = || named.unwrap_or_else(|| format!("generated-{}", self.version));
        let name = target.name.clone().unwrap_or_else(generated);
        let namespace = target.namespace.clone().unwrap_or_default();
        let key: Key = (target.api.clone(), target.plural.clone(), namespace, name);
        let live = self.objects.get(&key);
        let uid = live.map(|live| live["metadata"]["uid"].clone());
        match *method {
            Method::POST if live.is_some() => Err(409),
            Method::POST => Ok(self.store(key, body)),
            Method::DELETE => {
                let wanted = &body["preconditions"]["uid"];
                match uid {
                    None => Err(404),
                    Some(uid) if !wanted.is_null() && *wanted != uid => Err(409),
                    Some(_) => Ok(self.delete(&key, body["gracePeriodSeconds"].as_u64())),
                }
            }
            Method::PUT => {
                let version = live.map(|live| &live["metadata"]["resourceVersion"]);
                match version {
                    None => Err(404),
                    Some(version) if *version != body["metadata"]["resourceVersion"] => Err(409),
                    Some(_) => Ok(self.store(key, body)),
                }
            }
            Method::PATCH => {
                let sub = target.sub.as_deref();
                if live.is_none() && (sub.is_some() || !is_apply) {
                    return Err(404);
                }
                let patch = match sub {
                    Some(sub) => json!({sub: body[sub]}),
                    None => body,
                };
                if is_apply {
                    let manager = asked.get("fieldManager").cloned().unwrap_or_default();
                    return self.apply(key, &manager, &patch);
                }
                let wanted = &patch["metadata"]["uid"];
                if !wanted.is_null() && Some(wanted) != uid.as_ref() {
                    return Err(422);
                }
                let mut object = self.objects[&key].clone();
                merge(&mut object, &patch, true);
                Ok(self.store(key, object))
            }
            _ => Err(405),
        }
    }
}

impl FakeCluster {
    fn read(&self, target: &Target, asked: &Asked) -> Response {
        let inside = self.inside();
        if let Some(key) = target.key() {
            return match inside.objects.get(&key) {
                Some(object) => Json(object.clone()).into_response(),
                None => failure(404),
            };
        }
        let items: Vec<&Value> = inside
            .objects
            .iter()
            .filter(|(key, object)| target.holds(key) && is_selected(object, asked))
            .map(|(_, object)| object)
            .collect();
        let version = inside.version.to_string();
        Json(json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}))
            .into_response()
    }

    /// Waits while that client is cut off.
    async fn reached_by(&self, client: &str) {
        let mut changed = self.changed.subscribe();
        while self.inside().cut_off.iter().any(|name| name == client) {
            // The sender lives as long as this cluster.
            let _ = changed.changed().await;
        }
    }

    fn watch(&self, target: Target, path: String, client: String, asked: &Asked) -> Response {
        let since: u64 = asked
            .get("resourceVersion")
            .and_then(|version| version.parse().ok())
            .unwrap_or(0);
        let start = (
            self.clone(),
            self.changed.subscribe(),
            since,
            target,
            asked.clone(),
        );
        let lines = stream::unfold(start, move |(fake, mut changed, since, target, asked)| {
            let (path, client) = (path.clone(), client.clone());
            async move {
                loop {
                    fake.reached_by(&client).await;
                    changed.borrow_and_update();
                    let (found, next) = {
                        let inside = fake.inside();
                        if inside.fault(&path, false).is_some() {
                            return None;
                        }
                        let mut lines = String::new();
                        for (version, word, key, object) in &inside.log {
                            if *version > since && target.holds(key) && is_selected(object, &asked)
                            {
                                lines
                                    .push_str(&json!({"type": word, "object": object}).to_string());
                                lines.push('\n');
                            }
                        }
                        (lines, inside.version)
                    };
                    if !found.is_empty() {
                        let line = Ok::<_, std::convert::Infallible>(found);
                        return Some((line, (fake, changed, next, target, asked)));
                    }
                    changed.changed().await.ok()?;
                }
            }
        });
        Body::from_stream(lines).into_response()
    }
}

fn discovery(api: OptionalApi) -> Value {
    let resources: Vec<Value> = api
        .kinds()
        .iter()
        .map(|kind| json!({"name": kind.plural, "singularName": "", "namespaced": true, "kind": kind.kind, "verbs": []}))
        .collect();
    json!({"kind": "APIResourceList", "groupVersion": api.group_version(), "resources": resources})
}

fn failure(code: u16) -> Response {
    (
        StatusCode::from_u16(code).expect("a status"),
        Json(failure_body(code)),
    )
        .into_response()
}
