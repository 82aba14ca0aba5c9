"""A run in figures, against tables summed by hand."""

from pathlib import Path
from typing import Any

import pytest

from evalrun.analysis import stats
from evalrun.analysis.headline import format_p
from evalrun.analysis.summary import NO_CATEGORY, summarize
from evalrun.records import Status, Summary
from tests.analysis.arms import make_failed, make_frames, make_grade, make_result


def summarize_rows(results: list[dict[str, Any]], grades: list[dict[str, Any]] | None = None) -> Summary:
    """Return the summary of hand-written rows."""
    return summarize(*make_frames(results, grades or []), is_simulated=False)


def make_arm(model: str, outcome: str, **columns: Any) -> list[dict[str, Any]]:
    """Return rows from a string of 1 (passed), 0 (failed) and ? (ungraded)."""
    return [
        make_result(model, i, {"1": True, "0": False, "?": None}[mark], **columns) for i, mark in enumerate(outcome)
    ]


def test_arm_counts_every_kind_of_row_beside_the_rate() -> None:
    """Unanswered rows are counted and take no part in the rate."""
    rows = [
        make_result("m", 1, True),
        make_result("m", 2, False, status="truncated"),
        make_result("m", 3, False, status="empty"),
        make_result("m", 4, True, status="refused"),
        make_failed("m", 5, "filtered", None),
        make_failed("m", 6, "error", "server_error"),
        make_failed("m", 7, "pending", "lane_stopped"),
        make_failed("m", 8, "pending", "auth"),
    ]
    arm = summarize_rows(rows).arms[0]
    assert (arm.n_total, arm.n_scored, arm.n_samples) == (8, 4, 4)
    assert (arm.n_truncated, arm.n_empty, arm.n_refused, arm.n_filtered, arm.n_errors, arm.n_pending) == (
        1,
        1,
        1,
        1,
        1,
        2,
    )
    assert (arm.pass_rate.passed, arm.pass_rate.n, arm.pass_rate.value) == (2, 4, 0.5)
    assert (arm.pass_rate.low, arm.pass_rate.high) == stats.wilson(2, 4)
    assert arm.mean_score == 0.5


def test_statuses_list_every_status_and_errors_the_codes() -> None:
    """A status that did not occur is 0, not absent; errors come most frequent first."""
    rows = [make_failed("m", i, "error", code) for i, code in enumerate(["reset", "dns", "reset"])]
    summary = summarize_rows([*rows, make_failed("m", 9, "pending", "budget"), make_result("m", 10, True)])
    assert summary.statuses == {**dict.fromkeys((s.value for s in Status), 0), "error": 3, "pending": 1, "ok": 1}
    assert list(summary.errors.items()) == [("reset", 2), ("budget", 1), ("dns", 1)]


def test_unknown_cost_stays_unknown() -> None:
    """One unknown cost makes the averages unknown; the known part is still summed."""
    rows = [make_result("m", 1, True), make_result("m", 2, True, cost_usd=None)]
    arm = summarize_rows(rows).arms[0]
    assert (arm.cost_usd, arm.n_cost_unknown, arm.usd_per_1k, arm.usd_per_correct) == (0.001, 1, None, None)
    nothing = summarize_rows([make_result("m", 1, True, cost_usd=None)]).arms[0]
    assert nothing.cost_usd is None


def test_known_cost_is_averaged() -> None:
    """USD per 1,000 answers and per right answer."""
    rows = [make_result("m", 1, True), make_result("m", 2, False), make_failed("m", 3, "error", "dns")]
    arm = summarize_rows(rows).arms[0]
    assert arm.usd_per_1k == pytest.approx(1.0)
    assert arm.usd_per_correct == pytest.approx(0.002)
    assert summarize_rows([make_result("m", 1, False)]).arms[0].usd_per_correct is None
    assert summarize_rows([make_result("m", 1, False, cost_usd=0.0)]).arms[0].usd_per_1k == 0.0


