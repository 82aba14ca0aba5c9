"""One chat completion from the request to its end: read, limited, drafted, bent, delivered, counted.

Enters: an HTTP request that may be answered. Leaves: a script, carried out, and its trace in the ledger. What a request
gets depends on seed, profile, body, sample, repeat and attempt; only the limits look at the time. What is large is made
in a thread, so that others need not wait for it.
"""

import binascii
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import anyio
import anyio.to_thread

from evalrun.options import ProfileOptions, SimulatedLimits, SimulatorOptions
from evalrun.records import SIMULATOR_VERSION
from evalrun.simulator.answer_book import AnswerBook
from evalrun.simulator.codec import parse_json
from evalrun.simulator.connection import HttpRequest, Respond, make_error_response
from evalrun.simulator.ledger import DEFAULT_TIER, Ending, Ledger, LedgerKey, Visit
from evalrun.simulator.limits import Denial, Limiter
from evalrun.simulator.quirks.apply import QUIRK_HEADER, bend, choose_quirks, is_bent
from evalrun.simulator.quirks.quirk import Quirk
from evalrun.simulator.quirks.replacements import make_page
from evalrun.simulator.rate_headers import make_rate_headers, make_retry_after
from evalrun.simulator.refusal import Refusal
from evalrun.simulator.replies import (
    ChatRequest,
    Hint,
    draw_is_error,
    draw_latency_s,
    make_chat_request,
    make_draft,
)
from evalrun.simulator.script import Draft, Piece, Script
from evalrun.simulator.tokens import count_prompt_tokens, find_output_limit
from evalrun.simulator.usage import Counts
from evalrun.simulator.validate import Dialect, check_body, drop_not_given

ANSWER_HEADER: Final = "X-Simulator-Answer"
SAMPLE_HEADER: Final = "X-Simulator-Sample"
REPEAT_HEADER: Final = "X-Simulator-Repeat"

BIG_BODY_BYTES: Final = 256 * 1024
"""Bodies from this size on are worked on in a thread: they take some 20 ms, a thread 0.1 ms to start."""

BIG_ANSWER_BYTES: Final = 16 * 1024
"""The same for the header of the right answer: a streamed reply has a chunk for each of its tokens."""

HEAVY_LISTS: Final = 32
"""The same for the number of choices times the alternatives listed for each token."""

_MAX_REPEAT: Final = 1_000_000


class _Order(NamedTuple):
    """A request that is let in, with all that decides its reply; a tuple, for each request makes one."""

    asked: ChatRequest
    profile: ProfileOptions
    quirks: Sequence[Quirk]
    limiter: Limiter | None
    is_big: bool


@dataclass(slots=True)
class _Bill:
    """What a reply costs, and what becomes of it."""

    counts: Counts = field(default_factory=Counts)
    service_tier: str = DEFAULT_TIER
    """As the reply tells it."""
    ending: Ending = "completions"


class Chat:
    """Answers `POST /chat/completions`.

    Args:
        options: Seed and profiles.
        ledger: Where requests are counted.
        answers: Right answers for requests that do not tell one; None = such requests get an echo.
    """

    def __init__(self, options: SimulatorOptions, ledger: Ledger, answers: AnswerBook | None = None) -> None:
        self._options = options
        self._ledger = ledger
        self._answers = answers
        if answers is not None:
            ledger.unmatched = 0
        self._limiters = {
            model: Limiter(profile.limits, model)
            for model, profile in options.profiles.items()
            if profile.limits != SimulatedLimits()
        }

    async def answer(self, request: HttpRequest, dialect: Dialect, respond: Respond) -> None:
        """Answer one request.

        Args:
            request: Its key has been checked.
            dialect: Whose documentation its body follows.
            respond: Carries the reply out.
        """
        answer = request.headers.get(_ANSWER_WIRE_NAME, b"")
        is_big = len(request.body) >= BIG_BODY_BYTES or len(answer) >= BIG_ANSWER_BYTES
        if is_big:
            asked = await anyio.to_thread.run_sync(self._read, request, dialect)
        else:
            asked = self._read(request, dialect)
        if isinstance(asked, Refusal):
            await self._reject(asked, respond)
            return
        is_big = is_big or _is_heavy(asked.body)
        if self._answers is not None and asked.hint.answer is None:
            self._ledger.count_unmatched()
        model = asked.body["model"]
        profile = self._options.profiles[model]
        key = LedgerKey(asked.hint.sample, asked.body_digest, asked.hint.repeat, model)
        told = request.headers.get(_QUIRK_WIRE_NAME)
        attempt = self._ledger.get_attempt(key)
        quirks = choose_quirks(asked, profile, None if told is None else told.decode("latin-1"), attempt)
        if isinstance(quirks, Refusal):
            await self._reject(quirks, respond)
            return
        order = _Order(asked=asked, profile=profile, quirks=quirks, limiter=self._limiters.get(model), is_big=is_big)
        with self._ledger.open_visit(key) as visit:
            await _serve(order, visit, respond)

    async def _reject(self, refusal: Refusal, respond: Respond) -> None:
        self._ledger.count_rejected()
        await respond(make_error_response(refusal, headers=[SERVER_HEADER]))

    def _read(self, request: HttpRequest, dialect: Dialect) -> ChatRequest | Refusal:
        """Return the request that the body and the headers hold, or why it is refused."""
        try:
            body = parse_json(request.body)
        except ValueError as error:
            return Refusal(message=f"We could not parse the JSON body of your request: {error}.")
        if not isinstance(body, dict):
            return Refusal(message="The body of your request must be a JSON object.")
        if refusal := check_body(body, dialect):
            return refusal
        if body["model"] not in self._options.profiles:
            known = ", ".join(self._options.profiles)
            message = f"The model `{body['model'][:200]}` does not exist. This simulator's profiles are: {known}."
            return Refusal(message=message, param="model", code="model_not_found", status=404)
        hint = _read_hint(request.headers)
        if isinstance(hint, Refusal):
            return hint
        if dialect == "gateway":
            body = drop_not_given(body)
        return make_chat_request(body, self._look_up(body, hint), self._options.seed, dialect=dialect)

    def _look_up(self, body: Mapping[str, Any], hint: Hint) -> Hint:
        """Return the hint, with the right answer from the book if the client told none."""
        if self._answers is None or hint.answer is not None:
            return hint
        known = self._answers.find(body["messages"])
        if known is None:
            return hint
        return Hint(answer=known.answer, sample=hint.sample or known.sample, repeat=hint.repeat)


