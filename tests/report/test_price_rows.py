"""The price table of a report: every price that held, whoever named it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.report.price_rows import PriceRow, build_price_rows

LIBRARY = {
    "source": "library",
    "origin": "openai/gpt-5.1",
    "library": "genai-prices 0.2.3",
    "entries": [
        {"input": "4", "output": "20", "multipliers": {"flex": "0.5", "scale": None}, "valid_from": "2026-08-21"},
        {"input": "3", "output": "20", "valid_from": "2027-01-01"},
    ],
}
TIERED = {
    "source": "table",
    "origin": "job.yaml:3:5",
    "library": None,
    "entries": [
        {"input": "1", "output": "2", "tiers": [{"above_prompt_tokens": 272000, "input": "2", "output": None}]}
    ],
}


def test_price_table_has_one_row_a_price_and_a_tier() -> None:
    """Dated prices, long-context tiers, multipliers and the library are all to be seen."""
    columns, rows = build_price_rows({"a": LIBRARY, "b": TIERED, "c": None})
    assert columns == ("input", "output")
    assert rows == (
        PriceRow(
            model="a",
            rates=("4", "20"),
            note="from 2026-08-21; flex × 0.5, scale unknown; genai-prices 0.2.3, openai/gpt-5.1",
        ),
        PriceRow(model="a", rates=("3", "20"), note="from 2027-01-01; genai-prices 0.2.3, openai/gpt-5.1"),
        PriceRow(model="b", rates=("1", "2")),
        PriceRow(model="b", rates=("2", "2"), note="prompts above 272,000 tokens"),
        PriceRow(model="c", rates=("", "")),
    )


def test_price_of_an_older_run_is_shown_as_it_was_written() -> None:
    """An older evalrun wrote the one price of a model itself."""
    columns, rows = build_price_rows({"a": {"input": "1.25", "cached_input": "0.125", "output": "10.0"}})
    assert columns == ("input", "cached_input", "output")
    assert rows == (PriceRow(model="a", rates=("1.25", "0.125", "10.0")),)


@pytest.mark.parametrize("value", [5, "x", [], {"entries": 5}, {"entries": [None]}, {"entries": [{"tiers": 5}]}])
def test_price_that_is_none_of_ours_is_an_unknown_one(value: object) -> None:
    """Whatever stands in run.json, the model has its row."""
    assert build_price_rows({"a": value}) == ((), (PriceRow(model="a", rates=()),))


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["entries", "tiers", "multipliers", "input", "library", "valid_from"]), inner
                )
            ),
        ),
    )
)
def test_price_table_is_made_of_anything(prices: dict[str, object]) -> None:
    """No content of run.json breaks the report; each row has a cell for each column."""
    columns, rows = build_price_rows(prices)
    assert {row.model for row in rows} == set(prices)
    assert all(len(row.rates) == len(columns) for row in rows)
