"""Streams as they come: complete only when every choice said how it ended, whatever the bytes and however split."""

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun.dispatch.streams import StreamDamageError, StreamReader
from tests.fake_endpoint import encode_stream, make_chunks, make_completion

N_SPLITS = 100


def read(*pieces: bytes, is_event_stream: bool = True, n_choices: int = 1) -> tuple[StreamReader, bytes]:
    """Return the reader of a stream that came in the given pieces and ended, and what of it was a plain body."""
    stream = StreamReader(is_event_stream=is_event_stream, n_choices=n_choices)
    plain = b"".join([stream.feed(piece) for piece in pieces])
    return stream, plain + stream.end()


def explain(*chunks: Any, has_done: bool = False, is_cut: bool = False, n_choices: int = 1) -> str | None:
    """Return what a stream of chunks lacks."""
    stream, _ = read(encode_stream(chunks, has_done=has_done), n_choices=n_choices)
    return stream.explain_gap(is_cut=is_cut)


def written(*pieces: bytes) -> Any:
    """Return what a stream says together."""
    return json.loads(read(*pieces)[0].write())


WHOLE = make_chunks("he", "llo")
UNFINISHED = make_chunks("he", "llo", finish_reason=None)


@pytest.mark.parametrize("has_done", [True, False])
@pytest.mark.parametrize("is_cut", [True, False])
def test_stream_is_complete_once_its_choice_ended(has_done: bool, is_cut: bool) -> None:
    """With a finish_reason nothing is missing, however the stream ended; a missing `[DONE]` is flagged."""
    stream, _ = read(encode_stream(WHOLE, has_done=has_done))
    assert stream.explain_gap(is_cut=is_cut) is None
    assert stream.flags == (() if has_done else ("no_done",))
    assert json.loads(stream.write()) == make_completion("hello")


@pytest.mark.parametrize("has_done", [True, False])
def test_done_proves_nothing(has_done: bool) -> None:
    """Without a finish_reason a stream is incomplete, though it said that it is done."""
    assert explain(*UNFINISHED, has_done=has_done) == "choice 0 has no finish_reason"
    assert "before its first event" in str(explain(has_done=has_done))
    usage = {"choices": [], "usage": {"prompt_tokens": 1}}
    assert "no choice" in str(explain(usage, has_done=has_done))


def test_stream_of_none_says_what_it_looks_like() -> None:
    """A stream that holds no event is quoted."""
    stream, _ = read(b"upstream connect error")
    assert stream.explain_gap(is_cut=False) == "it ended before its first event, it begins with: upstream connect error"
    assert read(b"")[0].explain_gap(is_cut=True) == "it ended before its first event"


def test_every_choice_must_end() -> None:
    """One finished choice does not speak for the other; one that never came is missed only by a cut."""
    two = [*make_chunks("a", usage=None), *make_chunks("b", usage=None, index=1)]
    assert explain(*two, n_choices=2) is None
    assert explain(*two[:-1], n_choices=2) == "choice 1 has no finish_reason"
    one = make_chunks("a")
    assert explain(*one, n_choices=2, is_cut=True) == "1 of 2 choices came"
    assert explain(*one, n_choices=2, is_cut=False) is None
    assert explain(*one, n_choices=2, is_cut=True, has_done=True) is None


def test_finish_reason_on_every_chunk_does_not_excuse_a_cut() -> None:
    """Where each chunk says `stop`, only `[DONE]` or a proper end tells a whole reply from a part of one."""
    chunks = [{"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]} for text in ("a", "b")]
    assert "come before the end" in str(explain(*chunks, is_cut=True))
    assert explain(*chunks, is_cut=True, has_done=True) is None
    assert explain(*chunks, is_cut=False) is None
    assert read(encode_stream(chunks))[0].flags == ("finish_repeated",)


@pytest.mark.parametrize(
    "tail", [b'data: {"usage": {"prompt_tokens": 7}}\n\n', b'data: {"choices": [], "usage": {"prompt_tokens": 7}}']
)
def test_usage_after_done_counts(tail: bytes) -> None:
    """Usage that comes behind the end is taken."""
    assert written(encode_stream(make_chunks("a", usage=None)), tail)["usage"] == {"prompt_tokens": 7}


@pytest.mark.parametrize(
    "tail", [b"garbage\n\n", b"data: gar\n\n", b"data: 7\n\n", b'data: {"error": "late"}\n\n', b"data: [DONE]\n\n"]
)
def test_garbage_after_done_is_nothing(tail: bytes) -> None:
    """Whatever else comes behind the end changes nothing."""
    stream, _ = read(encode_stream(WHOLE), tail)
    assert stream.explain_gap(is_cut=False) is None
    assert json.loads(stream.write()) == make_completion("hello")


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (b'data: {"error": {"message": "died", "code": 502}}', {"error": {"message": "died", "code": 502}}),
        (b'data: {"error": "died", "choices": []}', {"error": "died", "choices": []}),
        (b'event: error\ndata: {"message": "died", "type": "t"}', {"message": "died", "type": "t"}),
        (b'event: error\ndata: {"code": 7}', {"error": {"code": 7}}),
        (b"event: error\ndata: it died", {"error": "it died"}),
        (b"event: error\ndata: {}", {"error": "the server says no more"}),
        (b'data: {"message": "died", "type": "t"}', {"message": "died", "type": "t"}),
        (b'data: {"object": "error", "message": "died"}', {"object": "error", "message": "died"}),
        (b'data: [{"error": {"message": "died"}}]', [{"error": {"message": "died"}}]),
    ],
)
def test_error_in_the_stream_is_the_reply(event: bytes, error: Any) -> None:
    """An error in any of its shapes stands for the reply, whatever came before and comes after."""
    stream, _ = read(encode_stream(UNFINISHED, has_done=False), event + b"\n\n", encode_stream(WHOLE))
    assert (stream.has_failed, stream.explain_gap(is_cut=True)) == (True, None)
    assert json.loads(stream.write()) == error


