"""The outage circuit: it opens for an outage, not for a flapping server, and the lane comes back by itself."""

import itertools
import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.dispatch.outage import FIRST_PROBE_GAP_S, LAST_PROBE_GAP_S, MAX_PROBES_UNPROVEN, Outage
from tests.dispatch.toy_lane import Serve, ToyLane, ToyRow

Draw = Callable[[random.Random], float]

N_NEEDED = 20
"""Quick failures in a row that are an outage on a clean lane."""


def make_outage(*, n_answered: int = 100, base_s: float = 1.0, max_pause_s: float = 600.0, seed: int = 1) -> Outage:
    """Return the circuit of a lane that has answered so many requests, the last one at 0."""
    outage = Outage(base_s=base_s, max_s=60.0, max_pause_s=max_pause_s, rng=random.Random(seed))
    for index in range(n_answered):
        outage.note_answer(outage.note_sent(-100.0 + index), -100.0 + index + 0.5)
    return outage


def send_and_fail(outage: Outage, now_s: float, *, takes_s: float = 0.01) -> bool:
    """Let one request leave and fail."""
    return outage.note_failure(outage.note_sent(now_s), now_s + takes_s)


def open_circuit(outage: Outage, now_s: float = 100.0) -> float:
    """Fail enough to open the circuit; return when it opened."""
    for index in range(N_NEEDED):
        assert not send_and_fail(outage, now_s + index * 0.01)
    assert send_and_fail(outage, now_s + 2)
    assert outage.is_open
    return now_s + 2.01


def probe(outage: Outage, *, from_s: float) -> float:
    """Send the next probe as soon as it may leave and let it fail at once; return when."""
    opens_at_s = outage.opens_at_s(from_s, 0)
    assert opens_at_s is not None
    assert send_and_fail(outage, opens_at_s, takes_s=0.0)
    return opens_at_s


# Opening


def test_new_lane_is_open_for_everything() -> None:
    """Before anything failed nothing is limited."""
    outage = make_outage(n_answered=0)
    assert (outage.opens_at_s(5.0, 1000), outage.find_limit(5.0), outage.is_open) == (5.0, None, False)
    assert (outage.since_s, list(outage.spans()), outage.prefers_new_rows) == (None, [], False)


def test_quick_failures_brake_at_once_and_open_after_a_second() -> None:
    """Twenty in a row let one request a second out; when the next one fails too, it is an outage."""
    outage = make_outage()
    for index in range(N_NEEDED):
        assert not send_and_fail(outage, 100.0 + index * 0.001)
    opens_at_s = outage.opens_at_s(100.1, 0)
    assert opens_at_s is not None
    assert 100.7 < opens_at_s < 101.3
    assert send_and_fail(outage, 101.3)
    assert outage.since_s == 100.01


def test_braked_lane_keeps_no_beat() -> None:
    """Requests a second apart to the dot would never meet a server up that flaps in step with them."""
    gaps_s = set()
    for seed in range(10):
        outage = make_outage(seed=seed)
        for _ in range(N_NEEDED):
            send_and_fail(outage, 200.0)
        opens_at_s = outage.opens_at_s(200.1, 0)
        assert opens_at_s is not None
        gaps_s.add(round(opens_at_s - 200.0, 3))
    assert len(gaps_s) > 5
    assert 0.75 <= min(gaps_s) < max(gaps_s) <= 1.25


def test_answer_releases_the_brake() -> None:
    """A server that was away for less than a second costs a second and no more: there is no outage and no ramp."""
    outage = make_outage()
    for index in range(N_NEEDED + 10):
        send_and_fail(outage, 100.0 + index * 0.001)
    outage.note_answer(outage.note_sent(101.2), 101.3)
    assert (outage.is_open, outage.opens_at_s(101.3, 50), outage.find_limit(101.3)) == (False, 101.3, None)
    assert not outage.prefers_new_rows


