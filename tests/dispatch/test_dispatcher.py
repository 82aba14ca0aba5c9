"""The dispatcher over real sockets: every row ends once, whatever the server does, and nothing is sent in vain."""

import asyncio
import gc
import gzip
import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import pytest

from evalrun.dispatch.transport import make_target
from evalrun.errors import StoreError
from evalrun.options import EndpointOptions, ProfileOptions, RetryOptions, SimulatorOptions, TimeoutOptions
from evalrun.records import (
    Attempt,
    CostSource,
    Outcome,
    Request,
    SimulatorHint,
    Started,
    Status,
    Usage,
    UsageSource,
)
from tests.dispatch.rig import FAST_RETRY, Rig, make_options, make_request, make_requests, make_rig, wait_until
from tests.fake_endpoint import (
    FakeEndpoint,
    FakeReply,
    SeenRequest,
    close_idle,
    make_chunks,
    make_completion,
    reply_error,
    reply_json,
    reply_stream,
    reply_text,
)

pytestmark = pytest.mark.anyio

ESTIMATED = UsageSource.ESTIMATED

OPEN_FILES = Path("/proc/self/fd")
UNFINISHED = make_chunks("par", "tial", finish_reason=None, usage=None)
NO_RETRY = replace(FAST_RETRY, max_attempts=1)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def count_files() -> int:
    """Return the number of open files and sockets of this process."""
    return len(list(OPEN_FILES.iterdir()))


async def test_dispatch_gives_every_row_one_outcome(endpoint: FakeEndpoint) -> None:
    """Every row is sent once and ends once, answered and priced."""
    rig = make_rig(endpoint.base_url)
    await rig.run(make_requests(30))
    assert [outcome.status for outcome in rig.outcomes.values()] == [Status.OK] * 30
    assert set(endpoint.count_prompts().values()) == {1}
    assert rig.outcomes["r0."].cost_usd == rig.outcomes["r0."].billed_usd == Decimal("0.00006")
    progress = rig.progress[0]
    assert (progress.done, progress.answered, progress.in_flight, progress.tokens) == (30, 30, 0, 450)
    assert progress.spent_usd == 30 * Decimal("0.00006")


async def test_dispatch_fills_the_outcome(endpoint: FakeEndpoint) -> None:
    """An outcome holds what was answered, when, how long it took, and the attempt with the raw reply."""
    endpoint.default = reply_text("hello", headers={"x-request-id": "req-7"})
    rig = make_rig(endpoint.base_url)
    await rig.run([make_request("one", index=3)])
    outcome = rig.outcomes["one"]
    attempt = outcome.last_attempt
    assert outcome.completion is not None
    assert attempt is not None
    assert (outcome.index, outcome.http_status, outcome.attempts, outcome.error_code) == (3, 200, 1, None)
    assert outcome.completion.output == "hello"
    assert (attempt.request_id, attempt.error_code, attempt.maybe_billed) == ("req-7", None, False)
    assert attempt.body == json.dumps(make_completion("hello"))
    assert (outcome.cost_source, outcome.first_token_s) == (CostSource.TABLE, None)
    assert outcome.started_at is not None
    assert outcome.finished_at is not None
    assert outcome.finished_at >= outcome.started_at
    assert outcome.latency_s is not None
    assert outcome.queue_s is not None
    assert rig.records == [rig.started[0], outcome]


async def test_dispatch_never_exceeds_the_concurrency_cap(endpoint: FakeEndpoint) -> None:
    """The server never sees more requests at once than the endpoint allows, over all its lanes."""
    endpoint.default = reply_text(delay_s=0.02)
    rig = make_rig(endpoint.base_url, concurrency=5)
    await rig.run(make_requests(20), make_requests(20, model="other"))
    assert (endpoint.max_in_flight, endpoint.n_connections) == (5, 5)


async def test_dispatch_records_each_start_before_its_send(endpoint: FakeEndpoint) -> None:
    """When a request reaches the server, its `Started` has been recorded."""
    rig = make_rig(endpoint.base_url)
    unrecorded: list[str] = []

    def check(seen: SeenRequest) -> FakeReply:
        if f"row-m-{seen.prompt}" not in {started.row_id for started in rig.started}:
            unrecorded.append(seen.prompt)
        return reply_text()

    endpoint.default = check
    await rig.run(make_requests(10))
    assert unrecorded == []


async def test_dispatch_takes_rows_only_as_it_sends_them(endpoint: FakeEndpoint) -> None:
    """The plan is taken as fast as requests leave: never more rows than sent ones."""
    taken: list[int] = []
    ahead: list[int] = []

    def plan() -> Iterator[Request]:
        for request in make_requests(50):
            taken.append(request.index)
            yield request

    def check(_seen: SeenRequest) -> FakeReply:
        ahead.append(len(taken) - len(endpoint.requests))
        return reply_text()

    endpoint.default = check
    await make_rig(endpoint.base_url, concurrency=3).run_iterables(("m", plan()))
    assert len(taken) == 50
    assert max(ahead) < 3


