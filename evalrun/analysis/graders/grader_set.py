"""All graders of a job, at work: rows of results enter, grades leave.

A grader that cannot decide gives a grade without score and verdict, with an error code; it never gives a wrong answer,
and nothing that a row holds makes `grade_row` raise. Rows without an answer get no grades.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import orjson

from evalrun.analysis.graders.build import TEMPLATE_MARKS, Grader, build_grader
from evalrun.analysis.graders.judge_grader import (
    JudgeReply,
    JudgeTask,
    combine_votes,
    find_judged_text,
    make_judge_row_id,
)
from evalrun.analysis.graders.marks import quote_excerpt
from evalrun.analysis.graders.python_place import PythonPlace
from evalrun.analysis.graders.stored_options import parse_grader
from evalrun.analysis.graders.transform import NothingFoundError
from evalrun.errors import AuthorError, ConfigError, GraderFaultError, Problem
from evalrun.grader_options import GraderOptions, JudgeOptions
from evalrun.records import ANSWERED, Grade, Sample
from evalrun.templates import make_scope

MAX_CACHED_LINEUPS = 256
"""Most different per-sample grader lists that are kept compiled."""

GRADED_COLUMNS = (
    "row_id", "request_key", "status", "output", "sample", "sample_id", "repeat",
    "finish_reason", "refusal", "tool_calls", "latency_s", "cost_usd", "completion_tokens", "reused_from",
)  # fmt: skip
"""Columns of the results that graders read."""

_NEVER_TEMPLATES = frozenset({"pattern", "schema", "matches", "regex", "path", "json_path"})

_EXACT_LIMIT = 2.0**63
"""orjson reads every integer below it exactly, and makes floats of those beyond 64 bits."""


class GradedRow(NamedTuple):
    """The grades of one row and what follows from them."""

    grades: tuple[Grade, ...]
    score: float | None
    """Weighted mean of the grades that have a score; None when none has, or all weights are 0."""
    passed: bool | None
    """False if any grade failed, else None if any is ungraded or none applies, else True."""


UNGRADED = GradedRow((), None, None)


FindReply = Callable[[str], JudgeReply | None]
"""From the row_id of a judge's request to what became of it; None when there is no such request."""


def no_reply(row_id: str) -> JudgeReply | None:
    """Find nothing: no judge was asked."""
    del row_id
    return None


class Judgement(NamedTuple):
    """A judge's part in one row: what it is to be asked, once for each vote."""

    name: str
    """Of the grader, unique within the row."""
    digest: str
    """Of the grader."""
    options: JudgeOptions
    task: JudgeTask
    text: str
    """What is judged."""


class _Entry(NamedTuple):
    name: str
    grader: Grader


class _Prepared(NamedTuple):
    """What the rows of one sample and repeat have in common: they follow each other in plan order."""

    sample: str
    sample_id: str
    repeat: int
    entries: tuple[_Entry, ...]
    scope: dict[str, Any]
    expected: dict[str, Any]
    """What graders have rendered so far, by name."""


