"""Lanes: gates, paces, outages, stops and what is shown of them, with a clock made of numbers."""

import random
from datetime import UTC, datetime
from typing import Any

import pytest

from evalrun.dispatch.lane_log import LaneLog
from evalrun.dispatch.lanes import MAX_ALIKE_REFUSALS, Fate, Lane, Ruling
from evalrun.dispatch.outage import MAX_PROBES_UNPROVEN
from evalrun.dispatch.pacing import Pacer
from evalrun.dispatch.retry import Tries
from evalrun.errors import (
    ApiError,
    AuthRefusedError,
    BadRequestError,
    ConnectionFaultError,
    DamagedReplyError,
    RateLimitedError,
    ServerFaultError,
    TimedOutError,
)
from evalrun.lane_progress import LaneProgress
from evalrun.options import RetryOptions
from evalrun.records import ErrorCode

REFUSED = ConnectionFaultError(ErrorCode.CONNECT, "refused", was_sent=False)
BAD = BadRequestError(ErrorCode.BAD_REQUEST, "bad", http_status=400)
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def make_lane(*, limits: dict[str, Any] | None = None, **options: float) -> Lane:
    """Return a lane with default limits but for the given ones."""
    progress = LaneProgress(endpoint="e", model="m", total=100)
    retry = RetryOptions(**options)  # type: ignore[arg-type] # whole numbers too
    return Lane(progress, retry, random.Random(1), **(limits or {}))


def throttled(retry_after_s: float | None = None) -> ApiError:
    """Return a 429."""
    return RateLimitedError(ErrorCode.RATE_LIMITED, "slow", http_status=429, retry_after_s=retry_after_s)


def busy(**facts: Any) -> ApiError:
    """Return a 503."""
    return ServerFaultError(ErrorCode.OVERLOADED, "busy", http_status=503, **facts)


def send_and_fail(lane: Lane, error: ApiError, *, now_s: float = 100.0, tries: Tries | None = None) -> Ruling:
    """Let one request leave and come back as a failure."""
    tries = tries or Tries()
    tries.n += 1
    sent_at_s = lane.begin(tries, now_s)
    lane.end()
    return lane.note_failure(error, tries, sent_at_s=sent_at_s, now_s=now_s)


def send_and_answer(lane: Lane, *, now_s: float = 100.0) -> None:
    """Let one request leave and be answered."""
    sent_at_s = lane.begin(Tries(n=1), now_s)
    lane.end()
    lane.note_answer(sent_at_s, now_s)


def test_new_lane_is_open() -> None:
    """Nothing has to be waited for before the first request; eight may be in flight at first."""
    lane = make_lane()
    assert lane.opens_at_s(5.0) == 5.0
    assert (lane.progress.state, lane.progress.limit) == ("open", 8)


def test_lane_of_a_known_rate_uses_all_its_slots() -> None:
    """The pacing alone keeps it from meeting the server with a storm."""
    assert make_lane(limits={"requests_per_minute": 600.0, "concurrency": 100}).progress.limit == 100


def test_limit_in_flight_shuts_the_lane() -> None:
    """With as many in flight as the limit says, only something that comes back opens the lane."""
    lane = make_lane(limits={"concurrency": 2})
    for _ in range(2):
        lane.begin(Tries(n=1), 1.0)
    assert lane.opens_at_s(1.0) is None
    lane.end()
    assert lane.opens_at_s(1.0) == 1.0


def test_429_makes_the_whole_lane_wait() -> None:
    """After a 429 nothing leaves the lane before what the server asked for is over."""
    lane = make_lane()
    assert send_and_fail(lane, throttled(7)).fate is Fate.RETRY
    opens_at_s = lane.opens_at_s(100.0)
    assert opens_at_s is not None
    assert opens_at_s == pytest.approx(107)
    assert lane.progress.rate_limited == 1


