"""The checks that read the row beside its text: how it ended, what it took, whether it refused or called a tool.

A fact that the row does not hold is unknown: the check raises `GraderFaultError` and decides nothing. Only a refusal
and tool calls are different: a reply without them made none.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from evalrun.analysis.graders.json_value import NotJsonError, find_missing, parse_json
from evalrun.analysis.graders.marks import Mark, make_mark, quote_excerpt
from evalrun.errors import GraderFaultError
from evalrun.grader_options import (
    CostOptions,
    FinishReasonOptions,
    LatencyOptions,
    RefusalOptions,
    TokensOptions,
    ToolCallOptions,
)

Row = Mapping[str, Any]

_REFUSAL_CHARS = 300
_APOSTROPHES = str.maketrans("’ʼ", "''")
_UNABLE = (
    r"(?:can ?not|can't|could ?not|couldn't|will not|won't|am (?:not able|unable) to|'m (?:not able|unable) to"
    r"|am not (?:comfortable|allowed|permitted)|'m not (?:comfortable|allowed|permitted)|must (?:decline|refuse)"
    r"|(?:have|need) to (?:decline|refuse))"
)
_VERBS = (
    r"(?:help|assist|comply|fulfil|fulfill|provide|engage|support|create|generate|produce|write|participate|share|discuss"
    r"|answer|continue|do (?:that|this)|complete|offer|give|recommend|respond|carry out|process|follow)"
)
_REFUSAL = re.compile(
    rf"\bi\b[ ]?{_UNABLE}(?:[ ,]+\w+){{0,3}}?[ ]+(?:\w+ )?{_VERBS}\w*\b"
    rf"|\bi\b[ ]?(?:must|have to|need to) (?:respectfully )?(?:decline|refuse)\b"
    rf"|^(?:sorry|i'm sorry|i am sorry|i apologi[sz]e|my apologies)[,.]? (?:but )?(?:i|that|this)\b[^.!?]{{0,40}}?"
    rf"(?:can't|cannot|can not|unable|not able|won't|against)\b"
    rf"|^as an ai\b[^.!?]{{0,60}}?\b(?:can't|cannot|unable|not able|won't)\b"
)


def grade_finish_reason(row: Row, value: str, options: FinishReasonOptions) -> Mark:  # noqa: ARG001 - as every check
    """Return whether the reply ended for the expected reason.

    Raises:
        GraderFaultError: The reply named no reason.
    """
    found = row.get("finish_reason")
    if found is None:
        raise GraderFaultError("grader_error", "the reply named no finish reason")
    return make_mark(passed=found == value, reason=f"expected {quote_excerpt(value)}, ended by {quote_excerpt(found)}")


def grade_latency(row: Row, _expected: None, options: LatencyOptions) -> Mark:
    """Return whether the reply came in time.

    Raises:
        GraderFaultError: The latency is not known: a reused row was not asked in this run.
    """
    latency_s = row.get("latency_s")
    if latency_s is None:
        is_reused = row.get("reused_from") is not None
        why = "the row was reused, not asked in this run" if is_reused else "the row has none"
        raise GraderFaultError("grader_error", f"the latency is not known: {why}")
    reason = f"expected at most {options.max_s:g} s, took {latency_s:.3f} s"
    return make_mark(passed=latency_s <= options.max_s, reason=reason)


def grade_cost(row: Row, _expected: None, options: CostOptions) -> Mark:
    """Return whether the answer was cheap enough.

    Raises:
        GraderFaultError: The cost is not known.
    """
    cost_usd = row.get("cost_usd")
    if cost_usd is None:
        raise GraderFaultError("grader_error", "the cost is not known: no price, or no token counts")
    reason = f"expected at most {options.max_usd:g} USD, cost {cost_usd:g} USD"
    return make_mark(passed=cost_usd <= options.max_usd, reason=reason)


def grade_tokens(row: Row, _expected: None, options: TokensOptions) -> Mark:
    """Return whether the answer took few enough completion tokens.

    Raises:
        GraderFaultError: The count is not known.
    """
    n_tokens = row.get("completion_tokens")
    if n_tokens is None:
        raise GraderFaultError("grader_error", "the number of completion tokens is not known")
    reason = f"expected at most {options.max_completion} completion tokens, took {n_tokens}"
    return make_mark(passed=n_tokens <= options.max_completion, reason=reason)


def grade_refusal(row: Row, _expected: None, options: RefusalOptions) -> Mark:  # noqa: ARG001 - every check takes three
    """Return whether the model refused, in the field that is there for it or in the words its answer begins with."""
    refusal = row.get("refusal")
    if refusal:
        return make_mark(passed=True, reason=f"refused: {quote_excerpt(refusal)}")
    if row.get("status") == "refused":
        return make_mark(passed=True, reason="refused, without a word")
    found = find_refusal(row["output"] or "")
    if found is not None:
        return make_mark(passed=True, reason=f"refused in words: {quote_excerpt(found)}")
    return make_mark(passed=False, reason=f"no refusal: neither a field for it nor its words in {_quote_row(row)}")


def find_refusal(output: str) -> str | None:
    """Return the words of refusal that an answer begins with (English, its first 300 characters); None without any.

    Example:
        >>> find_refusal("I'm sorry, but I can't help with that.")
        "i'm sorry, but i can't"
    """
    start = output[:_REFUSAL_CHARS].translate(_APOSTROPHES).strip().lower()
    match = _REFUSAL.search(start)
    return match[0] if match is not None else None


def grade_tool_call(row: Row, arguments: Mapping[str, Any], options: ToolCallOptions) -> Mark:
    """Return whether the reply calls the tool, one call of it with all of the arguments.

    Raises:
        GraderFaultError: The row's tool calls cannot be read.
    """
    calls = _read_calls(row.get("tool_calls"))
    if not calls:
        reason = f"expected a call of {quote_excerpt(options.tool)}, but no tool is called in {_quote_row(row)}"
        return make_mark(passed=False, reason=reason)
    fault = None
    for name, written in calls:
        if name != options.tool:
            continue
        fault = _find_argument_fault(arguments, written)
        if fault is None:
            return make_mark(passed=True, reason=f"calls {quote_excerpt(name)}")
    if fault is not None:
        return make_mark(passed=False, reason=f"calls {quote_excerpt(options.tool)} otherwise: {fault}")
    names = ", ".join(quote_excerpt(name, max_chars=60) for name, _ in calls[:5])
    return make_mark(passed=False, reason=f"expected a call of {quote_excerpt(options.tool)}, found calls of {names}")


def _find_argument_fault(arguments: Mapping[str, Any], written: Any) -> str | None:
    if not arguments:
        return None
    try:
        found = parse_json(written) if isinstance(written, str) else written
    except NotJsonError as error:
        return f"its arguments {quote_excerpt(written)} are not JSON: {error}"
    return find_missing(arguments, found)


def _read_calls(text: str | None) -> list[tuple[str, Any]]:
    """Return name and arguments of each call; models write the arguments as JSON text."""
    if text is None:
        return []
    try:
        functions = [call.get("function") or {} for call in json.loads(text)]
        return [(str(function.get("name")), function.get("arguments")) for function in functions]
    except (ValueError, TypeError, AttributeError) as error:
        raise GraderFaultError("grader_error", f"the row's tool calls cannot be read: {error}") from error


def _quote_row(row: Row) -> str:
    return quote_excerpt(row["output"] or "")
