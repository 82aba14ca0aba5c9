"""Options that several commands share: how a job is narrowed and changed from the command line."""

import shlex
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from evalrun.errors import UsageError

if TYPE_CHECKING:
    from evalrun.resuming import RunSettings

Command = TypeVar("Command", bound=Callable[..., Any])

job_argument = click.argument("job", type=click.Path(path_type=Path))
reports_option = click.option(
    "-o", "--reports-dir", type=click.Path(path_type=Path), default=Path("reports"), show_default=True,
    metavar="DIR", help="Folder for run folders.",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")

budget_option = click.option(
    "--budget-usd", type=click.FloatRange(min=0, min_open=True), metavar="USD",
    help="Stop when so many US dollars are spent, over all resumes.",
)  # fmt: skip

require_cost_option = click.option(
    "--require-cost", is_flag=True, help="Refuse, before anything is sent, models whose price is unknown.",
)  # fmt: skip

reuse_option = click.option(
    "--reuse", multiple=True, metavar="RUN",
    help="Take over answers of RUN to the same requests; repeatable. `latest`: the job's newest finished run.",
)  # fmt: skip

_JOB_OPTIONS = (
    click.option("--limit", type=click.IntRange(1, 10**12), metavar="N", help="Only the first N samples."),
    click.option("--model", "models", multiple=True, metavar="GLOB", help="Only these models; repeatable."),
    click.option("--prompt", "prompts", multiple=True, metavar="GLOB", help="Only these prompts; repeatable."),
    click.option("--where", metavar="EXPR", help="Only samples for which the expression holds."),
    click.option("--repeats", type=click.IntRange(min=1), metavar="N", help="Ask each row N times."),
    click.option(
        "-j", "--concurrency", type=click.IntRange(min=1), metavar="N", help="Requests in flight per endpoint."
    ),
    click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change the job: models[m].params.seed=7"
    ),
    click.option("--var", "variables", multiple=True, metavar="NAME=VALUE", help="Set one of the job's vars."),
    click.option(
        "--env-file", type=click.Path(path_type=Path), metavar="FILE", help="Read more environment variables."
    ),
)


def job_options(command: Command) -> Command:
    """Add the options that narrow or change a job."""
    for option in reversed(_JOB_OPTIONS):
        command = option(command)
    return command


def repeat_options(*, besides: Collection[str]) -> list[str]:
    """Return the options of the command under way as they were given, as words to type again.

    Args:
        besides: Parameters that are left out.
    """
    context = click.get_current_context()
    words = []
    for option in context.command.params:
        name = str(option.name)
        if name not in besides and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            value = context.params[name]
            for each in value if option.multiple else [value]:
                words += [option.opts[0], shlex.quote(str(each))]
    return words


def make_settings(job: Path, options: dict[str, Any], **more: Any) -> "RunSettings":
    """Return run settings from the parsed options of `job_options`.

    Args:
        job: The job file.
        options: The command's keyword arguments; those of `job_options`, `budget_option` and `reuse_option` are used.
        **more: Further fields of RunSettings.

    Raises:
        UsageError: `--var` without `=`.
    """
    from evalrun.job.plan import Selection
    from evalrun.resuming import RunSettings

    overrides = list(options["overrides"])
    if options["repeats"] is not None:
        overrides.append(f"repeats={options['repeats']}")
    if options["concurrency"] is not None:
        overrides.append(f"endpoints[*].concurrency={options['concurrency']}")
    if options.get("budget_usd") is not None:
        overrides.append(f"budget.usd={options['budget_usd']!r}")
    return RunSettings(
        job_path=job,
        overrides=tuple(overrides),
        variables=dict(_split_variable(text) for text in options["variables"]),
        env_file=options["env_file"],
        reuse=tuple(options.get("reuse") or ()),
        selection=Selection(
            limit=options["limit"], models=options["models"], prompts=options["prompts"], where=options["where"]
        ),
        **more,
    )


def _split_variable(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise UsageError(f"--var {text!r} has no value", hint="write --var NAME=VALUE")
    return name, value
