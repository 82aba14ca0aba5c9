"""Files that a job names and that are loaded in place: prompts and JSON schemas."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from evalrun.errors import ConfigError, Problem
from evalrun.grader_options import GraderOptions, JsonSchemaOptions
from evalrun.job.document import load_document, suggest_or_list
from evalrun.job.places import KeyPath, Places
from evalrun.job.scalars import name_value
from evalrun.options import PromptOptions

_PROMPT_KEYS = ("messages", "system", "user")


def load_prompt(prompt: PromptOptions, path: KeyPath, folder: Path, places: Places) -> PromptOptions:
    """Return the prompt with what its file holds; one without a file comes back as it is.

    Args:
        prompt: The prompt as the job has it.
        path: Its key path in the job.
        folder: The job's folder.
        places: Is told where the file's keys stand.

    Raises:
        ConfigError: The file is not there, or does not hold a prompt.
    """
    if prompt.file is None:
        return prompt
    where = places.find((*path, "file"))
    document = load_document(folder / prompt.file, where=where)
    data, file = document.data, document.places.file
    problems = list(document.problems)
    if isinstance(data, list):
        data = {"messages": data}
        places.graft((*path, "messages"), document.places)
    else:
        places.graft(path, document.places)
        places.mark((*path, "file"), where)
    if not isinstance(data, dict):
        message = f"a prompt file holds `messages`, or `user` (and `system`), got {name_value(data)}"
        raise ConfigError([*problems, Problem(message=message, where=f"{file}:1")])
    for key in data:
        if key not in _PROMPT_KEYS:
            hint = suggest_or_list(key, _PROMPT_KEYS)
            problems.append(Problem(message=f"unknown key `{key}`", where=document.places.find((key,)), hint=hint))
    problems += _check_prompt_types(data, document.places)
    if problems:
        raise ConfigError(problems)
    messages = data.get("messages")
    try:
        return replace(
            prompt,
            file=None,
            messages=tuple(messages) if messages is not None else None,
            user=data.get("user"),
            system=data.get("system"),
        )
    except ValueError as error:
        message = str(error).replace("`file` and `messages_column`", "nothing else")
        raise ConfigError(message, where=f"{file}:1") from error


def _check_prompt_types(data: Mapping[str, Any], places: Places) -> list[Problem]:
    problems = []
    for key in ("system", "user"):
        if not isinstance(data.get(key), str | None):
            message = f"`{key}` must be text, got {name_value(data[key])}"
            problems.append(Problem(message=message, where=places.find((key,))))
    messages = data.get("messages")
    if messages is None:
        return problems
    if not isinstance(messages, list) or not messages:
        problems.append(Problem(message="`messages` must be a list of messages", where=places.find(("messages",))))
        return problems
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            text = f"a message must be a mapping, got {name_value(message)}"
            problems.append(Problem(message=text, where=places.find(("messages", index))))
    return problems


def load_schema_grader(grader: GraderOptions, path: KeyPath, folder: Path, places: Places) -> GraderOptions:
    """Return the grader with its schema file loaded in place; any other grader comes back as it is.

    Raises:
        ConfigError: The file is not there, or holds no JSON Schema.
    """
    if not isinstance(grader, JsonSchemaOptions) or grader.file is None:
        return grader
    schema = load_schema(grader.file, folder, places.find((*path, "file")))
    return replace(grader, file=None, schema_=schema)


def load_schema(name: str, folder: Path, where: str) -> Mapping[str, Any] | bool:
    """Read a JSON Schema file that the job names.

    Raises:
        ConfigError: The file is not there, or holds neither a mapping nor a boolean.
    """
    document = load_document(folder / name, where=where)
    if document.problems:
        raise ConfigError(document.problems)
    data = document.data
    if not isinstance(data, dict | bool):
        message = f"a JSON Schema is a mapping, got {name_value(data)}"
        raise ConfigError(message, where=f"{document.places.file}:1")
    return data
