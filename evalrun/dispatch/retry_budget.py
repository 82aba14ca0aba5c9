"""How many retries a lane may send: a fifth of its traffic, and a trickle always.

Requests and retries enter with their time; out comes when the next retry may leave. Pure state over `now`: no I/O, no
clock of its own. Invariants: the budget never fails a row, it makes retries wait, and never for longer than a second;
what is kept is a fixed number of counters.
"""

import math
from typing import Final

RETRY_RATIO: Final = 0.2
"""Share of the requests of the window that may be retries."""
WINDOW_S: Final = 60
"""Length of the window, counted in whole seconds, the present one included."""

_SLACK: Final = 1e-9
"""Of a retry: sums of floats do not come out even, and who waited until the time told must be let through."""


class RetryBudget:
    """When the next retry of a lane may leave.

    Args:
        concurrency: Retries per second that are always allowed: however bad the lane, each of its slots may ask again
            once a second.
    """

    def __init__(self, concurrency: int) -> None:
        self._per_s = max(1, concurrency)
        self._spare = float(self._per_s)
        self._filled_at_s = -math.inf
        self._second = 0
        self._n_requests = [0] * WINDOW_S
        self._n_retries = [0] * WINDOW_S
        self._n_requests_in_window = 0
        self._n_retries_in_window = 0

    def opens_at_s(self, now_s: float) -> float:
        """Return the time from which one more retry may leave; `now_s` for at once. First attempts need not ask."""
        self._move_to(now_s)
        has_share = self._n_retries_in_window + 1 <= RETRY_RATIO * self._n_requests_in_window
        if has_share or self._spare >= 1 - _SLACK:
            return now_s
        return now_s + (1 - self._spare) / self._per_s

    def note_request(self, now_s: float) -> None:
        """Count a request that leaves, whichever attempt of its row it is."""
        if not self._second <= now_s < self._second + 1:
            self._move_to(now_s)
        self._n_requests[self._second % WINDOW_S] += 1
        self._n_requests_in_window += 1

    def note_retry(self, now_s: float) -> None:
        """Count that the request just noted was a retry."""
        self._move_to(now_s)
        self._n_retries[self._second % WINDOW_S] += 1
        self._n_retries_in_window += 1
        # Retries that the share paid for use up the trickle too, but leave no debt: it goes on at its rate at once.
        self._spare = max(0.0, self._spare - 1)

    def _move_to(self, now_s: float) -> None:
        """Let the trickle refill and the seconds that have left the window go."""
        if now_s <= self._filled_at_s:
            return
        if self._filled_at_s > -math.inf:
            self._spare = min(float(self._per_s), self._spare + (now_s - self._filled_at_s) * self._per_s)
        self._filled_at_s = now_s
        second = math.floor(now_s)
        for gone in range(max(self._second + 1, second - WINDOW_S + 1), second + 1):
            slot = gone % WINDOW_S
            self._n_requests_in_window -= self._n_requests[slot]
            self._n_retries_in_window -= self._n_retries[slot]
            self._n_requests[slot] = self._n_retries[slot] = 0
        self._second = max(self._second, second)
