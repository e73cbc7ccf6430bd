//! The texts of an ICE restart (RFC 9725 §4.3.3): from the new offer the fragment that is sent, and
//! from the fragment that comes back the answer that the connection is given.
//!
//! Pure functions over SDP lines; `peer` calls them.

/// The fragment for a PATCH: the ICE lines of the offer's first m-line, which carries the bundle
/// (RFC 8840 §9).
pub(crate) fn fragment(offer: &str) -> String {
    let session =
        |line: &&str| line.starts_with("a=ice-options:") || line.starts_with("a=group:BUNDLE");
    let media = |line: &&str| {
        let kept = ["m=", "a=mid:", "a=ice-ufrag:", "a=ice-pwd:", "a=candidate:"];
        kept.iter().any(|start| line.starts_with(start)) || *line == "a=end-of-candidates"
    };
    let (head, first) = first_media(offer);
    let mut text = String::new();
    let mut kept: Vec<&str> = head.into_iter().filter(session).collect();
    kept.extend(first.into_iter().filter(media));
    for line in kept {
        text += line;
        text += "\r\n";
    }
    text
}

/// The first answer with the credentials and candidates of the fragment; `None` if it lacks them.
pub(crate) fn answer(first: &str, fragment: &str) -> Option<String> {
    let find = |start: &str| fragment.lines().find(|line| line.starts_with(start));
    let (ufrag, pwd) = (find("a=ice-ufrag:")?, find("a=ice-pwd:")?);
    let candidates: Vec<&str> = fragment
        .lines()
        .filter(|line| line.starts_with("a=candidate:"))
        .collect();
    if candidates.is_empty() {
        return None;
    }
    let mut text = String::new();
    let mut placed = false;
    let mut put = |line: &str| {
        text += line;
        text += "\r\n";
    };
    for line in first.lines() {
        if line.starts_with("a=candidate:") || line == "a=end-of-candidates" {
            continue;
        }
        if line.starts_with("a=ice-ufrag:") {
            put(ufrag);
        } else if line.starts_with("a=ice-pwd:") {
            put(pwd);
        } else {
            put(line);
            // They stand in the first m-line.
            if line.starts_with("m=") && !placed {
                placed = true;
                candidates.iter().for_each(|candidate| put(candidate));
            }
        }
    }
    Some(text)
}

/// The lines before the first m-line, and those of it.
fn first_media(sdp: &str) -> (Vec<&str>, Vec<&str>) {
    let mut session = Vec::new();
    let mut media: Vec<&str> = Vec::new();
    for line in sdp.lines() {
        match (line.starts_with("m="), media.is_empty()) {
            (true, false) => break,
            (true, true) | (false, false) => media.push(line),
            (false, true) => session.push(line),
        }
    }
    (session, media)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\na=ice-options:trickle\r\na=group:BUNDLE 0 1\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\na=ice-ufrag:new\r\na=ice-pwd:newer\r\n\
        a=rtcp-mux\r\na=candidate:1 1 udp 1 192.0.2.1 1 typ host\r\na=end-of-candidates\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:1\r\na=ice-ufrag:new\r\n";

    #[test]
    fn a_fragment_has_the_ice_lines_of_the_first_m_line_alone() {
        assert_eq!(
            fragment(OFFER),
            "a=ice-options:trickle\r\na=group:BUNDLE 0 1\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n\
             a=mid:0\r\na=ice-ufrag:new\r\na=ice-pwd:newer\r\n\
             a=candidate:1 1 udp 1 192.0.2.1 1 typ host\r\na=end-of-candidates\r\n"
        );
    }

    #[test]
    fn an_answer_keeps_everything_but_credentials_and_candidates() {
        let first = "v=0\r\nm=video 9 X 96\r\na=ice-ufrag:a\r\na=ice-pwd:b\r\na=candidate:1 old\r\n\
                     m=audio 9 X 111\r\na=ice-ufrag:a\r\na=ice-pwd:b\r\n";
        let got = "a=ice-ufrag:c\r\na=ice-pwd:d\r\na=candidate:1 new\r\n";
        assert_eq!(
            answer(first, got).as_deref(),
            Some(
                "v=0\r\nm=video 9 X 96\r\na=candidate:1 new\r\na=ice-ufrag:c\r\na=ice-pwd:d\r\n\
                 m=audio 9 X 111\r\na=ice-ufrag:c\r\na=ice-pwd:d\r\n"
            )
        );
        assert_eq!(answer(first, "a=ice-ufrag:c\r\na=ice-pwd:d\r\n"), None);
    }
}
