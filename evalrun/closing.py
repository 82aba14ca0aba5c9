"""The back of the hall: from the journal to tables, summary, verdict and reports.

A run folder enters; results.parquet, grades.parquet, attempts.parquet, the reports and run.json leave, run.json last.
Nothing here sends a request, so all of it can be done again: after a resume, for new graders, for a new look.
"""

import hashlib
import json
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evalrun import __version__
from evalrun.analysis.gate import check_gate
from evalrun.analysis.graders.grader_set import GraderSet, combine_grades
from evalrun.analysis.summary import summarize
from evalrun.errors import Problem, PromptError, StoreError, UsageError
from evalrun.job.config import LoadedJob
from evalrun.job.estimate import PlanTotals
from evalrun.job.plan import Plan
from evalrun.options import Job, PriceOptions
from evalrun.records import (
    FINISHED,
    PASSING,
    SCHEMA_VERSION,
    ErrorCode,
    Finding,
    LaneProgress,
    Request,
    Sample,
    Status,
    Summary,
    Verdict,
)
from evalrun.report.junit import render_junit
from evalrun.report.markdown import render_markdown
from evalrun.report.model import ReportData, ReportRow, build_report_row
from evalrun.report.render import render_html
from evalrun.report.summary_json import build_summary_json
from evalrun.store.folder import RunFolder, write_atomically
from evalrun.store.graded_rows import scan_graded_rows
from evalrun.store.journal_index import Entry, JournalIndex
from evalrun.store.manifest import read_manifest, write_manifest
from evalrun.store.parquet import grades_match, read_metadata, scan_rows, write_attempts, write_results
from evalrun.store.tables import PERMANENT, build_attempt_row, build_grade_row, build_result_row

MAX_REPORT_ROWS = 20_000
"""Most rows that a report holds; failing ones go first, the rest are counted."""

MAX_GRADER_PROBLEMS = 20
"""Most problems of graders that are listed at once."""

