//! What a soak's three accounts say, each beside the others: the server's metrics, the load tool's report,
//! and what nftables dropped. Pure.

use serde_json::Value;

use super::{LOST, VIEWERS};

/// Bytes before the payload of a datagram over IPv4, once for what crosses loopback in one piece.
const HEADERS: f64 = 28.0;

/// Longest datagram that a session sends.
const DATAGRAM: f64 = 1_400.0;

/// How far two accounts of the same bytes may be apart: what is under way when they are taken. Three minutes
/// were 0.02 % apart.
const BYTES: f64 = 0.001;

/// The same for requests and repairs, of which some are counted and then lost by chance: 0.2 % apart.
const REPAIRS: f64 = 0.02;

/// The same for the loss that viewers report: each is heard only after its first report, and the last
/// seconds of one who leaves are not. Two runs of three minutes were 0.6 and 4.9 % apart.
const RATIO: f64 = 0.1;

/// What a rule of nftables dropped.
#[derive(Debug, Clone, Copy, Default)]
pub struct Dropped {
    /// Of those that loopback carries in one piece, one.
    pub packets: f64,
    /// With one IP and UDP header each.
    pub bytes: f64,
}

impl Dropped {
    fn payload(self) -> f64 {
        self.bytes - self.packets * HEADERS
    }
}

/// What the network did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Network {
    pub to_server: Dropped,
    pub to_clients: Dropped,
    /// What the server said is lost, 0 to 1, in the mean over sessions and time.
    pub told: f64,
    /// Datagrams that found a socket full.
    pub overflows: f64,
}

/// What a server exposes.
pub struct Metrics(pub String);

impl Metrics {
    /// Of all series of a family whose labels contain `label`.
    pub fn values(&self, family: &str, label: &str) -> Vec<f64> {
        let value = |line: &str| -> Option<f64> {
            let rest = line.strip_prefix(family)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            let own = labels.is_empty() || labels.starts_with('{');
            (own && labels.contains(label)).then(|| value.parse().ok())?
        };
        self.0.lines().filter_map(value).collect()
    }

    /// Over those; `None` if there is none.
    pub fn sum(&self, family: &str, label: &str) -> Option<f64> {
        let values = self.values(family, label);
        (!values.is_empty()).then(|| values.iter().sum())
    }

    fn of(&self, family: &str, label: &str) -> f64 {
        self.sum(family, label).unwrap_or(0.0)
    }
}

fn number(report: &Value, at: &str) -> f64 {
    report
        .pointer(at)
        .and_then(Value::as_f64)
        .unwrap_or(f64::NAN)
}

/// One figure of the server's beside what the others make of it.
struct Balance {
    what: &'static str,
    server: f64,
    others: f64,
    /// How far they may be apart, as a part of the second, and beside that.
    part: f64,
    more: f64,
}

impl Balance {
    fn agrees(&self) -> bool {
        // Not a number does not.
        (self.server - self.others).abs() <= self.others * self.part + self.more
    }

    fn told(&self) -> String {
        format!(
            "{}: {} by the server, {:.5} by the tool and nftables, ± {} %{}",
            self.what,
            self.server,
            self.others,
            self.part * 100.0,
            match self.more {
                0.0 => String::new(),
                more => format!(" and {more:.0}"),
            }
        )
    }
}

/// Viewers that the server began to show a picture to.
fn began(metrics: &Metrics) -> f64 {
    let served = |how: &str| metrics.of("media_join_total", &format!("served=\"{how}\""));
    served("cache") + served("keyframe")
}

/// Viewers that saw one.
fn shown(report: &Value) -> f64 {
    let joined = VIEWERS as f64 + number(report, "/churn/joined");
    joined - number(report, "/viewers_without_picture")
}

