"""Tests of the quirks that change the bytes of a body: events of a stream, JSON that is cut, marks and blanks."""

import json

import pytest

from evalrun.simulator.script import Script, write_script
from tests.simulator.bending import (
    ANSWER,
    bend_reply,
    find_reasons,
    join_text,
    make_draft_for,
    read_chunks,
    read_events,
    read_json,
)

MODES = pytest.mark.parametrize("is_stream", [False, True])
GOOD = write_script(make_draft_for(is_stream=True))
"""The stream without quirks."""


def stream(quirk: str) -> Script:
    """Return the streamed reply that a quirk has bent."""
    return bend_reply(quirk, is_stream=True)


def test_good_stream_is_read_by_the_tests_own_rules() -> None:
    """The reader that these tests judge by gets the good stream right."""
    events = read_events(GOOD.body)
    assert (len(events), events[-1]) == (21, "[DONE]")
    assert join_text(read_chunks(GOOD)) == ANSWER


@pytest.mark.parametrize(
    ("variant", "ends"),
    [("lf", {b"\n"}), ("crlf", {b"\r\n"}), ("cr", {b"\r"}), ("mixed", {b"\n", b"\r\n", b"\r"}), ("bytes", {b"\r\n"})],
)
def test_lines_end_otherwise(variant: str, ends: set[bytes]) -> None:
    """Q20: LF, CRLF, CR, all in turn: other bytes, the same events."""
    script = stream(f"Q20:{variant}")
    body = script.body
    assert read_events(body) == read_events(GOOD.body)
    assert {line[len(line.rstrip(b"\r\n")) :][:2] for line in body.splitlines(keepends=True) if line.strip()} <= ends
    assert (b"\r" in body.replace(b"\r\n", b"")) is (b"\r" in ends)
    assert (b"\n" in body.replace(b"\r\n", b"")) is (b"\n" in ends)


def test_bytes_leave_one_by_one() -> None:
    """Q20:bytes: each byte is a piece of its own, inside UTF-8 and inside CRLF."""
    script = stream("Q20:bytes")
    assert {len(piece.data) for piece in script.pieces} == {1}
    assert any(piece.data[0] > 0x80 for piece in script.pieces)


@pytest.mark.parametrize(("variant", "line"), [("comment", b": OPENROUTER PROCESSING\n\n"), ("id", b"id: 1\n: keep")])
def test_comments_stand_between_events(variant: str, line: bytes) -> None:
    """Q21: comments, ids and retries without data are no events."""
    body = stream(f"Q21:{variant}").body
    assert body.count(line) == 7
    assert read_events(body) == read_events(GOOD.body)


def test_data_is_spread_over_lines() -> None:
    """Q22: several `data:` lines to an event, whose JSON has line feeds between its tokens."""
    script = stream("Q22")
    assert script.body.count(b"\ndata: ") > 10 * script.body.count(b"\n\n")
    assert read_chunks(script) == read_chunks(GOOD)


def test_no_space_follows_the_colon() -> None:
    """Q23: `data:{` and `data:[DONE]`, with Q22 on each line."""
    assert stream("Q23").body == GOOD.body.replace(b"data: ", b"data:")
    both = stream("Q22,Q23")
    assert b"data: " not in both.body
    assert read_chunks(both) == read_chunks(GOOD)


def test_done_is_left_out() -> None:
    """Q24: the stream ends with its last chunk."""
    assert stream("Q24").body == GOOD.body.removesuffix(b"data: [DONE]\n\n")


def test_last_blank_line_is_missing() -> None:
    """Q26: the stream ends within its last event, or within `[DONE]`."""
    assert stream("Q26:done").body == GOOD.body.removesuffix(b"\n\n")
    assert stream("Q26:event").body == GOOD.body.removesuffix(b"\n\ndata: [DONE]\n\n")


def test_two_frames_are_glued() -> None:
    """Q29: one line with two frames, the first cut; strict readers cannot parse it, naive ones lose text."""
    events = read_events(stream("Q29").body)
    good = read_events(GOOD.body)
    (glued,) = [event for event in events if event not in good]
    assert len(events) == len(good) - 1
    assert glued.count('data: {"id"') == 1
    with pytest.raises(json.JSONDecodeError):
        json.loads(glued)
    lost = "".join(join_text([json.loads(event)]) for event in events if event in good and event != "[DONE]")
    assert lost != ANSWER


