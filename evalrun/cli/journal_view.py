"""`evalrun show --journal`: what the journal holds, record by record, of a run that is alive, killed, damaged or done.

A run folder and filters enter; lines for a person, or one JSON object per record, leave. Nothing on disk changes, no
lock is taken, and what proves nothing is shown as such with its place instead of being passed over.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import click

from evalrun.cli.console import clean_text, count_noun, format_seconds, format_usd, print_error
from evalrun.cli.results import SIMULATED
from evalrun.cli.row_reference import make_row_test
from evalrun.errors import StoreError, UsageError
from evalrun.records import SCHEMA_VERSION
from evalrun.store.folder import RunFolder
from evalrun.store.journal_format import Kind, parse_body
from evalrun.store.journal_scan import JournalLine, scan_segment
from evalrun.store.parquet import scan_rows
from evalrun.store.segment_files import SEGMENT_GLOB

DAMAGED, TORN = "damaged", "torn"
"""What bytes are that prove nothing: before good records, and behind the last one."""

MAX_LABELS = 200_000
"""Rows whose names are held in memory at once; a larger run shows row_ids where no filter narrows it."""

_SHORT_ID_CHARS = 12
_LABEL_COLUMNS = ("row_id", "sample_id", "prompt", "model", "repeat", "category", "status")

Row = Mapping[str, Any]


class Entry(NamedTuple):
    """One line of the journal, good or bad."""

    line: JournalLine
    type: str
    """`run`, `started`, `attempt`, `done`, or what is wrong with the bytes."""
    record: Mapping[str, Any] | None
    """None when the bytes prove nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalFilter:
    """Which rows' records are shown."""

    references: Sequence[str] = ()
    """What `--row` says; empty = all."""
    is_named: Callable[[Row], bool] | None = None
    """Picks rows of results.parquet by their names; None = all."""


def print_journal(folder: RunFolder, wanted: JournalFilter, *, limit: int | None, is_full: bool, as_json: bool) -> int:
    """Print the journal of a run and return the exit code: 5 when it is damaged before its end, else 0.

    Args:
        folder: The run, ended or not.
        wanted: Which rows; without a filter records of the run itself are shown as well.
        limit: Most records to show; None = all.
        is_full: Print each record whole.
        as_json: One JSON object per line instead of text.

    Raises:
        UsageError: No record is of the rows that are asked for, or their names are not known yet.
    """
    labels = _Labels(folder, wanted)
    tally: Counter[str] = Counter()
    in_flight: set[str] = set()
    is_simulated = _is_simulated(folder)
    for entry in _choose(_scan_entries(folder), labels.is_wanted, limit):
        if is_simulated and not as_json and not tally:
            click.echo(SIMULATED)
        tally[entry.type] += 1
        _follow(entry, in_flight)
        if as_json:
            _write_json(entry, labels, is_simulated=is_simulated)
        else:
            _write_text(entry, labels, is_full=is_full)
    n_records = sum(tally[kind] for kind in Kind)
    if not n_records and labels.is_filtered:
        raise UsageError(
            f"the journal of {folder.run_id} holds no record of such a row",
            hint=f"all of them: evalrun show {folder.run_id} --journal",
        )
    if not as_json:
        doubt = "in flight now" if folder.find_holder() is not None else "in doubt, started and nothing came after it"
        is_whole = limit is None or n_records < limit
        click.echo("\n" + _describe_tally(tally, len(in_flight), doubt=doubt, is_whole=is_whole))
    if tally[DAMAGED]:
        msg = f"the journal of {folder.run_id} is damaged: {count_noun(tally[DAMAGED], 'place')} before good records; "
        print_error(
            msg + "`evalrun run JOB --resume RUN --repair` keeps every good record and asks the lost rows again"
        )
        return 5
    return 0


