"""What was written and what was promised until an instant, read from a log alone."""

from dataclasses import dataclass, field

from evalrun.records import Outcome
from evalrun.store.journal_format import Kind, parse_body, parse_frame, parse_outcome
from tests.crash_states.disk import Log, Said, Wrote
from tests.crash_states.recorder import Committed, Ended, Renamed, Told

_START = b'{"v":1,"t":"'


@dataclass(slots=True)
class _File:
    """The contents that a path was given, and the promises that they stay."""

    versions: list[tuple[int, str]] = field(default_factory=list)
    """The step at which each content got this name, and its digest."""
    commits: list[tuple[int, int]] = field(default_factory=list)
    """The step at which a version became safe, and its number."""

    def take(self, step: int, digest: str) -> None:
        """Note the content at a step."""
        if not self.versions or self.versions[-1][1] != digest:
            self.versions.append((step, digest))


class History:
    """Answers by the number of steps that came before the power failed.

    Args:
        log: What evalrun did to the disk.
        run: Path of the run's folder; files are named by their paths in it.
    """

    def __init__(self, log: Log, run: str) -> None:
        self.run = run
        self._lines: dict[bytes, tuple[Kind, str]] = {}
        self._first_lines: set[bytes] = set()
        self._outcomes: dict[bytes, Outcome] = {}
        self._sessions: dict[int, list[bytes]] = {0: []}
        """The lines of the outcomes of each session; 0 = what lay there before the first."""
        self._told: list[tuple[int, int, int]] = []
        self._files: dict[str, _File] = {}
        self._ended: list[tuple[int, int]] = []
        self._read(log)

    def list_told(self, n_steps: int) -> list[bytes]:
        """Return the records of all outcomes that were told to be safe."""
        newest = {0: len(self._sessions[0])}
        newest.update({session: n_told for step, session, n_told in self._told if step < n_steps})
        return [line for session, n_told in newest.items() for line in self._sessions[session][:n_told]]

    def list_allowed(self, path: str, n_steps: int) -> set[str]:
        """Return the digests that a file may have: that of the content that was promised last, and of later ones."""
        file = self._files.get(path, _File())
        first = max((version for step, version in file.commits if step < n_steps), default=0)
        n_known = sum(step < n_steps for step, _ in file.versions)
        # The next one may be under way: whole, it is as good as the older.
        return {digest for _, digest in file.versions[first : n_known + 1]}

    def list_committed(self, n_steps: int) -> list[str]:
        """Return the paths that must be there."""
        return [path for path, file in self._files.items() if any(step < n_steps for step, _ in file.commits)]

    def count_ended(self, n_steps: int) -> int:
        """Return how many commands had returned."""
        return max((number for step, number in self._ended if step < n_steps), default=0)

    def list_later(self) -> list[tuple[Kind, str]]:
        """Return kind and row_id of every record that was written, leaving out those that lay there before."""
        return [facts for line, facts in self._lines.items() if line not in self._first_lines]

    def find_line(self, piece: bytes) -> bytes | None:
        """Return the record that bytes up to a newline end with; None when they end with none that was written."""
        start = piece.rfind(_START)
        return piece[start:] if start >= 0 and piece[start:] in self._lines else None

    def describe_line(self, line: bytes) -> tuple[Kind, str]:
        """Return the kind of a record and its row_id, "" where it is of no row."""
        return self._lines[line]

    def parse_line(self, line: bytes) -> Outcome:
        """Return the outcome of a record."""
        return self._outcomes[line]

    def _read(self, log: Log) -> None:
        session = 0
        for number, step in enumerate(log.steps):
            if number == log.n_before:
                self._first_lines = set(self._lines)
            if isinstance(step, Wrote):
                self._take_lines(step.data, self._sessions[session])
            elif isinstance(step, Said):
                word = step.word
                if isinstance(word, Told):
                    session = word.session
                    self._sessions.setdefault(session, [])
                    self._told.append((number, session, word.n_outcomes))
                elif isinstance(word, Renamed | Committed):
                    self._take_content(number, word)
                elif isinstance(word, Ended):
                    self._ended.append((number, word.n_commands))

    def _take_content(self, number: int, word: Renamed | Committed) -> None:
        file = self._files.setdefault(word.path.removeprefix(f"{self.run}/"), _File())
        file.take(number, word.digest)
        if isinstance(word, Committed):
            file.commits.append((number, len(file.versions) - 1))

    def _take_lines(self, data: bytes, outcomes: list[bytes]) -> None:
        """Take in the records that were written; those that a repair wrote once more are known."""
        for line in data.split(b"\n"):
            frame = parse_frame(line + b"\n")
            if frame is None or line + b"\n" in self._lines:
                continue
            self._lines[line + b"\n"] = (frame.kind, parse_body(frame.body).get("row_id", ""))
            if frame.kind is Kind.DONE:
                outcomes.append(line + b"\n")
                self._outcomes[line + b"\n"] = parse_outcome(frame.body)
