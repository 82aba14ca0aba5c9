"""Where the marks of each chart stand: geometry only, drawn by the templates as inline SVG.

Arm views enter, positions leave: x in percent of the plot's width, y in percent of its height, so that a chart fills
any width while its text keeps its size. Invariant: axes fit the data, and no chart invents a value that is unknown.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from unicodedata import east_asian_width

from evalrun.records import Rate
from evalrun.report.arms import ArmView
from evalrun.report.figures import choose_latency_unit, format_percent
from evalrun.report.text import make_visible

LOG_ABOVE_RATIO = 20
"""An axis whose largest value is more than this many times its smallest is logarithmic."""

MAX_LOG_TICKS = 7
"""A logarithmic axis with more marks than this keeps those at powers of ten."""

SMALL_N = 10
"""Cells of the heat map with fewer scored rows are greyed."""

HEAT_STEPS = 10
"""Colours of the heat map, 0 to this."""

_PLOT_WIDTH, _PLOT_HEIGHT = 480.0, 300.0
"""Nominal size of the scatter's plot in pixels, for placing labels; the plot itself stretches."""

_CHAR_WIDTH = 6.8
"""Width of an average letter of a label, in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A mark on an axis."""

    position: float
    """Percent of the axis."""
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A value's place on an axis."""

    low: float
    high: float
    is_log: bool = False
    values: tuple[float, ...] = ()
    """Values of the ticks."""

    def place(self, value: float) -> float:
        """Return the value's position in percent, 0 at the low end, clamped to the axis."""
        low, high = self.low, self.high
        if self.is_log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        share = (value - low) / (high - low)
        return round(100 * min(max(share, 0.0), 1.0), 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A point with its interval on a shared axis, for one arm."""

    view: ArmView
    at: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalChart:
    """Points with intervals, one row an arm."""

    rows: tuple[Interval, ...]
    ticks: tuple[Tick, ...]
    unit: str = ""
    """Unit of the tick labels; "" when they carry their own."""
    zero: float | None = None
    """Position of zero; None on an axis where zero is nothing special."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScatterPoint:
    """One arm in the scatter."""

    view: ArmView
    x: float
    y: float
    """Percent from the top, as SVG counts."""
    y_low: float
    y_high: float
    is_dominated: bool
    """True when another arm is at least as good and at least as cheap, and better in one of them."""
    label_side: str | None
    """`right`, `left`, either with `-up` or `-down`, `above`, `below`; None when a label would hit something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A straight piece of the Pareto front."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter:
    """Pass rate over cost."""

    points: tuple[ScatterPoint, ...]
    front: tuple[Step, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    is_log: bool
    missing: tuple[ArmView, ...]
    """Arms that cannot be placed: cost unknown, or nothing scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatCell:
    """Pass rate of one arm in one category."""

    view: ArmView
    rate: Rate | None
    """None when the arm has no row there."""
    step: int | None
    """Colour 0..HEAT_STEPS; None when nothing is scored."""
    is_small: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """Category by arm."""

    rows: tuple[tuple[str, tuple[HeatCell, ...]], ...]
    low: float
    high: float
    """Pass rates where the colours begin and end."""


def build_rate_intervals(views: Sequence[ArmView]) -> IntervalChart:
    """Return each arm's pass rate with its Wilson interval. An arm with nothing scored has no row."""
    known = [view for view in views if view.arm.pass_rate.value is not None]
    scale = _fit_rates([view.arm.pass_rate for view in known])
    rows = tuple(
        Interval(
            view=view,
            at=scale.place(view.arm.pass_rate.value or 0.0),
            low=scale.place(view.arm.pass_rate.low),
            high=scale.place(view.arm.pass_rate.high),
        )
        for view in known
    )
    return IntervalChart(rows=rows, ticks=_make_percent_ticks(scale))


def build_forest(views: Sequence[ArmView]) -> IntervalChart | None:
    """Return how far each arm is behind the best one, with the paired interval; None when nothing was tested."""
    tested = [(view, view.test) for view in views if view.test is not None]
    if not tested:
        return None
    low = min(0.0, *(test.low for _, test in tested))
    high = max(0.0, *(test.high for _, test in tested))
    scale = fit_linear(low * 100, high * 100)
    rows = tuple(
        Interval(
            view=view,
            at=scale.place(test.difference * 100),
            low=scale.place(test.low * 100),
            high=scale.place(test.high * 100),
        )
        for view, test in tested
    )
    return IntervalChart(
        rows=rows, ticks=_make_ticks(scale, [_trim(value) for value in scale.values]), zero=scale.place(0.0)
    )


def build_latencies(views: Sequence[ArmView]) -> IntervalChart | None:
    """Return each arm's median (`at`, `low`) and 95th percentile (`high`) latency; None when none is known."""
    known = [(view, view.arm.latency_p50_s, view.arm.latency_p95_s) for view in views]
    pairs = [(view, p50, p95) for view, p50, p95 in known if p50 is not None and p95 is not None]
    if not pairs:
        return None
    unit = choose_latency_unit([p95 for _, _, p95 in pairs])
    smallest, largest = min(p50 for _, p50, _ in pairs), max(p95 for _, _, p95 in pairs)
    scale = fit_positive(smallest, largest)
    rows = tuple(
        Interval(view=view, at=scale.place(p50), low=scale.place(p50), high=scale.place(p95))
        for view, p50, p95 in pairs
    )
    labels = [_trim(value * 1000) if unit == "ms" else _trim(value) for value in scale.values]
    return IntervalChart(rows=rows, ticks=_make_ticks(scale, labels), unit=unit)


def build_scatter(views: Sequence[ArmView]) -> Scatter | None:
    """Return pass rate over USD per 1,000 answers; None when no arm has both."""
    triples = [(view, view.arm.usd_per_1k, view.arm.pass_rate.value) for view in views]
    placed = [(view, cost, rate) for view, cost, rate in triples if cost is not None and rate is not None]
    if not placed:
        return None
    x_scale = fit_positive(min(cost for _, cost, _ in placed), max(cost for _, cost, _ in placed))
    y_scale = _fit_rates([view.arm.pass_rate for view, _, _ in placed])
    points = [
        ScatterPoint(
            view=view,
            x=x_scale.place(cost),
            y=100 - y_scale.place(rate),
            y_low=100 - y_scale.place(view.arm.pass_rate.low),
            y_high=100 - y_scale.place(view.arm.pass_rate.high),
            is_dominated=any(_dominates(other, (cost, rate)) for _, *other in placed),
            label_side=None,
        )
        for view, cost, rate in placed
    ]
    return Scatter(
        points=_place_labels(points),
        front=_draw_front(points),
        x_ticks=_make_ticks(x_scale, [format_usd_tick(value) for value in x_scale.values]),
        y_ticks=_make_percent_ticks(y_scale),
        is_log=x_scale.is_log,
        missing=tuple(view for view in views if view.number not in {point.view.number for point in points}),
    )


def build_heat_map(views: Sequence[ArmView]) -> HeatMap | None:
    """Return pass rates by category and arm; None when the samples have fewer than two categories."""
    names = list(dict.fromkeys(name for view in views for name in view.arm.categories))
    if len(names) < 2:
        return None
    values = [rate.value for view in views for rate in view.arm.categories.values() if rate.value is not None]
    low = math.floor(min(values, default=0.0) * 10) / 10
    high = max(math.ceil(max(values, default=1.0) * 10) / 10, low + 0.1)
    rows = tuple(
        (name, tuple(_make_cell(view, view.arm.categories.get(name), low, high) for view in views)) for name in names
    )
    return HeatMap(rows=rows, low=low, high=high)


def fit_linear(low: float, high: float, *, n_ticks: int = 5) -> Scale:
    """Return a linear scale whose ends are round numbers at or beyond the given ones."""
    if high <= low:
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    step = _choose_step((high - low) / n_ticks)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    values = tuple(round(index * step, 12) for index in range(first, last + 1))
    return Scale(low=values[0], high=values[-1], values=values)


def fit_positive(low: float, high: float) -> Scale:
    """Return a scale for values above zero: from zero, or logarithmic when they span more than a factor of 20."""
    if low <= 0 or high / low <= LOG_ABOVE_RATIO:
        return fit_linear(0.0, high * 1.05 if high > 0 else 1.0, n_ticks=4)
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    steps = [float(f"{factor}e{exponent}") for exponent in exponents for factor in (1, 2, 5)]
    first = max(step for step in steps if step <= low * 0.9)
    last = min(step for step in steps if step >= high * 1.1)
    values = [step for step in steps if first <= step <= last]
    if len(values) > MAX_LOG_TICKS:
        values = [step for step in values if f"{step:e}".startswith("1")]
    return Scale(low=first, high=last, is_log=True, values=tuple(values))


def format_usd_tick(value: float) -> str:
    """Return an axis label in USD without needless digits."""
    return f"${_trim(value)}"


def _fit_rates(rates: Sequence[Rate]) -> Scale:
    low = min((rate.low for rate in rates), default=0.0)
    high = max((rate.high for rate in rates), default=1.0)
    scale = fit_linear(low, high)
    return fit_linear(max(scale.low, 0.0), min(scale.high, 1.0))


def _make_percent_ticks(scale: Scale) -> tuple[Tick, ...]:
    digits = 0 if all(abs(value * 100 - round(value * 100)) < 1e-6 for value in scale.values) else 1
    return _make_ticks(scale, [format_percent(value, digits=digits) for value in scale.values])


def _make_ticks(scale: Scale, labels: Sequence[str]) -> tuple[Tick, ...]:
    pairs = zip(scale.values, labels, strict=True)
    return tuple(Tick(position=scale.place(value), label=label) for value, label in pairs)


def _choose_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))


