"""The item data of the page: worst first, each text once, never too large."""

import base64
import gzip
import json
from typing import Any

from evalrun.report.arms import build_arm_views
from evalrun.report.model import Include, build_report_row
from evalrun.report.payload import Payload, build_payload, pack
from tests.report.fake_run import make_result, make_run


def build(n_samples: int, *, include: Include = "full", max_bytes: int = 10**8) -> Payload:
    """Return the payload of a made-up run."""
    data = make_run(n_samples=n_samples)
    return build_payload(data.rows, build_arm_views(data.summary), include=include, max_bytes=max_bytes)


def unpack(payload: Payload) -> Any:
    """Return what the page's script would read."""
    value = json.loads(payload.text)
    return json.loads(gzip.decompress(base64.b64decode(value))) if payload.is_packed else value


def test_small_data_are_plain_and_large_data_packed() -> None:
    """Readers of small pages can search the source; large pages stay small."""
    assert not build(6).is_packed
    assert build(90).is_packed


def test_packed_data_are_the_same_bytes_each_time() -> None:
    """No time stamp of gzip gets into the page."""
    assert pack(["x" * 300_000]) == pack(["x" * 300_000])


def test_data_hold_each_text_once() -> None:
    """A prompt that six arms were asked stands in the data once."""
    texts = unpack(build(30))["texts"]
    assert len(texts) == len(set(texts))


def test_data_begin_with_what_failed() -> None:
    """Failing rows come first, passing ones last."""
    marks = [row["mark"] for row in unpack(build(60))["rows"]]
    order = ["fail", "error", "ungraded", "pending", "filtered", "pass"]
    assert marks == sorted(marks, key=order.index)


def test_rows_that_do_not_fit_are_counted() -> None:
    """A page that would grow too large keeps failing rows and counts the rest."""
    payload = build(60, max_bytes=20_000)
    rows = unpack(payload)["rows"]
    assert payload.n_rows == len(rows) < 360
    assert payload.n_rows + payload.n_left_out == 360
    assert {row["mark"] for row in rows} == {"fail"}


def test_one_row_is_kept_however_large_it_is() -> None:
    """A limit never leaves the page without any item."""
    assert build(6, max_bytes=1).n_rows == 1


def test_equal_row_ids_do_not_hide_each_other() -> None:
    """Rows whose ids begin alike keep their whole ids."""
    rows = [build_report_row(make_result() | {"row_id": "a" * 12 + str(i)}, []) for i in range(2)]
    data = unpack(build_payload(rows, [], include="full"))
    assert [row["id"] for row in data["rows"]] == ["a" * 12 + "0", "a" * 12 + "1"]


def test_text_cannot_end_the_script_element() -> None:
    """No < is left in the data, so that nothing in them can close the element."""
    text, is_packed = pack("</script><!--")
    assert not is_packed
    assert "<" not in text
    assert json.loads(text) == "</script><!--"


def test_values_that_are_zero_are_kept() -> None:
    """A score, a cost or a count of zero is data; only what is unknown is left out."""
    row = build_report_row(make_result(score=0.0, cost_usd=0.0, passed=False), [])
    item = unpack(build_payload([row], [], include="full"))["rows"][0]
    assert (item["score"], item["usd"]) == (0.0, 0.0)


def test_names_with_nothing_to_show_are_left_out() -> None:
    """Null and empty values take no room in the page."""
    row = build_report_row(make_result(finish_reason="", flags="[]", category=None), [])
    item = unpack(build_payload([row], [], include="full"))["rows"][0]
    assert {"finish", "flags", "category", "grades", "code"}.isdisjoint(item)
