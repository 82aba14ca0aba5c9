"""A made-up run that looks like a real one: two prompts, three models, six categories, failures of every kind.

Everything is drawn from a fixed seed; figures are computed from the rows by small formulas of this file's own, since
the rooms do not know each other.
"""

import hashlib
import json
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evalrun.records import ArmSummary, Finding, PairTest, Rate, Status, Summary, Verdict
from evalrun.report.model import Include, ReportData, ReportRow, build_report_row

MODELS = {
    "gpt-5.1": (0.93, 0.9, 1.25, 10.0),
    "gpt-5.1-mini": (0.88, 0.5, 0.25, 2.0),
    "qwen3-32b": (0.74, 0.3, 0.1, 0.3),
}
"""Accuracy, median latency in seconds, USD per 1M prompt and completion tokens."""

PROMPTS = {"terse": ("Answer with the result only.", 0.0), "reasoned": ("Think step by step, then answer.", 0.03)}
"""System message, and what it adds to the accuracy."""

CATEGORIES: Mapping[str, tuple[str, str, str]] = {
    "arithmetic": ("A baker sells {n} loaves a day at 3 USD each. What does she earn a week?", "{weekly}", "numeric"),
    "extraction": (
        "Read the order as JSON with name and amount: “{n} boxes for Ada Lovelace”.",
        '{{"name": "Ada Lovelace", "amount": {n}}}',
        "json",
    ),
    "classification": ("Is the review positive? “Number {n} on my list, I would buy it again.”", "positive", "exact"),
    "facts": ("In which year did event number {n} of the chronicle take place?", "{year}", "contains"),
    "ภาษาไทย": ("ร้านขายผลไม้มีส้ม {n} ผล ขายไป 3 ผล เหลือกี่ผล ตอบเป็นตัวเลข", "{less}", "numeric"),
    "中文": ("书架上有{n}本书,又放上去五本。现在一共有多少本书?只回答数字。", "{more}", "numeric"),
}
"""Question, right answer and grader type of each category."""


def make_run(
    *,
    n_samples: int = 180,
    seed: int = 7,
    include: Include = "full",
    is_simulated: bool = True,
    filler_chars: int = 0,
    outcome: str = "fail",
    has_prices: bool = True,
) -> ReportData:
    """Return a run of `n_samples` × 2 prompts × 3 models.

    Args:
        n_samples: Number of samples, spread over the categories.
        seed: Seed of everything that is drawn.
        include: As in the job.
        is_simulated: Whether the run says so.
        filler_chars: Length of varied prose added to each output, to make pages heavy.
        outcome: The gate's outcome.
        has_prices: False for a run whose costs are all unknown.
    """
    rng = random.Random(seed)
    rows = [
        _make_row(rng, number, prompt, model, filler_chars=filler_chars, has_prices=has_prices)
        for number in range(n_samples)
        for prompt in PROMPTS
        for model in MODELS
    ]
    summary = summarize_rows(rows, is_simulated=is_simulated)
    return ReportData(
        manifest=make_manifest(rows, has_prices=has_prices),
        summary=summary,
        verdict=make_verdict(summary, outcome),
        rows=rows,
        include=include,
    )


def make_result(**columns: Any) -> dict[str, Any]:
    """Return a row of results.parquet as a dict, with the given columns over plain defaults."""
    base = {
        "sample_id": "s1", "prompt": "terse", "model": "gpt-5.1", "repeat": 0, "category": "arithmetic",
        "status": "ok", "error_code": None, "error_message": None, "http_status": 200, "attempts": 1,
        "sample": json.dumps({"question": "2+2?", "answer": "4"}), "output": "4", "refusal": None,
        "request": '{"model": "gpt-5.1", "messages": [{"role": "user", "content": "2+2?"}], "temperature": 0}',
        "reasoning": None, "tool_calls": None, "finish_reason": "stop", "response_model": "gpt-5.1", "flags": None,
        "prompt_tokens": 20, "cached_tokens": 0, "completion_tokens": 3, "reasoning_tokens": None,
        "cost_usd": 0.000055, "latency_s": 0.5, "score": 1.0, "passed": True,
    } | columns  # fmt: skip
    key = json.dumps([base["sample_id"], base["prompt"], base["model"], base["repeat"]])
    return {"row_id": hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest(), **base} | columns


def make_grade(**columns: Any) -> dict[str, Any]:
    """Return a row of grades.parquet as a dict, with the given columns over plain defaults."""
    return {
        "grader": "correct", "type": "numeric", "score": 1.0, "passed": True, "hard": False, "weight": 1.0,
        "reason": "4 equals 4", "error_code": None,
    } | columns  # fmt: skip


