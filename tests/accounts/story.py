"""Three calls that leave every kind of trace: a run, a second that reuses it and is killed, and its resume."""

import json
import signal
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.accounts.site import Site, write_site
from tests.cli.processes import start_evalrun
from tests.crash.witness import read_story

FIRST_SHARE: Final = 0.2
"""Of the samples that the first run asks, and the second reuses."""
KILL_SHARE: Final = 0.5
"""Of the rows that the server has seen when the second run is killed."""
_POLL_S: Final = 0.01
_MAX_CALL_S: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What the calls left."""

    site: Site
    first: Path
    """Folder of the run that was left alone."""
    second: Path
    """Folder of the run that reused it, was killed and resumed."""
    ledger: Mapping[str, Any]
    doubts: Counter[str]
    """By row of the second run: requests that were in flight when it was killed."""
    took_s: float


def tell_story(folder: Path, n_samples: int) -> Story:
    """Run the three calls against a simulator in a process of its own, which outlives the kill."""
    began_s = time.monotonic()
    with _serve(write_site(folder, n_samples)) as url:
        site = write_site(folder, n_samples, url=url)
        n_first = max(1, round(n_samples * FIRST_SHARE))
        _call(site, "run", "job.json", "-o", "first", "--limit", str(n_first))
        first = _find_run(folder / "first")
        n_asked = _load_ledger(url)["totals"]["requests"]
        n_left = (n_samples - n_first) * len(site.targets)
        _kill_at(site, url, n_asked + round(n_left * KILL_SHARE), "run", "job.json", "-o", "second", "--reuse", first)
        second = _find_run(folder / "second")
        doubts = read_story(second).in_doubt
        _call(site, "run", "job.json", "-o", "second", "--resume", second.name)
        return Story(
            site=site,
            first=first,
            second=second,
            ledger=_load_ledger(url, has_detail=True),
            doubts=doubts,
            took_s=time.monotonic() - began_s,
        )


def _call(site: Site, *arguments: str) -> None:
    """Call evalrun to its end; the rows that no attempt could answer may make its code 3."""
    process = start_evalrun(*arguments, cwd=site.folder)
    output, errors = process.communicate(timeout=_MAX_CALL_S)
    assert process.returncode == 0, f"exit code {process.returncode}\n{output}\n{errors}"


def _kill_at(site: Site, url: str, n_requests: int, *arguments: str | Path) -> None:
    """Call evalrun, and kill it once the server has seen so many requests."""
    log = site.folder / "killed.txt"
    with log.open("w", encoding="utf-8") as file:
        # A pipe that nobody reads would stop a long run.
        process = start_evalrun(*map(str, arguments), cwd=site.folder, stdout=file, stderr=file)
        while _load_ledger(url)["totals"]["requests"] < n_requests and process.poll() is None:
            time.sleep(_POLL_S)
        process.send_signal(signal.SIGKILL)
        code = process.wait(_MAX_CALL_S)
    assert code == -signal.SIGKILL, f"it was to be killed, and ended with {code}: {log.read_text(encoding='utf-8')}"


@contextmanager
def _serve(site: Site) -> Iterator[str]:
    log = site.folder / "simulator.txt"
    with log.open("w", encoding="utf-8") as file:
        arguments = ("simulate", "job.json", "--endpoint", "plain", "--port", "0")
        process = start_evalrun(*arguments, cwd=site.folder, stdout=subprocess.PIPE, stderr=file)
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url, log.read_text(encoding="utf-8")
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)


def _load_ledger(url: str, *, has_detail: bool = False) -> Mapping[str, Any]:
    with urllib.request.urlopen(f"{url}/_simulator/ledger{'?detail=1' if has_detail else ''}", timeout=120) as reply:
        ledger: Mapping[str, Any] = json.load(reply)
    return ledger


def _find_run(reports: Path) -> Path:
    (run,) = [path.parent for path in reports.glob("*/*/journal")]
    return run
