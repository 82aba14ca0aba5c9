"""Every quirk of the simulator, streamed and not: what evalrun makes of it over real HTTP is what the table says."""

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from evalrun.dispatch import pacing
from evalrun.quirk_names import QUIRK_NAMES
from evalrun.records import Completion, Status
from tests.dispatch.bent import PARAMS, Seen, ask_bent, serve_simulator
from tests.dispatch.truths import find_truth, strip_flags
from tests.quirk_outcomes import OUTCOMES, Expected, count_figures, scan_cells
from tests.simulator.bending import LABELS, REPLIES, TOOLS

pytestmark = pytest.mark.anyio

CELLS = [pytest.param(*cell, id=f"{cell[0]}-{'stream' if cell[1] else 'plain'}") for cell in scan_cells()]
ONE_FORM_EACH = {min(label for label, _ in LABELS if label.startswith(quirk_id)) for quirk_id in QUIRK_NAMES}
"""What `transport: httpx` is tried with, beside the cuts, resets and odd lengths that engines see before us."""
HTTPX_CELLS = [
    cell for cell in CELLS if cell.values[0] in ONE_FORM_EACH or str(cell.values[0]).startswith(("Q25", "Q49", "Q60"))
]
HEADLESS = {"Q48:first-byte", "Q49:no-reply", "Q49:reset", "Q56:refused", "Q56:tls"}
"""Quirks of which not even a head is seen that could name them."""
DAMAGING = ("Q05", "Q10", "Q13", "Q16", "Q20:mixed", "Q22", "Q25", "Q26", "Q29", "Q30", "Q31", "Q50:h", "Q60:after-d")
"""Quirks that tear replies to pieces, or seem to."""
REQUESTS: dict[str, dict[str, Any]] = {
    "tools": {"tools": TOOLS},
    "choices": {"n": 3},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "reasoning": {"model": "thinking"},
    "limit": {"max_tokens": 3},
}
"""Replies that hold more than a text, or less."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """One simulator for all."""
    with serve_simulator() as address:
        yield address


@pytest.fixture(autouse=True)
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the lane wait less after a 429 that names no time: what comes of it is asked here, not when."""
    monkeypatch.setattr(pacing, "FIRST_PAUSE_S", 0.02)


@pytest.mark.parametrize(("label", "is_stream", "expected"), CELLS)
async def test_attempt_at_a_bent_reply_comes_out_as_the_table_says(
    url: str, label: str, is_stream: bool, expected: Expected
) -> None:
    """Each cell of the table holds, and what is kept as an answer is what the reply says."""
    check(await ask_bent(url, label, is_stream=is_stream, params=PARAMS.get(label[:3], {})), label, expected)


@pytest.mark.parametrize(("label", "is_stream", "expected"), HTTPX_CELLS)
async def test_the_other_engine_gives_the_same_outcomes(
    url: str, label: str, is_stream: bool, expected: Expected
) -> None:
    """With `transport: httpx`, the cells hold as well."""
    params = PARAMS.get(label[:3], {})
    check(await ask_bent(url, label, is_stream=is_stream, params=params, transport="httpx"), label, expected)


@pytest.mark.parametrize("params", REQUESTS.values(), ids=REQUESTS)
async def test_no_kind_of_reply_is_damaged_in_silence(url: str, params: dict[str, Any]) -> None:
    """Torn replies of tools, several choices, log probabilities and reasoning: the good one, a flag, or a failure."""
    silent, n_failed = [], 0
    for label, is_stream in REPLIES:
        if label.startswith(DAMAGING):
            seen = await ask_bent(url, label, is_stream=is_stream, params=params)
            n_failed += seen.outcome is None
            if seen.outcome is not None and is_silent(seen, label):
                silent.append((label, is_stream))
    assert silent == []
    assert n_failed > 10


def test_table_lists_every_quirk_and_none_else() -> None:
    """Each form of each quirk stands in the table, in the catalogue's order, with just those replies that it fits."""
    assert list(OUTCOMES) == [label for label, _ in LABELS]
    assert [(label, is_stream) for label, is_stream, _ in scan_cells()] == REPLIES
    assert all(cell.words and not cell.words.endswith(".") for _, _, cell in scan_cells())


