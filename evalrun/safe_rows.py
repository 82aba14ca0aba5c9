"""How many rows of each lane are safe: what a run shows as done must survive all that its job asks for.

Lanes and their journal enter; each lane's `acknowledged` follows its `done`, a sync behind it.
"""

from collections import deque
from collections.abc import Sequence

from evalrun.lane_progress import LaneProgress
from evalrun.store.journal import Journal


class SafeRows:
    """Tells each lane how many of its rows were done when the journal held no more than it has synced since.

    Args:
        lanes: Their counts are kept up to date.
        journal: Where their outcomes go.
    """

    def __init__(self, lanes: Sequence[LaneProgress], journal: Journal) -> None:
        self._lanes = lanes
        self._journal = journal
        # Outcomes written at a moment, and the rows of each lane that were done then.
        self._unsynced: deque[tuple[int, list[int]]] = deque()

    def count(self) -> None:
        """Take note of this moment, and count what has become safe since the last."""
        self._unsynced.append((self._journal.written, [lane.done for lane in self._lanes]))
        while self._unsynced and self._unsynced[0][0] <= self._journal.acknowledged:
            for lane, done in zip(self._lanes, self._unsynced.popleft()[1], strict=True):
                lane.acknowledged = done
