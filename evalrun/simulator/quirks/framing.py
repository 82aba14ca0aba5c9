"""Bodies and connections that are not what their head promises: Q15, Q17, Q18, Q25, Q47 to Q50, Q55, Q56, Q60.

A server that has accepted a connection cannot refuse it; what comes nearest is done instead, and the catalogue says so.
"""

import math
import struct
import zlib
from codecs import BOM_UTF8
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, Literal

from evalrun.simulator.quirks.events import FINISH, split_bytes
from evalrun.simulator.quirks.quirk import Bend, Quirk, Scene
from evalrun.simulator.script import Piece, Script
from evalrun.simulator.usage import Counts

DRIP_S: Final = 0.05
"""Between two bytes of Q47, unless it says otherwise."""
STALL_S: Final = 150.0
"""Length of the stall of Q48, unless it says otherwise: longer than any default deadline but the total one."""
HUGE_BYTES: Final = 10_000_000
"""Length of what Q55 adds, unless it says otherwise."""
BOMB_MB: Final = 100
"""What the bomb of Q50 holds, unless it says otherwise."""

_MB: Final = 1_000_000
_N_BLANK_LINES: Final = 4
_FILL_BYTES: Final = 65_536
_GZIP: Final = 16 + zlib.MAX_WBITS
_GZIP_TRAILER_BYTES: Final = 8
_GARBAGE: Final = b'\x00\xff\xfe garbage\ndata: {"choices":[{"index":0,"del\n\n'
_TLS_ALERT: Final = b"\x15\x03\x03\x00\x02\x02\x28"
"""Fatal, handshake_failure."""


def _send_nothing(script: Script, _: Quirk, __: Scene) -> Literal[True]:
    script.pieces = []
    return True


def _open_with_newlines(script: Script, _: Quirk, __: Scene) -> Literal[True]:
    script.pieces[:0] = [Piece(data=b"\n") for _ in range(_N_BLANK_LINES)]
    return True


def _open_with_bom(script: Script, _: Quirk, __: Scene) -> Literal[True]:
    script.pieces.insert(0, Piece(data=BOM_UTF8))
    return True


def _cut(script: Script, quirk: Quirk, _: Scene) -> bool:
    """End the connection half-way to the finish reason."""
    if quirk.variant in {"clean", "done"}:
        return True
    body = script.body
    finish = body.find(FINISH)
    script.cut_after_bytes = (len(body) if finish < 0 else finish) // 2
    script.ending = "rst" if quirk.variant == "rst" else "fin"
    if quirk.variant == "length":
        script.framing, script.declared_bytes = "length", len(body)
    elif quirk.variant != "rst":
        script.framing = "chunked" if quirk.variant == "chunked" else "close"
    return bool(body)


def _drip(script: Script, quirk: Quirk, _: Scene) -> bool:
    return split_bytes(script, wait_s=DRIP_S if quirk.number is None else quirk.number)


