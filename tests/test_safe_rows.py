"""Tests of what is shown as done: nothing before the disk has it."""

import os
import threading
import time
from pathlib import Path

from evalrun.lane_progress import LaneProgress
from evalrun.safe_rows import SafeRows
from evalrun.store.journal import Journal
from tests.store.fake_records import make_folder, make_outcome


def test_row_is_shown_as_done_only_when_the_disk_has_it(tmp_path: Path) -> None:
    """While a sync is under way, rows that it does not cover are not counted; when it has ended, its own are."""
    may_sync = threading.Event()

    def sync(handle: int) -> None:
        assert may_sync.wait(30)
        os.fdatasync(handle)

    lane = LaneProgress(endpoint="e", model="m", total=3)
    with Journal(make_folder(tmp_path), durability="power", sync=sync) as journal:
        safe_rows = SafeRows([lane], journal)
        for number in range(2):
            journal.append(make_outcome(number))
            lane.done += 1
            safe_rows.count()
        assert lane.acknowledged == 0
        may_sync.set()
        deadline_s = time.monotonic() + 30
        while lane.acknowledged < 2 and time.monotonic() < deadline_s:
            time.sleep(0.01)
            safe_rows.count()
        assert lane.acknowledged == 2


def test_row_is_shown_as_done_at_once_where_no_sync_is_asked_for(tmp_path: Path) -> None:
    """With `durability: process` a written outcome is safe."""
    lane = LaneProgress(endpoint="e", model="m", total=1)
    with Journal(make_folder(tmp_path), durability="process") as journal:
        journal.append(make_outcome(0))
        lane.done = 1
        SafeRows([lane], journal).count()
    assert lane.acknowledged == 1