/// What both ends and the network between them counted.
fn balances(report: &Value, metrics: &Metrics, network: &Network) -> Vec<Balance> {
    let of_tool = |at: &str| {
        let ends =
            ["viewers", "publishers"].map(|end| number(report, &format!("/traffic/{end}{at}")));
        ends.iter().sum::<f64>()
    };
    let sent = metrics.of("media_bytes_total", "direction=\"out\"");
    let overflowed = network.overflows * DATAGRAM;
    let arrive = 1.0 - LOST / 100.0;
    let balance = |what, server, others, part, more| Balance {
        what,
        server,
        others,
        part,
        more,
    };
    vec![
        balance(
            "loss that viewers tell of (media_packet_loss_ratio)",
            network.told,
            network.to_clients.payload() / sent,
            RATIO,
            0.0,
        ),
        balance(
            "bytes out",
            sent,
            of_tool("/received/bytes") + network.to_clients.payload(),
            BYTES,
            overflowed,
        ),
        balance(
            "bytes in",
            metrics.of("media_bytes_total", "direction=\"in\""),
            of_tool("/sent/bytes") - network.to_server.payload(),
            BYTES,
            overflowed,
        ),
        balance(
            "packets that viewers asked for again (media_nacked_packets_total in)",
            metrics.of("media_nacked_packets_total", "direction=\"in\""),
            of_tool("/asked_again") * arrive,
            REPAIRS,
            0.0,
        ),
        balance(
            "packets sent to viewers again (media_retransmitted_packets_total out)",
            metrics.of("media_retransmitted_packets_total", "direction=\"out\""),
            of_tool("/received_again") / arrive,
            REPAIRS,
            0.0,
        ),
        // Few: one more or less that was lost must not tell.
        balance(
            "keyframe requests to the device (media_keyframe_requests_total)",
            metrics.of("media_keyframe_requests_total", ""),
            number(report, "/devices/0/keyframe_requests") / arrive,
            REPAIRS,
            3.0,
        ),
    ]
}

pub fn summary(report: &Value, metrics: &Metrics, network: &Network) -> String {
    let mut lines = vec![format!(
        "{} joined, {} left, {} failed; {:.5} of all packets came; {} asked for again, {} sent again",
        number(report, "/churn/joined"),
        number(report, "/churn/left"),
        number(report, "/churn/failed"),
        number(report, "/delivered_ratio"),
        metrics.of("media_nacked_packets_total", "direction=\"in\""),
        metrics.of("media_retransmitted_packets_total", "direction=\"out\""),
    )];
    lines.extend(balances(report, metrics, network).iter().map(Balance::told));
    let (began, shown) = (began(metrics), shown(report));
    lines.push(format!(
        "first pictures: {began} begun by the server, {shown} seen by the tool"
    ));
    lines.push(format!(
        "{} datagrams found a socket full",
        network.overflows
    ));
    lines.join("\n")
}

