"""Request bodies and their keys, put together from pieces that are encoded once.

Messages and parameters enter; the bytes to send and the `request_key` leave. Per row only the messages are encoded.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from evalrun.job.canonical import encode_canonical, encode_json
from evalrun.options import EndpointOptions, ModelOptions
from evalrun.records import SIMULATOR_VERSION

KEY_VERSION = 1
"""Version of what a request_key is made of."""

_OUTPUT_LIMITS = ("max_completion_tokens", "max_tokens")


def make_row_id(sample_id: str, prompt: str, model: str, repeat: int) -> str:
    """Return the id of a row: sha256 hex of the canonical JSON of [sample_id, prompt, model, repeat]."""
    return hashlib.sha256(encode_canonical([sample_id, prompt, model, repeat])).hexdigest()


def strip_streaming(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a body asks: how the reply travels is no part of it."""
    return {key: value for key, value in body.items() if key not in {"stream", "stream_options"}}


def make_request_key(body: Mapping[str, Any], target: bytes, repeat: int) -> str:
    """Return the key of a request from its whole body, as `BodyEncoder.encode` puts it together from pieces.

    Args:
        body: As sent, streaming included.
        target: As `BodyEncoder.make_target` returns it.
        repeat: 0-based.
    """
    content = encode_canonical(strip_streaming(body))
    return hashlib.sha256(
        b'{"body":%s,"repeat":%d,"target":%s,"v":%d}' % (content, repeat, target, KEY_VERSION)
    ).hexdigest()


def apply_dialect(params: Mapping[str, Any], endpoint: EndpointOptions) -> dict[str, Any]:
    """Return parameters as the endpoint takes them: some dropped, some renamed.

    Raises:
        ValueError: Two parameters end up under one name.
    """
    applied: dict[str, Any] = {}
    for name, value in params.items():
        if is_dropped(name, endpoint):
            continue
        target = endpoint.rename_params.get(name, name)
        if target in applied:
            msg = f"two parameters would be sent as `{target}`, since the endpoint renames one"
            raise ValueError(msg)
        applied[target] = value
    return applied


def is_dropped(name: str, endpoint: EndpointOptions) -> bool:
    """Tell whether an endpoint's requests leave a parameter out, under its own name or the one it is renamed to."""
    return name in endpoint.drop_params or endpoint.rename_params.get(name, name) in endpoint.drop_params


def make_stream_params(endpoint: EndpointOptions) -> dict[str, Any]:
    """Return what an endpoint's requests say about streaming; empty when replies are not streamed."""
    if not endpoint.stream:
        return {}
    has_options = "stream_options" not in endpoint.drop_params
    return {"stream": True, **({"stream_options": dict(endpoint.stream_options)} if has_options else {})}


class _Pieces(NamedTuple):
    """What surrounds the messages: in the body as sent, and in the canonical form of the key."""

    head: bytes
    tail: bytes
    key_head: "hashlib._Hash"
    """Taken in already: going on from a copy is faster than to begin anew."""
    key_tail: bytes


