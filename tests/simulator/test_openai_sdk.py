"""Tests of replies as OpenAI's own SDK reads them, waiting and not."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import anyio.to_thread
import openai
import pytest
from pydantic import BaseModel

from evalrun.options import ProfileOptions
from evalrun.simulator.server import serve
from tests.simulator.asking import HANG_GUARD_S, make_headers, make_options

pytestmark = pytest.mark.anyio
Ask = Callable[[Any], Any]
USER: Any = [{"role": "user", "content": "What is 8 times 9?"}]
OPTIONS = make_options(
    careful=ProfileOptions(accuracy=1, latency_ms=0),
    thinking=ProfileOptions(accuracy=1, latency_ms=0, reasoning_tokens=20, cached_share=0.5),
)


class Tally(BaseModel):
    """What a reply must look like."""

    model_config = {"extra": "forbid"}

    steps: list[str]
    unit: Literal["apples", "pears"]
    answer: int


async def ask_in_a_thread(ask: Ask, *, path: str = "/v1", answer: str = "72") -> Any:
    """Serve a simulator, give a waiting client of it to `ask`, and return what that returns."""
    async with serve(OPTIONS) as simulator:

        def run() -> Any:
            headers = make_headers(answer, sample="s1")
            with openai.OpenAI(
                base_url=simulator.url + path, api_key="k", max_retries=0, timeout=HANG_GUARD_S, default_headers=headers
            ) as client:
                return ask(client)

        return await anyio.to_thread.run_sync(run)


@asynccontextmanager
async def open_async_client() -> AsyncIterator[openai.AsyncOpenAI]:
    """Serve a simulator and open a client that does not wait."""
    async with (
        serve(OPTIONS) as simulator,
        openai.AsyncOpenAI(
            base_url=f"{simulator.url}/v1",
            api_key="k",
            max_retries=0,
            timeout=HANG_GUARD_S,
            default_headers=make_headers("72", sample="s1"),
        ) as client,
    ):
        yield client


@pytest.mark.parametrize("path", ["/v1", "/chat"])
async def test_sdk_reads_a_reply(path: str) -> None:
    """Text, finish reason and usage arrive, under both base paths."""
    made = await ask_in_a_thread(lambda c: c.chat.completions.create(model="careful", messages=USER), path=path)
    choice = made.choices[0]
    assert (choice.message.content, choice.finish_reason, made.usage.completion_tokens) == ("72", "stop", 1)


async def test_async_sdk_reads_a_reply() -> None:
    """The client that does not wait reads the same."""
    async with open_async_client() as client:
        made = await client.chat.completions.create(model="careful", messages=USER, n=2, seed=1, stop=["x"])
    assert [choice.message.content for choice in made.choices] == ["72", "72"]


@pytest.mark.parametrize("path", ["/v1", "/chat"])
async def test_sdk_reads_a_stream(path: str) -> None:
    """The deltas of the first choice are the text; the usage comes last."""

    def ask(client: openai.OpenAI) -> list[Any]:
        options: Any = {"include_usage": True}
        return list(client.chat.completions.create(model="careful", messages=USER, stream=True, stream_options=options))

    chunks = await ask_in_a_thread(ask, path=path, answer="one two")
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert texts == ["", "one", " two", None]
    assert (chunks[-1].choices, chunks[-1].usage.completion_tokens) == ([], 2)


async def test_async_sdk_reads_a_stream() -> None:
    """The client that does not wait reads the same."""
    async with open_async_client() as client:
        stream = await client.chat.completions.create(model="thinking", messages=USER, stream=True)
        deltas = [chunk.choices[0].delta async for chunk in stream]
    assert "".join(delta.content or "" for delta in deltas) == "72"
    assert any(getattr(delta, "reasoning_content", None) for delta in deltas)


async def test_sdk_parses_structured_output() -> None:
    """The SDK's own model of the schema takes the reply, with the answer in its place."""
    made = await ask_in_a_thread(
        lambda c: c.chat.completions.parse(model="careful", messages=USER, response_format=Tally)
    )
    tally = made.choices[0].message.parsed
    assert (tally.answer, tally.unit in ("apples", "pears"), len(tally.steps)) == (72, True, 1)


