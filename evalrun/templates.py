"""The sandboxed, strict templates that job, graders and simulator share.

Template source comes from the job alone; values come from datasets and are only ever substituted, never compiled.
Rendering is byte-exact: no trailing newline is lost, no line end rewritten; a value that is not text is written as JSON
writes it. The scope holds data, nothing callable of
ours; an undefined name is an error; size is capped. A rendered text is never rendered again.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jinja2
from jinja2 import meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from evalrun.errors import PromptError

MAX_RENDERED_CHARS = 64 * 1024 * 1024
"""Longest text a template may make."""

RESERVED_NAMES = frozenset({"sample_id", "repeat", "vars"})
"""Names that templates see beside the sample's columns; no column may be called so."""

_OWN_NAMES = frozenset({"range", "self"})
"""Names that Jinja itself gives a value."""

_CARRIAGE_RETURN = "\x00evalrun-cr\x00"
_BLOCK = re.compile(r"(\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\})", re.DOTALL)


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox, with size limits on the operators that multiply text."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuse `*` and `**` whose result would be huge."""
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            size = left.bit_length() * max(right, 0)
        elif operator == "*" and (hasattr(left, "__len__") or hasattr(right, "__len__")):
            sized, times = (left, right) if hasattr(left, "__len__") else (right, left)
            size = len(sized) * times if isinstance(times, int) else 0
        else:
            size = 0
        if size > MAX_RENDERED_CHARS:
            msg = f"the result of {operator} would be larger than {MAX_RENDERED_CHARS} characters"
            raise OverflowError(msg)
        return super().call_binop(context, operator, left, right)


class _Form(NamedTuple):
    """A template of text and bare names: filling it in takes a tenth of what Jinja takes."""

    text: str
    """With `%s` where a value goes."""
    names: tuple[str, ...]
    n_chars: int
    """Of the text alone."""


def _write_value(value: Any) -> Any:
    """Write what is not text as JSON writes it: `true`, `null`, `[1, 2]`."""
    if isinstance(value, bool | list | tuple | Mapping) or value is None:
        return json.dumps(value, ensure_ascii=False)
    return value


def _make_environment() -> _Environment:
    environment = _Environment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # Prompts are plain text; HTML is made in report/render alone.
        finalize=_write_value,
        cache_size=0,
    )
    # Jinja's globals (range, dict, lipsum, cycler, joiner, namespace) go: templates see the sample, nothing else.
    environment.globals = {"range": environment.globals["range"]}
    # Same sample, same prompt: a request is identified by its content.
    del environment.filters["random"]
    return environment


_ENVIRONMENT = _make_environment()


class Template:
    """A compiled template, or plain text that needs no rendering.

    Args:
        source: The text as the job has it.
        where: Its place, for messages (`job.yaml:12`, or a key path).

    Raises:
        PromptError: The source is not a valid template.
    """

    __slots__ = ("_compiled", "_form", "names", "source", "where")

    def __init__(self, source: str, *, where: str) -> None:
        """Compile once; text without any Jinja mark is kept as it is."""
        self.source = source
        self.where = where
        self.names: frozenset[str] = frozenset()
        self._compiled: jinja2.Template | None = None
        self._form: _Form | None = None
        if any(mark in source for mark in ("{{", "{%", "{#")):
            self._compile()

    def _compile(self) -> None:
        # Jinja rewrites CRLF to LF while it reads; a stand-in carries the carriage returns of plain text through.
        pieces = _BLOCK.split(self.source)
        pieces[::2] = [piece.replace("\r", _CARRIAGE_RETURN) for piece in pieces[::2]]
        try:
            tree = _ENVIRONMENT.parse("".join(pieces))
            for data in tree.find_all(nodes.TemplateData):
                data.data = data.data.replace(_CARRIAGE_RETURN, "\r")
            self.names = frozenset(meta.find_undeclared_variables(tree)) - {"range"}
            self._form = _find_form(tree)
            if self._form is None:
                self._compiled = jinja2.Template.from_code(_ENVIRONMENT, _ENVIRONMENT.compile(tree), {})
        except RecursionError as error:
            raise PromptError("the template is nested too deeply", where=self.where) from error
        except jinja2.TemplateSyntaxError as error:
            shown = self._find_own_error(error)
            raise PromptError(
                f"the template does not compile: {shown.message} (line {shown.lineno} of the template)",
                where=self.where,
                hint="write literal braces as {{ '{{' }}",
            ) from error

    def _find_own_error(self, error: jinja2.TemplateSyntaxError) -> jinja2.TemplateSyntaxError:
        """Return the error of the source as it was written, where the stand-in changed what is said of it."""
        shown = error
        try:
            _ENVIRONMENT.parse(self.source)
        except jinja2.TemplateSyntaxError as own:
            shown = own
        return shown

    @property
    def is_literal(self) -> bool:
        """True when the source holds nothing to render."""
        return self._compiled is None and self._form is None

    def render(self, scope: Mapping[str, Any]) -> str:
        """Return the text for one scope.

        Args:
            scope: What `make_scope` returned.

        Raises:
            PromptError: A name is undefined, the sandbox refused, or the text grew too long.
        """
        try:
            if self._form is not None:
                return self._fill(self._form, scope)
            return self.source if self._compiled is None else "".join(self._generate(self._compiled, scope))
        except jinja2.UndefinedError as error:
            raise PromptError(
                str(error.message or error),
                where=self.where,
                hint="the sample has: " + ", ".join(sorted(map(str, scope))),
            ) from error
        except PromptError:
            raise
        except Exception as error:  # Whatever an expression raises is the template author's to mend.
            raise PromptError(f"the template fails: {_describe_error(error)}", where=self.where) from error

    def _fill(self, form: _Form, scope: Mapping[str, Any]) -> str:
        values, length = [], form.n_chars
        for name in form.names:
            if name not in scope:
                raise jinja2.UndefinedError(f"{name!r} is undefined")
            value = scope[name]
            if type(value) is not str:
                value = str(_write_value(value))
            length += len(value)
            values.append(value)
        if length > MAX_RENDERED_CHARS:
            raise self._make_size_error()
        return form.text % tuple(values)

    def _generate(self, compiled: jinja2.Template, scope: Mapping[str, Any]) -> list[str]:
        parts, length = [], 0
        context = compiled.new_context({**_ENVIRONMENT.globals, **scope}, shared=True)
        for part in compiled.root_render_func(context):
            length += len(part)
            if length > MAX_RENDERED_CHARS:
                raise self._make_size_error()
            parts.append(part)
        return parts

    def _make_size_error(self) -> PromptError:
        return PromptError(f"the rendered text is longer than {MAX_RENDERED_CHARS} characters", where=self.where)


