// The page: which devices are live, one of them playing, and one picture published from here.
// Sessions keep themselves alive (session.js); this file only starts them, shows them and ends them.

import { Session, authorization, refusal } from "./session.js";
import { clearFigures, showFigures } from "./figures.js";
import { testPicture } from "./testpicture.js";

const POLL_MS = 2_000;
const DEVICE = /^[A-Za-z0-9._-]{1,128}$/;
const $ = (id) => document.getElementById(id);

/** The session whose picture the player shows, if any. */
let watching = null;
/** The session that publishes from here and the picture it sends, if any. */
let publishing = null;

// ---- token ------------------------------------------------------------------------------------

// sessionStorage: gone with the tab, and never sent by the browser on its own.
let token = sessionStorage.getItem("token") ?? "";
const currentToken = () => token;

function useToken(value) {
  token = value.trim().replace(/^Bearer\s+/i, "");
  if (token) sessionStorage.setItem("token", token);
  else sessionStorage.removeItem("token");
  $("token-button").dataset.state = token ? "set" : "none";
  $("token-button").textContent = token ? "Token set" : "Token";
  const grants = claims()?.media;
  const publish = [grants?.publish ?? []].flat()[0];
  if (publish && !publishing) $("publish-device").value = publish.endsWith("*") ? `${publish.slice(0, -1)}browser` : publish;
}

/** The token's claims, only to help the person; the server alone judges it. */
function claims(text = token) {
  try {
    const body = text.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    return JSON.parse(atob(body));
  } catch {
    return null;
  }
}

function aboutToken(text) {
  if (!text) return "No token is set.";
  const body = claims(text);
  if (!body) return "This is no JSON Web Token; the server will probably refuse it.";
  const named = (grant) => [body.media?.[grant] ?? []].flat().join(", ") || "nothing";
  const until = body.exp ? new Date(body.exp * 1000) : null;
  const expiry = !until ? "" : until < new Date() ? `Expired ${until.toLocaleString()}.` : `Valid until ${until.toLocaleString()}.`;
  return `Publishes ${named("publish")}; views ${named("view")}. ${expiry}`;
}

/** Takes `#token=…&device=…` and removes the token from the address bar and the history. */
function readFragment() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const given = fragment.get("token");
  if (given !== null) {
    useToken(given);
    fragment.delete("token");
    const rest = fragment.toString();
    history.replaceState(null, "", location.pathname + location.search + (rest ? `#${rest}` : ""));
  }
  const device = fragment.get("device");
  return device && DEVICE.test(device) ? device : null;
}

$("token-button").addEventListener("click", () => {
  $("token-input").value = token;
  $("token-about").textContent = aboutToken(token);
  $("token-dialog").showModal();
});
$("token-input").addEventListener("input", () => { $("token-about").textContent = aboutToken($("token-input").value.trim()); });
$("token-clear").addEventListener("click", () => { $("token-input").value = ""; $("token-form").requestSubmit(); });
$("token-form").addEventListener("submit", () => { useToken($("token-input").value); poll(); });

// ---- live devices -----------------------------------------------------------------------------

let live = new Map();
let mayAutoplay = true;

async function fetchDevices() {
  const response = await fetch(new URL("api/v1/devices", document.baseURI), {
    headers: authorization(token), cache: "no-store", signal: AbortSignal.timeout(5_000),
  });
  if (!response.ok) throw await refusal(response);
  const body = await response.json();
  const entries = Array.isArray(body) ? body : (body.devices ?? []);
  return new Map(entries.filter((entry) => entry.live !== false).map((entry) => [entry.device, entry]));
}

async function isLive(device) {
  try {
    return (await fetchDevices()).has(device);
  } catch {
    return false;
  }
}

let polling = false;
async function poll() {
  if (polling) return;
  polling = true;
  try {
    live = await fetchDevices();
    server("ok", "online");
    $("devices-message").textContent = live.size ? "" : "Nothing is live. Publish a picture from here, or start a device.";
  } catch (error) {
    live = new Map();
    if (error.status === 401) {
      server("ok", "token needed");
      $("devices-message").textContent = token ? error.message : "This server asks for a token: use the button at the top.";
    } else if (error.status) {
      server("ok", "online");
      $("devices-message").textContent = error.message;
    } else {
      server("down", "unreachable");
      $("devices-message").textContent = "The server cannot be reached. Trying again.";
    }
  } finally {
    polling = false;
  }
  showDevices();
  // With a single live device there is nothing to choose.
  if (mayAutoplay && live.size) {
    mayAutoplay = false;
    if (live.size === 1) watch([...live.keys()][0]);
  }
}

