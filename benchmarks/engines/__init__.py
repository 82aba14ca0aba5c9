"""Candidates for the engine under evalrun's HTTP seam, side by side: speed, streams and faults."""
