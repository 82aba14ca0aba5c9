"""What one choice of a reply says: a text, JSON, tool calls or speech, cut where the request ends it.

Enters: what the request asks for and the profile. Leaves: `choices[i]` of a chat completion, and its tokens. Reasoning
comes first and uses up the token limit like everything else; `reasoning_effort: none` asks for none of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from typing import Any, Final

from evalrun.options import ProfileOptions
from evalrun.simulator import answers, draws
from evalrun.simulator.audio import asks_for_audio, make_audio
from evalrun.simulator.codec import encode_json, parse_json
from evalrun.simulator.json_answers import make_answer
from evalrun.simulator.logprobs import make_logprobs
from evalrun.simulator.refusal import Refusal
from evalrun.simulator.schemas import NoValueError
from evalrun.simulator.tokens import count_tokens, find_output_limit, split_tokens
from evalrun.simulator.tool_calls import Tool, make_call_text
from evalrun.simulator.usage import Counts

MAX_REASONING_TEXT_TOKENS: Final = 256
"""Longest reasoning text that is sent, whatever is billed."""

_MAX_ECHO_CHARS: Final = 200
_ANY_OBJECT: Final = {
    "type": "object",
    "properties": {"answer": {"type": ["string", "array"]}},
    "required": ["answer"],
}
"""What a reply looks like that must be JSON, when nothing says which and the answer itself is no object."""
_BARE_OBJECT: Final = {"type": "object"}
"""The same when the answer is one."""
# No digit and no capital standing alone: nothing here can be read as a number or a choice.
_REASONING_TOKENS: Final = split_tokens(
    " Let us look at what is given and at what is asked. Each part is compared with the others in turn."
    " What does not fit is left out, and what remains is looked at once more before anything is said."
)


@dataclass(slots=True, kw_only=True)  # Not frozen: one is made for each request, and freezing costs a microsecond.
class Voice:
    """Who speaks: one request's draws and what decides them."""

    body: Mapping[str, Any]
    profile: ProfileOptions
    answer: str | None
    """The right answer; None when it is not told."""
    seed: int
    sample: str
    """Names the sample, whose difficulty all models share."""
    digest: bytes
    """The request's."""

    def draw(self, purpose: str, index: int) -> float:
        """Return a number in (0, 1) for one purpose of one choice."""
        return draws.draw_uniform(self.digest, purpose, index)

    def is_right(self, index: int) -> bool:
        """Tell whether a choice says the right answer."""
        return draws.draw_is_right(self.seed, self.sample, self.digest, accuracy=self.profile.accuracy, index=index)

    def say(self, index: int) -> str:
        """Return the whole text of one choice, before anything cuts it."""
        if self.answer is None:
            return self._echo(index)
        make = answers.make_right_text if self.is_right(index) else answers.make_wrong_text
        return make(self.answer, self.profile.style, partial(draws.draw_uniform, self.digest, index=index))

    def _echo(self, index: int) -> str:
        """Return a text that depends on seed and body alone: a tag, and the end of the last message."""
        tag = f"{int(self.draw('echo', index) * 16**8):08x}"
        content = self.body["messages"][-1].get("content") or ""
        if not isinstance(content, str):
            content = " ".join(part["text"] for part in content if part["type"] == "text")
        return f"Simulated reply {tag} to: {content[-_MAX_ECHO_CHARS:]}"


def make_choice(
    voice: Voice, index: int, *, tools: Sequence[Tool], created: int, counts: Counts
) -> dict[str, Any] | Refusal:
    """Return one choice, and add its tokens to the counts.

    Args:
        voice: Who speaks.
        index: The choice's, 0-based.
        tools: The tools to call; () for a text.
        created: When the reply is said to be made, in Unix seconds.
        counts: The reply's tokens so far.
    """
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    n_left = find_output_limit(voice.body)
    if voice.profile.reasoning_tokens and voice.body.get("reasoning_effort") != "none":
        n_left = _reason(voice, index, n_left, message, counts)
    logprobs = None
    if tools:
        finish_reason = _call_tools(voice, index, tools, n_left, message, counts)
        if isinstance(finish_reason, Refusal):
            return finish_reason
    else:
        text = _make_text(voice, index)
        if isinstance(text, Refusal):
            return text
        text, n_tokens, finish_reason = _cut_text(text, voice.body.get("stop"), n_left)
        counts.completion += n_tokens
        if voice.body.get("prediction"):
            _count_predicted(voice.body["prediction"], text, None if n_left is None else n_left - n_tokens, counts)
        if text and asks_for_audio(voice.body):
            counts.audio += n_tokens
            message["audio"] = _speak(voice, index, text, created)
        else:
            message["content"] = text
            logprobs = _tell_logprobs(voice, index, text)
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish_reason}


def _reason(voice: Voice, index: int, n_left: int | None, message: dict[str, Any], counts: Counts) -> int | None:
    """Think before speaking; return how many tokens that leaves."""
    n_tokens = voice.profile.reasoning_tokens
    if n_left is not None:
        n_tokens = min(n_tokens, n_left)
        n_left -= n_tokens
    start = int(voice.draw("reasoning text", index) * len(_REASONING_TOKENS))
    shown = islice(cycle(_REASONING_TOKENS), start, start + min(n_tokens, MAX_REASONING_TEXT_TOKENS))
    message["reasoning_content"] = "".join(shown).lstrip()
    counts.reasoning += n_tokens
    counts.completion += n_tokens
    return n_left