def test_gate_never_moves_forward_in_time() -> None:
    """A later, shorter wait does not open a gate that is shut for longer."""
    lane = make_lane()
    send_and_fail(lane, throttled(60))
    send_and_fail(lane, throttled(1))
    assert (lane.opens_at_s(100.0) or 0) >= 160


def test_429_costs_the_row_no_attempt() -> None:
    """The lane was too fast, whichever row it sent: the lane waits, and the row keeps its only attempt."""
    lane, tries = make_lane(max_attempts=1), Tries()
    fates = [send_and_fail(lane, throttled(), now_s=100.0 + 70 * n, tries=tries).fate for n in range(8)]
    assert set(fates) == {Fate.RETRY}
    assert (tries.n, tries.n_counted) == (8, 0)
    assert (lane.opens_at_s(590.0) or 0) >= 591
    assert send_and_fail(lane, busy(), now_s=700.0, tries=tries).fate is Fate.FAIL


def test_lane_that_lets_nothing_in_stops() -> None:
    """Refusals for the pace cost rows nothing, so that time bounds them: `max_pause_s` in which nothing was let in."""
    lane = make_lane(max_pause_s=300)
    send_and_fail(lane, throttled(), now_s=100.0)
    assert send_and_fail(lane, throttled(), now_s=399.0).fate is Fate.RETRY
    send_and_answer(lane, now_s=399.5)
    assert send_and_fail(lane, throttled(), now_s=500.0).fate is Fate.RETRY
    assert lane.find_refused_s(510.0) == 10.0
    out = lane.begin(Tries(n=1), 790.0)
    assert send_and_fail(lane, throttled(), now_s=801.0).fate is Fate.RETRY  # One is out, and may have been let in.
    lane.end()
    refusal = throttled()
    assert lane.note_failure(refusal, Tries(n=1), sent_at_s=out, now_s=802.0).fate is Fate.PARK_AND_STOP


def test_request_too_large_for_a_minute_is_its_own_fault() -> None:
    """A 429 that no pace would avoid counts against its row, and teaches the lane nothing."""
    lane, tries = make_lane(max_attempts=2), Tries()
    body = b'{"error": {"message": "Request too large for m", "code": "rate_limit_exceeded"}}'
    error = RateLimitedError(ErrorCode.RATE_LIMITED, "x", http_status=429, body=body)
    assert [send_and_fail(lane, error, tries=tries).fate for _ in range(2)] == [Fate.RETRY, Fate.FAIL]
    assert lane.opens_at_s(100.0) == 100.0
    assert (lane.progress.rate_limited, lane.progress.history) == (2, [])


def test_faults_pause_the_growth_of_the_limit_half_of_the_time() -> None:
    """A server in trouble gets no more requests at once; where some always fail, the limit grows all the same."""
    lane = make_lane()
    send_and_answer(lane, now_s=99.0)
    limits = []
    for now_s in (100.0, 105.0, 111.0, 119.0, 121.0, 132.0):
        sent = [lane.begin(Tries(n=1), now_s) for _ in range(8)]
        send_and_fail(lane, busy(), now_s=now_s)
        for sent_at_s in sent:
            lane.note_answer(sent_at_s, now_s + 0.1)
            lane.end()
        limits.append(lane.progress.limit)
    assert limits == [8, 8, 11, 14, 14, 14]


def test_retry_after_of_an_overloaded_server_shuts_the_gate() -> None:
    """Whoever asks to wait is waited for, not only a 429, and no rate is learned from it."""
    lane = make_lane()
    send_and_answer(lane)
    assert send_and_fail(lane, busy(retry_after_s=9)).fate is Fate.RETRY
    assert lane.opens_at_s(100.0) == 109.0
    assert lane.progress.rate_limited == 0


def test_slow_down_cuts_the_rate_for_good() -> None:
    """A 503 that says `slow_down` is throttling by another name: the lane pauses, and grows slowly from then on."""
    lane = make_lane()
    send_and_answer(lane)
    send_and_fail(lane, busy(body=b'{"error": {"code": "slow_down"}}'))
    assert (lane.opens_at_s(100.0) or 0) >= 101
    assert [what for _, what, _ in lane.progress.history] == ["pause", "learned_rate"]


