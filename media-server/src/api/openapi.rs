//! `GET /api/v1/openapi.json`: what `/api/v1` and the older `/api/media` take and answer (OpenAPI 3.1).
//!
//! One table per surface has each operation with its handler: routes are made of it, and so is the document,
//! which can't name what is not served. Schemas are in `openapi/schemas.json`. Holds no state.

use super::{media, sessions};
use crate::app::App;
use axum::Router;
use axum::routing::MethodRouter;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// One method of one path.
pub(super) struct Operation {
    /// In lower case, as the document has it.
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    pub(super) query: &'static [Parameter],
    /// Schema of the JSON that it takes.
    pub(super) request: Option<&'static str>,
    /// Schema of each answer, beside those that all calls have; of those in text or without a body, none: `""`.
    pub(super) answers: &'static [(u16, &'static str)],
    pub(super) handler: fn() -> MethodRouter<Arc<App>>,
}

/// In the place of a schema: the answer is a recording's file.
pub(super) const FILE: &str = "file";

/// A text in the query, which may be left out. What reads the query names it by this too.
#[derive(Clone, Copy)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
}

/// Routes of a table.
pub(super) fn routes(operations: &[Operation]) -> Router<Arc<App>> {
    operations.iter().fold(Router::new(), |router, operation| {
        router.route(operation.path, (operation.handler)())
    })
}

/// Whether a path is one that the operation takes.
pub(super) fn takes(operation: &Operation, path: &str) -> bool {
    let same = |(template, part): (&str, &str)| template.starts_with('{') || template == part;
    operation.path.split('/').count() == path.split('/').count()
        && operation.path.split('/').zip(path.split('/')).all(same)
}

/// The document.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for operation in sessions::OPERATIONS
        .iter()
        .chain(media::OPERATIONS.iter().copied().flatten())
    {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = describe(operation);
    }
    let schemas: Value =
        serde_json::from_str(include_str!("openapi/schemas.json")).expect("the schemas are JSON");
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "media-server",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "/api/v1 is for people and scripts. /api/media is the API of the service that this \
                            one replaces, kept as it was; new clients use WHIP and WHEP.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
        "security": [{"token": []}],
    })
}

/// Calls whose refusals look alike.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Surface {
    Document,
    Own,
    Recordings,
    Older,
}

impl Surface {
    fn of(path: &str) -> Surface {
        match path {
            "/api/v1/openapi.json" => Surface::Document,
            path if path.starts_with("/api/v1/") => Surface::Own,
            path if path.starts_with("/api/media/recordings") => Surface::Recordings,
            _ => Surface::Older,
        }
    }

    fn needs_no_token(self) -> bool {
        self == Surface::Document
    }

    /// What any call may be answered: its token is not right, its subject asks too fast, or the server has no keys
    /// or no room; and one with a body, that it is late or long.
    fn refusals(self, operation: &Operation) -> Vec<(u16, &'static str)> {
        let (token, other) = match self {
            Surface::Document => return Vec::new(),
            Surface::Own => ("Problem", "Problem"),
            Surface::Recordings => ("RecordingError", "RecordingError"),
            Surface::Older => ("Unauthorized", "Error"),
        };
        let mut refusals = vec![(401, token), (503, other)];
        // Reading `/api/v1` is not counted.
        if self != Surface::Own {
            refusals.push((429, other));
        }
        if operation.request.is_some() {
            refusals.extend([(408, other), (413, other)]);
        }
        refusals
    }
}

fn describe(operation: &Operation) -> Value {
    let json_of = |schema: &str| json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}});
    let names = operation.path.split('/');
    let names = names.filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let of_path = names.map(
        |name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}),
    );
    let of_query = operation.query.iter().map(|Parameter { name, description }| {
        json!({"name": name, "in": "query", "description": description, "schema": {"type": "string"}})
    });
    let parameters: Vec<Value> = of_path.chain(of_query).collect();
    let surface = Surface::of(operation.path);
    let mut answers = Map::new();
    for (status, schema) in operation.answers.iter().chain(&surface.refusals(operation)) {
        let description = axum::http::StatusCode::from_u16(*status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or_default();
        let mut answer = json!({"description": description});
        match *schema {
            "" => {}
            FILE => answer["content"] = json!({"video/webm": {}, "video/mp4": {}}),
            "Problem" => {
                let schema = json!({"$ref": "#/components/schemas/Problem"});
                answer["content"] = json!({"application/problem+json": {"schema": schema}});
            }
            schema => answer["content"] = json_of(schema),
        }
        answers.insert(status.to_string(), answer);
    }
    let mut described = json!({"summary": operation.summary, "responses": answers});
    if surface.needs_no_token() {
        described["security"] = json!([]);
    }
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    if let Some(schema) = operation.request {
        described["requestBody"] = json!({"required": true, "content": json_of(schema)});
    }
    described
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_that_is_named_is_there_and_every_one_is_named() {
        let document = document();
        let text = document.to_string();
        let schemas = document["components"]["schemas"].as_object();
        let schemas = schemas.expect("schemas");
        let referred: Vec<&str> = text
            .split("#/components/schemas/")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .collect();
        for name in &referred {
            assert!(schemas.contains_key(*name), "{name}");
        }
        for name in schemas.keys() {
            assert!(referred.contains(&name.as_str()), "{name} is of no use");
        }
    }

    #[test]
    fn a_path_is_taken_by_the_operation_with_its_parts() {
        let of = |path| Operation {
            method: "get",
            path,
            summary: "",
            query: &[],
            request: None,
            answers: &[],
            handler: MethodRouter::new,
        };
        assert!(takes(&of("/a/{id}"), "/a/b"));
        assert!(takes(&of("/a/b"), "/a/b"));
        assert!(!takes(&of("/a/b"), "/a/c"));
        assert!(!takes(&of("/a/{id}"), "/a/b/c"));
        assert!(!takes(&of("/a/{id}"), "/a"));
    }
}
