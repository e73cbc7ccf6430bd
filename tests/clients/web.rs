//! Clients from npm, in a page of another origin than the server's: `@binbat/whip-whep` and
//! `@eyevinn/webrtc-player`.

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tests::browser::Options;
use tests::{Browser, MediaServer, Site, wait_for};

use crate::server::{SOON, has_no, is_live, list, test_publisher};

/// Keeps what the page asked of the server and what came back; and errors that no script took.
const LOG: &str = r"
window.requests = [];
window.errors = [];
const send = window.fetch;
window.fetch = async (url, init = {}) => {
  const response = await send(url, init);
  const {pathname} = new URL(url, location);
  const {'If-Match': ifMatch} = init.headers ?? {};
  const [etag, retryAfter] = ['etag', 'retry-after'].map(name => response.headers.get(name));
  requests.push({method: init.method ?? 'GET', pathname, ifMatch,
    status: response.status, etag, retryAfter});
  return response;
};
window.addEventListener('unhandledrejection', event => errors.push(String(event.reason)));
window.screen_of = name => {
  const video = Object.assign(document.createElement('video'), {id: name, muted: true, autoplay: true});
  document.body.append(video);
  return video;
};
";

/// As the package's README publishes, from Chromium's fake camera and microphone.
const BINBAT_PUBLISHES: &str = r"
const stream = await navigator.mediaDevices.getUserMedia({audio: true, video: true});
const pc = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
for (const track of stream.getTracks()) pc.addTransceiver(track, {direction: 'sendonly'});
window.whip = new clients.WHIPClient();
await whip.publish(pc, url('/whip/cam-1'), args ?? token);";

/// As the package's README views.
const BINBAT_VIEWS: &str = r"
const pc = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
pc.addTransceiver('audio', {direction: 'recvonly'});
pc.addTransceiver('video', {direction: 'recvonly'});
const screen = document.getElementById('binbat') ?? screen_of('binbat');
pc.ontrack = ({track, streams}) => { if (track.kind === 'video') screen.srcObject = streams[0]; };
window.whep = new clients.WHEPClient();
await whep.view(pc, url('/whep/cam-1'), token);";

/// As the package's README plays, but for the STUN server of a company, which is its default.
const EYEVINN_PLAYS: &str = r"
window.failures = 0;
window.player = new clients.WebRTCPlayer({video: screen_of('eyevinn'), type: 'whep', iceServers: []});
player.on('initial-connection-failed', () => { failures += 1; });
await player.load(new URL(url('/whep/cam-1')), `Bearer ${token}`);";

/// A page with the clients, and a server that lets its origin in.
struct Stage {
    server: MediaServer,
    token: String,
    browser: Browser,
    _site: Site,
}

impl Stage {
    async fn open(args: &[&str]) -> Self {
        let path =
            std::env::var("WEB_CLIENTS").expect("WEB_CLIENTS is set by `cargo xtask clients web`");
        let clients =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let site = Site::start(clients + LOG).await;
        let origin = site.origin();
        let args = [&["--cors-origin", &origin], args].concat();
        let server = MediaServer::closed(&args).await;
        let browser = Browser::start(Options::default()).await;
        browser.open(&site.origin()).await;
        Self {
            token: server.token("cam-1", "publish,view"),
            server,
            browser,
            _site: site,
        }
    }

    /// Runs the body of an async function whose arguments are `url(path)`, `token` and `args`.
    async fn run(&self, script: &str, args: Value) -> Value {
        self.try_run(script, args)
            .await
            .unwrap_or_else(|error| panic!("the script failed: {error}\n{script}"))
    }

    async fn try_run(&self, script: &str, args: Value) -> anyhow::Result<Value> {
        let script = format!(
            "const [base, token, args] = arguments;
             const url = path => new URL(path, base).href;
             return (async () => {{ {script} }})();"
        );
        let args = vec![json!(self.server.url("")), json!(self.token), args];
        self.browser.run(&script, args).await
    }

