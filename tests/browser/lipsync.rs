//! Chromium publishes flashes with a beep each and watches itself: picture and sound come out together.
//!
//! Its statistics alone would not do: a browser delays one of the two until they agree by the server's
//! sender reports, and so shows no difference whatever these say. So the page also looks at the flashes
//! that it is shown and listens to the beeps that it is played.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tests::browser::Options;
use tests::{Browser, Connections, MediaServer, wait_for};

const SOON: Duration = Duration::from_secs(90);

/// Milliseconds that sound may be early or late before somebody notices: ITU-R BT.1359 finds 45 early.
const NOTICED: f64 = 40.0;

/// The first flashes, one a second, are not judged: a browser follows sender reports by at most 80 ms a
/// second (`kMaxChangeMs` of libwebrtc's `StreamSynchronization`), and its buffers of sound and picture
/// find their length at the beginning.
const SETTLING: usize = 15;

/// All that come then are, once there are so many.
const JUDGED: usize = 20;

/// Publishes: for the first quarter of each second the picture is white and there is a tone. Where they
/// are made they are looked at too, as `made`: what is apart there is none of the server's doing.
const PUBLISH: &str = r"
const [url] = arguments;
return (async () => {
  const canvas = Object.assign(document.createElement('canvas'), {width: 320, height: 180});
  document.body.append(canvas);
  const picture = canvas.getContext('2d');
  const context = new AudioContext();
  const tone = new OscillatorNode(context, {frequency: 1000});
  const gain = new GainNode(context, {gain: 0});
  const sound = context.createMediaStreamDestination();
  tone.connect(gain).connect(sound);
  tone.start();
  let drawn = 0;
  setInterval(() => {
    const on = Date.now() % 1000 < 250;
    gain.gain.value = on ? 0.5 : 0;
    picture.fillStyle = on ? 'white' : 'black';
    picture.fillRect(0, 0, 320, 180);
    // No picture is like the one before, or it would not be captured.
    picture.fillStyle = 'gray';
    picture.fillRect(drawn++ % 320, 170, 1, 10);
  }, 20);
  const tracks = [...sound.stream.getTracks(), ...canvas.captureStream(30).getTracks()];
  const stream = new MediaStream(tracks);
  const pc = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
  for (const track of tracks) pc.addTransceiver(track, {direction: 'sendonly', streams: [stream]});
  await negotiate('publisher', pc, url);
  await observe('made', stream);
})();";

const WATCH: &str = r"
const [url] = arguments;
return (async () => {
  const pc = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
  for (const kind of ['audio', 'video']) pc.addTransceiver(kind, {direction: 'recvonly'});
  await negotiate('viewer', pc, url);
  await observe('played', new MediaStream(pc.getReceivers().map(({track}) => track)));
})();";

/// Keeps when each flash is shown and each beep is played, in milliseconds, in `seen[name]`. Samples are read
/// off the track: a node of Web Audio keeps what it was late for once, and is late for ever then.
const OBSERVE: &str = r"
window.seen = {};
window.observe = async (name, stream) => {
  const {flashes, beeps} = seen[name] = {flashes: [], beeps: []};
  const video = Object.assign(document.createElement('video'), {muted: true, srcObject: stream});
  document.body.append(video);
  const small = Object.assign(document.createElement('canvas'), {width: 8, height: 8});
  const picture = small.getContext('2d', {willReadFrequently: true});
  let lit = true;
  const look = (_, {expectedDisplayTime}) => {
    picture.drawImage(video, 0, 0, 8, 8);
    const bright = picture.getImageData(4, 2, 1, 1).data[0] > 128;
    if (bright && !lit) flashes.push(performance.timeOrigin + expectedDisplayTime);
    lit = bright;
    video.requestVideoFrameCallback(look);
  };
  video.requestVideoFrameCallback(look);
  await video.play();
  const [track] = stream.getAudioTracks();
  const sound = new MediaStreamTrackProcessor({track}).readable.getReader();
  // A tone crosses zero, and may lack a packet: it is a new one after a tenth of a second.
  let quiet = 0;
  const listen = ({value, done}) => {
    if (done) return;
    const samples = new Float32Array(value.numberOfFrames);
    value.copyTo(samples, {planeIndex: 0, format: 'f32-planar'});
    const loud = samples.some(sample => Math.abs(sample) > 0.1);
    if (loud && quiet > 0.1) beeps.push(Date.now());
    quiet = loud ? 0 : quiet + value.numberOfFrames / value.sampleRate;
    value.close();
    sound.read().then(listen);
  };
  sound.read().then(listen);
};";