def test_tokens_and_attempts_are_summed_and_unknown_stays_unknown() -> None:
    """Counts of rows without usage are told apart from 0."""
    rows = [
        make_result("m", 1, True, attempts=3),
        make_result("m", 2, True, prompt_tokens=None, usage_source="missing"),
    ]
    arm = summarize_rows(rows).arms[0]
    assert (arm.prompt_tokens, arm.completion_tokens, arm.n_usage_missing, arm.attempts) == (10, 10, 1, 4)
    bare = summarize_rows([make_result("m", 1, True, prompt_tokens=None)]).arms[0]
    assert bare.prompt_tokens is None


def test_latency_is_that_of_answers_given_in_this_run() -> None:
    """Reused rows and errors have no say."""
    rows = [make_result("m", i, True, latency_s=i / 10) for i in range(1, 12)]
    rows.append(make_result("m", 20, True, latency_s=99.0, reused_from="old"))
    rows.append(make_result("m", 21, None, status="error", error_code="server_error", latency_s=50.0))
    arm = summarize_rows(rows).arms[0]
    assert arm.latency_p50_s == pytest.approx(0.6)
    assert arm.latency_p95_s == pytest.approx(1.05)
    assert summarize_rows([make_failed("m", 1, "error", "dns")]).arms[0].latency_p95_s is None


def test_categories_have_rates_of_their_own() -> None:
    """Each category with its interval; rows without one are told apart; none at all gives no table."""
    rows = [
        make_result("m", 1, True, category="a"),
        make_result("m", 2, False, category="a"),
        make_result("m", 3, True, category="b"),
        make_result("m", 4, True),
    ]
    categories = summarize_rows(rows).arms[0].categories
    assert {name: (rate.passed, rate.n) for name, rate in categories.items()} == {
        NO_CATEGORY: (1, 1),
        "a": (1, 2),
        "b": (1, 1),
    }
    assert (categories["a"].low, categories["a"].high) == stats.wilson(1, 2)
    assert summarize_rows([make_result("m", 1, True)]).arms[0].categories == {}


def test_metrics_are_mean_scores_per_arm() -> None:
    """Void grades take no part in a metric."""
    rows = [*make_arm("m", "110"), *make_arm("k", "1")]
    grades = [make_grade(row, row["passed"], metric="tone") for row in rows]
    grades[0] |= {"score": None, "passed": None}
    metrics = {arm.model: arm.metrics for arm in summarize_rows(rows, grades).arms}
    assert metrics == {"m": {"tone": 0.5}, "k": {"tone": 1.0}}


def test_hard_failures_and_undecided_hard_grades_count_samples() -> None:
    """A sample counts once however many repeats break it; an undecided one is told apart."""
    rows = [make_result("m", sample, True, repeat=repeat) for sample in range(4) for repeat in range(2)]
    grades = [make_grade(row, True, hard=True) for row in rows]
    grades[0]["passed"] = grades[1]["passed"] = grades[2]["passed"] = False
    grades[3]["passed"] = grades[4]["passed"] = None
    arm = summarize_rows(rows, grades).arms[0]
    assert (arm.n_hard_failures, arm.n_hard_undecided) == (2, 1)


def test_ungraded_rows_are_those_a_grader_could_not_decide() -> None:
    """A row that another grader failed is decided; one to which no grader applies is not ungraded."""
    rows = make_arm("m", "1?0?")
    grades = [
        make_grade(rows[0], True),
        make_grade(rows[1], None),
        make_grade(rows[2], None),
        make_grade(rows[2], False),
    ]
    arm = summarize_rows(rows, grades).arms[0]
    assert (arm.n_scored, arm.n_ungraded) == (2, 1)


def test_interval_with_repeats_is_over_samples() -> None:
    """Three repeats of four samples are four observations, not twelve."""
    marks = ["111", "110", "100", "000"]
    rows = [make_result("m", i, mark == "1", repeat=k) for i, text in enumerate(marks) for k, mark in enumerate(text)]
    arm = summarize_rows(rows).arms[0]
    assert (arm.n_scored, arm.n_samples, arm.pass_rate.value) == (12, 4, 0.5)
    assert (arm.pass_rate.low, arm.pass_rate.high) == pytest.approx(tuple(stats.wilson(2.0, 4)))


