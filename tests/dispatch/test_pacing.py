"""Pacing of a lane: known limits, limits that headers tell, waits, and refusals."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.dispatch.pacing import MAX_PAUSE_S, MAX_RESET_S, Pacer
from evalrun.dispatch.rate_facts import RateFacts


class Notes:
    """What a pacer decided, in order: (when, what, value)."""

    def __init__(self) -> None:
        self.all: list[tuple[float, str, float]] = []

    def hear(self, what: str, now_s: float, value: float) -> None:
        """Keep one."""
        self.all.append((now_s, what, value))

    def find(self, what: str) -> list[tuple[float, float]]:
        """Return when something was noted, and its values."""
        return [(at_s, value) for at_s, noted, value in self.all if noted == what]


def make_pacer(
    notes: Notes | None = None,
    *,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
    now_s: float = 0.0,
) -> Pacer:
    """Return a pacer that knows nothing but what is given, and tells the notes what it decides."""
    return Pacer(
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        now_s=now_s,
        on_note=(notes or Notes()).hear,
    )


def send(pacer: Pacer, *, begin_s: float, end_s: float, every_s: float = 0.0, tokens: float = 0) -> list[float]:
    """Let requests leave as fast as the pacer allows, but not faster than asked; return when they left."""
    times: list[float] = []
    now_s = begin_s
    while True:
        now_s = max(now_s, pacer.opens_at_s(now_s))
        if now_s >= end_s:
            return times
        pacer.note_sent(tokens, now_s)
        times.append(now_s)
        now_s += every_s


def refuse(pacer: Pacer, *, now_s: float, retry_after_s: float | None = None, sent_at_s: float | None = None) -> None:
    """Let the latest request come back refused."""
    pacer.note_throttled(retry_after_s, now_s, sent_at_s=sent_at_s)


def test_pacer_that_knows_nothing_holds_nothing_back() -> None:
    """Without a limit, a refusal or a header a request may leave at once."""
    notes = Notes()
    pacer = make_pacer(notes, now_s=50)
    for _ in range(1000):
        pacer.note_sent(10_000, 50)
    assert (pacer.opens_at_s(50) <= 50, pacer.what_waits(50), notes.all) == (True, None, [])


def test_known_requests_are_paced_at_95_percent() -> None:
    """Of 600 per minute 570 leave, evenly."""
    times = send(make_pacer(requests_per_minute=600), begin_s=0, end_s=600)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times[10:])]
    assert len(times) == pytest.approx(5700, abs=4)
    assert min(gaps) == pytest.approx(60 / 570, rel=1e-3)


def test_known_tokens_are_paced_at_95_percent() -> None:
    """Of 90,000 tokens per minute 85,500 are reserved, whatever single requests take."""
    times = send(make_pacer(tokens_per_minute=90_000), begin_s=0, end_s=600, tokens=3000)
    assert len(times) == pytest.approx(285, abs=2)


def test_no_second_sees_more_than_a_seconds_share() -> None:
    """A limit that is enforced by the second is kept too, from the first second on."""
    times = send(make_pacer(requests_per_minute=600), begin_s=0, end_s=60)
    assert max(sum(begin <= at_s < begin + 1 for at_s in times) for begin in range(59)) <= 10


def test_first_request_of_a_small_limit_leaves_at_once() -> None:
    """Of a few requests per minute the first need not be waited for."""
    assert send(make_pacer(requests_per_minute=3), begin_s=0, end_s=59)[0] == 0


def test_reason_that_holds_longest_is_named() -> None:
    """Requests wait for whichever limit opens last."""
    pacer = make_pacer(requests_per_minute=60, tokens_per_minute=6000)
    pacer.note_sent(1000, 0)
    assert pacer.what_waits(0) == "tokens_per_minute"
    pacer.note_settled(1000, 0, 0)
    pacer.note_sent(1, 0)
    assert pacer.what_waits(0) == "requests_per_minute"
    refuse(pacer, now_s=0, retry_after_s=30)
    assert pacer.what_waits(0) == "retry_after"
    assert pacer.what_waits(31) is None


def test_learned_rate_is_named() -> None:
    """Between two requests after a refusal it is the learned rate that holds."""
    pacer = make_pacer()
    send(pacer, begin_s=0, end_s=10, every_s=0.1)
    refuse(pacer, now_s=10)
    pacer.note_sent(0, 11)
    assert pacer.what_waits(11) == "learned_rate"
    assert pacer.opens_at_s(11) == pytest.approx(11 + 60 / 420, rel=0.01)


# Waits


def test_retry_after_is_waited_for_to_the_moment() -> None:
    """Nothing leaves before, one request at it."""
    pacer = make_pacer()
    send(pacer, begin_s=0, end_s=5, every_s=0.1)
    refuse(pacer, now_s=5, retry_after_s=7.25)
    assert pacer.opens_at_s(5) == pacer.opens_at_s(12) == 12.25
    assert send(pacer, begin_s=5, end_s=12.3) == [12.25]


def test_lane_reopens_at_a_pace_and_without_a_burst() -> None:
    """After a wait requests leave singly, at 0.7 of what was let in before."""
    pacer = make_pacer()
    send(pacer, begin_s=0, end_s=20, every_s=0.05)
    refuse(pacer, now_s=20, retry_after_s=30)
    times = send(pacer, begin_s=20, end_s=51)
    assert times[0] == 50
    assert times[1] - times[0] == pytest.approx(1 / (0.7 * 20), rel=0.05)


def test_wait_without_header_doubles_while_nothing_is_let_in() -> None:
    """One second, two, four … up to a minute; one request tells each time whether it was enough."""
    pacer, now_s, pauses_s = make_pacer(), 0.0, []
    send(pacer, begin_s=0, end_s=5, every_s=0.1)
    refuse(pacer, now_s=5)
    for _ in range(8):
        now_s = pacer.opens_at_s(5)
        pacer.note_sent(0, now_s)
        refuse(pacer, now_s=now_s, sent_at_s=now_s)
        pauses_s.append(pacer.opens_at_s(now_s) - now_s)
    assert pauses_s == pytest.approx([1, 2, 4, 8, 16, 32, MAX_PAUSE_S, MAX_PAUSE_S])


def test_wait_is_short_again_once_something_is_let_in() -> None:
    """Old refusals do not lengthen the next wait."""
    pacer = make_pacer()
    now_s = 0.0
    for _ in range(5):
        now_s = pacer.opens_at_s(now_s)
        pacer.note_sent(0, now_s)
        refuse(pacer, now_s=now_s)
    times = send(pacer, begin_s=now_s, end_s=200, every_s=0.5)
    refuse(pacer, now_s=times[-1])
    assert pacer.opens_at_s(times[-1]) == pytest.approx(times[-1] + 1)


def test_retry_after_that_proves_too_short_is_lengthened() -> None:
    """A server that says one second and refuses again is asked less and less often."""
    pacer, now_s = make_pacer(), 0.0
    for _ in range(6):
        now_s = pacer.opens_at_s(now_s)
        pacer.note_sent(0, now_s)
        refuse(pacer, now_s=now_s, retry_after_s=0.5)
    assert pacer.opens_at_s(now_s) >= now_s + 16


@pytest.mark.parametrize("retry_after_s", [0.0, -3.0])
def test_retry_after_of_nothing_is_none(retry_after_s: float) -> None:
    """A wait of no time is no wait; the lane's own is kept."""
    pacer = make_pacer()
    pacer.note_sent(0, 100)
    refuse(pacer, now_s=100, retry_after_s=retry_after_s)
    assert pacer.opens_at_s(100) == 101