class _Labels:
    """Which rows are wanted, and what they are called, as far as the run's tables tell.

    Args:
        folder: The run.
        wanted: The filter.
    """

    def __init__(self, folder: RunFolder, wanted: JournalFilter) -> None:
        self.is_filtered = bool(wanted.references) or wanted.is_named is not None
        self._names: dict[str, Row] = {}
        self._is_referred = make_row_test(wanted.references) if wanted.references else None
        self._named: Collection[str] | None = None
        if wanted.is_named is not None:
            if not folder.results_path.exists():
                hint = "name the row by --row SAMPLE/PROMPT/MODEL, or by the beginning of its row_id"
                raise UsageError(f"the run {folder.run_id} has no tables yet, which tell names from row_ids", hint=hint)
            self._named = {
                row["row_id"] for row in scan_rows(folder.results_path, _LABEL_COLUMNS) if wanted.is_named(row)
            }
        self._load_names(folder)

    def is_wanted(self, row_id: str | None) -> bool:
        """Return whether a record is shown; those of the run itself (None) only where nothing is filtered."""
        if not self.is_filtered or row_id is None:
            return not self.is_filtered
        is_referred = self._is_referred is None or self._is_referred(row_id)
        return is_referred and (self._named is None or row_id in self._named)

    def find(self, row_id: str) -> Row | None:
        """Return sample_id, prompt, model and repeat of a row; None when the tables do not tell."""
        return self._names.get(row_id)

    def _load_names(self, folder: RunFolder) -> None:
        try:
            for row in scan_rows(folder.results_path, _LABEL_COLUMNS):
                if not self.is_filtered or self.is_wanted(row["row_id"]):
                    self._names[row["row_id"]] = row
                if len(self._names) > MAX_LABELS:
                    self._names.clear()
                    return
        except StoreError:  # Not there yet, or damaged: the journal is shown all the same.
            self._names.clear()


def _scan_entries(folder: RunFolder) -> Iterator[Entry]:
    """Yield every line of the journal; whether bad bytes are damage is known when a good record follows them."""
    bad: list[JournalLine] = []
    try:
        for path in sorted(folder.journal_dir.glob(SEGMENT_GLOB)):
            for line in scan_segment(path):
                if line.frame is None:
                    bad.append(line)
                    continue
                yield from (Entry(earlier, DAMAGED, None) for earlier in bad)
                bad.clear()
                yield Entry(line, line.frame.kind.value, parse_body(line.frame.body))
    except OSError as error:
        msg = (
            f"cannot read the journal in {folder.journal_dir}: {error.strerror or error}; check its owner and the disk"
        )
        raise StoreError(msg) from error
    yield from (Entry(line, TORN, None) for line in bad)


def _choose(entries: Iterator[Entry], is_wanted: Callable[[str | None], bool], limit: int | None) -> Iterator[Entry]:
    """Yield bad places, and records of the rows that are wanted until the limit."""
    n_left = limit
    for entry in entries:
        if entry.record is None:
            yield entry
        elif is_wanted(entry.record.get("row_id")):
            if n_left == 0:
                return
            n_left = None if n_left is None else n_left - 1
            yield entry


def _follow(entry: Entry, in_flight: set[str]) -> None:
    """Keep the rows of which a request was started and nothing came after it."""
    if entry.record is None or entry.type == Kind.RUN:
        return
    if entry.type == Kind.STARTED:
        in_flight.add(entry.record["row_id"])
    else:
        in_flight.discard(entry.record["row_id"])


def _is_simulated(folder: RunFolder) -> bool:
    """Return whether the run's first call names a simulator."""
    first = next((entry.record for entry in _scan_entries(folder) if entry.type == Kind.RUN), None) or {}
    endpoints = first.get("job", {}).get("endpoints", {})
    return any(isinstance(options, Mapping) and "simulator" in options for options in endpoints.values())


