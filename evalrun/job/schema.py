"""The job's records as a validator and as a JSON Schema: the door to pydantic.

Plain data enter; a Job, or pydantic's list of errors as plain mappings, leaves. `explain` puts those into words.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from evalrun.grader_options import GRADER_OPTIONS, CommonGraderOptions
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
    schema["properties"]["epochs"] = {**schema["properties"]["repeats"], "description": "Another word for `repeats`."}
    _describe_common_keys(schema)
    _add_later_keys(schema)
    # A copy by value, so that no caller can change what the adapter keeps.
    copied: dict[str, Any] = orjson.loads(orjson.dumps(schema))
    return copied


def _describe_common_keys(schema: dict[str, Any]) -> None:
    """Give each grader the descriptions of the keys it inherits; pydantic reads those of a record's own fields only."""
    common = get_adapter(CommonGraderOptions).json_schema(by_alias=True)["properties"]
    for record in GRADER_OPTIONS.values():
        properties = schema["$defs"][record.__name__]["properties"]
        properties["type"]["description"] = "Which check."
        for key, value in common.items():
            properties[key] = {"description": value["description"], **properties[key]}


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
