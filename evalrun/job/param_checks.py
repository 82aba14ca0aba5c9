"""Request parameters held against what is documented, before anything is sent.

Parameters enter as the job or a row wrote them; problems and warnings leave, each with its place. A known parameter of
a wrong type is a problem; one out of its documented range, a near misspelling and one that the endpoint drops are
warnings. Nothing is changed: what is no error is sent as it is written.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from evalrun.chat_params import check_params, find_misspelled
from evalrun.chat_shapes import FaultKind, ParamFault
from evalrun.errors import Problem
from evalrun.job.bodies import is_dropped
from evalrun.job.places import KeyPath, name_path
from evalrun.job.profiles import get_profile
from evalrun.job.scalars import name_value
from evalrun.options import EndpointOptions

Where = Callable[[KeyPath], str]

_WORDS: Mapping[str, str] = {
    "a boolean": "true or false",
    "an integer": "a whole number",
    "an object": "a mapping",
    "an array": "a list",
    "a string": "text",
    "strings": "texts",
    "objects": "mappings",
}


def check_model_params(params: Mapping[str, Any], path: KeyPath, where: Where) -> Iterator[Problem]:
    """Yield the parameters of a model that are of a wrong type.

    Args:
        params: As the job wrote them.
        path: Key path of them in the job.
        where: Gives the place of a key path.
    """
    for fault in check_params(params):
        if fault.kind is FaultKind.TYPE:
            here = (*path, *fault.path)
            yield Problem(message=_word_type(fault, name_path(here)), where=where(here), hint=_hint_number(fault))


def warn_model_params(
    params: Mapping[str, Any], endpoint: EndpointOptions, path: KeyPath, where: Where
) -> Iterator[Problem]:
    """Yield what should be known of a model's parameters: out of range, perhaps misspelled, not sent at all.

    Args:
        params: As the job wrote them.
        endpoint: The model's endpoint, its profile filled in.
        path: Key path of them in the job.
        where: Gives the place of a key path.
    """
    for fault in check_params(params):
        if fault.kind is not FaultKind.TYPE and not is_dropped(str(fault.path[0]), endpoint):
            here = (*path, *fault.path)
            yield Problem(message=_word_range(fault, name_path(here)), where=where(here))
    for name in params:
        here = (*path, name)
        if is_dropped(name, endpoint):
            yield Problem(
                message=_word_drop(name_path(here), name, endpoint), where=where(here), hint=_hint_drop(name, endpoint)
            )
        elif near := find_misspelled(name):
            message = f"`{name_path(here)}` is no documented parameter; it is sent as it is written"
            yield Problem(message=message, where=where(here), hint=f"did you mean `{near}`?")


def warn_stream_options(endpoint: EndpointOptions, path: KeyPath, where: Where) -> Iterator[Problem]:
    """Yield what should be known of what an endpoint's requests say about streaming."""
    if endpoint.stream and _is_profiles_drop("stream_options", endpoint):
        message = f"`stream_options` is not sent: profile {endpoint.profile} drops it; usage may be missing"
        yield Problem(message=message, where=where((*path, "profile")), hint=_hint_drop("stream_options", endpoint))


def check_row_params(params: Mapping[str, Any], where: str) -> list[Problem]:
    """Return the parameters of a row that are of a wrong type; `where` is the row's place."""
    return [
        Problem(
            message=_word_type(fault, f"params_column: {name_path(fault.path)}"), where=where, hint=_hint_number(fault)
        )
        for fault in check_params(params)
        if fault.kind is FaultKind.TYPE
    ]


def warn_row_params(
    params: Mapping[str, Any], endpoints: Mapping[str, EndpointOptions], where: str
) -> Iterator[Problem]:
    """Yield what should be known of a row's parameters; `where` is the row's place.

    Args:
        params: As the row has them.
        endpoints: Those that the row is sent to, by name.
        where: The row's place.
    """
    for fault in check_params(params):
        if fault.kind is not FaultKind.TYPE:
            yield Problem(message=_word_range(fault, f"params_column: {name_path(fault.path)}"), where=where)
    for name in params:
        shown = f"params_column: {name}"
        for endpoint_name, endpoint in endpoints.items():
            if is_dropped(name, endpoint):
                message = f"{_word_drop(shown, name, endpoint)} ({endpoint_name})"
                yield Problem(message=message, where=where, hint=_hint_drop(name, endpoint))
        if near := find_misspelled(name):
            message = f"`{shown}` is no documented parameter; it is sent as it is written"
            yield Problem(message=message, where=where, hint=f"did you mean `{near}`?")


def _word_type(fault: ParamFault, name: str) -> str:
    expected = fault.expected
    for words, plain in _WORDS.items():
        expected = expected.replace(words, plain)
    return f"`{name}` must be {expected}, got {name_value(fault.got)}"


def _hint_number(fault: ParamFault) -> str | None:
    if isinstance(fault.got, str) and fault.expected in ("a number", "an integer"):
        return "numbers are written as in JSON, without quotes: 1000, 0.5, 1e3"
    return None


def _word_range(fault: ParamFault, name: str) -> str:
    """Return what OpenAI documents and the value that is sent all the same."""
    if fault.kind is FaultKind.MISSING:
        return f"`{name}` is not given, but documented as required; the parameter is sent as it is written"
    if fault.kind is FaultKind.KEY:
        return f"`{name}` has the key {fault.got[:60]!r}, which is not one that is documented; it is sent all the same"
    is_counted = fault.unit in ("characters", "items", "pairs")
    got = f"{len(fault.got)} {fault.unit}" if is_counted else name_value(fault.got)
    pattern = "a match of " if fault.kind is FaultKind.PATTERN else ""
    return f"`{name}` is {got}; documented is {pattern}{fault.expected}. It is sent as it is written"


def _word_drop(shown: str, name: str, endpoint: EndpointOptions) -> str:
    by = f"profile {endpoint.profile}" if _is_profiles_drop(name, endpoint) else "drop_params"
    return f"`{shown}` is not sent: the endpoint drops it ({by})"


def _hint_drop(name: str, endpoint: EndpointOptions) -> str:
    if _is_profiles_drop(name, endpoint):
        return f"leave it out, or write `rename_params: {{{name}: {name}}}` in the endpoint to send it all the same"
    return "leave it out"


def _is_profiles_drop(name: str, endpoint: EndpointOptions) -> bool:
    profile = get_profile(endpoint.profile) if endpoint.profile is not None else None
    names = {name, endpoint.rename_params.get(name, name)}
    return profile is not None and not names.isdisjoint(profile.drop_params)
