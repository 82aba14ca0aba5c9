"""The knobs of the graders: one frozen record for each type a job may name.

Like `options`, these records are the schema: pydantic reads types, bounds and docstrings. Strings marked *template* are
Jinja templates over the sample when they stand in a job, and literal text when they stand in a dataset file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le, MinLen

PYDANTIC_CONFIG: Mapping[str, Any] = {
    "extra": "forbid",
    "alias_generator": lambda name: name.removesuffix("_"),
    "use_attribute_docstrings": True,
    "allow_inf_nan": False,
}
"""How pydantic reads every record of the job: unknown keys refused, `not_` written as `not`, docstrings kept."""

Text = Annotated[str, MinLen(1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonGraderOptions:
    """Keys that every grader takes."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = PYDANTIC_CONFIG

    name: Text | None = None
    """Name in tables; default: the type, numbered when it stands there more than once."""
    metric: Text | None = None
    """Named metric that this grader's scores are averaged into."""
    weight: Annotated[float, Ge(0)] = 1.0
    """Weight in the row's mean score."""
    not_: bool = False
    """Turn the verdict round: passed becomes failed, score becomes 1 − score."""
    hard: bool = False
    """A contract: a sample that breaks it counts against the gate's `max_hard_failures`."""
    threshold: Annotated[float, Ge(0), Le(1)] | None = None
    """Lowest score that passes; default: the grader's own verdict."""
    when: Text | None = None
    """Expression over the sample (`category == 'json'`); the grader applies where it is true. Default: everywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactOptions(CommonGraderOptions):
    """The output equals the expected text."""

    type: Literal["exact"]
    expected: str
    """Template. Text to equal."""
    ignore_case: bool = False
    """Compare without regard to case."""
    strip: bool = True
    """Drop white space at both ends of output and expected first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainsOptions(CommonGraderOptions):
    """The output contains the value."""

    type: Literal["contains"]
    value: Text
    """Template. Text to find."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IcontainsOptions(CommonGraderOptions):
    """The output contains the value, whatever the case."""

    type: Literal["icontains"]
    value: Text
    """Template. Text to find."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegexOptions(CommonGraderOptions):
    """The pattern is found in the output; with `expected`, what it captures equals that."""

    type: Literal["regex"]
    pattern: Text
    """Pattern of the `regex` package, searched for anywhere; literal text, never a template."""
    group: int | Text = 0
    """Group to compare with `expected`: a number or a name."""
    expected: str | None = None
    """Template. Text that the group must equal; default: any match passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumericOptions(CommonGraderOptions):
    """The last number of the output equals the expected number."""

    type: Literal["numeric"]
    expected: str | float | int
    """Template or number: the number to reach (1,234.5, −3, 1/2, $18, 1e3 and 12 % are read)."""
    tolerance: Annotated[float, Ge(0)] = 0.0
    """Largest absolute difference that still passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceOptions(CommonGraderOptions):
    """The output chooses the expected letter: "(B)", "Answer: B", "**B**"."""

    type: Literal["choice"]
    expected: str
    """Template. The right letter."""
    choices: Annotated[str, MinLen(2)] = "ABCDEFGHIJ"
    """Letters that count as a choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonOptions(CommonGraderOptions):
    """The output is one JSON value (a fenced block counts); with `expected`, it equals that."""

    type: Literal["json"]
    expected: Any = None
    """Template (rendered, then read as JSON) or a JSON value to equal; default: any JSON passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonSchemaOptions(CommonGraderOptions):
    """The output is JSON that satisfies a schema."""

    type: Literal["json-schema"]
    schema_: Mapping[str, Any] | bool | None = None
    """JSON Schema, written in the job."""
    file: Text | None = None
    """Or a file that holds it, relative to the job."""

    def __post_init__(self) -> None:
        """Refuse a grader with no schema or with two."""
        if (self.schema_ is None) == (self.file is None):
            msg = "give exactly one of `schema` and `file`"
            raise ValueError(msg)


GraderOptions = (
    ExactOptions
    | ContainsOptions
    | IcontainsOptions
    | RegexOptions
    | NumericOptions
    | ChoiceOptions
    | JsonOptions
    | JsonSchemaOptions
)
"""Any grader a job may name; `type` tells which."""

GRADER_OPTIONS: Mapping[str, type[GraderOptions]] = {
    "exact": ExactOptions,
    "contains": ContainsOptions,
    "icontains": IcontainsOptions,
    "regex": RegexOptions,
    "numeric": NumericOptions,
    "choice": ChoiceOptions,
    "json": JsonOptions,
    "json-schema": JsonSchemaOptions,
}
"""Options record of each grader type."""
