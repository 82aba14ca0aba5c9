"""How long a server asks to wait: `retry-after-ms` and `Retry-After` in all their forms.

Headers enter, seconds leave; None where the header says nothing usable (negative, NaN, a word, a date in the past).
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_MAX_CHARS = 64
"""No wait is written longer; beyond it hostile numbers overflow."""
_NUMBER = re.compile(r"\d+(\.\d+)?")
_ISO_DATE = re.compile(r"\s*\d{4}-\d\d-\d\d")
_PARTS = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|μs|ns)")
_DURATION = re.compile(f"(?:{_PARTS.pattern})+")
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}


def parse_retry_after(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """Return the seconds to wait, more than 0; None when the headers name no usable time.

    A date, of HTTP or of RFC 3339, is read against the server's own `Date` header, so that a wrong clock on either side
    does no harm.

    Args:
        headers: Names in lower case.
        now: Local UTC time, used only when a dated header comes without `Date`; None ignores such a header.
    """
    milliseconds = _parse_number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    seconds = None if text is None else parse_duration(text)
    return seconds if seconds is not None else _parse_date_wait(text, headers.get("date"), now)


def parse_duration(text: str) -> float | None:
    """Return the seconds of a plain number or of a Go duration (`1m30s`, `7.66s`, `17ms`); None unless more than 0."""
    stripped = text.strip()
    if len(stripped) > _MAX_CHARS:
        return None
    if not _DURATION.fullmatch(stripped):
        return _parse_number(stripped)
    value = math.fsum(float(number) * _UNITS_S[unit] for number, unit in _PARTS.findall(stripped))
    return value if value > 0 and math.isfinite(value) else None


def _parse_number(text: str | None) -> float | None:
    if text is None or not _NUMBER.fullmatch(text.strip()):
        return None
    value = float(text)
    return value if value > 0 and math.isfinite(value) else None


def _parse_date_wait(text: str | None, server_date: str | None, now: datetime | None) -> float | None:
    until = _parse_date(text)
    asked_at = _parse_date(server_date) or now
    if until is None or asked_at is None:
        return None
    wait_s = (until - asked_at).total_seconds()
    return wait_s if wait_s > 0 else None


def _parse_date(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text.strip()) if _ISO_DATE.match(text) else parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
