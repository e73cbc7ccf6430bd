//! `/api/media/sfu`: viewers of one device that refer to each other. The first one is called its publisher, and
//! those after it its subscribers; all are viewers, and the device's media reaches them whoever came first.

use super::body::Body;
use super::caller;
use super::offered::{self, Asked, Wanted};
use super::sessions::{
    ANSWER_ANSWERS, CANDIDATE_ANSWERS, END_ANSWERS, add_candidate, end_of, ice_servers,
    take_answer, user,
};
use crate::api::error::media::MediaError;
use crate::api::openapi::Operation;
use crate::api::whip::check_grant;
use crate::api::{Names, device_name};
use crate::app::App;
use crate::auth::Principal;
use crate::clock::rfc3339;
use crate::devices::name_of;
use crate::registry::{Protocol, Record};
use crate::shard::CloseReason;
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::{delete, get, post};
use media_core::ids::SessionId;
use media_core::negotiated::Codec;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

const CREATED_SUBSCRIBER: &[(u16, &str)] = &[
    (200, "CreatedSubscriber"),
    (400, "Error"),
    (403, "Unauthorized"),
    (404, "Error"),
    (500, "Error"),
];

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        method: "post",
        path: "/api/media/sfu/publishers",
        summary: "Make a device's publisher, a viewer that subscribers refer to, or offer anew to it",
        query: &[],
        request: Some("CreatePublisher"),
        answers: &[
            (200, "CreatedPublisher"),
            (400, "Error"),
            (403, "Unauthorized"),
            (500, "Error"),
        ],
        handler: || post(create_publisher),
    },
    Operation {
        method: "get",
        path: "/api/media/sfu/publishers",
        summary: "Publishers that the token lets be seen",
        query: &[],
        request: None,
        answers: &[(200, "Publishers")],
        handler: || get(publishers),
    },
    Operation {
        method: "post",
        path: "/api/media/sfu/publishers/answer",
        summary: "Answer a publisher's offer; an unknown publisher is 500",
        query: &[],
        request: Some("PublisherAnswer"),
        answers: ANSWER_ANSWERS,
        handler: || post(answer_publisher),
    },
    Operation {
        method: "post",
        path: "/api/media/sfu/publishers/ice-candidate",
        summary: "Add a candidate of a publisher; an unknown publisher is 400",
        query: &[],
        request: Some("PublisherCandidate"),
        answers: CANDIDATE_ANSWERS,
        handler: || post(publisher_candidate),
    },
    Operation {
        method: "get",
        path: "/api/media/sfu/publishers/{id}",
        summary: "One publisher",
        query: &[],
        request: None,
        answers: &[(200, "Publisher"), (404, "Error")],
        handler: || get(publisher),
    },
    Operation {
        method: "delete",
        path: "/api/media/sfu/publishers/{id}",
        summary: "End a publisher and its subscribers",
        query: &[],
        request: None,
        answers: END_ANSWERS,
        handler: || delete(end_publisher),
    },
    Operation {
        method: "post",
        path: "/api/media/sfu/subscribers",
        summary: "Make a subscriber of a publisher; an unknown publisher is 500",
        query: &[],
        request: Some("CreateSubscriber"),
        answers: CREATED_SUBSCRIBER,
        handler: || post(create_subscriber),
    },
    Operation {
        method: "post",
        path: "/api/media/sfu/subscribers/by-device",
        summary: "Make a subscriber of a device's publisher",
        query: &[],
        request: Some("CreateSubscriberByDevice"),
        answers: CREATED_SUBSCRIBER,
        handler: || post(create_subscriber_by_device),
    },
    Operation {
        method: "post",
        path: "/api/media/sfu/subscribers/answer",
        summary: "Answer a subscriber's offer; an unknown subscriber is 500",
        query: &[],
        request: Some("SubscriberAnswer"),
        answers: ANSWER_ANSWERS,
        handler: || post(answer_subscriber),
    },
    Operation {
        method: "post",
        path: "/api/media/sfu/subscribers/ice-candidate",
        summary: "Add a candidate of a subscriber; an unknown subscriber is 400",
        query: &[],
        request: Some("SubscriberCandidate"),
        answers: CANDIDATE_ANSWERS,
        handler: || post(subscriber_candidate),
    },
    Operation {
        method: "get",
        path: "/api/media/sfu/subscribers/{id}",
        summary: "One subscriber",
        query: &[],
        request: None,
        answers: &[(200, "Subscriber"), (404, "Error")],
        handler: || get(subscriber),
    },
    Operation {
        method: "delete",
        path: "/api/media/sfu/subscribers/{id}",
        summary: "End a subscriber",
        query: &[],
        request: None,
        answers: END_ANSWERS,
        handler: || delete(end_subscriber),
    },
    Operation {
        method: "get",
        path: "/api/media/sfu/stats",
        summary: "Publishers that the token lets be seen, and how many subscribers they have",
        query: &[],
        request: None,
        answers: &[(200, "SfuStats")],
        handler: || get(stats),
    },
];