async def _serve(order: _Order, visit: Visit, respond: Respond) -> None:
    """Let a request in and reply, or deny it."""
    limiter = order.limiter
    if limiter is None:
        await _reply(order, visit, respond)
        return
    tokens = 0
    if limiter.has_token_limit:
        body = order.asked.body
        tokens = await anyio.to_thread.run_sync(_estimate_tokens, body) if order.is_big else _estimate_tokens(body)
    denial = limiter.admit(anyio.current_time(), tokens=tokens)
    if denial is not None:
        await respond(_write_denial(order, denial, visit))
        visit.settle("quota_refused" if denial.is_quota else "rate_limited")
        return
    try:
        await _reply(order, visit, respond)
    finally:
        limiter.leave()


async def _reply(order: _Order, visit: Visit, respond: Respond) -> None:
    """Deliver; what was made is billed once its time has come, even if nobody takes it."""
    bill = _Bill()
    if draw_is_error(order.asked, order.profile, attempt=visit.n_failures):
        visit.fail()
        bill.ending = "errors"
        script = _write_failure(order, visit)
    else:
        script = await _write_reply(order, visit, bill)
    if _is_too_long(order, script):
        bill.ending, script = "errors", _write_proxy_cut(order)
    # The wait is the model's: whoever is cut off in it is not billed.
    delay_s, script.delay_s = script.delay_s, 0.0
    if delay_s > 0:
        await anyio.sleep(delay_s)
    visit.bill(bill.counts, bill.service_tier)
    if order.limiter is not None:
        order.limiter.bill(bill.counts.prompt + bill.counts.completion)
    await respond(script)
    visit.settle(bill.ending)


async def _write_reply(order: _Order, visit: Visit, bill: _Bill) -> Script:
    """Draft and bend. The draft ends here: a stream's chunks, kept till its end, would take 1 kB for each token."""
    if order.is_big:
        draft = await anyio.to_thread.run_sync(make_draft, order.asked, order.profile)
    else:
        draft = make_draft(order.asked, order.profile)
    _charge(order, draft.completion_tokens)
    draft.headers = _make_headers(order, visit, draft.delay_s) | draft.headers
    tier = _read_tier(draft) or DEFAULT_TIER
    script = bend(draft, order.quirks)
    bill.counts, bill.service_tier = draft.counts, _read_tier(draft) or tier
    if draft.status != HTTPStatus.OK:
        # Only while it was made did it show that the request cannot be answered, e.g. for its schema.
        bill.ending = "errors"
    if order.quirks and is_bent(script):
        bill.ending = "quirked"
        # Before it leaves: who runs into a deadline or a reset must meet another draw the next time.
        visit.fail()
    return script


def _read_tier(draft: Draft) -> str | None:
    """Return the service tier that a draft tells; None when it tells none, as a page that took its place."""
    tier = draft.completion.get("service_tier") if isinstance(draft.completion, dict) else None
    return tier if isinstance(tier, str) else None


