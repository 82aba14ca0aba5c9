"""The simulator's ledger: what was asked, what was delivered, what was billed.

Enters: each request as it comes and what became of it. Leaves: totals per model, and one line per key (sample, body,
repeat, model), so that a test can prove what was sent and a bill can be checked. Kept always, per model and in total:
requests = completions + errors + abandoned + in flight. A completion is billed when it is made; it counts as delivered
when the connection took it all. Memory: some 300 bytes per key, for the first `max_keys` keys; later ones count in the
totals alone, and the ledger says how many requests that were.
"""

from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Self

from evalrun.records import SCHEMA_VERSION, SIMULATOR_VERSION

MAX_KEYS = 200_000
"""Keys listed by default, about 60 MB when full."""


@dataclass(slots=True)
class Tally:
    """Counts of one model or one key."""

    requests: int = 0
    """Valid requests, whatever became of them."""
    completions: int = 0
    """Replies with a completion that the connection took."""
    errors: int = 0
    """Replies with an error drawn from `error_rate`."""
    abandoned: int = 0
    """Requests whose connection was gone before the reply was."""
    prompt_tokens: int = 0
    """Billed."""
    completion_tokens: int = 0
    """Billed."""

    def to_json(self) -> dict[str, int]:
        """Return the counts under their names, with the sum of tokens."""
        return {
            "requests": self.requests,
            "completions": self.completions,
            "errors": self.errors,
            "abandoned": self.abandoned,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


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
    in_flight: int = 0
    max_in_flight: int = 0
    repeated: int = 0
    """Requests beyond the first of their key, among the listed keys."""
    unlisted: int = 0
    """Requests whose keys are not listed, for there were too many."""
    models: dict[str, Tally] = field(default_factory=dict)
    keys: dict[LedgerKey, Tally] = field(default_factory=dict)
    failures: dict[LedgerKey, int] = field(default_factory=dict)
    """Errors drawn since the last completion of a key, for keys that have some."""

    def count_rejected(self) -> None:
        """Count a request that was refused as such."""
        self.rejected += 1

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
            total.requests += tally.requests
            total.completions += tally.completions
            total.errors += tally.errors
            total.abandoned += tally.abandoned
            total.prompt_tokens += tally.prompt_tokens
            total.completion_tokens += tally.completion_tokens
        shown: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "simulator_version": SIMULATOR_VERSION,
            "totals": {**total.to_json(), "rejected": self.rejected},
            "models": {name: self.models[name].to_json() for name in sorted(self.models)},
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "keys": len(self.keys),
            # Null, for a repeat among unlisted keys cannot be seen.
            "repeated_requests": None if self.unlisted else self.repeated,
            "unlisted_requests": self.unlisted,
        }
        if has_detail:
            shown["detail"] = [_show_key(key, tally) for key, tally in self.keys.items()]
        return shown


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
        self.n_failures = ledger.failures.get(key, 0)
        """Errors drawn since the key's last completion: the attempt's number, so that asking again can succeed."""

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

    def bill(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Book the tokens of a completion that was made."""
        self._ledger.failures.pop(self._key, None)
        for tally in self._tallies:
            tally.prompt_tokens += prompt_tokens
            tally.completion_tokens += completion_tokens

    def fail(self) -> None:
        """Remember that an error was drawn."""
        failures = self._ledger.failures
        failures[self._key] = self.n_failures + 1
        if len(failures) > self._ledger.max_keys:
            failures.pop(next(iter(failures)))

    def settle(self, *, is_error: bool = False) -> None:
        """Count the reply as delivered: the connection took it all."""
        self._is_settled = True
        for tally in self._tallies:
            if is_error:
                tally.errors += 1
            else:
                tally.completions += 1


def _show_key(key: LedgerKey, tally: Tally) -> dict[str, Any]:
    return {
        "sample": key.sample,
        "body_digest": key.body.hex(),
        "repeat": key.repeat,
        "model": key.model,
        **tally.to_json(),
    }
