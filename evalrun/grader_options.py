"""The knobs of the graders: one frozen record for each type a job may name.

Like `options`, these records are the schema: pydantic reads types, bounds and docstrings. Strings marked *template* are
Jinja templates over the sample when they stand in a job, and literal text when they stand in a dataset file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le, MinLen

PYDANTIC_CONFIG: Mapping[str, Any] = {
    "extra": "forbid",
    "alias_generator": lambda name: name.removesuffix("_"),
    "allow_inf_nan": False,
}
"""How pydantic reads every record of the job: unknown keys refused, `not_` written as `not`.

Docstrings of fields are read by `job.schema` alone: pydantic would parse this file for each record, at every start.
"""

Text = Annotated[str, MinLen(1)]
Values = Annotated[tuple[Text, ...], MinLen(1)] | Text


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformOptions:
    """One step of a `transform`: the part of the output that a grader is given instead of the whole."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = PYDANTIC_CONFIG

    after: Text | None = None
    """What follows the last place where this text stands, e.g. `"####"`; literal text."""
    regex: Text | None = None
    """The first match of this pattern."""
    group: int | Text | None = None
    """Beside `regex`: the group to take, a number or a name; default: the whole match."""
    json_path: Text | None = None
    """The value at this path of an output that is JSON; text as it is, anything else written as JSON."""

    def __post_init__(self) -> None:
        """Refuse a step that picks nothing, or in two ways."""
        if [self.after, self.regex, self.json_path].count(None) != 2:
            msg = "give exactly one of `after`, `regex` and `json_path`"
            raise ValueError(msg)
        if self.group is not None and self.regex is None:
            msg = "`group` stands beside `regex` only"
            raise ValueError(msg)


