//! Request bodies of the older API, read as the service before read them: JSON whatever the header says, fields
//! by name without regard to case, unknown ones left alone, and what is wrong told in the words of Go's decoder
//! and validator. Knows no session.

use crate::api::error::ApiError;
use crate::api::read_body;
use serde_json::{Deserializer, Map, Value};

/// Why a body is not taken.
#[derive(Debug)]
pub enum BodyError {
    /// It is not what the request takes, in the words of Go's decoder or validator.
    Invalid(String),
    /// It could not be read.
    Read(ApiError),
}

/// A JSON object that stands for a request of Go's, `name` in messages.
pub(in crate::api) struct Body {
    name: &'static str,
    fields: Map<String, Value>,
    /// What the validator says of fields that are not there.
    missing: Vec<String>,
}

/// A description as JavaScript has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::api) struct Description {
    /// In lower case; empty where it is missing.
    pub(in crate::api) kind: String,
    pub(in crate::api) sdp: String,
}

impl Body {
    pub(in crate::api) async fn read(
        name: &'static str,
        body: axum::body::Body,
    ) -> Result<Body, BodyError> {
        let bytes = read_body(body).await.map_err(BodyError::Read)?;
        Self::parse(name, &bytes)
    }

    pub(in crate::api) fn parse(name: &'static str, bytes: &[u8]) -> Result<Body, BodyError> {
        // What comes after the first value nobody reads.
        let fields = match Deserializer::from_slice(bytes).into_iter::<Value>().next() {
            None => return Err(invalid("EOF")),
            Some(Err(error)) if error.is_eof() => return Err(invalid("unexpected EOF")),
            Some(Err(error)) => {
                let first = bytes
                    .trim_ascii_start()
                    .first()
                    .copied()
                    .unwrap_or_default();
                let begins = first.is_ascii_digit() || b"{[\"-tfn".contains(&first);
                return Err(match begins {
                    true => BodyError::Invalid(error.to_string()),
                    false => BodyError::Invalid(format!(
                        "invalid character {:?} looking for beginning of value",
                        char::from(first)
                    )),
                });
            }
            Some(Ok(Value::Object(fields))) => fields,
            Some(Ok(Value::Null)) => Map::new(),
            Some(Ok(other)) => {
                return Err(BodyError::Invalid(format!(
                    "json: cannot unmarshal {} into Go value of type handlers.{name}",
                    kind(&other)
                )));
            }
        };
        Ok(Body {
            name,
            fields,
            missing: Vec::new(),
        })
    }

    /// A text; empty where it is missing.
    pub(in crate::api) fn text(&self, field: &str) -> Result<String, BodyError> {
        text(&self.fields, field).map_err(|found| self.mismatch(&found, field, "string"))
    }

    /// A text that must not be empty; `go` is its name in messages of the validator.
    pub(in crate::api) fn required(&mut self, field: &str, go: &str) -> Result<String, BodyError> {
        let text = self.text(field)?;
        if text.is_empty() {
            self.miss(go);
        }
        Ok(text)
    }

    /// A whole number; 0 where it is missing.
    pub(in crate::api) fn integer(&self, field: &str) -> Result<i64, BodyError> {
        match find(&self.fields, field) {
            None => Ok(0),
            Some(Value::Number(number)) => number
                .as_i64()
                .ok_or_else(|| self.mismatch(&format!("number {number}"), field, "int")),
            Some(other) => Err(self.mismatch(kind(other), field, "int")),
        }
    }

    /// Whether all that must be there was.
    pub(in crate::api) fn check(&self) -> Result<(), BodyError> {
        match self.missing.is_empty() {
            true => Ok(()),
            false => Err(BodyError::Invalid(self.missing.join("\n"))),
        }
    }