async def test_dispatch_counts_attempts_of_earlier_calls(endpoint: FakeEndpoint) -> None:
    """A resumed row's attempts and cost go on from where they were."""
    rig = make_rig(endpoint.base_url)
    await rig.run([replace(make_request("again"), prior_attempts=3, prior_billed_usd=Decimal("0.5"))])
    outcome = rig.outcomes["again"]
    assert rig.started[0].attempt == outcome.attempts == 4
    assert outcome.billed_usd == Decimal("0.50006")


async def test_dispatch_without_a_price_says_unknown(endpoint: FakeEndpoint) -> None:
    """Unknown cost is None, never 0, and is counted."""
    rig = make_rig(endpoint.base_url)
    await rig.run(make_requests(2), prices={})
    outcome = rig.outcomes["r0."]
    assert (outcome.cost_usd, outcome.billed_usd, outcome.cost_source) == (None, None, CostSource.UNKNOWN)
    assert (rig.progress[0].unknown_cost, rig.progress[0].spent_usd) == (2, Decimal(0))


@pytest.mark.parametrize("is_simulator", [True, False])
async def test_hint_reaches_simulators_only(endpoint: FakeEndpoint, is_simulator: bool) -> None:
    """The right answer is told to a simulator and to nobody else."""
    simulator = SimulatorOptions(answer="x", profiles={"m": ProfileOptions()}, url=endpoint.base_url)
    options = EndpointOptions(simulator=simulator) if is_simulator else make_options(endpoint.base_url)
    rig = Rig(target=make_target(options, environ={}))
    await rig.run([make_request("one", hint=SimulatorHint(answer="42", sample_id="s", repeat=0))])
    assert ("x-simulator-answer" in endpoint.requests[0].headers) is is_simulator


# Retries


@pytest.mark.parametrize(
    "fault",
    [
        reply_error(500),
        FakeReply(status=502, body=b"<html>bad gateway</html>"),
        reply_error(503),
        reply_error(504),
        reply_error(524),
        reply_error(529),
        reply_error(408),
        reply_error(409),
        reply_error(425),
        reply_error(429),
        reply_error(400, headers={"x-should-retry": "true"}),
        FakeReply(raw=b"", ending="rst"),
        FakeReply(raw=b"", ending="fin"),
        reply_text("x" * 300, cut_after_bytes=50, ending="rst"),
        reply_text(declared_bytes=9999, ending="fin"),
        reply_text(declared_bytes=20),
        FakeReply(body=json.dumps(make_completion()).encode()[:-30]),
        FakeReply(body=b""),
        FakeReply(body=b'{"choices": "\xff\xfe"}'),
        FakeReply(body=b"<html>please log in</html>"),
        reply_json({"choices": []}),
        reply_json({"error": {"message": "busy", "code": 502}}),
        reply_text(delay_s=3),
        reply_stream(*UNFINISHED),
        reply_stream(*UNFINISHED, has_done=False, cut_after_bytes=10_000),
        reply_stream(*UNFINISHED, has_done=False, framing="length", declared_bytes=9999, ending="rst"),
        reply_stream(b"data: {\n\n"),
        reply_stream({"error": {"message": "busy", "code": 502}}),
        reply_stream(b'event: error\ndata: {"message": "busy", "type": "overloaded_error"}\n\n'),
        reply_stream(*make_chunks("partial", finish_reason="error")),
        reply_stream(delay_s=3),
    ],
)
async def test_passing_fault_is_asked_again(endpoint: FakeEndpoint, fault: FakeReply) -> None:
    """A fault that can pass costs an attempt, not the row."""
    endpoint.default = reply_text(ending="fin")  # Each on a fresh connection: a reused one may die for nothing.
    endpoint.script_for("r1.", fault)
    rig = make_rig(endpoint.base_url, concurrency=1, timeout_s=TimeoutOptions(total=1))
    await rig.run(make_requests(3))
    assert {outcome.status for outcome in rig.outcomes.values()} == {Status.OK}
    assert [rig.outcomes[f"r{index}."].attempts for index in range(3)] == [1, 2, 1]
    assert [attempt.row_id for attempt in rig.attempts] == ["row-m-r1."]
    assert rig.progress[0].retries == 1
    assert [started.attempt for started in rig.started if started.row_id == "row-m-r1."] == [1, 2]


async def test_row_says_so_when_a_failed_attempt_left_twice(endpoint: FakeEndpoint) -> None:
    """What a server may have billed beside the attempts is flagged at the row, whichever attempt it was."""
    lost = FakeReply(raw=b"", ending="rst")
    endpoint.script(reply_text("one"), lost, lost, reply_text("two"), reply_text("three"))
    rig = make_rig(endpoint.base_url, concurrency=1)
    await rig.run(make_requests(3))
    found = sorted(rig.outcomes.values(), key=lambda outcome: outcome.index)
    assert [(each.attempts, each.completion and each.completion.flags) for each in found] == [
        (1, ()), (2, ("sent_again",)), (1, ()),
    ]  # fmt: skip
    assert len(endpoint.requests) == 3 + 2


