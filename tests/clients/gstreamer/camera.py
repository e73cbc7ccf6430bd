"""An RTSP camera of GStreamer: a moving picture in H.264, a tone in Opus. Takes its port, 0 for a free one; prints it."""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

PIPELINE = """(
  videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=15/1
    ! openh264enc gop-size=15 ! video/x-h264,profile=constrained-baseline ! rtph264pay name=pay0 pt=96
  audiotestsrc is-live=true ! audioconvert ! opusenc ! rtpopuspay name=pay1 pt=97 )"""

Gst.init(None)
server = GstRtspServer.RTSPServer(address="127.0.0.1", service=sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory(shared=True)
factory.set_launch(PIPELINE)
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
