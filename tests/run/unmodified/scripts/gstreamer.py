"""A pipeline whose sink calls back from its streaming thread for every buffer."""

import gi
from witness import visit

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

Gst.init(None)
loop = GLib.MainLoop()
pipeline = Gst.parse_launch(
    "fakesrc num-buffers=200 sizetype=fixed sizemax=64 ! fakesink name=sink signal-handoffs=true"
)
sizes = []


def on_handoff(_sink, buffer, _pad):
    visit()
    sizes.append(buffer.get_size())


def on_message(_bus, message):
    if message.type in (Gst.MessageType.EOS, Gst.MessageType.ERROR):
        loop.quit()


pipeline.get_by_name("sink").connect("handoff", on_handoff)
bus = pipeline.get_bus()
bus.add_signal_watch()
bus.connect("message", on_message)
pipeline.set_state(Gst.State.PLAYING)
loop.run()
pipeline.set_state(Gst.State.NULL)
print(len(sizes), set(sizes))
