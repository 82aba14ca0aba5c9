"""Tests of the simulator's routes, over real HTTP."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import httpx
import pytest

from evalrun.options import ProfileOptions, SimulatorOptions
from evalrun.simulator.gateway import make_info
from evalrun.simulator.server import Simulator, serve
from tests.simulator.asking import HANG_GUARD_S, encode_header, make_body, make_headers, make_options

pytestmark = pytest.mark.anyio
CHAT = "/v1/chat/completions"


@asynccontextmanager
async def open_client(
    options: SimulatorOptions | None = None, **settings: Any
) -> AsyncIterator[tuple[Simulator, httpx.AsyncClient]]:
    """Serve a simulator and open a client to it."""
    async with (
        serve(options or make_options(), **settings) as simulator,
        httpx.AsyncClient(base_url=simulator.url, timeout=HANG_GUARD_S, trust_env=False) as client,
    ):
        yield simulator, client


@pytest.mark.parametrize("base", ["/chat", "/v1"])
async def test_both_base_paths_answer(base: str) -> None:
    """A chat completion comes back under the gateway's path and under OpenAI's, with an id of the exchange."""
    async with open_client() as (_, client):
        answered = await client.post(f"{base}/chat/completions", json=make_body(), headers=make_headers("4"))
        models = await client.get(f"{base}/models")
    assert answered.status_code == 200
    assert answered.json()["choices"][0]["message"]["content"] == "4"
    assert answered.headers["x-request-id"].startswith("req_")
    assert [model["id"] for model in models.json()["data"]] == ["careful"]


async def test_replies_are_the_same_in_any_order_and_after_a_restart() -> None:
    """Two servers, asked in opposite orders and all at once, give byte for byte the same replies."""
    options = make_options(careful=ProfileOptions(accuracy=0.5, latency_ms=2, style="reasoned"))
    questions = [(str(i), repeat) for i in range(20) for repeat in range(2)]

    async def ask_all(order: list[tuple[str, int]]) -> dict[tuple[str, int], bytes]:
        replies: dict[tuple[str, int], bytes] = {}
        async with open_client(options) as (_, client), anyio.create_task_group() as tasks:

            async def ask(sample: str, repeat: int) -> None:
                headers = make_headers("72", sample=sample, repeat=repeat)
                answered = await client.post(CHAT, json=make_body(sample), headers=headers)
                replies[sample, repeat] = answered.content

            for sample, repeat in order:
                tasks.start_soon(ask, sample, repeat)
        return replies

    first, second = await ask_all(questions), await ask_all(questions[::-1])
    assert first == second
    assert len(set(first.values())) == len(questions)


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "code"),
    [
        ("POST", CHAT, b"{", 400, None),
        ("POST", CHAT, b"", 400, None),
        ("POST", CHAT, b"\xff\xfe", 400, None),
        ("POST", CHAT, b"[]", 400, None),
        ("POST", CHAT, b'{"messages": []}', 400, "missing_required_parameter"),
        ("POST", CHAT, b'{"model": "careful"}', 400, "missing_required_parameter"),
        ("POST", CHAT, json.dumps(make_body(stream="yes")).encode(), 400, "invalid_type"),
        ("GET", "/v1/models/nobody", b"", 404, "model_not_found"),
        ("GET", "/chat/models/", b"", 404, None),
        ("POST", "/v1/models/careful", b"{}", 405, "method_not_supported"),
        ("POST", CHAT, json.dumps(make_body(model="gpt-9")).encode(), 404, "model_not_found"),
        ("GET", CHAT, b"", 405, "method_not_supported"),
        ("DELETE", "/v1/models", b"", 405, "method_not_supported"),
        ("POST", "/chat/completions", b"{}", 404, None),
        ("POST", "/v1/chat/completions/", b"{}", 404, None),
        ("GET", "/", b"", 404, None),
    ],
)
async def test_bad_requests_get_errors_in_openai_shape(
    method: str, path: str, content: bytes, status: int, code: str | None
) -> None:
    """Status, type and code are those that OpenAI's API gives, and no model was asked."""
    async with open_client() as (simulator, client):
        answered = await client.request(method, path, content=content)
    error = answered.json()["error"]
    assert (answered.status_code, error["code"]) == (status, code)
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert simulator.ledger.to_json()["totals"]["requests"] == 0


