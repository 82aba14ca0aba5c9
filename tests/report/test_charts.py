"""The geometry of the charts: in range, honest about the unknown, labels that hit nothing."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun.records import ArmSummary, PairTest, Summary
from evalrun.report import charts
from evalrun.report.arms import ArmView, build_arm_views
from tests.report.fake_run import make_rate, make_run, summarize_rows


def make_views(*arms: tuple[str, int, float | None], tests: tuple[PairTest, ...] = ()) -> tuple[ArmView, ...]:
    """Return views of arms given as model name, passed of 100, and USD per 1,000."""
    template: ArmSummary = make_run(n_samples=6).summary.arms[0]
    summaries = tuple(
        replace(template, model=model, prompt="p", pass_rate=make_rate(passed, 100), usd_per_1k=usd)
        for model, passed, usd in arms
    )
    return build_arm_views(replace(summarize_rows([]), arms=summaries, tests=tests))


def make_test(model: str, p_value: float, difference: float = 0.1) -> PairTest:
    """Return a test of a model against the best one."""
    return PairTest(model=model, prompt="p", n_pairs=100, best_only=12, other_only=2, difference=difference,
                    low=difference - 0.05, high=difference + 0.05, p_value=p_value)  # fmt: skip


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_linear_scale_holds_its_values(one: float, other: float) -> None:
    """Both ends are inside the axis, and its ticks are few and ascending."""
    low, high = min(one, other), max(one, other)
    if high - low < 1e-6 * max(abs(low), abs(high), 1e-3):
        return
    scale = charts.fit_linear(low, high)
    margin = 1e-6 * (scale.high - scale.low)
    assert scale.low <= low + margin
    assert scale.high >= high - margin
    assert 2 <= len(scale.values) <= 12
    assert list(scale.values) == sorted(set(scale.values))


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
def test_linear_scale_widens_a_single_value(value: float) -> None:
    """Equal values still have an axis around them."""
    scale = charts.fit_linear(value, value)
    assert 0 < scale.place(value) < 100


@pytest.mark.parametrize(("low", "high", "is_log"), [(1.0, 10.0, False), (1.0, 21.0, True), (0.0, 100.0, False)])
def test_positive_scale_is_logarithmic_beyond_a_factor_of_twenty(low: float, high: float, is_log: bool) -> None:
    """Wide ranges are logarithmic; a range from zero cannot be."""
    assert charts.fit_positive(low, high).is_log is is_log


@given(st.floats(1e-9, 1e6), st.floats(21, 1e6))
def test_logarithmic_scale_holds_its_values(low: float, ratio: float) -> None:
    """Ends are inside the axis, ticks at 1, 2 and 5 or at powers of ten."""
    scale = charts.fit_positive(low, low * ratio)
    assert 0 < scale.place(low) < scale.place(low * ratio) < 100
    assert scale.values


def test_forest_shows_how_far_behind_each_arm_is() -> None:
    """Zero is on the axis, and a larger lag stands further right."""
    views = make_views(
        ("a", 90, 1.0), ("b", 80, 1.0), ("c", 60, 1.0), tests=(make_test("b", 0.2), make_test("c", 0.01, 0.3))
    )
    forest = charts.build_forest(views)
    assert forest is not None
    assert forest.zero is not None
    assert forest.zero <= forest.rows[0].low < forest.rows[0].at < forest.rows[1].at


def test_views_mark_what_the_data_do_not_tell_apart() -> None:
    """An adjusted p of 0.05 or more ties an arm with the best, and the best with it."""
    views = make_views(
        ("a", 90, 1.0), ("b", 88, 1.0), ("c", 60, 1.0), tests=(make_test("b", 0.05), make_test("c", 0.049))
    )
    assert [(view.is_best, view.is_tied) for view in views] == [(True, True), (False, True), (False, False)]


def test_scatter_is_absent_without_costs() -> None:
    """No cost is made up for an arm whose price is unknown."""
    assert charts.build_scatter(make_views(("a", 90, None))) is None


def test_scatter_names_the_arms_it_cannot_place() -> None:
    """An arm of unknown cost is left out and named."""
    scatter = charts.build_scatter(make_views(("a", 90, 2.0), ("b", 80, None)))
    assert scatter is not None
    assert [view.arm.model for view in scatter.missing] == ["b"]


def test_scatter_tells_dominated_arms() -> None:
    """An arm that another beats in price and is not worse than in quality is pale; equals are not."""
    scatter = charts.build_scatter(make_views(("a", 90, 2.0), ("b", 90, 2.0), ("c", 80, 3.0), ("d", 70, 1.0)))
    assert scatter is not None
    assert [point.is_dominated for point in scatter.points] == [False, False, True, False]


def test_scatter_of_free_models_is_drawn() -> None:
    """A known cost of zero is a cost."""
    scatter = charts.build_scatter(make_views(("a", 90, 0.0), ("b", 80, 0.0)))
    assert scatter is not None
    assert {point.x for point in scatter.points} == {0.0}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 100), st.floats(1e-5, 100)), min_size=1, max_size=12))
def test_scatter_stays_within_its_plot(arms: list[tuple[int, float]]) -> None:
    """Points, bars and front are inside the plot whatever the data."""
    scatter = charts.build_scatter(make_views(*((f"m{i}", passed, usd) for i, (passed, usd) in enumerate(arms))))
    assert scatter is not None
    numbers = [n for point in scatter.points for n in (point.x, point.y, point.y_low, point.y_high)]
    numbers += [n for step in scatter.front for n in (step.x1, step.y1, step.x2, step.y2)]
    assert all(0 <= number <= 100 for number in numbers)


def test_scatter_gives_no_label_where_there_is_no_room() -> None:
    """Arms in one place do not get labels on top of each other."""
    scatter = charts.build_scatter(make_views(*((f"a-rather-long-model-name-{i}", 90, 1.0) for i in range(9))))
    assert scatter is not None
    sides = [point.label_side for point in scatter.points]
    assert None in sides
    assert len({side for side in sides if side}) == len([side for side in sides if side])


def test_latencies_are_absent_when_unknown() -> None:
    """Reused rows have no latency, and then there is no chart."""
    views = make_views(("a", 90, 1.0))
    unknown = replace(views[0], arm=replace(views[0].arm, latency_p50_s=None, latency_p95_s=None))
    assert charts.build_latencies([unknown]) is None


def test_heat_map_takes_two_categories() -> None:
    """A single category says nothing that the leaderboard does not."""
    views = make_views(("a", 90, 1.0))
    one = replace(views[0], arm=replace(views[0].arm, categories={"x": make_rate(1, 2)}))
    assert charts.build_heat_map([one]) is None


def test_heat_map_greys_small_and_missing_cells() -> None:
    """Cells with few rows are marked as small, cells with none have no colour."""
    views = make_views(("a", 90, 1.0))
    rates = {"big": make_rate(40, 50), "small": make_rate(1, 9), "none": make_rate(0, 0)}
    heat = charts.build_heat_map([replace(views[0], arm=replace(views[0].arm, categories=rates))])
    assert heat is not None
    cells = {name: row[0] for name, row in heat.rows}
    assert (cells["big"].is_small, cells["small"].is_small, cells["none"].step) == (False, True, None)


def test_summary_without_arms_has_no_chart() -> None:
    """Nothing to show gives nothing, not a crash."""
    summary: Summary = summarize_rows([])
    views = build_arm_views(summary)
    assert (charts.build_forest(views), charts.build_scatter(views), charts.build_latencies(views)) == (
        None,
        None,
        None,
    )
    assert charts.build_rate_intervals(views).rows == ()
