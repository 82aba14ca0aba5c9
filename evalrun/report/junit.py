"""JUnit XML that every CI reads: one case a row, failures with their reason, API faults as errors.

ReportData enters, the document's text leaves. Names are unique and follow plan order, so they are the same from run to
run; no character that XML 1.0 forbids gets through. Reasons stand in the text of the elements, since GitLab shows
nothing else.
"""

import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from xml.sax.saxutils import escape, quoteattr

from evalrun.report.figures import read_number
from evalrun.report.model import MARK_WORDS, Mark, ReportData, ReportRow, count_rows, explain_row
from evalrun.report.text import clip, is_plain, make_visible, strip_for_xml

MAX_REASON_CHARS = 2_000
MAX_OUTPUT_CHARS = 1_500

MAX_TEXT_BYTES = 20_000_000
"""Text of failures in one document; GitLab refuses files of 30 MB. Beyond it reasons are cut to one line."""

_SHORT_CHARS = 200

_ELEMENTS = {
    Mark.FAIL: "failure",
    Mark.ERROR: "error",
    Mark.UNGRADED: "error",
    Mark.PENDING: "skipped",
    Mark.FILTERED: "skipped",
}


def render_junit(data: ReportData) -> str:
    """Return the run as JUnit XML: one suite an arm, one case a row.

    A case's classname is job.model.prompt and its name the sample's id, with the repeat where samples are repeated.
    Of a run with more rows than reports hold, passing ones are left out first; `rows_left_out` counts them.

    A failed row is a `failure`; a row that has no answer, or that no grader could judge, is an `error`; rows that were
    not sent, filtered by the provider, or that no grader applies to are `skipped`.
    """
    arms: dict[tuple[str, str], list[ReportRow]] = {}
    for row in data.rows:
        arms.setdefault((row.model, row.prompt), []).append(row)
    writer = _Writer(data)
    suites = [writer.write_suite(model, prompt, rows) for (model, prompt), rows in arms.items()]
    total = _count_attributes(data.rows)
    name = quoteattr(_clean(str(data.manifest.get("job_name") or "evalrun")))
    wall_s = read_number(data.manifest.get("wall_s"))
    time = f' time="{_write_seconds(wall_s)}"' if wall_s is not None else ""
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            f"<testsuites name={name} {total}{time}>",
            *suites,
            "</testsuites>",
            "",
        ]
    )


class _Writer:
    """Writes suites and keeps count of the text that went out."""

    def __init__(self, data: ReportData) -> None:
        self._data = data
        self._job = str(data.manifest.get("job_name") or "evalrun")
        self._has_repeats = any(row.repeat for row in data.rows)
        self._n_bytes = 0

    def write_suite(self, model: str, prompt: str, rows: list[ReportRow]) -> str:
        """Return the suite of one arm."""
        name = quoteattr(_clean(f"{self._job}.{model}.{prompt}"))
        time = _write_seconds(sum(row.latency_s or 0.0 for row in rows))
        counts = f'{_count_attributes(rows)} time="{time}"'
        head = f'<testsuite name={name} {counts}{self._write_timestamp()} hostname="localhost">'
        names: Counter[str] = Counter()
        cases = [self._write_case(name, self._make_name(row, names), row) for row in rows]
        return "\n".join([head, self._write_properties(), *cases, "</testsuite>"])

    def _write_properties(self) -> str:
        values = {
            "run_id": str(self._data.manifest.get("run_id") or ""),
            "simulated": "true" if self._data.summary.is_simulated else "false",
        }
        n_left_out = count_rows(self._data).n_rows - len(self._data.rows)
        if n_left_out:
            values["rows_left_out"] = str(n_left_out)
        items = (f"<property name={quoteattr(key)} value={quoteattr(_clean(value))}/>" for key, value in values.items())
        return f"<properties>{''.join(items)}</properties>"

    def _write_timestamp(self) -> str:
        """Return the start in the form the schema asks for, without a zone; nothing when it is unknown."""
        try:
            moment = datetime.fromisoformat(str(self._data.manifest.get("started_at")))
        except ValueError:
            return ""
        return f' timestamp="{moment:%Y-%m-%dT%H:%M:%S}"'

    def _make_name(self, row: ReportRow, names: Counter[str]) -> str:
        name = _clean(row.sample_id) or "(no id)"
        if self._has_repeats:
            name = f"{name} [{row.repeat}]"
        names[name] += 1
        # Ids that differ only in characters that XML forbids meet here; GitLab drops the later one of equal names.
        return name if names[name] == 1 else f"{name} ({names[name]})"

    def _write_case(self, classname: str, name: str, row: ReportRow) -> str:
        time = f' time="{_write_seconds(row.latency_s)}"' if row.latency_s is not None else ""
        start = f"<testcase classname={classname} name={quoteattr(name)}{time}"
        if row.mark is Mark.PASS:
            return f"{start}/>"
        element = _choose_element(row)
        why = explain_row(row, include=self._data.include) or MARK_WORDS[row.mark]
        message = quoteattr(_clean(clip(why.splitlines()[0] if why else "", _SHORT_CHARS)))
        kind = _quote_name(row.error_code or _name_graders(row) or row.status)
        kind = "" if element == "skipped" else f" type={kind}"
        text = escape(self._make_text(row, why))
        return f"{start}><{element} message={message}{kind}>{text}</{element}></testcase>"

    def _make_text(self, row: ReportRow, why: str) -> str:
        if self._n_bytes > MAX_TEXT_BYTES:
            return _clean(clip(why, _SHORT_CHARS))
        parts = [clip(why, MAX_REASON_CHARS)]
        if row.output is not None and self._data.include != "none":
            parts.append(f"output:\n{clip(row.output, MAX_OUTPUT_CHARS)}")
        text = _clean("\n\n".join(parts))
        self._n_bytes += len(text) if text.isascii() else len(text.encode())
        return text


def _choose_element(row: ReportRow) -> str:
    is_without_graders = row.mark is Mark.UNGRADED and not row.grades
    return "skipped" if is_without_graders else _ELEMENTS[row.mark]


def _name_graders(row: ReportRow) -> str:
    failed = [grade for grade in row.grades if grade.passed is not True]
    return ", ".join(grade.error_code or grade.grader for grade in failed)


def _count_attributes(rows: Sequence[ReportRow]) -> str:
    counts = Counter([_choose_element(row) for row in rows if row.mark is not Mark.PASS])
    return (
        f'tests="{len(rows)}" failures="{counts["failure"]}" errors="{counts["error"]}" skipped="{counts["skipped"]}"'
    )


def _write_seconds(value: float | None) -> str:
    return f"{value:.3f}" if value is not None and math.isfinite(value) else "0.000"


@lru_cache(maxsize=256)
def _quote_name(name: str) -> str:
    """Return an attribute's value; the names of codes and graders repeat from row to row."""
    return quoteattr(_clean(name))


def _clean(text: str) -> str:
    return text if is_plain(text) else strip_for_xml(make_visible(text))
