"""Reads one streamed reply as it comes: is it a stream at all, what has been said, and when is it complete.

Decoded bytes enter in whatever pieces they came; at the end there is a completion, an error object, or what is wrong.
Invariant: a reply counts as complete only if each of its choices said how it ended; `[DONE]` proves nothing. Pure: no
network, no clock. Source: WIRE section 2.6 and the issues cited there.
"""

from codecs import BOM_UTF8
from typing import Any

from evalrun.dispatch.assembly import Assembly, ChunkError
from evalrun.dispatch.faults import find_complaint
from evalrun.dispatch.json_text import load_fragment, write_fragments
from evalrun.dispatch.sse import SseEvent, SseParser

HEAD_BYTES = 16 * 1024
"""How much of a stream is kept as it came, to show where a failed one went wrong."""
_DONE = b"[DONE]"
_BLANK = b" \t\r\n"
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
_LONGEST_FIELD_BYTES = 6


class StreamDamageError(Exception):
    """What came is no chat-completions stream; the message says why, quotes uncut."""


class StreamReader:
    """One reply that may be a stream.

    Args:
        is_event_stream: What its content type says. The body itself has the last word: relays send JSON and HTML under
            the type of a stream, and streams under any type.
        n_choices: Choices that were asked for.
    """

    def __init__(self, *, is_event_stream: bool, n_choices: int = 1) -> None:
        self.is_plain: bool | None = None
        """Whether the body is no stream but one document; None until enough of it came to tell."""
        self.is_done = False
        """True once `[DONE]` came: nothing is missing but, perhaps, the usage."""
        self.head = bytearray()
        """The beginning of the stream as it came."""
        self._is_event_stream = is_event_stream
        self._n_choices = n_choices
        self._undecided = b""
        self._parser = SseParser()
        self._assembly = Assembly(n_choices=n_choices)
        self._n_events = 0
        self._mends: dict[str, None] = {}
        self._error: Any = None

    @property
    def is_stream(self) -> bool:
        """True when it is a stream, or is called one and has said nothing yet."""
        return self._is_event_stream if self.is_plain is None else not self.is_plain

    @property
    def has_token(self) -> bool:
        """True once a choice said a word."""
        return self._assembly.has_token

    @property
    def has_failed(self) -> bool:
        """True once the server reported an error: nothing that follows is of interest."""
        return self._error is not None

    def feed(self, piece: bytes) -> bytes:
        """Take the next decoded bytes and return those of them, and of held ones, that belong to a plain body.

        Raises:
            StreamDamageError: An event is no chunk of a completion.
            EventTooLargeError: An event or a line is larger than any should be.
        """
        if self.is_plain is None:
            piece = self._undecided + piece
            self.is_plain = self._decide(piece)
            # Blank lines are all that some servers send while a request waits its turn: they are not worth keeping.
            self._undecided = piece if self.is_plain is None and piece.strip(_BLANK) else b""
        if self.is_plain is None:
            return b""
        if self.is_plain:
            return piece
        if len(self.head) < HEAD_BYTES:
            self.head += piece[: HEAD_BYTES - len(self.head)]
        for event in self._parser.feed(piece):
            self._take(event)
        return b""

    def end(self) -> bytes:
        """Take note that nothing more comes; return what was held back, if that turns out to be a plain body.

        Raises:
            StreamDamageError: The last event is no chunk of a completion.
        """
        if self.is_plain is None:
            self.is_plain = not self._is_event_stream
            return self._undecided
        if not self.is_plain:
            for event in self._parser.end():
                self._take(event, is_last=True)
        return b""

    def explain_gap(self, *, is_cut: bool) -> str | None:
        """Return what is missing from a stream that ended; None when it is complete or reported an error.

        Quotes in it are to be shortened once secrets in them are masked, never before: a cut would hide half of one.

        Args:
            is_cut: Whether the connection, a deadline or a damaged coding ended it.
        """
        assembly = self._assembly
        if self.has_failed:
            return None
        if self._n_events == 0:
            begin = bytes(self.head).decode("utf-8", "replace").strip()
            return "it ended before its first event" + (f", it begins with: {begin}" if begin else "")
        if assembly.n_choices == 0:
            return f"{self._n_events} events, but no choice among them"
        if assembly.unfinished:
            return f"choice {assembly.unfinished[0]} has no finish_reason"
        if is_cut and not self.is_done:
            if assembly.n_choices < self._n_choices:
                return f"{assembly.n_choices} of {self._n_choices} choices came"
            if assembly.was_finished_before:
                return "its finish_reasons come before the end, and `[DONE]` did not come"
        return None

    @property
    def flags(self) -> tuple[str, ...]:
        """What is odd about a complete stream."""
        flags = () if self.is_done else ("no_done",)
        repeated = ("finish_repeated",) if self._assembly.was_finished_before else ()
        return (*flags, *repeated, *self._mends)

    def write(self) -> bytes:
        """Return the completion, or the error object, as JSON.

        Raises:
            ValueError: It is nested too deeply to be written.
        """
        return write_fragments(self._assembly.build() if self._error is None else self._error)

    def write_said(self) -> bytes:
        """Return as JSON what the choices have said so far, whatever became of them; b"" when it cannot be written."""
        try:
            return write_fragments(self._assembly.build())
        except ValueError:
            return b""

    def _decide(self, begin: bytes) -> bool | None:
        """Tell a document from a stream by its first signs; None while there are too few of them."""
        signs = begin.removeprefix(BOM_UTF8).lstrip(_BLANK)
        if signs[:1] in {b"{", b"[", b"<"}:
            return True
        if signs.startswith(_FIELDS):
            return False
        return None if len(signs) < _LONGEST_FIELD_BYTES else not self._is_event_stream

    def _take(self, event: SseEvent, *, is_last: bool = False) -> None:
        data = event.data.strip()
        if not data or self.has_failed:
            return
        if data == _DONE:
            self.is_done = True
            return
        if self.is_done:
            self._take_after_done(data)
            return
        try:
            value = self._load(data)
        except ValueError:
            if is_last:
                return  # The end came within the event: the stream is as complete as it is without it.
            value = self._read_text(event)
        self._n_events += 1
        self._take_value(value, event.name)

    def _take_after_done(self, data: bytes) -> None:
        """Take the usage that some servers send last; anything else behind the end is no part of the reply."""
        try:
            self._assembly.add_usage(self._load(data))
        except ValueError:
            return

    def _load(self, data: bytes) -> Any:
        """Return the JSON of an event, and remember what had to be mended to read it."""
        loaded = load_fragment(data)
        if loaded.flags:
            self._mends.update(dict.fromkeys(loaded.flags))
        return loaded.value

    def _read_text(self, event: SseEvent) -> Any:
        """Return what an event without JSON stands for: an error's words, nothing, or damage."""
        text = event.data.decode("utf-8", "replace")
        if event.name == "error":
            return {"error": text}
        if event.name in {"", "message"}:
            raise StreamDamageError(f"event {self._n_events + 1} is no JSON: {text[:HEAD_BYTES]}")
        return {}

    def _take_value(self, value: Any, name: str) -> None:
        if name == "error":
            self._error = value if find_complaint(value) else {"error": value or "the server says no more"}
        elif _is_complaint(value):
            self._error = value
        else:
            try:
                self._assembly.add(value)
            except ChunkError as error:
                raise StreamDamageError(f"event {self._n_events}: {error}") from None


def _is_complaint(value: Any) -> bool:
    """Tell whether an event holds an error instead of a chunk, or beside it."""
    if isinstance(value, dict):
        return bool(value.get("error")) or ("choices" not in value and find_complaint(value) is not None)
    return isinstance(value, list) and find_complaint(value) is not None
