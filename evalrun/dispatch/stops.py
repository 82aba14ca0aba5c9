"""Asks a dispatch to end, and says why a lane stopped: in words that tell what to do next.

Signals and failures enter; flags and sentences leave.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from difflib import get_close_matches

from evalrun.dispatch.transport import Target
from evalrun.errors import ApiError
from evalrun.records import ErrorCode
from evalrun.resume_words import MARKED_RESUME_COMMAND

RESUME_HINT = f"{MARKED_RESUME_COMMAND} goes on from here"


class StopSignal:
    """Ends a dispatch early. Set it from the event loop's own thread, as `anyio.open_signal_receiver` does."""

    def __init__(self) -> None:
        self._is_requested = False
        self._is_cancelled = False
        self._listeners: list[Callable[[], None]] = []

    @property
    def is_requested(self) -> bool:
        """True once no new request is to be sent."""
        return self._is_requested

    @property
    def is_cancelled(self) -> bool:
        """True once requests in flight are to be given up as well."""
        return self._is_cancelled

    def request(self) -> None:
        """Send nothing new; what is in flight may come back."""
        self._is_requested = True
        self._notify()

    def cancel(self) -> None:
        """Send nothing new and give up what is in flight: its rows get no outcome and are in doubt."""
        self._is_requested = self._is_cancelled = True
        self._notify()

    @contextmanager
    def listening(self, listener: Callable[[], None]) -> Iterator[None]:
        """Call the listener at each change, and once at the start."""
        self._listeners.append(listener)
        try:
            listener()
            yield
        finally:
            self._listeners.remove(listener)

    def _notify(self) -> None:
        for listener in list(self._listeners):
            listener()


def explain_refusal(
    error: ApiError, target: Target, *, now: datetime, wire_model: str = "", known_models: Collection[str] = ()
) -> str:
    """Return why a failure stops its lane, and what to do.

    Args:
        error: The failure.
        target: Where the request went.
        now: UTC; a pause that the server asks for is told in local time.
        wire_model: The lane's model.
        known_models: Those of the job's other lanes: one of a similar name may have been meant.
    """
    code = ErrorCode(error.code)
    if error.retry_after_s is not None and error.retry_after_s > target.options.retry.max_pause_s:
        return f"{_lead(error.message)}; {_explain_pause(error.retry_after_s, now)}"
    hints = {
        ErrorCode.AUTH: _name_key(target),
        ErrorCode.FORBIDDEN: f"the key may not use this model: {_name_key(target)}",
        ErrorCode.QUOTA: "add credit or raise the limit at the provider",
        ErrorCode.MODEL_NOT_FOUND: _name_model(target, wire_model, known_models),
        ErrorCode.TLS: "mend the certificate, or name its authority's file in SSL_CERT_FILE",
        ErrorCode.REDIRECT: f"check `base_url` (asked at {target.shown_url})",
    }
    hint = hints.get(code)
    return f"{_lead(error.message)}; " + (f"{hint}, then {RESUME_HINT}" if hint else RESUME_HINT)


def explain_outage(message: str | None, target: Target, *, n_sent: int, down_s: float | None = None) -> str:
    """Return the reason for stopping a lane that does not answer.

    Args:
        message: Its latest failure.
        target: Where the requests went.
        n_sent: Attempts so far.
        down_s: Seconds since the latest answer; None when there never was one.
    """
    if down_s is not None:
        return (
            f"no answer for {down_s:.0f} s, the last failure: {_lead(message)}; "
            f"wait until {target.shown_url} is up, then {RESUME_HINT}"
        )
    return (
        f"no answer in the first {n_sent} attempts, the last one: {_lead(message)}; "
        f"check that {target.shown_url} is up, then {RESUME_HINT}"
    )


def explain_throttling(message: str | None, *, refused_s: float) -> str:
    """Return the reason for stopping a lane that lets nothing in.

    Args:
        message: Its latest refusal.
        refused_s: Seconds since the first one after which nothing was let in.
    """
    return (
        f"nothing was let in for {refused_s:.0f} s, the last refusal: {_lead(message)}; the limit may be one of a day, "
        f"or used up by others: wait until it is whole again, or raise it at the provider, then {RESUME_HINT}"
    )


def explain_refusals(error: ApiError, *, n_rows: int) -> str:
    """Return the reason for stopping a lane whose first rows were all refused alike."""
    return (
        f"the first {n_rows} rows were all refused alike, the last one: {_lead(error.message)}; "
        "mend the job and run it again"
    )


def _lead(message: str | None) -> str:
    """Return what a server said as the beginning of a longer sentence: without the full stop at its end."""
    text = str(message)
    return text if text.endswith("..") else text.removesuffix(".")


def _explain_pause(retry_after_s: float, now: datetime) -> str:
    try:
        until = (now + timedelta(seconds=retry_after_s)).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    except OverflowError:
        until = "a day beyond the calendar"
    return f"the server asks to wait {retry_after_s:.0f} s, until {until}; then {RESUME_HINT}"


def _name_model(target: Target, wire_model: str, known_models: Collection[str]) -> str:
    """Return what to check about a model that the server does not know."""
    others = [name for name in known_models if name != wire_model]
    nearest = get_close_matches(wire_model, others, n=1)
    meant = f" (did you mean {nearest[0]}, as in another model of this job?)" if nearest else ""
    return f"check the model's `model:`{meant} and `base_url` (asked at {target.shown_url})"


def _name_key(target: Target) -> str:
    name = target.options.api_key_env
    return f"check the key in {name}" if name else "the endpoint wants a key: name its variable in `api_key_env`"
