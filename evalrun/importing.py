"""Answers made elsewhere become a run: read from a file, checked in full, kept, graded and reported like any other.

A file, where its columns stand and perhaps a job enter; a run folder leaves. Nothing is written before all of the file
was read and found good. The run has no journal and no attempts, since nothing was asked: no other run can take its
answers for paid ones.
"""

import hashlib
import platform
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from evalrun import __version__
from evalrun.analysis.graders.grader_set import GraderSet
from evalrun.answer_columns import Answer, AnswerColumns
from evalrun.answer_rows import AnswerFile, ImportedAnswer
from evalrun.closing import describe_job, make_table_facts
from evalrun.cost import Cost, compute_cost
from evalrun.errors import ConfigError, DatasetError, Problem, StoreError, UsageError
from evalrun.job.bodies import make_row_id
from evalrun.job.canonical import encode_json, make_digest
from evalrun.job.checks import is_folder_name
from evalrun.job.config import LoadedJob
from evalrun.job_graders import make_grader_set
from evalrun.judging import AskedGate, RowTally, RunResult, judge_and_render, make_asked_gate
from evalrun.options import ReportOptions
from evalrun.prices import NO_PRICES
from evalrun.records import SCHEMA_VERSION, ErrorCode, Request, Status, Usage
from evalrun.store.folder import RunFolder, make_run_id
from evalrun.store.manifest import IMPORTED_KEY
from evalrun.store.parquet import BLOCK_ROWS, GradedBlock, write_attempts, write_results
from evalrun.store.record_columns import PlannedRow, build_result_columns
from evalrun.store.record_reader import IS_CLEANED, clean_text
from evalrun.table_blocks import grade_block

ENDPOINT = "imported"
"""Stands in the tables for the endpoint, and for the target in request keys: no request to a server has such a key."""

BATCH_TIER = "batch"
"""Multiplier of a price for what was asked in a batch."""

BLOCK_BYTES = 16 * 1024 * 1024
"""About what the texts of the rows that are made at once may take."""

_NO_OUTPUT = "the imported file holds no output here"
_USAGE_NAMES = tuple(field.name for field in fields(Usage) if field.name != "reported_cost_usd")
_FILTERED = "content_filter"
_TRUNCATED = "length"


class NullAs(StrEnum):
    """What an answer without an output is taken for."""

    ERROR = "error"
    EMPTY = "empty"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSettings:
    """What the command line says."""

    path: Path
    """A dataset file of any format that is read, a folder or a glob of them."""
    columns: AnswerColumns
    reports_dir: Path = Path("reports")
    name: str | None = None
    """Names the folder below reports; None = the file's stem."""
    null_as: NullAs | None = None
    """None = an answer without output is refused."""
    has_own_samples: bool = True
    """Whether the rows are the samples; False = those of the job with the same ids are."""
    is_batch: bool = False
    """Whether the answers were asked in a batch, at a batch's price."""
    is_gate_wanted: bool = True


