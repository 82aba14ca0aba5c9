"""The json-schema check: the output is JSON that satisfies a schema (Draft 2020-12, or the draft its `$schema` names).

The validator is built once. References resolve inside the schema and to the published meta-schemas only: nothing is
fetched. Patterns run bounded in time, like those of the regex check. `format` is an annotation, as the draft has it.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jsonschema
from jsonschema import Draft202012Validator, validators
from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from evalrun.analysis.graders.json_value import NotJsonError, read_json_output
from evalrun.analysis.graders.marks import Mark, make_mark, quote_excerpt
from evalrun.analysis.graders.pattern import compile_pattern, search_bounded
from evalrun.grader_options import JsonSchemaOptions

_SHOWN_MESSAGE_CHARS = 300
_REGISTRY: Registry[Any] = REGISTRY

Schema = Mapping[str, Any] | bool


def build_validator(schema: Schema) -> Any:
    """Return a validator of the schema.

    Raises:
        ValueError: The schema is not valid, has a pattern that does not compile, or a reference that does not
            resolve inside it.
    """
    draft: Any = validators.validator_for(schema, default=Draft202012Validator)
    try:
        draft.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ValueError(f"{error.json_path}: {_shorten(error.message)}") from error
    except RecursionError as error:
        raise ValueError("the schema is nested too deep") from error
    _check_references(schema)
    extend: Any = validators.extend
    bounded = extend(
        draft,
        {
            "pattern": _check_pattern,
            "patternProperties": _check_pattern_properties,
            "additionalProperties": _make_additional_properties(draft.VALIDATORS["additionalProperties"]),
        },
    )
    return bounded(schema, registry=_REGISTRY)


def grade_json_schema(output: str, validator: Any, options: JsonSchemaOptions) -> Mark:  # noqa: ARG001 - as every check
    """Return whether the output is JSON that the validator accepts; the reason names the path of the worst error.

    Raises:
        GraderFaultError: A pattern took too long, or the output is nested too deep.
    """
    try:
        value = read_json_output(output)
    except NotJsonError as error:
        return make_mark(passed=False, reason=f"expected JSON, found {quote_excerpt(output)}: {error}")
    errors = list(validator.iter_errors(value))
    if not errors:
        return make_mark(passed=True, reason="satisfies the schema")
    worst = jsonschema.exceptions.best_match(errors)
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return make_mark(passed=False, reason=f"{_shorten(worst.json_path)}: {_shorten(worst.message)}{more}")


def _shorten(message: str) -> str:
    message = message if message.isprintable() else repr(message)[1:-1]
    return message if len(message) <= _SHOWN_MESSAGE_CHARS else message[:_SHOWN_MESSAGE_CHARS] + "…"


def _check_references(schema: Schema) -> None:
    resource = Resource.from_contents(schema, default_specification=DRAFT202012)
    root = resource.id() or ""
    registry = _REGISTRY.with_resource(root, resource).crawl()
    _check_resource(resource, registry.resolver(root))


def _check_resource(resource: Resource[Any], resolver: Any) -> None:
    contents = resource.contents
    if isinstance(contents, Mapping):
        for keyword in ("$ref", "$dynamicRef"):
            reference = contents.get(keyword)
            if isinstance(reference, str):
                _check_reference(keyword, reference, resolver)
        for source in [contents.get("pattern"), *(contents.get("patternProperties") or ())]:
            if isinstance(source, str):
                _check_compiles(source)
    for inner in resource.subresources():
        _check_resource(inner, resolver.in_subresource(inner))


def _check_reference(keyword: str, reference: str, resolver: Any) -> None:
    try:
        resolver.lookup(reference)
    except Unresolvable as error:
        hint = "; references to other documents are never fetched: write it into `$defs`" if "://" in reference else ""
        raise ValueError(f"the {keyword} {quote_excerpt(reference)} points to nothing in this schema{hint}") from error


def _check_compiles(source: str) -> None:
    try:
        compile_pattern(source)
    except Exception as error:  # The package raises more than its own error on hostile patterns.
        raise ValueError(f"the pattern {quote_excerpt(source)} does not compile: {error}") from error


def _is_found(source: str, text: str) -> bool:
    return search_bounded(compile_pattern(source), text) is not None


def _check_pattern(validator: Any, source: str, instance: Any, _schema: Any) -> Iterator[jsonschema.ValidationError]:
    if validator.is_type(instance, "string") and not _is_found(source, instance):
        yield jsonschema.ValidationError(f"{quote_excerpt(instance)} does not match {source!r}")


def _check_pattern_properties(
    validator: Any, patterns: Mapping[str, Any], instance: Any, _schema: Any
) -> Iterator[jsonschema.ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    for source, subschema in patterns.items():
        for key, value in instance.items():
            if _is_found(source, key):
                yield from validator.descend(value, subschema, path=key, schema_path=source)


def _make_additional_properties(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the library's keyword so that it sees the properties that no pattern matches, and no pattern."""

    def check(validator: Any, extra: Any, instance: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
        patterns = schema.get("patternProperties")
        if patterns and validator.is_type(instance, "object"):
            instance = {k: v for k, v in instance.items() if not any(_is_found(source, k) for source in patterns)}
            schema = {key: value for key, value in schema.items() if key != "patternProperties"}
        yield from original(validator, extra, instance, schema) or ()

    return check
