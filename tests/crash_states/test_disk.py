"""The model of a disk itself: what it lets survive, and what it does not."""

from tests.crash_states.disk import ROOT, CrashPoint, Cut, Damage, Forced, Kept, Log, Named, Step, Wrote

MADE = Named(ROOT, added=(("a", 1),))


def replay(*steps: Step) -> CrashPoint:
    """Return the instant after the last step."""
    *_, last = Log(list(steps)).replay()
    return last


def test_nothing_survives_that_was_not_forced() -> None:
    """Neither name nor content."""
    assert replay(MADE, Wrote(1, 0, b"text")).build(()) == {}


def test_forced_file_is_lost_with_its_name() -> None:
    """Forcing a file does not force the name that leads to it; forcing the folder does."""
    steps = (MADE, Wrote(1, 0, b"text"), Forced(1, 2))
    assert replay(*steps).build(()) == {}
    assert replay(*steps, Forced(ROOT, 3)).build(()) == {"a": b"text"}


def test_sync_covers_what_came_before_it_began() -> None:
    """What is written while a sync is under way may be lost."""
    point = replay(MADE, Wrote(1, 0, b"one"), Wrote(1, 3, b"two"), Forced(1, 2), Forced(ROOT, 4))
    assert point.build(()) == {"a": b"one"}
    assert point.build([Kept(change) for _, change in point.pending]) == {"a": b"onetwo"}


def test_rename_survives_whole_or_not_at_all() -> None:
    """There is never neither name, and the content comes with the name only if it was forced."""
    renamed = Named(ROOT, removed=("tmp",), added=(("a", 2),))
    steps = (MADE, Wrote(1, 0, b"old"), Forced(1, 2), Forced(ROOT, 3), Named(ROOT, added=(("tmp", 2),)))
    point = replay(*steps, Wrote(2, 0, b"new"), renamed)
    assert point.build(()) == {"a": b"old"}
    assert point.build((Kept(renamed),)) == {"a": b""}
    assert point.build((Kept(steps[4]), Kept(renamed))) == {"a": b""}


def test_lost_write_before_one_that_survived_is_a_hole() -> None:
    """Later bytes keep their place; what should have come before them reads as NUL."""
    point = replay(MADE, Forced(ROOT, 1), Wrote(1, 0, b"one"), Wrote(1, 3, b"two"))
    assert point.build((Kept(point.pending[1][1]),)) == {"a": b"\0\0\0two"}


def test_damaged_write_is_torn_or_filled_with_nul() -> None:
    """Bytes under way may end early, or be NUL from a place on, or in one place."""
    point = replay(MADE, Forced(ROOT, 1), Wrote(1, 0, b"abcdef"))
    damages = [Damage(0, 0, 2), Damage(2, 6, 6), Damage(2, 4, 6)]
    found = [point.build((Kept(point.pending[0][1], damage),))["a"] for damage in damages]
    assert found == [b"ab", b"ab\0\0\0\0", b"ab\0\0ef"]


def test_cut_that_was_not_forced_may_be_undone() -> None:
    """A truncation is a change like any other."""
    point = replay(MADE, Wrote(1, 0, b"text"), Forced(1, 2), Forced(ROOT, 3), Cut(1, 1))
    assert point.build(()) == {"a": b"text"}
    assert point.build((Kept(point.pending[0][1]),)) == {"a": b"t"}