    /// A description; empty where it is missing, which the validator never noticed.
    pub(in crate::api) fn description(&self, field: &str) -> Result<Description, BodyError> {
        let empty = Map::new();
        let fields = match find(&self.fields, field) {
            None => &empty,
            Some(Value::Object(fields)) => fields,
            Some(other) => {
                return Err(self.mismatch(kind(other), field, "webrtc.SessionDescription"));
            }
        };
        let type_path = format!("{field}.type");
        let stated = text(fields, "type").map_err(|f| self.mismatch(&f, &type_path, "string"))?;
        let stated = stated.to_ascii_lowercase();
        let is_known = ["offer", "pranswer", "answer", "rollback"].contains(&&*stated);
        if !is_known && find(fields, "type").is_some() {
            return Err(invalid("unknown"));
        }
        let sdp_path = format!("{field}.sdp");
        let sdp = text(fields, "sdp").map_err(|f| self.mismatch(&f, &sdp_path, "string"))?;
        Ok(Description { kind: stated, sdp })
    }

    /// The text of a description, which may also stand there alone; `None` where it is missing.
    pub(in crate::api) fn sdp(&self, field: &str) -> Result<Option<String>, BodyError> {
        match find(&self.fields, field) {
            None => Ok(None),
            Some(Value::String(sdp)) => Ok(Some(sdp.clone())),
            Some(_) => Ok(Some(self.description(field)?.sdp)),
        }
    }

    /// The candidate line of one candidate; empty, as at their end, where it is missing.
    pub(in crate::api) fn candidate(&self, field: &str) -> Result<String, BodyError> {
        match find(&self.fields, field) {
            None => Ok(String::new()),
            Some(candidate) => self.line(candidate, field),
        }
    }

    /// The candidate lines of a list, which must be there; `go` is its name in messages of the validator.
    pub(in crate::api) fn candidates(
        &mut self,
        field: &str,
        go: &str,
    ) -> Result<Vec<String>, BodyError> {
        let Some(list) = find(&self.fields, field) else {
            self.miss(go);
            return Ok(Vec::new());
        };
        let Value::Array(list) = list else {
            return Err(self.mismatch(kind(list), field, "[]webrtc.ICECandidateInit"));
        };
        list.iter()
            .map(|candidate| self.line(candidate, field))
            .collect()
    }

    fn line(&self, candidate: &Value, field: &str) -> Result<String, BodyError> {
        let Value::Object(fields) = candidate else {
            return Err(self.mismatch(kind(candidate), field, "webrtc.ICECandidateInit"));
        };
        let path = format!("{field}.candidate");
        text(fields, "candidate").map_err(|found| self.mismatch(&found, &path, "string"))
    }

    fn miss(&mut self, go: &str) {
        self.missing.push(format!(
            "Key: '{}.{go}' Error:Field validation for '{go}' failed on the 'required' tag",
            self.name
        ));
    }

    fn mismatch(&self, found: &str, field: &str, wanted: &str) -> BodyError {
        BodyError::Invalid(format!(
            "json: cannot unmarshal {found} into Go struct field {}.{field} of type {wanted}",
            self.name
        ))
    }
}

fn invalid(error: &str) -> BodyError {
    BodyError::Invalid(error.to_owned())
}

/// A field by its name, else by its name in other letters; what is null is not there.
fn find<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let alike = || {
        fields
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
    };
    let found = fields.get(name).or_else(|| alike().map(|(_, value)| value));
    found.filter(|value| !value.is_null())
}

/// A text; of something else, what it is.
fn text(fields: &Map<String, Value>, name: &str) -> Result<String, String> {
    match find(fields, name) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(kind(other).to_owned()),
    }
}