def _find_form(tree: nodes.Template) -> _Form | None:
    """Return a template of text and bare names as a form to fill in; None for any other."""
    text, names, n_chars = "", [], 0
    for output in tree.body:
        if not isinstance(output, nodes.Output):
            return None
        for node in output.nodes:
            if isinstance(node, nodes.TemplateData):
                text += node.data.replace("%", "%%")
                n_chars += len(node.data)
            elif isinstance(node, nodes.Name) and node.name not in _OWN_NAMES:
                text += "%s"
                names.append(node.name)
            else:
                return None
    return _Form(text, tuple(names), n_chars)


class Expression:
    """A compiled condition over a sample (`where`, `when`).

    Args:
        source: A Jinja expression such as `category == 'json' and n > 3`.
        where: Its place, for messages.

    Raises:
        PromptError: The source is not a valid expression.
    """

    __slots__ = ("_evaluate", "names", "source", "where")

    def __init__(self, source: str, *, where: str) -> None:
        """Compile once."""
        self.source = source
        self.where = where
        try:
            self._evaluate = _ENVIRONMENT.compile_expression(source, undefined_to_none=False)
            tree = _ENVIRONMENT.parse("{{ (" + source + ") }}")
        except jinja2.TemplateSyntaxError as error:
            raise PromptError(
                f"the expression {source!r} does not compile: {error.message}",
                where=where,
                hint="write for example: category == 'json' and level > 2",
            ) from error
        self.names = frozenset(meta.find_undeclared_variables(tree)) - {"range"}

    def is_true(self, scope: Mapping[str, Any]) -> bool:
        """Return whether the expression holds for one scope.

        Raises:
            PromptError: A name is undefined, or the expression fails.
        """
        try:
            return bool(self._evaluate(scope))
        except jinja2.UndefinedError as error:
            raise PromptError(
                f"{error.message or error} in the expression {self.source!r}",
                where=self.where,
                hint="the sample has: " + ", ".join(sorted(map(str, scope))),
            ) from error
        except Exception as error:  # Whatever an expression raises is the job author's to mend.
            raise PromptError(f"the expression {self.source!r} fails: {error!s}", where=self.where) from error


def _describe_error(error: Exception) -> str:
    """Return what an error says, or its kind when it says nothing."""
    return str(error) or type(error).__name__


def make_scope(row: Mapping[str, Any], *, sample_id: str, repeat: int, vars_: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a template sees: the columns, `sample_id`, `repeat` and `vars`.

    Args:
        row: The sample's columns.
        sample_id: Its id.
        repeat: 0-based.
        vars_: The job's variables.
    """
    return {**row, "sample_id": sample_id, "repeat": repeat, "vars": vars_}
