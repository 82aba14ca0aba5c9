"""Tests of a chat completion from request to ledger: limits, quirks, streams, large bodies, over real HTTP."""

import json
import re
from functools import partial
from typing import Any

import anyio
import httpx
import pytest

from evalrun.options import ProfileOptions, SimulatedLimits
from evalrun.simulator import chat
from evalrun.simulator.answer_book import AnswerBook, KnownAnswer
from evalrun.simulator.ledger import Ledger
from tests.simulator.asking import HANG_GUARD_S, connect, make_body, make_headers, make_options, make_raw_request
from tests.simulator.test_gateway import CHAT, open_client

pytestmark = pytest.mark.anyio
ENDINGS = ("completions", "errors", "rate_limited", "quota_refused", "quirked", "abandoned")


def make_limited(*, latency_ms: float = 0, quirks: dict[str, float] | None = None, **limits: Any) -> Any:
    """Return options of one model with limits."""
    profile = ProfileOptions(
        accuracy=1, latency_ms=latency_ms, latency_spread=0, quirks=quirks or {}, limits=SimulatedLimits(**limits)
    )
    return make_options(careful=profile)


def read_totals(ledger: Ledger) -> dict[str, int]:
    """Return the counts that are not 0, once each request is seen to have ended in one way."""
    totals = ledger.to_json()["totals"]
    assert totals["requests"] == sum(totals[name] for name in ENDINGS) + ledger.in_flight
    return {name: count for name, count in totals.items() if count}


async def wait_until_idle(ledger: Ledger) -> None:
    """Let the server end what it is at."""
    with anyio.fail_after(HANG_GUARD_S):
        while ledger.in_flight:  # noqa: ASYNC110 - the server tells no event
            await anyio.sleep(0.01)


async def test_rate_limit_is_told_and_counted_apart() -> None:
    """Over the limit comes a 429 in OpenAI's words with Retry-After and headers, nothing is billed."""
    options = make_limited(requests_per_minute=3, headers="openai")
    async with open_client(options) as (simulator, client):
        replies = [await client.post(CHAT, json=make_body(str(i))) for i in range(5)]
    assert [reply.status_code for reply in replies] == [200, 200, 200, 429, 429]
    error = replies[3].json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("requests", "rate_limit_exceeded", None)
    assert 1 <= int(replies[3].headers["retry-after"]) <= 20
    assert [reply.headers["x-ratelimit-remaining-requests"] for reply in replies] == ["2", "1", "0", "0", "0"]
    assert replies[0].headers["x-ratelimit-limit-requests"] == "3"
    totals = read_totals(simulator.ledger)
    assert (totals["completions"], totals["rate_limited"]) == (3, 2)
    billed = sum(reply.json()["usage"]["total_tokens"] for reply in replies[:3])
    assert totals["total_tokens"] == billed


