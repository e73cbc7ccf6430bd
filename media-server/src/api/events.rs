//! Events of a viewer's session (draft-ietf-wish-whep-04, "Server Sent Events"): whether its device is
//! published, in which layers, and how many watch it.
//!
//! A POST opens a stream and a GET listens to it. What is told is the present state, and then each
//! change of it, looked at twice a second: so nothing has to be kept for a listener that is away or slow.

use super::error::ApiError;
use super::whip::find;
use super::{JSON, Names, check_rate, expect_type, principal, read_body};
use crate::app::App;
use crate::event_streams::{Kind, Opened};
use crate::registry::{DeviceView, Protocol, Record};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::stream;
use media_core::ids::SessionId;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior};

/// What the `Link` of the extension is known by.
const REL: &str = "urn:ietf:params:whep:ext:core:server-sent-events";
/// A change shows this late at most. Each look is a short lock.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Bitrates alone are told this often, in looks.
const BITRATES_EVERY: u32 = 10;

/// Routes of the extension.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/whep/{device}/{session}/sse", post(open))
        .route(
            "/whep/{device}/{session}/sse/{stream}",
            get(listen).delete(close),
        )
}

/// Advertises the resource of a viewer's session.
pub(super) fn link(record: &Record, response: &mut Response) {
    let (device, id) = (record.device_name(), record.id);
    let events = Kind::ALL.map(Kind::as_str).join(",");
    let link = format!("</whep/{device}/{id}/sse>; rel=\"{REL}\"; events=\"{events}\"");
    // A device's name and an id have no character that a header could not.
    if let Ok(link) = HeaderValue::try_from(link) {
        response.headers_mut().append(header::LINK, link);
    }
}

async fn open(
    State(app): State<Arc<App>>,
    Names(ids): Names<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let principal = principal(&app, &headers).await?;
    check_rate(&app, &principal)?;
    let record = find(&app, Protocol::Whep, &ids, &principal)?;
    let body = read_body(body).await?;
    let mut kinds = Kind::ALL.to_vec();
    if !body.is_empty() {
        expect_type(&headers, JSON)?;
        let wanted: Vec<String> =
            serde_json::from_slice(&body).map_err(|error| ApiError::Json(error.to_string()))?;
        // Others are of drafts to come.
        kinds.retain(|kind| wanted.iter().any(|name| name == kind.as_str()));
    }
    let name = URL_SAFE_NO_PAD.encode(app.random::<16>());
    if !app.event_streams.open(name.clone(), record.id, kinds) {
        app.metrics
            .count("media_bound_hits_total", &["event_streams"]);
        return Err(ApiError::EventStreams);
    }
    // It may have ended meanwhile, and then nobody would close the stream.
    if app.registry.find(record.id).is_none() {
        app.event_streams.close_session(record.id);
        return Err(ApiError::UnknownSession);
    }
    let location = format!("/whep/{}/{}/sse/{name}", record.device_name(), record.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)]).into_response())
}

/// Needs no token: an `EventSource` cannot send one. The name of the stream, which only its maker was
/// told, is as good.
async fn listen(
    State(app): State<Arc<App>>,
    Names((device, session, name)): Names<(String, String, String)>,
) -> Result<Response, ApiError> {
    let (record, opened) = session
        .parse::<SessionId>()
        .ok()
        .and_then(|id| app.registry.find(id))
        .filter(|record| record.device_name() == device)
        .and_then(|record| Some((record.clone(), app.event_streams.listen(&name, record.id)?)))
        .ok_or(ApiError::UnknownStream)?;
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let listener = Listener {
        app,
        name,
        opened,
        told: Told::new(&record),
        record,
        pending: VecDeque::new(),
        looks,
    };
    let events = stream::unfold(listener, |mut listener| async move {
        let event = listener.next().await?;
        Some((Ok::<_, Infallible>(event), listener))
    });
    // Proxies that collect an answer before they pass it on would never pass this one on.
    let unbuffered = [(HeaderName::from_static("x-accel-buffering"), "no")];
    let events = Sse::new(events).keep_alive(KeepAlive::default());
    Ok((unbuffered, events).into_response())
}

async fn close(
    State(app): State<Arc<App>>,
    Names((device, session, name)): Names<(String, String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let principal = principal(&app, &headers).await?;
    check_rate(&app, &principal)?;
    let record = find(&app, Protocol::Whep, &(device, session), &principal)?;
    if app.event_streams.close(&name, record.id) {
        Ok(StatusCode::OK)
    } else {
        Err(ApiError::UnknownStream)
    }
}

/// An answer under way.
struct Listener {
    app: Arc<App>,
    name: String,
    opened: Opened,
    record: Arc<Record>,
    told: Told,
    pending: VecDeque<(Kind, Value)>,
    looks: Interval,
}

impl Listener {
    /// The next event; `None` once the stream has ended or another listens.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((kind, data)) = self.pending.pop_front() {
                if self.opened.kinds.contains(&kind) {
                    let event = Event::default().event(kind.as_str());
                    return Some(event.data(data.to_string()));
                }
                continue;
            }
            self.looks.tick().await;
            let streams = &self.app.event_streams;
            if !streams.is_listener(&self.name, self.opened.listener) {
                return None;
            }
            let view = self.app.registry.device(&self.record.device);
            self.told.changes(view.as_ref(), &mut self.pending);
        }
    }
}