def test_limits_of_endpoint_and_model_hold_together() -> None:
    """The later of the two decides, and is named."""
    shared = Pacer(requests_per_minute=60, tokens_per_minute=None, now_s=0.0)
    lanes = [make_lane(limits={"shared": shared, "requests_per_minute": rate}) for rate in (600.0, 6.0)]
    for lane in lanes:
        lane.begin(Tries(n=1), 0.0)
        lane.note_waiting(0.0)
    assert [lane.progress.waiting_for for lane in lanes] == ["requests_per_minute"] * 2
    first_s, second_s = (lane.opens_at_s(0.0) or 0.0 for lane in lanes)
    assert first_s == shared.opens_at_s(0.0) > 1
    assert second_s > 9


def test_tokens_are_held_back_and_settled() -> None:
    """A request waits for the tokens that others hold back, and no longer once they are known to be unused."""
    lane = make_lane(limits={"tokens_per_minute": 6000.0})
    assert lane.counts_tokens
    lane.begin(Tries(n=1), 0.0, tokens=2000)
    before_s = lane.opens_at_s(0.0)
    lane.settle(2000, 100, 0.0)
    after_s = lane.opens_at_s(0.0)
    assert before_s is not None
    assert after_s is not None
    assert after_s < 2 < 15 < before_s


def test_headers_teach_the_limit_before_it_is_met() -> None:
    """Nothing left and a reset: the lane pauses without having been refused."""
    lane = make_lane()
    headers = {"x-ratelimit-limit-requests-minute": "10", "x-ratelimit-remaining-requests-minute": "0"}
    lane.note_facts({**headers, "x-ratelimit-reset-requests-minute": "20s"}, 100.0, lambda: NOW)
    assert lane.opens_at_s(100.0) == pytest.approx(120)
    lane.note_waiting(100.0)
    assert lane.progress.waiting_for == "requests_per_minute"


def test_pause_beyond_the_limit_stops_the_lane() -> None:
    """A Retry-After above `max_pause_s` is not waited for: the row stays pending."""
    assert send_and_fail(make_lane(max_pause_s=600), throttled(601)).fate is Fate.PARK_AND_STOP
    assert send_and_fail(make_lane(max_pause_s=600), throttled(600)).fate is Fate.RETRY


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RateLimitedError(ErrorCode.RATE_LIMITED, "x", http_status=429, retry_after_s=601), (1, [(429, 601)])),
        (AuthRefusedError(ErrorCode.QUOTA, "x", http_status=429), (1, [(429, None)])),
        (AuthRefusedError(ErrorCode.QUOTA, "x", http_status=402), (0, [])),
    ],
)
def test_429_that_stops_the_lane_is_counted_and_logged(error: ApiError, expected: tuple[int, list[object]]) -> None:
    """Whoever reads the figures afterwards sees what the server said, also when there was nothing to wait for."""
    told: list[object] = []

    def hear(what: str, **values: Any) -> None:
        if what == "throttled":
            told.append((values["http_status"], values["retry_after_s"]))

    progress = LaneProgress(endpoint="demo", model="m", total=1)
    lane = Lane(progress, RetryOptions(max_pause_s=600), random.Random(1), log=LaneLog(progress, on_event=hear))
    assert send_and_fail(lane, error).fate is Fate.PARK_AND_STOP
    assert (progress.rate_limited, told) == expected


@pytest.mark.parametrize("code", ["auth", "quota", "forbidden", "model_not_found", "tls", "redirect"])
def test_stopping_codes_park_the_row(code: str) -> None:
    """Failures that would meet every row stop the lane, and the row stays pending."""
    assert send_and_fail(make_lane(), AuthRefusedError(code, "no")).fate is Fate.PARK_AND_STOP


