"""Sentences that were written where less was known, made whole for a reader of a report.

Lanes, rows and the gate tell of the command that goes on without knowing the job's file or the run: the manifest does.
Messages mark code with backticks, which a page shows as they stand; quotes read well everywhere.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from evalrun.report.model import ReportData, ReportRow
from evalrun.resume_words import MARKED_RESUME_COMMAND, RESUME_COMMAND

_MARKED_CODE = re.compile("`([^`]+)`")


def make_resume_command(manifest: Mapping[str, Any]) -> str:
    """Return the command that goes on with the run, as far as run.json names job and run."""
    job, run_id = manifest.get("job_path"), manifest.get("run_id")
    words = [shlex.quote(str(job)) if job else "JOB", "--resume", *([shlex.quote(str(run_id))] if run_id else [])]
    return " ".join(["evalrun run", *words])


def word_plainly(text: str, manifest: Mapping[str, Any]) -> str:
    """Return a sentence of evalrun's own with the whole command, and code in quotes."""
    return _MARKED_CODE.sub(r"“\1”", text.replace(RESUME_COMMAND, make_resume_command(manifest)))


def word_report_plainly(data: ReportData) -> ReportData:
    """Return a report whose verdict and rows name the whole command; a server's own backticks stay as they are."""
    manifest, verdict = data.manifest, data.verdict
    findings = [replace(finding, message=word_plainly(finding.message, manifest)) for finding in verdict.findings]
    return replace(
        data,
        verdict=replace(verdict, headline=word_plainly(verdict.reason, manifest), findings=tuple(findings)),
        rows=[_word_row(row, manifest) for row in data.rows],
    )


def _word_row(row: ReportRow, manifest: Mapping[str, Any]) -> ReportRow:
    if row.error_message is None or MARKED_RESUME_COMMAND not in row.error_message:
        return row
    told = row.error_message.replace(MARKED_RESUME_COMMAND, f"“{make_resume_command(manifest)}”")
    return replace(row, error_message=told)
