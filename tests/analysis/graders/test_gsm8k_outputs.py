"""Real outputs of four models on GSM8K, graded with `numeric`, against the published verdicts."""

import json
import os
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from evalrun.analysis import stats
from evalrun.analysis.graders.numeric import grade_numeric
from evalrun.grader_options import NumericOptions

DATA = os.environ.get("EVALRUN_TEST_DATA")

pytestmark = pytest.mark.skipif(DATA is None, reason="EVALRUN_TEST_DATA is not set")


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """Return the published rows."""
    path = Path(str(DATA)) / "gsm8k_example_model_solutions.jsonl"
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def is_right(row: dict[str, Any], model: str) -> bool:
    """Return our verdict on a model's solution."""
    options = NumericOptions(type="numeric", expected="-")
    return grade_numeric(row[model]["solution"], row["ground_truth"], options).passed


@pytest.mark.parametrize(
    ("model", "accuracy"),
    [
        ("6b_finetuning", 0.2168),
        ("6b_verification", 0.3904),
        ("175b_finetuning", 0.3472),
        ("175b_verification", 0.5625),
    ],
)
def test_numeric_agrees_with_every_published_verdict(rows: list[dict[str, Any]], model: str, accuracy: float) -> None:
    """All 1,319 verdicts of each model are the published ones, and so is the accuracy."""
    ours = [is_right(row, model) for row in rows]
    assert [i for i, row in enumerate(rows) if ours[i] != row[model]["is_correct"]] == []
    assert round(sum(ours) / len(ours), 4) == accuracy


def test_paired_figures_of_two_models(rows: list[dict[str, Any]]) -> None:
    """175b_verification over 6b_verification: 306 gained, 79 lost, +17.2 points, p = 1.24e-32.

    The span [+14.45, +19.97] is the normal (Wald) interval; Tango's, which is shown, is [+14.46, +20.00].
    """
    cells = Counter((is_right(row, "6b_verification"), is_right(row, "175b_verification")) for row in rows)
    table = stats.Table(cells[True, True], cells[True, False], cells[False, True], cells[False, False])
    assert table == (436, 79, 306, 498)
    assert round((table.cand_only - table.base_only) / table.n, 3) == 0.172
    assert [round(end * 100, 2) for end in stats.tango(table)] == [14.46, 20.0]
    differences = {Fraction(1): 306, Fraction(-1): 79, Fraction(0): 934}
    assert [round(end * 100, 2) for end in stats.normal_interval(differences)] == [14.45, 19.97]
    assert f"{stats.mcnemar_exact(table.base_only, table.cand_only).two_sided:.2e}" == "1.24e-32"