def test_shorter_wait_does_not_open_a_longer_one() -> None:
    """A gate is never opened early."""
    pacer = make_pacer()
    pacer.note_sent(0, 0)
    refuse(pacer, now_s=0, retry_after_s=60)
    refuse(pacer, now_s=1, retry_after_s=2)
    pacer.note_asked_to_wait(3, 1)
    assert pacer.opens_at_s(1) == 60


def test_wait_of_an_overloaded_server_teaches_no_rate() -> None:
    """A 503 with Retry-After is waited for; it was not the rate."""
    notes = Notes()
    pacer = make_pacer(notes)
    send(pacer, begin_s=0, end_s=5, every_s=0.1)
    pacer.note_asked_to_wait(9, 5)
    assert (pacer.opens_at_s(5), notes.find("learned_rate")) == (14, [])
    pacer.note_sent(0, 14)
    assert pacer.opens_at_s(14) <= 14


# Refusals


def test_requests_that_were_under_way_cut_no_second_time() -> None:
    """A storm of refusals is one episode: one cut."""
    notes = Notes()
    pacer = make_pacer(notes)
    times = send(pacer, begin_s=0, end_s=10, every_s=0.05)
    for n, sent_at_s in enumerate(times[-40:]):
        refuse(pacer, now_s=10 + n / 100, sent_at_s=sent_at_s)
    for late_s in (13, 14, 15):
        send(pacer, begin_s=late_s - 1, end_s=late_s, every_s=0.2)
        refuse(pacer, now_s=late_s, sent_at_s=9.9)
    assert len(notes.find("learned_rate")) == 1


