"""Refusals that have nothing to do with our rate are found out, and those of a real limit are not taken for them."""

import itertools
import random

import pytest

from evalrun.dispatch.pacing import Pacer
from evalrun.dispatch.ramp import START, Ramp
from evalrun.dispatch.refusal_cause import FIRST_BELIEF_S, JUDGED, RefusalCause
from evalrun.options import SimulatedLimits
from evalrun.records import Request, Status
from tests.dispatch.rig import make_requests
from tests.dispatch.test_lane_scenarios import serve_limited
from tests.dispatch.toy_gateway import Figures, Lane, Row, Server, SimulatedServer, SteadyServer
from tests.dispatch.virtual import Deed, Serve, refuse, run_virtually

SLOTS = 16
MOST_ROWS = 1500


def send(cause: RefusalCause, per_s: float, *, begin_s: float, end_s: float) -> None:
    """Let requests leave steadily."""
    for n in itertools.count():
        at_s = begin_s + n / per_s
        if at_s >= end_s:
            return
        cause.note_sent(at_s)


def make_free(*, now_s: float = 80.0) -> RefusalCause:
    """Return a verdict that was just reached."""
    cause = RefusalCause()
    send(cause, 10, begin_s=0, end_s=40)
    send(cause, 0.5, begin_s=40, end_s=now_s)
    assert cause.find_other(now_s)
    return cause


# The verdict


def test_nothing_is_found_where_nothing_was_let_in() -> None:
    """A refusal of the first requests says nothing about another cause."""
    cause = RefusalCause()
    assert not cause.find_other(0.0)
    cause.note_sent(0.0)
    cause.note_refused(0.0, 0.1)
    assert (cause.find_other(0.1), cause.is_rate(0.1)) == (False, True)


@pytest.mark.parametrize(("per_s", "is_other"), [(10.0, False), (5.0, False), (3.5, False), (2.5, True), (0.5, True)])
def test_refusal_far_below_what_was_let_in_has_another_cause(per_s: float, is_other: bool) -> None:
    """With ten per second let in before, a third of that is where the rate explains no refusal any more."""
    cause = RefusalCause()
    send(cause, 10, begin_s=0, end_s=40)
    send(cause, per_s, begin_s=40, end_s=80)
    assert cause.find_other(80.0) == is_other
    assert cause.is_rate(80.0) != is_other


def test_pace_has_to_be_slow_over_every_span() -> None:
    """A burst of two seconds explains a refusal, however little left in the half minute before it."""
    cause = RefusalCause()
    send(cause, 10, begin_s=0, end_s=40)
    send(cause, 0.1, begin_s=40, end_s=78)
    send(cause, 10, begin_s=78, end_s=80)
    assert not cause.find_other(80.0)


def test_what_was_refused_was_not_let_in() -> None:
    """A storm of which nearly all was refused is no proof that so many pass."""
    cause = RefusalCause()
    send(cause, 10, begin_s=0, end_s=40)
    for n in range(390):
        cause.note_refused(n / 10, 40.0)
    send(cause, 0.5, begin_s=40, end_s=80)
    assert not cause.find_other(80.0)


def test_verdict_is_tried_again_and_then_holds_longer() -> None:
    """After two minutes refusals count again; when nothing has changed, the next verdict holds for four."""
    cause = make_free()
    assert not cause.is_rate(80 + FIRST_BELIEF_S - 1)
    assert cause.is_rate(80 + FIRST_BELIEF_S)
    send(cause, 0.5, begin_s=200, end_s=300)
    assert cause.find_other(300.0)
    assert cause.lasts_until_s == 300 + 2 * FIRST_BELIEF_S


def test_storm_ends_a_verdict() -> None:
    """When nearly everything is refused there is a limit after all."""
    cause = make_free()
    for n in range(JUDGED):
        cause.note_sent(81 + n / 10)
        cause.note_refused(81 + n / 10, 85.0)
    assert cause.is_rate(85.0)


