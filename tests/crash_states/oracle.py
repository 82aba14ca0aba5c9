"""Opens a crash state with the real code and says what is wrong with it.

A tree enters, and the instant at which the power failed; violations leave, in words. What must hold was promised before
that instant, and the oracle knows it from the log alone: which outcomes were told to be safe, which files were
committed, which commands had ended. It reads the journal's bytes by a simpler rule than evalrun does: a line is a
record if it is, byte for byte, one that was written.
"""

import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from evalrun.errors import JournalDamagedError, StoreError
from evalrun.store.events import EventScan
from evalrun.store.folder import RunFolder
from evalrun.store.journal import Journal
from evalrun.store.journal_format import Kind
from evalrun.store.journal_index import JournalIndex
from evalrun.store.journal_scan import scan_journal
from tests.crash_states.disk import Tree
from tests.crash_states.history import History
from tests.crash_states.workloads import Recording, Story, tell_story

_LINE = re.compile(rb"[^\n]*\n|[^\n]+\Z")
_UNPROMISED = frozenset({".lock", "events.jsonl"})
"""Names of a run folder whose content nobody relies on after a power failure."""


class Survivors(NamedTuple):
    """What a journal's bytes hold, by the oracle's own rule."""

    lines: list[bytes]
    """Whole records, in order."""
    n_bad_bytes: int
    """Bytes that are part of none."""
    is_damaged: bool
    """Whether a record follows such bytes."""


