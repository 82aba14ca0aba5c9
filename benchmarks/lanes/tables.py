"""Tables of the scenarios, in Markdown, with a verdict for each row."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Table:
    """One scenario's figures."""

    title: str
    columns: Sequence[str]
    has_verdict: bool = True
    """False where nothing is promised."""
    rows: list[tuple[Sequence[str], bool]] = field(default_factory=list)
    """Cells, and whether they are as promised."""

    @property
    def is_held(self) -> bool:
        """True when every row is as promised."""
        return all(is_held for _, is_held in self.rows)

    def add(self, *cells: object, is_held: bool = True) -> None:
        """Add a row."""
        self.rows.append(([str(cell) for cell in cells], is_held))

    def write(self) -> str:
        """Return the table in Markdown."""
        head = [*self.columns, "held"] if self.has_verdict else self.columns
        marks = ["---", *["--:"] * (len(self.columns) - 1), *([":-:"] if self.has_verdict else [])]
        lines = [f"**{self.title}**", "", _write_row(head), f"|{'|'.join(marks)}|"]
        for cells, is_held in self.rows:
            lines.append(_write_row([*cells, "yes" if is_held else "**no**"] if self.has_verdict else cells))
        return "\n".join(lines)


def _write_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
