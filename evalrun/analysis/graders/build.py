"""From a grader's options to a grader that runs: templates compiled once, faults of the author found at once.

Options enter (from the job, or as a plain mapping from a dataset row), a `Grader` leaves. What cannot work raises
`AuthorError` here, before anything is sent; a `Grader` that was built can only fail on a single output.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from evalrun.analysis.graders.choice import find_expected_fault as find_choice_fault
from evalrun.analysis.graders.choice import grade_choice
from evalrun.analysis.graders.edit_distance import grade_levenshtein
from evalrun.analysis.graders.json_value import grade_json
from evalrun.analysis.graders.judge_grader import PROMPT_VERSION
from evalrun.analysis.graders.marks import Mark, make_mark, quote_excerpt
from evalrun.analysis.graders.numeric import find_expected_fault as find_numeric_fault
from evalrun.analysis.graders.numeric import grade_numeric
from evalrun.analysis.graders.overlap import grade_f1, grade_rouge_l, split_rouge_words
from evalrun.analysis.graders.pattern import grade_regex
from evalrun.analysis.graders.prepare import Render, Where, find_expected_key, prepare_expected
from evalrun.analysis.graders.python_place import PythonPlace
from evalrun.analysis.graders.row_facts import (
    grade_cost,
    grade_finish_reason,
    grade_latency,
    grade_refusal,
    grade_tokens,
    grade_tool_call,
)
from evalrun.analysis.graders.sizes import grade_length, grade_word_count
from evalrun.analysis.graders.text import (
    grade_contains,
    grade_contains_all,
    grade_contains_any,
    grade_ends_with,
    grade_exact,
    grade_starts_with,
)
from evalrun.analysis.graders.transform import NothingFoundError, Pick, build_transform
from evalrun.errors import ConfigError, GraderFaultError
from evalrun.grader_options import (
    ChoiceOptions,
    EndsWithOptions,
    GraderOptions,
    JsonPathOptions,
    JsonSchemaOptions,
    JudgeOptions,
    NumericOptions,
    PythonOptions,
    RougeLOptions,
    StartsWithOptions,
)
from evalrun.templates import Expression

GRADERS_VERSION = "1"
"""Version of what the checks mean; part of every grader digest, so that two meanings never mix in silence."""

_VERSIONS: Mapping[str, str] = {"choice": "2"}
"""Types whose meaning changed since: 2, "A or B" settles on nothing."""

TEMPLATE_MARKS = ("{{", "{%", "{#")

_LATER_KEYS = frozenset({"transform"})
"""Keys that came after the first release: left out of a digest where they say nothing, so that old runs still pair."""


def _grade_json_schema(output: str, validator: Any, options: JsonSchemaOptions) -> Mark:
    # A late import, against the house's rule: jsonschema takes 0.08 s to load, and few jobs have a schema to grade by.
    from evalrun.analysis.graders.json_schema import grade_json_schema

    return grade_json_schema(output, validator, options)


def _grade_json_path(output: str, expected: Any, options: JsonPathOptions) -> Mark:
    # Late for the same reason: 0.06 s.
    from evalrun.analysis.graders.json_path import grade_json_path

    return grade_json_path(output, expected, options)


def _grade_python(output: str, call: Any, options: PythonOptions) -> Mark:
    from evalrun.analysis.graders.python_grader import grade_python

    return grade_python(output, call, options)


def _grade_unasked(output: str, task: Any, options: JudgeOptions) -> Mark:  # noqa: ARG001 - as every check is called
    # Grading goes by the votes of judges; without any there is nothing that could decide.
    raise GraderFaultError("judge_failed", "the judge was not asked about this answer")


_CHECKS: Mapping[str, Callable[[str, Any, Any], Mark]] = {
    "exact": grade_exact,
    "contains": grade_contains,
    "icontains": grade_contains,
    "contains-all": grade_contains_all,
    "contains-any": grade_contains_any,
    "starts-with": grade_starts_with,
    "ends-with": grade_ends_with,
    "regex": grade_regex,
    "numeric": grade_numeric,
    "choice": grade_choice,
    "json": grade_json,
    "json-schema": _grade_json_schema,
    "json-path": _grade_json_path,
    "f1": grade_f1,
    "rouge-l": grade_rouge_l,
    "levenshtein": grade_levenshtein,
    "word-count": grade_word_count,
    "length": grade_length,
    "python": _grade_python,
    "judge": _grade_unasked,
}
"""Checks of a text."""

_ROW_CHECKS: Mapping[str, Callable[[Mapping[str, Any], Any, Any], Mark]] = {
    "finish-reason": grade_finish_reason,
    "latency": grade_latency,
    "cost": grade_cost,
    "tokens": grade_tokens,
    "refusal": grade_refusal,
    "tool-call": grade_tool_call,
}
"""Checks of what else the row holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grader:
    """A check that is ready to run."""

    options: GraderOptions
    digest: str
    """16 hex digits over the options and the version of the checks."""
    where: str
    """Its place, for messages."""
    when: Expression | None
    check: Callable[[Any, Any, Any], Mark]
    """From a text or row, what it is compared with, and the options, to a mark."""
    reads_row: bool
    """Whether `check` takes the row instead of the output."""
    transform: tuple[Pick, ...]
    """Steps that pick the part of the output which `check` is given."""
    expected_key: str | None
    """The key that holds what the check compares with; None where it compares with nothing of the sample."""
    render: Render
    """From a scope to what the check compares with: text, texts, a JSON value, a validator, or None."""
    is_literal: bool
    """True when `render` gives the same for every scope."""

    def grade(self, row: Mapping[str, Any], expected: Any) -> Mark:
        """Return the mark of one answered row, with `transform`, `not` and `threshold` applied.

        Args:
            row: Its columns; a null `output` (tool calls only) counts as "".
            expected: What `render` returned.

        Raises:
            GraderFaultError: The check cannot decide.
        """
        try:
            subject: Any = row if self.reads_row else self.pick(row["output"] or "")
        except NothingFoundError as nothing:
            return make_mark(passed=False, reason=str(nothing))
        mark = self.check(subject, expected, self.options)
        if self.options.not_:
            verdict = "as `not` forbids: " if mark.passed else "as `not` asks: "
            mark = make_mark(passed=not mark.passed, reason=verdict + mark.reason)._replace(score=1.0 - mark.score)
        if self.options.threshold is not None:
            mark = mark._replace(passed=mark.score >= self.options.threshold)
        return mark

    def pick(self, text: str) -> str:
        """Return the part of a text that `transform` picks.

        Raises:
            NothingFoundError: A step found nothing.
            GraderFaultError: A step took too long.
        """
        for step in self.transform:
            text = step(text)
        return text

    def find_expected_fault(self, expected: Any) -> str | None:
        """Return why what was rendered cannot be used, or None."""
        if isinstance(self.options, NumericOptions):
            return find_numeric_fault(expected)
        if isinstance(self.options, ChoiceOptions):
            return find_choice_fault(expected, self.options)
        if isinstance(self.options, RougeLOptions) and not split_rouge_words(expected):
            return f"renders {quote_excerpt(expected)}, which has no word of a–z or digits"
        if self.expected_key == "values":
            if not expected:
                return "renders to an empty list"
            is_blank = not all(map(str.strip, expected))
        else:
            is_blank = isinstance(expected, str) and not expected.strip()
        # A literal of white space may be meant, but not where it is stripped and every text would begin with it.
        is_meant = self.is_literal and not isinstance(self.options, StartsWithOptions | EndsWithOptions)
        return "renders to nothing" if is_blank and not is_meant else None


