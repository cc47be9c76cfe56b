"""moored keeps native threads moored to Python."""
