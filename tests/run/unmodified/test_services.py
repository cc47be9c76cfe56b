"""Programs that serve until they are asked to end: a worker, a web server, a notebook's kernel."""

from __future__ import annotations

import json
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor

from both_ways import (
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
from robyn_serving import load, serving
from support.asking import ask


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
                assert load(port, "/double/21", seconds=1) > 0
            saw[way] = json.loads(ask(port, "/witness")[1])
            ended[way] = server.stop(signal.SIGINT)
    assert answered["stock"][:2] == [(200, "0"), (200, "2")]
    assert answered["stock"][-1][0] == 500
    assert answered["kept"] == answered["stock"]
    assert ended["kept"].code == ended["stock"].code == 0
    assert saw["stock"]["survived"] == 0 < saw["stock"]["repeated"]
    assert saw["kept"]["survived"] == saw["kept"]["repeated"] > 0
