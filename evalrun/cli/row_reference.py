"""ROW on the command line: the beginning of a row_id, or the names that a row_id is made of."""

import re
from collections.abc import Callable, Iterator, Sequence

from evalrun.errors import UsageError
from evalrun.job.bodies import make_row_id

ROW_HELP = "Only these rows: the beginning of a row_id, or SAMPLE/PROMPT/MODEL[/REPEAT]; repeatable."

_ROW_ID = re.compile(r"[0-9a-f]{4,64}")


def make_row_test(references: Sequence[str]) -> Callable[[str], bool]:
    """Return what tells whether a row_id is one of those that are meant.

    Args:
        references: At least one; a row_id needs its first four digits at least.

    Raises:
        UsageError: A reference is none.
    """
    beginnings = tuple(text for text in references if _ROW_ID.fullmatch(text))
    row_ids = {row_id for text in references if text not in beginnings for row_id in _make_row_ids(text)}

    def is_meant(row_id: str) -> bool:
        return row_id in row_ids or row_id.startswith(beginnings)

    return is_meant


def _make_row_ids(reference: str) -> Iterator[str]:
    """Yield the row_ids that names can mean; ids of samples and names of models hold slashes themselves."""
    parts = reference.split("/")
    if len(parts) < 3:
        msg = f"{reference!r} is neither the beginning of a row_id (four hex digits at least) nor SAMPLE/PROMPT/MODEL"
        raise UsageError(msg, hint=f"all rows of a sample: --sample {reference}")
    for first in range(1, len(parts) - 1):
        for second in range(first + 1, len(parts)):
            sample_id, prompt = "/".join(parts[:first]), "/".join(parts[first:second])
            yield make_row_id(sample_id, prompt, "/".join(parts[second:]), 0)
            if parts[-1].isdecimal() and len(parts) - second > 1:
                yield make_row_id(sample_id, prompt, "/".join(parts[second:-1]), int(parts[-1]))