def _make_text(voice: Voice, index: int) -> str | Refusal:
    told = voice.body.get("response_format")
    kind = told["type"] if told else "text"
    if told is None or kind == "text":
        return voice.say(index)
    answer = voice.answer
    schema, name = (
        (None, "") if kind == "json_object" else (told["json_schema"].get("schema"), told["json_schema"]["name"])
    )
    if schema is None:
        if answer is None:
            return encode_json({"answer": voice.say(index)}).decode()
        schema = _BARE_OBJECT if _is_object(answer) else _ANY_OBJECT
    is_right = answer is not None and voice.is_right(index)
    try:
        value = make_answer(schema, answer, partial(voice.draw, index=index), is_right=is_right)
    except NoValueError as error:
        return Refusal(message=f"Invalid schema for response_format '{name}': {error}.", param="response_format")
    written = encode_json(value).decode()
    is_broken = voice.profile.broken_json > 0 and voice.draw("broken JSON", index) < voice.profile.broken_json
    return written[: len(written) // 2] if is_broken else written


def _is_object(text: str) -> bool:
    try:
        return isinstance(parse_json(text.encode("utf-8", "surrogatepass")), dict)
    except ValueError:
        return False


def _cut_text(text: str, stops: Any, n_left: int | None) -> tuple[str, int, str]:
    """Cut a text where `stop` or the token limit ends it; return it with its tokens and its finish reason."""
    for stop in (stops,) if isinstance(stops, str) else stops or ():
        if stop:
            text = text.partition(stop)[0]
    if n_left is None:
        return text, count_tokens(text), "stop"
    pieces = split_tokens(text)
    if len(pieces) <= n_left:
        return text, len(pieces), "stop"
    return "".join(pieces[:n_left]), n_left, "length"


def _call_tools(
    voice: Voice, index: int, tools: Sequence[Tool], n_left: int | None, message: dict[str, Any], counts: Counts
) -> str | Refusal:
    """Put the calls into the message; return why it ends. A call whose name is cut off is not there at all."""
    is_right = voice.answer is not None and voice.is_right(index)
    calls: list[dict[str, Any]] = []
    finish_reason = "function_call" if tools[0].kind == "legacy" else "tool_calls"
    for place, tool in enumerate(tools):
        pick = partial(_pick_for_call, voice, index, place)
        said = make_call_text(tool, voice.answer, pick, is_right=is_right, any_text=voice.say(index))
        if isinstance(said, Refusal):
            return said
        n_name, pieces = count_tokens(tool.name), split_tokens(said)
        if n_left is not None and n_name + len(pieces) > n_left:
            finish_reason = "length"
            counts.completion += n_left
            if n_name <= n_left:
                calls.append(_write_call(tool, "".join(pieces[: n_left - n_name]), pick))
            break
        calls.append(_write_call(tool, said, pick))
        counts.completion += n_name + len(pieces)
        n_left = None if n_left is None else n_left - n_name - len(pieces)
    if calls and tools[0].kind == "legacy":
        message["function_call"] = calls[0]
    elif calls:
        message["tool_calls"] = calls
    return finish_reason


def _pick_for_call(voice: Voice, index: int, place: int, purpose: str) -> float:
    return voice.draw(f"call {place} {purpose}", index)


def _write_call(tool: Tool, text: str, pick: partial[float]) -> dict[str, Any]:
    if tool.kind == "legacy":
        return {"name": tool.name, "arguments": text}
    call_id = f"call_sim{int(pick('id') * 16**12):012x}"
    if tool.kind == "custom":
        return {"id": call_id, "type": "custom", "custom": {"name": tool.name, "input": text}}
    return {"id": call_id, "type": "function", "function": {"name": tool.name, "arguments": text}}


def _count_predicted(prediction: Mapping[str, Any], text: str, n_left: int | None, counts: Counts) -> None:
    """Count the predicted tokens that the text says, at its beginning and its end; the others are billed as well."""
    content = prediction["content"]
    if not isinstance(content, str):
        content = "".join(part["text"] for part in content)
    predicted, said = split_tokens(content), split_tokens(text)
    n_shared = min(len(predicted), len(said))
    n_first = next((n for n in range(n_shared) if predicted[n] != said[n]), n_shared)
    n_rest = n_shared - n_first
    n_last = next((n for n in range(n_rest) if predicted[-1 - n] != said[-1 - n]), n_rest)
    n_rejected = len(predicted) - n_first - n_last
    if n_left is not None:
        n_rejected = min(n_rejected, n_left)
    counts.accepted += n_first + n_last
    counts.rejected += n_rejected
    counts.completion += n_rejected


def _speak(voice: Voice, index: int, text: str, created: int) -> dict[str, Any]:
    audio_id = f"audio_sim{int(voice.draw('audio id', index) * 16**12):012x}"
    uniform = voice.draw("pitch", index)
    return make_audio(text, voice.body["audio"]["format"], audio_id=audio_id, uniform=uniform, created=created)


def _tell_logprobs(voice: Voice, index: int, text: str) -> dict[str, Any] | None:
    if not (text and voice.body.get("logprobs")):
        return None
    n_top = voice.body.get("top_logprobs") or 0
    return {"content": make_logprobs(split_tokens(text), voice.digest, index=index, n_top=n_top), "refusal": None}