async def test_attempts_are_bounded(endpoint: FakeEndpoint) -> None:
    """A row that always fails ends as an error after `max_attempts`; others are answered."""
    endpoint.script_for("r1.", reply_error(500, "always"), repeat_last=True)
    rig = make_rig(endpoint.base_url, retry=replace(FAST_RETRY, max_attempts=3))
    await rig.run(make_requests(3))
    outcome = rig.outcomes["r1."]
    assert endpoint.count_prompts()["r1."] == outcome.attempts == 3
    assert (outcome.status, outcome.error_code, outcome.http_status) == (Status.ERROR, "server_error", 500)
    assert (outcome.completion, outcome.error_message) == (None, "HTTP 500: always")
    assert len(rig.attempts) == 2
    assert rig.progress[0].errors == 1


async def test_retry_after_stops_the_whole_lane(endpoint: FakeEndpoint) -> None:
    """While the server asks to wait, nothing is sent on the lane; then the waiting row goes first."""
    endpoint.script_for("r2.", reply_error(429, headers={"retry-after-ms": "300"}))
    rig = make_rig(endpoint.base_url, concurrency=1)
    await rig.run(make_requests(5))
    assert endpoint.prompts == ["r0.", "r1.", "r2.", "r2.", "r3.", "r4."]
    gap_s = endpoint.requests[3].at_s - endpoint.requests[2].at_s
    assert gap_s >= 0.3
    assert rig.attempts[0].retry_after_s == 0.3
    retried = rig.outcomes["r2."].last_attempt
    assert retried is not None
    assert retried.wait_s >= 0.3


async def test_waiting_row_holds_no_slot(endpoint: FakeEndpoint) -> None:
    """While one row waits for its retry, the only slot serves the others."""
    endpoint.script_for("r0.", reply_error(500))
    retry = RetryOptions(base_s=3, max_s=3)
    rig = make_rig(endpoint.base_url, concurrency=1, retry=retry)
    endpoint.script(reply_text())
    await rig.run([make_request("first"), *make_requests(4)])
    assert endpoint.prompts == ["first", "r0.", "r1.", "r2.", "r3.", "r0."]


async def test_gate_of_one_lane_leaves_the_other_open(endpoint: FakeEndpoint) -> None:
    """A 429 makes its own lane wait, not the neighbour."""
    endpoint.script_for('"model": "m"', reply_error(429, headers={"retry-after-ms": "400"}))
    rig = make_rig(endpoint.base_url, concurrency=2)
    await rig.run(make_requests(2), make_requests(20, model="other"))
    models = [seen.json["model"] for seen in endpoint.requests]
    assert models.index("m", models.index("m") + 2) > 20
    assert {outcome.status for outcome in rig.outcomes.values()} == {Status.OK}


async def test_slow_lane_does_not_starve_a_fast_one(endpoint: FakeEndpoint) -> None:
    """Each lane keeps its share of the slots, however slow the other one is."""
    endpoint.script_for('"model": "m"', reply_text(delay_s=0.5), repeat_last=True)
    rig = make_rig(endpoint.base_url, concurrency=4)
    await rig.run(make_requests(6), make_requests(60, model="quick"))
    quick_done_at = max(seen.at_s for seen in endpoint.requests if seen.json["model"] == "quick")
    slow_started = [seen.at_s for seen in endpoint.requests if seen.json["model"] == "m"]
    assert quick_done_at < slow_started[4]


# Rows that end as errors, filtered, or otherwise


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (reply_error(400, "temperature?"), "bad_request"),
        (reply_error(413), "bad_request"),
        (reply_error(415), "bad_request"),
        (reply_error(422), "bad_request"),
        (reply_error(400, code="context_length_exceeded"), "context_length"),
        (reply_error(500, headers={"x-should-retry": "false"}), "server_error"),
        (reply_json({"error": {"message": "no", "code": 400}}), "error_in_200"),
    ],
)
async def test_permanent_refusal_costs_one_request(endpoint: FakeEndpoint, reply: FakeReply, code: str) -> None:
    """A refusal that will not pass is an error at once, certainly unbilled when it is an HTTP error."""
    endpoint.script_for("r1.", reply, repeat_last=True)
    rig = make_rig(endpoint.base_url, concurrency=1)
    await rig.run(make_requests(3))
    outcome = rig.outcomes["r1."]
    assert endpoint.count_prompts()["r1."] == 1
    assert (outcome.status, outcome.error_code) == (Status.ERROR, code)
    is_http_error = outcome.http_status != 200
    assert (outcome.cost_usd == 0) is is_http_error
    assert outcome.is_billed_estimated is not is_http_error
    assert outcome.last_attempt is not None
    assert outcome.last_attempt.maybe_billed is not is_http_error
    assert outcome.is_permanent is (code == "error_in_200")
    assert rig.progress[0].stopped_by is None


