"""The work as a task of inspect_ai; `inspect eval` runs it. The dataset is named by the variable DATASET."""

import os

from inspect_ai import Task, task
from inspect_ai.dataset import FieldSpec, json_dataset
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, system_message


@task
def whole() -> Task:
    """Ask every row, and look for its answer in the text."""
    fields = FieldSpec(input="question", target="answer", id="id")
    return Task(
        dataset=json_dataset(os.environ["DATASET"], fields),
        solver=[system_message("Answer with a number."), generate(temperature=0, max_tokens=64)],
        scorer=includes(),
    )
