"""What stands where in a file of answers made elsewhere: one of its rows enters, the answers in it leave.

A row holds one answer (long form) or one for each model (wide form). Whatever cannot be read as what it is said to be
raises with the column; whether the file is to be refused for it is the caller's to decide. Nothing is guessed: a count
or a cost that a row does not have is unknown.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple

from evalrun.dispatch.usage import parse_usage
from evalrun.errors import DatasetError
from evalrun.job.canonical import encode_json
from evalrun.job.document import suggest_or_list
from evalrun.job.readers import parse_cell
from evalrun.job.sample_ids import read_id
from evalrun.job.scalars import name_value
from evalrun.records import NO_USAGE, Usage

MAX_NAME_CHARS = 200
"""Longest name of a model or prompt, as in a job."""

NAME_MARK = "{name}"
"""Stands in a path of the wide form for the name of each output."""

_STEP = re.compile(r"([^.\[\]]+)|\[(\d{1,9})\]")
_MAX_SHOWN = 20


class _Missing:
    """Of a path that leads to nothing, which is not the same as to null."""


MISSING: Final = _Missing()


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerColumns:
    """Where a row holds what; a column is named as it is, or by a path into it: `usage.total`, `choices[0].text`."""

    outputs: Mapping[str | None, str]
    """By model: where its output stands. With the only key None the row's `model` says whose it is."""
    id: str | None = None
    """None = the column `id`, else a digest of the row; wide form only."""
    model: str | None = None
    model_name: str | None = None
    """Name of the model of every row; None where `model` or the outputs tell."""
    prompt: str | None = None
    prompt_name: str = "imported"
    """Name of the prompt of every row, where no column tells."""
    repeat: str | None = None
    category: str | None = None
    input: str | None = None
    """What was asked: text, or a list of messages."""
    usage: str | None = None
    """A usage object as a server sends it."""
    prompt_tokens: str | None = None
    completion_tokens: str | None = None
    cost: str | None = None
    """USD."""
    latency: str | None = None
    """Seconds."""
    finish_reason: str | None = None
    added: Mapping[str, str] = field(default_factory=dict)
    """Further columns of the sample, by their name: where each stands."""
    ignored: tuple[str, ...] = ()
    """Columns that are no part of the sample."""

    @property
    def is_wide(self) -> bool:
        """Whether one row holds the answers of several models."""
        return None not in self.outputs

    def list_paths(self) -> dict[str, str]:
        """Return what was named, by the option that named it."""
        named = {
            "--id": self.id, "--model": self.model, "--prompt": self.prompt, "--repeat": self.repeat,
            "--category": self.category, "--input": self.input, "--usage": self.usage,
            "--prompt-tokens": self.prompt_tokens, "--completion-tokens": self.completion_tokens, "--cost": self.cost,
            "--latency": self.latency, "--finish-reason": self.finish_reason,
        }  # fmt: skip
        outputs = {"--output" if name is None else f"--output {name}": path for name, path in self.outputs.items()}
        columns = {f"--column {name}": path for name, path in self.added.items()}
        return {key: path for key, path in (named | outputs | columns).items() if path is not None}


class Answer(NamedTuple):
    """One answer of a row."""

    model: str
    prompt: str
    repeat: int
    """As the file numbers it; 0 where no column tells."""
    output: str | None
    """None where the row holds null, or nothing at all."""
    finish_reason: str | None
    usage: Usage
    """With the cost that the row names, if it names one."""
    latency_s: float | None
    input: Any