@pytest.mark.parametrize("status", [504, 524])
async def test_reply_that_a_proxy_did_not_wait_for_may_be_billed(endpoint: FakeEndpoint, status: int) -> None:
    """Behind a proxy that gave up, the model may go on and bill: as much as it says on average, never nothing."""
    endpoint.script_for("r1.", reply_error(status), reply_text("late"))
    rig = make_rig(endpoint.base_url, concurrency=1)
    await rig.run(make_requests(2))
    (attempt,) = rig.attempts
    assert (attempt.maybe_billed, attempt.usage.source, attempt.cost_source) == (True, ESTIMATED, CostSource.TABLE)
    assert (attempt.usage.completion_tokens, attempt.usage.raw) == (5, None)
    outcome = rig.outcomes["r1."]
    assert (outcome.cost_usd, outcome.is_billed_estimated) == (Decimal("0.00006"), True)
    assert outcome.billed_usd == Decimal("0.00006") + (attempt.cost_usd or 0) > Decimal("0.0001")
    assert rig.progress[0].spent_usd == sum(each.billed_usd or 0 for each in rig.outcomes.values())


async def test_request_too_large_says_its_size(endpoint: FakeEndpoint) -> None:
    """A 413 tells how large the request was."""
    endpoint.script(reply_error(413, "too large"))
    rig = make_rig(endpoint.base_url)
    request = make_request("x" * 5000)
    await rig.run([request])
    assert f"{len(request.body)} bytes" in str(next(iter(rig.outcomes.values())).error_message)


@pytest.mark.parametrize("is_stream", [False, True])
async def test_call_cut_by_a_proxy_advises_streams(endpoint: FakeEndpoint, is_stream: bool) -> None:
    """A 504 tells whoever does not stream that streams outlive proxies."""
    endpoint.script_for("cut", FakeReply(status=504, body=b"<html>gateway time-out</html>"), repeat_last=True)
    rig = make_rig(endpoint.base_url, retry=NO_RETRY, stream=is_stream)
    await rig.run([make_request("fine"), make_request("cut")])
    assert ("stream: true" in str(rig.outcomes["cut"].error_message)) is not is_stream


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (reply_json(make_completion("half", finish_reason="length")), Status.TRUNCATED),
        (reply_json(make_completion(None, message={"refusal": "no"})), Status.REFUSED),
        (reply_json(make_completion("")), Status.EMPTY),
        (reply_json(make_completion("x", finish_reason="content_filter")), Status.FILTERED),
        (reply_error(400, code="content_filter"), Status.FILTERED),
        (reply_error(403, "Your input was flagged", code=403), Status.FILTERED),
    ],
)
async def test_every_kind_of_answer_ends_its_row(endpoint: FakeEndpoint, reply: FakeReply, status: Status) -> None:
    """Truncated, refused, empty and filtered rows are finished: asked once, without an error code."""
    endpoint.script(reply)
    rig = make_rig(endpoint.base_url)
    await rig.run([make_request("one")])
    outcome = rig.outcomes["one"]
    assert (outcome.status, outcome.error_code, len(endpoint.requests)) == (status, None, 1)
    assert outcome.completion is not None
    assert (outcome.completion.output is None) is (status is Status.FILTERED)
    assert (rig.progress[0].done, rig.progress[0].errors) == (1, 0)


async def test_deadline_may_have_been_billed(endpoint: FakeEndpoint) -> None:
    """A row that timed out after its body was sent may have cost something, and is asked again `max_timeouts` times."""
    endpoint.script_for("slow", reply_text(delay_s=30), repeat_last=True)
    rig = make_rig(endpoint.base_url, timeout_s=TimeoutOptions(total=1), retry=replace(FAST_RETRY, max_timeouts=1))
    await rig.run([make_request("quick"), make_request("slow", index=1)])
    outcome = rig.outcomes["slow"]
    assert (outcome.status, outcome.error_code, outcome.attempts) == (Status.ERROR, "timeout_total", 2)
    assert (outcome.usage.source, outcome.completion, outcome.is_billed_estimated) == (ESTIMATED, None, True)
    assert outcome.billed_usd == (rig.attempts[0].cost_usd or 0) + (outcome.cost_usd or 0) > Decimal("0.0001")
    assert rig.attempts[0].maybe_billed
    assert (rig.attempts[0].latency_s, rig.attempts[0].bytes_received) == (None, 0)


async def test_answer_after_a_lost_reply_has_an_estimated_bill(endpoint: FakeEndpoint) -> None:
    """The outcome's own cost is known; what all attempts cost together holds an estimate, and says so."""
    endpoint.script(reply_text(), FakeReply(body=b"<html>"))
    rig = make_rig(endpoint.base_url, concurrency=1)
    await rig.run(make_requests(2))
    outcome = rig.outcomes["r1."]
    assert (outcome.cost_usd, outcome.usage.source) == (Decimal("0.00006"), UsageSource.REPORTED)
    assert (outcome.billed_usd or 0) > Decimal("0.0001")
    assert [each.is_billed_estimated for each in rig.outcomes.values()] == [False, True]


async def test_bill_that_held_an_estimate_before_a_resume_holds_one_after_it(endpoint: FakeEndpoint) -> None:
    """What earlier calls estimated stays part of the sum, and said; also of a row that is given back."""
    rig = make_rig(endpoint.base_url)
    request = make_request("again")
    await rig.run([replace(request, prior_attempts=1, prior_billed_usd=Decimal("0.5"), is_prior_estimated=True)])
    outcome = rig.outcomes["again"]
    assert (outcome.billed_usd, outcome.is_billed_estimated) == (Decimal("0.50006"), True)


