"""The gate: rules over a summary, and the exit code that is their verdict.

A rule passes only on evidence. Where rows are missing, the verdict is tried once more with each missing row taken as
lost; if that turns it, there is no verdict (exit 3). Precedence: no verdict, then fail, then pass.
"""

from collections.abc import Iterator
from fractions import Fraction

from evalrun.analysis import stats
from evalrun.options import GateOptions, PassRateOptions
from evalrun.records import NO_VERDICT_LEAD, ArmSummary, Finding, Status, Summary, Verdict
from evalrun.resume_words import MARKED_RESUME_COMMAND

PASS, FAIL, NO_VERDICT, NO_GATE = "pass", "fail", "no_verdict", "none"

MAX_ERROR_RATE_WITHOUT_GATE = 0.01
"""A run without a gate ends with exit 3 above this share of errors."""

_EXIT_CODES = {PASS: 0, FAIL: 1, NO_VERDICT: 3}


def check_gate(
    summary: Summary, gate: GateOptions | None, *, has_hard_graders: bool, n_judge_pending: int = 0
) -> Verdict:
    """Return the verdict of a run without a baseline.

    Args:
        summary: The run in figures.
        gate: The job's rules; None when it has none.
        has_hard_graders: Whether any grader is `hard: true`; such a grader asks for the gate even without rules.
        n_judge_pending: Requests to judges that are still to be sent: the grades that wait for them are open.
    """
    if gate is None and not has_hard_graders:
        return _check_without_gate(summary, n_judge_pending)
    rules = gate or GateOptions()
    findings = [*_check_rows(summary, rules.max_error_rate, n_judge_pending)]
    for arm in summary.arms:
        findings.extend(_check_arm(arm, rules, has_hard_graders=has_hard_graders))
    outcomes = {finding.outcome for finding in findings}
    outcome = next(outcome for outcome in (NO_VERDICT, FAIL, PASS) if outcome in outcomes)
    return Verdict(
        outcome=outcome,
        exit_code=_EXIT_CODES[outcome],
        headline=_write_headline(outcome, findings, summary),
        findings=tuple(findings),
    )


def _check_without_gate(summary: Summary, n_judge_pending: int) -> Verdict:
    findings = tuple(_check_rows(summary, MAX_ERROR_RATE_WITHOUT_GATE, n_judge_pending))
    lacking = [finding for finding in findings if finding.outcome != PASS]
    headline = "no gate was asked for" + (f"; {lacking[0].message}" if lacking else "")
    return Verdict(outcome=NO_GATE, exit_code=3 if lacking else 0, headline=headline, findings=findings)


def _check_rows(summary: Summary, max_error_rate: float, n_judge_pending: int) -> Iterator[Finding]:
    n_rows = sum(summary.statuses.values())
    n_pending = summary.statuses.get(Status.PENDING, 0)
    n_errors = summary.statuses.get(Status.ERROR, 0)
    if n_rows == 0:
        yield Finding(rule="rows", outcome=NO_VERDICT, message="the run has no rows")
        return
    if n_pending:
        message = f"{_count(n_pending, 'row is', 'rows are')} pending{_list_codes(summary)}; "
        message += f"{MARKED_RESUME_COMMAND} goes on"
        yield Finding(rule="pending", outcome=NO_VERDICT, message=message)
    if n_judge_pending:
        message = f"{_count(n_judge_pending, 'request to a judge is', 'requests to judges are')} pending; "
        message += f"{MARKED_RESUME_COMMAND} goes on"
        yield Finding(rule="judge_pending", outcome=NO_VERDICT, message=message)
    is_above = Fraction(n_errors, n_rows) > _exact(max_error_rate)
    relation = "above" if is_above else "within"
    message = f"{n_errors:,} of {n_rows:,} rows are errors ({_percent(n_errors / n_rows)}), {relation} the"
    message += f" {_percent(max_error_rate)} allowed" + (_list_codes(summary) if is_above else "")
    yield Finding(rule="max_error_rate", outcome=NO_VERDICT if is_above else PASS, message=message)


def _check_arm(arm: ArmSummary, gate: GateOptions, *, has_hard_graders: bool) -> Iterator[Finding]:
    has_rules = gate.min_pass_rate is not None or has_hard_graders or gate.max_latency_p95_s is not None
    if arm.n_scored == 0 and (has_rules or arm.n_ungraded):
        yield _find(
            arm, "n_scored", NO_VERDICT, f"none of its {arm.n_total:,} rows has a verdict{_describe_missing(arm)}"
        )
        return
    if gate.min_pass_rate is not None:
        yield _check_pass_rate(arm, gate.min_pass_rate)
    if has_hard_graders:
        yield _check_hard(arm, gate.max_hard_failures)
    if gate.max_latency_p95_s is not None:
        yield _check_latency(arm, gate.max_latency_p95_s)