def _trim(value: float) -> str:
    text = f"{value:,.10f}".rstrip("0").rstrip(".")
    return text.replace("-", "−") or "0"


def _dominates(other: Sequence[float], one: tuple[float, float]) -> bool:
    other_cost, other_rate = other
    cost, rate = one
    return other_cost <= cost and other_rate >= rate and (other_cost, other_rate) != (cost, rate)


def _draw_front(points: Sequence[ScatterPoint]) -> tuple[Step, ...]:
    """Join the arms that no other dominates with a staircase, from the cheapest up."""
    front = sorted((point for point in points if not point.is_dominated), key=lambda point: (point.x, point.y))
    steps: list[Step] = []
    for left, right in pairwise(front):
        steps.append(Step(x1=left.x, y1=left.y, x2=right.x, y2=left.y))
        steps.append(Step(x1=right.x, y1=left.y, x2=right.x, y2=right.y))
    return tuple(steps)


def _make_cell(view: ArmView, rate: Rate | None, low: float, high: float) -> HeatCell:
    if rate is None or rate.value is None:
        return HeatCell(view=view, rate=rate, step=None, is_small=True)
    share = min(max((rate.value - low) / (high - low), 0.0), 1.0)
    return HeatCell(view=view, rate=rate, step=round(share * HEAT_STEPS), is_small=rate.n < SMALL_N)


