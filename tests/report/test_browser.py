"""The page in a real browser: data unpack, filters filter, nothing is loaded, nothing pops up."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from evalrun.report.model import Mark
from evalrun.report.render import render_html
from tests.report.browser import CHROMIUM, Browser
from tests.report.fake_run import make_data, make_run
from tests.report.hostile import PAYLOADS
from tests.report.hostile_run import make_hostile_run

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")

READY = "document.documentElement.classList.contains('ready')"
FIND_LOW_CONTRAST = (Path(__file__).parent / "find_low_contrast.js").read_text(encoding="utf-8")
FEATURES = {"prefers-color-scheme": "dark", "prefers-reduced-motion": "reduce"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests of this file; each test opens its own page."""
    with Browser(media=FEATURES) as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run of 540 rows, its data packed."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_bytes(render_html(make_run(n_samples=90)).encode())
    return path


def open_page(browser: Browser, path: Path, fragment: str = "") -> None:
    """Open the page afresh and wait until its script is done."""
    browser.open(Path("/dev/null"))
    browser.events.clear()
    browser.open(path, fragment)
    browser.wait_for(READY)


def count_listed(browser: Browser) -> int:
    """Return how many rows the list shows."""
    return int(browser.evaluate("document.querySelectorAll('#list a').length"))


def test_page_unpacks_its_data_and_loads_nothing(browser: Browser, page: Path) -> None:
    """From file:// the packed rows are listed, with no request, dialog, error or violation."""
    open_page(browser, page)
    assert "data-packed" in page.read_text()
    assert count_listed(browser) == 100
    assert browser.evaluate("document.getElementById('count').textContent") == "540 rows"
    assert (browser.dialogs, browser.complaints) == ([], [])
    assert {url.split("#")[0] for url in browser.requests} == {page.as_uri()}


def test_page_of_hostile_data_stays_quiet(browser: Browser, tmp_path: Path) -> None:
    """Every hostile text in every place, an item of each opened: no dialog, request, violation or foreign element."""
    rows = [row for payload in PAYLOADS for row in make_hostile_run(payload).rows if row.model == payload]
    manifest = make_hostile_run(" ".join(PAYLOADS)).manifest
    path = tmp_path / "hostile.html"
    path.write_bytes(render_html(make_data(rows, manifest=manifest)).encode())
    open_page(browser, path, "#verdict=fail")
    assert count_listed(browser) == len(PAYLOADS)
    browser.evaluate("document.querySelectorAll('#list a').forEach((link) => link.click())")
    assert browser.evaluate("document.getElementById('detail').open") is True
    assert browser.evaluate("document.querySelectorAll('script').length") == 2
    foreign = "img,iframe,object,embed,form,video,math,base,details[ontoggle],style:not(head *),link:not(head *)"
    assert browser.evaluate(f"document.querySelectorAll({foreign!r}).length") == 0
    assert (browser.dialogs, browser.complaints) == ([], [])
    assert {url.split("#")[0] for url in browser.requests} == {path.as_uri()}


def test_hash_holds_the_filters(browser: Browser, page: Path) -> None:
    """A link with filters shows just those rows."""
    rows = [row for row in make_run(n_samples=90).rows if row.mark is Mark.FAIL and row.category == "中文"]
    open_page(browser, page, "#verdict=fail&category=%E4%B8%AD%E6%96%87")
    assert count_listed(browser) == len(rows) > 0


@pytest.mark.parametrize(
    ("words", "n_rows"), [("json-007", 6), ("model:qwen prompt:terse", 90), ("verdict:pass verdict:fail", 0)]
)
def test_search_finds_words_and_facets(browser: Browser, page: Path, words: str, n_rows: int) -> None:
    """Words are searched in all texts; `model:x` narrows by a facet."""
    open_page(browser, page)
    browser.evaluate(f"document.getElementById('q').value = {json.dumps(words)}")
    browser.evaluate("document.getElementById('q').dispatchEvent(new Event('input'))")
    browser.wait_for("location.hash.includes('q=')")
    assert count_listed(browser) == n_rows


