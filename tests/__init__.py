"""Tests of evalrun, room by room; `python -m tests` runs every check."""
