"""Why a row would be asked, or need not be: which part of its request differs from an older run's.

A checked job, the words for a row, and older runs enter; one explanation for each row meant leaves. What an older run
asked stands in its results; of a run that has not ended only the keys are known, and what its job said.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from evalrun.errors import StoreError, UsageError
from evalrun.job.bodies import make_request_key, strip_streaming
from evalrun.job.differences import Difference, list_differences
from evalrun.job.plan import Plan
from evalrun.preparing import Prepared
from evalrun.records import FINISHED, Request
from evalrun.reusing import ReuseSources, find_sources, open_stored
from evalrun.store.folder import RunFolder
from evalrun.store.journal_index import Entry, JournalIndex
from evalrun.store.journal_scan import scan_journal
from evalrun.store.parquet import scan_rows
from evalrun.store.runs import list_job_folders

MAX_ROWS = 20
"""Most rows that are explained at once."""

MIN_ID_CHARS = 6
"""Shortest prefix of a row_id that is taken for one."""

_OLD_COLUMNS = ["row_id", "request_key", "sample_id", "prompt", "model", "repeat", "request", "status", "error_code"]
_ID_SIGNS = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True, kw_only=True)
class RowExplanation:
    """What an older run makes of one row."""

    row_id: str
    sample_id: str
    prompt: str
    model: str
    repeat: int
    verdict: str
    """`reused` (the request is known and answered), `unanswered`, `differs`, `never_asked`, or `gone` (the job no
    longer has the row)."""
    why: str
    """The same in a sentence."""
    run_id: str | None
    """The older run; None when there is none."""
    differences: tuple[Difference, ...] = ()
    """Where the request differs: `model`, `params.temperature`, `messages[1].content`, `target.base_url`, …"""


class _OldRun:
    """An older run, as far as it can tell what it asked."""

    def __init__(self, folder: RunFolder, wanted: "_Wanted") -> None:
        self.run_id = folder.run_id
        self.index: JournalIndex = scan_journal(folder)
        self.session: Mapping[str, Any] = self.index.sessions[0] if self.index.sessions else {}
        self.job: Mapping[str, Any] = self.session.get("job", {})
        self.rows: dict[str, Mapping[str, Any]] = {}
        with suppress(StoreError):  # The run has not ended: it has no tables yet.
            self.rows = {row["row_id"]: row for row in scan_rows(folder.results_path, _OLD_COLUMNS) if wanted.fits(row)}


class _Wanted:
    """The words for a row: a prefix of its row_id, or SAMPLE, SAMPLE/PROMPT, … in the order of the plan.

    Args:
        text: As typed; names may hold slashes.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._is_id = len(text) >= MIN_ID_CHARS and set(text) <= _ID_SIGNS

    def fits(self, row: Mapping[str, Any]) -> bool:
        """Tell whether a row of a results table is meant."""
        return self._fits(row["row_id"], row["sample_id"], row["prompt"], row["model"], row["repeat"])

    def find(self, plan: Plan) -> list[Request]:
        """Return the rows of the plan that are meant, one more than are explained at most."""
        found = []
        for request in plan.requests():
            if self._fits(request.row_id, request.sample.sample_id, request.prompt, request.model, request.repeat):
                found.append(request)
                if len(found) > MAX_ROWS:
                    break
        return found

    def _fits(self, row_id: str, sample_id: str, prompt: str, model: str, repeat: int) -> bool:
        name = f"{sample_id}/{prompt}/{model}/{repeat}"
        return f"{name}/".startswith(f"{self.text}/") or (self._is_id and row_id.startswith(self.text))


def explain_rows(prepared: Prepared, text: str) -> list[RowExplanation]:
    """Return what older runs make of the rows that a text means.

    Args:
        prepared: The job; its `reuse` or `--reuse` names the older runs, else the job's newest one is meant.
        text: A prefix of a row_id, or SAMPLE[/PROMPT[/MODEL[/REPEAT]]].

    Raises:
        UsageError: No row is meant, or more than are explained at once; or an older run cannot be read.
    """
    settings, loaded = prepared.settings, prepared.loaded
    if settings.reuse or loaded.job.reuse is not None:
        sources = find_sources(settings, loaded)
    else:
        sources = ReuseSources(folders=tuple(list_job_folders(loaded.name, settings.reports_dir)[:1]))
    wanted = _Wanted(text)
    requests = wanted.find(prepared.plan)
    if len(requests) > MAX_ROWS:
        raise UsageError(
            f"{text!r} means more than {MAX_ROWS} rows", hint="name one: SAMPLE/PROMPT/MODEL/REPEAT, or a row_id"
        )
    try:
        runs = [_OldRun(folder, wanted) for folder in sources.folders]
    except StoreError as error:
        raise UsageError(str(error)) from error
    explained = [*_explain_planned(prepared, sources, runs, requests), *_explain_gone(runs, requests)]
    if not explained:
        hint = "write SAMPLE, SAMPLE/PROMPT/MODEL/REPEAT, or the start of a row_id; `evalrun show RUN` lists samples"
        raise UsageError(f"no row of {loaded.name} is {text!r}, nor of an older run of it", hint=hint)
    return explained


def _explain_planned(
    prepared: Prepared, sources: ReuseSources, runs: Sequence[_OldRun], requests: Sequence[Request]
) -> Iterator[RowExplanation]:
    with open_stored(sources) as stored:
        for request in requests:
            outcome = stored.take(request.row_id, request.request_key)
            if outcome is None:
                yield _explain_unknown(prepared, runs, request)
                continue
            usd = "of unknown cost" if outcome.cost_usd is None else f"which cost USD {outcome.cost_usd:.4g}"
            row = "" if outcome.reused_row_id is None else f", as row {outcome.reused_row_id[:12]}"
            why = f"{outcome.reused_from} asked the same{row}: {outcome.status.value}, {usd}; --reuse takes it over"
            yield _make(request, "reused", why, outcome.reused_from)


