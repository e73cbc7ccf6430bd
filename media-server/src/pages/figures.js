// Turns getStats() into the few live figures that the page shows. Rates are over the last second:
// it keeps the last sample and nothing else.

export class Figures {
  #last = null;

  /** @param {"whip"|"whep"} role */
  constructor(role) {
    this.role = role;
  }

  /** Reads one sample. Values that are not known yet are undefined. */
  async read(pc) {
    const report = await pc.getStats();
    const all = [...report.values()];
    const transport = all.find((s) => s.type === "transport");
    const pair = report.get(transport?.selectedCandidatePairId) ?? all.find((s) => s.type === "candidate-pair" && s.nominated);
    const sending = this.role === "whip";
    const streams = all.filter((s) => s.type === (sending ? "outbound-rtp" : "inbound-rtp"));
    const video = streams.find((s) => s.kind === "video");
    const far = all.find((s) => s.type === "remote-inbound-rtp" && s.kind === "video");
    const sum = (field) => streams.reduce((total, s) => total + (s[field] ?? 0), 0);
    const sample = {
      at: performance.now(),
      bytes: sum(sending ? "bytesSent" : "bytesReceived"),
      packets: sum(sending ? "packetsSent" : "packetsReceived"),
      lost: sum("packetsLost"),
      frames: (sending ? video?.framesEncoded : video?.framesDecoded) ?? 0,
    };
    const last = this.#last;
    this.#last = sample;
    const seconds = last ? (sample.at - last.at) / 1000 : 0;
    const rate = (field) => (seconds > 0 ? Math.max(0, sample[field] - last[field]) / seconds : undefined);

    let loss;
    if (sending) {
      loss = far?.fractionLost;
    } else if (last) {
      const lost = Math.max(0, sample.lost - last.lost);
      const arrived = Math.max(0, sample.packets - last.packets);
      loss = lost + arrived > 0 ? lost / (lost + arrived) : undefined;
    }
    const jitter = sending ? far?.jitter : video?.jitter;
    const roundTrip = pair?.currentRoundTripTime ?? far?.roundTripTime;
    const bits = rate("bytes");
    return {
      packets: sample.packets,
      frames: sample.frames,
      fps: video?.framesPerSecond ?? rate("frames"),
      kbps: bits === undefined ? undefined : (bits * 8) / 1000,
      lossPercent: loss === undefined ? undefined : loss * 100,
      rttMs: roundTrip === undefined ? undefined : roundTrip * 1000,
      jitterMs: jitter === undefined ? undefined : jitter * 1000,
      width: video?.frameWidth,
      height: video?.frameHeight,
      codec: report.get(video?.codecId)?.mimeType?.replace(/^video\//i, ""),
    };
  }
}

const rounded = (value, digits, unit) => (value === undefined ? "–" : `${value.toFixed(digits)} ${unit}`);

/** Writes figures into a <dl>; the raw numbers go into data attributes, for scripts. */
export function showFigures(list, figures, firstPictureMs) {
  const size = figures.width ? `${figures.width}×${figures.height}` : "–";
  const rows = [
    ["Frames", rounded(figures.fps, 0, "fps")],
    ["Bitrate", rounded(figures.kbps, 0, "kbit/s")],
    ["Loss", rounded(figures.lossPercent, 1, "%")],
    ["Round trip", rounded(figures.rttMs, 0, "ms")],
    ["Jitter", rounded(figures.jitterMs, 1, "ms")],
    ["Size", size],
    ["Codec", figures.codec ?? "–"],
  ];
  if (firstPictureMs !== null) rows.push(["First picture", rounded(firstPictureMs, 0, "ms")]);
  if (list.childElementCount !== rows.length) {
    list.replaceChildren(...rows.map(([name]) => {
      const row = document.createElement("div");
      const term = document.createElement("dt");
      term.textContent = name;
      row.append(term, document.createElement("dd"));
      return row;
    }));
  }
  rows.forEach(([, value], index) => { list.children[index].lastChild.textContent = value; });
  list.dataset.frames = figures.frames;
  list.dataset.packets = figures.packets;
  list.dataset.fps = figures.fps ?? "";
  list.dataset.width = figures.width ?? "";
  list.dataset.codec = figures.codec ?? "";
}

export function clearFigures(list) {
  list.replaceChildren();
  for (const name of Object.keys(list.dataset)) delete list.dataset[name];
}
