//! SDP fragments of trickle ICE (RFC 8840 §9): what a PATCH carries.

use super::{MAX_CANDIDATES, MAX_LINE_BYTES, MAX_SDP_BYTES};

/// A fragment: the generation it belongs to, and its candidates, which are counted and never dialled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fragment {
    pub ufrag: Option<String>,
    pub pwd: Option<String>,
    /// Candidates that could be used; others are dropped silently (RFC 9725 §4.3.1).
    pub candidates: u32,
    pub end_of_candidates: bool,
}

/// Why a body is no fragment; the text is for the client's author.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FragmentError(String);

impl Fragment {
    /// Reads a fragment.
    ///
    /// # Errors
    /// [`FragmentError`] for a body that is no fragment, or beyond a limit of [`super`].
    pub fn parse(body: &[u8]) -> Result<Fragment, FragmentError> {
        if body.len() > MAX_SDP_BYTES {
            return Err(error(format!(
                "the body has {} bytes; at most {MAX_SDP_BYTES} are taken",
                body.len()
            )));
        }
        let text = std::str::from_utf8(body)
            .map_err(|_| error("the body is no SDP fragment: it is not UTF-8"))?;
        let mut fragment = Fragment::default();
        let mut lines = 0;
        let mut offered = 0;
        for line in text.lines().filter(|line| !line.is_empty()) {
            if line.len() > MAX_LINE_BYTES {
                return Err(error(format!(
                    "a line has {} bytes; at most {MAX_LINE_BYTES} are taken",
                    line.len()
                )));
            }
            let Some((key, value)) = line.split_once('=') else {
                return Err(error(
                    "the body is no SDP fragment: a line has no =; send lines such as a=candidate:…",
                ));
            };
            lines += 1;
            match (key, value.split_once(':')) {
                ("a", Some(("ice-ufrag", ufrag))) => set(&mut fragment.ufrag, ufrag, 4)?,
                ("a", Some(("ice-pwd", pwd))) => set(&mut fragment.pwd, pwd, 22)?,
                ("a", Some(("candidate", candidate))) => {
                    offered += 1;
                    fragment.candidates += u32::from(usable_candidate(candidate));
                }
                ("a", None) if value == "end-of-candidates" => fragment.end_of_candidates = true,
                ("a" | "m" | "c" | "v" | "o" | "s" | "t" | "b", _) => {}
                _ => {
                    return Err(error(
                        "the body is no SDP fragment: a line starts with neither a= nor m=",
                    ));
                }
            }
        }
        if lines == 0 {
            return Err(error(
                "the fragment is empty; send at least a=end-of-candidates",
            ));
        }
        if offered > MAX_CANDIDATES {
            return Err(error(format!(
                "the fragment has {offered} candidates; at most {MAX_CANDIDATES} are taken"
            )));
        }
        if fragment.ufrag.is_some() != fragment.pwd.is_some() {
            return Err(error(
                "the fragment has one of a=ice-ufrag and a=ice-pwd; send both or neither",
            ));
        }
        let says_something = fragment.ufrag.is_some() || offered > 0 || fragment.end_of_candidates;
        if !says_something {
            return Err(error(
                "the fragment has no candidate, end-of-candidates or ICE credentials",
            ));
        }
        Ok(fragment)
    }
}

fn set(field: &mut Option<String>, value: &str, least: usize) -> Result<(), FragmentError> {
    if !ice_chars(value, least) {
        return Err(error(format!(
            "ICE credentials must be {least} to 256 ice-chars"
        )));
    }
    match field {
        Some(known) if known != value => {
            Err(error("the fragment has two different ICE credentials"))
        }
        _ => {
            *field = Some(value.to_owned());
            Ok(())
        }
    }
}

/// Whether all characters are ice-char and there are `least` to 256 (RFC 8839 §5.4).
pub(super) fn ice_chars(text: &str, least: usize) -> bool {
    (least..=256).contains(&text.len())
        && text
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || c == b'+' || c == b'/')
}

/// Whether a candidate-attribute's value could be used: right in form, of component 1.
pub(super) fn usable_candidate(value: &str) -> bool {
    component(value) == Some(1)
}

/// The component of a candidate-attribute's value (RFC 8839 §5.1, without `candidate:`); `None` if it is not
/// right in form. Its address may be a name, as Chromium's mDNS candidates are.
pub fn component(value: &str) -> Option<u16> {
    let mut words = value.split_ascii_whitespace();
    let mut next = || words.next().unwrap_or_default();
    let foundation = next();
    let component = next().parse::<u16>().ok()?;
    let transport = next().to_ascii_lowercase();
    let priority = next();
    let address = next();
    let port = next();
    let typ = next();
    let kind = next();
    let right = (1..=32).contains(&foundation.len())
        && matches!(transport.as_str(), "udp" | "tcp")
        && priority.parse::<u32>().is_ok()
        && !address.is_empty()
        && port.parse::<u16>().is_ok()
        && typ == "typ"
        && matches!(kind, "host" | "srflx" | "prflx" | "relay");
    right.then_some(component)
}

fn error(message: impl Into<String>) -> FragmentError {
    FragmentError(message.into())
}
