"""What the job's keys must agree on among themselves: names, references, addresses, parameters, templates.

The parts of a job enter, even of one that is not valid as a whole, so that all problems are reported at once.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalrun.errors import Problem, PromptError
from evalrun.grader_options import GraderOptions
from evalrun.job.base_url import check_base_url
from evalrun.job.document import suggest_or_list
from evalrun.job.judge_checks import RESERVED_PARAMS, check_judges
from evalrun.job.literal_keys import HINT, SECRET_HEADER
from evalrun.job.messages import CompiledPrompt
from evalrun.job.param_checks import check_model_params
from evalrun.job.places import KeyPath, get_node, name_path
from evalrun.job.price_checks import check_series, list_own_prices
from evalrun.job.schema import validate
from evalrun.options import DatasetOptions, EndpointOptions, Job, ModelOptions, PromptOptions
from evalrun.quirk_names import parse_quirk
from evalrun.templates import Expression, Template

Where = Callable[[KeyPath], str]

MAX_NAME_CHARS = 200

_NEVER_DROPPED = ("model", "messages", "stream")

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SET_BY_DISPATCH = frozenset({"host", "content-length", "content-type", "transfer-encoding", "connection"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The pieces of a job that are valid by themselves; None stands for one that is not."""

    tree: Mapping[str, Any]
    endpoints: Mapping[str, EndpointOptions | None]
    models: tuple[ModelOptions | None, ...]
    prompts: tuple[PromptOptions | None, ...]
    graders: tuple[tuple[KeyPath, GraderOptions | None], ...]
    dataset: DatasetOptions | None
    """None also when samples come from a plain path."""


def collect_parts(tree: Mapping[str, Any], job: Job | None) -> Parts:
    """Return the parts of a job; of one that is not valid, each piece is tried by itself."""
    if job is not None:
        defaults = [(("defaults", "graders", index), item) for index, item in enumerate(job.defaults.graders)]
        return Parts(
            tree=tree,
            endpoints=job.endpoints,
            models=job.models,
            prompts=job.prompts,
            graders=(*defaults, *((("graders", index), item) for index, item in enumerate(job.graders))),
            dataset=job.dataset if isinstance(job.dataset, DatasetOptions) else None,
        )
    endpoints, dataset = tree.get("endpoints"), tree.get("dataset")
    names = list(endpoints) if isinstance(endpoints, Mapping) else []
    graders: list[tuple[KeyPath, GraderOptions | None]] = []
    for base in (("defaults", "graders"), ("graders",)):
        items = get_node(tree, base)
        for index, item in enumerate(items if isinstance(items, list) else []):
            graders.append(((*base, index), validate(GraderOptions, item)[0]))
    return Parts(
        tree=tree,
        endpoints={name: validate(EndpointOptions, tree["endpoints"][name])[0] for name in names},
        models=tuple(validate(ModelOptions, item)[0] for item in _list_items(tree, "models")),
        prompts=tuple(validate(PromptOptions, item)[0] for item in _list_items(tree, "prompts")),
        graders=tuple(graders),
        dataset=validate(DatasetOptions, dataset)[0] if isinstance(dataset, Mapping) else None,
    )


def _list_items(tree: Mapping[str, Any], key: str) -> list[Any]:
    items = tree.get(key)
    return items if isinstance(items, list) else []


def check_parts(parts: Parts, where: Where, files_root: Path | None) -> list[Problem]:
    """Return everything in which the job's keys do not agree, in the order of the rules.

    Args:
        parts: The job.
        where: Gives the place of a key path.
        files_root: Folder below which images are read; None when none are.
    """
    return [
        *_check_names(parts, where),
        *_check_job_name(parts, where),
        *_check_endpoints(parts, where),
        *_check_models(parts, where),
        *_check_samples(parts, where),
        *_check_prompts(parts, where, files_root),
        *_check_graders(parts, where),
        *check_judges(parts.tree, where),
    ]


def _check_names(parts: Parts, where: Where) -> Iterator[Problem]:
    for kind in ("models", "prompts"):
        yield from _check_unique(kind, [get_node(item, ("name",)) for item in _list_items(parts.tree, kind)], where)
    names = [get_node(parts.tree, (*path, "name")) for path, _ in parts.graders if path[0] == "graders"]
    yield from _check_unique("graders", names, where)


def _check_unique(kind: str, names: Iterable[object], where: Where) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        if not isinstance(name, str):
            continue
        path: KeyPath = (kind, index, "name")
        if len(name) > MAX_NAME_CHARS or not name.isprintable():
            message = f"`{name_path(path)}` holds a control character or more than {MAX_NAME_CHARS} characters"
            yield Problem(message=message, where=where(path))
        if name in first:
            message = f"the name {name!r} is used twice in {kind}; first at {where((kind, first[name], 'name'))}"
            yield Problem(message=message, where=where(path), hint="give each its own name")
        first.setdefault(name, index)


def _check_job_name(parts: Parts, where: Where) -> Iterator[Problem]:
    name = parts.tree.get("name")
    if isinstance(name, str) and name and not is_folder_name(name):
        message = f"`name` {name[:60]!r} cannot name a folder"
        yield Problem(message=message, where=where(("name",)), hint="use letters, digits, `-`, `_` and `.`")


