"""Writing back what was read."""

from typing import Any

import pytest

from evalrun.dispatch.json_text import dump_json, load_fragment, load_json, write_fragments


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
    with pytest.raises(ValueError, match="nested too deeply"):
        write_fragments(nest(100_000))


@pytest.mark.parametrize("value", [nest(500), {"a": [1, "é", None]}])
def test_fragments_are_written_as_json(value: Any) -> None:
    """What was put together comes back as it is, however deep."""
    assert load_json(write_fragments(value)) == (value, ())


def test_fragments_beyond_the_fast_writer_are_written() -> None:
    """Huge integers are kept digit by digit, and halves of a character that met are one."""
    assert write_fragments(10**30) == b"1" + b"0" * 30
    assert load_json(write_fragments("a\ud83d\ude00b")) == ("a😀b", ())


def test_half_a_character_is_kept_until_it_is_written() -> None:
    """A fragment may hold half of a character; one that found no other half is cleaned when it is read again."""
    assert load_fragment(rb'"\ud83d"') == ("\ud83d", ())
    assert load_json(write_fragments("\ud83d")) == ("\ufffd", ("text_cleaned",))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_is_no_number_is_dropped_and_said_so(number: str) -> None:
    """A number that no JSON can hold becomes null: unknown, with a flag, beside that of a mended text."""
    assert load_fragment(f"[{number}, 1.5]".encode()) == ([None, 1.5], ("number_dropped",))
    assert load_json(rf'[{number}, "\ud83d"]'.encode()) == ([None, "\ufffd"], ("text_cleaned", "number_dropped"))
