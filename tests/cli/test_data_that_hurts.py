"""Texts that want to break something on their way from the dataset through journal, tables and reports."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import polars as pl
import pytest

from evalrun.cli.main import main
from evalrun.report.text import make_visible
from evalrun.store.folder import RunFolder
from evalrun.store.journal_scan import scan_journal
from tests.cli.processes import find_run_folder
from tests.fake_endpoint import FakeEndpoint, FakeReply, SeenRequest, reply_text
from tests.report.test_render import Page

MIB = 1024 * 1024
UNICODE = (
    "a\x00b",
    "👩‍👩‍👧‍👦 and 🏳️‍🌈",
    "right to left: שלום \u202eabc\u202c \u200f!",
    "line\u2028separator\u2029and\x85next",
    "\ufffd replaced, \ufffe and \uffff none",
    "e\u0301 is not \u00e9, \uac00 is not \u1100\u1161",
    "cr\rlf\ncrlf\r\ntab\tend \n",
    "\ufeffmark first, \U0001f600 and \U0010fffd last",
    "\x1b]0;title\x07 \x9b31m",
)
SURROGATE = "half \ud83d of a pair"
OUTPUTS = (
    "{{ 7*7 }} {{ question }}",
    "{% for x in range(10**9) %}x{% endfor %} {# gone? #}",
    '{"error": {"message": "no", "code": "insufficient_quota"}}',
    "data: [DONE]\n\ndata: {}\n\n",
    "# Title\n\n![x](https://example.com/x.png) <b>bold</b> | a | b |\n|---|---|",
    "\x1b[31mred\x1b[0m \x1b]52;c;aGk=\x07",
    "file:///etc/passwd ${HOME} $(id)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A run, as it lies on disk."""

    requests: Sequence[SeenRequest]
    """Sorted by body."""
    results: pl.DataFrame
    run: Path

    @property
    def journalled(self) -> list[str | None]:
        """Output of each row as the journal holds it, in plan order."""
        with scan_journal(RunFolder(self.run)) as index:
            outcomes = [index.read_outcome(row_id) for row_id in self.results["row_id"]]
        return [outcome.completion.output if outcome and outcome.completion else None for outcome in outcomes]


def echo(request: SeenRequest) -> FakeReply:
    """Say what was asked."""
    return reply_text(request.prompt)


def ask(folder: Path, rows: Sequence[dict[str, Any]], reply: Any, *, prompt: str = "{{ question }}") -> Kept:
    """Run a job on these rows, graded; return what was kept."""
    lines = [json.dumps({"id": f"s{number}", **row}) + "\n" for number, row in enumerate(rows)]
    (folder / "d.jsonl").write_text("".join(lines), encoding="utf-8")
    with FakeEndpoint(default=reply) as endpoint:
        job = {
            "endpoints": {"there": {"base_url": endpoint.base_url}},
            "models": [{"name": "m"}],
            "prompts": [{"name": "p", "user": prompt}],
            "dataset": "d.jsonl",
            "graders": [{"type": "exact", "expected": "{{ question }}", "strip": False}],
        }
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        assert main(["run", str(folder / "job.json"), "-o", str(folder / "reports"), "--progress", "none"]) == 0
        requests = sorted(endpoint.requests, key=lambda request: request.body)
    run = find_run_folder(folder)
    return Kept(requests=requests, results=pl.read_parquet(run / "results.parquet"), run=run)


def test_d9_unicode_survives_from_the_dataset_to_the_report(tmp_path: Path) -> None:
    """NUL, joiners, bidi controls, separators, decomposed letters: server, journal and Parquet hold the same text."""
    kept = ask(tmp_path, [{"question": text} for text in UNICODE], echo)
    assert sorted(request.prompt for request in kept.requests) == sorted(UNICODE)
    assert kept.results["output"].to_list() == list(UNICODE)
    assert [json.loads(sample)["question"] for sample in kept.results["sample"]] == list(UNICODE)
    assert kept.journalled == list(UNICODE)
    assert kept.results["passed"].all()
    shown = Page((kept.run / "report.html").read_text(encoding="utf-8")).data["texts"]
    assert {make_visible(text) for text in UNICODE} <= set(shown)
    assert len(ET.parse(kept.run / "junit.xml").findall(".//testcase")) == len(UNICODE)