function server(state, text) {
  $("server").dataset.state = state;
  $("server").textContent = text;
}

function showDevices() {
  $("device-count").textContent = live.size || "";
  const rows = new Map([...$("devices").children].map((row) => [row.dataset.device, row]));
  const wanted = [...live.keys()].sort();
  for (const [device, row] of rows) if (!live.has(device)) row.remove();
  wanted.forEach((device, index) => {
    let row = rows.get(device);
    if (!row) {
      row = document.createElement("li");
      row.dataset.device = device;
      const button = Object.assign(document.createElement("button"), { type: "button" });
      const name = Object.assign(document.createElement("span"), { className: "device-name", textContent: device });
      button.append(name, Object.assign(document.createElement("span"), { className: "viewers" }));
      button.addEventListener("click", () => watch(device));
      row.append(button);
    }
    if ($("devices").children[index] !== row) $("devices").insertBefore(row, $("devices").children[index] ?? null);
    const viewers = live.get(device).viewers;
    row.querySelector(".viewers").textContent =
      viewers === undefined ? "" : viewers === 1 ? "1 viewer" : `${viewers} viewers`;
    row.firstChild.setAttribute("aria-current", String(watching?.device === device));
  });
}

// ---- watching ---------------------------------------------------------------------------------

const player = $("player");

const WATCH_STATES = {
  connecting: "connecting", connected: "live", stalled: "no media", waiting: "waiting", failed: "ended",
};

function watch(device) {
  if (watching?.device === device && watching.state !== "failed") return;
  mayAutoplay = false;
  leave();
  const session = new Session({ role: "whep", device, token: currentToken });
  watching = session;
  let firstPictureMs;
  $("watch-device").textContent = device;
  session.addEventListener("state", ({ detail }) => {
    if (watching !== session) return;
    $("stage").dataset.state = detail.state;
    $("watch-state").textContent = WATCH_STATES[detail.state] ?? "";
    $("stage-message").textContent = detail.message
      + (detail.state === "waiting" ? " Trying again." : "")
      || (detail.state === "connecting" ? "Connecting" : "");
    if (detail.status === 401) $("stage-message").textContent += " Set a token at the top.";
    showDevices();
  });
  session.addEventListener("media", ({ detail: media }) => {
    if (watching !== session || player.srcObject === media) return;
    player.srcObject = media;
    play();
    const measured = () => {
      if (watching !== session) return;
      firstPictureMs ??= performance.now() - session.startedAt;
      $("stage").dataset.picture = "true";
    };
    if (player.requestVideoFrameCallback) player.requestVideoFrameCallback(measured);
    else player.addEventListener("loadeddata", measured, { once: true });
  });
  session.addEventListener("figures", ({ detail }) => {
    if (watching === session) showFigures($("watch-figures"), detail, firstPictureMs);
  });
  session.start();
  const fragment = new URLSearchParams({ device });
  history.replaceState(null, "", `${location.pathname}${location.search}#${fragment}`);
}

function play() {
  player.play().catch((error) => {
    // Starting with sound needs a gesture in most browsers; without sound it never does.
    if (error.name === "NotAllowedError" && !player.muted) { setSound(false); play(); }
  });
}

function leave() {
  watching?.stop();
  watching = null;
  player.srcObject = null;
  clearFigures($("watch-figures"));
  $("stage").dataset.state = "idle";
  delete $("stage").dataset.picture;
  $("stage-message").textContent = "Choose a live device, or publish a picture from here.";
  showDevices();
}

function setSound(on) {
  player.muted = !on;
  $("sound").setAttribute("aria-pressed", String(on));
}

$("sound").addEventListener("click", () => { setSound(player.muted); play(); });
$("leave").addEventListener("click", () => {
  leave();
  history.replaceState(null, "", location.pathname + location.search);
});
$("show-figures").addEventListener("click", () => {
  const shown = $("show-figures").getAttribute("aria-pressed") !== "true";
  $("show-figures").setAttribute("aria-pressed", String(shown));
  $("watch-figures").hidden = !shown;
});
$("fullscreen").addEventListener("click", () => {
  if (document.fullscreenElement) document.exitFullscreen();
  else if ($("stage").requestFullscreen) $("stage").requestFullscreen();
  else player.webkitEnterFullscreen?.(); // iPhones know only full-screen video
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, dialog")) return;
  const button = { m: "sound", i: "show-figures", f: "fullscreen" }[event.key.toLowerCase()];
  if (button && watching) { event.preventDefault(); $(button).click(); }
});