def test_every_cell_is_of_one_kind() -> None:
    """Taken, flagged, named, asked again, failed or stopped: the figures of docs/quirks.md leave no cell over."""
    figures = count_figures()
    assert (figures.forms, figures.cells) == (len(LABELS), len(REPLIES))
    answers = figures.clean + figures.flagged + figures.named
    assert answers + figures.asked_again + figures.failed + figures.stopped == figures.cells
    assert answers == sum(cell.is_answer for _, _, cell in scan_cells())


def check(seen: Seen, label: str, expected: Expected) -> None:
    """Compare one cell with what was seen."""
    attempt = seen.attempt
    assert seen.applied == (None if label in HEADLESS else label)
    assert attempt.error_code == expected.error_code
    assert (seen.outcome is None, seen.lane) == (expected.is_retried, expected.lane)
    assert (attempt.maybe_billed, attempt.usage.source) == (expected.maybe_billed, expected.usage)
    check_wait(attempt.retry_after_s, expected)
    check_cost(attempt.cost_usd, expected)
    if seen.outcome is None:
        check_recovery(seen, label)
        return
    assert (seen.outcome.status, seen.outcome.error_code) == (expected.status, expected.error_code)
    assert is_silent(seen, label) is False
    completion = seen.outcome.completion
    if completion is not None:
        assert completion.flags == expected.flags
        assert strip_flags(completion) == find_truth(label, get_good(seen), completion)


def is_silent(seen: Seen, label: str) -> bool:
    """Tell whether an answer was kept that is not what the reply says, and no flag tells."""
    completion = seen.outcome.completion if seen.outcome is not None else None
    if completion is None or completion.flags:
        return False
    return strip_flags(completion) != find_truth(label, get_good(seen), completion)


def get_good(seen: Seen) -> Completion:
    """Return the good reply to the same request."""
    assert seen.good.completion is not None
    return seen.good.completion


LEFT_TWICE = ("Q49:no-reply", "Q49:reset", "Q56:refused")
"""Forms that meet a connection used before: the attempt that failed had left a second time over another one."""


def check_recovery(seen: Seen, label: str) -> None:
    """A row that is asked again, and meets no quirk then, has the good reply, flagged if its request left twice."""
    if seen.next_outcome is not None:
        assert seen.good.completion is not None
        flags = ("sent_again",) if label in LEFT_TWICE else ()
        assert seen.next_outcome.completion == replace(seen.good.completion, flags=flags)
        assert (seen.next_outcome.status, seen.next_outcome.attempts) == (seen.good.status, 2)
    else:
        assert seen.lane == "waits"


def check_wait(wait_s: float | None, expected: Expected) -> None:
    """A wait that the server asks for is read, whatever its form; what is none is not."""
    if expected.wait_s is None:
        assert wait_s is None
    else:
        assert wait_s is not None
        assert expected.wait_s[0] <= wait_s <= expected.wait_s[1]


def check_cost(cost_usd: Decimal | None, expected: Expected) -> None:
    """A cost is known, estimated, or nothing for certain; what is not told is never nothing."""
    assert cost_usd is not None
    assert (cost_usd == 0) is (expected.cost == "nothing")


async def test_tier_of_the_reply_sets_the_price(url: str) -> None:
    """A reply of another tier than the one asked for costs what that tier costs: here half."""
    seen = await ask_bent(url, "Q59", is_stream=False, params={})
    assert (seen.good.cost_usd, seen.good.status) != (None, Status.ERROR)
    assert seen.attempt.cost_usd == (seen.good.cost_usd or 0) / 2


@pytest.mark.parametrize("label", ["Q04:last-chunk", "Q04:with-finish", "Q05", "Q06"])
async def test_usage_is_billed_once_wherever_it_comes(url: str, label: str) -> None:
    """Usage unasked, in every chunk, with the finish or after the end costs what one report costs."""
    plain = await ask_bent(url, "Q46:go", is_stream=False, params={})
    seen = await ask_bent(url, label, is_stream=True, params=PARAMS.get(label[:3], {}))
    assert seen.attempt.cost_usd == plain.attempt.cost_usd
    assert seen.attempt.usage.total_tokens == plain.attempt.usage.total_tokens
