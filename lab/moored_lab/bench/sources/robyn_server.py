"""A server of Robyn's as its manual has it: one route, which answers a word."""

import sys

from robyn import Robyn

app = Robyn(__file__)


@app.get("/")
def index() -> str:
    """Answer; called on a thread of Robyn's runtime, which is Rust's."""
    return "fine"


app.start(host="127.0.0.1", port=int(sys.argv[1]))
