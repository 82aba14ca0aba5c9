"""Tests of invented log probabilities."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.simulator.logprobs import make_logprobs

DIGEST = bytes(range(32))


@given(tokens=st.lists(st.sampled_from([" the", ",", "a", "é", "日本", "\n"]), max_size=12), n_top=st.integers(0, 20))
def test_probabilities_add_up_to_less_than_one(tokens: list[str], n_top: int) -> None:
    """At each place: as many as asked for, no token twice, the likeliest first, and something left for the rest."""
    told = make_logprobs(tokens, DIGEST, index=0, n_top=n_top)
    assert [place["token"] for place in told] == tokens
    for place in told:
        top = place["top_logprobs"]
        chances = [math.exp(other["logprob"]) for other in top]
        assert len({other["token"] for other in top}) == len(top) == n_top
        assert chances == sorted(chances, reverse=True)
        assert sum(chances) < 1
        assert not top or top[0] == {key: place[key] for key in ("token", "logprob", "bytes")}


@pytest.mark.parametrize(("token", "expected"), [("a", [97]), ("é", [195, 169]), ("\ud83d", None)])
def test_bytes_are_those_of_the_token(token: str, expected: list[int] | None) -> None:
    """UTF-8, or null for half of a surrogate pair, which has no bytes of its own."""
    assert make_logprobs([token], DIGEST, index=0, n_top=0)[0]["bytes"] == expected


def test_choices_and_places_have_draws_of_their_own() -> None:
    """The same token has another probability elsewhere, and the same one in the same place."""
    told = [make_logprobs(["a", "a"], DIGEST, index=index, n_top=0) for index in (0, 1, 0)]
    assert told[0] == told[2]
    assert len({place["logprob"] for one in told[:2] for place in one}) == 4