def _explain_unknown(prepared: Prepared, runs: Sequence[_OldRun], request: Request) -> RowExplanation:
    """Explain a row that no older run has an answer to."""
    if not runs:
        return _make(request, "never_asked", "the job has no older run: nothing was ever asked", None)
    known = ((run, run.index.get(request.row_id)) for run in runs)
    run, entry = next(((run, entry) for run, entry in known if entry is not None), (runs[0], None))
    if entry is None:
        return _make(request, "never_asked", _tell_what_is_new(run, request), run.run_id)
    if entry.request_key == request.request_key:
        if entry.status in FINISHED:
            why = f"{run.run_id} answered it, but that answer goes to an equal request of another row"
        else:
            why = f"{run.run_id} asked the same without an answer ({entry.error_code or 'cut off'}); it is asked again"
        return _make(request, "unanswered", why, run.run_id)
    differences = _compare(prepared, run, request, entry)
    return _make(request, "differs", _tell_difference(run, request, entry, differences), run.run_id, differences)


def _tell_what_is_new(run: _OldRun, request: Request) -> str:
    """Return why a run never asked a row, as far as its job tells."""
    of = f"{run.run_id} never asked it"
    for key, name in (("models", request.model), ("prompts", request.prompt)):
        if run.job and name not in {item.get("name") for item in run.job.get(key, ())}:
            return f"{of}: its job had no {key[:-1]} {name!r}"
    if request.repeat >= run.job.get("repeats", 1):
        return f"{of}: its job asked each row {run.job.get('repeats', 1)} times"
    row = run.rows.get(request.row_id)
    if row is not None:
        return f"{of}: the run ended before it ({row['error_code']})"
    return f"{of}: the sample is new, was outside the run's selection, or the run ended before it"


def _compare(prepared: Prepared, run: _OldRun, request: Request, entry: Entry) -> tuple[Difference, ...]:
    """Return where a request differs from the one that the older run sent."""
    row = run.rows.get(request.row_id)
    if row is None or row["request_key"] != entry.request_key:
        return tuple(_compare_jobs(prepared, run, request, ("models", "prompts", "endpoints", "vars")))
    old, new = json.loads(row["request"]), json.loads(request.body)
    found = [
        difference._replace(path=_name_path(difference.path))
        for difference in list_differences(strip_streaming(old), strip_streaming(new))
    ]
    if make_request_key(old, prepared.plan.make_target(request), request.repeat) != entry.request_key:
        found += _compare_jobs(prepared, run, request, ("endpoints",))
    return tuple(found)


def _name_path(path: str) -> str:
    """Return a path within a body in the words of the job: what is neither model nor messages is a parameter."""
    return path if path.startswith(("model", "messages")) else f"params.{path}"


def _compare_jobs(prepared: Prepared, run: _OldRun, request: Request, keys: Sequence[str]) -> Iterator[Difference]:
    """Yield in what two jobs differ that may touch a row; an endpoint's limits and deadlines touch none."""
    before, after = run.job, prepared.loaded.raw
    names = {"models": request.model, "prompts": request.prompt, "endpoints": request.endpoint}
    for key in keys:
        for difference in list_differences(before.get(key), after.get(key), path=key, by_name=True):
            named = names.get(key)
            start = f"{key}.{named}." if key == "endpoints" else f"{key}[{named}]"
            if named is not None and not difference.path.startswith(start):
                continue
            inner = difference.path.removeprefix(start)
            if key != "endpoints":
                yield difference
            elif inner.split(".")[0].split("[")[0] in {"base_url", "headers", "profile", "simulator"}:
                yield difference._replace(path=f"target.{inner}")


def _tell_difference(run: _OldRun, request: Request, entry: Entry, differences: Sequence[Difference]) -> str:
    row = run.rows.get(request.row_id)
    if row is None or row["request_key"] != entry.request_key:
        why = f"{run.run_id} asked something else; its texts are not in a table, since the run has not ended"
        return f"{why}; this is what its job said otherwise" if differences else f"{why}: the sample has changed"
    if differences:
        return f"{run.run_id} asked something else ({row['status']})"
    return (
        f"{run.run_id} sent the same body to another target: a variable that the endpoint reads, a simulator's answer "
        "or its version has changed"
    )


def _explain_gone(runs: Sequence[_OldRun], requests: Sequence[Request]) -> Iterator[RowExplanation]:
    """Explain the rows meant that older runs have and the job no longer has."""
    told = {request.row_id for request in requests}
    for run in runs:
        for row_id, row in run.rows.items():
            if row_id not in told and len(told) < MAX_ROWS:
                told.add(row_id)
                yield RowExplanation(
                    row_id=row_id,
                    sample_id=row["sample_id"],
                    prompt=row["prompt"],
                    model=row["model"],
                    repeat=row["repeat"],
                    verdict="gone",
                    why=f"{run.run_id} asked it ({row['status']}); the job, as it is selected now, no longer has it",
                    run_id=run.run_id,
                )


def _make(
    request: Request, verdict: str, why: str, run_id: str | None, differences: tuple[Difference, ...] = ()
) -> RowExplanation:
    return RowExplanation(
        row_id=request.row_id,
        sample_id=request.sample.sample_id,
        prompt=request.prompt,
        model=request.model,
        repeat=request.repeat,
        verdict=verdict,
        why=why,
        run_id=run_id,
        differences=differences,
    )
