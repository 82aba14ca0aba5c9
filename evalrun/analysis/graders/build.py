"""From a grader's options to a grader that runs: templates compiled once, faults of the author found at once.

Options enter (from the job, or as a plain mapping from a dataset row), a `Grader` leaves. What cannot work raises
`AuthorError` here, before anything is sent; a `Grader` that was built can only fail on a single output.
"""

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from evalrun.analysis.graders.choice import find_expected_fault as find_choice_fault
from evalrun.analysis.graders.choice import grade_choice
from evalrun.analysis.graders.json_value import ANYTHING, NotJsonError, grade_json, parse_json
from evalrun.analysis.graders.marks import Mark, make_mark, quote_excerpt
from evalrun.analysis.graders.numeric import find_expected_fault as find_numeric_fault
from evalrun.analysis.graders.numeric import grade_numeric
from evalrun.analysis.graders.pattern import find_pattern_fault, grade_regex
from evalrun.analysis.graders.text import grade_contains, grade_exact
from evalrun.errors import ConfigError, GraderFaultError
from evalrun.grader_options import (
    GRADER_OPTIONS,
    ChoiceOptions,
    GraderOptions,
    JsonOptions,
    JsonSchemaOptions,
    NumericOptions,
    RegexOptions,
)
from evalrun.templates import Expression, Template

GRADERS_VERSION = "1"
"""Version of what the checks mean; part of every grader digest, so that two meanings never mix in silence."""

TEMPLATE_MARKS = ("{{", "{%", "{#")


def _grade_json_schema(output: str, validator: Any, options: JsonSchemaOptions) -> Mark:
    # A late import, against the house's rule: jsonschema takes 0.08 s to load, and few jobs have a schema to grade by.
    from evalrun.analysis.graders.json_schema import grade_json_schema

    return grade_json_schema(output, validator, options)


_CHECKS: Mapping[str, Callable[[str, Any, Any], Mark]] = {
    "exact": grade_exact,
    "contains": grade_contains,
    "icontains": grade_contains,
    "regex": grade_regex,
    "numeric": grade_numeric,
    "choice": grade_choice,
    "json": grade_json,
    "json-schema": _grade_json_schema,
}

Where = Callable[..., str]
"""From the keys below a grader (`"expected"`) to its place in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grader:
    """A check that is ready to run."""

    options: GraderOptions
    digest: str
    """16 hex digits over the options and the version of the checks."""
    where: str
    """Its place, for messages."""
    when: Expression | None
    render: Callable[[Mapping[str, Any]], Any]
    """From a scope to what the check compares with: text, a JSON value, a validator, or None."""
    is_literal: bool
    """True when `render` gives the same for every scope."""

    def grade(self, output: str, expected: Any) -> Mark:
        """Return the mark of one output, with `not` and `threshold` applied.

        Args:
            output: Text of the answer; "" when it has none.
            expected: What `render` returned.

        Raises:
            GraderFaultError: The check cannot decide.
        """
        mark = _CHECKS[self.options.type](output, expected, self.options)
        if self.options.not_:
            verdict = "as `not` forbids: " if mark.passed else "as `not` asks: "
            mark = make_mark(passed=not mark.passed, reason=verdict + mark.reason)._replace(score=1.0 - mark.score)
        if self.options.threshold is not None:
            mark = mark._replace(passed=mark.score >= self.options.threshold)
        return mark

    def find_expected_fault(self, expected: Any) -> str | None:
        """Return why a rendered `expected` or `value` cannot be used, or None."""
        if isinstance(self.options, NumericOptions):
            return find_numeric_fault(expected)
        if isinstance(self.options, ChoiceOptions):
            return find_choice_fault(expected, self.options)
        if isinstance(expected, str) and not expected.strip() and not self.is_literal:
            return "renders to nothing"
        return None


def build_grader(options: GraderOptions, *, where: Where) -> Grader:
    """Return the grader of the options.

    Args:
        options: Validated options; a schema file is already read into `schema_`.
        where: Names places below the grader.

    Raises:
        AuthorError: A template or expression does not compile, a pattern or schema is not valid, or a literal
            `expected` cannot be used.
    """
    when = Expression(options.when, where=where("when")) if options.when is not None else None
    render, is_literal = _prepare_expected(options, where)
    grader = Grader(
        options=options, digest=digest_options(options), where=where(), when=when, render=render, is_literal=is_literal
    )
    if is_literal and (fault := grader.find_expected_fault(render({}))) is not None:
        raise ConfigError(f"`expected` {fault}", where=where("expected"))
    return grader


def digest_options(options: GraderOptions) -> str:
    """Return 16 hex digits over everything the options say and the version of the checks."""
    facts = {"v": GRADERS_VERSION, **dataclasses.asdict(options)}
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse_grader(raw: Any, *, where: str) -> GraderOptions:
    """Return the options of a grader written in a sample.

    The job room has validated them where the sample came through a job; a stored sample may come from anywhere.

    Raises:
        ConfigError: An unknown type or key, a missing key, or a value of the wrong kind.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError(f"a grader is a mapping with `type`, found {quote_excerpt(repr(raw))}", where=where)
    kind = raw.get("type")
    record = GRADER_OPTIONS.get(kind) if isinstance(kind, str) else None
    if record is None:
        raise ConfigError(
            f"unknown grader type {kind!r}", where=where, hint=_suggest(str(kind), GRADER_OPTIONS, what="types")
        )
    fields = {field.name.removesuffix("_"): field for field in dataclasses.fields(record)}
    for key, value in raw.items():
        if key not in fields:
            raise ConfigError(
                f"unknown key {key!r} of a {kind} grader", where=where, hint=_suggest(str(key), fields, what="keys")
            )
        fault = _find_value_fault(str(kind), str(key), value)
        if fault is not None:
            raise ConfigError(f"`{key}` of a {kind} grader {fault}, found {quote_excerpt(repr(value))}", where=where)
    try:
        return record(**{fields[key].name: value for key, value in raw.items()})
    except (TypeError, ValueError) as error:
        missing = [k for k, f in fields.items() if f.default is dataclasses.MISSING and k not in raw]
        message = f"a {kind} grader needs `{missing[0]}`" if missing else f"a {kind} grader: {error}"
        raise ConfigError(message, where=where) from error