def test_last_choice_that_errs_is_no_other() -> None:
    """A choice's own error stays where it is, for the reader of the reply to find."""
    chunk = {"choices": [{"index": 0, "delta": {}, "error": {"message": "died"}, "finish_reason": None}]}
    stream, _ = read(encode_stream([*UNFINISHED[:-1], chunk]))
    assert stream.explain_gap(is_cut=False) is None
    assert json.loads(stream.write())["choices"][0]["error"] == {"message": "died"}


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"choices": [{"index": 0, "delta": {"con data: {"choices": []}',
        b'data: {"choices": []} data: {"choices": []}',
        b'event: message\ndata: {"choices"',
        b"data: \xff",
        b"data: null",
        b'data: "[DONE]"',
        b'data: {"choices": 7}',
    ],
)
def test_damaged_event_is_never_passed_over(event: bytes) -> None:
    """Glued frames, broken JSON and values that are no chunk end the reading."""
    with pytest.raises(StreamDamageError, match="event 2"):
        read(encode_stream(WHOLE[:1], has_done=False), event + b"\n\n", encode_stream(WHOLE))


def test_event_cut_off_by_the_end_is_as_if_it_had_not_come() -> None:
    """Half an event at the very end is a cut, not damage; a whole one without its blank line counts."""
    begin, last = encode_stream(WHOLE[:-2], has_done=False), encode_stream(WHOLE[-2:-1], has_done=False)
    assert read(begin, last[:-20])[0].explain_gap(is_cut=False) == "choice 0 has no finish_reason"
    assert read(begin, last.rstrip())[0].explain_gap(is_cut=False) is None
    with pytest.raises(StreamDamageError):
        read(begin, b"data: 7")


def test_keep_alives_and_named_events_are_nothing() -> None:
    """Comments, pings of any content and empty events are passed over."""
    noise = b': PROCESSING\n\nevent: ping\ndata: {"type": "ping"}\n\nevent: ping\ndata: now\n\ndata:\n\ndata: {}\n\n'
    pieces = [encode_stream([chunk], has_done=False) for chunk in WHOLE]
    assert written(noise, *(piece + noise for piece in pieces)) == make_completion("hello") | {"type": "ping"}


@pytest.mark.parametrize("body", [b'{"choices": []}', b"\n\n [1]", b"\xef\xbb\xbf<html>", b"<"])
@pytest.mark.parametrize("is_event_stream", [True, False])
def test_document_is_no_stream(body: bytes, is_event_stream: bool) -> None:
    """JSON and HTML are documents under any content type."""
    stream, plain = read(body, is_event_stream=is_event_stream)
    assert (stream.is_plain, stream.is_stream, plain) == (True, False, body)


@pytest.mark.parametrize(
    "begin", [b"data:", b": hi\n", b"event: x\n", b"id: 1\n", b"retry: 1\n", b"\r\n\r\n", b"\xef\xbb\xbf"]
)
def test_stream_is_one_under_any_content_type(begin: bytes) -> None:
    """What begins like an event is a stream, though it is called something else."""
    content = begin + b"\n" * (begin == b"data:") + encode_stream(WHOLE)
    for pieces in ([content], [bytes([byte]) for byte in content]):
        stream, plain = read(*pieces, is_event_stream=False)
        assert (stream.is_stream, plain) == (True, b"")
        assert json.loads(stream.write()) == make_completion("hello")


@pytest.mark.parametrize(
    ("body", "is_event_stream", "is_stream"),
    [
        (b"", True, True),
        (b"", False, False),
        (b"dat", False, False),
        (b"dat", True, True),
        (b"plain text", False, False),
    ],
)
def test_content_type_decides_what_the_body_leaves_open(body: bytes, is_event_stream: bool, is_stream: bool) -> None:
    """Where nothing else tells, the content type does."""
    stream, plain = read(*(bytes([byte]) for byte in body), is_event_stream=is_event_stream)
    assert stream.is_stream is is_stream
    assert is_stream or plain == body


def test_blank_lines_before_a_document_are_not_kept() -> None:
    """A queue that sends line after line while it makes us wait fills no memory."""
    stream, plain = read(*[b"\n"] * 1000, b'{"a": 1}', is_event_stream=False)
    assert (stream.is_plain, plain) == (True, b'{"a": 1}')


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([rb'"\ud83d"', rb'"\ude00"'], "😀"),
        ([rb'"a\ud83d"', rb'"b"'], "a\\ud83db"),
        ([b'"\xf0\x9f\x98\x80"'], "😀"),
    ],
)
def test_character_split_over_two_deltas_is_whole_again(pieces: Sequence[bytes], text: str) -> None:
    """Halves of a surrogate pair in two chunks are one character; a half that stays alone stays an escape."""
    events = [b'data: {"choices":[{"index":0,"delta":{"content":' + piece + b"}}]}\n\n" for piece in pieces]
    stream, _ = read(*events, encode_stream(make_chunks()[1:]))
    said = stream.write()
    assert text.encode() in said or json.loads(said)["choices"][0]["message"]["content"] == text


