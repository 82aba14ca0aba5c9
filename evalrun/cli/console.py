"""Words on the terminal: cleaned of what could steer it, plain where nobody watches.

Results go to stdout, progress and messages to stderr. Text from models, datasets and servers passes `clean_text` first.
"""

import io
import math
import os
import re
import select
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TextIO

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table

_GAP = 3
"""Cells between two columns of a table."""

_PIECE_CHARS = 1000
"""At most 4 KiB in UTF-8."""

_MAX_USD_DIGITS = 8
"""Decimals of the smallest sums that are written out."""

_MAX_WAIT_S = 1.0
"""How long messages wait for a reader that sleeps, once in the life of a process."""

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
    """Write a line of progress or advice, or several, to stderr, each wrapped between words on a terminal."""
    text = clean_text(message)
    if is_interactive(sys.stderr):
        import shutil
        import textwrap

        width = shutil.get_terminal_size().columns
        lines = text.split("\n")
        text = "\n".join(textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False) for line in lines)
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def print_json(value: Mapping[str, Any]) -> None:
    """Write one JSON object to stdout."""
    import json

    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False, default=str) + "\n")


def is_interactive(stream: TextIO) -> bool:
    """Return whether somebody watches who wants colours and motion: a terminal, not in CI, no `NO_COLOR`, not dumb."""
    wants_plain = os.environ.get("CI") or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not wants_plain


class PatientStream:
    """A standard stream whose reader may go away, or to sleep: what cannot be written then is dropped.

    A run that people pay for must not die, and its exit code not change, because `| head` has read enough; nor may it
    stand still because a pager that shows its progress does.

    Args:
        stream: The stream.
        max_wait_s: How long a reader that does not read is waited for, once; None = for ever.
    """

    def __init__(self, stream: TextIO, *, max_wait_s: float | None = None) -> None:
        self._stream = stream
        self._max_wait_s = max_wait_s
        self._has_waited = False

    def __getattr__(self, name: str) -> Any:
        """Do everything else as the stream does."""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or drop the text when nobody reads or nothing more fits.

        Raises:
            TypeError: It is not text; click tells by this what kind of stream it has.
        """
        if not isinstance(text, str):
            msg = f"write() argument must be str, not {type(text).__name__}"
            raise TypeError(msg)
        try:
            if self._max_wait_s is None:
                return self._stream.write(text)
            # A pipe that takes anything takes 4 KiB at once: so much never blocks.
            for start in range(0, len(text), _PIECE_CHARS):
                if self._is_ready():
                    self._stream.write(text[start : start + _PIECE_CHARS])
                    self._stream.flush()
        except OSError:
            self._give_up()
        return len(text)

    def flush(self) -> None:
        """Flush, unless nobody reads."""
        try:
            if self._max_wait_s is None or self._is_ready():
                self._stream.flush()
        except OSError:
            self._give_up()

    def _is_ready(self) -> bool:
        """Return whether something can be written now; the first time that it cannot, wait a while for it."""
        poll = select.poll()
        poll.register(self._stream.fileno(), select.POLLOUT)
        if poll.poll(0):
            return True
        if self._has_waited:
            return False
        self._has_waited = True
        return bool(poll.poll((self._max_wait_s or 0) * 1000))

    def _give_up(self) -> None:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self._stream.fileno())
        os.close(nothing)


def make_streams_patient() -> None:
    """Let stdout and stderr outlive their readers, and take signs that their encoding lacks.

    A standard stream that was closed before the start is opened on nothing, lest a file or socket takes its number.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, io.TextIOWrapper(io.FileIO(os.devnull, "w"), encoding="utf-8"))
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            # Results on stdout are waited for: who asked for them wants them whole.
            setattr(sys, name, PatientStream(stream, max_wait_s=_MAX_WAIT_S if name == "stderr" else None))


def open_console(stream: TextIO | None = None) -> "Console":
    """Return a rich console: colours on a terminal only, never wrapped where the output is piped."""
    from rich.console import Console

    stream = stream or sys.stdout
    interactive = is_interactive(stream)
    return Console(
        file=stream,
        force_terminal=interactive,
        no_color=not interactive,
        width=None if interactive else 160,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=not interactive,
    )


class Column(NamedTuple):
    """A column of a table on the terminal."""

    heading: str
    is_number: bool = False
    rank: int = 0
    """Columns of a higher rank are left out first where the terminal is narrow; rank 0 always stays."""


def make_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, width: int) -> "Table":
    """Return a table without borders, as many whole columns wide as fit: a figure is never cut.

    Args:
        columns: What stands where.
        rows: Cells as text; they are cleaned here.
        width: Of the terminal, in cells.
    """
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    cleaned = [[clean_text(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, [column.heading, *cells])) for column, *cells in zip(columns, *cleaned, strict=True)]
    kept = list(range(len(columns)))
    while sum(widths[at] + _GAP for at in kept) - _GAP > width and any(columns[at].rank for at in kept):
        kept.remove(max(reversed(kept), key=lambda at: columns[at].rank))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for column in (columns[at] for at in kept):
        justify: Literal["left", "right"] = "right" if column.is_number else "left"
        table.add_column(column.heading, justify=justify, no_wrap=column.is_number, overflow="fold")
    for row in cleaned:
        table.add_row(*(Text(row[at]) for at in kept))
    return table


def show_path(path: "Path") -> str:
    """Return a path as it would be typed here: relative where it lies below the working folder."""
    here = path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def format_count(value: float | None) -> str:
    """Return a count with thin thousands separators; `–` for unknown."""
    return "–" if value is None else f"{value:,.0f}"


def count_noun(count: int, noun: str) -> str:
    """Return a count with its noun: `1 row`, `1,152 rows`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def format_usd(value: float | None) -> str:
    """Return USD with as many digits as tell something: two at least of small sums; `unknown` for None."""
    if value is None:
        return "unknown"
    if 0 < value < 0.001:
        n_digits = math.ceil(-math.log10(value)) + 1
        return f"${value:.{n_digits}f}" if n_digits <= _MAX_USD_DIGITS else "<$0.0000001"
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
