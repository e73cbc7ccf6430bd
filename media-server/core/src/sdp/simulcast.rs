//! Simulcast in SDP (RFC 8853): the layers that an offer sends, and those that the answer receives.

use crate::layers::MAX_LAYERS;
use rtc_sdp::description::media::MediaDescription;
use std::collections::HashSet;
use std::fmt::Arguments;

/// Restriction identifiers of the layers offered, in order, [`MAX_LAYERS`] at most. Of alternatives
/// the first is taken; one that starts paused may be started later.
pub(super) fn read(description: &MediaDescription) -> Vec<Box<str>> {
    let value = |key: &str| description.attribute(key).flatten();
    let mut words = value("simulcast").unwrap_or_default().split_whitespace();
    let mut sent = "";
    while let (Some(direction), Some(list)) = (words.next(), words.next()) {
        if direction == "send" {
            sent = list;
        }
    }
    let lines = description.attributes.iter().filter(|a| a.key == "rid");
    let described: HashSet<&str> = lines
        .filter_map(|line| {
            let mut words = line.value.as_deref()?.split_whitespace();
            let rid = words.next()?;
            (words.next() == Some("send")).then_some(rid)
        })
        .collect();
    let mut rids: Vec<Box<str>> = Vec::new();
    for stream in sent.split(';') {
        let rid = stream.split(',').next().unwrap_or_default();
        let rid = rid.strip_prefix('~').unwrap_or(rid);
        let new = rids.iter().all(|known| **known != *rid);
        if new && is_rid(rid) && described.contains(rid) && rids.len() < MAX_LAYERS {
            rids.push(rid.into());
        }
    }
    rids
}

/// Writes the lines of an answer, if there are layers.
pub(super) fn write(rids: &[Box<str>], mut line: impl FnMut(Arguments<'_>)) {
    for rid in rids {
        line(format_args!("a=rid:{rid} recv"));
    }
    if !rids.is_empty() {
        line(format_args!("a=simulcast:recv {}", rids.join(";")));
    }
}

/// RFC 8851 §10, and short enough for a one-byte header extension.
fn is_rid(text: &str) -> bool {
    (1..=16).contains(&text.len())
        && text
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c))
}