TransformStep = Literal["strip_think", "strip_fences"] | TransformOptions


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
    transform: TransformStep | tuple[TransformStep, ...] | None = None
    """What to take of the output first, one step or a list: `strip_think` (drop the thinking), `strip_fences` (the text
    of the last fenced block), `{after: …}`, `{regex: …}`, `{json_path: …}`. Where a step finds nothing the check fails.
    """


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
class ContainsAllOptions(CommonGraderOptions):
    """The output contains every one of the values."""

    type: Literal["contains-all"]
    values: Values
    """Templates. Texts to find; one template alone renders to a JSON list of them: `"{{ keywords }}"`."""
    ignore_case: bool = False
    """Compare without regard to case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainsAnyOptions(CommonGraderOptions):
    """The output contains at least one of the values."""

    type: Literal["contains-any"]
    values: Values
    """Templates. Texts to find; one template alone renders to a JSON list of them: `"{{ keywords }}"`."""
    ignore_case: bool = False
    """Compare without regard to case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartsWithOptions(CommonGraderOptions):
    """The output begins with the value."""

    type: Literal["starts-with"]
    value: Text
    """Template. Text to begin with."""
    ignore_case: bool = False
    """Compare without regard to case."""
    strip: bool = True
    """Drop white space before the output and the value first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndsWithOptions(CommonGraderOptions):
    """The output ends with the value."""

    type: Literal["ends-with"]
    value: Text
    """Template. Text to end with."""
    ignore_case: bool = False
    """Compare without regard to case."""
    strip: bool = True
    """Drop white space after the output and the value first."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonPathOptions(CommonGraderOptions):
    """The output is JSON and a path (RFC 9535) finds something in it; with `equals` or `matches`, what fits."""

    type: Literal["json-path"]
    path: Text
    """JSONPath such as `$.items[0].name`; literal text, never a template."""
    equals: Any = None
    """Template or JSON value: passes when a value at the path equals it. Text equals the same text, or the JSON it
    writes: `"5"` equals 5. Default: anything at the path passes, null too."""
    matches: Text | None = None
    """Pattern of the `regex` package: passes when it is found in a value at the path; literal text."""

    def __post_init__(self) -> None:
        """Refuse a grader that compares in two ways."""
        if self.equals is not None and self.matches is not None:
            msg = "give `equals` or `matches`, not both"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class F1Options(CommonGraderOptions):
    """Words shared with the expected text: F1 as SQuAD counts it, without case, punctuation and articles."""

    type: Literal["f1"]
    expected: Text
    """Template. The reference."""
    threshold: Annotated[float, Ge(0), Le(1)]
    """Lowest F1 that passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RougeLOptions(CommonGraderOptions):
    """Longest common run of words in order: the F-measure of ROUGE-L, as the package rouge-score counts it."""

    type: Literal["rouge-l"]
    expected: Text
    """Template. The reference. Words are runs of a–z and digits: other scripts have none."""
    threshold: Annotated[float, Ge(0), Le(1)]
    """Lowest F-measure that passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LevenshteinOptions(CommonGraderOptions):
    """At most so many characters inserted, deleted or replaced away from the expected text."""

    type: Literal["levenshtein"]
    expected: Text
    """Template. Text to come near to."""
    max_distance: Annotated[int, Ge(0)]
    """Most edits that still pass."""
    ignore_case: bool = False
    """Compare without regard to case."""
    strip: bool = True
    """Drop white space at both ends of output and expected first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WordCountOptions(CommonGraderOptions):
    """The output has a number of words within bounds; words are what white space parts."""

    type: Literal["word-count"]
    min: Annotated[int, Ge(0)] | None = None
    """Fewest words."""
    max: Annotated[int, Ge(0)] | None = None
    """Most words."""

    def __post_init__(self) -> None:
        """Refuse a grader without bounds, or that nothing can pass."""
        if self.min is None and self.max is None:
            msg = "give `min`, `max` or both"
            raise ValueError(msg)
        if self.min is not None and self.max is not None and self.min > self.max:
            msg = f"`min` {self.min} is above `max` {self.max}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthOptions(CommonGraderOptions):
    """The output has at most so many characters, white space counted."""

    type: Literal["length"]
    max_chars: Annotated[int, Ge(0)]
    """Most characters (Unicode code points)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishReasonOptions(CommonGraderOptions):
    """The reply ended for this reason, e.g. `stop`, `length` or `tool_calls`."""

    type: Literal["finish-reason"]
    value: Text
    """Template. The reason to find."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyOptions(CommonGraderOptions):
    """The attempt that answered took at most so long; undecided where that is not known, as of reused rows."""

    type: Literal["latency"]
    max_s: Annotated[float, Ge(0)]
    """Most seconds, from the request to the last byte of the reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostOptions(CommonGraderOptions):
    """The answer cost at most so much; undecided where no cost is known."""

    type: Literal["cost"]
    max_usd: Annotated[float, Ge(0)]
    """Most US dollars for one answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensOptions(CommonGraderOptions):
    """The answer took at most so many completion tokens, reasoning included; undecided where no count is known."""

    type: Literal["tokens"]
    max_completion: Annotated[int, Ge(0)]
    """Most completion tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalOptions(CommonGraderOptions):
    """The model refused: in the reply's own field, or with words such as "I'm sorry, but I can't help with that"."""

    type: Literal["refusal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallOptions(CommonGraderOptions):
    """The reply calls a tool; with `arguments`, one call of it has at least these."""

    type: Literal["tool-call"]
    tool: Text
    """Name of the tool; literal text."""
    arguments: Mapping[str, Any] | None = None
    """Templates inside JSON: arguments that the call must have. Objects may hold more, lists and values are equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonOptions(CommonGraderOptions):
    """A function of yours decides: `grade(output, sample)` returns a bool, a score from 0 to 1, or a dict of these."""

    type: Literal["python"]
    file: Text
    """File that defines it, relative to the job."""
    function: Text = "grade"
    """Its name."""


Score = Annotated[float, Ge(0), Le(1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeOptions(CommonGraderOptions):
    """A model reads the output and judges it by a rubric (docs/judge.md); each vote is a request of its own."""

    type: Literal["judge"]
    model: Text
    """Name of a model of the job; with `role: judge` it is asked nothing else."""
    rubric: Text
    """Template. What to judge by; the output itself is shown to the judge as data, never through a template."""
    reference: Text | None = None
    """Template. A reference answer to hold the output against; default: none."""
    choices: Annotated[Mapping[Text, Score], MinLen(2)] | None = None
    """Labels to choose from and their scores, e.g. {good: 1, fair: 0.5, bad: 0}; default: a score of 0, 0.25, 0.5, 0.75
    or 1."""
    votes: Annotated[int, Ge(1), Le(99)] = 1
    """How often the judge is asked about each output: the score is the mean, the majority decides; best an odd
    number."""
    structured: Literal["auto", True, False] = "auto"
    """Whether the reply is held to a JSON Schema (`response_format`); auto: wherever the endpoint takes it."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the judge's requests, put over the model's own."""


GraderOptions = (
    ExactOptions
    | ContainsOptions
    | IcontainsOptions
    | ContainsAllOptions
    | ContainsAnyOptions
    | StartsWithOptions
    | EndsWithOptions
    | RegexOptions
    | NumericOptions
    | ChoiceOptions
    | JsonOptions
    | JsonSchemaOptions
    | JsonPathOptions
    | F1Options
    | RougeLOptions
    | LevenshteinOptions
    | WordCountOptions
    | LengthOptions
    | FinishReasonOptions
    | LatencyOptions
    | CostOptions
    | TokensOptions
    | RefusalOptions
    | ToolCallOptions
    | PythonOptions
    | JudgeOptions
)
"""Any grader a job may name; `type` tells which."""

GRADER_OPTIONS: Mapping[str, type[GraderOptions]] = {
    "exact": ExactOptions,
    "contains": ContainsOptions,
    "icontains": IcontainsOptions,
    "contains-all": ContainsAllOptions,
    "contains-any": ContainsAnyOptions,
    "starts-with": StartsWithOptions,
    "ends-with": EndsWithOptions,
    "regex": RegexOptions,
    "numeric": NumericOptions,
    "choice": ChoiceOptions,
    "json": JsonOptions,
    "json-schema": JsonSchemaOptions,
    "json-path": JsonPathOptions,
    "f1": F1Options,
    "rouge-l": RougeLOptions,
    "levenshtein": LevenshteinOptions,
    "word-count": WordCountOptions,
    "length": LengthOptions,
    "finish-reason": FinishReasonOptions,
    "latency": LatencyOptions,
    "cost": CostOptions,
    "tokens": TokensOptions,
    "refusal": RefusalOptions,
    "tool-call": ToolCallOptions,
    "python": PythonOptions,
    "judge": JudgeOptions,
}
"""Options record of each grader type."""
