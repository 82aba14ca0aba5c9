"""Renders docs/lanes.md: what holds a lane back, what stops it, what a budget bounds, and every word of the event log.

The words are tables here, and `tests/test_lane_page.py` holds the code to them: a word that the code writes and that
is missing here, or stands here and is written by nobody, fails.
"""

from typing import NamedTuple

from evalrun.asking import GRACE_S
from evalrun.cli.results import MIN_ANSWERED
from evalrun.dispatch.lanes import MAX_ALIKE_REFUSALS
from evalrun.dispatch.outage import MAX_PROBES_UNPROVEN
from evalrun.dispatch.schedule import MAX_WAITING_PER_SLOT
from evalrun.dispatch.token_guess import MIN_OUTPUTS, START_OUTPUT_TOKENS
from evalrun.lane_facts import MAX_EARLIER_CALLS, MAX_EARLIER_NOTES
from evalrun.store.events import MAX_LOG_BYTES, MAX_PER_SECOND


class Event(NamedTuple):
    """One kind of line in events.jsonl."""

    meaning: str
    values: dict[str, str]
    """What it tells, by name."""
    has_lane: bool = True
    """False for what concerns the whole run: its `lane` is null."""


_SIGNAL = {"signal": "`SIGINT`, `SIGTERM` or `SIGHUP`"}

EVENTS: dict[str, Event] = {
    "began": Event("a call of `run` begins to ask", {"call": "1 for the first", "rows": "left to ask"}, has_lane=False),
    "ended": Event(
        "the asking has ended, of the rows or of their judges; a call that was killed has no such line",
        {
            "stage": "`asking`, or `judging` for the judges",
            "seconds": "that the asking took",
            "rows_done": "in this call and stage",
            "budget": "what ended the run's budget; null when nothing did",
        },
        has_lane=False,
    ),
    "interrupted": Event(
        "a signal came: nothing new is sent, requests in flight may finish within the grace time",
        _SIGNAL,
        has_lane=False,
    ),
    "cancelled": Event(
        "a second signal came, or the grace time is over: requests in flight are given up", _SIGNAL, has_lane=False
    ),
    "budget": Event("the run's budget is spent", {"reason": "which limit, and how it stands"}, has_lane=False),
    "throttled": Event(
        "the server refused a request for its rate: any 429, one that stops the lane too, or 503 `slow_down`",
        {"http_status": "of the reply", "retry_after_s": "that it asked to wait; null when it did not"},
    ),
    "gate_shut": Event(
        "nothing leaves for so long; one of the three values is there",
        {
            "retry_after_s": "as the server asked",
            "pause_s": "as evalrun chose, since the server asked for nothing",
            "reset_s": "until a limit of which nothing is left is reset",
        },
    ),
    "reopened": Event("the first request after such a wait leaves", {}),
    "cut": Event(
        "fewer requests a minute leave from now on, since the server refused some",
        {
            "requests_per_minute": "the new rate",
        },
    ),
    "limit_learned": Event(
        "headers told a limit; one of the two values is there",
        {"requests_per_minute": "the limit", "tokens_per_minute": "the limit"},
    ),
    "counts_as_asked": Event(
        "the server counts the tokens that a request may use: what is left of them is not given back for a while",
        {"value": "always 1"},
    ),
    "not_by_rate": Event(
        "refusals come at any rate, a slow one too: they do not lower it for so long", {"value": "seconds"}
    ),
    "outage": Event("the lane is taken to be down: only single probes leave", {}),
    "outage_over": Event("a probe was answered", {"value": "seconds since the first failure"}),
    "lane_stopped": Event(
        "the lane sends nothing more in this call",
        {"code": "an `error_code`", "message": "why, and what to do"},
    ),
    "dropped": Event(
        f"so many events were not written before this one: more than {MAX_PER_SECOND} of the lane in one second, or "
        f"the log has reached {MAX_LOG_BYTES // 1024 // 1024} MiB",
        {"n": "how many"},
    ),
}
"""Every kind of event, in the order in which a run meets them."""

