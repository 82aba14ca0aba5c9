"""Profiles: named sets of known facts about providers, as data, each fact with its source and the day it was read.

`profiles.toml` holds them. A job's tree enters; the endpoints that name a profile leave with what they did not say
themselves filled in. Invariant: an endpoint's own keys win, and a profile sets nothing that a job could not write.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib import resources
from typing import Any

from evalrun.errors import Problem
from evalrun.job.document import suggest
from evalrun.job.literal_keys import SECRET_HEADER
from evalrun.job.places import KeyPath, Places

_MERGED = ("headers", "header_env", "rename_params")
"""Keys whose entries are merged one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One known fact: a key of an endpoint, or, without one, something that a user should know."""

    key: str | None
    """Key of an endpoint; None for a note."""
    value: Any
    """What the key is set to, or what is added to it; None for a note."""
    text: str | None
    """The fact in words; None where key and value say it all."""
    sources: tuple[str, ...]
    """Where it was read; never empty."""
    read_on: date


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What is known about one provider."""

    name: str
    title: str
    facts: tuple[Fact, ...]
    """Those that set a key, in the order of the file."""
    notes: tuple[Fact, ...]
    """Those that set none."""

    @property
    def drop_params(self) -> tuple[str, ...]:
        """Parameters that the provider does not take."""
        return tuple(name for fact in self.facts if fact.key == "drop_params" for name in fact.value)

    def get(self, key: str) -> Any:
        """Return the value of a key that holds a single one; None when the profile does not set it."""
        return next((fact.value for fact in self.facts if fact.key == key), None)

    def merge(self, key: str) -> dict[str, Any]:
        """Return the entries of a key whose facts are merged."""
        return {name: value for fact in self.facts if fact.key == key for name, value in fact.value.items()}


@cache
def load_profiles() -> Mapping[str, Profile]:
    """Return every profile by name, aliases included, in the order of the file."""
    text = (resources.files("evalrun.job") / "profiles.toml").read_text(encoding="utf-8")
    profiles: dict[str, Profile] = {}
    for name, entry in tomllib.loads(text).items():
        facts = [_read_fact(fact) for fact in entry["facts"]]
        profile = Profile(
            name=name,
            title=entry["title"],
            facts=tuple(fact for fact in facts if fact.key is not None),
            notes=tuple(fact for fact in facts if fact.key is None),
        )
        profiles |= dict.fromkeys((name, *entry.get("aliases", ())), profile)
    return profiles


def get_profile(name: str) -> Profile | None:
    """Return a profile by its name or alias; None when there is none."""
    return load_profiles().get(name)


def apply_profiles(tree: Mapping[str, Any], places: Places) -> list[Problem]:
    """Fill in what the endpoints of a job leave to their profiles; return the profiles that are not known.

    Args:
        tree: The job, variables resolved; its endpoints are changed in place.
        places: Is told that what was filled in stands where the profile is named.
    """
    endpoints = tree.get("endpoints")
    problems: list[Problem] = []
    for name, endpoint in endpoints.items() if isinstance(endpoints, dict) else ():
        wanted = endpoint.get("profile") if isinstance(endpoint, dict) else None
        if not isinstance(wanted, str):
            continue  # A value that is no text is reported by validation.
        path: KeyPath = ("endpoints", name)
        place = places.find((*path, "profile"))
        profile = get_profile(wanted)
        if profile is None:
            near, known = suggest(wanted, load_profiles()), f"known: {', '.join(load_profiles())}"
            hint = f"{near} {known}" if near else known
            problems.append(Problem(message=f"there is no profile {wanted[:60]!r}", where=place, hint=hint))
            continue
        written = {(*path, *keys) for keys in _list_keys(endpoint)}
        _fill_in(endpoint, profile)
        for keys in _list_keys(endpoint):
            if (*path, *keys) not in written:
                places.mark((*path, *keys), place)
    return problems


def _fill_in(endpoint: dict[str, Any], profile: Profile) -> None:
    """Put a profile's facts into an endpoint wherever it does not say otherwise."""
    is_simulated = endpoint.get("simulator") is not None
    kept = {name for name, target in _get_mapping(endpoint, "rename_params").items() if name == target}
    # A secret header of the endpoint's own is its key; any other header (an organisation's) is not.
    has_own_key = "api_key_env" in endpoint or any(map(SECRET_HEADER.fullmatch, _get_mapping(endpoint, "header_env")))
    if not is_simulated:
        if endpoint.get("base_url") is None and profile.get("base_url") is not None:
            endpoint["base_url"] = profile.get("base_url")
        if not has_own_key and profile.get("api_key_env") is not None:
            endpoint["api_key_env"] = profile.get("api_key_env")
    for key in _MERGED:
        if key == "header_env" and (is_simulated or has_own_key):
            continue  # The endpoint's own key, if any, goes in its own way.
        _merge(endpoint, key, profile.merge(key))
    if isinstance(drops := endpoint.get("drop_params", []), list):
        added = [name for name in profile.drop_params if name not in kept and name not in drops]
        if added:
            endpoint["drop_params"] = [*drops, *added]
    if "stream_options" not in endpoint and profile.get("stream_options") is not None:
        endpoint["stream_options"] = dict(profile.get("stream_options"))


def _merge(endpoint: dict[str, Any], key: str, facts: Mapping[str, Any]) -> None:
    own = endpoint.get(key, {})
    if not facts or not isinstance(own, dict):
        return
    # Names of headers are case-blind; names of parameters never differ by case alone.
    taken = {str(name).lower() for name in own}
    endpoint[key] = {**own, **{name: value for name, value in facts.items() if name.lower() not in taken}}


def _get_mapping(endpoint: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = endpoint.get(key)
    return value if isinstance(value, Mapping) else {}


def _list_keys(endpoint: Mapping[str, Any]) -> Iterator[KeyPath]:
    """Yield the key paths of an endpoint, two levels deep."""
    for key, value in endpoint.items():
        yield (key,)
        if isinstance(value, Mapping):
            yield from ((key, inner) for inner in value)


def _read_fact(entry: Mapping[str, Any]) -> Fact:
    source = entry["source"]
    return Fact(
        key=entry.get("key"),
        value=entry.get("value"),
        text=entry.get("text"),
        sources=(source,) if isinstance(source, str) else tuple(source),
        read_on=entry["read_on"],
    )
