"""Doctor: what native threads pay when they enter Python, from a recording to an answer."""
