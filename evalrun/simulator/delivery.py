"""Carries out a script on a connection: every byte, wait, cut and ending that it says, and nothing of its own.

Enters: a script, a byte stream, what the client can take. Leaves: bytes. Written without h11: that is 40 % cheaper, and
a simulator must be able to write what h11 rightly refuses. A stream that the peer has left raises at the next write.
"""

import socket
import struct
import time
from collections.abc import Iterator, Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

import anyio
from anyio.abc import ByteStream, SocketAttribute

from evalrun.simulator.script import Framing, Script


async def deliver(
    stream: ByteStream, script: Script, *, is_head: bool = False, is_old: bool = False, is_last: bool = False
) -> bool:
    """Send a script and end it as it says; tell whether the connection may carry another request.

    Args:
        stream: The peer.
        script: What to send; its `delay_s` comes first.
        is_head: The method was HEAD: the head alone is sent.
        is_old: The peer speaks HTTP/1.0, which has no chunks: their end is told by the close instead.
        is_last: The connection is to close afterwards, and the head says so.
    """
    if script.delay_s > 0:
        await anyio.sleep(script.delay_s)
    framing = "close" if is_old and script.framing == "chunked" else script.framing
    head = b"" if framing == "raw" else _write_head(script, framing, is_last=is_last or framing == "close")
    await _send_pieces(stream, head, iter(()) if is_head else _frame_pieces(script, framing))
    if script.ending == "rst":
        _arm_reset(stream)
    is_whole = script.ending == "keep" and script.cut_after_bytes is None
    return is_whole and framing != "close" and not is_last


async def _send_pieces(stream: ByteStream, head: bytes, pieces: Iterator[tuple[float, bytes]]) -> None:
    """Send the head and the pieces, each after its wait; the first leaves with the head if it need not wait.

    A server that has overslept is late by some pieces: they leave together, so that a stream keeps its pace.
    """
    unsent = head
    late_s = 0.0
    for wait_s, data in pieces:
        if wait_s > late_s:
            if unsent:
                await stream.send(unsent)
            unsent = data
            late_s = await _sleep(wait_s - late_s)
        elif wait_s > 0 or unsent is head:
            unsent += data
            late_s -= wait_s
        else:
            if unsent:
                await stream.send(unsent)
            unsent = data
    if unsent:
        await stream.send(unsent)


async def _sleep(wait_s: float) -> float:
    """Sleep; return by how much too long."""
    wakes_at = time.monotonic() + wait_s
    await anyio.sleep(wait_s)
    return max(0.0, time.monotonic() - wakes_at)


def _frame_pieces(script: Script, framing: Framing) -> Iterator[tuple[float, bytes]]:
    """Yield each piece's wait and its bytes on the wire, up to the cut."""
    is_chunked = framing == "chunked"
    left = script.cut_after_bytes
    end = b"0\r\n\r\n" if is_chunked and left is None else b""
    last = len(script.pieces) - 1
    for place, piece in enumerate(script.pieces):
        data = piece.data
        size = len(data)
        if left is not None:
            data = data[:left]
            left -= len(data)
        if is_chunked and data:
            # A chunk that the cut goes through tells the size it should have had.
            data = b"%x\r\n%b" % (size, data) + (b"\r\n" if len(data) == size else b"")
        yield piece.wait_s, (data + end if place == last else data)
        if left == 0:
            return
    if last < 0:
        yield 0.0, end


def _write_head(script: Script, framing: Framing, *, is_last: bool) -> bytes:
    lines = [_write_status_line(script.status), *[f"{name}: {value}" for name, value in script.headers]]
    if not any(name == "date" for name, _ in script.headers):
        lines.append(f"date: {_write_date(int(time.time()))}")
    if framing == "length":
        lines.append(f"content-length: {_count_bytes(script)}")
    elif framing == "chunked":
        lines.append("transfer-encoding: chunked")
    if is_last:
        lines.append("connection: close")
    lines.append("\r\n")
    return "\r\n".join(lines).encode("latin-1")


def _count_bytes(script: Script) -> int:
    if script.declared_bytes is not None:
        return script.declared_bytes
    return sum(len(piece.data) for piece in script.pieces)


def _write_status_line(status: int) -> str:
    # Providers answer with numbers that no standard knows: 498, 520 to 524, 529.
    return _STATUS_LINES.get(status) or f"HTTP/1.1 {status} Unofficial Status"


_STATUS_LINES: Final[Mapping[int, str]] = {status: f"HTTP/1.1 {status} {status.phrase}" for status in HTTPStatus}


@lru_cache(maxsize=4)
def _write_date(unix_s: int) -> str:
    return formatdate(unix_s, usegmt=True)


def _arm_reset(stream: ByteStream) -> None:
    """Make the coming close a reset, with no end of stream before it."""
    sock = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - anyio's, no database anywhere
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
