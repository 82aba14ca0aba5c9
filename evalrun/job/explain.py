"""Puts pydantic's errors into plain words, each with its place and a next step.

Raw errors and the tree they are about enter; Problems leave. Of a union only the member that was meant is reported.
"""

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

from evalrun.errors import Problem
from evalrun.grader_options import GRADER_OPTIONS
from evalrun.job.document import suggest
from evalrun.job.places import KeyPath, get_node, name_path
from evalrun.job.scalars import name_value

Where = Callable[[KeyPath], str]

_GRADER_LISTS: tuple[KeyPath, ...] = (("graders",), ("defaults", "graders"))
_OTHER_TOOLS: Mapping[str, str] = {
    "equals": "exact",
    "exact_match": "exact",
    "match": "exact",
    "includes": "contains",
    "icontains-all": "contains-all` with `ignore_case: true",
    "icontains-any": "contains-any` with `ignore_case: true",
    "not-contains": "contains` with `not: true",
    "is-json": "json",
    "contains-json": "json",
    "is-refusal": "refusal",
    "rouge-n": "rouge-l",
    "pattern": "regex",
    "multiple_choice": "choice",
    "llm-rubric": "judge",
    "model-graded-closedqa": "judge",
    "javascript": "python",
}
"""Types of promptfoo, Inspect and lm-eval that have another name here."""
_ELSEWHERE: Mapping[str, str] = {
    "api_key": "a key is never written in a job: `api_key_env: NAME_OF_A_VARIABLE`",
    "providers": "name them under `endpoints` and `models`",
    "tests": "put them under `samples`, or into a file under `dataset`",
    "assert": "write them under `graders`",
    "temperature": "put it under `params: {temperature: …}`",
    "max_tokens": "put it under `params: {max_tokens: …}`",
    "max_completion_tokens": "put it under `params: {max_completion_tokens: …}`",
    "seed": "a model's own seed goes under `params: {seed: …}`",
    "url": "write it as `base_url`",
    "env": "write `${NAME}` in endpoints, paths and vars",
}
_KINDS: Mapping[str, str] = {
    "dataclass_type": "a mapping",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "decimal_type": "a number",
    "decimal_parsing": "a number",
    "bool_type": "true or false",
    "finite_number": "a finite number",
}
_BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
    "greater_than": ("gt", "greater than"),
    "less_than": ("lt", "less than"),
}


def explain(errors: list[Mapping[str, Any]], tree: Any, shown: Any, where: Where, *, root: Any) -> list[Problem]:
    """Return the errors in plain words, in the order they came.

    Args:
        errors: As `schema.validate` returned them.
        tree: The data that were validated.
        shown: The same before variables were put in; only these values are repeated in messages.
        where: Gives the place of a key path.
        root: The record that was validated.
    """
    problems, handled = _check_grader_types(tree, where)
    rejected: dict[KeyPath, list[str]] = {}
    accepted: list[tuple[KeyPath, Mapping[str, Any]]] = []
    for error in errors:
        path, union, tag = _follow(error["loc"], tree)
        if any(path[: len(prefix)] == prefix for prefix in handled):
            continue
        if tag is None:
            accepted.append((path, error))
        else:
            rejected.setdefault(union, []).append(tag)
    for union, tags in rejected.items():
        deeper = [path for path, _ in accepted] + [path for path in rejected if len(path) > len(union)]
        if not any(path[: len(union)] == union for path in deeper):
            kinds = list(dict.fromkeys(map(_name_tag, tags)))
            message = f"`{name_path(union)}` must be {_join(kinds)}, got {name_value(get_node(shown, union))}"
            problems.append(Problem(message=message, where=where(union)))
    for path, error in accepted:
        problem = _explain_one(path, error, tree, shown, where, root)
        if problem is not None:
            problems.append(problem)
    return problems


def check_grader_type(grader: Any, label: str) -> Problem | None:
    """Return what is wrong with a grader's `type`; None when it is one that is known."""
    known = ", ".join(GRADER_OPTIONS)
    if not isinstance(grader, Mapping):
        hint = "write for example {type: contains, value: yes}"
        return Problem(message=f"`{label}` must be a mapping, got {name_value(grader)}", hint=hint)
    kind = grader.get("type")
    if kind is None:
        return Problem(message=f"`{label}` has no `type`", hint=f"known types: {known}")
    if not isinstance(kind, str):
        return Problem(message=f"`{label}.type` must be text, got {name_value(kind)}", hint=f"known types: {known}")
    if kind not in GRADER_OPTIONS:
        near = f"did you mean `{_OTHER_TOOLS[kind]}`?" if kind in _OTHER_TOOLS else suggest(kind, GRADER_OPTIONS)
        hint = near or f"known types: {known}"
        return Problem(message=f"unknown grader type {kind!r}", hint=hint)
    return None


def _check_grader_types(tree: Any, where: Where) -> tuple[list[Problem], list[KeyPath]]:
    problems, handled = [], []
    for base in _GRADER_LISTS:
        graders = get_node(tree, base)
        for index, grader in enumerate(graders if isinstance(graders, list) else []):
            path: KeyPath = (*base, index)
            problem = check_grader_type(grader, name_path(path))
            if problem is not None:
                place = where((*path, "type"))
                problems.append(Problem(message=problem.message, where=place, hint=problem.hint))
                handled.append(path)
    return problems, handled