    /// Waits until the page has been answered `count` requests of that method to paths that start so.
    async fn answered(&self, method: &str, path: &str, count: usize) -> Vec<Value> {
        let what = format!("{count} answers to {method} {path}");
        wait_for(&what, SOON, || async {
            let all = self.browser.run("return requests", vec![]).await?;
            let mut list = all.as_array().cloned().unwrap_or_default();
            let starts = |request: &Value| {
                let path_of = request["pathname"].as_str();
                path_of.is_some_and(|p| p.starts_with(path))
            };
            list.retain(|request| request["method"] == method && starts(request));
            ensure!(list.len() >= count, "{all}");
            Ok(list)
        })
        .await
    }

    /// Publishes and views with binbat, until pictures come.
    async fn plays_binbat(&self) {
        self.run(BINBAT_PUBLISHES, Value::Null).await;
        is_live(&self.server, &self.token, String::new).await;
        self.run(BINBAT_VIEWS, Value::Null).await;
        self.plays_on("binbat").await;
    }

    /// Waits until a screen has shown 60 pictures more.
    async fn plays_on(&self, screen: &str) {
        let shown = || async {
            let script = "return document.getElementById(arguments[0])
                .getVideoPlaybackQuality().totalVideoFrames";
            let shown = self.browser.run(script, vec![json!(screen)]).await?;
            shown
                .as_u64()
                .with_context(|| format!("no number: {shown}"))
        };
        let before = shown().await.expect("a screen");
        wait_for("60 more pictures", SOON, || async {
            let now = shown().await?;
            ensure!(now >= before + 60, "{now} pictures, {before} before");
            Ok(())
        })
        .await;
    }

