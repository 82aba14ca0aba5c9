"""Where each key of a job file stands: key paths in, `file:line:column` out."""

from collections.abc import Iterable, Mapping

Key = str | int
KeyPath = tuple[Key, ...]
Spot = tuple[int, int]
"""Line and column, both 1-based."""


class Places:
    """Lines and columns of one file's keys; keys that come from elsewhere carry a place of their own.

    Args:
        file: The file's name as messages show it.
    """

    __slots__ = ("_spots", "file")

    def __init__(self, file: str) -> None:
        """Start with the file's first character as the place of everything."""
        self.file = file
        self._spots: dict[KeyPath, Spot | str] = {(): (1, 1)}

    def mark(self, path: KeyPath, spot: Spot | str) -> None:
        """Note where a key stands: a spot of this file, or a place named in full."""
        self._spots[path] = spot

    def replace(self, path: KeyPath, place: str) -> None:
        """Give a key, and everything below it, one place of its own."""
        below = [known for known in self._spots if known[: len(path)] == path]
        for known in below:
            del self._spots[known]
        self._spots[path] = place

    def graft(self, path: KeyPath, other: "Places") -> None:
        """Put another file's places below a key."""
        for known in other.list_known():
            self._spots[path + known] = other.find(known)

    def list_known(self) -> list[KeyPath]:
        """Return every key path that has a place."""
        return list(self._spots)

    def find(self, path: Iterable[Key]) -> str:
        """Return the place of a key, or of the nearest key above it that is known."""
        keys = tuple(path)
        while keys not in self._spots:
            keys = keys[:-1]
        spot = self._spots[keys]
        return spot if isinstance(spot, str) else f"{self.file}:{spot[0]}:{spot[1]}"

    def rename(self, old: KeyPath, new: KeyPath) -> None:
        """Let a key be found under another name as well."""
        if old in self._spots:
            self._spots[new] = self._spots[old]


def name_path(path: Iterable[Key]) -> str:
    """Return a key path as a job's author would write it: `models[0].params.temperature`."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text or "the file"


def get_node(tree: object, path: Iterable[Key]) -> object:
    """Return the value at a key path; None where there is none."""
    for key in path:
        if isinstance(tree, Mapping):
            tree = tree.get(key)
        elif isinstance(tree, list) and isinstance(key, int) and key < len(tree):
            tree = tree[key]
        else:
            return None
    return tree
