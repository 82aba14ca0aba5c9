"""Which of the unforced changes survive a power failure: the choices that are tried at each instant.

Few changes are under way at an instant, but their subsets are many. Tried are: all of them, none, every prefix, all but
one, one alone, and random subsets; and in each family the last or a random write torn at a byte, torn at a sector,
filled with NUL to its end, or holed by one sector of NUL.
"""

from collections.abc import Iterator, Sequence
from random import Random

from tests.crash_states.disk import SECTOR_BYTES, Change, CrashPoint, Damage, Kept, Wrote

Choice = tuple[Kept, ...]


def iterate_choices(point: CrashPoint, rng: Random, *, n_random: int) -> Iterator[Choice]:
    """Yield the choices for an instant; each systematic one once, then `n_random` drawn ones."""
    changes = [change for _, change in point.pending]
    yield tuple(Kept(change) for change in changes)
    if not changes:
        return
    yield ()
    yield from _damage_last(changes, rng)
    for _ in range(n_random):
        yield _draw(changes, rng)


def iterate_all_simple(point: CrashPoint) -> Iterator[Choice]:
    """Yield every prefix, all but one, and one alone: what the random draws only sample."""
    kept = [Kept(change) for _, change in point.pending]
    for number in range(len(kept)):
        yield tuple(kept[:number])
        yield tuple(kept[:number] + kept[number + 1 :])
        yield (kept[number],)


def _damage_last(changes: Sequence[Change], rng: Random) -> Iterator[Choice]:
    """Yield all changes with the newest write damaged in each way."""
    *before, last = changes
    if not isinstance(last, Wrote):
        return
    for damage in _list_damages(last, rng):
        yield (*(Kept(change) for change in before), Kept(last, damage))


def _draw(changes: Sequence[Change], rng: Random) -> Choice:
    """Return a random choice: its family first, then one damaged write or none."""
    number = rng.randrange(len(changes))
    family = rng.randrange(4)
    if family == 0:
        chosen = list(changes[: number + 1])
    elif family == 1:
        chosen = [change for other, change in enumerate(changes) if other != number]
    elif family == 2:
        chosen = [changes[number]]
    else:
        share = rng.random()
        chosen = [change for change in changes if rng.random() < share]
    kept = [Kept(change) for change in chosen]
    writes = [place for place, change in enumerate(chosen) if isinstance(change, Wrote)]
    if writes and rng.random() < 2 / 3:
        # Mostly the newest: it is the one that a failure meets under way.
        place = writes[-1] if rng.random() < 1 / 2 else rng.choice(writes)
        write = chosen[place]
        assert isinstance(write, Wrote)
        kept[place] = Kept(write, rng.choice(_list_damages(write, rng)))
    return tuple(kept)


def _list_damages(write: Wrote, rng: Random) -> list[Damage]:
    """Return one damage of each kind; where there is a choice, at a random place."""
    n_bytes = len(write.data)
    # Sectors are those of the file, not of the write.
    first = -write.offset % SECTOR_BYTES
    borders = [0, *range(first or SECTOR_BYTES, n_bytes, SECTOR_BYTES), n_bytes]
    torn, start = rng.randrange(n_bytes), rng.randrange(len(borders) - 1)
    border = rng.choice(borders[:-1])
    return [
        Damage(0, 0, torn),
        Damage(0, 0, border),
        Damage(border, n_bytes, n_bytes),
        Damage(torn, n_bytes, n_bytes),
        Damage(borders[start], borders[start + 1], n_bytes),
    ]
