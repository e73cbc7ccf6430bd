// One WHIP (RFC 9725) or WHEP (draft-ietf-wish-whep) session that keeps itself alive: it posts an
// offer, watches the connection, posts again when it is lost, and deletes its resource when it ends.
// It knows nothing of the page; app.js listens to its "state", "media" and "figures" events.

import { Figures } from "./figures.js";

// The server frees a session that sent no check in 15 s; waiting longer here cannot help.
const CONNECT_TIMEOUT_MS = 15_000;
// Without media for so long, the session's resource is asked whether it still exists.
const STALL_MS = 2_000;
const TICK_MS = 1_000;
const MAX_BACKOFF_S = 8;

/** What a request was refused with; `detail` comes from problem+json (RFC 9457) where there is one. */
export class Refusal extends Error {
  constructor(status, detail, retryAfter) {
    super(sentence(detail));
    this.status = status;
    this.retryAfter = retryAfter;
  }
  /** Another try with the same input can succeed. */
  get passing() {
    return this.status === 409 || this.status === 429 || this.status >= 500;
  }
}

/** Details are written for logs too: lower case, no full stop. */
function sentence(text) {
  const start = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(start) ? start : `${start}.`;
}

/** Builds the Refusal for a response that is not 2xx. */
export async function refusal(response) {
  let detail = "";
  try {
    if ((response.headers.get("content-type") ?? "").includes("json")) {
      const problem = await response.json();
      detail = problem.detail ?? problem.title ?? "";
    }
  } catch {
    // A body that is no JSON says nothing that a person could use.
  }
  const after = Number.parseFloat(response.headers.get("retry-after") ?? "");
  return new Refusal(
    response.status,
    detail || `The server answered ${response.status} ${response.statusText}`.trim(),
    Number.isFinite(after) && after >= 0 ? after : undefined,
  );
}

export function authorization(token) {
  return token ? { authorization: `Bearer ${token}` } : {};
}

const sleep = (ms, signal) =>
  new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });

export class Session extends EventTarget {
  /**
   * @param {"whip"|"whep"} role
   * @param {string} device
   * @param {() => string} token the token at the time of each request
   * @param {MediaStream} [stream] what a WHIP session sends
   * @param {() => Promise<boolean>} [isLive] whether somebody publishes this device now
   */
  constructor({ role, device, token, stream, isLive }) {
    super();
    Object.assign(this, { role, device, token, stream, isLive });
    this.ending = new AbortController();
    this.state = "idle";
    this.resource = null;
  }

  start() {
    this.startedAt = performance.now();
    this.#run();
    return this;
  }

  /** Ends the session and deletes its resource. Safe to call from pagehide. */
  stop() {
    if (this.ending.signal.aborted) return;
    this.ending.abort();
    this.#release();
    this.#tell("ended", "");
  }

