"""What a grader compares with: its templates compiled once, its patterns, paths and schemas checked.

Options enter; a function from a scope to the expected value leaves, with whether it gives the same for every scope.
What cannot work raises `AuthorError` here, before anything is sent.
"""

from collections.abc import Callable, Mapping
from typing import Any

from evalrun.analysis.graders.json_value import ANYTHING, NotJsonError, parse_json
from evalrun.analysis.graders.judge_grader import JudgeTask
from evalrun.analysis.graders.marks import quote_excerpt
from evalrun.analysis.graders.pattern import find_pattern_fault
from evalrun.analysis.graders.transform import check_path
from evalrun.errors import ConfigError, GraderFaultError
from evalrun.grader_options import (
    GraderOptions,
    JsonOptions,
    JsonPathOptions,
    JsonSchemaOptions,
    JudgeOptions,
    RegexOptions,
    ToolCallOptions,
)
from evalrun.templates import Template

Where = Callable[..., str]
"""From the keys below a grader (`"expected"`) to its place in words."""

Render = Callable[[Mapping[str, Any]], Any]
"""From a scope to what a check compares with."""

_EXPECTED_KEYS = ("expected", "value", "values", "equals", "arguments")


def find_expected_key(options: GraderOptions) -> str | None:
    """Return the key that holds what the grader compares with; None where it compares with nothing of the sample."""
    return next((key for key in _EXPECTED_KEYS if hasattr(options, key)), None)


def prepare_expected(options: GraderOptions, where: Where) -> tuple[Render, bool]:
    """Return what renders the expected value, and whether it is the same for every scope.

    Raises:
        AuthorError: A template does not compile, or a pattern, path or schema is not valid.
    """
    if isinstance(options, JsonSchemaOptions):
        return _prepare_schema(options, where)
    if isinstance(options, JsonOptions):
        return _prepare_json(options.expected, where)
    if isinstance(options, JsonPathOptions):
        return _prepare_path(options, where)
    if isinstance(options, ToolCallOptions):
        return _prepare_tree(options.arguments or {}, where("arguments"))
    if isinstance(options, JudgeOptions):
        return _prepare_judge(options, where), False
    if isinstance(options, RegexOptions):
        _check_pattern(options.pattern, where("pattern"), options.group)
    key = find_expected_key(options)
    source = getattr(options, key) if key is not None else None
    if key is None or source is None:
        return (lambda _scope: None), True
    if key == "values":
        return _prepare_values(source, where)
    template = Template(str(source), where=where(key))
    return template.render, template.is_literal


def _check_pattern(source: str, where: str, group: int | str = 0) -> None:
    fault = find_pattern_fault(source, group)
    if fault is not None:
        raise ConfigError(fault, where=where)


def _prepare_path(options: JsonPathOptions, where: Where) -> tuple[Render, bool]:
    check_path(options.path, where=where("path"))
    if options.matches is not None:
        _check_pattern(options.matches, where("matches"))
    if options.equals is None:
        return (lambda _scope: ANYTHING), True
    return _prepare_tree(options.equals, where("equals"))


def _prepare_values(values: tuple[str, ...] | str, where: Where) -> tuple[Render, bool]:
    """Prepare a list of templates, or one that renders to a JSON list of texts."""
    if isinstance(values, str):
        template = Template(values, where=where("values"))
        return (lambda scope: _read_values(template.render(scope))), template.is_literal
    return _prepare_tree(values, where("values"))


def _read_values(text: str) -> list[str]:
    try:
        values = parse_json(text)
    except NotJsonError:
        values = None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise GraderFaultError(
            "grader_error", f"`values` renders {quote_excerpt(text)}, which is no JSON list of texts"
        )
    return values


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


def _prepare_judge(options: JudgeOptions, where: Where) -> Render:
    rubric = Template(options.rubric, where=where("rubric"))
    reference = Template(options.reference, where=where("reference")) if options.reference is not None else None

    def render(scope: Mapping[str, Any]) -> JudgeTask:
        task = JudgeTask(rubric.render(scope), None if reference is None else reference.render(scope))
        for key, text in task._asdict().items():
            if text is not None and not text.strip():
                raise GraderFaultError("grader_error", f"`{key}` renders to nothing")
        return task

    return render


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