def test_slow_failures_open_sooner() -> None:
    """Six deadlines in a row are an outage: each costs its time and maybe money."""
    outage = make_outage()
    sent_s = [outage.note_sent(100.0) for _ in range(6)]
    assert [outage.note_failure(sent_at_s, 220.0) for sent_at_s in sent_s] == [False] * 5 + [True]


def test_requests_that_are_out_break_a_run() -> None:
    """Refusals between requests that may yet be answered are no outage, however many come first."""
    outage = make_outage()
    sent_s = [outage.note_sent(100.0) for _ in range(64)]
    assert not any(outage.note_failure(sent_at_s, 101.5) for sent_at_s in sent_s[::2])
    assert (outage.is_open, outage.opens_at_s(102.0, 32)) == (False, 102.0)


def test_failures_of_all_durations_brake_without_a_long_run() -> None:
    """Two failures, one request out, and so on: no run is long, yet on a clean lane it is too much to go on so."""
    outage = make_outage()
    sent_s = [outage.note_sent(100.0) for _ in range(30)]
    assert not any(outage.note_failure(sent_at_s, 100.5) for index, sent_at_s in enumerate(sent_s) if index % 3)
    opens_at_s = outage.opens_at_s(100.5, 10)
    assert opens_at_s is not None
    assert opens_at_s > 100.5
    assert not outage.is_open


def test_one_row_that_always_fails_is_no_outage() -> None:
    """Retries of a row that fails whenever it is asked open nothing, even when nothing else is left to ask."""
    outage = make_outage()
    for attempt in range(1, 101):
        sent_at_s = outage.note_sent(100.0 + 10 * attempt, attempt=attempt)
        assert not outage.note_failure(sent_at_s, 100.0 + 10 * attempt + 1)


def test_doubt_prefers_new_rows() -> None:
    """Once some failed in a row, rows never asked before are wanted: they tell an outage from rows that always fail."""
    outage = make_outage()
    assert not outage.prefers_new_rows
    send_and_fail(outage, 100.0)
    assert not outage.prefers_new_rows
    send_and_fail(outage, 101.0)
    assert outage.prefers_new_rows
    outage.note_answer(outage.note_sent(102.0), 102.1)
    assert not outage.prefers_new_rows


def test_doubt_goes_by_the_latest_failure() -> None:
    """On a flapping lane some run is always long: retries would starve if that were enough to prefer new rows."""
    outage = make_outage()
    for index in range(5):
        send_and_fail(outage, 100.0 + 0.1 * index)
    outage.note_sent(100.6)
    send_and_fail(outage, 100.7)
    assert not outage.prefers_new_rows


# Probing


def test_open_circuit_lets_single_requests_out() -> None:
    """While a probe is out nothing else leaves; what left before the circuit opened does not hold it up."""
    outage = make_outage()
    now_s = open_circuit(outage)
    opens_at_s = outage.opens_at_s(now_s, in_flight=30)
    assert opens_at_s is not None
    assert 0.5 <= opens_at_s - now_s <= 1
    outage.note_sent(opens_at_s)
    assert outage.opens_at_s(opens_at_s + 50, in_flight=31) is None
    assert outage.opens_at_s(opens_at_s + 50, in_flight=0) is not None
    assert outage.find_limit(opens_at_s) == 1


def test_probes_back_off() -> None:
    """Never more than one a second on average, five seconds apart at most at the start, thirty in the end."""
    outage = make_outage()
    opened_s = now_s = open_circuit(outage)
    times_s = []
    while not outage.is_over:
        now_s = probe(outage, from_s=now_s)
        times_s.append(now_s - opened_s)
    gaps_s = [after - before for before, after in itertools.pairwise(times_s)]
    assert all(n <= 1 + time_s for n, time_s in enumerate(times_s, start=1))
    assert max(gap_s for gap_s, at_s in zip(gaps_s, times_s, strict=False) if at_s < 40) <= FIRST_PROBE_GAP_S
    assert FIRST_PROBE_GAP_S * 2 < max(gaps_s) <= LAST_PROBE_GAP_S
    assert times_s[-1] == pytest.approx(600.0)


