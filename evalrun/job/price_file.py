"""A file of prices that jobs share: read, checked in full, and asked which price is a model's.

A path enters; series of prices by model name, id or glob leave, or one ConfigError with every problem of the file.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from evalrun.errors import ConfigError, Problem
from evalrun.job.document import Document, load_document
from evalrun.job.explain import explain
from evalrun.job.places import KeyPath
from evalrun.job.price_checks import Where, check_series, warn_price
from evalrun.job.scalars import name_value
from evalrun.job.schema import validate
from evalrun.options import ModelOptions, PriceFileOptions, SharedPriceOptions
from evalrun.prices import ModelPrices

_NEAR = 0.75
"""How alike two names must be for one to be a slip of the other: `gpt5.1` and `gpt-5.1` are, `gpt-5.1` and `o3` not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceSeries:
    """The prices that a file has for one name, id or glob."""

    pattern: str
    """As written under `model`."""
    aliases: frozenset[str]
    prices: ModelPrices
    place: str
    """Where the first of them stands."""

    @property
    def is_glob(self) -> bool:
        """Whether the pattern may fit several names."""
        return any(mark in self.pattern for mark in "*?[")

    def rank(self, model: ModelOptions) -> tuple[int, int] | None:
        """Return how well the series fits a model, the higher the better; None when it does not.

        Its name in tables is before its id on the wire, that before an alias, and that before globs, of which the one
        with more literal characters is the better.
        """
        names = (model.name, model.wire_model)
        if self.pattern in names:
            return (4 if self.pattern == model.name else 3), 0
        if not self.aliases.isdisjoint(names):
            return 2, 0
        if self.is_glob and any(fnmatchcase(name, self.pattern) for name in names):
            return 1, _count_literal_chars(self.pattern)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceFile:
    """Every price of a file."""

    series: tuple[PriceSeries, ...]
    warnings: tuple[Problem, ...]

    def find(self, model: ModelOptions) -> PriceSeries | None:
        """Return the series that fits a model best; None when none does.

        Raises:
            ConfigError: Two fit alike.
        """
        ranked = [(rank, series) for series in self.series if (rank := series.rank(model)) is not None]
        if not ranked:
            return None
        best = max(rank for rank, _ in ranked)
        first, *others = (series for rank, series in ranked if rank == best)
        if others:
            message = f"the price of {model.name!r} is given twice: by `{first.pattern}` at {first.place}"
            raise ConfigError(
                f"{message} and by `{others[0].pattern}` here",
                where=others[0].place,
                hint=f"write a price under `model: {model.name}`, which comes before both",
            )
        return first

    def warn(self, models: Sequence[ModelOptions], unpriced: Iterable[str]) -> list[Problem]:
        """Return what of the file looks like a slip beside the models of a job.

        Args:
            models: All models of the job.
            unpriced: Names of those that no price was found for.
        """
        names = {name for model in models if model.name in set(unpriced) for name in (model.name, model.wire_model)}
        found = list(self.warnings)
        for series in self.series:
            if any(series.rank(model) is not None for model in models):
                continue
            if series.is_glob:
                message = f"the glob `{series.pattern}` fits no model of the job"
                found.append(Problem(message=message, where=series.place))
            elif near := get_close_matches(series.pattern, names, n=1, cutoff=_NEAR):
                message = f"the price of `{series.pattern}` fits no model of the job"
                found.append(Problem(message=message, where=series.place, hint=f"did you mean `{near[0]}`?"))
        return found


def load_price_file(name: str, folder: Path, where: str) -> PriceFile:
    """Read and check a price file.

    Args:
        name: Path as the job has it.
        folder: The job's folder.
        where: The place that names the file.

    Raises:
        ConfigError: The file cannot be used; holds every problem found.
    """
    document = load_document(folder / name, where=where)
    tree, find_place = _unwrap(document)
    file, errors = validate(PriceFileOptions, tree)
    problems = [*document.problems, *explain(errors, tree, tree, find_place, root=PriceFileOptions)]
    # What is valid by itself is checked further, so that one wrong entry does not hide the faults of others.
    entries = file.prices if file is not None else [validate(SharedPriceOptions, item)[0] for item in tree["prices"]]
    grouped: dict[str, list[tuple[KeyPath, SharedPriceOptions]]] = {}
    for index, entry in enumerate(entries):
        if entry is not None:
            grouped.setdefault(entry.model, []).append((("prices", index), entry))
    for series in grouped.values():
        problems += check_series(series, find_place)
    if problems:
        raise ConfigError(problems)
    return PriceFile(
        series=tuple(_make_series(pattern, entries, find_place) for pattern, entries in grouped.items()),
        warnings=tuple(
            warning
            for entries in grouped.values()
            for path, entry in entries
            for warning in warn_price(entry, path, find_place)
        ),
    )


def _unwrap(document: Document) -> tuple[dict[str, Any], Where]:
    """Return the file as a mapping with the key `prices`, which a list alone stands for, and its places.

    Raises:
        ConfigError: The file holds neither.
    """
    data, places = document.data, document.places
    if isinstance(data, list) and data:
        return {"prices": data}, lambda path: places.find(path[1:])
    if isinstance(data, dict) and isinstance(data.get("prices"), list) and data["prices"]:
        return data, places.find
    what = "the price file is empty" if not data else f"a price file holds a list of prices, got {name_value(data)}"
    if isinstance(data, dict) and data:
        what = "a price file holds a list, or the one key `prices` with a list"
    raise ConfigError(what, where=f"{places.file}:1", hint="write for example - {model: gpt-5.1, input: 1, output: 8}")


def _make_series(pattern: str, entries: list[tuple[KeyPath, SharedPriceOptions]], where: Where) -> PriceSeries:
    place = where(entries[0][0])
    return PriceSeries(
        pattern=pattern,
        aliases=frozenset(alias for _, entry in entries for alias in entry.aliases),
        prices=ModelPrices(tuple(entry for _, entry in entries), origin=place),
        place=place,
    )


def _count_literal_chars(pattern: str) -> int:
    """Return how many characters of a glob stand for themselves."""
    count, rest = 0, pattern
    while rest:
        if rest[0] == "[" and "]" in rest[2:]:
            rest = rest[rest.index("]", 2) + 1 :]
            continue
        count += rest[0] not in "*?"
        rest = rest[1:]
    return count
