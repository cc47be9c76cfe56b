"""Programs that serve until they are asked to end: a worker, a web server, a notebook's kernel."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from both_ways import (
    LIMIT_SECONDS,
    SCRIPTS,
    STOCK,
    WAYS,
    Program,
    Ran,
    both,
    folder_for,
    need,
    started,
)


def test_a_worker_of_celery_loses_no_line(pool, tmp_path):
    need("celery")

    def serve(way: str) -> tuple[Ran, str, int]:
        folder = folder_for(way, tmp_path)
        for name in ("queue", "control", "results", "logs"):
            (folder / name).mkdir()
        words = ["-m", "celery", "-q", "-A", "celery_tasks", "worker", "--pool=prefork", "-c", "2"]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        with started(way, [*words, *quiet], folder, POOL_LIBRARY=pool) as worker:
            ask = Program(STOCK, [SCRIPTS / "celery_ask.py"], folder, POOL_LIBRARY=pool)
            answers = ask.finish()
            ended = worker.stop(signal.SIGTERM)
        assert answers.code == 0, answers.talk + ended.talk
        lines = sum(len(log.read_text().splitlines()) for log in (folder / "logs").iterdir())
        return ended, answers.out, lines

    # At once, for each waits some seconds until its loop looks whether it is to end.
    with ThreadPoolExecutor() as executor:
        stock, kept = executor.map(serve, WAYS)
    assert stock[0].code == 0, stock[0].talk
    assert "Warm shutdown" in stock[0].out
    assert (kept[0].code, kept[0].out) == (stock[0].code, stock[0].out), kept[0].talk
    assert kept[1:] == stock[1:]


def test_a_kernel_of_ipython(pool, tmp_path):
    need("ipykernel", "jupyter_client")
    stock, _ = both([SCRIPTS / "jupyter_kernel.py"], tmp_path, POOL_LIBRARY=pool)
    assert stock.code == 0, stock.talk
    saw = {way: json.loads((tmp_path / way / "witness.json").read_text()) for way in WAYS}
    assert saw["stock"]["survived"] == 0
    assert saw["kept"]["survived"] == saw["kept"]["repeated"] > 0


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def ask(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@contextmanager
def serving(way: str, folder: Path) -> Iterator[tuple[Program, int]]:
    """Start the server, and wait until it answers."""
    port = free_port()
    words = [SCRIPTS / "robyn_server.py", str(port), "--log-level", "ERROR"]
    with started(way, words, folder) as server:
        for _ in range(10 * LIMIT_SECONDS):
            assert server.process.poll() is None, server.finish().talk
            try:
                ask(port, "/double/1")
                break
            except OSError:
                time.sleep(0.1)
        yield server, port


def test_a_server_of_robyn(tmp_path):
    need("robyn")
    paths = [f"/double/{n}" for n in range(100)] + [f"/async/{n}" for n in range(20)] + ["/fails"]
    answered, saw, ended = {}, {}, {}
    for way in WAYS:
        folder = folder_for(way, tmp_path)
        with serving(way, folder) as (server, port):
            with ThreadPoolExecutor(8) as clients:
                answered[way] = list(clients.map(lambda path: ask(port, path), paths))
            if shutil.which("wrk"):
                load = ["wrk", "-t1", "-c8", "-d1", f"http://127.0.0.1:{port}/double/21"]
                said = subprocess.run(load, capture_output=True, text=True, timeout=LIMIT_SECONDS)
                assert "Non-2xx" not in said.stdout
            saw[way] = json.loads(ask(port, "/witness")[1])
            ended[way] = server.stop(signal.SIGINT)
    assert answered["stock"][:2] == [(200, "0"), (200, "2")]
    assert answered["stock"][-1][0] == 500
    assert answered["kept"] == answered["stock"]
    assert ended["kept"].code == ended["stock"].code == 0
    assert saw["stock"]["survived"] == 0 < saw["stock"]["repeated"]
    assert saw["kept"]["survived"] == saw["kept"]["repeated"] > 0
