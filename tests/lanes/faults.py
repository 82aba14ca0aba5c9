"""A server that fails at random: 503s, and connections that end after the head of a reply.

Each attempt draws anew, whatever became of the one before, so that the figures are those of the geometric series. A
reply that is reset in the middle is a transport's failure; one that merely ends too early was a 200, was probably
billed, and is asked for again only twice. Both are counted here, each against its own series.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final, Literal

from evalrun.dispatch.retry import MAX_DAMAGED_RETRIES
from evalrun.options import ProfileOptions, RetryOptions, SimulatorOptions
from evalrun.records import Attempt, ErrorCode, Outcome, Started, Status
from tests.lanes.asking import Asked, ask, iterate_requests
from tests.lanes.fast_clock import run_at
from tests.lanes.servers import Ledger, serve

How = Literal["rst", "length"]
"""The connection is reset in the body, or ends before as many bytes came as were promised."""
ERROR_SHARE: Final = 0.4
CUT_SHARE: Final = 0.2
CONCURRENCY: Final = 64
MAX_OFF_SHARE: Final = 0.01
MAX_OFF_RATIO: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """What chance has it."""

    failed_share: float
    requests_per_row: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of it."""

    how: How
    n_rows: int
    asked: Asked
    ledger: Ledger
    codes: Counter[str]
    """Failed attempts by their code."""

    @property
    def failed_share(self) -> float:
        """Share of the rows that ended as errors."""
        return self.asked.statuses[Status.ERROR] / self.n_rows

    @property
    def requests_per_row(self) -> float:
        """As the server counted them."""
        return self.ledger.n_requests / self.n_rows

    @property
    def expected(self) -> Series:
        """What the same draws make of rows without a lane."""
        return compute_series(RetryOptions().max_attempts, max_cuts=None if self.how == "rst" else MAX_DAMAGED_RETRIES)

    @property
    def has_one_outcome_each(self) -> bool:
        """True when every row has exactly one outcome, and the server saw each request that left."""
        is_counted = self.asked.n_started.total() == self.ledger.n_requests
        return self.asked.n_with_outcome == self.n_rows and self.asked.n_twice == 0 and is_counted

    @property
    def is_held(self) -> bool:
        """True when each row ended once, as chance has it."""
        expected = self.expected
        is_near = abs(self.failed_share - expected.failed_share) <= MAX_OFF_SHARE
        is_as_many = abs(self.requests_per_row / expected.requests_per_row - 1) <= MAX_OFF_RATIO
        return self.has_one_outcome_each and is_near and is_as_many


def compute_series(max_attempts: int, *, max_cuts: int | None) -> Series:
    """Return what becomes of a row whose attempts fail at random.

    Args:
        max_attempts: After so many the row is an error.
        max_cuts: Cut replies that are asked for again; None = all of them.
    """
    going = {0: 1.0}
    n_requests = 0.0
    for _ in range(max_attempts):
        n_requests += sum(share for n_cuts, share in going.items() if not _is_over(n_cuts, max_cuts))
        following: dict[int, float] = {}
        for n_cuts, share in going.items():
            fates = ((n_cuts, 1.0),) if _is_over(n_cuts, max_cuts) else ((n_cuts, ERROR_SHARE), (n_cuts + 1, CUT_SHARE))
            for n_after, chance in fates:
                following[n_after] = following.get(n_after, 0.0) + share * chance
        going = following
    return Series(failed_share=sum(going.values()), requests_per_row=n_requests)


def _is_over(n_cuts: int, max_cuts: int | None) -> bool:
    return max_cuts is not None and n_cuts > max_cuts


def run_faults(how: How, n_rows: int, *, speed: float, latency_ms: float = 300) -> Result:
    """Ask a simulator that fails so often."""
    profile = ProfileOptions(
        latency_ms=latency_ms,
        error_rate=ERROR_SHARE,
        # A quirk befalls only what is no error already.
        quirks={f"Q25:{how}": CUT_SHARE / (1 - ERROR_SHARE)},
    )
    codes: Counter[str] = Counter()

    def note(record: Started | Attempt | Outcome) -> None:
        attempt = record.last_attempt if isinstance(record, Outcome) else record
        if isinstance(attempt, Attempt) and attempt.error_code is not None:
            codes[ErrorCode(attempt.error_code)] += 1

    async def run() -> Asked:
        lane = ("m", n_rows, iterate_requests(n_rows))
        return await ask(servers[0].base_url, lane, speed=speed, concurrency=CONCURRENCY, on_record=note)

    with serve([SimulatorOptions(answer="fine", profiles={"m": profile})], speed=speed) as servers:
        asked = run_at(speed, run)
    return Result(how=how, n_rows=n_rows, asked=asked, ledger=servers[0].ledger, codes=codes)
