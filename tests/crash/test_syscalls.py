"""A fault at single system calls, and proof that the harness would notice.

Every call of a run, a resume and a grading: `python -m tests.crash.syscalls`.
"""

import pytest

from tests.crash.calls import Nursery
from tests.crash.site import Site
from tests.crash.syscalls import PHASES, Saboteur
from tests.crash.tracing import EIO, ENOSPC_LASTING, FAULTS, KILL, STRACE, Fault, Point

pytestmark = pytest.mark.skipif(STRACE is None, reason="strace is not installed, or may not trace")

N_SAMPLED = 3


@pytest.fixture(scope="module")
def saboteur(small_site: Site, nursery: Nursery) -> Saboteur:
    """Evalrun as it is."""
    return Saboteur(small_site, nursery)


def choose_evenly(points: list[Point], n_points: int) -> list[Point]:
    """Return so many points, spread over the whole call."""
    return [points[len(points) * (2 * n + 1) // (2 * n_points)] for n in range(n_points)]


@pytest.mark.parametrize("phase", PHASES)
def test_failing_system_call_breaks_no_promise(saboteur: Saboteur, phase: str) -> None:
    """Killed or refused by the disk at a system call, a call keeps what is done, and says so by its exit code."""
    points = choose_evenly(saboteur.list_points(phase), N_SAMPLED)
    faults = (KILL, EIO, ENOSPC_LASTING)
    found = [saboteur.try_point(phase, point, fault) for point, fault in zip(points, faults, strict=True)]
    assert found == [[]] * N_SAMPLED
    assert saboteur.tally.missed == 0


@pytest.mark.parametrize("kind", ["chmod", "unlink"])
def test_refused_detail_of_a_file_is_no_defect(saboteur: Saboteur, kind: str) -> None:
    """A disk that refuses modes or removals in mid-run ends it like any other disk error, if at all."""
    points = [point for point in saboteur.list_points("resume") if point.kind == kind and ".tmp-" in point.path]
    assert saboteur.try_point("resume", points[-1], EIO) == []


def test_point_finds_a_file_that_is_written_in_place(small_site: Site, nursery: Nursery) -> None:
    """An evalrun that writes its results under their final name does not pass."""
    saboteur = Saboteur(small_site, nursery, mutant="truncating-write")
    points = [point for point in saboteur.list_points("run") if point.path.endswith("results.parquet")]
    assert any(saboteur.try_point("run", point, KILL) for point in points)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_every_system_call_may_fail(saboteur: Saboteur, phase: str, fault: Fault) -> None:
    """No system call that changes the run folder is one at which the promise breaks."""
    found = [saboteur.try_point(phase, point, fault) for point in saboteur.list_points(phase)]
    assert [text for texts in found for text in texts] == []
