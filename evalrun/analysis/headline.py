"""The one sentence over a run: which arm is best and by how much, or that the data do not tell, and what would."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from evalrun.analysis import stats
from evalrun.records import ArmSummary, PairTest

ALPHA = 0.05
"""Level below which two arms are told apart, after Holm."""

WANTED_DIFFERENCE = 0.02
"""Difference that the advice on sample size aims at."""

_MAX_NAMED = 4


class PairFigures(NamedTuple):
    """A test, and what planning the next run needs of it."""

    test: PairTest
    variance: float
    """Of the differences per sample."""
    discordance: float | None
    """Share of pairs that differ; None when samples have means of repeats."""

    def with_p_value(self, p_value: float) -> "PairFigures":
        """Return the same with an adjusted p-value."""
        return self._replace(test=replace(self.test, p_value=p_value))


def write_headline(arms: Sequence[ArmSummary], figures: Sequence[PairFigures]) -> str:
    """Return one sentence in plain words.

    Args:
        arms: Best first.
        figures: Tests of the best arm against the others, in the order of `arms`.
    """
    if not arms or arms[0].pass_rate.value is None:
        return "Nothing was scored, so there is nothing to rank."
    name = _Namer(arms)
    best = arms[0]
    if len(arms) == 1:
        return f"{name.of(best)} passes {_rate(best)}."
    if not figures:
        return f"{name.of(best)} passes {_rate(best)}; no other arm has a scored sample in common with it."
    tied = [figure for figure in figures if not _is_ahead(figure.test)]
    if tied:
        return _write_tie(name, best, figures, tied)
    test = figures[0].test
    return (
        f"{name.of(best)} is best: {_rate(best)}, {_points(test.difference, signed=True)} ahead of {name.of(test)} "
        f"(95 % CI {_span(test)}, p {format_p(test.p_value)})."
    )


def format_p(p_value: float) -> str:
    """Return a p-value with its sign: `= 0.031`, `< 0.001`."""
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.2g}" if p_value < 0.1 else f"= {p_value:.2f}"


class _Namer:
    """Names arms as briefly as the run allows: by model, and by prompt where there are several."""

    def __init__(self, arms: Sequence[ArmSummary]) -> None:
        self._has_prompts = len({arm.prompt for arm in arms}) > 1

    def of(self, arm: ArmSummary | PairTest) -> str:
        return f"{arm.model} with prompt {arm.prompt}" if self._has_prompts else arm.model


def _write_tie(name: _Namer, best: ArmSummary, figures: Sequence[PairFigures], tied: Sequence[PairFigures]) -> str:
    names = [name.of(best), *(name.of(figure.test) for figure in tied)]
    if len(names) > _MAX_NAMED:
        names = [*names[: _MAX_NAMED - 1], f"{len(names) - _MAX_NAMED + 1} more"]
    together = ", ".join(names[:-1]) + " and " + names[-1]
    nearest = tied[0].test
    versus = "" if len(tied) == 1 else f" to {name.of(nearest)}"
    ahead = "; all others are behind" if len(tied) < len(figures) else ""
    return (
        f"The data do not tell {together} apart: {name.of(best)} passes {_rate(best)}, a difference of "
        f"{_points(nearest.difference, signed=True)}{versus} (95 % CI {_span(nearest)}, p {format_p(nearest.p_value)})"
        f"{ahead}; {_advise(tied[0])}."
    )


def _advise(figure: PairFigures) -> str:
    n = figure.test.n_pairs
    if figure.discordance is not None:
        needed = stats.required_n(figure.discordance, WANTED_DIFFERENCE, alpha=ALPHA, sides=2)
        visible = stats.detectable_difference(figure.discordance, n, alpha=ALPHA, sides=2)
    else:
        needed = math.ceil(stats.required_n_of_mean(figure.variance, WANTED_DIFFERENCE, alpha=ALPHA))
        visible = math.sqrt(stats.required_n_of_mean(figure.variance, 1.0, alpha=ALPHA) / n)
    if needed > n:
        wanted = f"{WANTED_DIFFERENCE * 100:.0f}-point"
        return f"about {_round_up(needed):,} samples would be needed to show a {wanted} difference"
    if not visible:
        return f"they agree on all {n:,} samples"
    return f"with these {n:,} samples a difference of {_points(visible)} or more would probably have shown"


def _is_ahead(test: PairTest) -> bool:
    return test.p_value <= ALPHA and test.difference > 0


def _rate(arm: ArmSummary) -> str:
    rate = arm.pass_rate
    value = 0.0 if rate.value is None else rate.value
    return f"{value * 100:.1f} % ({rate.passed:,} of {rate.n:,}; 95 % CI {rate.low * 100:.1f}–{rate.high * 100:.1f})"


def _points(value: float, *, signed: bool = False) -> str:
    text = f"{value * 100:+.1f}" if signed else f"{value * 100:.1f}"
    return f"{text} points"


def _span(test: PairTest) -> str:
    return f"{test.low * 100:+.1f} to {test.high * 100:+.1f}"


def _round_up(n: int) -> int:
    """Return n rounded up to two digits: a plan needs no more."""
    step = int(10 ** max(len(str(n)) - 2, 0))
    return math.ceil(n / step) * step
