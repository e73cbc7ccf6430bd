//! Chromium in networks that let no UDP through to the server: over TCP, and through a TURN server.

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tests::browser::Options;
use tests::turn::TurnServer;
use tests::{Browser, Connections, MediaServer, Page, wait_for};

use crate::older::{MIRROR, sees_a_picture};

const SOON: Duration = Duration::from_secs(60);
/// What `--demo` publishes.
const DEVICE: &str = "demo";

/// Runs `script` for the connections that the page makes from now on, and watches the device anew.
async fn watch_with(page: &Page<'_>, script: &str, args: Vec<Value>) {
    page.0.run(script, args).await.expect("the script is right");
    page.stop_watching().await;
    page.watch(DEVICE, SOON).await;
}

/// The last connection that [`KEEP`] kept.
const LAST: &str = "connections.at(-1)";

/// Both ends of the path that a connection of the page uses, as its statistics have them.
async fn path(browser: &Browser, connection: &str) -> anyhow::Result<(Value, Value)> {
    let script = "const stats = [...(await CONNECTION.getStats()).values()];
        const of = (id) => stats.find((s) => s.id === id);
        const pair = of(stats.find((s) => s.type === 'transport')?.selectedCandidatePairId);
        return pair && [of(pair.localCandidateId), of(pair.remoteCandidateId)];";
    let script = script.replace("CONNECTION", connection);
    let script = format!("return (async () => {{ {script} }})()");
    match browser.run(&script, vec![]).await? {
        Value::Array(ends) => Ok((ends[0].clone(), ends[1].clone())),
        other => bail!("no path yet: {other}"),
    }
}