def test_arms_are_sorted_best_first_and_unscored_last() -> None:
    """Ties go by name; an arm without a verdict comes last."""
    rows = [*make_arm("b", "10"), *make_arm("a", "10"), *make_arm("none", "??"), *make_arm("top", "11")]
    assert [arm.model for arm in summarize_rows(rows).arms] == ["top", "a", "b", "none"]


def test_best_arm_is_tested_against_each_other_by_exact_mcnemar() -> None:
    """Counts, Tango interval and Holm-adjusted p-values are those of the pairs."""
    rows = [*make_arm("a", "1" * 40), *make_arm("b", "1" * 30 + "0" * 10), *make_arm("c", "1" * 37 + "0" * 3)]
    summary = summarize_rows(rows)
    assert [(test.model, test.best_only, test.other_only, test.n_pairs) for test in summary.tests] == [
        ("c", 3, 0, 40),
        ("b", 10, 0, 40),
    ]
    assert summary.best == summary.tests[0]
    raw = [stats.mcnemar_exact(0, 3).two_sided, stats.mcnemar_exact(0, 10).two_sided]
    assert [test.p_value for test in summary.tests] == pytest.approx(stats.holm(raw))
    assert (summary.tests[1].low, summary.tests[1].high) == tuple(stats.tango(stats.Table(30, 0, 10, 0)))


def test_pairs_are_samples_scored_on_both_sides() -> None:
    """A sample that one side lacks makes no pair."""
    rows = [*make_arm("a", "1111?"), *make_arm("b", "1?001")]
    assert summarize_rows(rows).tests[0].n_pairs == 3


def test_repeats_are_compared_by_sample_means() -> None:
    """With repeats the test is the sign flip of the samples' mean differences."""
    left = [make_result("a", i, k < 3, repeat=k) for i in range(8) for k in range(3)]
    right = [make_result("b", i, k < i % 3, repeat=k) for i in range(8) for k in range(3)]
    test = summarize_rows([*left, *right]).tests[0]
    assert (test.n_pairs, test.best_only, test.other_only) == (8, 8, 0)
    assert test.difference == pytest.approx(sum(3 - i % 3 for i in range(8)) / 24)
    assert test.p_value == pytest.approx(2 / 2**8)


def test_headline_names_the_best_arm_and_its_lead() -> None:
    """A shown lead is told with rate, interval, lead and p."""
    rows = [*make_arm("careful", "1" * 90 + "0" * 10), *make_arm("hasty", "1" * 60 + "0" * 40)]
    headline = summarize_rows(rows).headline
    assert headline.startswith("careful is best: 90.0 % (90 of 100; 95 % CI ")
    assert "+30.0 points ahead of hasty" in headline
    assert "p < 0.001" in headline


def test_headline_says_when_the_data_do_not_tell_and_what_would() -> None:
    """A tie names its arms and the number of samples that would help."""
    rows = [*make_arm("careful", "1" * 20 + "01"), *make_arm("steady", "1" * 20 + "10")]
    headline = summarize_rows(rows).headline
    assert headline.startswith("The data do not tell careful and steady apart: careful passes 95.5 %")
    needed = stats.required_n(2 / 22, 0.02, sides=2)
    assert needed == 1782
    assert "about 1,800 samples would be needed to show a 2-point difference" in headline


def test_headline_names_the_tied_group_only() -> None:
    """Arms that are shown to be behind are not part of the tie."""
    arms = {"a": "1" * 99 + "0", "b": "1" * 98 + "00", "c": "1" * 50 + "0" * 50}
    headline = summarize_rows([row for model, marks in arms.items() for row in make_arm(model, marks)]).headline
    assert "tell a and b apart" in headline
    assert "all others are behind" in headline


def test_headline_shortens_a_long_tie() -> None:
    """Six equal arms are not all spelled out."""
    headline = summarize_rows([row for model in "abcdef" for row in make_arm(model, "1100")]).headline
    assert "tell a, b, c and 3 more apart" in headline


def test_headline_of_equal_arms_with_enough_samples_says_so() -> None:
    """Two identical arms over many samples agree."""
    rows = [*make_arm("a", "1" * 900 + "0" * 100), *make_arm("b", "1" * 900 + "0" * 100)]
    headline = summarize_rows(rows).headline
    assert "with these 1,000 samples a difference of" in headline


