"""The simulator's routes: which request gets which reply.

Enters: HTTP requests. Leaves: chat completions, the list of models, the ledger, the simulator's own facts, or errors
in OpenAI's shape. Both base paths, `/chat` (the gateway's) and `/v1` (OpenAI's), answer alike.
"""

import binascii
import hmac
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import anyio

from evalrun.options import ProfileOptions, SimulatorOptions
from evalrun.records import SIMULATOR_VERSION
from evalrun.simulator.codec import encode_json, parse_json
from evalrun.simulator.connection import HttpRequest, HttpResponse, Respond, make_error_response
from evalrun.simulator.ledger import Ledger, LedgerKey, Visit
from evalrun.simulator.replies import ChatRequest, Hint, draw_is_error, draw_latency_s, make_chat_request, make_reply
from evalrun.simulator.validate import Refusal, check_body

BASE_PATHS: Final = ("/chat", "/v1")
"""Where the API is served."""

ANSWER_HEADER: Final = "X-Simulator-Answer"
SAMPLE_HEADER: Final = "X-Simulator-Sample"
REPEAT_HEADER: Final = "X-Simulator-Repeat"

_SERVER_HEADER: Final = ("server", f"evalrun-simulator/{SIMULATOR_VERSION}")
_MAX_REPEAT: Final = 1_000_000
_ROUTES: Final[Mapping[str, tuple[str, str]]] = {
    **{f"{base}/chat/completions": ("POST", "chat") for base in BASE_PATHS},
    **{f"{base}/models": ("GET", "models") for base in BASE_PATHS},
    "/_simulator/ledger": ("GET", "ledger"),
    "/_simulator/info": ("GET", "info"),
}


def make_info(options: SimulatorOptions) -> dict[str, Any]:
    """Return what decides a simulator's replies, as plain JSON values: version, seed, profiles.

    Two simulators with equal info give equal replies to equal requests: compare before sending to one by `url`.
    """
    profiles = {name: asdict(profile) for name, profile in sorted(options.profiles.items())}
    return {"version": SIMULATOR_VERSION, "seed": options.seed, "profiles": profiles}


class Gateway:
    """Answers HTTP requests as the simulated gateway.

    Args:
        options: Seed and profiles.
        ledger: Where requests are counted.
        api_key: Key that clients must send as a bearer token; None = any or none.
    """

    def __init__(self, options: SimulatorOptions, ledger: Ledger, *, api_key: str | None = None) -> None:
        self._options = options
        self._ledger = ledger
        self._authorization = None if api_key is None else f"Bearer {api_key}".encode()

    async def handle(self, request: HttpRequest, respond: Respond) -> None:
        """Answer one request."""
        method, name = _ROUTES.get(request.path, ("", ""))
        if name == "chat" and request.method == "POST":
            await self._answer_chat(request, respond)
            return
        if not name:
            message = (
                f"Invalid URL ({request.method} {request.path[:200]}). Base URLs end in {' or '.join(BASE_PATHS)}."
            )
            response = make_error_response(Refusal(message=message, status=404))
        elif request.method != method:
            message = f"Not allowed to {request.method} on {request.path}."
            refusal = Refusal(message=message, status=405, code="method_not_supported")
            response = make_error_response(refusal, headers=(("allow", method),))
        else:
            response = self._answer_get(name, request)
        await respond(response)

    def _answer_get(self, name: str, request: HttpRequest) -> HttpResponse:
        if name == "ledger":
            has_detail = "detail=1" in request.query.split("&")
            return HttpResponse(body=encode_json(self._ledger.to_json(has_detail=has_detail)))
        if name == "info":
            return HttpResponse(body=encode_json(make_info(self._options)))
        if refusal := self._check_key(request):
            return make_error_response(refusal)
        models = [
            {"id": profile, "object": "model", "created": 0, "owned_by": "simulator"}
            for profile in self._options.profiles
        ]
        return HttpResponse(body=encode_json({"object": "list", "data": models}))

    async def _answer_chat(self, request: HttpRequest, respond: Respond) -> None:
        asked = self._check_key(request) or self._read_chat(request)
        if isinstance(asked, Refusal):
            self._ledger.count_rejected()
            await respond(make_error_response(asked, headers=(_SERVER_HEADER,)))
            return
        model = asked.body["model"]
        key = LedgerKey(asked.hint.sample, asked.body_digest, asked.hint.repeat, model)
        with self._ledger.open_visit(key) as visit:
            await self._reply(asked, self._options.profiles[model], visit, respond)

    async def _reply(self, asked: ChatRequest, profile: ProfileOptions, visit: Visit, respond: Respond) -> None:
        latency_s = draw_latency_s(asked, profile)
        if latency_s > 0:
            await anyio.sleep(latency_s)
        headers = (
            _SERVER_HEADER,
            ("x-request-id", f"req_{asked.digest[:12].hex()}_{visit.n_failures}"),
            ("openai-processing-ms", str(round(latency_s * 1000))),
        )
        is_error = draw_is_error(asked, profile, attempt=visit.n_failures)
        if is_error:
            visit.fail()
            response = make_error_response(_OVERLOADED, headers=headers)
        else:
            reply = make_reply(asked, profile)
            visit.bill(reply.prompt_tokens, reply.completion_tokens)
            response = HttpResponse(body=reply.body, headers=headers)
        await respond(response)
        visit.settle(is_error=is_error)

    def _check_key(self, request: HttpRequest) -> Refusal | None:
        if self._authorization is None:
            return None
        given = request.headers.get(b"authorization")
        if given is None:
            message = "You didn't provide an API key. Send it as Authorization: Bearer YOUR_KEY."
            return Refusal(message=message, status=401)
        if hmac.compare_digest(given, self._authorization):
            return None
        return Refusal(message="Incorrect API key provided.", status=401, code="invalid_api_key")

    def _read_chat(self, request: HttpRequest) -> ChatRequest | Refusal:
        """Return the request that the body and the headers hold, or why it is refused."""
        try:
            body = parse_json(request.body)
        except ValueError as error:
            return Refusal(message=f"We could not parse the JSON body of your request: {error}.")
        if not isinstance(body, dict):
            return Refusal(message="The body of your request must be a JSON object.")
        if refusal := check_body(body):
            return refusal
        if body["model"] not in self._options.profiles:
            known = ", ".join(self._options.profiles)
            message = f"The model `{body['model'][:200]}` does not exist. This simulator's profiles are: {known}."
            return Refusal(message=message, param="model", code="model_not_found", status=404)
        hint = _read_hint(request.headers)
        return hint if isinstance(hint, Refusal) else make_chat_request(body, hint, self._options.seed)


_OVERLOADED: Final = Refusal(
    message="The simulator failed this attempt on purpose (error_rate); ask again.", status=503, kind="server_error"
)


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
