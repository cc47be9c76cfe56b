"""A server of Robyn's: its requests come on the threads of its runtime, which is Rust's."""

import json
import sys

from robyn import Robyn
from witness import told, visit

app = Robyn(__file__)


@app.get("/")
def index():
    return "fine"


@app.get("/double/:number")
def double(request):
    visit()
    return str(2 * int(request.path_params["number"]))


@app.get("/async/:number")
async def double_by_loop(request):
    visit()
    return str(2 * int(request.path_params["number"]))


@app.get("/fails")
def fails():
    visit()
    raise ValueError("as expected")


@app.get("/witness")
def witness():
    return json.dumps(told())  # the server's end is Rust's, which runs no atexit


app.start(host="127.0.0.1", port=int(sys.argv[1]))