def test_permalink_opens_the_item(browser: Browser, page: Path) -> None:
    """A permalink opens its item with reason, output and prompt; closing it clears the hash."""
    row = next(row for row in make_run(n_samples=90).rows if row.mark is Mark.FAIL)
    open_page(browser, page, f"#item={row.row_id[:12]}")
    detail = browser.evaluate("document.getElementById('detail-body').innerText")
    for text in (row.sample_id, row.grades[0].reason, row.messages[1].text):
        assert text in detail
    browser.evaluate("document.getElementById('close').click()")
    browser.wait_for("!location.hash.includes('item')")


def test_keys_walk_through_the_items(browser: Browser, page: Path) -> None:
    """Pressing j moves down the list, Enter opens, j goes on to the next item."""
    open_page(browser, page)
    browser.press("j")
    browser.press("j")
    assert browser.evaluate("[...document.querySelectorAll('#list a')].indexOf(document.activeElement)") == 1
    browser.evaluate("document.activeElement.click()")
    assert browser.evaluate("document.getElementById('position').textContent") == "2 of 540"
    browser.press("j")
    assert browser.evaluate("document.getElementById('position').textContent") == "3 of 540"
    browser.press("k")
    browser.press("k")
    assert browser.evaluate("document.getElementById('previous').disabled") is True


def test_leaderboard_sorts(browser: Browser, page: Path) -> None:
    """A click on a column sorts by its numbers, a second one turns the order."""
    open_page(browser, page)
    numbers = "[...document.querySelectorAll('#board tbody tr')].map(r => Number(r.cells[1].dataset.v))"
    click = "document.querySelectorAll('#board thead button')[1].click()"
    browser.evaluate(click)
    assert browser.evaluate(numbers) == sorted(browser.evaluate(numbers), reverse=True)
    browser.evaluate(click)
    assert browser.evaluate(numbers) == sorted(browser.evaluate(numbers))


@pytest.mark.parametrize(("theme", "scheme"), [("auto", "rgb(15, 19, 23)"), ("light", "rgb(246, 246, 244)")])
def test_theme_follows_system_and_switch(browser: Browser, page: Path, theme: str, scheme: str) -> None:
    """Without a choice the system's scheme holds; the switch's choice stands in the hash."""
    open_page(browser, page, f"#theme={theme}")
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == scheme


def test_csv_export_defuses_formulas(browser: Browser, tmp_path: Path) -> None:
    """A cell that a spreadsheet would compute gets an apostrophe; JSONL keeps the text as it came."""
    path = tmp_path / "report.html"
    path.write_bytes(render_html(make_hostile_run('=1+1,"x"')).encode())
    open_page(browser, path)
    browser.evaluate("URL.createObjectURL = (blob) => { window.saved = blob; return '#'; }")
    browser.evaluate("document.getElementById('csv').click()")
    csv = browser.evaluate("saved.text()")
    assert '"\'=1+1,""x"""' in csv
    assert csv.count("\r\n") == 13
    browser.evaluate("document.getElementById('jsonl').click()")
    assert json.loads(browser.evaluate("saved.text()").splitlines()[0])["output"] == '=1+1,"x"'


@pytest.mark.parametrize("width", [390, 768, 1400])
def test_page_fits_its_window(browser: Browser, page: Path, width: int) -> None:
    """At phone, tablet and desktop width nothing sticks out of the page."""
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    other = page.with_name("no-prices.html")
    other.write_bytes(render_html(make_run(n_samples=48, has_prices=False)).encode())
    for path in (page, other):
        open_page(browser, path)
        assert browser.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", [1100, 1280])
def test_leaderboard_is_whole_on_a_small_screen(browser: Browser, page: Path, width: int) -> None:
    """On a laptop, or in half of a large window, no column of the leaderboard is out of sight."""
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    open_page(browser, page)
    hidden = "(box => box.scrollWidth - box.clientWidth)(document.querySelector('#leaderboard .scroll'))"
    assert browser.evaluate(hidden) == 0


def test_text_has_contrast(browser: Browser, page: Path) -> None:
    """In both schemes each text has a contrast of at least 4.5 to 1 with what is behind it (WCAG AA)."""
    for theme in ("light", "dark"):
        open_page(browser, page, f"#theme={theme}")
        assert browser.evaluate(FIND_LOW_CONTRAST) == [], theme
