"""`${NAME}`: variables of the environment in endpoints, paths and vars, and files that define more of them."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evalrun.errors import ConfigError, Problem
from evalrun.job.document import load_text, suggest
from evalrun.job.literal_keys import HINT, has_literal_key
from evalrun.job.places import KeyPath, get_node, name_path

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*")


class Substitution:
    """Replaces `${NAME}` where a job may use it, and collects what is missing.

    Args:
        environ: The variables.
        where: Gives the place of a key path.
    """

    def __init__(self, environ: Mapping[str, str], where: Callable[[KeyPath], str]) -> None:
        """Start without problems."""
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self._environ = environ
        self._where = where

    def resolve_tree(self, tree: dict[str, Any]) -> None:
        """Replace in endpoints, vars and every path; other texts keep their `${NAME}` as they are."""
        for path in _list_places(tree):
            parent, key = get_node(tree, path[:-1]), path[-1]
            if isinstance(parent, dict | list) and get_node(tree, path) is not None:
                parent[key] = self._resolve(get_node(tree, path), path)  # type: ignore[index]

    def _resolve(self, value: Any, path: KeyPath) -> Any:
        if isinstance(value, str):
            return self._resolve_text(value, path) if "${" in value else value
        if isinstance(value, dict):
            return {key: self._resolve(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._resolve(item, (*path, index)) for index, item in enumerate(value)]
        return value

    def _resolve_text(self, text: str, path: KeyPath) -> str:
        def replace(match: re.Match[str]) -> str:
            name = match.group(1)
            if name is None:
                return "${"
            if not match.group(2) or not _NAME.fullmatch(name):
                self._report(f"`${{{name}` is not a variable: write ${{NAME}}", path, "write $${ for a literal ${")
                return ""
            return self._look_up(name, path)

        resolved = _REFERENCE.sub(replace, text)
        if has_literal_key(resolved) and not has_literal_key(text):
            self._report(f"a variable puts a secret key into `{name_path(path)}`", path, HINT)
        return resolved

    def _look_up(self, name: str, path: KeyPath) -> str:
        value = self._environ.get(name)
        if not value or not value.strip():
            state = "is not set" if value is None else "is empty"
            hint = suggest(name, self._environ) if value is None else None
            self._report(f"the environment variable {name} {state}", path, hint or f"export {name}=…, or --env-file")
            return ""
        trimmed = value.rstrip("\r\n")
        if trimmed != value:
            message = f"a newline at the end of the environment variable {name} was dropped"
            self.warnings.append(Problem(message=message, where=self._where(path)))
        return trimmed

    def _report(self, message: str, path: KeyPath, hint: str | None) -> None:
        self.problems.append(Problem(message=message, where=self._where(path), hint=hint))


def _list_places(tree: dict[str, Any]) -> list[KeyPath]:
    """Return the key paths below which `${NAME}` counts."""
    paths: list[KeyPath] = [("endpoints",), ("vars",), ("files_root",), ("prices",)]
    dataset = tree.get("dataset")
    paths.append(("dataset", "path") if isinstance(dataset, dict) else ("dataset",))
    for base in (("prompts",), ("graders",), ("defaults", "graders")):
        items = get_node(tree, base)
        paths += [(*base, index, "file") for index in range(len(items) if isinstance(items, list) else 0)]
    samples = tree.get("samples")
    for number, sample in enumerate(samples if isinstance(samples, list) else []):
        graders = get_node(sample, ("graders",))
        for index in range(len(graders) if isinstance(graders, list) else 0):
            paths.append(("samples", number, "graders", index, "file"))
    return paths


def load_env_file(path: Path) -> dict[str, str]:
    """Read a file of `NAME=VALUE` lines; comments, blank lines, `export` and quotes are understood.

    Raises:
        ConfigError: The file is not there, or a line is not of that form. Values are never repeated.
    """
    text = load_text(path, file=str(path), where=None)
    variables: dict[str, str] = {}
    problems = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.rstrip("\r"))
        if match is None:
            problems.append(Problem(message="the line is not NAME=VALUE", where=f"{path}:{number}"))
            continue
        value = _unquote(match.group(2))
        if value is None:
            problems.append(Problem(message="the quotes of the value do not close", where=f"{path}:{number}"))
            continue
        variables[match.group(1)] = value
    if problems:
        raise ConfigError(problems)
    return variables


def _unquote(text: str) -> str | None:
    if text[:1] in {'"', "'"}:
        return text[1:-1] if len(text) > 1 and text[-1] == text[0] else None
    return re.split(r"\s+#", text, maxsplit=1)[0]


def check_key_variable(name: str, environ: Mapping[str, str]) -> str | None:
    """Return what is wrong with a variable that holds a key, without its value; None when it can be sent."""
    value = environ.get(name)
    if value is None:
        return f"the environment variable {name} is not set"
    trimmed = value.rstrip("\r\n")
    if not trimmed.strip():
        return f"the environment variable {name} is empty"
    if any(mark in trimmed for mark in "\r\n"):
        return f"the environment variable {name} holds a newline"
    if trimmed[0] in "\"'" or trimmed[-1] in "\"'":
        return f"the environment variable {name} has quotes around its value"
    if trimmed != trimmed.strip():
        return f"the environment variable {name} has spaces around its value"
    if not trimmed.isascii() or not trimmed.isprintable():
        return f"the environment variable {name} holds a character that a header cannot carry"
    return None
