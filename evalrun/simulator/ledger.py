"""The simulator's ledger: what was asked, what was delivered, what was billed.

Enters: each request as it comes and what became of it. Leaves: totals per model, and one line per key (sample, body,
repeat, model), so that a test can prove what was sent and a bill can be checked: tokens by what they are billed as, and
replies by the service tier that they told. Kept always, per model and in total:
requests = completions + errors + rate_limited + quota_refused + quirked + abandoned + in flight. A reply is billed when
it is made; it counts as delivered when the connection took all of it, the last chunk of a stream too. A row was bought
once if its completions are 1 and none of its requests was quirked or abandoned. Memory: some 400 bytes per key, for the
first `max_keys` keys; later ones count in the totals alone, and the ledger says how many requests that were.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, Self

from evalrun.records import SCHEMA_VERSION, SIMULATOR_VERSION
from evalrun.simulator.usage import Counts

MAX_KEYS = 200_000
"""Keys listed by default, about 80 MB when full."""

DEFAULT_TIER: Final = "default"
"""Of a reply that tells no service tier."""

Ending = Literal["completions", "errors", "rate_limited", "quota_refused", "quirked"]
"""What became of a request whose reply the connection took: a field of `Tally`."""


@dataclass(slots=True)
class Tally:
    """Counts of one model or one key; each request ends in one of the five of `Ending`, or is abandoned."""

    requests: int = 0
    """Valid requests, whatever became of them."""
    completions: int = 0
    """Replies with a completion, as it should be, that the connection took."""
    errors: int = 0
    """Replies with an error: drawn from `error_rate`, of a proxy that would not wait (`max_duration_s`), or because the
    reply could not be made as it was asked for (a schema that nothing satisfies)."""
    rate_limited: int = 0
    """Refused by a limit of requests, tokens, concurrency or growth; nothing billed."""
    quota_refused: int = 0
    """Refused because the quota was spent; nothing billed."""
    quirked: int = 0
    """Replies that a quirk changed, carried out to the end that the quirk gave them."""
    abandoned: int = 0
    """Requests whose connection was gone before the reply was."""
    billed: int = 0
    """Replies that were billed, whatever became of them."""
    prompt_tokens: int = 0
    """Billed."""
    completion_tokens: int = 0
    """Billed."""
    cached_tokens: int = 0
    """Billed as read from the cache, within `prompt_tokens`."""
    cache_write_tokens: int = 0
    """Billed as written to the cache, within `prompt_tokens`."""
    audio_input_tokens: int = 0
    """Billed as sound, within `prompt_tokens`."""
    reasoning_tokens: int = 0
    """Billed as reasoning, within `completion_tokens`."""
    audio_output_tokens: int = 0
    """Billed as speech, within `completion_tokens`."""

    def book(self, counts: Counts) -> None:
        """Add the bill of one reply."""
        self.billed += 1
        self.prompt_tokens += counts.prompt
        self.completion_tokens += counts.completion
        self.cached_tokens += counts.cached
        self.cache_write_tokens += counts.cache_write
        self.audio_input_tokens += counts.audio_input
        self.reasoning_tokens += counts.reasoning
        self.audio_output_tokens += counts.audio

    def to_json(self) -> dict[str, int]:
        """Return the counts under their names, with the sum of tokens."""
        shown = {name: getattr(self, name) for name in _COUNTS}
        return {**shown, "total_tokens": self.prompt_tokens + self.completion_tokens}

    def show_bill(self) -> dict[str, int]:
        """Return what was billed under its names."""
        return {name: getattr(self, name) for name in _BILLED}

    def add(self, other: "Tally") -> None:
        """Add another's counts."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


_COUNTS: Final = tuple(field.name for field in fields(Tally))
_BILLED: Final = _COUNTS[_COUNTS.index("billed") :]


class LedgerKey(NamedTuple):
    """What is counted as one thing."""

    sample: str
    """The sample's id; "" when the client told none."""
    body: bytes
    """Digest of the canonical body without `stream` and `stream_options`."""
    repeat: int
    model: str


