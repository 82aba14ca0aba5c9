"""What must hold after a grading that was killed, or that the disk refused."""

from pathlib import Path

import polars as pl

from tests.crash.calls import Nursery
from tests.crash.site import Site


def go_on_grading(site: Site, nursery: Nursery, run: Path, output: Path) -> list[str]:
    """Look at a run and grade it again, undisturbed; return what is wrong.

    The grades are those of before or the new ones, the results agree with them as soon as anybody has looked, and
    grading again brings the new ones.
    """
    found = _call_to_end(site, nursery, output, "report", str(run))
    grades = pl.read_parquet(run / "grades.parquet")
    if not any(grades.equals(frame) for frame in (site.grades, site.regraded)):
        found.append("grades.parquet holds neither the old grades nor the new ones")
    found += _compare_scores(run, grades)
    found += _call_to_end(site, nursery, output, "grade", str(run), "--job", "other.yaml")
    regraded = pl.read_parquet(run / "grades.parquet")
    found += [] if regraded.equals(site.regraded) else ["grading again did not bring the new grades"]
    return found + _compare_scores(run, regraded)


def _call_to_end(site: Site, nursery: Nursery, output: Path, *arguments: str) -> list[str]:
    call = nursery.start(*arguments, folder=site.folder, output=output)
    code = call.finish()
    return [] if code == 0 else [f"{arguments[0]}: exit code {code}: {call.read_output()[-300:]}"]


def _compare_scores(run: Path, grades: pl.DataFrame) -> list[str]:
    """Return whether the results' verdicts are not those of the grades: one grader, so each row has one."""
    results = pl.read_parquet(run / "results.parquet", columns=["row_id", "passed"])
    joined = results.join(grades.select("row_id", graded="passed"), on="row_id", how="left", maintain_order="left")
    return [] if joined["passed"].equals(joined["graded"]) else ["results.parquet and grades.parquet do not agree"]