class GraderSet:
    """The graders of a job: those of `defaults`, of each sample, and of the job, in this order.

    Args:
        job_graders: The job's `graders`.
        default_graders: The job's `defaults.graders`.
        vars_: The job's `vars`.
        where: From keys (`"graders", 0, "expected"`) to a place in the job file; default: the keys.
        inline_samples: Samples that stand in the job itself. Their graders may hold templates; those of a dataset
            file are literal, and one with template marks is refused.
        place: Where files of python graders lie; None refuses such graders.

    Raises:
        ConfigError: With every problem found.
    """

    def __init__(
        self,
        job_graders: Sequence[GraderOptions],
        default_graders: Sequence[GraderOptions],
        *,
        vars_: Mapping[str, Any],
        where: Callable[..., str] | None = None,
        inline_samples: Iterable[Mapping[str, Any]] = (),
        place: PythonPlace | None = None,
    ) -> None:
        """Compile every grader of the job."""
        self._vars = vars_
        self._where = where or _join_keys
        self._place = place
        problems: list[Problem] = []
        self._defaults = self._build_all(default_graders, ("defaults", "graders"), problems)
        self._job = self._build_all(job_graders, ("graders",), problems)
        if problems:
            raise ConfigError(problems)
        lists = (row.get("graders") for row in inline_samples)
        self._inline = {
            _write_canonical(raw) for graders in lists if isinstance(graders, list | tuple) for raw in graders
        }
        self._plain = self._line_up(())
        self._lineups: OrderedDict[bytes, tuple[_Entry, ...]] = OrderedDict()
        self._prepared = _Prepared("", "", -1, (), {}, {})
        self.digest = _digest_all(self._defaults, self._job, vars_)
        """sha256 hex over all graders of the job, their order, and the job's vars."""

    def check_sample(self, sample: Sample) -> list[Problem]:
        """Return what would keep a sample from being graded: templates, empty or unusable `expected`, own graders."""
        try:
            entries = self._find_lineup(list(sample.graders), where=sample.where)
        except AuthorError as error:
            return [_place(problem, sample) for problem in error.problems]
        if not entries:
            return []
        scope = make_scope(sample.row, sample_id=sample.sample_id, repeat=0, vars_=self._vars)
        return [problem for entry in entries for problem in _check_entry(entry, scope, sample)]

    def list_judge_options(self) -> list[JudgeOptions]:
        """Return the options of every judge that the job names: in its own lists, and in samples written inline."""
        listed: list[Any] = [grader.options for grader in (*self._defaults, *self._job)]
        for raw in sorted(self._inline):
            with suppress(AuthorError):  # What is wrong with it, the check of its sample tells.
                listed.append(parse_grader(json.loads(raw), where="samples"))
        return [options for options in listed if isinstance(options, JudgeOptions)]

    def list_judges(self, sample: Sample) -> list[tuple[str, int]]:
        """Return name and votes of each judge that a sample may have, whatever its `when` says."""
        entries = self._find_lineup(list(sample.graders), where=sample.where)
        pairs = [(entry.name, entry.grader.options) for entry in entries]
        return [(name, options.votes) for name, options in pairs if isinstance(options, JudgeOptions)]

    def list_judgements(self, row: Mapping[str, Any]) -> list[Judgement]:
        """Return what judges are to be asked about one row of results.parquet; nothing for a row without an answer.

        Args:
            row: As for `grade_row`.
        """
        if row["status"] not in ANSWERED:
            return []
        judgements = []
        try:
            prepared = self._prepare(row["sample"], row["sample_id"], row["repeat"])
        except Exception:  # noqa: BLE001 - grading tells what is wrong with the stored sample
            return []
        for name, grader in prepared.entries:
            options = grader.options
            if isinstance(options, JudgeOptions):
                # What keeps a judge from being asked, grading tells: nothing found to judge, a rubric of nothing.
                with suppress(AuthorError, GraderFaultError, NothingFoundError):
                    if grader.when is None or grader.when.is_true(prepared.scope):
                        task, text = grader.render(prepared.scope), grader.pick(find_judged_text(row))
                        judgements.append(Judgement(name, grader.digest, options, task, text))
        return judgements

    def grade_row(self, row: Mapping[str, Any], find_reply: FindReply = no_reply) -> GradedRow:
        """Return the grades of one row of results.parquet.

        Args:
            row: Its columns, of which `GRADED_COLUMNS` are read.
                A null output of an answer (tool calls only) is graded as "".
            find_reply: Finds what judges said of it.
        """
        if row["status"] not in ANSWERED:
            return UNGRADED
        try:
            prepared = self._prepare(row["sample"], row["sample_id"], row["repeat"])
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a stored sample, its row stays ungraded
            return _combine(_make_unreadable_grades(row, [*self._defaults, *self._job], error))
        grades = [
            grade for entry in prepared.entries if (grade := _grade(entry, prepared, row, find_reply)) is not None
        ]
        return _combine(grades)

    def _build_all(
        self, graders: Sequence[GraderOptions], keys: tuple[str, ...], problems: list[Problem]
    ) -> tuple[Grader, ...]:
        built = []
        for index, options in enumerate(graders):
            try:
                where = _below(self._where, *keys, index)
                built.append(build_grader(options, where=where, place=self._place))
            except AuthorError as error:
                problems.extend(error.problems)
        return tuple(built)

    def _prepare(self, text: str, sample_id: str, repeat: int) -> _Prepared:
        last = self._prepared
        if last.sample == text and last.sample_id == sample_id and last.repeat == repeat:
            return last
        sample = _parse_object(text)
        entries = self._find_lineup(sample.get("graders"), where=f"sample {sample_id!r}")
        scope = make_scope(sample, sample_id=sample_id, repeat=repeat, vars_=self._vars)
        self._prepared = _Prepared(text, sample_id, repeat, entries, scope, {})
        return self._prepared

    def _find_lineup(self, raw_graders: Any, *, where: str) -> tuple[_Entry, ...]:
        """Return the graders of a sample; raise AuthorError when its own cannot be used."""
        if not raw_graders:
            return self._plain
        if isinstance(raw_graders, str):  # A CSV column holds the list as JSON text.
            raw_graders = json.loads(raw_graders)
        if not isinstance(raw_graders, list | tuple):
            raise ConfigError(f"`graders` is a list, found {quote_excerpt(repr(raw_graders))}", where=where)
        key = b"\n".join(_write_canonical(raw) for raw in raw_graders)
        entries = self._lineups.get(key)
        if entries is None:
            own = tuple(self._build_own(raw, index, where) for index, raw in enumerate(raw_graders))
            entries = self._lineups[key] = self._line_up(own)
            if len(self._lineups) > MAX_CACHED_LINEUPS:
                self._lineups.popitem(last=False)
        else:
            self._lineups.move_to_end(key)
        return entries

    def _build_own(self, raw: Any, index: int, where: str) -> Grader:
        place = f"{where}: graders[{index}]"
        options = parse_grader(raw, where=place)
        is_inline = _write_canonical(raw) in self._inline
        if not is_inline and isinstance(options, JudgeOptions):
            hint = "write it into the job's `graders`, with `when` for the samples it is for"
            raise ConfigError("a grader in a dataset asks no judge", where=place, hint=hint)
        if not is_inline and _has_marks(raw):
            raise ConfigError(
                "a grader in a dataset takes literal values only, no templates",
                where=place,
                hint="write the template into the job's `graders`, with `when` for the samples it is for",
            )
        # Data never name code to run: only the job does, and it knows its own samples.
        return build_grader(options, where=_below(_join_keys, place), place=self._place if is_inline else None)

    def _line_up(self, own: tuple[Grader, ...]) -> tuple[_Entry, ...]:
        # The job's graders are named first, so that a sample's own never change a name that tables are joined by.
        taken: set[str] = set()
        defaults = [_Entry(_take_name(grader, taken), grader) for grader in self._defaults]
        job = [_Entry(_take_name(grader, taken), grader) for grader in self._job]
        return (*defaults, *(_Entry(_take_name(grader, taken), grader) for grader in own), *job)


