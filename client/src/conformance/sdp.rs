//! SDP and its fragments as lines: enough to look at an answer, without a parser that might be kind.

use std::net::{IpAddr, SocketAddr};

/// An answer or fragment, cut at its m-lines.
pub(super) struct Sdp<'a> {
    pub(super) session: Vec<&'a str>,
    /// Each begins with its m-line.
    pub(super) media: Vec<Vec<&'a str>>,
}

impl<'a> Sdp<'a> {
    pub(super) fn read(text: &'a str) -> Sdp<'a> {
        let mut sdp = Sdp {
            session: Vec::new(),
            media: Vec::new(),
        };
        for line in text.lines().filter(|line| !line.is_empty()) {
            if line.starts_with("m=") {
                sdp.media.push(Vec::new());
            }
            sdp.media.last_mut().unwrap_or(&mut sdp.session).push(line);
        }
        sdp
    }

    /// The m-lines in use: those whose port is not 0.
    pub(super) fn used(&self) -> impl Iterator<Item = &Vec<&'a str>> {
        self.media.iter().filter(|media| !is_refused(media))
    }

    pub(super) fn refused(&self) -> usize {
        self.media.iter().filter(|media| is_refused(media)).count()
    }

    /// The first value of an attribute, at session level or in any m-line.
    pub(super) fn value(&self, name: &str) -> Option<&'a str> {
        self.lines().find_map(|line| attribute(line, name))
    }

    /// `ice-ufrag` and `ice-pwd`.
    pub(super) fn credentials(&self) -> Option<(&'a str, &'a str)> {
        self.value("ice-ufrag").zip(self.value("ice-pwd"))
    }

    /// The lines that an ICE restart must leave as they are.
    pub(super) fn ice_lines(&self) -> Vec<&'a str> {
        let fixed = |line: &&str| {
            ["a=ice-lite", "a=ice-options", "a=ice-pacing"]
                .iter()
                .any(|start| line.starts_with(start))
        };
        let mut lines: Vec<&str> = self.lines().filter(fixed).collect();
        lines.sort_unstable();
        lines.dedup();
        lines
    }

    /// UDP candidates with an IP address.
    pub(super) fn candidates(&self) -> Vec<SocketAddr> {
        let read = |value: &str| {
            let words: Vec<&str> = value.split(' ').collect();
            let udp = words.get(2)?.eq_ignore_ascii_case("udp");
            let ip: IpAddr = words.get(4)?.parse().ok()?;
            let port = words.get(5)?.parse().ok()?;
            udp.then(|| SocketAddr::new(ip, port))
        };
        self.lines()
            .filter_map(|line| attribute(line, "candidate"))
            .filter_map(read)
            .collect()
    }

    fn lines(&self) -> impl Iterator<Item = &'a str> {
        self.session
            .iter()
            .chain(self.media.iter().flatten())
            .copied()
    }
}

/// The value of `a=name:value`.
pub(super) fn attribute<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.strip_prefix("a=")?
        .strip_prefix(name)?
        .strip_prefix(':')
}

fn is_refused(media: &[&str]) -> bool {
    media
        .first()
        .and_then(|line| line.split(' ').nth(1))
        .is_some_and(|port| port == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_cut_at_its_m_lines() {
        let text = "v=0\r\na=ice-lite\r\nm=audio 0 X 0\r\nm=video 9 X 96\r\na=ice-ufrag:abcd\r\n\
                    a=ice-pwd:p\r\na=candidate:1 1 udp 1 192.0.2.1 8443 typ host\r\n\
                    a=candidate:2 1 tcp 1 192.0.2.1 8443 typ host tcptype passive\r\n";
        let sdp = Sdp::read(text);
        assert_eq!((sdp.session.len(), sdp.media.len()), (2, 2));
        assert_eq!((sdp.used().count(), sdp.refused()), (1, 1));
        assert_eq!(sdp.credentials(), Some(("abcd", "p")));
        assert_eq!(sdp.ice_lines(), ["a=ice-lite"]);
        let candidate: SocketAddr = "192.0.2.1:8443".parse().expect("an address");
        assert_eq!(sdp.candidates(), [candidate]);
    }
}