async def test_bill_of_unknown_sum_holds_no_estimate(endpoint: FakeEndpoint) -> None:
    """Without a price there are tokens to be estimated, and no cost: it stays unknown."""
    endpoint.script(FakeReply(body=b"<html>"))
    rig = make_rig(endpoint.base_url)
    await rig.run(make_requests(1), prices={})
    (attempt,) = rig.attempts
    assert (attempt.usage.source, attempt.cost_usd, attempt.cost_source) == (ESTIMATED, None, CostSource.UNKNOWN)
    outcome = rig.outcomes["r0."]
    assert (outcome.billed_usd, outcome.is_billed_estimated) == (None, False)


async def test_reply_without_usage_is_estimated_from_its_texts(endpoint: FakeEndpoint) -> None:
    """Its tokens and its cost are estimates that say so; what it says counts, and what the prompt holds."""
    endpoint.default = reply_json({**make_completion("word " * 200), "usage": None})
    rig = make_rig(endpoint.base_url)
    await rig.run([make_request("short"), make_request("word " * 400, index=1)])
    short, long = rig.outcomes.values()
    assert short.completion is not None
    assert (short.usage.source, short.usage, short.usage.raw) == (ESTIMATED, short.completion.usage, None)
    assert 150 < (short.usage.completion_tokens or 0) < 260
    assert (long.usage.prompt_tokens or 0) - (short.usage.prompt_tokens or 0) > 300
    assert short.cost_usd == short.billed_usd
    assert (short.cost_usd or 0) > Decimal("0.0015")
    assert short.is_billed_estimated


async def test_reply_without_usage_and_words_has_an_unknown_cost(endpoint: FakeEndpoint) -> None:
    """There is nothing to go by: its tokens are null, and so is its cost, never 0."""
    endpoint.default = reply_json({**make_completion(""), "usage": None})
    rig = make_rig(endpoint.base_url)
    await rig.run([make_request("one")])
    outcome = rig.outcomes["one"]
    assert (outcome.status, outcome.usage, outcome.cost_usd) == (Status.EMPTY, Usage(), None)
    assert (outcome.billed_usd, outcome.is_billed_estimated) == (None, False)


async def test_failed_reply_that_tells_its_usage_is_billed_so(endpoint: FakeEndpoint) -> None:
    """A completion without choices tells what it took: nothing is estimated."""
    endpoint.script(reply_json({**make_completion(), "choices": []}))
    rig = make_rig(endpoint.base_url)
    await rig.run([make_request("one")])
    (attempt,) = rig.attempts
    assert (attempt.usage.source, attempt.cost_usd) == (UsageSource.REPORTED, Decimal("0.00006"))
    outcome = rig.outcomes["one"]
    assert (outcome.billed_usd, outcome.is_billed_estimated) == (Decimal("0.00012"), False)


async def test_answer_after_a_refusal_has_a_known_bill(endpoint: FakeEndpoint) -> None:
    """HTTP errors are not billed: the sum stays known."""
    endpoint.script(reply_text(), reply_error(500), reply_error(429))
    rig = make_rig(endpoint.base_url, concurrency=1)
    await rig.run(make_requests(2))
    assert rig.outcomes["r1."].billed_usd == Decimal("0.00006")
    assert [attempt.cost_usd for attempt in rig.attempts] == [0, 0]


async def test_body_beyond_the_cap_is_an_error(endpoint: FakeEndpoint) -> None:
    """A body over 64 MiB is not asked for again."""
    endpoint.script(FakeReply(body=gzip.compress(bytes(65 * 1024**2), 1), headers={"content-encoding": "gzip"}))
    rig = make_rig(endpoint.base_url)
    await rig.run([make_request("one")])
    outcome = rig.outcomes["one"]
    assert (outcome.error_code, len(endpoint.requests)) == ("body_too_large", 1)


async def test_secrets_do_not_reach_the_records(endpoint: FakeEndpoint) -> None:
    """A key that the server echoes is masked in answers, errors and raw replies, and the row is flagged."""
    key = "sk-canary-0123456789"
    endpoint.script(reply_text(f"key {key}"), reply_error(400, f"bad {key}"), reply_error(500, key))
    rig = make_rig(endpoint.base_url, concurrency=1, api_key_env="KEY", environ={"KEY": key})
    await rig.run(make_requests(3))
    assert key not in repr(rig.records)
    completion = rig.outcomes["r0."].completion
    assert completion is not None
    assert (completion.output, completion.flags) == ("key ***", ("redacted",))


@pytest.mark.parametrize("field", ["content", "reasoning_details"])
async def test_secret_spread_over_parts_is_masked(endpoint: FakeEndpoint, field: str) -> None:
    """A key that comes in pieces, part by part, does not come together in our tables."""
    key = "sk-canary-0123456789"
    parts = [{"type": "text", "text": piece} for piece in ("my ", key[:7], key[7:15], key[15:])]
    endpoint.default = reply_json(make_completion("x", message={field: parts}))
    rig = make_rig(endpoint.base_url, api_key_env="KEY", environ={"KEY": key})
    await rig.run([make_request("one")])
    completion = rig.outcomes["one"].completion
    assert completion is not None
    assert key not in repr(rig.records)
    assert "my ***" in {completion.output, completion.reasoning}
    assert "redacted" in completion.flags