def _grade(
    entry: _Entry, prepared: _Prepared, row: Mapping[str, Any], find_reply: FindReply = no_reply
) -> Grade | None:
    """Return the grade; None where the grader does not apply."""
    grader = entry.grader
    score: float | None = None
    passed: bool | None = None
    code: str | None = None
    try:
        if grader.when is not None and not grader.when.is_true(prepared.scope):
            return None
        if entry.name not in prepared.expected:
            prepared.expected[entry.name] = grader.render(prepared.scope)
        if isinstance(grader.options, JudgeOptions):
            return _grade_by_votes(entry.name, grader, grader.options, row, find_reply)
        score, passed, reason = grader.grade(row, prepared.expected[entry.name])
    except GraderFaultError as fault:
        code, reason = fault.code, str(fault)
    except Exception as error:  # noqa: BLE001 - whatever a check raises, the answer is not wrong for it
        code, reason = "grader_error", f"{type(error).__name__}: {error}"
    return _make_grade(entry.name, grader, row, score=score, passed=passed, reason=reason, code=code)


def _grade_by_votes(
    name: str, grader: Grader, options: JudgeOptions, row: Mapping[str, Any], find_reply: FindReply
) -> Grade:
    try:
        grader.pick(find_judged_text(row))
    except NothingFoundError as nothing:
        return _make_grade(name, grader, row, score=0.0, passed=False, reason=str(nothing), code=None)
    row_ids = [make_judge_row_id(row["row_id"], name, vote) for vote in range(options.votes)]
    replies = [find_reply(row_id) for row_id in row_ids]
    score, passed, reason, code = combine_votes(options, replies)
    grade = _make_grade(name, grader, row, score=score, passed=passed, reason=reason, code=code)
    asked = [row_id for row_id, reply in zip(row_ids, replies, strict=True) if reply is not None]
    return replace(grade, judge_row_ids=json.dumps(asked) if asked else None)


def _make_grade(
    name: str,
    grader: Grader,
    row: Mapping[str, Any],
    *,
    score: float | None,
    passed: bool | None,
    reason: str,
    code: str | None,
) -> Grade:
    options = grader.options
    return Grade(
        row_id=row["row_id"],
        request_key=row["request_key"],
        grader=name,
        type=options.type,
        grader_digest=grader.digest,
        metric=options.metric,
        score=score,
        passed=passed,
        hard=options.hard,
        weight=options.weight,
        reason=_clean(reason),
        error_code=code,
    )