def make_data(rows: Sequence[ReportRow], **changes: Any) -> ReportData:
    """Return a small report over the given rows."""
    summary = summarize_rows(rows)
    data = ReportData(manifest=make_manifest(rows), summary=summary, verdict=make_verdict(summary, "pass"), rows=rows)
    return replace(data, **changes)


def _make_row(
    rng: random.Random, number: int, prompt: str, model: str, *, filler_chars: int, has_prices: bool
) -> ReportRow:
    category = list(CATEGORIES)[number % len(CATEGORIES)]
    question, answer, grader = (
        part.format(n=number + 5, weekly=(number + 5) * 21, year=1500 + number, less=number + 2, more=number + 10)
        for part in CATEGORIES[category]
    )
    accuracy, median_s, _, _ = MODELS[model]
    accuracy += PROMPTS[prompt][1] - (0.12 if category in ("ภาษาไทย", "extraction") else 0)
    is_right = rng.random() < accuracy
    said = answer if is_right else "I am not sure, but perhaps 41?"
    output = f"Step by step: the question asks for one value.\n\n{said}" if prompt == "reasoned" else said
    output += "".join(f" {word}" for word in rng.choices(_WORDS, _WEIGHTS, k=filler_chars // 6))
    body = {
        "model": model,
        "messages": [{"role": "system", "content": PROMPTS[prompt][0]}, {"role": "user", "content": question}],
        "temperature": 0,
        "max_completion_tokens": 512,
    }
    columns: dict[str, Any] = {
        "sample_id": f"{_SHORT[category]}-{number:03d}", "prompt": prompt, "model": model, "category": category,
        "sample": json.dumps({"question": question, "answer": answer, "level": number % 4}, ensure_ascii=False),
        "request": json.dumps(body, ensure_ascii=False), "output": output, "response_model": model,
        "prompt_tokens": 40 + len(question) // 3, "completion_tokens": 4 + len(output) // 4,
        "latency_s": round(rng.lognormvariate(math.log(median_s), 0.35), 4),
        "score": 1.0 if is_right else 0.0, "passed": is_right,
    }  # fmt: skip
    _, _, price_in, price_out = MODELS[model]
    usd = (columns["prompt_tokens"] * price_in + columns["completion_tokens"] * price_out) / 1e6
    columns["cost_usd"] = usd if has_prices else None
    reason = f"found {answer}" if is_right else f"expected {answer}, got “{said}”"
    grades = [make_grade(grader="correct", type=grader, score=columns["score"], passed=is_right, reason=reason)]
    return _spoil(rng, columns, grades)


def _spoil(rng: random.Random, columns: dict[str, Any], grades: list[dict[str, Any]]) -> ReportRow:
    """Turn a few rows into errors, cut answers, empty ones, filtered ones and ungraded ones."""
    draw = rng.random()
    lost = dict.fromkeys(_LOST)
    if draw < 0.006:
        columns |= lost | {"status": "error", "error_code": "overloaded", "http_status": 503, "attempts": 6,
                           "error_message": "The engine is currently overloaded, please try again later."}  # fmt: skip
    elif draw < 0.009:
        columns |= lost | {"status": "error", "error_code": "timeout_total", "http_status": None, "attempts": 3,
                           "error_message": "no complete reply within 600 s"}  # fmt: skip
    elif draw < 0.012:
        columns |= lost | {"status": "filtered", "finish_reason": "content_filter"}
    elif draw < 0.024:
        columns |= {
            "status": "truncated",
            "finish_reason": "length",
            "output": columns["output"][:12],
            "score": 0.0,
            "passed": False,
        }
        grades = [grades[0] | {"passed": False, "score": 0.0, "reason": "the answer was cut off before a number"}]
    elif draw < 0.027:
        columns |= {"status": "empty", "output": "", "score": 0.0, "passed": False}
        grades = [grades[0] | {"passed": False, "score": 0.0, "reason": "the output is empty"}]
    elif draw < 0.029:
        columns |= {"score": None, "passed": None}
        grades = [grades[0] | {"passed": None, "score": None, "reason": "", "error_code": "grader_timeout"}]
    elif draw < 0.033:
        columns |= {"flags": '["model_mismatch"]', "response_model": columns["model"] + "-2026-08-21"}
    is_graded = columns.get("status", "ok") in ("ok", "truncated", "empty")
    return build_report_row(make_result(**columns), grades if is_graded else [])


def summarize_rows(rows: Sequence[ReportRow], *, is_simulated: bool = True) -> Summary:
    """Return figures for the rows: close enough to the analysis room's to look right."""
    arms: dict[tuple[str, str], list[ReportRow]] = {}
    for row in rows:
        arms.setdefault((row.model, row.prompt), []).append(row)
    summaries = sorted((_summarize_arm(group) for group in arms.values()), key=lambda arm: -(arm.pass_rate.value or 0))
    tests = _test_arms(arms, summaries)
    statuses = Counter(row.status for row in rows)
    return Summary(
        arms=tuple(summaries),
        best=tests[0] if tests else None,
        tests=tests,
        headline=_make_headline(summaries, tests),
        statuses={status.value: statuses.get(status.value, 0) for status in Status},
        errors=dict(Counter(row.error_code for row in rows if row.error_code is not None)),
        is_simulated=is_simulated,
    )


def make_verdict(summary: Summary, outcome: str) -> Verdict:
    """Return a verdict with one finding an arm."""
    findings = [
        Finding(
            rule="min_pass_rate",
            outcome="pass" if (arm.pass_rate.value or 0) >= 0.75 else "fail",
            message=f"{100 * (arm.pass_rate.value or 0):.1f}% of {arm.n_scored} passed; at least 75% are asked for",
            model=arm.model,
            prompt=arm.prompt,
        )
        for arm in summary.arms
    ]
    findings.append(
        Finding(rule="max_error_rate", outcome="pass", message="0.9% of rows are errors; at most 1% may be")
    )
    words = {
        "pass": ("Every rule of the gate holds.", 0),
        "fail": ("Two arms pass fewer than 75% of their samples.", 1),
        "no_verdict": ("The lane of gpt-5.1 stopped: the quota is used up.", 3),
        "none": ("The job asks for no gate.", 0),
    }[outcome]
    return Verdict(
        outcome=outcome, exit_code=words[1], headline=words[0], findings=() if outcome == "none" else findings
    )


def make_manifest(rows: Sequence[ReportRow], *, has_prices: bool = True) -> dict[str, Any]:
    """Return a run.json for the rows."""
    usd = sum(row.cost_usd or 0 for row in rows)
    n_attempts = sum(row.attempts for row in rows)
    prices = {
        model: {"input": str(price_in), "output": str(price_out)} if has_prices else None
        for model, (_, _, price_in, price_out) in MODELS.items()
    }
    return {
        "schema_version": "1", "run_id": "20261122-153045-a1b2c3", "job_name": "support-answers",
        "job_path": "configs/support.yaml",
        "job": {"description": "Do short answers hold up in six categories, two of them in other scripts?"},
        "digests": {"job": "9f2c6a51b7d0e3", "dataset": "41ab90c2ddee17", "graders": "c0ffee12345678"},
        "versions": {"evalrun": "0.1.0", "python": "3.11.7"},
        "started_at": "2026-11-22T15:30:45+00:00", "finished_at": "2026-11-22T15:32:50+00:00", "wall_s": 125.4,
        "counts": dict(Counter(row.status for row in rows)),
        "totals": {
            "requests": len(rows), "attempts": n_attempts,
            "prompt_tokens": sum(row.prompt_tokens or 0 for row in rows),
            "completion_tokens": sum(row.completion_tokens or 0 for row in rows),
            "usd": usd if has_prices else None,
            "usd_unknown_rows": sum(row.cost_usd is None for row in rows if row.output is not None),
        },
        "estimate": {"usd": {"low": usd * 0.8, "expected": usd, "high": usd * 1.4} if has_prices else {},
                     "time_s": {"low": 60, "expected": 110, "high": 300}},
        "prices": prices, "lanes": [], "is_simulated": True,
        "warnings": ["A trailing newline was trimmed from the variable that api_key_env names."],
    }  # fmt: skip


def _summarize_arm(rows: Sequence[ReportRow]) -> ArmSummary:
    scored = [row for row in rows if row.passed is not None]
    answered = [row for row in rows if row.status in ("ok", "truncated", "empty", "refused")]
    n_passed = sum(row.passed is True for row in scored)
    statuses = Counter(row.status for row in rows)
    costs = [row.cost_usd for row in answered if row.cost_usd is not None]
    latencies = sorted(row.latency_s for row in rows if row.latency_s is not None)
    categories = dict.fromkeys(row.category for row in rows if row.category is not None)
    is_known = bool(costs) and len(costs) == len(answered)
    return ArmSummary(
        model=rows[0].model,
        prompt=rows[0].prompt,
        n_total=len(rows),
        n_scored=len(scored),
        pass_rate=make_rate(n_passed, len(scored)),
        mean_score=n_passed / len(scored) if scored else None,
        n_errors=statuses["error"],
        n_pending=statuses["pending"],
        n_filtered=statuses["filtered"],
        n_truncated=statuses["truncated"],
        n_empty=statuses["empty"],
        n_refused=statuses["refused"],
        n_ungraded=sum(row.passed is None for row in answered),
        n_hard_failures=0,
        prompt_tokens=sum(row.prompt_tokens or 0 for row in rows),
        completion_tokens=sum(row.completion_tokens or 0 for row in rows),
        n_usage_missing=0,
        cost_usd=sum(costs) if costs else None,
        n_cost_unknown=len(answered) - len(costs),
        usd_per_1k=1000 * sum(costs) / len(answered) if is_known else None,
        usd_per_correct=sum(costs) / n_passed if is_known and n_passed else None,
        latency_p50_s=latencies[len(latencies) // 2] if latencies else None,
        latency_p95_s=latencies[len(latencies) * 95 // 100] if latencies else None,
        attempts=sum(row.attempts for row in rows),
        categories={
            name: make_rate(
                sum(row.passed is True for row in scored if row.category == name),
                sum(row.category == name for row in scored),
            )
            for name in categories
        },
    )


def make_rate(passed: int, n: int) -> Rate:
    """Return k of n with its Wilson interval, by the textbook formula."""
    if n == 0:
        return Rate(passed=0, n=0, value=None, low=0.0, high=1.0)
    z = 1.959963984540054
    middle = (passed + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(passed * (n - passed) / n + z * z / 4)
    return Rate(passed=passed, n=n, value=passed / n, low=max(middle - half, 0.0), high=min(middle + half, 1.0))


def _test_arms(
    arms: Mapping[tuple[str, str], Sequence[ReportRow]], summaries: Sequence[ArmSummary]
) -> tuple[PairTest, ...]:
    if len(summaries) < 2:
        return ()
    best = {row.sample_id: row.passed for row in arms[summaries[0].model, summaries[0].prompt]}
    tests = []
    for arm in summaries[1:]:
        pairs = [(best.get(row.sample_id), row.passed) for row in arms[arm.model, arm.prompt]]
        pairs = [pair for pair in pairs if None not in pair]
        b, c, n = sum(p == (True, False) for p in pairs), sum(p == (False, True) for p in pairs), max(len(pairs), 1)
        half = 1.96 * math.sqrt(max(b + c - (b - c) ** 2 / n, 0.5)) / n
        tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
        tests.append(
            PairTest(model=arm.model, prompt=arm.prompt, n_pairs=len(pairs), best_only=b, other_only=c,
                     difference=(b - c) / n, low=(b - c) / n - half, high=(b - c) / n + half,
                     p_value=min(1.0, 2 * tail * (len(summaries) - 1)))
        )  # fmt: skip
    return tuple(tests)


def _make_headline(arms: Sequence[ArmSummary], tests: Sequence[PairTest]) -> str:
    if not tests:
        return "One arm was run; there is nothing to compare it with."
    best, rival = arms[0], tests[0]
    if rival.p_value >= 0.05:
        return (
            f"The data do not tell {best.model} with “{best.prompt}” from {rival.model} with “{rival.prompt}”: "
            f"{100 * rival.difference:+.1f} points, 95% interval {100 * rival.low:+.1f} to {100 * rival.high:+.1f}, "
            f"n = {rival.n_pairs}. About 1,900 samples would show a difference of 2 points."
        )
    return f"{best.model} with “{best.prompt}” is best, {100 * rival.difference:+.1f} points ahead of the next."


# Made-up words, frequent and rare ones as in any language, so that prose compresses as real prose does.
_LETTERS = random.Random(0)
_WORDS = tuple("".join(_LETTERS.choices("etaoinshrdlucm", k=_LETTERS.randint(2, 9))) for _ in range(3_000))
_WEIGHTS = tuple(1 / rank for rank in range(1, 3_001))
_LOST = (
    "output", "score", "passed", "latency_s", "cost_usd", "prompt_tokens", "completion_tokens", "finish_reason",
    "response_model",
)  # fmt: skip
_SHORT = {
    "arithmetic": "math",
    "extraction": "json",
    "classification": "sent",
    "facts": "fact",
    "ภาษาไทย": "thai",
    "中文": "zh",
}
