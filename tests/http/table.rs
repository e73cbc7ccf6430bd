//! A table of requests to the older API: what was sent, what should come and what came, each answer held against
//! the server's own document too.

use crate::requests::*;
use reqwest::Client;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt::Write as _;
use tests::MediaServer;

/// A request and what it is answered. In both, `{name}` stands for what an earlier row has kept as that name, and
/// `{answer name}` for a client's answer to such an offer.
pub struct Row {
    what: &'static str,
    request: (&'static str, &'static str),
    body: String,
    status: u16,
    /// JSON, in which `"*"` is any text that is not empty and `"v=0*"` one that begins so; or a text.
    expected: Value,
    /// Headers of the answer, filled like the body.
    headers: Vec<(&'static str, &'static str)>,
    /// The document has its body otherwise than it is taken.
    is_odd: bool,
    /// Members of the answer that later rows use, by JSON pointer.
    keep: &'static [(&'static str, &'static str)],
}

pub fn row(
    what: &'static str,
    request: (&'static str, &'static str),
    body: impl ToString,
    status: u16,
    expected: Value,
) -> Row {
    Row {
        what,
        request,
        body: body.to_string(),
        status,
        expected,
        headers: Vec::new(),
        is_odd: false,
        keep: &[],
    }
}

impl Row {
    pub fn keep(self, keep: &'static [(&'static str, &'static str)]) -> Row {
        Row { keep, ..self }
    }

    /// Its body is taken, as it was, though nobody should write it so.
    pub fn odd(self) -> Row {
        let is_odd = true;
        Row { is_odd, ..self }
    }

    /// What a header of the answer says.
    pub fn header(mut self, name: &'static str, value: &'static str) -> Row {
        self.headers.push((name, value));
        self
    }
}

/// Sends the rows in their order and shows all that came out otherwise.
pub struct Table<'a> {
    server: &'a MediaServer,
    token: Option<String>,
    pub kept: HashMap<&'static str, String>,
    /// What answers are held against; nothing where the token does not let it be read.
    document: Value,
    wrong: String,
    count: usize,
}

impl<'a> Table<'a> {
    pub fn new(server: &'a MediaServer, token: Option<String>) -> Self {
        Table {
            server,
            token,
            kept: HashMap::new(),
            document: Value::Null,
            wrong: String::new(),
            count: 0,
        }
    }

    pub async fn run(&mut self, rows: Vec<Row>) {
        self.document = self.read_document().await;
        for row in rows {
            self.count += 1;
            self.run_row(row).await;
        }
    }

    async fn read_document(&self) -> Value {
        let mut request = Client::new().get(self.server.url("/api/v1/openapi.json"));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = send(request).await;
        match response.status().as_u16() {
            200 => response.json().await.expect("JSON"),
            _ => Value::Null,
        }
    }

    async fn run_row(&mut self, row: Row) {
        let (method, path) = (row.request.0, self.fill(row.request.1));
        let body = self.fill(&row.body);
        let client = Client::builder().redirect(Policy::none()).build();
        // The service before took JSON whatever the header said.
        let mut request = client
            .expect("an HTTP client")
            .request(method.parse().expect("a method"), self.server.url(&path))
            .header(CONTENT_TYPE, "text/plain")
            .body(body.clone());
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let response = send(request).await;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let bytes = response.bytes().await.expect("a body");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let got = serde_json::from_str(&text).unwrap_or(Value::String(text));
        for (name, wanted) in &row.headers {
            let found = headers.get(*name).and_then(|value| value.to_str().ok());
            if found != Some(&*self.fill(wanted)) {
                let what = row.what;
                let _ = writeln!(self.wrong, "{what}\n  {name} is {found:?}, not {wanted}");
            }
        }
        let expected: Value =
            serde_json::from_str(&self.fill(&row.expected.to_string())).expect("JSON");
        if status != row.status || !matches(&expected, &got) {
            let _ = writeln!(
                self.wrong,
                "{}\n  {method} {path} {:.300}\n  expected {} {expected}\n  got      {status} {:.600}",
                row.what,
                body,
                row.status,
                got.to_string()
            );
        }
        if let Some(operation) = operation(&self.document, method, &path) {
            let at = format!("{}: {method} {path} {status}", row.what);
            if status == 200
                && !row.is_odd
                && let Some(schema) = request_schema(operation)
            {
                let body = serde_json::from_str(&body).expect("a body that was taken is JSON");
                takes(&self.document, schema, &body, &at);
            }
            answers(&self.document, operation, (status, &headers, &got), &at);
        }
        for (name, pointer) in row.keep {
            let value = got.pointer(pointer).and_then(Value::as_str);
            self.kept.insert(name, value.unwrap_or_default().to_owned());
        }
    }

