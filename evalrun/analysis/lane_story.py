"""Why a run was slow, in words: what each lane waited for, for how long, and what would help.

The lanes of run.json enter, sentences leave. A figure that is not there, or is none, is left out: never guessed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MIN_TOLD_SHARE = 0.01
"""Waits for less of the time are not told."""
MIN_ADVISED_SHARE = 0.25
"""A wait for this much of the time gets advice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneStory:
    """What is to be told of one lane."""

    endpoint: str
    model: str
    sentence: str
    """Plain words on one line; it quotes the server where the lane was stopped."""
    advice: str | None
    """What to change; None when nothing held the lane for long."""
    waited_share: Mapping[str, float] = field(default_factory=dict)
    """Share of the time by reason, 0..1, longest first; empty when no history was kept."""


class _Reason(NamedTuple):
    words: str
    advice: str | None = None


_REASONS = {
    "retry_after": _Reason(
        "pausing as the server asked",
        "write the provider's `requests_per_minute` into the job: a known limit is paced without 429s",
    ),
    "requests_per_minute": _Reason(
        "waiting for requests per minute", "a higher limit at the provider would make this lane faster"
    ),
    "tokens_per_minute": _Reason(
        "waiting for tokens per minute",
        "a smaller `max_completion_tokens`, or a higher limit at the provider, would make this lane faster",
    ),
    "learned_rate": _Reason(
        "waiting at the send rate learned from 429s",
        "write the provider's `requests_per_minute` into the job: a known limit is paced without 429s",
    ),
    "concurrency": _Reason(
        "with every slot in use", "a higher `concurrency` would make this lane faster if the provider allows it"
    ),
    "ramp": _Reason("at an in-flight limit that 429s had cut"),
    "retry_budget": _Reason("waiting with retries, which may be a fifth of the requests"),
    "back_off": _Reason("with nothing to send but rows in back-off"),
    "outage": _Reason(
        "with the endpoint not answering",
        "see why the endpoint did not answer: no setting here would have made this lane faster",
    ),
    "budget": _Reason("waiting for room in the run's budget", "a larger `budget` would let more requests run at once"),
}
BUDGET = "budget"
"""Code of a lane that the run's budget ended: which of its limits did is the run's to tell, once for all lanes."""
_OUTAGE = "outage"
MIN_OUTAGE_S = 0.1
"""Outages that held a lane for less, all together, are not told: a burst of resets is none to whoever reads."""
_MAX_NUMBER = 1e15
_LIMITS = ("requests_per_minute", "tokens_per_minute")
_NEWEST = {
    "requests_per_minute": "limit {} from headers",
    "tokens_per_minute": "limit {} from headers",
    "learned_rate": "last cut to {} a minute",
}
"""What the newest value in a lane's history means: the pacer notes limits that headers tell, and cuts of the rate."""
_COUNTS_AS_ASKED = "counts_as_asked"


def tell_lanes(manifest: Mapping[str, Any]) -> tuple[LaneStory, ...]:
    """Return the story of each lane, in the order of run.json.

    Args:
        manifest: run.json: `wall_s`, and `lanes` with `endpoint`, `model`, `retries`, `rate_limited`, `stopped_by` and
            `stop_message`; as far as they are there, `waited_s` (seconds by reason), `history` (entries of `at_s`,
            `what`, `value`), `limits` (those of the job, by reason) and a `wall_s` of their own. In the history,
            `outage` begins an outage; the rest is as `Pacer.history` tells it.
    """
    lanes = manifest.get("lanes")
    wall_s = read_number(manifest.get("wall_s"))
    return tuple(tell_lane(lane, wall_s=wall_s) for lane in lanes or () if isinstance(lane, Mapping))


def tell_lane(lane: Mapping[str, Any], *, wall_s: float | None) -> LaneStory:
    """Return the story of one lane.

    Args:
        lane: As run.json holds it.
        wall_s: Duration of the call, for a lane that has none of its own.
    """
    shares = _read_shares(lane, read_time_s(lane, wall_s=wall_s))
    parts = [_tell_waits(lane, shares), *_tell_counting(lane), *_tell_counts(lane), *_tell_outages(lane)]
    parts += _tell_stop(lane)
    return LaneStory(
        endpoint=str(lane.get("endpoint")),
        model=str(lane.get("model")),
        sentence="; ".join(parts),
        advice=_advise(shares),
        waited_share=shares,
    )


