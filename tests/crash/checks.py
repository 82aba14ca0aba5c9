"""The guarantee, as checks on what lies on the disk and stands in the server's ledger.

"Every result that evalrun has reported as completed is kept, and its request is never sent again. A request that was in
flight when the process died may be sent once more." Checked after every kill, and not at the end alone: a resume that
silently pays again for what was lost leaves a table without a gap.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from tests.crash.site import OF_DOUBT, TIMES, Site
from tests.crash.witness import LedgerKey, Story, list_broken_files, read_ledger, read_story

_PROGRESS = re.compile(r"^(\d[\d,]*)/\d[\d,]* rows \(", re.MULTILINE)
_SETTLED = re.compile(r" rows, (\d[\d,]*) of them settled already")

LEFTOVERS = (".tmp-*", "journal/.tmp-*")


@dataclass(slots=True)
class Bookkeeper:
    """Follows one run over all its calls; whatever breaks the guarantee is added to `violations`.

    Args:
        site: Where it runs.
        concurrency: Most requests in flight.
    """

    site: Site
    concurrency: int
    violations: list[str] = field(default_factory=list)
    n_acknowledged: int = 0
    """Outcomes that calls have shown as done."""
    n_in_doubt: int = 0
    """Requests in flight at the kills, by the journal."""
    n_sent_again: int = 0
    """Requests that the server saw beyond those whose end is kept; known at the end."""
    _before: Counter[LedgerKey] = field(default_factory=Counter)
    _finished: dict[str, tuple[bytes, int, int]] = field(default_factory=dict)
    """By row: its outcome as first seen, and how often it had been announced and asked by then."""
    _doubts: Counter[str] = field(default_factory=Counter)
    """By row: kills that found it in flight."""
    _story: Story = field(default_factory=Story)
    _n_started_in_call: int = 0
    _has_begun: bool = False

    def __post_init__(self) -> None:
        """Note what the ledger knows of earlier runs."""
        self._before = read_ledger(self.site.url)

    @property
    def story(self) -> Story:
        """The journal as it was last read."""
        return self._story

    @property
    def has_begun(self) -> bool:
        """Whether the last call wrote into the journal that it began, behind which only sending comes."""
        return self._has_begun

    @property
    def has_sent(self) -> bool:
        """Whether any request of the last call was announced, and so may have been sent."""
        return self._n_started_in_call > 0

    def adopt(self, run: Path | None, asked: Counter[LedgerKey]) -> None:
        """Take over a run that began before, of whose requests the server saw so many."""
        self._before = read_ledger(self.site.url) - asked
        self.check_call(run, "")
        assert not self.violations, self.violations

    def check_call(self, run: Path | None, output: str) -> None:
        """Check the run after a call that ended in any way.

        Args:
            run: Its folder; None when it never came to be.
            output: What the call wrote to the terminal.
        """
        earlier, self._story = self._story, read_story(run)
        asked = self._count_asked()
        self.violations += self._list_lost(earlier, output)
        self.violations += self._list_sent_again(asked)
        self.violations += list_broken_files(run)
        self._has_begun = self._story.n_calls > earlier.n_calls
        self._n_started_in_call = self._story.started.total() - earlier.started.total()
        self._note(asked)

    def check_end(self, run: Path, *, is_swept: bool = True) -> None:
        """Check the run after a call that went on to its end.

        Args:
            run: Its folder.
            is_swept: False when the disk refused to take temporary files away; the next call does it.
        """
        asked, story = self._count_asked(), self._story
        for row_id, n_asked in asked.items():
            n_lost = n_asked - story.recorded[row_id]
            self.n_sent_again += max(n_lost, 0)
            if n_lost > self._doubts[row_id]:
                self._blame(row_id, f"{n_lost} sendings are not in the journal, {self._doubts[row_id]} were in flight")
            if n_lost < 0:
                self._blame(row_id, f"{story.recorded[row_id]} sendings are in the journal, the server saw {n_asked}")
        self.violations += list(self._list_differences(run))
        if is_swept:
            self.violations += [f"left over: {path}" for glob in LEFTOVERS for path in run.glob(glob)]

    def _count_asked(self) -> Counter[str]:
        """Return how often the server was asked each row by this run."""
        ledger = read_ledger(self.site.url)
        return Counter({row_id: ledger[key] - self._before[key] for row_id, key in self.site.keys.items()})

    def _list_lost(self, earlier: Story, output: str) -> Iterator[str]:
        """Yield what the call, or an earlier one, has shown as done and the journal does not hold."""
        shown = [int(text.replace(",", "")) for text in _PROGRESS.findall(output)]
        n_shown, n_kept = max(shown, default=0), self._story.count_done(earlier.n_calls)
        self.n_acknowledged += n_shown
        if n_shown > n_kept:
            yield f"{n_shown} rows were shown as done, {n_kept} are in the journal"
        settled = _SETTLED.search(output)
        if settled is not None and int(settled[1].replace(",", "")) != len(earlier.finished):
            yield f"{len(earlier.finished)} rows were finished, the resume found {settled[1]} of them"
        lines = {record.line for record in self._story.records}
        lost = sum(record.line not in lines for record in earlier.records)
        if lost:
            yield f"{lost} records that were in the journal are gone"

    def _list_sent_again(self, asked: Counter[str]) -> Iterator[str]:
        """Yield which requests were sent again though they were finished, or were sent and never announced."""
        story = self._story
        for row_id, n_asked in asked.items():
            if n_asked > story.started[row_id]:
                yield self._name(row_id, f"the server saw {n_asked} sendings, {story.started[row_id]} were announced")
        for row_id, (line, n_started, n_asked) in self._finished.items():
            if story.finished.get(row_id) != line:
                yield self._name(row_id, "its finished outcome is another one now")
            if story.started[row_id] > n_started or asked[row_id] > n_asked:
                yield self._name(row_id, f"finished after {n_asked} sendings, and sent again")
        n_in_flight = story.in_doubt.total() - self._doubts.total()
        if n_in_flight > self.concurrency:
            yield f"{n_in_flight} requests were in flight at once, {self.concurrency} may be"

    def _note(self, asked: Counter[str]) -> None:
        story = self._story
        for row_id, line in story.finished.items():
            self._finished.setdefault(row_id, (line, story.started[row_id], asked[row_id]))
        fresh = story.in_doubt - self._doubts
        self.n_in_doubt += fresh.total()
        self._doubts += fresh

    def _list_differences(self, run: Path) -> Iterator[str]:
        """Yield in what the tables differ from those of a run that nobody killed."""
        results = pl.read_parquet(run / "results.parquet")
        doubted = pl.col("row_id").is_in([row_id for row_id, n in self._doubts.items() if n])
        for name, mine, theirs in (
            ("results", results.drop(TIMES), self.site.results.drop(TIMES)),
            ("grades", pl.read_parquet(run / "grades.parquet"), self.site.grades),
        ):
            if name == "results":
                mine, theirs = (
                    frame.with_columns(pl.when(doubted).then(None).otherwise(pl.col(OF_DOUBT)).name.keep())
                    for frame in (mine, theirs)
                )
            if not mine.equals(theirs, null_equal=True):
                changed = [column for column in theirs.columns if not _are_equal(mine, theirs, column)]
                yield f"{name}.parquet differs from that of an unkilled run in {', '.join(changed) or 'its columns'}"
        n_attempts = pl.read_parquet(run / "attempts.parquet").height
        if n_attempts != self._story.recorded.total():
            yield f"attempts.parquet holds {n_attempts} rows, the journal {self._story.recorded.total()}"
        manifest = json.loads((run / "run.json").read_bytes())
        if manifest["in_doubt"] != 0 or manifest["asked_again_after_doubt"] != self._doubts.total():
            listed = manifest["asked_again_after_doubt"]
            yield f"run.json counts {listed} requests asked again after doubt, {self._doubts.total()} were"

    def _blame(self, row_id: str, what: str) -> None:
        self.violations.append(self._name(row_id, what))

    def _name(self, row_id: str, what: str) -> str:
        sample, model, _ = self.site.keys[row_id]
        return f"{sample}/{model}: {what}"


def _are_equal(mine: pl.DataFrame, theirs: pl.DataFrame, column: str) -> bool:
    return column in mine.columns and mine[column].equals(theirs[column], null_equal=True)
