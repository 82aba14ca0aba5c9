"""YAML text to plain data, with the meaning of YAML 1.2's JSON schema and the place of every key.

Built on ruamel's event stream, because only there tags, aliases and equal keys are still visible: custom tags, equal
keys and aliases that expand without bound are refused, `no`, `on`, `010` and dates stay text.
"""

import copy
from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml import events as ev
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from evalrun.errors import ConfigError, Problem
from evalrun.job.places import KeyPath, Places
from evalrun.job.scalars import is_unicode, parse_plain

MAX_ALIAS_NODES = 100_000
"""Values that all aliases of a file together may expand to."""

MAX_DEPTH = 100
"""Deepest nesting."""

_TAG_PREFIX = "tag:yaml.org,2002:"
_TAG_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "null": (type(None),),
    "seq": (list,),
    "map": (dict,),
}


def parse_yaml(text: str, places: Places) -> Any:
    """Return the data of the one document in the text; None when it is empty.

    Args:
        text: The file's text.
        places: Is told where each key stands.

    Raises:
        ConfigError: The text is not YAML, or uses what is refused here; every such place is named.
    """
    builder = _Builder(places)
    try:
        # ruamel's default reader is fast but writes no YAML 1.2 events; the pure one does.
        data = builder.build_document(iter(YAML(typ="safe", pure=True).parse(text)))
    except YAMLError as error:
        raise ConfigError([*builder.problems, _explain(error, text, places.file)]) from error
    if builder.problems:
        raise ConfigError(builder.problems)
    return data


def _explain(error: YAMLError, text: str, file: str) -> Problem:
    if isinstance(error, ReaderError):
        position = error.position if isinstance(error.position, int) else 0
        line = text.count("\n", 0, position) + 1
        return Problem(message=f"character {error.character!r} is not allowed in YAML", where=f"{file}:{line}")
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark is not None else file
    what = getattr(error, "problem", None) or str(error).splitlines()[0]
    context = f" ({error.context})" if isinstance(error, MarkedYAMLError) and error.context else ""
    hint = None
    if "'\\t'" in what:
        hint = "indent with spaces, not with tabs"
    elif "cannot start any token" in what or "mapping values are not allowed" in what:
        hint = "put the value in quotes"
    return Problem(message=f"not valid YAML: {what}{context}", where=where, hint=hint)