/// When each flash was seen.
fn flashes(seen: &Value) -> Vec<f64> {
    times(&seen["flashes"])
}

fn times(list: &Value) -> Vec<f64> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(Value::as_f64).collect()
}

/// How many milliseconds after its flash each beep was heard, of the flashes from that time on.
fn apart(seen: &Value, from: f64) -> Vec<f64> {
    let beeps = times(&seen["beeps"]);
    let nearest = |flash: f64| {
        let late = beeps.iter().map(|beep| beep - flash);
        late.min_by(|a, b| a.abs().total_cmp(&b.abs()))
    };
    let judged = flashes(seen).into_iter().filter(|flash| *flash >= from);
    let late = judged.filter_map(nearest);
    // A beep without its flash, or the other way round.
    late.filter(|late| late.abs() < 500.0).collect()
}

/// The one in the middle.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// How many milliseconds the sound is late by the browser's own account: what it plays is older then.
async fn by_statistics(page: &Connections<'_>) -> anyhow::Result<f64> {
    let fields = ["kind", "estimatedPlayoutTimestamp"];
    let list = page.statistics("viewer", "inbound-rtp", &fields).await?;
    let playing = |kind: &str| {
        let of_kind = list.iter().find(|stat| stat["kind"] == kind);
        let time = of_kind.and_then(|stat| stat["estimatedPlayoutTimestamp"].as_f64());
        time.with_context(|| format!("no time of the {kind}: {list:?}"))
    };
    Ok(playing("video")? - playing("audio")?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_beep_is_heard_within_40_ms_of_its_flash_and_statistics_say_so_too() {
    let server = MediaServer::open(&[]).await;
    let browser = Browser::start(Options::default()).await;
    let page = Connections::open(&browser, &server.url("/health")).await;
    page.run(OBSERVE, vec![]).await;
    let url = server.url("/whip/cam-1");
    page.run(PUBLISH, vec![json!(url)]).await;
    let url = server.url("/whep/cam-1");
    wait_for("the viewer to be let in", SOON, || async {
        browser.run(WATCH, vec![json!(url)]).await
    })
    .await;

    // Of each flash, what the statistics said then: the window of both is the same.
    let accounts = std::sync::Mutex::new(Vec::new());
    let what = "flashes to settle by and to judge";
    let (seen, accounts) = wait_for(what, SOON, || async {
        let account = by_statistics(&page).await?;
        let seen = browser.run("return seen", vec![]).await?;
        let shown = flashes(&seen["played"]).len();
        let accounts = {
            let mut accounts = accounts.lock().expect("nobody panics with it");
            let known = accounts.len();
            accounts.resize(shown.max(known), account);
            accounts.clone()
        };
        let from = flashes(&seen["played"]).get(SETTLING).copied();
        let from = from.with_context(|| format!("only {shown} flashes"))?;
        let judged = ["made", "played"].map(|end| apart(&seen[end], from).len());
        ensure!(judged.iter().all(|count| *count >= JUDGED), "{judged:?}");
        Ok::<_, anyhow::Error>((seen, accounts))
    })
    .await;

    // There is one look: what was apart is not forgiven for having been together later.
    let from = flashes(&seen["played"])[SETTLING];
    let (made, played) = (apart(&seen["made"], from), apart(&seen["played"], from));
    let heard = median(&played) - median(&made);
    let said = median(&accounts[SETTLING..]);
    assert!(
        heard.abs() <= NOTICED && said.abs() <= NOTICED,
        "heard {heard:.0} ms late, {said:.0} by statistics; with the first {:.0?}; played {played:.0?}, made {made:.0?}",
        apart(&seen["played"], 0.0)
    );
    println!("sound is {heard:.0} ms late by eye and ear, {said:.0} ms by statistics");
    browser.close().await;
}