def _is_heavy(body: Mapping[str, Any]) -> bool:
    """Tell whether a reply takes long to make although its request is short: 128 choices of 20 logprobs take 1 s."""
    return (body.get("n") or 1) * (1 + (body.get("top_logprobs") or 0)) > HEAVY_LISTS


def _charge(order: _Order, completion_tokens: int) -> None:
    """Take the output of a request that set no limit to it: what it would be was not known when it was let in."""
    if order.limiter is not None and find_output_limit(order.asked.body) is None:
        order.limiter.charge(anyio.current_time(), completion_tokens)


def _is_too_long(order: _Order, script: Script) -> bool:
    most_s = order.profile.limits.max_duration_s
    return most_s is not None and not order.asked.is_stream and script.delay_s > most_s


def _estimate_tokens(body: Mapping[str, Any]) -> int:
    """Return the tokens of a prompt and, where the request limits it, of the most possible output."""
    return count_prompt_tokens(body["messages"]) + (find_output_limit(body) or 0) * (body.get("n") or 1)


def _make_headers(order: _Order, visit: Visit, latency_s: float) -> dict[str, str]:
    """Return the headers of every reply of a model."""
    headers = {
        "server": SERVER_HEADER[1],
        "x-request-id": f"req_{order.asked.digest[:12].hex()}_{visit.n_failures}",
        "openai-processing-ms": str(round(latency_s * 1000)),
    }
    if order.limiter is not None:
        allowances = order.limiter.read(anyio.current_time())
        headers |= make_rate_headers(order.profile.limits.headers, allowances, unix_s=time.time())
    return headers


def _write_failure(order: _Order, visit: Visit) -> Script:
    latency_s = draw_latency_s(order.asked, order.profile)
    script = make_error_response(_OVERLOADED, headers=[*_make_headers(order, visit, latency_s).items()])
    script.delay_s = latency_s
    return script


def _write_denial(order: _Order, denial: Denial, visit: Visit) -> Script:
    headers = _make_headers(order, visit, 0)
    if denial.wait_s is not None:
        headers |= make_retry_after(order.profile.limits.retry_after, denial.wait_s, unix_s=time.time())
    return make_error_response(denial.refusal, headers=[*headers.items()])


def _write_proxy_cut(order: _Order) -> Script:
    """Return what a proxy says that waited long enough; behind it the model goes on, and bills."""
    headers = [("server", "nginx"), ("content-type", "text/html")]
    delay_s = order.profile.limits.max_duration_s or 0.0
    return Script(status=504, headers=headers, pieces=[Piece(data=_GATEWAY_TIMEOUT)], delay_s=delay_s)


SERVER_HEADER: Final = ("server", f"evalrun-simulator/{SIMULATOR_VERSION}")
_OVERLOADED: Final = Refusal(
    message="The simulator failed this attempt on purpose (error_rate); ask again.", status=503, kind="server_error"
)
_GATEWAY_TIMEOUT: Final = make_page("504 Gateway Time-out", "nginx").encode()


def _read_hint(headers: Mapping[bytes, bytes]) -> Hint | Refusal:
    """Return what the simulator's own headers tell."""
    texts: list[str | None] = []
    for wire_name in _HINT_HEADERS:
        value = headers.get(wire_name)
        try:
            texts.append(None if value is None else _decode_header(value))
        except ValueError:
            return Refusal(message=f"The header {wire_name.decode().title()} is not base64url of UTF-8 text.")
    answer, sample, repeat = texts
    if repeat is not None and not (repeat.isascii() and repeat.isdigit() and int(repeat[:8]) < _MAX_REPEAT):
        return Refusal(message=f"The header {REPEAT_HEADER} is not a number from 0 to {_MAX_REPEAT - 1}.")
    return Hint(answer=answer, sample=sample or "", repeat=int(repeat or 0))


def _decode_header(value: bytes) -> str:
    """Return the text of a base64url value, padded or not. Lone surrogates are let through, as in bodies.

    Raises:
        ValueError: It is not base64url, or not UTF-8.
    """
    digits = value.rstrip(b"=").translate(_FROM_URL_SAFE)
    data = binascii.a2b_base64(digits + b"=" * (-len(digits) % 4), strict_mode=True)
    return data.decode("utf-8", "surrogatepass")


# "+" and "/" become what strict decoding refuses: plain base64 is not base64url.
_FROM_URL_SAFE: Final = bytes.maketrans(b"-_+/", b"+/!!")
_HINT_HEADERS: Final = tuple(name.lower().encode() for name in (ANSWER_HEADER, SAMPLE_HEADER, REPEAT_HEADER))
_ANSWER_WIRE_NAME: Final = _HINT_HEADERS[0]
_QUIRK_WIRE_NAME: Final = QUIRK_HEADER.lower().encode()