def build_grader(options: GraderOptions, *, where: Where, place: PythonPlace | None = None) -> Grader:
    """Return the grader of the options.

    Args:
        options: Validated options; a schema file is already read into `schema_`.
        where: Names places below the grader.
        place: Where files of python graders lie; None where they may not stand.

    Raises:
        AuthorError: A template or expression does not compile, a pattern, path or schema is not valid, or a literal
            `expected` cannot be used.
    """
    when = Expression(options.when, where=where("when")) if options.when is not None else None
    reads_row = options.type in _ROW_CHECKS
    if reads_row and options.transform is not None:
        message = f"a {options.type} grader does not read the text that `transform` picks from"
        raise ConfigError(message, where=where("transform"), hint="leave it out")
    transform = build_transform(options.transform, where=_below(where, "transform"))
    render, is_literal, source_digest = _prepare(options, place, where)
    grader = Grader(
        options=options,
        digest=digest_options(options, source_digest=source_digest),
        where=where(),
        when=when,
        check=_ROW_CHECKS[options.type] if reads_row else _CHECKS[options.type],
        reads_row=reads_row,
        transform=transform,
        expected_key=find_expected_key(options),
        render=render,
        is_literal=is_literal,
    )
    if is_literal and grader.expected_key is not None:
        _check_literal(grader, where(grader.expected_key))
    return grader


def _check_literal(grader: Grader, where: str) -> None:
    """Raise ConfigError when what the author wrote to compare with cannot be used."""
    try:
        fault = grader.find_expected_fault(grader.render({}))
    except GraderFaultError as error:
        raise ConfigError(str(error), where=where) from error
    if fault is not None:
        raise ConfigError(f"`{grader.expected_key}` {fault}", where=where)


def _prepare(options: GraderOptions, place: PythonPlace | None, where: Where) -> tuple[Render, bool, str | None]:
    """Return what renders the expected value, whether that is always the same, and the digest of the author's code."""
    if isinstance(options, PythonOptions):
        from evalrun.analysis.graders.python_grader import load_python

        render, source_digest = load_python(options, place, where)
        return render, False, source_digest
    return *prepare_expected(options, where), None


def digest_options(options: GraderOptions, *, source_digest: str | None = None) -> str:
    """Return 16 hex digits over everything the options say and the version of the checks.

    Args:
        options: The grader's.
        source_digest: Digest of the code that it runs; None when it runs none but ours.
    """
    facts = {"v": _VERSIONS.get(options.type, GRADERS_VERSION), **dataclasses.asdict(options)}
    facts = {key: value for key, value in facts.items() if value is not None or key not in _LATER_KEYS}
    if source_digest is not None:
        facts["source"] = source_digest
    if isinstance(options, JudgeOptions):
        facts["prompt_version"] = PROMPT_VERSION
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _below(where: Where, *keys: str | int) -> Where:
    return lambda *inner: where(*keys, *inner)
