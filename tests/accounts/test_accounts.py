"""Tests that the tables are the ledger's bill, at both sizes; and that the check would see it if they were not."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import polars as pl
import pytest

from tests.accounts.books import Account, Books, check_books
from tests.accounts.reckoning import TOKEN_NAMES, Tokens, reckon_reply
from tests.accounts.site import TARGETS
from tests.accounts.story import Story, tell_story

N_SAMPLES = 60
"""Of the default suite: 840 rows."""
N_SOAK_SAMPLES = 7_150
"""100,100 rows."""


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """A run, another that reuses it and is killed, and its resume."""
    return tell_story(tmp_path_factory.mktemp("accounts"), N_SAMPLES)


def add_up(books: Books) -> Account:
    """Return the accounts of all models as one."""
    total = Account()
    for account in books.accounts.values():
        total.take(account)
    return total


def test_tables_are_the_ledgers_bill(story: Story) -> None:
    """Reported usage equals the bill to the token and the dollar; each other reply billed has its row or attempt."""
    books = check_books(story)
    assert books.violations == []
    total = add_up(books)
    assert total.off_tokens == 0
    assert total.reported.n > 0.8 * len(TARGETS) * N_SAMPLES


def test_story_holds_all_that_may_go_wrong(story: Story) -> None:
    """Retries, refusals, lost replies, silence, reuse, a kill, tiers: the proof above is not about an easy day."""
    total, ledger = add_up(check_books(story)), story.ledger
    for share in (total.reported, total.unreported, total.lost, total.unseen):
        assert share.n > 0
        assert share.n_billed > 0
    assert total.reused.n == round(0.2 * N_SAMPLES) * len(TARGETS)
    assert ledger["totals"]["errors"] > 0
    assert all(ledger["totals"][name] > 0 for name in TOKEN_NAMES)
    assert set(ledger["models"]["openai"]["service_tiers"]) == {"default", "flex", "priority"}


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("cost_usd", pl.col("cost_usd") + 1e-9),
        ("cost_usd", pl.lit(0.0)),
        ("completion_tokens", pl.col("completion_tokens") + 1),
        ("cached_tokens", pl.col("cached_tokens") + 1),
        ("billed_usd", pl.col("billed_usd") + 1e-9),
        ("attempts", (pl.col("attempts") + 1).cast(pl.Int16)),
    ],
)
def test_check_sees_a_row_that_is_off(story: Story, tmp_path: Path, column: str, change: pl.Expr) -> None:
    """One row of one table, off by as little as counts, is a violation."""
    is_it = pl.col("row_id") == pl.col("row_id").filter(pl.col("cached_tokens") > 0).first()
    changed = pl.when(is_it).then(change).otherwise(pl.col(column)).alias(column)
    results = pl.read_parquet(story.first / "results.parquet").with_columns(changed)
    attempts = pl.read_parquet(story.first / "attempts.parquet")
    assert check_books(copy_with(story, tmp_path, results, attempts)).violations != []


def test_check_sees_an_attempt_that_is_missing(story: Story, tmp_path: Path) -> None:
    """A request that the server saw and no table knows of is a violation."""
    results, attempts = (pl.read_parquet(story.first / f"{name}.parquet") for name in ("results", "attempts"))
    assert check_books(copy_with(story, tmp_path, results, attempts[1:])).violations != []


def copy_with(story: Story, folder: Path, results: pl.DataFrame, attempts: pl.DataFrame) -> Story:
    """Return the story with other tables of its first run."""
    results.write_parquet(folder / "results.parquet")
    attempts.write_parquet(folder / "attempts.parquet")
    return replace(story, first=folder)


def test_reckoning_is_that_of_the_contract() -> None:
    """A long prompt moves the whole request to its tier; what the tier leaves open comes from the price, by hand."""
    reply = Tokens(
        prompt_tokens=300_000, cached_tokens=100_000, cache_write_tokens=50_000, audio_input_tokens=10_000,
        completion_tokens=2_000, reasoning_tokens=500, audio_output_tokens=100,
    )  # fmt: skip
    price = {
        "input": "1", "cached_input": "0.1", "output": "10", "reasoning": "8", "audio_output": "30",
        "tiers": [{"above_prompt_tokens": 272_000, "input": "2", "output": "15"}], "multipliers": {"flex": "0.5"},
    }  # fmt: skip
    # 140,000 plain, 50,000 written and 10,000 of sound at 2; 100,000 cached at 0.1; 1,400 said at 15, 500 thought at 8,
    # 100 spoken at 30: 0.4 + 0.01 + 0.021 + 0.004 + 0.003 USD, and half of it.
    assert reckon_reply(price, reply, "flex") == Fraction("0.438") / 2


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_tables_are_the_ledgers_bill_at_full_size(tmp_path: Path) -> None:
    """The same over 100,000 rows."""
    assert check_books(tell_story(tmp_path, N_SOAK_SAMPLES)).violations == []
