"""The back of the hall: from the journal to tables, summary, verdict and reports.

A run folder enters; results.parquet, grades.parquet, attempts.parquet, the reports and run.json leave, run.json last.
Nothing here sends a request, so all of it can be done again: after a resume, for new graders, for a new look.
"""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evalrun import __version__
from evalrun.analysis.graders.grader_set import FindReply, GraderSet, no_reply
from evalrun.analysis.observed import add_up_attempts
from evalrun.errors import Problem, PromptError, StoreError, UsageError
from evalrun.job.config import LoadedJob
from evalrun.job.estimate import PlanTotals, sum_completion_tokens, sum_prompt_tokens
from evalrun.job.plan import Plan
from evalrun.job_graders import make_grader_set
from evalrun.judge_rows import JudgeRows
from evalrun.judge_tables import StoredJudgements, write_judge_rows
from evalrun.judging import (
    AskedGate,
    RowTally,
    judge,
    judge_and_render,
    make_asked_gate,
    parse_asked_gate,
    render_reports,
)
from evalrun.judging import RunResult as RunResult
from evalrun.judging import load_ahead as load_ahead
from evalrun.lane_progress import LaneProgress
from evalrun.prices import ModelPrices
from evalrun.records import (
    SCHEMA_VERSION,
    ErrorCode,
    Finding,
    Sample,
    Verdict,
)
from evalrun.run_accounts import summarize_run
from evalrun.run_tables import N_ATTEMPTS, RunTables
from evalrun.store.folder import RunFolder
from evalrun.store.journal_index import JournalIndex
from evalrun.store.manifest import REGRADING_KEY, read_manifest, write_manifest
from evalrun.store.parquet import (
    make_graded_blocks,
    read_metadata,
    scan_rows,
    scan_table,
    write_attempts,
    write_results,
)
from evalrun.table_blocks import (
    make_attempt_blocks,
    make_regraded_blocks,
    make_result_blocks,
    scan_planned_rows,
    scan_stored_rows,
)

MAX_GRADER_PROBLEMS = 20
"""Most problems of graders that are listed at once."""


