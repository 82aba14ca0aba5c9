"""Server-sent events as the grammar allows them, and as it does not: Q10's event, Q16, Q20 to Q23, Q26, Q29.

Each works on a script whose pieces are events; where an earlier quirk has taken events apart, it finds fewer of them.
"""

import json
from collections.abc import Mapping
from itertools import cycle
from typing import Any, Final

from evalrun.simulator.codec import parse_json
from evalrun.simulator.quirks.quirk import Bend, Quirk, Scene
from evalrun.simulator.script import DONE_EVENT, Piece, Script

_DATA: Final = b"data: {"
_LINE_ENDS: Final[Mapping[str | None, tuple[tuple[bytes, bytes], ...]]] = {
    "lf": ((b"\n", b"\n"),),
    "crlf": ((b"\r\n", b"\r\n"),),
    "cr": ((b"\r", b"\r"),),
    # The end of an event's last line and of the blank one; CR before LF would be one line end instead of two.
    "mixed": (
        (b"\n", b"\n"),
        (b"\r\n", b"\r\n"),
        (b"\r", b"\r"),
        (b"\r\n", b"\n"),
        (b"\n", b"\r\n"),
        (b"\r", b"\r\n"),
        (b"\n", b"\r"),
    ),
    "bytes": ((b"\r\n", b"\r\n"),),
}
_FAILED_EVENT: Final = b'event: error\ndata: {"message":"The upstream provider failed.","type":"server_error"}\n\n'
_COMMENTS: Final[Mapping[str | None, tuple[bytes, ...]]] = {
    "comment": (b": OPENROUTER PROCESSING\n\n", b":\n\n", b": keep-alive\n: keep-alive\n\n"),
    "id": (b"id: 1\n: keep-alive\n\n", b"retry: 3000\n\n", b"event: ping\n: ping\nid: 2\n\n"),
}
_MAX_SPLIT_BYTES: Final = 1_000_000
"""A piece for each byte of more would fill the memory."""


def _append_error_event(script: Script, quirk: Quirk, _: Scene) -> bool:
    if quirk.variant == "event":
        script.pieces.append(Piece(data=_FAILED_EVENT))
    return True


def _cut_json(script: Script, _: Quirk, scene: Scene) -> bool:
    """Cut the JSON of the body, or of the event in the middle of a stream, in half."""
    if not scene.draft.is_stream:
        body = script.body
        script.pieces = [Piece(data=body[: len(body) // 2])]
        return bool(body)
    piece = _find_middle(script)
    if piece is None:
        return False
    piece.data = piece.data[: len(piece.data) // 2] + b"\n\n"
    return True


def _change_line_ends(script: Script, quirk: Quirk, _: Scene) -> bool:
    ends = cycle(_LINE_ENDS[quirk.variant])
    for piece in script.pieces:
        line_end, blank_end = next(ends)
        lines = piece.data.removesuffix(b"\n\n").split(b"\n")
        if piece.data.endswith(b"\n\n"):
            piece.data = line_end.join(lines) + line_end + blank_end
    return quirk.variant != "bytes" or split_bytes(script)


def split_bytes(script: Script, *, wait_s: float = 0.0) -> bool:
    """Make each byte a piece that waits `wait_s`, or as long as its old piece if that is longer; False if too many."""
    n_bytes = sum(len(piece.data) for piece in script.pieces)
    if not 0 < n_bytes <= _MAX_SPLIT_BYTES:
        return False
    script.pieces = [
        Piece(data=piece.data[place : place + 1], wait_s=wait_s if place else max(piece.wait_s, wait_s))
        for piece in script.pieces
        for place in range(len(piece.data))
    ]
    return True


def _insert_comments(script: Script, quirk: Quirk, _: Scene) -> bool:
    comments = cycle(_COMMENTS[quirk.variant])
    for piece in script.pieces:
        piece.data = next(comments) + piece.data
    return True


def _spread_data(script: Script, _: Quirk, __: Scene) -> bool:
    """Write each JSON over several lines, each a `data:` of its own; line feeds are white space between its tokens."""
    changed = False
    for piece in script.pieces:
        if (value := _read_event(piece)) is not None:
            lines = json.dumps(value, indent=0).encode("ascii").split(b"\n")
            piece.data = b"".join(b"data: %b\n" % line for line in lines) + b"\n"
            changed = True
    return changed


def _drop_space(script: Script, _: Quirk, __: Scene) -> bool:
    changed = False
    for piece in script.pieces:
        if piece.data.startswith(b"data: "):
            piece.data = b"data:" + piece.data.removeprefix(b"data: ").replace(b"\ndata: ", b"\ndata:")
            changed = True
    return changed


def _drop_blank_line(script: Script, quirk: Quirk, _: Scene) -> bool:
    has_done = script.pieces[-1].data == DONE_EVENT
    if quirk.variant == "done" and not has_done:
        return False
    if quirk.variant == "event" and has_done:
        script.pieces.pop()
    script.pieces[-1].data = script.pieces[-1].data.rstrip(b"\n")
    return True


def _glue_frames(script: Script, _: Quirk, __: Scene) -> bool:
    """Cut the event in the middle within its JSON, and let the next one follow in the same line."""
    piece = _find_middle(script)
    if piece is None or piece is script.pieces[-1]:
        return False
    place = next(place for place, other in enumerate(script.pieces) if other is piece)
    following = script.pieces.pop(place + 1)
    piece.data = piece.data[: len(piece.data) // 2] + following.data
    return True


def _find_middle(script: Script) -> Piece | None:
    """Return the event in the middle of those with JSON, the first of two; None when there is none."""
    events = [piece for piece in script.pieces if piece.data.startswith(_DATA)]
    before_finish = next((place for place, piece in enumerate(events) if FINISH in piece.data), len(events))
    return events[max(before_finish // 2, min(1, before_finish - 1))] if before_finish else None


def _read_event(piece: Piece) -> Any:
    """Return the JSON of an event of one line; None when it holds none."""
    if not piece.data.startswith(_DATA):
        return None
    try:
        return parse_json(piece.data.removeprefix(b"data: "))
    except ValueError:
        return None


FINISH: Final = b'"finish_reason":"'
"""Begins a finish reason; within a JSON string the quotes would be escaped."""

BENDS: Final[Mapping[str, Bend]] = {
    "Q10": _append_error_event,
    "Q16": _cut_json,
    "Q29": _glue_frames,
    "Q26": _drop_blank_line,
    "Q22": _spread_data,
    "Q23": _drop_space,
    "Q21": _insert_comments,
    # Line ends last: the others look for line feeds.
    "Q20": _change_line_ends,
}
