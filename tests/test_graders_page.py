"""The examples of docs/graders.md, executed."""

import json
import re
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from evalrun.analysis.graders.grader_set import GraderSet
from evalrun.grader_options import GRADER_OPTIONS
from evalrun.job.schema import validate
from evalrun.records import Sample

PAGE = Path(__file__).resolve().parent.parent / "docs" / "graders.md"
BLOCKS = re.findall(r"^```yaml\n(grader: .*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
VERDICTS = {"passes": True, "fails": False, "undecided": None}


def load(block: str) -> dict[str, Any]:
    """Return an example as YAML reads it."""
    example: dict[str, Any] = YAML(typ="safe", pure=True).load(StringIO(block))
    return example


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: load(block)["grader"]["type"])
def test_example_of_the_page_does_what_it_says(block: str) -> None:
    """Each listed answer gets the verdict under which it stands."""
    example = load(block)
    assert example.keys() <= {"grader", "sample", *VERDICTS}
    options, problems = validate(GRADER_OPTIONS[example["grader"]["type"]], example["grader"])
    assert problems == []
    graders = GraderSet([options], [], vars_={})
    sample = example.get("sample", {})
    assert graders.check_sample(Sample(sample_id="s", row=sample, category=None, where="page", graders=())) == []
    for key, verdict in VERDICTS.items():
        for answer in example.get(key, ()):
            columns = answer if isinstance(answer, Mapping) else {"output": answer}
            row = {"row_id": "r", "request_key": "k", "status": "ok", "sample_id": "s", "repeat": 0, "output": ""}
            graded = graders.grade_row({**row, "sample": json.dumps(sample), **columns})
            assert graded.passed is verdict, f"{answer!r}: {graded.grades[0].reason}"


def test_page_has_an_example_of_every_type() -> None:
    """No type is without an example; python graders and judges have pages to themselves."""
    assert {load(block)["grader"]["type"] for block in BLOCKS} == set(GRADER_OPTIONS) - {"python", "judge"}
