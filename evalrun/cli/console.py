"""Words on the terminal: cleaned of what could steer it, plain where nobody watches.

Results go to stdout, progress and messages to stderr. Text from models, datasets and servers passes `clean_text` first.
"""

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)


def clean_text(text: str) -> str:
    """Return text with control, escape and bidi characters made visible; newline and tab pass."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def print_error(message: str) -> None:
    """Write one error to stderr."""
    sys.stderr.write(f"error: {clean_text(message)}\n")


def print_note(message: str) -> None:
    """Write one line of progress or advice to stderr."""
    sys.stderr.write(clean_text(message) + "\n")
    sys.stderr.flush()


def print_json(value: Mapping[str, Any]) -> None:
    """Write one JSON object to stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False, default=str) + "\n")


def is_interactive(stream: TextIO) -> bool:
    """Return whether somebody watches: a terminal, not in CI, not `TERM=dumb`."""
    return stream.isatty() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"


def silence_stdout() -> None:
    """Point stdout at nothing after its reader went away, so that the interpreter's last flush cannot fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_console(stream: TextIO | None = None) -> "Console":
    """Return a rich console: colours on a terminal only, never wrapped where the output is piped."""
    from rich.console import Console

    stream = stream or sys.stdout
    interactive = is_interactive(stream)
    return Console(
        file=stream,
        force_terminal=interactive or None,
        no_color=not interactive or bool(os.environ.get("NO_COLOR")),
        width=None if interactive else 160,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=not interactive,
    )


def make_table(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> "Table":
    """Return a table without borders.

    Args:
        columns: (heading, `left` or `right`).
        rows: Cells as text; they are cleaned here.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for heading, side in columns:
        is_number = side == "right"
        table.add_column(heading, justify="right" if is_number else "left", no_wrap=is_number, overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean_text(cell)) for cell in row))
    return table


def show_path(path: Path) -> str:
    """Return a path as it would be typed here: relative where it lies below the working folder."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def format_count(value: float | None) -> str:
    """Return a count with thin thousands separators; `–` for unknown."""
    return "–" if value is None else f"{value:,.0f}"


def count_noun(count: int, noun: str) -> str:
    """Return a count with its noun: `1 row`, `1,152 rows`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def format_usd(value: float | None) -> str:
    """Return USD with as many digits as tell something; `unknown` for None."""
    if value is None:
        return "unknown"
    return f"${value:,.2f}" if value >= 100 else f"${value:.4f}"


def format_percent(value: float | None) -> str:
    """Return a ratio as per cent with one decimal; `–` for None."""
    return "–" if value is None else f"{100 * value:.1f} %"


def format_seconds(value: float | None) -> str:
    """Return a duration in the unit a person would choose; `–` for None."""
    if value is None:
        return "–"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 120:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes} min {seconds:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
