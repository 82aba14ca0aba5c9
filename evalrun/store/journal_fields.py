"""What each key of a journal record means: one description, from which the table in `docs/journal.md` is made.

Nothing enters; fields and their Markdown leave. A test compares the keys with those that `journal_format` writes.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Field(NamedTuple):
    """One key of a record."""

    name: str
    type: str
    """`text`, `integer`, `number`, `boolean`, `object`, `list`, `USD` or `time`; `?` behind it: may be absent."""
    doc: str
    """What it holds, its unit, and what its absence means."""


_ROW = (
    Field("row_id", "text", "sha256 hex of (sample_id, prompt, model, repeat): joins the records with all tables."),
    Field("request_key", "text", "sha256 hex of what was asked of whom; another one: the row was edited in between."),
)

RUN = (
    Field("run_id", "text", "The run's id when the call began."),
    Field("job_name", "text", "Name of the job; a resume with another job is refused."),
    Field("evalrun", "text", "Version of evalrun that made this call."),
    Field("started_at", "time", "When the call began to ask."),
    Field("job", "object", "The job as its file says it, environment variables unresolved; never a key."),
    Field("job_digest", "text", "sha256 hex of the job: tells a resume that it has changed."),
    Field("dataset_digest", "text", "sha256 hex over the samples."),
    Field("n_rows", "integer", "Rows that the plan holds."),
    Field("call", "object", "What the command line narrowed or changed; a resume begins from that of the first call."),
    Field("reuse", "list", "Older runs that outcomes may be taken from: `run_id` and `path` of each."),
)

STARTED = (
    *_ROW,
    Field("index", "integer", "Position of the row in the plan at that time, 0-based."),
    Field("attempt", "integer", "1-based over the whole run, resumes included."),
)

_ATTEMPT = (
    Field("attempt", "integer", "1-based over the whole run, resumes included."),
    Field("started_at", "time", "When it was sent."),
    Field("wait_s", "number", "Seconds slept or paced before it."),
    Field("latency_s", "number?", "Seconds from send to the last byte; absent when no answer came."),
    Field("first_token_s", "number?", "Seconds to the first token of a streamed reply; absent otherwise."),
    Field("http_status", "integer?", "Status of the reply; absent when none came."),
    Field("error_code", "text?", "Why it failed, a code of docs/messages.md; absent when it was answered."),
    Field("error_message", "text?", "The same in words, the server's where it had some."),
    Field("retry_after_s", "number?", "Seconds that the server asked to wait; absent when it did not."),
    Field("request_id", "text?", "The server's id of the exchange; absent when it named none."),
    Field("bytes_sent", "integer", "Size of the request body."),
    Field("bytes_received", "integer", "Size of the reply body as received; 0 when none came."),
    Field("cost_usd", "USD?", "Cost, or what it may have cost; absent when unknown. 0: certainly not billed, or free."),
    Field("cost_source", "text", "Where the cost comes from: reported, table, library or unknown."),
    Field("maybe_billed", "boolean", "True when it failed after the body had left: the server may bill it."),
    Field("body", "text?", "The raw reply, secrets masked; the first 4 KiB when it failed; absent when no byte came."),
    Field("usage", "object?", "Token counts, see below. Absent inside `done` when they are those of the outcome."),
)

ATTEMPT = (*_ROW, *_ATTEMPT)

DONE = (
    *_ROW,
    Field("index", "integer", "Position of the row in the plan at that time, 0-based."),
    Field("status", "text", "ok, truncated, filtered, refused, empty, error or pending."),
    Field("attempts", "integer", "Attempts over the whole run so far; 0 = never sent."),
    Field("error_code", "text?", "Why there is no answer, a code of docs/messages.md; absent for answers."),
    Field("is_permanent", "boolean?", "True for an error that cannot pass, though its code can; absent otherwise."),
    Field("is_billed_estimated", "boolean?", "True when `billed_usd` holds an estimate; absent otherwise."),
    Field("billed_usd", "USD?", "Cost of all attempts in this run; absent when any is unknown."),
    Field("cost_usd", "USD?", "Cost of the attempt that gave the outcome; absent when unknown."),
    Field("cost_source", "text", "Where the cost comes from: reported, table, library or unknown."),
    Field("reused_from", "text?", "run_id of the run that asked; absent when it was asked in this run."),
    Field("reused_row_id", "text?", "The row of that run, when it is another one than here; absent otherwise."),
    Field("error_message", "text?", "Why there is no answer, in words."),
    Field("http_status", "integer?", "Status of the last reply; absent when none came."),
    Field("latency_s", "number?", "Seconds of the last attempt; absent when no answer came."),
    Field("first_token_s", "number?", "Seconds to the first token of the last attempt; absent when not streamed."),
    Field("queue_s", "number?", "Seconds from being taken from the plan to the last send; absent when never sent."),
    Field("started_at", "time?", "Start of the first attempt; absent when never sent."),
    Field("finished_at", "time?", "When the outcome was known."),
    Field("usage", "object", "Token counts, see below."),
    Field("completion", "object?", "The answer, see below; absent for error and pending."),
    Field(
        "last_attempt",
        "object?",
        "The attempt that gave the outcome, with the keys of `attempt` that differ from the record's own row; "
        "absent when never sent.",
    ),
)

COMPLETION = (
    Field("status", "text", "ok, truncated, filtered, refused or empty."),
    Field("output", "text?", 'Text of choice 0; "" when it answered with nothing; absent for tool calls only.'),
    Field("refusal", "text?", "The model's own refusal text."),
    Field("finish_reason", "text?", "As on the wire."),
    Field("reasoning", "text?", "Reasoning text of choice 0."),
    Field("tool_calls", "text?", "Tool calls of choice 0, a JSON list as text."),
    Field("choices", "text?", "All choices, a JSON list as text; absent when there is one."),
    Field("logprobs", "text?", "Log probabilities of choice 0, JSON as text."),
    Field("response_id", "text?", "The server's id of the completion."),
    Field("response_model", "text?", "The model that the reply says it is from."),
    Field("system_fingerprint", "text?", "As on the wire."),
    Field("service_tier", "text?", "As on the wire."),
    Field("flags", "list?", "What is odd about the reply, words of docs/messages.md; absent when nothing is."),
    Field("usage", "object?", "Absent when it is that of the outcome."),
)

USAGE = (
    Field("prompt_tokens", "integer?", "Cached ones included; absent when not told, as all counts here."),
    Field("cached_tokens", "integer?", "Prompt tokens read from the server's cache."),
    Field("cache_write_tokens", "integer?", "Prompt tokens written to the server's cache."),
    Field("completion_tokens", "integer?", "Reasoning included."),
    Field("reasoning_tokens", "integer?", "Completion tokens spent on reasoning."),
    Field("audio_input_tokens", "integer?", "Prompt tokens that are sound."),
    Field("audio_output_tokens", "integer?", "Completion tokens that are sound."),
    Field("total_tokens", "integer?", "As told by the server."),
    Field("source", "text", "reported, estimated or missing."),
    Field("raw", "text?", "The usage object as the server sent it, JSON as text."),
    Field("reported_cost_usd", "USD?", "Cost that the reply itself names."),
    Field("flags", "list?", "What is odd about the counts."),
)

RECORDS: Mapping[str, tuple[str, tuple[Field, ...]]] = {
    "run": ("A call of `evalrun run` began: one for the run itself, one for each resume.", RUN),
    "started": ("A request is about to leave. One without an `attempt` or `done` after it is in doubt.", STARTED),
    "attempt": ("An attempt failed, and another one may follow.", ATTEMPT),
    "done": ("What became of the row, with the attempt that gave it. The newest one of a row stands.", DONE),
    "completion": ("Inside `done`: the answer.", COMPLETION),
    "usage": ("Inside `done`, `attempt` and `completion`: tokens in OpenAI's meaning.", USAGE),
}
"""Each kind of record, then the objects inside them: what it is, and its keys in the order they are written."""


def render_fields_markdown() -> str:
    """Return the tables of all records, for `docs/journal.md`."""
    parts = []
    for name, (doc, fields) in RECORDS.items():
        lines = [f"| `{field.name}` | {field.type} | {field.doc} |" for field in fields]
        parts.append("\n".join([f"### {name}", "", doc, "", "| key | type | what |", "|---|---|---|", *lines, ""]))
    return "\n".join(parts)
