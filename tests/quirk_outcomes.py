"""What evalrun makes of each quirk: the table that the tests hold it to, and that docs/quirks.md is written from.

One line for each form of a quirk; one cell for a reply that is not streamed, one for a stream. A cell tells of ONE
attempt on a lane that has answered before. `tests/dispatch/test_quirk_outcomes.py` asks the simulator for every cell
over HTTP and compares; nothing here is looked up in the code that it judges.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

from evalrun.records import ANSWERED, ErrorCode, Status, UsageSource

Lane = Literal["goes on", "waits", "stops"]
Cost = Literal["known", "estimated", "nothing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What must come of one attempt."""

    words: str
    """For users, in plain words."""
    status: Status
    """Of the row, if this is its last attempt."""
    error_code: ErrorCode | None = None
    flags: tuple[str, ...] = ()
    is_retried: bool = False
    lane: Lane = "goes on"
    """Whether the endpoint's model is asked on: at once, after a wait that holds for all rows, or not at all."""
    wait_s: tuple[float, float] | None = None
    """The wait that the server asks for lies between these; None when it asks for none that counts."""
    maybe_billed: bool = False
    usage: UsageSource = UsageSource.MISSING
    cost: Cost = "known"

    @property
    def is_answer(self) -> bool:
        """True when the attempt is kept as what the model said."""
        return self.status in ANSWERED


class Outcomes(NamedTuple):
    """The two cells of one form; None where the quirk makes no sense."""

    plain: Expected | None
    stream: Expected | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """How many cells there are of each kind."""

    forms: int
    cells: int
    clean: int
    """Taken as complete, nothing to say about them."""
    flagged: int
    """Taken as answers, with a flag that says what is odd."""
    named: int
    """Taken as what they are: empty, refused."""
    asked_again: int
    failed: int
    """Errors of the row, at once."""
    stopped: int
    """The lane stops, the row stays pending."""


def count_figures() -> Figures:
    """Count the cells of the table."""
    cells = [cell for _, _, cell in scan_cells()]
    answers = [cell for cell in cells if cell.is_answer]
    return Figures(
        forms=len(OUTCOMES),
        cells=len(cells),
        clean=sum(cell.status is Status.OK and not cell.flags for cell in answers),
        flagged=sum(bool(cell.flags) for cell in answers),
        named=sum(cell.status is not Status.OK and not cell.flags for cell in answers),
        asked_again=sum(cell.is_retried for cell in cells),
        failed=sum(cell.status is Status.ERROR and not cell.is_retried for cell in cells),
        stopped=sum(cell.lane == "stops" for cell in cells),
    )


def scan_cells() -> Iterator[tuple[str, bool, Expected]]:
    """Yield each cell with its form and whether it is the streamed one."""
    for label, outcomes in OUTCOMES.items():
        for is_stream, cell in enumerate(outcomes):
            if cell is not None:
                yield label, bool(is_stream), cell


def _both(cell: Expected) -> Outcomes:
    return Outcomes(cell, cell)


def _streamed(cell: Expected) -> Outcomes:
    return Outcomes(None, cell)


def _taken(words: str, *flags: str, status: Status = Status.OK) -> Expected:
    """Return the cell of a reply that is an answer, with its bill."""
    return Expected(words=words, status=status, flags=flags, usage=UsageSource.REPORTED)


def _uncounted(words: str, *flags: str) -> Expected:
    """Return the cell of an answer that does not tell its tokens."""
    return Expected(words=words, status=Status.OK, flags=flags, usage=UsageSource.ESTIMATED, cost="estimated")


def _again(
    code: ErrorCode, words: str, *, may_cost: bool, lane: Lane = "goes on", wait_s: tuple[float, float] | None = None
) -> Expected:
    """Return the cell of a failure that can pass."""
    return Expected(
        words=words,
        status=Status.ERROR,
        error_code=code,
        is_retried=True,
        lane=lane,
        wait_s=wait_s,
        maybe_billed=may_cost,
        usage=UsageSource.ESTIMATED if may_cost else UsageSource.MISSING,
        cost="estimated" if may_cost else "nothing",
    )


