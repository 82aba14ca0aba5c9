"""JSON bytes, in the order written or canonical, and the digests made of them.

Canonical JSON here: keys sorted, no white space, UTF-8. Equal values give equal bytes, on every machine and day.
"""

import hashlib
import json
from typing import Any

import orjson


def encode_json(value: Any) -> bytes:
    """Return the value as compact JSON, keys in the order given."""
    try:
        return orjson.dumps(value)
    except (TypeError, orjson.JSONEncodeError):
        # Integers beyond 64 bits and lone surrogates, which orjson refuses: slower, but exact.
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def encode_canonical(value: Any) -> bytes:
    """Return the value as canonical JSON."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except (TypeError, orjson.JSONEncodeError):
        # The same bytes as orjson's for whatever both can write, so that pieces encoded apart still fit together.
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
        return text.encode("utf-8", "surrogatepass")


def make_digest(value: Any) -> str:
    """Return the sha256 hex of a value's canonical JSON."""
    return hashlib.sha256(encode_canonical(value)).hexdigest()