type Shared = State<Arc<App>>;
type Answer = Result<Json<Value>, MediaError>;
type Raw = axum::body::Body;

async fn create_publisher(State(app): Shared, headers: HeaderMap, body: Raw) -> Answer {
    let principal = caller(&app, &headers).await?;
    let mut body = Body::read("CreatePublisherRequest", body).await?;
    let device = body.required("deviceId", "DeviceID")?;
    let user = body.required("userId", "UserID")?;
    let codec = body.text("videoCodec")?;
    body.check()?;
    let device = principal.key_of(device_name(&device)?);
    check_grant(&app, Protocol::SfuPublisher, &principal, &device)?;
    offered::check_user(&app, &principal, &user)?;
    let is_h264: fn(&Codec) -> bool = |codec| matches!(codec, Codec::H264 { .. });
    let is_vp8: fn(&Codec) -> bool = |codec| *codec == Codec::Vp8;
    let wanted = Wanted {
        control: true,
        prefers: match &*codec {
            "" => None,
            "H264" => Some(is_h264),
            _ => Some(is_vp8),
        },
        ..stream(name_of(&device))
    };
    let (before, record, sdp) = {
        // Of two requests at once the second finds the first one's.
        let _one = app.naming.lock().await;
        // A device has one of each user of a subject, which gets the name of the one before.
        let mut publishers = publishers_of(&app, &device).into_iter();
        let before = publishers.find(|record| is_own(record, &principal, &user));
        let asked = Asked {
            protocol: Protocol::SfuPublisher,
            device: device.clone(),
            user,
            principal,
            name: before.as_ref().map(|before| name(before)),
            publisher: None,
        };
        let failed = |error| MediaError::internal("Failed to create publisher", Some(error));
        let (record, sdp) = offered::offer(&app, asked, wanted).map_err(failed)?;
        (before, record, sdp)
    };
    if let Some(before) = before {
        app.end_unasked(&before, CloseReason::Superseded, "session_delete")
            .await;
    }
    Ok(Json(json!({
        "publisherId": name(&record).to_string(),
        "deviceId": record.device_name(),
        "offer": {"type": "offer", "sdp": sdp},
        "iceServers": ice_servers(&app, record.id),
    })))
}

fn stream(device: &str) -> Wanted {
    Wanted {
        stream: format!("cloudphone-sfu-{device}"),
        control: false,
        prefers: None,
    }
}

async fn create_subscriber(State(app): Shared, headers: HeaderMap, body: Raw) -> Answer {
    let principal = caller(&app, &headers).await?;
    let mut body = Body::read("CreateSubscriberRequest", body).await?;
    let publisher = body.required("publisherId", "PublisherID")?;
    let user = body.required("userId", "UserID")?;
    body.check()?;
    offered::check_user(&app, &principal, &user)?;
    let known = publisher.parse().ok();
    let known = known.and_then(|name| app.registry.find_named(name));
    let known = known.filter(|r| r.protocol == Protocol::SfuPublisher);
    // One that may not be watched is answered as one that is not there.
    let granted =
        |r: &Arc<Record>| check_grant(&app, Protocol::SfuSubscriber, &principal, &r.device).is_ok();
    let Some(known) = known.filter(granted) else {
        let error = "Failed to create subscriber: publisher not found: publisher not found";
        return Err(MediaError::internal(&format!("{error}: {publisher}"), None));
    };
    subscribe(&app, &known, user, principal)
}

