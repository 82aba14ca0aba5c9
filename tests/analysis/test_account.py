"""What runs took, against tables summed by hand, and against plain arithmetic over made-up ones."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalrun.analysis.account import KEYS, AccountTables, add_up, complete_summary
from evalrun.analysis.summary import summarize
from evalrun.records import Status
from tests.analysis.arms import GRADES_SCHEMA, make_failed, make_result

RESULTS_SCHEMA: Mapping[str, Any] = {
    "row_id": pl.String,
    "request_key": pl.String,
    "sample_id": pl.String,
    "category": pl.String,
    "prompt": pl.String,
    "model": pl.String,
    "repeat": pl.Int32,
    "status": pl.String,
    "error_code": pl.String,
    "attempts": pl.Int16,
    "prompt_tokens": pl.Int64,
    "cached_tokens": pl.Int64,
    "cache_write_tokens": pl.Int64,
    "completion_tokens": pl.Int64,
    "reasoning_tokens": pl.Int64,
    "usage_source": pl.String,
    "cost_usd": pl.Float64,
    "billed_usd": pl.Float64,
    "latency_s": pl.Float64,
    "started_at": pl.Datetime("ms", "UTC"),
    "reused_from": pl.String,
    "score": pl.Float64,
    "passed": pl.Boolean,
}
ATTEMPTS_SCHEMA: Mapping[str, Any] = {
    "row_id": pl.String,
    "request_key": pl.String,
    "attempt": pl.Int16,
    "started_at": pl.Datetime("ms", "UTC"),
    "error_code": pl.String,
    "prompt_tokens": pl.Int64,
    "completion_tokens": pl.Int64,
    "usage_source": pl.String,
    "cost_usd": pl.Float64,
}
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
MONEY = ("cost_usd", "billed_usd", "wasted_usd", "estimated_usd", "reused_usd")


@dataclass
class Book:
    """A run's tables while they are written by hand."""

    run_id: str = "r1"
    results: list[dict[str, Any]] = field(default_factory=list)
    judged: list[dict[str, Any]] = field(default_factory=list)
    attempts: list[dict[str, Any]] = field(default_factory=list)

    def add(self, row: Mapping[str, Any], *tries: Mapping[str, Any], is_judge: bool = False) -> None:
        """Add a row and its attempts; the last one gave the outcome, unless it failed."""
        whole = dict.fromkeys(RESULTS_SCHEMA) | {"request_key": f"asks {row['row_id']}"} | dict(row)
        whole["attempts"] = len(tries)
        costs = [each["cost_usd"] for each in tries]
        whole["billed_usd"] = None if None in costs else float(sum(map(Decimal, map(str, costs))))
        whole["started_at"] = tries[0]["started_at"] if tries else None
        (self.judged if is_judge else self.results).append(whole)
        self.attempts += [
            {"row_id": row["row_id"], "request_key": whole["request_key"], "attempt": n, **each}
            for n, each in enumerate(tries, start=1)
        ]

    def close(self) -> AccountTables:
        """Return the tables."""
        return AccountTables(
            run_id=self.run_id,
            results=pl.LazyFrame(self.results, schema=RESULTS_SCHEMA),
            attempts=pl.LazyFrame(self.attempts, schema=ATTEMPTS_SCHEMA),
            judge=pl.LazyFrame(self.judged, schema=RESULTS_SCHEMA) if self.judged else None,
        )


def make_try(cost_usd: float | None = 0.001, **columns: Any) -> dict[str, Any]:
    """Return an attempt; an answered one unless told otherwise."""
    return {
        "started_at": NOON, "error_code": None, "prompt_tokens": 10, "completion_tokens": 5,
        "usage_source": "reported", "cost_usd": cost_usd,
    } | columns  # fmt: skip


def make_failure(cost_usd: float | None = 0.0, code: str = "reset", **columns: Any) -> dict[str, Any]:
    """Return an attempt that failed."""
    nothing = {"prompt_tokens": None, "completion_tokens": None, "usage_source": "missing"}
    return make_try(cost_usd, error_code=code, **(nothing | columns))


def read_total(*books: Book) -> dict[str, Any]:
    """Return the figures of all groups together."""
    return add_up([book.close() for book in books]).total.row(0, named=True)


