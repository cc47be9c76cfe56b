"""Consumes what a native thread produces, in batches, while the loop does other things as well."""

import asyncio

from producer import Producer

import moored

MESSAGES = 100_000


async def other_work(turns: list[int]) -> None:
    """Show that the loop is not blocked."""
    while True:
        turns[0] += 1
        await asyncio.sleep(0)


async def main() -> None:
    """Consume them all, in order."""
    turns = [0]
    working = asyncio.ensure_future(other_work(turns))
    producer = Producer(MESSAGES, capacity=1_000)
    channel = moored.Channel(producer)
    expected = 0
    async for batch in channel:
        for offset, payload in batch:
            assert offset == expected, f"{offset} instead of {expected}"
            assert payload == b"message %d" % offset
            expected += 1
    working.cancel()
    stats = channel.stats()
    assert stats["largest_batch"] <= 1_000
    assert turns[0] > 0
    print(f"{expected} messages in order, {stats['depth']} left")
    print("batches:", "fewer than messages" if stats["batches"] < expected else "too many")


asyncio.run(main())
