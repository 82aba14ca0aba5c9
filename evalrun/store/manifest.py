"""run.json: what was run, with what, and what came of it; written last, so that its presence says the run ended.

A mapping enters and a file leaves, or the reverse. The order of the keys is the writer's.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from evalrun.errors import ManifestDamagedError, SchemaMismatchError, StoreError
from evalrun.records import FINISHED, PASSING, SCHEMA_VERSION, Status
from evalrun.store.folder import RunFolder, write_atomically

MAX_MANIFEST_BYTES = 64 * 1024 * 1024
"""A larger run.json is none of ours."""

REGRADING_KEY = "regrading_since"
"""Key of run.json while a new grading replaces the tables: the verdict beside it is not theirs yet."""

IMPORTED_KEY = "imported"
"""Key of run.json that only a run made of answers from elsewhere has: where they came from."""

_REQUIRED: Mapping[str, type] = {
    "run_id": str,
    "job_name": str,
    "is_simulated": bool,
    "job": dict,
    "digests": dict,
    "call": dict,
    "report": dict,
    "report.formats": list,
    "report.include": str,
    "counts": dict,
    "errors": dict,
    "requests": int,
    "totals": dict,
    "verdict": dict,
    "verdict.outcome": str,
    "verdict.exit_code": int,
    "verdict.headline": str,
    "verdict.findings": list,
}
"""What readers of run.json rely on, by key path, parents first; all other keys may be absent."""

_KIND_WORDS: Mapping[type, str] = {str: "text", bool: "boolean", dict: "object", list: "list", int: "integer"}


def write_manifest(folder: RunFolder, manifest: Mapping[str, Any]) -> None:
    """Write run.json, with `schema_version` in front.

    Raises:
        StoreError: The disk refused; an older run.json is as it was.
    """
    document = {"schema_version": SCHEMA_VERSION, **manifest}
    text = json.dumps(document, indent=2, ensure_ascii=False, default=_write_value) + "\n"
    # A lone surrogate becomes its escape, which is what JSON calls it, too.
    content = text.encode("utf-8", "backslashreplace")
    write_atomically(folder.manifest_path, lambda path: _write_bytes(path, content))


def read_manifest(folder: RunFolder) -> dict[str, Any]:
    """Read run.json; what leaves has every key that evalrun's own readers need, each of its kind.

    Raises:
        StoreError: It is not there: the run did not end.
        ManifestDamagedError: It is not what evalrun writes.
        SchemaMismatchError: It is of another version.
    """
    path = folder.manifest_path
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise _make_damaged_error(path, f"it is larger than {MAX_MANIFEST_BYTES} bytes, which evalrun never writes")
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        msg = f"{path} is not there: the run did not end. Finish it with `evalrun run JOB --resume {folder.run_id}`"
        raise StoreError(msg) from error
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror or error}; check its owner and the disk"
        raise StoreError(msg) from error
    except (ValueError, RecursionError) as error:
        raise _make_damaged_error(path, f"it is not the JSON that evalrun writes ({error})") from error
    _check_version(path, manifest)
    problem = _find_problem(manifest)
    if problem is not None:
        raise _make_damaged_error(path, problem)
    return dict(manifest)


def is_imported(folder: RunFolder) -> bool:
    """Tell whether a run was made of answers from elsewhere: it has no journal, and nothing was asked or paid.

    One whose run.json cannot be read is taken for a run like any other, whose readers then say what is wrong with it.
    """
    try:
        return IMPORTED_KEY in read_manifest(folder)
    except StoreError:
        return False


class Extent(NamedTuple):
    """How much a journal has to hold, as far as run.json tells."""

    n_done: int
    """Rows that were done when it was written."""
    n_records: int | None
    """Records that the journal had then; None in a run.json that does not say."""


def read_extent(folder: RunFolder) -> Extent | None:
    """Return what run.json tells of its journal; None when it is not there or damaged, so that it cannot tell.

    Raises:
        SchemaMismatchError: It is of another version.
    """
    try:
        manifest = read_manifest(folder)
    except ManifestDamagedError:
        return None
    except StoreError:
        if folder.manifest_path.exists():
            raise
        return None
    counts: Mapping[str, int] = manifest["counts"]
    n_records = manifest.get("journal_records")
    return Extent(
        sum(count for status, count in counts.items() if status in FINISHED),
        n_records if isinstance(n_records, int) else None,
    )


def is_finished(manifest: Mapping[str, Any]) -> bool:
    """Tell whether a run is finished: nothing pending, no error that can pass, neither of its rows nor of its judges.

    Args:
        manifest: With `counts` by status, `errors` by error code, and how many of these are permanent all the same; in
            `judge` the same of the requests to judges.
    """
    return all(_is_settled(part) for part in (manifest, manifest.get("judge") or {}))


def count_pending_judgements(manifest: Mapping[str, Any]) -> int:
    """Return how many requests to judges a run has still to send."""
    counts = (manifest.get("judge") or {}).get("counts", {})
    n_pending: int = counts.get(Status.PENDING.value, 0)
    return n_pending


def _is_settled(part: Mapping[str, Any]) -> bool:
    counts, errors = part.get("counts", {}), part.get("errors", {})
    n_passing = sum(errors.get(code.value, 0) for code in PASSING) - part.get("n_permanent_errors", 0)
    return not counts.get(Status.PENDING.value, 0) and n_passing <= 0


def _check_version(path: Path, manifest: Any) -> None:
    """Tell a file of another version from a damaged one: each wants something else done."""
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if isinstance(version, str) and version != SCHEMA_VERSION:
        is_newer = version.isdecimal() and int(version) > int(SCHEMA_VERSION)
        advice = "update evalrun" if is_newer else "use the evalrun that wrote it"
        msg = f"{path} has schema version {version!r}, this evalrun reads {SCHEMA_VERSION!r}; {advice}"
        raise SchemaMismatchError(msg)


def _find_problem(manifest: Any) -> str | None:
    """Return the first thing that a reader would stumble over; None when there is none."""
    if not isinstance(manifest, dict) or manifest.get("schema_version") != SCHEMA_VERSION:
        return "it holds no run of evalrun"
    for key, kind in _REQUIRED.items():
        value: Any = manifest
        for part in key.split("."):
            if part not in value:
                return f"it has no `{key}`"
            value = value[part]
        # In Python a bool is an int; in JSON it is not.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            return f"`{key}` is {json.dumps(value)[:60]}, which is no {_KIND_WORDS[kind]}"
    for key in ("counts", "errors"):
        if not all(type(count) is int and count >= 0 for count in manifest[key].values()):
            return f"`{key}` holds what is no count"
    judge = manifest.get("judge")
    if judge is not None and not _is_judge_told(judge):
        return "`judge` holds what is no count"
    is_told = all(
        isinstance(finding, dict) and all(isinstance(finding.get(key), str) for key in ("rule", "outcome", "message"))
        for finding in manifest["verdict"]["findings"]
    )
    return None if is_told else "`verdict.findings` holds what is no finding"


def _is_judge_told(judge: Any) -> bool:
    """Tell whether what run.json says of judges can be counted with."""
    if not isinstance(judge, dict):
        return False
    tables = [judge.get(key, {}) for key in ("counts", "errors")]
    counts = [count for table in tables if isinstance(table, dict) for count in table.values()]
    counts.append(judge.get("n_permanent_errors", 0))
    return all(isinstance(table, dict) for table in tables) and all(type(n) is int and n >= 0 for n in counts)


def _make_damaged_error(path: Path, problem: str) -> ManifestDamagedError:
    msg = f"{path} is damaged: {problem}; resume the run, which writes it anew from the journal: "
    msg += f"evalrun run JOB --resume {path.parent.name}"
    return ManifestDamagedError(msg)


def _write_bytes(path: Any, content: bytes) -> None:
    with path.open("wb") as handle:
        handle.write(content)


def _write_value(value: object) -> Any:
    if isinstance(value, Decimal):
        return round(float(value), 12)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    msg = f"{type(value).__name__} cannot be written into run.json"
    raise TypeError(msg)
