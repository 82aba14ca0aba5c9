"""What a run did not pay for: its rows that were taken over from older runs, in figures.

Rows of the results enter, and run.json's `reused`, or totals without what was not spent here, leave. Beside `closing`,
which counts the rows while it writes them, a new grading finds the same figures in run.json.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

_READ = ("reused_from", "prompt_tokens", "completion_tokens", "cost_usd")


@dataclass(slots=True)
class ReuseTally:
    """Counts the rows that an older run had asked."""

    runs: Counter[str] = field(default_factory=Counter)
    """Rows by the run that asked them."""
    usd: float = 0.0
    n_unknown_usd: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, rows: Mapping[str, Iterable[Any]]) -> None:
        """Count those rows of the results, given as columns, whose `reused_from` names a run."""
        for run_id, prompt_tokens, completion_tokens, usd in zip(*(rows[name] for name in _READ), strict=True):
            if run_id is not None:
                self.runs[run_id] += 1
                self.prompt_tokens += prompt_tokens or 0
                self.completion_tokens += completion_tokens or 0
                self.n_unknown_usd += usd is None
                self.usd += usd or 0.0

    def describe(self) -> dict[str, Any] | None:
        """Return what run.json holds of it; None when nothing was reused."""
        if not self.runs:
            return None
        return {
            "rows": self.runs.total(),
            "usd": round(self.usd, 12),
            "usd_unknown_rows": self.n_unknown_usd,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "runs": dict(self.runs),
        }


def leave_out_reused(totals: Mapping[str, Any], reused: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return totals of what this run itself asked: what it took over it did not spend.

    Args:
        totals: `usd`, `usd_unknown_rows`, `prompt_tokens` and `completion_tokens` of all rows; others pass.
        reused: As `ReuseTally.describe` returns it.

    Returns:
        The totals, with `reused_rows` and `reused_usd`. With nothing but reused rows the sums are 0, not unknown.
    """
    if reused is None:
        return {**totals, "reused_rows": 0, "reused_usd": 0.0}
    is_all = reused["rows"] >= totals["rows"]
    left: dict[str, Any] = {}
    for key in ("usd", "usd_unknown_rows", "prompt_tokens", "completion_tokens"):
        total = totals[key]
        left[key] = (0 if is_all else None) if total is None else max(total - reused[key], 0)
    if left["usd"] is not None:
        left["usd"] = round(float(left["usd"]), 12)
    return {**totals, **left, "reused_rows": reused["rows"], "reused_usd": reused["usd"]}