def test_later_refusal_cuts_again() -> None:
    """A request that left after the cut and is refused lowers the rate once more."""
    notes = Notes()
    pacer = make_pacer(notes)
    send(pacer, begin_s=0, end_s=10, every_s=0.05)
    refuse(pacer, now_s=10)
    send(pacer, begin_s=10, end_s=16)
    refuse(pacer, now_s=16)
    rates = [value for _, value in notes.find("learned_rate")]
    assert rates[0] == pytest.approx(0.7 * 1200, rel=0.1)
    assert rates[1] < rates[0]


def test_refusal_of_everything_does_not_lower_the_rate() -> None:
    """While nothing at all is let in only the waits grow: how much would be, nobody knows."""
    notes = Notes()
    pacer, now_s = make_pacer(notes), 10.0
    send(pacer, begin_s=0, end_s=10, every_s=0.1)
    refuse(pacer, now_s=10)
    for _ in range(6):
        now_s = pacer.opens_at_s(now_s)
        pacer.note_sent(0, now_s)
        refuse(pacer, now_s=now_s)
    assert len(notes.find("learned_rate")) == 1
    first_s, second_s = send(pacer, begin_s=now_s, end_s=pacer.opens_at_s(now_s) + 0.2)
    assert second_s - first_s == pytest.approx(60 / 420, rel=0.1)


def test_slow_down_grows_slowly_from_then_on() -> None:
    """After `slow_down` a minute doubles the rate, where a 429 would have let it grow fivefold."""
    rates = {}
    for is_slow in (True, False):
        pacer = make_pacer()
        send(pacer, begin_s=0, end_s=10, every_s=0.1)
        note = pacer.note_slow_down if is_slow else pacer.note_throttled
        note(None, 10)
        times = send(pacer, begin_s=10, end_s=71.5)
        rates[is_slow] = sum(at_s > 70.5 for at_s in times) * 60 / 420
    assert rates[True] == pytest.approx(2, rel=0.15)
    assert rates[False] > 10


# Headers


def test_limit_that_headers_tell_is_paced() -> None:
    """What the job does not say is learned from the first reply, and followed when it changes."""
    notes = Notes()
    pacer = make_pacer(notes)
    pacer.note_facts(RateFacts(requests_per_minute=600, tokens_per_minute=90_000), 0)
    assert (pacer.requests_per_minute, pacer.tokens_per_minute) == (600, 90_000)
    assert len(send(pacer, begin_s=0, end_s=60)) == pytest.approx(570, abs=4)
    pacer.note_facts(RateFacts(requests_per_minute=60), 60)
    assert len(send(pacer, begin_s=60, end_s=120)) == pytest.approx(57, abs=4)
    assert [value for _, value in notes.find("requests_per_minute")] == [600, 60]


def test_limit_of_the_job_stands() -> None:
    """Headers do not change what the user wrote, higher or lower."""
    pacer = make_pacer(requests_per_minute=60)
    pacer.note_facts(RateFacts(requests_per_minute=6000, tokens_per_minute=500), 0)
    assert (pacer.requests_per_minute, pacer.tokens_per_minute) == (60, 500)


