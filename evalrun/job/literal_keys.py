"""Finds keys and tokens that were written out where only the name of a variable belongs, and hides them in messages."""

import re

from evalrun.errors import Problem

_PATTERNS = (
    r"(?<![\w-])sk-(?=[\w-]*\d)[A-Za-z0-9_-]{16,}",  # OpenAI, Anthropic, OpenRouter, DeepSeek
    r"(?<![\w-])(?:gsk|xai|pplx|nvapi|tgp|fw|csk|r8|hf|ghp|gho|ghs|glpat)[-_](?=\w*\d)[A-Za-z0-9_-]{20,}",
    r"(?<![\w-])github_pat_[A-Za-z0-9_]{20,}",
    r"(?<![\w-])AIza[0-9A-Za-z_-]{30,}",  # Google
    r"(?<![A-Z0-9])(?:AKIA|ASIA)[0-9A-Z]{16}(?![A-Z0-9])",  # AWS
    r"(?<![\w-])eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",  # JSON web token
    r"(?i:\bbearer)\s+(?=\S*\d)[A-Za-z0-9._~+/-]{16,}=*",
    r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
)
_KEY = re.compile("|".join(_PATTERNS))

SECRET_HEADER = re.compile(
    r"(?i)(?:proxy-)?authorization|(?:set-)?cookie|.*api[-_]?key|.*[-_](?:token|secret|password)|ocp-apim-subscription-key"
)
"""Names of headers whose values are secret, so that they belong into `header_env`."""

HINT = "name an environment variable instead: `api_key_env: MY_KEY`, or `header_env: {X-Key: MY_KEY}`"


def find_literal_keys(text: str, file: str) -> list[Problem]:
    """Return one problem for each line that seems to hold a key; the key itself is never repeated."""
    problems = []
    for match in _KEY.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        column = match.start() - text.rfind("\n", 0, match.start())
        message = "this looks like a secret key; a key is never written in a job"
        problems.append(Problem(message=message, where=f"{file}:{line}:{column}", hint=HINT))
    return problems


def has_literal_key(text: str) -> bool:
    """Return whether the text seems to hold a key."""
    return _KEY.search(text) is not None


def hide_keys(problem: Problem) -> Problem:
    """Return the problem with whatever looks like a key replaced by `***`."""
    hint = _KEY.sub("***", problem.hint) if problem.hint else problem.hint
    return Problem(message=_KEY.sub("***", problem.message), where=problem.where, hint=hint)
