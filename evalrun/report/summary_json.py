"""The run in figures for programs: summary.json.

ReportData enters, one object of JSON values leaves. Numbers are numbers, what is unknown is null, and no text of a
sample or a model is in it; what a server said when it stopped a lane is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from decimal import Decimal
from typing import Any

from evalrun.records import SCHEMA_VERSION
from evalrun.report.figures import read_number
from evalrun.report.model import ReportData
from evalrun.wall_time import read_wall_time


def build_summary_json(data: ReportData) -> dict[str, Any]:
    """Return what summary.json holds.

    Returns:
        `schema_version`, `simulated`, `run` (id, job, times, calls and what they left in doubt, digests, versions,
        totals, lanes that stopped, budget, judges, reused and stale rows, warnings), `headline`, `arms` best first,
        `best`, `tests`, `statuses`, `errors` and `verdict`, with the fields of the records, and `estimate`: what the
        whole plan was expected to take and, under `call`, the last call, beside what that took.
    """
    summary = data.summary
    return {
        "schema_version": SCHEMA_VERSION,
        "simulated": summary.is_simulated,
        "run": _build_run(data.manifest),
        "headline": summary.headline,
        "arms": _to_json(summary.arms),
        "best": _to_json(summary.best),
        "tests": _to_json(summary.tests),
        "statuses": _to_json(summary.statuses),
        "errors": _to_json(summary.errors),
        "verdict": _to_json(data.verdict),
        "estimate": _describe_estimate(data.manifest.get("estimate")),
    }


def _build_run(manifest: Mapping[str, Any]) -> dict[str, Any]:
    totals = manifest.get("totals")
    known = totals if isinstance(totals, Mapping) else {}
    wall = read_wall_time(manifest)
    return {
        "run_id": manifest.get("run_id"),
        "job_name": manifest.get("job_name"),
        "started_at": manifest.get("started_at"),
        "finished_at": manifest.get("finished_at"),
        "wall_s": read_number(manifest.get("wall_s")),
        "total_wall_s": wall.seconds,
        "n_calls_of_unknown_time": wall.n_unknown,
        "n_calls": _to_json(manifest.get("n_calls")),
        "in_doubt": _to_json(manifest.get("in_doubt")),
        "asked_again_after_doubt": _to_json(manifest.get("asked_again_after_doubt")),
        "digests": _to_json(manifest.get("digests")),
        "versions": _to_json(manifest.get("versions")),
        # Money is kept as decimal text in some manifests; here every total is a number.
        "totals": {str(name): _read_total(value) for name, value in known.items()},
        "stopped": [_describe_stop(lane) for lane in _list_stopped(manifest)],
        "budget": _to_json(manifest.get("budget")),
        "reused": _to_json(manifest.get("reused")),
        **({"judge": _to_json(judge)} if (judge := manifest.get("judge")) else {}),
        "stale": _describe_stale(manifest.get("stale")),
        "warnings": _to_json(list(manifest.get("warnings") or ())),
    }


def _describe_estimate(estimate: Any) -> Any:
    """Return what was expected and what it took, without what only the next plan needs."""
    if not isinstance(estimate, Mapping):
        return None
    return _to_json({key: value for key, value in estimate.items() if key != "prompt_tokens_by_rule"})


def _describe_stale(stale: Any) -> dict[str, Any] | None:
    """Return counts of the rows that the job no longer has; their names stand in run.json."""
    return {name: _to_json(stale.get(name)) for name in ("rows", "statuses", "billed_usd")} if stale else None


def _list_stopped(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    lanes = manifest.get("lanes") or ()
    return [lane for lane in lanes if isinstance(lane, Mapping) and lane.get("stopped_by")]


def _describe_stop(lane: Mapping[str, Any]) -> dict[str, Any]:
    """Return which lane stopped, by which error code, and why in words."""
    return {
        "endpoint": lane.get("endpoint"),
        "model": lane.get("model"),
        "code": lane["stopped_by"],
        "message": lane.get("stop_message"),
    }


def _read_total(value: Any) -> int | float | None:
    number = read_number(value)
    if number is None or not math.isfinite(number):
        return None
    return value if isinstance(value, int) else number


def _to_json(value: Any) -> Any:
    """Return records as objects, sequences as lists, decimals as numbers, and NaN as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: _to_json(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_to_json(item) for item in value]
    if isinstance(value, float | Decimal):
        return float(value) if math.isfinite(value) else None
    return value
