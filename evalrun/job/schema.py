"""The job's records as a validator and as a JSON Schema: the door to pydantic.

Plain data enter; a Job, or pydantic's list of errors as plain mappings, leaves. `explain` puts those into words.
"""

import ast
import inspect
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from types import ModuleType
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from evalrun import grader_options, options
from evalrun.grader_options import GRADER_OPTIONS
from evalrun.job.canonical import encode_json
from evalrun.job.not_yet import NOT_YET
from evalrun.options import Job

RawErrors = list[Mapping[str, Any]]


@cache
def get_adapter(record: Any) -> TypeAdapter[Any]:
    """Return the validator of a record; made once, since that takes a tenth of a second."""
    return TypeAdapter(record)


def validate(record: Any, data: Any) -> tuple[Any, RawErrors]:
    """Read data as a record, strictly: nothing is converted that JSON tells apart.

    Args:
        record: A record of `options` or `grader_options`.
        data: JSON values.

    Returns:
        The record and no errors, or None and every error.
    """
    try:
        return get_adapter(record).validate_json(encode_json(data), strict=True), []
    except ValidationError as error:
        return None, list(error.errors(include_url=False, include_input=False))


def build_job_schema() -> dict[str, Any]:
    """Return the JSON Schema of the job file, as editors use it."""
    schema: dict[str, Any] = get_adapter(Job).json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "evalrun job"
    _describe_keys(schema)
    schema["properties"]["epochs"] = {**schema["properties"]["repeats"], "description": "Another word for `repeats`."}
    _add_later_keys(schema)
    # A copy by value, so that no caller can change what the adapter keeps.
    copied: dict[str, Any] = orjson.loads(orjson.dumps(schema))
    return copied


def _describe_keys(schema: dict[str, Any]) -> None:
    """Give each key the docstring of its field; those that a grader inherits as well."""
    docstrings = {**_read_docstrings(options), **_read_docstrings(grader_options)}
    for name, record in (("Job", schema), *schema["$defs"].items()):
        inherited = docstrings["CommonGraderOptions"] if record.get("properties", {}).get("type") else {}
        known = {**inherited, **docstrings.get(name, {})}
        for key, value in record.get("properties", {}).items():
            if key in known:
                value["description"] = known[key]
    for grader in GRADER_OPTIONS.values():
        schema["$defs"][grader.__name__]["properties"]["type"]["description"] = "Which check."


def _read_docstrings(module: ModuleType) -> dict[str, dict[str, str]]:
    """Return the docstring under each field of a module's records: by record, then by key."""
    found: dict[str, dict[str, str]] = {}
    for record in ast.parse(inspect.getsource(module)).body:
        if not isinstance(record, ast.ClassDef):
            continue
        texts = found[record.name] = {}
        for field, below in pairwise(record.body):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    texts[name.removesuffix("_")] = inspect.cleandoc(text)
                case _:
                    pass
    return found


_HOMES: Mapping[tuple[str, ...], str] = {
    ("endpoints", "*"): "EndpointOptions",
    ("models", "*"): "ModelOptions",
    ("gate",): "GateOptions",
    ("report",): "ReportOptions",
}
"""Record that holds the keys below a path."""


def _add_later_keys(schema: dict[str, Any]) -> None:
    """Let an editor take the keys of later versions where they do nothing, as `validate` does."""
    for path, (idle_values, purpose) in NOT_YET.items():
        above, key = tuple(map(str, path[:-1])), str(path[-1])
        properties = (schema["$defs"][_HOMES[above]] if above else schema)["properties"]
        what = f"Not in this version yet ({purpose}); only what does nothing is taken."
        properties[key] = {"enum": list(idle_values), "default": idle_values[0], "description": what}