class AnswerReader:
    """Reads the answers of rows.

    Args:
        columns: Where they stand.
    """

    def __init__(self, columns: AnswerColumns) -> None:
        self._columns = columns
        self._taken = frozenset(_find_taken(columns))
        self._unseen = {key: path for key, path in columns.list_paths().items() if NAME_MARK not in path}

    def list_unseen(self) -> dict[str, str]:
        """Return the paths that led to something in no row read so far, by the option that named each."""
        return dict(self._unseen)

    def read_id(self, row: Mapping[str, Any]) -> str | None:
        """Return the id of a row; None when it has none and needs none.

        Raises:
            DatasetError: It has none and needs one, or it cannot be an id.
        """
        path = self._columns.id
        if path is None:
            if "id" not in row:
                return None
            path = "id"
        value = self._need(row, path, "--id")
        try:
            return read_id(value)
        except ValueError as error:
            raise DatasetError(f"column `{path}`: {error}") from error

    def read_category(self, row: Mapping[str, Any]) -> str | None:
        """Return the category of a row as text; None when it has none."""
        path = self._columns.category
        value = row.get("category") if path is None else self._find(row, path, "--category")
        return _as_text(value)

    def make_sample(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return what of a row is the sample: all but the columns that hold answers, or tell of them.

        Raises:
            DatasetError: A column that was named stands in no such row.
        """
        sample = {key: value for key, value in row.items() if key not in self._taken}
        for name, path in self._columns.added.items():
            sample[name] = self._need(row, path, f"--column {name}")
        return sample

    def scan_answers(self, row: Mapping[str, Any]) -> Iterator[Answer]:
        """Yield the answers of a row.

        Raises:
            DatasetError: A value cannot be read as what its column is said to hold.
        """
        columns = self._columns
        prompt = columns.prompt_name if columns.prompt is None else self._read_name(row, columns.prompt, "--prompt")
        repeat = 0 if columns.repeat is None else self._read_repeat(row, columns.repeat)
        for name, path in columns.outputs.items():
            model = self._read_model(row) if name is None else name
            option = "--output" if name is None else f"--output {name}"
            yield Answer(
                model=model,
                prompt=prompt,
                repeat=repeat,
                output=_as_text(self._find(row, path, option)),
                finish_reason=_as_text(self._pick(row, columns.finish_reason, "--finish-reason", model)),
                usage=self._read_usage(row, model),
                latency_s=_read_amount(self._pick(row, columns.latency, "--latency", model), "--latency"),
                input=self._pick(row, columns.input, "--input", model),
            )

    def _read_model(self, row: Mapping[str, Any]) -> str:
        columns = self._columns
        if columns.model is None:
            return str(columns.model_name)
        return self._read_name(row, columns.model, "--model")

    def _read_name(self, row: Mapping[str, Any], path: str, option: str) -> str:
        value = self._need(row, path, option)
        if not isinstance(value, str) or not value.strip():
            raise DatasetError(f"column `{path}` must name a {option.strip('-')}, got {name_value(value)}")
        if len(value) > MAX_NAME_CHARS or not value.isprintable():
            message = f"column `{path}` holds a name with a control character or more than {MAX_NAME_CHARS} characters"
            raise DatasetError(message)
        return value

    def _read_repeat(self, row: Mapping[str, Any], path: str) -> int:
        value = _read_whole(self._need(row, path, "--repeat"))
        if value is None:
            raise DatasetError(f"column `{path}` must hold a whole number, got {name_value(row.get(path))}")
        return value

    def _read_usage(self, row: Mapping[str, Any], model: str) -> Usage:
        columns = self._columns
        usage = NO_USAGE
        if columns.usage is not None:
            usage = parse_usage(_parse_object(self._pick(row, columns.usage, "--usage", model), columns.usage))
        elif columns.prompt_tokens is not None or columns.completion_tokens is not None:
            counts = {
                "prompt_tokens": self._read_count(row, columns.prompt_tokens, "--prompt-tokens", model),
                "completion_tokens": self._read_count(row, columns.completion_tokens, "--completion-tokens", model),
            }
            # What no server sent is not kept as what a server sent.
            usage = replace(parse_usage(counts), raw=None)
        cost_usd = _read_decimal(self._pick(row, columns.cost, "--cost", model))
        return usage if cost_usd is None else replace(usage, reported_cost_usd=cost_usd)

    def _read_count(self, row: Mapping[str, Any], path: str | None, option: str, model: str) -> int | None:
        value = self._pick(row, path, option, model)
        if value is None or value == "":
            return None
        count = _read_whole(value)
        if count is None:
            raise DatasetError(f"{option} must be a whole number of tokens, 0 or more, got {name_value(value)}")
        return count

    def _pick(self, row: Mapping[str, Any], path: str | None, option: str, model: str) -> Any:
        """Return what an optional path leads to; None when nothing."""
        return None if path is None else self._find(row, path.replace(NAME_MARK, model), option)

    def _find(self, row: Mapping[str, Any], path: str, option: str) -> Any:
        value = find_value(row, path)
        if value is MISSING:
            return None
        self._unseen.pop(option, None)
        return value

    def _need(self, row: Mapping[str, Any], path: str, option: str) -> Any:
        value = find_value(row, path)
        if value is MISSING:
            hint = suggest_or_list(path, list(row)[:_MAX_SHOWN], label="it has")
            raise DatasetError(f"the row has no `{path}`, named as its {option}", hint=hint)
        self._unseen.pop(option, None)
        return value


def find_value(row: Mapping[str, Any], path: str) -> Any:
    """Return what a path leads to in a row; `MISSING` when it leads to nothing.

    A column of just that name comes first; else names are parted by dots, and `[0]` is an item of a list. A column of
    a CSV or Parquet file that holds JSON as text is entered as well.

    Example:
        >>> find_value({"choices": [{"text": "18"}]}, "choices[0].text")
        '18'
    """
    if path in row:
        return row[path]
    value: Any = row
    for name, index in _STEP.findall(path):
        if isinstance(value, str):
            value = _parse_text(value)
        if name and isinstance(value, Mapping) and name in value:
            value = value[name]
        elif index and isinstance(value, list) and int(index) < len(value):
            value = value[int(index)]
        else:
            return MISSING
    return MISSING if value is row else value


def is_path(text: str) -> bool:
    """Tell whether a text can be a path: steps and dots, with nothing between them that is neither."""
    return bool(text) and bool(re.fullmatch(r"[^.\[\]]+(\.[^.\[\]]+|\[\d{1,9}\])*", text))


def _find_taken(columns: AnswerColumns) -> Iterator[str]:
    """Yield the columns that hold an answer, or tell of one, and so are no part of the sample."""
    yield from columns.ignored
    kept = {"--id", "--category", *(f"--column {name}" for name in columns.added)}
    for option, path in columns.list_paths().items():
        names = [str(name) for name in columns.outputs] if NAME_MARK in path else [""]
        for name in names if option not in kept else ():
            filled = path.replace(NAME_MARK, name)
            yield filled
            yield _STEP.findall(filled)[0][0]
    if columns.id in {"sample_id", "repeat", "vars"}:  # Templates see something else under these names.
        yield columns.id


def _as_text(value: Any) -> str | None:
    """Return a value as text: what is none is written as JSON writes it."""
    return value if value is None or isinstance(value, str) else encode_json(value).decode()


def _parse_text(text: str) -> Any:
    try:
        return parse_cell(text)
    except ValueError:
        return None


def _parse_object(value: Any, path: str) -> Any:
    """Return a usage object, which a CSV file can hold only as JSON text; an empty cell is none."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return parse_cell(value)
    except ValueError as error:
        raise DatasetError(f"column `{path}` is not valid JSON: {error}") from error


def _read_whole(value: Any) -> int | None:
    """Return a whole number that is 0 or more, from a number or its digits; None when it is none."""
    if isinstance(value, str) and re.fullmatch(r" *[0-9]{1,18}(\.0+)? *", value):
        return int(float(value)) if "." in value else int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value < 10**18 else None


def _read_decimal(value: Any) -> Decimal | None:
    """Return an amount of USD; None when there is none."""
    if value is None or value == "":
        return None
    try:
        amount = None if isinstance(value, bool | list | dict) else Decimal(str(value).strip())
    except InvalidOperation:
        amount = None
    if amount is None or not amount.is_finite() or not 0 <= amount <= 10**12:
        raise DatasetError(f"--cost must be an amount of USD, 0 or more, got {name_value(value)}")
    return amount


def _read_amount(value: Any, option: str) -> float | None:
    """Return a number that is 0 or more; None when there is none."""
    if value is None or value == "":
        return None
    try:
        number = math.nan if isinstance(value, bool | list | dict) else float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise DatasetError(f"{option} must be a number of seconds, 0 or more, got {name_value(value)}")
    return number
