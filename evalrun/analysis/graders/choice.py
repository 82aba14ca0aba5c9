"""The choice check: which letter an answer settles on.

Forms are tried from the clearest to the weakest, and of the clearest form present the last one counts:

1. a statement: "the answer is B", "Answer: (B)", "B is correct", a boxed letter
2. a line that holds nothing but the letter: "B", "(B)", "**B**"
3. the output begins with it: "B. Paris", "B) because …"
4. "option B", "choice B"
5. a letter in brackets or in bold anywhere: "… (B) …"
6. a capital that stands alone, if no other letter does

A restated list of options (lines that begin with different letters) is left out of the forms 3 to 6. The article "A"
and the pronoun "I" are words, not choices. Small letters count where no word can be meant.
"""

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

from evalrun.analysis.graders.marks import Mark, make_mark, quote_end
from evalrun.errors import GraderFaultError
from evalrun.grader_options import ChoiceOptions

_WORD = r"A-Za-z0-9_\u00c0-\u024f"
# Runs are bounded: two unbounded ones side by side take quadratic time on a hostile output.
_OPEN = r"[\s*_`\"'“‘(\[{$]{0,20}"
_KEYWORD = r"(?:answer|choice|option|solution|selection|réponse|respuesta|antwort|ответ|답|答案|答え|คำตอบ)"
_LINK = r"(?:\s{0,5}(?:is|:|=|-|–|would be|should be|must be|est|es|ist|是|为|คือ|は)){1,4}"


class _Forms(NamedTuple):
    statements: re.Pattern[str]
    lone_line: re.Pattern[str]
    leading: re.Pattern[str]
    named: re.Pattern[str]
    enclosed: re.Pattern[str]
    alone: re.Pattern[str]
    list_line: re.Pattern[str]


def grade_choice(output: str, expected: str, options: ChoiceOptions) -> Mark:
    """Return whether the output settles on the expected letter; one that settles on none fails.

    Raises:
        GraderFaultError: The expected text is no letter of `choices`.
    """
    wanted = read_expected_choice(expected, options.choices)
    if wanted is None:
        fault = find_expected_fault(expected, options)
        raise GraderFaultError("grader_error", f"`expected` {fault}")
    found = find_choice(output, options.choices)
    if found is None:
        reason = f"expected {wanted}, but no clear choice of {options.choices} in {quote_end(output)}"
        return make_mark(passed=False, reason=reason)
    return make_mark(passed=found == wanted, reason=f"expected {wanted}, chose {found}")


def find_choice(output: str, choices: str) -> str | None:
    """Return the letter that an output settles on, in upper case; None when it settles on none.

    Example:
        >>> find_choice("A good choice is B", "ABCD")
        'B'
    """
    text = output if output.isascii() else unicodedata.normalize("NFKC", output)
    forms = _compile_forms(choices)
    found = _last(forms.statements, text) or _last(forms.lone_line, text)
    if found is not None:
        return found
    text = _drop_option_list(text, forms)
    leading = forms.leading.match(text)
    if leading is not None:
        return _letter(leading)
    found = _last(forms.named, text) or _last(forms.enclosed, text)
    if found is not None:
        return found
    alone = {_letter(match) for match in forms.alone.finditer(text)}
    return alone.pop() if len(alone) == 1 else None


def read_expected_choice(expected: str, choices: str) -> str | None:
    """Return the letter that an expected text names ("B", "b", "(B)", "B."); None when it names none of `choices`."""
    letter = expected.strip().strip("()[]{}*.:\"'").strip().upper()
    return letter if len(letter) == 1 and letter in choices.upper() else None


def find_expected_fault(expected: str, options: ChoiceOptions) -> str | None:
    """Return why a rendered `expected` cannot be used, or None."""
    if read_expected_choice(expected, options.choices) is None:
        return f"renders {expected[:80]!r}, which is not one of the letters {options.choices}"
    return None


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    last = None
    for last in pattern.finditer(text):  # noqa: B007 - the last match is what is wanted
        pass
    return _letter(last) if last is not None else None


def _letter(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group is not None).upper()


def _drop_option_list(text: str, forms: _Forms) -> str:
    if len({_letter(match) for match in forms.list_line.finditer(text)}) < 2:
        return text
    return "\n".join(line for line in text.split("\n") if forms.list_line.match(line) is None)


@lru_cache(maxsize=64)
def _compile_forms(choices: str) -> _Forms:
    upper = "".join(sorted(set(choices.upper())))
    capitals = "[" + re.escape(upper) + "]"
    either = "[" + re.escape(upper + upper.lower()) + "]"
    end = rf"(?![{_WORD}]|['’][A-Za-z])"
    # "Answer: I think" is a pronoun; "the answer is a" followed by a word is an article.
    pronoun = r"(?!(?<=I)[ \t]+(?!because\b|since\b|as\b|is\b)[a-z'])"
    closed = r"(?=[\s*_`\"'”’)\]}$]{0,20}(?:[.,:;!?)\]}*]|\n|$))"
    # "Answer: B or C" settles on nothing.
    hedge = rf"(?![\s)*]{{0,10}}(?:or|and|/|&)\s{{0,5}}[*(]{{0,5}}{capitals}{end})"
    letter = rf"({capitals}{end}{pronoun}{hedge}|{either}{end}{closed}{hedge})"
    statements = (
        rf"(?:(?i:{_KEYWORD})[*_]*(?i:{_LINK}){_OPEN}(?i:(?:option|choice|letter)\s{{1,5}})?{_OPEN}{letter}"
        rf"|\\boxed\{{(?:\\text\w*\{{)?\s*\(?({either})\)?\s*\}}"
        rf"|(?<![{_WORD}])({capitals})[)\]*_.\"']*\s+is\s+(?:the\s+)?(?:correct|right|best|answer)\b)"
    )
    # "A cat" is an article and "I think" a pronoun; "A or B" are two letters.
    word = rf"(?<=[AI])[ \t]+(?!(?:or|and|nor)[ \t]+[*(]{{0,5}}{capitals}{end})"
    wrap_open, wrap_close = r"[ \t*_`\"'(\[{$#>]*", r"[ \t*_`\"')\]}.:;,!$]*"
    return _Forms(
        statements=re.compile(statements),
        lone_line=re.compile(rf"^{wrap_open}({either}){wrap_close}\r?$", re.MULTILINE),
        leading=re.compile(
            rf"[\s*_`\"'(\[{{$#>]*({either})(?:[)\].:,*_]|\s+[-–—:]|\s+(?:because|since)\b){'(?!' + '[A-Za-z0-9])'}"
        ),
        named=re.compile(
            rf"(?i:\b(?:option|choice|letter|pick|choose|select)\s+){_OPEN}({capitals}){end}{pronoun}{hedge}"
        ),
        enclosed=re.compile(rf"(?:[(\[]\s?({either})\s?[)\]]|\*\*\s?\(?({either})[).:]?\s?\*\*)"),
        alone=re.compile(rf"(?<![{_WORD}'’.])({capitals}){end}(?!{word}[a-z])"),
        list_line=re.compile(rf"^[ \t>*_-]*\(?({either})[).:][ \t*_]+\S", re.MULTILINE),
    )
