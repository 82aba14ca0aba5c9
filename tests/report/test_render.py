"""The HTML page: self-contained, inert whatever the data say, the same bytes for the same run."""

import base64
import gzip
import hashlib
import json
import re
from collections import Counter
from functools import cache
from html.parser import HTMLParser
from typing import Any
from unicodedata import east_asian_width

import pytest

from evalrun.report import render
from evalrun.report.model import ReportData
from evalrun.report.render import render_html
from evalrun.report.text import make_visible
from tests.report.fake_run import make_data, make_run
from tests.report.hostile import PAYLOADS
from tests.report.hostile_run import make_hostile_run


class Page(HTMLParser):
    """What a browser would make of the page: elements, attributes, texts."""

    def __init__(self, html: str) -> None:
        """Parse the page."""
        super().__init__(convert_charrefs=True)
        self.shapes: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.scripts: dict[str, str] = {}
        self.style = ""
        self._inside: tuple[str, dict[str, str]] = ("", {})
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Count an element by its tag and the names of its attributes."""
        self.shapes[tag, tuple(sorted(name for name, _ in attrs))] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self._inside = (tag, {name: value or "" for name, value in attrs})

    def handle_endtag(self, tag: str) -> None:
        """Leave an element."""
        self._inside = ("", {})

    def handle_data(self, data: str) -> None:
        """Keep a text where it stands."""
        tag, attributes = self._inside
        if tag == "script":
            self.scripts[attributes.get("type", "javascript")] = data
        elif tag == "style":
            self.style += data
        else:
            self.texts.append(data)

    @property
    def data(self) -> Any:
        """The item data, unpacked."""
        value = json.loads(self.scripts["application/json"])
        return json.loads(gzip.decompress(base64.b64decode(value))) if isinstance(value, str) else value

    @property
    def text(self) -> str:
        """All text that a reader sees without JavaScript."""
        return re.sub(r"\s+", " ", " ".join(self.texts))

    @property
    def policy(self) -> str:
        """The Content-Security-Policy."""
        return next(value for tag, name, value in self.attributes if tag == "meta" and "default-src" in value)


def read_harmless_page(text: str) -> Page:
    """Return the page of a run whose every text is as long as the given one, and harmless."""
    letters = "".join("中" if east_asian_width(char) in "WF" else "x" for char in make_visible(text))
    return Page(render_html(make_hostile_run(letters)))


@cache
def read_hostile_page(text: str) -> Page:
    """Return the page of a run whose every text is the given one."""
    return Page(render_html(make_hostile_run(text)))


@cache
def read_page() -> Page:
    """Return the page of the large made-up run."""
    return Page(render_html(make_run(n_samples=60)))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_page_holds_no_element_or_attribute_made_by_data(payload: str) -> None:
    """Whatever stands in whatever place, the page has the elements and attributes of a harmless one."""
    page = read_hostile_page(payload)
    assert page.shapes == read_harmless_page(payload).shapes


@pytest.mark.parametrize("payload", PAYLOADS)
def test_page_refers_to_nothing_outside_itself(payload: str) -> None:
    """Every address in the page is a place in the page or the empty icon."""
    page = read_hostile_page(payload)
    addresses = [value for _, name, value in page.attributes if name in ("href", "src", "action", "srcset", "data")]
    assert [address for address in addresses if not address.startswith("#") and address != "data:,"] == []


@pytest.mark.parametrize("payload", PAYLOADS)
def test_page_data_hold_the_text_as_it_came(payload: str) -> None:
    """The script's data say exactly what the row said, with invisible characters shown."""
    data = read_hostile_page(payload).data
    row = next(row for row in data["rows"] if row["mark"] == "fail")
    assert data["texts"][row["output"]] == make_visible(payload)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_page_shows_no_invisible_character(payload: str) -> None:
    """No direction mark, zero-width or control character of the data reaches the reader unseen."""
    page = read_hostile_page(payload)
    assert make_visible(page.text) == page.text


