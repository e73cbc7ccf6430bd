//! Metrics against the catalogue and against what the test did; health, load, and the end.

use crate::requests::*;
use catalogue::families::{FAMILIES, Kind};
use serde_json::Value;
use std::time::{Duration, Instant};
use tests::server::ANY_PORT;
use tests::{MediaServer, Metrics, Namespace, wait_for};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[tokio::test]
async fn every_family_of_the_catalogue_is_announced_and_no_other() {
    let server = MediaServer::open(&[]).await;
    let metrics = server.metrics().await;
    let announced: Vec<&str> = metrics.types.keys().map(String::as_str).collect();
    let mut known: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
    known.sort_unstable();
    assert_eq!(announced, known);
    for family in FAMILIES {
        assert_eq!(metrics.types[family.name], family.kind.as_str());
        assert_eq!(metrics.help[family.name], family.help);
    }
}

#[tokio::test]
async fn every_series_has_the_labels_and_buckets_of_its_family() {
    let server = MediaServer::open(&[]).await;
    open(&server, "/whip/cam-1", PUBLISH).await;
    post(&server, "/whep/cam-2", VIEW).await;
    let metrics = server.metrics().await;
    for sample in &metrics.samples {
        let family = catalogue::families::find(&sample.name)
            .unwrap_or_else(|| panic!("{} is in no catalogue", sample.name));
        let mut labels: Vec<&str> = sample.labels.keys().map(String::as_str).collect();
        let mut wanted = family.labels.to_vec();
        if sample.name.ends_with("_bucket") && family.kind == Kind::Histogram {
            wanted.push("le");
        }
        labels.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(labels, wanted, "{}", sample.name);
        assert!(sample.value.is_finite(), "{sample:?}");
    }
}

#[tokio::test]
async fn wildcard_listeners_are_reached_over_the_family_that_the_machine_has() {
    // Without IPv6, on a system whose wildcards are of one family unless a program asks for both; and
    // without IPv4.
    let off = [
        "cd /proc/sys/net/ipv6 && echo 1 > conf/all/disable_ipv6 && echo 1 > bindv6only",
        "ip -4 route flush table main && ip -4 address flush dev lo",
    ];
    for (address, off) in [("10.99.0.1/24", off[0]), ("fd99::1/64", off[1])] {
        let namespace = Namespace::with(&[address]).await;
        let switched = namespace.command("sh").args(["-c", off]).status();
        assert!(switched.expect("a shell").success(), "{off}");
        let mut args = vec!["--insecure-no-auth"];
        for listen in ["--http-listen", "--metrics-listen", "--media-listen"] {
            args.extend([listen, "[::]:0"]);
        }
        let server = MediaServer::within(&namespace, &args).await;
        let (ip, _) = address.split_once('/').expect("a prefix length");
        let host = if ip.contains(':') {
            format!("[{ip}]")
        } else {
            ip.to_owned()
        };
        for (port, path) in [
            (server.http.port(), "/health"),
            (server.operations.port(), "/livez"),
            (server.operations.port(), "/metrics"),
        ] {
            let url = format!("http://{host}:{port}{path}");
            let mut curl = namespace.command("curl");
            curl.args([
                "--fail",
                "--silent",
                "--show-error",
                "--max-time",
                "20",
                "--noproxy",
                "*",
            ]);
            let got = curl.arg(&url).output().expect("curl can be started");
            let said = String::from_utf8_lossy(&got.stderr);
            assert!(got.status.success(), "{url}: {said}");
        }
    }
}

#[tokio::test]
async fn figures_of_the_process_are_true() {
    let server = MediaServer::open(&[]).await;
    let value = async |name: &str| server.metrics().await.value(name, &[]);
    wait_for("the first look at the resources", PATIENCE, || async {
        value("media_memory_usage_bytes").await.ok_or("no value")
    })
    .await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()))
        .expect("the process is there");
    let kib: f64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .expect("a resident set");
    let metrics = server.metrics().await;
    let read = |name: &str| metrics.value(name, &[]).expect(name);
    let ratio = read("media_memory_usage_bytes") / (kib * 1024.0);
    assert!((0.5..2.0).contains(&ratio), "{ratio} of /proc's figure");
    let (allocated, mapped) = (
        read("media_memory_heap_alloc_bytes"),
        read("media_memory_heap_sys_bytes"),
    );
    assert!(
        allocated > 100_000.0 && mapped >= allocated,
        "{allocated} {mapped}"
    );
    let tasks = read("media_goroutine_count");
    assert!((3.0..100.0).contains(&tasks), "{tasks}");
    assert!(read("media_goroutine_count_max") >= tasks);
    assert_eq!(read("media_potential_goroutine_leak"), 0.0);
    assert_eq!(read("media_advertised_addresses"), 1.0);
    assert_eq!(read("media_drain_state"), 0.0);
}

