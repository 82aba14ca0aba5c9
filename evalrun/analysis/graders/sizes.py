"""The checks that count: words and characters of an output."""

from evalrun.analysis.graders.marks import Mark, make_mark
from evalrun.grader_options import LengthOptions, WordCountOptions


def grade_word_count(output: str, _expected: None, options: WordCountOptions) -> Mark:
    """Return whether the output has a number of words within the bounds, both of which are allowed.

    A word is what white space parts, so "well-known" is one and a Thai or Chinese sentence is one as well.
    """
    n_words = len(output.split())
    is_within = (options.min is None or n_words >= options.min) and (options.max is None or n_words <= options.max)
    return make_mark(passed=is_within, reason=f"expected {_name_bounds(options)}, found {n_words}")


def grade_length(output: str, _expected: None, options: LengthOptions) -> Mark:
    """Return whether the output has at most `max_chars` code points."""
    n_chars = len(output)
    reason = f"expected at most {options.max_chars} characters, found {n_chars}"
    return make_mark(passed=n_chars <= options.max_chars, reason=reason)


def _name_bounds(options: WordCountOptions) -> str:
    if options.min is None:
        return f"at most {options.max} words"
    if options.max is None:
        return f"at least {options.min} words"
    return f"{options.min} words" if options.min == options.max else f"{options.min} to {options.max} words"
