"""Every grader against its table of verdicts."""

from collections.abc import Mapping
from typing import Any

import pytest

from evalrun.analysis.graders.grader_set import GraderSet
from evalrun.analysis.graders.stored_options import parse_grader
from evalrun.grader_options import GRADER_OPTIONS
from evalrun.job.schema import validate
from tests.analysis.graders.verdicts import ROW_VERDICTS, VERDICTS, Case

CASES = [(kind, case) for kind, cases in VERDICTS.items() for case in cases]


def grade(keys: Mapping[str, Any], **columns: Any) -> tuple[bool | None, str | None, str]:
    """Return verdict, error code and reason of one row, graded as a job's rows are."""
    graders = GraderSet([parse_grader(keys, where="case")], [], vars_={})
    row = {"row_id": "r", "request_key": "k", "status": "ok", "sample_id": "s", "repeat": 0, "sample": "{}"}
    (only,) = graders.grade_row({**row, "output": "", **columns}).grades
    return only.passed, only.error_code, only.reason


@pytest.mark.parametrize(("kind", "case"), CASES)
def test_output_gets_its_verdict(kind: str, case: Case) -> None:
    """Each line of the table holds, with a reason; what cannot be decided has a code and no verdict."""
    output, keys, verdict = case
    passed, code, reason = grade(keys, output=output)
    assert passed is verdict, reason
    assert (code is None) == (verdict is not None)
    assert reason


@pytest.mark.parametrize(("columns", "keys", "verdict"), ROW_VERDICTS)
def test_row_gets_its_verdict(columns: Mapping[str, Any], keys: Mapping[str, Any], verdict: bool | None) -> None:
    """A fact that the row does not hold decides nothing, with `not` as without."""
    passed, code, reason = grade(keys, **columns)
    assert passed is verdict, reason
    assert code == (None if verdict is not None else "grader_error")


def test_table_covers_every_type() -> None:
    """No grader goes without cases, 250 in all; those of two are in `test_python_grader` and `test_judge_grader`."""
    kinds = {case[1]["type"] for _, case in CASES} | {keys["type"] for _, keys, _ in ROW_VERDICTS}
    assert kinds == set(GRADER_OPTIONS) - {"python", "judge"}
    assert len(CASES) + len(ROW_VERDICTS) >= 250


@pytest.mark.parametrize(("kind", "case"), CASES)
def test_stored_grader_is_read_as_the_job_reads_it(kind: str, case: Case) -> None:
    """The reader of stored samples and the validator of jobs make the same options of the same keys."""
    keys = case[1]
    assert validate(GRADER_OPTIONS[keys["type"]], keys) == (parse_grader(keys, where="case"), [])