class Bench:
    """A folder in which trees are laid out, one after the other; what is there already is not written again.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lying: Tree = {}

    def lay(self, tree: Tree) -> None:
        """Make the folder hold exactly this."""
        for path in sorted(set(self._lying) - set(tree), reverse=True):
            place = self._root / path
            if place.is_dir():
                place.rmdir()
            else:
                place.unlink()
        for path, content in sorted(tree.items()):
            if content is None:
                (self._root / path).mkdir(exist_ok=True)
            elif self._lying.get(path, None) != content:
                (self._root / path).write_bytes(content)
        self._lying = dict(tree)

    def clear(self) -> None:
        """Take everything away: the real code changed it."""
        shutil.rmtree(self._root)
        self._root.mkdir()
        self._lying = {}


class Oracle:
    """Knows what a recording promised.

    Args:
        recording: What was done.
        scratch: An empty folder to open states in; on a RAM disk it is fast.
    """

    def __init__(self, recording: Recording, scratch: Path) -> None:
        self.n_torn = 0
        """Different journals that ended in a torn record."""
        self.n_damaged = 0
        """Different journals with damage before good records, all of it behind what was told to be safe."""
        self.n_stories = 0
        """Different sets of tables that were loaded."""
        self._history = History(recording.log, recording.run)
        self._stories = recording.stories
        self._opened: dict[int, list[str]] = {}
        self._digests: dict[bytes, str] = {}
        self._loaded: dict[int, Story | StoreError] = {}
        self._scratch = scratch
        (scratch / "journal").mkdir()
        self._bench = Bench(scratch / "journal")

    def check(self, n_steps: int, tree: Tree) -> list[str]:
        """Return what is wrong with a tree that a reader found after the power failed behind so many steps."""
        run = self._history.run
        told = self._history.list_told(n_steps)
        if f"{run}/journal" not in tree:
            is_promised = told or self._history.list_committed(n_steps)
            return ["the run's folder is gone, and something of it was promised"] if is_promised else []
        files = {path.removeprefix(run + "/"): content for path, content in tree.items() if path.startswith(run + "/")}
        survivors = self._read_survivors(files)
        return [
            *self._check_told(told, survivors),
            *self._check_files(files, n_steps),
            *self._check_journal(files, survivors),
            *self._check_story(files, n_steps),
        ]

    def _read_survivors(self, files: Tree) -> Survivors:
        lines, n_bad_bytes, is_damaged = [], 0, False
        for path, content in sorted(files.items()):
            if content is None or not path.startswith("journal/") or not path.endswith(".jsonl"):
                continue
            for piece in _LINE.findall(content):
                line = self._history.find_line(piece)
                n_bad_bytes += len(piece) - len(line or b"")
                if line is not None:
                    lines.append(line)
                    is_damaged = is_damaged or n_bad_bytes > 0
        return Survivors(lines, n_bad_bytes, is_damaged)

    def _check_told(self, told: list[bytes], survivors: Survivors) -> Iterator[str]:
        lost = set(told) - set(survivors.lines)
        if lost:
            yield f"{len(lost)} outcomes that were told to be safe are gone"

    def _check_files(self, files: Tree, n_steps: int) -> Iterator[str]:
        for path, content in files.items():
            name = path.rpartition("/")[2]
            if content is None or name.startswith(".tmp-") or path in _UNPROMISED or path.startswith("journal/"):
                continue
            if self._digest(content) not in self._history.list_allowed(path, n_steps):
                yield f"{path} holds neither the last promised content nor a later one"
        for path in self._history.list_committed(n_steps):
            if path not in files:
                yield f"{path} is gone, though it was promised"

    def _check_journal(self, files: Tree, survivors: Survivors) -> list[str]:
        """Open journal and event log; what is found depends on their bytes alone, and is kept by them."""
        logs = {path: content for path, content in files.items() if path.startswith(("journal", "events"))}
        key = hash(frozenset(logs.items()))
        if key not in self._opened:
            self._bench.lay(logs)
            self._opened[key] = _list_found(self._open_journal(survivors))
        return self._opened[key]

    def _open_journal(self, survivors: Survivors) -> Iterator[str]:
        """Open the journal as a resume does, with a repair where that is called for, and go on writing."""
        folder = RunFolder(self._scratch / "journal")
        for _ in EventScan(folder):
            pass  # Whatever its lines are, none stops the reader.
        try:
            with scan_journal(folder) as index:
                if survivors.is_damaged:
                    yield "good records behind damage were taken in without a word"
                yield from self._check_index(index, survivors)
                if index.torn_bytes != survivors.n_bad_bytes:
                    yield f"{survivors.n_bad_bytes} bad bytes, but {index.torn_bytes} were reported"
        except JournalDamagedError as error:
            self.n_damaged += 1
            if not survivors.is_damaged:
                yield f"damage is reported where there is none: {error}"
        if survivors.n_bad_bytes:
            self.n_torn += not survivors.is_damaged
            yield from self._check_mended(folder, survivors)

    def _check_mended(self, folder: RunFolder, survivors: Survivors) -> Iterator[str]:
        """Cut or repair, append a record, read again."""
        with scan_journal(folder, for_append=True, repair=survivors.is_damaged) as index:
            yield from self._check_index(index, survivors)
            with Journal(folder, durability="process") as journal:
                journal.append_session({"session": "after the crash"})
        with scan_journal(folder) as index:
            if (index.n_records, index.torn_bytes) != (len(survivors.lines) + 1, 0):
                yield f"{len(survivors.lines)} records and one more became {index.n_records}"
        self._bench.clear()

    def _check_index(self, index: JournalIndex, survivors: Survivors) -> Iterator[str]:
        if index.n_records != len(survivors.lines):
            yield f"{len(survivors.lines)} records survived, {index.n_records} were found"
        newest: dict[str, bytes] = {}
        rows = set()
        for line in survivors.lines:
            kind, row_id = self._history.describe_line(line)
            if kind is not Kind.RUN:
                rows.add(row_id)
            if kind is Kind.DONE:
                newest[row_id] = line
        if len(index) != len(rows):
            yield f"{len(rows)} rows survived, {len(index)} were found"
        for row_id in rows:
            outcome = index.read_outcome(row_id)
            expected = self._history.parse_line(newest[row_id]) if row_id in newest else None
            if outcome != expected:
                yield f"row {row_id} has another outcome than the newest that survived"

    def _check_story(self, files: Tree, n_steps: int) -> Iterator[str]:
        """Load the run where it has a manifest: it tells of a command that ended or is ending, never of two at once."""
        if "run.json" not in files:
            return
        story = self._load(files)
        n_ended = self._history.count_ended(n_steps)
        if isinstance(story, StoreError):
            # Between the two renames of a resume that is under way grades are of more rows than results.
            if n_ended == len(self._stories) or "--resume" not in str(story):
                yield f"the run cannot be loaded: {story}"
        elif story not in self._stories[max(n_ended - 1, 0) : n_ended + 1]:
            yield "the run tells of figures that no command left"

    def _load(self, files: Tree) -> Story | StoreError:
        tables = {path: content for path, content in files.items() if not path.startswith((".", "journal/", "events"))}
        key = hash(frozenset(tables.items()))
        if key not in self._loaded:
            self.n_stories += 1
            place = self._scratch / "load" / str(self.n_stories)
            place.mkdir(parents=True)
            Bench(place).lay(tables)
            try:
                self._loaded[key] = tell_story(place)
            except StoreError as error:
                self._loaded[key] = error
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                self._loaded[key] = {"raised": repr(error)}
        return self._loaded[key]

    def _digest(self, content: bytes) -> str:
        if content not in self._digests:
            self._digests[content] = hashlib.sha256(content).hexdigest()
        return self._digests[content]


def _list_found(findings: Iterator[str]) -> list[str]:
    """Return the findings; an error that the real code raised is one, and the last."""
    found: list[str] = []
    try:
        found.extend(findings)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        found.append(f"the journal cannot be opened: {error!r}")
    return found
