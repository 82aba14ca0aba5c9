"""Holds the tables of two runs against the ledger, key by key; whatever does not fit is a violation.

Enters: run folders and the ledger. Leaves: an account for each model, and violations. Each reply that the ledger billed
is one of four: answered with its usage reported, and then equal to the token and to the dollar; answered without one
that can be believed; lost on its way, so that an attempt may have been billed; or unseen: in flight when the run was
killed, or sent again when a connection was found dead.
"""

import json
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import polars as pl

from tests.accounts.reckoning import LedgerKey, Line, Tokens, read_lines, reckon_line, reckon_reply
from tests.accounts.site import REPORTED_PRICE, Target
from tests.accounts.story import Story

ROUNDING_USD: Final = Fraction(1, 10**12)
"""What rows are rounded to, and then written as f64."""
MAX_OFF_USD: Final = Fraction(1, 10**9)
"""Most that sums of them may be off."""
MAY_DISAGREE: Final = frozenset({"odd"})
"""Models whose replies tell usage that cannot be, with totals that look as if they could."""

_FLAGS: Final = ("usage_inconsistent", "reasoning_outside")
_PARTS: Final = ("cached_tokens", "cache_write_tokens", "reasoning_tokens")
_ROW: Final = (
    "row_id", "sample_id", "model", "repeat", "status", "attempts", "service_tier", "prompt_tokens",
    "completion_tokens", *_PARTS, "usage_source", "cost_usd", "billed_usd", "cost_source", "latency_s", "reused_from",
    "flags", "request",
)  # fmt: skip
_ATTEMPT: Final = (
    "row_id",
    "error_code",
    "prompt_tokens",
    "completion_tokens",
    "usage_source",
    "cost_usd",
    "maybe_billed",
)

Row = Mapping[str, Any]


