"""`evalrun run`: ask, keep, grade, report, gate."""

import signal
from pathlib import Path
from typing import Any

import anyio
import click

from evalrun.asking import OnProgress, Progress
from evalrun.cli.console import print_json, print_note
from evalrun.cli.job_options import (
    budget_option,
    job_argument,
    job_options,
    json_option,
    make_settings,
    reports_option,
    require_cost_option,
    reuse_option,
)
from evalrun.cli.progress import ProgressDisplay
from evalrun.cli.results import make_resume_command, make_resume_hint, print_result
from evalrun.pipeline import run_job


@click.command("run")
@job_argument
@job_options
@budget_option
@click.option("--allow-unknown-cost", is_flag=True,
              help="Ask models without a price under a budget in USD; they are not counted.")  # fmt: skip
@require_cost_option
@click.option(
    "--resume", "resume_run", is_flag=False, flag_value="", metavar="[RUN]", default=None,
    help="Go on with RUN, or with the job's newest unfinished run.",
)  # fmt: skip
@reuse_option
@click.option("--retry-errors", type=click.Choice(["passing", "all"]), default="passing", show_default=True,
              help="Which errors a resume asks again.")  # fmt: skip
@click.option("--repair", is_flag=True, help="With --resume: keep what is good of a damaged journal.")
@click.option("--no-gate", is_flag=True, help="Skip the gate.")
@click.option("--progress", type=click.Choice(["auto", "plain", "none"]), default="auto", show_default=True,
              help="How to show progress on stderr.")  # fmt: skip
@reports_option
@json_option
def command(  # noqa: PLR0913 - one argument for each option
    job: Path,
    *,
    allow_unknown_cost: bool,
    require_cost: bool,
    resume_run: str | None,
    retry_errors: str,
    repair: bool,
    no_gate: bool,
    progress: str,
    reports_dir: Path,
    as_json: bool,
    **options: Any,
) -> int:
    """Run JOB: ask every sample of every model with every prompt, keep, grade, report, gate."""
    settings = make_settings(
        job,
        options,
        reports_dir=reports_dir,
        resume=resume_run is not None,
        resume_run=resume_run or None,
        repair=repair,
        retry_all_errors=retry_errors == "all",
        is_gate_wanted=not no_gate,
        allows_unknown_cost=allow_unknown_cost,
        requires_cost=require_cost,
    )
    with ProgressDisplay(progress) as display:
        interrupt = _Interrupt(display.show)

        async def call() -> Any:
            interrupt.heed()
            return await run_job(settings, on_progress=interrupt.show)

        try:
            result = anyio.run(call, backend="asyncio", backend_options={"use_uvloop": True})
        except KeyboardInterrupt:
            if display.folder is not None:
                print_note(f"what was done is kept; go on with: {make_resume_command(job, display.folder)}")
            raise
    if as_json:
        from evalrun.closing import read_summary

        print_json({**read_summary(result.folder), "exit_code": result.exit_code})
    else:
        print_result(result, resume_hint=make_resume_hint(job, result))
    return int(result.exit_code)


class _Interrupt:
    """Ends what goes on before the first request at Ctrl-C; the dispatch has a handler of its own.

    The event loop's handler only notes it until the next await, and the check of a large job has none. An exception
    that a handler raises is lost where Python happens to be in a finaliser: so it is raised again at the next progress.

    Args:
        show: Shows progress.
    """

    def __init__(self, show: OnProgress) -> None:
        self._show = show
        self._has_come = False

    def heed(self) -> None:
        """Take the place of the loop's handler, unless Ctrl-C is ignored on purpose."""
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._end)

    def show(self, progress: Progress) -> None:
        """Show progress, if it still goes on."""
        if self._has_come:
            raise KeyboardInterrupt
        self._show(progress)

    def _end(self, _number: int, _frame: object) -> None:
        self._has_come = True
        raise KeyboardInterrupt