@pytest.mark.parametrize("limit", [None, 600.0])
def test_nothing_left_is_waited_for_until_the_reset(limit: float | None) -> None:
    """A lane with nothing left pauses before it is refused."""
    pacer = make_pacer()
    pacer.note_facts(RateFacts(requests_per_minute=limit, remaining_requests=0, reset_requests_s=7), 100)
    assert (pacer.opens_at_s(100), pacer.what_waits(100)) == (107, "requests_per_minute")
    pacer.note_facts(RateFacts(remaining_tokens=0, reset_tokens_s=20), 100)
    assert (pacer.opens_at_s(100), pacer.what_waits(100)) == (120, "tokens_per_minute")


def test_reset_of_a_limit_that_refills_steadily_is_not_waited_for() -> None:
    """A minute's limit that is whole again in a minute lets a request pass long before; pacing is enough."""
    pacer = make_pacer()
    pacer.note_facts(RateFacts(requests_per_minute=600, remaining_requests=0, reset_requests_s=59.9), 0)
    assert len(send(pacer, begin_s=0, end_s=10)) == pytest.approx(95, abs=2)


def test_reset_of_a_day_is_left_to_the_server() -> None:
    """A reset beyond ten minutes is a longer window's; a refusal will say how long to wait."""
    pacer = make_pacer()
    pacer.note_facts(RateFacts(remaining_requests=0, reset_requests_s=MAX_RESET_S + 1), 0)
    assert pacer.opens_at_s(0) <= 0


def test_what_others_used_is_not_saved_up() -> None:
    """When the server has one left, no burst leaves."""
    pacer = make_pacer(requests_per_minute=6000, now_s=0)
    pacer.note_facts(RateFacts(remaining_requests=1, reset_requests_s=1), 10)
    assert len(send(pacer, begin_s=10, end_s=10.001)) <= 2


# Tokens


def test_unused_tokens_go_to_the_next_request() -> None:
    """Requests that use half of what they reserve leave twice as often."""
    pacer = make_pacer(tokens_per_minute=60_000)
    now_s, n = 0.0, 0
    while (now_s := max(now_s, pacer.opens_at_s(now_s))) < 600:
        pacer.note_sent(2000, now_s)
        pacer.note_settled(2000, 1000, now_s)
        n += 1
    assert n == pytest.approx(570, abs=4)


def test_unknown_use_keeps_the_reservation() -> None:
    """A request whose use is not told is taken to have used what it reserved."""
    pacer = make_pacer(tokens_per_minute=60_000)
    pacer.note_sent(9500, 0)
    pacer.note_settled(9500, None, 0)
    assert pacer.opens_at_s(0) == pytest.approx(10, abs=0.5)


def test_more_than_was_reserved_is_owed() -> None:
    """A reply that is longer than was thought makes the next one wait."""
    pacer = make_pacer(tokens_per_minute=60_000)
    pacer.note_sent(950, 0)
    pacer.note_settled(950, 9500, 1)
    assert pacer.opens_at_s(1) == pytest.approx(9.8, abs=0.5)


def refuse_for_tokens(pacer: Pacer, *, now_s: float) -> None:
    """Let a lane reserve far more than its limit, use little of it, and be refused."""
    for n in range(40):
        at_s = max(now_s + n / 10, pacer.opens_at_s(now_s + n / 10))
        pacer.note_sent(2000, at_s)
        pacer.note_settled(2000, 100, at_s)
    refuse(pacer, now_s=now_s + 4)


def test_tokens_count_as_asked_after_two_refusals() -> None:
    """One refusal may have any reason; two mean that the server counts what is asked for."""
    notes = Notes()
    pacer = make_pacer(notes, tokens_per_minute=60_000)
    refuse_for_tokens(pacer, now_s=0)
    assert notes.find("counts_as_asked") == []
    refuse_for_tokens(pacer, now_s=10)
    assert len(notes.find("counts_as_asked")) == 1
    pacer.note_sent(9500, 20)
    pacer.note_settled(9500, 10, 20)
    assert pacer.opens_at_s(20) > 28


