"""The event log: what is written is read, storms are bounded and counted, and a bad disk ends only the log."""

import errno
import json
import os
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.errors import StoreError
from evalrun.store.events import DROPPED, MAX_LINE_BYTES, Event, EventLog, EventScan
from evalrun.store.folder import EVENTS_NAME, RunFolder
from tests.store.fake_records import NOON, make_folder

LANE = "gateway/gpt-5.1"


def read(folder: RunFolder) -> list[Event]:
    """Return all events of a run."""
    return list(EventScan(folder))


def read_short(folder: RunFolder) -> list[tuple[str | None, str, Any]]:
    """Return lane, kind and values of all events."""
    return [(event.lane, event.what, event.values) for event in EventScan(folder)]


def test_event_comes_back_as_it_was_told(tmp_path: Path) -> None:
    """Time, lane, kind and values are one JSON line in a private file."""
    folder = make_folder(tmp_path)
    with EventLog(folder) as log:
        log.append("throttled", at=NOON, lane=LANE, retry_after_s=2.5, text="数学\u2028")
        log.append("budget_spent", at=NOON)
    assert read(folder) == [
        Event(at=NOON, lane=LANE, what="throttled", values={"retry_after_s": 2.5, "text": "数学\u2028"}),
        Event(at=NOON, lane=None, what="budget_spent", values={}),
    ]
    path = folder.events_path
    first = json.loads(path.read_bytes().split(b"\n")[0])
    assert list(first) == ["at", "lane", "what", "values"]
    assert first["at"] == "2026-11-22T12:00:00.123Z"
    assert path.stat().st_mode & 0o777 == 0o600


def test_event_values_are_written_as_json(tmp_path: Path) -> None:
    """Money is a number, times are UTC, what is not finite is null, a lone surrogate its escape, long texts are cut."""
    folder = make_folder(tmp_path)
    east = datetime(2026, 11, 22, 14, tzinfo=timezone(timedelta(hours=2)))
    with EventLog(folder) as log:
        log.append(
            "x", at=east, usd=Decimal("0.1"), until=east, wait=float("inf"), is_on=True, odd="\udc80", long="a" * 5000
        )
    (event,) = read(folder)
    assert event.at == datetime(2026, 11, 22, 12, tzinfo=UTC)
    assert event.values == {
        "usd": 0.1,
        "until": "2026-11-22T12:00:00.000Z",
        "wait": None,
        "is_on": True,
        "odd": "\udc80",
        "long": "a" * 1999 + "…",
    }


def test_events_of_a_resume_follow_those_before(tmp_path: Path) -> None:
    """A second call of the run appends."""
    folder = make_folder(tmp_path)
    for number in range(2):
        with EventLog(folder) as log:
            log.append("began", at=NOON, call=number)
    assert [event.values["call"] for event in read(folder)] == [0, 1]


def test_storm_is_bounded_and_counted(tmp_path: Path) -> None:
    """Each lane writes so many events a second; the rest is told as a number before the next one that is written."""
    folder = make_folder(tmp_path)
    with EventLog(folder, max_per_second=3) as log:
        for number in range(100):
            log.append("throttled", at=NOON, lane="a", n=number)
        log.append("throttled", at=NOON, lane="b", n=0)
        log.append("throttled", at=NOON + timedelta(seconds=1), lane="a", n=100)
        assert log.n_dropped == 97
    assert read_short(folder) == [
        ("a", "throttled", {"n": 0}),
        ("a", "throttled", {"n": 1}),
        ("a", "throttled", {"n": 2}),
        ("b", "throttled", {"n": 0}),
        ("a", DROPPED, {"n": 97}),
        ("a", "throttled", {"n": 100}),
    ]


def test_first_event_of_a_kind_passes_a_storm(tmp_path: Path) -> None:
    """That a lane stopped is written however many 429s came in the same second."""
    folder = make_folder(tmp_path)
    with EventLog(folder, max_per_second=1) as log:
        for what in ("throttled", "throttled", "stopped", "stopped"):
            log.append(what, at=NOON, lane=LANE)
    assert [event.what for event in read(folder)] == ["throttled", DROPPED, "stopped", DROPPED]


def test_closing_tells_what_was_dropped_last(tmp_path: Path) -> None:
    """Events that were dropped at the very end are counted in the file, once."""
    folder = make_folder(tmp_path)
    log = EventLog(folder, max_per_second=1)
    for lane in ("a", "a", None, None, None):
        log.append("x", at=NOON, lane=lane)
    log.close()
    log.close()
    assert read_short(folder)[2:] == [("a", DROPPED, {"n": 1}), (None, DROPPED, {"n": 2})]


