"""Server-sent events off the wire, byte by byte, by the WHATWG grammar.

Bytes enter in whatever pieces they came, events leave; how the bytes were split never changes them. Lines end at CR, LF
and CRLF and nowhere else: U+2028 and U+0085 inside a JSON text are data. The one leniency: an event that the stream's
end cut off before its blank line still counts, since the last one often holds the finish_reason.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6, read 2026-11-22.
"""

from codecs import BOM_UTF8
from typing import NamedTuple

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""Cap on one line, and on the data of one event: room for a picture, none for an endless line."""


class EventTooLargeError(Exception):
    """A line, or the data of an event, would pass its cap."""


class SseEvent(NamedTuple):
    """One event."""

    data: bytes
    """Its `data` lines joined by LF; not checked to be UTF-8."""
    name: str
    """Its `event` field; "" when it has none."""


class SseParser:
    """Reads one stream.

    Args:
        max_event_bytes: Cap on a line and on the data of an event.
    """

    __slots__ = ("_begin", "_data", "_has_cr", "_is_begun", "_max_event_bytes", "_n_data_bytes", "_name", "_partial")

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._begin = b""
        self._is_begun = False
        self._partial = bytearray()
        # A CR ends its line at once; an LF that follows it in a later piece belongs to it.
        self._has_cr = False
        self._data: list[bytes] = []
        self._n_data_bytes = 0
        self._name = ""

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """Take the next bytes and return the events that they complete.

        Raises:
            EventTooLargeError: A line or the data of an event passes the cap.
        """
        if not self._is_begun:
            chunk = self._skip_byte_order_mark(chunk)
        if self._has_cr and chunk:
            self._has_cr = False
            chunk = chunk.removeprefix(b"\n")
        if not chunk:
            return []
        lines = chunk.splitlines()  # Of bytes: at CR, LF and CRLF only.
        if self._partial:
            lines[0] = self._complete_line(lines[0])
        if chunk.endswith((b"\n", b"\r")):
            self._has_cr = chunk.endswith(b"\r")
        else:
            self._keep_line(lines.pop())
        return self._read_lines(lines)

    def end(self) -> list[SseEvent]:
        """Return the event that the stream's end left without its blank line, if there is one."""
        rest = self._begin or bytes(self._partial)
        self._begin = b""
        self._partial.clear()
        return self._read_lines([rest, b""])

    def _skip_byte_order_mark(self, chunk: bytes) -> bytes:
        """Return the stream without its mark; nothing while it cannot be told whether there is one."""
        begin = self._begin + chunk
        if len(begin) < len(BOM_UTF8) and BOM_UTF8.startswith(begin):
            self._begin = begin
            return b""
        self._begin = b""
        self._is_begun = True
        return begin.removeprefix(BOM_UTF8)

    def _complete_line(self, rest: bytes) -> bytes:
        self._partial += rest
        line = bytes(self._partial)
        self._partial.clear()
        return line

    def _keep_line(self, beginning: bytes) -> None:
        self._partial += beginning
        if len(self._partial) > self._max_event_bytes:
            raise EventTooLargeError

    def _read_lines(self, lines: list[bytes]) -> list[SseEvent]:
        events: list[SseEvent] = []
        for line in lines:
            if line.startswith(b"data:"):
                self._add_data(line[6:] if line.startswith(b"data: ") else line[5:])
            elif line:
                self._read_field(line)
            else:
                # An event without data is none, however many other fields it has.
                if self._data:
                    events.append(SseEvent(b"\n".join(self._data), self._name))
                    self._data.clear()
                    self._n_data_bytes = 0
                self._name = ""
        return events

    def _add_data(self, value: bytes) -> None:
        self._n_data_bytes += len(value) + 1
        if self._n_data_bytes > self._max_event_bytes:
            raise EventTooLargeError
        self._data.append(value)

    def _read_field(self, line: bytes) -> None:
        """Read a line that is neither blank nor `data:`; a comment has an empty field name and is ignored with it."""
        name, _, value = line.partition(b":")
        if name == b"data":
            self._add_data(value)
        elif name == b"event":
            self._name = value.removeprefix(b" ").decode("utf-8", "replace")
