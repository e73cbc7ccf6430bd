//! Strings whose length the schema bounds. Types only.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A string of at most 253 characters: bounded so that the API server can bound the cost of a rule over
/// a list of them.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
#[serde(transparent)]
pub struct BoundedString(pub String);

impl JsonSchema for BoundedString {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "BoundedString".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "maxLength": 253})
    }
}