def test_d9_lone_surrogate_costs_no_answer(tmp_path: Path) -> None:
    """Half a pair, which UTF-8 cannot hold, is sent and kept as its escape; in an answer it is replaced and flagged."""
    kept = ask(tmp_path, [{"question": SURROGATE}], echo)
    assert kept.requests[0].prompt == SURROGATE
    row = kept.results.row(0, named=True)
    assert json.loads(row["sample"])["question"] == SURROGATE
    assert json.loads(row["request"])["messages"][0]["content"] == SURROGATE
    assert kept.journalled == [row["output"]] == [SURROGATE.replace("\ud83d", "\ufffd")]
    assert json.loads(row["flags"]) == ["text_cleaned"]


def test_d10_huge_texts_are_asked_and_kept(tmp_path: Path) -> None:
    """A prompt of 5 MB and a line of 1 MB without a space go out and come back whole; reports stay readable."""
    texts = ["many words " * (5 * MIB // 11), "x" * MIB, "short"]
    kept = ask(tmp_path, [{"question": text} for text in texts], echo)
    assert kept.results["output"].to_list() == texts
    assert kept.results["passed"].all()
    assert (kept.run / "report.html").stat().st_size < MIB


def test_d10_row_of_ten_thousand_columns_is_a_row(tmp_path: Path) -> None:
    """Columns have no limit of their own; a template sees each."""
    row = {f"c{number}": number for number in range(10_000)}
    kept = ask(tmp_path, [{"question": "q", **row}], echo, prompt="{{ c0 }} {{ c9999 }}")
    assert kept.requests[0].prompt == "0 9999"
    assert json.loads(kept.results["sample"][0]) == {"id": "s0", "question": "q", **row}


def test_d15_huge_integer_is_sent_and_kept_digit_by_digit(tmp_path: Path) -> None:
    """An integer beyond 64 bits is no float anywhere: not in the prompt, nor in the tables."""
    number = 1234567890123456789012345678901234567890
    kept = ask(tmp_path, [{"question": "q", "n": number, "deep": [{"n": -number}]}], echo, prompt="{{ n }} {{ deep }}")
    assert kept.requests[0].prompt == f'{number} [{{"n": {-number}}}]'
    assert json.loads(kept.results["sample"][0]) == {"id": "s0", "question": "q", "n": number, "deep": [{"n": -number}]}


def test_d16_output_that_looks_like_code_is_data(tmp_path: Path) -> None:
    """Templates, JSON, events, Markdown and terminal codes in an answer are kept as they came and do nothing."""
    answers = iter(OUTPUTS)
    kept = ask(tmp_path, [{"question": "q"} for _ in OUTPUTS], lambda _request: reply_text(next(answers)))
    assert sorted(kept.results["output"]) == sorted(OUTPUTS)
    assert kept.results["passed"].to_list() == [False] * len(OUTPUTS)
    page = (kept.run / "report.html").read_text(encoding="utf-8")
    assert "<b>bold</b>" not in page
    assert "\x1b" not in page


def test_d16_output_of_ten_megabytes_is_kept_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A huge answer is in the tables to its last letter; the report and the terminal hold a part that says so."""
    text = "ab{{" * (10 * MIB // 4)
    kept = ask(tmp_path, [{"question": "q"}], reply_text(text))
    assert kept.results["output"][0] == text
    assert (kept.run / "report.html").stat().st_size < MIB
    capsys.readouterr()
    assert main(["show", str(kept.run), "-o", str(tmp_path / "reports")]) == 0
    assert len(capsys.readouterr().out) < MIB
