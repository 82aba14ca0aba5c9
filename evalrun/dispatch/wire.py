"""The chat-completions wire: what a reply says, or why it is none.

A finished reply enters as status, headers and body; a `Completion` leaves, or the `ApiError` that the reply stands
for. Nothing else is ever raised, whatever the bytes. Pure: no network, no clock.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from evalrun.dispatch.faults import (
    EVIDENCE_BYTES,
    Complaint,
    Evidence,
    describe_body,
    excerpt,
    find_complaint,
    find_request_id,
    make_complaint_error,
    make_status_error,
    parse_should_retry,
)
from evalrun.dispatch.json_text import LoadedJson, dump_json, load_json
from evalrun.dispatch.retry_after import parse_retry_after
from evalrun.dispatch.usage import parse_usage
from evalrun.errors import DamagedReplyError, ServerFaultError
from evalrun.records import Completion, ErrorCode, Status

# Finish reasons are compared in lower case: relays of Gemini pass its own on as they are.
_FINISHED = frozenset({"stop", "tool_calls", "function_call"})
_CUT_SHORT = frozenset({"length", "max_tokens", "model_length"})
_FILTERED = frozenset({"content_filter", "safety", "prohibited_content", "blocklist", "spii", "recitation"})
_KNOWN = _FINISHED | _CUT_SHORT | _FILTERED
_FAILED = frozenset({"error", "insufficient_system_resource"})
"""The server gave up in the middle: what it said so far is no answer."""


_STATUSES = dict.fromkeys(_FILTERED, Status.FILTERED) | dict.fromkeys(_CUT_SHORT, Status.TRUNCATED)
"""By finish reason, where that alone decides."""


class _DamageError(Exception):
    """The reply is not a completion; the message says why. Never leaves this module."""


def parse_reply(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    model: str | None = None,
    n_choices: int = 1,
    now: datetime | None = None,
    evidence: bytes | None = None,
) -> Completion:
    """Return the completion that a reply holds.

    Args:
        status: HTTP status.
        headers: Names in lower case.
        body: The decoded body, whole; of a stream, what its chunks say together.
        model: Model id that was asked for; None does not compare it with the reply's.
        n_choices: Choices that were asked for; fewer are flagged.
        now: Local UTC time, for a dated Retry-After without `Date`.
        evidence: What a failure keeps instead of the body's beginning; None keeps that.

    Raises:
        ApiError: The reply is an error, or no completion; class and code say which.
    """
    if not 200 <= status < 300:
        facts = make_evidence(status, headers, body, now=now)
        raise make_status_error(status, body, facts, location=headers.get("location"))
    try:
        loaded = load_json(body)
        return _parse_completion(loaded, model, n_choices)
    except _ComplaintError as found:
        raise found.make_error(make_evidence(status, headers, evidence or body, now=now)) from None
    except (_DamageError, ValueError) as error:
        text = f"HTTP {status} without a completion: {_describe_damage(error, body)}"
        facts = make_evidence(status, headers, evidence or body, now=now)
        raise DamagedReplyError(ErrorCode.BODY_INVALID, text, **facts) from None


def make_evidence(status: int, headers: Mapping[str, str], body: bytes, *, now: datetime | None = None) -> Evidence:
    """Return the facts of a failed exchange, the body cut to its first 4 KiB."""
    return Evidence(
        http_status=status,
        retry_after_s=parse_retry_after(headers, now=now),
        should_retry=parse_should_retry(headers),
        body=body[:EVIDENCE_BYTES],
        request_id=find_request_id(headers),
        bytes_received=len(body),
        first_token_s=None,
        said=None,
    )


class _ComplaintError(Exception):
    """The reply holds an error object, or a choice that ended with an error."""

    def __init__(self, complaint: Complaint | None, finish_reason: str = "") -> None:
        super().__init__()
        self.complaint = complaint
        self.finish_reason = finish_reason

    def make_error(self, evidence: Evidence) -> Exception:
        if self.complaint is None:
            text = f"error in a 200 reply: finish_reason is `{self.finish_reason}`, without a word why"
            return ServerFaultError(ErrorCode.ERROR_IN_200, text, **evidence)
        return make_complaint_error(self.complaint, evidence)


def _describe_damage(error: Exception, body: bytes) -> str:
    if not body.strip():
        return "the body is empty"
    if isinstance(error, _DamageError):
        return str(error)
    return f"no JSON ({excerpt(str(error))}), it begins with: {describe_body(body)[:120]}"


def _parse_completion(loaded: LoadedJson, model: str | None, n_choices: int) -> Completion:
    value, choices = loaded.value, _find_choices(loaded.value)
    choice = _choose_first(choices)
    finish_reason = _read_text(choice, "finish_reason")
    reason = "" if finish_reason is None else finish_reason.lower()
    if reason in _FAILED or choice.get("error"):
        complaint = find_complaint(choice) if choice.get("error") else None
        raise _ComplaintError(complaint, str(choice.get("finish_reason")))
    message = choice.get("message")
    if not isinstance(message, dict):
        raise _DamageError("choice 0 has no `message`")
    content = message.get("content")
    text, flags = (content, ()) if isinstance(content, str) else _read_content(message, content)
    refusal = _read_text(message, "refusal") or _join_parts(content, "refusal") or None
    tool_calls = _read_tool_calls(message)
    status = _decide_status(reason, text=text, refusal=refusal, has_tool_calls=tool_calls is not None)
    logprobs = choice.get("logprobs")
    usage = parse_usage(value.get("usage"))
    response_model = _read_text(value, "model")
    if reason not in _KNOWN:
        flags += ("finish_reason_missing" if finish_reason is None else "finish_reason_unknown",)
    flags += usage.flags + _flag_choices(choices, n_choices)
    if model is not None and response_model is not None and response_model != model:
        flags += ("model_mismatch",)
    return Completion(
        status=status,
        output=None if reason in _FILTERED or (tool_calls is not None and not text) else text,
        refusal=refusal,
        finish_reason=finish_reason,
        reasoning=_read_reasoning(message, content),
        tool_calls=tool_calls,
        choices=dump_json(_sort_choices(choices)) if len(choices) > 1 else None,
        logprobs=None if logprobs is None else dump_json(logprobs),
        response_id=_read_text(value, "id"),
        response_model=response_model,
        system_fingerprint=_read_text(value, "system_fingerprint"),
        service_tier=_read_text(value, "service_tier"),
        usage=usage,
        flags=flags + loaded.flags,
    )


def _find_choices(value: Any) -> list[Any]:
    """Return the choices of a reply, at least one.

    Raises:
        _ComplaintError: It holds an error instead, or beside them.
        _DamageError: It holds neither.
    """
    if isinstance(value, dict):
        if value.get("error"):
            raise _ComplaintError(find_complaint(value))
        choices = value.get("choices")
        if isinstance(choices, list) and choices:
            return choices
    complaint = find_complaint(value)
    if complaint is not None:
        raise _ComplaintError(complaint)
    raise _DamageError("it has no `choices`")


def _flag_choices(choices: Sequence[Any], n_choices: int) -> tuple[str, ...]:
    """Say when fewer choices can be used than were asked for, or when two bear the same index."""
    if len(choices) == n_choices == 1:
        return ()  # The one that is there has just been read.
    usable = [
        choice
        for choice in choices
        if isinstance(choice, dict) and isinstance(choice.get("message"), dict) and not _has_failed(choice)
    ]
    indexes = [choice["index"] for choice in usable if isinstance(choice.get("index"), int)]
    flags = ("fewer_choices",) if len(usable) < n_choices else ()
    return (*flags, "choice_index_repeated") if len(set(indexes)) < len(indexes) else flags


def _sort_choices(choices: Sequence[Any]) -> Sequence[Any]:
    """Return the choices by index, as they come together from a stream; as they came where indexes do not say."""
    indexes = [choice.get("index") if isinstance(choice, dict) else None for choice in choices]
    if not all(type(index) is int for index in indexes) or len(set(indexes)) < len(choices):
        return choices
    return sorted(choices, key=lambda choice: int(choice["index"]))


def _has_failed(choice: Mapping[str, Any]) -> bool:
    """Tell whether a choice carries an error, or says that it ended with one."""
    return bool(choice.get("error")) or (_read_text(choice, "finish_reason") or "").lower() in _FAILED


def _choose_first(choices: Sequence[Any]) -> Mapping[str, Any]:
    """Return the choice whose index is 0, else the first one."""
    objects = [choice for choice in choices if isinstance(choice, dict)]
    if not objects:
        raise _DamageError("its `choices` are no objects")
    if len(objects) == 1:
        return objects[0]
    return next((choice for choice in objects if choice.get("index") == 0), objects[0])


def _decide_status(reason: str, *, text: str, refusal: str | None, has_tool_calls: bool) -> Status:
    status = _STATUSES.get(reason)
    if status is not None:
        return status
    if text or has_tool_calls:
        return Status.OK
    return Status.REFUSED if refusal else Status.EMPTY


def _read_content(message: Mapping[str, Any], content: Any) -> tuple[str, tuple[str, ...]]:
    """Return the text of a message whose content is no plain text, and flags; "" when it has none."""
    if content is None:
        audio = message.get("audio")
        return (_read_text(audio, "transcript") or "", ()) if isinstance(audio, dict) else ("", ())
    if isinstance(content, list):
        return _join_parts(content, "text"), ("content_parts",)
    raise _DamageError(f"the content of choice 0 is of type {type(content).__name__}, not text")


def _join_parts(content: Any, key: str) -> str:
    """Return the joined texts of content parts; plain strings in the list count as text."""
    if not isinstance(content, list):
        return ""
    texts = (
        part if isinstance(part, str) and key == "text" else _read_text(part, key) if isinstance(part, dict) else None
        for part in content
    )
    return "".join(text for text in texts if text)


def _read_tool_calls(message: Mapping[str, Any]) -> str | None:
    calls = message.get("tool_calls")
    if isinstance(calls, list) and calls:
        return dump_json(calls)
    function_call = message.get("function_call")
    if isinstance(function_call, dict) and function_call:
        return dump_json([{"type": "function", "function": function_call}])
    return None


def _read_reasoning(message: Mapping[str, Any], content: Any) -> str | None:
    """Return the reasoning under the names that servers give it; None when there is none."""
    for key in ("reasoning_content", "reasoning"):
        text = message.get(key)
        if text and isinstance(text, str):
            return text
    details = message.get("reasoning_details")
    if not isinstance(details, list) and not isinstance(content, list):
        return None  # Nearly every reply: there are no parts to be joined.
    joined = _join_parts(details, "text") or _join_parts(details, "summary") or _join_thinking(content)
    return joined or None


def _join_thinking(content: Any) -> str:
    """Return the thinking parts of a content list: text, or a list of text parts again (Mistral)."""
    if not isinstance(content, list):
        return ""
    thoughts = [part.get("thinking") for part in content if isinstance(part, dict)]
    return "".join(thought if isinstance(thought, str) else _join_parts(thought, "text") for thought in thoughts)


def _read_text(source: Mapping[str, Any], key: str) -> str | None:
    value = source.get(key)
    return value if isinstance(value, str) else None