def import_outputs(settings: ImportSettings, loaded: LoadedJob | None) -> RunResult:
    """Make a run of a file of answers.

    Args:
        settings: The file, and how it is read.
        loaded: The job whose graders, prices and gate apply; None = samples bring their own graders, if any.

    Raises:
        AuthorError: The file, or how it is to be read, must be mended; nothing was written.
        StoreError: The disk refused; nothing is left behind.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    name = _choose_name(settings)
    graders = make_grader_set(loaded) if loaded is not None else GraderSet((), (), vars_={})
    costing = _Costing(settings, loaded, started)
    with AnswerFile(
        settings.path,
        settings.columns,
        make_record=costing.make_record,
        loaded=None if settings.has_own_samples else loaded,
        check_sample=graders.check_sample,
    ) as answers:
        costing.check()
        folder = _create_folder(settings, name, started)
        try:
            with folder.lock():
                manifest = _write_tables(folder, answers, graders, settings, loaded)
                manifest |= {
                    "job_name": name,
                    "started_at": started.isoformat(timespec="milliseconds"),
                    "finished_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
                    "wall_s": round(time.monotonic() - clock, 3),
                    "warnings": [*_warn_of_source(answers), *costing.list_warnings()],
                }
                return judge_and_render(folder, manifest, gate=_make_gate(settings, loaded))
        except BaseException:
            shutil.rmtree(folder.path, ignore_errors=True)
            raise


class _Costing:
    """Makes the record of each answer, with what it cost; notes which models have no price."""

    def __init__(self, settings: ImportSettings, loaded: LoadedJob | None, now: datetime) -> None:
        self._settings, self._loaded, self._now = settings, loaded, now
        self._unpriced: dict[str, None] = {}
        self._without_batch: dict[str, None] = {}

    def make_record(self, answer: Answer) -> Mapping[str, Any]:
        """Return an answer as the tables are made from.

        Raises:
            DatasetError: It has no output, and nothing says what that means.
        """
        status, output = self._find_status(answer)
        cost = self._compute_cost(answer)
        usage = {name: getattr(answer.usage, name) for name in _USAGE_NAMES}
        record: dict[str, Any] = {
            "status": status.value,
            "attempts": 0,
            # What it cost was paid elsewhere, if anywhere: this run took nothing.
            "billed_usd": "0",
            "cost_usd": None if cost.usd is None else str(cost.usd),
            "cost_source": cost.source.value,
            "latency_s": answer.latency_s,
            "usage": usage,
        }
        if status is Status.ERROR:
            record |= {"error_code": ErrorCode.BODY_INVALID.value, "error_message": _NO_OUTPUT, "is_permanent": True}
            return record
        clean = None if output is None else clean_text(output)
        record["completion"] = {"output": clean, "finish_reason": _clean(answer.finish_reason)}
        return record if clean == output else {**record, IS_CLEANED: True}

    def _find_status(self, answer: Answer) -> tuple[Status, str | None]:
        output = answer.output
        if answer.finish_reason == _FILTERED:
            return Status.FILTERED, None
        if output is None:
            if self._settings.null_as is None:
                hint = "--null-as error takes it for an answer that never came, --null-as empty for one of no text"
                raise DatasetError(f"{answer.model} has no output here: null, or no such column", hint=hint)
            if self._settings.null_as is NullAs.ERROR:
                return Status.ERROR, None
        if not output:
            return Status.EMPTY, ""
        return (Status.TRUNCATED if answer.finish_reason == _TRUNCATED else Status.OK), output

    def _compute_cost(self, answer: Answer) -> Cost:
        """Return what an answer cost; note the models whose price does not tell."""
        if answer.usage.reported_cost_usd is not None or self._loaded is None:
            return compute_cost(answer.usage, None)
        prices = self._loaded.prices.get(answer.model, NO_PRICES)
        price = prices.find(self._now)
        if price is None:
            self._unpriced.setdefault(answer.model)
        elif self._settings.is_batch and price.multipliers.get(BATCH_TIER) is None:
            self._without_batch.setdefault(answer.model)
        tier = BATCH_TIER if self._settings.is_batch else None
        return compute_cost(answer.usage, price, service_tier=tier, source=prices.source)

    def check(self) -> None:
        """Refuse a batch of models whose price does not tell what a batch costs.

        Raises:
            ConfigError: There are such models.
        """
        if not self._without_batch or self._loaded is None:
            return
        names = [model.name for model in self._loaded.job.models]
        raise ConfigError(
            [
                Problem(
                    message=f"the price of {model} does not say what a batch costs",
                    where=self._loaded.where("models", names.index(model), "price"),
                    hint="write it there, multipliers: {batch: 0.5} for half the price, or leave out --batch",
                )
                for model in self._without_batch
            ]
        )

    def list_warnings(self) -> list[str]:
        """Return what is said of costs that are not known."""
        if not self._unpriced or self._loaded is None:
            return []
        return [f"{self._loaded.path} has no price for {', '.join(self._unpriced)}: what they cost is unknown"]


def _choose_name(settings: ImportSettings) -> str:
    name = settings.name if settings.name is not None else settings.path.name.split(".")[0]
    if not name or not is_folder_name(name):
        hint = "say how to call it: --name NAME, of letters, digits, `-`, `_` and `.`"
        raise UsageError(f"{name[:60]!r} cannot name a folder below {settings.reports_dir}", hint=hint)
    return name


def _create_folder(settings: ImportSettings, name: str, now: datetime) -> RunFolder:
    try:
        folder = RunFolder.create(settings.reports_dir, name, make_run_id(now, secrets.SystemRandom()))
        # Nothing was asked, so there is no journal; and until run.json is there, no run that a resume could find.
        folder.journal_dir.rmdir()
    except (StoreError, OSError) as error:
        raise UsageError(str(error)) from error
    return folder


def _make_gate(settings: ImportSettings, loaded: LoadedJob | None) -> AskedGate:
    if loaded is None:
        return AskedGate(is_wanted=settings.is_gate_wanted, rules=None, has_hard_graders=False)
    return make_asked_gate(loaded.job, is_wanted=settings.is_gate_wanted)


def _write_tables(
    folder: RunFolder,
    answers: AnswerFile,
    graders: GraderSet,
    settings: ImportSettings,
    loaded: LoadedJob | None,
) -> dict[str, Any]:
    """Write the tables; return what run.json tells of the run."""
    digests = {"outputs": _digest_files(answers), "graders": graders.digest}
    if loaded is not None:
        digests["job"] = loaded.digest
    facts = make_table_facts(folder, digests, _make_gate(settings, loaded), is_simulated=False)
    tally = RowTally()
    write_results(folder, tally.count(_make_blocks(folder, answers, graders)), facts)
    write_attempts(folder, (), facts)
    n_repeats = len(answers.repeats)
    described = describe_job(folder, loaded, digests) if loaded is not None else _describe_no_job(folder, digests)
    job = dict(described["job"])
    return {
        **described,
        "prices": {model: price for model, price in described["prices"].items() if model in answers.models},
        "job": {**job, "repeats": n_repeats} if n_repeats > 1 else job,
        "call": {"overrides": [], "variables": {}, "env_file": None},
        "is_simulated": False,
        IMPORTED_KEY: {
            "files": [file.shown for file in answers.files],
            "columns": settings.columns.list_paths(),
            "samples": "file" if settings.has_own_samples else "job",
            "is_batch": settings.is_batch,
            "null_as": settings.null_as,
        },
        "n_calls": 1,
        **tally.describe(),
        "lanes": [],
        "budget": None,
    }


def _make_blocks(folder: RunFolder, answers: AnswerFile, graders: GraderSet) -> Iterator[GradedBlock]:
    for chunk in _split(answers.scan()):
        rows = [_make_row(answer) for answer in chunk]
        yield grade_block(build_result_columns(rows, run_id=folder.run_id), graders)


def _split(answers: Iterator[ImportedAnswer]) -> Iterator[Sequence[ImportedAnswer]]:
    """Yield the answers in blocks that stay small, however long the texts are."""
    chunk: list[ImportedAnswer] = []
    n_bytes = 0
    for answer in answers:
        chunk.append(answer)
        completion = answer.record.get("completion", {})
        n_bytes += len(answer.sample_text) + len(completion.get("output") or "")
        if len(chunk) >= BLOCK_ROWS or n_bytes > BLOCK_BYTES:
            yield chunk
            chunk, n_bytes = [], 0
    if chunk:
        yield chunk


def _make_row(answer: ImportedAnswer) -> PlannedRow:
    body: dict[str, Any] = {"model": answer.model}
    if answer.input is not None:
        is_list = isinstance(answer.input, list)
        body["messages"] = answer.input if is_list else [{"role": "user", "content": answer.input}]
    row_id = make_row_id(answer.sample.sample_id, answer.prompt, answer.model, answer.repeat)
    request = Request(
        index=0,
        row_id=row_id,
        request_key=make_digest({"v": 1, "target": ENDPOINT, "row_id": row_id, "body": body}),
        sample=answer.sample,
        prompt=answer.prompt,
        model=answer.model,
        endpoint=ENDPOINT,
        repeat=answer.repeat,
        body=encode_json(body),
    )
    return PlannedRow(request, answer.sample_text, answer.record)


def _digest_files(answers: AnswerFile) -> str:
    digest = hashlib.sha256()
    for file in answers.files:
        with file.path.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def _describe_no_job(folder: RunFolder, digests: Mapping[str, str]) -> dict[str, Any]:
    report = ReportOptions()
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": folder.run_id,
        "job_path": None,
        "description": None,
        "job": {},
        "digests": dict(digests),
        "versions": {"evalrun": __version__, "python": platform.python_version(), "platform": platform.system()},
        "prices": {},
        "report": {"formats": list(report.formats), "include": report.include},
    }


def _warn_of_source(answers: AnswerFile) -> list[str]:
    files = ", ".join(file.shown for file in answers.files[:3]) + (" …" if len(answers.files) > 3 else "")
    return [f"The answers were made elsewhere and imported from {files}; evalrun asked nothing and paid nothing."]


def _clean(text: str | None) -> str | None:
    return None if text is None else clean_text(text)