def close_run(  # noqa: PLR0913 - the end of a run needs all that its beginning made, each by name
    folder: RunFolder,
    index: JournalIndex,
    *,
    loaded: LoadedJob,
    plan: Plan,
    graders: GraderSet,
    judges: JudgeRows,
    totals: PlanTotals,
    asked: PlanTotals,
    lanes: Mapping[tuple[str, str], LaneProgress],
    judge_codes: Mapping[str, str],
    lane_facts: Mapping[str, Any],
    budget: Mapping[str, Any] | None,
    stale: Mapping[str, Any] | None,
    call: Mapping[str, Any],
    wall_s: float,
    is_gate_wanted: bool,
    interrupted_exit_code: int | None,
) -> RunResult:
    """Write tables, reports and run.json of a run whose asking has ended.

    Args:
        folder: The run's folder, locked by the caller; its journal is closed.
        index: What the journal holds, kept current while it was written; empty afterwards.
        loaded: The job as it is now.
        plan: Its rows in order.
        graders: Its graders, compiled.
        judges: Its judges.
        totals: What the check before the first request found.
        asked: The same for the rows that were left to ask in this call.
        lanes: By endpoint and wire model: the lanes as dispatch left them.
        judge_codes: By judge, why a request that has no outcome was not sent.
        lane_facts: What run.json tells of the lanes, in this call (`lanes`) and before it (`earlier_calls`).
        budget: Where the run's budget stands, and what ended it (`ended_by`); None when it has none.
        stale: What run.json tells of rows that the job no longer has; None when there are none.
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
    models = (*plan.models, *judges.models)
    is_simulated = any(loaded.job.endpoints[str(model.endpoint)].simulator is not None for model in models)
    gate = make_asked_gate(loaded.job, is_wanted=is_gate_wanted)
    facts = make_table_facts(folder, digests, gate, is_simulated=is_simulated)
    tally = RowTally()
    facts[N_ATTEMPTS] = str(write_attempts(folder, make_attempt_blocks(folder), facts))
    rows = scan_planned_rows(folder, plan, index)
    stored = StoredJudgements(judges=judges, index=index, codes=judge_codes, first_index=totals.n_rows)
    judged, find_reply = write_judge_rows(folder, stored, rows, facts)
    write_results(folder, tally.count(make_result_blocks(folder, plan, index, graders, codes, find_reply)), facts)
    manifest = {
        **describe_job(folder, loaded, digests),
        "call": dict(call),
        "is_simulated": is_simulated,
        "started_at": index.sessions[0]["started_at"],
        "n_calls": len(index.sessions),
        "journal_records": index.n_records,
        "in_doubt": len(index.in_doubt),
        "asked_again_after_doubt": index.n_asked_again,
        **tally.describe(),
        "judge": judged,
        "finished_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "wall_s": round(wall_s, 3),
        "estimate": _describe_estimate(folder, totals, asked, index.sessions[-1]["started_at"]),
        **lane_facts,
        "budget": budget,
        "stale": None if stale is None else dict(stale),
        "warnings": [problem.render() for problem in loaded.warnings],
    }
    index.forget_rows()
    return judge_and_render(folder, manifest, gate=gate, interrupted_exit_code=interrupted_exit_code)


def regrade(
    folder: RunFolder,
    loaded: LoadedJob,
    judged: StoredJudgements | None = None,
    *,
    interrupted_exit_code: int | None = None,
) -> RunResult:
    """Grade a run's stored outcomes again, and make everything that follows from grades anew.

    Args:
        folder: A run with results.parquet, locked by the caller.
        loaded: The job whose graders and gate are applied.
        judged: What its judges said; None when it has none.
        interrupted_exit_code: 130 or 143 when a signal ended the asking of judges; None otherwise.

    Raises:
        PromptError: A grader does not fit a stored sample; the old grades are as they were.
        UsageError: The job has no grader.
    """
    manifest = read_manifest(folder)
    graders = make_grader_set(loaded)
    check_graders(folder, loaded, graders)
    digests = {**manifest["digests"], "graders": graders.digest}
    gate, tally, now = make_asked_gate(loaded.job, is_wanted=True), RowTally(), datetime.now(UTC)
    # From here until run.json is written again the verdict in it is not that of the tables: say so first.
    write_manifest(folder, {**manifest, REGRADING_KEY: now.isoformat(timespec="milliseconds")})
    told = {} if judged is None else _describe_judges(manifest, loaded, judged)
    facts = make_table_facts(folder, digests, gate, is_simulated={**manifest, **told}["is_simulated"])
    find_reply: FindReply = no_reply
    if judged is not None:
        facts[N_ATTEMPTS] = str(write_attempts(folder, make_attempt_blocks(folder), facts))
        told["judge"], find_reply = write_judge_rows(folder, judged, scan_stored_rows(folder), facts)
    elif (n_attempts := read_metadata(folder.results_path).get(N_ATTEMPTS)) is not None:
        facts[N_ATTEMPTS] = n_attempts
    write_results(folder, tally.count(make_regraded_blocks(folder, graders, find_reply)), facts)
    manifest = {
        **manifest,
        "digests": digests,
        "graded_at": now.isoformat(timespec="milliseconds"),
        **tally.describe(),
        **told,
    }
    manifest.pop(REGRADING_KEY, None)
    return judge_and_render(folder, manifest, gate=gate, interrupted_exit_code=interrupted_exit_code)


def _describe_judges(manifest: Mapping[str, Any], loaded: LoadedJob, judged: StoredJudgements) -> dict[str, Any]:
    """Return what run.json tells anew of a run that judges were asked about after it had ended."""
    models, endpoints = judged.judges.models, loaded.job.endpoints
    return {
        "is_simulated": manifest["is_simulated"]
        or any(endpoints[str(model.endpoint)].simulator is not None for model in models),
        "prices": {
            **manifest.get("prices", {}),
            **{model.name: _describe_prices(loaded.prices.get(model.name)) for model in models},
        },
        "journal_records": judged.index.n_records,
        "n_calls": max(len(judged.index.sessions), manifest.get("n_calls", 1)),
    }


def check_graders(folder: RunFolder, loaded: LoadedJob, graders: GraderSet) -> None:
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
    """Return a finished run's figures and verdict from its tables and manifest; what a crash left behind is mended.

    Raises:
        StoreError: The run has not ended, or its tables cannot be brought together.
    """
    mend_run(folder)
    return _read_result(folder, RunTables(folder))


def _read_result(folder: RunFolder, tables: RunTables) -> RunResult:
    """Return figures and verdict as tables and run.json tell them together; write nothing."""
    manifest = read_manifest(folder)
    if _is_behind(manifest, tables):
        return _judge_again(folder, manifest, tables)
    summary = summarize_run(folder, tables, is_simulated=manifest["is_simulated"])
    verdict = _read_verdict(manifest["verdict"])
    return RunResult(
        folder=folder, summary=summary, verdict=verdict, manifest=manifest, exit_code=manifest["verdict"]["exit_code"]
    )


def _is_behind(manifest: Mapping[str, Any], tables: RunTables) -> bool:
    """Return whether run.json is older than the tables. Those of an older evalrun name no gate and cannot tell."""
    if "gate" not in tables.facts or "grades_digest" not in manifest:
        return False
    gate = parse_asked_gate(tables.facts["gate"], where=tables.grades_path)
    return (tables.grades_digest, gate.describe()) != (manifest["grades_digest"], manifest.get("asked_gate"))


def _judge_again(folder: RunFolder, manifest: Mapping[str, Any], tables: RunTables) -> RunResult:
    """Return what run.json would say had the process not died before writing it."""
    gate = parse_asked_gate(tables.facts["gate"], where=tables.grades_path)
    tally = RowTally()
    for _ in tally.count(make_graded_blocks(tables.scan())):
        pass
    digests = {name: tables.facts.get(f"{name}_digest", digest) for name, digest in manifest["digests"].items()}
    known = {key: value for key, value in manifest.items() if key != REGRADING_KEY}
    return judge(folder, tables, {**known, **tally.describe(), "digests": digests}, gate=gate)


def mend_run(folder: RunFolder) -> None:
    """Bring results, reports and run.json in line with the grades where a crash came between them.

    Nothing is written while another process holds the run, or where the disk refuses: readers see the run mended all
    the same, since `RunTables` and `load_result` mend what they read.

    Raises:
        StoreError: The run has not ended, or its tables cannot be brought together.
    """
    manifest, tables = read_manifest(folder), RunTables(folder)
    if tables.is_behind or _is_behind(manifest, tables) or REGRADING_KEY in manifest:
        with suppress(StoreError), folder.lock():
            _mend_locked(folder)


def _mend_locked(folder: RunFolder) -> RunResult:
    # Read again: another process may have mended, or finished, before the lock was free.
    manifest, tables = read_manifest(folder), RunTables(folder)
    tables.mend()
    result = _read_result(folder, tables)
    if _is_behind(manifest, tables):
        wanted = manifest["report"]
        render_reports(result, tables, formats=wanted["formats"], include=wanted["include"], into=folder.path)
        write_manifest(folder, result.manifest)
    elif REGRADING_KEY in manifest:
        write_manifest(folder, {key: value for key, value in manifest.items() if key != REGRADING_KEY})
    return result


def read_summary(folder: RunFolder) -> dict[str, Any]:
    """Return a run's summary.json: what `--json` prints."""
    summary: dict[str, Any] = json.loads((folder.path / "summary.json").read_text(encoding="utf-8"))
    return summary


