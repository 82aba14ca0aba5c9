"""What the ledger's replies cost by the price list: fractions, and nothing of evalrun's own arithmetic.

Enters: the ledger as the simulator serves it, and prices as the job writes them. Leaves: for each key what one reply of
it is made of, and what that costs at each service tier.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, Final, NamedTuple

LedgerKey = tuple[str, str, int]
"""Sample, model on the wire, repeat."""

PER_TOKEN: Final = Fraction(1, 1_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What is billed: the totals of both sides, and the parts of them that have prices of their own."""

    prompt_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    audio_input_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    audio_output_tokens: int


TOKEN_NAMES: Final = tuple(each.name for each in fields(Tokens))


class Line(NamedTuple):
    """What the ledger says of one key."""

    n_requests: int
    n_billed: int
    reply: Tokens | None
    """Of each billed reply, all of them alike; None without one."""
    tiers: Mapping[str, int]
    """Billed replies by the service tier they told."""


def read_lines(ledger: Mapping[str, Any]) -> dict[LedgerKey, Line]:
    """Return the ledger's lines by key.

    Raises:
        AssertionError: It does not list all keys, or a key's replies were not all alike.
    """
    assert ledger["unlisted_requests"] == 0, "the ledger was too short for this many keys"
    return {(line["sample"], line["model"], line["repeat"]): _read_line(line) for line in ledger["detail"]}


def _read_line(line: Mapping[str, Any]) -> Line:
    n_billed = line["billed"]
    assert sum(line["service_tiers"].values()) == n_billed
    reply = None
    if n_billed:
        assert all(line[name] % n_billed == 0 for name in TOKEN_NAMES), line
        reply = Tokens(**{name: line[name] // n_billed for name in TOKEN_NAMES})
    return Line(line["requests"], n_billed, reply, line["service_tiers"])


def reckon_reply(price: Mapping[str, Any], reply: Tokens, tier: str) -> Fraction:
    """Return what one reply costs, in USD.

    Args:
        price: As the job writes it, numbers as texts.
        reply: Its tokens.
        tier: The service tier that it told.
    """
    rates = dict(price)
    for step in sorted(price.get("tiers", ()), key=lambda step: int(step["above_prompt_tokens"])):
        if reply.prompt_tokens > step["above_prompt_tokens"]:
            # The highest one reached holds alone: what it does not say is as in the price itself.
            rates = {**price, **step}

    def rate(name: str, default: str) -> Fraction:
        return Fraction(rates.get(name, rates[default]))

    heard, spoken = reply.audio_input_tokens, reply.audio_output_tokens
    told_apart = reply.cached_tokens + reply.cache_write_tokens + heard
    total = (reply.prompt_tokens - told_apart) * Fraction(rates["input"])
    total += reply.cached_tokens * rate("cached_input", "input")
    total += reply.cache_write_tokens * rate("cache_write", "input")
    total += heard * rate("audio_input", "input")
    total += (reply.completion_tokens - reply.reasoning_tokens - spoken) * Fraction(rates["output"])
    total += reply.reasoning_tokens * rate("reasoning", "output")
    total += spoken * rate("audio_output", "output")
    return total * PER_TOKEN * Fraction(price.get("multipliers", {}).get(tier, "1"))


def reckon_line(price: Mapping[str, Any], line: Line) -> Fraction:
    """Return what all replies of a key cost, in USD; 0 for none."""
    if line.reply is None:
        return Fraction(0)
    return sum((n * reckon_reply(price, line.reply, tier) for tier, n in line.tiers.items()), Fraction(0))
