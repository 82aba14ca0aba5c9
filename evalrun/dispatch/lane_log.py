"""What a lane decides about its pace, told twice: bounded into its progress, and to whoever listens.

Decisions enter with their time. The progress keeps the first and the latest of them for run.json; a listener hears of
each one as an event.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from evalrun.lane_progress import LaneProgress

OnEvent = Callable[..., None]
"""Takes what happened; by name `at` (UTC), `lane` (`endpoint/model`; None for the whole run), and its values."""

_KEPT_FIRST: Final = 64
_KEPT: Final = 512
_EVENTS: Final = {
    "requests_per_minute": ("limit_learned", "requests_per_minute"),
    "tokens_per_minute": ("limit_learned", "tokens_per_minute"),
    "learned_rate": ("cut", "requests_per_minute"),
    "retry_after": ("gate_shut", "retry_after_s"),
    "pause": ("gate_shut", "pause_s"),
    "reset": ("gate_shut", "reset_s"),
}
"""How the notes of a pacer are called as events, and their value."""


def ignore_event(what: str, **values: Any) -> None:
    """Listen to nothing."""
    del what, values


class LaneLog:
    """The decisions of one lane.

    Args:
        progress: Keeps them.
        lane: Its name, `endpoint/model`.
        on_event: Hears of them.
        utc_now: The wall clock.
        started_s: Monotonic time from which the history counts.
    """

    def __init__(
        self,
        progress: LaneProgress,
        *,
        lane: str = "",
        on_event: OnEvent = ignore_event,
        utc_now: Callable[[], datetime] = lambda: datetime.now(UTC),
        started_s: float = 0.0,
    ) -> None:
        self._history = progress.history
        self._lane = lane
        self._on_event = on_event
        self._utc_now = utc_now
        self._started_s = started_s
        self._n_forgotten = 0

    def tell(self, what: str, **values: Any) -> None:
        """Tell the listener only: what happens often, or says nothing about the pace."""
        self._on_event(what, at=self._utc_now(), lane=self._lane, **values)

    def note(self, what: str, now_s: float, value: float | None = None) -> None:
        """Keep a decision and tell the listener."""
        self._keep((round(now_s - self._started_s, 3), what, None if value is None else round(value, 3)))
        event, name = _EVENTS.get(what, (what, "value"))
        self.tell(event, **({} if value is None else {name: value}))

    def _keep(self, note: tuple[float, str, float | None]) -> None:
        if len(self._history) >= _KEPT:
            self._n_forgotten += 1 if self._n_forgotten else 2  # The first count takes the place of a note.
            del self._history[_KEPT_FIRST]
            forgotten_s = self._history[_KEPT_FIRST][0]
            self._history[_KEPT_FIRST] = (forgotten_s, "forgotten", float(self._n_forgotten))
        self._history.append(note)
