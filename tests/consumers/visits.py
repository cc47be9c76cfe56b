"""Checks a consumer's module: to Python, its thread is one thread with one thread state."""

import importlib
import sys
import threading

ROUNDS = 5  # each calls back twice: moored outside and the binding inside, and the other way round

consumer = importlib.import_module(sys.argv[1])
local = threading.local()
visits: list[tuple[int, int]] = []


def visit() -> None:
    """Note which thread this is, and how often its threading.local has seen us."""
    local.visits = getattr(local, "visits", 0) + 1
    visits.append((threading.get_ident(), local.visits))


consumer.call_from_thread(visit, ROUNDS)
threads = {thread for thread, _ in visits}
assert len(threads) == 1, visits
assert threading.get_ident() not in threads, visits
assert [count for _, count in visits] == list(range(1, 2 * ROUNDS + 1)), visits
print("moored")
