"""Every way a server misbehaves that the simulator knows: ids, names, variants, one sentence each (WIRE 2.13).

On the ground floor, for two rooms need it: a job that names a quirk is checked when it is read, and the simulator
carries quirks out. A quirk is written `Q25` or `cut`, with a variant `Q25:rst`, with a number `Q47:0.05`, or with
both `Q48:between:0.5`. Kept always: an id is never used for another quirk, so that a job means the same for ever.
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

Mode = Literal["both", "stream", "plain"]
"""Replies that something makes sense for: all, streamed ones only, or only those that are not streamed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuirkName:
    """One line of the catalogue."""

    name: str
    """Telling, unique; as good as the id."""
    sentence: str
    """What the server does."""
    variants: Mapping[str, Mode] = field(default_factory=lambda: MappingProxyType({}))
    """Forms that it comes in, and the replies that each makes sense for; without one named, the request decides."""
    mode: Mode = "both"
    """Replies that it makes sense for, whatever the variant."""
    number: str | None = None
    """What its number means, its unit in it; None when it takes none."""
    max_number: float = 0.0
    """Largest number it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuirkChoice:
    """A quirk as somebody wrote it: known, with a variant and a number that it has."""

    id: str
    variant: str | None = None
    """None = any."""
    number: float | None = None
    """None = the default."""


def parse_quirk(text: str) -> QuirkChoice:
    """Return the quirk that a text names.

    Raises:
        ValueError: No quirk, variant or number of that kind is known; the message lists those that are.
    """
    head, *rest = (part.strip() for part in text.strip().split(":"))
    quirk_id = _IDS.get(head.casefold())
    if quirk_id is None:
        raise ValueError(_describe_unknown(head))
    known = QUIRK_NAMES[quirk_id]
    number: float | None = None
    if rest and known.number is not None and (rest[-1].casefold() not in known.variants):
        number = _parse_number(quirk_id, rest.pop())
    variants = {variant.casefold(): variant for variant in known.variants}
    if rest and (len(rest) > 1 or rest[0].casefold() not in variants):
        has = f"its variants are {', '.join(known.variants)}" if variants else "it has none"
        msg = f"quirk {quirk_id} has no variant {':'.join(rest)[:_MAX_SHOWN_CHARS]!r}; {has}"
        raise ValueError(msg)
    return QuirkChoice(id=quirk_id, variant=variants[rest[0].casefold()] if rest else None, number=number)


def fits(mode: Mode, *, is_stream: bool) -> bool:
    """Tell whether what makes sense for `mode` makes sense for a reply that is, or is not, streamed."""
    return mode == "both" or (mode == "stream") is is_stream


def _parse_number(quirk_id: str, text: str) -> float:
    known = QUIRK_NAMES[quirk_id]
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= known.max_number:
        variants = f", or one of {', '.join(known.variants)}" if known.variants else ""
        msg = f"quirk {quirk_id} takes {known.number} from 0 to {known.max_number:g}{variants}, not {text[:80]!r}"
        raise ValueError(msg)
    return number


def _describe_unknown(head: str) -> str:
    close = difflib.get_close_matches(head.casefold(), [quirk.name for quirk in QUIRK_NAMES.values()], n=1)
    guess = f" (did you mean {close[0]}?)" if close else ""
    known = ", ".join(f"{quirk_id} {quirk.name}" for quirk_id, quirk in QUIRK_NAMES.items())
    return f"there is no quirk {head[:_MAX_SHOWN_CHARS]!r}{guess}; known are {known}"


_MAX_SHOWN_CHARS: Final = 80


def _both(*variants: str) -> Mapping[str, Mode]:
    return MappingProxyType(dict.fromkeys(variants, "both"))


def _streamed(*variants: str) -> Mapping[str, Mode]:
    return MappingProxyType(dict.fromkeys(variants, "stream"))


QUIRK_NAMES: Final[Mapping[str, QuirkName]] = MappingProxyType(
    {
        "Q01": QuirkName(name="usage-absent", sentence="The reply has no `usage`, though it was to have one."),
        "Q02": QuirkName(name="usage-null", sentence="`usage` is null."),
        "Q03": QuirkName(
            name="usage-odd-numbers",
            sentence="The token counts are strings, negative, fractions, far too large, or only some are there.",
            variants=_both("strings", "negative", "float", "huge", "partial"),
        ),
        "Q04": QuirkName(
            name="usage-unasked",
            sentence="A stream reports its usage, asked or not: in a last chunk without choices, or beside the finish.",
            variants=_streamed("last-chunk", "with-finish"),
            mode="stream",
        ),
        "Q05": QuirkName(
            name="usage-cumulative",
            sentence="Every chunk of a stream reports the usage so far; only the last is the bill.",
            mode="stream",
        ),
        "Q06": QuirkName(name="usage-after-done", sentence="The usage chunk comes after `[DONE]`.", mode="stream"),
        "Q07": QuirkName(
            name="usage-total-off",
            sentence="`total_tokens` is more, or less, than prompt and completion together.",
            variants=_both("more", "less"),
        ),
        "Q08": QuirkName(
            name="usage-cached-too-many", sentence="More prompt tokens are reported as cached than there were."
        ),
        "Q09": QuirkName(
            name="error-in-200",
            sentence="Status 200 with an error object: OpenAI's, OpenRouter's with a numeric code, or one for good.",
            variants=_both("A", "B", "permanent"),
        ),
        "Q10": QuirkName(
            name="error-mid-stream",
            sentence="After half of the text comes an error: as a data event, as `event: error`, or as finish_reason.",
            variants=MappingProxyType({"data": "stream", "event": "stream", "finish": "both"}),
        ),
        "Q11": QuirkName(
            name="choices-none",
            sentence="`choices` is null, empty or missing.",
            variants=_both("null", "empty", "missing"),
        ),
        "Q12": QuirkName(
            name="content-odd",
            sentence="`content` is null, a list of parts, or missing.",
            variants=_both("null", "array", "missing"),
        ),
        "Q13": QuirkName(
            name="finish-reason-odd",
            sentence="`finish_reason` is missing, null, a word nobody knows, or `stop` on every chunk.",
            variants=MappingProxyType(
                {"missing": "both", "null": "both", "unknown": "both", "every-chunk": "stream"},
            ),
        ),
        "Q14": QuirkName(
            name="html",
            sentence="A page of HTML comes instead, with status 200, 502 or 524.",
            variants=_both("200", "502", "524"),
        ),
        "Q15": QuirkName(name="empty-body", sentence="Status 200 with an empty body."),
        "Q16": QuirkName(
            name="json-cut",
            sentence="The JSON ends half-way though the body is whole; in a stream, that of one event in the middle.",
        ),
        "Q17": QuirkName(name="leading-newlines", sentence="Blank lines come before the reply, one by one."),
        "Q18": QuirkName(name="bom", sentence="The body begins with a byte order mark."),
        "Q19": QuirkName(
            name="nan", sentence="A log probability is NaN or -Infinity.", variants=_both("nan", "infinity")
        ),
        "Q20": QuirkName(
            name="line-ends",
            sentence="Lines of a stream end in LF, CRLF, CR or each in turn; `bytes` sends CRLF byte by byte.",
            variants=_streamed("lf", "crlf", "cr", "mixed", "bytes"),
            mode="stream",
        ),
        "Q21": QuirkName(
            name="comments",
            sentence="Comments stand between the events; with `id`, they have ids and retries but no data.",
            variants=_streamed("comment", "id"),
            mode="stream",
        ),
        "Q22": QuirkName(
            name="multi-line-data", sentence="Each event's JSON is spread over several `data:` lines.", mode="stream"
        ),
        "Q23": QuirkName(name="no-space", sentence="No space stands after `data:`.", mode="stream"),
        "Q24": QuirkName(name="no-done", sentence="A stream ends without `[DONE]`.", mode="stream"),
        "Q25": QuirkName(
            name="cut",
            sentence=(
                "The reply is cut half-way: chunks without an end, fewer bytes than promised, a close, a reset, "
                "an end in good order, or `[DONE]` without a finish_reason."
            ),
            variants=MappingProxyType(
                {
                    "chunked": "both",
                    "length": "both",
                    "close": "both",
                    "rst": "both",
                    "clean": "stream",
                    "done": "stream",
                }
            ),
        ),
        "Q26": QuirkName(
            name="no-blank-line",
            sentence="The last event, or `[DONE]`, lacks the blank line that ends it.",
            variants=_streamed("event", "done"),
            mode="stream",
        ),
        "Q27": QuirkName(
            name="json-for-stream",
            sentence="Asked for a stream, it sends one JSON body: a completion, an error, or one labelled as a stream.",
            variants=_streamed("ok", "error", "mislabelled"),
            mode="stream",
        ),
        "Q28": QuirkName(name="line-separators", sentence="The text ends in U+2028, U+2029 and U+0085, unescaped."),
        "Q29": QuirkName(
            name="glued-frames",
            sentence="Two events of a stream are glued into one line, the first of them cut.",
            mode="stream",
        ),
        "Q30": QuirkName(
            name="first-chunk-empty",
            sentence="The first chunk has no choices, but Azure's filter results and an empty id and model.",
            mode="stream",
        ),
        "Q31": QuirkName(
            name="delta-null", sentence="The chunk with the finish_reason has `delta: null`.", mode="stream"
        ),
        "Q32": QuirkName(
            name="tool-deltas",
            sentence=(
                "Tool calls come without `index`, with arguments in single characters, two interleaved, "
                "or with finish_reason `stop`."
            ),
            variants=MappingProxyType(
                {"no-index": "stream", "split": "stream", "interleaved": "stream", "finish-stop": "both"}
            ),
        ),
        "Q33": QuirkName(
            name="choices-interleaved",
            sentence="Several choices come last one first, their chunks interleaved or all choices in each chunk.",
            variants=MappingProxyType({"reversed": "both", "together": "stream"}),
        ),
        "Q34": QuirkName(
            name="reasoning-field",
            sentence="Reasoning comes as `reasoning_content`, `reasoning` or `reasoning_details`.",
            variants=_both("reasoning_content", "reasoning", "reasoning_details"),
        ),
        "Q35": QuirkName(name="refusal", sentence="The model refuses: text in `refusal`, none in `content`."),
        "Q36": QuirkName(name="logprobs-bytes-null", sentence="The `bytes` of all log probabilities are null."),
        "Q37": QuirkName(
            name="rate-limited",
            sentence=(
                "Status 429 with Retry-After in seconds, in ms, as a fraction, as a date, a day long, negative, "
                "a word, or absent."
            ),
            variants=_both("seconds", "ms", "float", "date", "over-cap", "negative", "word", "absent"),
            number="seconds to wait",
            max_number=10_000_000,
        ),
        "Q38": QuirkName(
            name="quota",
            sentence="Status 429 because no money is left, in the words of several vendors.",
            variants=_both("quota", "credit", "spend-limit", "organization", "anthropic", "daily"),
        ),
        "Q39": QuirkName(
            name="slow-down", sentence="Status 503 or 429 with the code `slow_down`.", variants=_both("503", "429")
        ),
        "Q40": QuirkName(
            name="overloaded",
            sentence="A status that only some vendors know: 529, 498, 520 to 524.",
            variants=_both("529", "498", "520", "521", "522", "523", "524"),
        ),
        "Q41": QuirkName(
            name="max-tokens-refused", sentence="Status 400: `max_tokens` is not supported, `max_completion_tokens` is."
        ),
        "Q42": QuirkName(
            name="payment-required",
            sentence="Status 402: no credits, or only too many requests in flight for them, with Retry-After.",
            variants=_both("credits", "in-flight"),
        ),
        "Q43": QuirkName(name="too-large-html", sentence="Status 413 with a page of HTML."),
        "Q44": QuirkName(
            name="error-shape",
            sentence="An HTTP error with one of the bodies that servers send: object, text, list, HTML, nothing.",
            variants=_both("A", "B", "C", "D", "E", "E-text", "F", "G", "H", "H-message", "H-relay", "I", "J"),
        ),
        "Q45": QuirkName(
            name="should-retry",
            sentence="`x-should-retry` says otherwise than the status: `false` with 503, `true` with 400.",
            variants=_both("false", "true"),
        ),
        "Q46": QuirkName(
            name="rate-headers",
            sentence="Rate-limit headers with Go durations, with -1 and 0 for unknown, or with a limit per day.",
            variants=_both("go", "unknown", "per-day"),
        ),
        "Q47": QuirkName(
            name="slow-drip",
            sentence="The body comes byte by byte, 0.05 s apart, longer than any deadline.",
            number="seconds between bytes",
            max_number=3600,
        ),
        "Q48": QuirkName(
            name="stall",
            sentence="Nothing comes for 150 s: before the first byte, or in the middle of the body.",
            variants=_both("first-byte", "between"),
            number="seconds",
            max_number=3600,
        ),
        "Q49": QuirkName(
            name="keep-alive-close",
            sentence=(
                "The connection closes unannounced: after the whole reply, or instead of it (what a client sees that "
                "loses the race for an idle connection), orderly or by a reset."
            ),
            variants=_both("after-reply", "no-reply", "reset"),
        ),
        "Q50": QuirkName(
            name="gzip",
            sentence="The body is gzip: whole, without its trailer, half of it, or 100 MB of spaces in few bytes.",
            variants=_both("whole", "no-trailer", "half", "bomb"),
            number="MB that the bomb holds",
            max_number=4096,
        ),
        "Q51": QuirkName(
            name="redirect",
            sentence="A redirect to itself, or to another host.",
            variants=_both("301", "302", "307", "308", "elsewhere"),
        ),
        "Q52": QuirkName(name="model-alias", sentence="The reply names another model than the one asked."),
        "Q53": QuirkName(name="same-ids", sentence="All replies and all tool calls have the same id."),
        "Q54": QuirkName(
            name="obfuscation", sentence="Each chunk has a random string in `obfuscation`, asked or not.", mode="stream"
        ),
        "Q55": QuirkName(
            name="huge-reply",
            sentence="The reply is 10 MB long: in many lines, or in a single one.",
            variants=_both("body", "line"),
            number="bytes",
            max_number=4_000_000_000,
        ),
        "Q56": QuirkName(
            name="no-connection",
            sentence=(
                "A server that has accepted cannot refuse a connection, or fail in DNS or TLS; the nearest to it: a "
                "reset without a byte, or a TLS alert where HTTP is awaited."
            ),
            variants=_both("refused", "tls"),
        ),
        "Q57": QuirkName(
            name="max-tokens-ignored",
            sentence="The reply is longer than the token limit (of 10,000 at most), and billed so.",
        ),
        "Q58": QuirkName(
            name="same-choice-index", sentence="All choices have index 0; a single one comes twice, in other words."
        ),
        "Q59": QuirkName(name="other-service-tier", sentence="The reply's `service_tier` is not the one asked for."),
        "Q60": QuirkName(
            name="trailing-garbage",
            sentence=(
                "In chunks, with bytes too many: after `[DONE]`, after the end of the response, or a Content-Length "
                "beside Transfer-Encoding."
            ),
            variants=_both("after-done", "after-end", "both-lengths"),
        ),
    }
)
"""The catalogue, in the order of ids."""

_IDS: Final[Mapping[str, str]] = {
    key.casefold(): quirk_id for quirk_id, quirk in QUIRK_NAMES.items() for key in (quirk_id, quirk.name)
}
