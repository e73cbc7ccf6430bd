// A picture that needs no camera: colour bars, a sweeping hand and a clock with milliseconds, so that
// delay can be read off by filming two screens. The optional sound is a beep at each full second.

const WIDTH = 1280;
const HEIGHT = 720;
const FRAMES_PER_SECOND = 30;
const BARS = ["#b8b8b8", "#b4b413", "#10b4b4", "#12b412", "#b411b3", "#b41010", "#1111b4"];

/** Starts the picture. Returns its stream and a function that ends it. */
export function testPicture(device, withSound) {
  const canvas = Object.assign(document.createElement("canvas"), { width: WIDTH, height: HEIGHT });
  const context = canvas.getContext("2d", { alpha: false });
  const draw = () => paint(context, device, new Date());
  draw();
  const stream = canvas.captureStream(FRAMES_PER_SECOND);
  stream.getVideoTracks()[0].contentHint = "detail";
  // A worker's timer goes on at full rate in a background tab; requestAnimationFrame would stop.
  const ticker = new Worker(new URL("ticker.js", import.meta.url));
  ticker.onmessage = draw;
  ticker.postMessage(1000 / FRAMES_PER_SECOND);
  const sound = withSound ? beeps(stream) : null;
  return {
    stream,
    stop() {
      ticker.terminate();
      sound?.close();
      for (const track of stream.getTracks()) track.stop();
    },
  };
}

function paint(context, device, now) {
  const step = WIDTH / BARS.length;
  BARS.forEach((colour, index) => {
    context.fillStyle = colour;
    context.fillRect(Math.floor(index * step), 0, Math.ceil(step), HEIGHT);
  });
  context.fillStyle = "#10141a";
  context.fillRect(140, 170, WIDTH - 280, 380);

  const two = (value) => String(value).padStart(2, "0");
  const clock = `${two(now.getHours())}:${two(now.getMinutes())}:${two(now.getSeconds())}`;
  const millis = String(now.getMilliseconds()).padStart(3, "0");
  context.textBaseline = "middle";
  context.textAlign = "left";
  context.fillStyle = "#ffffff";
  context.font = "600 150px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace";
  context.fillText(clock, 190, 330);
  context.fillStyle = "#8ec5ff";
  context.font = "600 76px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace";
  context.fillText(`.${millis}`, 190 + 8 * 90.5, 352);
  context.fillStyle = "#aab4c0";
  context.font = "36px system-ui, sans-serif";
  context.fillText(device, 194, 470, WIDTH - 400);

  const angle = ((now.getSeconds() % 2) + now.getMilliseconds() / 1000) * Math.PI - Math.PI / 2;
  context.strokeStyle = "#8ec5ff";
  context.lineWidth = 8;
  context.beginPath();
  context.arc(1060, 470, 46, -Math.PI / 2, angle);
  context.stroke();
  context.fillStyle = "#ffffff";
  context.fillRect(((now.getTime() % 4000) / 4000) * WIDTH - 12, HEIGHT - 24, 24, 24);
}

/** Adds a track to `stream` that beeps for 60 ms at each full second of the clock. */
function beeps(stream) {
  const audio = new AudioContext();
  const out = audio.createMediaStreamDestination();
  const tone = new OscillatorNode(audio, { frequency: 1000 });
  const gain = new GainNode(audio, { gain: 0 });
  tone.connect(gain).connect(out);
  tone.start();
  const schedule = () => {
    const wait = (1000 - (Date.now() % 1000)) / 1000;
    gain.gain.setValueAtTime(0.2, audio.currentTime + wait);
    gain.gain.setValueAtTime(0, audio.currentTime + wait + 0.06);
  };
  schedule();
  const timer = setInterval(schedule, 1000);
  stream.addTrack(out.stream.getAudioTracks()[0]);
  return { close() { clearInterval(timer); audio.close(); } };
}
