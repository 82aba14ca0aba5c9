"""run.json: what was run, with what, and what came of it; written last, so that its presence says the run ended.

A mapping enters and a file leaves, or the reverse. The order of the keys is the writer's.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import PurePath
from typing import Any

from evalrun.errors import SchemaMismatchError, StoreError
from evalrun.records import PASSING, SCHEMA_VERSION, Status
from evalrun.store.folder import RunFolder, write_atomically

MAX_MANIFEST_BYTES = 64 * 1024 * 1024
"""A larger run.json is none of ours."""


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
    """Read run.json.

    Raises:
        StoreError: It is not there: the run did not end.
        SchemaMismatchError: It is not one of evalrun's, or of another version.
    """
    path = folder.manifest_path
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            msg = f"{path} is larger than {MAX_MANIFEST_BYTES} bytes; evalrun writes no such file"
            raise SchemaMismatchError(msg)
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        msg = f"{path} is not there: the run did not end. Finish it with `evalrun run JOB --resume {folder.run_id}`"
        raise StoreError(msg) from error
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror or error}; check its owner and the disk"
        raise StoreError(msg) from error
    except ValueError as error:
        msg = f"{path} is not the JSON that evalrun writes ({error}); resume the run to write it anew"
        raise SchemaMismatchError(msg) from error
    if not isinstance(manifest, dict) or manifest.get("schema_version") != SCHEMA_VERSION:
        said = manifest.get("schema_version") if isinstance(manifest, dict) else None
        msg = f"{path} has schema version {said!r}; this evalrun reads {SCHEMA_VERSION!r}"
        raise SchemaMismatchError(msg)
    return manifest


def is_finished(manifest: Mapping[str, Any]) -> bool:
    """Tell whether a run is finished: nothing pending, no error that can pass.

    Args:
        manifest: With `counts` by status, `errors` by error code, and how many of these are permanent all the same.
    """
    counts, errors = manifest.get("counts", {}), manifest.get("errors", {})
    n_passing = sum(errors.get(code.value, 0) for code in PASSING) - manifest.get("n_permanent_errors", 0)
    return not counts.get(Status.PENDING.value, 0) and n_passing <= 0


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