def test_stopped_lane_never_opens() -> None:
    """The first reason stands, and nothing leaves any more."""
    lane = make_lane()
    lane.stop("auth", "first", 1.0)
    lane.stop("quota", "second", 2.0)
    assert lane.opens_at_s(3.0) is None
    assert (lane.progress.stopped_by, lane.progress.stop_message, lane.progress.state) == ("auth", "first", "stopped")


def test_outage_at_the_start_probes_one_at_a_time() -> None:
    """After its first failure a lane that never answered lets one request out at a time, after a pause."""
    lane = make_lane(base_s=1)
    assert send_and_fail(lane, REFUSED).fate is Fate.RETRY
    opens_at_s = lane.opens_at_s(100.0)
    assert opens_at_s is not None
    assert 100.5 <= opens_at_s <= 101
    assert lane.progress.state == "probing"
    lane.begin(Tries(n=1), 101.0)
    assert lane.opens_at_s(101.0) is None


def test_outage_at_the_start_stops_the_lane_in_the_end() -> None:
    """Ten failed probes follow the first failure before the lane stops."""
    lane = make_lane()
    fates = [send_and_fail(lane, REFUSED, now_s=100.0 + 10 * n).fate for n in range(MAX_PROBES_UNPROVEN + 1)]
    assert fates == [Fate.RETRY] * MAX_PROBES_UNPROVEN + [Fate.PARK_AND_STOP]
    assert (lane.is_over, lane.n_sent) == (True, MAX_PROBES_UNPROVEN + 1)
    assert lane.find_silence_s(200.0) is None


def test_attempts_during_an_outage_do_not_count() -> None:
    """However often a row is asked while its lane is down, it keeps its attempts, deadlines that may be billed too."""
    lane, tries = make_lane(max_attempts=2, max_timeouts=0), Tries()
    late = TimedOutError(ErrorCode.TIMEOUT_TOTAL, "late")
    fates = {send_and_fail(lane, late, now_s=100.0 + 10 * n, tries=tries).fate for n in range(5)}
    assert fates == {Fate.RETRY}
    assert (tries.n, tries.n_counted, tries.n_timeouts) == (5, 0, 0)


def test_failures_before_an_outage_was_known_are_given_back() -> None:
    """What a row lost while the circuit made up its mind is given back when the row is judged again."""
    lane, tries = make_lane(), Tries()
    send_and_answer(lane, now_s=99.0)
    send_and_fail(lane, busy(), now_s=100.0, tries=tries)
    assert tries.n_counted == 1
    for n in range(80):
        send_and_fail(lane, busy(), now_s=100.1 + n / 10)
    send_and_fail(lane, busy(), now_s=110.0, tries=tries)
    assert (tries.n, tries.n_counted) == (2, 0)


def test_row_that_must_not_be_asked_again_is_held_while_nothing_was_heard() -> None:
    """While nothing was ever heard, it may not be the row's fault; afterwards it is."""
    error = busy(should_retry=False)
    lane = make_lane()
    assert send_and_fail(lane, error).fate is Fate.HOLD
    send_and_answer(lane)
    assert send_and_fail(lane, error).fate is Fate.FAIL


@pytest.mark.parametrize("proof", ["answer", "429"])
def test_any_answer_ends_the_probing(proof: str) -> None:
    """A completion or any refusal of its own shows that the endpoint is there; its faults are the rows' again."""
    lane = make_lane(max_attempts=1)
    send_and_fail(lane, REFUSED)
    send_and_answer(lane, now_s=102.0) if proof == "answer" else send_and_fail(lane, throttled(), now_s=102.0)
    assert lane.progress.state == {"answer": "open", "429": "waiting"}[proof]
    assert send_and_fail(lane, REFUSED, now_s=110.0).fate is Fate.FAIL


