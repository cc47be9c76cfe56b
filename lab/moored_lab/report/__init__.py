"""Report: what a measurement looks like as JSON, as a table and as a picture."""