    async fn has_no(&self, role: &str) {
        has_no(role, &self.server, &self.token).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn binbat_publishes_and_views_and_each_request_of_its_gets_its_status() {
    let stage = Stage::open(&[]).await;
    let refused = stage.try_run(BINBAT_PUBLISHES, json!("not a token")).await;
    assert!(refused.is_err());
    let early = stage.try_run(BINBAT_VIEWS, Value::Null).await;
    assert!(early.is_err());
    let posts = stage.answered("POST", "/wh", 2).await;
    assert_eq!(posts[0]["status"], 401);
    assert_eq!(posts[1]["status"], 409);
    assert!(posts[1]["retryAfter"].is_string(), "{posts:?}");

    stage.plays_binbat().await;
    let sessions = list(&stage.server, &stage.token, "sessions").await;
    let sessions = sessions.expect("a list");
    let known = sessions.iter().map(|s| (&s["role"], &s["connected"]));
    let both = [json!("publisher"), json!("viewer")];
    let both = both.iter().map(|role| (role, &Value::Bool(true)));
    assert!(known.eq(both), "{sessions:?}");

    // The publishing half sends the ETag that it was given.
    let posts = stage.answered("POST", "/whip/", 2).await;
    assert_eq!(posts[1]["status"], 201);
    assert!(posts[1]["etag"].is_string(), "{posts:?}");
    for trickle in stage.answered("PATCH", "/whip/", 1).await {
        assert_eq!(trickle["ifMatch"], posts[1]["etag"], "{trickle}");
        assert_eq!(trickle["status"], 204, "{trickle}");
    }
    // The viewing half forgets it, and is told: it throws that, and nobody catches it.
    for trickle in stage.answered("PATCH", "/whep/", 1).await {
        assert_eq!(trickle["ifMatch"], Value::Null, "{trickle}");
        assert_eq!(trickle["status"], 428, "{trickle}");
    }
    let errors = stage.run("return errors", Value::Null).await;
    let mut errors = errors.as_array().expect("a list").iter();
    let told = "Error: Request rejected with status 428";
    assert!(errors.all(|error| error == told), "{errors:?}");
    let script = "return [whep.eventSource?.readyState, whep.layerUrl?.pathname]";
    wait_for("server-sent events to be open", SOON, || async {
        let extensions = stage.try_run(script, Value::Null).await?;
        ensure!(
            extensions[0] == 1 && extensions[1].is_string(),
            "{extensions}"
        );
        Ok(())
    })
    .await;

    // A restart is granted. Of two candidates, which this server has, the package makes SDP that no
    // browser reads: nothing is lost by that.
    for client in ["whip", "whep"] {
        let restart = format!("await {client}.restart()");
        let restarted = stage.try_run(&restart, Value::Null).await;
        let error = restarted.expect_err("a line that begins with a comma");
        assert!(error.to_string().contains(",a=candidate:2"), "{error}");
        let requests = stage.answered("PATCH", &format!("/{client}/"), 2).await;
        let restart = requests.last().expect("two at least");
        assert_eq!(restart["ifMatch"], "*", "{restart}");
        assert_eq!(restart["status"], 200, "{restart}");
        assert!(restart["etag"].is_string(), "{restart}");
    }
    stage.plays_on("binbat").await;
    ends(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn binbat_restarts_ice_where_the_server_has_one_candidate_and_pictures_go_on() {
    let stage = Stage::open(&["--media-tcp", "false"]).await;
    stage.plays_binbat().await;
    for client in ["whip", "whep"] {
        stage
            .run(&format!("await {client}.restart()"), Value::Null)
            .await;
        // The path of the former credentials is given up for one of the new.
        let script = format!(
            "const stats = [...(await {client}.pc.getStats()).values()];
             const of = (id) => stats.find((stat) => stat.id === id);
             const {{selectedCandidatePairId}} = stats.find(({{type}}) => type === 'transport');
             const used = of(of(selectedCandidatePairId).localCandidateId).usernameFragment;
             return [used, {client}.iceUsername];"
        );
        wait_for("the new credentials to be used", SOON, || async {
            let names = stage.try_run(&script, Value::Null).await?;
            ensure!(names[0] == names[1], "{names}");
            Ok(())
        })
        .await;
    }
    stage.plays_on("binbat").await;
    for client in ["whip", "whep"] {
        let requests = stage.answered("PATCH", &format!("/{client}/"), 1).await;
        let before = |request: &&Value| request["ifMatch"] != "*";
        let mut after = requests.iter().skip_while(before);
        let restart = after.next().expect("a restart");
        assert_eq!(restart["status"], 200, "{restart}");
        assert!(restart["etag"].is_string(), "{restart}");
        let posts = stage.answered("POST", &format!("/{client}/"), 1).await;
        let given = &posts.last().expect("one at least")["etag"];
        assert_ne!(&restart["etag"], given, "a new one");
        for trickle in after {
            assert_eq!(trickle["ifMatch"], restart["etag"], "{trickle}");
            assert_eq!(trickle["status"], 204, "{trickle}");
        }
    }
    let metrics = stage.server.metrics().await;
    assert_eq!(metrics.value("media_ice_restarts_total", &[]), Some(2.0));
    ends(&stage).await;
}

/// Both halves of binbat end. They close their connection first, and the server may know by that.
async fn ends(stage: &Stage) {
    for client in ["whep", "whip"] {
        stage
            .run(&format!("await {client}.stop()"), Value::Null)
            .await;
        let delete = &stage.answered("DELETE", &format!("/{client}/"), 1).await[0];
        let gone = delete["status"] == 200 || delete["status"] == 404;
        assert!(gone, "{delete}");
    }
    stage.has_no("viewer").await;
    stage.has_no("publisher").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn eyevinn_says_when_nobody_publishes_and_plays_h264_when_somebody_does() {
    let stage = Stage::open(&[]).await;
    stage.run(EYEVINN_PLAYS, Value::Null).await;
    let posts = stage.answered("POST", "/whep/", 1).await;
    assert_eq!(posts[0]["status"], 409);
    assert!(posts[0]["retryAfter"].is_string(), "{posts:?}");
    wait_for("the player to say so", SOON, || async {
        let failures = stage.try_run("return failures", Value::Null).await?;
        ensure!(failures == 1, "{failures} failures");
        Ok(())
    })
    .await;

    let _publisher = test_publisher(&stage.server, &stage.token).await;
    let again = "player.destroy(); document.getElementById('eyevinn').remove()";
    stage.run(again, Value::Null).await;
    stage.run(EYEVINN_PLAYS, Value::Null).await;
    stage.plays_on("eyevinn").await;
    let posts = stage.answered("POST", "/whep/", 2).await;
    assert_eq!(posts[1]["status"], 201);

    stage.run("await player.unload()", Value::Null).await;
    let delete = &stage.answered("DELETE", "/whep/", 1).await[0];
    assert_eq!(delete["status"], 200);
    stage.has_no("viewer").await;
}
