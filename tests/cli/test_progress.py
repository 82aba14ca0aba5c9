"""Progress: a live display on a terminal, plain lines elsewhere, nothing when nothing is wanted."""

import io
import os
import pty
import re
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from evalrun.asking import Progress
from evalrun.cli.progress import PLAIN_EVERY_S, ProgressDisplay
from evalrun.dispatch.budget import RunBudget
from evalrun.lane_progress import LaneProgress
from tests.cli.processes import ROOT


def make_lane(**counts: object) -> LaneProgress:
    """Return a lane half-way through, with some counts changed."""
    lane = LaneProgress(endpoint="demo", model="sim", total=200)
    lane.done, lane.acknowledged, lane.errors, lane.retries = 103, 100, 2, 5
    for name, value in counts.items():
        setattr(lane, name, value)
    return lane


def show_twice(display: ProgressDisplay, lane: LaneProgress, budget: RunBudget | None = None) -> None:
    """Begin a run and let time for one plain line pass."""
    display.show(Progress(stage="asking", lanes=[lane], notes=["a note"]))
    display._last_line_s -= PLAIN_EVERY_S
    display._began_s -= PLAIN_EVERY_S
    display.show(Progress(stage="asking", lanes=[lane], budget=budget))
    display.show(Progress(stage="closing"))


def test_plain_progress_is_one_line_without_carriage_returns(capsys: pytest.CaptureFixture[str]) -> None:
    """Elsewhere than on a terminal a line tells done, errors, retries, spend, flight, rate and time left."""
    with ProgressDisplay("plain") as display:
        show_twice(display, make_lane())
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "a note"
    assert lines[1].startswith("100/200 rows (50.0 %), 2 errors, 5 retries, $0.0000 spent, 0 in flight, –/s, 10.")
    assert len(lines) == 2


def test_plain_progress_says_that_a_lane_waits(capsys: pytest.CaptureFixture[str]) -> None:
    """A lane that waits for a rate limit is named with the time it waits."""
    with ProgressDisplay("plain") as display:
        show_twice(
            display, make_lane(waiting_until_s=time.monotonic() + 30, waiting_for="tokens_per_minute", rate_limited=1)
        )
    line = capsys.readouterr().err.splitlines()[1]
    assert re.search(r", 1 × 429, .*, sim waits 30\.0 s until \d\d:\d\d:\d\d \(tokens per minute\)$", line)


def test_plain_progress_tells_of_the_budget_and_of_stopped_lanes(capsys: pytest.CaptureFixture[str]) -> None:
    """What may still be spent is told with what was; a lane that stopped is named with its reason."""
    budget = RunBudget(Decimal(1), None, 500, None, started_s=0.0, spent_usd=Decimal("0.25"), spent_requests=7)
    with ProgressDisplay("plain") as display:
        show_twice(display, make_lane(stopped_by="quota", stop_message="add credit"), budget)
    line = capsys.readouterr().err.splitlines()[2]
    assert "$0.2500 of $1.0000 spent, 7 of 500 requests" in line
    assert line.endswith("sim stopped: quota")


def test_lane_that_stops_says_why_when_it_happens(capsys: pytest.CaptureFixture[str]) -> None:
    """The reason is told once, not at each look; lanes that stop for one reason are told together."""
    lanes = [make_lane(model="a"), make_lane(model="b"), make_lane(model="c")]
    with ProgressDisplay("plain") as display:
        display.show(Progress(stage="asking", lanes=lanes))
        for stopped in (lanes[:2], lanes[2:]):
            for lane in stopped:
                lane.stopped_by, lane.stop_message = "auth", "check the key in KEY"
            display.show(Progress(stage="asking", lanes=lanes))
        display.show(Progress(stage="closing"))
    assert capsys.readouterr().err.splitlines() == [
        "a, b stopped: check the key in KEY",
        "c stopped: check the key in KEY",
    ]


def test_lane_that_stops_at_the_very_end_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    """Between the last look and the end a lane may stop: the reason is not lost, and a spent budget is none of it."""
    lanes = [make_lane(), make_lane(model="other")]
    with ProgressDisplay("plain") as display:
        display.show(Progress(stage="asking", lanes=lanes))
        lanes[0].stopped_by, lanes[0].stop_message = "quota", "add credit"
        lanes[1].stopped_by, lanes[1].stop_message = "budget", "all spent"
        display.show(Progress(stage="closing"))
    assert capsys.readouterr().err.splitlines() == ["sim stopped: add credit"]


def test_problems_of_the_end_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """What went wrong without ending the run is said once it ends."""
    with ProgressDisplay("plain") as display:
        display.show(Progress(stage="closing", notes=["cannot write events.jsonl"]))
    assert capsys.readouterr().err == "cannot write events.jsonl\n"


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (62, ["sim", "100/200"]),
        (85, ["sim", "100/200", "3/8 in flight", "–/s"]),
        (200, ["sim", "100/200", "2 errors", "5 retries", "4 × 429", "3/8 in flight", "–/s", "$0.0000"]),
    ],
)
def test_live_display_shows_as_many_whole_cells_as_fit(width: int, shown: list[str]) -> None:
    """In flight of how many, 429s, rate and what it waits for stand in a lane's line as far as it is wide enough."""
    lane = make_lane(in_flight=3, limit=8, rate_limited=4, waiting_for="tokens_per_minute")
    lane.waiting_until_s = time.monotonic() + 30
    budget = RunBudget(Decimal(1), None, None, None, started_s=0.0)
    display = ProgressDisplay("plain")
    console = Console(file=io.StringIO(), width=width)
    console.print(display._render_lanes([lane], time.monotonic(), width=width, budget=budget))
    assert isinstance(console.file, io.StringIO)
    line, last = console.file.getvalue().splitlines()
    *cells, state = re.split(r" {2,}", line.strip())
    assert [cell for cell in cells if not cell.startswith("━")] == shown
    assert re.fullmatch(r"waits (30\.0|29\.\d) s until \d\d:\d\d:\d\d \(tokens per minute\)", state)
    assert last.strip() == "budget: $0.0000 of $1.0000 spent"


def test_no_progress_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    """With `none` nothing is written."""
    with ProgressDisplay("none") as display:
        show_twice(display, make_lane())
    assert capsys.readouterr().err == ""


def test_long_check_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """The check of a large dataset says how far it is, every 100,000 samples."""
    with ProgressDisplay("plain") as display:
        for n_checked in (1_000, 100_000, 150_000, 200_000):
            display.show(Progress(stage="checking", n_checked=n_checked))
    assert capsys.readouterr().err.splitlines() == ["checked 100,000 samples", "checked 200,000 samples"]


@pytest.mark.parametrize("columns", [60, 160])
def test_terminal_shows_a_live_display_and_is_left_as_it_was(tmp_path: Path, columns: int) -> None:
    """On a terminal each lane has a bar; at the end the cursor is visible again."""
    main_end, terminal = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key not in {"CI", "NO_COLOR"}}
    process = subprocess.Popen(
        [sys.executable, "-m", "evalrun", "run", str(ROOT / "configs/quickstart.yaml"), "--limit", "60"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
        env={**environment, "TERM": "xterm", "COLUMNS": str(columns), "PYTHONPATH": str(ROOT)},
    )
    os.close(terminal)
    written = b""
    try:
        while piece := os.read(main_end, 65536):
            written += piece
    except OSError:  # Linux reports the end of a terminal as an error.
        pass
    finally:
        os.close(main_end)
    assert process.wait(timeout=60) == 0
    text = written.decode()
    assert "sim-careful" in text
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l") > -1
