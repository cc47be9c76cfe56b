"""Random lives of a channel: whatever happens in whatever order, its books are right."""

from __future__ import annotations

import sys

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

import moored

DELIVERIES = ["poll", "wake", "enter", "adaptive"] + ["interrupt"] * (sys.version_info >= (3, 13))
POLICIES = ["block", "reject", "drop_oldest", "drop_newest"]


class Life(RuleBasedStateMachine):
    """Senders at work, a handler that now and then raises, deliveries switched, closing."""

    @initialize(capacity=st.integers(1, 50), when_full=st.sampled_from(POLICIES))
    def begin(self, capacity, when_full):
        import channel_source

        self.hook, sys.unraisablehook = sys.unraisablehook, lambda report: None
        self.source = channel_source.Source(capacity=capacity, when_full=when_full)
        self.channel = moored.Channel(self.source)
        self.channel.fileno()  # this machine is the event loop
        self.handled = 0
        self.taken = 0
        self.raises = False
        self.has_handler = False

    def handler(self, batch):
        self.handled += len(batch)
        if self.raises:
            raise ValueError

    @rule(senders=st.integers(1, 3), each=st.integers(1, 300))
    def send(self, senders, each):
        self.source.start(senders, each)

    @rule(delivery=st.sampled_from(DELIVERIES))
    def handle(self, delivery):
        self.channel.on_batch(self.handler, "poll")
        self.channel.delivery = delivery
        self.has_handler = True

    @rule(delivery=st.sampled_from(DELIVERIES))
    def switch(self, delivery):
        self.channel.delivery = delivery

    @rule()
    def take_the_handler_away(self):
        self.channel.on_batch(None)
        self.has_handler = False

    @rule(limit=st.none() | st.integers(0, 60))
    def take(self, limit):
        batch = self.channel.take(limit)
        assert limit is None or len(batch) <= limit
        self.taken += len(batch)

    @rule()
    def deliver(self):
        self.channel.acknowledge()
        try:
            self.channel.deliver()
        except ValueError:
            assert self.raises

    @rule(raises=st.booleans())
    def let_the_handler_raise(self, raises):
        self.raises = raises

    @rule()
    def another_face(self):
        self.channel.on_batch(None)
        self.has_handler = False
        self.channel = moored.Channel(self.source)
        self.channel.fileno()

    @precondition(lambda self: hasattr(self, "channel"))
    @rule()
    def close(self):
        self.channel.close()
        assert self.channel.closed

    @invariant()
    def counts_never_exceed_what_was_sent(self):
        if hasattr(self, "channel"):
            stats = self.channel.stats()
            assert stats["delivered"] + stats["dropped"]["oldest"] + stats["depth"] == stats["sent"]

    def teardown(self):
        if not hasattr(self, "channel"):
            return
        # Only what was started before the close is sent; blocked senders need room.
        while self.source.running():
            self.taken += len(self.channel.take())
        self.source.join()
        self.channel.on_batch(None)
        self.taken += len(self.channel.take())
        sys.unraisablehook = self.hook
        stats = self.channel.stats()
        queued, dropped, rejected, refused = self.source.came()
        assert stats["sent"] == queued
        assert stats["delivered"] == self.handled + self.taken
        assert stats["depth"] == 0
        assert stats["dropped"]["newest"] == dropped
        assert stats["dropped"]["rejected"] == rejected
        assert stats["dropped"]["refused"] == refused
        self.channel.close()


def test_random_lives(native):
    class Test(Life.TestCase):
        settings = settings(
            max_examples=60,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )

    Test().runTest()
