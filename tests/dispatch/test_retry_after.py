"""Retry-After in all its forms."""

from datetime import UTC, datetime

import pytest

from evalrun.dispatch.retry_after import parse_retry_after

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
    ],
)
def test_wait_is_read(headers: dict[str, str], wait_s: float | None) -> None:
    """Seconds, milliseconds and dates are understood; everything else is as if it were not there."""
    assert parse_retry_after(headers, now=NOW) == wait_s


def test_date_is_read_against_the_servers_clock() -> None:
    """A server whose clock is an hour off still gets the wait that it means."""
    headers = {"retry-after": "Sun, 22 Nov 2026 13:00:10 GMT", "date": "Sun, 22 Nov 2026 13:00:00 GMT"}
    assert parse_retry_after(headers, now=NOW) == 10.0


def test_date_without_any_clock_is_ignored() -> None:
    """A dated wait with neither clock says nothing."""
    assert parse_retry_after({"retry-after": "Sun, 22 Nov 2026 13:00:10 GMT"}) is None
