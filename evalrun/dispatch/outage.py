"""The outage circuit of one lane: it opens when everything fails, tries again with single requests, closes by itself.

Requests enter with the time at which they leave and come back; out comes when the next one may leave, and whether a
failure was the whole lane's. Pure state over `now`: no I/O, no clock of its own. Invariants: while the circuit is open
at most one request that left since is out; a server that fails requests at random opens it with a chance of about one
in a million per request.

Why it decides as it does. A server that fails a share p of its requests at random fails k of them in a row with the
chance p^k. When that falls below one in a million, "everything fails" is the better explanation. The share is the
lane's own, learned from what came before the run in question and taken at the upper end of its uncertainty. Because a
lane that was clean until now may become a flapping one, p is never taken for less than a half as long as failures come
quickly: 20 failures are needed, which a dead server hands out in no time. When they come slowly (deadlines of ten
seconds and more) a needless pause of a second costs little and each further failure costs much: then six in a row are
enough. Before it opens, a lane is braked: one request a second leaves until one is answered or the failures are enough.
"""

import math
import random
from collections import deque
from collections.abc import Iterator
from typing import Final

from evalrun.dispatch.failure_runs import FailureRuns, Run
from evalrun.dispatch.failure_shares import FailureShares, find_kind
from evalrun.dispatch.retry import make_backoff_bound

MAX_PROBES_UNPROVEN: Final = 10
"""Failed probes that stop a lane which has never answered: most likely its address is wrong."""

FIRST_PROBE_GAP_S: Final = 5.0
"""Longest pause between two probes while the outage is young: most are over within a minute."""
LAST_PROBE_GAP_S: Final = 30.0
"""Longest pause between two probes of an old outage."""
PROBE_GAP_SHARE: Final = 0.1
"""Between the two, the pause is this share of the outage so far: so much longer than needed it lasts at most."""

_ENOUGH: Final = -math.log(1e-6)
"""Surprise, in nats, at which a run of failures is taken for an outage. A false alarm costs a pause of a second; with
10,000 rows on a toy server that fails 40 to 60 % of its requests there was none in 252 runs."""
_DOUBT_SHARE: Final = 0.1
"""Share of that from which on new rows are wanted rather than retries, which say less: two quick failures in a row."""

_SLOW_S: Final = 10.0
"""First attempts that took so long to fail are slow, from the first one's start to the last one's end."""

_N_SPANS: Final = 64
"""Past outages that are kept: no row waits through more of them."""
_N_RECOVERED: Final = 20
"""Answers since the last outage after which the next one begins anew with short pauses."""
_MOST_DOUBLINGS: Final = 20
"""Of the limit after an outage: no lane has a million requests in flight."""


