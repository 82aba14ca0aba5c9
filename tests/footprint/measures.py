"""Measures evalrun in processes of their own, against a server in this one, and holds the counts to their ceilings."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.tracing import STRACE as STRACE
from tests.fake_endpoint import FakeEndpoint
from tests.footprint.ceilings import HEAVY, SEEN, SLACK, TOLERANCE
from tests.footprint.probe import CALLS_LONG, CONCURRENCY, MARK, N_ROWS, SHORT

ROOT = Path(__file__).resolve().parent.parent.parent

MAX_PROBE_S = 100.0
"""Longest time a probe may take."""

JOB = """\
endpoints: {{fake: {{base_url: "{base_url}", concurrency: {concurrency}}}}}
models:
- {{name: m, endpoint: fake, params: {{temperature: 0, max_tokens: 64}}, price: {{input: 1, output: 2}}}}
prompts:
- name: terse
  messages:
  - {{role: system, content: Answer with a number.}}
  - {{role: user, content: "{{{{ question }}}}"}}
dataset: samples.jsonl
graders:
- {{type: contains, value: "{{{{ answer }}}}", name: right}}
"""
"""What is run: the shape that benchmarks use, with a price and a grader."""

_TRACED = (
    "openat,statx,newfstatat,read,readv,pread64,write,writev,pwrite64,sendto,sendmsg,recvfrom,recvmsg,fsync,rename"
)
"""System calls that the work decides; how often a thread waits or wakes another depends on the moment."""
_CALL = re.compile(r"^\d+\s+([a-z0-9]+)\((?:[0-9]+<([^>]*)>)?")

_START_UP = """\
import sys
bare = frozenset(sys.modules)
from evalrun.cli.main import main
assert main({arguments!r}) == 0
import json
print(json.dumps(sorted(set(sys.modules) - bare - {{"json"}})))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What was counted."""

    counts: Mapping[str, float]
    """By name, as in `ceilings.SEEN`."""
    largest: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By stage: the functions with most steps, and how many."""
    heavy: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By what was started: libraries that it loaded although they are not for it."""


@contextmanager
def open_job() -> Iterator[Path]:
    """Yield the path of a job whose endpoint answers everything."""
    with FakeEndpoint() as endpoint, tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "job.yaml"
        job.write_text(JOB.format(base_url=endpoint.base_url, concurrency=CONCURRENCY), encoding="utf-8")
        samples = ({"id": f"s{n}", "question": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(N_ROWS))
        lines = "".join(json.dumps(sample) + "\n" for sample in samples)
        job.with_name("samples.jsonl").write_text(lines, encoding="utf-8")
        yield job


def measure_run(job: Path, *mutants: str) -> Footprint:
    """Count steps, living objects and modules of a run, with defects planted or without."""
    found = json.loads(_run_probe(job, "imports,steps,living", mutants))
    modules = found["modules"]
    return Footprint(
        counts={**found["counts"], "modules/run": len(modules)},
        largest=found["largest"],
        heavy={"run": _find_heavy("run", modules)},
    )


def measure_calls(job: Path, *mutants: str) -> Footprint:
    """Count the system calls of a run; needs strace."""
    assert STRACE is not None
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "calls"
        # --seccomp-bpf lets all other calls pass at full speed; the kernel allows it where it allows tracing.
        prefix = [STRACE, "-f", "-y", "-s", "64", "--seccomp-bpf", "-e", f"trace={_TRACED}", "-o", str(log)]
        _run_probe(job, "calls", mutants, prefix)
        runs = _count_calls(log)
    short, long = runs
    counts = {f"calls/{kind}": (long[kind] - short[kind]) / (CALLS_LONG - SHORT) for kind in long | short}
    return Footprint(counts=counts)


def measure_start_up() -> Footprint:
    """Count the modules that `--help` and `--version` load."""
    counts, heavy = {}, {}
    for name in ("help", "version"):
        code = _START_UP.format(arguments=[f"--{name}"])
        modules = json.loads(_run_python(["-c", code]).splitlines()[-1])
        counts[f"modules/{name}"] = float(len(modules))
        heavy[name] = _find_heavy(name, modules)
    return Footprint(counts=counts, heavy=heavy)


def find_risen(footprint: Footprint) -> list[str]:
    """Return in words which counts are above their ceilings, and what should not have been loaded."""
    risen = []
    for name, count in sorted(footprint.counts.items()):
        kind, _, part = name.partition("/")
        seen = SEEN[name].n if name in SEEN else 0.0
        ceiling = seen * TOLERANCE + SLACK.get(kind, SLACK["steps"])
        if count > ceiling:
            most = footprint.largest.get(kind, ()) if part == "all" else ()
            risen.append(
                f"{name}: {count:g}, at most {ceiling:g} (seen before: {seen:g})"
                + (f"; most of it: {', '.join(most)}" if most else "")
            )
    risen += [f"{name} loads {', '.join(modules)}" for name, modules in footprint.heavy.items() if modules]
    return risen


def _find_heavy(name: str, modules: Sequence[str]) -> list[str]:
    return sorted(HEAVY[name] & set(modules))


def _count_calls(log: Path) -> list[Counter[str]]:
    """Return the calls of each run between two marks, by kind of what they are about."""
    runs: list[Counter[str]] = []
    with log.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            match = _CALL.match(line)
            if match is None:
                continue
            if MARK in line:
                runs.append(Counter())
            elif runs and (kind := _find_kind(match[1], match[2])) is not None:
                runs[-1][kind] += 1
    return runs[:-1]


def _find_kind(call: str, target: str | None) -> str | None:
    """Return what a system call is about; None for one that wakes a thread."""
    if target is None or target.startswith("/"):
        return "file writes" if call in {"write", "pwrite64", "writev"} else "other files"
    return "network" if target.startswith(("socket:", "TCP", "UNIX")) else None


def _run_probe(job: Path, measures: str, mutants: Sequence[str], prefix: Sequence[str] = ()) -> str:
    return _run_python(["-m", "tests.footprint.probe", str(job), measures, *filter(None, [",".join(mutants)])], prefix)


def _run_python(arguments: Sequence[str], prefix: Sequence[str] = ()) -> str:
    """Run Python and return what it printed, whatever measures the coverage of these tests."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    result = subprocess.run(
        [*prefix, sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=MAX_PROBE_S,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
