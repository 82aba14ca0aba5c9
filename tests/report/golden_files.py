"""Comparison with the files in `golden/`; EVALRUN_UPDATE_GOLDEN=1 writes them anew."""

import os
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"


def check_golden(name: str, text: str) -> None:
    """Assert that a text equals the golden file of that name, byte for byte."""
    path = FOLDER / name
    if os.environ.get("EVALRUN_UPDATE_GOLDEN") == "1":
        FOLDER.mkdir(exist_ok=True)
        path.write_bytes(text.encode())
    assert path.exists(), f"{path.name} is missing: run with EVALRUN_UPDATE_GOLDEN=1 and read what it wrote"
    assert text == path.read_bytes().decode(), "run with EVALRUN_UPDATE_GOLDEN=1 if the change is wanted"
