"""Command-line changes of a job: `--set models[gpt-5.1].params.temperature=0` and `--var tone=casual`."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from evalrun.errors import AuthorError, Problem
from evalrun.job.document import suggest_or_list
from evalrun.job.literal_keys import HINT, has_literal_key
from evalrun.job.places import KeyPath, Places
from evalrun.job.scalars import name_value, parse_plain
from evalrun.job.yaml_syntax import parse_yaml

_Step = tuple[str, bool]
"""A key's text, and whether it stood in brackets."""
_EVERY: _Step = ("*", True)
_STEP = re.compile(r"\.?([^.\[\]=]+)|\[([^\]]*)\]")
_EXAMPLE = "write for example --set 'models[gpt-5.1].params.temperature=0'"


class _PathError(Exception):
    """An override that cannot be followed; becomes a Problem."""

    def __init__(self, message: str, hint: str | None = _EXAMPLE) -> None:
        super().__init__(message)
        self.hint = hint


def apply_overrides(data: dict[str, Any], overrides: Sequence[str], places: Places) -> list[Problem]:
    """Change the data as each `PATH=VALUE` says, and note where the new values come from.

    Args:
        data: The job as written; changed in place.
        overrides: `PATH=VALUE` each. A path has keys, and `[name]`, `[index]` or `[*]` (each) for items; a value is
            YAML.
        places: Is told about the new values.
    """
    problems = []
    for override in overrides:
        label = f"--set {override.partition('=')[0]}"
        try:
            steps, text = _split(override)
            value = _parse_value(text, label)
            for each in _expand(data, steps):
                places.replace(_write(data, each, value), label)
        except _PathError as error:
            problems.append(Problem(message=str(error), where=label, hint=error.hint))
    return problems


def apply_variables(data: dict[str, Any], variables: Mapping[str, str], places: Places) -> list[Problem]:
    """Set `vars` of the job; a value means what the same unquoted word means in YAML."""
    problems = []
    for name, text in variables.items():
        label = f"--var {name}"
        if data.get("vars") is None:
            data["vars"] = {}
        written = data["vars"]
        if not isinstance(written, dict):
            continue  # Validation reports that `vars` is not a mapping.
        if has_literal_key(text):
            problems.append(Problem(message="this looks like a secret key", where=label, hint=HINT))
            continue
        if name not in written:
            hint = (
                suggest_or_list(name, written, label="vars") if written else f"write `vars: {{{name}: …}}` in the job"
            )
            problems.append(Problem(message=f"the job has no variable `{name}` under `vars`", where=label, hint=hint))
            continue
        try:
            written[name] = parse_plain(text)
        except ValueError as error:
            problems.append(Problem(message=str(error), where=label))
        places.replace(("vars", name), label)
    return problems


def _expand(data: dict[str, Any], steps: list[_Step]) -> list[list[_Step]]:
    """Return the steps once for each item that `[*]` stands for; as they are without one."""
    if _EVERY not in steps:
        return [steps]
    at = steps.index(_EVERY)
    node: Any = data
    path: list[str | int] = []
    for step in steps[:at]:
        key = _choose(node, step, path)
        path.append(key)
        node = node.get(key) if isinstance(node, dict) else node[int(key)]
    if not isinstance(node, dict | list) or not node:
        raise _PathError(f"`{'.'.join(map(str, path))}` has no items for `[*]`")
    keys = list(node) if isinstance(node, dict) else range(len(node))
    return [each for key in keys for each in _expand(data, [*steps[:at], (str(key), True), *steps[at + 1 :]])]


def _split(override: str) -> tuple[list[_Step], str]:
    """Return the steps (text, was it in brackets) and the text of the value."""
    steps: list[_Step] = []
    position = 0
    while position < len(override) and override[position] != "=":
        match = _STEP.match(override, position)
        if match is None:
            message = f"the path cannot be read at {override[position : position + 20]!r}"
            raise _PathError(message)
        is_bracket = match.group(1) is None
        steps.append((match.group(2) if is_bracket else match.group(1), is_bracket))
        position = match.end()
    if not steps or position >= len(override):
        raise _PathError("an override is PATH=VALUE")
    return steps, override[position + 1 :]


def _parse_value(text: str, label: str) -> Any:
    if has_literal_key(text):
        raise _PathError("this looks like a secret key; a key is never written in a job", HINT)
    try:
        return parse_yaml(text, Places(label))
    except AuthorError as error:
        raise _PathError(error.problems[0].message, "put text with special characters into quotes") from error


def _write(data: dict[str, Any], steps: list[_Step], value: Any) -> KeyPath:
    node: Any = data
    path: list[str | int] = []
    for number, step in enumerate(steps):
        key = _choose(node, step, path)
        path.append(key)
        if number == len(steps) - 1:
            node[key] = value
        elif isinstance(node, dict):
            if node.get(str(key)) is None:
                node[str(key)] = {}
            node = node[str(key)]
        else:
            node = node[key]
    return tuple(path)


def _choose(node: Any, step: _Step, path: list[str | int]) -> str | int:
    """Return the key or index that a step means in a mapping or list."""
    text, is_bracket = step
    if isinstance(node, dict):
        return text
    shown = ".".join(map(str, path)) or "the job"
    if not isinstance(node, list):
        raise _PathError(f"`{shown}` is {name_value(node)}, so it has no `{text}`")
    names = [str(item.get("name", item.get("id"))) if isinstance(item, dict) else "" for item in node]
    if text in names:
        return names.index(text)
    if re.fullmatch(r"[0-9]+", text) and int(text) < len(node):
        return int(text)
    label = f"{shown} has" if is_bracket else f"write {shown}[NAME]; it has"
    raise _PathError(f"`{shown}` has no item `{text}`", suggest_or_list(text, filter(None, names), label=label))