    fn fill(&self, text: &str) -> String {
        let mut filled = text.to_owned();
        // In JSON, where line ends are written out; ids have none.
        let quoted = |text: &str| json!(text).to_string().trim_matches('"').to_owned();
        for (name, value) in &self.kept {
            filled = filled.replace(&format!("{{{name}}}"), &quoted(value));
            let answer = quoted(&answer_to(value));
            filled = filled.replace(&format!("{{answer {name}}}"), &answer);
        }
        filled
    }

    pub fn check(self, least: usize) {
        assert!(self.count >= least, "{} rows", self.count);
        assert!(self.wrong.is_empty(), "\n{}", self.wrong);
    }
}

/// What the document says of a request. A path that is written out comes before one with a name in it.
fn operation<'a>(document: &'a Value, method: &str, path: &str) -> Option<&'a Value> {
    let path = path.split('?').next().unwrap_or_default();
    let is = |template: &str| {
        let parts = || template.split('/').zip(path.split('/'));
        template.split('/').count() == path.split('/').count()
            && parts()
                .all(|(part, given)| part.starts_with('{') && !given.is_empty() || part == given)
    };
    let mut known: Vec<_> = document["paths"].as_object()?.iter().collect();
    known.retain(|(template, operations)| {
        is(template) && operations[method.to_lowercase()].is_object()
    });
    known.sort_by_key(|(template, _)| template.contains('{'));
    known
        .first()
        .map(|(_, operations)| &operations[method.to_lowercase()])
}

fn matches(expected: &Value, got: &Value) -> bool {
    match (expected, got) {
        (Value::String(pattern), Value::String(text)) => match pattern.strip_suffix('*') {
            Some(start) => text.starts_with(start) && !text.is_empty(),
            None => pattern == text,
        },
        (Value::Object(expected), Value::Object(got)) => {
            expected.len() == got.len()
                && expected
                    .iter()
                    .all(|(key, value)| got.get(key).is_some_and(|got| matches(value, got)))
        }
        (Value::Array(expected), Value::Array(got)) => {
            expected.len() == got.len() && expected.iter().zip(got).all(|(e, g)| matches(e, g))
        }
        _ => expected == got,
    }
}

/// What a client that takes all of an offer answers.
pub fn answer_to(offer: &str) -> String {
    let ours = ["a=ice-lite", "a=candidate", "a=ssrc", "a=msid"];
    let lines = offer
        .lines()
        .filter(|line| !ours.iter().any(|start| line.starts_with(start)));
    let lines = lines.map(|line| match line {
        "a=setup:actpass" => "a=setup:active\r\n".to_owned(),
        "a=sendonly" => "a=recvonly\r\n".to_owned(),
        line => format!("{line}\r\n"),
    });
    lines.collect()
}

pub fn required(request: &str, field: &str) -> String {
    format!(
        "Key: '{request}.{field}' Error:Field validation for '{field}' failed on the 'required' tag"
    )
}

pub fn error(text: &str) -> Value {
    json!({"error": text})
}

pub fn ok() -> Value {
    json!({"status": "ok"})
}

pub const CANDIDATE: &str =
    "candidate:842163049 1 udp 1677729535 192.0.2.1 50632 typ srflx raddr 0.0.0.0 rport 0";
pub const NOWHERE: &str = "00000000-0000-8000-8000-000000000000";

/// Asks every call that the document names, and holds each answer against it. Returns them with their statuses.
pub async fn every_call(server: &MediaServer, token: Option<&str>) -> Vec<(String, u16)> {
    let document = get(server, "/api/v1/openapi.json").await;
    let document: Value = document.json().await.expect("JSON");
    let mut asked = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let method = method.to_uppercase();
            let at = path.replace("{id}", NOWHERE).replace("{session}", NOWHERE);
            let verb = method.parse().expect("a method");
            let mut request = request(server, verb, &at, "application/json", "{}");
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let response = send(request).await;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let text = response.text().await.expect("a body");
            let at = format!("{method} {path}");
            assert_ne!((status, &*text), (404, "404 page not found"), "{at}");
            assert_ne!(status, 405, "{at}");
            let body = serde_json::from_str(&text).expect("JSON");
            answers(&document, operation, (status, &headers, &body), &at);
            asked.push((at, status));
        }
    }
    asked
}

