"""The keywords of JSON Schema that run patterns or compare much with much, bounded in time.

The library searches with an engine that has no time limit, in four keywords; here each is written anew over the one
that has. All keywords look at the clock of the check before they begin.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jsonschema import ValidationError
from referencing.jsonschema import lookup_recursive_ref

from evalrun.analysis.graders.marks import quote_excerpt
from evalrun.analysis.graders.pattern import Stopwatch, compile_pattern, search_bounded
from evalrun.errors import GraderFaultError

Keyword = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]

MAX_UNEVALUATED_ITEMS = 10_000
"""Longest list that `unevaluatedItems` is tried on: the library takes the square of its length."""


def make_keywords(originals: Mapping[str, Keyword], stopwatch: Stopwatch) -> dict[str, Keyword]:
    """Return the keywords of a draft, bounded.

    Args:
        originals: The draft's own, by name.
        stopwatch: Started with each check.
    """
    own = _OwnKeywords(stopwatch)
    replaced: dict[str, Keyword] = {
        "pattern": own.check_pattern,
        "patternProperties": own.check_pattern_properties,
        "uniqueItems": _check_unique_items,
    }
    if "unevaluatedProperties" in originals:
        replaced["unevaluatedProperties"] = own.check_unevaluated_properties
    if "unevaluatedItems" in originals:
        replaced["unevaluatedItems"] = _limit_items(originals["unevaluatedItems"])
    if "additionalProperties" in originals:
        replaced["additionalProperties"] = own.wrap_additional_properties(originals["additionalProperties"])
    return {name: _time(keyword, stopwatch) for name, keyword in {**originals, **replaced}.items()}


def _time(keyword: Keyword, stopwatch: Stopwatch) -> Keyword:
    def check(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError] | None:
        stopwatch.take_left_s()
        return keyword(validator, value, instance, schema)

    return check


class _OwnKeywords:
    """The keywords that run patterns."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch

    def check_pattern(self, validator: Any, source: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
        if validator.is_type(instance, "string") and not self._is_found(source, instance):
            yield ValidationError(f"{quote_excerpt(instance)} does not match {source!r}")

    def check_pattern_properties(
        self, validator: Any, patterns: Mapping[str, Any], instance: Any, _schema: Any
    ) -> Iterator[ValidationError]:
        if not validator.is_type(instance, "object"):
            return
        for source, subschema in patterns.items():
            for key, value in instance.items():
                if self._is_found(source, key):
                    yield from validator.descend(value, subschema, path=key, schema_path=source)

    def check_unevaluated_properties(
        self, validator: Any, subschema: Any, instance: Any, schema: Any
    ) -> Iterator[ValidationError]:
        if not validator.is_type(instance, "object"):
            return
        rest = {key: value for key, value in schema.items() if key != "unevaluatedProperties"}
        evaluated = self._find_evaluated(validator, instance, rest)
        wrong = [
            key
            for key, value in instance.items()
            if key not in evaluated and not _is_valid(validator.descend(value, subschema, path=key))
        ]
        if wrong:
            shown = ", ".join(quote_excerpt(key, max_chars=60) for key in wrong[:5])
            allowed = "are not allowed" if subschema is False else "do not satisfy `unevaluatedProperties`"
            yield ValidationError(f"properties that nothing else evaluates {allowed}: {shown}")

    def wrap_additional_properties(self, original: Keyword) -> Keyword:
        """Let the library see the properties that no pattern matches, and no pattern."""

        def check(validator: Any, extra: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
            patterns = schema.get("patternProperties")
            if patterns and validator.is_type(instance, "object"):
                instance = {k: v for k, v in instance.items() if not self._matches_any(patterns, k)}
                schema = {key: value for key, value in schema.items() if key != "patternProperties"}
            yield from original(validator, extra, instance, schema) or ()

        return check

    def _find_evaluated(self, validator: Any, instance: Mapping[str, Any], schema: Any) -> set[str]:
        """Return the keys of an object that a schema, where it holds, has something to say about."""
        if not isinstance(schema, Mapping):
            return set()
        self._stopwatch.take_left_s()
        keys = set(instance) & set(schema.get("properties") or ())
        for keyword in ("additionalProperties", "unevaluatedProperties"):
            if keyword in schema:
                inner = schema[keyword]
                keys |= {key for key, value in instance.items() if _is_valid(validator.descend(value, inner))}
        patterns = schema.get("patternProperties")
        if patterns:
            keys |= {key for key in instance if self._matches_any(patterns, key)}
        for resolved in _resolve_references(validator, schema):
            there = validator.evolve(schema=resolved.contents, _resolver=resolved.resolver)
            keys |= self._find_evaluated(there, instance, resolved.contents)
        for inner in _list_applied(validator, instance, schema):
            keys |= self._find_evaluated(validator, instance, inner)
        return keys

    def _matches_any(self, patterns: Mapping[str, Any], key: str) -> bool:
        return any(self._is_found(source, key) for source in patterns)

    def _is_found(self, source: str, text: str) -> bool:
        return search_bounded(compile_pattern(source), text, timeout_s=self._stopwatch.take_left_s()) is not None


def _resolve_references(validator: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
    resolver = validator._resolver  # noqa: SLF001 - the library has no public way to follow a reference from a keyword
    for keyword in ("$ref", "$dynamicRef"):
        if keyword in schema:
            yield resolver.lookup(schema[keyword])
    if "$recursiveRef" in schema:
        yield lookup_recursive_ref(resolver)


def _list_applied(validator: Any, instance: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the schemas inside one that are applied to the same instance and hold for it."""
    for key, inner in (schema.get("dependentSchemas") or {}).items():
        if key in instance:
            yield inner
    for keyword in ("allOf", "oneOf", "anyOf"):
        for inner in schema.get(keyword) or ():
            if _is_valid(validator.descend(instance, inner)):
                yield inner
    if "if" in schema:
        is_met = _is_valid(validator.descend(instance, schema["if"]))
        if is_met:
            yield schema["if"]
        yield schema.get("then" if is_met else "else")


def _is_valid(errors: Iterator[ValidationError]) -> bool:
    return next(iter(errors), None) is None


def _check_unique_items(validator: Any, wanted: bool, instance: Any, _schema: Any) -> Iterator[ValidationError]:  # noqa: FBT001 - the library calls it so
    """Compare items by a hash of each: the library compares all with all where they cannot be sorted."""
    if not wanted or not validator.is_type(instance, "array"):
        return
    seen = set()
    for index, item in enumerate(instance):
        frozen = _freeze(item)
        if frozen in seen:
            yield ValidationError(f"item {index} stands there twice: {quote_excerpt(repr(item))}")
            return
        seen.add(frozen)


def _freeze(value: Any) -> Any:
    """Return something hashable that is equal for equal JSON values: 1 equals 1.0, true equals neither."""
    if isinstance(value, Mapping):
        return ("object", frozenset((key, _freeze(item)) for key, item in value.items()))
    if isinstance(value, list):
        return ("list", tuple(_freeze(item) for item in value))
    return (isinstance(value, bool), value)


def _limit_items(original: Keyword) -> Keyword:
    def check(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        if isinstance(instance, list) and len(instance) > MAX_UNEVALUATED_ITEMS:
            message = f"`unevaluatedItems` is not tried on {len(instance)} items, only up to {MAX_UNEVALUATED_ITEMS}"
            raise GraderFaultError("grader_timeout", message)
        yield from original(validator, value, instance, schema) or ()

    return check