def _prepare_expected(options: GraderOptions, where: Where) -> tuple[Callable[[Mapping[str, Any]], Any], bool]:
    if isinstance(options, JsonSchemaOptions):
        return _prepare_schema(options, where)
    if isinstance(options, JsonOptions):
        return _prepare_json(options.expected, where)
    if isinstance(options, RegexOptions) and (fault := find_pattern_fault(options)) is not None:
        raise ConfigError(fault, where=where("pattern"))
    if isinstance(options, RegexOptions) and options.expected is None:
        return (lambda _scope: None), True
    key = "value" if hasattr(options, "value") else "expected"
    template = Template(str(getattr(options, key)), where=where(key))
    return template.render, template.is_literal


def _prepare_schema(options: JsonSchemaOptions, where: Where) -> tuple[Callable[[Mapping[str, Any]], Any], bool]:
    if options.schema_ is None:
        raise ConfigError(
            f"the schema file {options.file!r} is not read here", where=where("file"), hint="write the schema in place"
        )
    from evalrun.analysis.graders.json_schema import build_validator

    try:
        validator = build_validator(options.schema_)
    except ValueError as error:
        raise ConfigError(f"the schema is not valid: {error}", where=where("schema")) from error
    return (lambda _scope: validator), True


def _prepare_json(expected: Any, where: Where) -> tuple[Callable[[Mapping[str, Any]], Any], bool]:
    if expected is None:
        return (lambda _scope: ANYTHING), True
    if not isinstance(expected, str):
        render, is_literal = _prepare_tree(expected, where("expected"))
        return render, is_literal
    template = Template(expected, where=where("expected"))
    if template.is_literal:
        try:
            value = parse_json(expected)
        except NotJsonError as error:
            hint = "write text as '\"text\"', with quotes inside"
            raise ConfigError(
                f"{quote_excerpt(expected)} is not JSON: {error}", where=where("expected"), hint=hint
            ) from error
        return (lambda _scope: value), True
    return (lambda scope: _read_rendered(template.render(scope))), False


def _read_rendered(text: str) -> Any:
    try:
        return parse_json(text)
    except NotJsonError as error:
        raise GraderFaultError(
            "grader_error", f"`expected` renders {quote_excerpt(text)}, which is not JSON: {error}"
        ) from error


def _prepare_tree(value: Any, where: str) -> tuple[Callable[[Mapping[str, Any]], Any], bool]:
    """Prepare a JSON value whose strings are templates; each stays a string."""
    if isinstance(value, str):
        template = Template(value, where=where)
        return template.render, template.is_literal
    if isinstance(value, Mapping):
        fields = {key: _prepare_tree(inner, f"{where}.{key}") for key, inner in value.items()}
        is_literal = all(literal for _, literal in fields.values())
        return (lambda scope: {key: render(scope) for key, (render, _) in fields.items()}), is_literal
    if isinstance(value, list | tuple):
        items = [_prepare_tree(inner, f"{where}[{index}]") for index, inner in enumerate(value)]
        return (lambda scope: [render(scope) for render, _ in items]), all(literal for _, literal in items)
    return (lambda _scope: value), True


def _find_value_fault(kind: str, key: str, value: Any) -> str | None:
    if key in {"not", "hard", "ignore_case", "strip"}:
        return None if isinstance(value, bool) else "is true or false"
    if key in {"weight", "tolerance", "threshold"} and (key != "threshold" or value is not None):
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
        return None if is_number and (key != "threshold" or value <= 1) else "is a number, 0 or more"
    if key == "expected" and kind == "json":
        return None
    if key == "expected" and kind == "numeric" and isinstance(value, int | float) and not isinstance(value, bool):
        return None
    if key == "group":
        return None if isinstance(value, int | str) and not isinstance(value, bool) else "is a number or a name"
    is_optional = key in {"name", "metric", "when", "file"} or (key == "expected" and kind == "regex")
    if key in {"schema", "threshold"} or (value is None and is_optional):
        return None
    is_empty_allowed = key == "expected"
    return None if isinstance(value, str) and (value or is_empty_allowed) else "is text"


def _suggest(wrong: str, known: Mapping[str, Any], *, what: str) -> str:
    near = difflib.get_close_matches(wrong, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known {what}: " + ", ".join(known)