/// Keeps the page's connections where the test can ask them.
const KEEP: &str = "window.connections = [];
    const Original = window.RTCPeerConnection;
    window.RTCPeerConnection = class extends Original {
        constructor(configuration) {
            super({ ...configuration, ...window.forced });
            connections.push(this);
        }
    };";

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_can_use_tcp_alone_gets_the_picture() {
    let server = MediaServer::demo().await;
    let browser = Browser::start(Options::default()).await;
    let page = Page::open(&browser, &server.url(""), None).await;
    // To the browser it is the same whether the server names no UDP address or it leads nowhere.
    let no_udp = "const set = RTCPeerConnection.prototype.setRemoteDescription;
        RTCPeerConnection.prototype.setRemoteDescription = function ({ type, sdp }) {
            return set.call(this, { type, sdp: sdp.replace(/^a=candidate:.* udp .*\\r\\n/gm, '') });
        };";
    watch_with(&page, &format!("{KEEP}{no_udp}"), vec![]).await;
    page.frames_grow_by(60, SOON).await;
    page.picture_changes(SOON).await;
    let (_, remote) = path(&browser, LAST).await.expect("a path");
    assert_eq!(remote["protocol"], "tcp", "{remote}");
    assert_eq!(remote["port"], server.media.port(), "{remote}");
    let connections = server.metrics().await;
    let connections = connections.value("media_tcp_connections", &[]);
    assert!(connections >= Some(1.0), "{connections:?}");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_watches_through_a_turn_server_until_its_credential_ends() {
    let turn = TurnServer::start().await;
    let secret = turn.secret_file().display().to_string();
    let server =
        MediaServer::demo_with(&["--turn-url", &turn.url(), "--turn-secret-file", &secret]).await;
    let browser = Browser::start(Options::default()).await;
    let page = Page::open(&browser, &server.url(""), None).await;
    let relayed = format!("{KEEP} window.forced = {{ iceTransportPolicy: 'relay' }};");
    watch_with(&page, &relayed, vec![]).await;
    page.frames_grow_by(60, SOON).await;
    page.picture_changes(SOON).await;
    let (local, _) = path(&browser, LAST).await.expect("a path");
    assert_eq!(local["candidateType"], "relay", "{local}");

    // The same credential as the server's but for its time, which is over.
    let expired = "const [secret] = arguments;
        const username = `${Math.floor(Date.now() / 1000) - 60}:late`;
        const bytes = (text) => new TextEncoder().encode(text);
        return (async () => {
            const algorithm = { name: 'HMAC', hash: 'SHA-1' };
            const key = await crypto.subtle.importKey('raw', bytes(secret), algorithm, false, ['sign']);
            const tag = new Uint8Array(await crypto.subtle.sign('HMAC', key, bytes(username)));
            const credential = btoa(String.fromCharCode(...tag));
            window.gathered = [];
            const set = RTCPeerConnection.prototype.setConfiguration;
            RTCPeerConnection.prototype.setConfiguration = function (configuration) {
                const iceServers = configuration.iceServers.map((s) => ({ ...s, username, credential }));
                this.addEventListener('icecandidateerror', (e) => gathered.push(e.errorCode));
                this.addEventListener('icecandidate', (e) => gathered.push(e.candidate?.candidate ?? 'end'));
                return set.call(this, { ...configuration, iceServers });
            };
        })()";
    watch_with(&page, expired, vec![json!(TurnServer::SECRET)]).await;
    let gathered = wait_for("Chromium to have asked for a relay", SOON, || async {
        let seen = browser.run("return window.gathered", vec![]).await?;
        let list = seen.as_array().context("a list")?;
        match list.iter().any(|seen| seen == "end") {
            true => Ok(seen.clone()),
            false => bail!("{seen}, and {}", turn.log()),
        }
    })
    .await;
    // Refused, and with that there is no address that it could watch from.
    let gathered = gathered.as_array().expect("a list");
    assert!(gathered.iter().any(|seen| seen == 401), "{gathered:?}");
    let found = |seen: &Value| {
        seen.as_str()
            .is_some_and(|text| text.starts_with("candidate:"))
    };
    assert!(!gathered.iter().any(found), "{gathered:?}");
    let none = path(&browser, LAST).await;
    assert!(none.is_err(), "{none:?}");
    browser.close().await;
}

/// What asking an ICE server for relays alone comes to: candidates, and the codes of errors.
const GATHER: &str = "const [server] = arguments;
    return new Promise(resolve => {
        const seen = [];
        const pc = new RTCPeerConnection({iceServers: [server], iceTransportPolicy: 'relay'});
        pc.onicecandidateerror = ({errorCode}) => seen.push(errorCode);
        pc.onicecandidate = ({candidate}) => { candidate ? seen.push(candidate.type) : resolve(seen); };
        pc.createDataChannel('any');
        pc.setLocalDescription();
    });";

#[tokio::test(flavor = "multi_thread")]
async fn the_older_apis_credentials_carry_a_picture_through_turn_until_its_clock_is_past_them() {
    let lifetime = Duration::from_secs(600);
    // Both are told of in each answer, with the same credentials: to the second they are over.
    let (turn, later) = tokio::join!(
        TurnServer::start(),
        TurnServer::start_ahead(lifetime + Duration::from_secs(60))
    );
    let secret = turn.secret_file().display().to_string();
    let server = MediaServer::demo_with(&[
        "--turn-url",
        &turn.url(),
        "--turn-url",
        &later.url(),
        "--turn-secret-file",
        &secret,
        "--turn-ttl-seconds",
        &lifetime.as_secs().to_string(),
    ])
    .await;
    let browser = Browser::start(Options::default()).await;
    let page = Connections::open(&browser, &server.url("/health")).await;
    let relayed = json!({"iceTransportPolicy": "relay"});
    let mirrored = page.run(MIRROR, vec![json!(DEVICE), relayed]).await;
    sees_a_picture(&page).await;
    let (local, _) = path(&browser, "connections.viewer").await.expect("a path");
    assert_eq!(local["candidateType"], "relay", "{local}");

    let script = "return fetch('/api/media/turn-credentials').then(answer => answer.json())";
    let asked = page.run(script, vec![]).await;
    for servers in [&mirrored["iceServers"], &asked["iceServers"]] {
        let [good, over] = &servers.as_array().expect("a list")[..] else {
            panic!("{servers}");
        };
        assert_eq!(good["username"], over["username"]);
        assert_eq!(good["credential"], over["credential"]);
        let gathered = page.run(GATHER, vec![good.clone()]).await;
        assert_eq!(gathered, json!(["relay"]), "{}", turn.log());
        let gathered = page.run(GATHER, vec![over.clone()]).await;
        assert_eq!(gathered, json!([401]), "{}", later.log());
    }
    browser.close().await;
}
