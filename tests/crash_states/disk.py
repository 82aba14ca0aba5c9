"""A disk as POSIX promises it: what was forced is there after a power failure, of the rest any part may be.

Changes enter in the order in which a program asked for them; a `CrashPoint` for every instant leaves, and from it any
tree that a reader may find after the power failed there. Each file and each folder is a node: a forced node keeps all
that was done to it before, and of the others' changes any subset may survive, whole or damaged. A rename survives
whole or not at all. The model knows no file system's kindness: forcing a file forces no name.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

ROOT = 0
"""The node of the folder in which all else lies; it outlives everything."""

SECTOR_BYTES = 512

Word = TypeVar("Word")

Tree = dict[str, bytes | None]
"""What lies on the disk: contents by path below the root; None for a folder."""


@dataclass(frozen=True, slots=True, eq=False)
class Named:
    """Names in one folder came, went or changed, all at once."""

    node: int
    """The folder."""
    removed: tuple[str, ...] = ()
    added: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Wrote:
    """Bytes were put into a file."""

    node: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """A file got a size."""

    node: int
    n_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Forced:
    """A sync returned: all changes of the node that came before it began are on the disk."""

    node: int
    n_before: int
    """Number of steps of the log when the sync began."""


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """The program said something to the outside at this instant; the disk did not change."""

    word: object


Change = Named | Wrote | Cut
Step = Change | Forced | Said


@dataclass(frozen=True, slots=True)
class Damage:
    """What became of bytes that were under way: from `start` to `end` they are NUL, and from `size` on not there."""

    start: int
    end: int
    size: int

    def apply(self, data: bytes) -> bytes:
        """Return what is left of the bytes."""
        end = min(self.end, len(data))
        return (data[: self.start] + bytes(max(end - self.start, 0)) + data[end:])[: self.size]


@dataclass(frozen=True, slots=True)
class Kept:
    """An unforced change that survived."""

    change: Change
    damage: Damage | None = None


@dataclass(slots=True)
class Log:
    """What a program did to a disk, in order."""

    steps: list[Step] = field(default_factory=list)
    folders: set[int] = field(default_factory=lambda: {ROOT})
    n_before: int = 0
    """How many of the first steps only say what lay there already."""

    def replay(self) -> Iterator["CrashPoint"]:
        """Yield the instant after every step; each is valid until the next is asked for."""
        point = CrashPoint(folders=self.folders)
        for step in self.steps:
            point.take(step)
            yield point

    def find_last(self, kind: type) -> int:
        """Return the number of the last step at which a word of a kind was said."""
        steps = enumerate(self.steps)
        return max(number for number, step in steps if isinstance(step, Said) and isinstance(step.word, kind))

    def list_said(self, kind: type[Word]) -> list[Word]:
        """Return the words of a kind, in order."""
        return [step.word for step in self.steps if isinstance(step, Said) and isinstance(step.word, kind)]


@dataclass(slots=True)
class CrashPoint:
    """An instant: what is forced, and what is under way."""

    folders: set[int]
    n_steps: int = 0
    names: dict[int, dict[str, int]] = field(default_factory=dict)
    """Forced names of each folder."""
    contents: dict[int, bytearray] = field(default_factory=dict)
    """Forced content of each file."""
    pending: list[tuple[int, Change]] = field(default_factory=list)
    """Unforced changes in order, each with its number in the log."""
    _frozen: dict[int, bytes] = field(default_factory=dict)
    """Forced content as the trees hold it: one object for all of them, so that whoever hashes it does so once."""

    def take(self, step: Step) -> None:
        """Go on by one step."""
        if isinstance(step, Forced):
            self._force(step)
        elif not isinstance(step, Said):
            self.pending.append((self.n_steps, step))
        self.n_steps += 1

    def _force(self, step: Forced) -> None:
        left = []
        for number, change in self.pending:
            if change.node == step.node and number < step.n_before:
                _apply(Kept(change), self.names, self.contents)
                self._frozen.pop(change.node, None)
            else:
                left.append((number, change))
        self.pending = left

    def settle(self) -> tuple[dict[int, dict[str, int]], dict[int, bytearray]]:
        """Return names and contents by node as the program sees them: with all that is under way."""
        names = {node: dict(entries) for node, entries in self.names.items()}
        contents = {node: bytearray(content) for node, content in self.contents.items()}
        for _, change in self.pending:
            _apply(Kept(change), names, contents)
        return names, contents

    def build(self, kept: Sequence[Kept]) -> Tree:
        """Return the tree that a reader finds when of the pending changes these survived, in their order."""
        names = {node: dict(entries) for node, entries in self.names.items()}
        contents: dict[int, bytearray] = {}
        for survivor in kept:
            node = survivor.change.node
            if not isinstance(survivor.change, Named) and node not in contents:
                contents[node] = bytearray(self.contents.get(node, b""))
            _apply(survivor, names, contents)
        return self._walk(names, {node: bytes(content) for node, content in contents.items()})

    def _walk(self, names: dict[int, dict[str, int]], changed: dict[int, bytes]) -> Tree:
        tree: Tree = {}
        left = [("", ROOT)]
        while left:
            above, folder = left.pop()
            for name, node in names.get(folder, {}).items():
                path = above + name
                if node in self.folders:
                    tree[path] = None
                    left.append((path + "/", node))
                else:
                    tree[path] = changed[node] if node in changed else self._freeze(node)
        return tree

    def _freeze(self, node: int) -> bytes:
        if node not in self._frozen:
            self._frozen[node] = bytes(self.contents.get(node, b""))
        return self._frozen[node]


def _apply(kept: Kept, names: dict[int, dict[str, int]], contents: dict[int, bytearray]) -> None:
    change = kept.change
    if isinstance(change, Named):
        entries = names.setdefault(change.node, {})
        for name in change.removed:
            entries.pop(name, None)
        entries.update(change.added)
        return
    content = contents.setdefault(change.node, bytearray())
    if isinstance(change, Cut):
        _resize(content, change.n_bytes)
        return
    data = change.data if kept.damage is None else kept.damage.apply(change.data)
    if data and change.offset > len(content):
        _resize(content, change.offset)  # What should have come between was lost: a hole, which reads as NUL.
    content[change.offset : change.offset + len(data)] = data


def _resize(content: bytearray, n_bytes: int) -> None:
    if n_bytes < len(content):
        del content[n_bytes:]
    else:
        content.extend(bytes(n_bytes - len(content)))
