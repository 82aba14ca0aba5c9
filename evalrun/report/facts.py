"""The run strip: what was run, what it took, and what a reader must know before trusting the figures.

Manifest, summary and rows enter; tiles, small print and warnings leave as text. A key that the manifest lacks is shown
as unknown, so that old and foreign runs render too.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalrun.records import Status
from evalrun.report.figures import (
    UNKNOWN,
    format_compact,
    format_count,
    format_duration,
    format_percent,
    format_time,
    format_usd,
    read_number,
)
from evalrun.report.model import ReportData, count_rows
from evalrun.report.price_rows import PriceRow, build_price_rows
from evalrun.report.words import word_plainly
from evalrun.resume_words import MARKED_RESUME_COMMAND
from evalrun.wall_time import read_wall_time

_DIGEST_CHARS = 12
_PROMPT_PARTS = ("system", "choice", "score")
"""Of what judges are told; rubric, reference and reply stand between the first and the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One figure of the strip, with a line under it."""

    name: str
    value: str
    note: str = ""
    is_alarming: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """The run strip, ready to be drawn."""

    title: str
    run_id: str
    description: str
    started: str
    tiles: tuple[Fact, ...]
    details: tuple[Fact, ...]
    warnings: tuple[str, ...]
    price_columns: tuple[str, ...]
    prices: tuple[PriceRow, ...]


def build_facts(data: ReportData) -> RunFacts:
    """Return the strip of a run."""
    manifest = data.manifest
    columns, prices = build_price_rows(_get(manifest, "prices"))
    return RunFacts(
        title=str(manifest.get("job_name") or "run"),
        run_id=str(manifest.get("run_id") or UNKNOWN),
        description=str(_get(manifest, "job").get("description") or ""),
        started=format_time(manifest.get("started_at")),
        tiles=_build_tiles(data),
        details=_build_details(data),
        warnings=build_warnings(data),
        price_columns=columns,
        prices=prices,
    )


def build_warnings(data: ReportData) -> tuple[str, ...]:
    """Return what a reader must know before trusting the figures, most general first."""
    found = [str(warning) for warning in data.manifest.get("warnings") or ()]
    found += _warn_of_lanes(data.manifest.get("lanes") or ())
    found += _warn_of_counts(data)
    found += _warn_of_doubts(data.manifest)
    found += _warn_of_stale_rows(_get(data.manifest, "stale"))
    found += _warn_of_names(data)
    return tuple(dict.fromkeys(word_plainly(warning, data.manifest) for warning in found))


def _build_tiles(data: ReportData) -> tuple[Fact, ...]:
    statuses = data.summary.statuses
    n_rows = sum(statuses.values())
    n_errors, n_pending = statuses.get(Status.ERROR, 0), statuses.get(Status.PENDING, 0)
    counts = count_rows(data)
    pending = f", {format_count(n_pending)} pending" if n_pending else ""
    return (
        Fact(
            name="Samples",
            value=format_count(counts.n_samples),
            note=_count(counts.n_categories, "category", "categories"),
        ),
        Fact(name="Rows", value=format_count(n_rows), note=_describe_grid(data)),
        _build_requests(data),
        Fact(
            name="Errors",
            value=format_count(n_errors),
            note=(f"{format_percent(n_errors / n_rows)} of rows{pending}" if n_rows else ""),
            is_alarming=n_errors > 0,
        ),
        _build_tokens(data),
        _build_spend(data),
        _build_wall_time(data.manifest),
    )


def _describe_grid(data: ReportData) -> str:
    n_models = len({arm.model for arm in data.summary.arms})
    n_prompts = len({arm.prompt for arm in data.summary.arms})
    n_repeats = count_rows(data).n_repeats
    parts = [_count(n_prompts, "prompt", "prompts"), _count(n_models, "model", "models")]
    if n_repeats > 1:
        parts.append(f"{n_repeats} repeats")
    return " × ".join(part for part in parts if part)


def _build_requests(data: ReportData) -> Fact:
    totals = _get(data.manifest, "totals")
    requests, attempts = read_number(totals.get("requests")), read_number(totals.get("attempts"))
    if requests is None:
        return Fact(name="Requests", value=UNKNOWN)
    notes = []
    if attempts is not None:
        n_again = _read_count(data.manifest, "asked_again_after_doubt")
        n_retries = max(attempts - requests - n_again, 0)
        notes.append(f"{format_count(attempts)} attempts, {format_count(n_retries)} retries")
        if n_again:
            notes.append(f"{n_again:,} sent once more after a crash")
    n_reused = int(read_number(totals.get("reused_rows")) or 0)
    if n_reused:
        notes.append(f"{_count(n_reused, 'row', 'rows')} taken over from older runs")
    return Fact(name="Requests", value=format_count(requests), note=", ".join(notes))


def _build_tokens(data: ReportData) -> Fact:
    totals = _get(data.manifest, "totals")
    prompt, completion = read_number(totals.get("prompt_tokens")), read_number(totals.get("completion_tokens"))
    both = None if prompt is None or completion is None else prompt + completion
    note = f"{format_compact(prompt)} in, {format_compact(completion)} out" if both is not None else ""
    return Fact(name="Tokens", value=format_compact(both), note=note)


def _build_spend(data: ReportData) -> Fact:
    totals = _get(data.manifest, "totals")
    usd, n_unknown = read_number(totals.get("usd")), int(read_number(totals.get("usd_unknown_rows")) or 0)
    what = ("row", "rows")
    notes = []
    if "billed_usd" in totals:  # An older evalrun knew what outcomes cost, and not what failed attempts took.
        usd, n_unknown = read_number(totals["billed_usd"]), _read_count(totals, "billed_unknown_attempts")
        what = ("attempt", "attempts")
    if n_unknown:
        notes.append(f"+ {_count(n_unknown, *what)} of unknown cost")
    for name, words in (("wasted_usd", "wasted"), ("estimated_usd", "of it rests on estimated tokens")):
        part = read_number(totals.get(name))
        if part:
            notes.append(f"{format_usd(part)} {words}")
    spared = read_number(totals.get("reused_usd"))
    if spared:
        notes.append(f"{format_usd(spared)} not spent again")
    notes += _compare_estimate(data.manifest)
    return Fact(name="Spend", value=format_usd(usd), note=", ".join(notes), is_alarming=n_unknown > 0)


def _compare_estimate(manifest: Mapping[str, Any]) -> list[str]:
    """Return what was expected of the last call beside what it took; an older run.json tells of the whole plan only."""
    call = _get(_get(manifest, "estimate"), "call")
    bounds = [read_number(_get(call, "usd").get(bound)) for bound in ("low", "expected", "high")]
    took, n_unknown = _get(call, "took"), read_number(_get(call, "took").get("usd_unknown"))
    if took and call.get("n_rows") and bounds[1] is not None:
        which = "last call estimated" if _read_count(manifest, "n_calls") > 1 else "estimated"
        shown = " – ".join(format_usd(bound) for bound in bounds)
        return [f"{which} {shown}, took {format_usd(read_number(took.get('usd')))}{' + unknown' if n_unknown else ''}"]
    low, high = _read_range(manifest, "usd")
    return [f"estimated {format_usd(low)} to {format_usd(high)}"] if low is not None and high is not None else []


def _build_wall_time(manifest: Mapping[str, Any]) -> Fact:
    """Return the time of all calls; that of killed ones is unknown, and the sum then a lower bound."""
    wall, notes = read_wall_time(manifest), []
    n_calls = max(_read_count(manifest, "n_calls"), 1)
    if n_calls > 1:
        notes.append(f"{n_calls:,} calls")
    is_bound = wall.seconds is not None and wall.n_unknown > 0
    if is_bound:
        notes.append(f"{wall.n_unknown:,} of unknown time")
    low, high = _read_range(manifest, "time_s")
    if low is not None and high is not None:
        notes.append(f"estimated {format_duration(low)} to {format_duration(high)}")
    return Fact(
        name="Wall time", value=("≥ " if is_bound else "") + format_duration(wall.seconds), note=", ".join(notes)
    )


def _build_details(data: ReportData) -> tuple[Fact, ...]:
    manifest = data.manifest
    digests, versions = _get(manifest, "digests"), _get(manifest, "versions")
    found = [
        Fact(name="Run", value=str(manifest.get("run_id") or UNKNOWN)),
        Fact(name="Started", value=format_time(manifest.get("started_at"))),
        Fact(name="Finished", value=format_time(manifest.get("finished_at"))),
        Fact(name="Models", value=", ".join(sorted({arm.model for arm in data.summary.arms})) or UNKNOWN),
        Fact(name="Prompts", value=", ".join(sorted({arm.prompt for arm in data.summary.arms})) or UNKNOWN),
    ]
    found += [*_tell_calls(manifest), *_tell_judges(_get(manifest, "judge"))]
    if manifest.get("job_path"):
        found.append(Fact(name="Job file", value=str(manifest["job_path"])))
    found += [
        Fact(name=f"{name.capitalize()} digest", value=str(digest)[:_DIGEST_CHARS])
        for name, digest in digests.items()
        if digest
    ]
    software = ", ".join(f"{name} {version}" for name, version in versions.items())
    found.append(Fact(name="Software", value=software or UNKNOWN))
    return tuple(found)


def _tell_calls(manifest: Mapping[str, Any]) -> list[Fact]:
    """Return how many calls a run took that was resumed, and what was sent twice for its crashes."""
    n_calls, n_again = _read_count(manifest, "n_calls"), _read_count(manifest, "asked_again_after_doubt")
    facts = [Fact(name="Calls", value=f"{n_calls:,}")] if n_calls > 1 else []
    if n_again:
        told = f"{_count(n_again, 'request, its', 'requests, their')} first cost unknown"
        facts.append(Fact(name="Sent once more after a crash", value=told))
    return facts


def _tell_judges(judge: Mapping[str, Any]) -> list[Fact]:
    """Return what judges were asked, in which words, and what it cost; nothing of a run without any."""
    n_requests = _read_count(judge, "requests")
    if not n_requests:
        return []
    counts = ", ".join(f"{count} {status}" for status, count in _get(judge, "counts").items())
    usd = format_usd(read_number(judge.get("billed_usd")))
    unknown = " and unknown" if _read_count(judge, "usd_unknown_requests") else ""
    models = judge.get("models")
    names = ", ".join(map(str, models)) if isinstance(models, list) else UNKNOWN
    prompt = _get(judge, "prompt")
    words = [Fact(name=f"Judges are told ({key})", value=str(prompt[key])) for key in _PROMPT_PARTS if key in prompt]
    return [
        Fact(name="Judges", value=f"{names}: {_count(n_requests, 'request', 'requests')} ({counts}), {usd}{unknown}"),
        *words,
    ]


def _warn_of_lanes(lanes: Sequence[Any]) -> list[str]:
    stopped = [lane for lane in lanes if isinstance(lane, Mapping) and lane.get("stopped_by")]
    return [
        f"The lane of {lane.get('model')} at {lane.get('endpoint')} was stopped by `{lane['stopped_by']}`"
        + (f": {lane['stop_message']}" if lane.get("stop_message") else ".")
        for lane in stopped
    ]


def _warn_of_counts(data: ReportData) -> list[str]:
    arms, statuses = data.summary.arms, data.summary.statuses
    counts = (
        (statuses.get(Status.PENDING, 0), f"row is pending; {MARKED_RESUME_COMMAND} goes on.",
         f"rows are pending; {MARKED_RESUME_COMMAND} goes on."),
        (statuses.get(Status.TRUNCATED, 0), "answer was cut off by the token limit.",
         "answers were cut off by the token limit."),
        (statuses.get(Status.EMPTY, 0), "answer was empty; it is graded as empty text.",
         "answers were empty; they are graded as empty text."),
        (statuses.get(Status.REFUSED, 0), "answer is a refusal.", "answers are refusals."),
        (statuses.get(Status.FILTERED, 0), "row was stopped by a content filter; it is not scored.",
         "rows were stopped by a content filter; they are not scored."),
        (sum(arm.n_ungraded for arm in arms), "answer could not be graded; it is not scored.",
         "answers could not be graded; they are not scored."),
        (sum(arm.n_usage_missing for arm in arms), "reply came without token usage.",
         "replies came without token usage."),
        (sum(arm.n_cost_unknown for arm in arms), "answer has no known cost; sums of money leave it out.",
         "answers have no known cost; sums of money leave them out."),
    )  # fmt: skip
    return [f"{count:,} {one if count == 1 else many}" for count, one, many in counts if count]


def _warn_of_doubts(manifest: Mapping[str, Any]) -> list[str]:
    """Say which requests may have been billed though nobody saw their answers."""
    n_again, n_lost = _read_count(manifest, "asked_again_after_doubt"), _read_count(manifest, "in_doubt")
    found = []
    if n_again:
        verb = (
            "was in flight when the run broke off and was"
            if n_again == 1
            else ("were in flight when the run broke off and were")
        )
        who = "it" if n_again == 1 else "they"
        found.append(
            f"{_count(n_again, 'request', 'requests')} {verb} sent once more; {who} may have been billed the first "
            "time too: that cost is unknown and in no sum here."
        )
    if n_lost:
        verb, has, who = ("was", "has", "it") if n_lost == 1 else ("were", "have", "they")
        found.append(
            f"{_count(n_lost, 'request', 'requests')} {verb} in flight when the run ended and {has} no outcome; "
            f"{who} may have been billed: that cost is unknown and in no sum here."
        )
    return found


def _warn_of_stale_rows(stale: Mapping[str, Any]) -> list[str]:
    n_rows = int(read_number(stale.get("rows")) or 0)
    if not n_rows:
        return []
    verb = "is" if n_rows == 1 else "are"
    return [f"{_count(n_rows, 'row', 'rows')} that the job no longer has {verb} kept in the journal and left out here."]


def _warn_of_names(data: ReportData) -> list[str]:
    """Say which models answered under a name that was not asked for."""
    names = Counter((row.model, row.response_model or "no name") for row in data.rows if "model_mismatch" in row.flags)
    return [
        f"{_count(count, 'reply', 'replies')} of {model} came under another name: “{other}”."
        for (model, other), count in names.items()
    ]


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}" if number else ""


def _get(mapping: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = mapping.get(key)
    return value if isinstance(value, Mapping) else {}


def _read_count(manifest: Mapping[str, Any], key: str) -> int:
    """Return a count of run.json; 0 where an older evalrun, or somebody else, wrote none."""
    value = manifest.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _read_range(manifest: Mapping[str, Any], quantity: str) -> tuple[float | None, float | None]:
    estimate = _get(_get(manifest, "estimate"), quantity)
    return read_number(estimate.get("low")), read_number(estimate.get("high"))
