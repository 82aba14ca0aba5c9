"""How long a run took over all its calls, as far as run.json tells.

run.json enters, seconds leave. A call that was killed wrote no time: then the sum is a lower bound, and says so.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class WallTime(NamedTuple):
    """The calls of a run added up."""

    seconds: float | None
    """Of the calls whose time is known; None when that of none is."""
    n_unknown: int
    """Calls of which no time is known: the run took longer than `seconds`."""


def read_wall_time(manifest: Mapping[str, Any]) -> WallTime:
    """Return the time of all calls that run.json tells of."""
    earlier, n_calls = manifest.get("earlier_calls"), manifest.get("n_calls")
    told = [call for call in earlier if isinstance(call, Mapping)] if isinstance(earlier, list) else []
    times = [time_s for call in (*told, manifest) if (time_s := _read_seconds(call.get("wall_s"))) is not None]
    n_counted = n_calls if isinstance(n_calls, int) and not isinstance(n_calls, bool) else 1
    n_all = max(n_counted, len(told) + 1)
    return WallTime(sum(times) if times else None, n_all - len(times))


def _read_seconds(value: Any) -> float | None:
    """Return a duration of run.json; None for what is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < float("inf") else None