def test_json_of_the_body_is_cut() -> None:
    """Q16: half a JSON in a whole body, its length told truly."""
    script, good = bend_reply("Q16"), write_script(make_draft_for())
    assert script.body == good.body[: len(good.body) // 2]
    assert (script.framing, script.declared_bytes, script.cut_after_bytes) == ("length", None, None)


def test_json_of_one_event_is_cut() -> None:
    """Q16, streamed: one event in the middle is half a JSON, all others are whole."""
    events, good = read_events(stream("Q16").body), read_events(GOOD.body)
    broken = [(cut, whole) for cut, whole in zip(events, good, strict=True) if cut != whole]
    assert len(broken) == 1
    assert broken[0][1].startswith(broken[0][0])
    with pytest.raises(json.JSONDecodeError):
        json.loads(broken[0][0])


@pytest.mark.parametrize("answer", ["", "4"])
@pytest.mark.parametrize("label", ["Q10:data", "Q16", "Q25:clean", "Q25:done", "Q29"])
def test_short_streams_are_spoiled_too(label: str, answer: str) -> None:
    """A stream of one token, or of none, still loses what the quirk takes: no finish reason, or no JSON."""
    script = bend_reply(label, is_stream=True, messages=[{"role": "user", "content": answer}], stop=["Sim", "s"])
    events = [event for event in read_events(script.body) if event != "[DONE]"]
    try:
        reasons = find_reasons([json.loads(event) for event in events])
    except json.JSONDecodeError:
        reasons = []
    assert reasons == []


@MODES
def test_blank_lines_come_first(is_stream: bool) -> None:
    """Q17: line feeds before the body, each a piece of its own."""
    script = bend_reply("Q17", is_stream=is_stream)
    assert [piece.data for piece in script.pieces[:4]] == [b"\n"] * 4
    assert script.body == b"\n\n\n\n" + write_script(make_draft_for(is_stream=is_stream)).body


@MODES
def test_byte_order_mark_comes_first(is_stream: bool) -> None:
    """Q18: a UTF-8 mark before the body."""
    good = write_script(make_draft_for(is_stream=is_stream))
    assert bend_reply("Q18", is_stream=is_stream).body == b"\xef\xbb\xbf" + good.body


@MODES
def test_body_is_empty(is_stream: bool) -> None:
    """Q15: status 200, the usual content type, no byte."""
    script = bend_reply("Q15", is_stream=is_stream)
    good = write_script(make_draft_for(is_stream=is_stream))
    assert (script.status, script.body, script.headers[:-1]) == (200, b"", good.headers)


@MODES
def test_nothing_stalls_in_the_middle_of_nothing(is_stream: bool) -> None:
    """Q15 with Q48:between: an empty body has no middle, and the reply does not claim one."""
    assert dict(bend_reply("Q15,Q48:between", is_stream=is_stream).headers)["x-simulator-quirk"] == "Q15"


@MODES
@pytest.mark.parametrize("n_bytes", [0, 1, 1_000_000])
def test_reply_is_huge(n_bytes: int, is_stream: bool) -> None:
    """Q55: so many bytes more, in lines or in one line, and still the same JSON or events."""
    good = write_script(make_draft_for(is_stream=is_stream))
    for variant, n_lines in (("body", -(-n_bytes // 65_536)), ("line", 0)):
        script = bend_reply(f"Q55:{variant}:{n_bytes}", is_stream=is_stream)
        assert len(script.body) - len(good.body) in range(n_bytes, n_bytes + 65_560)
        assert script.body.count(b"\n") == good.body.count(b"\n") + n_lines
        if is_stream:
            assert join_text(read_chunks(script)) == ANSWER
        else:
            assert read_json(script)["choices"][0]["message"]["content"] == ANSWER


def test_huge_reply_is_ten_megabytes_by_default() -> None:
    """Q55 without a number: 10 MB, whose pieces share their memory."""
    script = bend_reply("Q55:line")
    assert len(script.body) > 10_000_000
    assert len({id(piece.data) for piece in script.pieces}) == 3


def test_too_many_bytes_are_not_split() -> None:
    """Q47 leaves a huge reply alone: a piece for each byte would fill the memory."""
    script = stream("Q55:body:2000000,Q47:0")
    assert dict(script.headers)["x-simulator-quirk"] == "Q55:body"
    assert len(script.pieces) < 100
