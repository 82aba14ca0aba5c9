"""The quick reader gives what the exact reader gives, or nothing."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.job.quick_rows import MAX_DEPTH, parse_row
from evalrun.job.readers import parse_cell

TEXTS = st.text(alphabet=st.sampled_from('ab":\\ \t,{}[]é😀\x00\x7f'), max_size=6)
NUMBERS = st.integers(-(2**66), 2**66) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@given(
    st.lists(st.tuples(TEXTS, VALUES), max_size=4), st.booleans(), st.sampled_from([":", " : ", ": ", "\t:"]), st.data()
)
def test_quick_row_equals_the_exact_row(
    pairs: list[tuple[str, Any]], is_ascii: bool, colon: str, data: st.DataObject
) -> None:
    """A row read quickly has the keys, values and types that the exact reader gives; equal keys never pass."""
    comma = data.draw(st.sampled_from([",", ", "]))
    written = [
        json.dumps(key, ensure_ascii=is_ascii)
        + colon
        + json.dumps(value, ensure_ascii=is_ascii, separators=(comma, colon))
        for key, value in pairs
    ]
    line = "{" + comma.join(written) + "}\n"
    quick = parse_row(line.encode())
    if quick is not None:
        assert repr(quick) == repr(parse_cell(line.strip()))


@pytest.mark.parametrize(
    "line",
    [
        '{"id": "a", "q": "2 + 2?", "n": 3, "x": 0.5, "ok": true, "none": null}',
        '{"id":"a","q":"a : b, \\u00e9 c:d: http://x","tags":["x",{"k":1}],"m":{"r":{"s":-7}}}',
        '{"big": 18446744073709551615, "small": -9223372036854775808, "e": 1e5}',
    ],
)
def test_quick_row_reads_what_datasets_hold(line: str) -> None:
    """Usual rows are read quickly: flat and nested ones, with colons in their texts and numbers up to 64 bits."""
    assert repr(parse_row(line.encode() + b"\r\n")) == repr(parse_cell(line))


@pytest.mark.parametrize(
    "line",
    [
        '{"a": 1, "a": 2}',
        '{"a": 1, "b": {"c": 1, "c": 1}}',
        '{"a" : 1, "a" : "\\":"}',
        '{"n": 18446744073709551616}',
        '{"n": [-9223372036854775809]}',
        '{"n": 1e300}',
        '{"n": 1e400}',
        '{"n": NaN}',
        '{"s": "\\ud800"}',
        "[1]",
        "7",
        "",
        '{"a": 1',
        '{"a": ' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}",
    ],
)
def test_quick_row_leaves_the_rest_to_the_exact_reader(line: str) -> None:
    """Equal keys, numbers that may be rounded, and all that is no row or no JSON for orjson are not read quickly."""
    assert parse_row(line.encode()) is None


def test_quick_row_keeps_large_floats_exact() -> None:
    """A float just below 2**63 is read as it is; from there on it might be an integer that lost digits."""
    below = math.nextafter(2.0**63, 0)
    assert parse_row(b'{"n": %b}' % repr(below).encode()) == {"n": below}
    assert parse_row(b'{"n": %b}' % repr(2.0**63).encode()) is None
