"""`evalrun import`: answers made elsewhere become a run."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalrun.cli.console import print_json, print_note
from evalrun.cli.job_options import json_option, reports_option
from evalrun.errors import UsageError

if TYPE_CHECKING:
    from evalrun.answer_columns import AnswerColumns
    from evalrun.job.config import LoadedJob

_EPILOG = """A COLUMN is the name of a column, or a path into one: usage.total, choices[0].text. Long form: a row holds
one answer, --output COLUMN, and --model COLUMN says whose. Wide form: a row holds the answers of several models,
--output NAME=COLUMN for each; `{name}` in another COLUMN stands for the NAME. docs/import.md has examples."""


@click.group("import")
def command() -> None:
    """Make a run of answers that were made elsewhere."""


@command.command("outputs", epilog=_EPILOG)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--id", "id_column", metavar="COLUMN", help="Which sample was asked. Default in wide form: the column id."
)
@click.option("--output", "outputs", multiple=True, required=True, metavar="[NAME=]COLUMN", help="The answer's text.")
@click.option("--model", metavar="COLUMN", help="Which model answered.")
@click.option("--model-name", metavar="NAME", help="The model of every row.")
@click.option("--prompt", metavar="COLUMN", help="Name of the prompt.")
@click.option(
    "--prompt-name", metavar="NAME", help="The prompt of every row. Default: the job's, if it has one only; `imported`."
)
@click.option("--repeat", metavar="COLUMN", help="Which asking of the same it is: a number.")
@click.option("--category", metavar="COLUMN", help="Category of the sample. Default: the column category, if any.")
@click.option("--expected", metavar="COLUMN", help="Same as --column expected=COLUMN.")
@click.option(
    "--column", "added", multiple=True, metavar="NAME=COLUMN", help="One more column of the sample; repeatable."
)
@click.option("--ignore", "ignored", multiple=True, metavar="COLUMN", help="No part of the sample; repeatable.")
@click.option("--input", "input_column", metavar="COLUMN", help="What was asked: text or messages; only shown.")
@click.option("--usage", metavar="COLUMN", help="Usage object as a server sends it.")
@click.option("--prompt-tokens", metavar="COLUMN", help="Tokens of the prompt.")
@click.option("--completion-tokens", metavar="COLUMN", help="Tokens of the completion.")
@click.option("--cost", metavar="COLUMN", help="What the answer cost, USD.")
@click.option("--latency", metavar="COLUMN", help="How long it took, seconds.")
@click.option("--finish-reason", metavar="COLUMN", help="As on the wire: `length` is a truncated answer.")
@click.option(
    "--null-as", type=click.Choice(["error", "empty"]), help="What an answer without output is. Default: refused."
)
@click.option("--job", type=click.Path(path_type=Path), help="Job whose graders, prices and gate apply.")
@click.option(
    "--samples", type=click.Choice(["job", "file"]),
    help="Where the samples are: the job's, found by id, or the rows of FILE. Default: job, where there is one.",
)  # fmt: skip
@click.option("--batch", is_flag=True, help="Asked in a batch: the job's prices times their multiplier `batch`.")
@click.option("--name", metavar="NAME", help="Name of the run's folder. Default: the stem of FILE.")
@click.option("--env-file", type=click.Path(path_type=Path), metavar="FILE", help="Read more environment variables.")
@click.option("--no-gate", is_flag=True, help="Skip the gate.")
@reports_option
@json_option
def outputs_command(file: Path, *, job: Path | None, reports_dir: Path, as_json: bool, **options: Any) -> int:
    """Make a run of the answers in FILE: keep, grade, report, gate. Asks nothing.

    FILE is JSONL, JSON, CSV, TSV or Parquet, also .gz or .zst; a folder or a glob of them.
    """
    from evalrun.cli.results import print_result
    from evalrun.closing import read_summary
    from evalrun.importing import ImportSettings, NullAs, import_outputs

    loaded = _load_job(job, options["env_file"])
    if loaded is None and (options["samples"] == "job" or options["batch"]):
        option = "--batch" if options["batch"] else "--samples job"
        raise UsageError(f"{option} needs a job", hint="name it with --job FILE")
    settings = ImportSettings(
        path=file,
        columns=_make_columns(options, loaded),
        reports_dir=reports_dir,
        name=options["name"],
        null_as=None if options["null_as"] is None else NullAs(options["null_as"]),
        has_own_samples=loaded is None or options["samples"] == "file",
        is_batch=options["batch"],
        is_gate_wanted=not options["no_gate"],
    )
    result = import_outputs(settings, loaded)
    if as_json:
        print_json({**read_summary(result.folder), "exit_code": result.exit_code})
    else:
        for warning in result.manifest["warnings"]:
            print_note(f"note: {warning}")
        print_result(result)
    return result.exit_code


def _load_job(job: Path | None, env_file: Path | None) -> "LoadedJob | None":
    from evalrun.job.config import load_env_file, load_job

    if job is None:
        return None
    return load_job(job, environ={**os.environ, **(load_env_file(env_file) if env_file is not None else {})})


def _make_columns(options: dict[str, Any], loaded: "LoadedJob | None") -> "AnswerColumns":
    """Return where the columns stand.

    Raises:
        UsageError: Options that do not go together, or one that names no column.
    """
    from evalrun.answer_columns import AnswerColumns, is_path

    prompt_name = options["prompt_name"]
    if prompt_name is None and loaded is not None and len(loaded.job.prompts) == 1:
        prompt_name = loaded.job.prompts[0].name
    added = _split_names(options["added"], "--column")
    if options["expected"] is not None:
        added["expected"] = options["expected"]
    columns = AnswerColumns(
        outputs=_read_outputs(options["outputs"], options["model"], options["model_name"]),
        id=options["id_column"],
        input=options["input_column"],
        added=added,
        ignored=tuple(options["ignored"]),
        prompt_name=prompt_name or "imported",
        **{key: options[key] for key in _SAME},
    )
    for option, path in columns.list_paths().items():
        if not is_path(path):
            raise UsageError(
                f"{option} {path!r} is no column", hint="write a name, or a path: usage.total, items[0].text"
            )
    _refuse_pairs(options, columns)
    return columns


_SAME = (
    "model", "model_name", "prompt", "repeat", "category", "usage", "prompt_tokens", "completion_tokens", "cost",
    "latency", "finish_reason",
)  # fmt: skip


def _read_outputs(outputs: Sequence[str], model: str | None, model_name: str | None) -> dict[str | None, str]:
    """Return where the outputs stand, by the model that each is of; None = the rows, or --model-name, say whose."""
    if not any("=" in text for text in outputs):
        if len(outputs) > 1:
            raise UsageError("several outputs need names", hint="write --output NAME=COLUMN for each model")
        if (model is None) == (model_name is None):
            hint = "write --model COLUMN, or --model-name NAME where one model answered all rows"
            raise UsageError("say which model answered, in one way", hint=hint)
        return {None: outputs[0]}
    if model is not None or model_name is not None:
        raise UsageError("--output NAME=COLUMN names the models; leave out --model and --model-name")
    return dict(_split_names(outputs, "--output").items())


def _split_names(texts: Sequence[str], option: str) -> dict[str, str]:
    named: dict[str, str] = {}
    for text in texts:
        name, sign, path = text.partition("=")
        if not sign or not name.strip() or not path:
            raise UsageError(f"{option} {text!r} names no column", hint=f"write {option} NAME=COLUMN")
        if name in named:
            raise UsageError(f"{option} {name}=… is given twice")
        if not name.isprintable() or len(name) > 200:
            raise UsageError(f"the name {name[:60]!r} holds a control character or is long")
        named[name] = path
    return named


def _refuse_pairs(options: dict[str, Any], columns: "AnswerColumns") -> None:
    """Refuse options that say the same thing twice, or a mark that nothing fills."""
    if options["prompt"] is not None and options["prompt_name"] is not None:
        raise UsageError("--prompt and --prompt-name both say which prompt it was; leave one out")
    if columns.usage is not None and (columns.prompt_tokens or columns.completion_tokens) is not None:
        raise UsageError("--usage holds the tokens already; leave out --prompt-tokens and --completion-tokens")
    if columns.id is None and not columns.is_wide:
        raise UsageError("say which column tells the samples apart", hint="write --id COLUMN")
