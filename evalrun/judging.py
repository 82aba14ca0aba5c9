"""From a run's tables to its figures, verdict, reports and run.json.

Tables, what run.json knows already, and the gate that was asked for enter; a summary, a verdict and the files that tell
of them leave, run.json last. Nothing here makes a table, so that it can follow a run, a new grading or a crash alike.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from evalrun.analysis.gate import check_gate
from evalrun.analysis.observed import observe_results
from evalrun.errors import SchemaMismatchError
from evalrun.job.schema import validate
from evalrun.options import GateOptions, Job
from evalrun.records import Summary, Verdict
from evalrun.report.junit import render_junit
from evalrun.report.markdown import render_markdown
from evalrun.report.model import ReportData
from evalrun.report.render import load_page, render_html
from evalrun.report.summary_json import build_summary_json
from evalrun.report_rows import choose_report_rows
from evalrun.reuse_tally import ReuseTally, leave_out_reused
from evalrun.run_accounts import summarize_run
from evalrun.run_tables import RunTables
from evalrun.store.folder import RunFolder, write_atomically
from evalrun.store.manifest import count_pending_judgements, write_manifest
from evalrun.store.parquet import GradedBlock, scan_table
from evalrun.store.picked_rows import has_hard_grades
from evalrun.store.tables import PERMANENT


def load_ahead() -> None:
    """Make ready what only reports need: called beside the asking, which mostly waits."""
    load_page()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """A finished run: its folder, figures and verdict."""

    folder: RunFolder
    summary: Summary
    verdict: Verdict
    manifest: Mapping[str, Any]
    exit_code: int
    """The process's exit code: a signal's, else the verdict's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedGate:
    """The gate that was asked for; stands in the tables' metadata, so that their verdict can be found again."""

    is_wanted: bool
    """False with `--no-gate`."""
    rules: GateOptions | None
    """The job's rules; None when it has none."""
    has_hard_graders: bool
    """Whether a grader of the job is `hard: true`; samples may bring others."""

    def describe(self) -> dict[str, Any]:
        """Return it as JSON values, as run.json holds it."""
        described: dict[str, Any] = json.loads(self.encode())
        return described

    def encode(self) -> str:
        """Return it as JSON text."""
        return json.dumps(asdict(self))


def make_asked_gate(job: Job, *, is_wanted: bool) -> AskedGate:
    """Return the gate of a job."""
    has_hard = any(grader.hard for grader in (*job.graders, *job.defaults.graders))
    return AskedGate(is_wanted=is_wanted, rules=job.gate, has_hard_graders=has_hard)


def parse_asked_gate(text: str, *, where: Path) -> AskedGate:
    """Return what `AskedGate.encode` wrote.

    Args:
        text: JSON text.
        where: The file, for the message.

    Raises:
        SchemaMismatchError: It is not what this version writes.
    """
    with suppress(ValueError, TypeError, KeyError):
        asked = json.loads(text)
        rules, problems = (None, []) if asked["rules"] is None else validate(GateOptions, asked["rules"])
        if not problems:
            return AskedGate(is_wanted=asked["is_wanted"], rules=rules, has_hard_graders=asked["has_hard_graders"])
    msg = f"{where} names no gate that this evalrun understands; grade the run again: evalrun grade RUN"
    raise SchemaMismatchError(msg)


@dataclass(slots=True)
class RowTally:
    """What run.json tells of the rows beside the summary; counted while they go by."""

    n_requests: int = 0
    """Rows that were sent at least once."""
    n_permanent: int = 0
    """Errors that cannot pass, though their codes can."""
    error_examples: dict[str, str] = field(default_factory=dict)
    """The first message of each error code."""
    reused: ReuseTally = field(default_factory=ReuseTally)

    def count(self, blocks: Iterable[GradedBlock]) -> Iterator[GradedBlock]:
        """Pass the rows on."""
        for block in blocks:
            rows = block.results
            self.n_requests += sum(attempts > 0 for attempts in rows["attempts"])
            self.n_permanent += sum(
                PERMANENT in flags and PERMANENT in json.loads(flags) for flags in rows["flags"] if flags is not None
            )
            for code, message in zip(rows["error_code"], rows["error_message"], strict=True):
                if message is not None:
                    self.error_examples.setdefault(code, message)
            self.reused.add(rows)
            yield block

    def describe(self) -> dict[str, Any]:
        """Return what run.json holds of it."""
        return {
            "requests": self.n_requests,
            "n_permanent_errors": self.n_permanent,
            "error_examples": self.error_examples,
            "reused": self.reused.describe(),
        }


