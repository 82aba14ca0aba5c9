"""Spoken replies: a short tone instead of a voice, and the transcript that says it all.

Enters: the text to be said and the format asked for. Leaves: the message's `audio` object. `wav` and `pcm16` are made;
compressed formats are refused, as is all but `pcm16` in a stream, which is OpenAI's rule.
"""

import base64
import io
import math
import struct
import wave
from collections.abc import Mapping
from typing import Any, Final

from evalrun.simulator.refusal import Refusal

_RATE_HZ: Final = 8_000
_N_SAMPLES: Final = 400
_SAMPLE_BYTES: Final = 2
_LOUDNESS: Final = 8_000
"""Of 32,767: a quarter of full scale."""
_LOWEST_HZ: Final = 220
_LIFETIME_S: Final = 3_600


def check_audio(body: Mapping[str, Any]) -> Refusal | None:
    """Return why the format that a valid body asks for is not made; None when it is, or when no sound is asked for."""
    if not asks_for_audio(body):
        return None
    kind, is_stream = body["audio"]["format"], bool(body.get("stream"))
    supported = ("pcm16",) if is_stream else ("wav", "pcm16")
    if kind in supported:
        return None
    where = "when stream=true" if is_stream else "in this simulator"
    names = " and ".join(f"'{name}'" for name in supported)
    message = f"Unsupported value: 'audio.format' does not support '{kind}' {where}. Supported values are: {names}."
    return Refusal(message=message, param="audio.format", code="unsupported_value")


def asks_for_audio(body: Mapping[str, Any]) -> bool:
    """Tell whether a body asks for a spoken reply."""
    return "audio" in (body.get("modalities") or ())


def make_audio(transcript: str, kind: str, *, audio_id: str, uniform: float, created: int) -> dict[str, Any]:
    """Return an `audio` object: a tone of 50 ms whose pitch is drawn."""
    pitch = _LOWEST_HZ * (1 + uniform) * 2 * math.pi / _RATE_HZ
    samples = struct.pack(f"<{_N_SAMPLES}h", *(round(_LOUDNESS * math.sin(pitch * n)) for n in range(_N_SAMPLES)))
    data = _make_wav(samples) if kind == "wav" else samples
    return {
        "id": audio_id,
        "data": base64.b64encode(data).decode(),
        "expires_at": created + _LIFETIME_S,
        "transcript": transcript,
    }


def _make_wav(samples: bytes) -> bytes:
    """Return a WAV file of one channel."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(_SAMPLE_BYTES)
        file.setframerate(_RATE_HZ)
        file.writeframes(samples)
    return buffer.getvalue()
