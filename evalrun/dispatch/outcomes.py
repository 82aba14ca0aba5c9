"""Where attempts and outcomes are made: what one exchange was, what finally became of a row, and what it cost.

Rows, replies and failures enter, frozen records leave. Unknown cost is None, never 0; 0 means that the server certainly
did no work. What an attempt that failed may have cost is estimated, and says so.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from evalrun.cost import Cost, compute_cost
from evalrun.dispatch.faults import find_request_id
from evalrun.dispatch.retry import Tries
from evalrun.dispatch.transport import Reply
from evalrun.dispatch.usage_estimates import Taken
from evalrun.errors import ApiError, ContentRefusedError, TerminalError
from evalrun.prices import ModelPrices
from evalrun.records import (
    NO_USAGE,
    PASSING,
    Attempt,
    Completion,
    CostSource,
    ErrorCode,
    Outcome,
    Request,
    Started,
    Status,
)

_FREE = Cost(Decimal(0), CostSource.TABLE)
CUT_BY_PROXY = frozenset({504, 524})
"""Statuses by which a proxy says that it waited long enough: behind it, the model may have gone on to the end."""


@dataclass(slots=True, kw_only=True)
class Row:
    """A row taken from the plan, until it has its outcome."""

    request: Request
    taken_s: float
    """Monotonic time at which it was taken."""
    tries: Tries = field(default_factory=Tries)
    billed_usd: Decimal | None
    """Cost of its attempts so far, earlier calls included; None when any is unknown."""
    is_estimated: bool
    """Whether an estimate is part of that."""
    started_at: datetime | None = None
    """Start of its first attempt in this call, UTC."""
    last_ended_s: float
    """Monotonic time at which it began to wait: taken, or its latest attempt's end."""
    was_sent_again: bool = False
    """Whether one of its failed attempts left twice."""

    @classmethod
    def take(cls, request: Request, now_s: float) -> "Row":
        """Return the row of a request that has just been taken from the plan."""
        return cls(
            request=request,
            taken_s=now_s,
            billed_usd=request.prior_billed_usd,
            is_estimated=request.is_prior_estimated,
            last_ended_s=now_s,
        )

    @property
    def is_billed_estimated(self) -> bool:
        """True when what its attempts cost is known, and an estimate is part of it."""
        return self.is_estimated and self.billed_usd is not None

    @property
    def n_attempts(self) -> int:
        """Attempts over the whole run."""
        return self.request.prior_attempts + self.tries.n

    def add_cost(self, attempt: Attempt) -> None:
        """Add the cost of an attempt; an unknown one makes the sum unknown."""
        cost_usd = attempt.cost_usd
        if self.billed_usd is not None:
            self.billed_usd = None if cost_usd is None else self.billed_usd + cost_usd
        if attempt.is_cost_estimated:
            self.is_estimated = True


class Sending(NamedTuple):
    """One attempt that is about to leave."""

    row: Row
    attempt: int
    """1-based over the whole run."""
    started_at: datetime
    wait_s: float
    queue_s: float


def start_attempt(row: Row, *, now_s: float, now: datetime) -> tuple[Started, Sending]:
    """Count the row's next attempt and return its two faces: the journal's record and our own notes."""
    row.tries.n += 1
    if row.started_at is None:
        row.started_at = now
    request = row.request
    started = Started(
        row_id=request.row_id, request_key=request.request_key, index=request.index, attempt=row.n_attempts
    )
    sending = Sending(
        row=row, attempt=row.n_attempts, started_at=now, wait_s=now_s - row.last_ended_s, queue_s=now_s - row.taken_s
    )
    return started, sending


def make_answered_attempt(sending: Sending, reply: Reply, completion: Completion, prices: ModelPrices) -> Attempt:
    """Return the attempt whose reply was a completion, priced; the row's sum is carried on."""
    row = sending.row
    price = prices.find(sending.started_at)
    cost = compute_cost(completion.usage, price, service_tier=completion.service_tier, source=prices.source)
    attempt = Attempt(
        row_id=row.request.row_id,
        request_key=row.request.request_key,
        attempt=sending.attempt,
        started_at=sending.started_at,
        wait_s=sending.wait_s,
        latency_s=reply.latency_s,
        first_token_s=reply.first_token_s,
        http_status=reply.status,
        error_code=None,
        error_message=None,
        retry_after_s=None,
        request_id=find_request_id(reply.headers),
        bytes_sent=len(row.request.body),
        bytes_received=reply.bytes_received,
        usage=completion.usage,
        cost_usd=cost.usd,
        cost_source=cost.source,
        maybe_billed=False,
        body=reply.body.decode("utf-8", "replace"),
    )
    row.add_cost(attempt)
    return attempt