def test_belief_about_tokens_is_tried_again() -> None:
    """After a while unused tokens are given back again; one refusal is enough to believe it anew, for longer."""
    notes = Notes()
    pacer = make_pacer(notes, tokens_per_minute=60_000)
    for begin_s in (0, 10, 400):
        refuse_for_tokens(pacer, now_s=begin_s)
    times = [at_s for at_s, _ in notes.find("counts_as_asked")]
    assert times == pytest.approx([14, 404], abs=0.1)
    pacer.note_sent(9500, 900)
    pacer.note_settled(9500, 10, 900)
    assert pacer.opens_at_s(900) > 908


def test_refusal_within_the_tokens_asked_for_is_no_proof() -> None:
    """A lane that stays below the limit by either count is refused for something else."""
    notes = Notes()
    pacer = make_pacer(notes, tokens_per_minute=60_000)
    for now_s in (0, 20, 40):
        pacer.note_sent(100, now_s)
        refuse(pacer, now_s=now_s)
    assert notes.find("counts_as_asked") == []


# Notes


def test_notes_tell_what_was_decided() -> None:
    """Waits, limits and cuts, with their time."""
    notes = Notes()
    pacer = make_pacer(notes, now_s=1000)
    send(pacer, begin_s=1000, end_s=1010, every_s=0.1)
    pacer.note_facts(RateFacts(tokens_per_minute=90_000, remaining_requests=0, reset_requests_s=2), 1001)
    refuse(pacer, now_s=1010, retry_after_s=5)
    assert [(at_s, what) for at_s, what, _ in notes.all] == [
        (1001, "tokens_per_minute"),
        (1001, "reset"),
        (1010, "retry_after"),
        (1010, "learned_rate"),
    ]


def test_refusals_of_one_moment_are_one_note() -> None:
    """A storm of refusals does not fill a lane's history."""
    notes = Notes()
    pacer = make_pacer(notes)
    times = send(pacer, begin_s=0, end_s=1, every_s=0.01)
    for sent_at_s in times:
        refuse(pacer, now_s=1 + sent_at_s / 10, sent_at_s=sent_at_s)
    assert len(notes.all) <= 3


@given(
    known=st.sampled_from([None, 1.0, 600.0]),
    events=st.lists(
        st.tuples(st.sampled_from("srtafwd"), st.floats(0, 50), st.floats(0, 5000), st.floats(0, 3)), max_size=120
    ),
)
def test_pacer_never_opens_early_nor_for_ever(
    known: float | None, events: list[tuple[str, float, float, float]]
) -> None:
    """Whatever comes, no wait that was asked for is cut short, and the lane opens again in bounded time."""
    pacer = make_pacer(requests_per_minute=known, tokens_per_minute=None if known is None else 6000)
    now_s = until_s = 0.0
    for what, wait_s, amount, ago_s in events:
        now_s += wait_s
        match what:
            case "s" if pacer.opens_at_s(now_s) <= now_s:
                pacer.note_sent(amount, now_s)
            case "r":
                pacer.note_settled(amount, amount / 2, now_s)
            case "t" | "d":
                note = pacer.note_throttled if what == "t" else pacer.note_slow_down
                note(wait_s, now_s, sent_at_s=now_s - ago_s)
                until_s = max(until_s, now_s + wait_s)
            case "a":
                pacer.note_throttled(None, now_s)
            case "f":
                pacer.note_facts(RateFacts(remaining_requests=amount, tokens_per_minute=1 + amount), now_s)
            case "w":
                pacer.note_asked_to_wait(wait_s, now_s)
                until_s = max(until_s, now_s + wait_s)
            case _:
                pass  # The lane is not open.
        opens_at_s = pacer.opens_at_s(now_s)
        assert opens_at_s >= until_s or opens_at_s == pytest.approx(until_s) or until_s <= now_s
        assert opens_at_s < now_s + 1e7
        assert (pacer.what_waits(now_s) is None) == (opens_at_s <= now_s)
