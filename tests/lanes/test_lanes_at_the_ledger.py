"""Lanes over sockets: limits, waits, outages, faults and endurance, counted by a server in a process of its own.

The clock of both sides runs faster here; at full size and at the wall's pace the same scenarios are soak tests, and
`python -m benchmarks.lanes` prints their figures.
"""

import pytest

from evalrun.options import RetryOptions
from evalrun.records import Status
from tests.dispatch.test_pacing_scenarios import COLUMNS, N_ROWS
from tests.lanes.endurance import CONCURRENCY, run_endurance
from tests.lanes.faults import CUT_SHARE, ERROR_SHARE, MAX_OFF_SHARE, compute_series, run_faults
from tests.lanes.limits import MAX_REFUSED, make_column, make_simulated, make_token_limited, run_scenarios
from tests.lanes.outages import How, Shape, run_outage
from tests.lanes.waits import run_waits

COLUMN, *_, LENIENT_COLUMN = COLUMNS
HOWS: tuple[How, ...] = ("500", "reset", "refused")


def test_limits_are_kept_to_at_the_server() -> None:
    """A limit that is known, or told, refuses nothing; one that is not is learned at the price of a few refusals."""
    n_rows = 150
    known, told, learned, simulated = run_scenarios(
        [
            make_column(LENIENT_COLUMN, "known", n_rows=n_rows, seed=0),
            make_column(LENIENT_COLUMN, "headers", n_rows=n_rows, seed=0),
            make_column(COLUMN, "unknown", n_rows=n_rows, seed=0),
            make_simulated("windows", "unknown", n_rows=n_rows, seed=0, window_s=1.0, retry_after="none"),
        ],
        speed=10,
    )
    assert [result.is_complete for result in (known, told, learned, simulated)] == [True] * 4
    assert (known.ledger.n_throttled, told.ledger.n_throttled) == (0, 0)
    most = MAX_REFUSED["unknown"] * n_rows / N_ROWS
    assert 0 < learned.ledger.n_throttled <= most
    assert 0 < simulated.ledger.n_throttled <= most


def test_retry_after_silences_one_lane_at_the_server() -> None:
    """In each of its forms: nothing of the lane arrives until the wait is over, and the other lane goes on."""
    for result in run_waits(speed=5):
        assert (result.form, result.is_complete, result.n_while_waiting) == (result.form, True, 0)
        assert result.other_pace >= 0.5


@pytest.mark.parametrize("how", HOWS[1:])
def test_outage_costs_no_row_at_the_server(how: How) -> None:
    """No row fails, no more than the slots and one probe a second leave while it lasts, and no storm comes after it."""
    shape = Shape(n_rows=320, concurrency=64, latency_s=4, begins_s=8, lasts_s=60)
    result = run_outage(how, shape, speed=10)
    assert result.is_complete
    assert result.n_during <= result.most_during
    assert result.amplification <= 1.1


def test_random_faults_at_the_server_end_rows_as_chance_has_it() -> None:
    """Each row ends once; errors and requests per row are those of the series."""
    result = run_faults("rst", 800, speed=20)
    assert result.has_one_outcome_each
    assert result.failed_share == pytest.approx(result.expected.failed_share, abs=MAX_OFF_SHARE)
    # Of 800 rows: three standard deviations. Ten thousand come nearer.
    assert result.requests_per_row == pytest.approx(result.expected.requests_per_row, rel=0.06)


def test_series_of_faults() -> None:
    """Without a limit to one kind the series is the geometric one; with it, more rows fail after fewer requests."""
    p, n = ERROR_SHARE + CUT_SHARE, RetryOptions().max_attempts
    plain, limited = compute_series(n, max_cuts=None), compute_series(n, max_cuts=2)
    assert plain.failed_share == pytest.approx(p**n)
    assert plain.requests_per_row == pytest.approx((1 - p**n) / (1 - p))
    assert limited.failed_share > plain.failed_share
    assert limited.requests_per_row < plain.requests_per_row


def test_nothing_is_left_behind() -> None:
    """After a thousand requests tasks, descriptors, slots and objects are what they were, and neither lane starved."""
    result = run_endurance(1000, 150, n_warm=300)
    assert result.is_complete
    assert result.is_clean
    assert min(result.mean_slots.values()) >= CONCURRENCY / 8


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_scenarios_at_full_size() -> None:
    """The four servers of COST_AND_PACING 4.4, at the wall's pace: as calm and as fast as promised."""
    made = [
        make_column(title, knowledge, n_rows=N_ROWS, seed=0) for title in COLUMNS for knowledge in ("known", "unknown")
    ]
    made += [make_token_limited("windows of 10 s", "known", n_rows=600, seed=0, window_s=10.0)]
    assert [result.scenario.server for result in run_scenarios(made, speed=1) if not result.is_held] == []


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", HOWS)
def test_outage_of_a_minute(how: How) -> None:
    """60 s under 64 in flight: no row fails, and no more is sent than promised."""
    assert run_outage(how, Shape(n_rows=2400, concurrency=64, latency_s=1, begins_s=20, lasts_s=60), speed=1).is_held


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_ten_thousand_rows_of_random_faults() -> None:
    """Whether connections are reset or end too early, rows end as their series has it."""
    assert run_faults("rst", 10_000, speed=1, latency_ms=50).is_held
    assert run_faults("length", 10_000, speed=1, latency_ms=50).is_held


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_hundred_thousand_requests_leave_nothing_behind() -> None:
    """Memory is back where it was as well."""
    result = run_endurance(90_000, 10_000, n_warm=10_000)
    assert result.is_complete
    assert result.is_clean
    assert result.is_lean
    assert result.asked.statuses == {Status.OK: 100_000}
