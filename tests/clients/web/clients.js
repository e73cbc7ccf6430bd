// The clients as they are published, for a page that loads them in one script.
export { WHEPClient } from "@binbat/whip-whep/whep.js";
export { WHIPClient } from "@binbat/whip-whep/whip.js";
export { WebRTCPlayer } from "@eyevinn/webrtc-player";