def is_folder_name(name: str) -> bool:
    """Return whether a job's name may name a folder under reports/."""
    return name.isprintable() and not name.startswith(".") and not set(name) & set("/\\:") and len(name) <= 100


def _check_endpoints(parts: Parts, where: Where) -> Iterator[Problem]:
    # The tree is read, not the records, so that an endpoint with one wrong key is still checked in all others.
    for name in parts.endpoints:
        path: KeyPath = ("endpoints", name)
        if not name.isprintable() or len(name) > MAX_NAME_CHARS:
            yield Problem(message=f"the name {name[:60]!r} holds a control character or is long", where=where(path))
        endpoint = get_node(parts.tree, path)
        if not isinstance(endpoint, Mapping):
            continue
        yield from _check_address(endpoint, path, where)
        yield from _check_headers(endpoint, path, where)
        yield from _check_dialect(endpoint, path, where)
        yield from _check_quirks(endpoint, (*path, "simulator", "profiles"), where)
        answer = get_node(endpoint, ("simulator", "answer"))
        if isinstance(answer, str):
            yield from _try_template(answer, where((*path, "simulator", "answer")))


def _check_dialect(endpoint: Mapping[str, Any], path: KeyPath, where: Where) -> Iterator[Problem]:
    for source, target in _get_texts(endpoint, "rename_params").items():
        is_cancelling = source == target == "stream_options"  # What a profile does to it.
        if not is_cancelling and (target in RESERVED_PARAMS or source in RESERVED_PARAMS):
            message = f"`rename_params` may not rename `{source}` to `{target}`"
            yield Problem(message=message, where=where((*path, "rename_params", source)))
    drops = endpoint.get("drop_params")
    for index, name in enumerate(drops if isinstance(drops, list) else ()):
        if name in _NEVER_DROPPED:
            hint = "write `stream: false`, or leave `stream` out" if name == "stream" else "leave it out"
            here = where((*path, "drop_params", index))
            yield Problem(message=f"`drop_params` may not drop `{name}`", where=here, hint=hint)
    stream_options = endpoint.get("stream_options")
    if isinstance(stream_options, dict):
        yield from check_model_params({"stream_options": stream_options}, path, where)


def _check_quirks(endpoint: Mapping[str, Any], path: KeyPath, where: Where) -> Iterator[Problem]:
    profiles = get_node(endpoint, ("simulator", "profiles"))
    for name, profile in profiles.items() if isinstance(profiles, dict) else ():
        quirks = get_node(profile, ("quirks",))
        for quirk in quirks if isinstance(quirks, dict) else ():
            try:
                parse_quirk(str(quirk))
            except ValueError as error:
                message, here = str(error), (*path, name, "quirks", quirk)
                yield Problem(message=message, where=where(here), hint="`evalrun simulate --list-quirks` lists them")


def _get_texts(endpoint: Mapping[str, Any], key: str) -> dict[str, str]:
    """Return the entries of a mapping whose values are text; others are reported by validation."""
    entries = endpoint.get(key)
    items = entries.items() if isinstance(entries, Mapping) else ()
    return {name: value for name, value in items if isinstance(value, str)}


def _check_address(endpoint: Mapping[str, Any], path: KeyPath, where: Where) -> Iterator[Problem]:
    for keys in (("base_url",), ("simulator", "url")):
        url = get_node(endpoint, keys)
        if isinstance(url, str) and url:
            checked = check_base_url(url, allow_http=endpoint.get("allow_http") is True)
            if checked.problem is not None:
                message = f"`{keys[-1]}` {checked.problem}"
                yield Problem(message=message, where=where((*path, *keys)), hint=checked.hint)


def _check_headers(endpoint: Mapping[str, Any], path: KeyPath, where: Where) -> Iterator[Problem]:
    # Values are never repeated here: someone may have put the key itself where a name belongs.
    variable = endpoint.get("api_key_env")
    if isinstance(variable, str) and variable and not _VARIABLE.fullmatch(variable):
        message = "`api_key_env` holds the name of an environment variable, not the key"
        yield Problem(message=message, where=where((*path, "api_key_env")), hint="write for example OPENAI_API_KEY")
    for name, variable in _get_texts(endpoint, "header_env").items():
        if not _VARIABLE.fullmatch(variable):
            message = f"`header_env.{name}` holds the name of an environment variable, not the value"
            yield Problem(message=message, where=where((*path, "header_env", name)))
    for name, value in _get_texts(endpoint, "headers").items():
        here = (*path, "headers", name)
        if SECRET_HEADER.fullmatch(name):
            message = f"the header {name} is a secret and is never written out"
            yield Problem(message=message, where=where(here), hint=HINT)
        elif not value.isascii() or not value.isprintable():
            yield Problem(message=f"the value of header {name} holds a character it cannot carry", where=where(here))
    for key in ("headers", "header_env"):
        for name in _get_texts(endpoint, key):
            if not _HEADER.fullmatch(name) or name.lower() in _SET_BY_DISPATCH:
                yield Problem(message=f"{name[:60]!r} cannot be set as a header", where=where((*path, key, name)))


