"""How many tokens a request will take, from the bytes of its body and from what earlier replies reported.

Bodies and reported counts enter, estimates leave that lean to too much. No tokenizer is asked: they are large, and
download their vocabularies. Memory does not grow with the number of requests.
"""

import math
import re
from typing import NamedTuple

START_TOKENS_PER_BYTE = 1 / 3.5
"""Prompt tokens for each byte of a body before the first answer: prose has 4 to 5 bytes a token, JSON and code 3."""
START_OUTPUT_TOKENS = 1024
"""Output of a reply of unknown length, before there is anything to go by."""
OUTPUT_QUANTILE = 0.9
"""Share of replies that are to be no longer than an output estimate that no limit gives."""
MIN_OUTPUTS = 20
"""So many replies tell something of the long ones among them; before that the start value is the least."""
MAX_BELIEVED_TOKENS = 10_000_000
"""More than any context window holds: a reply that reports more teaches nothing."""
PART_BYTES = 2800
"""What an image, a sound or a file counts for instead of its bytes: 800 tokens at the start, then as learned."""

_MEAN_GAIN, _DEVIATION_GAIN, _DEVIATIONS = 1 / 8, 1 / 8, 2.5
"""Smoothing after RFC 6298. 2.5 mean deviations above the mean are 2 σ of a normal law; as the running figures waver,
19 of 20 prompts lie below (measured in the tests)."""
_FIRST_DEVIATION = 1 / 8
_PARTS = (b'"type":"image_url"', b'"type":"input_audio"', b'"type":"file"')
# Anchored at what comes before, so that text without it is passed over fast.
_BASE64 = re.compile(rb'(?:;base64,|")[A-Za-z0-9+/_=-]{256,}')
_STEPS_PER_DOUBLING = 4


class TokenEstimate(NamedTuple):
    """What a request will take, leaning to too much."""

    prompt_tokens: int
    output_tokens: int
    """Over all its choices."""

    @property
    def total_tokens(self) -> int:
        """Both."""
        return self.prompt_tokens + self.output_tokens


class TokenGuess:
    """Estimates the tokens of one model's requests, and learns from its answers.

    Prompt tokens go by bytes: each size class of bodies (a doubling wide) has a ratio of its own, since what is the
    same in every body weighs more in small ones. Output goes by the request's own limit; without one by the 90th
    percentile of the replies so far, so that one in ten may be longer.
    """

    def __init__(self) -> None:
        self._ratios: dict[int, _Ratio] = {}
        self._outputs = _Quantile(OUTPUT_QUANTILE)

    def estimate(self, body: bytes, *, max_output_tokens: int | None, n_choices: int = 1) -> TokenEstimate:
        """Return what a request will take.

        Args:
            body: The request's body.
            max_output_tokens: The limit that it sets on each choice; None when it sets none.
            n_choices: Choices that it asks for.
        """
        n_bytes = _weigh(body)
        prompt_tokens = math.ceil(n_bytes * self._find_ratio(n_bytes.bit_length()))
        output_tokens = self._guess_output() if max_output_tokens is None else max_output_tokens
        return TokenEstimate(prompt_tokens, output_tokens * n_choices)

    def note_answer(
        self, body: bytes, *, prompt_tokens: int | None, output_tokens: int | None, n_choices: int = 1
    ) -> None:
        """Learn from a reply.

        Args:
            body: The body of its request.
            prompt_tokens: As reported; None when it was not.
            output_tokens: Over all choices, reasoning included; None when not reported.
            n_choices: Choices asked for.
        """
        if prompt_tokens is not None and prompt_tokens <= MAX_BELIEVED_TOKENS:
            n_bytes = _weigh(body)
            self._ratios.setdefault(n_bytes.bit_length(), _Ratio()).note(prompt_tokens / max(n_bytes, 1))
        if output_tokens is not None and output_tokens <= MAX_BELIEVED_TOKENS:
            self._outputs.note(math.ceil(output_tokens / n_choices))

    def _find_ratio(self, size_class: int) -> float:
        own = self._ratios.get(size_class)
        if own is not None:
            return own.upper
        nearest = min(self._ratios, key=lambda other: abs(other - size_class), default=None)
        return START_TOKENS_PER_BYTE if nearest is None else max(START_TOKENS_PER_BYTE, self._ratios[nearest].upper)

    def _guess_output(self) -> int:
        seen = self._outputs.upper
        return seen if self._outputs.n >= MIN_OUTPUTS else max(START_OUTPUT_TOKENS, seen)


class _Ratio:
    """Running mean and mean deviation of tokens per byte."""

    def __init__(self) -> None:
        self._mean = 0.0
        self._deviation = 0.0
        self._n = 0

    @property
    def upper(self) -> float:
        """Tokens per byte that few prompts pass."""
        return self._mean + _DEVIATIONS * self._deviation

    def note(self, ratio: float) -> None:
        self._n += 1
        if self._n == 1:
            self._mean, self._deviation = ratio, ratio * _FIRST_DEVIATION
            return
        error = ratio - self._mean
        self._deviation += _DEVIATION_GAIN * (abs(error) - self._deviation)
        self._mean += max(_MEAN_GAIN, 1 / self._n) * error


class _Quantile:
    """A quantile of whole numbers seen so far, from counts in steps of a quarter of a doubling (19 %), rounded up."""

    def __init__(self, share: float) -> None:
        self.n = 0
        self.upper = 0
        """The quantile; 0 before the first number."""
        self._share = share
        self._counts: dict[int, int] = {}
        self._next_n = 1

    def note(self, value: int) -> None:
        self.n += 1
        step = math.ceil(_STEPS_PER_DOUBLING * math.log2(value)) if value > 0 else -1
        self._counts[step] = self._counts.get(step, 0) + 1
        if self.n >= self._next_n:  # One number in many moves a quantile little: look when 5 % more have come.
            self._next_n = self.n + max(1, self.n // 20)
            self.upper = self._find()

    def _find(self) -> int:
        wanted, seen = self._share * self.n, 0
        for step in sorted(self._counts):
            seen += self._counts[step]
            if seen >= wanted:
                return 0 if step < 0 else math.ceil(2 ** (step / _STEPS_PER_DOUBLING))
        raise AssertionError  # pragma: no cover - all of them are at least any share of them


def _weigh(body: bytes) -> int:
    """Return a body's bytes, with each part that is not text counted as `PART_BYTES` instead of its base64."""
    n_parts = sum(body.count(mark) for mark in _PARTS)
    if not n_parts:
        return len(body)
    return len(body) - sum(len(run) for run in _BASE64.findall(body)) + n_parts * PART_BYTES
