"""What the newest run of a job tells of the next one: how long its replies were, and how its arms differed.

The run.json of finished runs enters, a `History` leaves; no table is read, so that it costs a moment. Whatever the job
has changed since tells nothing: a model or a prompt that is written differently now is estimated by rule.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from evalrun.errors import StoreError
from evalrun.job.config import LoadedJob
from evalrun.job.ranges import History, Seen
from evalrun.store.manifest import is_finished, read_manifest
from evalrun.store.runs import list_job_folders

MAX_RUNS = 5
"""Runs of the job that are looked at, newest first."""
MIN_ROWS = 5
"""So few answers of an arm tell nothing of the others."""


def load_history(loaded: LoadedJob, reports_dir: Path) -> History | None:
    """Return what the newest finished run of a job tells that knows an arm the job still has; None when none does."""
    for folder in list_job_folders(loaded.name, reports_dir)[:MAX_RUNS]:
        with suppress(StoreError):  # Nobody asked for that run: one that cannot be read tells nothing.
            manifest = read_manifest(folder)
            history = parse_history(manifest, loaded.raw) if is_finished(manifest) else None
            if history is not None:
                return history
    return None


def parse_history(manifest: Mapping[str, Any], raw: Mapping[str, Any]) -> History | None:
    """Return what a run.json tells; None when it tells of no arm that the job still has.

    Args:
        manifest: The run.json.
        raw: The job as it is now.
    """
    models = _find_same(manifest["job"].get("models"), raw.get("models"), without=("price",))
    prompts = _find_same(manifest["job"].get("prompts"), raw.get("prompts"))
    rules = _get(_get(manifest, "estimate"), "prompt_tokens_by_rule")
    seen = {
        (model, prompt): arm
        for model, prompt, arm in _parse_arms(_get(manifest, "observed").get("arms"), rules)
        if model in models and prompt in prompts
    }
    if not seen:
        return None
    discordance = _read_number(_get(manifest, "observed").get("discordance"))
    return History(run_id=str(manifest["run_id"]), seen=seen, discordance=discordance)


def _find_same(then: Any, now: Any, *, without: tuple[str, ...] = ()) -> set[str]:
    """Return the names of entries that are written now as they were then."""
    old, new = (dict(_list_entries(entries, without)) for entries in (then, now))
    return {name for name, text in new.items() if old.get(name) == text}


def _list_entries(entries: Any, without: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, Mapping):
            kept = {key: value for key, value in entry.items() if key not in without}
            yield str(entry.get("name") or entry.get("model")), json.dumps(kept, sort_keys=True, default=str)


def _parse_arms(arms: Any, rules: Mapping[str, Any]) -> Iterator[tuple[str, str, Seen]]:
    """Yield what is told of each arm; one that lacks a figure, or has one that cannot be, is passed over."""
    for arm in arms if isinstance(arms, list) else ():
        if not isinstance(arm, Mapping):
            continue
        model, prompt = str(arm.get("model")), str(arm.get("prompt"))
        rule = _read_number(_get(rules, model).get(prompt))
        n_rows, asked, answered, deviation = (
            _read_number(arm.get(name))
            for name in ("rows", "prompt_tokens", "completion_tokens", "completion_deviation")
        )
        if rule and asked and n_rows and n_rows >= MIN_ROWS and answered is not None and deviation is not None:
            cached, written, reasoning = (
                _read_number(arm.get(name)) or 0.0
                for name in ("cached_tokens", "cache_write_tokens", "reasoning_tokens")
            )
            yield (
                model,
                prompt,
                Seen(
                    n_rows=int(n_rows),
                    prompt_ratio=asked / rule,
                    completion_tokens=answered,
                    completion_deviation=deviation,
                    cached_ratio=min(cached / asked, 1.0),
                    cache_write_ratio=min(written / asked, 1.0),
                    reasoning_ratio=min(reasoning / answered, 1.0) if answered else 0.0,
                ),
            )


def _get(mapping: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = mapping.get(key)
    return value if isinstance(value, Mapping) else {}


def _read_number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return None
    return float(value)
