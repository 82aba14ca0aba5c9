"""What a job's judges must agree on with its models: a judge names a model that is there, and somebody is asked.

The job's tree enters, even of one that is not valid as a whole; problems leave, and what is no error but should be
known.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from evalrun.errors import Problem
from evalrun.job.document import suggest_or_list
from evalrun.job.param_checks import check_model_params
from evalrun.job.places import KeyPath, get_node, name_path

Where = Callable[[KeyPath], str]

RESERVED_PARAMS = frozenset({"model", "messages", "stream", "stream_options"})
"""Keys of the request body that params never set."""

_JUDGE_RESERVED: Mapping[str, str] = {
    **dict.fromkeys(RESERVED_PARAMS, "leave it out"),
    "model": "name a model of the job with `model:` beside `params`",
    "response_format": "`structured` says whether the reply is held to a schema",
    "n": "`votes` says how often the judge is asked",
}


def check_judges(tree: Mapping[str, Any], where: Where) -> Iterator[Problem]:
    """Yield what is wrong with judges and the models that they name.

    Args:
        tree: The job.
        where: Gives the place of a key path.
    """
    models = tree.get("models")
    items = [item for item in models if isinstance(item, Mapping)] if isinstance(models, list) else []
    names = [item["name"] for item in items if isinstance(item.get("name"), str)]
    for path, grader in _scan_judges(tree):
        yield from _check_judge(grader, path, where, names)
    if items and all(item.get("role") == "judge" for item in items):
        hint = "name a model without `role`, which is asked the samples"
        yield Problem(message="every model of the job is a judge: nobody is asked", where=where(("models",)), hint=hint)


def warn_judges(tree: Mapping[str, Any], where: Where) -> Iterator[Problem]:
    """Yield the judges that no grader asks."""
    named = {grader.get("model") for _, grader in _scan_judges(tree)}
    for index, item in enumerate(tree.get("models", ())):
        if item.get("role") == "judge" and item["name"] not in named:
            hint = f"write a grader {{type: judge, model: {item['name']}, rubric: …}}, or leave the model out"
            here = where(("models", index, "name"))
            yield Problem(message=f"no grader asks the judge {item['name']!r}", where=here, hint=hint)


def _check_judge(grader: Mapping[str, Any], path: KeyPath, where: Where, names: list[str]) -> Iterator[Problem]:
    model = grader.get("model")
    if isinstance(model, str) and model and names and model not in names:
        hint = suggest_or_list(model, names, label="models")
        yield Problem(message=f"there is no model {model!r}", where=where((*path, "model")), hint=hint)
    choices = grader.get("choices")
    if isinstance(choices, Mapping):
        yield from _check_choices(choices, (*path, "choices"), where)
    params = grader.get("params")
    if isinstance(params, Mapping):
        for key in sorted(set(_JUDGE_RESERVED) & set(params)):
            here = where((*path, "params", key))
            yield Problem(message=f"`params` of a judge may not set `{key}`", where=here, hint=_JUDGE_RESERVED[key])
        yield from check_model_params(params, (*path, "params"), where)


def _check_choices(choices: Mapping[Any, Any], path: KeyPath, where: Where) -> Iterator[Problem]:
    if len(choices) == 1:
        hint = "name two labels or more, e.g. {good: 1, bad: 0}"
        yield Problem(message=f"`{name_path(path)}` leaves nothing to choose", where=where(path), hint=hint)
    elif len(choices) > 1 and len(set(map(str, choices.values()))) == 1:
        message = f"`{name_path(path)}` gives every label the same score, so that no choice tells anything"
        yield Problem(message=message, where=where(path))
    for label in choices:
        if not str(label).isprintable() or len(str(label)) > 100:
            message = f"the label {str(label)[:60]!r} holds a control character or more than 100 characters"
            yield Problem(message=message, where=where(path))


def _scan_judges(tree: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Mapping[str, Any]]]:
    """Yield every judge of the job, in its lists and in samples written inline, with its key path."""
    bases: list[KeyPath] = [("defaults", "graders"), ("graders",)]
    samples = tree.get("samples")
    bases += [("samples", number, "graders") for number in range(len(samples) if isinstance(samples, list) else 0)]
    for base in bases:
        graders = get_node(tree, base)
        for index, grader in enumerate(graders if isinstance(graders, list) else []):
            if isinstance(grader, Mapping) and grader.get("type") == "judge":
                yield (*base, index), grader
