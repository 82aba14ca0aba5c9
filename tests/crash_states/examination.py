"""Opens many crash states of one recording and counts what they show."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from random import Random

from tests.crash_states.choices import Choice, iterate_all_simple, iterate_choices
from tests.crash_states.disk import CrashPoint, Kept, Named
from tests.crash_states.oracle import Oracle
from tests.crash_states.workloads import Recording

MAX_SHOWN = 20
"""Violations that are kept in words; all are counted."""


@dataclass(slots=True)
class Examination:
    """What the states of a recording showed."""

    name: str
    n_points: int = 0
    """Instants at which the power failed."""
    n_states: int = 0
    """Trees that were opened, each with what was promised until then: the same tree at a later instant counts again."""
    n_trees: int = 0
    """Different trees among them."""
    n_torn: int = 0
    """Different journals with a torn tail."""
    n_damaged: int = 0
    """Different journals that needed `--repair`; nothing that was told to be safe was in the damage."""
    n_stories: int = 0
    """Different sets of tables that were loaded."""
    n_violations: int = 0
    violations: list[str] = field(default_factory=list)


def examine(
    recording: Recording,
    scratch: Path,
    rng: Random,
    *,
    n_random: int,
    first_step: int = 0,
    every: int = 1,
    is_exhaustive: bool = False,
    is_one_enough: bool = False,
) -> Examination:
    """Open states at every instant of a recording.

    Args:
        recording: What was done.
        scratch: A folder of its own to open states in.
        rng: Draws the choices.
        n_random: Random choices at each instant, beside the systematic ones.
        first_step: Leave out the instants before this one.
        every: Look at every n-th instant only.
        is_exhaustive: Try every prefix, all but one, and one alone, too.
        is_one_enough: End at the first violation.
    """
    scratch.mkdir()
    oracle = Oracle(recording, scratch)
    result = Examination(recording.name)
    seen: set[tuple[int, int]] = set()
    trees: set[int] = set()
    for point in islice(recording.log.replay(), max(first_step, recording.log.n_before), None, every):
        result.n_points += 1
        for choice in _iterate(point, rng, n_random=n_random, is_exhaustive=is_exhaustive):
            tree = point.build(choice)
            key = hash(frozenset(tree.items()))
            trees.add(key)
            # The same tree at a later instant is another state: more has been promised.
            if (point.n_steps, key) in seen:
                continue
            seen.add((point.n_steps, key))
            for violation in oracle.check(point.n_steps, tree):
                result.n_violations += 1
                if len(result.violations) < MAX_SHOWN:
                    result.violations.append(f"{_describe(point, choice)}: {violation}")
        if is_one_enough and result.n_violations:
            break
    result.n_states, result.n_trees = len(seen), len(trees)
    result.n_torn, result.n_damaged, result.n_stories = oracle.n_torn, oracle.n_damaged, oracle.n_stories
    return result


def _iterate(point: CrashPoint, rng: Random, *, n_random: int, is_exhaustive: bool) -> Iterator[Choice]:
    yield from iterate_choices(point, rng, n_random=n_random)
    if is_exhaustive:
        yield from iterate_all_simple(point)


def _describe(point: CrashPoint, choice: Choice) -> str:
    """Return where the power failed and what survived of the last few changes."""
    kept = {id(survivor.change): survivor for survivor in choice}
    shown = [_name(kept.get(id(change)), change) for _, change in point.pending[-6:]]
    return f"after step {point.n_steps}, {len(point.pending)} under way, the last ones: {', '.join(shown) or 'none'}"


def _name(kept: Kept | None, change: object) -> str:
    what = f"names {change.removed}→{change.added}" if isinstance(change, Named) else type(change).__name__.lower()
    if kept is None:
        return f"no {what}"
    return what if kept.damage is None else f"{what} {kept.damage}"