def test_first_rows_refused_alike_stop_the_lane() -> None:
    """Twenty first rows with the same refusal: the job is wrong; the rows are errors all the same."""
    lane = make_lane()
    fates = [send_and_fail(lane, BAD).fate for _ in range(MAX_ALIKE_REFUSALS)]
    assert fates == [Fate.FAIL] * (MAX_ALIKE_REFUSALS - 1) + [Fate.FAIL_AND_STOP]


@pytest.mark.parametrize("other", ["answer", "other refusal", "exhausted"])
def test_anything_else_heard_ends_the_count_of_refusals(other: str) -> None:
    """One answer, or one failure of another kind, shows that rows differ."""
    lane = make_lane(max_attempts=1)
    match other:
        case "answer":
            send_and_answer(lane)
        case "other refusal":
            send_and_fail(lane, BAD)
            send_and_fail(lane, BadRequestError(ErrorCode.CONTEXT_LENGTH, "long", http_status=400))
        case _:
            send_and_fail(lane, DamagedReplyError(ErrorCode.BODY_INVALID, "x", http_status=200))
    assert {send_and_fail(lane, BAD).fate for _ in range(50)} == {Fate.FAIL}


def test_waits_are_counted_by_what_was_waited_for() -> None:
    """Each wait ends when a request leaves, when something else holds the lane, or when the lane stops."""
    lane = make_lane()
    send_and_fail(lane, throttled(7))
    lane.note_waiting(100.0)
    assert (lane.progress.state, lane.progress.waiting_for) == ("waiting", "retry_after")
    lane.note_waiting(107.0, reason="budget")
    lane.begin(Tries(n=1), 110.0)
    assert (lane.progress.state, lane.progress.waiting_for, lane.progress.waiting_until_s) == ("open", None, 0.0)
    lane.note_waiting(111.0, reason="budget")
    lane.stop("budget", "spent", 115.0)
    assert lane.progress.waited_s == {"retry_after": 7.0, "budget": 7.0}


def test_decisions_are_told_and_kept() -> None:
    """The listener hears of each decision with its lane and time; the history keeps those about the pace."""
    told: list[tuple[str, dict[str, Any]]] = []
    progress = LaneProgress(endpoint="e", model="m", total=100)
    log = LaneLog(
        progress,
        lane="e/m",
        on_event=lambda what, **values: told.append((what, values)),
        utc_now=lambda: NOW,
        started_s=90,
    )
    lane = Lane(progress, RetryOptions(), random.Random(1), log=log, now_s=90)
    send_and_fail(lane, throttled(7))
    lane.begin(Tries(n=1), 108.0)
    assert [what for what, _ in told] == ["throttled", "gate_shut", "cut", "reopened"]
    assert told[1][1] == {"at": NOW, "lane": "e/m", "retry_after_s": 7.0}
    assert [note[:2] for note in progress.history] == [(10.0, "retry_after"), (10.0, "learned_rate")]


def test_history_is_bounded() -> None:
    """The first and the latest decisions stay; what was between is counted."""
    progress = LaneProgress(endpoint="e", model="m", total=100)
    log = LaneLog(progress)
    for n in range(2000):
        log.note("cut", float(n), n)
    assert len(progress.history) == 512
    assert progress.history[63:66] == [(63.0, "cut", 63), (1552.0, "forgotten", 1489.0), (1553.0, "cut", 1553)]
    assert progress.history[-1] == (1999.0, "cut", 1999)


def test_tokens_that_were_not_used_go_back_to_the_endpoint_as_well() -> None:
    """Under a limit of the endpoint in tokens, what a request held back and did not use lets the next one leave."""
    shared = Pacer(requests_per_minute=None, tokens_per_minute=6000, now_s=0.0)
    lane = make_lane(limits={"shared": shared})
    lane.begin(Tries(n=1), 0.0, tokens=6000)
    waited_until_s = shared.opens_at_s(0.0)
    lane.end()
    lane.settle(6000, 10, 0.0)
    assert shared.opens_at_s(0.0) <= 0.0 < waited_until_s
