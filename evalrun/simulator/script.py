"""What the simulator will do with one request, before it does it: a draft of JSON values, then a script of bytes.

`replies` makes a `Draft`; quirks of the first kind edit its values; `write_script` turns it into a `Script`; quirks of
the second kind bend its bytes, framing and ending; `connection` carries it out. Invariant: a script says everything,
whoever carries it out decides nothing.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from evalrun.simulator.codec import encode_json
from evalrun.simulator.usage import Counts

Framing = Literal["length", "chunked", "close", "raw"]
"""How the body's end is told: by `content-length`, by chunks, by the close; `raw` pieces hold the whole response."""
Ending = Literal["keep", "fin", "rst"]
"""What becomes of the connection afterwards."""


@dataclass(slots=True, kw_only=True)
class Draft:
    """One reply as JSON values, open to quirks."""

    completion: Any
    """The whole `chat.completion` object, or an error body; what is sent when the reply is not streamed."""
    chunks: list[Any] | None = None
    """The `chat.completion.chunk` objects in order, usage chunk included; None when the reply is not streamed."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    """Names in lower case; `content-type` is added when it is not there."""
    has_done: bool = True
    """Whether a stream ends with `[DONE]`."""
    delay_s: float = 0.0
    """From the whole request to the reply's first byte."""
    gap_s: float = 0.0
    """Between two chunks of a stream."""
    counts: Counts = field(default_factory=Counts)
    """Billed."""

    @property
    def prompt_tokens(self) -> int:
        """Billed, all of them."""
        return self.counts.prompt

    @property
    def completion_tokens(self) -> int:
        """Billed, all of them."""
        return self.counts.completion

    @property
    def is_stream(self) -> bool:
        """True when the reply is sent as server-sent events."""
        return self.chunks is not None


@dataclass(slots=True, kw_only=True)
class Piece:
    """Bytes that leave together."""

    data: bytes
    wait_s: float = 0.0
    """Before they leave."""


@dataclass(slots=True, kw_only=True)
class Script:
    """One response, byte for byte."""

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    """Content type included; the framing's own headers are added when it is carried out."""
    pieces: list[Piece] = field(default_factory=list)
    delay_s: float = 0.0
    """Before the status line."""
    framing: Framing = "length"
    declared_bytes: int | None = None
    """A `content-length` that lies; None tells the truth."""
    cut_after_bytes: int | None = None
    """The connection ends after so many bytes of the body; None sends all of it."""
    ending: Ending = "keep"

    @property
    def body(self) -> bytes:
        """The pieces joined."""
        return b"".join(piece.data for piece in self.pieces)


def write_script(draft: Draft) -> Script:
    """Return the bytes of a draft: one JSON body, or one event per chunk."""
    framing: Framing
    if draft.chunks is None:
        kind, framing = "application/json", "length"
        pieces = [Piece(data=encode_json(draft.completion))]
    else:
        kind, framing = "text/event-stream; charset=utf-8", "chunked"
        pieces = [Piece(data=encode_event(chunk), wait_s=draft.gap_s) for chunk in draft.chunks]
        if draft.has_done:
            pieces.append(Piece(data=DONE_EVENT))
        if pieces:
            pieces[0].wait_s = 0.0
    headers = {"content-type": kind, **draft.headers}
    return Script(
        status=draft.status,
        headers=list(headers.items()),
        pieces=pieces,
        delay_s=draft.delay_s,
        framing=framing,
    )


DONE_EVENT = b"data: [DONE]\n\n"


def encode_event(value: Any) -> bytes:
    """Return a JSON value as one server-sent event."""
    return b"data: " + encode_json(value) + b"\n\n"
