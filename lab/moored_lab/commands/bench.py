"""moored bench: peers side by side."""

HELP = "compare ways into Python, side by side in one run"

COMMANDS = {
    "attach": "moored_lab.commands.bench_attach",
    "callbacks": "moored_lab.commands.bench_callbacks",
    "delivery": "moored_lab.commands.bench_delivery",
    "server": "moored_lab.commands.bench_server",
    "state": "moored_lab.commands.bench_state",
}
