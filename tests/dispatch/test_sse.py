"""The parser of server-sent events: the same events however their bytes were split, and nothing that is none."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.dispatch.sse import EventTooLargeError, SseEvent, SseParser

LINE_ENDS = ("\n", "\r", "\r\n")
# Signs that other readers of lines take for the end of one, and some that are longer than a byte.
SIGNS = st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]) | st.sampled_from(
    "\u2028\u0085\x0b\x1c\0é😀:"
)


def read(*pieces: bytes) -> list[SseEvent]:
    """Return every event of a stream that came in the given pieces."""
    parser = SseParser()
    events = [event for piece in pieces for event in parser.feed(piece)]
    return events + parser.end()


def read_data(stream: bytes) -> list[bytes]:
    """Return the data of every event of a stream."""
    return [event.data for event in read(stream)]


def split(content: bytes, rng: random.Random) -> list[bytes]:
    """Return the content in pieces, cut wherever chance has it."""
    cuts = sorted(rng.choices(range(len(content) + 1), k=rng.randint(0, 8)))
    return [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"data: a\n\r\ndata: b\r\n\n", [b"a", b"b"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data: a\ndata:\ndata\n\n", [b"a\n\n"]),
        (b"data\n\n", [b""]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b": comment\n\ndata: a\n: more\ndata: b\n\n", [b"a\nb"]),
        (b"id: 1\n: keep-alive\n\nevent: ping\n\ndata: a\n\n", [b"a"]),
        (b"retry: 100\nunknown: x\ndata : no\ndatabase: no\ndata: a\n\n", [b"a"]),
        (b"data: a\xe2\x80\xa8b\xc2\x85c\x0bd\x1ce\n\n", [b"a\xe2\x80\xa8b\xc2\x85c\x0bd\x1ce"]),
        (b"data: a\n\n\n\n\ndata: b\n\n", [b"a", b"b"]),
        (b"\n\n\r\ndata: a\n\n", [b"a"]),
        (b"", []),
        (b"\n\n", []),
        (b"\xef\xbb", []),
        (b"data: \xff\xfe\n\n", [b"\xff\xfe"]),
    ],
)
def test_stream_is_read_by_the_grammar(stream: bytes, expected: list[bytes]) -> None:
    """Each rule of the grammar: line ends, one optional space, several lines, comments, no data no event."""
    assert read_data(stream) == expected


@pytest.mark.parametrize("end", [b"", b"\n", b"\r", b"\r\n"])
def test_last_event_counts_without_its_blank_line(end: bytes) -> None:
    """What the end of the stream left unterminated is still an event."""
    assert read_data(b"data: a\n\ndata: b" + end) == [b"a", b"b"]


def test_name_belongs_to_one_event_only() -> None:
    """An event's name is its own; a name without data names nothing."""
    stream = b"event: error\ndata: a\n\ndata: b\n\nevent: lost\n\ndata: c\nevent:x\n\n"
    assert read(stream) == [SseEvent(b"a", "error"), SseEvent(b"b", ""), SseEvent(b"c", "x")]


def test_event_leaves_as_soon_as_it_is_whole() -> None:
    """A CR ends its line at once, and the LF that follows in the next piece ends no other."""
    parser = SseParser()
    assert parser.feed(b"data: a\r") == []
    assert parser.feed(b"\n") == []
    assert parser.feed(b"\r") == [SseEvent(b"a", "")]
    assert parser.feed(b"\ndata: b\r\r") == [SseEvent(b"b", "")]
    assert parser.end() == []


@pytest.mark.parametrize(
    "stream", [b"data: " + b"x" * 100, b": " + b"x" * 100, b"data: xxxxxxxxx\n" * 9, b"data:x\n" * 60]
)
@pytest.mark.parametrize("n_bytes", [1, 7, 1000])
def test_endless_line_or_event_is_given_up(stream: bytes, n_bytes: int) -> None:
    """A line, or the data of an event, never grows beyond its cap, however slowly it grows."""
    parser = SseParser(max_event_bytes=64)
    pieces = [stream[start : start + n_bytes] for start in range(0, len(stream), n_bytes)]
    with pytest.raises(EventTooLargeError):
        list(map(parser.feed, pieces))


def test_many_small_events_are_no_large_one() -> None:
    """The cap is on one event: a stream may be as long as it likes."""
    parser = SseParser(max_event_bytes=16)
    assert len([event for _ in range(100) for event in parser.feed(b"data: xxxx\n\n: c\n")]) == 100


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[SseEvent]]:
    """Return a stream with its events: any text, any line ends, comments between."""
    parts = ["\ufeff"] if draw(st.booleans()) else []
    events = []
    # With a CR before it, an LF belongs to the line before; one kind of line end for a stream is how servers do it.
    end = draw(st.sampled_from(LINE_ENDS))
    for _ in range(draw(st.integers(0, 6))):
        parts += [f":{draw(st.text(SIGNS, max_size=5))}{end}"] if draw(st.booleans()) else []
        name = draw(st.sampled_from(["", "error", "é"]))
        parts += [f"event: {name}{end}"] if name else []
        lines = draw(st.lists(st.text(SIGNS, max_size=12), min_size=1, max_size=3))
        parts += [f"data: {line}{end}" for line in lines] + [end]
        events.append(SseEvent("\n".join(lines).encode(), name))
    return "".join(parts).encode(), events


@given(stream=streams(), seed=st.integers(0, 2**32))
def test_events_do_not_depend_on_how_the_stream_is_split(stream: tuple[bytes, list[SseEvent]], seed: int) -> None:
    """Cuts within characters and within CRLF change nothing, nor does sending it byte by byte."""
    content, expected = stream
    rng = random.Random(seed)
    for _ in range(20):
        assert read(*split(content, rng)) == expected
    assert read(*(bytes([byte]) for byte in content)) == expected


@given(
    content=st.lists(st.sampled_from([b"\r", b"\n", b"data", b":", b" ", b"event", b"x", b"\xef\xbb\xbf", b"\xff"])),
    seed=st.integers(),
)
def test_any_bytes_are_read_alike_however_split(content: list[bytes], seed: int) -> None:
    """What is no proper stream is read the same way in any pieces as well."""
    joined = b"".join(content)
    assert read(*split(joined, random.Random(seed))) == read(joined)