def test_same_share_as_before_is_no_storm() -> None:
    """A verdict stands while the share stays what chance makes of it."""
    cause = make_free()
    for n in range(400):
        cause.note_sent(81 + n / 10)
        if n % 5 == 0:
            cause.note_refused(81 + n / 10, 81 + n / 10)
    assert not cause.is_rate(125.0)


# The whole lane


def serve_refusing(share: float, seed: int, *, has_retry_after: bool) -> Serve:
    """Return a server that refuses a share of its requests, whatever the pace."""
    rng = random.Random(seed)
    hint = {"retry_after": "1"} if has_retry_after else {}

    def serve(_now_s: float, _request: Request) -> Deed:
        return refuse(429, after_s=0.1, **hint) if rng.random() < share else Deed(after_s=1.0)

    return serve


@pytest.mark.parametrize("has_retry_after", [True, False])
@pytest.mark.parametrize(("share", "most_s"), [(0.1, 240.0), (0.3, 360.0), (0.5, 1200.0)])
def test_refusals_at_random_do_not_stop_a_lane(share: float, most_s: float, has_retry_after: bool) -> None:
    """300 rows that took from a quarter of an hour to six hours take minutes: the rate does not fall for ever."""
    for seed in range(1, 3):
        serve = serve_refusing(share, seed, has_retry_after=has_retry_after)
        ledger = run_virtually(serve, make_requests(300), concurrency=SLOTS, seed=seed)
        assert ledger.count(Status.OK) == 300
        assert "not_by_rate" in [what for _, what, _ in ledger.progress[0].history]
        assert ledger.ended_s <= most_s


def run_limited(server: Server, seed: int, *, n_rows: int, in_flight: int) -> tuple[Figures, list[str]]:
    """Send rows to a server with a real limit; return the figures, and what the pacer noted."""
    noted: list[str] = []
    pacer = Pacer(
        requests_per_minute=None,
        tokens_per_minute=None,
        now_s=0.0,
        on_note=lambda what, _now_s, _value: noted.append(what),
    )
    figures = Lane(server, pacer, Ramp(in_flight, start=START), random.Random(seed)).run([Row()] * n_rows)
    return figures, noted


@pytest.mark.parametrize(
    "per_minute", [20, 200, *(pytest.param(n, marks=pytest.mark.soak) for n in (5, 60, 600, 3000))]
)
@pytest.mark.parametrize("span_s", [1, 10, 60])
@pytest.mark.parametrize("is_steady", [True, False])
def test_real_limit_is_never_taken_for_chance(is_steady: bool, span_s: int, per_minute: int) -> None:
    """Buckets and windows, small and large, costly or free to meet, with Retry-After or none: never a verdict."""
    span_s = max(span_s, 60 // per_minute + 1) if per_minute < 60 else span_s  # Less than one at a time passes nothing.
    for n, (rejects_cost, tells, in_flight) in enumerate(itertools.product((True, False), (True, False), (16, 100))):
        options = SimulatedLimits(requests_per_minute=per_minute, window_s=span_s, rejected_count=rejects_cost)
        server: Server = SimulatedServer(options, has_retry_after=tells)
        if is_steady:
            server = SteadyServer(
                requests_per_minute=per_minute, holds_s=span_s, rejects_cost=rejects_cost, has_retry_after=tells
            )
        _, noted = run_limited(server, n, n_rows=min(4 * per_minute, MOST_ROWS), in_flight=in_flight)
        assert "not_by_rate" not in noted


def test_verdict_under_a_limit_that_came_later_costs_little() -> None:
    """A key whose limit falls to a tenth may be misjudged once; the storm that follows ends it."""
    before = SteadyServer(requests_per_minute=600, holds_s=1, rejects_cost=False, has_retry_after=False)
    after = SteadyServer(requests_per_minute=60, holds_s=1, rejects_cost=False, has_retry_after=False)
    serve_before, serve_after = serve_limited(before, 0), serve_limited(after, 0)
    ledger = run_virtually(
        lambda now_s, request: (serve_before if now_s < 60 else serve_after)(now_s, request),
        make_requests(1000),
        concurrency=SLOTS * 4,
    )
    assert ledger.count(Status.OK) == 1000
    assert ledger.statuses.count(429) <= 200
