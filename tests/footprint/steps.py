"""Counts steps: a line of Python that ran, or a call of a Python or C function. The same work gives the same count.

Only the thread that counts is counted: the event loop's, which all requests share.
"""

import sys
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import evalrun

_PACKAGE: Final = Path(evalrun.__file__).parent
_ROOMS: Final = frozenset({"job", "dispatch", "store", "analysis", "report"})

Stages = dict[str, Counter[CodeType]]
"""Steps by stage of a run and by the code that took them."""


class StepCounter:
    """Counts the steps of this thread from `start` to `stop`."""

    def __init__(self) -> None:
        self.stages: Stages = {}
        self._counts: Counter[CodeType] = Counter()

    def start(self) -> None:
        """Begin, in the stage `checking`."""
        self.enter("checking")
        sys.setprofile(self._count_call)
        sys.settrace(self._count_line)

    def stop(self) -> None:
        """End."""
        sys.settrace(None)
        sys.setprofile(None)

    def enter(self, stage: str) -> None:
        """Count for a stage from here on."""
        self._counts = self.stages.setdefault(stage, Counter())

    def _count_line(self, frame: FrameType, event: str, arg: Any) -> Any:
        del event, arg
        self._counts[frame.f_code] += 1
        return self._count_line

    def _count_call(self, frame: FrameType, event: str, arg: Any) -> None:
        del arg
        if event == "c_call":
            self._counts[frame.f_code] += 1


def compare_stages(short: Stages, long: Stages, n_more: int) -> Stages:
    """Return the steps of one of the requests that a long run has more than a short one."""
    return {
        stage: Counter({code: round((n - short[stage][code]) / n_more, 2) for code, n in counts.items()})
        for stage, counts in long.items()
    }


def find_part(code: CodeType) -> str:
    """Return the part of the house that code belongs to; ground and hall are one, and so are all libraries."""
    path = Path(code.co_filename)
    if not path.is_relative_to(_PACKAGE):
        return "libraries"
    first = path.relative_to(_PACKAGE).parts[0]
    return first if first in _ROOMS else "hall"


def name_code(code: CodeType) -> str:
    """Return where code stands, in words for a message."""
    return f"{Path(code.co_filename).stem}.{code.co_qualname}"