def _make_unreadable_grades(row: Mapping[str, Any], graders: Sequence[Grader], error: Exception) -> list[Grade]:
    reason = f"the sample's graders cannot be used: {error}"
    taken: set[str] = set()
    grades = [
        _make_grade(_take_name(grader, taken), grader, row, score=None, passed=None, reason=reason, code="grader_error")
        for grader in graders
    ]
    own = Grade(
        row_id=row["row_id"],
        request_key=row["request_key"],
        grader=_number("graders", taken),
        type="unknown",
        grader_digest="",
        metric=None,
        score=None,
        passed=None,
        hard=False,
        weight=1.0,
        reason=_clean(reason),
        error_code="grader_error",
    )
    return [*grades, own]


def _combine(grades: Sequence[Grade]) -> GradedRow:
    score, passed = combine_grades((grade.score, grade.passed, grade.weight) for grade in grades)
    return GradedRow(tuple(grades), score, passed) if grades else UNGRADED


def combine_grades(grades: Iterable[tuple[float | None, bool | None, float]]) -> tuple[float | None, bool | None]:
    """Return a row's score and verdict from its grades.

    The score is the weighted mean of what was scored. The verdict is false if any grade failed, else None if any could
    not decide, else true; both are None without grades.

    Args:
        grades: (score, passed, weight) of each.
    """
    total = total_weight = 0.0
    n_grades = n_undecided = n_failed = 0
    for score, passed, weight in grades:
        n_grades += 1
        if passed is None:
            n_undecided += 1
        elif not passed:
            n_failed += 1
        if score is not None:
            total += weight * score
            total_weight += weight
    is_undecided = not n_failed and (n_undecided or not n_grades)
    return total / total_weight if total_weight else None, None if is_undecided else not n_failed


def _check_entry(entry: _Entry, scope: Mapping[str, Any], sample: Sample) -> list[Problem]:
    grader = entry.grader
    try:
        # A condition on `repeat` may hold for a later repeat only; its templates are checked all the same.
        if grader.when is not None and not grader.when.is_true(scope) and "repeat" not in grader.when.names:
            return []
        fault = grader.find_expected_fault(grader.render(scope))
    except AuthorError as error:
        return [_place(problem, sample) for problem in error.problems]
    except GraderFaultError as error:
        return [Problem(message=f"grader {entry.name!r}: {error}", where=sample.where)]
    if fault is None:
        return []
    key = grader.expected_key
    return [
        Problem(
            message=f"grader {entry.name!r}: `{key}` {fault}",
            where=sample.where,
            hint=f"mend the row, or the template at {grader.where}; `when` leaves samples out",
        )
    ]


def _place(problem: Problem, sample: Sample) -> Problem:
    message = f"{problem.message} (sample {sample.sample_id[:80]!r}, {sample.where})"
    return Problem(message=message, where=problem.where, hint=problem.hint)


def _take_name(grader: Grader, taken: set[str]) -> str:
    return _number(grader.options.name or grader.options.type, taken)


def _number(name: str, taken: set[str]) -> str:
    unique, count = name, 1
    while unique in taken:
        count += 1
        unique = f"{name}-{count}"
    taken.add(unique)
    return unique


def _parse_object(text: str) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = None
    if value is None or _may_be_rounded(value):
        value = json.loads(text)
    if not isinstance(value, dict):
        raise TypeError(f"`sample` is a JSON object, found {quote_excerpt(text)}")
    return value


def _may_be_rounded(value: Any) -> bool:
    """Tell whether a value from orjson holds a float that may stand for an integer: the slower reader keeps that."""
    values = [value]
    while values:
        value = values.pop()
        if type(value) is float:
            if abs(value) >= _EXACT_LIMIT:
                return True
        elif type(value) is dict:
            values.extend(value.values())
        elif type(value) is list:
            values.extend(value)
    return False


def _write_canonical(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return json.dumps(value, sort_keys=True, default=str).encode()


def _has_marks(value: Any) -> bool:
    if isinstance(value, str):
        return any(mark in value for mark in TEMPLATE_MARKS)
    if isinstance(value, Mapping):
        # A pattern is never a template, and neither is a path nor anything inside a schema.
        return any(_has_marks(inner) for key, inner in value.items() if key not in _NEVER_TEMPLATES)
    return isinstance(value, list | tuple) and any(_has_marks(inner) for inner in value)


def _digest_all(defaults: Sequence[Grader], job: Sequence[Grader], vars_: Mapping[str, Any]) -> str:
    facts = [[grader.digest for grader in defaults], [grader.digest for grader in job], vars_]
    return hashlib.sha256(_write_canonical(facts)).hexdigest()


def _clean(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _join_keys(*keys: str | int) -> str:
    return ".".join(map(str, keys))


def _below(where: Callable[..., str], *keys: str | int) -> Callable[..., str]:
    return lambda *inner: where(*keys, *inner)
