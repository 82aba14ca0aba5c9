"""judge.parquet, and what run.json tells of the judges.

Judged rows and the journal enter; a table with one row for each request to a judge, its figures, and what finds a reply
for the grader that asked, leave. Written before the grades, which are made from it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from evalrun.analysis.graders.grader_set import FindReply, no_reply
from evalrun.analysis.graders.judge_grader import describe_prompt
from evalrun.judge_rows import JudgeRows, Row
from evalrun.store.folder import RunFolder
from evalrun.store.journal_index import JournalIndex
from evalrun.store.parquet import Columns, write_judgements
from evalrun.store.tables import PERMANENT
from evalrun.table_blocks import make_judge_blocks, open_replies


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredJudgements:
    """Where to find what judges said."""

    judges: JudgeRows
    index: JournalIndex
    """The run's journal."""
    codes: Mapping[str, str]
    """By judge, why a request that has no outcome was not sent."""
    first_index: int
    """As for `JudgeRows.scan`."""


@dataclass(slots=True)
class _Tally:
    """What the requests to judges came to."""

    counts: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    n_permanent: int = 0
    n_attempts: int = 0
    n_reused: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float = 0.0
    """Of the outcomes."""
    billed_usd: float = 0.0
    """Of this run's attempts."""
    n_usd_unknown: int = 0

    def count(self, blocks: Iterable[Columns]) -> Iterator[Columns]:
        """Pass the rows on."""
        for block in blocks:
            self.counts.update(block["status"])
            self.errors.update(code for code in block["error_code"] if code is not None)
            self.n_permanent += sum(flags is not None and f'"{PERMANENT}"' in flags for flags in block["flags"])
            self.n_attempts += sum(block["attempts"])
            self.n_reused += sum(run_id is not None for run_id in block["reused_from"])
            self.prompt_tokens += sum(filter(None, block["prompt_tokens"]))
            self.completion_tokens += sum(filter(None, block["completion_tokens"]))
            self.usd += sum(filter(None, block["cost_usd"]))
            self.billed_usd += sum(filter(None, block["billed_usd"]))
            self.n_usd_unknown += sum(
                usd is None and status != "pending"
                for usd, status in zip(block["billed_usd"], block["status"], strict=True)
            )
            yield block

    def describe(self, judges: JudgeRows) -> dict[str, Any]:
        """Return what run.json tells of the judges."""
        return {
            "models": [model.name for model in judges.models],
            "requests": self.counts.total(),
            "counts": dict(self.counts),
            "errors": dict(self.errors),
            "n_permanent_errors": self.n_permanent,
            "attempts": self.n_attempts,
            "reused": self.n_reused,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "usd": round(self.usd, 12),
            "billed_usd": round(self.billed_usd, 12),
            "usd_unknown_requests": self.n_usd_unknown,
            "prompt": describe_prompt(),
        }


def write_judge_rows(
    folder: RunFolder, stored: StoredJudgements, rows: Iterable[Row], facts: Mapping[str, str]
) -> tuple[dict[str, Any] | None, FindReply]:
    """Write judge.parquet; return what run.json tells of it, and what finds its replies in the order of the rows.

    Args:
        folder: The run.
        stored: What the judges said; without any judge an older file is removed, and nothing is told or found.
        rows: Those that were judged, in plan order; read only when there are judges.
        facts: Metadata of the table.
    """
    if not stored.judges:
        with suppress(FileNotFoundError):
            folder.judge_path.unlink()
        return None, no_reply
    tally = _Tally()
    blocks = make_judge_blocks(folder, rows, stored.judges, stored.index, stored.codes, first_index=stored.first_index)
    write_judgements(folder, tally.count(blocks), facts)
    return tally.describe(stored.judges), open_replies(folder)
