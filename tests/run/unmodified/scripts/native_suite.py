"""The tests of an extension whose native threads call back: pytest runs them with xdist."""

import logging
import sys
import threading
import weakref

import pytest
from pool import LINES, THREADS, Pool, write_logs


@pytest.mark.parametrize("number", range(12))
def test_files_are_complete_after_the_join(number, tmp_path):
    assert write_logs(tmp_path, f"log-{number}") == THREADS * LINES


def test_what_a_thread_kept_is_gone_after_the_join():
    here = threading.local()
    kept = []

    class Thing:
        pass

    def keep(_thread, _call):
        here.thing = Thing()
        kept.append(weakref.ref(here.thing))

    with Pool() as pool:
        pool.call(keep)
    assert [thing() for thing in kept] == [None] * THREADS


def test_output_is_captured(capsys):
    with Pool() as pool:
        pool.call(lambda thread, _call: sys.stdout.write(f"{thread}\n"), 3)
    assert sorted(capsys.readouterr().out.split()) == sorted(3 * "0123")


def test_records_are_captured(caplog):
    with Pool() as pool:
        pool.call(lambda thread, _call: logging.warning("thread %d", thread), 3)
    assert sorted(record.args[0] for record in caplog.records) == sorted(3 * [0, 1, 2, 3])


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_that_fails_by_what_a_callback_raised():
    def fail(_thread, _call):
        raise ValueError("as expected")

    with Pool(1) as pool:
        pool.call(fail, 2)


def test_that_fails():
    seen = []
    with Pool() as pool:
        pool.call(lambda thread, _call: seen.append(thread))
    assert sorted(seen) == []
