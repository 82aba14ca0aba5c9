"""Prints the present counts: `python -m tests.footprint`. The lines go into `ceilings.SEEN` as they are.

Exit code 1 when a count is above its ceiling.
"""

import sys

from tests.footprint.ceilings import SEEN
from tests.footprint.measures import STRACE, find_risen, measure_calls, measure_run, measure_start_up, open_job


def main() -> int:
    """Measure everything and print a line for each count, with what it was before."""
    with open_job() as job:
        footprints = [measure_start_up(), measure_run(job)]
        if STRACE is not None:
            footprints.append(measure_calls(job))
    counts = {name: count for footprint in footprints for name, count in footprint.counts.items()}
    # Listed first as in the table, so that its lines can be replaced as one.
    for name in [*SEEN, *sorted(set(counts) - set(SEEN))]:
        if name in counts:
            seen, count = SEEN.get(name), round(counts[name], 2)
            reason = seen.reason if seen is not None else "say what it is made of"
            was = f"  # was {seen.n:g}" if seen is not None and seen.n != count else ""
            sys.stdout.write(f'    "{name}": Seen({count:g}, "{reason}"),{was}\n')
    for footprint in footprints:
        for stage, largest in footprint.largest.items():
            sys.stdout.write(f"most steps in {stage}: {', '.join(largest)}\n")
    risen = [line for footprint in footprints for line in find_risen(footprint)]
    sys.stdout.write("".join(f"too many: {line}\n" for line in risen))
    return int(bool(risen))


if __name__ == "__main__":
    sys.exit(main())
