"""Puts the chunks of a streamed reply together into the one completion that they are pieces of.

Parsed chunks enter in order, a `chat.completion` object leaves, as the server would have sent it without streaming.
Every provider's dialect is read; what cannot be attributed with certainty is damage: pieces of two answers are never
joined into one. Sources: WIRE sections 2.4 to 2.6 and the issues cited there.
"""

from collections.abc import Mapping
from typing import Any

from evalrun.dispatch.json_text import dump_json, load_fragment

_SPOKEN = frozenset(
    {"content", "refusal", "reasoning_content", "reasoning", "reasoning_details", "tool_calls", "function_call"}
)
"""Members of a delta that are a model's words; a role alone is none."""
_SAID_ONCE = frozenset({"id", "type", "role", "format"})
"""Texts that are never in pieces, though some servers repeat them, or make up new ones, with each fragment."""
_NOISE = frozenset({"choices", "usage", "object", "obfuscation", "x_groq", "error"})
"""Members of a chunk that are read elsewhere, or that say nothing about the reply."""


class ChunkError(Exception):
    """A chunk cannot be part of the reply; the message says why."""


class Assembly:
    """One reply in the making.

    Args:
        n_choices: Choices that were asked for; with more than one, a choice must be told apart by its index.
    """

    def __init__(self, *, n_choices: int = 1) -> None:
        self.has_token = False
        """True once a choice said a word: text, reasoning, a refusal or a tool call."""
        self.was_finished_before = False
        """True when a choice went on after its finish_reason, which then proves nothing about the end."""
        self._n_choices = n_choices
        self._facts: dict[str, Any] = {}
        self._usage: Any = None
        self._choices: dict[int, _Choice] = {}

    @property
    def n_choices(self) -> int:
        """Choices seen so far."""
        return len(self._choices)

    @property
    def unfinished(self) -> list[int]:
        """Indexes of the choices that have neither a finish_reason nor an error of their own."""
        return [index for index, choice in sorted(self._choices.items()) if not choice.is_finished]

    def add(self, chunk: Any) -> None:
        """Take the next chunk.

        Raises:
            ChunkError: It is no chunk, or it cannot be told which choice it belongs to.
        """
        if not isinstance(chunk, dict):
            raise ChunkError(f"an event holds a value of type {type(chunk).__name__}, not an object")
        self.add_usage(chunk)
        for key, value in chunk.items():
            # The first chunk of a stream may be a stranger's, with empty id and model (Azure's prompt filter).
            if key not in _NOISE and value not in (None, "") and (key not in {"id", "model"} or key not in self._facts):
                self._facts[key] = value
        choices = chunk.get("choices") or ()
        if not isinstance(choices, list | tuple):
            raise ChunkError(f"`choices` of a chunk is of type {type(choices).__name__}, not a list")
        seen: set[int] = set()
        for position, choice in enumerate(choices):
            index = self._find_index(choice, position, is_alone=len(choices) == 1)
            if index in seen:
                raise ChunkError(f"a chunk holds two choices with the index {index}")
            seen.add(index)
            self._add_choice(index, choice)

    def add_usage(self, chunk: Any) -> None:
        """Take only the usage of a chunk: each newer one replaces the one before, since servers count up."""
        if not isinstance(chunk, dict):
            return
        groq = chunk.get("x_groq")
        usage = chunk.get("usage") or (groq.get("usage") if isinstance(groq, dict) else None)
        if usage:
            self._usage = usage

    def build(self) -> dict[str, Any]:
        """Return the completion; the choices are ordered by index."""
        choices = [choice.build(index) for index, choice in sorted(self._choices.items())]
        value = {**self._facts, "object": "chat.completion", "choices": choices}
        usage = self._usage
        if usage is None and len(self._choices) == 1:
            usage = next(iter(self._choices.values())).usage
        return value if usage is None else {**value, "usage": usage}

    def _find_index(self, choice: Any, position: int, *, is_alone: bool) -> int:
        if not isinstance(choice, dict):
            raise ChunkError("a choice of a chunk is no object")
        index = choice.get("index")
        if index is None:
            if is_alone and self._n_choices > 1:
                raise ChunkError(f"{self._n_choices} choices were asked for, and a chunk's choice has no `index`")
            return position
        if not isinstance(index, int) or isinstance(index, bool):
            raise ChunkError("the `index` of a chunk's choice is no whole number")
        return index

    def _add_choice(self, index: int, piece: Mapping[str, Any]) -> None:
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice()
        was_finished = choice.is_finished
        said = choice.add(piece)
        self.has_token = self.has_token or said
        if was_finished and (said or piece.get("finish_reason")):
            if self._n_choices > 1 or choice.may_be_two(said=said, is_end=bool(piece.get("finish_reason"))):
                raise ChunkError(f"choice {index} goes on after its end: another choice may bear its index")
            self.was_finished_before = self.was_finished_before or said