/// Whether the document says of the operation that it is answered so.
fn answers(document: &Value, operation: &Value, got: (u16, &HeaderMap, &Value), at: &str) {
    let (status, headers, body) = got;
    let known = &operation["responses"][status.to_string()];
    assert!(known.is_object(), "{at}: {status} is not in the document");
    let Some(kinds) = known["content"].as_object() else {
        return assert_eq!(body, "", "{at}: {status} has no content");
    };
    let kind = headers.get(CONTENT_TYPE).map(|kind| kind.to_str());
    let kind = kind.and_then(Result::ok).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default();
    let content = kinds.get(kind);
    let content = content.unwrap_or_else(|| panic!("{at}: {status} is no {kind:?}: {known}"));
    if content["schema"].is_object() {
        conforms(document, &content["schema"], body, at);
    }
}

fn request_schema(operation: &Value) -> Option<&Value> {
    operation.pointer("/requestBody/content/application~1json/schema")
}

/// Whether a body that the server took is one that the document describes; it may have more, which nobody reads.
fn takes(document: &Value, schema: &Value, body: &Value, at: &str) {
    check(document, schema, body, at, true);
}

/// Types, values, members that must be there, and none that the schema does not name.
pub fn conforms(document: &Value, schema: &Value, body: &Value, at: &str) {
    check(document, schema, body, at, false);
}

fn check(document: &Value, schema: &Value, body: &Value, at: &str, may_have_more: bool) {
    if let Some(name) = schema["$ref"].as_str() {
        let schema = document.pointer(name.trim_start_matches('#'));
        return check(document, schema.expect(name), body, at, may_have_more);
    }
    if let Some(one_of) = schema["oneOf"].as_array() {
        let schema = one_of.iter().find(|one| {
            let is_text = one["type"] == "string";
            is_text == body.is_string()
        });
        let schema = schema.unwrap_or_else(|| panic!("{at}: {body} is none of {one_of:?}"));
        return check(document, schema, body, at, may_have_more);
    }
    let is = |kind: &Value| match kind.as_str() {
        Some("object") => body.is_object(),
        Some("array") => body.is_array(),
        Some("string") => body.is_string(),
        Some("integer") => body.is_u64(),
        Some("boolean") => body.is_boolean(),
        Some("number") => body.is_number(),
        Some("null") => body.is_null(),
        other => panic!("{other:?} at {at}"),
    };
    let right = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().any(is),
        kind => is(kind),
    };
    assert!(right, "{at}: {body} is no {schema}");
    if let Some(values) = schema["enum"].as_array() {
        assert!(values.contains(body), "{at}: {body} is none of {values:?}");
    }
    if let Some(value) = schema.get("const") {
        assert_eq!(body, value, "{at}");
    }
    let text = body.as_str().unwrap_or_default();
    match schema["format"].as_str() {
        None => {}
        Some("uuid") => {
            let parts: Vec<usize> = text.split('-').map(str::len).collect();
            let hex = text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit());
            assert!(hex && parts == [8, 4, 4, 4, 12], "{at}: {text} is no UUID");
        }
        Some("date-time") => {
            let shape = text
                .bytes()
                .map(|b| if b.is_ascii_digit() { b'0' } else { b });
            let shape: Vec<u8> = shape.filter(|b| *b != b'.').collect();
            let whole = shape.starts_with(b"0000-00-00T00:00:00") && shape.ends_with(b"Z");
            assert!(whole, "{at}: {text} is no time");
        }
        Some(other) => panic!("{at}: nobody looks at {other}"),
    }
    if let (Some(members), Some(fields)) = (schema["properties"].as_object(), body.as_object()) {
        for (name, value) in fields {
            match members.get(name) {
                Some(member) => {
                    let at = format!("{at} {name}");
                    check(document, member, value, &at, may_have_more);
                }
                None => assert!(may_have_more, "{at} has {name}"),
            }
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            assert!(
                fields.contains_key(name.as_str().expect("a name")),
                "{at} lacks {name}"
            );
        }
    }
    for item in body.as_array().into_iter().flatten() {
        check(document, &schema["items"], item, at, may_have_more);
    }
}
