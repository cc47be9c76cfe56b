"""The interpreter's own tests of asyncio's loops, with moored.EventLoop in the stock loop's place.

Each loop has a channel in it, so that it waits as such a loop does.
"""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest
from support.limits import HANG_S
from support.processes import run_script

SCRIPT = """
    import asyncio, io, json, sys, unittest, warnings
    import channel_source, moored
    from moored import _core

    warnings.simplefilter("ignore")
    stock = asyncio.SelectorEventLoop
    waits = 0
    wait = _core.deliver_or_wait

    def count_waits(*arguments):
        global waits
        waits += 1
        return wait(*arguments)

    _core.deliver_or_wait = count_waits

    class Told(_core.Reader):
        def on_told(self):
            pass

    class Loop(moored.EventLoop):
        def __init__(self, selector=None):
            super().__init__()
            if selector is not None:
                selector.close()
            self.source = channel_source.Source()
            descriptor = moored.Channel(self.source)._native.descriptor(True)
            self.add_reader(descriptor.fileno(), Told(descriptor))

    def use(loop):
        asyncio.SelectorEventLoop = loop
        asyncio.unix_events._UnixDefaultEventLoopPolicy._loop_factory = loop

    def run(names):
        suite = unittest.defaultTestLoader.loadTestsFromNames(names)
        result = unittest.TextTestRunner(stream=io.StringIO()).run(suite)
        wrong = [*result.failures, *result.errors]
        return {test.id(): trace for test, trace in wrong}, result.testsRun

    # The tests trust the clock, and a busy machine fails some: what is wrong stays wrong.
    use(Loop)
    wrong, ran = run(sys.argv[1:])
    for _ in range(5):
        if wrong:
            wrong, _ = run(list(wrong))
    # Neither is it the loop's fault what fails with a stock one, too.
    use(stock)
    excused, _ = run(list(wrong)) if wrong else ({}, 0)
    print(json.dumps([{name: wrong[name] for name in wrong if name not in excused}, ran, waits]))
"""


@pytest.mark.parametrize(
    "name", ["test_events", "test_base_events", "test_sock_lowlevel", "test_streams"]
)
def test_asyncios_own(extension_folder, name):
    try:
        found = find_spec(f"test.test_asyncio.{name}")
    except ModuleNotFoundError:
        found = None
    if found is None:
        pytest.skip(f"this interpreter comes without test.test_asyncio.{name}")
    ending = run_script(
        SCRIPT.replace("sys.argv[1:]", repr([f"test.test_asyncio.{name}"])),
        PYTHONPATH=str(extension_folder),
        limit=4 * HANG_S,
    )
    assert ending.code == 0, ending.err
    wrong, ran, waits = json.loads(ending.out.splitlines()[-1])
    assert wrong == {}
    assert ran > 10
    assert waits
