"""The work that all contenders do: one dataset of short questions, one system message, one completion a row.

A row is some 230 bytes, so that a request is small: what is measured is the tool, not the size of its texts.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

WORDS = "the train leaves at noon with a box of twelve apples and how many remain when some are sold to a neighbour"
JOB = """\
name: {name}
endpoints: {{canned: {{base_url: "{base_url}", concurrency: {concurrency}, stream: {stream}}}}}
models:
- {{name: m, endpoint: canned, params: {{temperature: 0, max_tokens: 64}}, price: {{input: 1, output: 2}}}}
prompts:
- name: terse
  messages:
  - {{role: system, content: Answer with a number.}}
  - {{role: user, content: "{{{{ question }}}}"}}
dataset: {dataset}
graders:
- {{type: contains, value: "{{{{ answer }}}}", name: right}}
"""
"""Everything that a run does by default, with a price and a grader besides: retry, pacing, usage, cost, journal,
grades, tables, reports. The canned answer passes three rows of 97, so that reports are as large as they get."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one contender is given for one turn."""

    folder: Path
    """Empty, its own, and removed afterwards."""
    dataset: Path
    """JSONL with the keys id, question, answer and category."""
    n_prompts: int
    base_url: str
    concurrency: int


def write_dataset(path: Path, n_rows: int) -> None:
    """Write rows of about 230 bytes; every question is another one."""
    rng = random.Random(7)
    words = WORDS.split()
    with path.open("w", encoding="utf-8") as file:
        for number in range(n_rows):
            question = f"{' '.join(rng.choices(words, k=30))} {number}?"
            row = {
                "id": f"s{number:07d}",
                "question": question,
                "answer": str(number % 97),
                "category": words[number % 7],
            }
            file.write(json.dumps(row) + "\n")


def write_job(work: Work, *, name: str = "whole", should_stream: bool = False) -> Path:
    """Write evalrun's job for the work into its folder."""
    path = work.folder / "job.yaml"
    job = JOB.format(
        name=name,
        base_url=work.base_url,
        concurrency=work.concurrency,
        stream=str(should_stream).lower(),
        dataset=work.dataset,
    )
    path.write_text(job, encoding="utf-8")
    return path