async def test_sdk_gathers_a_stream() -> None:
    """The SDK's own assembly of a structured stream ends with the reply that comes without one."""

    def ask(client: openai.OpenAI) -> tuple[Any, Any]:
        whole = client.chat.completions.parse(model="careful", messages=USER, response_format=Tally, logprobs=True)
        with client.chat.completions.stream(
            model="careful",
            messages=USER,
            response_format=Tally,
            logprobs=True,
            stream_options={"include_usage": True},
        ) as stream:
            return whole, stream.get_final_completion()

    whole, gathered = await ask_in_a_thread(ask)
    assert gathered.choices[0].message.parsed == whole.choices[0].message.parsed
    assert gathered.choices[0].logprobs.content == whole.choices[0].logprobs.content
    assert (gathered.usage, gathered.id) == (whole.usage, whole.id)


async def test_sdk_gathers_streamed_calls() -> None:
    """Several calls in fragments become calls whose arguments the SDK's models take."""
    tools = [openai.pydantic_function_tool(Tally, name=name) for name in ("first", "second")]

    def ask(client: openai.OpenAI) -> Any:
        with client.chat.completions.stream(
            model="careful", messages=USER, tools=tools, parallel_tool_calls=True
        ) as stream:
            return stream.get_final_completion()

    choice = (await ask_in_a_thread(ask)).choices[0]
    calls = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls"
    assert [call.function.name for call in calls] == ["first", "second"]
    assert [call.function.parsed_arguments.answer for call in calls] == [72, 72]


async def test_sdk_carries_a_conversation_with_a_tool() -> None:
    """A call, its result, and then a text: what an agent does."""
    tools: Any = [openai.pydantic_function_tool(Tally)]

    def ask(client: openai.OpenAI) -> Any:
        first = client.chat.completions.create(model="careful", messages=USER, tools=tools).choices[0].message
        call = (first.tool_calls or [])[0]
        result: Any = {"role": "tool", "tool_call_id": call.id, "content": "72 apples"}
        told: Any = [*USER, first.to_dict(), result]
        return client.chat.completions.create(model="careful", messages=told, tools=tools).choices[0]

    choice = await ask_in_a_thread(ask)
    assert (choice.message.content, choice.finish_reason) == ("72", "stop")


NOTE = {"type": "custom", "custom": {"name": "note"}}
SPOKEN = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}


@pytest.mark.parametrize(
    ("params", "read", "expected"),
    [
        ({"response_format": {"type": "json_object"}}, lambda c: c.message.content, '{"answer":"72"}'),
        ({"max_tokens": 1, "model": "thinking"}, lambda c: (c.message.content, c.finish_reason), ("", "length")),
        ({"logprobs": True, "top_logprobs": 3}, lambda c: len(c.logprobs.content[0].top_logprobs), 3),
        (
            {"functions": [{"name": "f"}]},
            lambda c: (c.message.function_call.name, c.finish_reason),
            ("f", "function_call"),
        ),
        ({"tools": [NOTE]}, lambda c: c.message.tool_calls[0].custom.input, "72"),
        (SPOKEN, lambda c: c.message.audio.transcript, "72"),
    ],
)
async def test_sdk_reads_every_form_of_choice(params: Any, read: Ask, expected: Any) -> None:
    """What a parameter asks for is where the SDK's types have it."""
    told = {"model": "careful", "messages": USER, **params}
    made = await ask_in_a_thread(lambda c: c.chat.completions.create(**told))
    assert read(made.choices[0]) == expected


async def test_sdk_reads_usage_and_tier() -> None:
    """Cached, reasoning and accepted tokens are told, and the service tier."""
    prediction = {"type": "content", "content": "72"}
    told: Any = {"model": "thinking", "messages": USER, "service_tier": "flex", "prediction": prediction}
    made = await ask_in_a_thread(lambda c: c.chat.completions.create(**told))
    details = made.usage.completion_tokens_details
    assert (made.service_tier, details.reasoning_tokens, details.accepted_prediction_tokens) == ("flex", 20, 1)
    assert made.usage.prompt_tokens_details.cached_tokens == made.usage.prompt_tokens // 2


@pytest.mark.parametrize("is_stream", [False, True])
async def test_sdk_raises_on_a_schema_that_nothing_satisfies(is_stream: bool) -> None:
    """The refusal is a BadRequestError with OpenAI's fields, for streams as well."""
    never: Any = {"type": "json_schema", "json_schema": {"name": "never", "schema": {"type": "string", "not": {}}}}

    def ask(client: openai.OpenAI) -> Any:
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="careful", messages=USER, response_format=never, stream=is_stream)
        return caught.value

    error = await ask_in_a_thread(ask)
    assert (error.param, error.type) == ("response_format", "invalid_request_error")
