"""Regular expressions turned round: a text that a pattern matches, and a match that no pattern can make slow.

Enters: a pattern's parts, which came from a client. Leaves: texts, or whether one matches. Matching follows sets of
positions, so that nothing backtracks, and every step is taken from a budget.
"""

from collections.abc import Callable
from typing import Final

from evalrun.simulator.pattern_syntax import MANY, Anchor, Chars, Either, Node, NotReadError, Ranges, Repeat, Row

Pick = Callable[[str], float]
"""Gives a number in (0, 1) for a purpose, always the same one."""

MAX_TEXT_CHARS: Final = MANY
"""Longest text that is made or matched."""
MAX_STEPS: Final = 300_000
"""What one request may ask for: some tenths of a second."""


class SpentError(Exception):
    """Finding out would take too many steps."""


class Budget:
    """Steps that are left: what a client sends must not take for ever."""

    def __init__(self, n_steps: int = MAX_STEPS) -> None:
        self._n_left = n_steps

    def spend(self, n_steps: int) -> None:
        """Take some steps.

        Raises:
            SpentError: There are not so many left.
        """
        self._n_left -= n_steps
        if self._n_left < 0:
            raise SpentError


def matches(node: Node, text: str, budget: Budget) -> bool:
    """Tell whether a pattern is found anywhere in a text; False for one over MAX_TEXT_CHARS.

    Raises:
        SpentError: The budget is spent.
    """
    if len(text) > MAX_TEXT_CHARS:
        return False
    return bool(_Matcher(text, budget).find_ends(node, frozenset(range(len(text) + 1))))


def make_matching_text(
    node: Node, pick: Pick, budget: Budget, *, min_chars: int = 0, max_chars: int = MAX_TEXT_CHARS
) -> str | None:
    """Return a text that a pattern matches, `min_chars` to `max_chars` long; None when none was found.

    Raises:
        SpentError: The budget is spent.
    """
    for attempt in range(_ATTEMPTS):
        shortest = _Writer(pick, budget, attempt, n_spare=0).write(node)
        if shortest is None:
            continue
        n_missing = max(0, min_chars - len(shortest))
        # One turn more adds as many characters as the repeated part has; which part that is, only trying tells.
        for n_spare in sorted({-(-n_missing // n_chars) for n_chars in range(1, _LONGEST_TRIED_PART + 1)}):
            text = _Writer(pick, budget, attempt, n_spare=n_spare).write(node) if n_spare else shortest
            # A pattern without `$` leaves the rest of the text free.
            for candidate in dict.fromkeys((text, (text or "").ljust(min_chars, "a"))):
                if candidate is None or not min_chars <= len(candidate) <= max_chars:
                    continue
                if matches(node, candidate, budget):
                    return candidate
    return None


_ATTEMPTS: Final = 8
_LONGEST_TRIED_PART: Final = 16


class _Writer:
    """Writes one text; repetitions take `n_spare` turns more than they must, the first ones first."""

    def __init__(self, pick: Pick, budget: Budget, attempt: int, *, n_spare: int) -> None:
        self._pick = pick
        self._budget = budget
        self._attempt = attempt
        self._n_spare = n_spare
        self._text: list[str] = []

    def write(self, node: Node) -> str | None:
        """Return the text; None when it grows too long."""
        try:
            self._write(node)
        except NotReadError:
            return None
        return "".join(self._text)

    def _write(self, node: Node) -> None:
        self._budget.spend(1)
        if len(self._text) > MAX_TEXT_CHARS:
            raise NotReadError
        if isinstance(node, Chars):
            self._text.append(_choose_char(node.ranges, self._draw()))
        elif isinstance(node, Row):
            for part in node.parts:
                self._write(part)
        elif isinstance(node, Either):
            start = int(self._draw() * len(node.branches))
            self._write(node.branches[start])
        elif isinstance(node, Repeat):
            n_more = min(node.high - node.low, self._n_spare)
            self._n_spare -= n_more
            for _ in range(node.low + n_more):
                self._write(node.part)

    def _draw(self) -> float:
        return self._pick(f"pattern {self._attempt} {len(self._text)}")


class _Matcher:
    """Follows a pattern through one text, all positions at once."""

    def __init__(self, text: str, budget: Budget) -> None:
        self._text = text
        self._budget = budget

    def find_ends(self, node: Node, starts: frozenset[int]) -> frozenset[int]:
        """Return where a match that begins at one of the positions may end."""
        self._budget.spend(1 + len(starts))
        if isinstance(node, Chars):
            text = self._text
            return frozenset(at + 1 for at in starts if at < len(text) and _holds(node.ranges, text[at]))
        if isinstance(node, Anchor):
            return starts & {0 if node.kind == "^" else len(self._text)}
        if isinstance(node, Row):
            for part in node.parts:
                starts = self.find_ends(part, starts)
            return starts
        if isinstance(node, Either):
            return frozenset[int]().union(*(self.find_ends(branch, starts) for branch in node.branches))
        return self._find_repeat_ends(node, starts)

    def _find_repeat_ends(self, node: Repeat, starts: frozenset[int]) -> frozenset[int]:
        for _ in range(node.low):
            ends = self.find_ends(node.part, starts)
            if ends == starts:
                break
            starts = ends
        reached, fresh = set(starts), starts
        for _ in range(node.high - node.low):
            fresh = self.find_ends(node.part, fresh) - reached
            if not fresh:
                break
            reached |= fresh
        return frozenset(reached)


def _holds(ranges: Ranges, char: str) -> bool:
    code = ord(char)
    return any(low <= code <= high for low, high in ranges)


def _choose_char(ranges: Ranges, uniform: float) -> str:
    """Return a character out of ranges: a letter or digit when there is one, else what can be seen, else any."""
    for low, high in _PREFERRED:
        shared = [(max(low, first), min(high, last)) for first, last in ranges if first <= high and last >= low]
        if shared:
            first, last = shared[int(uniform * len(shared))]
            return chr(first + int(uniform * (last - first + 1)))
    raise NotReadError


_PREFERRED: Final = tuple(
    (ord(low), ord(high)) for low, high in ("az", "09", "AZ", "!~", "  ", "\xa1\ud7ff", "\ue000\U0010ffff", "\0\x1f")
)
