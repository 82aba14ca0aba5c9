"""Statistics against published and frozen values."""

import itertools
import math
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun.analysis import stats

SHARES = [
    (0, 20, (0, 0.161125), (0, 0.168433)),
    (20, 20, (0.838875, 1), (0.831567, 1)),
    (8, 10, (0.490162, 0.943318), (0.443905, 0.974789)),
    (47, 50, (0.837829, 0.979385), (0.834518, 0.987451)),
    (137, 164, (0.771063, 0.884317), (0.769580, 0.888613)),
    (950, 1000, (0.934686, 0.961870), (0.934610, 0.962665)),
]


@pytest.mark.parametrize(("k", "n", "wilson", "exact"), SHARES)
def test_share_intervals_equal_the_frozen_values(
    k: int, n: int, wilson: tuple[float, float], exact: tuple[float, float]
) -> None:
    """Wilson and Clopper–Pearson agree with statsmodels to all printed digits."""
    assert tuple(round(end, 6) for end in stats.wilson(k, n)) == wilson
    assert tuple(round(end, 6) for end in stats.clopper_pearson(k, n)) == exact


def test_one_sided_exact_bound_equals_the_frozen_value() -> None:
    """0 of 20: the one-sided 95 % upper bound is .139108."""
    assert round(stats.clopper_pearson(0, 20, confidence=0.9).high, 6) == 0.139108


def test_intervals_of_nothing_are_everything() -> None:
    """No trials, no knowledge."""
    assert stats.wilson(0, 0) == (0.0, 1.0)
    assert stats.clopper_pearson(0, 0) == (0.0, 1.0)
    assert stats.tango(stats.Table(0, 0, 0, 0)) == (-1.0, 1.0)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 10**6), st.floats(0, 1), st.floats(0.5, 0.999))
def test_wilson_stays_within_zero_and_one_and_holds_the_share(n: int, share: float, confidence: float) -> None:
    """Any share of any n gives an interval in [0, 1] around it."""
    low, high = stats.wilson(share * n, n, confidence=confidence)
    assert 0 <= low <= share + 1e-9
    assert share - 1e-9 <= high <= 1


MCNEMAR = [
    (12, 3, 0.0351562500, 0.0175781250, 0.0212707520),
    (6, 0, 0.0312500000, 0.0156250000, 0.0156250000),
    (5, 0, 0.0625000000, 0.0312500000, 0.0312500000),
    (5, 5, 1, 0.6230468750, 1),
    (30, 18, 0.1114028911, 0.0557014455, 0.0854331332),
    (1, 0, 1, 0.5, 0.5),
    (0, 0, 1, 1, 1),
]


@pytest.mark.parametrize(("b", "c", "two_sided", "one_sided", "mid_p"), MCNEMAR)
def test_mcnemar_equals_the_frozen_values(b: int, c: int, two_sided: float, one_sided: float, mid_p: float) -> None:
    """Exact, one-sided and mid-p values agree to all printed digits."""
    assert tuple(round(p, 10) for p in stats.mcnemar_exact(b, c)) == (two_sided, one_sided, mid_p)


@pytest.mark.parametrize(("alpha", "flips"), [(0.05, 5), (0.025, 6), (0.01, 7), (0.005, 8)])
def test_fewest_flips_that_show_a_drop(alpha: float, flips: int) -> None:
    """With no gains, 5, 6, 7 and 8 losses are needed."""
    assert stats.mcnemar_exact(flips, 0).one_sided <= alpha < stats.mcnemar_exact(flips - 1, 0).one_sided


def test_mcnemar_keeps_tiny_p_values() -> None:
    """GSM8K, 175b_verification against 6b_verification: 79 lost, 306 gained, p = 1.24e-32."""
    assert stats.mcnemar_exact(79, 306).two_sided == pytest.approx(1.2400534e-32, rel=1e-6)


TANGO = [
    ((80, 12, 3, 5), -0.173743, -0.015977),
    ((20, 0, 0, 0), -0.161125, 0.161125),
    ((90, 10, 0, 0), -0.174366, -0.055229),
    ((400, 30, 18, 52), -0.052518, 0.003274),
]


