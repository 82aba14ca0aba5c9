"""The gate's truth table."""

from collections.abc import Mapping
from typing import Any

import pytest

from evalrun.analysis import stats
from evalrun.analysis.gate import check_gate
from evalrun.options import GateOptions, PassRateOptions
from evalrun.records import ArmSummary, Rate, Status, Summary, Verdict


def make_arm(passed: int, n: int, **fields: Any) -> ArmSummary:
    """Return an arm with `passed` of `n` verdicts and nothing else amiss."""
    low, high = stats.wilson(passed, n)
    counts = dict.fromkeys(
        ("n_errors", "n_pending", "n_filtered", "n_truncated", "n_empty", "n_refused", "n_ungraded", "n_hard_failures"),
        0,
    )
    unknown = dict.fromkeys(("prompt_tokens", "completion_tokens", "cost_usd", "usd_per_1k", "usd_per_correct"))
    facts: dict[str, Any] = {
        **counts,
        **unknown,
        "model": "m",
        "prompt": "p",
        "n_scored": n,
        "n_samples": n,
        "mean_score": None,
        "n_usage_missing": 0,
        "n_cost_unknown": 0,
        "latency_p50_s": 0.1,
        "latency_p95_s": 0.5,
        "attempts": n,
        "pass_rate": Rate(passed=passed, n=n, value=passed / n if n else None, low=low, high=high),
    }
    facts |= fields
    facts.setdefault("n_total", n + facts["n_errors"] + facts["n_pending"] + facts["n_filtered"] + facts["n_ungraded"])
    return ArmSummary(**facts)


def make_summary(*arms: ArmSummary, errors: Mapping[str, int] | None = None) -> Summary:
    """Return the summary that goes with the arms."""
    statuses = {status.value: 0 for status in Status}
    for arm in arms:
        statuses["error"] += arm.n_errors
        statuses["pending"] += arm.n_pending
        statuses["filtered"] += arm.n_filtered
        statuses["ok"] += arm.n_total - arm.n_errors - arm.n_pending - arm.n_filtered
    return Summary(
        arms=arms, best=None, tests=(), headline="", statuses=statuses, errors=errors or {}, is_simulated=False
    )


def check(arm: ArmSummary, *, hard: bool = False, **rules: Any) -> Verdict:
    """Return the verdict over one arm."""
    return check_gate(make_summary(arm), GateOptions(**rules), has_hard_graders=hard)


PASS_RATE: list[tuple[int, int, dict[str, Any], Any, str]] = [
    (85, 100, {}, 0.85, "pass"),
    (84, 100, {}, 0.85, "fail"),
    (100, 100, {}, 1.0, "pass"),
    (0, 10, {}, 0.0, "pass"),
    (29, 100, {}, 0.29, "pass"),
    (7, 10, {}, 0.7, "pass"),
    (80, 100, {}, PassRateOptions(value=0.85), "fail"),
    (80, 100, {}, PassRateOptions(value=0.85, confidence=0.95), "pass"),
    (60, 100, {}, PassRateOptions(value=0.85, confidence=0.95), "fail"),
    (900, 1000, {"n_errors": 5}, 0.85, "pass"),
    (855, 1000, {"n_errors": 5}, 0.85, "pass"),
    (852, 1000, {"n_errors": 5}, 0.85, "no_verdict"),
    (852, 1000, {"n_ungraded": 5}, 0.85, "no_verdict"),
    (849, 1000, {"n_errors": 5}, 0.85, "fail"),
    (852, 1000, {"n_filtered": 50}, 0.85, "pass"),
    (0, 0, {"n_errors": 0, "n_ungraded": 9}, 0.85, "no_verdict"),
    (0, 0, {"n_filtered": 9}, 0.0, "no_verdict"),
]


@pytest.mark.parametrize(("passed", "n", "fields", "rule", "outcome"), PASS_RATE)
def test_pass_rate_rule(passed: int, n: int, fields: dict[str, Any], rule: Any, outcome: str) -> None:
    """The rate itself decides, or the bound; missing rows taken as lost may void it; nothing never passes."""
    verdict = check(make_arm(passed, n, **fields), min_pass_rate=rule, max_error_rate=0.01)
    assert (verdict.outcome, verdict.exit_code) == (outcome, {"pass": 0, "fail": 1, "no_verdict": 3}[outcome])


def test_pass_rate_bound_with_repeats_is_over_samples() -> None:
    """Ten samples asked a hundred times do not show what a thousand samples would."""
    rule = PassRateOptions(value=0.85, confidence=0.95)
    assert check(make_arm(700, 1000), min_pass_rate=rule).outcome == "fail"
    assert check(make_arm(700, 1000, n_samples=10), min_pass_rate=rule).outcome == "pass"


ERRORS = [(0, 100, 0.01, "pass"), (1, 100, 0.01, "pass"), (2, 100, 0.01, "no_verdict"), (29, 100, 0.29, "pass")]


