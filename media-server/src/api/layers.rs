//! The layer resource of a viewer's session (draft-ietf-wish-whep-04, "Video Layer Selection"): which
//! simulcast layer of the device it gets.
//!
//! POST asks for one, DELETE leaves the choice to the server again. Holds no state: the choice is the
//! session's, on its shard. Also the `Link` that advertises it.

use super::error::ApiError;
use super::whip::find;
use super::{JSON, Names, check_rate, expect_type, principal, read_body};
use crate::app::App;
use crate::registry::{Protocol, Record};
use crate::shard::LayerPin;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::post;
use serde::Deserialize;
use std::sync::Arc;

/// What the `Link` of the extension is known by.
const REL: &str = "urn:ietf:params:whep:ext:core:layer";

/// Routes of the extension.
pub fn routes() -> Router<Arc<App>> {
    Router::new().route(
        "/whep/{device}/{session}/layer",
        post(select).delete(release),
    )
}

/// Advertises the resource of a viewer's session.
pub(super) fn link(record: &Record, response: &mut Response) {
    let (device, id) = (record.device_name(), record.id);
    let link = format!("</whep/{device}/{id}/layer>; rel=\"{REL}\"");
    // A device's name and an id have no character that a header could not.
    if let Ok(link) = HeaderValue::try_from(link) {
        response.headers_mut().append(header::LINK, link);
    }
}

/// What a viewer asks for. Drafts call the layer by either name; this server knows no spatial layers
/// within one stream, and refuses what it would not do.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selection {
    /// Index of an m-line of the session, or its MID.
    media_id: Option<String>,
    /// RID of a layer.
    #[serde(alias = "rid")]
    encoding_id: Option<String>,
    #[serde(alias = "temporalLayerId")]
    max_temporal_layer_id: Option<u8>,
}

async fn select(
    State(app): State<Arc<App>>,
    Names(ids): Names<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let principal = principal(&app, &headers).await?;
    check_rate(&app, &principal)?;
    let record = find(&app, Protocol::Whep, &ids, &principal)?;
    expect_type(&headers, JSON)?;
    let body = read_body(body).await?;
    let selection: Selection =
        serde_json::from_slice(&body).map_err(|error| ApiError::Json(error.to_string()))?;
    if let Some(media) = &selection.media_id
        && !record.video.as_ref().is_some_and(|line| line.is(media))
    {
        return Err(ApiError::UnknownMedia);
    }
    if let Some(rid) = &selection.encoding_id {
        let layers = app.registry.layers(&record.device);
        if !layers.iter().any(|known| **known == **rid) {
            return Err(ApiError::UnknownLayer {
                known: layers.join(", "),
            });
        }
    }
    let pin = LayerPin {
        rid: selection.encoding_id.map(Into::into),
        max_temporal: selection.max_temporal_layer_id,
    };
    change(&app, &record, pin).await
}

async fn release(
    State(app): State<Arc<App>>,
    Names(ids): Names<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let principal = principal(&app, &headers).await?;
    check_rate(&app, &principal)?;
    let record = find(&app, Protocol::Whep, &ids, &principal)?;
    change(&app, &record, LayerPin::default()).await
}

async fn change(app: &App, record: &Record, pin: LayerPin) -> Result<StatusCode, ApiError> {
    let known = app.shards.pin_layer(record.id, pin).await;
    if known.map_err(ApiError::Busy)? {
        Ok(StatusCode::OK)
    } else {
        // It ended by itself a moment ago.
        Err(ApiError::UnknownSession)
    }
}
