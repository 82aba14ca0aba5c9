"""What a lane does while it is asked: the one record that changes.

The dispatcher writes it, the display and the run's budget read it, and run.json keeps its last state.
"""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

LaneState = Literal["open", "waiting", "probing", "stopped"]
"""What a lane does now."""


@dataclass(slots=True, kw_only=True)
class LaneProgress:
    """One lane while it is asked: written by the dispatcher, read by whoever shows it, and at the end by run.json.

    Times are of the monotonic clock.
    """

    endpoint: str
    model: str
    total: int
    """Rows planned for this lane in this call (finished ones of an earlier call not counted)."""
    done: int = 0
    """Rows with an outcome, errors included."""
    acknowledged: int = 0
    """Those of them whose outcome is as durable as the job asks: what is shown as done, for it is never asked again."""
    answered: int = 0
    errors: int = 0
    retries: int = 0
    rate_limited: int = 0
    in_flight: int = 0
    limit: int = 0
    """Requests that may be in flight now; it grows and shrinks with what the server takes. 0 before the first one."""
    state: LaneState = "open"
    """`open`: it sends; `waiting`: it holds back until `waiting_until_s`; `probing`: the endpoint does not answer, and
    is tried with single requests; `stopped`: it sends nothing more in this call, see `stopped_by`."""
    waiting_until_s: float = 0.0
    """Monotonic time until which the lane waits; 0 when it does not."""
    waiting_for: str | None = None
    """What it waits for: `retry_after`, `requests_per_minute`, `tokens_per_minute`, `learned_rate`, `outage`,
    `retry_budget`, `back_off` or `budget`; None when it does not wait."""
    waited_s: dict[str, float] = field(default_factory=dict)
    """Seconds in which something was left to send and nothing could leave, by what it waited for, over this call."""
    wall_s: float | None = None
    """Seconds from the start of the call's asking to the lane's last outcome; None while it is under way."""
    history: list[tuple[float, str, float | None]] = field(default_factory=list)
    """What was decided about its pace, oldest first and bounded: (seconds since the asking began, what, value)."""
    tokens: int = 0
    spent_usd: Decimal = Decimal(0)
    unknown_cost: int = 0
    """Answered rows whose cost is unknown."""
    stopped_by: str | None = None
    """Error code that stopped the lane; None while it is open."""
    stop_message: str | None = None
