"""Generated files say what the code says."""

import pytest

from tests.generate import ROOT, build_generated_files


@pytest.mark.parametrize(("name", "text"), build_generated_files().items())
def test_generated_file_is_up_to_date(name: str, text: str) -> None:
    """The committed file equals what `python -m tests.generate` writes."""
    assert (ROOT / name).read_text(encoding="utf-8") == text
