"""The Markdown report: fits a step summary, and no text of a model can act in it."""

import re
from collections import Counter
from dataclasses import replace
from functools import cache

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from evalrun.report.markdown import MAX_BYTES, render_markdown
from evalrun.report.model import build_report_row
from tests.report.fake_run import make_data, make_grade, make_result, make_run
from tests.report.golden_files import check_golden
from tests.report.hostile import PAYLOADS
from tests.report.hostile_run import make_hostile_run

OUR_HTML = {"<details><summary>output</summary>\n", "</details>\n", "</details>"}


def parse(text: str) -> list[Token]:
    """Return all tokens of a Markdown text, tables understood, inline ones in place of their parents."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    return [part for token in tokens for part in (token.children or [token])]


def count_structure(text: str) -> Counter[str]:
    """Count the kinds of tokens that make structure; how many words are code is no structure."""
    kinds = Counter(token.type for token in parse(text))
    return Counter({kind: n for kind, n in kinds.items() if kind not in ("text", "code_inline")})


@cache
def render_hostile(text: str) -> str:
    """Return the report of a run whose every text is the given one."""
    return render_markdown(make_hostile_run(text))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_markdown_has_no_structure_made_by_data(payload: str) -> None:
    """Whatever stands in whatever place, headings, lists, tables and HTML are those of a harmless run."""
    assert count_structure(render_hostile(payload)) == count_structure(render_hostile("x" * len(payload)))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_markdown_table_keeps_its_columns(payload: str) -> None:
    """No name can add a cell to the leaderboard."""
    lines = render_hostile(payload).split("\n")
    table = lines[lines.index("## Leaderboard") + 2 :][:5]
    assert [line.count("|") for line in table] == [14, 14, 14, 14, 0]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_markdown_outside_code_has_nothing_that_github_links(payload: str) -> None:
    """Mentions, issue numbers, addresses and commit hashes stand in code only, where GitHub leaves them alone."""
    plain = " ".join(token.content for token in parse(render_hostile(payload)) if token.type == "text")
    assert re.findall(r"@\w|#\d|\bGH-\d|://|www\.|[0-9a-f]{40}|\$\S*\$|:\w+:", plain) == []


@pytest.mark.parametrize("payload", PAYLOADS)
def test_markdown_html_is_ours(payload: str) -> None:
    """The only HTML is the fold around an output."""
    html = {token.content for token in parse(render_hostile(payload)) if token.type.startswith("html")}
    assert html <= OUR_HTML


def test_markdown_is_as_it_was() -> None:
    """The whole text of a small run equals the golden file."""
    check_golden("report.md", render_markdown(make_run(n_samples=18)))


def test_markdown_fits_a_step_summary() -> None:
    """However long the texts are, GitHub takes the summary."""
    rows = [
        build_report_row(
            make_result(sample_id="s" * 500 + str(i), model="m" * 500 + str(i), output="`" * 60_000, passed=False),
            [make_grade(passed=False, reason="💥" * 20_000)],
        )
        for i in range(300)
    ]
    text = render_markdown(make_data(rows))
    assert len(text.encode()) < MAX_BYTES
    assert "… and 200 more arms." in text


def test_markdown_is_cut_whole_parts_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A summary over the limit ends with a sentence that says so, never inside a block."""
    monkeypatch.setattr("evalrun.report.markdown.MAX_BYTES", 3_000)
    text = render_markdown(make_run(n_samples=60))
    assert text.endswith("The rest is left out: the summary would be too large. All of it is in `report.html`.\n")
    assert len(text.encode()) <= 3_000


def test_markdown_says_simulated_first() -> None:
    """A simulated run says so right under its title."""
    assert render_markdown(make_run(n_samples=6)).splitlines()[2].startswith("> **Simulated.**")


def test_markdown_shows_the_first_twenty_failures() -> None:
    """Twenty items are shown, and how many there are."""
    text = render_markdown(make_run(n_samples=60))
    assert text.count("**failed** ") == 20
    assert re.search(r"The first 20 of \d+\.", text)


def test_markdown_without_texts_holds_none() -> None:
    """`include: none` keeps outputs and reasons out."""
    text = render_markdown(make_run(n_samples=30, include="none"))
    assert "perhaps 41" not in text
    assert "<details>" not in text


def test_markdown_of_one_real_arm_compares_nothing() -> None:
    """A run of one arm that answered for real has a leaderboard of one line, and no word of simulation."""
    rows = [build_report_row(make_result(sample_id=str(i), repeat=1, cost_usd=None), []) for i in range(3)]
    data = make_data(rows)
    text = render_markdown(replace(data, summary=replace(data.summary, is_simulated=False)))
    assert "imulated" not in text
    assert "| 1 | `gpt-5.1` | `terse` | **100.0%** | 43.9% – 100.0% | 3 / 3 | – | 0 | 0 | unknown | unknown |" in text
    assert "Items that did not pass" not in text


def test_markdown_of_an_empty_run_still_says_its_verdict() -> None:
    """Without rows there is no table, only what is known."""
    text = render_markdown(make_data([]))
    assert text.startswith("# `support-answers`: ✅ Pass")
    assert "Leaderboard" not in text


def test_markdown_tells_which_repeat_failed() -> None:
    """A failing repeat is named with its number."""
    row = build_report_row(make_result(repeat=2, passed=False, output=None), [])
    assert "**failed** `s1` · `gpt-5.1` · `terse` · repeat 2" in render_markdown(make_data([row]))


def test_markdown_puts_no_list_mark_first() -> None:
    """A sentence that begins like a list item is no list."""
    data = make_data([])
    text = render_markdown(replace(data, summary=replace(data.summary, headline="1. first, a < b")))
    assert "`1.` first, a &lt; b" in text
