"""moored lab: the ThreadWakeup experiment and what belongs to it."""

HELP = "measure the ways into Python on a real IO server"

COMMANDS = {
    "wakeup": "moored_lab.commands.lab_wakeup",
    "cost": "moored_lab.commands.lab_cost",
    "busy": "moored_lab.commands.lab_busy",
    "spin": "moored_lab.commands.lab_spin",
    "serve": "moored_lab.commands.lab_serve",
}
