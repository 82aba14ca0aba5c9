"""The columns of the run folder's tables: one description, from which files and `docs/schema.md` are made.

Nothing enters; names, types and meanings leave. What is unknown is null in every table.
"""

from dataclasses import dataclass

from evalrun.records import SCHEMA_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table."""

    name: str
    dtype: str
    """`str`, `i16`, `i32`, `i64`, `f64`, `bool` or `datetime` (milliseconds, UTC)."""
    nullable: bool
    doc: str
    """What it holds, its unit, and what null means."""


def _column(name: str, dtype: str, doc: str) -> Column:
    """Make a column; `?` behind the dtype = may be null."""
    return Column(name=name, dtype=dtype.removesuffix("?"), nullable=dtype.endswith("?"), doc=doc)


RESULTS: tuple[Column, ...] = (
    _column("row_id", "str", "sha256 hex of (sample_id, prompt, model, repeat); unique in a run; joins all tables."),
    _column("request_key", "str", "sha256 hex of what was asked of whom; rows may share it."),
    _column("run_id", "str", "The run that made the file; sorts by time."),
    _column("sample_id", "str", "Id of the dataset row; text."),
    _column("sample", "str", "The dataset row as JSON."),
    _column("category", "str?", "Category of the sample; null when the dataset has none."),
    _column("prompt", "str", "Name of the prompt."),
    _column("model", "str", "Name (label) of the model."),
    _column("endpoint", "str", "Name of the endpoint that the model is asked at."),
    _column("repeat", "i32", "Which asking of the same row this is, 0-based."),
    _column("request", "str", "The final request body as JSON; holds no secrets."),
    _column("status", "str", "ok, truncated, filtered, refused, empty, error or pending."),
    _column("error_code", "str?", "Why there is no answer; null for answers and filtered rows without a code."),
    _column("error_message", "str?", "The same in words, the server's where it had some; null when there are none."),
    _column("http_status", "i16?", "Status of the last reply; null when no reply came or the row was never sent."),
    _column("attempts", "i16", "HTTP exchanges made for the row in this run, resumes included; 0 = never sent."),
    _column(
        "output",
        "str?",
        'Text of choice 0; "" when it answered with nothing; null when filtered, error, pending or tool calls only.',
    ),
    _column("refusal", "str?", "The model's own refusal text; null when it did not refuse in that way."),
    _column("finish_reason", "str?", "As on the wire; null when the reply named none or there was none."),
    _column("reasoning", "str?", "Reasoning text of choice 0; null when the reply held none."),
    _column("tool_calls", "str?", "Tool calls of choice 0 as a JSON list; null when there are none."),
    _column("choices", "str?", "All choices as a JSON list when more than one came (choice 0 is graded); else null."),
    _column("logprobs", "str?", "Log probabilities of choice 0 as JSON; null when the reply held none."),
    _column("response_id", "str?", "The server's id of the completion; null when it named none."),
    _column("response_model", "str?", "The model that the reply says it is from; null when it named none."),
    _column("system_fingerprint", "str?", "As on the wire; null when the reply named none."),
    _column("service_tier", "str?", "Tier that the reply names; null when it named none."),
    _column("prompt_tokens", "i64?", "Tokens of the prompt, cached ones included; null when not told."),
    _column("cached_tokens", "i64?", "Prompt tokens read from the server's cache; null when not told."),
    _column("cache_write_tokens", "i64?", "Prompt tokens written to the server's cache; null when not told."),
    _column("completion_tokens", "i64?", "Tokens of the completion, reasoning included; null when not told."),
    _column("reasoning_tokens", "i64?", "Completion tokens spent on reasoning; null when not told."),
    _column("total_tokens", "i64?", "Total as told by the server; null when not told."),
    _column("usage_source", "str", "Where the token counts come from: reported, estimated or missing."),
    _column("usage", "str?", "The usage object as the server sent it, JSON; null when there was none."),
    _column(
        "cost_usd",
        "f64?",
        "USD of the attempt that gave the outcome, to 1e-12; null when unknown, never 0 for unknown.",
    ),
    _column(
        "billed_usd",
        "f64?",
        "USD of all attempts of the row in this run, to 1e-12, estimated ones included (flag `billed_estimated`); "
        "null when any is unknown; 0 when never sent or reused.",
    ),
    _column("cost_source", "str", "Where the cost comes from: reported, table, library or unknown."),
    _column(
        "latency_s",
        "f64?",
        "Seconds of the last attempt, without queueing and back-off; null when no answer came or the row was reused.",
    ),
    _column(
        "first_token_s",
        "f64?",
        "Seconds to the first token of the last attempt; null when not streamed or no token came.",
    ),
    _column(
        "queue_s", "f64?", "Seconds from being taken from the plan to the last attempt's send; null when never sent."
    ),
    _column("started_at", "datetime?", "Start of the first attempt; null when never sent."),
    _column("finished_at", "datetime?", "When the outcome was known; null when the row has none."),
    _column("reused_from", "str?", "run_id that the outcome was taken from; null when it was asked in this run."),
    _column(
        "flags",
        "str?",
        "What is odd about the row, as a JSON list; docs/messages.md tells what each means; null when nothing is.",
    ),
    _column("score", "f64?", "Weighted mean of the row's grades, 0..1; null when not graded."),
    _column(
        "passed", "bool?", "False when any grade failed; null when not graded, or any grade is open and none failed."
    ),
)
"""One row per planned row, in plan order (sample, prompt, model, repeat)."""

ATTEMPTS: tuple[Column, ...] = (
    _column("row_id", "str", "The row that was asked."),
    _column("request_key", "str", "sha256 hex of what was asked of whom."),
    _column("attempt", "i16", "1-based over the whole run, resumes included."),
    _column("started_at", "datetime", "When it was sent."),
    _column("wait_s", "f64", "Seconds slept or paced before it."),
    _column("latency_s", "f64?", "Seconds from send to the last byte; null when no answer came."),
    _column("first_token_s", "f64?", "Seconds from send to the first token; null when not streamed or no token came."),
    _column("http_status", "i16?", "Status of the reply; null when none came."),
    _column("error_code", "str?", "Why it failed; null when it was answered."),
    _column("retry_after_s", "f64?", "Seconds that the server asked to wait; null when it did not."),
    _column("request_id", "str?", "The server's id of the exchange; null when it named none."),
    _column("bytes_sent", "i64", "Size of the request body in bytes."),
    _column("bytes_received", "i64", "Size of the reply body in bytes, as received; 0 when none came."),
    _column("prompt_tokens", "i64?", "Tokens of the prompt, cached ones included; null when not told."),
    _column("completion_tokens", "i64?", "Tokens of the completion, reasoning included; null when not told."),
    _column("usage_source", "str", "Where the token counts come from: reported, estimated or missing."),
    _column(
        "cost_usd",
        "f64?",
        "USD, to 1e-12, estimated where `usage_source` says so; null when unknown; 0 only when free or certainly not "
        "billed.",
    ),
    _column("maybe_billed", "bool", "True when it failed after the body had left: the server may bill it."),
)
"""One row per HTTP attempt, in the order they ended."""

GRADES: tuple[Column, ...] = (
    _column("row_id", "str", "The row that was graded."),
    _column("request_key", "str", "sha256 hex of what was asked of whom."),
    _column("grader", "str", "Name of the grader, unique within the row."),
    _column("type", "str", "Type of the grader: exact, contains, numeric, …"),
    _column("grader_digest", "str", "Digest of the grader's options: other options, other digest."),
    _column("metric", "str?", "Named metric that the grade counts for; null when it has none."),
    _column("score", "f64?", "0..1; null when the grader could not decide."),
    _column("passed", "bool?", "Null when the grader could not decide."),
    _column("hard", "bool", "True when the grader is a contract: breaking it fails the gate."),
    _column("weight", "f64", "Weight in the row's score, no unit."),
    _column("reason", "str", "Why, in words."),
    _column("judge_row_ids", "str?", "row_ids of the judge's requests, JSON list; null when no judge was asked."),
    _column("against_row_id", "str?", "The other row of a pairwise grade; null for all others."),
    _column(
        "error_code", "str?", "judge_failed, judge_unreadable, grader_error or grader_timeout; null when it decided."
    ),
)
"""One row per row and grader, in plan order: the truth about grades."""

_SCHEMA_INTRODUCTION = f"""# The tables of a run folder

