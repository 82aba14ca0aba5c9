"""The python check: a function of the job's author decides, in a process of its own.

The file is read and looked at here, without running it; what runs later is the text that was read. A function that
raises, hangs, or returns no verdict leaves the answer ungraded, never wrong.
"""

import ast
import difflib
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from evalrun.analysis.graders.marks import Mark
from evalrun.analysis.graders.python_place import PythonPlace
from evalrun.analysis.graders.python_worker import PythonWorker, find_worker
from evalrun.errors import ConfigError, GraderFaultError
from evalrun.grader_options import PythonOptions

MAX_SOURCE_BYTES = 1024 * 1024
"""Largest file of a grader."""

PARAMETERS = ("output", "sample")
"""What a function is called with, by position."""


class PythonCall(NamedTuple):
    """A function that is ready to be called, and the sample that it is called with."""

    worker: PythonWorker
    function: str
    sample: Mapping[str, Any]


class LoadedPython(NamedTuple):
    """A python grader whose file was read, looked at and loaded."""

    render: Callable[[Mapping[str, Any]], PythonCall]
    digest: str
    """sha256 hex of the file."""


def load_python(options: PythonOptions, place: PythonPlace | None, where: Callable[..., str]) -> LoadedPython:
    """Read the file of a python grader, look at it without running it, then load it in its process.

    Args:
        options: The grader.
        place: Where its file lies; None where nothing says so, as in data.
        where: Names places below the grader.

    Raises:
        ConfigError: The file is not there, does not compile, has no such function, or raises when it is loaded.
    """
    if place is None:
        raise ConfigError("a python grader stands in a job only", where=where("type"))
    path = (place.folder / options.file).absolute()
    source = _read_source(path, options.file, where("file"))
    fault = find_source_fault(source, options.function)
    if fault is not None:
        line, message = fault
        raise ConfigError(message, where=f"{path}:{line}", hint=f"it is named at {where('file')}")
    worker = find_worker(source, path, place.hidden)
    try:
        worker.load()
    except GraderFaultError as error:
        raise ConfigError(str(error), where=where("file")) from error
    if options.function not in worker.functions:
        message = f"`{options.function}` in {options.file} is nothing that can be called"
        raise ConfigError(message, where=where("function"))

    def render(scope: Mapping[str, Any]) -> PythonCall:
        return PythonCall(worker, options.function, scope)

    return LoadedPython(render, hashlib.sha256(source.encode()).hexdigest())


def grade_python(output: str, call: PythonCall, options: PythonOptions) -> Mark:  # noqa: ARG001 - as every check is called
    """Return what the function says of an output.

    Raises:
        GraderFaultError: It says nothing that is a verdict, or nothing in time.
    """
    reply = call.worker.call(call.function, output, call.sample)
    score, passed, reason = reply.get("score"), reply.get("passed"), reply.get("reason")
    if type(score) is not float or type(passed) is not bool or type(reason) is not str or not 0 <= score <= 1:
        # The other end has checked it; code that writes into the pipe has not.
        raise GraderFaultError("grader_error", f"{call.function} wrote into what is not its own")
    return Mark(score, passed, reason)


def find_source_fault(source: str, function: str) -> tuple[int, str] | None:
    """Return line and reason why a file cannot hold the function; None when it can. Runs nothing."""
    try:
        tree = ast.parse(source)
        compile(tree, "grader", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return getattr(error, "lineno", None) or 1, f"it does not compile: {getattr(error, 'msg', None) or error}"
    found: ast.stmt | None = None
    for node in tree.body:
        if function in _list_names(node):
            found = node
    if found is None:
        known = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        names = f"; it defines {', '.join(known[:10])}" if known else ""
        return 1, f"there is no function `{function}` at its top level{names}"
    if isinstance(found, ast.AsyncFunctionDef):
        return found.lineno, f"`{function}` is an async function; a grader is a plain one"
    if isinstance(found, ast.FunctionDef) and not _takes_two(found.args):
        return found.lineno, f"`{function}` must take two parameters: ({', '.join(PARAMETERS)})"
    return None


def _read_source(path: Path, shown: str, where: str) -> str:
    try:
        if path.stat().st_size > MAX_SOURCE_BYTES:
            raise ConfigError(f"{shown} is larger than {MAX_SOURCE_BYTES:,} bytes", where=where)
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        siblings = [item.name for item in path.parent.glob("*.py")]
        near = difflib.get_close_matches(path.name, siblings, n=1)
        hint = f"did you mean `{near[0]}`?" if near else "paths are relative to the job"
        raise ConfigError(f"cannot read {shown}: {error.strerror or error}", where=where, hint=hint) from error
    except ValueError as error:
        raise ConfigError(f"{shown} is not UTF-8", where=where) from error


def _list_names(node: ast.stmt) -> set[str]:
    """Return the names that a statement at the top level gives to something."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name for alias in node.names}
    if isinstance(node, ast.FunctionDef | ast.If | ast.Try | ast.With | ast.Assign | ast.AnnAssign):
        inner = {name for child in ast.walk(node) if isinstance(child, ast.stmt) and child is not node
                 for name in _list_names(child)}  # fmt: skip
        return inner | {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
    return set()


def _takes_two(parameters: ast.arguments) -> bool:
    n_most = len(parameters.posonlyargs) + len(parameters.args)
    n_least = n_most - len(parameters.defaults)
    has_needed_keyword = any(default is None for default in parameters.kw_defaults)
    return (
        n_least <= len(PARAMETERS)
        and (n_most >= len(PARAMETERS) or parameters.vararg is not None)
        and not (has_needed_keyword)
    )