def test_lane_is_given_up_after_the_longest_pause() -> None:
    """The last probe leaves when the time is up; when it fails, nothing leaves any more."""
    outage = make_outage(max_pause_s=3.0)
    opened_s = now_s = open_circuit(outage)
    while not outage.is_over:
        now_s = probe(outage, from_s=now_s)
    assert now_s == opened_s + 3.0
    assert outage.opens_at_s(1e9, 0) is None
    assert outage.is_open


def test_lane_that_never_answered_is_given_up_after_ten_probes() -> None:
    """Its first failure makes it probe; what left before that is no probe."""
    outage = make_outage(n_answered=0)
    sent_s = [outage.note_sent(0.0) for _ in range(8)]
    assert all(outage.note_failure(sent_at_s, 0.1) for sent_at_s in sent_s)
    now_s = 0.1
    for _ in range(MAX_PROBES_UNPROVEN):
        assert not outage.is_over
        now_s = probe(outage, from_s=now_s)
    assert outage.is_over
    assert now_s < 60


def test_probe_of_a_short_base_is_quick() -> None:
    """Pauses and the brake go by the job's `base_s`."""
    outage = make_outage(n_answered=0, base_s=0.01)
    send_and_fail(outage, 0.0, takes_s=0.0)
    opens_at_s = outage.opens_at_s(0.0, 0)
    assert opens_at_s is not None
    assert 0.005 <= opens_at_s <= 0.01


# Closing


def test_answered_probe_reopens_the_lane_step_by_step() -> None:
    """One request, then two after its answer; and twice as many with each second in which nothing fails."""
    outage = make_outage()
    now_s = open_circuit(outage) + 1
    outage.note_answer(outage.note_sent(now_s), now_s)
    assert not outage.is_open
    reopened_s = next(iter(outage.spans()))[1]
    assert reopened_s is not None
    assert outage.opens_at_s(reopened_s, 0) == reopened_s
    sent_at_s = outage.note_sent(reopened_s)
    assert outage.opens_at_s(reopened_s, 1) == reopened_s + 1
    outage.note_answer(sent_at_s, reopened_s + 0.1)
    assert outage.find_limit(reopened_s + 0.1) == 2
    for _ in range(16):
        outage.note_sent(reopened_s + 0.1)
    assert outage.opens_at_s(reopened_s + 0.1, 16) == reopened_s + 4
    assert outage.find_limit(reopened_s + 4) == 32


def test_failure_after_an_outage_halts_the_growth_by_time() -> None:
    """Only answers make more of it then, until a second was calm again."""
    outage = make_outage()
    now_s = open_circuit(outage) + 1
    outage.note_answer(outage.note_sent(now_s), now_s)
    send_and_fail(outage, now_s + 3)
    assert outage.find_limit(now_s + 3.5) == 1
    assert outage.find_limit(now_s + 4.5) == 2


def test_requests_from_before_do_not_fill_the_limit() -> None:
    """What hangs since the outage is no sign of what the server bears now."""
    outage = make_outage()
    for _ in range(50):
        outage.note_sent(99.0)
    now_s = open_circuit(outage) + 1
    outage.note_answer(outage.note_sent(now_s), now_s + 0.1)
    assert outage.opens_at_s(now_s + 0.2, in_flight=50) == now_s + 0.2


def test_answer_from_before_the_outage_does_not_close_it() -> None:
    """A server that takes no new requests still ends those that it has: that shows nothing."""
    outage = make_outage()
    old = outage.note_sent(99.0)
    now_s = open_circuit(outage)
    outage.note_answer(old, now_s + 0.1)
    assert outage.is_open


