"""Writing back what was read."""

from typing import Any

import pytest

from evalrun.dispatch.json_text import dump_json


def nest(depth: int) -> Any:
    """Return a list within a list, so many times."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", [10**30, nest(500), {"a": [1, "é", None]}])
def test_any_value_that_was_read_is_written(value: Any) -> None:
    """Huge integers and deep nesting, which the fast writer refuses, are written all the same."""
    assert dump_json(value).replace(" ", "")


def test_nesting_without_end_is_a_value_error() -> None:
    """A value that no writer can follow is refused, not a crash."""
    with pytest.raises(ValueError, match="nested too deeply"):
        dump_json(nest(100_000))