def _failed(code: ErrorCode, words: str, *, may_cost: bool = False) -> Expected:
    """Return the cell of a failure that asking again does not mend."""
    cost: Cost = "estimated" if may_cost else "nothing"
    usage = UsageSource.ESTIMATED if may_cost else UsageSource.MISSING
    return Expected(words=words, status=Status.ERROR, error_code=code, maybe_billed=may_cost, usage=usage, cost=cost)


def _stopped(code: ErrorCode, words: str, *, wait_s: tuple[float, float] | None = None) -> Expected:
    """Return the cell of a failure that every row of the lane would meet."""
    return Expected(words=words, status=Status.PENDING, error_code=code, lane="stops", wait_s=wait_s, cost="nothing")


def _damaged(words: str) -> Expected:
    return _again(ErrorCode.BODY_INVALID, words, may_cost=True)


def _incomplete(words: str) -> Expected:
    return _again(ErrorCode.STREAM_INCOMPLETE, words, may_cost=True)


def _passing(words: str, code: ErrorCode = ErrorCode.SERVER_ERROR) -> Expected:
    return _again(code, words, may_cost=False)


def _throttled(
    words: str, wait_s: tuple[float, float] | None = None, *, code: ErrorCode = ErrorCode.RATE_LIMITED
) -> Expected:
    return _again(code, words, may_cost=False, lane="waits", wait_s=wait_s)


def _billed(cell: Expected) -> Expected:
    """Return the cell of a failure that tells what it took all the same."""
    return replace(cell, usage=UsageSource.REPORTED, cost="known")


_SAME: Final = "read as meant"
_WORDS_FOUND: Final = "the server's own words are found and shown"
_NO_USAGE: Final = _uncounted("the answer counts; its tokens and its cost are estimated from the texts, never 0")
_ODD_COUNTS: Final = _uncounted("a count that can be none is not used: the tokens are estimated", "usage_inconsistent")
_ERROR_IN_200: Final = _again(ErrorCode.ERROR_IN_200, "the error object counts, not the status", may_cost=True)
_NO_CHOICES: Final = Outcomes(
    _billed(_damaged("no completion without choices")),
    _billed(_incomplete("no choice in any event: the stream says nothing")),
)
_NOTHING_SAID: Final = _taken("the model said nothing, and that is what is kept", status=Status.EMPTY)
_UNENDED: Final = Outcomes(
    _taken("the whole body is there: an answer, flagged", "finish_reason_missing"),
    _billed(_incomplete("without a finish_reason nobody knows whether more was to come")),
)
_HTML_200: Final = _damaged("a page is no completion, whatever its status")
_SERVER_SAYS_NO: Final = _passing("the server's trouble")
_PROXY_GAVE_UP: Final = _again(
    ErrorCode.SERVER_ERROR, "a proxy did not wait; the model behind it may have gone on, and billed", may_cost=True
)
_REQUEST_SAYS_NO: Final = _failed(ErrorCode.BAD_REQUEST, "the request's own fault: the same again would be refused")
_NO_MONEY: Final = _stopped(ErrorCode.QUOTA, "no money left: a 429 or 402 that waiting does not mend")
_LOST: Final = _again(ErrorCode.RESET, "no reply at all; it may have been made", may_cost=True)
_NOT_A_NUMBER: Final = _taken("the answer counts; what is no number is null, and said so", "number_dropped")
_REASONING: Final = _taken("kept as the row's reasoning, apart from the answer")
_FREE_RATE: Final = _taken("the headers say nothing about this reply")
_REDIRECTED: Final = _stopped(ErrorCode.REDIRECT, "never followed: body and key go where the job says")
_WAIT: Final = "the lane waits as long as asked"
_OWN_WAIT: Final = _throttled("what is no usable wait is ignored; the lane waits by evalrun's own back-off")

