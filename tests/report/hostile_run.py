"""A small run with one text in every place where data can stand."""

import json
from dataclasses import replace
from typing import Any

from evalrun.records import Finding, Summary, Verdict
from evalrun.report.model import Include, ReportData, ReportRow, build_report_row
from tests.report.fake_run import make_grade, make_manifest, make_result, summarize_rows


def make_hostile_run(text: str, *, include: Include = "full") -> ReportData:
    """Return a run of two arms and two categories whose every text, names included, is or holds `text`."""
    rows = [_make_row(text, number, model) for number in range(6) for model in (text, f"{text}2")]
    return ReportData(
        manifest=_make_manifest(rows, text),
        summary=_spoil_summary(summarize_rows(rows), text),
        verdict=_make_verdict(text),
        rows=rows,
        include=include,
    )


def _make_row(text: str, number: int, model: str) -> ReportRow:
    statuses = ("ok", "ok", "error", "pending", "filtered", "ok")
    passed = (False, True, None, None, None, None)[number]
    is_answer = statuses[number] == "ok"
    parts = [{"type": "text", "text": text}, {"type": text, text: text}]
    messages = [{"role": text, "content": text}, {"role": "user", "content": parts}]
    body = {"model": text, "messages": messages, "stop": text}
    error = None if is_answer else text
    columns: dict[str, Any] = {
        "sample_id": f"{text}{number}", "prompt": text, "model": model, "category": f"{text}{number % 2}",
        "status": statuses[number], "error_code": error, "error_message": error,
        "sample": json.dumps({text: text, "answer": text, "list": [text]}), "request": json.dumps(body),
        "output": text if is_answer else None, "refusal": text, "reasoning": text, "tool_calls": text,
        "finish_reason": text, "response_model": text, "flags": json.dumps(["model_mismatch", text]), "passed": passed,
        "score": None if passed is None else float(passed),
    }  # fmt: skip
    grade = make_grade(grader=text, type=text, passed=passed, score=None, reason=text, error_code=text)
    return build_report_row(make_result(**columns), [grade] if is_answer else [])


def _make_manifest(rows: list[ReportRow], text: str) -> dict[str, Any]:
    return make_manifest(rows) | {
        "job_name": text, "job": {"description": text}, "run_id": text, "job_path": text, "started_at": text,
        "finished_at": text, "warnings": [text], "digests": {text: text}, "versions": {text: text},
        "prices": {text: {"input": text, "output": text}, f"{text}2": None},
        "lanes": [{"endpoint": text, "model": text, "stopped_by": text, "stop_message": text}],
    }  # fmt: skip


def _spoil_summary(summary: Summary, text: str) -> Summary:
    arms = tuple(replace(arm, metrics={text: 0.5}) for arm in summary.arms)
    return replace(summary, arms=arms, headline=text)


def _make_verdict(text: str) -> Verdict:
    findings = [
        Finding(rule=text, outcome=outcome, message=text, model=text, prompt=text)
        for outcome in ("fail", "pass", "no_verdict", text)
    ]
    return Verdict(outcome="fail", exit_code=1, headline=text, findings=findings)
