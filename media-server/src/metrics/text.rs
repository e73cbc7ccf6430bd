//! How series are written: Prometheus' text format 0.0.4, or OpenMetrics 1.0 for who asks for it.
//!
//! The two differ in the names that counters are announced by, in `le`, in what is escaped in a help text
//! and in the end. A scrape has some 190 000 lines with 10 000 sessions, so what the lines of a family
//! share is put together once. Knows families and values, not where they come from.

use super::exemplar::Exemplars;
use catalogue::families::{Family, Kind};
use std::fmt::Write as _;

/// What a scrape is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// <https://prometheus.io/docs/instrumenting/exposition_formats/>, version 0.0.4.
    Prometheus,
    /// <https://prometheus.io/docs/specs/om/open_metrics_spec/>, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The one that an `Accept` header prefers (RFC 9110 §12.5.1): OpenMetrics where it is named in a
    /// version that is spoken here and weighs no less than text.
    pub fn preferred(accept: &str) -> Format {
        let (mut text, mut open) = (0.0_f32, 0.0_f32);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut weight, mut version) = (1.0, "1.0.0");
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match name.trim().to_ascii_lowercase().as_str() {
                    "q" => weight = value.trim().parse().unwrap_or(0.0),
                    "version" => version = value.trim().trim_matches('"'),
                    _ => {}
                }
            }
            match media_type.as_str() {
                "application/openmetrics-text" if version == "1.0.0" => open = open.max(weight),
                "text/plain" | "text/*" | "*/*" => text = text.max(weight),
                _ => {}
            }
        }
        if open > 0.0 && open >= text {
            Format::OpenMetrics
        } else {
            Format::Prometheus
        }
    }

    /// Value of `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What follows the last family.
    pub(super) fn end(self) -> &'static str {
        match self {
            Format::Prometheus => "",
            Format::OpenMetrics => "# EOF\n",
        }
    }
}

/// Writes the series of one family behind its announcement.
pub struct Lines<'a> {
    pub family: &'static Family,
    text: &'a mut String,
    /// For each bucket, +Inf too: `le="0.5"} `.
    bounds: Vec<String>,
    format: Format,
}

impl<'a> Lines<'a> {
    /// Announces the family.
    pub(super) fn of(family: &'static Family, format: Format, text: &'a mut String) -> Lines<'a> {
        // In OpenMetrics a counter is its samples without `_total`.
        let name = match format {
            Format::OpenMetrics => family.name.strip_suffix("_total").unwrap_or(family.name),
            Format::Prometheus => family.name,
        };
        text.push_str("# HELP ");
        text.push_str(name);
        text.push(' ');
        for c in family.help.chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '"' if format == Format::OpenMetrics => text.push_str("\\\""),
                c => text.push(c),
            }
        }
        let _ = write!(text, "\n# TYPE {name} {}\n", family.kind.as_str());
        let bounds = match family.kind {
            Kind::Counter | Kind::Gauge => Vec::new(),
            Kind::Histogram => {
                let finite = family.buckets.iter().map(|bound| match format {
                    Format::Prometheus => format!("le=\"{bound}\"}} "),
                    // A whole number has a decimal there ("canonical numbers").
                    Format::OpenMetrics => format!("le=\"{bound:?}\"}} "),
                });
                finite.chain(["le=\"+Inf\"} ".to_owned()]).collect()
            }
        };
        Lines {
            family,
            text,
            bounds,
            format,
        }
    }

    /// A series of a counter or gauge. `labels` are as [`super::render_labels`] makes them.
    pub fn value(&mut self, labels: &str, value: f64) {
        self.line("", labels, value);
    }

    /// The series of a histogram. `counts` has one entry for each bucket and one for +Inf, not cumulative.
    pub fn histogram(&mut self, labels: &str, counts: impl IntoIterator<Item = u64>, sum: f64) {
        self.histogram_with(labels, counts, sum, &Exemplars::new());
    }

    /// The same with exemplars, which only OpenMetrics has.
    pub(super) fn histogram_with(
        &mut self,
        labels: &str,
        counts: impl IntoIterator<Item = u64>,
        sum: f64,
        exemplars: &Exemplars,
    ) {
        let mut cumulative = 0;
        for (at, (bound, count)) in self.bounds.iter().zip(counts).enumerate() {
            cumulative += count;
            self.text.push_str(self.family.name);
            self.text.push_str("_bucket{");
            self.text.push_str(labels);
            if !labels.is_empty() {
                self.text.push(',');
            }
            self.text.push_str(bound);
            push_whole(self.text, cumulative);
            if let (Format::OpenMetrics, Some(exemplar)) = (self.format, exemplars.get(&at)) {
                exemplar.write(self.text);
            }
            self.text.push('\n');
        }
        self.line("_sum", labels, sum);
        self.line("_count", labels, cumulative as f64);
    }

    fn line(&mut self, part: &str, labels: &str, value: f64) {
        self.text.push_str(self.family.name);
        self.text.push_str(part);
        if !labels.is_empty() {
            self.text.push('{');
            self.text.push_str(labels);
            self.text.push('}');
        }
        self.text.push(' ');
        // Most are counts, and most of those small.
        match value as u64 {
            whole if whole < 10 && whole as f64 == value => push_whole(self.text, whole),
            _ => {
                let _ = write!(self.text, "{value}");
            }
        }
        self.text.push('\n');
    }
}