#[tokio::test]
async fn requests_are_counted_by_their_template_and_while_they_run() {
    let server = MediaServer::open(&[]).await;
    for _ in 0..3 {
        post(&server, "/whip/cam-1", "nonsense").await;
        get(&server, "/no/such/path").await;
    }
    let metrics = server.metrics().await;
    let whip = [
        ("method", "POST"),
        ("path", "/whip/{device}"),
        ("status", "400"),
    ];
    assert_eq!(metrics.value("media_http_requests_total", &whip), Some(3.0));
    let unknown = [("method", "GET"), ("path", "unmatched"), ("status", "404")];
    assert_eq!(
        metrics.value("media_http_requests_total", &unknown),
        Some(3.0)
    );
    let timed = [("method", "POST"), ("path", "/whip/{device}")];
    assert_eq!(
        metrics.value("media_http_duration_seconds_count", &timed),
        Some(3.0)
    );
    // The scrape itself is one.
    assert_eq!(
        metrics.value("media_http_requests_in_flight", &[]),
        Some(1.0)
    );
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(server.http).await.expect("connects");
        let head = "POST /whip/cam-1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/sdp\r\nContent-Length: 10\r\n\r\nv=0";
        stream.write_all(head.as_bytes()).await.expect("writes");
        held.push(stream);
    }
    wait_for("four requests to be held open", PATIENCE, || async {
        match server
            .metrics()
            .await
            .value("media_http_requests_in_flight", &[])
        {
            Some(5.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    drop(held);
    wait_for(
        "clients that went away to be forgotten",
        PATIENCE,
        || async {
            match server
                .metrics()
                .await
                .value("media_http_requests_in_flight", &[])
            {
                Some(1.0) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        },
    )
    .await;
}

#[tokio::test]
async fn series_of_a_session_go_some_time_after_its_end() {
    let dir = tests::process::TempDir::new("config");
    let file = dir.path().join("config.toml");
    std::fs::write(&file, "[metrics]\nscrape_interval_seconds = 1\n").expect("written");
    let server = MediaServer::open(&["--config", &file.display().to_string()]).await;
    let path = open(&server, "/whip/cam-1", PUBLISH).await;
    let session = path.rsplit('/').next().expect("an id").to_owned();
    let states = async || {
        server
            .metrics()
            .await
            .matching("media_ice_connection_state", &[("session_id", &session)])
            .map(|sample| sample.labels["state"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(states().await, ["new"]);
    send(request(&server, reqwest::Method::DELETE, &path, SDP, "")).await;
    wait_for("the series to go", PATIENCE, || async {
        let left = states().await;
        if left.is_empty() {
            Ok(())
        } else {
            Err(left.join(", "))
        }
    })
    .await;
}

#[tokio::test]
async fn without_series_of_sessions_their_sums_are_there_from_the_start_and_never_go_down() {
    let dir = tests::process::TempDir::new("config");
    let file = dir.path().join("config.toml");
    let text = "[metrics]\nper_session_series = false\nscrape_interval_seconds = 1\n";
    std::fs::write(&file, text).expect("written");
    let server = MediaServer::open(&["--config", &file.display().to_string()]).await;
    let candidates = async || {
        server
            .metrics()
            .await
            .value("media_ice_candidates_added_total", &[])
    };
    assert_eq!(candidates().await, Some(0.0), "without any session");
    let path = open(&server, "/whip/cam-1", PUBLISH).await;
    let open = candidates().await;
    assert!(open > Some(0.0), "{open:?}");
    send(request(&server, reqwest::Method::DELETE, &path, SDP, "")).await;
    wait_for("the session to be gone", PATIENCE, || async {
        match server.metrics().await.value("media_active_sessions", &[]) {
            Some(0.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(candidates().await, open);
}

#[tokio::test]
async fn a_device_that_nobody_publishes_has_no_series() {
    let server = MediaServer::open(&[]).await;
    for n in 0..10 {
        let path = format!("/whep/ghost-{n}");
        assert_eq!(post(&server, &path, VIEW).await.status(), 409);
    }
    let metrics = server.metrics().await;
    let of_ghosts = |sample: &&tests::metrics::Sample| {
        sample
            .labels
            .get("device_id")
            .is_some_and(|device| device.starts_with("ghost"))
    };
    assert_eq!(metrics.samples.iter().filter(of_ghosts).count(), 0);
    open(&server, "/whip/ghost-1", PUBLISH).await;
    let metrics = server.metrics().await;
    assert!(
        metrics.samples.iter().any(|s| of_ghosts(&s)),
        "but one that is"
    );
}

#[tokio::test]
async fn health_has_the_exact_body_that_load_balancers_look_for() {
    let server = MediaServer::open(&[]).await;
    let response = get(&server, "/health").await;
    assert_eq!(header(&response, "content-type"), "application/json");
    assert_eq!(
        response.text().await.expect("a body"),
        r#"{"status":"ok","service":"media-service"}"#
    );
    for path in ["/livez", "/readyz"] {
        assert_eq!(get(&server, path).await.status(), 200, "{path}");
    }
    for path in ["/debug/pprof", "/debug/pprof/heap"] {
        assert_eq!(get(&server, path).await.status(), 404, "{path}");
    }
    let load: Value = get(&server, "/load").await.json().await.expect("JSON");
    assert_eq!(
        (&load["v"], &load["state"]),
        (&1.into(), &"Accepting".into()),
        "{load}"
    );
}

#[tokio::test]
async fn with_a_metrics_address_the_signalling_port_shows_no_metrics_and_takes_no_probes() {
    let server = MediaServer::open(&["--metrics-listen", ANY_PORT]).await;
    let metrics = server.operations;
    for path in ["/metrics", "/load", "/readyz", "/livez"] {
        assert_eq!(get(&server, path).await.status(), 404, "{path}");
        let url = format!("http://{metrics}{path}");
        assert_eq!(reqwest::get(&url).await.expect("an answer").status(), 200);
    }
    assert_eq!(get(&server, "/health").await.status(), 200);
    let url = format!("http://{metrics}/health");
    assert_eq!(reqwest::get(&url).await.expect("an answer").status(), 200);
    Metrics::fetch(&format!("http://{metrics}/metrics"))
        .await
        .expect("metrics");
    let url = format!("http://{metrics}/whip/cam-1");
    assert_eq!(reqwest::get(&url).await.expect("an answer").status(), 404);
}

#[tokio::test]
async fn a_server_without_an_address_is_not_ready_until_the_file_names_one() {
    let dir = tests::process::TempDir::new("addresses");
    let file = dir.path().join("config.toml");
    let addresses = dir.path().join("addresses.json");
    std::fs::write(&addresses, r#"{"lb":["192.0.2.7:4444"]}"#).expect("written");
    let text = format!(
        "[media]\naddresses_file = {:?}\n",
        addresses.display().to_string()
    );
    std::fs::write(&file, text).expect("written");
    let server = MediaServer::open(&["--config", &file.display().to_string()]).await;
    let answer = post(&server, "/whip/cam-1", PUBLISH)
        .await
        .text()
        .await
        .expect("SDP");
    assert!(answer.contains(" 192.0.2.7 4444 typ host"), "{answer}");
    std::fs::write(&addresses, r#"{"lb":[]}"#).expect("written");
    wait_for("the server to be unready", PATIENCE, || async {
        match get(&server, "/readyz").await.status().as_u16() {
            503 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    problem(
        post(&server, "/whip/cam-1", PUBLISH).await,
        503,
        "no address",
    )
    .await;
    std::fs::write(&addresses, r#"{"lb":["192.0.2.8:4444"]}"#).expect("written");
    wait_for("the server to be ready again", PATIENCE, || async {
        match get(&server, "/readyz").await.status().as_u16() {
            200 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    let answer = post(&server, "/whip/cam-1", PUBLISH)
        .await
        .text()
        .await
        .expect("SDP");
    assert!(answer.contains(" 192.0.2.8 4444 typ host"), "{answer}");
}

/// A server that waits `seconds` for its sessions after SIGTERM.
async fn draining_within(seconds: u32) -> (MediaServer, tests::process::TempDir) {
    let dir = tests::process::TempDir::new("config");
    let file = dir.path().join("config.toml");
    let text = format!("[drain]\ntimeout_seconds = {seconds}\n");
    std::fs::write(&file, text).expect("written");
    let server = MediaServer::open(&["--config", &file.display().to_string()]).await;
    (server, dir)
}

/// Waits for the exit status.
async fn exit_code(server: &mut MediaServer) -> Option<i32> {
    let ended = wait_for("the server to end", PATIENCE, || {
        let ended = server.process().ended();
        async move { ended.ok_or("still running") }
    })
    .await;
    ended.code()
}

#[tokio::test]
async fn after_sigterm_it_takes_no_session_and_serves_on_until_a_second_one() {
    // Longer than everything below takes on a busy machine; the second signal ends the wait.
    let (mut server, _dir) = draining_within(300).await;
    let publisher = publisher(&server, "cam-1").await;
    server.process().signal("TERM");
    wait_for("the server to be unready", PATIENCE, || async {
        match get(&server, "/readyz").await.status().as_u16() {
            503 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    problem(post(&server, "/whip/cam-2", PUBLISH).await, 503, "stop").await;
    assert_eq!(
        get(&server, "/livez").await.status(),
        200,
        "live while it drains"
    );
    let open = server.metrics().await.value("media_active_sessions", &[]);
    assert_eq!(open, Some(1.0), "what was open goes on");
    server.process().signal("TERM");
    assert_eq!(exit_code(&mut server).await, Some(0));
    let log = server.process().log();
    assert!(log.contains("\"reason\":\"drained\""), "{log}");
    drop(publisher);
}

#[tokio::test]
async fn after_sigterm_it_waits_for_sessions_within_its_bound_and_exits_0() {
    let (mut server, _dir) = draining_within(2).await;
    open(&server, "/whip/cam-1", PUBLISH).await;
    let asked = Instant::now();
    server.process().signal("TERM");
    assert_eq!(exit_code(&mut server).await, Some(0));
    assert!(asked.elapsed() >= Duration::from_secs(2), "it waited");
    let log = server.process().log();
    assert!(log.contains("\"reason\":\"drained\""), "{log}");
}

#[tokio::test]
async fn a_pod_that_is_told_to_drain_takes_no_session_until_that_is_taken_back_and_loses_none() {
    let dir = tests::process::TempDir::new("drain");
    let (config, file) = (dir.path().join("config.toml"), dir.path().join("drain"));
    let text = format!(
        "[drain]\ntimeout_seconds = 300\nfile = {:?}\n",
        file.display().to_string()
    );
    std::fs::write(&config, text).expect("written");
    let mut server = MediaServer::open(&["--config", &config.display().to_string()]).await;
    // As the kubelet has it: empty without the annotation.
    std::fs::write(&file, "").expect("written");
    let publisher = publisher(&server, "cam-1").await;
    let state_is = async |wanted: &str| {
        wait_for(&format!("the server to be {wanted}"), PATIENCE, || async {
            let load: Value = get(&server, "/load").await.json().await.expect("JSON");
            match load["state"] == wanted {
                true => Ok(()),
                false => Err(load),
            }
        })
        .await;
    };
    state_is("Accepting").await;
    std::fs::write(&file, "true").expect("written");
    state_is("Draining").await;
    assert_eq!(get(&server, "/readyz").await.status(), 503);
    assert_eq!(get(&server, "/livez").await.status(), 200);
    assert_eq!(
        post(&server, "/whip/cam-2", PUBLISH).await.status(),
        503,
        "a new session"
    );
    let open = server.metrics().await.value("media_active_sessions", &[]);
    assert_eq!(open, Some(1.0), "what was open goes on");
    std::fs::write(&file, "").expect("written");
    state_is("Accepting").await;
    assert_eq!(get(&server, "/readyz").await.status(), 200);
    std::fs::write(&file, "true").expect("written");
    drop(publisher);
    state_is("Drained").await;
    server.process().signal("TERM");
    assert_eq!(exit_code(&mut server).await, Some(0));
}

#[tokio::test]
async fn a_request_head_without_end_and_noise_on_the_port_harm_nobody() {
    let server = MediaServer::open(&[]).await;
    let mut noise = TcpStream::connect(server.http).await.expect("connects");
    noise
        .write_all(&[0x16, 3, 1, 0, 0xff, 0xfe, b'\r', b'\n', b'\r', b'\n'])
        .await
        .expect("writes");
    let mut answer = Vec::new();
    let _ = noise.read_to_end(&mut answer).await;
    let mut slow = TcpStream::connect(server.http).await.expect("connects");
    slow.write_all(b"GET /health HTTP/1.1\r\nX: ")
        .await
        .expect("writes");
    assert_eq!(get(&server, "/health").await.status(), 200);
    assert_eq!(get(&server, "/livez").await.status(), 200);
}
