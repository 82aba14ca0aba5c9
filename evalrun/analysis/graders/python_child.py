"""The other end of the python grader: a process of its own that holds one file of the author and calls its functions.

Run as a script, not as a module of the package, so that it starts in a moment and sees nothing of evalrun: only the
standard library is imported. Frames of JSON (four bytes of length, then the text) enter by standard input and leave by
what was standard output; what the author's code prints goes nowhere.
"""

import json
import math
import os
import resource
import signal
import struct
import sys
import traceback
from collections.abc import Mapping
from typing import Any, BinaryIO

MAX_REASON_CHARS = 2_000
"""Longest reason that is passed on."""

_HEAD = struct.Struct(">I")
_KNOWN_KEYS = ("score", "passed", "reason")


def main() -> None:
    """Answer frames until the other end closes."""
    requests, replies = _take_streams()
    own_pid = os.getpid()
    space: dict[str, Any] = {}
    while (request := _read_frame(requests)) is not None:
        # Nobody else may be left to stop a call that never ends: then the system does.
        signal.setitimer(signal.ITIMER_REAL, request["limit_s"])
        reply = _answer(request, space)
        if os.getpid() != own_pid:
            os._exit(0)  # A child that the author's code made and that came back here.
        signal.setitimer(signal.ITIMER_REAL, 0)
        content = json.dumps({**reply, "id": request["id"]}).encode()
        replies.write(_HEAD.pack(len(content)) + content)
        replies.flush()


def _take_streams() -> tuple[BinaryIO, BinaryIO]:
    """Return the streams to the other end, out of reach of what reads and prints in the usual way."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    return requests, replies


def _read_frame(requests: BinaryIO) -> dict[str, Any] | None:
    head = requests.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    request: dict[str, Any] = json.loads(requests.read(_HEAD.unpack(head)[0]))
    return request


def _answer(request: Mapping[str, Any], space: dict[str, Any]) -> dict[str, Any]:
    """Do what a request asks: load the file, or call a function of it."""
    try:
        if "source" in request:
            _load(request, space)
            return {"functions": [name for name, value in space.items() if callable(value)]}
        return _check(space[request["function"]](request["output"], request["sample"]))
    except MemoryError:
        return {"error": "it took more memory than it may", "is_worn": True}
    except BaseException as error:  # noqa: BLE001 - whatever the author's code raises, the answer is not wrong for it
        return {"error": _describe(error, request.get("path", space.get("__file__", "")))}


def _load(request: Mapping[str, Any], space: dict[str, Any]) -> None:
    _limit_memory(request["memory_bytes"])
    path = request["path"]
    sys.path.insert(0, os.path.dirname(path))  # noqa: PTH120 - pathlib takes a third of the time to start
    sys.argv = [path]
    space.update(__name__="evalrun_grader", __file__=path, __builtins__=__builtins__)
    exec(compile(request["source"], path, "exec"), space)  # noqa: S102 - the author's own code, named in the job


def _limit_memory(n_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (n_bytes, n_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _check(value: Any) -> dict[str, Any]:
    """Return what a grader returned as score, verdict and reason; an error where it is nothing of the kind."""
    if isinstance(value, dict):
        return _check_dict(value)
    value = _make_plain(value)
    if isinstance(value, bool):
        return {"score": 1.0 if value else 0.0, "passed": value, "reason": f"returned {value}"}
    if isinstance(value, int | float):
        if not 0 <= value <= 1:  # Not a number is none of these.
            return {"error": f"it returned {_shorten(repr(value))}; a score is from 0 to 1"}
        return {"score": float(value), "passed": value > 0, "reason": f"returned {value:.4g}"}
    return {"error": f"it returned {type(value).__name__}; return a bool, a score from 0 to 1, or a dict"}


def _check_dict(value: dict[Any, Any]) -> dict[str, Any]:
    unknown = [key for key in value if key not in _KNOWN_KEYS]
    if unknown:
        return {"error": f"it returned the key {_shorten(repr(unknown[0]))}; known keys: {', '.join(_KNOWN_KEYS)}"}
    score, passed, reason = (_make_plain(value.get(key)) for key in _KNOWN_KEYS)
    if score is None and passed is None:
        return {"error": "it returned neither `score` nor `passed`"}
    if passed is not None and not isinstance(passed, bool):
        return {"error": f"it returned {_shorten(repr(passed))} as `passed`, which is True or False"}
    if isinstance(score, bool):
        score = float(score)
    if score is not None and (not isinstance(score, int | float) or math.isnan(score) or not 0 <= score <= 1):
        return {"error": f"it returned {_shorten(repr(score))} as `score`, which is from 0 to 1"}
    if score is None:
        score = 1.0 if passed else 0.0
    passed = score > 0 if passed is None else passed
    text = f"returned {score:.4g}" if reason is None else _shorten(str(reason))
    return {"score": float(score), "passed": passed, "reason": text}


def _make_plain(value: Any) -> Any:
    """Return a number of numpy or the like as Python's own."""
    is_scalar = getattr(value, "shape", None) == () and callable(getattr(value, "item", None))
    return value.item() if is_scalar else value


def _describe(error: BaseException, path: str) -> str:
    """Return the last line of what Python would print, and the line of the author's file that it came from."""
    text = _shorten("".join(traceback.format_exception_only(error)).strip().splitlines()[-1])
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f"{text} (line {lines[-1]})" if lines else text


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_REASON_CHARS else text[:MAX_REASON_CHARS] + "…"


if __name__ == "__main__":
    main()
