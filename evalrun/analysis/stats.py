"""Statistics of shares and paired comparisons: pure functions, each with its source.

Counts and differences enter, intervals and p-values leave. Nothing here knows of models or samples. Randomness, where
there is any, comes from a seed.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from fractions import Fraction
from functools import cache
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

if TYPE_CHECKING:
    import numpy.typing as npt
    from numpy import bool_, float64, int64

Alternative = Literal["two-sided", "less", "greater"]

MAX_CONVOLUTION_STEPS = 1_000_000_000
"""Largest exact sign-flip distribution, in multiplications (about a second); beyond it, Monte Carlo."""
MAX_ENUMERATED = 16
"""Most real-valued differences whose sign flips are enumerated."""
MAX_INTEGER_TRIALS = 2_000
"""Most trials whose binomial tail is summed in whole numbers, which is exact and needs no library."""
N_RESAMPLES = 9_999
"""Monte Carlo draws; the smallest p-value they can show is 1e-4."""

_NORMAL = NormalDist()


class Interval(NamedTuple):
    """Two ends, low first."""

    low: float
    high: float


class McNemar(NamedTuple):
    """P-values of one paired binary comparison."""

    two_sided: float
    one_sided: float
    """That as many pairs or more are lost: the evidence for a drop."""
    mid_p: float
    """Two-sided, with half the weight of what was observed."""


class Table(NamedTuple):
    """Paired binary outcomes of a base and a candidate."""

    both: int
    base_only: int
    cand_only: int
    neither: int

    @property
    def n(self) -> int:
        """Return the number of pairs."""
        return sum(self)


class FlipTest(NamedTuple):
    """A sign-flip permutation test."""

    p_value: float
    is_exact: bool
    """False when it was estimated by Monte Carlo."""


def wilson(passed: float, n: int, *, confidence: float = 0.95) -> Interval:
    """Return the two-sided Wilson score interval of a share; (0.0, 1.0) when n is 0.

    Args:
        passed: Successes, 0..n; a sum of sample means may be fractional.
        n: Independent trials.
        confidence: Between 0 and 1.

    Source:
        Wilson 1927, JASA 22; Brown, Cai, DasGupta 2001, Statistical Science 16.

    Example:
        >>> [round(end, 6) for end in wilson(8, 10)]
        [0.490162, 0.943318]
    """
    if n == 0:
        return Interval(0.0, 1.0)
    z = _NORMAL.inv_cdf((1 + confidence) / 2)
    share = passed / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(max(share * (1 - share), 0.0) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the ends the exact bound is 0 or 1; rounding must not leave it.
    low = 0.0 if passed <= 0 else max(0.0, (centre - half) / scale)
    high = 1.0 if passed >= n else min(1.0, (centre + half) / scale)
    return Interval(low, high)


def clopper_pearson(passed: int, n: int, *, confidence: float = 0.95) -> Interval:
    """Return the two-sided Clopper–Pearson interval, which never covers less than it says; (0.0, 1.0) when n is 0.

    Source:
        Clopper, Pearson 1934, Biometrika 26.
    """
    special, tail = _load_special(), (1 - confidence) / 2
    low = 0.0 if passed == 0 else float(special.betaincinv(passed, n - passed + 1, tail))
    high = 1.0 if passed == n else float(special.betaincinv(passed + 1, n - passed, 1 - tail))
    return Interval(low, high)


def mcnemar_exact(base_only: int, cand_only: int) -> McNemar:
    """Return the exact McNemar p-values; all ones (one-sided 1, mid-p 1) when no pair is discordant.

    Args:
        base_only: Pairs that only the base passes.
        cand_only: Pairs that only the candidate passes.

    Source:
        McNemar 1947, Psychometrika 12; mid-p: Fagerland, Lydersen, Laake 2013, BMC Med Res Methodol 13:91.
    """
    n = base_only + cand_only
    if n == 0:
        return McNemar(1.0, 1.0, 1.0)
    smaller = min(base_only, cand_only)
    tail = _binomial_tail(n - smaller, n)
    observed = math.exp(_log_choose(n, smaller) - n * math.log(2))
    two_sided = min(1.0, 2 * tail)
    mid_p = 1.0 if base_only == cand_only else 2 * tail - observed
    return McNemar(two_sided, _binomial_tail(base_only, n), mid_p)


def tango(table: Table, *, confidence: float = 0.95) -> Interval:
    """Return Tango's score interval of the paired difference, candidate minus base; (-1.0, 1.0) without pairs.

    It never collapses to a point: with no discordant pair it is ± z² / (n + z²).

    Source:
        Tango 1998, Statistics in Medicine 17:891.
    """
    n = table.n
    if n == 0:
        return Interval(-1.0, 1.0)
    z = _NORMAL.inv_cdf((1 + confidence) / 2)
    difference = (table.cand_only - table.base_only) / n
    low = -1.0 if difference == -1 else _bisect(lambda x: _tango_score(table, x) - z, -1.0, difference)
    high = 1.0 if difference == 1 else _bisect(lambda x: _tango_score(table, x) + z, difference, 1.0)
    return Interval(low, high)


def noninferiority_upper(table: Table, *, confidence: float = 0.95) -> float:
    """Return the one-sided upper bound of the drop, base minus candidate, by Tango's score.

    Source:
        Tango 1998, section 4.
    """
    return -tango(table, confidence=2 * confidence - 1).low


def sign_flip(
    differences: Sequence[float | Fraction], *, alternative: Alternative = "two-sided", seed: int = 0
) -> FlipTest:
    """Return the sign-flip permutation test of paired differences (candidate minus base), one per item.

    Ints and Fractions are tested exactly by convolution; floats by enumeration up to 16 that are not zero, else by
    Monte Carlo, p = (1 + #) / (1 + N).

    Args:
        differences: One per item or cluster; repeats reduced to means first.
        alternative: `less` asks whether the mean difference is below zero.
        seed: Of the Monte Carlo draws.

    Source:
        Fisher 1935, The Design of Experiments, section 21; Phipson, Smyth 2010 for the + 1.
    """
    if all(isinstance(value, int | Fraction) for value in differences):
        return sign_flip_counts(Counter(Fraction(value) for value in differences), alternative=alternative, seed=seed)
    np = _load_numpy()
    values = np.array([float(value) for value in differences if value != 0])
    if not len(values):
        return FlipTest(1.0, is_exact=True)
    observed = float(values.sum())
    if len(values) <= MAX_ENUMERATED:
        sums = np.zeros(1)
        for value in values:
            sums = np.concatenate([sums - value, sums + value])
        return FlipTest(_share_as_extreme(sums, observed, alternative), is_exact=True)
    rng = np.random.default_rng(seed)
    draws = [float(values @ rng.choice((-1.0, 1.0), len(values))) for _ in range(N_RESAMPLES)]
    share = _share_as_extreme(np.array(draws), observed, alternative)
    return FlipTest((1 + round(share * N_RESAMPLES)) / (1 + N_RESAMPLES), is_exact=False)


def sign_flip_counts(
    counts: Mapping[Fraction, int], *, alternative: Alternative = "two-sided", seed: int = 0
) -> FlipTest:
    """Return the sign-flip test of differences that are given as value → how often; 1.0 when none differs from zero.

    The sum of m flips of ±v is v·(2·Bin(m, ½) - m): the distribution of the whole is the convolution of one such
    lattice per distinct |v|, exact on the integers.
    """
    scale = math.lcm(*(value.denominator for value in counts)) if counts else 1
    groups: Counter[int] = Counter()
    for value, times in counts.items():
        groups[abs(int(value * scale))] += times
    groups.pop(0, None)
    observed = sum(int(value * scale) * times for value, times in counts.items())
    steps = sum(value * times for value, times in groups.items()) ** 2
    if not groups:
        return FlipTest(1.0, is_exact=True)
    if steps > MAX_CONVOLUTION_STEPS:
        return _flip_by_draws(groups, observed, alternative, seed)
    np = _load_numpy()
    # Index i of the distribution stands for the sum 2·i - reach.
    distribution, reach = np.ones(1), 0
    for step, times in sorted(groups.items()):
        lattice = np.zeros(step * times + 1)
        lattice[::step] = _binomial_masses(times)
        distribution = np.convolve(distribution, lattice)
        reach += step * times
    sums = 2 * np.arange(len(distribution)) - reach
    return FlipTest(min(1.0, float(distribution[_as_extreme(sums, observed, alternative)].sum())), is_exact=True)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given.

    Source:
        Holm 1979, Scandinavian Journal of Statistics 6.

    Example:
        >>> holm([0.01, 0.04, 0.03, 0.005])
        [0.03, 0.06, 0.06, 0.02]
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return Benjamini–Hochberg adjusted p-values, in the order given. For exploring slices, never for a gate.

    Source:
        Benjamini, Hochberg 1995, JRSS B 57.
    """
    n = len(p_values)
    adjusted, lowest = [0.0] * n, 1.0
    for rank, index in enumerate(sorted(range(n), key=p_values.__getitem__, reverse=True)):
        lowest = min(lowest, p_values[index] * n / (n - rank))
        adjusted[index] = lowest
    return adjusted


def required_n(
    discordance: float, difference: float, *, alpha: float = 0.05, power: float = 0.8, sides: int = 1
) -> int:
    """Return how many pairs show a difference of two paired shares with the given power.

    Args:
        discordance: Share of pairs on which the sides differ; taken as at least `difference`.
        difference: To be seen, 0..1, not 0.
        alpha: Level of the test.
        power: Chance to see it.
        sides: 1 or 2.

    Source:
        Connor 1987, Biometrics 43:207.

    Example:
        >>> required_n(0.1, 0.02)
        1544
    """
    discordance = max(discordance, difference)
    z_alpha, z_power = _NORMAL.inv_cdf(1 - alpha / sides), _NORMAL.inv_cdf(power)
    root = z_alpha * math.sqrt(discordance) + z_power * math.sqrt(discordance - difference**2)
    return math.ceil((root / difference) ** 2)


def detectable_difference(
    discordance: float, n: int, *, alpha: float = 0.05, power: float = 0.8, sides: int = 1
) -> float | None:
    """Return the smallest difference that n pairs show with the given power (MDE); None when even 1.0 would not show.

    Source:
        Connor 1987, solved for the difference.
    """
    if n == 0:
        return None
    z_alpha, z_power = _NORMAL.inv_cdf(1 - alpha / sides), _NORMAL.inv_cdf(power)

    def excess(difference: float) -> float:
        spread = max(discordance, difference)
        root = z_alpha * math.sqrt(spread) + z_power * math.sqrt(max(spread - difference**2, 0.0))
        return root - difference * math.sqrt(n)

    return _bisect(excess, 0.0, 1.0) if excess(1.0) <= 0 else None


def required_n_of_mean(
    variance: float, difference: float, *, alpha: float = 0.05, power: float = 0.8, sides: int = 2
) -> float:
    """Return how many items show a mean difference, from the variance of the items' differences; not rounded.

    Source:
        Miller 2024, arXiv 2411.00640, section 5.
    """
    z = _NORMAL.inv_cdf(1 - alpha / sides) + _NORMAL.inv_cdf(power)
    return z * z * variance / difference**2


def required_n_noninferiority(discordance: float, margin: float, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """Return how many pairs show non-inferiority by `margin` when there is no difference."""
    return math.ceil(required_n_of_mean(discordance, margin, alpha=alpha, power=power, sides=1))


def mcnemar_power(n: int, discordance: float, drop: float, *, alpha: float = 0.05) -> float:
    """Return the exact power of the one-sided exact McNemar test to show a drop, by full enumeration.

    Args:
        n: Pairs.
        discordance: Share of discordant pairs.
        drop: True difference, base minus candidate, 0..discordance.
        alpha: Level of the test.
    """
    special, share = _load_special(), (discordance + drop) / (2 * discordance)
    power = 0.0
    for m in range(1, n + 1):
        tails = (1.0 if b == 0 else float(special.betainc(b, m - b + 1, 0.5)) for b in range(m // 2, m + 1))
        fewest = next((m // 2 + index for index, tail in enumerate(tails) if tail <= alpha), None)
        if fewest is not None:
            mass = special.bdtr(m, n, discordance) - special.bdtr(m - 1, n, discordance)
            power += float(mass * special.betainc(fewest, m - fewest + 1, share))
    return power


def pass_at_k(n: int, correct: int, k: int) -> float | None:
    """Return the unbiased chance that one of k answers is right; None when fewer than k were given.

    Source:
        Chen et al. 2021, arXiv 2107.03374.
    """
    return None if n < k else 1 - math.comb(n - correct, k) / math.comb(n, k)


def pass_hat_k(n: int, correct: int, k: int) -> float | None:
    """Return the unbiased chance that all of k answers are right; None when fewer than k were given.

    Source:
        Yao et al. 2024, arXiv 2406.12045 (pass^k).
    """
    return None if n < k else math.comb(correct, k) / math.comb(n, k)


def clustered_se(values: Sequence[float], clusters: Sequence[Hashable], *, is_corrected: bool = True) -> float | None:
    """Return the standard error of a mean whose items come in clusters; None with fewer than two clusters.

    Args:
        values: One per item.
        clusters: Cluster of each item.
        is_corrected: Multiply by √(G / (G - 1)), as for few clusters G.

    Source:
        Miller 2024, arXiv 2411.00640, appendix A; Liang, Zeger 1986 for the correction.
    """
    mean = math.fsum(values) / len(values) if values else 0.0
    sums: dict[Hashable, float] = defaultdict(float)
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] += value - mean
    if len(sums) < 2:
        return None
    error = math.sqrt(math.fsum(total * total for total in sums.values())) / len(values)
    return error * math.sqrt(len(sums) / (len(sums) - 1)) if is_corrected else error


def normal_interval(counts: Mapping[Fraction, int], *, confidence: float = 0.95) -> Interval:
    """Return the normal interval of the mean of values given as value → how often; (-1.0, 1.0) below two values."""
    n = sum(counts.values())
    if n < 2:
        return Interval(-1.0, 1.0)
    mean, variance = mean_and_variance(counts)
    half = _NORMAL.inv_cdf((1 + confidence) / 2) * math.sqrt(variance / n)
    return Interval(max(-1.0, mean - half), min(1.0, mean + half))


def mean_and_variance(counts: Mapping[Fraction, int]) -> tuple[float, float]:
    """Return mean and sample variance (n - 1) of values given as value → how often; zeros where undefined."""
    n = sum(counts.values())
    if n == 0:
        return 0.0, 0.0
    mean = math.fsum(float(value) * times for value, times in counts.items()) / n
    squares = math.fsum((float(value) - mean) ** 2 * times for value, times in counts.items())
    return mean, squares / (n - 1) if n > 1 else 0.0


def _binomial_tail(k: int, n: int) -> float:
    """Return P(Bin(n, ½) ≥ k)."""
    if k <= 0:
        return 1.0
    if n > MAX_INTEGER_TRIALS:
        return float(_load_special().betainc(k, n - k + 1, 0.5))
    ways, total = math.comb(n, k), 0
    for i in range(k, n + 1):
        total += ways
        ways = ways * (n - i) // (i + 1)
    return float(Fraction(total, 2**n))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


@cache
def _load_numpy() -> Any:
    """Return numpy, imported on first use: only repeats and graded scores need it, and every run would wait for it."""
    import numpy

    return numpy


@cache
def _load_special() -> Any:
    """Return scipy's special functions, imported on first use: they take half a second, and few runs need them."""
    from scipy import special  # type: ignore[import-untyped]

    return special


def _binomial_masses(n: int) -> "npt.NDArray[float64]":
    np, special = _load_numpy(), _load_special()
    k = np.arange(n + 1)
    masses = np.exp(special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1) - n * math.log(2))
    return cast("npt.NDArray[float64]", masses / masses.sum())


def _flip_by_draws(groups: Mapping[int, int], observed: int, alternative: Alternative, seed: int) -> FlipTest:
    np = _load_numpy()
    rng = np.random.default_rng(seed)
    sums = np.zeros(N_RESAMPLES, dtype=np.int64)
    for value, times in sorted(groups.items()):
        sums += value * (2 * rng.binomial(times, 0.5, N_RESAMPLES) - times)
    n_extreme = int(_as_extreme(sums, observed, alternative).sum())
    return FlipTest((1 + n_extreme) / (1 + N_RESAMPLES), is_exact=False)


def _as_extreme(sums: "npt.NDArray[int64]", observed: int, alternative: Alternative) -> "npt.NDArray[bool_]":
    if alternative == "less":
        return sums <= observed
    if alternative == "greater":
        return sums >= observed
    return abs(sums) >= abs(observed)


def _share_as_extreme(sums: "npt.NDArray[float64]", observed: float, alternative: Alternative) -> float:
    # Sums that are equal on paper differ in the last bits; such ties count as equal.
    slack = 1e-12 * max(1.0, abs(observed))
    if alternative == "less":
        return float((sums <= observed + slack).mean())
    if alternative == "greater":
        return float((sums >= observed - slack).mean())
    return float((abs(sums) >= abs(observed) - slack).mean())


def _tango_score(table: Table, difference: float) -> float:
    """Return Tango's statistic for one hypothetical difference: falls from +∞ to -∞ over (-1, 1)."""
    n, gained, lost = table.n, table.cand_only, table.base_only
    excess = gained - lost - n * difference
    a = 2 * n
    b = -gained - lost + (2 * n - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    share = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = n * (2 * share + difference * (1 - difference))
    if variance <= 0:
        return 0.0 if excess == 0 else math.copysign(math.inf, excess)
    return excess / math.sqrt(variance)


def _bisect(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a falling function crosses zero, to the last bit that halving reaches."""
    while (middle := (low + high) / 2) not in {low, high}:
        if function(middle) > 0:
            low = middle
        else:
            high = middle
    return middle
