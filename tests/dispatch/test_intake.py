"""Bodies taken in without a network: what is kept, what is refused, and in which words."""

from typing import Any

import pytest

from evalrun.dispatch.intake import Intake, IntakeError
from evalrun.dispatch.redaction import Redactor
from evalrun.records import ErrorCode
from tests.fake_endpoint import encode_stream, make_chunks

SSE = {"content-type": "Text/Event-Stream; charset=utf-8"}


def take(*pieces: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Intake:
    """Return the intake of a reply that was asked for as a stream."""
    intake = Intake(status, SSE if headers is None else headers, is_stream=True, n_choices=1)
    for piece in pieces:
        intake.feed(piece)
    return intake


def fail(intake: Intake) -> IntakeError:
    """Return what is wrong with a body that has ended."""
    with pytest.raises(IntakeError) as caught:
        intake.end()
    return caught.value


def nest(depth: int) -> Any:
    """Return a list within a list, so many times."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def test_last_event_that_is_no_chunk_is_damage() -> None:
    """A whole event at the very end is judged like any other, blank line or not."""
    intake = take(encode_stream(make_chunks("a"), has_done=False), b"data: 7")
    failure = fail(intake)
    assert (failure.code, "event 5" in failure.message) == (ErrorCode.BODY_INVALID, True)
    assert intake.make_evidence(Redactor([])).startswith(b'data: {"id"')


def test_stream_too_deep_to_be_written_is_damage() -> None:
    """What can be read but not written is refused by name, and leaves no evidence rather than a crash."""
    intake = take(encode_stream(make_chunks("a")))
    assert intake._stream is not None
    intake._stream._assembly.add({"deep": nest(100_000)})
    failure = fail(intake)
    assert (failure.code, "nested too deeply" in failure.message) == (ErrorCode.BODY_INVALID, True)
    assert intake.make_evidence(Redactor([])) == b""


@pytest.mark.parametrize("depth", range(900, 1000, 7))
def test_nesting_near_the_limit_is_read_or_refused(depth: int) -> None:
    """Between what the reader and the writer can follow there is no crash."""
    event = b'data: {"x": ' + b"[" * depth + b"]" * depth + b', "choices": []}\n\n'
    intake = take(event, encode_stream(make_chunks("a")))
    try:
        body = intake.end()
    except IntakeError:
        body = b""
    assert not body or b'"content":"a"' in body


def test_first_failure_stands() -> None:
    """After damage nothing more is wanted, and what follows changes nothing."""
    intake = take(b"data: {\n\n")
    assert intake.is_enough
    assert intake.cut()
    assert "event 1" in fail(intake).message


def test_document_is_cut_by_name_or_not_at_all() -> None:
    """A document whose transfer is damaged says how; one whose connection was lost is no reply to speak of."""
    named = take(b'{"a": ', headers={})
    assert named.cut("the length was a lie")
    assert (fail(named).code, fail(named).message) == (ErrorCode.BODY_INVALID, "the length was a lie")
    assert not take(b'{"a": ', headers={}).cut()


@pytest.mark.parametrize("piece", [b"no gzip", b""])
def test_refusal_needs_no_sound_body(piece: bytes) -> None:
    """Of a reply that is no 2xx the status says enough: a damaged body is read no further and never an error."""
    intake = take(piece, status=500, headers={"content-encoding": "gzip"})
    assert intake.is_enough is bool(piece)
    assert (intake.end(), intake.is_complete, intake.flags) == (b"", True, ())
    assert take(b"{}", headers={}).flags == ("not_streamed",)


def test_document_is_not_complete_before_its_end() -> None:
    """Whether a document is whole shows at its end only, whatever was asked for."""
    assert not take(b'{"a": 1}', headers={}).is_complete
    assert not Intake(200, {}, is_stream=False, n_choices=1).is_complete