def test_log_never_grows_beyond_its_limit(tmp_path: Path) -> None:
    """A full log takes nothing more but the counts that end it."""
    folder = make_folder(tmp_path)
    with EventLog(folder, max_bytes=10_000) as log:
        for number in range(1000):
            log.append("x", at=NOON + timedelta(seconds=number), lane=LANE, n=number)
    events = read(folder)
    assert (folder.events_path).stat().st_size <= 10_000
    assert (events[-1].what, events[-1].values) == (DROPPED, {"n": log.n_dropped})
    assert len(events) - 1 + log.n_dropped == 1000
    assert log.problem is None


def test_torn_line_is_mended_and_counted(tmp_path: Path) -> None:
    """A line that a crash cut off spoils neither the next one nor the reading."""
    folder = make_folder(tmp_path)
    path = folder.events_path
    with EventLog(folder) as log:
        log.append("began", at=NOON)
    path.write_bytes(path.read_bytes() + b'{"at":"2026-11-2')
    with EventLog(folder) as log:
        log.append("ended", at=NOON)
    scan = EventScan(folder)
    assert [event.what for event in scan] == ["began", "ended"]
    assert scan.n_damaged == 1


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"[]",
        b"1",
        b"\xff\xfe",
        b"[" * 5000,
        b'{"at":"2026-11-22T12:00:00Z","lane":null,"what":"x"}',
        b'{"at":"soon","lane":null,"what":"x","values":{}}',
        b'{"at":1,"lane":null,"what":"x","values":{}}',
        b'{"at":"0001-01-01T00:00:00+14:00","lane":null,"what":"x","values":{}}',
        b'{"at":"2026-11-22T12:00:00Z","lane":1,"what":"x","values":{}}',
        b'{"at":"2026-11-22T12:00:00Z","lane":null,"what":null,"values":{}}',
        b'{"at":"2026-11-22T12:00:00Z","lane":null,"what":"x","values":[]}',
        b"x" * (MAX_LINE_BYTES - 1),
    ],
    ids=range(13),
)
def test_line_that_is_no_event_is_skipped_and_counted(tmp_path: Path, line: bytes) -> None:
    """Whatever stands in the file, what is no event is no event."""
    folder = make_folder(tmp_path)
    (folder.events_path).write_bytes(line + b"\n")
    scan = EventScan(folder)
    assert (list(scan), scan.n_damaged) == ([], 1)


@given(st.binary(max_size=300))
def test_reader_takes_any_bytes(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """No content of the file makes the reader fail."""
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    (folder.events_path).write_bytes(content)
    assert read(folder) == []


def test_run_without_a_log_has_no_events(tmp_path: Path) -> None:
    """Runs of earlier versions are read as runs that told nothing."""
    assert read(make_folder(tmp_path)) == []


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_log_that_is_no_file_is_neither_written_nor_read(tmp_path: Path, kind: str) -> None:
    """A link is not followed; the writer says so and goes on in silence, the reader refuses."""
    folder = make_folder(tmp_path)
    path, target = folder.events_path, tmp_path / "elsewhere"
    target.write_bytes(b"")
    if kind == "link":
        path.symlink_to(target)
    else:
        path.mkdir()
    with EventLog(folder) as log:
        log.append("x", at=NOON)
    assert "the run goes on without its event log" in str(log.problem)
    assert (log.n_dropped, target.read_bytes()) == (1, b"")
    with pytest.raises(StoreError, match=f"cannot read .*{EVENTS_NAME}"):
        read(folder)


def test_full_disk_ends_the_log_and_not_the_run(tmp_path: Path) -> None:
    """When the disk takes no more, whole lines stay, the rest is counted, and nothing is raised."""
    folder = make_folder(tmp_path)
    path = folder.events_path

    def write(handle: int, data: memoryview) -> int:
        """Take bytes up to 1,000 in all, a few at a time, then none, as a full disk does."""
        room = 1000 - path.stat().st_size
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(handle, data[: min(room, 7)])

    with EventLog(folder, write=write) as log:
        for number in range(100):
            log.append("x", at=NOON + timedelta(seconds=number), lane=LANE, n=number)
    assert log.problem == (f"cannot write {path}: No space left on device; the run goes on without its event log")
    scan = EventScan(folder)
    assert [event.values["n"] for event in scan] == list(range(100 - log.n_dropped))
    assert 0 < log.n_dropped < 100
    assert scan.n_damaged == 0
