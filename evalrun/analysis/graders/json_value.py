"""The json check: the output is one JSON value, alone or in a fenced block, and equals the expected one if any.

JSON here is RFC 8259: NaN, Infinity and numbers beyond a double's range are refused. Of equal keys the last one
counts, as JSON readers have it. Nesting that the reader cannot follow is a grader fault, not a wrong answer.
"""

import json
import re
from collections.abc import Container, Mapping
from decimal import Decimal
from typing import Any

from evalrun.analysis.graders.marks import Mark, make_mark, quote_excerpt
from evalrun.errors import GraderFaultError
from evalrun.grader_options import JsonOptions

ANYTHING = object()
"""The expected value of a json grader that takes any JSON."""

_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})[ \t]*([\w+-]*)[^`]*$")
_FENCE_LABELS = frozenset({"", "json", "json5", "jsonc"})
_BLANK = " \t\r\n\ufeff"


class NotJsonError(ValueError):
    """A text is not one JSON value."""


def parse_json(text: str) -> Any:
    """Return the JSON value of a text.

    Raises:
        NotJsonError: It is not one JSON value, or holds NaN, Infinity or a number out of range.
        GraderFaultError: It is nested too deep to be read.
    """
    try:
        return json.loads(text.strip(_BLANK), parse_constant=_refuse_constant, parse_float=_parse_float)
    except RecursionError as error:
        raise GraderFaultError("grader_error", "the JSON is nested too deep to be read") from error
    except json.JSONDecodeError as error:
        raise NotJsonError(f"{error.msg} at line {error.lineno}, column {error.colno}") from error
    except NotJsonError:
        raise
    except ValueError as error:  # An integer of more digits than Python converts.
        raise NotJsonError("a number has too many digits") from error


def read_json_output(output: str) -> Any:
    """Return the JSON value of an output: the whole of it, else its last fenced block.

    Raises:
        NotJsonError: Neither is JSON.
        GraderFaultError: It is nested too deep to be read.
    """
    try:
        return parse_json(output)
    except NotJsonError as error:
        block = find_last_block(output)
        if block is None:
            if not output.strip(_BLANK):
                raise NotJsonError("the output is empty") from error
            raise
        try:
            return parse_json(block)
        except NotJsonError as block_error:
            raise NotJsonError(f"{block_error} of the last fenced block") from block_error


def find_last_block(output: str, *, labels: Container[str] = _FENCE_LABELS) -> str | None:
    """Return the text of the last closed fenced block that is labelled json or not at all; None without one.

    Args:
        output: Text that may hold blocks.
        labels: Labels that count, in small letters.

    One pass over the lines: a hostile output full of fences costs no more than a plain one.
    """
    fence, label, opened, position = "", "", 0, 0
    block = None
    for line in output.splitlines(keepends=True):
        match = _FENCE.match(line.rstrip("\r\n")) if "```" in line or "~~~" in line else None
        if match is not None and not fence:
            fence, label, opened = match[1], match[2].lower(), position + len(line)
        elif match is not None and line.strip() == fence:
            if label in labels:
                block = (opened, position)
            fence = ""
        position += len(line)
    return output[block[0] : block[1]] if block is not None else None


def grade_json(output: str, expected: Any, options: JsonOptions) -> Mark:  # noqa: ARG001 - every check takes these three
    """Return whether the output is JSON and equals the expected value (`ANYTHING`: any JSON passes).

    Numbers are compared by value (1 equals 1.0), objects without regard to order; true is not 1.

    Raises:
        GraderFaultError: The output is nested too deep.
    """
    try:
        found = read_json_output(output)
    except NotJsonError as error:
        return make_mark(passed=False, reason=f"expected JSON, found {quote_excerpt(output)}: {error}")
    if expected is ANYTHING:
        return make_mark(passed=True, reason="is JSON")
    difference = find_difference(expected, found)
    if difference is None:
        return make_mark(passed=True, reason="is the expected JSON")
    return make_mark(passed=False, reason=difference)


def find_difference(expected: Any, found: Any, path: str = "$") -> str | None:
    """Return where two JSON values first differ, in words; None when they are equal."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        missing = [key for key in expected if key not in found]
        extra = [key for key in found if key not in expected]
        if missing or extra:
            return f"{path}: " + "; ".join(
                f"{word} key {quote_excerpt(str(keys[0]))}"
                for word, keys in (("missing", missing), ("unexpected", extra))
                if keys
            )
        return next((d for key in expected if (d := find_difference(expected[key], found[key], f"{path}.{key}"))), None)
    if isinstance(expected, list | tuple) and isinstance(found, list):
        if len(expected) != len(found):
            return f"{path}: expected {len(expected)} items, found {len(found)}"
        pairs = enumerate(zip(expected, found, strict=True))
        return next((d for i, (left, right) in pairs if (d := find_difference(left, right, f"{path}[{i}]"))), None)
    if _is_equal_scalar(expected, found):
        return None
    return f"{path}: expected {_write(expected)}, found {_write(found)}"


def is_equal_loosely(expected: Any, found: Any) -> bool:
    """Return whether two JSON values are equal, where text may also write the value: "5" equals 5, "null" null.

    Templates render text; this lets them stand for any value.
    """
    if find_difference(expected, found) is None:
        return True
    if not isinstance(expected, str) or isinstance(found, str):
        return False
    try:
        return find_difference(parse_json(expected), found) is None
    except NotJsonError:
        return False


def find_missing(expected: Any, found: Any, path: str = "$") -> str | None:
    """Return where `found` lacks something of `expected`, in words; None when all of it is there.

    Objects may hold more keys than expected; lists and other values are equal, loosely where text is expected.
    """
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        missing = next((key for key in expected if key not in found), None)
        if missing is not None:
            return f"{path}: missing key {quote_excerpt(str(missing))}"
        return next((d for key in expected if (d := find_missing(expected[key], found[key], f"{path}.{key}"))), None)
    if is_equal_loosely(expected, found):
        return None
    return find_difference(expected, found, path)


def write_value(value: Any) -> str:
    """Return a JSON value as text: text itself, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _is_equal_scalar(expected: Any, found: Any) -> bool:
    if isinstance(expected, bool) or isinstance(found, bool):
        return expected is found
    if isinstance(expected, int | float | Decimal) and isinstance(found, int | float | Decimal):
        return expected == found
    return type(expected) is type(found) and bool(expected == found)


def _write(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 100 and text.isprintable() else quote_excerpt(text, max_chars=100)


def _parse_float(text: str) -> float:
    value = float(text)
    if value in {float("inf"), float("-inf")}:
        raise NotJsonError(f"the number {text[:40]} is out of range")
    return value


def _refuse_constant(name: str) -> Any:
    raise NotJsonError(f"{name} is not JSON")