/// Most buckets of a session hold nothing or one: a digit needs no formatter.
fn push_whole(text: &mut String, value: u64) {
    match value {
        0..10 => text.push(char::from(b'0' + value as u8)),
        _ => {
            let _ = write!(text, "{value}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use catalogue::families::FAMILIES;

    fn written(name: &str, format: Format, write: impl Fn(&mut Lines<'_>)) -> String {
        let mut text = String::new();
        let family = FAMILIES.iter().find(|family| family.name == name);
        let family = family.expect("in the catalogue");
        write(&mut Lines::of(family, format, &mut text));
        text
    }

    #[test]
    fn openmetrics_is_for_who_names_it_and_weighs_it_no_less_than_text() {
        // As Prometheus 3 sends it.
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            (
                "Application/OpenMetrics-Text; Version=\"1.0.0\"",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text; version=1.0.0; q=0.3, text/plain; q=0.5",
                Format::Prometheus,
            ),
            (
                "application/openmetrics-text; version=1.0.0; q=0",
                Format::Prometheus,
            ),
            (
                "application/openmetrics-text; version=2.0.0",
                Format::Prometheus,
            ),
            ("*/*", Format::Prometheus),
            ("", Format::Prometheus),
        ] {
            assert_eq!(Format::preferred(accept), format, "{accept}");
        }
    }

    #[test]
    fn a_counter_is_announced_without_its_suffix_in_openmetrics_alone() {
        let of = |format| {
            written("media_packets_total", format, |lines| {
                lines.value("direction=\"in\"", 12.5)
            })
        };
        for (format, name) in [
            (Format::Prometheus, "media_packets_total"),
            (Format::OpenMetrics, "media_packets"),
        ] {
            let text = of(format);
            assert!(text.contains(&format!("# TYPE {name} counter\n")), "{text}");
            assert!(text.starts_with(&format!("# HELP {name} ")), "{text}");
            assert!(
                text.ends_with("\nmedia_packets_total{direction=\"in\"} 12.5\n"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_bounds_of_buckets_are_written_as_each_format_has_them() {
        const NAME: &str = "media_http_duration_seconds";
        let of = |format| {
            let counts = [0, 11, 0, 0, 0, 0, 0, 0, 0, 0, 2];
            written(NAME, format, |lines| lines.histogram("", counts, 1.25))
        };
        let text = of(Format::Prometheus);
        for line in [
            "_bucket{le=\"0.001\"} 0\n",
            "_bucket{le=\"0.002\"} 11\n",
            "_bucket{le=\"+Inf\"} 13\n",
            "_sum 1.25\n",
            "_count 13\n",
        ] {
            assert!(text.contains(&format!("{NAME}{line}")), "{line} in {text}");
        }
        let whole = "media_ice_connection_time_milliseconds";
        let bound = |format| written(whole, format, |lines| lines.histogram("", [1, 0], 50.0));
        assert!(bound(Format::Prometheus).contains("{le=\"100\"} 1\n"));
        assert!(bound(Format::OpenMetrics).contains("{le=\"100.0\"} 1\n"));
    }

    #[test]
    fn a_quote_in_a_help_text_is_escaped_in_openmetrics_alone() {
        let help = "of \"a\" \\ b\nor c";
        let family: &'static Family = Box::leak(Box::new(Family {
            help,
            ..FAMILIES[0]
        }));
        for (format, wanted) in [
            (Format::Prometheus, r#"of "a" \\ b\nor c"#),
            (Format::OpenMetrics, r#"of \"a\" \\ b\nor c"#),
        ] {
            let mut text = String::new();
            Lines::of(family, format, &mut text);
            let first = text.lines().next().expect("a line");
            assert!(first.ends_with(&format!(" {wanted}")), "{first}");
        }
    }

    #[test]
    fn numbers_are_written_in_full() {
        for value in [0.0, 9.0, 10.0, 0.05, -1.0, 1e15, 123456789.5] {
            let text = written("media_active_sessions", Format::Prometheus, |lines| {
                lines.value("", value)
            });
            let line = text.lines().last().expect("one");
            let read: f64 = line
                .rsplit(' ')
                .next()
                .expect("a value")
                .parse()
                .expect("a number");
            assert_eq!(read, value, "{line}");
        }
    }
}