def test_tokens_stand_in_buckets_that_share_none() -> None:
    """Cached and written tokens are no plain input, reasoning is no plain output; a part is never above its whole."""
    book = Book()
    book.add(make_result("m", 1, True, prompt_tokens=100, cached_tokens=60, cache_write_tokens=10), make_try())
    book.add(make_result("m", 2, True, completion_tokens=50, reasoning_tokens=30), make_try())
    book.add(make_result("m", 3, True, prompt_tokens=7, cached_tokens=9, cache_write_tokens=9), make_try())
    total = read_total(book)
    names = ("uncached_input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
    assert [total[name] for name in names] == [30 + 10, 60 + 7, 10, 5 + 20 + 5, 30]


def test_attempts_that_gave_no_outcome_are_wasted() -> None:
    """A retry, an error and a cut stream are billed and wasted, tokens and all; the answer is not."""
    book = Book()
    cut = make_failure(0.002, "stream_incomplete", prompt_tokens=10, completion_tokens=3, usage_source="estimated")
    book.add(make_result("m", 1, True, cost_usd=0.004), cut, make_failure(), make_try(0.004))
    book.add(make_failed("m", 2, "error", "reset"), make_failure(0.001, usage_source="estimated"))
    total = read_total(book)
    assert [total[name] for name in MONEY] == [0.004, 0.007, 0.003, 0.003, 0.0]
    assert (total["requests"], total["rows"], total["answered"]) == (4, 2, 1)
    assert (total["wasted_prompt_tokens"], total["wasted_completion_tokens"]) == (10, 3)


def test_answer_to_a_question_that_was_edited_is_wasted() -> None:
    """Only the answer to what the row asks now is its outcome; the older one was paid for in vain."""
    book = Book()
    book.add(make_result("m", 1, True, cost_usd=0.004), make_try(0.004))
    book.attempts.append({"row_id": book.results[0]["row_id"], "request_key": "older", "attempt": 1, **make_try(0.003)})
    total = read_total(book)
    assert [total[name] for name in MONEY] == [0.004, 0.007, 0.003, 0.0, 0.0]


def test_row_that_the_job_no_longer_has_is_wasted_under_no_name() -> None:
    """Its attempts are billed; the tables do not know its model."""
    book = Book()
    book.add(make_result("m", 1, True), make_try())
    book.attempts.append({"row_id": "gone", "request_key": "k", "attempt": 1, **make_try(0.5)})
    groups = add_up([book.close()], ["model"]).groups
    assert groups.select("model", "billed_usd", "wasted_usd").rows() == [("m", 0.001, 0.0), (None, 0.5, 0.5)]


def test_reused_row_costs_what_it_did_and_is_billed_nothing() -> None:
    """What an older run paid stands in the cost, apart; tokens of this run are none."""
    book = Book()
    book.add(make_result("m", 1, True, cost_usd=0.25, reused_from="r0"))
    total = read_total(book)
    assert [total[name] for name in MONEY] == [0.25, 0.0, 0.0, 0.0, 0.25]
    assert (total["requests"], total["reused"], total["uncached_input_tokens"]) == (0, 1, 0)
    assert (total["reused_prompt_tokens"], total["reused_completion_tokens"]) == (10, 5)
    assert total["usd_per_correct"] == 0.25


def test_unknown_is_null_and_counted() -> None:
    """Nothing known is null, not 0, also beside attempts that certainly cost nothing; a known part is still summed."""
    unknown = Book()
    unknown.add(make_result("m", 1, True, cost_usd=None), make_failure(0.0), make_failure(None), make_try(None))
    total = read_total(unknown)
    assert [total[name] for name in MONEY] == [None, None, None, 0.0, 0.0]
    assert (total["n_cost_unknown"], total["n_billed_unknown"]) == (1, 2)
    assert (total["usd_per_1k"], total["usd_per_correct"]) == (None, None)
    known = Book(run_id="r2")
    known.add(make_result("m", 2, True, cost_usd=0.5), make_try(0.5))
    both = read_total(unknown, known)
    assert [both[name] for name in MONEY] == [0.5, 0.5, None, 0.0, 0.0]
    assert (both["n_billed_unknown"], both["usd_per_1k"]) == (2, None)


def test_missing_usage_is_counted_where_it_was_to_be_expected() -> None:
    """An answer without counts lacks them; a refusal that certainly cost nothing has none to lack."""
    book = Book()
    nothing = {"prompt_tokens": None, "completion_tokens": None, "usage_source": "missing"}
    book.add(make_result("m", 1, True, cost_usd=None, **nothing), make_try(None))
    book.add(make_result("m", 2, None, status="filtered", cost_usd=0.0, **nothing), make_try(0.0))
    assert read_total(book)["n_usage_missing"] == 1


@pytest.mark.parametrize("cost_usd", [float("nan"), float("inf"), 1e300, -1e300])
def test_amount_that_nobody_asks_is_unknown(cost_usd: float) -> None:
    """What is no amount of money spoils no sum."""
    book = Book()
    book.add(make_result("m", 1, True, cost_usd=cost_usd), make_try(cost_usd))
    book.add(make_result("m", 2, True, cost_usd=0.5), make_try(0.5))
    total = read_total(book)
    assert (total["cost_usd"], total["billed_usd"]) == (0.5, 0.5)
    assert (total["n_cost_unknown"], total["n_billed_unknown"]) == (1, 1)


def test_judge_is_told_apart_from_candidates() -> None:
    """Requests of judge.parquet have the role `judge`; all others are candidates."""
    book = Book()
    book.add(make_result("m", 1, True), make_try())
    book.add(make_result("j", "judged", None, cost_usd=0.125), make_failure(0.25), make_try(0.125), is_judge=True)
    groups = add_up([book.close()], ["role"]).groups
    assert groups.select("role", "requests", "cost_usd", "billed_usd").rows() == [
        ("candidate", 1, 0.001, 0.001),
        ("judge", 2, 0.125, 0.375),
    ]


def test_day_is_that_of_the_attempt() -> None:
    """A row that is answered after midnight costs on the new day; what failed before it was wasted on the old one."""
    book = Book()
    morning = NOON + timedelta(hours=20)
    book.add(make_result("m", 1, True, cost_usd=0.5), make_failure(0.25), make_try(0.5, started_at=morning))
    book.add(make_result("m", 2, True, cost_usd=0.125, reused_from="r0"))
    groups = add_up([book.close()], ["day"]).groups
    assert groups.select("day", "requests", "rows", *MONEY).rows() == [
        (date(2026, 11, 23), 1, 0, 0.0, 0.25, 0.25, 0.0, 0.0),
        (date(2026, 11, 24), 1, 1, 0.5, 0.5, 0.0, 0.0, 0.0),
        (None, 0, 1, 0.125, 0.0, 0.0, 0.0, 0.125),
    ]


def test_same_row_of_two_runs_is_two_rows() -> None:
    """Rows are known by their run: what one run paid is not taken for the other's."""
    books = [Book(run_id="r1"), Book(run_id="r2")]
    for book, usd in zip(books, (0.25, 0.5), strict=True):
        book.add(make_result("m", 1, True, cost_usd=usd), make_try(usd))
    groups = add_up([book.close() for book in books], ["run"]).groups
    assert groups.select("run", "rows", "billed_usd").rows() == [("r1", 1, 0.25), ("r2", 1, 0.5)]


def test_sum_is_exact_whatever_the_order() -> None:
    """Ten thousand amounts of 1e-12 USD beside a large one lose nothing."""
    book = Book()
    amounts = [0.1, 0.2, 1e-12, 8000.000000000001] * 100
    for number, usd in enumerate(amounts):
        book.add(make_result("m", number, True, cost_usd=usd), make_try(usd))
    expected = float(sum(Decimal(repr(usd)).quantize(Decimal("1e-12")) for usd in amounts))
    assert read_total(book)["billed_usd"] == expected
    book.attempts.reverse()
    assert read_total(book)["billed_usd"] == expected


def test_run_without_rows_took_nothing() -> None:
    """Empty tables are one group of zeros, not a failure, and no group when asked by model."""
    total = read_total(Book())
    assert (total["requests"], total["billed_usd"], total["usd_per_1k"]) == (0, 0.0, None)
    assert add_up([Book().close()], ["model"]).groups.height == 0


def test_summary_tells_what_was_billed() -> None:
    """Each arm has its own part; the run has also what rows took that its job no longer has."""
    book = Book()
    book.add(make_result("m", 1, True, cost_usd=0.5), make_failure(0.25, usage_source="estimated"), make_try(0.5))
    book.add(make_result("n", 1, True, cost_usd=None), make_try(None))
    book.attempts.append({"row_id": "gone", "request_key": "k", "attempt": 1, **make_try(0.125)})
    tables = book.close()
    plain = summarize(tables.results, pl.LazyFrame([], schema=GRADES_SCHEMA), is_simulated=False)
    summary = complete_summary(plain, tables)
    arms = {
        arm.model: (arm.billed_usd, arm.wasted_usd, arm.estimated_usd, arm.n_billed_unknown) for arm in summary.arms
    }
    assert arms == {"m": (0.75, 0.25, 0.25, 0), "n": (None, 0.0, 0.0, 1)}
    run = (summary.billed_usd, summary.wasted_usd, summary.estimated_usd, summary.n_billed_unknown)
    assert run == (0.875, 0.375, 0.25, 1)
    assert plain.billed_usd is None


AMOUNTS = st.one_of(st.none(), st.integers(0, 10**13).map(lambda pico: round(pico * 1e-12, 12)))
COUNTS = st.one_of(st.none(), st.integers(0, 10**6))
NAMES = st.sampled_from(["a", "b", "=x", ""])
MOMENTS = st.integers(0, 72).map(lambda hours: NOON + timedelta(hours=hours))
FAILURES = st.builds(
    make_failure,
    AMOUNTS,
    usage_source=st.sampled_from(["reported", "estimated", "missing"]),
    started_at=MOMENTS,
    prompt_tokens=COUNTS,
    completion_tokens=COUNTS,
)


@st.composite
def books(draw: st.DrawFn) -> Book:
    """Draw a run with rows of every kind, answered, failed, reused, judged, and attempts of rows that are gone."""
    book = Book(run_id=draw(st.sampled_from(["r1", "r2"])))
    for number in range(draw(st.integers(0, 6))):
        names = {"category": draw(st.one_of(st.none(), NAMES)), "prompt": draw(NAMES)}
        counts = {name: draw(COUNTS) for name in RESULTS_SCHEMA if name.endswith("_tokens")}
        usd, status, failed = draw(AMOUNTS), draw(st.sampled_from(list(Status))), draw(st.lists(FAILURES, max_size=2))
        row = make_result(draw(NAMES), number, draw(st.booleans()), status=status, cost_usd=usd, **names, **counts)
        is_finished = status not in {"error", "pending"}
        if is_finished and draw(st.booleans()):
            book.add({**row, "reused_from": "r0"}, *failed)
        elif is_finished:
            answer = make_try(usd, usage_source=draw(st.sampled_from(["reported", "estimated"])))
            book.add(row, *failed, answer | {"started_at": draw(MOMENTS)}, is_judge=draw(st.booleans()))
        else:
            book.add({**row, "passed": None}, *failed)
    for number in range(draw(st.integers(0, 2))):
        book.attempts.append({"row_id": f"gone {number}", "request_key": "k", "attempt": 1, **draw(FAILURES)})
    return book


def add_plainly(amounts: Sequence[float | None]) -> Decimal:
    """Return the exact sum of what is known."""
    return sum((Decimal(repr(usd)) for usd in amounts if usd is not None), Decimal(0))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(books(), min_size=1, max_size=2), st.lists(st.sampled_from(KEYS), unique=True))