/// What is not as it should be, each with the figures.
pub fn complaints(report: &Value, metrics: &Metrics, network: &Network) -> Vec<String> {
    let balances = balances(report, metrics, network);
    let apart = balances.iter().filter(|balance| !balance.agrees());
    let mut complaints: Vec<String> = apart.map(Balance::told).collect();
    let mut expect = |what: &str, seen: f64, least: f64, most: f64| {
        // Not a number is not good either.
        if !(least..=most).contains(&seen) {
            complaints.push(format!("{what} is {seen}, not {least} to {most}"));
        }
    };
    let joined = number(report, "/churn/joined");
    expect("/churn/joined", joined, 1.0, f64::MAX);
    for none in ["/viewers_failed", "/churn/not_deleted"] {
        expect(none, number(report, none), 0.0, 0.0);
    }
    // Who loses its first keyframe, asks for none as the tool's viewers do, and leaves before the next.
    let blind = number(report, "/viewers_without_picture");
    let few = (joined * LOST / 100.0).ceil();
    expect("/viewers_without_picture", blind, 0.0, few);
    // The DTLS of the tool's library, as a client, sends its last flight once: where that is lost the
    // handshake ends by time, however often the server repeats its own (RFC 6347 §4.2.4 wants it sent
    // again). With both its flights behind the first that is a few in a hundred.
    let failed = number(report, "/churn/failed");
    expect("/churn/failed", failed, 0.0, joined * 3.0 * LOST / 100.0);
    // What is lost twice comes a third time, and once in a while is late for that. What is only late, and
    // asked for meanwhile, comes twice.
    expect(
        "/delivered_ratio",
        number(report, "/delivered_ratio"),
        0.999,
        1.001,
    );

    let opened = 1.0 + VIEWERS as f64 + joined;
    let created = metrics.of("media_sessions_created_total", "");
    expect(
        "media_sessions_created_total",
        created,
        opened,
        opened + failed,
    );
    let closed = metrics.of("media_sessions_closed_total", "");
    expect("media_sessions_closed_total", closed, created, created);
    let normal = metrics.of("media_sessions_closed_total", "reason=\"normal_close\"");
    expect("those with normal_close", normal, opened, created);
    let unfinished = metrics.of("media_setup_total", "result=\"failed\"")
        + metrics.of("media_setup_total", "result=\"cancelled\"");
    expect(
        "media_setup_total failed and cancelled",
        unfinished,
        created - opened,
        failed,
    );
    let connected = metrics.of("media_setup_total", "result=\"connected\"");
    expect("media_setup_total connected", connected, opened, created);

    // Every viewer that saw a picture was sent its first keyframe; some that the tool gave up were too.
    let shown = shown(report);
    expect(
        "media_join_total cache and keyframe",
        began(metrics),
        shown,
        shown + blind + failed,
    );

    let delivered = number(report, "/delivered_packets");
    let sent = metrics.of("media_packets_total", "direction=\"out\"");
    let again = metrics.of("media_retransmitted_packets_total", "direction=\"out\"");
    // Beside media there are handshakes, reports and probes.
    expect("media_packets_total out", sent, delivered, delivered * 1.2);
    // What was lost was sent again, and some of that too.
    let lost = delivered * LOST / 100.0;
    expect(
        "media_retransmitted_packets_total out",
        again,
        lost * 0.8,
        lost * 1.5,
    );
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A fiftieth is lost each way.
    fn network() -> Network {
        let dropped = |packets: f64, payload: f64| Dropped {
            packets,
            bytes: payload + packets * HEADERS,
        };
        Network {
            to_server: dropped(400.0, 40_000.0),
            to_clients: dropped(500.0, 2_000_000.0),
            told: 0.019,
            overflows: 0.0,
        }
    }

    fn good() -> (Value, String) {
        let report = json!({
            "viewers_failed": 0, "viewers_without_picture": 0, "delivered_ratio": 0.9999,
            "delivered_packets": 100_000,
            "devices": [{"keyframe_requests": 49}],
            "traffic": {
                "viewers": {
                    "received": {"bytes": 97_000_000}, "sent": {"bytes": 900_000},
                    "asked_again": 2_500, "received_again": 2_058,
                },
                "publishers": {
                    "received": {"bytes": 1_000_000}, "sent": {"bytes": 1_100_000},
                    "asked_again": 0, "received_again": 0,
                },
            },
            "churn": {"failed": 0, "not_deleted": 0, "joined": 500, "left": 500},
        });
        let metrics = "# TYPE media_active_sessions gauge\n\
            media_active_sessions 0\n\
            media_sessions_created_total{device_id=\"load\"} 601\n\
            media_sessions_closed_total{device_id=\"load\",reason=\"normal_close\"} 601\n\
            media_sessions_closed_total{device_id=\"load\",reason=\"ice_failed\"} 0\n\
            media_setup_total{role=\"viewer\",result=\"connected\"} 600\n\
            media_setup_total{role=\"publisher\",result=\"connected\"} 1\n\
            media_join_total{served=\"cache\"} 590\n\
            media_join_total{served=\"keyframe\"} 10\n\
            media_join_total{served=\"again\"} 7\n\
            media_bytes_total{direction=\"out\"} 100000000\n\
            media_bytes_total{direction=\"in\"} 1960000\n\
            media_nacked_packets_total{direction=\"in\"} 2450\n\
            media_keyframe_requests_total{cause=\"start\"} 40\n\
            media_keyframe_requests_total{cause=\"lost\"} 10\n\
            media_packets_total{direction=\"out\"} 104000\n\
            media_packets_total{direction=\"in\"} 9\n\
            media_retransmitted_packets_total{direction=\"out\"} 2100\n";
        (report, metrics.to_owned())
    }

    #[test]
    fn a_run_is_good_if_everybody_saw_everything_and_both_sides_counted_the_same() {
        let (report, metrics) = good();
        assert_eq!(complaints(&report, &Metrics(metrics), &network()), [""; 0]);
    }

    #[test]
    fn whatever_is_out_of_line_is_said() {
        let told = |report: &Value, metrics: String| {
            complaints(report, &Metrics(metrics), &network()).join("\n")
        };
        let (report, metrics) = good();
        let mut blind = report.clone();
        blind["viewers_without_picture"] = json!(11);
        assert_eq!(
            told(&blind, metrics.clone()),
            "/viewers_without_picture is 11, not 0 to 10"
        );
        let stuck = metrics.replace("normal_close\"} 601", "normal_close\"} 600");
        assert_eq!(
            told(&report, stuck),
            "media_sessions_closed_total is 600, not 601 to 601\n\
             those with normal_close is 600, not 601 to 601"
        );
        let unheard = metrics.replace("} 2100", "} 20");
        assert!(told(&report, unheard).contains("media_retransmitted_packets_total out is 20"));
        assert!(told(&Value::Null, metrics).contains("/churn/joined is NaN"));
    }

    #[test]
    fn two_accounts_of_one_thing_that_differ_are_told_with_both_figures() {
        let (report, metrics) = good();
        let told = |report: &Value, metrics: &str, network: Network| {
            complaints(report, &Metrics(metrics.to_owned()), &network)
        };
        let mut deaf = network();
        deaf.told = 0.001;
        assert_eq!(
            told(&report, &metrics, deaf),
            [
                "loss that viewers tell of (media_packet_loss_ratio): 0.001 by the server, \
            0.02000 by the tool and nftables, ± 10 %"
            ]
        );
        for (as_it_is, wrong, what) in [
            (
                "out\"} 100000000",
                "out\"} 90000000",
                "bytes out: 90000000 by",
            ),
            ("in\"} 1960000", "in\"} 2000000", "bytes in: 2000000 by"),
            ("in\"} 2450", "in\"} 2700", "asked for again"),
            (
                "lost\"} 10",
                "lost\"} 20",
                "keyframe requests to the device",
            ),
            ("cache\"} 590", "cache\"} 600", "media_join_total"),
        ] {
            let said = told(&report, &metrics.replace(as_it_is, wrong), network()).join("\n");
            assert!(said.contains(what), "{what}: {said}");
        }
        let mut lost = report.clone();
        lost["traffic"]["viewers"]["received_again"] = json!(1_500);
        let said = told(&lost, &metrics, network()).join("\n");
        assert!(said.contains("2100 by the server, 1530.6"), "{said}");
        // Ten thousand that found no room explain what is missing.
        let mut full = network();
        full.overflows = 10_000.0;
        let fewer = metrics.replace("out\"} 100000000", "out\"} 110000000");
        let said = told(&report, &fewer, full).join("\n");
        assert!(!said.contains("bytes out"), "{said}");
    }

    #[test]
    fn a_family_is_summed_over_its_own_series() {
        let metrics = Metrics("a_total 1\na{x=\"1\"} 2\na{x=\"2\"} 4\nab{x=\"1\"} 8\n".to_owned());
        assert_eq!(metrics.sum("a", ""), Some(6.0));
        assert_eq!(metrics.sum("a", "x=\"2\""), Some(4.0));
        assert_eq!(metrics.sum("b", ""), None, "no series is not 0");
    }
}