@dataclass(slots=True)
class Ledger:
    """Counts requests and tokens; one per simulator.

    Args:
        max_keys: Keys listed one by one; later ones count in the totals alone.
    """

    max_keys: int = MAX_KEYS
    rejected: int = 0
    """Requests refused before any model saw them: 4xx."""
    unmatched: int | None = None
    """Requests that no row of the answers fitted; None when none are served."""
    in_flight: int = 0
    max_in_flight: int = 0
    repeated: int = 0
    """Requests beyond the first of their key, among the listed keys."""
    unlisted: int = 0
    """Requests whose keys are not listed, for there were too many."""
    models: dict[str, Tally] = field(default_factory=dict)
    keys: dict[LedgerKey, Tally] = field(default_factory=dict)
    tiers: dict[tuple[str, str], Tally] = field(default_factory=dict)
    """Bills by model and service tier."""
    other_tiers: dict[LedgerKey, dict[str, int]] = field(default_factory=dict)
    """Billed replies by tier, for listed keys that had some at another tier than `DEFAULT_TIER`."""
    failures: dict[LedgerKey, int] = field(default_factory=dict)
    """Errors and quirks drawn since the last completion of a key, for keys that have some."""

    def count_rejected(self) -> None:
        """Count a request that was refused as such."""
        self.rejected += 1

    def count_unmatched(self) -> None:
        """Count a request whose right answer is not known."""
        self.unmatched = (self.unmatched or 0) + 1

    def get_attempt(self, key: LedgerKey) -> int:
        """Return the number of the key's next attempt, 0-based: errors and quirks drawn since its last completion."""
        return self.failures.get(key, 0)

    def open_visit(self, key: LedgerKey) -> "Visit":
        """Count a valid request; use the visit as a context manager until its reply has left."""
        tallies = [self.models.setdefault(key.model, Tally())]
        tally = self.keys.get(key)
        if tally is None and len(self.keys) < self.max_keys:
            tally = self.keys[key] = Tally()
        elif tally is not None:
            self.repeated += 1
        if tally is None:
            self.unlisted += 1
        else:
            tallies.append(tally)
        return Visit(self, key, tallies)

    def to_json(self, *, has_detail: bool = False) -> dict[str, Any]:
        """Return the ledger as `GET /_simulator/ledger` shows it; with the list of keys if asked."""
        total = Tally()
        for tally in self.models.values():
            total.add(tally)
        shown: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "simulator_version": SIMULATOR_VERSION,
            "totals": {**total.to_json(), "rejected": self.rejected},
            "models": {name: self._show_model(name) for name in sorted(self.models)},
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "keys": len(self.keys),
            # Null, for a repeat among unlisted keys cannot be seen.
            "repeated_requests": None if self.unlisted else self.repeated,
            "unlisted_requests": self.unlisted,
            "unmatched_requests": self.unmatched,
        }
        if has_detail:
            shown["detail"] = [self._show_key(key, tally) for key, tally in self.keys.items()]
        return shown

    def book(self, key: LedgerKey, tallies: Sequence[Tally], counts: Counts, tier: str) -> None:
        """Book the bill of one reply.

        Args:
            key: What was asked.
            tallies: Those of its model and, when it is listed, of the key itself.
            counts: The reply's tokens.
            tier: The service tier that it tells.
        """
        of_tier = self.tiers.get((key.model, tier))
        if of_tier is None:
            of_tier = self.tiers[key.model, tier] = Tally()
        of_tier.book(counts)
        for tally in tallies:
            tally.book(counts)
        if tier != DEFAULT_TIER and key in self.keys:
            n_by_tier = self.other_tiers.setdefault(key, {})
            n_by_tier[tier] = n_by_tier.get(tier, 0) + 1

    def _show_model(self, model: str) -> dict[str, Any]:
        tiers = {tier: tally.show_bill() for (name, tier), tally in sorted(self.tiers.items()) if name == model}
        return {**self.models[model].to_json(), "service_tiers": tiers}

    def _show_key(self, key: LedgerKey, tally: Tally) -> dict[str, Any]:
        others = self.other_tiers.get(key, {})
        n_default = tally.billed - sum(others.values())
        return {
            "sample": key.sample,
            "body_digest": key.body.hex(),
            "repeat": key.repeat,
            "model": key.model,
            **tally.to_json(),
            "service_tiers": {DEFAULT_TIER: n_default, **others} if n_default else others,
        }


class Visit:
    """One request from its arrival until its reply has left or its connection is gone.

    Args:
        ledger: Where it counts.
        key: What is asked.
        tallies: The counts it adds to.
    """

    __slots__ = ("_is_settled", "_key", "_ledger", "_tallies", "n_failures")

    def __init__(self, ledger: Ledger, key: LedgerKey, tallies: list[Tally]) -> None:
        self._ledger = ledger
        self._key = key
        self._tallies = tallies
        self._is_settled = False
        self.n_failures = ledger.get_attempt(key)
        """Errors and quirks drawn since the key's last completion: the attempt's number, so that asking again can
        succeed. Refusals by a limit do not count: what they hit depends on time, and the draws must not."""

    def __enter__(self) -> Self:
        ledger = self._ledger
        ledger.in_flight += 1
        ledger.max_in_flight = max(ledger.max_in_flight, ledger.in_flight)
        for tally in self._tallies:
            tally.requests += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ledger.in_flight -= 1
        if not self._is_settled:
            for tally in self._tallies:
                tally.abandoned += 1

    def bill(self, counts: Counts, service_tier: str = DEFAULT_TIER) -> None:
        """Book the tokens of a reply that was made, whatever becomes of it; without any, nothing is billed."""
        if counts.prompt or counts.completion:
            self._ledger.book(self._key, self._tallies, counts, service_tier)

    def fail(self) -> None:
        """Move the key's attempt on: an error was drawn, or a quirk."""
        failures = self._ledger.failures
        failures[self._key] = self.n_failures + 1
        if len(failures) > self._ledger.max_keys:
            failures.pop(next(iter(failures)))

    def settle(self, ending: Ending) -> None:
        """Count the reply as carried out; a completion starts the key's attempts over."""
        self._is_settled = True
        if ending == "completions":
            self._ledger.failures.pop(self._key, None)
        for tally in self._tallies:
            setattr(tally, ending, getattr(tally, ending) + 1)
