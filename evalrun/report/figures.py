"""Numbers in words for people: one form for each quantity, and one word for what is not known.

A number or None enters, a short text leaves. None is never shown as 0.
"""

import math
from collections.abc import Iterable
from datetime import datetime
from typing import Any

UNKNOWN = "unknown"
ABSENT = "–"
_MINUS = "−"


def read_number(value: Any) -> float | None:
    """Return a manifest's value as a number, decimal texts included; None when it is none."""
    if value is None or isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def format_count(value: float | None) -> str:
    """Return 1234 as "1,234"; None as "–"."""
    return ABSENT if value is None else f"{value:,.0f}"


def format_compact(value: float | None) -> str:
    """Return 1234567 as "1.23 M" and small numbers whole; None as "unknown"."""
    if value is None:
        return UNKNOWN
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if value >= limit:
            scaled = value / (1e3 if unit == "k" else limit)
            return f"{scaled:.3g} {unit}" if scaled < 1000 else f"{scaled:,.0f} {unit}"
    return f"{value:,.0f}"


def format_percent(ratio: float | None, *, digits: int = 1) -> str:
    """Return 0.9244 as "92.4%"; None as "–"."""
    return ABSENT if ratio is None else f"{ratio * 100:.{digits}f}%"


def format_points(difference: float, *, digits: int = 1) -> str:
    """Return 0.041 as "+4.1" percentage points, with a true minus sign."""
    points = round(difference * 100, digits)
    return f"{'+' if points > 0 else _MINUS if points < 0 else '±'}{abs(points):.{digits}f}"


def format_usd(value: float | None) -> str:
    """Return money with enough digits to tell small sums apart; None as "unknown"."""
    if value is None:
        return UNKNOWN
    if value == 0:
        return "$0"
    if abs(value) >= 100:
        return f"${value:,.0f}" if abs(value) >= 10_000 else f"${value:,.2f}"
    if abs(value) >= 1:
        return f"${value:.2f}"
    return f"${value:.{4 if abs(value) >= 0.01 else 6}f}"


def choose_usd_digits(values: Iterable[float | None]) -> int:
    """Return how many decimals a column of money needs so that its smallest sum keeps two digits."""
    known = [value for value in values if value]
    return min(max(math.ceil(-math.log10(min(known))) + 1, 2), 8) if known else 2


def format_usd_column(value: float, digits: int) -> str:
    """Return money with a fixed number of decimals, so that the points of a column stand under each other."""
    return f"${value:,.{digits}f}"


def format_p(value: float) -> str:
    """Return a p-value as "p = 0.012", or "p < 0.001" below that."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def choose_latency_unit(values_s: Iterable[float | None]) -> str:
    """Return the unit for a column of latencies: "ms" when all are below one second, else "s"."""
    known = [value for value in values_s if value is not None]
    return "ms" if known and max(known) < 1 else "s"


def format_latency(value_s: float | None, unit: str) -> str:
    """Return a latency without its unit; None as "–"."""
    if value_s is None:
        return ABSENT
    if unit == "ms":
        value_ms = value_s * 1000
        return f"{value_ms:.0f}" if value_ms >= 10 else f"{value_ms:.1f}"
    return f"{value_s:.2f}" if value_s < 10 else f"{value_s:,.1f}"


def format_duration(value_s: float | None) -> str:
    """Return a wall time as "1.8 s", "2 min 05 s" or "3 h 07 min"; None as "unknown"."""
    if value_s is None:
        return UNKNOWN
    if value_s < 60:
        return f"{value_s:.1f} s" if value_s >= 0.1 else f"{value_s * 1000:.0f} ms"
    minutes, seconds = divmod(round(value_s), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02d} min"


def format_time(value: Any) -> str:
    """Return an ISO time as "22 Nov 2026, 15:30 UTC"; what is no time as it is; None as "unknown"."""
    if value is None:
        return UNKNOWN
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return str(value)
    zone = " UTC" if moment.tzinfo is not None and not moment.utcoffset() else ""
    return f"{moment.day} {_MONTHS[moment.month - 1]} {moment:%Y, %H:%M}{zone}"


# Named here because strftime's %b follows the locale, and a report's bytes must not.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