@pytest.mark.parametrize(
    ("form", "headers"),
    [
        ("seconds", {"retry-after": r"\d+"}),
        ("ms", {"retry-after": r"\d+", "retry-after-ms": r"\d+"}),
        ("float", {"retry-after": r"\d+\.\d{3}"}),
        ("date", {"retry-after": r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT"}),
        ("none", {}),
    ],
)
async def test_retry_after_comes_in_the_form_asked_for(form: str, headers: dict[str, str]) -> None:
    """The profile says how a 429 tells the wait, or that it does not."""
    async with open_client(make_limited(requests_per_minute=1, retry_after=form)) as (_, client):
        await client.post(CHAT, json=make_body())
        refused = await client.post(CHAT, json=make_body())
    told = {name: value for name, value in refused.headers.items() if name.startswith("retry-after")}
    assert refused.status_code == 429
    assert set(told) == set(headers)
    assert all(re.fullmatch(headers[name], value) for name, value in told.items())


@pytest.mark.parametrize("params", [{"max_tokens": 40}, {"max_completion_tokens": 20, "n": 2}])
async def test_token_limit_takes_what_a_request_may_use(params: dict[str, Any]) -> None:
    """Prompt and most possible output count before a token is made, whatever is used in the end."""
    async with open_client(make_limited(tokens_per_minute=100, headers="openai")) as (_, client):
        first = await client.post(CHAT, json=make_body(**params), headers=make_headers("4"))
        second = await client.post(CHAT, json=make_body(**params), headers=make_headers("4"))
    prompt_tokens = first.json()["usage"]["prompt_tokens"]
    assert int(first.headers["x-ratelimit-remaining-tokens"]) == pytest.approx(100 - prompt_tokens - 40, abs=1)
    assert (second.status_code, second.json()["error"]["type"]) == (429, "tokens")


async def test_token_limit_takes_unlimited_output_afterwards() -> None:
    """Where a request sets no limit, its prompt and what was made count."""
    async with open_client(make_limited(tokens_per_minute=1000, headers="openai")) as (_, client):
        reply = await client.post(CHAT, json=make_body(), headers=make_headers("one two three"))
    used = reply.json()["usage"]["total_tokens"]
    assert int(reply.headers["x-ratelimit-remaining-tokens"]) == pytest.approx(1000 - used, abs=1)


async def test_concurrency_limit_frees_places() -> None:
    """More at once than allowed are refused; when those under way have ended, others pass."""
    options = make_limited(concurrency=2, latency_ms=300)
    statuses: list[int] = []
    async with open_client(options) as (simulator, client):

        async def ask(question: str) -> None:
            statuses.append((await client.post(CHAT, json=make_body(question))).status_code)

        async with anyio.create_task_group() as tasks:
            for i in range(6):
                tasks.start_soon(ask, str(i))
        await ask("later")
    assert sorted(statuses) == [200, 200, 200, 429, 429, 429, 429]
    assert read_totals(simulator.ledger)["rate_limited"] == 4


async def test_client_that_leaves_frees_its_place() -> None:
    """A request that is abandoned counts as over for the concurrency limit."""
    async with open_client(make_limited(concurrency=1, latency_ms=60_000), grace_s=0) as (simulator, client):
        body = make_body(stream=True)
        async with await connect(simulator.url) as stream:
            await stream.send(make_raw_request(body))
            while not simulator.ledger.in_flight:  # noqa: ASYNC110 - the server tells no event
                await anyio.sleep(0.01)
            assert (await client.post(CHAT, json=body)).status_code == 429
    assert simulator.ledger.in_flight == 0


async def test_quota_wall_stands_once_the_tokens_are_spent() -> None:
    """After so many billed tokens every request is a 429 that no waiting helps, and it is counted as such."""
    async with open_client(make_limited(quota_tokens=20)) as (simulator, client):
        replies = [await client.post(CHAT, json=make_body(), headers=make_headers("4")) for _ in range(8)]
    statuses = [reply.status_code for reply in replies]
    n_paid = statuses.count(200)
    spent = [reply.json()["usage"]["total_tokens"] for reply in replies[:n_paid]]
    assert statuses == [200] * n_paid + [429] * (8 - n_paid)
    assert sum(spent) >= 20 > sum(spent[:-1])
    assert replies[-1].json()["error"]["code"] == "insufficient_quota"
    assert "retry-after" not in replies[-1].headers
    totals = read_totals(simulator.ledger)
    assert (totals["quota_refused"], totals["total_tokens"]) == (8 - n_paid, sum(spent))


async def test_ramp_that_is_too_steep_is_slowed_down() -> None:
    """A burst beyond the growth allowed gets 503 slow_down with Retry-After."""
    async with open_client(make_limited(max_growth=1.5)) as (_, client):
        replies = [await client.post(CHAT, json=make_body(str(i))) for i in range(40)]
    refused = [reply for reply in replies if reply.status_code == 503]
    assert refused
    assert {reply.json()["error"]["code"] for reply in refused} == {"slow_down"}
    assert all("retry-after" in reply.headers for reply in refused)


async def test_proxy_cuts_a_long_reply_that_is_not_streamed() -> None:
    """After `max_duration_s` a proxy's page comes, the reply is billed all the same; a streamed one outlives it."""
    options = make_limited(latency_ms=400, max_duration_s=0.05)
    async with open_client(options) as (simulator, client):
        cut = await client.post(CHAT, json=make_body())
        streamed = await client.post(CHAT, json=make_body(stream=True))
    assert (cut.status_code, cut.headers["content-type"]) == (504, "text/html")
    assert "Gateway Time-out" in cut.text
    assert streamed.text.endswith("data: [DONE]\n\n")
    totals = read_totals(simulator.ledger)
    assert (totals["errors"], totals["completions"]) == (1, 1)
    keys = [line["total_tokens"] for line in simulator.ledger.to_json(has_detail=True)["detail"]]
    assert len(keys) == 1
    assert keys[0] > 0


async def test_stream_counts_as_delivered_when_all_was_taken() -> None:
    """A client that reads to the end makes a completion; one that leaves in the middle an abandoned request, billed."""
    profile = ProfileOptions(accuracy=1, latency_ms=0, tokens_per_s=200)
    headers = make_headers("word " * 400)
    async with open_client(make_options(careful=profile)) as (simulator, client):
        body = make_body(stream=True, stream_options={"include_usage": True}, max_tokens=30)
        whole = await client.post(CHAT, json=body, headers=headers)
        async with client.stream("POST", CHAT, json=make_body(stream=True), headers=headers) as reply:
            async for _ in reply.aiter_raw():
                break
        await wait_until_idle(simulator.ledger)
    events = [json.loads(line[6:]) for line in whole.text.splitlines() if line.startswith("data: {")]
    totals = read_totals(simulator.ledger)
    assert (totals["completions"], totals["abandoned"]) == (1, 1)
    assert totals["completion_tokens"] > events[-1]["usage"]["completion_tokens"] == 30


@pytest.mark.parametrize("is_stream", [False, True])
async def test_quirk_by_header_befalls_that_request_only(is_stream: bool) -> None:
    """The header bends one reply, names what was done in the reply's own header, and is counted apart."""
    body = make_body(stream=is_stream)
    async with open_client() as (simulator, client):
        bent = await client.post(CHAT, json=body, headers={"X-Simulator-Quirk": "html"})
        plain = await client.post(CHAT, json=body)
    assert bent.headers["x-simulator-quirk"].startswith("Q14")
    assert "html" in bent.headers["content-type"]
    assert "x-simulator-quirk" not in plain.headers
    totals = read_totals(simulator.ledger)
    assert (totals["quirked"], totals["completions"]) == (1, 1)


@pytest.mark.parametrize("header", ["Q99", "Q25:sideways", "usage-abcent"])
async def test_unknown_quirk_in_the_header_is_refused(header: str) -> None:
    """A quirk that there is not is a 400 that lists those there are; no model saw the request."""
    async with open_client() as (simulator, client):
        refused = await client.post(CHAT, json=make_body(), headers={"X-Simulator-Quirk": header})
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "unknown_quirk"
    assert read_totals(simulator.ledger) == {"rejected": 1}


async def test_quirk_that_makes_no_sense_leaves_a_completion() -> None:
    """A stream's quirk on a reply that is not streamed changes nothing, and says so."""
    async with open_client() as (simulator, client):
        reply = await client.post(CHAT, json=make_body(), headers={"X-Simulator-Quirk": "no-done"})
    assert reply.headers["x-simulator-quirk"] == "none"
    assert read_totals(simulator.ledger)["completions"] == 1


async def test_quirk_of_a_profile_befalls_its_share_and_can_be_asked_again() -> None:
    """A share of the attempts is bent, drawn anew for each, so that asking again succeeds."""
    options = make_options(careful=ProfileOptions(accuracy=1, latency_ms=0, quirks={"Q14:502": 0.5}))
    n_attempts: list[int] = []
    async with open_client(options) as (simulator, client):
        for i in range(40):
            n = 1
            while (await client.post(CHAT, json=make_body(str(i)))).status_code != 200:
                n += 1
            n_attempts.append(n)
    assert 8 < sum(n == 1 for n in n_attempts) < 32
    assert read_totals(simulator.ledger)["quirked"] == sum(n_attempts) - 40


async def test_cut_connection_moves_the_attempt_on() -> None:
    """An attempt that a quirk cut off is followed by another draw, whatever the client saw of it."""
    options = make_options(careful=ProfileOptions(accuracy=1, latency_ms=0, quirks={"Q25:rst": 0.5}))
    async with open_client(options) as (simulator, client):
        for i in range(20):
            for _ in range(30):
                try:
                    await client.post(CHAT, json=make_body(str(i)))
                except httpx.TransportError:
                    continue
                break
        await wait_until_idle(simulator.ledger)
    assert read_totals(simulator.ledger)["completions"] == 20


async def test_large_prompt_does_not_stop_others() -> None:
    """While a prompt of 5 MB is worked on in its thread, others are answered."""
    finished: list[str] = []
    async with open_client() as (simulator, client):

        async def ask(name: str, question: str) -> None:
            reply = await client.post(CHAT, json=make_body(question), headers=make_headers("4"))
            assert reply.json()["choices"][0]["message"]["content"] == "4"
            finished.append(name)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, "large", "What is 2 + 2, please? " * 220_000)
            while not simulator.ledger.in_flight:  # noqa: ASYNC110 - the server tells no event
                await anyio.sleep(0.001)
            await ask("small", "2+2?")
    assert finished == ["small", "large"]


async def test_large_and_small_bodies_are_answered_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread changes nothing of a reply."""
    bodies = [make_body(str(i), stream=i % 2 == 0) for i in range(6)]
    ask = partial(make_headers, "one two")
    async with open_client(make_limited(tokens_per_minute=1e6)) as (_, client):
        here = [(await client.post(CHAT, json=body, headers=ask())).content for body in bodies]
    monkeypatch.setattr(chat, "BIG_BODY_BYTES", 0)
    async with open_client(make_limited(tokens_per_minute=1e6)) as (_, client):
        there = [(await client.post(CHAT, json=body, headers=ask())).content for body in bodies]
    assert here == there


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_answers_are_found_by_the_prompt(is_streamed: bool) -> None:
    """A client without our headers gets the right answer of the row that its prompt is about, else an echo."""
    book = AnswerBook([KnownAnswer("r1", "What is 2+2?", "four"), KnownAnswer("r2", "What is 3+3?", "six")])
    async with open_client(answers=book) as (simulator, client):
        texts = []
        for question in ("Hello! What is 3+3? Think.", "Who are you?"):
            reply = await client.post(CHAT, json=make_body(question, stream=is_streamed))
            texts.append("".join(re.findall(r'"content":"([^"]*)"', reply.text)))
        detail = (await client.get("/_simulator/ledger?detail=1")).json()
    assert texts[0] == "six"
    assert texts[1].startswith("Simulated reply")
    assert [line["sample"] for line in detail["detail"]] == ["r2", ""]
    assert detail["unmatched_requests"] == simulator.ledger.unmatched == 1


async def test_answer_of_the_headers_comes_before_the_book() -> None:
    """What the client tells is not looked up."""
    book = AnswerBook([KnownAnswer("r1", "2+2?", "four")])
    async with open_client(answers=book) as (simulator, client):
        reply = await client.post(CHAT, json=make_body(), headers=make_headers("vier"))
    assert reply.json()["choices"][0]["message"]["content"] == "vier"
    assert simulator.ledger.unmatched == 0


async def test_gateway_path_takes_what_the_gateways_page_shows() -> None:
    """Under /chat the empty objects of the gateway's own example mean nothing; under /v1 they are refused."""
    body = make_body(stop={}, tools=[{}], tool_choice={}, response_format={}, logit_bias={}, top_logprobs=0)
    async with open_client() as (_, client):
        taken = await client.post("/chat/chat/completions", json=body)
        refused = await client.post("/v1/chat/completions", json=body)
    assert (taken.status_code, refused.status_code) == (200, 400)
    assert taken.json()["choices"][0]["finish_reason"] == "stop"


async def test_request_that_cannot_be_answered_is_counted_as_an_error() -> None:
    """A schema that nothing satisfies is a 400 that counts as an error and bills nothing."""
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "string", "enum": [1]}}}
    async with open_client() as (simulator, client):
        reply = await client.post(CHAT, json=make_body(response_format=wanted))
    assert reply.status_code == 400
    assert read_totals(simulator.ledger) == {"requests": 1, "errors": 1}