@pytest.mark.parametrize(
    ("n_errors", "n_total", "allowed", "outcome"), [*ERRORS, (1, 100, 0.0, "no_verdict"), (100, 100, 1.0, "pass")]
)
def test_error_rate_rule(n_errors: int, n_total: int, allowed: float, outcome: str) -> None:
    """Above the allowance there is no verdict; at it there is."""
    n = n_total - n_errors
    assert check(make_arm(n, n, n_errors=n_errors), max_error_rate=allowed).outcome == outcome


HARD = [
    (0, 0, 0, "pass"),
    (1, 0, 0, "fail"),
    (1, 0, 1, "pass"),
    (0, 1, 0, "no_verdict"),
    (1, 1, 1, "no_verdict"),
    (2, 1, 1, "fail"),
]


@pytest.mark.parametrize(("broken", "undecided", "allowed", "outcome"), HARD)
def test_hard_rule(broken: int, undecided: int, allowed: int, outcome: str) -> None:
    """Broken samples fail beyond the allowance; undecided ones that could turn it leave no verdict."""
    arm = make_arm(100, 100, n_hard_failures=broken, n_hard_undecided=undecided)
    assert check(arm, hard=True, max_hard_failures=allowed).outcome == outcome


@pytest.mark.parametrize(("found_s", "outcome"), [(0.5, "pass"), (1.0, "pass"), (1.01, "fail"), (None, "no_verdict")])
def test_latency_rule(found_s: float | None, outcome: str) -> None:
    """An unknown latency never passes."""
    assert check(make_arm(10, 10, latency_p95_s=found_s), max_latency_p95_s=1.0).outcome == outcome


def test_pending_rows_leave_no_verdict_even_over_a_failure() -> None:
    """Exit 3 comes before exit 1."""
    verdict = check(make_arm(1, 10, n_pending=1), min_pass_rate=0.9)
    assert (verdict.outcome, verdict.exit_code) == ("no_verdict", 3)
    assert {finding.outcome for finding in verdict.findings} == {"no_verdict", "pass", "fail"}


def test_one_failing_arm_fails_the_gate() -> None:
    """Every arm is held to the rule; the headline names the one that missed it."""
    summary = make_summary(make_arm(95, 100, model="good"), make_arm(80, 100, model="bad"))
    verdict = check_gate(summary, GateOptions(min_pass_rate=0.9), has_hard_graders=False)
    assert verdict.exit_code == 1
    assert verdict.headline == ("gate failed: bad with prompt p: passes 80 of 100 (80 %), below the 90 % asked for")


def test_hard_grader_asks_for_the_gate_without_rules() -> None:
    """A contract that is broken fails the run even where the job has no gate."""
    verdict = check_gate(make_summary(make_arm(9, 10, n_hard_failures=1)), None, has_hard_graders=True)
    assert (verdict.outcome, verdict.exit_code) == ("fail", 1)


def test_gate_that_passes_says_over_what() -> None:
    """The headline counts rules and arms."""
    assert check(make_arm(9, 10), min_pass_rate=0.5).headline == "gate passed: 2 rules over 1 arm"


WITHOUT_GATE = [({}, 0), ({"n_pending": 1}, 3), ({"n_errors": 1}, 0), ({"n_errors": 2}, 3)]


@pytest.mark.parametrize(("fields", "exit_code"), WITHOUT_GATE)
def test_run_without_a_gate(fields: dict[str, int], exit_code: int) -> None:
    """Exit 3 with any row pending or more than 1 % errors, else 0; the outcome is `none`."""
    n = 100 - sum(fields.values())
    verdict = check_gate(make_summary(make_arm(0, n, **fields)), None, has_hard_graders=False)
    assert (verdict.outcome, verdict.exit_code) == ("none", exit_code)


@pytest.mark.parametrize("gate", [None, GateOptions()])
def test_run_without_rows_never_passes(gate: GateOptions | None) -> None:
    """Nothing done is no success."""
    assert check_gate(make_summary(), gate, has_hard_graders=False).exit_code == 3


def test_error_rule_alone_needs_no_graders() -> None:
    """A job without graders may gate on errors alone."""
    assert check(make_arm(0, 0, n_total=50)).outcome == "pass"


def test_ungraded_arm_leaves_no_verdict_even_without_a_pass_rate() -> None:
    """Graders that all failed to decide are no green gate."""
    assert check(make_arm(0, 0, n_ungraded=50)).outcome == "no_verdict"


def test_messages_carry_figures_and_codes() -> None:
    """A reader sees counts, shares and error codes without opening a table."""
    arm = make_arm(90, 90, n_errors=10)
    verdict = check_gate(
        make_summary(arm, errors={"reset": 10}), GateOptions(min_pass_rate=0.9), has_hard_graders=False
    )
    assert verdict.findings[0].message == "10 of 100 rows are errors (10 %), above the 1 % allowed (reset 10)"
    assert "`evalrun run JOB --resume`" in check(make_arm(1, 1, n_pending=3)).headline
