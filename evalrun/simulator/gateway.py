"""The simulator's routes: which request gets which reply.

Enters: HTTP requests. Leaves: chat completions, models, the ledger, the simulator's own facts, or errors in OpenAI's
shape. Both base paths answer: `/v1` is as strict as OpenAI documents, `/chat` takes what the gateway's page shows.
"""

import hmac
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from evalrun.options import SimulatorOptions
from evalrun.records import SIMULATOR_VERSION
from evalrun.simulator.answer_book import AnswerBook
from evalrun.simulator.chat import SERVER_HEADER, Chat
from evalrun.simulator.connection import HttpRequest, Respond, make_error_response, make_json_response
from evalrun.simulator.ledger import Ledger
from evalrun.simulator.refusal import Refusal
from evalrun.simulator.replies import FIRST_CREATED_AT
from evalrun.simulator.script import Script
from evalrun.simulator.validate import Dialect

BASE_PATHS: Final[Mapping[str, Dialect]] = {"/chat": "gateway", "/v1": "openai"}
"""Where the API is served, and whose documentation holds there."""


class _Route(NamedTuple):
    """What is served at a path."""

    name: str
    method: str = "GET"
    model: str = ""
    """Id of the one model that a path names; "" for all other paths."""


_ROUTES: Final[Mapping[str, _Route]] = {
    **{f"{base}/chat/completions": _Route("chat", "POST") for base in BASE_PATHS},
    **{f"{base}/models": _Route("models") for base in BASE_PATHS},
    "/_simulator/ledger": _Route("ledger"),
    "/_simulator/info": _Route("info"),
}
_MODEL_PATHS: Final = tuple(f"{base}/models/" for base in BASE_PATHS)


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
        answers: Right answers for requests that do not tell one.
    """

    def __init__(
        self,
        options: SimulatorOptions,
        ledger: Ledger,
        *,
        api_key: str | None = None,
        answers: AnswerBook | None = None,
    ) -> None:
        self._options = options
        self._ledger = ledger
        self._authorization = None if api_key is None else f"Bearer {api_key}".encode()
        self._chat = Chat(options, ledger, answers)

    async def handle(self, request: HttpRequest, respond: Respond) -> None:
        """Answer one request."""
        route = _find_route(request.path)
        if route is not None and route.name == "chat" and request.method == route.method:
            await self._answer_chat(request, respond)
        else:
            await respond(self._answer_otherwise(route, request))

    async def _answer_chat(self, request: HttpRequest, respond: Respond) -> None:
        if refusal := self._check_key(request):
            self._ledger.count_rejected()
            await respond(make_error_response(refusal, headers=[SERVER_HEADER]))
            return
        dialect = BASE_PATHS[request.path.removesuffix("/chat/completions")]
        await self._chat.answer(request, dialect, respond)

    def _answer_otherwise(self, route: _Route | None, request: HttpRequest) -> Script:
        if route is None:
            message = (
                f"Invalid URL ({request.method} {request.path[:200]}). Base URLs end in {' or '.join(BASE_PATHS)}."
            )
            return make_error_response(Refusal(message=message, status=404))
        if request.method != route.method:
            message = f"Not allowed to {request.method} on {request.path[:200]}."
            refusal = Refusal(message=message, status=405, code="method_not_supported")
            return make_error_response(refusal, headers=[("allow", route.method)])
        if route.name == "ledger":
            has_detail = "detail=1" in request.query.split("&")
            return make_json_response(self._ledger.to_json(has_detail=has_detail))
        if route.name == "info":
            return make_json_response(make_info(self._options))
        if refused := self._check_key(request):
            return make_error_response(refused)
        if route.name == "models":
            return make_json_response({"object": "list", "data": [_show_model(key) for key in self._options.profiles]})
        return self._answer_model(route.model)

    def _answer_model(self, model: str) -> Script:
        if model in self._options.profiles:
            return make_json_response(_show_model(model))
        message = (
            f"The model '{model[:200]}' does not exist. This simulator's are: {', '.join(self._options.profiles)}."
        )
        return make_error_response(Refusal(message=message, param="model", code="model_not_found", status=404))

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


def _find_route(path: str) -> _Route | None:
    """Return what is served at a path; None when nothing is."""
    if route := _ROUTES.get(path):
        return route
    for start in _MODEL_PATHS:
        # Ids like `vendor/model` may come with their slash escaped or not.
        if path.startswith(start) and len(path) > len(start):
            return _Route("model", model=unquote(path.removeprefix(start)))
    return None


def _show_model(model: str) -> dict[str, Any]:
    return {"id": model, "object": "model", "created": FIRST_CREATED_AT, "owned_by": "simulator"}