def test_headline_of_equal_arms_with_repeats() -> None:
    """Repeats that agree everywhere are said to agree."""
    rows = [make_result(m, i, k == 0, repeat=k) for m in "ab" for i in range(5) for k in range(2)]
    assert "they agree on all 5 samples" in summarize_rows(rows).headline


def test_headline_names_prompts_where_there_are_several() -> None:
    """Two prompts of one model are told apart."""
    rows = [*make_arm("m", "1" * 50, prompt="stepwise"), *make_arm("m", "0" * 50, prompt="terse")]
    headline = summarize_rows(rows).headline
    assert headline.startswith("m with prompt stepwise is best")
    assert "ahead of m with prompt terse" in headline


def test_headline_of_one_arm_is_its_rate() -> None:
    """With nothing to compare, the rate and its interval."""
    assert summarize_rows(make_arm("m", "1110")).headline == "m passes 75.0 % (3 of 4; 95 % CI 30.1–95.4)."


def test_headline_without_common_samples() -> None:
    """Arms that share no scored sample are not compared."""
    summary = summarize_rows([make_result("a", 1, True), make_result("b", 2, False)])
    assert (summary.best, summary.tests) == (None, ())
    assert "no other arm has a scored sample in common" in summary.headline


@pytest.mark.parametrize("rows", [[], [make_failed("m", 1, "error", "dns")], make_arm("m", "??")])
def test_headline_when_nothing_was_scored(rows: list[dict[str, Any]]) -> None:
    """An empty run, an outage and a run without graders rank nothing."""
    summary = summarize_rows(rows)
    assert summary.headline.startswith("Nothing was scored")
    assert summary.best is None
    assert all(arm.pass_rate.value is None for arm in summary.arms)


def test_summary_does_not_depend_on_the_order_of_rows() -> None:
    """Rows of one sample may stand apart: figures and tests are those of rows in plan order."""
    models = {"a": "1101", "b": "1001"}
    rows = [
        make_result(model, sample, mark == "1", repeat=repeat, category="even" if sample % 2 == 0 else "odd")
        for sample in range(4)
        for model, marks in models.items()
        for repeat, mark in enumerate(marks[sample] + "1")
    ]
    grades = [make_grade(row, row["passed"], metric="x", hard=True) for row in rows]
    expected = summarize_rows(rows, grades)
    assert expected.arms[0].n_samples == 4
    for stride in (3, 5, 7):
        shuffled = [rows[number * stride % len(rows)] for number in range(len(rows))]
        assert summarize_rows(shuffled, grades) == expected


def test_summary_reads_parquet_files(tmp_path: Path) -> None:
    """Paths and frames give the same summary."""
    rows = [*make_arm("a", "110"), *make_arm("b", "100")]
    results, grades = make_frames(rows, [make_grade(rows[0], True, metric="x", hard=True)])
    results.sink_parquet(tmp_path / "results.parquet")
    grades.sink_parquet(tmp_path / "grades.parquet")
    read = summarize(tmp_path / "results.parquet", tmp_path / "grades.parquet", is_simulated=True)
    assert read.arms == summarize(results, grades, is_simulated=True).arms
    assert read.is_simulated is True


@pytest.mark.parametrize(("p", "text"), [(0.0001, "< 0.001"), (0.0312, "= 0.031"), (0.5, "= 0.50"), (1.0, "= 1.00")])
def test_p_value_is_written_short(p: float, text: str) -> None:
    """Two digits are enough."""
    assert format_p(p) == text


def test_error_has_no_cost_that_an_arm_could_show() -> None:
    """What the last attempt of an error may have taken is waste; the arm's cost is that of its outcomes."""
    rows = [make_result("m", 1, True), make_failed("m", 2, "error", "reset") | {"cost_usd": 0.5}]
    assert summarize_rows(rows).arms[0].cost_usd == 0.001
    filtered = make_failed("m", 3, "filtered", None) | {"cost_usd": 0.25}
    assert summarize_rows([*rows, filtered]).arms[0].cost_usd == 0.251