  async #run() {
    const { signal } = this.ending;
    for (let failures = 0; !signal.aborted; ) {
      if (this.state !== "waiting") this.#tell("connecting", "");
      const outcome = await this.#attempt().catch((error) => ({ error }));
      if (signal.aborted) return;
      const { connected, error } = outcome;
      this.#release(outcome.gone);
      failures = connected ? 0 : failures + 1;
      if (outcome.over || (error instanceof Refusal && !error.passing)) {
        this.ending.abort();
        this.#tell("failed", error.message, error.status);
        return;
      }
      const backoff = Math.min(MAX_BACKOFF_S, 0.5 * 2 ** Math.min(failures, 6)) * (0.75 + Math.random() / 2);
      const seconds = error.retryAfter ?? (connected ? 0.2 : backoff);
      this.#tell("waiting", error.message, error.status);
      await sleep(seconds * 1000, signal);
    }
  }

  /** One POST and the session that follows; settles when that session is lost. */
  async #attempt() {
    const pc = new RTCPeerConnection({ bundlePolicy: "max-bundle", rtcpMuxPolicy: "require" });
    this.pc = pc;
    const media = new MediaStream();
    if (this.role === "whip") {
      for (const track of this.stream.getTracks()) {
        const sendEncodings = track.kind === "video" ? [{ maxBitrate: 2_500_000 }] : [{}];
        pc.addTransceiver(track, { direction: "sendonly", streams: [this.stream], sendEncodings });
      }
    } else {
      for (const kind of ["video", "audio"]) {
        const { receiver } = pc.addTransceiver(kind, { direction: "recvonly" });
        // A live view wants the newest picture; the browser still grows its buffer where the link needs it.
        if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
      }
      pc.addEventListener("track", ({ track }) => {
        media.addTrack(track);
        this.dispatchEvent(new CustomEvent("media", { detail: media }));
      });
    }
    // No candidates in the offer: the server is ICE-lite, all of its addresses are in the answer, and
    // it never sends to an address that the client did not send from. They are looked for only after
    // the answer, which comes with the ICE servers to use.
    const offer = await pc.createOffer();
    const { answer, iceServers } = await this.#post(offer.sdp);
    if (pc.signalingState === "closed") throw new Error("ended");
    if (iceServers.length) pc.setConfiguration({ ...pc.getConfiguration(), iceServers });
    await pc.setLocalDescription(offer);
    await pc.setRemoteDescription({ type: "answer", sdp: answer });
    return this.#watch(pc, answer);
  }

  async #post(sdp) {
    let response;
    try {
      response = await fetch(new URL(`${this.role}/${encodeURIComponent(this.device)}`, document.baseURI), {
        method: "POST",
        headers: { "content-type": "application/sdp", ...authorization(this.token()) },
        body: sdp,
        cache: "no-store",
      });
    } catch {
      throw new Error("The server cannot be reached.");
    }
    if (response.status !== 201) throw await refusal(response);
    const location = response.headers.get("location");
    if (!location) throw new Error("The server's answer names no session resource.");
    this.resource = new URL(location, response.url);
    // stop() came while the POST was under way: nobody else would ever delete this session.
    if (this.ending.signal.aborted) {
      this.#release();
      throw new Error("ended");
    }
    return { answer: await response.text(), iceServers: iceServers(response.headers.get("link") ?? "") };
  }

  /** Watches a set-up session until it is lost; says how. */
  async #watch(pc, answer) {
    const { signal } = this.ending;
    const figures = new Figures(this.role);
    const postedAt = performance.now();
    let connected = false;
    let moved = { packets: -1, at: postedAt };
    let askedAt = 0;
    let nudge = () => {};
    pc.addEventListener("connectionstatechange", () => nudge());
    signal.addEventListener("abort", () => nudge(), { once: true });
    for (;;) {
      if (signal.aborted) return { connected, error: new Error("ended") };
      const state = pc.connectionState;
      const now = performance.now();
      if (state === "connected" && !connected) {
        connected = true;
        moved.at = now;
        this.#tell("connected", "");
      }
      if (state === "failed" || state === "closed") {
        if (!connected) return { connected, error: new Error(noPath(answer)) };
        return this.#lost({ connected, error: new Error("The connection was lost.") });
      }
      if (!connected && now - postedAt > CONNECT_TIMEOUT_MS) return { connected, error: new Error(noPath(answer)) };
      if (connected) {
        const read = await figures.read(pc);
        this.dispatchEvent(new CustomEvent("figures", { detail: read }));
        if (read.packets !== moved.packets) moved = { packets: read.packets, at: now };
        const stalled = state === "disconnected" || (this.role === "whep" && now - moved.at > STALL_MS);
        if (stalled && now - askedAt > STALL_MS) {
          askedAt = now;
          const verdict = await this.#ask();
          if (verdict === "gone") return this.#lost({ connected, gone: true, error: new Error("The server ended the session.") });
        }
        const shown = stalled ? "stalled" : "connected";
        if (shown !== this.state) this.#tell(shown, stalled ? "No media is arriving." : "");
      }
      await new Promise((resolve) => {
        nudge = resolve;
        setTimeout(resolve, TICK_MS);
      });
    }
  }

  /** Whether the session's resource still exists: after a restart of the server it does not. */
  async #ask() {
    try {
      const response = await fetch(this.resource, { headers: authorization(this.token()), cache: "no-store" });
      return response.status === 404 ? "gone" : "there";
    } catch {
      return "unknown";
    }
  }

  /** A publisher that lost its session to another publisher must not take the device back and forth. */
  async #lost(outcome) {
    const gone = outcome.gone ?? (await this.#ask()) === "gone";
    if (this.role === "whip" && gone && (await this.isLive?.())) {
      return { ...outcome, gone, over: true, error: new Error(`Another publisher took over ${this.device}.`) };
    }
    return { ...outcome, gone };
  }

  /** Closes the connection, and deletes the resource unless the server has already done so. */
  #release(gone = false) {
    this.pc?.close();
    this.pc = null;
    const resource = this.resource;
    this.resource = null;
    if (!resource || gone) return;
    // keepalive lets the request outlive the page.
    fetch(resource, { method: "DELETE", headers: authorization(this.token()), keepalive: true }).catch(() => {});
  }

  #tell(state, message, status) {
    this.state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: { state, message, status } }));
  }
}

/** The ICE servers of `Link` values (RFC 9725 §4.6), as RTCPeerConnection takes them. */
function iceServers(links) {
  const parameter = String.raw`\s*;\s*([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,]*))`;
  const servers = [];
  for (const [, urls, rest] of links.matchAll(new RegExp(`<([^>]*)>((?:${parameter})*)`, "g"))) {
    const found = {};
    for (const [, name, quoted, plain] of rest.matchAll(new RegExp(parameter, "g"))) {
      found[name.toLowerCase()] = quoted?.replace(/\\(.)/g, "$1") ?? plain;
    }
    const { rel, username, credential } = found;
    if (rel === "ice-server") servers.push(username === undefined ? { urls } : { urls, username, credential });
  }
  return servers;
}

function noPath(answer) {
  const addresses = [...answer.matchAll(/^a=candidate:\S+ \d+ (\S+) \d+ (\S+) (\d+) /gm)]
    .map(([, protocol, host, port]) => `${host.includes(":") ? `[${host}]` : host}:${port}/${protocol.toLowerCase()}`);
  const where = [...new Set(addresses)].slice(0, 3).join(", ");
  return where
    ? `The server accepted the session, but no media path came up to ${where}. Is that address reachable from here?`
    : "The server accepted the session, but named no media address.";
}
