"""JSON of the simulator: orjson, and the standard library for what orjson refuses but the wire may carry.

Enters: bytes or values. Leaves: values or bytes, the same bytes for the same value. Lone surrogates, which real
datasets hold as escapes, survive both ways.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

import orjson


def parse_json(data: bytes) -> Any:
    """Return the value of a JSON text in UTF-8.

    Raises:
        ValueError: It is not JSON (NaN and Infinity are not), not UTF-8, or nested too deep.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        # Only a surrogate written as an escape is worth a second look: nothing else that orjson refuses is JSON.
        if b"\\u" not in data:
            raise
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_parse_float)
    except RecursionError as error:
        msg = "nested too deep"
        raise ValueError(msg) from error


def encode_json(value: Any) -> bytes:
    """Return a JSON value as UTF-8, compact, keys in their order."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":")).encode("ascii")


def encode_canonical(body: Mapping[str, Any]) -> bytes:
    """Return the one form of a request body: keys sorted, no space, without what only says how the reply is sent."""
    kept = {key: value for key, value in body.items() if key not in ("stream", "stream_options")}
    try:
        return orjson.dumps(kept, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return json.dumps(kept, separators=(",", ":"), sort_keys=True).encode("ascii")


def _refuse_constant(name: str) -> NoReturn:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


def _parse_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        msg = f"{text[:40]} is not a finite number"
        raise ValueError(msg)
    return value