def _follow(loc: tuple[str | int, ...], tree: Any) -> tuple[KeyPath, KeyPath, str | None]:
    """Return the key path of a location; with the union and its member where the data are not of that member."""
    path: list[str | int] = []
    node = tree
    for item in loc:
        if isinstance(node, Mapping) and item in node:
            node = node[str(item)]
        elif isinstance(node, list) and isinstance(item, int) and item < len(node):
            node = node[item]
        elif isinstance(item, str) and _is_tag(item):
            if not _fits(item, node):
                return tuple(path), tuple(path), item
            continue
        else:
            node = None
        path.append(item)
    return tuple(path), (), None


def _is_tag(item: str) -> bool:
    return item in _TAG_TYPES or item.startswith(_TAG_STARTS) or item.endswith("Options")


_TAG_STARTS = ("tuple[", "list[", "dict[", "literal[")


_TAG_TYPES: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "constrained-str": (str,),
    "int": (int,),
    "constrained-int": (int,),
    "float": (int, float),
    "constrained-float": (int, float),
    "bool": (bool,),
}


def _fits(tag: str, node: Any) -> bool:
    if tag in _TAG_TYPES:
        return isinstance(node, _TAG_TYPES[tag]) and (isinstance(node, bool) == (tag == "bool"))
    if tag.startswith(("tuple[", "list[")):
        return isinstance(node, list)
    if tag.startswith("literal["):
        return isinstance(node, str)
    if not isinstance(node, Mapping):
        return False
    member = GRADER_OPTIONS.get(str(node.get("type")))
    return member is None or tag.startswith("dict[") or member.__name__ == tag


def _name_tag(tag: str) -> str:
    if tag.startswith(("tuple[", "list[")):
        return "a list"
    if tag.startswith("literal["):
        return "text"
    words = {"str": "text", "constrained-str": "text", "int": "a number", "constrained-int": "a number"}
    words |= {"float": "a number", "constrained-float": "a number", "bool": "true or false"}
    return words.get(tag, "a mapping")


def _join(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _explain_one(
    path: KeyPath,
    error: Mapping[str, Any],
    tree: Any,
    shown: Any,
    where: Where,
    root: Any,
) -> Problem | None:
    kind, place, name = error["type"], where(path), name_path(path)
    context = error.get("ctx") or {}
    value = get_node(shown, path)
    if kind == "missing":
        parent = f" in {name_path(path[:-1])}" if len(path) > 1 else ""
        return Problem(message=f"`{path[-1]}` is missing{parent}", where=where(path[:-1]))
    if kind == "unexpected_keyword_argument":
        return _explain_unknown(path, tree, place, root)
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return Problem(message=f"`{name}` must be {words} {context[bound]}, got {name_value(value)}", where=place)
    if kind in {"too_short", "string_too_short"}:
        # Pydantic counts the items that passed; a list that is long enough has its errors reported item by item.
        is_empty = not value if isinstance(value, str | list | Mapping) else True
        return Problem(message=f"`{name}` must not be empty", where=place) if is_empty else None
    if kind == "literal_error":
        hint = (
            suggest(value, context["expected"].replace("'", "").replace(" or ", ", ").split(", "))
            if isinstance(value, str)
            else None
        )
        message = f"`{name}` must be {context['expected']}, got {name_value(value)}"
        return Problem(message=message, where=place, hint=hint)
    if kind == "value_error":
        return Problem(message=f"`{name}`: {context['error']}", where=place)
    if kind in _KINDS:
        message = f"`{name}` must be {_KINDS[kind]}, got {name_value(value)}"
        return Problem(message=message, where=place, hint=_hint_type(_KINDS[kind], value))
    return Problem(message=f"`{name}`: {error['msg']}", where=place)


def _hint_type(kind: str, value: Any) -> str | None:
    if kind == "text" and isinstance(value, int | float):
        return "put it in quotes to make it text"
    if not isinstance(value, str):
        return None
    if kind == "true or false":
        return "only the words true and false, without quotes, are read so"
    if "number" in kind:
        return "numbers are written as in JSON, without quotes: 1000, 0.5, 1e3"
    return None


def _explain_unknown(path: KeyPath, tree: Any, place: str, root: Any) -> Problem:
    key = str(path[-1])
    known = list_known_keys(path[:-1], tree, root)
    hint = suggest(key, known) or _ELSEWHERE.get(key) or (f"known here: {', '.join(known)}" if known else None)
    parent = f" in {name_path(path[:-1])}" if len(path) > 1 else ""
    return Problem(message=f"unknown key `{key}`{parent}", where=place, hint=hint)


def list_known_keys(path: KeyPath, tree: Any, root: Any) -> list[str]:
    """Return the keys that a mapping of the job may have; empty when any may stand there."""
    kinds, node = _flatten(root), tree
    for key in path:
        kinds = [inner for kind in kinds for inner in _step(kind, key, node)]
        node = get_node(node, (key,))
    grader = GRADER_OPTIONS.get(str(node.get("type"))) if isinstance(node, Mapping) else None
    records = [kind for kind in kinds if dataclasses.is_dataclass(kind)]
    if grader is not None and grader in records:
        records = [grader]
    return list(dict.fromkeys(field.name.removesuffix("_") for kind in records for field in dataclasses.fields(kind)))


def _step(kind: Any, key: str | int, node: Any) -> list[Any]:
    """Return the types that may stand below one key of a type."""
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        hint = hints.get(str(key), hints.get(f"{key}_"))
        return _flatten(hint) if hint is not None else []
    arguments = get_args(kind)
    if isinstance(node, list):
        return _flatten(arguments[0]) if get_origin(kind) is tuple and arguments else []
    return _flatten(arguments[1]) if len(arguments) == 2 and get_origin(kind) is not tuple else []


def _flatten(kind: Any) -> list[Any]:
    if get_origin(kind) in {Union, types.UnionType}:
        return [inner for member in get_args(kind) for inner in _flatten(member)]
    return [kind]
