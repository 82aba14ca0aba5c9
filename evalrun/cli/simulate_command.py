"""`evalrun simulate`: the simulator on a port of its own, for jobs with `url:` and for other people's clients."""

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio
import click

from evalrun.cli.console import count_noun, open_console, print_json, print_note
from evalrun.cli.profile_options import change_profiles, profile_options
from evalrun.errors import UsageError
from evalrun.options import ProfileOptions, SimulatorOptions
from evalrun.quirk_names import QUIRK_NAMES
from evalrun.records import SCHEMA_VERSION
from evalrun.simulator.server import Simulator, serve

if TYPE_CHECKING:
    from evalrun.simulator.answer_book import AnswerBook

GATEWAY_MODELS = (
    "gpt-5.1", "gpt-5.1-all", "gpt-5.1-thinking", "gpt-5.1-thinking-all", "gpt-5.2",
    "gemini-3-pro", "gemini-2.5-pro", "gemini-2.5-flash", "gemini-3-flash", "claude-4.5",
)  # fmt: skip
"""Models served without a job: those of the gateway that evalrun was first written for."""


@click.command("simulate")
@click.argument("job", type=click.Path(path_type=Path), required=False)
@click.option("--endpoint", metavar="NAME", help="Which of the job's simulator endpoints; default: the only one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; default: that of the job's `url:`, else a free one.")
@click.option("--api-key-env", metavar="NAME", help="Variable that holds the key which clients must send.")
@click.option("--answers", metavar="FILE", help="Rows that hold right answers, for clients other than evalrun.")
@click.option("--match", metavar="COLUMN", help="With --answers: the column whose text a prompt contains.")
@click.option("--answer-column", metavar="COLUMN", help="With --answers: the right answer; default: answer.")
@profile_options
@click.option("--list-quirks", is_flag=True, help="List the quirks and what they do, serve nothing.")
@click.option("--json", "as_json", is_flag=True, help="With --list-quirks: print one JSON object instead of text.")
def command(job: Path | None, **flags: Any) -> None:
    """Serve the simulator until interrupted, with JOB's profiles and seed.

    Without JOB: ten models that are right four times in five. A client that sends no headers of evalrun's own gets
    right answers from --answers, else an echo. A single request asks for quirks by the header X-Simulator-Quirk: Q09.
    The same request always gets the same reply, errors and quirks included. docs/simulator.md tells the rest.
    """
    if flags["list_quirks"]:
        _list_quirks(as_json=flags["as_json"])
        return
    if flags["as_json"]:
        raise UsageError("--json goes with --list-quirks")
    options = change_profiles(_choose_options(job, flags["endpoint"]), flags)
    port = flags["port"]
    if port is None:
        port = (urlsplit(options.url).port if options.url is not None else None) or 0
    settings = {"api_key": _read_key(flags["api_key_env"]), "answers": _load_answers(flags)}
    anyio.run(_serve_until_signal, options, flags["host"], port, settings)


def _list_quirks(*, as_json: bool) -> None:
    """Print the catalogue."""
    if as_json:
        quirks = [
            {
                "id": quirk_id,
                "name": quirk.name,
                "does": quirk.sentence,
                "replies": quirk.mode,
                "variants": dict(quirk.variants),
                "number": quirk.number,
            }
            for quirk_id, quirk in QUIRK_NAMES.items()
        ]
        print_json({"schema_version": SCHEMA_VERSION, "quirks": quirks})
        return
    console = open_console()
    for quirk_id, quirk in QUIRK_NAMES.items():
        only = "" if quirk.mode == "both" else f" ({_MODES[quirk.mode]})"
        console.print(f"{quirk_id}  {quirk.name}{only}", style="bold")
        console.print(f"     {quirk.sentence}")
        forms = [*(f"{quirk_id}:{variant}" for variant in quirk.variants)]
        if quirk.number is not None:
            forms.append(f"{quirk_id}:NUMBER ({quirk.number})")
        if forms:
            console.print(f"     {', '.join(forms)}")


_MODES = {"stream": "streamed only", "plain": "not streamed only"}


def _choose_options(job: Path | None, endpoint: str | None) -> SimulatorOptions:
    """Return the simulator of a job's endpoint, or one with the gateway's models."""
    if job is None:
        if endpoint is not None:
            raise UsageError("--endpoint chooses among a JOB's endpoints, and there is no JOB")
        return SimulatorOptions(answer="{{ answer }}", profiles={name: ProfileOptions() for name in GATEWAY_MODELS})
    from evalrun.job.config import load_job

    loaded = load_job(job, environ=os.environ)
    simulators = {
        name: options.simulator for name, options in loaded.job.endpoints.items() if options.simulator is not None
    }
    if endpoint is not None and endpoint in simulators:
        return simulators[endpoint]
    if endpoint is None and len(simulators) == 1:
        return next(iter(simulators.values()))
    known = ", ".join(simulators) or "none"
    raise UsageError(f"{job} has these simulator endpoints: {known}", hint="choose one with --endpoint NAME")


def _read_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise UsageError(
            f"the environment variable {variable} is not set",
            hint=f"set it: export {variable}=..., or leave the flag out",
        )
    return key


def _load_answers(flags: dict[str, Any]) -> "AnswerBook | None":
    file, match, answer_column = flags["answers"], flags["match"], flags["answer_column"]
    if file is None:
        if match is not None or answer_column is not None:
            raise UsageError("--match and --answer-column go with --answers FILE")
        return None
    if match is None:
        raise UsageError("--answers needs --match COLUMN: the column whose text a prompt contains")
    from evalrun.cli.answer_file import load_answer_book

    book = load_answer_book(file, match=match, answer_column=answer_column or "answer")
    print_note(f"right answers: {count_noun(book.n_rows, 'row')}")
    if book.n_unusable:
        print_note(
            f"left out: {count_noun(book.n_unusable, 'row')} without text or answer, or with an earlier row's text"
        )
    return book


async def _serve_until_signal(options: SimulatorOptions, host: str, port: int, settings: dict[str, Any]) -> None:
    async with serve(options, host=host, port=port, **settings) as simulator:
        _announce(simulator)
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                break
        _sum_up(simulator)


def _announce(simulator: Simulator) -> None:
    url = simulator.url
    click.echo(url)
    print_note(f"simulated models: {', '.join(simulator.options.profiles)}")
    print_note(f"base URLs: {url}/chat and {url}/v1; ledger: {url}/_simulator/ledger")
    print_note("stop with Ctrl-C")


def _sum_up(simulator: Simulator) -> None:
    shown = simulator.ledger.to_json()
    totals = shown["totals"]
    told = [f"served {count_noun(totals['requests'], 'request')}", f"{totals['rejected']} refused"]
    limited = totals["rate_limited"] + totals["quota_refused"]
    told += [f"{limited} over a limit"] if limited else []
    told += [f"{totals['quirked']} with quirks"] if totals["quirked"] else []
    if shown["unmatched_requests"]:
        told.append(f"{shown['unmatched_requests']} matched no row of --answers")
    print_note(", ".join(told))