class _Choice:
    """One choice in the making."""

    __slots__ = ("_facts", "_logprobs", "_message", "_n_openings", "_said_openly", "finish_reason", "usage")

    def __init__(self) -> None:
        self.finish_reason: Any = None
        self.usage: Any = None
        """Usage within the choice, as Moonshot sends it."""
        self._message = _Message()
        self._n_openings = 0
        self._said_openly = False
        self._logprobs: dict[str, Any] | None = None
        self._facts: dict[str, Any] = {}

    @property
    def is_finished(self) -> bool:
        return bool(self.finish_reason or self._facts.get("error"))

    def add(self, piece: Mapping[str, Any]) -> bool:
        """Take a chunk's choice; True when it says something."""
        said = False
        for key, value in piece.items():
            if key == "delta":
                said = self._message.add(value)
            elif key == "finish_reason":
                # Some servers write "" until the end; of several reasons the last one is the end's.
                self.finish_reason = value or self.finish_reason
            elif key == "logprobs":
                self._add_logprobs(value)
            elif key == "usage":
                self.usage = value or self.usage
            elif key == "message":
                said = said or self._take_message(value, piece)
            elif key != "index" and (value is not None or key not in self._facts):
                self._facts[key] = value
        if not piece.get("finish_reason"):
            self._said_openly = self._said_openly or said
            self._n_openings += not self._said_openly and _is_opening(piece.get("delta"))
        return said

    def may_be_two(self, *, said: bool, is_end: bool) -> bool:
        """Tell whether what comes after the end may be another choice that bears the same index.

        Some relays give the reason with each word: then no word comes without it. Some servers give it once more at the
        end: then the reply was not opened twice as well.

        Args:
            said: Whether a word came after the end.
            is_end: Whether a finish_reason came after it.
        """
        if said:
            return self._said_openly or not is_end
        return self._n_openings > 1

    def build(self, index: int) -> dict[str, Any]:
        message = self._message.build()
        choice = {**self._facts, "index": index, "message": message, "finish_reason": self.finish_reason}
        return choice if self._logprobs is None else {**choice, "logprobs": self._logprobs}

    def _take_message(self, message: Any, piece: Mapping[str, Any]) -> bool:
        """Take a whole message, which some servers send as the only chunk; beside a delta it only repeats it."""
        if piece.get("delta") is not None or message is None:
            return False
        self._message = _Message()
        return self._message.add(message)

    def _add_logprobs(self, value: Any) -> None:
        if value is None:
            self._facts["logprobs"] = None
            return
        if not isinstance(value, dict):
            raise ChunkError(f"`logprobs` of a chunk is of type {type(value).__name__}, not an object")
        if self._logprobs is None:
            self._logprobs = {}
        for key, tokens in value.items():
            known = self._logprobs.get(key)
            if isinstance(known, list) and isinstance(tokens, list):
                known.extend(tokens)
            elif tokens is not None or key not in self._logprobs:
                self._logprobs[key] = tokens


class _Message:
    """The message of one choice in the making: texts are joined, lists lengthened, else the last value is kept."""

    __slots__ = ("_calls", "_function_call", "_has_parts", "_members")

    def __init__(self) -> None:
        # A text is kept as the list of its pieces: joining them one by one would take quadratic time.
        self._members: dict[str, Any] = {}
        self._calls: list[_Call] = []
        self._function_call: _Call | None = None
        self._has_parts = False

    def add(self, delta: Any) -> bool:
        """Take a delta; True when it says something."""
        if delta is None:
            return False
        if not isinstance(delta, dict):
            raise ChunkError(f"a delta is of type {type(delta).__name__}, not an object")
        said = False
        for key, value in delta.items():
            if value and key in _SPOKEN:
                said = True
            if key == "content":
                self._add_content(value)
            elif key == "tool_calls":
                self._add_calls(value)
            elif key == "function_call":
                self._add_function_call(value)
            else:
                _merge(self._members, key, value)
        return said

    def build(self) -> dict[str, Any]:
        message = {
            "role": "assistant",
            "content": None,
            **{key: _finish(value) for key, value in self._members.items()},
        }
        if self._calls:
            message["tool_calls"] = [call.build() for call in self._calls]
        if self._function_call is not None:
            message["function_call"] = self._function_call.build_function()
        return message

    def _add_content(self, value: Any) -> None:
        """Take text, or content parts; once parts came, text between them is a part as well."""
        if isinstance(value, list) and not self._has_parts:
            text = _finish(self._members.pop("content", None))
            self._members["content"] = [_make_text_part(text)] if text else []
            self._has_parts = True
        elif not isinstance(value, str | list | None):
            raise ChunkError(f"the content of a delta is of type {type(value).__name__}, not text")
        if self._has_parts and isinstance(value, str):
            value = [_make_text_part(value)] if value else []
        _merge(self._members, "content", value)

    def _add_function_call(self, value: Any) -> None:
        if isinstance(value, dict):
            if self._function_call is None:
                self._function_call = _Call(None)
            self._function_call.add({"function": value})
        elif value is not None:
            raise ChunkError(f"the function_call of a delta is of type {type(value).__name__}, not an object")

    def _add_calls(self, fragments: Any) -> None:
        if fragments is None:
            return
        if not isinstance(fragments, list):
            raise ChunkError(f"the tool_calls of a delta are of type {type(fragments).__name__}, not a list")
        for fragment in fragments:
            if not isinstance(fragment, dict):
                raise ChunkError("a tool call of a delta is no object")
            call = self._find_call(fragment)
            if call is None:
                call = _Call(fragment.get("index"))
                self._calls.append(call)
            call.add(fragment)

    def _find_call(self, fragment: Mapping[str, Any]) -> "_Call | None":
        """Return the call that a fragment goes on with; None when it begins a new one.

        Gemini numbers nothing, or gives every call the index 0: then a new id that comes with a name begins a call.
        Where even the ids are all alike, a name does so that brings more arguments to a call whose own are whole.
        """
        index, call_id, is_named = fragment.get("index"), fragment.get("id"), _is_named(fragment)
        call = None
        if index is not None:
            call = next((call for call in reversed(self._calls) if call.index == index), None)
        elif call_id:
            call = next((call for call in reversed(self._calls) if call.call_id == call_id), None)
        if index is None and call is None and not is_named and self._calls:
            call = self._calls[-1]
        if call is None or not is_named:
            return call
        has_other_id = bool(call_id) and call.call_id not in (None, "", call_id)
        return None if has_other_id or call.is_whole_before(fragment) else call


