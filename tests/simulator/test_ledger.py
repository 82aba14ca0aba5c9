"""Tests of the ledger's arithmetic; `test_gateway` proves it over HTTP."""

from typing import get_args

import pytest

from evalrun.simulator.ledger import Ending, Ledger, LedgerKey
from evalrun.simulator.usage import Counts

KEY = LedgerKey("s1", b"\x01", 0, "careful")
OTHER = LedgerKey("s2", b"\x01", 0, "careful")


def visit(ledger: Ledger, key: LedgerKey = KEY) -> None:
    """Make one delivered completion of 3 + 2 tokens."""
    with ledger.open_visit(key) as opened:
        opened.bill(Counts(prompt=3, completion=2))
        opened.settle("completions")


def test_ledger_counts_each_key_and_model() -> None:
    """Requests, completions and tokens of a key add up to those of its model and of all."""
    ledger = Ledger()
    for key in (KEY, OTHER, KEY):
        visit(ledger, key)
    shown = ledger.to_json(has_detail=True)
    assert shown["totals"]["requests"] == shown["models"]["careful"]["completions"] == 3
    assert (shown["totals"]["prompt_tokens"], shown["totals"]["total_tokens"]) == (9, 15)
    assert [(line["sample"], line["requests"]) for line in shown["detail"]] == [("s1", 2), ("s2", 1)]
    assert (shown["keys"], shown["repeated_requests"]) == (2, 1)


def test_ledger_counts_a_request_without_reply_as_abandoned() -> None:
    """A connection that is gone before its reply leaves a trace, and nothing in flight."""
    ledger = Ledger()
    with pytest.raises(BrokenPipeError), ledger.open_visit(KEY):
        raise BrokenPipeError
    shown = ledger.to_json()
    assert (shown["totals"]["abandoned"], shown["in_flight"], shown["max_in_flight"]) == (1, 0, 1)


@pytest.mark.parametrize("ending", ["completions", "errors", "rate_limited", "quota_refused", "quirked"])
def test_ledger_counts_each_ending_apart(ending: Ending) -> None:
    """A request ends in exactly one way, in its key's line, its model's and the total."""
    ledger = Ledger()
    with ledger.open_visit(KEY) as opened:
        opened.settle(ending)
    shown = ledger.to_json(has_detail=True)
    for counts in (shown["totals"], shown["models"]["careful"], shown["detail"][0]):
        ended = {name for name in ("abandoned", *get_args(Ending)) if counts[name]}
        assert (ended, counts["requests"]) == ({ending}, 1)


def test_ledger_bills_what_nobody_took() -> None:
    """A reply that was made is billed though its connection was gone."""
    ledger = Ledger()
    with ledger.open_visit(KEY) as opened:
        opened.bill(Counts(prompt=3, completion=2))
    totals = ledger.to_json()["totals"]
    assert (totals["abandoned"], totals["completions"], totals["total_tokens"]) == (1, 0, 5)


def test_ledger_tells_unmatched_requests_only_with_answers() -> None:
    """Without a book of answers the number is unknown, not 0."""
    ledger = Ledger()
    assert ledger.to_json()["unmatched_requests"] is None
    ledger.count_unmatched()
    assert ledger.to_json()["unmatched_requests"] == 1


def test_ledger_numbers_failures_until_a_completion() -> None:
    """Each error moves the draw on, so that asking again can succeed; a completion starts over."""
    ledger = Ledger()
    numbers = []
    for has_failed in (True, True, False, True):
        with ledger.open_visit(KEY) as opened:
            numbers.append(opened.n_failures)
            if has_failed:
                opened.fail()
            else:
                opened.bill(Counts(prompt=1, completion=1))
            opened.settle("errors" if has_failed else "completions")
    assert numbers == [0, 1, 2, 0]
    assert ledger.to_json()["totals"]["errors"] == 3


def test_ledger_beyond_its_keys_counts_totals_and_says_so() -> None:
    """Memory is bounded: later keys are not listed, their number is told, and repeats are unknown, not 0."""
    ledger = Ledger(max_keys=1)
    for key in (KEY, OTHER, KEY):
        visit(ledger, key)
    shown = ledger.to_json(has_detail=True)
    assert (shown["totals"]["requests"], len(shown["detail"])) == (3, 1)
    assert (shown["unlisted_requests"], shown["repeated_requests"]) == (1, None)


def test_ledger_forgets_the_oldest_failures() -> None:
    """A client that never comes back cannot fill the memory with its failures."""
    ledger = Ledger(max_keys=10)
    for i in range(50):
        with ledger.open_visit(LedgerKey(str(i), b"", 0, "careful")) as opened:
            opened.fail()
    assert len(ledger.failures) == 10


def test_ledger_bills_by_bucket() -> None:
    """What has a price of its own is told apart, in the key's line, its model's and the total."""
    ledger = Ledger()
    counts = Counts(prompt=100, cached=40, cache_write=20, audio_input=10, completion=30, reasoning=12, audio=5)
    with ledger.open_visit(KEY) as opened:
        opened.bill(counts)
        opened.settle("completions")
    shown = ledger.to_json(has_detail=True)
    names = [
        "billed", "prompt_tokens", "cached_tokens", "cache_write_tokens", "audio_input_tokens", "completion_tokens",
        "reasoning_tokens", "audio_output_tokens", "total_tokens",
    ]  # fmt: skip
    for line in (shown["totals"], shown["models"]["careful"], shown["detail"][0]):
        assert [line[name] for name in names] == [1, 100, 40, 20, 10, 30, 12, 5, 130]


def test_ledger_bills_by_service_tier() -> None:
    """Bills are told apart by the tier that was answered: tokens for each model, replies for each key."""
    ledger = Ledger()
    for key, tier in ((KEY, "default"), (KEY, "flex"), (KEY, "flex"), (OTHER, "flex")):
        with ledger.open_visit(key) as opened:
            opened.bill(Counts(prompt=3, completion=2), tier)
            opened.settle("completions")
    shown = ledger.to_json(has_detail=True)
    tiers = shown["models"]["careful"]["service_tiers"]
    assert {tier: (told["billed"], told["prompt_tokens"]) for tier, told in tiers.items()} == {
        "default": (1, 3), "flex": (3, 9),
    }  # fmt: skip
    assert [line["service_tiers"] for line in shown["detail"]] == [{"default": 1, "flex": 2}, {"flex": 1}]


def test_ledger_bills_nothing_without_tokens() -> None:
    """A refusal has no bill, and no tier."""
    ledger = Ledger()
    with ledger.open_visit(KEY) as opened:
        opened.bill(Counts())
        opened.settle("errors")
    shown = ledger.to_json(has_detail=True)
    assert (shown["totals"]["billed"], shown["models"]["careful"]["service_tiers"]) == (0, {})
    assert shown["detail"][0]["service_tiers"] == {}
