"""Tests of spoken replies."""

import base64
import io
import wave
from typing import Any

import pytest

from evalrun.options import ProfileOptions
from evalrun.simulator.replies import Hint, make_chat_request, make_draft
from evalrun.simulator.script import Draft
from tests.simulator.asking import make_body


def speak(kind: str, **params: Any) -> Draft:
    """Return the draft of a spoken reply."""
    body = make_body(modalities=["text", "audio"], audio={"voice": "alloy", "format": kind}, **params)
    return make_draft(make_chat_request(body, Hint(answer="one two"), 7), ProfileOptions(accuracy=1))


def test_spoken_reply_is_a_wave_file_with_a_transcript() -> None:
    """The data can be played, the transcript is the text, and the text's tokens are billed as sound."""
    completion = speak("wav").completion
    message = completion["choices"][0]["message"]
    with wave.open(io.BytesIO(base64.b64decode(message["audio"]["data"]))) as sound:
        assert (sound.getnchannels(), sound.getsampwidth(), sound.getnframes()) == (1, 2, 400)
    assert (message["content"], message["audio"]["transcript"]) == (None, "one two")
    assert message["audio"]["expires_at"] > completion["created"]
    usage = completion["usage"]
    assert (usage["completion_tokens"], usage["completion_tokens_details"]["audio_tokens"]) == (2, 2)


def test_fragments_of_a_stream_are_base64_each() -> None:
    """A player can decode them one by one, or all together."""
    deltas = [chunk["choices"][0]["delta"].get("audio", {}) for chunk in speak("pcm16", stream=True).chunks or ()]
    fragments = [delta["data"] for delta in deltas if "data" in delta]
    assert len(fragments) > 1
    assert b"".join(map(base64.b64decode, fragments)) == base64.b64decode("".join(fragments))


@pytest.mark.parametrize(("kind", "is_stream"), [("mp3", False), ("opus", False), ("wav", True)])
def test_format_that_is_not_made_is_refused(kind: str, is_stream: bool) -> None:
    """Compressed sound is not made, and a stream is pcm16 only, as at OpenAI."""
    draft = speak(kind, stream=is_stream)
    error = draft.completion["error"]
    assert (draft.status, error["param"], error["code"]) == (400, "audio.format", "unsupported_value")


def test_text_only_is_not_spoken() -> None:
    """`modalities: [text]` is the default."""
    body = make_body(modalities=["text"])
    draft = make_draft(make_chat_request(body, Hint(answer="x"), 7), ProfileOptions(accuracy=1))
    assert draft.completion["choices"][0]["message"]["content"] == "x"