// ---- publishing -------------------------------------------------------------------------------

const CAPTURE_ERRORS = {
  NotAllowedError: "The browser was not allowed to capture. Allow it in the address bar and try again.",
  NotFoundError: "No such device was found on this machine.",
  NotReadableError: "Another program holds the camera or microphone.",
};

function offerSources() {
  const camera = Boolean(navigator.mediaDevices?.getUserMedia);
  const screen = Boolean(navigator.mediaDevices?.getDisplayMedia);
  $("source-camera").disabled = !camera;
  $("source-screen").disabled = !screen;
  if (!window.isSecureContext) {
    $("source-note").textContent =
      "Browsers give cameras and screens only to https pages and to localhost. The test picture works here too.";
  } else if (!screen) {
    $("source-note").textContent = "This browser cannot share its screen.";
  }
  $("source-note").hidden = !$("source-note").textContent;
}

async function capture(source, device, withSound) {
  if (source === "test") return testPicture(device, withSound);
  const stream = source === "camera"
    ? await navigator.mediaDevices.getUserMedia({
      video: { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } },
      audio: withSound,
    })
    : await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: { ideal: 30 } }, audio: withSound });
  return { stream, stop() { for (const track of stream.getTracks()) track.stop(); } };
}

async function publish() {
  const device = $("publish-device").value;
  const source = new FormData($("publish")).get("source");
  // Whoever publishes did not come to see their own picture.
  mayAutoplay = false;
  setPublishing("connecting");
  $("publish-message").textContent = source === "test" ? "" : "Waiting for your permission";
  let picture;
  try {
    picture = await capture(source, device, $("publish-sound").checked);
  } catch (error) {
    setPublishing("idle");
    $("publish-message").textContent = CAPTURE_ERRORS[error.name] ?? `Cannot capture: ${error.message}`;
    return;
  }
  const session = new Session({ role: "whip", device, token: currentToken, stream: picture.stream, isLive: () => isLive(device) });
  publishing = { session, picture };
  $("preview").srcObject = picture.stream;
  session.addEventListener("state", ({ detail }) => {
    if (publishing?.session !== session) return;
    if (detail.state === "failed") endPublishing(detail.message);
    else {
      setPublishing(detail.state);
      const texts = { connecting: "Connecting", connected: `${device} is live.`, stalled: "The connection is interrupted." };
      $("publish-message").textContent = texts[detail.state] ?? `${detail.message} Trying again.`;
      if (detail.state === "connected") poll();
    }
  });
  session.addEventListener("figures", ({ detail }) => {
    if (publishing?.session === session) showFigures($("publish-figures"), detail, null);
  });
  // The browser's own "stop sharing" button, or a camera that was unplugged.
  picture.stream.getVideoTracks()[0].addEventListener("ended", () => {
    if (publishing?.session === session) endPublishing("The capture ended.");
  });
  session.start();
}

function endPublishing(message) {
  publishing?.session.stop();
  publishing?.picture.stop();
  publishing = null;
  $("preview").srcObject = null;
  clearFigures($("publish-figures"));
  setPublishing("idle");
  $("publish-message").textContent = message;
  poll();
}

function setPublishing(state) {
  const idle = state === "idle";
  $("publish").dataset.state = state;
  $("publish-button").textContent = idle ? "Publish" : "Stop publishing";
  $("publishing").hidden = idle;
  for (const field of ["publish-device", "source-camera", "source-screen", "source-test", "publish-sound"]) {
    $(field).disabled = !idle;
  }
  if (idle) offerSources();
}

$("publish").addEventListener("submit", (event) => {
  event.preventDefault();
  if (publishing) endPublishing("");
  else if ($("publish").dataset.state === "idle") publish();
});

// ---- start and end ----------------------------------------------------------------------------

addEventListener("hashchange", () => {
  const device = readFragment();
  if (device) watch(device);
  poll();
});
addEventListener("pagehide", () => {
  watching?.stop();
  publishing?.session.stop();
});
// A page that comes back from the back/forward cache has lost its sessions.
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

offerSources();
useToken(token);
const wanted = readFragment();
leave();
if (wanted) watch(wanted);
poll();
setInterval(() => { if (!document.hidden) poll(); }, POLL_MS);
document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