def _stall(script: Script, quirk: Quirk, _: Scene) -> bool:
    stall_s = STALL_S if quirk.number is None else quirk.number
    if quirk.variant == "first-byte":
        script.delay_s += stall_s
        return True
    if len(script.pieces) == 1:
        whole = script.pieces[0]
        middle = len(whole.data) // 2
        script.pieces = [Piece(data=whole.data[:middle], wait_s=whole.wait_s), Piece(data=whole.data[middle:])]
    if not script.pieces:
        return False
    script.pieces[len(script.pieces) // 2].wait_s += stall_s
    return True


def _close_unannounced(script: Script, quirk: Quirk, _: Scene) -> Literal[True]:
    if quirk.variant != "after-reply":
        script.framing, script.pieces = "raw", []
    script.ending = "rst" if quirk.variant == "reset" else "fin"
    return True


def _compress(script: Script, quirk: Quirk, _: Scene) -> bool:
    """Send the body as gzip, each piece readable as soon as it is there; lies leave bytes out."""
    script.headers.append(("content-encoding", "gzip"))
    if quirk.variant == "bomb":
        n_mb = BOMB_MB if quirk.number is None else int(quirk.number)
        script.pieces = [Piece(data=_make_bomb(n_mb, script.body))]
        return True
    packer = zlib.compressobj(wbits=_GZIP)
    for piece in script.pieces:
        piece.data = packer.compress(piece.data) + packer.flush(zlib.Z_SYNC_FLUSH)
    script.pieces.append(Piece(data=packer.flush()))
    n_bytes = len(script.body)
    if quirk.variant == "no-trailer":
        _keep_bytes(script, n_bytes - _GZIP_TRAILER_BYTES)
    elif quirk.variant == "half":
        _keep_bytes(script, n_bytes // 2)
    return True


def _keep_bytes(script: Script, n_bytes: int) -> None:
    """Drop all but the first bytes, as if the rest had never been."""
    for piece in script.pieces:
        piece.data = piece.data[:n_bytes]
        n_bytes -= len(piece.data)
    script.pieces = [piece for piece in script.pieces if piece.data]


@lru_cache(maxsize=4)
def _make_bomb(n_mb: int, body: bytes) -> bytes:
    """Return gzip of so many megabytes of spaces, then the body.

    After a full flush the packer starts afresh, so that each further megabyte packs into the same few bytes.
    """
    spaces = b" " * _MB
    packer = zlib.compressobj(level=9, wbits=-zlib.MAX_WBITS)
    block = packer.compress(spaces) + packer.flush(zlib.Z_FULL_FLUSH)
    ending = packer.compress(body) + packer.flush()
    checksum = 0
    for _ in range(n_mb):
        checksum = zlib.crc32(spaces, checksum)
    n_bytes = n_mb * _MB + len(body)
    head = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
    trailer = struct.pack("<II", zlib.crc32(body, checksum), n_bytes & 0xFFFFFFFF)
    return b"".join((head, block * n_mb, ending, trailer))


def _swell(script: Script, quirk: Quirk, scene: Scene) -> bool:
    """Add bytes that mean nothing: lines of comments or blanks, or one long string in a field that nobody knows."""
    n_bytes = HUGE_BYTES if quirk.number is None else int(quirk.number)
    is_stream = scene.draft.is_stream
    if quirk.variant == "body":
        line = (b": " + b"." * (_FILL_BYTES - 3) if is_stream else b" " * (_FILL_BYTES - 1)) + b"\n"
        script.pieces[:0] = _fill(line, n_bytes)
        return True
    begins = b"data:" if is_stream else b""
    events = (place for place, piece in enumerate(script.pieces) if piece.data.startswith(begins))
    place = next(events, None)
    if place is None or b"}" not in script.pieces[place].data:
        return False
    head, _, tail = script.pieces[place].data.rpartition(b"}")
    opening = Piece(data=head + b',"padding":"', wait_s=script.pieces[place].wait_s)
    script.pieces[place : place + 1] = [opening, *_fill(b"x" * _FILL_BYTES, n_bytes), Piece(data=b'"}' + tail)]
    return True


def _fill(data: bytes, n_bytes: int) -> list[Piece]:
    """Return pieces of the same bytes, which share their memory, `n_bytes` in all or a little more."""
    return [Piece(data=data) for _ in range(math.ceil(n_bytes / len(data)))]


def _append_garbage(script: Script, quirk: Quirk, scene: Scene) -> Literal[True]:
    if quirk.variant == "after-end":
        # Only with a length is there an end that bytes can follow: chunks end with the connection's own last one.
        script.declared_bytes = len(script.body)
        script.framing, script.ending = "length", "fin"
        script.pieces.append(Piece(data=_GARBAGE))
        return True
    script.framing = "chunked"
    if quirk.variant == "both-lengths":
        script.headers.append(("content-length", str(len(script.body) + 1)))
    else:
        script.pieces.append(Piece(data=_GARBAGE if scene.draft.is_stream else b"\n" + _GARBAGE))
    return True


def _break_connection(script: Script, quirk: Quirk, scene: Scene) -> Literal[True]:
    """Do what comes nearest to a connection that never stood; nobody bills it."""
    scene.draft.counts = Counts()
    script.framing, script.pieces = "raw", []
    script.ending = "rst"
    if quirk.variant == "tls":
        script.pieces, script.ending = [Piece(data=_TLS_ALERT)], "fin"
    return True


BENDS: Final[Mapping[str, Bend]] = {
    "Q15": _send_nothing,
    "Q55": _swell,
    "Q17": _open_with_newlines,
    "Q18": _open_with_bom,
    "Q50": _compress,
    "Q60": _append_garbage,
    "Q25": _cut,
    "Q47": _drip,
    "Q48": _stall,
    "Q49": _close_unannounced,
    "Q56": _break_connection,
}