def test_page_is_loaded_under_a_policy_that_allows_nothing_else() -> None:
    """The policy names the hashes of the page's own style and script, and forbids everything else."""
    page = read_page()

    def digest(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    assert page.policy == (
        f"default-src 'none'; style-src {digest(page.style)}; script-src {digest(page.scripts['javascript'])}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def test_page_has_no_inline_handler_or_style() -> None:
    """Nothing in the page needs a looser policy."""
    names = {name for _, name, _ in read_page().attributes}
    assert {name for name in names if name.startswith("on") or name == "style"} == set()


def test_page_names_no_host() -> None:
    """No address of any host stands in the page of a run whose data name none."""
    assert re.findall(r"(?:https?:)?//[\w.-]+\.\w+", render_html(make_run(n_samples=12))) == []


def test_script_never_reads_data_as_markup() -> None:
    """The script has no call that would turn text into elements or code."""
    script = read_page().scripts["javascript"]
    assert (
        re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|fetch\(", script) == []
    )


def test_page_is_the_same_for_the_same_run() -> None:
    """Equal input gives equal bytes."""
    assert render_html(make_run(n_samples=30)) == render_html(make_run(n_samples=30))


def test_page_stays_below_two_megabytes() -> None:
    """500 samples with three long answers each fit well into 2 MB."""
    data = make_run(n_samples=250, filler_chars=1_800)
    assert len(data.rows) == 1_500
    assert len(render_html(data).encode()) < 2_000_000


def test_page_says_simulated_first() -> None:
    """A simulated run says so before anything else, and in the title."""
    page = read_page()
    assert page.text.strip().startswith("simulated: Fail · support-answers · evalrun")
    assert page.text.index("Simulated.") < page.text.index("Leaderboard")


def test_page_of_a_real_run_does_not_say_simulated() -> None:
    """The banner is there only when it is true."""
    assert "Simulated" not in Page(render_html(make_run(n_samples=12, is_simulated=False))).text


@pytest.mark.parametrize(
    ("outcome", "word"), [("pass", "Pass"), ("fail", "Fail"), ("no_verdict", "No verdict"), ("none", "No gate")]
)
def test_page_says_the_verdict_in_a_word(outcome: str, word: str) -> None:
    """Each outcome has a word and an icon, so that colour is not all that tells it."""
    html = render_html(make_run(n_samples=12, outcome=outcome))
    assert re.search(rf'<p class="word"><svg class="icon [^>]*>.*?</svg><span>{word}</span>', html)


def test_page_reads_without_javascript() -> None:
    """Headline, leaderboard, charts, and the first failing items stand in the page itself."""
    page = read_page()
    for text in ("The data do not tell", "Leaderboard", "Behind the best", "Categories", "expected"):
        assert text in page.text
    assert page.shapes["article", ()] == 20


def test_page_says_why_there_is_no_cost_chart() -> None:
    """With unknown costs the scatter is left out and the page says what to do."""
    page = Page(render_html(make_run(n_samples=12, has_prices=False)))
    assert "no arm has answers of known cost" in page.text


def test_page_without_texts_holds_none() -> None:
    """`include: none` keeps prompts, outputs and reasons out of the whole file."""
    page = Page(render_html(make_run(n_samples=30, include="none")))
    whole = page.text + json.dumps(page.data, ensure_ascii=False)
    for secret in ("A baker sells", "perhaps 41", "Think step by step", "overloaded, please"):
        assert secret not in whole


def test_page_with_outputs_only_holds_no_prompt() -> None:
    """`include: outputs` keeps outputs and reasons, and leaves prompts and sample fields out."""
    page = Page(render_html(make_run(n_samples=30, include="outputs")))
    whole = page.text + json.dumps(page.data, ensure_ascii=False)
    assert "perhaps 41" in whole
    assert "A baker sells" not in whole
    assert "Think step by step" not in whole


def test_page_without_rows_still_renders() -> None:
    """A run that asked nothing has a page without charts."""
    page = Page(render_html(make_data([])))
    assert "Leaderboard" not in page.text
    assert "every row passed" in page.text


def test_page_of_one_arm_compares_nothing() -> None:
    """With a single arm there is no difference to draw, and the page says so."""
    data = make_run(n_samples=12)
    one: ReportData = make_data([row for row in data.rows if (row.model, row.prompt) == ("gpt-5.1", "terse")])
    assert "Nothing to compare" in Page(render_html(one)).text


@pytest.mark.parametrize("n_models", [1, 12, 30])
def test_page_takes_any_number_of_arms(n_models: int) -> None:
    """Colours and shapes repeat when there are more arms than signs."""
    rows = [row for number in range(n_models) for row in make_hostile_run(f"m{number}").rows]
    assert render_html(make_data(rows)).count("<tr") > n_models


def test_template_never_prints_none() -> None:
    """A template that would print an unknown value fails loudly instead of writing None."""
    with pytest.raises(TypeError, match="give the unknown a word"):
        render._ENVIRONMENT.from_string("{{ value }}").render(value=None)