def test_every_grouping_adds_up_to_the_attempts(runs: list[Book], by: list[str]) -> None:
    """Whatever the keys: groups sum to the total, the total to the attempts, and billed - wasted = cost - reused."""
    groups = add_up([run.close() for run in runs], by).groups
    attempts = [each for run in runs for each in run.attempts]
    assert sum(groups["requests"]) == len(attempts)
    assert sum(groups["rows"]) == sum(len(run.results) + len(run.judged) for run in runs)
    estimated = [each["cost_usd"] for each in attempts if each["usage_source"] == "estimated"]
    for name, amounts in (("billed_usd", [each["cost_usd"] for each in attempts]), ("estimated_usd", estimated)):
        assert sum(groups[name].drop_nulls()) == pytest.approx(float(add_plainly(amounts)), abs=1e-9)
    unknown = sum(each["cost_usd"] is None for each in attempts)
    assert sum(groups["n_billed_unknown"]) == unknown
    for group in groups.iter_rows(named=True):
        billed, wasted, cost, reused = (
            group[name] or 0.0 for name in ("billed_usd", "wasted_usd", "cost_usd", "reused_usd")
        )
        assert billed - wasted == pytest.approx(cost - reused, abs=1e-9)
        assert min(group[name] for name in groups.columns if name.endswith("_tokens")) >= 0


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(books())
def test_tokens_sum_to_those_of_the_rows_asked_here(book: Book) -> None:
    """The buckets of input sum to prompt tokens, those of output to completion tokens; no token is in two."""
    expected: dict[str, int] = defaultdict(int)
    for row in [*book.results, *book.judged]:
        if row["reused_from"] is None and row["status"] not in {"error", "pending"}:
            expected["prompt"] += row["prompt_tokens"] or 0
            expected["completion"] += row["completion_tokens"] or 0
    total = read_total(book)
    read = total["uncached_input_tokens"] + total["cache_read_tokens"] + total["cache_write_tokens"]
    assert (read, total["output_tokens"] + total["reasoning_tokens"]) == (expected["prompt"], expected["completion"])
