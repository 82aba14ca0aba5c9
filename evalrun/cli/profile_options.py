"""Options of `evalrun simulate` that change how every simulated model behaves, as if the job said so."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, get_args

import click

from evalrun.errors import UsageError
from evalrun.options import RateDialect, RetryAfterForm, SimulatedLimits, SimulatorOptions
from evalrun.quirk_names import parse_quirk

Command = TypeVar("Command", bound=Callable[..., Any])

_PROFILE_OPTIONS = (
    click.option(
        "--quirk", "quirks", multiple=True, metavar="NAME[=SHARE]",
        help="Let a quirk befall this share of the attempts, all by default; repeatable, or several with commas.",
    ),
    click.option("--seed", type=int, help="Another seed, other replies."),
    click.option("--accuracy", type=click.FloatRange(0, 1), help="Chance that a reply says the right answer."),
    click.option("--latency-ms", type=click.FloatRange(0, 600_000), help="Median latency."),
    click.option("--error-rate", type=click.FloatRange(0, 1), help="Chance that an attempt answers 503."),
)  # fmt: skip
_LIMIT_OPTIONS = (
    click.option("--rpm", "requests_per_minute", type=click.FloatRange(0, min_open=True), help="Requests per minute."),
    click.option("--tpm", "tokens_per_minute", type=click.FloatRange(0, min_open=True), help="Tokens per minute."),
    click.option("--concurrency", type=click.IntRange(min=1), help="Requests that may be under way at once."),
    click.option("--quota-tokens", type=click.IntRange(min=0), help="Tokens after which there is no quota left."),
    click.option(
        "--rate-headers", "headers", type=click.Choice(get_args(RateDialect)), help="Whose rate-limit headers to send."
    ),
    click.option("--retry-after", type=click.Choice(get_args(RetryAfterForm)), help="Form of Retry-After in a 429."),
)
_PROFILE_KEYS = ("accuracy", "latency_ms", "error_rate")
_FLAG_NAMES = {
    "headers": "--rate-headers",
    "retry_after": "--retry-after",
    "requests_per_minute": "--rpm",
    "tokens_per_minute": "--tpm",
    "concurrency": "--concurrency",
}
_NEEDS = {
    "headers": ("requests_per_minute", "tokens_per_minute"),
    "retry_after": ("requests_per_minute", "tokens_per_minute", "concurrency"),
}
"""Flag → limits of which one must be there for it to do anything."""
_LIMIT_KEYS = ("requests_per_minute", "tokens_per_minute", "concurrency", "quota_tokens", "headers", "retry_after")


def profile_options(command: Command) -> Command:
    """Add the options that change all profiles."""
    for option in reversed((*_PROFILE_OPTIONS, *_LIMIT_OPTIONS)):
        command = option(command)
    return command


def change_profiles(options: SimulatorOptions, flags: Mapping[str, Any]) -> SimulatorOptions:
    """Return the options with what the command line said of them, for every model.

    Args:
        options: As the job, or nobody, said.
        flags: The command's keyword arguments; those of `profile_options` are used, None = not given.

    Raises:
        UsageError: An unknown quirk, a share that is none, or a flag that does nothing without another.
    """
    given = {key: flags[key] for key in _PROFILE_KEYS if flags[key] is not None}
    limits = {key: flags[key] for key in _LIMIT_KEYS if flags[key] is not None}
    quirks = _read_quirks(flags["quirks"])
    profiles = {
        name: replace(profile, **given, limits=replace(profile.limits, **limits), quirks={**profile.quirks, **quirks})
        for name, profile in options.profiles.items()
    }
    for flag, needed in _NEEDS.items():
        # Azure's headers say that they do not know, which takes no limit.
        if flags[flag] not in {None, "azure"} and not any(
            _has_limit(profile.limits, needed) for profile in profiles.values()
        ):
            named = ", ".join(_FLAG_NAMES[key] for key in needed)
            raise UsageError(f"{_FLAG_NAMES[flag]} does nothing without a limit", hint=f"give one of {named} as well")
    return replace(options, profiles=profiles, seed=options.seed if flags["seed"] is None else flags["seed"])


def _has_limit(limits: SimulatedLimits, keys: Sequence[str]) -> bool:
    return any(getattr(limits, key) is not None for key in keys)


def _read_quirks(texts: Sequence[str]) -> dict[str, float]:
    quirks = {}
    for text in (part.strip() for given in texts for part in given.split(",")):
        name, sign, share = text.partition("=")
        try:
            parse_quirk(name)
        except ValueError as error:
            raise UsageError(
                f"--quirk {text!r}: {error}", hint="evalrun simulate --list-quirks tells what each does"
            ) from error
        quirks[name] = _read_share(text, share) if sign else 1.0
    return quirks


def _read_share(text: str, share: str) -> float:
    try:
        value = float(share)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UsageError(f"--quirk {text!r}: the share must be a number from 0 to 1, not {share!r}")
    return value