async fn create_subscriber_by_device(State(app): Shared, headers: HeaderMap, body: Raw) -> Answer {
    let principal = caller(&app, &headers).await?;
    let mut body = Body::read("CreateSubscriberByDeviceRequest", body).await?;
    let device = body.required("deviceId", "DeviceID")?;
    let user = body.required("userId", "UserID")?;
    body.check()?;
    let device = principal.key_of(device_name(&device)?);
    check_grant(&app, Protocol::SfuSubscriber, &principal, &device)?;
    offered::check_user(&app, &principal, &user)?;
    // The caller's own, before one that is connected, before the oldest.
    let known = publishers_of(&app, &device).into_iter();
    let known = known.min_by_key(|r| (!is_own(r, &principal, &user), !r.connected(), r.created));
    let none = || MediaError::not_found("No active publisher for this device");
    let known = known.ok_or_else(none)?;
    subscribe(&app, &known, user, principal)
}

fn subscribe(app: &App, publisher: &Record, user: String, principal: Principal) -> Answer {
    let asked = Asked {
        protocol: Protocol::SfuSubscriber,
        device: publisher.device.clone(),
        user,
        principal,
        name: None,
        publisher: Some(name(publisher)),
    };
    let failed = |error| MediaError::internal("Failed to create subscriber", Some(error));
    let offered = offered::offer(app, asked, stream(publisher.device_name()));
    let (record, sdp) = offered.map_err(failed)?;
    Ok(Json(json!({
        "subscriberId": record.id.to_string(),
        "publisherId": name(publisher).to_string(),
        "deviceId": record.device_name(),
        "offer": {"type": "offer", "sdp": sdp},
        "iceServers": ice_servers(app, record.id),
    })))
}

async fn answer_publisher(State(app): Shared, headers: HeaderMap, body: Raw) -> Answer {
    let principal = caller(&app, &headers).await?;
    let mut body = Body::read("SetPublisherAnswerRequest", body).await?;
    let name = body.required("publisherId", "PublisherID")?;
    let answer = body.description("answer")?;
    body.check()?;
    let record = offered::find(&app, Protocol::SfuPublisher, &name, &principal);
    take_answer(&app, record, answer).await
}

async fn answer_subscriber(State(app): Shared, headers: HeaderMap, body: Raw) -> Answer {
    let principal = caller(&app, &headers).await?;
    let mut body = Body::read("SetSubscriberAnswerRequest", body).await?;
    let name = body.required("subscriberId", "SubscriberID")?;
    let answer = body.description("answer")?;
    body.check()?;
    let record = offered::find(&app, Protocol::SfuSubscriber, &name, &principal);
    take_answer(&app, record, answer).await
}

async fn publisher_candidate(State(app): Shared, headers: HeaderMap, body: Raw) -> Answer {
    let principal = caller(&app, &headers).await?;
    let mut body = Body::read("AddPublisherICECandidateRequest", body).await?;
    let name = body.required("publisherId", "PublisherID")?;
    let line = body.candidate("candidate")?;
    body.check()?;
    let record = offered::find(&app, Protocol::SfuPublisher, &name, &principal);
    add_candidate(&app, record, line).await
}

async fn subscriber_candidate(State(app): Shared, headers: HeaderMap, body: Raw) -> Answer {
    let principal = caller(&app, &headers).await?;
    let mut body = Body::read("AddSubscriberICECandidateRequest", body).await?;
    let name = body.required("subscriberId", "SubscriberID")?;
    let line = body.candidate("candidate")?;
    body.check()?;
    let record = offered::find(&app, Protocol::SfuSubscriber, &name, &principal);
    add_candidate(&app, record, line).await
}

async fn publisher(State(app): Shared, Names(id): Names<String>, headers: HeaderMap) -> Answer {
    let principal = caller(&app, &headers).await?;
    let record = offered::find(&app, Protocol::SfuPublisher, &id, &principal);
    let record = record.ok_or_else(|| MediaError::not_found("Publisher not found"))?;
    Ok(Json(describe(&record, subscribers(&app, &record).len())))
}

async fn publishers(State(app): Shared, headers: HeaderMap) -> Answer {
    let principal = caller(&app, &headers).await?;
    let records = offered::list(&app, &[Protocol::SfuPublisher], &principal);
    let counts = subscriber_counts(&app);
    let publishers: Vec<Value> = records
        .iter()
        .map(|record| describe(record, count_of(&counts, record)))
        .collect();
    Ok(Json(
        json!({"total": publishers.len(), "publishers": publishers}),
    ))
}

fn describe(record: &Record, subscribers: usize) -> Value {
    json!({
        "id": name(record).to_string(),
        "deviceId": record.device_name(),
        "userId": user(record),
        "state": offered::state(record),
        "subscriberCount": subscribers,
        "createdAt": rfc3339(record.created_at),
    })
}