OUTCOMES: Final[Mapping[str, Outcomes]] = {
    "Q01": _both(_NO_USAGE),
    "Q02": _both(_NO_USAGE),
    "Q03:strings": _both(_ODD_COUNTS),
    "Q03:negative": _both(_ODD_COUNTS),
    "Q03:float": _both(_ODD_COUNTS),
    "Q03:huge": _both(_ODD_COUNTS),
    "Q03:partial": _both(_uncounted("the count that is there is kept, the other one is estimated")),
    "Q04:last-chunk": _streamed(_taken("what it reports is counted")),
    "Q04:with-finish": _streamed(_taken("what it reports is counted")),
    "Q05": _streamed(_taken("the last one counts; they are never added up")),
    "Q06": _streamed(_taken("counted: after `[DONE]` the stream is read on, for 1 s at most")),
    "Q07:more": _both(
        _taken("what only the total knows counts as reasoning, as Gemini's relays do", "reasoning_outside")
    ),
    "Q07:less": _both(_taken("prompt and completion count, the total does not", "usage_inconsistent")),
    "Q08": _both(_taken("the cached tokens are unknown, the prompt is paid in full", "usage_inconsistent")),
    "Q09:A": _both(_ERROR_IN_200),
    "Q09:B": _both(_ERROR_IN_200),
    "Q09:permanent": _both(
        _failed(ErrorCode.ERROR_IN_200, "the error says that it will not pass: not asked again", may_cost=True)
    ),
    "Q10:data": _streamed(_ERROR_IN_200),
    "Q10:event": _streamed(_ERROR_IN_200),
    "Q10:finish": Outcomes(_billed(_ERROR_IN_200), _ERROR_IN_200),
    "Q11:null": _NO_CHOICES,
    "Q11:empty": _NO_CHOICES,
    "Q11:missing": _NO_CHOICES,
    "Q12:null": _both(_NOTHING_SAID),
    "Q12:array": _both(_taken("the texts of the parts are joined", "content_parts")),
    "Q12:missing": _both(_NOTHING_SAID),
    "Q13:missing": _UNENDED,
    "Q13:null": _UNENDED,
    "Q13:unknown": _both(_taken("it ended, nobody knows why", "finish_reason_unknown")),
    "Q13:every-chunk": _streamed(_taken("read to the end, not to the first `stop`", "finish_repeated")),
    "Q14:200": _both(_HTML_200),
    "Q14:502": _both(_SERVER_SAYS_NO),
    "Q14:524": _both(_PROXY_GAVE_UP),
    "Q15": Outcomes(_damaged("nothing is no answer"), _incomplete("a stream without an event")),
    "Q16": _both(_damaged("JSON that ends too early is no JSON")),
    "Q17": _both(_taken(_SAME)),
    "Q18": _both(_taken(_SAME)),
    "Q19:nan": _both(_NOT_A_NUMBER),
    "Q19:infinity": _both(_NOT_A_NUMBER),
    **dict.fromkeys(("Q20:lf", "Q20:crlf", "Q20:cr", "Q20:mixed", "Q20:bytes"), _streamed(_taken(_SAME))),
    "Q21:comment": _streamed(_taken(_SAME)),
    "Q21:id": _streamed(_taken("an event without data is none")),
    "Q22": _streamed(_taken(_SAME)),
    "Q23": _streamed(_taken(_SAME)),
    "Q24": _streamed(_taken("each choice said how it ended: complete", "no_done")),
    **dict.fromkeys(
        ("Q25:chunked", "Q25:length"),
        Outcomes(_damaged("fewer bytes than promised"), _incomplete("cut before the finish_reason")),
    ),
    "Q25:close": Outcomes(
        _damaged("the JSON shows what the connection does not"), _incomplete("cut before the finish_reason")
    ),
    "Q25:rst": Outcomes(
        _again(ErrorCode.RESET, "the connection was lost in the middle", may_cost=True),
        _incomplete("cut before the finish_reason"),
    ),
    "Q25:clean": _streamed(_incomplete("an end in good order proves nothing without a finish_reason")),
    "Q25:done": _streamed(_incomplete("`[DONE]` proves nothing without a finish_reason")),
    "Q26:event": _streamed(_taken("the last event counts, blank line or not", "no_done")),
    "Q26:done": _streamed(_taken("`[DONE]` counts, blank line or not")),
    "Q27:ok": _streamed(_taken("read as the completion that it is", "not_streamed")),
    "Q27:error": _streamed(_ERROR_IN_200),
    "Q27:mislabelled": _streamed(_taken("the body counts, not its label", "not_streamed")),
    "Q28": _both(_taken("characters of the text, not ends of lines")),
    "Q29": _streamed(_damaged("pieces of two events are never made into one")),
    "Q30": _streamed(_taken("id and model are those of the chunks that follow")),
    "Q31": _streamed(_taken("a delta that says nothing")),
    "Q32:no-index": _streamed(_taken("a new id with a name begins a new call")),
    "Q32:split": _streamed(_taken("put together by index")),
    "Q32:interleaved": _streamed(_taken("put together by index, two calls")),
    "Q32:finish-stop": _both(_taken("the calls are there, so they are kept, whatever the reason says")),
    "Q33:reversed": _both(_taken("sorted by index; choice 0 is the answer")),
    "Q33:together": _streamed(_taken("told apart by index")),
    "Q34:reasoning_content": _both(_REASONING),
    "Q34:reasoning": _both(_REASONING),
    "Q34:reasoning_details": _both(_REASONING),
    "Q35": _both(_taken("kept as a refusal: an answer, but not a text", status=Status.REFUSED)),
    "Q36": _both(_taken("kept as they came")),
    "Q37:seconds": _both(_throttled(_WAIT, (1, 1))),
    "Q37:ms": _both(_throttled(_WAIT, (0.25, 0.25))),
    "Q37:float": _both(_throttled(_WAIT, (0.5, 0.5))),
    "Q37:date": _both(_throttled(f"{_WAIT}, by the server's own clock", (1, 4))),
    "Q37:over-cap": _both(
        _stopped(
            ErrorCode.RATE_LIMITED,
            "longer than `max_pause_s`: the lane stops and says when to go on",
            wait_s=(86_400,) * 2,
        )
    ),
    "Q37:negative": _both(_OWN_WAIT),
    "Q37:word": _both(_OWN_WAIT),
    "Q37:absent": _both(_throttled("the lane waits by evalrun's own back-off")),
    **{
        f"Q38:{variant}": _both(_NO_MONEY)
        for variant in ("quota", "credit", "spend-limit", "organization", "anthropic", "daily")
    },
    "Q39:503": _both(_throttled("the lane waits, and grows slowly from then on", code=ErrorCode.OVERLOADED)),
    "Q39:429": _both(_throttled("the lane waits by evalrun's own back-off")),
    "Q40:529": _both(_passing("too busy", ErrorCode.OVERLOADED)),
    "Q40:498": _both(_passing("too busy", ErrorCode.OVERLOADED)),
    **{f"Q40:{status}": _both(_SERVER_SAYS_NO) for status in range(520, 524)},
    "Q40:524": _both(_PROXY_GAVE_UP),
    "Q41": _both(
        _failed(
            ErrorCode.BAD_REQUEST,
            "the server's words are shown; `rename_params: {max_tokens: max_completion_tokens}` mends it",
        )
    ),
    "Q42:credits": _both(_NO_MONEY),
    "Q42:in-flight": _both(_throttled("money that is only tied up, and a Retry-After: the lane waits", (1, 1))),
    "Q43": _both(_failed(ErrorCode.BAD_REQUEST, "not asked again; the message tells how large the request was")),
    **dict.fromkeys(("Q44:A", "Q44:B", "Q44:C"), _both(_passing(_WORDS_FOUND))),
    **dict.fromkeys(("Q44:D", "Q44:E"), _both(_failed(ErrorCode.BAD_REQUEST, _WORDS_FOUND))),
    "Q44:E-text": _both(_passing(_WORDS_FOUND)),
    "Q44:F": _both(_passing(_WORDS_FOUND, ErrorCode.OVERLOADED)),
    "Q44:G": _both(_failed(ErrorCode.BAD_REQUEST, _WORDS_FOUND)),
    **dict.fromkeys(("Q44:H", "Q44:H-message", "Q44:H-relay", "Q44:I"), _both(_passing(_WORDS_FOUND))),
    "Q44:J": _both(_failed(ErrorCode.BAD_REQUEST, _WORDS_FOUND)),
    "Q45:false": _both(_failed(ErrorCode.SERVER_ERROR, "obeyed: not asked again")),
    "Q45:true": _both(_passing("obeyed: asked again", ErrorCode.BAD_REQUEST)),
    "Q46:go": _both(_FREE_RATE),
    "Q46:unknown": _both(_FREE_RATE),
    "Q46:per-day": _both(_FREE_RATE),
    "Q47": _both(
        _again(ErrorCode.TIMEOUT_TOTAL, "the deadline of the whole attempt ends it, though bytes come", may_cost=True)
    ),
    "Q48:first-byte": _both(
        _again(ErrorCode.TIMEOUT_FIRST_BYTE, "the deadline of the first byte ends it", may_cost=True)
    ),
    "Q48:between": _both(_again(ErrorCode.TIMEOUT_IDLE, "the deadline between two reads ends it", may_cost=True)),
    "Q49:after-reply": _both(_taken("the reply is whole; the next request opens a connection")),
    "Q49:no-reply": _both(_LOST),
    "Q49:reset": _both(_LOST),
    "Q50:whole": _both(_taken("unpacked")),
    "Q50:no-trailer": Outcomes(
        _damaged("unpacked, but not proven whole"), _taken("unpacked as it came: finish_reason and `[DONE]` are there")
    ),
    "Q50:half": Outcomes(_damaged("half of a body"), _incomplete("cut before the finish_reason")),
    "Q50:bomb": _both(
        _failed(ErrorCode.BODY_TOO_LARGE, "never unpacked beyond 64 MiB, never asked again", may_cost=True)
    ),
    **{f"Q51:{name}": _both(_REDIRECTED) for name in ("301", "302", "307", "308", "elsewhere")},
    "Q52": _both(_taken("the answer counts; the other name is kept beside it", "model_mismatch")),
    "Q53": _both(_taken("rows and calls are not told apart by ids of the server's")),
    "Q54": _streamed(_taken("ignored")),
    "Q55:body": _both(_taken("read; 64 MiB is the cap")),
    "Q55:line": _both(_taken("read; 16 MiB is the cap of one event")),
    "Q56:refused": _both(_LOST),
    "Q56:tls": _both(_damaged("what comes is no HTTP")),
    "Q57": _both(_taken("kept and paid, all of it; its tokens tell that the limit did not hold")),
    "Q58": Outcomes(
        _taken("the first of them is the answer, all are kept", "choice_index_repeated"),
        _damaged("deltas of two choices cannot be told apart: never mixed"),
    ),
    "Q59": _both(_taken("priced by the tier of the reply, not of the request")),
    "Q60:after-done": Outcomes(
        _damaged("JSON with something behind it is no JSON"), _taken("nothing behind `[DONE]` counts")
    ),
    "Q60:after-end": _both(_taken("the reply ends where it says; the connection is not used again")),
    "Q60:both-lengths": _both(_taken("the chunks count, as HTTP has it")),
}
"""By `id:variant`, in the catalogue's order."""