@pytest.mark.parametrize(("cells", "low", "high"), TANGO)
def test_tango_equals_the_frozen_values(cells: tuple[int, int, int, int], low: float, high: float) -> None:
    """The score interval agrees to all printed digits and never collapses."""
    assert tuple(round(end, 6) for end in stats.tango(stats.Table(*cells))) == (low, high)


@settings(deadline=None, max_examples=60)
@given(st.tuples(*[st.integers(0, 200)] * 4))
def test_tango_holds_the_difference(cells: tuple[int, int, int, int]) -> None:
    """Any table gives an interval in [-1, 1] that holds the observed difference; swapping sides mirrors it."""
    table = stats.Table(*cells)
    low, high = stats.tango(table)
    difference = (table.cand_only - table.base_only) / table.n if table.n else 0.0
    assert -1 <= low <= difference + 1e-9
    assert difference - 1e-9 <= high <= 1
    mirrored = stats.tango(stats.Table(cells[0], cells[2], cells[1], cells[3]))
    assert mirrored == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.parametrize("cells", [(0, 10, 0, 0), (0, 0, 10, 0), (0, 0, 0, 10), (0, 5, 5, 0), (1, 0, 0, 0)])
def test_tango_takes_extreme_tables(cells: tuple[int, int, int, int]) -> None:
    """Tables at the edge give a finite interval."""
    low, high = stats.tango(stats.Table(*cells))
    assert -1 <= low < high <= 1


def test_tango_score_without_spread_is_decided_by_the_excess() -> None:
    """Where the variance vanishes, the statistic is 0 on the spot and infinite off it."""
    assert stats._tango_score(stats.Table(20, 0, 0, 0), 0.0) == 0.0
    assert stats._tango_score(stats.Table(20, 0, 0, 0), 1.0) == -math.inf


NONINFERIORITY = [
    ((10, 10, 500), 0.015591),
    ((0, 0, 50), 0.051333),
    ((0, 0, 100), 0.026343),
    ((3, 2, 100), 0.055709),
    ((30, 18, 500), 0.047662),
]


@pytest.mark.parametrize(("cells", "bound"), NONINFERIORITY)
def test_noninferiority_bound_equals_the_frozen_values(cells: tuple[int, int, int], bound: float) -> None:
    """The one-sided 95 % bound of the drop agrees to all printed digits."""
    b, c, n = cells
    assert round(stats.noninferiority_upper(stats.Table(n - b - c, b, c, 0)), 6) == bound


def test_noninferiority_bound_of_a_shown_drop() -> None:
    """(30, 18, 500): the lower bound of the drop is .001240."""
    drop = -stats.tango(stats.Table(452, 30, 18, 0), confidence=0.9).high
    assert round(drop, 6) == 0.001240


FLIPS = [0.2, -0.4, -0.6, -0.2, 0, -0.8, -0.4, 0.2, -0.6, -0.2]


@pytest.mark.parametrize("exact", [True, False])
def test_sign_flip_equals_the_frozen_values(exact: bool) -> None:
    """26 of 1,024 flips are as low, 52 as far, by convolution and by enumeration."""
    values: list[float | Fraction] = [Fraction(str(value)) if exact else value for value in FLIPS]
    assert stats.sign_flip(values, alternative="less").p_value == pytest.approx(26 / 1024, abs=1e-12)
    assert stats.sign_flip(values).p_value == pytest.approx(0.05078125, abs=1e-12)
    assert stats.sign_flip([-value for value in values], alternative="greater").p_value == pytest.approx(26 / 1024)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.fractions(-1, 1, max_denominator=6), min_size=1, max_size=8))
def test_sign_flip_by_convolution_equals_enumeration(values: list[Fraction]) -> None:
    """The exact distribution is that of all sign patterns."""
    observed = sum(values, Fraction(0))
    sums = [
        sum((s * v for s, v in zip(signs, values, strict=True)), Fraction(0))
        for signs in itertools.product((-1, 1), repeat=len(values))
    ]
    expected = sum(abs(total) >= abs(observed) for total in sums) / len(sums)
    assert stats.sign_flip(values).p_value == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 40), st.integers(0, 40))