@dataclass(slots=True)
class Share:
    """Some of the replies of a model, as the tables have them and as the ledger has them."""

    n: int = 0
    """In the tables."""
    n_billed: int = 0
    """By the ledger; 0 to `n` where the tables cannot know."""
    tokens: int = 0
    """Prompt and completion, in the tables; unknown ones are left out."""
    billed_tokens: int = 0
    """The same by the ledger."""
    usd: Fraction = Fraction(0)
    """In the tables; unknown ones are left out."""
    billed_usd: Fraction = Fraction(0)
    """The same by the ledger."""
    n_unknown: int = 0
    """Without a cost in the tables."""

    def take(self, other: "Share") -> None:
        """Add another's."""
        for name in ("n", "n_billed", "tokens", "billed_tokens", "usd", "billed_usd", "n_unknown"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class Account:
    """What one model took."""

    n_requests: int = 0
    """By the ledger."""
    ledger: Share = field(default_factory=Share)
    """All that was billed; the tables' side is empty."""
    reported: Share = field(default_factory=Share)
    """Answered, with a usage that is believed."""
    unreported: Share = field(default_factory=Share)
    """Answered without one, or with one that is flagged."""
    lost: Share = field(default_factory=Share)
    """Attempts that failed and may have been billed."""
    unseen: Share = field(default_factory=Share)
    """In flight at the kill, or sent again over another connection: no attempt, but the row says so."""
    reused: Share = field(default_factory=Share)
    """Taken from the first run; the ledger has them there."""

    @property
    def off_tokens(self) -> int:
        """What the ledger billed and nothing here accounts for."""
        parts = (self.reported, self.unreported, self.lost, self.unseen)
        return self.ledger.billed_tokens - self.reported.tokens - sum(part.billed_tokens for part in parts[1:])

    @property
    def off_usd(self) -> Fraction:
        """The same in USD."""
        parts = (self.reported, self.unreported, self.lost, self.unseen)
        return self.ledger.billed_usd - self.reported.usd - sum(part.billed_usd for part in parts[1:])

    def take(self, other: "Account") -> None:
        """Add another's."""
        self.n_requests += other.n_requests
        for name in ("ledger", "reported", "unreported", "lost", "unseen", "reused"):
            getattr(self, name).take(getattr(other, name))


@dataclass(slots=True)
class Books:
    """The accounts by model, and what is wrong with them."""

    accounts: dict[str, Account] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Key:
    """What the tables know of one key of the ledger, over both runs."""

    rows: list[Row] = field(default_factory=list)
    """Settled in the run that they are of, with an attempt of their own."""
    attempts: list[Row] = field(default_factory=list)
    n_doubts: int = 0
    n_again: int = 0
    """Requests that left twice in one attempt, since their connection had ended."""


def check_books(story: Story) -> Books:
    """Hold what the story left against its ledger."""
    books = Books({target.name: Account() for target in story.site.targets})
    lines = read_lines(story.ledger)
    keys: dict[LedgerKey, _Key] = {}
    for run, doubts in ((story.first, Counter[str]()), (story.second, story.doubts)):
        books.violations += _gather(run, doubts, keys, books.accounts)
    books.violations += _check_reuse(story)
    for key in sorted(lines.keys() | keys.keys()):
        target = next(target for target in story.site.targets if target.name == key[1])
        book = _Bookkeeper(target, books.accounts[target.name])
        found = book.check(lines.get(key, _NOTHING), keys.get(key, _Key()))
        books.violations += [f"{key[0]}/{key[1]}: {what}" for what in found]
    for name, account in books.accounts.items():
        if account.off_tokens or abs(account.off_usd) > MAX_OFF_USD:
            books.violations.append(f"{name}: {account.off_tokens} tokens and {float(account.off_usd):g} USD are off")
    books.violations += _check_totals(story, lines, books.accounts)
    return books


_NOTHING: Final = Line(0, 0, None, {})


class _Bookkeeper:
    """Checks the keys of one model."""

    def __init__(self, target: Target, account: Account) -> None:
        self._target = target
        self._account = account
        self._price = REPORTED_PRICE if target.tells_cost else target.price

    def check(self, line: Line, key: _Key) -> Iterator[str]:
        """Yield what is wrong with one key, and add it to the account."""
        self._enter(line)
        billed_usd = reckon_line(self._price, line)
        answered = [row for row in key.attempts if row["error_code"] is None]
        lost = [row for row in key.attempts if row["maybe_billed"]]
        free = [row for row in key.attempts if row["error_code"] is not None and not row["maybe_billed"]]
        yield from (f"an attempt that failed for free cost {row['cost_usd']}" for row in free if row["cost_usd"] != 0)
        if len(answered) != len(key.rows):
            yield f"{len(answered)} attempts were answered, and {len(key.rows)} rows"
        yield from (f"attempt {row['row_id'][:8]} has no cost" for row in key.attempts if row["cost_usd"] is None)
        n_unseen = key.n_doubts + key.n_again
        if not 0 <= line.n_requests - len(key.attempts) <= n_unseen:
            yield f"{line.n_requests} requests by the ledger, {len(key.attempts)} attempts, {n_unseen} unseen"
        if line.reply is None:
            if answered:
                yield "answered, and not billed"
            return
        for row in key.rows:
            billed_usd -= yield from self._check_row(row, line.reply)
        n_lost = line.n_billed - len(key.rows)
        if not 0 <= n_lost <= len(lost) + n_unseen:
            yield f"{line.n_billed} replies billed, {len(key.rows)} answered, {len(lost)} lost, {n_unseen} unseen"
        self._explain(line.reply, lost, n_unseen, n_lost, billed_usd)

    def _enter(self, line: Line) -> None:
        self._account.n_requests += line.n_requests
        tokens = 0 if line.reply is None else _count(line.reply) * line.n_billed
        usd = reckon_line(self._price, line)
        self._account.ledger.take(Share(n_billed=line.n_billed, billed_tokens=tokens, billed_usd=usd))

    def _check_row(self, row: Row, reply: Tokens) -> Generator[str, None, Fraction]:
        """Yield what is wrong with an answered row; return what its reply cost by the ledger."""
        usd = reckon_reply(self._price, reply, row["service_tier"] or "default")
        share = Share(n=1, n_billed=1, billed_tokens=_count(reply), billed_usd=usd)
        share.tokens = (row["prompt_tokens"] or 0) + (row["completion_tokens"] or 0)
        share.usd, share.n_unknown = Fraction(row["cost_usd"] or 0), row["cost_usd"] is None
        told = {name: row[name] or 0 for name in _PARTS}
        told |= {name: row[name] for name in ("prompt_tokens", "completion_tokens")}
        off = [
            f"{name} {count}, billed {getattr(reply, name)}"
            for name, count in told.items()
            if count != getattr(reply, name)
        ]
        if row["cost_usd"] is None or abs(share.usd - usd) > ROUNDING_USD:
            off.append(f"cost_usd {row['cost_usd']}, billed {float(usd)!r}")
        is_reported = row["usage_source"] == "reported" and not (off and self._may_be_off(row))
        (self._account.reported if is_reported else self._account.unreported).take(share)
        if is_reported and off:
            yield f"row {row['row_id'][:8]} has {'; '.join(off)}"
        return usd

    def _may_be_off(self, row: Row) -> bool:
        """Tell whether a reported usage need not be the bill: it is flagged, or tells one side only."""
        is_half_told = row["prompt_tokens"] is None or row["completion_tokens"] is None
        is_flagged = any(flag in (row["flags"] or "") for flag in _FLAGS)
        return self._target.name in MAY_DISAGREE and (is_flagged or is_half_told)

    def _explain(self, reply: Tokens, lost: list[Row], n_unseen: int, n_billed: int, usd: Fraction) -> None:
        """Account for billed replies that answered no row: lost ones first, then those that no attempt was made of."""
        n_of_lost = min(n_billed, len(lost))
        share = Share(n=len(lost), n_billed=n_of_lost, billed_tokens=n_of_lost * _count(reply))
        share.billed_usd = usd * n_of_lost / n_billed if n_billed else Fraction(0)
        share.tokens = sum((row["prompt_tokens"] or 0) + (row["completion_tokens"] or 0) for row in lost)
        share.usd = sum((Fraction(row["cost_usd"] or 0) for row in lost), Fraction(0))
        share.n_unknown = sum(row["cost_usd"] is None for row in lost)
        self._account.lost.take(share)
        n_of_unseen = n_billed - n_of_lost
        tokens = n_of_unseen * _count(reply)
        unseen = Share(n=n_unseen, n_billed=n_of_unseen, billed_tokens=tokens, billed_usd=usd - share.billed_usd)
        self._account.unseen.take(unseen)


def _count(reply: Tokens) -> int:
    return reply.prompt_tokens + reply.completion_tokens


def _gather(
    run: Path, doubts: Counter[str], keys: dict[LedgerKey, _Key], accounts: Mapping[str, Account]
) -> Iterator[str]:
    """Sort a run's tables by the ledger's keys; yield rows whose sum is not that of their attempts."""
    named: dict[str, LedgerKey] = {}
    attempts: dict[str, list[Row]] = {}
    for attempt in pl.read_parquet(run / "attempts.parquet", columns=list(_ATTEMPT)).iter_rows(named=True):
        attempts.setdefault(attempt["row_id"], []).append(attempt)
    for row in pl.read_parquet(run / "results.parquet", columns=list(_ROW)).iter_rows(named=True):
        wire_model = json.loads(row["request"])["model"]
        key = named[row["row_id"]] = (row["sample_id"], wire_model, row["repeat"])
        own = attempts.pop(row["row_id"], [])
        yield from _check_sum(row, own, doubts[row["row_id"]])
        if row["reused_from"] is not None:
            usd, is_unknown = Fraction(row["cost_usd"] or 0), row["cost_usd"] is None
            accounts[wire_model].reused.take(Share(n=1, usd=usd, n_unknown=is_unknown))
            continue
        found = keys.setdefault(key, _Key())
        found.attempts += own
        found.n_doubts += doubts[row["row_id"]]
        found.n_again += "sent_again" in (row["flags"] or "")
        if row["status"] not in {"error", "pending"}:
            found.rows.append(row)
    yield from (f"attempts of {row_id[:8]}, which is no row" for row_id in attempts)


def _check_sum(row: Row, attempts: list[Row], n_doubts: int) -> Iterator[str]:
    """Yield how a row differs from its attempts."""
    name = f"{row['sample_id']}/{row['model']}"
    if row["attempts"] != len(attempts) + n_doubts:
        yield f"{name}: {row['attempts']} attempts in results, {len(attempts)} in attempts, {n_doubts} in doubt"
    is_estimated = any(attempt["usage_source"] == "estimated" for attempt in attempts)
    is_flagged = "billed_estimated" in (row["flags"] or "")
    if is_flagged is not is_estimated and row["billed_usd"] is not None:
        yield f"{name}: flags {row['flags']}, its attempts {[attempt['usage_source'] for attempt in attempts]}"
    costs = [attempt["cost_usd"] for attempt in attempts]
    billed = None if None in costs else sum(map(Fraction, costs), Fraction(0))
    told = None if row["billed_usd"] is None else Fraction(row["billed_usd"])
    if n_doubts and told is None:
        return  # Nobody knows whether the request in flight was billed.
    is_alike = billed is told if billed is None or told is None else abs(billed - told) <= ROUNDING_USD
    if not is_alike:
        yield f"{name}: billed_usd {row['billed_usd']}, its attempts {costs}"


def _check_reuse(story: Story) -> Iterator[str]:
    """Yield reused rows that differ from their originals, or look as if they had been asked."""
    same = ("cost_usd", "cost_source", "usage_source", "prompt_tokens", "completion_tokens", *_PARTS)
    first = {row["row_id"]: row for row in _load_rows(story.first)}
    reused = [row for row in _load_rows(story.second) if row["reused_from"] is not None]
    if len(reused) != len(first):
        yield f"{len(reused)} rows were reused, the first run has {len(first)}"
    for row in reused:
        original = first[row["row_id"]]
        off = [name for name in same if row[name] != original[name]]
        if off or row["billed_usd"] != 0 or row["latency_s"] is not None or row["attempts"]:
            yield f"{row['sample_id']}/{row['model']}: reused, and differs in {off}, billed {row['billed_usd']}"


def _load_rows(run: Path) -> Iterator[Row]:
    return pl.read_parquet(run / "results.parquet", columns=list(_ROW)).iter_rows(named=True)


def _check_totals(story: Story, lines: Mapping[LedgerKey, Line], accounts: Mapping[str, Account]) -> Iterator[str]:
    """Yield where the ledger's lines do not add up to its own totals, by model and by service tier."""
    for name, told in story.ledger["models"].items():
        tiers: Counter[str] = Counter()
        for key, line in lines.items():
            if key[1] == name:
                tiers.update(line.tiers)
        share = accounts[name].ledger
        if (told["billed"], told["total_tokens"]) != (share.n_billed, share.billed_tokens):
            yield f"{name}: the ledger's lines do not add up to its totals"
        if tiers != {tier: bill["billed"] for tier, bill in told["service_tiers"].items()}:
            yield f"{name}: the ledger's tiers do not add up: {dict(tiers)}"