class Outage:
    """When a lane is down, and when it may be tried again.

    Every attempt is noted when it leaves, and again when it comes back: `note_failure` for codes that say nothing about
    the request (connect, dns, reset, timeouts, server_error, overloaded), `note_answer` for anything else heard, a
    refusal included.

    Args:
        base_s: First pause at most; it doubles with each failed probe.
        max_s: Longest pause, when shorter than this module's own.
        max_pause_s: Without an answer for so long, the lane is given up.
        rng: Source of the jitter of pauses.
    """

    def __init__(self, base_s: float, max_s: float, max_pause_s: float, rng: random.Random) -> None:
        self._base_s = base_s
        self._max_s = max_s
        self._max_pause_s = max_pause_s
        self._rng = rng
        self._step_s = min(base_s, FIRST_PROBE_GAP_S)
        """Between requests of a braked lane; until the limit after an outage doubles; least age of an outage."""

        self._is_proven = False
        self._last_sent_s = -math.inf
        self._kind_by_sent: dict[float, int] = {}
        self._runs = FailureRuns()
        self._shares = FailureShares()
        self._surprise = 0.0
        """Of the most surprising run since the newest answered request was sent."""
        self._latest_surprise = 0.0
        """Of the run that the latest failure belongs to."""
        self._is_braked = False
        self._braked_until_s = -math.inf

        self.since_s: float | None = None
        """When the first failure of the present outage was known; None when there is none."""
        self._run_sent_at_s = 0.0
        self._tripped_s = 0.0
        self._probe_at_s = 0.0
        self._probe_sent_s: float | None = None
        self._n_probes = 0
        """Probes of the latest outage that failed."""
        self._n_pauses = 0
        self._is_over = False
        self._past: deque[tuple[float, float]] = deque(maxlen=_N_SPANS)

        self._reopened_s = math.inf
        self._n_answered_since = 0
        self._n_out_since = 0
        self._calm_since_s = math.inf

    @property
    def is_open(self) -> bool:
        """True while the lane is taken to be down: only single probes leave."""
        return self.since_s is not None

    @property
    def is_over(self) -> bool:
        """True once the lane is to be given up; it never comes back."""
        return self._is_over

    @property
    def prefers_new_rows(self) -> bool:
        """True while an outage is on or suspected: a row never asked before tells more than one that failed."""
        return self.is_open or self._latest_surprise >= _DOUBT_SHARE * _ENOUGH

    def spans(self) -> Iterator[tuple[float, float | None]]:
        """Yield the latest outages, newest first: from the first failure to the first answer, None when it lasts."""
        if self.since_s is not None:
            yield self.since_s, None
        yield from reversed(self._past)

    def opens_at_s(self, now_s: float, in_flight: int) -> float | None:
        """Return the time from which a request may leave: `now_s` for at once, None until something comes back.

        Args:
            now_s: Monotonic time.
            in_flight: Requests of the lane that are out.
        """
        if self.since_s is None and not self._is_braked and self._reopened_s == math.inf:
            return now_s  # A lane that never failed much pays for no more than this.
        if self._is_over:
            return None
        if self.is_open:
            return None if self._probe_sent_s is not None and in_flight > 0 else max(now_s, self._probe_at_s)
        if self._is_braked:
            now_s = max(now_s, self._braked_until_s)
        return max(now_s, self._find_room_s(in_flight))

    def find_limit(self, now_s: float) -> int | None:
        """Return how many requests may be in flight: 1 during an outage, more and more after it, None before any.

        After an outage each answer adds one, which doubles the limit with each round of answers, and each second
        without a failure doubles it too, lest a lane of slow answers takes minutes to get going again.
        """
        if self.is_open:
            return 1
        if self._reopened_s == math.inf:
            return None
        n_doublings = int((now_s - self._calm_since_s) / self._step_s)
        return (1 + self._n_answered_since) << max(0, min(n_doublings, _MOST_DOUBLINGS))

    def has_caused(self, sent_at_s: float, failed_at_s: float) -> bool:
        """Return whether a failure was the whole lane's, which is often known only after more of them.

        To be asked, before a row's attempts are counted against its limit, about each of its failures that was not the
        lane's at the time; what was caused is given back to the row.

        Args:
            sent_at_s: What `note_sent` returned for the attempt.
            failed_at_s: When its failure was noted.
        """
        return any(
            failed_at_s >= since_s and (until_s is None or sent_at_s < until_s) for since_s, until_s in self.spans()
        )

    def note_sent(self, now_s: float, *, attempt: int = 1) -> float:
        """Note a request that leaves.

        Args:
            now_s: Monotonic time.
            attempt: Of its row, 1-based, those not counted that an outage caused.

        Returns:
            The time by which the request is known from here on: `now_s`, or a trace later if another left just then.
        """
        sent_at_s = now_s if now_s > self._last_sent_s else math.nextafter(self._last_sent_s, math.inf)
        self._last_sent_s = sent_at_s
        if attempt > 1:
            self._kind_by_sent[sent_at_s] = find_kind(attempt)
        if sent_at_s >= self._reopened_s:
            self._n_out_since += 1
        if self.since_s is not None:
            self._probe_sent_s = sent_at_s
            return sent_at_s
        self._runs.note_sent(sent_at_s)
        if self._is_braked:
            self._brake_from(now_s)
        return sent_at_s

    def note_answer(self, sent_at_s: float, now_s: float) -> None:
        """Note that something was heard; an outage ends, unless the request left before it began.

        A server that takes no new requests may still end those that it has. So only the answer to a request sent after
        the run of failures shows that new ones are let in.

        Args:
            sent_at_s: What `note_sent` returned for the request.
            now_s: Monotonic time.
        """
        kind = self._forget(sent_at_s)
        settled = self._runs.note_answered(sent_at_s)
        if settled is not None:
            self._surprise = self._latest_surprise = 0.0
            if not self.is_open:  # What an outage failed says nothing about the lane when it is up.
                self._shares.note_failed(settled.n_by_kind)
        self._shares.note_answered(kind)
        if self._is_braked or self._surprise or self._runs.n_first:
            self._brake()
        if self.since_s is not None and (not self._is_proven or sent_at_s > self._run_sent_at_s):
            self._close(now_s)
        elif sent_at_s >= self._reopened_s:
            self._n_answered_since += 1
        self._is_proven = True

    def note_failure(self, sent_at_s: float, now_s: float) -> bool:
        """Note a failure that says nothing about its request, and return whether it was the whole lane's.

        Args:
            sent_at_s: What `note_sent` returned for the request.
            now_s: Monotonic time.

        Returns:
            True when the request was in flight while the circuit was open, or opened it: it does not count against its
            row. A False may have to be taken back: see `has_caused`.
        """
        kind = self._forget(sent_at_s)
        if self.is_open or self.has_caused(sent_at_s, now_s):
            self._runs.take_back(sent_at_s)
            if self._probe_sent_s is not None and sent_at_s >= self._probe_sent_s:
                self._note_failed_probe(now_s)
            return True
        self._calm_since_s = now_s
        failure = Run.of_one(sent_at_s, now_s, kind=kind)
        run = self._runs.note_failed(failure)
        if run is None:
            self._shares.note_failed(failure.n_by_kind)
            return False
        return self._judge(run, now_s)

    def _judge(self, run: Run, now_s: float) -> bool:
        """Open the circuit, or slow down, when a run of failures calls for it; return whether it is open."""
        surprise = self._shares.measure_run(run.n_by_kind, is_slow=run.first_span_s >= _SLOW_S)
        # A blip is no outage: before the circuit opens, a last request goes out when the first failure is a second old.
        is_enough = surprise >= _ENOUGH and now_s - run.sent_at_s >= self._step_s
        if is_enough or not self._is_proven:
            self._trip(run, now_s)
            return True
        self._latest_surprise = surprise
        self._surprise = max(self._surprise, surprise)
        self._brake()
        return False

    def _find_room_s(self, in_flight: int) -> float:
        """Return when the limit after an outage lets one more out."""
        if self._reopened_s == math.inf:
            return -math.inf
        # What left before the circuit closed may hang for minutes yet; it is no sign of what the server bears now.
        n_wanted = min(in_flight, self._n_out_since) + 1
        n_doublings = max(0, math.ceil(math.log2(n_wanted / (1 + self._n_answered_since)))) if n_wanted > 1 else 0
        return self._calm_since_s + n_doublings * self._step_s

    def _forget(self, sent_at_s: float) -> int:
        """Count a request as back; return its kind."""
        kind = self._kind_by_sent.pop(sent_at_s, 0) if self._kind_by_sent else 0
        if sent_at_s >= self._reopened_s:
            self._n_out_since -= 1
        return kind

    def _brake(self) -> None:
        """Slow down when a run is an outage but for its age, or when too many have failed since the last answer.

        The latter counts what is still out as good, and says something even where failures of very different durations
        leave no long run.
        """
        n_failed, surprise = self._runs.n_first, self._surprise
        if n_failed:
            surprise = max(surprise, self._shares.measure_part(n_failed, n_failed + self._runs.n_out))
        was_braked, self._is_braked = self._is_braked, surprise >= _ENOUGH
        if self._is_braked and not was_braked:
            self._brake_from(self._last_sent_s)

    def _brake_from(self, sent_s: float) -> None:
        """Let the next request out about a step later: one that flaps in step with them would never be met while up."""
        self._braked_until_s = sent_s + self._step_s * (0.75 + self._rng.random() / 2)

    def _trip(self, run: Run, now_s: float) -> None:
        self._surprise = self._latest_surprise = 0.0
        self.since_s = run.failed_at_s
        self._run_sent_at_s = run.sent_at_s
        self._tripped_s = now_s
        self._n_probes = 0
        # An answer now and then is no recovery: the pauses go on where they were.
        self._n_pauses = 0 if self._n_answered_since >= _N_RECOVERED else self._n_pauses
        self._pause(now_s)

    def _note_failed_probe(self, now_s: float) -> None:
        self._probe_sent_s = None
        self._n_probes += 1
        is_hopeless = not self._is_proven and self._n_probes >= MAX_PROBES_UNPROVEN
        if is_hopeless or now_s >= self._tripped_s + self._max_pause_s:
            self._is_over = True
        else:
            self._pause(now_s)

    def _pause(self, now_s: float) -> None:
        self._n_pauses += 1
        age_s = now_s - self._tripped_s
        longest_s = min(self._max_s, LAST_PROBE_GAP_S, max(FIRST_PROBE_GAP_S, PROBE_GAP_SHARE * age_s))
        bound_s = make_backoff_bound(self._n_pauses, base_s=self._base_s, max_s=longest_s)
        # The last probe leaves when the time is up, not before: the lane had all of it to come back.
        self._probe_at_s = min(now_s + self._rng.uniform(bound_s / 2, bound_s), self._tripped_s + self._max_pause_s)

    def _close(self, now_s: float) -> None:
        assert self.since_s is not None  # Only an open circuit is closed.
        # Later than whatever left before, even on a clock that stands still.
        self._reopened_s = self._calm_since_s = max(now_s, math.nextafter(self._last_sent_s, math.inf))
        self._past.append((self.since_s, self._reopened_s))
        self.since_s = self._probe_sent_s = None
        self._n_answered_since = self._n_out_since = 0
