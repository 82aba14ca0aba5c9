"""Retry-After in all its forms."""

from datetime import UTC, datetime

import pytest

from evalrun.dispatch.retry_after import parse_duration, parse_retry_after

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "86400"}, 86400.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "0"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sun, 22 Nov 2026 11:59:30 GMT"}, None),
        ({"retry-after": "Sun, 99 Nov 2026 11:59:30 GMT"}, None),
        ({"retry-after": "7.66s"}, 7.66),
        ({"retry-after": "2026-11-22T12:00:30Z"}, 30.0),
        ({"retry-after": "2026-11-22T14:00:30+02:00"}, 30.0),
        ({"retry-after": "2026-11-22T11:00:00Z"}, None),
        ({"retry-after": "2026-99-22T11:00:00Z"}, None),
    ],
)
def test_wait_is_read(headers: dict[str, str], wait_s: float | None) -> None:
    """Seconds, milliseconds and dates are understood; everything else is as if it were not there."""
    assert parse_retry_after(headers, now=NOW) == wait_s


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3", 3.0),
        ("1s", 1.0),
        ("17ms", 0.017),
        ("6m0s", 360.0),
        ("1m30s", 90.0),
        ("2m59.56s", 179.56),
        ("1h0m1s", 3601.0),
        (" 250us ", 0.00025),
        ("250µs", 0.00025),
        ("1000ns", 0.000001),
        ("0s", None),
        ("-1s", None),
        ("1 s", None),
        ("1d", None),
        ("s", None),
        ("9" * 400 + "s", None),
        ("", None),
    ],
)
def test_duration_is_read(text: str, seconds: float | None) -> None:
    """Plain seconds and Go durations are understood; nothing, zero and less than nothing are unknown."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", [("9" * 308 + "s") * 3, "9" * 400, "1" * 65])
def test_endless_number_is_no_wait(text: str) -> None:
    """A number beyond all measure is ignored, and raises nothing."""
    assert parse_retry_after({"retry-after": text}) is None


def test_date_is_read_against_the_servers_clock() -> None:
    """A server whose clock is an hour off still gets the wait that it means."""
    headers = {"retry-after": "Sun, 22 Nov 2026 13:00:10 GMT", "date": "Sun, 22 Nov 2026 13:00:00 GMT"}
    assert parse_retry_after(headers, now=NOW) == 10.0


def test_date_without_any_clock_is_ignored() -> None:
    """A dated wait with neither clock says nothing."""
    assert parse_retry_after({"retry-after": "Sun, 22 Nov 2026 13:00:10 GMT"}) is None