class _Call:
    """One tool call in the making, or the deprecated function call."""

    __slots__ = ("_bodies", "_facts", "index")

    def __init__(self, index: Any) -> None:
        self.index = index
        self._facts: dict[str, Any] = {}
        self._bodies: dict[str, dict[str, Any]] = {}

    @property
    def call_id(self) -> Any:
        return self._facts.get("id")

    def is_whole_before(self, fragment: Mapping[str, Any]) -> bool:
        """Tell whether a fragment brings the arguments of another call, since these are one JSON object already."""
        function = fragment.get("function")
        added = function.get("arguments") if isinstance(function, Mapping) else None
        begun = _finish(self._bodies.get("function", {}).get("arguments"))
        # Most fragments are told by a look at both ends: a server that names each of them must not make this slow.
        is_begun = isinstance(begun, str) and begun.rstrip().endswith("}")
        if not is_begun or not (isinstance(added, Mapping) or str(added or "").lstrip().startswith("{")):
            return False
        try:
            load_fragment(begun.encode())
        except ValueError:
            return False
        return True

    def add(self, fragment: Mapping[str, Any]) -> None:
        for key, value in fragment.items():
            if key in {"function", "custom"} and isinstance(value, dict):
                self._add_body(self._bodies.setdefault(key, {}), value)
            elif key != "index":
                _merge(self._facts, key, value)

    def build(self) -> dict[str, Any]:
        parts = {**self._facts, **self._bodies}
        return {key: _finish(value) for key, value in parts.items()}

    def build_function(self) -> Any:
        return _finish(self._bodies["function"])

    @staticmethod
    def _add_body(body: dict[str, Any], fragment: Mapping[str, Any]) -> None:
        for key, value in fragment.items():
            is_object = key in {"arguments", "input"} and value is not None and not isinstance(value, str)
            _merge(body, key, dump_json(value) if is_object else value)


class _Pieces(list[str]):
    """A text in pieces, told apart from a list of the reply."""


def _merge(target: dict[str, Any], key: str, value: Any, *, is_inner: bool = False) -> None:
    """Add a value to a member: text to text, list to list, object into object; null changes nothing."""
    known = target.get(key)
    if value is None:
        target.setdefault(key, None)
    elif key in _SAID_ONCE:
        target[key] = known or value
    elif isinstance(value, str):
        if isinstance(known, _Pieces):
            # A name comes whole with the first fragment; some servers repeat it with each, hardly one splits it.
            if key != "name" or [value] != known:
                known.append(value)
        else:
            target[key] = _Pieces([value])
    elif isinstance(value, list) and isinstance(known, list) and not isinstance(known, _Pieces):
        known.extend(value)
    elif isinstance(value, dict) and not is_inner:
        inner = target[key] = known if isinstance(known, dict) else {}
        for name, member in value.items():
            _merge(inner, name, member, is_inner=True)
    else:
        target[key] = value


def _finish(value: Any) -> Any:
    """Return a merged value with its texts joined."""
    if isinstance(value, _Pieces):
        return "".join(value)
    if isinstance(value, dict):
        return {key: "".join(member) if isinstance(member, _Pieces) else member for key, member in value.items()}
    return value


def _make_text_part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _is_opening(delta: Any) -> bool:
    return isinstance(delta, dict) and bool(delta.get("role"))


def _is_named(fragment: Mapping[str, Any]) -> bool:
    bodies = (fragment.get("function"), fragment.get("custom"))
    return any(isinstance(body, dict) and body.get("name") for body in bodies)
