"""The front door: finds the command, loads its file only then, and turns every ending into an exit code.

Nothing is imported here that `--help` and `--version` do without: they cost an interpreter and click.
"""

import errno
import gc
import importlib
import sys
from collections.abc import Sequence

import click

from evalrun import __version__
from evalrun.cli.console import make_streams_patient, print_error
from evalrun.errors import AuthorError, EvalrunError, FolderBusyError

COMMANDS = {
    "init": "Write a job, a small dataset and a schema that run at once, with no key.",
    "validate": "Check a job strictly, every template against every row; send nothing.",
    "plan": "Show what a run would do: requests, tokens, USD and time. No network.",
    "run": "Run a job: ask, keep, grade, report, gate.",
    "grade": "Grade a run's stored answers again, without asking anew.",
    "import": "Make a run of answers that were made elsewhere.",
    "report": "Render a run's reports again.",
    "show": "Show a run's samples, failing ones first.",
    "usage": "Tell what runs took: tokens and USD, by model, prompt, day and more.",
    "list": "List the runs of this folder.",
    "simulate": "Serve the simulator: a gateway to test any OpenAI client against.",
    "schema": "Print the JSON Schema of job files.",
}
"""Every command and its first line; each stands in `evalrun/cli/<command>_command.py` as `command`."""

GC_THRESHOLDS = (50_000, 20, 100)
"""When Python looks for cycles of dead objects. Records hold none, and at the usual 700 new objects it looks some three
times for each request: 3 % of a run's instructions."""

LATER_COMMANDS = ("compare", "gate", "baseline", "doctor")
"""Commands that are planned; asking for one is answered as such."""

EXIT_CODES = """\b
Exit codes:
  0  done; every gate passed (or none was asked)
  1  a gate failed
  2  found before sending: usage, job, dataset, template, key, folder
  3  no verdict: a lane stopped, the budget ended, or too many errors; --resume goes on
  5  internal or disk error
  130/143  interrupted / terminated; what was done is kept
"""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which a newcomer meets them."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command; None lets click say which names are close."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        # What tells of a defect is loaded while it can be: not being able to open a file may be the defect.
        importlib.import_module("evalrun.cli.defects")
        module = importlib.import_module(f"evalrun.cli.{cmd_name}_command")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown name comes with the closest ones."""
        if args and args[0] in LATER_COMMANDS:
            ctx.fail(f"{args[0]!r} is not in this version yet")
        if args and args[0] not in COMMANDS:
            import difflib

            close = difflib.get_close_matches(args[0], COMMANDS)
            if close:
                ctx.fail(f"No such command {args[0]!r}; did you mean {' or '.join(close)}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any of them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.version_option(__version__, "--version", prog_name="evalrun", message="%(prog)s %(version)s")
def evalrun_command() -> None:
    """Run prompts against many models and trust what comes out."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    Args:
        arguments: Words after the program's name; default: those of this process.
    """
    if arguments is None:
        make_streams_patient()
        gc.set_threshold(*GC_THRESHOLDS)
    try:
        result = evalrun_command.main(args=arguments, prog_name="evalrun", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        print_error("interrupted")
        return 130
    except (AuthorError, FolderBusyError) as error:
        print_error(str(error))
        return 2
    except EvalrunError as error:
        print_error(f"{error}\n    ({type(error).__name__}; docs/messages.md has a paragraph on `{error.slug}`)")
        return 5
    except (SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - the one place where an unexpected error becomes an exit code
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            # Only names from the command line and the job can be too long, and all of them are met before sending.
            print_error(f"{error.strerror}: {str(error.filename)[:80]}…; name a shorter path")
            return 2
        from evalrun.cli.defects import report_defect

        print_error(report_defect(error))
        return 5
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    sys.exit(main())
