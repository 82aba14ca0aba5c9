"""The json-path check, and the one door to the library of RFC 9535: what a path finds in an output that is JSON.

The library is bounded here: its pattern functions `match` and `search` take literal patterns and run in the engine that
knows a time limit, a filter may look back at single values of the document only, and all of a path has one deadline.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from jsonpath_rfc9535 import JSONPathEnvironment, JSONPathError, JSONPathQuery
from jsonpath_rfc9535.filter_expressions import RootFilterQuery, StringLiteral
from jsonpath_rfc9535.function_extensions import ExpressionType, FilterFunction

from evalrun.analysis.graders.json_value import (
    ANYTHING,
    NotJsonError,
    is_equal_loosely,
    read_json_output,
    write_value,
)
from evalrun.analysis.graders.marks import Mark, make_mark, quote_excerpt
from evalrun.analysis.graders.pattern import Stopwatch, compile_pattern, search_bounded
from evalrun.errors import GraderFaultError
from evalrun.grader_options import JsonPathOptions

MAX_PATH_CHARS = 2_000
MAX_DEPTH = 100
"""Deepest nesting that `..` follows."""


class JsonPath:
    """A path that is ready to search.

    Raises:
        ValueError: It is no path of RFC 9535, or one that cannot be bounded.
    """

    def __init__(self, source: str) -> None:
        """Compile the path."""
        if len(source) > MAX_PATH_CHARS:
            raise ValueError(f"it is longer than {MAX_PATH_CHARS} characters")
        self.stopwatch = Stopwatch(f"the path {quote_excerpt(source)}")
        try:
            self._query: JSONPathQuery = _BoundedEnvironment(self.stopwatch).compile(source)
        except JSONPathError as error:
            raise ValueError(str(error)) from error
        except RecursionError as error:
            raise ValueError("it is nested too deep") from error
        _check_bounds(self._query)

    def find(self, value: Any) -> Iterator[Any]:
        """Yield every value that the path finds in a JSON value.

        Raises:
            GraderFaultError: It took too long, or the value is nested too deep.
        """
        self.stopwatch.start()
        try:
            for node in self._query.finditer(value):
                self.stopwatch.take_left_s()
                yield node.value
        except (JSONPathError, RecursionError) as error:
            raise GraderFaultError("grader_error", f"the path cannot be followed: {error}") from error


@lru_cache(maxsize=256)
def compile_path(source: str) -> JsonPath:
    """Return the path, compiled once.

    Raises:
        ValueError: As for `JsonPath`.
    """
    return JsonPath(source)


def grade_json_path(output: str, expected: Any, options: JsonPathOptions) -> Mark:
    """Return whether the path finds something in the output that fits; of several values one is enough.

    Raises:
        GraderFaultError: It took too long, or the output is nested too deep.
    """
    try:
        value = read_json_output(output)
    except NotJsonError as error:
        return make_mark(passed=False, reason=f"expected JSON, found {quote_excerpt(output)}: {error}")
    path = compile_path(options.path)
    first: list[str] = []
    n_found = 0
    for found in path.find(value):
        if _is_fitting(found, expected, options.matches, path.stopwatch):
            return make_mark(passed=True, reason=f"{options.path} holds {quote_excerpt(write_value(found))}")
        n_found += 1
        first = first or [write_value(found)]
    if not first:
        return make_mark(passed=False, reason=f"nothing at {options.path} in {quote_excerpt(output)}")
    wanted = f"a match of {quote_excerpt(options.matches)}" if options.matches else quote_excerpt(write_value(expected))
    more = f" (and {n_found - 1} more)" if n_found > 1 else ""
    reason = f"expected {wanted} at {options.path}, found {quote_excerpt(first[0])}{more}"
    return make_mark(passed=False, reason=reason)


def _is_fitting(found: Any, expected: Any, pattern: str | None, stopwatch: Stopwatch) -> bool:
    if pattern is not None:
        text = write_value(found)
        return search_bounded(compile_pattern(pattern), text, timeout_s=stopwatch.take_left_s()) is not None
    return expected is ANYTHING or is_equal_loosely(expected, found)


class _PatternFunction(FilterFunction):
    """`match` and `search` of RFC 9535 with patterns of the `regex` package, bounded in time."""

    arg_types = [ExpressionType.VALUE, ExpressionType.VALUE]  # noqa: RUF012 - as the library declares it
    return_type = ExpressionType.LOGICAL

    def __init__(self, stopwatch: Stopwatch, *, is_full: bool) -> None:
        self._stopwatch = stopwatch
        self._is_full = is_full

    def __call__(self, text: object, source: object) -> bool:
        if not isinstance(text, str) or not isinstance(source, str):
            return False
        timeout_s = self._stopwatch.take_left_s()
        return search_bounded(compile_pattern(source), text, timeout_s=timeout_s, is_full=self._is_full) is not None


class _BoundedEnvironment(JSONPathEnvironment):
    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        super().__init__()

    @property
    def max_recursion_depth(self) -> int:  # type: ignore[override]  # Asked at every step of `..`: the place to look.
        self._stopwatch.take_left_s()
        return MAX_DEPTH

    def setup_function_extensions(self) -> None:
        super().setup_function_extensions()
        self.function_extensions["match"] = _PatternFunction(self._stopwatch, is_full=True)
        self.function_extensions["search"] = _PatternFunction(self._stopwatch, is_full=False)

    def check_well_typedness(self, token: Any, func: FilterFunction, args: list[Any]) -> None:
        super().check_well_typedness(token, func, args)
        if isinstance(func, _PatternFunction):
            if not isinstance(args[1], StringLiteral):
                raise ValueError(f"the pattern of {token.value}() is written into the path, not taken from the output")
            try:
                compile_pattern(args[1].value)
            except Exception as error:  # The package raises more than its own error on hostile patterns.
                raise ValueError(f"the pattern {quote_excerpt(args[1].value)} does not compile: {error}") from error


def _check_bounds(query: JSONPathQuery) -> None:
    """Refuse filters that search the whole document anew for each value: time would grow with its square."""
    for expression in _walk(query):
        if isinstance(expression, RootFilterQuery) and not expression.query.singular_query():
            raise ValueError(f"a filter may look back at one value of the document only, not at {expression}")


def _walk(node: Any) -> Iterator[Any]:
    """Yield every expression of the filters of a query, however deep."""
    pending = [node]
    while pending:
        node = pending.pop()
        if node is None or isinstance(node, str | int | float):
            continue
        yield node
        pending.extend(getattr(node, name, None) for name in ("query", "expression", "left", "right"))
        for name in ("segments", "selectors", "args"):
            pending.extend(getattr(node, name, ()))