ResultAndGrades = tuple[dict[str, Any], list[dict[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """A finished run: its folder, figures and verdict."""

    folder: RunFolder
    summary: Summary
    verdict: Verdict
    manifest: Mapping[str, Any]
    exit_code: int
    """The process's exit code: a signal's, else the verdict's."""


def make_grader_set(loaded: LoadedJob) -> GraderSet:
    """Return the graders of a job, compiled."""
    job = loaded.job
    return GraderSet(job.graders, job.defaults.graders, vars_=job.vars, where=loaded.where, inline_samples=job.samples)


def is_settled(entry: Entry | None, request: Request, *, retry_all_errors: bool) -> bool:
    """Return whether a resume leaves this row alone.

    Args:
        entry: What the journal holds for the row; None when nothing.
        request: The row as the job asks it now; another content is another question.
        retry_all_errors: Ask rows with permanent errors again.
    """
    if entry is None or entry.status is None or entry.request_key != request.request_key:
        return False
    if entry.status in FINISHED:
        return True
    may_pass = entry.error_code in PASSING and not entry.is_permanent
    return entry.status == Status.ERROR and not may_pass and not retry_all_errors


def close_run(  # noqa: PLR0913 - the end of a run needs all that its beginning made, each by name
    folder: RunFolder,
    index: JournalIndex,
    *,
    loaded: LoadedJob,
    plan: Plan,
    graders: GraderSet,
    totals: PlanTotals,
    lanes: Mapping[tuple[str, str], LaneProgress],
    lane_facts: Sequence[Mapping[str, Any]],
    budget: Mapping[str, Any] | None,
    call: Mapping[str, Any],
    wall_s: float,
    is_gate_wanted: bool,
    interrupted_exit_code: int | None,
) -> RunResult:
    """Write tables, reports and run.json of a run whose asking has ended.

    Args:
        folder: The run's folder, locked by the caller; its journal is closed.
        index: What the journal holds, kept current while it was written.
        loaded: The job as it is now.
        plan: Its rows in order.
        graders: Its graders, compiled.
        totals: What the check before the first request found.
        lanes: By endpoint and wire model: the lanes as dispatch left them.
        lane_facts: What run.json tells of them.
        budget: Where the run's budget stands, and what ended it (`ended_by`); None when it has none.
        call: What the call narrowed or changed, for run.json.
        wall_s: Seconds since the call began.
        is_gate_wanted: False skips the gate.
        interrupted_exit_code: 130 or 143 when a signal ended the run; None otherwise.
    """
    digests = {
        "job": loaded.digest,
        "dataset": totals.dataset_digest,
        "prompts": _digest(loaded.raw.get("prompts")),
        "graders": graders.digest,
    }
    codes = {
        model.name: _name_pending_code(lanes[str(model.endpoint), model.wire_model], budget) for model in plan.models
    }
    is_simulated = any(loaded.job.endpoints[str(model.endpoint)].simulator is not None for model in plan.models)
    facts = _table_facts(folder, digests, is_simulated=is_simulated)
    tally = _Tally()
    write_results(folder, tally.count(_iterate_results(folder, plan, index, graders, codes)), facts)
    write_attempts(folder, map(build_attempt_row, index.scan_attempts()), facts)
    manifest = {
        **_describe_job(folder, loaded, digests),
        "call": dict(call),
        "is_simulated": is_simulated,
        "started_at": index.sessions[0]["started_at"],
        "n_calls": len(index.sessions),
        "in_doubt": len(index.in_doubt),
        "asked_again_after_doubt": index.n_asked_again,
        "requests": tally.n_requests,
        "n_permanent_errors": tally.n_permanent,
        "error_examples": tally.error_examples,
        "finished_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "wall_s": round(wall_s, 3),
        "estimate": {"usd": asdict(totals.usd), "time_s": asdict(totals.time_s), "n_rows": totals.n_rows},
        "lanes": [dict(facts) for facts in lane_facts],
        "budget": budget,
        "warnings": [problem.render() for problem in loaded.warnings],
    }
    return _judge_and_render(
        folder,
        manifest,
        job=loaded.job,
        is_gate_wanted=is_gate_wanted,
        interrupted_exit_code=interrupted_exit_code,
    )


@dataclass(slots=True)
class _Tally:
    """What is counted while the rows go by."""

    n_requests: int = 0
    """Rows that were sent at least once."""
    n_permanent: int = 0
    """Errors that cannot pass, though their codes can."""
    error_examples: dict[str, str] = field(default_factory=dict)
    """The first message of each error code."""

    def count(self, rows: Iterable[ResultAndGrades]) -> Iterator[ResultAndGrades]:
        """Pass the rows on."""
        for row, grades in rows:
            self.n_requests += row["attempts"] > 0
            self.n_permanent += PERMANENT in json.loads(row["flags"] or "[]")
            if row["error_message"] is not None:
                self.error_examples.setdefault(row["error_code"], row["error_message"])
            yield row, grades


def regrade(folder: RunFolder, loaded: LoadedJob) -> RunResult:
    """Grade a run's stored outcomes again, and make everything that follows from grades anew.

    Args:
        folder: A run with results.parquet, locked by the caller.
        loaded: The job whose graders and gate are applied.

    Raises:
        PromptError: A grader does not fit a stored sample; the old grades are as they were.
        UsageError: The job has no grader.
    """
    manifest = read_manifest(folder)
    graders = make_grader_set(loaded)
    _check_graders(folder, loaded, graders)
    digests = {**manifest["digests"], "graders": graders.digest}

    rows = (_grade(row, graders) for row in scan_rows(folder.results_path))
    write_results(folder, rows, _table_facts(folder, digests, is_simulated=manifest["is_simulated"]))
    manifest = {**manifest, "digests": digests, "graded_at": datetime.now(UTC).isoformat(timespec="milliseconds")}
    return _judge_and_render(folder, manifest, job=loaded.job, is_gate_wanted=True, interrupted_exit_code=None)


def _check_graders(folder: RunFolder, loaded: LoadedJob, graders: GraderSet) -> None:
    """Try every grader on every stored sample, as `validate` does, before old grades are replaced."""
    problems: dict[str, Problem] = {}
    n_graders, last_id = len(loaded.job.graders) + len(loaded.job.defaults.graders), None
    for row in scan_rows(folder.results_path, ["sample_id", "sample", "category"]):
        if row["sample_id"] == last_id:
            continue
        last_id = row["sample_id"]
        columns = json.loads(row["sample"])
        own = tuple(columns.get("graders") or ()) if isinstance(columns.get("graders"), list) else ()
        n_graders += len(own)
        sample = Sample(
            sample_id=row["sample_id"], row=columns, category=row["category"], where=f"sample {last_id}", graders=own
        )
        for problem in graders.check_sample(sample):
            problems.setdefault(problem.message, problem)
        if len(problems) >= MAX_GRADER_PROBLEMS:
            break
    if problems:
        raise PromptError(list(problems.values()))
    if not n_graders:
        raise UsageError(f"{loaded.path} has no graders", hint="the run's grades are as they were")


def load_result(folder: RunFolder) -> RunResult:
    """Return a finished run's figures and verdict from its tables and manifest.

    Raises:
        StoreError: The run has not ended, or its tables cannot be brought together.
    """
    manifest = read_manifest(folder)
    mend_grades(folder)
    verdict = _read_verdict(manifest["verdict"])
    summary = summarize(folder.results_path, folder.grades_path, is_simulated=manifest["is_simulated"])
    return RunResult(
        folder=folder, summary=summary, verdict=verdict, manifest=manifest, exit_code=manifest["verdict"]["exit_code"]
    )


def mend_grades(folder: RunFolder) -> bool:
    """Bring scores and verdicts of the results in line with the grades, where a crash came between the two files.

    Grades are written first and are the truth. Returns whether anything was mended.

    Raises:
        StoreError: The grades are of other rows than the results.
    """
    if grades_match(folder):
        return False
    facts = read_metadata(folder.grades_path)
    facts = {key: value for key, value in facts.items() if key not in {"schema_version", "grades_digest"}}
    n_grades = sum(1 for _ in scan_rows(folder.grades_path, ["row_id"]))
    if sum(len(grades) for _, grades in scan_graded_rows(folder)) != n_grades:
        raise StoreError(
            f"grades.parquet of {folder.run_id} holds other rows than its results.parquet; "
            f"grade the run again: evalrun grade {folder.run_id}"
        )

    def rows() -> Iterator[ResultAndGrades]:
        for row, grades in scan_graded_rows(folder):
            row["score"], row["passed"] = combine_grades(
                (grade["score"], grade["passed"], grade["weight"]) for grade in grades
            )
            yield row, grades

    write_results(folder, rows(), facts)
    return True


def read_summary(folder: RunFolder) -> dict[str, Any]:
    """Return a run's summary.json: what `--json` prints."""
    summary: dict[str, Any] = json.loads((folder.path / "summary.json").read_text(encoding="utf-8"))
    return summary


def render_run(folder: RunFolder, *, formats: Sequence[str] | None = None, include: str | None = None) -> list[Path]:
    """Render a run's reports again from its tables.

    Args:
        folder: A run with results.parquet.
        formats: `html`, `markdown`, `junit`; None = those of its job.
        include: `full`, `outputs` or `none`; None = that of its job.

    Returns:
        The files written.
    """
    result = load_result(folder)
    wanted = result.manifest["report"]
    return _render(
        folder,
        result.manifest,
        result.summary,
        result.verdict,
        formats=formats if formats is not None else wanted["formats"],
        include=include if include is not None else wanted["include"],
    )


def _iterate_results(
    folder: RunFolder,
    plan: Plan,
    index: JournalIndex,
    graders: GraderSet,
    pending_codes: Mapping[str, str],
) -> Iterator[ResultAndGrades]:
    """Yield every planned row with its grades, in plan order; what was never asked is pending."""
    for request in plan.requests():
        entry = index.get(request.row_id)
        is_answered = entry is not None and entry.status is not None and entry.request_key == request.request_key
        outcome = index.read_outcome(request.row_id) if is_answered else None
        code = pending_codes[request.model]
        row = build_result_row(request, outcome, run_id=folder.run_id, pending_code=code)
        yield _grade(row, graders)


def _name_pending_code(lane: LaneProgress, budget: Mapping[str, Any] | None) -> str:
    """Return why rows of a lane that were never sent were not."""
    if lane.stopped_by not in {None, ErrorCode.BUDGET}:
        return ErrorCode.LANE_STOPPED
    is_spent = budget is not None and budget["ended_by"] is not None
    return ErrorCode.BUDGET if is_spent else ErrorCode.INTERRUPTED


def _grade(row: dict[str, Any], graders: GraderSet) -> ResultAndGrades:
    graded = graders.grade_row(row)
    row["score"], row["passed"] = graded.score, graded.passed
    return row, [build_grade_row(grade) for grade in graded.grades]


def _judge_and_render(
    folder: RunFolder,
    manifest: dict[str, Any],
    *,
    job: Job,
    is_gate_wanted: bool,
    interrupted_exit_code: int | None,
) -> RunResult:
    """Summarise, apply the gate, render, and write run.json last."""
    summary = summarize(folder.results_path, folder.grades_path, is_simulated=manifest["is_simulated"])
    verdict = check_gate(
        summary,
        job.gate if is_gate_wanted else None,
        has_hard_graders=is_gate_wanted and _has_hard_graders(folder, job),
    )
    exit_code = interrupted_exit_code if interrupted_exit_code is not None else verdict.exit_code
    manifest = {
        **manifest,
        "counts": dict(summary.statuses),
        "errors": dict(summary.errors),
        "totals": {**_add_up(summary), "requests": manifest["requests"]},
        "verdict": {**asdict(verdict), "exit_code": exit_code},
    }
    wanted = manifest["report"]
    _render(folder, manifest, summary, verdict, formats=wanted["formats"], include=wanted["include"])
    write_manifest(folder, manifest)
    return RunResult(folder=folder, summary=summary, verdict=verdict, manifest=manifest, exit_code=exit_code)


def _has_hard_graders(folder: RunFolder, job: Job) -> bool:
    """Return whether any grader is a contract: one of the job's, or a sample's own that was applied."""
    of_job = any(grader.hard for grader in (*job.graders, *job.defaults.graders))
    return of_job or any(row["hard"] for row in scan_rows(folder.grades_path, ["hard"]))


def _render(
    folder: RunFolder,
    manifest: Mapping[str, Any],
    summary: Summary,
    verdict: Verdict,
    *,
    formats: Sequence[str],
    include: str,
) -> list[Path]:
    data = ReportData(
        manifest=manifest,
        summary=summary,
        verdict=verdict,
        rows=_choose_report_rows(folder),
        include=include,  # type: ignore[arg-type]  # The job's schema allows the three words only.
    )
    renderers = {
        "html": ("report.html", render_html),
        "markdown": ("report.md", render_markdown),
        "junit": ("junit.xml", render_junit),
    }
    texts = {name: render(data) for key, (name, render) in renderers.items() if key in formats}
    texts["summary.json"] = json.dumps(build_summary_json(data), ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    paths = []
    for name, text in texts.items():
        path = folder.path / name
        write_atomically(path, lambda temporary, text=text: temporary.write_text(text, encoding="utf-8"))  # type: ignore[misc]
        paths.append(path)
    return paths


def _choose_report_rows(folder: RunFolder) -> list[ReportRow]:
    """Return the rows a report holds, in plan order; over the limit, passing rows are left out first."""
    n_wanting = sum(row["passed"] is not True for row in scan_rows(folder.results_path, columns=["passed"]))
    room_for_passed = max(MAX_REPORT_ROWS - n_wanting, 0)
    rows: list[ReportRow] = []
    for row, grades in scan_graded_rows(folder):
        if row["passed"] is True:
            if room_for_passed == 0:
                continue
            room_for_passed -= 1
        if len(rows) < MAX_REPORT_ROWS:
            rows.append(build_report_row(row, grades))
    return rows


def _describe_job(folder: RunFolder, loaded: LoadedJob, digests: Mapping[str, str]) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": folder.run_id,
        "job_name": loaded.name,
        "job_path": str(loaded.path),
        "description": loaded.job.description,
        "job": loaded.raw,
        "digests": dict(digests),
        "versions": {"evalrun": __version__, "python": platform.python_version(), "platform": platform.system()},
        "prices": {model.name: _describe_price(model.price) for model in loaded.job.models},
        "report": {"formats": list(loaded.job.report.formats), "include": loaded.job.report.include},
    }


def _describe_price(price: PriceOptions | None) -> dict[str, Any] | None:
    """Return a price as JSON values, exact decimals as text; None when the job names none."""
    if price is None:
        return None
    written: dict[str, Any] = json.loads(json.dumps(asdict(price), default=str))
    return {key: value for key, value in written.items() if value not in (None, [], {})}


def _add_up(summary: Summary) -> dict[str, Any]:
    arms = summary.arms
    known = [arm.cost_usd for arm in arms if arm.cost_usd is not None]
    return {
        "rows": sum(arm.n_total for arm in arms),
        "attempts": sum(arm.attempts for arm in arms),
        "prompt_tokens": _sum_known(arm.prompt_tokens for arm in arms),
        "completion_tokens": _sum_known(arm.completion_tokens for arm in arms),
        "usd": sum(known) if known else None,
        "usd_unknown_rows": sum(arm.n_cost_unknown for arm in arms),
    }


def _sum_known(values: Iterable[int | None]) -> int | None:
    """Return the sum of what is known; None when nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _table_facts(folder: RunFolder, digests: Mapping[str, str], *, is_simulated: bool) -> dict[str, str]:
    """Return what the tables say about themselves in their key-value metadata."""
    simulated = "true" if is_simulated else "false"
    named = {f"{name}_digest": value for name, value in digests.items()}
    return {"run_id": folder.run_id, "is_simulated": simulated, **named}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()


def _read_verdict(stored: Mapping[str, Any]) -> Verdict:
    findings = tuple(Finding(**finding) for finding in stored["findings"])
    return Verdict(
        outcome=stored["outcome"], exit_code=stored["exit_code"], headline=stored["headline"], findings=findings
    )
