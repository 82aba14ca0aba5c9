"""A million grades of the string kinds: `python -m benchmarks.grading [GRADES]`.

Rows as results.parquet has them go through the graders of a job and into the columns of grades.parquet, block by block,
as after a run. Prints CPU seconds and memory at each tenth: both must grow with nothing but the rows that are done.
"""

import json
import random
import sys
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.failing_rows import read_memory_mib
from evalrun.analysis.graders.grader_set import GraderSet
from evalrun.analysis.graders.stored_options import parse_grader
from evalrun.store.record_columns import build_grade_columns

BLOCK_ROWS = 2_000
WORDS = ("the", "capital", "of", "France", "is", "Paris", "as", "everybody", "knows", "who", "has", "been", "there")
GRADERS = (
    {"type": "exact", "expected": "{{ answer }}", "ignore_case": True},
    {"type": "contains", "value": "{{ answer }}"},
    {"type": "icontains", "value": "PARIS"},
    {"type": "contains-all", "values": ["{{ answer }}", "France"]},
    {"type": "contains-any", "values": ["Rome", "{{ answer }}"], "ignore_case": True},
    {"type": "starts-with", "value": "The answer"},
    {"type": "ends-with", "value": "{{ answer }}."},
    {"type": "regex", "pattern": r"answer is (\w+)", "group": 1, "expected": "{{ answer }}"},
    {"type": "word-count", "min": 3, "max": 80},
    {"type": "length", "max_chars": 400},
)


def make_rows(n_rows: int) -> Iterator[dict[str, Any]]:
    """Yield rows whose outputs are 20 to 100 words, half of them right."""
    rng = random.Random(1)
    for number in range(n_rows):
        answer = rng.choice(("Paris", "Rome"))
        text = " ".join(rng.choices(WORDS, k=rng.randrange(20, 100)))
        sample = {"id": str(number), "question": f"What is the capital of country {number}?", "answer": "Paris"}
        yield {
            "row_id": f"{number:064d}", "request_key": f"{number:064d}", "status": "ok", "sample_id": str(number),
            "repeat": 0, "sample": json.dumps(sample), "output": f"The answer is {answer}: {text} {answer}.",
        }  # fmt: skip


def main() -> None:
    """Grade, and print a line for each tenth."""
    n_grades = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    graders = GraderSet([parse_grader(keys, where="benchmark") for keys in GRADERS], [], vars_={})
    n_rows, n_done, n_passed, grades = n_grades // len(GRADERS), 0, 0, []
    making_s, began_s = 0.0, time.process_time()
    rows = make_rows(n_rows)
    while True:
        before_s = time.process_time()
        row = next(rows, None)
        making_s += time.process_time() - before_s
        if row is not None:
            graded = graders.grade_row(row)
            grades += graded.grades
            n_passed += sum(grade.passed is True for grade in graded.grades)
            n_done += 1
        if grades and (row is None or n_done % BLOCK_ROWS == 0):
            build_grade_columns(grades)
            grades = []
        if row is None:
            break
        if n_done % max(1, n_rows // 10) == 0:
            spent_s = time.process_time() - began_s - making_s
            print(f"{n_done * len(GRADERS):9,d} grades  {spent_s:6.2f} s CPU  {read_memory_mib():6.1f} MiB", flush=True)
    print(f"{n_passed:,d} passed")


if __name__ == "__main__":
    main()