def render_run(
    folder: RunFolder, *, formats: Sequence[str] | None = None, include: str | None = None, into: Path | None = None
) -> list[Path]:
    """Render a run's reports again from its tables.

    Args:
        folder: A run with results.parquet; locked by the caller unless the files go elsewhere.
        formats: `html`, `markdown`, `junit`; None = those of its job.
        include: `full`, `outputs` or `none`; None = that of its job.
        into: A folder for the files; None = the run's own.

    Returns:
        The files written.
    """
    result = load_result(folder) if into is not None else _mend_locked(folder)
    wanted = result.manifest["report"]
    return render_reports(
        result,
        RunTables(folder),
        formats=formats if formats is not None else wanted["formats"],
        include=include if include is not None else wanted["include"],
        into=into or folder.path,
    )


def _name_pending_code(lane: LaneProgress, budget: Mapping[str, Any] | None) -> str:
    """Return why rows of a lane that were never sent were not."""
    if lane.stopped_by not in {None, ErrorCode.BUDGET}:
        return ErrorCode.LANE_STOPPED
    is_spent = budget is not None and budget["ended_by"] is not None
    return ErrorCode.BUDGET if is_spent else ErrorCode.INTERRUPTED


def describe_job(folder: RunFolder, loaded: LoadedJob, digests: Mapping[str, str]) -> dict[str, Any]:
    """Return what run.json tells of a run's job."""
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": folder.run_id,
        "job_name": loaded.name,
        "job_path": str(loaded.path),
        "description": loaded.job.description,
        "job": loaded.raw,
        "digests": dict(digests),
        "versions": {"evalrun": __version__, "python": platform.python_version(), "platform": platform.system()},
        "prices": {model.name: _describe_prices(loaded.prices.get(model.name)) for model in loaded.job.models},
        "report": {"formats": list(loaded.job.report.formats), "include": loaded.job.report.include},
    }