class _Builder:
    """Turns events into data; collects what is refused and goes on where it can."""

    def __init__(self, places: Places) -> None:
        self.problems: list[Problem] = []
        self._places = places
        self._anchors: dict[str, Any] = {}
        self._n_alias_nodes = 0
        self._events: Iterator[Any] = iter(())

    def build_document(self, events: Iterator[Any]) -> Any:
        """Return the data of the first document; refuse a second one."""
        self._events = events
        data: Any = None
        n_documents = 0
        for event in events:
            if isinstance(event, ev.DocumentStartEvent):
                n_documents += 1
                if n_documents > 1:
                    raise ConfigError([*self.problems, self._refuse(event, "a second document (`---`) begins here")])
                data = self._build(next(events), (), 0)
        return data

    def _refuse(self, event: Any, message: str, hint: str | None = None) -> Problem:
        mark = event.start_mark
        where = f"{self._places.file}:{mark.line + 1}:{mark.column + 1}"
        return Problem(message=message, where=where, hint=hint)

    def _build(self, event: Any, path: KeyPath, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ConfigError([*self.problems, self._refuse(event, f"nested deeper than {MAX_DEPTH} levels")])
        if isinstance(event, ev.AliasEvent):
            return self._expand(event)
        if isinstance(event, ev.ScalarEvent):
            value = self._read_scalar(event)
        elif isinstance(event, ev.SequenceStartEvent):
            value = self._build_list(path, depth)
        else:
            value = self._build_mapping(path, depth)
        self._check_tag(event, value)
        if event.anchor is not None:
            self._anchors[event.anchor] = value
        return value

    def _check_tag(self, event: Any, value: Any) -> None:
        tag = event.tag
        if tag is None or tag == "!":
            return
        short = tag.removeprefix(_TAG_PREFIX)
        if short not in _TAG_TYPES or not tag.startswith(_TAG_PREFIX):
            self.problems.append(self._refuse(event, f"the tag {tag!r} is not allowed", "write the plain value"))
        elif not isinstance(value, _TAG_TYPES[short]) or (short in {"int", "float"} and isinstance(value, bool)):
            self.problems.append(self._refuse(event, f"the value does not fit its tag !!{short}"))

    def _read_scalar(self, event: Any) -> Any:
        text: str = event.value
        if not is_unicode(text):
            self.problems.append(self._refuse(event, "the text holds half of a surrogate pair", "write the character"))
            return ""
        if event.style is not None or (event.tag or "").removeprefix(_TAG_PREFIX) in {"str", "!"}:
            return text
        try:
            return parse_plain(text)
        except ValueError as error:
            self.problems.append(self._refuse(event, str(error)))
            return None

    def _build_list(self, path: KeyPath, depth: int) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self._events), ev.SequenceEndEvent):
            here = (*path, len(items))
            self._places.mark(here, (event.start_mark.line + 1, event.start_mark.column + 1))
            items.append(self._build(event, here, depth + 1))
        return items

    def _build_mapping(self, path: KeyPath, depth: int) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        lines: dict[str, int] = {}
        merged: list[Any] = []
        while not isinstance(event := next(self._events), ev.MappingEndEvent):
            key = self._read_key(event, path, depth)
            line = event.start_mark.line + 1
            if key == "<<" and event.style is None:
                merged.append((event, self._build(next(self._events), (*path, key), depth + 1)))
                continue
            if key in lines:
                message = f"the key `{key}` stands here a second time; the first is on line {lines[key]}"
                self.problems.append(self._refuse(event, message, "keep one of them"))
            else:
                self._places.mark((*path, key), (line, event.start_mark.column + 1))
            lines.setdefault(key, line)
            mapping[key] = self._build(next(self._events), (*path, key), depth + 1)
        for event, sources in merged:
            self._merge(event, sources, mapping)
        return mapping

    def _read_key(self, event: Any, path: KeyPath, depth: int) -> str:
        if isinstance(event, ev.ScalarEvent) and event.value and is_unicode(event.value):
            self._check_tag(event, event.value)
            return str(event.value)
        self.problems.append(self._refuse(event, "a key must be plain text"))
        if not isinstance(event, ev.ScalarEvent):
            self._build(event, path, depth + 1)
        return f"?{event.start_mark.index}"

    def _merge(self, event: Any, sources: Any, mapping: dict[str, Any]) -> None:
        for source in sources if isinstance(sources, list) else [sources]:
            if not isinstance(source, dict):
                self.problems.append(self._refuse(event, "`<<` takes a mapping or a list of mappings"))
                return
            for key, value in source.items():
                mapping.setdefault(key, value)

    def _expand(self, event: Any) -> Any:
        if event.anchor not in self._anchors:
            message = f"the alias *{event.anchor} has no anchor before it, or stands inside its own"
            raise ConfigError([*self.problems, self._refuse(event, message)])
        value = self._anchors[event.anchor]
        self._n_alias_nodes += _count_nodes(value)
        if self._n_alias_nodes > MAX_ALIAS_NODES:
            message = f"the aliases of this file expand to more than {MAX_ALIAS_NODES:,} values"
            raise ConfigError([*self.problems, self._refuse(event, message, "write the values out, or use fewer")])
        # A copy, so that `--set` on one place does not change the other.
        return copy.deepcopy(value)


def _count_nodes(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_count_nodes, value.values()))
    return 1 + sum(map(_count_nodes, value)) if isinstance(value, list) else 1