async fn end_publisher(State(app): Shared, Names(id): Names<String>, headers: HeaderMap) -> Answer {
    let principal = caller(&app, &headers).await?;
    let unknown = "Publisher not found";
    let record = offered::find(&app, Protocol::SfuPublisher, &id, &principal);
    let record = record.ok_or_else(|| MediaError::not_found(unknown))?;
    // A task of its own: its subscribers end with it also when the client hangs up.
    let ending = tokio::spawn(async move {
        let ended = end_of(&app, Some(record.clone()), unknown).await?;
        let mut subscribers = subscribers(&app, &record);
        // The device's media needs no publisher of this name: others go on.
        subscribers.retain(|r| principal.owns(&r.device, r.subject.as_deref()));
        for subscriber in subscribers {
            app.end_unasked(&subscriber, CloseReason::Normal, "session_delete")
                .await;
        }
        Ok(ended)
    });
    ending.await.expect("ending a publisher does not panic")
}

async fn subscriber(State(app): Shared, Names(id): Names<String>, headers: HeaderMap) -> Answer {
    let principal = caller(&app, &headers).await?;
    let record = offered::find(&app, Protocol::SfuSubscriber, &id, &principal);
    let record = record.ok_or_else(|| MediaError::not_found("Subscriber not found"))?;
    let publisher = record.older.as_ref().and_then(|older| older.publisher);
    Ok(Json(json!({
        "id": record.id.to_string(),
        "publisherId": publisher.map(|name| name.to_string()),
        "deviceId": record.device_name(),
        "userId": user(&record),
        "state": offered::state(&record),
        "createdAt": rfc3339(record.created_at),
    })))
}

async fn end_subscriber(
    State(app): Shared,
    Names(id): Names<String>,
    headers: HeaderMap,
) -> Answer {
    let principal = caller(&app, &headers).await?;
    let record = offered::find(&app, Protocol::SfuSubscriber, &id, &principal);
    end_of(&app, record, "Subscriber not found").await
}

async fn stats(State(app): Shared, headers: HeaderMap) -> Answer {
    let principal = caller(&app, &headers).await?;
    let records = offered::list(&app, &[Protocol::SfuPublisher], &principal);
    let counts = subscriber_counts(&app);
    let mut total = 0;
    let mut publishers = Vec::new();
    for record in &records {
        let count = count_of(&counts, record);
        total += count;
        publishers.push(json!({
            "id": name(record).to_string(),
            "deviceId": record.device_name(),
            "state": offered::state(record),
            "subscriberCount": count,
        }));
    }
    Ok(Json(json!({
        "totalPublishers": records.len(),
        "totalSubscribers": total,
        "publishers": publishers,
    })))
}

/// What clients call a session.
fn name(record: &Record) -> SessionId {
    record.older.as_ref().map_or(record.id, |older| older.name)
}

/// The publishers of a device that their names lead to: none that ends or gave its name to another.
fn publishers_of(app: &App, device: &str) -> Vec<Arc<Record>> {
    let mut records = app.registry.sessions();
    records.retain(|r| r.protocol == Protocol::SfuPublisher && *r.device == *device);
    records.retain(|r| {
        let named = app.registry.find_named(name(r));
        named.is_some_and(|named| named.id == r.id)
    });
    records
}

/// A subject may be a service that speaks for many users.
fn is_own(record: &Record, principal: &Principal, who: &str) -> bool {
    record.subject == principal.subject && user(record) == who
}

/// How many subscribers refer to each name.
fn subscriber_counts(app: &App) -> HashMap<SessionId, usize> {
    let mut counts = HashMap::new();
    for record in app.registry.sessions() {
        if let Some(name) = record.older.as_ref().and_then(|older| older.publisher) {
            *counts.entry(name).or_default() += 1;
        }
    }
    counts
}

fn count_of(counts: &HashMap<SessionId, usize>, publisher: &Record) -> usize {
    counts.get(&name(publisher)).copied().unwrap_or_default()
}

/// The subscribers of a publisher.
fn subscribers(app: &App, publisher: &Record) -> Vec<Arc<Record>> {
    let mut records = app.registry.sessions();
    let name = Some(name(publisher));
    records.retain(|r| r.older.as_ref().is_some_and(|o| o.publisher == name));
    records
}