Generated from `evalrun/store/tables.py`; change it there. All files are Parquet with zstd, typed, and readable by
polars, DuckDB, pandas and pyarrow without evalrun. `?` behind a type: may hold null, and the text says what null means;
unknown is null, never 0. `datetime` is milliseconds in UTC. Text that UTF-8 cannot hold (lone surrogates) is written as
its escape, `\\ud800`, and a result flagged `text_cleaned`.

The key-value metadata of each file holds `evalrun.schema_version` (now `{SCHEMA_VERSION}`), `evalrun.run_id`,
`evalrun.is_simulated` and the digests of job, dataset, prompts and graders (`evalrun.job_digest`, …); results and
grades hold `evalrun.grades_digest` as well, a sha256 over the grade rows: `score` and `passed` in results come from the
grades of the same digest. `evalrun.gate` in these two is the gate that was asked for, so that a verdict can be found
again. `evalrun.n_attempts` in both says how many attempts, from the first row of attempts.parquet on, they are made of:
a resume that died while it wrote its tables leaves more.
"""

_JUDGED_IS = (
    "Only in a run with judges: one row per request to a judge, in the order of the rows that they are about and of "
    "the votes. The columns are those of results.parquet. `sample_id`, `sample` and `category` are those of the judged "
    "row; `prompt` is the grader's name, `model` the judge's, `repeat` the vote, 0-based; `output` is the judge's "
    "reply; `score` and `passed` are null. `judge_row_ids` in grades.parquet leads here."
)

_ATTEMPTS_ARE = (
    "One row per HTTP attempt that ended, in that order. An attempt in flight when the process died has no row; "
    "`attempts` in results counts it."
)

PERMANENT = "permanent"
"""Flag of an error that cannot pass, though its code can."""


def render_schema_markdown() -> str:
    """Return `docs/schema.md`: every column of every table."""
    parts = [f"{_SCHEMA_INTRODUCTION}\n"]
    tables: tuple[tuple[str, str, tuple[Column, ...]], ...] = (
        ("results.parquet", "One row per planned row, in plan order (sample, prompt, model, repeat).", RESULTS),
        ("judge.parquet", _JUDGED_IS, ()),
        ("attempts.parquet", _ATTEMPTS_ARE, ATTEMPTS),
        ("grades.parquet", "One row per row and grader, in plan order: the truth about grades.", GRADES),
    )
    for name, doc, columns in tables:
        parts.append(f"## {name}\n\n{doc}\n")
        if not columns:
            continue
        lines = [f"| `{c.name}` | {c.dtype}{'?' if c.nullable else ''} | {c.doc} |" for c in columns]
        parts.append("\n".join(["| column | type | what |", "|---|---|---|", *lines]) + "\n")
    return "\n".join(parts)
