"""The lab: a real IO server in one process with Python, and the experiments that drive it."""
