"""Bench: what `moored bench` measures, and how; the commands parse and print."""