def _check_pass_rate(arm: ArmSummary, wanted: float | PassRateOptions) -> Finding:
    rule = wanted if isinstance(wanted, PassRateOptions) else PassRateOptions(value=wanted)
    share = f"passes {_share(arm.pass_rate.passed, arm.n_scored)}"
    target = f"the {_percent(rule.value)} asked for"
    if not _is_reached(arm, rule, n_lost=0):
        bound = f", and the upper end of the {_bound(rule)} is below" if rule.confidence is not None else ", below"
        return _find(arm, "min_pass_rate", FAIL, f"{share}{bound} {target}")
    n_missing = arm.n_errors + arm.n_ungraded
    if n_missing and not _is_reached(arm, rule, n_lost=n_missing):
        lost = f"with its {_count(n_missing, 'row', 'rows')} without a verdict taken as lost, it would miss {target}"
        return _find(arm, "min_pass_rate", NO_VERDICT, f"{share}, but {lost}{_describe_missing(arm)}")
    if arm.pass_rate.value is not None and arm.pass_rate.value < rule.value:
        reason = f"below {target}, but not shown to be: the {_bound(rule)} reaches it"
        return _find(arm, "min_pass_rate", PASS, f"{share}, {reason}")
    return _find(arm, "min_pass_rate", PASS, f"{share}, at or above {target}")


def _is_reached(arm: ArmSummary, rule: PassRateOptions, *, n_lost: int) -> bool:
    n = arm.n_scored + n_lost
    if rule.confidence is None:
        return Fraction(arm.pass_rate.passed, n) >= _exact(rule.value)
    # The interval is over samples: lost rows make it larger by as many samples as they are worth.
    n_samples = round((arm.n_samples or arm.n_scored) * n / arm.n_scored)
    upper = stats.wilson(arm.pass_rate.passed / n * n_samples, n_samples, confidence=rule.confidence).high
    return upper >= rule.value


def _check_hard(arm: ArmSummary, allowed: int) -> Finding:
    n_broken, n_undecided = arm.n_hard_failures, arm.n_hard_undecided
    message = f"{_count(n_broken, 'sample breaks', 'samples break')} a hard grader; {allowed:,} may"
    if n_broken > allowed:
        return _find(arm, "max_hard_failures", FAIL, message)
    if n_broken + n_undecided > allowed:
        message += f"; on {_count(n_undecided, 'more', 'more')} a hard grader could not decide"
        return _find(arm, "max_hard_failures", NO_VERDICT, message)
    return _find(arm, "max_hard_failures", PASS, message)


def _check_latency(arm: ArmSummary, limit_s: float) -> Finding:
    found_s = arm.latency_p95_s
    if found_s is None:
        message = "no row was answered in this run, so its latency is unknown"
        return _find(arm, "max_latency_p95_s", NO_VERDICT, message)
    is_above = found_s > limit_s
    relation = "above" if is_above else "within"
    message = f"the 95th percentile of latency is {found_s:.3g} s, {relation} the {limit_s:g} s allowed"
    return _find(arm, "max_latency_p95_s", FAIL if is_above else PASS, message)


def _find(arm: ArmSummary, rule: str, outcome: str, message: str) -> Finding:
    return Finding(rule=rule, outcome=outcome, message=message, model=arm.model, prompt=arm.prompt)


def _write_headline(outcome: str, findings: list[Finding], summary: Summary) -> str:
    decisive = [finding for finding in findings if finding.outcome == outcome]
    if outcome == PASS:
        n_rules = len({finding.rule for finding in findings})
        rules = _count(n_rules, "rule", "rules")
        return f"gate passed: {rules} over {_count(len(summary.arms), 'arm', 'arms')}"
    lead = "gate failed: " if outcome == FAIL else NO_VERDICT_LEAD
    more = f", and {_count(len(decisive) - 1, 'more finding', 'more findings')}" if len(decisive) > 1 else ""
    first = decisive[0]
    arm = f"{first.model} with prompt {first.prompt}: " if first.model is not None else ""
    return f"{lead}{arm}{first.message}{more}"


def _describe_missing(arm: ArmSummary) -> str:
    parts = {"pending": arm.n_pending, "errors": arm.n_errors, "filtered": arm.n_filtered, "ungraded": arm.n_ungraded}
    shown = ", ".join(f"{count:,} {word}" for word, count in parts.items() if count)
    return f" ({shown})" if shown else ""


def _list_codes(summary: Summary) -> str:
    shown = ", ".join(f"{code} {count:,}" for code, count in list(summary.errors.items())[:3])
    return f" ({shown})" if shown else ""


def _bound(rule: PassRateOptions) -> str:
    return f"{_percent(rule.confidence or 0.0)} Wilson interval"


def _share(passed: int, n: int) -> str:
    return f"{passed:,} of {n:,} ({_percent(passed / n)})"


def _percent(value: float) -> str:
    return f"{value * 100:.4g} %"


def _count(n: int, one: str, many: str) -> str:
    return f"{n:,} {one if n == 1 else many}"


def _exact(value: float) -> Fraction:
    """Return the decimal number that the job says, not the binary one nearest to it."""
    return Fraction(repr(value))