HISTORY: dict[str, tuple[str, str]] = {
    "requests_per_minute": ("headers told this limit", "the limit"),
    "tokens_per_minute": ("headers told this limit", "the limit"),
    "retry_after": ("the server asked for a wait", "seconds"),
    "pause": ("a wait after a refusal that asked for none", "seconds"),
    "reset": ("a wait until a limit is reset", "seconds"),
    "learned_rate": ("the rate was cut after refusals", "requests a minute from then on"),
    "counts_as_asked": ("the server counts the tokens that a request may use", "1"),
    "not_by_rate": ("refusals come at any rate, a slow one too: they do not lower it for a while", "seconds"),
    "outage": ("the lane is taken to be down", "null"),
    "outage_over": ("a probe was answered", "seconds since the first failure"),
    "forgotten": ("notes are missing here: the history is bounded", "how many"),
}
"""Every word of a lane's `history` in run.json, with its `value`."""

WAITS: dict[str, tuple[str, str]] = {
    "retry_after": (
        "a wait that the server asked for, or that follows a refusal",
        "write the provider's `requests_per_minute` into the job: a known limit is paced without 429s",
    ),
    "requests_per_minute": ("the limit of the job, or of the headers", "a higher limit at the provider"),
    "tokens_per_minute": (
        "the same in tokens; prompt and output of a request are held back before it leaves",
        "a smaller `max_completion_tokens`, or a higher limit at the provider",
    ),
    "learned_rate": (
        "the rate that refusals have taught",
        "write the provider's `requests_per_minute` into the job",
    ),
    "outage": ("the endpoint does not answer; single probes go out", "see to the endpoint"),
    "retry_budget": (
        "retries, which may be a fifth of the requests of the last minute, and as many a second as `concurrency`",
        "see to the errors that are retried",
    ),
    "back_off": (
        f"rows that failed and back off: no others are left, or {MAX_WAITING_PER_SLOT} wait for each slot, the most",
        "see to the errors",
    ),
    "budget": (
        "room in the run's budget: what is in flight has to come back first",
        "a larger `budget`, or a smaller `max_completion_tokens`",
    ),
}
"""Everything that a lane can wait for, and what would help."""

BILLING_CODES = (
    "insufficient_quota",
    "billing_hard_limit_reached",
    "credit_balance_exhausted",
    "project_spend_limit_exceeded",
    "enforced_spend_limit_reached",
    "organization_usage_limit_exceeded",
    "daily_quota_exceeded",
    "out_of_credits",
)
"""Words by which servers say that the money is gone; each is tried in `tests/cli/test_hopeless_lanes.py`."""

STOPS: tuple[tuple[str, str, str, str], ...] = (
    (
        "401, or 400 with `invalid_api_key`",
        "`auth`",
        "all lanes of the endpoint",
        "mend the key that the message names",
    ),
    (
        f"402; 429, 403 or 400 with a billing code: {', '.join(f'`{code}`' for code in BILLING_CODES)} and the like",
        "`quota`",
        "the lane",
        "add credit, or raise the limit at the provider",
    ),
    ("403", "`forbidden`", "the lane", "give the key access to the model"),
    ("404, or 400 with `model_not_found`", "`model_not_found`", "the lane", "mend `model` or `base_url`"),
    (
        "a certificate that does not hold; a redirect",
        "`tls`, `redirect`",
        "the lane",
        "mend the certificate, or `base_url`",
    ),
    (
        f"the first {MAX_ALIKE_REFUSALS} rows refused alike: 400, 413, 415, 422",
        "that of the rows",
        "the lane",
        "mend the job: rows that it changes are asked again",
    ),
    (
        "a wait longer than `retry.max_pause_s`, asked for by the server",
        "that of the reply",
        "the lane",
        "wait until the local time that is printed",
    ),
    ("429 to everything, for `retry.max_pause_s`", "`rate_limited`", "the lane", "see what else uses the limit"),
    (
        f"no answer for `retry.max_pause_s`, or to the first {MAX_PROBES_UNPROVEN} probes",
        "that of the failure",
        "the lane",
        "wait until the endpoint is up",
    ),
)
"""What stops a lane: met, code, which lanes, what to do."""