def test_answer_to_a_request_sent_before_the_circuit_opened_closes_it() -> None:
    """Sent after the run of failures and answered: the server lets requests in."""
    outage = make_outage()
    for index in range(N_NEEDED):
        send_and_fail(outage, 100.0 + index * 0.01)
    last, young = outage.note_sent(101.5), outage.note_sent(101.6)
    assert outage.note_failure(last, 101.7)
    outage.note_answer(young, 101.8)
    assert not outage.is_open


def test_any_answer_proves_a_lane_that_never_answered() -> None:
    """Even to a request that left before the first failure."""
    outage = make_outage(n_answered=0)
    old = outage.note_sent(0.0)
    assert send_and_fail(outage, 0.1)
    outage.note_answer(old, 0.5)
    assert not outage.is_open
    assert not send_and_fail(outage, 10.0)


def test_lucky_answer_does_not_shorten_the_pauses() -> None:
    """An outage that follows at once goes on with long pauses; after some traffic they begin anew."""
    pauses_s = []
    for n_answered in (1, 30):
        outage = make_outage()
        now_s = open_circuit(outage)
        for _ in range(6):
            now_s = probe(outage, from_s=now_s)
        for _ in range(n_answered):
            now_s += 1
            outage.note_answer(outage.note_sent(now_s), now_s + 0.1)
        now_s = open_circuit(outage, now_s + 1)
        opens_at_s = outage.opens_at_s(now_s, 0)
        assert opens_at_s is not None
        pauses_s.append(opens_at_s - now_s)
    assert pauses_s[0] > 2.4
    assert pauses_s[1] <= 1


def test_outages_teach_nothing_about_the_lane_when_it_is_up() -> None:
    """The tenth outage with hardly an answer between is noticed as soon as the first."""
    outage = make_outage()
    now_s = 100.0
    for _ in range(10):
        now_s = open_circuit(outage, now_s) + 100
        outage.note_answer(outage.note_sent(now_s), now_s + 1)
        now_s += 2


# Whose failure it was


def test_failures_in_an_outage_are_the_lanes() -> None:
    """Those that open the circuit, meet it open, or were out meanwhile: none of them counts against its row."""
    outage = make_outage()
    old = outage.note_sent(99.0)
    now_s = open_circuit(outage)
    older, oldest = outage.note_sent(99.0), old
    assert outage.note_failure(older, now_s + 0.1)
    outage.note_answer(outage.note_sent(now_s + 1), now_s + 1.1)
    assert outage.note_failure(oldest, now_s + 100)
    assert not send_and_fail(outage, now_s + 101)


def test_failures_before_the_circuit_opened_are_given_back() -> None:
    """What counted against its row at first is known for an outage's later on; what was before it still counts."""
    outage = make_outage()
    send_and_fail(outage, 50.0)
    outage.note_answer(outage.note_sent(60.0), 61.0)
    assert not outage.has_caused(100.0, 100.01)
    now_s = open_circuit(outage)
    assert outage.has_caused(100.0, 100.01)
    assert not outage.has_caused(50.0, 50.01)
    outage.note_answer(outage.note_sent(now_s + 1), now_s + 2)
    assert outage.has_caused(100.0, 100.01)
    assert not outage.has_caused(now_s + 2.5, now_s + 3)


def test_row_gets_back_what_an_outage_took() -> None:
    """The toy's row, as the dispatcher's, weighs its failures again before they count."""
    outage = make_outage()
    row = ToyRow(index=0, n_tries=2, in_question=[(50.0, 50.01), (100.0, 100.01)])
    row.weigh(outage)
    assert row.n_tries == 2
    open_circuit(outage)
    row.weigh(outage)
    assert (row.n_tries, row.in_question) == (1, [(50.0, 50.01)])


def test_equal_times_are_told_apart() -> None:
    """On a clock that stands still each request has a time of its own."""
    outage = make_outage()
    sent_s = [outage.note_sent(5.0) for _ in range(100)]
    assert len(set(sent_s)) == 100
    assert max(sent_s) == pytest.approx(5.0)