def test_odd_numbers_are_read_as_in_documents() -> None:
    """NaN, Infinity and huge integers in a chunk neither crash nor lose it; what is null now is flagged."""
    event = b'data: {"x": NaN, "y": 1e999, "z": 123456789012345678901234567890, "choices": []}\n\n'
    value = written(event, encode_stream(WHOLE))
    assert (value.get("x"), value.get("y"), value["z"]) == (None, None, 123456789012345678901234567890)
    stream, _ = read(event, event, encode_stream(WHOLE))
    assert stream.flags == ("number_dropped",)


def test_nesting_beyond_all_bounds_is_damage() -> None:
    """A chunk nested too deeply is refused, not a crash."""
    with pytest.raises(StreamDamageError):
        read(b"data: " + b"[" * 100_000 + b"]" * 100_000 + b"\n\n")


# Any split of any stream

TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\u2028\u0085\x0b\x1c\r\n😀é"), max_size=8)


@st.composite
def deltas(draw: st.DrawFn) -> dict[str, Any]:
    """Return a delta of some provider."""
    kind = draw(st.sampled_from(["content", "content", "reasoning", "refusal", "tool_calls", "logprobs"]))
    if kind == "tool_calls":
        index = draw(st.integers(0, 2))
        return {"tool_calls": [{"index": index, "function": {"arguments": draw(TEXTS)}}]}
    return {"content" if kind == "logprobs" else kind: draw(TEXTS)}


@st.composite
def encoded_streams(draw: st.DrawFn) -> bytes:
    """Return a stream with its own line ends, comments, order of choices, usage and end."""
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    n_choices = draw(st.integers(1, 3))
    chunks: list[Any] = [
        {"id": "x", "choices": [{"index": draw(st.integers(0, n_choices - 1)), "delta": delta}]}
        for delta in draw(st.lists(deltas(), max_size=8))
    ]
    chunks += [{"choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]} for index in range(n_choices)]
    chunks += [{"choices": [], "usage": {"prompt_tokens": 1}}] if draw(st.booleans()) else []
    lines = ["\ufeff"] if draw(st.booleans()) else []
    for chunk in chunks:
        lines += [f": {draw(st.sampled_from(['', 'ping']))}{end}"] if draw(st.booleans()) else []
        # Only some writers leave other signs than ASCII as they are; a chunk may also come in several lines.
        text = json.dumps(chunk, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, None, 1])))
        lines += [f"data:{draw(st.sampled_from(['', ' ']))}{line}{end}" for line in text.split("\n")] + [end]
    return ("".join(lines) + (f"data: [DONE]{end}{end}" if draw(st.booleans()) else "")).encode()


@given(content=encoded_streams(), seed=st.integers(0, 2**32))
@settings(max_examples=120, deadline=None)
def test_stream_reads_alike_however_split(content: bytes, seed: int) -> None:
    """A hundred random splits of each of a hundred streams, and every byte alone: all equal to the whole."""
    whole, _ = read(content, n_choices=3)
    expected = whole.write()
    rng = random.Random(seed)
    splits = [sorted(rng.choices(range(len(content) + 1), k=rng.randint(1, 12))) for _ in range(N_SPLITS)]
    for cuts in [*splits, list(range(len(content)))]:
        stream, _ = read(*(content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)], strict=True)), n_choices=3)
        assert stream.write() == expected
        assert (stream.flags, stream.explain_gap(is_cut=False)) == (whole.flags, whole.explain_gap(is_cut=False))


NAMES = """choices delta index content tool_calls function arguments name id error message usage finish_reason logprobs
    x_groq function_call audio type"""
KEYS = st.sampled_from(NAMES.split())
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.sampled_from(["stop", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)
ANY_CHOICES = st.lists(st.fixed_dictionaries({}, optional={"index": ANY_JSON, "delta": ANY_JSON, "logprobs": ANY_JSON}))


@given(chunks=st.lists(ANY_JSON | ANY_CHOICES.map(lambda choices: {"choices": choices}), max_size=4))
def test_any_events_are_a_reply_or_damage(chunks: list[Any]) -> None:
    """Whatever JSON the events hold, what comes out is JSON, or a named failure: nothing else is ever raised."""
    try:
        stream, _ = read(encode_stream(chunks))
    except StreamDamageError:
        return
    stream.explain_gap(is_cut=True)
    json.loads(stream.write())
