"""Why a lane stopped, in words."""

from datetime import UTC, datetime

import pytest

from evalrun.dispatch.stops import (
    StopSignal,
    explain_outage,
    explain_refusal,
    explain_refusals,
    explain_throttling,
)
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


@pytest.mark.parametrize(
    ("model", "known", "words"),
    [
        ("gpt-4o-mimi", ["gpt-4o-mimi", "gpt-4o-mini", "claude"], "did you mean gpt-4o-mini"),
        ("gpt-4o-mini", ["gpt-4o-mini", "claude"], "check the model's `model:` and"),
    ],
)
def test_unknown_model_names_the_nearest_one_of_the_job(model: str, known: list[str], words: str) -> None:
    """A model that the server does not know may be a misspelling of one that the job uses elsewhere."""
    target = make_target(make_options("http://127.0.0.1:1/v1"), environ={})
    error = AuthRefusedError(ErrorCode.MODEL_NOT_FOUND, "no such model")
    assert words in explain_refusal(error, target, now=NOW, wire_model=model, known_models=known)


def test_outage_of_a_lane_that_had_answered_says_how_long_it_lasts() -> None:
    """An address that worked is not to be checked; it is to be waited for."""
    target = make_target(make_options("http://127.0.0.1:1/v1"), environ={})
    assert "no answer for 600 s" in explain_outage("refused", target, n_sent=99, down_s=600)
    assert "in the first 11 attempts" in explain_outage("refused", target, n_sent=11)


def test_stop_signal_tells_its_listeners() -> None:
    """A listener hears of each change, and of the state at the start; afterwards of nothing."""
    stop, heard = StopSignal(), []
    with stop.listening(lambda: heard.append((stop.is_requested, stop.is_cancelled))):
        stop.request()
        stop.cancel()
    stop.cancel()
    assert heard == [(False, False), (True, False), (True, True)]


@pytest.mark.parametrize(("said", "told"), [("Learn more.", "Learn more; "), ("wait...", "wait...; ")])
def test_full_stop_of_the_server_does_not_end_our_sentence(said: str, told: str) -> None:
    """What a server says is followed by what to do: its full stop goes, an ellipsis stays."""
    target = make_target(make_options("http://127.0.0.1:1/v1"), environ={})
    error = RateLimitedError(ErrorCode.RATE_LIMITED, said, retry_after_s=7200)
    texts = [
        explain_refusal(error, target, now=NOW),
        explain_refusal(AuthRefusedError(ErrorCode.AUTH, said), target, now=NOW),
        explain_outage(said, target, n_sent=3),
        explain_outage(said, target, n_sent=3, down_s=9.0),
        explain_throttling(said, refused_s=9.0),
        explain_refusals(error, n_rows=3),
    ]
    assert [text for text in texts if told not in text] == []
