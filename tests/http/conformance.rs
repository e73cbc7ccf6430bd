//! The conformance checks themselves: every row passes here, and what other servers do wrong is found.

use client::conformance::{Level, Outcome, Protocol, Report, Target, run};
use tests::MediaServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn checked(server: &MediaServer, token: Option<String>) -> Report {
    let target = Target {
        whip: Some(server.url("/whip/cam-1")),
        whep: Some(server.url("/whep/cam-1")),
        token,
        insecure_tls: false,
        origin: Some("https://player.example".to_owned()),
    };
    run(&target).await.expect("the checks can be run")
}

/// Fails with the table unless everything passed that could be looked at, and every row was.
fn passes(report: &Report) {
    assert_eq!(report.with(Outcome::Fail).count(), 0, "\n{report}");
    for protocol in [Protocol::Whip, Protocol::Whep] {
        let passed = |row| {
            report
                .with(Outcome::Pass)
                .any(|check| check.row == row && check.protocol == protocol)
        };
        let missing: Vec<u8> = (1..=14)
            .filter(|row| protocol == Protocol::Whep || *row != 13)
            .filter(|row| !passed(*row))
            .collect();
        assert_eq!(missing, [0; 0], "{protocol}\n{report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_passes_without_tokens() {
    let server =
        MediaServer::open(&["--cors-origin", "*", "--turn-url", "stun:stun.example:3478"]).await;
    passes(&checked(&server, None).await);
    let open = server.metrics().await.value("media_active_sessions", &[]);
    assert_eq!(open, Some(0.0), "the checks leave no session behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_passes_with_tokens() {
    let server = MediaServer::closed(&["--cors-origin", "https://player.example"]).await;
    let token = server.token("cam-1", "publish,view");
    let report = checked(&server, Some(token)).await;
    passes(&report);
    let unauthorized = report
        .with(Outcome::Pass)
        .filter(|check| check.row == 11 && check.name.contains("401"))
        .count();
    assert_eq!(unauthorized, 2, "\n{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lets_no_page_in_is_asked_about_none_unless_one_is_named() {
    let server = MediaServer::open(&[]).await;
    let mut target = Target {
        whep: Some(server.url("/whep/cam-1")),
        ..Target::default()
    };
    let preflights = |report: &Report, outcome| {
        let cors = report.with(outcome).filter(|c| c.name.contains("CORS"));
        cors.count()
    };
    let report = run(&target).await.expect("the checks can be run");
    assert!(report.conforms(), "\n{report}");
    assert_eq!(preflights(&report, Outcome::Skip), 1, "\n{report}");
    target.origin = Some("https://portal.example".to_owned());
    let report = run(&target).await.expect("the checks can be run");
    assert_eq!(preflights(&report, Outcome::Fail), 1, "\n{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_gets_things_wrong_is_found_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_wrongly(stream));
        }
    });
    let target = Target {
        whip: Some(format!("http://{address}/whip")),
        whep: Some(format!("http://{address}/whep")),
        origin: Some("https://player.example".to_owned()),
        ..Target::default()
    };
    let report = run(&target).await.expect("the checks can be run");
    serving.abort();
    assert!(!report.conforms());
    let failed = |row: u8, name: &str| {
        report.with(Outcome::Fail).any(|check| {
            check.row == row && check.level == Level::Must && check.name.contains(name)
        })
    };
    for (row, name) in [
        (1, "415"),
        (1, "400"),
        (1, "201"),
        (2, "connects"),
        (3, "GET"),
        (3, "CORS"),
        (11, "redirect"),
        (13, "409"),
    ] {
        assert!(failed(row, name), "row {row}, {name}\n{report}");
    }
    let table = report.to_string();
    assert!(
        table.contains("FAIL") && table.contains("of them a MUST"),
        "{table}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_etag_whose_sessions_do_not_end_is_found_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_carelessly(stream));
        }
    });
    let target = Target {
        whip: Some(format!("http://{address}/whip")),
        ..Target::default()
    };
    let report = run(&target).await.expect("the checks can be run");
    serving.abort();
    for (row, name) in [
        (2, "right direction"),
        (2, "candidates"),
        (4, "another type"),
        (4, "malformed"),
        (5, "strong ETag"),
        (6, "204"),
        (7, "200 with a fragment"),
        (8, "the session stays"),
        (9, "404"),
        (10, "one bundle"),
        (10, "rtcp-mux"),
        (10, "two tracks"),
    ] {
        let found = report
            .with(Outcome::Fail)
            .any(|check| check.row == row && check.name.contains(name));
        assert!(found, "row {row}, {name}\n{report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_answers_nothing_passes_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let serving = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let target = Target {
        whip: Some(format!("http://{address}/whip")),
        whep: Some(format!("http://{address}/whep")),
        ..Target::default()
    };
    let report = run(&target).await.expect("the checks can be run");
    serving.abort();
    assert_eq!(report.with(Outcome::Pass).count(), 0, "\n{report}");
    let floods: Vec<&str> = report
        .with(Outcome::Fail)
        .filter(|check| check.name.contains("429"))
        .map(|check| check.seen.as_str())
        .collect();
    assert_eq!(floods.len(), 2, "\n{report}");
    assert!(
        floods.iter().all(|seen| seen.contains("no answer")),
        "{floods:?}"
    );
}

/// A server that takes everything: 200 for any POST, a page for any GET, and a redirect of the wrong
/// kind for OPTIONS.
async fn answer_wrongly(stream: TcpStream) {
    serve(stream, |method| match method {
        "POST" => "200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok",
        "OPTIONS" => "302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n",
        _ => "200 OK\r\ncontent-length: 5\r\n\r\nhello",
    })
    .await;
}

/// A server with a 201 that says as little as it can, and 200 for whatever comes after it.
async fn answer_carelessly(stream: TcpStream) {
    serve(stream, |method| match method {
        "POST" => {
            "201 Created\r\ncontent-type: application/sdp\r\nlocation: /whip/1\r\n\
             content-length: 47\r\n\r\nv=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=sendonly"
        }
        _ => "200 OK\r\ncontent-length: 0\r\n\r\n",
    })
    .await;
}

/// Answers one request and closes.
async fn serve(mut stream: TcpStream, answer: fn(&str) -> &'static str) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    let head_end = loop {
        if let Some(at) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(len) => request.extend_from_slice(&buffer[..len]),
        }
    };
    let head = String::from_utf8_lossy(&request[..head_end]).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
        .unwrap_or(0);
    while request.len() < head_end + length {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(len) => request.extend_from_slice(&buffer[..len]),
        }
    }
    let method = String::from_utf8_lossy(&request);
    let method = method.split(' ').next().unwrap_or_default();
    let response =
        format!("HTTP/1.1 {}", answer(method)).replacen("\r\n", "\r\nconnection: close\r\n", 1);
    // A client that has gone needs no answer.
    let _ = stream.write_all(response.as_bytes()).await;
}
