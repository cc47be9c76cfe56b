"""Shows the level of what a native audio thread plays, second by second of 50 blocks."""

import math
from array import array

import audio

import moored

stream = audio.Stream()
channel = moored.Channel(stream)
blocks = 0
squares = 0.0
for batch in channel:
    for block in batch:
        samples = array("f", block)
        squares += sum(sample * sample for sample in samples) / len(samples)
        blocks += 1
    if blocks >= 50:
        break
level = 10 * math.log10(squares / blocks)
stats = channel.stats()
assert stats["waits"] == 0, "the audio thread has waited"
print(f"level {level:.1f} dB, {stats['dropped']['oldest']} blocks dropped")