# Stopped lanes


@pytest.mark.parametrize(
    ("reply", "code", "hint"),
    [
        (reply_error(401), "auth", "check the key in KEY"),
        (reply_error(402), "quota", "add credit"),
        (reply_error(429, code="insufficient_quota"), "quota", "add credit"),
        (reply_error(403), "forbidden", "may not use this model"),
        (reply_error(404), "model_not_found", "/v1/chat/completions"),
        (FakeReply(status=307, headers={"location": "https://elsewhere.test/"}), "redirect", "elsewhere.test"),
    ],
)
async def test_lane_stops_at_the_first_refusal(endpoint: FakeEndpoint, reply: FakeReply, code: str, hint: str) -> None:
    """Key, money, right or model refused: at most what was in flight is sent, its rows stay pending."""
    endpoint.default = reply
    rig = make_rig(endpoint.base_url, concurrency=4, api_key_env="KEY", environ={"KEY": "sk-canary-0123456789"})
    await rig.run(make_requests(100))
    assert len(endpoint.requests) <= 5
    assert {(outcome.status, outcome.error_code) for outcome in rig.outcomes.values()} == {(Status.PENDING, code)}
    progress = rig.progress[0]
    assert (progress.stopped_by, progress.done) == (code, 0)
    assert hint in str(progress.stop_message)
    assert "--resume" in str(progress.stop_message)
    assert "sk-canary" not in str(progress.stop_message)


@pytest.mark.parametrize(("reply", "is_shared"), [(reply_error(401), True), (reply_error(404), False)])
async def test_refused_key_stops_every_lane_of_the_endpoint(
    endpoint: FakeEndpoint, reply: FakeReply, is_shared: bool
) -> None:
    """A wrong key is wrong for all models; a missing model is missing alone."""
    endpoint.script_for('"model": "m"', reply, repeat_last=True)
    endpoint.default = reply_text(delay_s=0.05)
    rig = make_rig(endpoint.base_url, concurrency=4)
    await rig.run(make_requests(50), make_requests(50, model="other"))
    assert (rig.progress[1].stopped_by is not None) is is_shared
    assert (rig.progress[1].done == 50) is not is_shared


async def test_rows_waiting_when_their_lane_stops_are_given_back(endpoint: FakeEndpoint) -> None:
    """A row between two attempts is pending with `lane_stopped`; its attempts and their cost are kept."""
    endpoint.script_for("r0.", reply_error(500))
    endpoint.script_for("r1.", reply_error(402, delay_s=0.05))
    rig = make_rig(endpoint.base_url, concurrency=1, retry=RetryOptions(base_s=30, max_s=60))
    endpoint.script(reply_text())
    await rig.run([make_request("first"), *make_requests(5)])
    outcome = rig.outcomes["r0."]
    assert (outcome.status, outcome.error_code, outcome.attempts) == (Status.PENDING, "lane_stopped", 1)
    assert (outcome.last_attempt, outcome.billed_usd) == (None, Decimal(0))
    assert set(rig.outcomes) == {"first", "r0.", "r1."}


async def test_row_that_fails_after_its_lane_stopped_is_given_back(endpoint: FakeEndpoint) -> None:
    """A row in flight when its lane stops is not asked again: pending, its attempt kept."""
    endpoint.script_for("r0.", reply_error(500, delay_s=0.3))
    endpoint.script_for("r1.", reply_error(402))
    rig = make_rig(endpoint.base_url, concurrency=2)
    await rig.run(make_requests(10))
    outcome = rig.outcomes["r0."]
    assert (outcome.status, outcome.error_code) == (Status.PENDING, "lane_stopped")
    assert [attempt.row_id for attempt in rig.attempts] == ["row-m-r0."]
    assert len(endpoint.requests) == 2


async def test_pause_beyond_the_limit_stops_the_lane(endpoint: FakeEndpoint) -> None:
    """A server that asks for a day is not waited for: rows stay pending, the hour to resume at is told."""
    endpoint.default = reply_error(429, headers={"retry-after": "86400"})
    rig = make_rig(endpoint.base_url, concurrency=1)
    await rig.run(make_requests(20))
    assert len(endpoint.requests) == 1
    assert rig.outcomes["r0."].status is Status.PENDING
    assert rig.progress[0].stopped_by == "rate_limited"
    assert "asks to wait 86400 s, until 20" in str(rig.progress[0].stop_message)


async def test_first_rows_refused_alike_stop_the_lane(endpoint: FakeEndpoint) -> None:
    """A job whose every request is bad burns twenty rows and what was in flight, not the dataset."""
    endpoint.default = reply_error(400, "no such parameter")
    rig = make_rig(endpoint.base_url, concurrency=4)
    await rig.run(make_requests(500))
    assert 20 <= len(endpoint.requests) <= 24
    assert {outcome.status for outcome in rig.outcomes.values()} == {Status.ERROR}
    assert rig.progress[0].stopped_by == "bad_request"
    assert "no such parameter" in str(rig.progress[0].stop_message)