def test_sign_flip_of_binary_pairs_is_mcnemar(lost: int, gained: int) -> None:
    """With one repeat both exact tests are one."""
    counts = Counter({Fraction(-1): lost, Fraction(1): gained})
    assert stats.sign_flip_counts(counts).p_value == pytest.approx(
        stats.mcnemar_exact(lost, gained).two_sided, rel=1e-9
    )


def test_sign_flip_of_nothing_is_one() -> None:
    """No difference, no evidence."""
    assert stats.sign_flip([]) == (1.0, True)
    assert stats.sign_flip([0.0, 0.0]) == (1.0, True)
    assert stats.sign_flip_counts({Fraction(0): 5}) == (1.0, True)


def test_sign_flip_by_draws_is_seeded_and_never_zero() -> None:
    """Monte Carlo p = (1 + #) / (1 + N), the same for the same seed."""
    values = [0.1 + 0.01 * index for index in range(40)]
    test = stats.sign_flip(values, seed=3)
    assert test == (1 / 10_000, False)
    mixed = [value * (-1) ** index for index, value in enumerate(values)]
    assert stats.sign_flip(mixed, seed=3) == stats.sign_flip(mixed, seed=3)


def test_sign_flip_of_very_many_items_is_drawn() -> None:
    """Beyond the exact bound the answer is estimated, near the exact one."""
    counts = {Fraction(1, 7): 100_000, Fraction(-1, 5): 71_500, Fraction(1): 10}
    drawn = stats.sign_flip_counts(counts, alternative="greater", seed=1)
    spread = math.sqrt(sum(float(v) ** 2 * m for v, m in counts.items()))
    z = sum(float(v) * m for v, m in counts.items()) / spread
    assert drawn.is_exact is False
    assert drawn.p_value == pytest.approx(0.5 * math.erfc(z / math.sqrt(2)), abs=0.02)


def test_holm_and_benjamini_hochberg_equal_the_frozen_values() -> None:
    """Both adjustments agree with the published examples."""
    p_values = [0.01, 0.04, 0.03, 0.005]
    assert stats.holm(p_values) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.benjamini_hochberg(p_values) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    ten = [0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.216]
    assert sum(p <= 0.05 for p in stats.holm(ten)) == 1
    assert sum(p <= 0.05 for p in stats.benjamini_hochberg(ten)) == 2
    assert (stats.holm([]), stats.benjamini_hochberg([])) == ([], [])


CONNOR = [
    (0.05, {0.01: 3090, 0.02: 771, 0.05: 122}),
    (0.1, {0.01: 6181, 0.02: 1544, 0.05: 246, 0.1: 60}),
    (0.2, {0.01: 12364, 0.02: 3090, 0.05: 493, 0.1: 122}),
]


@pytest.mark.parametrize(("discordance", "needed"), CONNOR)
def test_required_n_equals_the_frozen_values(discordance: float, needed: dict[float, int]) -> None:
    """Connor's sample sizes, one-sided .05, 80 %."""
    assert {delta: stats.required_n(discordance, delta) for delta in needed} == needed


@pytest.mark.parametrize(
    ("discordance", "visible"),
    [(0.1, {100: 7.78, 200: 5.53, 500: 3.51, 1000: 2.48}), (0.2, {50: 15.4, 100: 11.0, 200: 7.82, 500: 4.96})],
)
def test_detectable_difference_equals_the_frozen_values(discordance: float, visible: dict[int, float]) -> None:
    """Connor's formula solved for the difference, in points."""
    found = {n: stats.detectable_difference(discordance, n) for n in visible}
    assert {n: float(f"{(value or 0) * 100:.3g}") for n, value in found.items()} == visible


def test_detectable_difference_of_too_few_pairs_is_unknown() -> None:
    """Two pairs show nothing; none at all neither."""
    assert stats.detectable_difference(0.5, 2) is None
    assert stats.detectable_difference(0.5, 0) is None


