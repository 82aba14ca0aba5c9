"""The runs whose disk is recorded: commands of evalrun, in this process, on a simulator of their own.

A folder enters that holds nothing, or what a crash left; a `Recording` leaves: the log, and for each command what
`evalrun.load` told of the run when it had ended.
"""

import contextlib
import dataclasses
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import evalrun
from evalrun.cli.main import main
from evalrun.store import journal as journal_module
from evalrun.store.journal import Journal
from tests.crash_states.disk import Log, Tree
from tests.crash_states.recorder import Ended, Recorder, get_seams

N_ROWS = 50
SEGMENT_BYTES = 24 * 1024
"""Small, so that fifty rows fill several segments."""

_GRADERS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "strict": [{"type": "exact", "expected": "The answer is {{ answer }}.", "name": "sentence"}],
    "lenient": [{"type": "contains", "value": "The", "name": "the"}],
}

Story = dict[str, Any]
"""What `evalrun.load` tells: the figures and the verdict."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What some commands did to the disk."""

    name: str
    log: Log
    run: str
    """Path of the run's folder, below the root."""
    stories: list[Story]
    """After each command."""


@dataclass(slots=True)
class Desk:
    """A folder with jobs, and one with runs below it, whose disk is recorded.

    Args:
        folder: For both; the runs' folder may hold what a crash left.
    """

    folder: Path
    stories: list[Story] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Write the jobs."""
        self.disk.mkdir(parents=True, exist_ok=True)
        rows = [{"id": f"s{n}", "question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(N_ROWS)]
        (self.folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        for name, graders in _GRADERS.items():
            self.job(name).write_text(json.dumps(_make_job(graders)), encoding="utf-8")

    def lay(self, tree: Tree) -> None:
        """Put onto the disk what a crash left."""
        for path, content in sorted(tree.items()):
            if content is None:
                (self.disk / path).mkdir()
            else:
                (self.disk / path).write_bytes(content)

    @property
    def disk(self) -> Path:
        """The folder whose disk is recorded."""
        return self.folder / "disk"

    def job(self, name: str) -> Path:
        """Return the path of a job: `strict`, or `lenient`, whose grader every reply passes."""
        return self.folder / f"{name}.json"

    def find_run(self) -> Path:
        """Return the only run's folder."""
        (run,) = [path.parent for path in self.disk.glob("reports/*/*/journal")]
        return run

    def record(
        self, name: str, *commands: Sequence[str], exit_codes: Sequence[int], before: Log | None = None
    ) -> Recording:
        """Call commands one after the other, `RUN` standing for the run's folder, and record the disk.

        Args:
            name: What the recording is called.
            commands: Words behind `evalrun`.
            exit_codes: What each must return.
            before: What a killed process did here, not all of it forced; None = all that lies here is forced.
        """
        recorder = Recorder(self.disk, before)
        with _in_small_steps(), recorder.listen():
            for number, (command, exit_code) in enumerate(zip(commands, exit_codes, strict=True), start=1):
                words = [str(self.find_run()) if word == "RUN" else word for word in command]
                output = call(words)
                assert output.exit_code == exit_code, output
                recorder.say(Ended(number))
                self.stories.append(tell_story(self.find_run()))
        run = str(self.find_run().relative_to(self.disk))
        return Recording(name, recorder.log, run, list(self.stories))


@dataclass(frozen=True, slots=True)
class Output:
    """What a command said."""

    exit_code: int
    text: str
    """Both streams."""


def call(words: Sequence[str]) -> Output:
    """Call `evalrun WORDS` in this process."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        exit_code = main(list(words))
    return Output(exit_code, said.getvalue())


def tell_story(run: Path) -> Story:
    """Return what `evalrun.load` tells of a run."""
    loaded = evalrun.load(run)
    scores = loaded.results.select("row_id", "status", "score", "passed").collect().rows()
    return {
        "summary": dataclasses.asdict(loaded.summary),
        "verdict": dataclasses.asdict(loaded.verdict),
        "scores": scores,
    }


def record_fresh(desk: Desk) -> Recording:
    """Record a run from its beginning to its end."""
    return desk.record("run", _run(desk), exit_codes=[1])


def record_resumed(desk: Desk) -> Recording:
    """Record a run that its budget ends half-way, and its resume."""
    half = [*_run(desk), "--set", f"budget.requests={N_ROWS // 2}"]
    rest = [*_run(desk), "--resume", "RUN", "--set", "budget.requests=null"]
    return desk.record("resume", half, rest, exit_codes=[3, 1])


def record_regraded(desk: Desk) -> Recording:
    """Record a run and a new grading of it."""
    again = ["grade", "RUN", "--job", str(desk.job("lenient"))]
    return desk.record("grade", _run(desk), again, exit_codes=[1, 0])


def record_recovered(desk: Desk, name: str, before: Log | None = None) -> Recording:
    """Record the resume of what a crash or a kill left on the desk's disk, damage and all."""
    return desk.record(name, [*_run(desk), "--resume", "RUN", "--repair"], exit_codes=[1], before=before)


FRESH_WORKLOADS: dict[str, Callable[[Desk], Recording]] = {
    "run": record_fresh,
    "resume": record_resumed,
    "grade": record_regraded,
}
"""Those that begin with an empty disk."""


def _run(desk: Desk) -> list[str]:
    return ["run", str(desk.job("strict")), "-o", str(desk.disk / "reports")]


@contextlib.contextmanager
def _in_small_steps() -> Iterator[None]:
    """Let the journal sync often and fill small segments, so that few rows have many instants."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_module, "SYNC_WINDOW_S", 0.02)
        patch.setitem(get_seams(Journal), "segment_bytes", SEGMENT_BYTES)
        yield


def _make_job(graders: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    profile = {"accuracy": 0.8, "latency_ms": 8, "error_rate": 0.1, "style": "sentence"}
    return {
        "name": "job",
        "endpoints": {
            "demo": {
                "concurrency": 4,
                "retry": {"base_s": 0.01},
                "simulator": {"answer_column": "answer", "profiles": {"steady": profile}},
            }
        },
        "models": [{"name": "sim", "endpoint": "demo", "model": "steady", "price": {"input": 1, "output": 2}}],
        "prompts": [{"name": "plain", "user": "{{ question }}"}],
        "dataset": "samples.jsonl",
        "graders": [dict(grader) for grader in graders],
        "gate": {"min_pass_rate": 0.99},
    }