@pytest.mark.parametrize(
    ("model", "path"),
    [("careful", "careful"), ("vendor/model:2", "vendor/model:2"), ("vendor/model:2", "vendor%2Fmodel%3A2")],
)
@pytest.mark.parametrize("base", ["/chat", "/v1"])
async def test_one_model_can_be_asked_for(base: str, model: str, path: str) -> None:
    """A model's object is the one in the list, its id in the path escaped or not."""
    options = SimulatorOptions(answer_column="answer", profiles={model: ProfileOptions(), "other": ProfileOptions()})
    async with open_client(options) as (_, client):
        one = await client.get(f"{base}/models/{path}")
        listed = (await client.get(f"{base}/models")).json()["data"]
    assert one.status_code == 200
    assert one.json() in listed
    assert one.json()["id"] == model


async def test_unknown_model_is_told_the_profiles() -> None:
    """Whoever mistypes a profile sees which there are."""
    async with open_client() as (simulator, client):
        answered = await client.post(CHAT, json=make_body(model="carefull"))
    assert "careful" in answered.json()["error"]["message"].split(":")[1]
    assert simulator.ledger.to_json()["totals"]["rejected"] == 1


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Simulator-Answer", "not base64url!"),
        ("X-Simulator-Answer", "a+/b"),
        ("X-Simulator-Answer", "_w"),
        ("X-Simulator-Sample", "A"),
        ("X-Simulator-Repeat", encode_header("-1")),
        ("X-Simulator-Repeat", encode_header("two")),
        ("X-Simulator-Repeat", encode_header("9" * 5000)),
    ],
)
async def test_unreadable_hints_are_refused(header: str, value: str) -> None:
    """A header of the simulator's own that cannot be read is said, never ignored."""
    async with open_client() as (_, client):
        answered = await client.post(CHAT, json=make_body(), headers={header: value})
    assert answered.status_code == 400
    assert header in answered.json()["error"]["message"]


@pytest.mark.parametrize("answer", ["๗๒ บาท", "七十二", "x" * 50_000, "a\u2028b"])
async def test_hints_carry_every_script_and_length(answer: str) -> None:
    """Answers travel in headers as base64url, padded or not, whatever they hold."""
    headers = make_headers(answer, sample="กข/ค")
    padded = {name: value + "=" * (-len(value) % 4) for name, value in headers.items()}
    async with open_client() as (_, client):
        replies = [await client.post(CHAT, json=make_body(), headers=chosen) for chosen in (headers, padded)]
    assert [answered.json()["choices"][0]["message"]["content"] for answered in replies] == [answer] * 2


@pytest.mark.parametrize(
    ("authorization", "status"),
    [(None, 401), ("Bearer wrong", 401), ("Bearer right", 200), ("right", 401)],
)
async def test_key_is_checked_when_set(authorization: str | None, status: int) -> None:
    """With a key set, only a request that carries it is answered, and no message repeats a key."""
    headers = {} if authorization is None else {"Authorization": authorization}
    async with open_client(api_key="right") as (_, client):
        answered = await client.post(CHAT, json=make_body(), headers=headers)
        models = await client.get("/v1/models", headers=headers)
        model = await client.get("/v1/models/careful", headers=headers)
    assert (answered.status_code, models.status_code, model.status_code) == (status, status, status)
    assert "wrong" not in answered.text


async def test_any_key_will_do_when_none_is_set() -> None:
    """Clients that always send a key need no special case."""
    async with open_client() as (_, client):
        answered = await client.post(CHAT, json=make_body(), headers={"Authorization": "Bearer anything"})
    assert answered.status_code == 200