def _check_models(parts: Parts, where: Where) -> Iterator[Problem]:
    names = list(parts.endpoints)
    for index, item in enumerate(_list_items(parts.tree, "models")):
        path: KeyPath = ("models", index)
        endpoint = get_node(item, ("endpoint",))
        if isinstance(endpoint, str) and names and endpoint not in parts.endpoints:
            hint = suggest_or_list(endpoint, names, label="endpoints")
            yield Problem(message=f"there is no endpoint {endpoint!r}", where=where((*path, "endpoint")), hint=hint)
        elif isinstance(item, Mapping) and endpoint is None and len(names) > 1:
            hint = f"write `endpoint: {names[0]}`; endpoints: {', '.join(names)}"
            yield Problem(message=f"`{name_path(path)}` must say which endpoint it uses", where=where(path), hint=hint)
        params = get_node(item, ("params",))
        for key in sorted(RESERVED_PARAMS & set(params)) if isinstance(params, Mapping) else ():
            advice = "the model's id on the wire is `model:` beside `params`" if key == "model" else "leave it out"
            here = where((*path, "params", key))
            yield Problem(message=f"`params` may not set `{key}`", where=here, hint=advice)
        if isinstance(params, Mapping):
            yield from check_model_params(params, (*path, "params"), where)
    for index, model in enumerate(parts.models):
        if model is None:
            continue
        yield from check_series(list_own_prices(model, ("models", index)), where)
        name = model.endpoint if model.endpoint is not None else names[0] if len(names) == 1 else ""
        yield from _check_model(model, parts.endpoints.get(name), ("models", index), where)


def _check_model(
    model: ModelOptions, endpoint: EndpointOptions | None, path: KeyPath, where: Where
) -> Iterator[Problem]:
    if endpoint is None:
        return
    for source, target in endpoint.rename_params.items():
        if source != target and source in model.params and target in model.params:
            message = f"`{source}` and `{target}` are both set, but the endpoint renames the first to the second"
            yield Problem(message=message, where=where((*path, "params", source)), hint="keep one of them")
    if endpoint.simulator is not None and model.wire_model not in endpoint.simulator.profiles:
        here = (*path, "model" if model.model is not None else "name")
        hint = suggest_or_list(model.wire_model, endpoint.simulator.profiles, label="profiles")
        yield Problem(message=f"the simulator has no profile {model.wire_model!r}", where=where(here), hint=hint)


def _check_samples(parts: Parts, where: Where) -> Iterator[Problem]:
    if parts.tree.get("dataset") is None and not parts.tree.get("samples"):
        hint = "write `dataset: path/to/file.jsonl`, or `samples:` with rows of its own"
        yield Problem(message="the job has no samples: neither `dataset` nor `samples`", where=where(()), hint=hint)
    if parts.dataset is not None and parts.dataset.where is not None:
        yield from _try_expression(parts.dataset.where, where(("dataset", "where")))


def _check_prompts(parts: Parts, where: Where, files_root: Path | None) -> Iterator[Problem]:
    for index, prompt in enumerate(parts.prompts):
        if prompt is None or prompt.file is not None:
            continue  # Its file could not be read, which is reported already.
        try:
            CompiledPrompt(prompt, ("prompts", index), where, files_root)
        except PromptError as error:
            yield from error.problems


def _check_graders(parts: Parts, where: Where) -> Iterator[Problem]:
    for path, grader in parts.graders:
        if grader is None:
            continue
        for key in ("expected", "value", "values", "equals", "arguments", "rubric", "reference"):
            for inner, source in _find_texts(getattr(grader, key, None), (*path, key)):
                yield from _try_template(source, where(inner))
        if grader.when is not None:
            yield from _try_expression(grader.when, where((*path, "when")))
        yield from _check_literal_keys(grader, path, where)


def _check_literal_keys(grader: GraderOptions, path: KeyPath, where: Where) -> Iterator[Problem]:
    hints = {
        "pattern": 'capture a group and compare that: `group: 1` and `expected: "{{ answer }}"`',
        "matches": 'compare with `equals: "{{ answer }}"`',
        "path": "filter by `when`, or write one grader for each path",
        "tool": "write one grader for each tool, with `when` for the samples it is for",
    }
    for key, hint in hints.items():
        source = getattr(grader, key, None)
        if isinstance(source, str) and "{{" in source and "}}" in source:
            message = f"`{key}` is literal text, never a template"
            yield Problem(message=message, where=where((*path, key)), hint=hint)


def _find_texts(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Yield every text inside a value with its key path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _find_texts(inner, (*path, key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _find_texts(inner, (*path, index))


def _try_template(source: str, place: str) -> Iterator[Problem]:
    try:
        Template(source, where=place)
    except PromptError as error:
        yield from error.problems


def _try_expression(source: str, place: str) -> Iterator[Problem]:
    try:
        Expression(source, where=place)
    except PromptError as error:
        yield from error.problems
