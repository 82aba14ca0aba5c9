"""Tests of which quirks befall a request, and of what holds for all of them."""

import itertools
import random
from typing import Any

import pytest

from evalrun.options import ProfileOptions
from evalrun.quirk_names import QUIRK_NAMES
from evalrun.simulator.quirks import apply
from evalrun.simulator.quirks.apply import bend, choose_quirks
from evalrun.simulator.refusal import Refusal
from evalrun.simulator.replies import Hint, make_chat_request
from evalrun.simulator.script import write_script
from tests.simulator.asking import make_body
from tests.simulator.bending import (
    LABELS,
    NOW,
    PROFILE,
    REPLIES,
    SHAPES,
    SMALL,
    TOOLS,
    bend_reply,
    make_draft_for,
    pick,
    read_applied,
)


def test_every_quirk_of_the_catalogue_does_something() -> None:
    """What the catalogue lists is carried out, and nothing is carried out that it does not list."""
    tables = (apply.REPLACEMENTS, apply.TEXTS, apply.EDITS, apply.HEADERS, apply.BENDS)
    assert {quirk_id for table in tables for quirk_id in table} == set(QUIRK_NAMES)


@pytest.mark.parametrize("is_stream", [False, True])
def test_reply_without_quirks_is_as_if_there_were_none(is_stream: bool) -> None:
    """No quirk, no change: not a byte and not a header."""
    assert bend(make_draft_for(is_stream=is_stream), ()) == write_script(make_draft_for(is_stream=is_stream))


@pytest.mark.parametrize(("label", "is_stream"), REPLIES)
def test_quirk_is_named_in_the_reply_and_changes_it(label: str, is_stream: bool) -> None:
    """Each quirk in each variant, streamed and not, is carried out where it makes sense, and always alike."""
    asked = SMALL.get(label, label)
    script, again = (bend_reply(asked, is_stream=is_stream) for _ in range(2))
    good = write_script(make_draft_for(is_stream=is_stream, **SHAPES.get(label[:3], {})))
    assert read_applied(script) == label
    assert script == again
    if label != "Q20:lf":
        script.headers.pop()
        assert script != good


@pytest.mark.parametrize("label", [label for label, mode in LABELS if mode != "both"])
def test_quirk_that_makes_no_sense_is_left_out(label: str) -> None:
    """A stream's quirk leaves a reply that is not streamed as it is, and says so."""
    script = bend_reply(label, is_stream=False)
    assert script.headers.pop() == ("x-simulator-quirk", "none")
    assert script == write_script(make_draft_for(**SHAPES.get(label[:3], {})))


@pytest.mark.parametrize(
    ("label", "params"),
    [
        ("Q01", {"stream": True}),
        ("Q12:null", {"tools": TOOLS}),
        ("Q28", {"tools": TOOLS}),
        ("Q32:finish-stop", {"tools": None}),
        ("Q33:reversed", {"n": 1}),
        ("Q36", {"logprobs": False, "top_logprobs": None}),
        ("Q41", {"max_tokens": None}),
        ("Q57", {"max_tokens": None}),
    ],
)
def test_quirk_without_its_matter_is_left_out(label: str, params: dict[str, Any]) -> None:
    """A quirk of tools, choices, limits or usage is left out where the reply has none."""
    assert read_applied(bend_reply(label, **params)) == "none"


def test_variant_left_open_is_picked_by_the_request() -> None:
    """Without a variant the request decides: each variant that fits is met, one that does not never."""
    labels = {pick("Q10", is_stream=is_stream, seed=seed)[0].label for is_stream in (False, True) for seed in range(40)}
    plain = {pick("Q10", seed=seed)[0].label for seed in range(40)}
    assert labels == {"Q10:data", "Q10:event", "Q10:finish"}
    assert plain == {"Q10:finish"}


@pytest.mark.parametrize("header", ["", " ", "none", "None", ","])
def test_header_can_turn_the_profiles_quirks_off(header: str) -> None:
    """The request's own header stands in place of the profile's quirks, even when it names none."""
    asked = make_chat_request(make_body(), Hint(), 1)
    profile = ProfileOptions(quirks={"Q01": 1.0})
    assert choose_quirks(asked, profile, header, 0) == ()
    assert [quirk.label for quirk in _choose(asked, profile, None)] == ["Q01"]
    assert [quirk.label for quirk in _choose(asked, profile, "bom, Q25:rst")] == ["Q18", "Q25:rst"]