class BodyEncoder:
    """Encodes the requests of one model.

    Args:
        model: The model.
        endpoint: Its endpoint, normalised.
    """

    __slots__ = (
        "_endpoint", "_model", "_n_choices", "_output_limit", "_pieces", "_simulated", "_stream_params", "_target",
        "params",
    )  # fmt: skip

    def __init__(self, model: ModelOptions, endpoint: EndpointOptions) -> None:
        """Encode what is the same for every sample."""
        self._model = model
        self._endpoint = endpoint
        self.params = apply_dialect(model.params, endpoint)
        """The model's parameters as sent."""
        self._n_choices = self._read_choices(model.params)
        self._output_limit = self._find_output_limit(model.params)
        self._stream_params = make_stream_params(endpoint)
        self._pieces = self._make_pieces(self.params)
        self._target = encode_canonical(
            {"base_url": endpoint.base_url, "headers": {name.lower(): text for name, text in endpoint.headers.items()}}
        )
        self._simulated: bytes | None = None
        if endpoint.simulator is not None:
            profile = dataclasses.asdict(endpoint.simulator.profiles[model.wire_model])
            facts = {"profile": profile, "seed": endpoint.simulator.seed, "version": SIMULATOR_VERSION}
            self._simulated = encode_canonical(facts)[1:]

    def merge_params(self, row_params: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Return the parameters of a request: the model's, then the row's over them.

        Raises:
            ValueError: Two parameters end up under one name.
        """
        if not row_params:
            return self.params
        return apply_dialect({**self._model.params, **row_params}, self._endpoint)

    def count_choices(self, row_params: Mapping[str, Any] | None) -> int:
        """Return how many choices a request asks for; 1 when it does not say, or the endpoint is not told."""
        if not row_params or "n" not in row_params:
            return self._n_choices
        return self._read_choices(row_params)

    def read_output_limit(self, row_params: Mapping[str, Any] | None) -> int | None:
        """Return how many tokens each choice of a request may have; None when the endpoint is told no limit."""
        if not row_params or not any(name in row_params for name in _OUTPUT_LIMITS):
            return self._output_limit
        return self._find_output_limit({**self._model.params, **row_params})

    def encode(
        self,
        messages: bytes,
        key_messages: bytes,
        *,
        repeat: int,
        answer: str | None,
        row_params: Mapping[str, Any] | None,
    ) -> tuple[bytes, str]:
        """Return body and request_key of one request.

        Args:
            messages: The messages as JSON.
            key_messages: The same as canonical JSON.
            repeat: 0-based.
            answer: The rendered answer of a simulator's sample; None for any other endpoint.
            row_params: Parameters that the row sets.
        """
        pieces = self._pieces if not row_params else self._make_pieces(self.merge_params(row_params))
        target = self._target if answer is None else self._make_simulated_target(answer)
        digest = pieces.key_head.copy()
        digest.update(
            b'%b%b,"repeat":%d,"target":%b,"v":%d}' % (key_messages, pieces.key_tail, repeat, target, KEY_VERSION)
        )
        return pieces.head + messages + pieces.tail, digest.hexdigest()

    def make_target(self, answer: str | None) -> bytes:
        """Return whom a request asks, as canonical JSON: one part of its key.

        Args:
            answer: As for `encode`.
        """
        return self._target if answer is None else self._make_simulated_target(answer)

    def _read_choices(self, params: Mapping[str, Any]) -> int:
        n = params.get("n")
        if not isinstance(n, int) or isinstance(n, bool) or is_dropped("n", self._endpoint):
            return 1
        return max(n, 1)

    def _find_output_limit(self, params: Mapping[str, Any]) -> int | None:
        """Return the least limit that is sent, whatever the endpoint calls it; None when none is a positive number."""
        sent = [params[name] for name in _OUTPUT_LIMITS if name in params and not is_dropped(name, self._endpoint)]
        return min((n for n in sent if isinstance(n, int) and not isinstance(n, bool) and n > 0), default=None)

    def _make_simulated_target(self, answer: str) -> bytes:
        # {"answer": …, "profile": …, "seed": …, "version": …}, whose keys are in order already.
        content = b'{"answer":%s,%s' % (encode_canonical(answer), self._simulated)
        return b'{"simulator":"%s"}' % hashlib.sha256(content).hexdigest().encode()

    def _make_pieces(self, params: Mapping[str, Any]) -> _Pieces:
        model = self._model.wire_model
        before = {key: value for key, value in params.items() if key < "messages"}
        after = {key: value for key, value in params.items() if key > "messages"} | {"model": model}
        # How a reply travels is no part of what is asked: the key's pieces know nothing of streaming.
        inner = encode_json({**params, **self._stream_params})[1:-1]
        key_inner = encode_canonical(before)[1:-1]
        return _Pieces(
            head=b'{"model":%s,"messages":' % encode_json(model),
            tail=b",%s}" % inner if inner else b"}",
            key_head=hashlib.sha256(b'{"body":{%s%s"messages":' % (key_inner, b"," if key_inner else b"")),
            key_tail=b",%s}" % encode_canonical(after)[1:-1],
        )
