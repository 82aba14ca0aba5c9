"""Log probabilities of a reply's tokens: invented, but such as a model could tell.

Enters: the tokens of a text and the request's digest. Leaves: one object a token. Invariant: the probabilities of one
place, the chosen token's among them, add up to less than 1, and the chosen token is the likeliest.
"""

import math
from collections.abc import Sequence
from itertools import islice
from typing import Any, Final

from evalrun.simulator import draws

_LEAST: Final = 0.5
"""The chosen token's least probability: it leads whatever the others are."""
# More than 20, so that enough are left when one of them is the token itself.
_OTHERS: Final = (
    *(" the", " a", " is", " of", " to", " and", " in", " that", " it", " for", " on", " as", " with", " at"),
    *(" by", " an", " be", " this", " or", " from", ".", ","),
)


def make_logprobs(tokens: Sequence[str], digest: bytes, *, index: int, n_top: int) -> list[dict[str, Any]]:
    """Return the `logprobs.content` of one choice.

    Args:
        tokens: The choice's tokens.
        digest: The request's.
        index: The choice's, 0-based.
        n_top: How many of the likeliest tokens are told for each place, 0 to 20; the chosen one is the first of them.
    """
    told = []
    for place, token in enumerate(tokens):
        uniform = draws.draw_uniform(digest, "logprob", (index << 32) + place)
        chance = _LEAST + (1 - _LEAST) * uniform
        top = [_tell(token, chance)] if n_top else []
        # Each of the others takes half of what is left, so that something always is left.
        rest = 1 - chance
        for other in islice((other for other in _OTHERS if other != token), max(0, n_top - 1)):
            rest /= 2
            top.append(_tell(other, rest))
        told.append({**_tell(token, chance), "top_logprobs": top})
    return told


def _tell(token: str, chance: float) -> dict[str, Any]:
    return {"token": token, "logprob": math.log(chance), "bytes": _list_bytes(token)}


def _list_bytes(token: str) -> list[int] | None:
    """Return a token's bytes; None when it has none, as half of a surrogate pair."""
    try:
        return list(token.encode())
    except UnicodeEncodeError:
        return None
