//! Fetches nothing and applies nothing: validate and build for `operator render` and for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::build::{self, Built, Children};
use super::fetch::{Fetched, Live, Nodes};
use super::validate::{self, ValidService, ValidateError};
use crate::capabilities::{Availability, Served};
use crate::crd::MediaService;

/// Used by `operator render` and tests: what `fetch` finds in a cluster without any of our objects.
pub fn offline(service: MediaService, default_image: String) -> Fetched {
    Fetched {
        service: Arc::new(service),
        live: Live::default(),
        pods: Vec::new(),
        nodes: Nodes::Known(BTreeMap::new()),
        served: Served::all(Availability::Present),
        warnings: Vec::new(),
        unresolved: Vec::new(),
        default_image,
        operator_namespace: String::new(),
    }
}

/// Validates and builds without a cluster.
///
/// # Errors
/// What `validate` finds wrong.
pub fn build_offline(fetched: &Fetched) -> Result<(ValidService, Children<Built>), ValidateError> {
    let valid = validate::validate(fetched)?;
    let children = build::build(&valid);
    Ok((valid, children))
}
