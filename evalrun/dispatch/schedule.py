"""The lanes of one endpoint and their rows: which row leaves next, and when.

Time enters; a row leaves with what is held back for it, or the seconds until there may be one. Waiting rows hold no
slot and go ahead of new ones. Invariants: a row that was taken and finds no room in the budget is the first to leave
when there is some; the rows that wait are bounded, however many fail.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from evalrun.dispatch.lane_queue import LaneQueue
from evalrun.dispatch.lanes import Lane
from evalrun.dispatch.outcomes import Row, Sending
from evalrun.dispatch.till import Hold, Till
from evalrun.lane_progress import LaneProgress
from evalrun.records import Attempt, Request

MAX_WAITING_PER_SLOT: Final = 4
"""Rows of a lane that wait for their next attempt, for each of its slots, before it takes no new one. More would be no
use: a retry goes ahead of a new row anyway. Fewer would leave slots empty while rows back off."""
MAX_WAITING_IN_DOUBT: Final = 64
"""So many more may wait while an outage is on or suspected, since new rows tell more then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneWork:
    """What is to be sent on one lane."""

    endpoint: str
    wire_model: str
    requests: Iterator[Request]
    progress: LaneProgress
    requests_per_minute: float | None = None
    """The model's own limit, beside its endpoint's; None = unknown."""
    tokens_per_minute: float | None = None
    """The same for tokens, prompt and output."""

    @property
    def name(self) -> str:
        """What the lane is called in events."""
        return f"{self.endpoint}/{self.wire_model}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldRow:
    """A row whose attempts are used up, on a lane that has never answered."""

    sending: Sending
    attempt: Attempt
    finished_at: datetime


@dataclass(slots=True, kw_only=True)
class Track:
    """One lane with its rows."""

    work: LaneWork
    lane: Lane
    queue: LaneQueue[Row]
    held: list[HeldRow] = field(default_factory=list)
    ended_s: float = 0.0
    """When its latest outcome was recorded."""


class Schedule:
    """What the workers of one endpoint take their rows from.

    Args:
        tracks: Its lanes.
        till: What the dispatch may spend.
        end: Called with a lane that is to stop since the budget is spent, and why.
        concurrency: The endpoint's.
    """

    def __init__(
        self, tracks: Sequence[Track], till: Till, end: Callable[[Track, str], None], *, concurrency: int
    ) -> None:
        self.tracks = tracks
        self._till = till
        self._end = end
        self._most_waiting = MAX_WAITING_PER_SLOT * concurrency
        self._turn = 0

    def take(self, now_s: float) -> tuple[Track, Row, Hold] | None:
        """Take a row of the lane with the fewest in flight, so that a slow model never starves a fast one."""
        if self._till.is_short:
            return None
        for track in self.tracks if len(self.tracks) == 1 else self._order():
            opens_at_s = track.lane.opens_at_s(now_s)
            if opens_at_s is not None and opens_at_s <= now_s:
                row = self._take_from(track, now_s)
                if row is not None:
                    hold = self._hold(track, row, now_s)
                    return None if hold is None else (track, row, hold)
            elif len(self.tracks) > 1 and track.work.progress.waiting_for is None and not track.queue.is_empty:
                track.lane.note_waiting(now_s)  # The others may leave no worker idle who would notice.
        return None

    def _order(self) -> Sequence[Track]:
        """Return the lanes, those with the fewest in flight first, and equal ones in turn."""
        n = len(self.tracks)
        self._turn += 1
        in_turn = [self.tracks[(self._turn + offset) % n] for offset in range(n)]
        return sorted(in_turn, key=lambda track: track.work.progress.in_flight)

    def _take_from(self, track: Track, now_s: float) -> Row | None:
        """Take a waiting row before a new one; unless new ones tell more, or retries have to wait for their budget."""
        lane, queue = track.lane, track.queue
        waiting = queue.peek()
        is_due = waiting is not None and max(waiting[0], _retry_opens_at_s(lane, waiting[1], now_s)) <= now_s
        if is_due and not lane.prefers_new_rows:
            return queue.take_due(now_s)
        request = queue.take_new() if waiting is None or self._may_take_new(track) else None
        if request is not None:
            return Row.take(request, now_s)
        return queue.take_due(now_s) if is_due else None

    def _may_take_new(self, track: Track) -> bool:
        """Tell whether the rows that wait leave room for new ones: a lane whose requests fail does not eat the plan."""
        n_spare = self._most_waiting - track.queue.n_waiting
        return n_spare > 0 or (n_spare > -MAX_WAITING_IN_DOUBT and track.lane.prefers_new_rows)

    def _hold(self, track: Track, row: Row, now_s: float) -> Hold | None:
        """Hold back what a row may take; without room for it, it goes back to the head of its queue."""
        till, lane = self._till, track.lane
        hold = till.hold(row.request, lane.guess, counts_tokens=lane.counts_tokens, now_s=now_s)
        if hold is None:
            track.queue.push(row, -math.inf)
            if till.ended_by is not None:
                self._end(track, till.ended_by)
        return hold

    def end_all(self, reason: str) -> None:
        """End every lane that has something left to send."""
        for track in self.tracks:
            if not track.lane.is_stopped and _has_rest(track):
                self._end(track, reason)

    def is_used_up(self) -> bool:
        """Tell whether nothing is left to send, as far as is known before what is in flight has come back."""
        return all(track.lane.is_stopped or track.queue.is_empty for track in self.tracks)

    def find_due_s(self, now_s: float) -> float:
        """Return when something may leave, or the run's time is over; infinity while only what comes back can tell.

        Nothing could be taken just now, or a row just was: each lane that has more to send is told that it waits.
        """
        till = self._till
        till.note_time(now_s)
        due_s = math.inf if till.deadline_s is None else till.deadline_s
        is_used_up = True
        for track in self.tracks:
            if not (track.lane.is_stopped or track.queue.is_empty):
                is_used_up = False
                due_s = min(due_s, self._find_due_s(track, now_s))
        return now_s if is_used_up else due_s

    def _find_due_s(self, track: Track, now_s: float) -> float:
        """Return when a row of a lane that has some may leave; infinity until something changes."""
        lane, queue = track.lane, track.queue
        if self._till.is_short:
            lane.note_waiting(now_s, reason="budget")
            return math.inf
        is_full = queue.may_have_new and not self._may_take_new(track)
        waiting = queue.peek() if is_full or not queue.may_have_new else None
        row_s = now_s if waiting is None else max(now_s, waiting[0])
        opens_at_s = lane.opens_at_s(now_s)
        if opens_at_s is None or opens_at_s > row_s:
            lane.note_waiting(now_s)
            return math.inf if opens_at_s is None else opens_at_s
        if waiting is None:
            return row_s
        retry_s = _retry_opens_at_s(lane, waiting[1], now_s)
        if retry_s > row_s:
            lane.note_waiting(now_s, reason="retry_budget", until_s=retry_s)
        elif row_s > now_s and (is_full or lane.progress.in_flight == 0):
            lane.note_waiting(now_s, reason="back_off", until_s=row_s)
        return max(row_s, retry_s)


def _retry_opens_at_s(lane: Lane, row: Row, now_s: float) -> float:
    """Return when a row that waits may leave, as far as the retry budget says: it is none of a first attempt's."""
    return lane.retries_open_at_s(now_s) if row.tries.n else now_s


def _has_rest(track: Track) -> bool:
    """Tell whether something is left to send. A request that is taken to know it is never sent, and stays pending."""
    return track.queue.peek() is not None or track.queue.take_new() is not None