def _describe_estimate(folder: RunFolder, totals: PlanTotals, asked: PlanTotals, started_at: str) -> dict[str, Any]:
    """Return what the whole run was expected to take, and what this call was expected to take and took."""
    took = add_up_attempts(scan_table(folder.attempts_path), since=datetime.fromisoformat(started_at))
    return {
        "usd": asdict(totals.usd),
        "time_s": asdict(totals.time_s),
        "n_rows": totals.n_rows,
        "learned_from": totals.learned_from,
        "call": {
            "n_rows": asked.n_rows,
            "prompt_tokens": asdict(sum_prompt_tokens(asked.models)),
            "completion_tokens": asdict(sum_completion_tokens(asked.models)),
            "usd": asdict(asked.usd),
            "took": took,
        },
        "prompt_tokens_by_rule": {model: dict(prompts) for model, prompts in totals.prompt_estimates.items()},
    }


def _describe_prices(prices: ModelPrices | None) -> dict[str, Any] | None:
    """Return the prices of a model as JSON values, exact decimals as text; None when nobody names any."""
    if not prices:
        return None
    entries = [json.loads(json.dumps(asdict(price), default=str)) for price in prices.entries]
    return {
        "source": prices.source,
        "origin": prices.origin,
        "library": prices.library,
        "entries": [{key: value for key, value in entry.items() if value not in (None, [], {})} for entry in entries],
    }


def make_table_facts(
    folder: RunFolder, digests: Mapping[str, str], gate: AskedGate, *, is_simulated: bool
) -> dict[str, str]:
    """Return what the tables say about themselves in their key-value metadata."""
    simulated = "true" if is_simulated else "false"
    named = {f"{name}_digest": value for name, value in digests.items()}
    return {"run_id": folder.run_id, "is_simulated": simulated, "gate": gate.encode(), **named}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()


def _read_verdict(stored: Mapping[str, Any]) -> Verdict:
    findings = tuple(
        Finding(
            rule=finding["rule"],
            outcome=finding["outcome"],
            message=finding["message"],
            model=finding.get("model"),
            prompt=finding.get("prompt"),
        )
        for finding in stored["findings"]
    )
    return Verdict(
        outcome=stored["outcome"], exit_code=stored["exit_code"], headline=stored["headline"], findings=findings
    )
