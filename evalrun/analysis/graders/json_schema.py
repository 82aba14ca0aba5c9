"""The json-schema check: the output is JSON that satisfies a schema (Draft 2020-12, or the draft its `$schema` names).

The validator is built once. References resolve inside the schema and to the published meta-schemas only: nothing is
fetched. Every pattern runs in the engine that knows a time limit, and the check as a whole has one as well. `format` is
an annotation, as the draft has it.
"""

from collections.abc import Mapping
from itertools import islice
from typing import Any, NamedTuple

import jsonschema
from jsonschema import Draft202012Validator, validators
from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from evalrun.analysis.graders.json_value import NotJsonError, read_json_output
from evalrun.analysis.graders.marks import Mark, make_mark, quote_excerpt
from evalrun.analysis.graders.pattern import Stopwatch, compile_pattern
from evalrun.analysis.graders.schema_keywords import make_keywords
from evalrun.grader_options import JsonSchemaOptions

MAX_ERRORS = 1_000
"""Most errors of one output that are looked at for the worst."""

_SHOWN_MESSAGE_CHARS = 300
_REGISTRY: Registry[Any] = REGISTRY

Schema = Mapping[str, Any] | bool


class BoundedValidator(NamedTuple):
    """A validator of the library and the clock of its checks."""

    validator: Any
    stopwatch: Stopwatch


def build_validator(schema: Schema) -> BoundedValidator:
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
    stopwatch = Stopwatch("the check by the schema")
    extend: Any = validators.extend
    bounded = extend(draft, make_keywords(draft.VALIDATORS, stopwatch))
    return BoundedValidator(bounded(schema, registry=_REGISTRY), stopwatch)


def grade_json_schema(output: str, bounded: BoundedValidator, options: JsonSchemaOptions) -> Mark:  # noqa: ARG001 - as every check
    """Return whether the output is JSON that the validator accepts; the reason names the path of the worst error.

    Raises:
        GraderFaultError: A pattern or the whole took too long, or the output is nested too deep.
    """
    try:
        value = read_json_output(output)
    except NotJsonError as error:
        return make_mark(passed=False, reason=f"expected JSON, found {quote_excerpt(output)}: {error}")
    bounded.stopwatch.start()
    errors = list(islice(bounded.validator.iter_errors(value), MAX_ERRORS))
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
