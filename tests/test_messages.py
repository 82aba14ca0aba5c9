"""The page of messages covers every kind of error."""

import re
from pathlib import Path

from evalrun import errors
from tests.quirk_outcomes import scan_cells

PAGE = Path(__file__).resolve().parent.parent / "docs" / "messages.md"


def test_every_slug_has_a_paragraph() -> None:
    """Each error class has its own slug, and docs/messages.md one paragraph for each, no more."""
    classes = [
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.EvalrunError)
    ]
    slugs = [error.slug for error in classes]
    headings = re.findall(r"^## (\S+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted(slugs)


def test_every_flag_is_told() -> None:
    """Whoever meets a flag in a table finds what it means."""
    flags = {flag for _, _, cell in scan_cells() for flag in cell.flags}
    assert flags
    assert [flag for flag in sorted(flags) if f"`{flag}`" not in PAGE.read_text(encoding="utf-8")] == []


def test_problem_says_where_what_and_what_next() -> None:
    """A rendered problem begins with its place and ends with the hint."""
    problem = errors.Problem(message="`n` must be at least 1, got 0", where="job.yaml:3:4", hint="write n: 1")
    assert problem.render() == "job.yaml:3:4: `n` must be at least 1, got 0\n    write n: 1"


def test_author_error_holds_every_problem() -> None:
    """All problems of an author error are in its text."""
    error = errors.ConfigError([errors.Problem(message="one"), errors.Problem(message="two", where="x:1")])
    assert str(error) == "one\nx:1: two"
