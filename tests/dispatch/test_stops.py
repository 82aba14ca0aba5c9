"""Why a lane stopped, in words."""

from datetime import UTC, datetime

import pytest

from evalrun.dispatch.stops import StopSignal, explain_refusal
from evalrun.dispatch.transport import make_target
from evalrun.errors import AuthRefusedError, RateLimitedError
from evalrun.records import ErrorCode
from tests.dispatch.rig import make_options

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(("wait_s", "words"), [(7200, "wait 7200 s, until 2026-11-2"), (1e17, "beyond the calendar")])
def test_pause_is_told_with_its_end(wait_s: float, words: str) -> None:
    """A pause that is not waited for says when it ends, however far that is."""
    target = make_target(make_options("http://127.0.0.1:1/v1"), environ={})
    error = RateLimitedError(ErrorCode.RATE_LIMITED, "slow down", retry_after_s=wait_s)
    assert words in explain_refusal(error, target, now=NOW)


def test_refused_key_without_a_variable_says_where_to_name_one() -> None:
    """An endpoint that wants a key the job never named gets the job's key, not an empty name."""
    target = make_target(make_options("http://127.0.0.1:1/v1"), environ={})
    assert "`api_key_env`" in explain_refusal(AuthRefusedError(ErrorCode.AUTH, "no"), target, now=NOW)


def test_stop_signal_tells_its_listeners() -> None:
    """A listener hears of each change, and of the state at the start; afterwards of nothing."""
    stop, heard = StopSignal(), []
    with stop.listening(lambda: heard.append((stop.is_requested, stop.is_cancelled))):
        stop.request()
        stop.cancel()
    stop.cancel()
    assert heard == [(False, False), (True, False), (True, True)]
