"""Prompts made ready: templates compiled once, messages built for each sample.

A prompt's options enter; lists of chat messages leave. Only strings that the job wrote are templates; messages that a
sample itself holds are data and pass through untouched.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from evalrun.errors import DatasetError, Problem, PromptError
from evalrun.job.canonical import encode_canonical, encode_json
from evalrun.job.document import suggest_or_list
from evalrun.job.file_marks import FileMarks
from evalrun.job.image_files import load_image_url
from evalrun.job.places import KeyPath
from evalrun.job.readers import parse_cell
from evalrun.job.scalars import name_value
from evalrun.options import PromptOptions
from evalrun.records import Sample
from evalrun.templates import Template

Scope = Mapping[str, Any]
Render = Callable[[Scope], Any]
Message = tuple[dict[str, Any], Render | None]
"""A message as the job has it, and what makes its `content` for each sample; None when it is the same for all."""
Where = Callable[[KeyPath], str]

_SLOT = "\x00content\x00"
"""Stands for the content of a message while its surroundings are encoded."""

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
"""Roles that the wire knows."""

_MAY_SAY_NOTHING = ("assistant", "function")
"""Roles whose `content` may be null: one calls tools instead, the other answered with nothing."""


class CompiledPrompt:
    """A prompt whose templates are compiled.

    Args:
        options: The prompt, with its file already loaded.
        path: Its key path in the job.
        where: Gives the place of a key path.
        files_root: Folder below which images are read; None when none are.
        marks: Remembers the images; None when nobody asks.

    Raises:
        PromptError: A template does not compile, or a message is not one; all such places at once.
    """

    __slots__ = ("_column", "_forms", "_has_parts", "_messages", "_renders", "fixed", "name", "uses_repeat")

    def __init__(
        self,
        options: PromptOptions,
        path: KeyPath,
        where: Where,
        files_root: Path | None,
        marks: FileMarks | None = None,
    ) -> None:
        """Compile every string once."""
        self.name = options.name
        self._column = options.messages_column
        compiler = _Compiler(where, files_root, marks)
        self._messages = compiler.compile_messages(options, path)
        if compiler.problems:
            raise PromptError(compiler.problems)
        self.uses_repeat = "repeat" in compiler.names
        self.fixed: Sequence[Mapping[str, Any]] = [fixed for fixed, render in self._messages if render is None]
        """The messages that are the same for every sample."""
        self._has_parts = any(not isinstance(fixed.get("content"), str | None) for fixed, _ in self._messages)
        self._renders = [render for _, render in self._messages if render is not None]
        self._forms = None if self._column is not None else _make_forms(self._messages)

    def build(self, sample: Sample, scope: Scope) -> list[Mapping[str, Any]]:
        """Return the messages for one sample.

        Args:
            sample: The sample.
            scope: What its templates see.

        Raises:
            PromptError: A template does not fit the sample.
            DatasetError: The sample's own messages, or a file it names, cannot be used.
        """
        if self._column is not None:
            return _read_column(sample, self._column)
        built: list[Mapping[str, Any]] = []
        for fixed, render in self._messages:
            message = dict(fixed)
            if render is not None:
                message["content"] = render(scope)
            built.append(message)
        return built

    def build_varying(self, sample: Sample, scope: Scope) -> Sequence[Mapping[str, Any]]:
        """Return what differs between samples: messages with a `content` alone; the rest is as in `build`."""
        if self._column is not None:
            return _read_column(sample, self._column)
        return [{"content": render(scope)} for render in self._renders]

    def encode(self, sample: Sample, scope: Scope) -> tuple[bytes, bytes]:
        """Return the messages for one sample as JSON, in the order written and canonical; the rest is as in `build`."""
        if self._forms is not None:
            contents = [render(scope) for render in self._renders]
            try:
                written = tuple([orjson.dumps(content) for content in contents])
                # A text is canonical as it is written; a list of parts holds keys to be sorted.
                canonical = written if not self._has_parts else tuple(map(_dump_sorted, contents))
            except TypeError:
                pass  # What orjson refuses is encoded all at once, in the one way of `encode_json`.
            else:
                form, key_form = self._forms
                return form % written, key_form % canonical
        messages = self.build(sample, scope)
        return encode_json(messages), encode_canonical(messages)


def _read_column(sample: Sample, column: str) -> list[Mapping[str, Any]]:
    if column not in sample.row:
        raise DatasetError(f"the sample has no column `{column}`, which holds its messages", where=sample.where)
    messages = sample.row[column]
    if isinstance(messages, str):
        # CSV and most Parquet files can hold a list only as JSON text.
        try:
            messages = parse_cell(messages)
        except ValueError as error:
            raise DatasetError(f"column `{column}` is not a list of messages: {error}", where=sample.where) from error
    if not isinstance(messages, list) or not messages:
        message = f"column `{column}` must be a list of messages, got {name_value(messages)}"
        raise DatasetError(message, where=sample.where, hint='write [{"role": "user", "content": "…"}]')
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise DatasetError(f"message {number} of column `{column}` has no `role`", where=sample.where)
    return messages


def _dump_sorted(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _make_forms(messages: Sequence[Message]) -> tuple[bytes, bytes] | None:
    """Return the JSON of messages, as written and canonical, with `%b` where a content goes; None if they have none.

    What is the same for every sample is encoded here, once.
    """
    marked = [fixed if render is None else {**fixed, "content": _SLOT} for fixed, render in messages]
    n_slots = sum(render is not None for _, render in messages)
    try:
        encoded = (orjson.dumps(marked), _dump_sorted(marked))
    except TypeError:
        return None
    written, canonical = (text.replace(b"%", b"%%").split(orjson.dumps(_SLOT)) for text in encoded)
    if len(written) != n_slots + 1:
        return None  # A text of the job looks like a slot.
    return b"%b".join(written), b"%b".join(canonical)


class _Compiler:
    """Turns the strings of messages into templates; collects what cannot be used."""

    def __init__(self, where: Where, files_root: Path | None, marks: FileMarks | None) -> None:
        self.problems: list[Problem] = []
        self.names: set[str] = set()
        self._where = where
        self._files_root = files_root
        self._marks = marks

    def compile_messages(self, options: PromptOptions, path: KeyPath) -> list[Message]:
        compiled: list[Message] = []
        for key in ("system", "user"):
            source = getattr(options, key)
            if source is not None:
                compiled.append(self._compile_content({"role": key, "content": source}, (*path, key)))
        for index, message in enumerate(options.messages or ()):
            compiled.append(self._compile_message(message, (*path, "messages", index)))
        return compiled

    def _compile_message(self, message: Mapping[str, Any], path: KeyPath) -> Message:
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            hint = suggest_or_list(str(role), ROLES, label="roles")
            given = "a message needs a `role`" if role is None else f"unknown role {name_value(role)}"
            self._refuse(given, (*path, "role"), hint)
        if content is None:
            if role not in _MAY_SAY_NOTHING:
                self._refuse("a message needs `content`", path)
            return dict(message), None
        here = (*path, "content")
        if isinstance(content, str):
            return self._compile_content(message, here)
        if isinstance(content, list | tuple) and content:
            return dict(message), self._compile_parts(list(content), here)
        self._refuse(f"`content` must be text or a list of parts, got {name_value(content)}", here)
        return dict(message), None

    def _compile_content(self, message: Mapping[str, Any], path: KeyPath) -> Message:
        """Compile a content that is text; one without any template needs no rendering."""
        template = self._compile_template(message["content"], path)
        return dict(message), None if template is None or template.is_literal else template.render

    def _compile_text(self, source: str, path: KeyPath) -> Render:
        template = self._compile_template(source, path)
        return template.render if template is not None else lambda _scope: ""

    def _compile_template(self, source: str, path: KeyPath) -> Template | None:
        try:
            template = Template(source, where=self._where(path))
        except PromptError as error:
            self.problems += error.problems
            return None
        self.names |= template.names
        return template

    def _compile_parts(self, parts: list[Any], path: KeyPath) -> Render:
        renders = [self._compile_part(part, (*path, index)) for index, part in enumerate(parts)]
        return lambda scope: [render(scope) for render in renders]

    def _compile_part(self, part: Any, path: KeyPath) -> Render:
        if not isinstance(part, Mapping):
            hint = "write {type: text, text: …}"
            self._refuse(f"a content part must be a mapping, got {name_value(part)}", path, hint)
            return lambda _scope: part
        if part.get("type") == "image_file" and "image_file" not in part:
            hint = 'write {type: image_file, image_file: "{{ path }}"}'
            self._refuse("a part of type `image_file` needs the key `image_file`", path, hint)
        return self._compile_image(part, path) if "image_file" in part else self._compile_value(part, path)

    def _compile_value(self, value: Any, path: KeyPath) -> Render:
        if isinstance(value, str):
            return self._compile_text(value, path)
        if isinstance(value, Mapping):
            renders = {key: self._compile_value(item, (*path, key)) for key, item in value.items()}
            return lambda scope: {key: render(scope) for key, render in renders.items()}
        if isinstance(value, list):
            items = [self._compile_value(item, (*path, index)) for index, item in enumerate(value)]
            return lambda scope: [render(scope) for render in items]
        return lambda _scope: value

    def _compile_image(self, part: Mapping[str, Any], path: KeyPath) -> Render:
        here, source, root, marks = (*path, "image_file"), part["image_file"], self._files_root, self._marks
        unknown = sorted(set(part) - {"type", "image_file", "detail"})
        if unknown:
            self._refuse(f"unknown key `{unknown[0]}` beside `image_file`", (*path, unknown[0]), "known: type, detail")
        if root is None:
            hint = "write for example `files_root: .` at the top of the job"
            self._refuse("`image_file` needs a `files_root`, below which files are read", here, hint)
        if not isinstance(source, str):
            self._refuse(f"`image_file` must be text, got {name_value(source)}", here)
        if root is None or not isinstance(source, str):
            return lambda _scope: part
        render = self._compile_text(source, here)
        detail = {"detail": part["detail"]} if "detail" in part else {}

        def build(scope: Scope) -> dict[str, Any]:
            url = load_image_url(render(scope), root, marks)
            return {"type": "image_url", "image_url": {"url": url, **detail}}

        return build

    def _refuse(self, message: str, path: KeyPath, hint: str | None = None) -> None:
        self.problems.append(Problem(message=message, where=self._where(path), hint=hint))
