"""Graders as a stored sample holds them: plain mappings, read without the job room's validator.

A mapping enters, the options of a grader leave. The records of `grader_options` say what may stand there.
"""

import dataclasses
import difflib
import math
import types
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Le, MinLen

from evalrun.analysis.graders.marks import quote_excerpt
from evalrun.errors import ConfigError
from evalrun.grader_options import GRADER_OPTIONS, GraderOptions

_MISFIT = object()
"""Stands for a value that is not of a type."""

_WORDS: Mapping[Any, str] = {bool: "true or false", str: "text", int: "a number", float: "a number", tuple: "a list"}


def parse_grader(raw: Any, *, where: str) -> GraderOptions:
    """Return the options of a grader written in a sample.

    The job room has validated them where the sample came through a job; a stored sample may come from anywhere.

    Raises:
        ConfigError: An unknown type or key, a missing key, or a value of the wrong kind.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError(f"a grader is a mapping with `type`, found {quote_excerpt(repr(raw))}", where=where)
    kind = raw.get("type")
    record: Any = GRADER_OPTIONS.get(kind) if isinstance(kind, str) else None
    if record is None:
        raise ConfigError(
            f"unknown grader type {kind!r}", where=where, hint=_suggest(str(kind), GRADER_OPTIONS, what="types")
        )
    fields = {field.name.removesuffix("_"): field for field in dataclasses.fields(record)}
    hints, values = _read_hints(record), dict[str, Any]()
    for key, value in raw.items():
        if key not in fields:
            raise ConfigError(
                f"unknown key {key!r} of a {kind} grader", where=where, hint=_suggest(str(key), fields, what="keys")
            )
        hint = hints[fields[key].name]
        try:
            read = _read_value(hint, value)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"`{key}` of a {kind} grader: {error}", where=where) from error
        if read is _MISFIT:
            message = f"`{key}` of a {kind} grader is {_name_type(hint)}, found {quote_excerpt(repr(value))}"
            raise ConfigError(message, where=where)
        values[fields[key].name] = read
    try:
        options: GraderOptions = record(**values)
    except (TypeError, ValueError) as error:
        missing = [key for key, field in fields.items() if field.default is dataclasses.MISSING and key not in raw]
        message = f"a {kind} grader needs `{missing[0]}`" if missing else f"a {kind} grader: {error}"
        raise ConfigError(message, where=where) from error
    return options


@cache
def _read_hints(record: Any) -> Mapping[str, Any]:
    return get_type_hints(record, include_extras=True)


def _read_value(hint: Any, value: Any) -> Any:
    """Return the value as a field of this type holds it; `_MISFIT` when it is not of the type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Annotated:
        return _read_bounded(arguments[0], arguments[1:], value)
    if origin in {Union, types.UnionType}:
        read = (_read_value(inner, value) for inner in arguments)
        return next((found for found in read if found is not _MISFIT), _MISFIT)
    if origin is Literal:
        return value if any(type(value) is type(known) and value == known for known in arguments) else _MISFIT
    if origin is tuple:
        items = [_read_value(arguments[0], item) for item in value] if isinstance(value, list | tuple) else [_MISFIT]
        return _MISFIT if any(item is _MISFIT for item in items) else tuple(items)
    if dataclasses.is_dataclass(hint):
        return _read_record(hint, value)
    if hint is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return value if is_number else _MISFIT
    is_other_bool = isinstance(value, bool) and hint is not bool
    return value if isinstance(value, origin or hint) and not is_other_bool else _MISFIT


def _read_bounded(hint: Any, bounds: tuple[Any, ...], value: Any) -> Any:
    read = _read_value(hint, value)
    if read is _MISFIT:
        return _MISFIT
    for bound in bounds:
        is_within = (
            (not isinstance(bound, Ge) or read >= bound.ge)
            and (not isinstance(bound, Le) or read <= bound.le)
            and (not isinstance(bound, MinLen) or len(read) >= bound.min_length)
        )
        if not is_within:
            return _MISFIT
    return read


def _read_record(record: Any, value: Any) -> Any:
    hints = _read_hints(record)
    if not isinstance(value, Mapping) or not value.keys() <= {field.name for field in dataclasses.fields(record)}:
        return _MISFIT
    values = {key: _read_value(hints[key], item) for key, item in value.items()}
    return _MISFIT if any(item is _MISFIT for item in values.values()) else record(**values)


def _name_type(hint: Any) -> str:
    """Return a type in words: `a number, 0 or more`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        words = _name_type(arguments[0])
        for bound in arguments[1:]:
            words += f", {bound.ge} or more" if isinstance(bound, Ge) else ""
            words += f", {bound.le} at most" if isinstance(bound, Le) else ""
            words = words if not isinstance(bound, MinLen) else f"{words} that is not empty"
        return words
    if origin in {Union, types.UnionType}:
        names = dict.fromkeys(_name_type(inner) for inner in arguments if inner is not type(None))
        return " or ".join(names)
    if origin is Literal:
        return " or ".join(repr(word) for word in arguments)
    return _WORDS.get(origin or hint, "a mapping")


def _suggest(wrong: str, known: Mapping[str, Any], *, what: str) -> str:
    near = difflib.get_close_matches(wrong, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known {what}: " + ", ".join(known)