def test_request_without_header_or_profile_quirks_gets_none() -> None:
    """The usual case: no quirk, no draw."""
    assert choose_quirks(make_chat_request(make_body(), Hint(), 1), PROFILE, None, 0) == ()


def test_unknown_quirk_in_the_header_is_refused() -> None:
    """A header that names no quirk gets a refusal that lists the known ones."""
    refusal = choose_quirks(make_chat_request(make_body(), Hint(), 1), PROFILE, "Q01, Q99", 0)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.code) == (400, "unknown_quirk")
    assert "'Q99'" in refusal.message
    assert "Q60 trailing-garbage" in refusal.message


@pytest.mark.parametrize("rate", [0.0, 0.2, 1.0])
def test_profile_quirks_befall_their_share_of_attempts(rate: float) -> None:
    """Over 2,000 attempts the share lies within the 99.9 % interval; each attempt is drawn anew, always alike."""
    asked = make_chat_request(make_body(), Hint(), 1)
    profile = ProfileOptions(quirks={"Q09": rate, "Q46:go": 0.5})
    drawn = [[quirk.id for quirk in _choose(asked, profile, None, attempt)] for attempt in range(2000)]
    share = sum("Q09" in quirks for quirks in drawn) / 2000
    assert abs(share - rate) <= 3.2905 * (rate * (1 - rate) / 2000) ** 0.5
    assert drawn == [[quirk.id for quirk in _choose(asked, profile, None, attempt)] for attempt in range(2000)]


def test_reply_names_those_quirks_only_that_made_sense() -> None:
    """Of several quirks the reply names those that were carried out, in the order of choice."""
    assert read_applied(bend_reply("Q52, Q18, Q20")) == "Q52, Q18"
    assert read_applied(bend_reply("Q20")) == "none"


def test_edited_draft_never_touches_what_replies_share() -> None:
    """After any quirk the next good reply is what it was: no constant of the simulator was changed."""
    for is_stream, shape in itertools.product((False, True), ({}, *SHAPES.values())):
        before = write_script(make_draft_for(is_stream=is_stream, **shape))
        for label, _ in LABELS:
            bend(make_draft_for(is_stream=is_stream, **shape), pick(SMALL.get(label, label), is_stream=is_stream))
        assert write_script(make_draft_for(is_stream=is_stream, **shape)) == before


@pytest.mark.parametrize("seed", range(8))
def test_quirks_go_together_in_any_order(seed: int) -> None:
    """Some 1,600 draws of two to five quirks: none raises, and the order of choice changes no byte."""
    rng = random.Random(seed)
    shapes = [{}, *SHAPES.values()]
    for _ in range(200):
        is_stream, shape = rng.random() < 0.6, rng.choice(shapes)
        labels = [SMALL.get(label, label) for label, _ in rng.sample(LABELS, rng.randint(2, 5))]
        scripts = [
            bend(
                make_draft_for(is_stream=is_stream, **shape),
                pick(",".join(order), is_stream=is_stream, **shape),
                now=NOW,
            )
            for order in (labels, labels[::-1])
        ]
        names = [set((read_applied(script) or "").split(", ")) for script in scripts]
        for script in scripts:
            script.headers = [pair for pair in script.headers if pair[0] != "x-simulator-quirk"]
        if len({label[:3] for label in labels}) == len(labels):
            assert (labels, scripts[0], names[0]) == (labels, scripts[1], names[1])


@pytest.mark.parametrize("usage", ["openai", "deepseek", "gemini", "openrouter", "none"])
@pytest.mark.parametrize("is_stream", [False, True])
def test_quirks_take_every_usage_dialect(usage: Any, is_stream: bool) -> None:
    """No quirk stumbles over how a profile counts, or over reasoning and cached tokens."""
    profile = ProfileOptions(accuracy=1, latency_ms=0, usage=usage, reasoning_tokens=4, cached_share=0.5)
    for label, _ in LABELS:
        draft = make_draft_for(is_stream=is_stream, profile=profile)
        assert bend(draft, pick(SMALL.get(label, label), is_stream=is_stream), now=NOW).headers


def _choose(asked: Any, profile: ProfileOptions, header: str | None, attempt: int = 0) -> tuple[Any, ...]:
    chosen = choose_quirks(asked, profile, header, attempt)
    assert isinstance(chosen, tuple)
    return chosen