_HEAD = """# Lanes, budgets and events: why a run is slow, stops, or costs what it does

The tables are generated from `tests/lane_page.py` by `python -m tests.generate`, and tests hold the code to them; do
not edit this page.

A *lane* is one endpoint with one model id: what is paced, paused and stopped together. `evalrun show RUN --lanes` tells
the story of each, over all calls of a run that was resumed and for each call by itself; `--json` tells the same to
programs. The figures behind it stand in `run.json`, what was decided and when in `events.jsonl`, both in the run
folder.

## What a lane waits for

`waited_s` of a lane in `run.json` holds seconds in which something was left to send and nothing could leave, by reason.
A lane that uses all its slots waits for nothing: it is as fast as the replies and `concurrency` let it be.

"""

_STOPS = """
## What stops a lane

"""

_BUDGETS = f"""
Requests that are in flight when the first such reply comes still come back, and no other leaves: a lane meets at most
`concurrency` of these replies. The other lanes go on. Rows of the lane stay `pending`: those that met the reply with
its code, those never sent with `lane_stopped`. Why it stopped is said on stderr as it happens, again with the result,
and stands in `run.json`, `summary.json` and the report. The exit code is 3. After the mend, `evalrun run JOB --resume`
asks what is left, and nothing twice.

## What is asked again

A row gets `retry.max_attempts` attempts, of which timeouts after the request was sent and damaged replies have limits
of their own (`max_timeouts`, and two more). A wait between them holds no slot. Not counted are attempts

* that failed in an outage of the whole lane, even if that is known only later;
* refused by a 429 for sending too fast: the lane sends more slowly then, and the row goes ahead of new ones. When
  nothing is let in for `retry.max_pause_s`, the lane stops; a row that is refused for so long, and `max_attempts`
  times at least, while others are let in, is an error, which a resume asks again. A 429 that says `Request too large`
  counts;
* whose connection had died while it was idle: once for each attempt, another one is taken at once.

Retries may be a fifth of the requests of the last minute, and `concurrency` a second always; the others wait, and none
is lost by it. While {MAX_WAITING_PER_SLOT} rows for each slot wait, no new one is taken: memory does not grow with the
dataset, however many requests fail. The server's `x-should-retry` is obeyed.

## Budgets

`budget: {{usd, tokens, requests, wall_s}}` in a job, or `--budget-usd`. USD, tokens and requests count over the whole
run with all its resumes; `wall_s` counts for each call. Before a request leaves, what it may take is held back: its
estimated prompt and its output limit (`max_completion_tokens` times `n`), at the dearest rates that could apply; where
a request sets no limit, the 90th percentile of the replies so far, {START_OUTPUT_TOKENS:,} tokens before there are
{MIN_OUTPUTS}. It leaves only if all that is spent and all that is held back, its own share included, stay within every
limit. What it really took then takes the place of what was held back.

When a request no longer fits, and could not fit even if everything held back came back, the run ends: nothing leaves,
what is in flight comes back and is kept, the rest is `pending` with the code `budget`, exit 3, and the command that is
printed carries limits that suffice: what was spent, and for each row that is left what rows of its model took, with
room for as many requests at once as there are slots. While fewer than {MIN_ANSWERED} rows of a model were answered,
each that is left counts with the largest request that asked for room (`largest_request` of `usd` and `tokens` in
`budget` of `run.json`), and USD with what the plan foresaw. A fifth is added to the whole. `wall_s` counts anew.

**The bound.** Above a limit a run can spend at most

> Σ (actual − reserved)⁺ over the requests in flight when the last one left

of which there are at most as many as the `concurrency` of the endpoints together. With `max_completion_tokens` set, and
kept to by the server, only prompts that were estimated too low add to it. The number of requests is exact: the limit is
never passed. What stays unspent is less than was held back for one request. Twenty thousand rows and more on a toy
server whose replies nobody could foresee, USD 10, five seeds each (`python -m tests.dispatch.test_budget`):

| output limit | in flight | billed, USD | above the limit, most | bound then | unspent, most |
|---|---|---|---|---|---|
| 512 | 1, 64, 512 | 9.991 – 9.998 | 0 | 0 | 0.009 |
| none | 1 | 9.994 – 9.998 | 0 | 0 | 0.006 |
| none | 64 | 9.993 – 10.001 | 0.001 | 0.019 | 0.007 |
| none | 512 | 9.991 – 9.999 | 0 | 0.007 | 0.009 |

`wall_s` ends the sending: what is in flight then may take as long as `timeout_s` lets it.

Counted at the simulator's ledger, through the command line and over a resume, with 1, 64 and 512 requests in flight
(`pytest -m "soak or not soak" tests/cli/test_budgets.py`): never above the limit by more than the bound of that call,
and the books equal to the ledger, to the token.

A limit bounds what is known. An attempt whose cost was never told (a reply that was lost, a reply without usage)
counts with what was held back for it, or with its [estimate](usage.md#what-nobody-told) where that is larger; one of a
call that was killed counts with what was held back. `n_estimated` in `run.json` says how many did, and a bill can
differ from the books by what they took more. A model without a `price` under `budget.usd` is refused before anything
is sent (exit 2), unless `--allow-unknown-cost` lets it pass uncounted.

## Interrupts

Ctrl-C once: nothing new is sent, requests in flight may finish within {GRACE_S:g} seconds, everything is written, exit
130. Once more: requests in flight are given up at once; they may have been billed, and a resume asks them again.
SIGTERM and SIGHUP (a closed terminal, unless under `nohup`) do as Ctrl-C does, with exit codes 143 and 129. The last
line tells the command that goes on.

## events.jsonl

One JSON object a line: `at` (UTC), `lane` (`endpoint/model id`; null for the whole run), `what` and its `values`. The
events of a resume follow those before. The log is a witness, not the truth: when the disk refuses it the run goes on
without it, and says so. It can be read while the run is alive.

```sh
cd reports/JOB/RUN
jq -r 'select(.what == "lane_stopped") | "\\(.at) \\(.lane): \\(.values.message)"' events.jsonl
jq -s 'map(select(.what == "throttled")) | group_by(.lane) | map({{(.[0].lane): length}}) | add' events.jsonl
```

"""