def judge(
    folder: RunFolder,
    tables: RunTables,
    manifest: Mapping[str, Any],
    *,
    gate: AskedGate,
    interrupted_exit_code: int | None = None,
) -> RunResult:
    """Summarise the tables and apply the gate; write nothing.

    Args:
        folder: The run.
        tables: Its tables.
        manifest: What run.json knows beside figures and verdict.
        gate: What was asked for.
        interrupted_exit_code: 130 or 143 when a signal ended the run; None otherwise.
    """
    summary = summarize_run(folder, tables, is_simulated=manifest["is_simulated"])
    verdict = check_gate(
        summary,
        gate.rules if gate.is_wanted else None,
        has_hard_graders=gate.is_wanted and (gate.has_hard_graders or _has_hard_grades(tables)),
        n_judge_pending=count_pending_judgements(manifest),
    )
    exit_code = interrupted_exit_code if interrupted_exit_code is not None else verdict.exit_code
    judged = {
        **manifest,
        "grades_digest": tables.grades_digest,
        "asked_gate": gate.describe(),
        "observed": observe_results(tables.scan_results(), summary),
        "counts": dict(summary.statuses),
        "errors": dict(summary.errors),
        "totals": {
            **leave_out_reused(_add_up(summary), manifest.get("reused")),
            "requests": manifest["requests"],
            "billed_usd": summary.billed_usd,
            "wasted_usd": summary.wasted_usd,
            "estimated_usd": summary.estimated_usd,
            "billed_unknown_attempts": summary.n_billed_unknown,
        },
        "verdict": {**asdict(verdict), "exit_code": exit_code},
    }
    return RunResult(folder=folder, summary=summary, verdict=verdict, manifest=judged, exit_code=exit_code)


def judge_and_render(
    folder: RunFolder,
    manifest: Mapping[str, Any],
    *,
    gate: AskedGate,
    interrupted_exit_code: int | None = None,
) -> RunResult:
    """Summarise, apply the gate, render, and write run.json last; the caller holds the folder's lock.

    Args:
        folder: A run whose tables are written.
        manifest: As for `judge`.
        gate: As for `judge`.
        interrupted_exit_code: As for `judge`.
    """
    tables = RunTables(folder)
    result = judge(folder, tables, manifest, gate=gate, interrupted_exit_code=interrupted_exit_code)
    wanted = manifest["report"]
    render_reports(result, tables, formats=wanted["formats"], include=wanted["include"], into=folder.path)
    write_manifest(folder, result.manifest)
    return result


def render_reports(
    result: RunResult, tables: RunTables, *, formats: Sequence[str], include: str, into: Path
) -> list[Path]:
    """Render a run's reports; summary.json is always one of them.

    Args:
        result: The run's figures and verdict.
        tables: Its tables.
        formats: `html`, `markdown`, `junit`.
        include: `full`, `outputs` or `none` of the texts.
        into: Folder that gets the files; it is there.

    Returns:
        The files written.
    """
    rows, counts = choose_report_rows(tables)
    data = ReportData(
        manifest=result.manifest,
        summary=result.summary,
        verdict=result.verdict,
        rows=rows,
        counts=counts,
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
        path = into / name
        write_atomically(path, lambda temporary, text=text: temporary.write_text(text, encoding="utf-8"))  # type: ignore[misc]
        paths.append(path)
    return paths


def _has_hard_grades(tables: RunTables) -> bool:
    """Return whether a grade came from a contract, of the job or of a sample."""
    return has_hard_grades(scan_table(tables.grades_path))


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