@pytest.mark.parametrize(("n_rows", "concurrency"), [(100, 4), (1, 4), (100, 1), (3, 8)])
async def test_endpoint_that_is_down_from_the_start_stops_its_lane(n_rows: int, concurrency: int) -> None:
    """Refused connections end after concurrency + 10 attempts; rows stay pending, none is an error."""
    rig = make_rig(f"http://127.0.0.1:{free_port()}/v1", concurrency=concurrency)
    await rig.run(make_requests(n_rows))
    assert len(rig.started) <= concurrency + 10
    assert {outcome.status for outcome in rig.outcomes.values()} == {Status.PENDING}
    assert {outcome.billed_usd for outcome in rig.outcomes.values()} == {0}
    progress = rig.progress[0]
    assert (progress.stopped_by, progress.errors, progress.in_flight) == ("connect", 0, 0)
    assert "Connection refused" in str(progress.stop_message)
    assert "--resume" in str(progress.stop_message)


async def test_endpoint_that_comes_up_late_is_served(endpoint: FakeEndpoint) -> None:
    """Failures before the first answer slow the lane down; afterwards every row is answered."""
    endpoint.script(*[reply_error(503)] * 9)
    rig = make_rig(endpoint.base_url, concurrency=4)
    await rig.run(make_requests(40))
    assert {outcome.status for outcome in rig.outcomes.values()} == {Status.OK}
    assert len(endpoint.requests) == 49
    assert rig.progress[0].stopped_by is None


async def test_bad_first_row_does_not_pass_for_an_outage(endpoint: FakeEndpoint) -> None:
    """A first row that always fails is an error of its own once others are answered."""
    endpoint.script_for("r0.", reply_error(500), repeat_last=True)
    rig = make_rig(endpoint.base_url, concurrency=1, retry=NO_RETRY)
    await rig.run(make_requests(10))
    statuses = [rig.outcomes[f"r{index}."].status for index in range(10)]
    assert statuses == [Status.ERROR] + [Status.OK] * 9
    assert rig.progress[0].stopped_by is None


# The end, asked for or forced


async def test_stop_drains_what_is_in_flight(endpoint: FakeEndpoint) -> None:
    """After a stop nothing new is sent, and what was in flight still comes back."""
    rig = make_rig(endpoint.base_url, concurrency=4)
    endpoint.default = reply_text(delay_s=0.2)
    async with anyio.create_task_group() as group:
        group.start_soon(rig.run, make_requests(100))
        await wait_until(lambda: len(endpoint.requests) == 4)
        rig.stop.request()
    assert len(endpoint.requests) == len(rig.outcomes) == 4
    assert {outcome.status for outcome in rig.outcomes.values()} == {Status.OK}
    assert rig.progress[0].stopped_by is None


async def test_stop_gives_back_rows_that_wait(endpoint: FakeEndpoint) -> None:
    """A row between two attempts is pending with `interrupted`, at once."""
    endpoint.script(reply_text(), reply_error(500))
    rig = make_rig(endpoint.base_url, concurrency=1, retry=RetryOptions(base_s=60, max_s=60))
    async with anyio.create_task_group() as group:
        group.start_soon(rig.run, make_requests(2))
        await wait_until(lambda: bool(rig.attempts))
        rig.stop.request()
    outcome = rig.outcomes["r1."]
    assert (outcome.status, outcome.error_code, outcome.attempts) == (Status.PENDING, "interrupted", 1)


async def test_stop_keeps_the_code_of_rows_that_never_heard_an_answer(endpoint: FakeEndpoint) -> None:
    """A row that is not to be asked again on a silent lane is pending with its own code when the run is stopped."""
    endpoint.default = reply_error(500, headers={"x-should-retry": "false"})
    rig = make_rig(endpoint.base_url, concurrency=1, retry=RetryOptions(max_attempts=1, base_s=60, max_s=60))
    async with anyio.create_task_group() as group:
        group.start_soon(rig.run, make_requests(5))
        await wait_until(lambda: bool(rig.progress) and rig.progress[0].waiting_until_s > 0)
        rig.stop.request()
    outcome = rig.outcomes["r0."]
    assert (outcome.status, outcome.error_code, outcome.attempts) == (Status.PENDING, "server_error", 1)
    assert rig.progress[0].stopped_by is None


async def test_cancel_leaves_rows_in_flight_in_doubt(endpoint: FakeEndpoint) -> None:
    """Rows given up in flight have a start and no outcome; nothing hangs."""
    rig = make_rig(endpoint.base_url, concurrency=4)
    endpoint.default = reply_text(delay_s=20)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(rig.run, make_requests(100))
            await wait_until(lambda: len(endpoint.requests) == 4)
            rig.stop.cancel()
    assert (len(rig.started), len(rig.outcomes), rig.progress[0].in_flight) == (4, 0, 0)


async def test_stop_before_the_start_sends_nothing(endpoint: FakeEndpoint) -> None:
    """A dispatch that is stopped already ends at once."""
    rig = make_rig(endpoint.base_url)
    rig.stop.request()
    await rig.run(make_requests(10))
    rig.stop.cancel()
    await rig.run(make_requests(10))
    assert (endpoint.requests, rig.records) == ([], [])