# Whole lanes: see toy_lane


def lognormal(median_s: float) -> Draw:
    """Return a draw of durations as models have them."""
    return lambda rng: rng.lognormvariate(math.log(median_s), 0.6)


def constant(takes_s: float) -> Draw:
    """Return a draw that is always the same."""
    return lambda _rng: takes_s


def exponential(mean_s: float) -> Draw:
    """Return a draw of durations spread as widely as waiting times are."""
    return lambda rng: rng.expovariate(1 / mean_s)


def flapping(failed_share: float, answers: Draw, failures: Draw) -> Serve:
    """Return a server that fails a share of what it is sent, at random."""

    def serve(_now_s: float, _row: int, rng: random.Random) -> tuple[float, bool]:
        is_answered = rng.random() >= failed_share
        return (answers if is_answered else failures)(rng), is_answered

    return serve


def dead_between(from_s: float, to_s: float, answers: Draw, failures: Draw) -> Serve:
    """Return a server that fails everything sent within a span of time."""

    def serve(now_s: float, _row: int, rng: random.Random) -> tuple[float, bool]:
        is_answered = not from_s <= now_s < to_s
        return (answers if is_answered else failures)(rng), is_answered

    return serve


LATENCIES = {
    "slow answers, quick refusals": (lognormal(4.0), constant(0.005)),
    "answers in step": (constant(4.0), constant(0.005)),
    "all quick": (constant(0.005), constant(0.005)),
    "all alike": (lognormal(4.0), lognormal(4.0)),
    "quick answers, slow failures": (constant(0.5), constant(10.0)),
    "failures of all durations": (lognormal(4.0), exponential(1.0)),
}


@pytest.mark.parametrize("latency", LATENCIES)
@pytest.mark.parametrize("failed_share", [0.4, 0.5, 0.6])
def test_flapping_server_is_no_outage(failed_share: float, latency: str) -> None:
    """H21: rows on a server that fails half at random all end, once each, and no circuit opens.

    Rows that end as errors and requests per row are what chance alone gives.
    """
    n_rows = 4000
    result = ToyLane(flapping(failed_share, *LATENCIES[latency]), n_rows=n_rows).run()
    assert result.spans == []
    assert (result.n_answered + result.n_failed, result.n_left) == (n_rows, 0)
    assert result.n_failed / n_rows == pytest.approx(failed_share**6, abs=0.01)
    per_row = (1 - failed_share**6) / (1 - failed_share)
    assert len(result.sent_at_s) / n_rows == pytest.approx(per_row, rel=0.05)


@pytest.mark.parametrize("concurrency", [1, 16, 64, 512])
@pytest.mark.parametrize("failures", [constant(0.005), exponential(1.0), constant(10.0)], ids=["quick", "all", "slow"])
@pytest.mark.parametrize("answer_s", [0.5, 4.0])
def test_total_outage_costs_a_request_per_slot_and_second_at_most(
    answer_s: float, failures: Draw, concurrency: int
) -> None:
    """H20: no row fails, at most concurrency + 60 requests leave in 60 s, and each row is asked once after it."""
    from_s, to_s = 20.0, 80.0
    n_rows = max(60, int(30 * concurrency / answer_s))
    serve = dead_between(from_s, to_s, lognormal(answer_s), failures)
    result = ToyLane(serve, n_rows=n_rows, concurrency=concurrency).run()
    assert (result.n_answered, result.n_failed, result.n_left) == (n_rows, 0, 0)
    assert result.count_sent(from_s, to_s) <= concurrency + 60
    n_rows_after = n_rows - result.count_sent(0, from_s)
    assert result.count_sent(to_s) <= 1.1 * n_rows_after
    assert next(sent_s for sent_s in result.sent_at_s if sent_s >= to_s) <= to_s + 10 + FIRST_PROBE_GAP_S * 1.6


