"""Writes down what evalrun asks of the disk below one folder, while it asks it.

`Recorder.listen` stands between evalrun and the system: the seams of journal and event log, and the functions of `os`
that make, rename, cut, remove and force. What a library writes on its own (polars, buffered files) is read from the
file just before it is forced or renamed, which is when it begins to matter. That nothing was missed is proved at the
end: the log, replayed, is the folder as it lies there, byte for byte.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evalrun.store.events import EventLog
from evalrun.store.folder import StagedFile
from evalrun.store.journal import Journal
from tests.crash_states.disk import ROOT, Cut, Forced, Kept, Log, Named, Said, Tree, Wrote

_PAGE_BYTES = 4096
_SESSION = "_recorded_session"


@dataclass(frozen=True, slots=True)
class Told:
    """The journal said so many outcomes of a session are safe."""

    session: int
    n_outcomes: int


@dataclass(frozen=True, slots=True)
class Renamed:
    """A content is about to get its final name."""

    path: str
    digest: str


@dataclass(frozen=True, slots=True)
class Committed:
    """`StagedFile.commit` returned: this content is safe at this path."""

    path: str
    digest: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A command returned; it was the n-th, 1-based."""

    n_commands: int


class Recorder:
    """The log of a folder; kept while `listen` is open.

    Args:
        root: The folder, on a real disk.
        before: The log that led to what lies there, all of its changes made and not all of them forced: a process was
            killed, and the next one comes. None = all that lies there is forced: the machine was started anew.
    """

    def __init__(self, root: Path, before: Log | None = None) -> None:
        self.log = Log()
        self._root = root.resolve()
        self._names: dict[int, dict[str, int]] = {ROOT: {}}
        self._contents: dict[int, bytearray] = {}
        self._nodes: dict[int, int] = {self._root.stat().st_ino: ROOT}
        """Nodes by the system's number; one that has no name is taken out, since the system gives its number again."""
        self._n_nodes = 1
        self._n_sessions = 0
        self._lock = threading.RLock()
        if before is None:
            self._take_in(self._root)
        else:
            self._go_on(before)

    def say(self, word: object) -> None:
        """Put a mark into the log."""
        with self._lock:
            self.log.steps.append(Said(word))

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Record everything until the end; then prove that nothing was missed."""
        with pytest.MonkeyPatch.context() as patch:
            for name in ("open", "mkdir", "rmdir", "unlink", "remove", "rename", "replace", "link", "ftruncate"):
                patch.setattr(os, name, self._wrap(getattr(os, name), getattr(self, f"_note_{name}")))
            for name in ("fsync", "fdatasync"):
                patch.setattr(os, name, self._wrap_sync(getattr(os, name)))
            patch.setitem(get_seams(Journal), "write", self._write)
            patch.setitem(get_seams(Journal), "sync", lambda handle: os.fdatasync(handle))
            patch.setitem(get_seams(EventLog), "write", self._write)
            patch.setattr(Journal, "acknowledged", property(self._read_told, self._hear_told), raising=False)
            commit = StagedFile.commit
            patch.setattr(StagedFile, "commit", lambda staged: self._note_commit(commit, staged))
            yield
        self._prove()

    def _take_in(self, folder: Path) -> None:
        """Note what lies there as forced."""
        self._note_tree(folder)
        for node in (ROOT, *range(1, self._n_nodes)):
            self.log.steps.append(Forced(node, len(self.log.steps)))
        self.log.n_before = len(self.log.steps)

    def _note_tree(self, folder: Path) -> None:
        for path in sorted(folder.iterdir()):
            self._add_name(path, is_folder=path.is_dir())
            if path.is_dir():
                self._note_tree(path)
            else:
                self._append(self._find(path), path.read_bytes())

    def _go_on(self, before: Log) -> None:
        """Go on with a log whose changes have all been made here."""
        self.log = Log(list(before.steps), set(before.folders), n_before=len(before.steps))
        *_, last = before.replay()
        self._names, self._contents = last.settle()
        self._names |= {node: {} for node in self.log.folders if node not in self._names}
        named = [node for entries in self._names.values() for node in entries.values()]
        self._n_nodes = 1 + max(*before.folders, *self._contents, *named)
        self._n_sessions = max((said.session for said in before.list_said(Told)), default=0)
        for place in self._root.rglob("*"):
            node = self._nodes[place.stat().st_ino] = self._find(place)
            if node not in self.log.folders:
                self._contents.setdefault(node, bytearray())

    # What the system is asked, and how it is noted.

    def _wrap(self, call: Callable[..., Any], note: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                return note(call, *args, **kwargs)

        return wrapped

    def _wrap_sync(self, sync: Callable[[int], None]) -> Callable[[int], None]:
        def wrapped(handle: int) -> None:
            with self._lock:
                node = self._find_handle(handle)
                n_before = len(self.log.steps)
            sync(handle)  # Without the lock: others go on writing meanwhile, and what they write is not covered.
            if node is not None:
                with self._lock:
                    self.log.steps.append(Forced(node, n_before))

        return wrapped

    def _note_open(self, call: Callable[..., int], path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        place = self._locate(path, kwargs.get("dir_fd")) if flags & os.O_CREAT else None
        is_new = place is not None and not os.path.lexists(place)
        handle = call(path, flags, *args, **kwargs)
        if place is not None and is_new:
            self._add_name(place, is_folder=False)
        return handle

    def _note_mkdir(self, call: Callable[..., None], path: Any, *args: Any, **kwargs: Any) -> None:
        place = self._locate(path, kwargs.get("dir_fd"))
        call(path, *args, **kwargs)
        if place is not None:
            self._add_name(place, is_folder=True)

    def _note_unlink(self, call: Callable[..., None], path: Any, **kwargs: Any) -> None:
        place = self._locate(path, kwargs.get("dir_fd"))
        call(path, **kwargs)
        if place is not None:
            self._drop_name(place)

    _note_remove = _note_rmdir = _note_unlink

    def _note_rename(self, call: Callable[..., None], source: Any, target: Any, **kwargs: Any) -> None:
        old, new = self._locate(source, None), self._locate(target, None)
        if old is None or new is None:
            call(source, target, **kwargs)
            return
        assert old.parent == new.parent, "a rename from one folder to another is not one change of names"
        self._observe(old)
        self.say(Renamed(self._name(new), _digest(old)))
        call(source, target, **kwargs)
        parent, node = self._find(old.parent), self._find(old)
        self._forget_unnamed(self._names[parent].pop(new.name, None))
        del self._names[parent][old.name]
        self._names[parent][new.name] = node
        self.log.steps.append(Named(parent, removed=(old.name,), added=((new.name, node),)))

    _note_replace = _note_rename

    def _note_link(self, call: Callable[..., None], source: Any, target: Any, **kwargs: Any) -> None:
        old, new = self._locate(source, None), self._locate(target, None)
        call(source, target, **kwargs)
        if old is not None and new is not None:
            self._observe(old)
            self._set_name(new, self._find(old))

    def _note_ftruncate(self, call: Callable[..., None], handle: int, n_bytes: int) -> None:
        node = self._find_handle(handle)
        call(handle, n_bytes)
        if node is not None:
            self._cut(node, n_bytes)

    def _write(self, handle: int, data: memoryview) -> int:
        with self._lock:
            n_written = os.write(handle, data)
            node = self._nodes[os.fstat(handle).st_ino]
            self._append(node, bytes(data[:n_written]))
        return n_written

    def _note_commit(self, commit: Callable[[StagedFile], None], staged: StagedFile) -> None:
        commit(staged)
        place = self._locate(staged.path, None)
        if place is not None:
            self.say(Committed(self._name(place), _digest(place)))

    def _read_told(self, journal: Journal) -> int:
        told: int = vars(journal)["acknowledged"]
        return told

    def _hear_told(self, journal: Journal, n_outcomes: int) -> None:
        facts = vars(journal)
        with self._lock:
            if _SESSION not in facts:
                self._n_sessions += 1
                facts[_SESSION] = self._n_sessions
            facts["acknowledged"] = n_outcomes
            self.say(Told(facts[_SESSION], n_outcomes))

    # The folder as it is now.

    def _locate(self, path: Any, folder_handle: int | None) -> Path | None:
        """Return where a path is; None when it is not below the root."""
        above = Path() if folder_handle is None else Path(f"/proc/self/fd/{folder_handle}").readlink()
        place = Path(os.path.abspath(above / os.fsdecode(path)))  # noqa: PTH100 - resolve() would follow the last link
        return place if self._root in place.parents else None

    def _name(self, place: Path) -> str:
        return str(place.relative_to(self._root))

    def _find(self, place: Path) -> int:
        node = ROOT
        for name in place.relative_to(self._root).parts:
            node = self._names[node][name]
        return node

    def _find_handle(self, handle: int) -> int | None:
        """Return the node of an open file or folder, its content read anew; None when it is not below the root."""
        node = self._nodes.get(os.fstat(handle).st_ino)
        if node is not None and node not in self.log.folders:
            self._observe(Path(f"/proc/self/fd/{handle}"), node)
        return node

    def _add_name(self, place: Path, *, is_folder: bool) -> None:
        node, self._n_nodes = self._n_nodes, self._n_nodes + 1
        self._nodes[place.stat().st_ino] = node
        if is_folder:
            self.log.folders.add(node)
            self._names[node] = {}
        else:
            self._contents[node] = bytearray()
        self._set_name(place, node)

    def _set_name(self, place: Path, node: int) -> None:
        parent = self._find(place.parent)
        self._names[parent][place.name] = node
        self.log.steps.append(Named(parent, added=((place.name, node),)))

    def _drop_name(self, place: Path) -> None:
        parent = self._find(place.parent)
        self._forget_unnamed(self._names[parent].pop(place.name))
        self.log.steps.append(Named(parent, removed=(place.name,)))

    def _forget_unnamed(self, node: int | None) -> None:
        if node is not None and not any(node in entries.values() for entries in self._names.values()):
            self._nodes = {number: known for number, known in self._nodes.items() if known != node}

    def _observe(self, place: Path, node: int | None = None) -> None:
        """Note what was written into a file by other ways than ours since it was last seen."""
        node = self._find(place) if node is None else node
        found, known = place.read_bytes(), self._contents[node]
        if not found.startswith(known):
            self._cut(node, 0)
        for offset in range(len(known), len(found), _PAGE_BYTES):
            self._append(node, found[offset : offset + _PAGE_BYTES])

    def _append(self, node: int, data: bytes) -> None:
        content = self._contents[node]
        self.log.steps.append(Wrote(node, len(content), data))
        content += data

    def _cut(self, node: int, n_bytes: int) -> None:
        del self._contents[node][n_bytes:]
        self.log.steps.append(Cut(node, n_bytes))

    def _prove(self) -> None:
        """Compare the log with the folder: names exactly, contents once what others wrote last was taken in."""
        for place in self._root.rglob("*"):
            if place.is_file():
                self._observe(place)
        *_, last = self.log.replay()
        assert last.build([Kept(change) for _, change in last.pending]) == read_tree(self._root)


def _digest(place: Path) -> str:
    return hashlib.sha256(place.read_bytes()).hexdigest()


def get_seams(kind: type) -> dict[str, Any]:
    """Return the defaults of a constructor's arguments, which take effect when they are changed."""
    defaults: dict[str, Any] = vars(kind)["__init__"].__kwdefaults__
    return defaults


def read_tree(root: Path) -> Tree:
    """Return what lies below a folder."""
    return {
        str(path.relative_to(root)): None if path.is_dir() else path.read_bytes() for path in sorted(root.rglob("*"))
    }
