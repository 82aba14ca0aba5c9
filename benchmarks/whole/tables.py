"""Medians with their spread, as cells and rows of Markdown."""

import statistics
from collections.abc import Iterable, Sequence


def show_spread(values: Sequence[float], digits: int = 0) -> str:
    """Return median (min–max); "–" when nothing was measured."""
    if not values:
        return "–"
    middle = f"{statistics.median(values):,.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def choose_digits(values: Sequence[float]) -> int:
    """Return how many digits behind the point leave about three that count."""
    middle = statistics.median(values) if values else 0
    return 0 if middle >= 100 else 1 if middle >= 10 else 2 if middle >= 0.3 else 3


def show_ratio(values: Sequence[float]) -> str:
    """Return a ratio's median (min–max) with digits that suit its size."""
    return show_spread(values, choose_digits(values))


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table of Markdown; its first column is text, the others are figures."""
    print(f"| {' | '.join(head)} |")
    print(f"|---|{'--:|' * (len(head) - 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(flush=True)