/// What Go calls it.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Body, String> {
        Body::parse("CreateSessionRequest", text.as_bytes()).map_err(told)
    }

    fn told(error: BodyError) -> String {
        match error {
            BodyError::Invalid(text) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_no_json_object_is_told_as_go_told_it() {
        for (text, says) in [
            ("", "EOF"),
            ("  \n", "EOF"),
            ("{", "unexpected EOF"),
            ("{\"a\":", "unexpected EOF"),
            (
                "hello",
                "invalid character 'h' looking for beginning of value",
            ),
            (
                "[]",
                "json: cannot unmarshal array into Go value of type handlers.CreateSessionRequest",
            ),
        ] {
            assert_eq!(read(text).map(drop), Err(says.to_owned()), "{text}");
        }
        assert!(read("{} trailing").is_ok());
    }

    #[test]
    fn missing_fields_are_told_together_and_a_wrong_type_at_once() {
        let mut body = read(r#"{"deviceId":"","userId":null}"#).expect("an object");
        body.required("deviceId", "DeviceID").expect("a text");
        body.required("userId", "UserID").expect("a text");
        assert_eq!(
            body.check().map_err(told),
            Err(
                "Key: 'CreateSessionRequest.DeviceID' Error:Field validation for 'DeviceID' \
                 failed on the 'required' tag\nKey: 'CreateSessionRequest.UserID' Error:Field \
                 validation for 'UserID' failed on the 'required' tag"
                    .to_owned()
            )
        );
        let mut body = read(r#"{"deviceId":1}"#).expect("an object");
        assert_eq!(
            body.required("deviceId", "DeviceID").map_err(told),
            Err("json: cannot unmarshal number into Go struct field \
                 CreateSessionRequest.deviceId of type string"
                .to_owned())
        );
    }

    #[test]
    fn a_whole_number_is_one() {
        let of = |text: &str| {
            let body = read(&format!(r#"{{"n":{text}}}"#)).expect("an object");
            body.integer("n").map_err(told)
        };
        let mismatch = |found: &str| {
            let field = "Go struct field CreateSessionRequest.n of type int";
            Err(format!("json: cannot unmarshal {found} into {field}"))
        };
        assert_eq!(of("-3"), Ok(-3));
        assert_eq!(of("null"), Ok(0));
        assert_eq!(of("1.5"), mismatch("number 1.5"));
        assert_eq!(of(r#""1""#), mismatch("string"));
    }

    #[test]
    fn names_of_fields_are_the_same_in_other_letters() {
        let body = read(r#"{"DEVICEID":"x","deviceid":"y"}"#).expect("an object");
        assert_eq!(body.text("deviceId").map_err(told), Ok("x".to_owned()));
    }

    #[test]
    fn a_description_has_a_known_type_or_none() {
        let of = |text: &str| {
            let body = read(&format!(r#"{{"answer":{text}}}"#)).expect("an object");
            let description = body.description("answer").map_err(told);
            description.map(|description| (description.kind, description.sdp))
        };
        let pair = |kind: &str, sdp: &str| Ok((kind.to_owned(), sdp.to_owned()));
        assert_eq!(
            of(r#"{"type":"ANSWER","sdp":"v=0"}"#),
            pair("answer", "v=0")
        );
        assert_eq!(of("null"), pair("", ""));
        assert_eq!(of(r#"{"sdp":"v=0"}"#), pair("", "v=0"));
        assert_eq!(of(r#"{"type":"x","sdp":"v=0"}"#), Err("unknown".to_owned()));
        assert_eq!(of(r#"{"type":"","sdp":"v=0"}"#), Err("unknown".to_owned()));
        let text = of(r#""v=0""#).expect_err("a text");
        assert!(text.contains("string into Go struct field CreateSessionRequest.answer"));
    }

    #[test]
    fn a_list_of_candidates_may_be_empty_and_must_be_there() {
        let mut body = read(r#"{"candidates":[]}"#).expect("an object");
        let list = body.candidates("candidates", "Candidates").map_err(told);
        assert_eq!(list, Ok(Vec::new()));
        assert!(body.check().is_ok());
        let mut body = read("{}").expect("an object");
        body.candidates("candidates", "Candidates").expect("none");
        assert!(body.check().is_err());
        let mut body = read(r#"{"candidates":[{"candidate":"a"},{"sdpMid":"0"}]}"#).expect("one");
        let list = body.candidates("candidates", "Candidates").map_err(told);
        assert_eq!(list, Ok(vec!["a".to_owned(), String::new()]));
    }
}