_LANES = f"""
## Lanes in run.json

`lanes` holds each lane of the last call: `endpoint`, `model`, `asked` (rows with an outcome), `retries`, `rate_limited`
(429s), `stopped_by` and `stop_message`, `wall_s` (until its last outcome), `concurrency`, `limits` (those of the job),
`waited_s` and `history`. A lane may wait on after its last outcome: `show --lanes` takes its waits for its time where
they are longer. `earlier_calls` holds the calls before, oldest first: `call`, `started_at`, `wall_s`,
`ended_by` (what ended its budget) and `lanes`, with the newest {MAX_EARLIER_NOTES} notes of each history; `wall_s` and
`lanes` are null of a call that was killed before it could tell. The newest {MAX_EARLIER_CALLS} earlier calls are kept.

An entry of `history` has `at_s` (seconds since the asking of its call began), `what` and `value`:

"""


def render_lanes_markdown() -> str:
    """Return docs/lanes.md."""
    waits = [f"| `{reason}` | {meaning} | {advice} |" for reason, (meaning, advice) in WAITS.items()]
    events = [_render_event(what, event) for what, event in EVENTS.items()]
    history = [f"| `{what}` | {meaning} | {value} |" for what, (meaning, value) in HISTORY.items()]
    return "\n".join(
        [
            _HEAD + "| reason | waiting for | what would help |\n|---|---|---|",
            *waits,
            _STOPS + "| met | `error_code` | stops | do this, then `--resume` |\n|---|---|---|---|",
            *[f"| {' | '.join(stop)} |" for stop in STOPS],
            _BUDGETS + "| `what` | happened | `values` |\n|---|---|---|",
            *events,
            _LANES + "| `what` | decided | `value` |\n|---|---|---|",
            *history,
            "",
        ]
    )


def _render_event(what: str, event: Event) -> str:
    whole_run = "" if event.has_lane else " (whole run)"
    values = "; ".join(f"`{name}`: {meaning}" for name, meaning in event.values.items())
    return f"| `{what}`{whole_run} | {event.meaning} | {values or '–'} |"
