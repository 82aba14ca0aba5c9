"""One self-contained HTML page from a run: no network, no foreign code, readable without JavaScript.

ReportData enters, the page's text leaves; equal input gives equal bytes. Invariant: untrusted text reaches the page
only through autoescaped text nodes and quoted attributes, or as escaped JSON that the script writes with `textContent`.
"""

import base64
import hashlib
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from evalrun.report.arms import ArmView, build_arm_views
from evalrun.report.charts import build_forest, build_heat_map, build_latencies, build_rate_intervals, build_scatter
from evalrun.report.facts import build_facts
from evalrun.report.figures import (
    choose_latency_unit,
    choose_usd_digits,
    format_count,
    format_latency,
    format_p,
    format_percent,
    format_points,
    format_usd,
    format_usd_column,
)
from evalrun.report.model import MARK_WORDS, Mark, ReportData, ReportRow, count_rows, explain_row, order_worst_first
from evalrun.report.payload import build_payload, make_item_id
from evalrun.report.text import make_excerpt, make_visible
from evalrun.report.words import word_report_plainly

N_STATIC_ITEMS = 20
"""Failing items that stand in the page for readers without JavaScript, and on paper."""

_TEMPLATES = Path(__file__).parent / "templates"


class VerdictWords(NamedTuple):
    """How an outcome is said: one word, and the icon that goes with it."""

    word: str
    icon: str


VERDICT_WORDS = {
    "pass": VerdictWords("Pass", "pass"),
    "fail": VerdictWords("Fail", "fail"),
    "no_verdict": VerdictWords("No verdict", "ungraded"),
    "none": VerdictWords("No gate", "none"),
}
"""Words and icons of the gate's outcomes."""


class ErrorExample(NamedTuple):
    """A kind of error, how often it came, and one row that shows it."""

    code: str
    n_rows: int
    row: ReportRow | None
    """None when no row of the report carries the code."""


def render_html(data: ReportData) -> str:
    """Return the report as one HTML page."""
    style, script = _read_asset("report.css"), _read_asset("report.js")
    return load_page().render(
        **_build_scope(word_report_plainly(data)),
        style=Markup(style),  # noqa: S704 - our own file, and its hash is the page's policy
        script=Markup(script),  # noqa: S704 - likewise
        style_hash=_hash_source(style),
        script_hash=_hash_source(script),
    )


def load_page() -> jinja2.Template:
    """Return the page's template; compiling it, once per process, takes as long as a page of 2,000 rows."""
    return _ENVIRONMENT.get_template("report.html.j2")


def _build_scope(data: ReportData) -> dict[str, Any]:
    views = build_arm_views(data.summary)
    payload = build_payload(data.rows, views, include=data.include, n_run_rows=count_rows(data).n_rows)
    rates = build_rate_intervals(views)
    verdict = data.verdict
    return {
        "include": data.include,
        "summary": data.summary,
        "verdict": verdict,
        "verdict_words": VERDICT_WORDS.get(verdict.outcome, VERDICT_WORDS["none"]),
        "facts": build_facts(data),
        "views": views,
        "rates": rates,
        "intervals": {interval.view.number: interval for interval in rates.rows},
        "columns": _choose_columns(views),
        "usd_digits": {
            "per_1k": choose_usd_digits([view.arm.usd_per_1k for view in views]),
            "per_correct": choose_usd_digits([view.arm.usd_per_correct for view in views]),
        },
        "latency_unit": choose_latency_unit([view.arm.latency_p95_s for view in views]),
        "forest": build_forest(views),
        "scatter": build_scatter(views),
        "heat": build_heat_map(views),
        "latencies": build_latencies(views),
        "errors": _find_error_examples(data),
        "payload": payload,
        "payload_json": Markup(payload.text),  # noqa: S704 - JSON with every < > & escaped
        "static_items": _choose_static_items(data),
        "has_repeats": any(row.repeat for row in data.rows),
    }


def _choose_columns(views: tuple[ArmView, ...]) -> dict[str, bool]:
    """Return which optional columns the leaderboard shows: those that say something in this run."""
    arms = [view.arm for view in views]
    return {
        "tests": any(view.test for view in views),
        "score": any(
            arm.mean_score is not None and abs(arm.mean_score - (arm.pass_rate.value or 0.0)) > 1e-9 for arm in arms
        ),
        "pending": any(arm.n_pending for arm in arms),
        "filtered": any(arm.n_filtered for arm in arms),
        "empty": any(arm.n_empty for arm in arms),
        "refused": any(arm.n_refused for arm in arms),
        "ungraded": any(arm.n_ungraded for arm in arms),
        "hard": any(arm.n_hard_failures for arm in arms),
        "cost": any(arm.usd_per_1k is not None for arm in arms),
    }


def _find_error_examples(data: ReportData) -> tuple[ErrorExample, ...]:
    """Return each error code with its count, most frequent first, and its first row."""
    first: dict[str, ReportRow] = {}
    for row in data.rows:
        if row.error_code is not None:
            first.setdefault(row.error_code, row)
    counts = sorted(data.summary.errors.items(), key=lambda item: (-item[1], item[0]))
    return tuple(ErrorExample(code, count, first.get(code)) for code, count in counts if count)


def _choose_static_items(data: ReportData) -> list[ReportRow]:
    worst = [row for row in order_worst_first(data.rows) if row.mark is not Mark.PASS]
    return worst[:N_STATIC_ITEMS]


def _read_asset(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _hash_source(text: str) -> str:
    """Return a source expression of the Content-Security-Policy for an inline element with exactly this text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _finalize(value: Any) -> Any:
    """Make every text that a template prints visible; refuse to print None, which has a word of its own."""
    if value is None:
        msg = "a template prints None: give the unknown a word"
        raise TypeError(msg)
    return make_visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _make_filter_link(**state: str) -> str:
    """Return a link within the page that sets filters; every character of data is percent-coded."""
    return "#" + "&".join(f"{key}={quote(value, safe='')}" for key, value in state.items())


def _make_environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters |= {
        "count": format_count,
        "percent": format_percent,
        "points": format_points,
        "usd": format_usd,
        "usd_column": format_usd_column,
        "latency": format_latency,
        "p_value": format_p,
        "excerpt": make_excerpt,
        "item_id": make_item_id,
        "filter_link": _make_filter_link,
    }
    environment.globals |= {
        "MARK_WORDS": MARK_WORDS,
        "Mark": Mark,
        "explain_row": explain_row,
        "filter_link": _make_filter_link,
    }
    return environment


_ENVIRONMENT = _make_environment()