def make_failed_attempt(
    sending: Sending, error: ApiError, reply: Reply | None, taken: Taken | None, prices: ModelPrices
) -> Attempt:
    """Return the attempt that failed, with what it may have cost; the row's sum is carried on.

    Args:
        sending: The attempt.
        error: Its failure.
        reply: The reply that says so; None when no whole reply came.
        taken: What it may have taken; None when it certainly took nothing.
        prices: Of its model.
    """
    row, cost, usage = sending.row, _FREE, NO_USAGE
    row.was_sent_again |= error.was_sent_again
    if taken is not None:
        usage, price = taken.usage, prices.find(sending.started_at)
        cost = compute_cost(usage, price, service_tier=taken.service_tier, source=prices.source)
    attempt = Attempt(
        row_id=row.request.row_id,
        request_key=row.request.request_key,
        attempt=sending.attempt,
        started_at=sending.started_at,
        wait_s=sending.wait_s,
        latency_s=None if reply is None else reply.latency_s,
        first_token_s=error.first_token_s if reply is None else reply.first_token_s,
        http_status=error.http_status,
        error_code=None if isinstance(error, ContentRefusedError) else str(error.code),
        error_message=error.message,
        retry_after_s=error.retry_after_s,
        request_id=error.request_id,
        bytes_sent=len(row.request.body) if error.was_sent else 0,
        bytes_received=error.bytes_received if reply is None else reply.bytes_received,
        usage=usage,
        cost_usd=cost.usd,
        cost_source=cost.source,
        maybe_billed=taken is not None,
        body=None if error.body is None else error.body.decode("utf-8", "replace"),
    )
    row.add_cost(attempt)
    return attempt


def is_free(error: ApiError) -> bool:
    """Tell whether a failed attempt certainly cost nothing: it never left, or was answered with an HTTP error.

    Providers do not bill replies that are HTTP errors; a lost, late or damaged reply may have been generated in full,
    and so may one that a proxy did not wait for (QuantumNous/new-api#2974).
    """
    status = error.http_status
    is_refused = status is not None and status >= 300 and status not in CUT_BY_PROXY
    return is_refused or not error.was_sent


def judge_permanence(error: ApiError) -> bool:
    """Tell whether a failure will not pass although its code can: the code says where it happened, not what it was."""
    return error.code in PASSING and isinstance(error, TerminalError)


def make_outcome(
    sending: Sending,
    attempt: Attempt,
    *,
    status: Status,
    completion: Completion | None = None,
    finished_at: datetime,
    is_permanent: bool = False,
) -> Outcome:
    """Return what finally became of a row whose last attempt decided it.

    Args:
        sending: The attempt's notes.
        attempt: Its record, not written anywhere else.
        status: What became of the row; `pending` when the attempt's failure stopped the lane.
        completion: The reply; None for error and pending.
        finished_at: UTC.
        is_permanent: Whether an error of a kind that can pass is known not to.
    """
    row = sending.row
    if row.was_sent_again and completion is not None and "sent_again" not in completion.flags:
        completion = replace(completion, flags=(*completion.flags, "sent_again"))
    return Outcome(
        row_id=row.request.row_id,
        request_key=row.request.request_key,
        index=row.request.index,
        status=status,
        error_code=attempt.error_code if completion is None else None,
        error_message=attempt.error_message,
        http_status=attempt.http_status,
        attempts=attempt.attempt,
        completion=completion,
        usage=attempt.usage,
        cost_usd=attempt.cost_usd,
        billed_usd=row.billed_usd,
        is_billed_estimated=row.is_billed_estimated,
        cost_source=attempt.cost_source,
        latency_s=attempt.latency_s,
        first_token_s=attempt.first_token_s,
        queue_s=sending.queue_s,
        started_at=row.started_at,
        finished_at=finished_at,
        last_attempt=attempt,
        is_permanent=is_permanent,
    )


def make_pending(row: Row, code: ErrorCode, message: str, *, finished_at: datetime) -> Outcome:
    """Return the outcome of a row that is given back: its attempts, if any, are written already."""
    return Outcome(
        row_id=row.request.row_id,
        request_key=row.request.request_key,
        index=row.request.index,
        status=Status.PENDING,
        error_code=code,
        error_message=message,
        http_status=None,
        attempts=row.n_attempts,
        completion=None,
        usage=NO_USAGE,
        cost_usd=None,
        billed_usd=row.billed_usd,
        is_billed_estimated=row.is_billed_estimated,
        cost_source=CostSource.UNKNOWN,
        latency_s=None,
        first_token_s=None,
        queue_s=None,
        started_at=row.started_at,
        finished_at=finished_at,
        last_attempt=None,
    )
