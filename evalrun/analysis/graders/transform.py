"""What a grader is given instead of the whole output: the steps of `transform`, one after the other.

A step takes a text and returns a part of it. One that finds nothing raises `NothingFoundError`: the answer is not in
the form that was asked for, so the check fails, and `not` does not turn that round.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from evalrun.analysis.graders.json_value import NotJsonError, find_last_block, read_json_output, write_value
from evalrun.analysis.graders.marks import quote_end, quote_excerpt
from evalrun.analysis.graders.pattern import compile_pattern, find_pattern_fault, search_bounded
from evalrun.errors import ConfigError
from evalrun.grader_options import TransformOptions, TransformStep

Pick = Callable[[str], str]

_THINK_TAG = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)


class NothingFoundError(Exception):
    """A step found nothing in the text."""


class _AnyLabel:
    def __contains__(self, _label: object) -> bool:
        return True


def build_transform(
    transform: TransformStep | Sequence[TransformStep] | None, *, where: Callable[..., str]
) -> tuple[Pick, ...]:
    """Return the steps, ready to run.

    Args:
        transform: As the grader's options hold it.
        where: Names places below `transform`.

    Raises:
        ConfigError: A pattern or path cannot be used.
    """
    if transform is None:
        return ()
    if isinstance(transform, str | TransformOptions):
        return (_build_step(transform, where),)
    return tuple(_build_step(step, partial(where, index)) for index, step in enumerate(transform))


def strip_think(text: str) -> str:
    """Return a text without its thinking: `<think>…</think>` and `<thinking>…</thinking>`.

    A closing tag without an opening one ends thinking that began before the text; an opening tag without a closing one
    leaves nothing of what follows. Text without such tags stays as it is.

    Example:
        >>> strip_think("<think>2+2</think> 4")
        '4'
    """
    kept: list[str] = []
    start, is_thinking = 0, False
    for tag in _THINK_TAG.finditer(text):
        if not tag[1]:
            if not is_thinking:
                kept.append(text[start : tag.start()])
            is_thinking = True
            continue
        if not is_thinking:
            kept.clear()
        start, is_thinking = tag.end(), False
    if not start and not is_thinking:
        return text
    return "".join(kept if is_thinking else [*kept, text[start:]]).strip()


def strip_fences(text: str) -> str:
    """Return the text of the last closed fenced block, whatever its label; without one the text as it is."""
    block = find_last_block(text, labels=_AnyLabel())
    return text if block is None else block.removesuffix("\n").removesuffix("\r")


def pick_after(text: str, *, marker: str) -> str:
    """Return what follows the last place of the marker.

    Raises:
        NothingFoundError: It stands nowhere.
    """
    _, found, rest = text.rpartition(marker)
    if not found:
        raise NothingFoundError(f"no {quote_excerpt(marker)} in the output {quote_end(text)}")
    return rest


def pick_match(text: str, *, source: str, group: int | str) -> str:
    """Return a group of the first match of a pattern.

    Raises:
        NothingFoundError: Nothing matches, or the group took no part.
        GraderFaultError: The search took too long.
    """
    match = search_bounded(compile_pattern(source), text)
    if match is None:
        raise NothingFoundError(f"no match of {quote_excerpt(source)} in the output {quote_excerpt(text)}")
    if match[group] is None:
        raise NothingFoundError(f"group {group!r} of {quote_excerpt(source)} took no part in the match")
    return match[group]


def pick_path(text: str, *, source: str) -> str:
    """Return what a JSONPath finds in a text that is JSON: text as it is, a value as JSON, several values as a list.

    Raises:
        NothingFoundError: The text is no JSON, or nothing stands at the path.
        GraderFaultError: It took too long, or the JSON is nested too deep.
    """
    # A late import, against the house's rule: the library takes 0.06 s to load, and few jobs have a path to follow.
    from evalrun.analysis.graders.json_path import compile_path

    try:
        value = read_json_output(text)
    except NotJsonError as error:
        raise NothingFoundError(f"no JSON in the output {quote_excerpt(text)}: {error}") from error
    found = list(compile_path(source).find(value))
    if not found:
        raise NothingFoundError(f"nothing at {source} in the output {quote_excerpt(text)}")
    return write_value(found[0] if len(found) == 1 else found)


def _build_step(step: TransformStep, where: Callable[..., str]) -> Pick:
    if isinstance(step, str):
        return _NAMED_STEPS[step]
    if step.after is not None:
        return partial(pick_after, marker=step.after)
    if step.regex is not None:
        group = step.group if step.group is not None else 0
        fault = find_pattern_fault(step.regex, group)
        if fault is not None:
            raise ConfigError(fault, where=where("regex"))
        return partial(pick_match, source=step.regex, group=group)
    path = step.json_path or ""
    check_path(path, where=where("json_path"))
    return partial(pick_path, source=path)


def check_path(path: str, *, where: str) -> None:
    """Raise ConfigError unless the text is a path that can be followed."""
    from evalrun.analysis.graders.json_path import compile_path

    try:
        compile_path(path)
    except ValueError as error:
        hint = "a path begins with `$`: $.answer, $.items[0].name, $..price"
        raise ConfigError(f"{quote_excerpt(path)} is not a JSONPath: {error}", where=where, hint=hint) from error


_NAMED_STEPS: Mapping[str, Pick] = {"strip_think": strip_think, "strip_fences": strip_fences}