def test_dead_lane_is_given_up_with_all_rows_pending() -> None:
    """N1, and the same after some answers: no row becomes an error."""
    never = ToyLane(dead_between(-1, 1e9, constant(1), constant(0.05)), n_rows=500, is_proven=False).run()
    assert (never.is_over, never.n_failed, never.n_left) == (True, 0, 500)
    assert len(never.sent_at_s) <= 64 + MAX_PROBES_UNPROVEN
    later = ToyLane(dead_between(10, 1e9, constant(1), constant(0.05)), n_rows=5000).run()
    assert (later.is_over, later.n_failed, later.n_answered + later.n_left) == (True, 0, 5000)
    assert later.ended_s == pytest.approx(611, abs=3)


@pytest.mark.parametrize("failed_share", [0.0, 0.3])
@pytest.mark.parametrize("concurrency", [4, 64])
def test_rows_that_always_fail_end_as_errors(concurrency: int, failed_share: float) -> None:
    """One row in twenty is failed whenever it is asked: when only those are left, it is no outage still."""
    flaps = flapping(failed_share, lognormal(1.0), constant(0.2))

    def serve(now_s: float, row: int, rng: random.Random) -> tuple[float, bool]:
        return (0.2, False) if row % 20 == 0 else flaps(now_s, row, rng)

    result = ToyLane(serve, n_rows=2000, concurrency=concurrency).run()
    assert (result.spans, result.n_left) == ([], 0)
    assert 100 <= result.n_failed <= 110


def test_server_away_every_other_while_is_survived() -> None:
    """Ten seconds up, ten down, with answers of four seconds: hardly a row fails, though the lane is down so often."""

    def serve(now_s: float, _row: int, rng: random.Random) -> tuple[float, bool]:
        return (0.005, False) if now_s % 20 > 10 else (lognormal(4.0)(rng), True)

    result = ToyLane(serve, n_rows=2000).run()
    assert result.n_failed <= 2
    assert result.n_left == 0
    assert len(result.sent_at_s) <= 2.3 * 2000


# Any schedule


@given(
    st.integers(0, 2**32),
    st.lists(st.tuples(st.sampled_from(["send", "send", "answer", "fail", "fail", "fail", "wait"]), st.floats(0, 20))),
)
def test_circuit_keeps_its_word_on_any_schedule(seed: int, steps: list[tuple[str, float]]) -> None:
    """One probe at a time, an answer to a probe closes, what fails while it is open is the lane's, and time is told."""
    rng = random.Random(seed)
    outage = Outage(base_s=1.0, max_s=60.0, max_pause_s=600.0, rng=rng)
    out: list[float] = []
    probes: list[float] = []
    now_s = 0.0
    for step, amount in steps:
        opens_at_s = outage.opens_at_s(now_s, len(out))
        assert opens_at_s is None or now_s <= opens_at_s <= now_s + max(LAST_PROBE_GAP_S, 10 * FIRST_PROBE_GAP_S)
        assert opens_at_s is not None or outage.is_over or probes
        if step == "wait":
            now_s += amount
        elif step == "send" or not out:
            if opens_at_s is None:
                continue
            now_s = opens_at_s
            out.append(outage.note_sent(now_s))
            if outage.is_open:
                assert probes == []
                probes.append(out[-1])
        else:
            sent_at_s = out.pop(int(rng.random() * len(out)))
            is_probe, was_open = sent_at_s in probes, outage.is_open
            if step == "answer":
                outage.note_answer(sent_at_s, now_s)
                assert not (is_probe and outage.is_open)
            else:
                is_lanes = outage.note_failure(sent_at_s, now_s)
                assert is_lanes == outage.has_caused(sent_at_s, now_s)
                assert is_lanes or not (was_open or outage.is_open)
            probes = [] if is_probe or not outage.is_open else probes