/// What a listener knows by now.
struct Told {
    /// Index of the m-line that layers are told of.
    line: usize,
    live: bool,
    viewers: Option<usize>,
    layers: Option<Vec<Layer>>,
    looks: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Layer {
    rid: Box<str>,
    size: (u16, u16),
    live: bool,
    bitrate: u64,
}

impl Told {
    fn new(record: &Record) -> Told {
        Told {
            line: record.video.as_ref().map_or(0, |line| line.index),
            live: false,
            viewers: None,
            layers: None,
            looks: 0,
        }
    }

    /// What the state has of news.
    fn changes(&mut self, view: Option<&DeviceView>, news: &mut VecDeque<(Kind, Value)>) {
        let publisher = view
            .and_then(|view| view.publisher.as_deref())
            .filter(|p| p.connected());
        let live = publisher.is_some();
        if std::mem::replace(&mut self.live, live) != live {
            let kind = if live { Kind::Active } else { Kind::Inactive };
            news.push_back((kind, json!({})));
        }
        let layers = publisher.map(layers).unwrap_or_default();
        let known = self.layers.as_deref();
        let same = match known {
            Some(known) => same_but_bitrates(known, &layers),
            // A device without layers has nothing to tell.
            None => layers.is_empty(),
        };
        let due = self.looks.is_multiple_of(BITRATES_EVERY) && !layers.is_empty();
        if !same || due && known.is_some_and(|known| *known != *layers) {
            news.push_back((Kind::Layers, describe(self.line, &layers)));
            self.layers = Some(layers);
        }
        let viewers = view.map_or(0, |view| view.viewers);
        if self.viewers.replace(viewers) != Some(viewers) {
            news.push_back((Kind::ViewerCount, json!({ "viewercount": viewers })));
        }
        self.looks = self.looks.wrapping_add(1);
    }
}

fn layers(publisher: &Record) -> Vec<Layer> {
    let indexed = publisher.rids.iter().enumerate();
    let layers = indexed.map(|(index, rid)| {
        let (width, height, bitrate) = publisher.cells.layer(index);
        Layer {
            rid: rid.clone(),
            size: (width, height),
            live: bitrate > 0,
            bitrate,
        }
    });
    layers.collect()
}

fn same_but_bitrates(known: &[Layer], new: &[Layer]) -> bool {
    let facts = |layer: &Layer| (layer.rid.clone(), layer.size, layer.live);
    known.iter().map(facts).eq(new.iter().map(facts))
}

/// Drafts call a layer's name by either member.
fn describe(line: usize, layers: &[Layer]) -> Value {
    let describe = |layer: &Layer| {
        let mut value = json!({ "rid": layer.rid, "encodingId": layer.rid });
        if layer.size != (0, 0) {
            value["width"] = json!(layer.size.0);
            value["height"] = json!(layer.size.1);
        }
        if layer.live {
            value["bitrate"] = json!(layer.bitrate);
        }
        value
    };
    let layers: Vec<Value> = layers.iter().map(describe).collect();
    json!({ line.to_string(): layers })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;
    use crate::registry::tests::record;

    fn news(told: &mut Told, view: Option<&DeviceView>) -> Vec<(&'static str, String)> {
        let mut news = VecDeque::new();
        told.changes(view, &mut news);
        let text = |(kind, data): (Kind, Value)| (kind.as_str(), data.to_string());
        news.into_iter().map(text).collect()
    }

    fn own(news: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        let own = |(kind, data): &(&'static str, &str)| (*kind, (*data).to_owned());
        news.iter().map(own).collect()
    }

    #[test]
    fn the_state_is_told_once_and_then_its_changes() {
        let registry = Registry::new(10, 10, 10);
        let publisher = record(1, Protocol::Whip, "cam");
        registry.admit(&publisher).expect("room");
        registry.connected(publisher.id).expect("known");
        let viewer = record(2, Protocol::Whep, "cam");
        registry.admit(&viewer).expect("live");
        let mut told = Told::new(&viewer);
        let first = own(&[("active", "{}"), ("viewercount", "{\"viewercount\":1}")]);
        assert_eq!(news(&mut told, registry.device("cam").as_ref()), first);
        assert_eq!(news(&mut told, registry.device("cam").as_ref()), []);
        let second = record(3, Protocol::Whep, "cam");
        registry.admit(&second).expect("live");
        let more = own(&[("viewercount", "{\"viewercount\":2}")]);
        assert_eq!(news(&mut told, registry.device("cam").as_ref()), more);
        registry.remove(publisher.id).expect("known");
        let gone = own(&[("inactive", "{}")]);
        assert_eq!(news(&mut told, registry.device("cam").as_ref()), gone);
    }

    #[test]
    fn a_device_that_nobody_publishes_is_not_told_as_inactive_first() {
        let viewer = record(2, Protocol::Whep, "cam");
        let mut told = Told::new(&viewer);
        assert_eq!(
            news(&mut told, None),
            own(&[("viewercount", "{\"viewercount\":0}")])
        );
    }

    #[test]
    fn a_stopped_layer_has_no_bitrate_and_an_unknown_size_is_left_out() {
        let layer = |rid: &str, width, bitrate| Layer {
            rid: rid.into(),
            size: (width, width / 2),
            live: bitrate > 0,
            bitrate,
        };
        let told = describe(1, &[layer("f", 1280, 900_000), layer("h", 0, 0)]);
        let expected = json!({"1": [
            {"rid": "f", "encodingId": "f", "width": 1280, "height": 640, "bitrate": 900_000},
            {"rid": "h", "encodingId": "h"},
        ]});
        assert_eq!(told, expected);
    }
}