def read_number(value: Any) -> float | None:
    """Return a figure of run.json; None for what is none, or negative."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value <= _MAX_NUMBER else None


def read_time_s(lane: Mapping[str, Any], *, wall_s: float | None) -> float | None:
    """Return the time of a lane: what its waits are shares of; None when it is not known.

    A lane's own `wall_s` ends with its last outcome, and it may wait on after that, or never have one: its waits never
    overlap, so its time is at least as long as they are together.

    Args:
        lane: As run.json holds it.
        wall_s: Duration of the call, for a lane that has none of its own.
    """
    own_wall_s = read_number(lane.get("wall_s"))
    known_s = wall_s if own_wall_s is None else own_wall_s
    waited_s = add_up_waits(lane)
    return known_s if waited_s is None or known_s is None else max(known_s, waited_s)


def add_up_waits(lane: Mapping[str, Any]) -> float | None:
    """Return the seconds that a lane waited, whatever for; None when no history was kept."""
    waited = lane.get("waited_s")
    return sum(read_number(seconds) or 0.0 for seconds in waited.values()) if isinstance(waited, Mapping) else None


def _read_shares(lane: Mapping[str, Any], time_s: float | None) -> dict[str, float]:
    waited = lane.get("waited_s")
    if not isinstance(waited, Mapping) or not time_s:
        return {}
    shares = {str(reason): min(1.0, (read_number(seconds) or 0.0) / time_s) for reason, seconds in waited.items()}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _tell_waits(lane: Mapping[str, Any], shares: Mapping[str, float]) -> str:
    if not isinstance(lane.get("waited_s"), Mapping):
        return "no history of its waits was kept"
    told = [(reason, share) for reason, share in shares.items() if share >= MIN_TOLD_SHARE and _is_told(lane, reason)]
    if not told:
        return _tell_free(lane)
    waits = [f"{share * 100:.0f} %{_of_the_time(n)} {_name(lane, reason)}" for n, (reason, share) in enumerate(told)]
    return ", ".join(waits)


def _is_told(lane: Mapping[str, Any], reason: str) -> bool:
    return reason != _OUTAGE or (read_number(lane["waited_s"].get(_OUTAGE)) or 0.0) >= MIN_OUTAGE_S


def _tell_free(lane: Mapping[str, Any]) -> str:
    """Return what is to be said of a lane that waited for nothing: there are three ways of that."""
    if lane.get("asked") == 0:
        has_sent = lane.get("retries") or lane.get("rate_limited") or lane.get("stopped_by") not in {None, BUDGET}
        return "no row came to its end" if has_sent else "asked nothing"
    concurrency = read_number(lane.get("concurrency"))
    at_once = "" if concurrency is None else f": its time is that of the replies, at most {concurrency:.0f} at once"
    return f"hardly ever held back{at_once}"


def _of_the_time(n: int) -> str:
    return "" if n else " of the time"


def _name(lane: Mapping[str, Any], reason: str) -> str:
    known = _REASONS.get(reason)
    words = known.words if known is not None else f"waiting ({reason.replace('_', ' ')})"
    limit = _find_limit(lane, reason)
    return f"{words} ({limit})" if limit else words


def _find_limit(lane: Mapping[str, Any], reason: str) -> str | None:
    """Return the limit that a lane waited for, in words; None when none was kept."""
    limits = lane.get("limits")
    given = read_number(limits.get(reason)) if isinstance(limits, Mapping) else None
    if reason in _LIMITS and given is not None:
        return f"limit {_write_number(given)} from the job"
    told = [read_number(entry.get("value")) for entry in _read_history(lane) if entry.get("what") == reason]
    if reason not in _NEWEST or not told or told[-1] is None:
        return None
    return _NEWEST[reason].format(_write_number(told[-1]))


def _tell_counting(lane: Mapping[str, Any]) -> Iterator[str]:
    if any(entry.get("what") == _COUNTS_AS_ASKED for entry in _read_history(lane)):
        yield "the server counts the tokens that a request may use, not those that it uses"


def _tell_counts(lane: Mapping[str, Any]) -> Iterator[str]:
    n_throttled, n_retries = read_number(lane.get("rate_limited")), read_number(lane.get("retries"))
    if n_throttled:
        yield f"{n_throttled:,.0f} × 429"
    if n_retries:
        yield "1 retry" if n_retries == 1 else f"{n_retries:,.0f} retries"


def _tell_outages(lane: Mapping[str, Any]) -> Iterator[str]:
    waited = lane.get("waited_s")
    seconds = read_number(waited.get(_OUTAGE)) if isinstance(waited, Mapping) else None
    if seconds is None or seconds < MIN_OUTAGE_S:
        return
    n = sum(1 for entry in _read_history(lane) if entry.get("what") == _OUTAGE)
    yield f"{n} outages, {_write_seconds(seconds)}" if n > 1 else f"outage {_write_seconds(seconds)}"


def _tell_stop(lane: Mapping[str, Any]) -> Iterator[str]:
    code, message = lane.get("stopped_by"), lane.get("stop_message")
    if code == BUDGET:
        yield "ended with the run's budget"
    elif code is not None:
        yield f"stopped by {code}: {message}" if message else f"stopped by {code}"


def _advise(shares: Mapping[str, float]) -> str | None:
    """Return the advice for the longest wait that somebody can do something about."""
    for reason, share in shares.items():
        known = _REASONS.get(reason)
        if share >= MIN_ADVISED_SHARE and known is not None and known.advice is not None:
            return known.advice
    return None


def _read_history(lane: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    history = lane.get("history")
    yield from (entry for entry in history if isinstance(entry, Mapping)) if isinstance(history, list) else ()


def _write_number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) or value >= 100 else f"{value:,.1f}"


def _write_seconds(value: float) -> str:
    if value < 60:
        return f"{value:.0f} s" if value >= 1 else "under 1 s"
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes} min {seconds:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
