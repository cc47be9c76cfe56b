"""A stream to a device that plays nothing: PortAudio's thread calls back for every block."""

import sounddevice
from witness import visit

blocks = []
DONE = 50


def on_block(outdata, _frames, _time, _status):
    visit()
    outdata[:] = bytes(len(outdata))
    blocks.append(len(outdata))
    if len(blocks) == DONE:
        raise sounddevice.CallbackStop


import threading  # noqa: E402

ended = threading.Event()
with sounddevice.RawOutputStream(
    samplerate=48000,
    blocksize=64,
    channels=1,
    dtype="int16",
    callback=on_block,
    finished_callback=ended.set,
):
    assert ended.wait(30)
print(len(blocks), set(blocks))