@pytest.mark.parametrize("at", [Started, Attempt, Outcome])
async def test_failure_to_record_ends_the_dispatch(endpoint: FakeEndpoint, at: type[Any]) -> None:
    """What the journal raises comes out unwrapped, and nothing more is sent."""
    # Every reply fails, or answers, so that each of them comes to the record that cannot be written.
    endpoint.default = reply_error(500) if at is Attempt else reply_text()
    rig = make_rig(endpoint.base_url, concurrency=2)

    def record(item: Any) -> None:
        if isinstance(item, at):
            msg = "disk full"
            raise StoreError(msg)

    with pytest.raises(StoreError, match="disk full"):
        await rig.run(make_requests(100), make_requests(100, model="other"), on_record=record)
    assert len(endpoint.requests) <= 4


async def test_failure_of_the_plan_ends_the_dispatch(endpoint: FakeEndpoint) -> None:
    """An exception of a lane's iterator comes out as it is."""

    def plan() -> Iterator[Request]:
        yield from make_requests(3)
        msg = "template"
        raise LookupError(msg)

    with pytest.raises(LookupError, match="template"):
        await make_rig(endpoint.base_url).run_iterables(("m", plan()))


async def test_several_endpoints_run_side_by_side(endpoint: FakeEndpoint) -> None:
    """One endpoint that is down does not keep another one from finishing."""
    rig = make_rig(endpoint.base_url)
    down = make_rig(f"http://127.0.0.1:{free_port()}/v1")
    async with anyio.create_task_group() as group:
        group.start_soon(rig.run, make_requests(20))
        group.start_soon(down.run, make_requests(20))
    assert rig.progress[0].done == 20
    assert down.progress[0].stopped_by == "connect"


# Faults in a crowd, and what is left behind


async def test_crowd_with_faults_loses_and_doubles_nothing(endpoint: FakeEndpoint) -> None:
    """A thousand rows with a fault in every fifth reply: each ends once, and the ledger agrees."""
    faults = [
        FakeReply(raw=b"", ending="rst"),
        reply_text("x" * 300, cut_after_bytes=50, ending="rst"),
        reply_error(503),
        FakeReply(body=b'{"choices'),
        close_idle(reply_error(500)),
    ]

    left = {f"r{index}.": faults[index // 5 % len(faults)] for index in range(0, 1000, 5)}
    endpoint.default = lambda seen: left.pop(seen.prompt, None) or reply_text(seen.prompt)
    rig = make_rig(endpoint.base_url, concurrency=16)
    await rig.run(make_requests(1000))
    outcomes = [record for record in rig.records if isinstance(record, Outcome)]
    assert len(outcomes) == len(rig.outcomes) == 1000
    wrong = [row for row, outcome in rig.outcomes.items() if outcome.completion and outcome.completion.output != row]
    assert wrong == []
    assert {outcome.status for outcome in outcomes} == {Status.OK}
    assert sum(outcome.attempts for outcome in outcomes) == len(rig.started)
    assert len(rig.attempts) == len(rig.started) - 1000 == rig.progress[0].retries
    assert len(endpoint.requests) == 1200


async def test_connections_closed_while_idle_cost_no_row(endpoint: FakeEndpoint) -> None:
    """A server that hangs up after each reply, unannounced, causes no row error over many rows."""
    endpoint.default = close_idle(reply_text())
    rig = make_rig(endpoint.base_url, concurrency=8)
    await rig.run(make_requests(300))
    assert {outcome.status for outcome in rig.outcomes.values()} == {Status.OK}


async def test_first_retry_of_a_dead_connection_is_free(endpoint: FakeEndpoint) -> None:
    """A row whose connection had died while idle is sent on a fresh one, once at the server, as its first attempt."""
    endpoint.default = close_idle(reply_text())
    rig = make_rig(endpoint.base_url, concurrency=1)
    await rig.run(make_requests(100))
    assert {(outcome.status, outcome.attempts) for outcome in rig.outcomes.values()} == {(Status.OK, 1)}
    assert (set(endpoint.count_prompts().values()), rig.progress[0].retries) == ({1}, 0)


@pytest.mark.skipif(not OPEN_FILES.exists(), reason="counts open files through /proc")
async def test_dispatch_leaves_no_task_and_no_socket(endpoint: FakeEndpoint) -> None:
    """Answers, faults, deadlines and a cancel leave the process as they found it."""
    endpoint.script(reply_error(500), FakeReply(raw=b"", ending="rst"), reply_text(delay_s=10), FakeReply(body=b"<"))

    async def run_all() -> None:
        rig = make_rig(endpoint.base_url, concurrency=8, timeout_s=TimeoutOptions(total=0.3))
        await rig.run(make_requests(50))
        assert len(rig.outcomes) == 50

    await run_all()
    await anyio.sleep(0.05)
    gc.collect()
    n_files, n_tasks = count_files(), len(asyncio.all_tasks())
    await run_all()
    await anyio.sleep(0.05)
    gc.collect()
    assert len(asyncio.all_tasks()) == n_tasks
    assert count_files() <= n_files