@dataclass(slots=True)
class _Boxes:
    """Rectangles already taken in the scatter, in nominal pixels."""

    taken: list[tuple[float, float, float, float]] = field(default_factory=list)

    def is_free(self, box: tuple[float, float, float, float]) -> bool:
        left, top, right, bottom = box
        if left < 0 or right > _PLOT_WIDTH or top < 0 or bottom > _PLOT_HEIGHT:
            return False
        return not any(left < r and right > x and top < b and bottom > y for x, y, r, b in self.taken)


def _place_labels(points: Sequence[ScatterPoint]) -> tuple[ScatterPoint, ...]:
    """Give each point the first side on which its label is inside the plot and hits no marker, bar or label."""
    boxes = _Boxes()
    for point in points:
        x, y = point.x * _PLOT_WIDTH / 100, point.y * _PLOT_HEIGHT / 100
        boxes.taken.append((x - 12, y - 12, x + 12, y + 12))
        boxes.taken.append((x - 3, point.y_high * _PLOT_HEIGHT / 100, x + 3, point.y_low * _PLOT_HEIGHT / 100))
    placed = []
    for point in points:
        side = next((side for side, box in _make_label_boxes(point) if boxes.is_free(box)), None)
        if side is not None:
            boxes.taken.append(dict(_make_label_boxes(point))[side])
        placed.append(replace(point, label_side=side))
    return tuple(placed)


def _make_label_boxes(point: ScatterPoint) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Return each side with the box its label would fill, the best side first."""
    x, y = point.x * _PLOT_WIDTH / 100, point.y * _PLOT_HEIGHT / 100
    width = _CHAR_WIDTH * sum(2 if east_asian_width(char) in "WF" else 1 for char in make_visible(point.view.label))
    beside = [("right", x + 14, -9), ("left", x - 16 - width, -9)]
    for end, offset in (("up", -22), ("down", 5)):
        beside += [(f"right-{end}", x + 13, offset), (f"left-{end}", x - 15 - width, offset)]
    boxes = [(side, (left, y + top, left + width + 2, y + top + 18)) for side, left, top in beside]
    middle = x - width / 2
    return [
        *boxes,
        ("above", (middle, y - 32, middle + width, y - 14)),
        ("below", (middle, y + 14, middle + width, y + 32)),
    ]
