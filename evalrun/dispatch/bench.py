"""Where workers without work sit: one watches the clock for all of them, so that hundreds need not wake to send one.

Times and calls enter, workers leave one at a time. Invariant: while anybody sits, somebody watches, or has been called
and is about to look for work.
"""

import math

import anyio

_LEAST_SLEEP_S = 1e-4
"""Clocks are read in steps: a shorter sleep may end at the time at which it began."""


class Bench:
    """The idle workers of one endpoint."""

    def __init__(self) -> None:
        self._watch: anyio.Event | None = None
        self._watched_s = math.inf
        self._seated: list[anyio.Event] = []

    @property
    def is_occupied(self) -> bool:
        """True while anybody sits."""
        return self._watch is not None or bool(self._seated)

    async def sit(self, until_s: float, for_s: float) -> None:
        """Sleep until called; whoever watches wakes at the given time as well.

        Args:
            until_s: When there may be work; infinity when only a call can bring some.
            for_s: The seconds until then.
        """
        event = anyio.Event()
        if self._watch is not None:
            self._seated.append(event)
            self.expect(until_s)
            await event.wait()
            return
        self._watch, self._watched_s = event, until_s
        try:
            if until_s == math.inf:
                await event.wait()
            else:
                with anyio.move_on_after(max(_LEAST_SLEEP_S, for_s)):
                    await event.wait()
        finally:
            if self._watch is event:
                self._watch = None

    def expect(self, at_s: float) -> None:
        """See to it that somebody looks for work at the given time."""
        if self._watch is None:
            if self._seated:
                self._seated.pop().set()
        elif at_s < self._watched_s:
            self.call_one()

    def call_one(self) -> None:
        """Call the watcher: something has changed, and there may be work earlier than it thinks."""
        if self._watch is not None:
            self._watch.set()
            self._watch = None

    def call_all(self) -> None:
        """Call everybody."""
        self.call_one()
        for event in self._seated:
            event.set()
        self._seated.clear()