async def test_ledger_equals_the_sum_of_the_replies() -> None:
    """Requests, completions, errors and tokens in the ledger are exactly what the client saw, per model and key."""
    options = make_options(
        careful=ProfileOptions(latency_ms=1, error_rate=0.3), hasty=ProfileOptions(latency_ms=0, style="reasoned")
    )
    seen = {"careful": [0, 0, 0, 0], "hasty": [0, 0, 0, 0]}
    async with open_client(options) as (_, client):
        for i in range(150):
            model = "hasty" if i % 3 == 0 else "careful"
            headers = make_headers("กรุงเทพ", sample=str(i % 50))
            answered = await client.post(CHAT, json=make_body(str(i % 50), model=model), headers=headers)
            usage = answered.json().get("usage")
            counts = [1, 0, usage["prompt_tokens"], usage["completion_tokens"]] if usage else [0, 1, 0, 0]
            seen[model] = [a + b for a, b in zip(seen[model], counts, strict=True)]
        shown = (await client.get("/_simulator/ledger?detail=1")).json()
    columns = ("completions", "errors", "prompt_tokens", "completion_tokens")
    booked = {model: [tally[column] for column in columns] for model, tally in shown["models"].items()}
    assert booked == seen
    assert seen["careful"][1] > 0
    assert shown["totals"]["total_tokens"] == sum(sum(counts[2:]) for counts in seen.values())
    assert {key: sum(line[key] for line in shown["detail"]) for key in columns} == {
        key: shown["totals"][key] for key in columns
    }
    assert shown["totals"]["requests"] == 150
    assert shown["repeated_requests"] == 150 - shown["keys"]


async def test_ledger_lists_keys_only_when_asked() -> None:
    """The plain ledger stays small whatever was sent."""
    async with open_client() as (_, client):
        await client.post(CHAT, json=make_body(), headers=make_headers("4", sample="s1", repeat=2))
        plain = (await client.get("/_simulator/ledger")).json()
        detail = (await client.get("/_simulator/ledger?detail=1")).json()["detail"]
    assert "detail" not in plain
    assert [(line["sample"], line["repeat"], line["model"]) for line in detail] == [("s1", 2, "careful")]


async def test_an_error_can_be_asked_again() -> None:
    """error_rate fails single attempts: a 503 in OpenAI's shape, and a reply in the end."""
    options = make_options(careful=ProfileOptions(accuracy=1, latency_ms=0, error_rate=0.5))
    statuses: list[list[int]] = []
    async with open_client(options) as (_, client):
        for i in range(30):
            row: list[int] = []
            while not row or row[-1] != 200:
                row.append((await client.post(CHAT, json=make_body(str(i)))).status_code)
            statuses.append(row)
    assert {status for row in statuses for status in row} == {200, 503}
    assert 5 < sum(len(row) == 1 for row in statuses) < 25


async def test_ledger_sees_how_many_were_in_flight() -> None:
    """The most requests at once are counted, and none is in flight at the end."""
    options = make_options(careful=ProfileOptions(latency_ms=300, latency_spread=0))
    async with open_client(options) as (simulator, client):
        async with anyio.create_task_group() as tasks:
            for i in range(12):
                tasks.start_soon(partial(client.post, CHAT, json=make_body(str(i))))
        shown = simulator.ledger.to_json()
    assert (shown["in_flight"], shown["max_in_flight"]) == (0, 12)


async def test_info_is_that_of_the_options() -> None:
    """A job that names a running simulator can compare seed and profiles, value for value."""
    options = make_options(seed=9, hasty=ProfileOptions(accuracy=0.5), careful=ProfileOptions(style="sentence"))
    async with open_client(options) as (_, client):
        shown = (await client.get("/_simulator/info")).json()
    assert shown == make_info(options)
    assert (shown["seed"], shown["profiles"]["hasty"]["accuracy"]) == (9, 0.5)
    assert shown != make_info(make_options(seed=9, hasty=ProfileOptions(accuracy=0.6)))
