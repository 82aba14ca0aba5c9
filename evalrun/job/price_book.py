"""Whose price is whose: the job's own, those of its price file, those of the price library, in this order.

A valid job enters; a price for each model that has one leaves, with what must be said before the run.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from evalrun.errors import AuthorError, Problem
from evalrun.job.places import Places
from evalrun.job.price_checks import list_own_prices, warn_price
from evalrun.job.price_file import PriceFile
from evalrun.job.price_library import Seller, find_library_prices, is_local
from evalrun.job.profiles import get_profile
from evalrun.options import EndpointOptions, Job
from evalrun.prices import ModelPrices, PriceBook


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedJob:
    """What the models of a job cost, as far as anybody says."""

    book: PriceBook
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    notes: tuple[str, ...]
    """What the price library gave, and what of it could not be used."""


def build_price_book(
    job: Job, file: PriceFile | None, places: Places, *, at: datetime, asks_library: bool
) -> PricedJob:
    """Return the prices of a job's models.

    Args:
        job: The job, endpoints filled in.
        file: Its price file; None when it names none.
        places: Where the job's keys stand.
        at: Now.
        asks_library: Whether the price library may be asked, where it is installed.
    """
    book: dict[str, ModelPrices] = {}
    problems: list[Problem] = []
    warnings: list[Problem] = []
    for index, model in enumerate(job.models):
        own = list_own_prices(model, ("models", index))
        warnings += [warning for path, price in own for warning in warn_price(price, path, places.find)]
        if own:
            place = places.find(("models", index, "price"))
            book[model.name] = ModelPrices(tuple(price for _, price in own), origin=place)
        elif file is not None:
            try:
                found = file.find(model)
            except AuthorError as error:
                problems += error.problems
            else:
                book |= {model.name: found.prices} if found is not None else {}
    notes = list(_ask_library(job, book, at)) if asks_library else []
    if file is not None:
        warnings += file.warn(job.models, [model.name for model in job.models if model.name not in book])
    warnings += _warn_of_unknown(job, book, places, at)
    return PricedJob(book=book, problems=tuple(problems), warnings=tuple(warnings), notes=tuple(notes))


def _ask_library(job: Job, book: dict[str, ModelPrices], at: datetime) -> Iterator[str]:
    """Fill in what the price library knows; yield what it gave and what of it cannot be used."""
    for model in job.models:
        seller = _name_seller(job.endpoints[str(model.endpoint)])
        if model.name in book or seller is None:
            continue
        answer = find_library_prices(model.wire_model, seller, at=at)
        if answer is None:
            return  # It is not installed.
        if answer.prices:
            book[model.name] = answer.prices
            yield f"price of {model.name} from {answer.prices.library} ({answer.prices.origin})"
        for note in answer.notes:
            yield f"price of {model.name}: {note}"


def _name_seller(endpoint: EndpointOptions) -> Seller | None:
    """Return the addresses by which the library may know who sells; None for those that sell nothing."""
    if endpoint.simulator is not None or endpoint.base_url is None or is_local(endpoint.base_url):
        return None
    profile = get_profile(endpoint.profile) if endpoint.profile is not None else None
    return Seller(endpoint.base_url, None if profile is None else profile.get("base_url"))


def _warn_of_unknown(job: Job, book: Mapping[str, ModelPrices], places: Places, at: datetime) -> Iterator[Problem]:
    """Yield the models that answer in earnest and whose cost will not be known."""
    asked = [model.name for model in job.models if job.endpoints[str(model.endpoint)].simulator is None]
    if unpriced := [name for name in asked if name not in book]:
        message = f"no price for {', '.join(unpriced)}: what they cost will be unknown"
        hint = "write `price: {input: …, output: …}` (USD per 1M tokens)"
        yield Problem(message=message, where=places.find(("models",)), hint=hint)
    yield from _warn_of_later(book, at)


def _warn_of_later(book: Mapping[str, ModelPrices], at: datetime) -> Iterable[Problem]:
    for name, prices in book.items():
        if prices.find(at) is None:
            message = f"the price of {name} begins at {prices.first_valid_from}: until then what it costs is unknown"
            hint = "leave `valid_from` out of the price that always held"
            yield Problem(message=message, where=prices.origin, hint=hint)
