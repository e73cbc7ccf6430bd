//! A table of requests to the older API: what was sent, what should come and what came, each answer held against
//! the server's own document too.

use crate::requests::*;
use reqwest::Client;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
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
        keep: &[],
    }
}

impl Row {
    pub fn keep(self, keep: &'static [(&'static str, &'static str)]) -> Row {
        Row { keep, ..self }
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
        let text = response.text().await.expect("a body");
        let got = serde_json::from_str(&text).unwrap_or(Value::String(text));
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
            let known = &operation["responses"][status.to_string()];
            assert!(known.is_object(), "{at} is not in the document");
            let schema = &known["content"]["application/json"]["schema"];
            conforms(&self.document, schema, &got, &at);
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

/// Types, members that must be there, and none that the schema does not name.
pub fn conforms(document: &Value, schema: &Value, body: &Value, at: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        let schema = document.pointer(name.trim_start_matches('#'));
        return conforms(document, schema.expect(name), body, at);
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
    if let (Some(members), Some(fields)) = (schema["properties"].as_object(), body.as_object()) {
        for (name, value) in fields {
            let member = members
                .get(name)
                .unwrap_or_else(|| panic!("{at} has {name}"));
            conforms(document, member, value, &format!("{at} {name}"));
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            assert!(
                fields.contains_key(name.as_str().expect("a name")),
                "{at} lacks {name}"
            );
        }
    }
    for item in body.as_array().into_iter().flatten() {
        conforms(document, &schema["items"], item, at);
    }
}