@pytest.mark.parametrize(
    ("n", "discordance", "drop", "power"),
    [(100, 0.2, 0.1, 0.675414), (200, 0.1, 0.05, 0.673898), (500, 0.1, 0.05, 0.970117), (100, 0.2, 0.0, 0.032477)],
)
def test_exact_power_equals_the_frozen_values(n: int, discordance: float, drop: float, power: float) -> None:
    """Full enumeration agrees to all printed digits; at no drop it is the test's size."""
    assert round(stats.mcnemar_power(n, discordance, drop), 6) == power


def test_noninferiority_sample_sizes_equal_the_frozen_values() -> None:
    """Margins of 2 and 5 points at discordance .05, .1, .2."""
    sizes = [stats.required_n_noninferiority(psi, margin) for margin in (0.02, 0.05) for psi in (0.05, 0.1, 0.2)]
    assert sizes == [773, 1546, 3092, 124, 248, 495]


@pytest.mark.parametrize(("variance", "n"), [(1 / 9, 969.00), (1 / 9 + 2 / 6, 3875.99), (1 / 9 + 2 / 60, 1259.70)])
def test_sample_size_of_a_mean_equals_the_paper(variance: float, n: float) -> None:
    """Miller's examples for repeats, difference .03."""
    assert round(stats.required_n_of_mean(variance, 0.03), 2) == n


def test_clustered_error_equals_the_frozen_values() -> None:
    """Miller's formula, and with the correction that statsmodels and inspect apply."""
    values, clusters = [1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 1, 0], "aaabbbcccddd"
    assert round(stats.clustered_se(values, clusters) or 0, 10) == 0.1595711846
    assert round(stats.clustered_se(values, clusters, is_corrected=False) or 0, 10) == 0.1381926996
    assert stats.clustered_se([1, 0], "aa") is None
    assert stats.clustered_se([], "") is None


PASS_AT_K = [
    ((10, 3, 5), 0.9166666667),
    ((200, 37, 10), 0.8773745674),
    ((20, 1, 10), 0.5),
    ((5, 4, 3), 1),
    ((2, 1, 3), None),
]


@pytest.mark.parametrize(("facts", "value"), PASS_AT_K)
def test_pass_at_k_equals_the_frozen_values(facts: tuple[int, int, int], value: float | None) -> None:
    """Unbiased; 1 when fewer than k are wrong; unknown, not 1, when fewer than k were asked."""
    found = stats.pass_at_k(*facts)
    assert (found if found is None else round(found, 10)) == value


@pytest.mark.parametrize(("facts", "value"), [((5, 3, 2), 0.3), ((5, 5, 5), 1), ((5, 1, 2), 0), ((1, 1, 2), None)])
def test_pass_hat_k_is_the_share_of_all_right_draws(facts: tuple[int, int, int], value: float | None) -> None:
    """C(c, k) / C(n, k)."""
    assert stats.pass_hat_k(*facts) == value


def test_normal_interval_of_a_mean() -> None:
    """Mean ± 1.96 standard errors, cut at ±1; everything below two values."""
    low, high = stats.normal_interval({Fraction(1, 2): 50, Fraction(0): 50})
    half = 1.959963984540054 * math.sqrt(0.0625 * 100 / 99 / 100)
    assert (low, high) == pytest.approx((0.25 - half, 0.25 + half))
    assert stats.normal_interval({Fraction(1): 1}) == (-1.0, 1.0)
    assert stats.mean_and_variance({}) == (0.0, 0.0)


def test_mcnemar_agrees_on_both_sides_of_the_integer_limit() -> None:
    """Large counts go through the incomplete beta function, and meet the exact sums where they end."""
    n = stats.MAX_INTEGER_TRIALS
    exact, beta = (stats.mcnemar_exact(n // 2 + more, n // 2 - 60) for more in (60, 61))
    assert beta.two_sided < exact.two_sided < 1.1 * beta.two_sided