def _write_json(entry: Entry, labels: _Labels, *, is_simulated: bool) -> None:
    line = entry.line
    names = labels.find(entry.record["row_id"]) if entry.record is not None and "row_id" in entry.record else None
    shown = {
        "schema_version": SCHEMA_VERSION,
        "simulated": is_simulated,
        "segment": line.path.name,
        "line": line.number,
        "offset": line.offset,
        "bytes": line.n_bytes,
        "type": entry.type,
        **({key: names[key] for key in ("sample_id", "prompt", "model", "repeat")} if names is not None else {}),
        "record": entry.record,
    }
    text = json.dumps(shown, ensure_ascii=False)
    # Half of a surrogate pair becomes its escape, which is what JSON calls it, too.
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")


def _write_text(entry: Entry, labels: _Labels, *, is_full: bool) -> None:
    place = f"{Path(entry.line.path).stem}:{entry.line.number}"
    click.echo(clean_text(f"{place:<12} {entry.type:<8} {_describe(entry, labels)}"))
    if is_full and entry.record is not None:
        for row in json.dumps(entry.record, ensure_ascii=False, indent=2).splitlines():
            click.echo("    " + clean_text(row))


def _describe(entry: Entry, labels: _Labels) -> str:
    record = entry.record
    if record is None:
        where = "before good records" if entry.type == DAMAGED else "behind the last record: torn, or being written now"
        return f"{count_noun(entry.line.n_bytes, 'byte')} at byte {entry.line.offset:,} that prove nothing, {where}"
    if entry.type == Kind.RUN:
        facts = [record.get("job_name"), record.get("started_at"), f"evalrun {record.get('evalrun')}"]
        return f"a call of {record.get('n_rows')} rows begins: " + ", ".join(map(str, facts))
    name = _name_row(record["row_id"], labels.find(record["row_id"]))
    if entry.type == Kind.STARTED:
        return f"{name} · attempt {record['attempt']}"
    if entry.type == Kind.ATTEMPT:
        return f"{name} · attempt {record['attempt']}: {_describe_failure(record)} · {_seconds(record)}"
    return f"{name} · {_describe_outcome(record)}"


def _name_row(row_id: str, names: Row | None) -> str:
    short = row_id[:_SHORT_ID_CHARS]
    if names is None:
        return short
    repeat = f" · repeat {names['repeat']}" if names["repeat"] else ""
    return f"{short} {names['sample_id']} · {names['prompt']} · {names['model']}{repeat}"


def _describe_outcome(record: Mapping[str, Any]) -> str:
    told = [record["status"]]
    if record.get("error_code") is not None:
        told = [f"{record['status']}: {_describe_failure(record)}"]
    if record.get("reused_from") is not None:
        told.append(f"taken from {record['reused_from']}")
    else:
        told += [count_noun(record["attempts"], "attempt"), _seconds(record)]
    billed = record.get("billed_usd")
    told.append("cost unknown" if billed is None else format_usd(float(billed)))
    return " · ".join(told)


def _describe_failure(record: Mapping[str, Any]) -> str:
    message = " ".join((record.get("error_message") or "").split())
    http_status = record.get("http_status")
    # Most messages begin with the status.
    is_told = http_status is None or message.startswith(f"HTTP {http_status}:")
    status = "" if is_told else f" ({http_status})"
    return f"{record.get('error_code')}{status}" + (f" {message[:120]}" if message else "")


def _seconds(record: Mapping[str, Any]) -> str:
    return format_seconds(record.get("latency_s"))


def _describe_tally(tally: Mapping[str, int], n_in_flight: int, *, doubt: str, is_whole: bool) -> str:
    told = [f"{tally.get(kind, 0):,} {kind}" for kind in Kind]
    text = f"{count_noun(sum(tally.get(kind, 0) for kind in Kind), 'record')}: " + ", ".join(told)
    if not is_whole:
        return f"{text}; --limit 0 shows all"
    if n_in_flight:
        text += f"; {doubt}: {n_in_flight:,}"
    return text
