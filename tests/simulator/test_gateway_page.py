"""Tests of the examples on the gateway's page: copied as they stand, with nothing changed but the host.

The page: "聊天完成 (OpenAI 兼容)" of the gateway's documentation, as given to the project, November 2026.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cli.processes import start_evalrun

HOST = "https://api.mountsea.ai"
"""What the examples are changed in."""

CURL = """\
curl --request POST \\
  --url https://api.mountsea.ai/chat/chat/completions \\
  --header 'Authorization: Bearer <token>' \\
  --header 'Content-Type: application/json' \\
  --data '
{
  "model": "gpt-5.1",
  "messages": [
    {
      "role": "system",
      "content": "You are a helpful assistant."
    },
    {
      "role": "user",
      "content": "Hello!"
    }
  ],
  "stream": false,
  "temperature": 1,
  "max_tokens": 1000,
  "max_completion_tokens": 1000,
  "top_p": 1,
  "frequency_penalty": 0,
  "presence_penalty": 0,
  "stop": {},
  "n": 1,
  "seed": 12345,
  "user": "<string>",
  "tools": [
    {}
  ],
  "tool_choice": {},
  "response_format": {},
  "logprobs": false,
  "top_logprobs": 5,
  "logit_bias": {},
  "parallel_tool_calls": true
}
'
"""
CLIENT = """\
from openai import OpenAI

client = OpenAI(
    api_key="your-api-key",
    base_url="https://api.mountsea.ai/chat"
)
"""
BASIC = """\
# Basic chat
response = client.chat.completions.create(
    model="gpt-5.1",
    messages=[
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Hello!"}
    ]
)

print(response.choices[0].message.content)
"""
STREAMING = """\
stream = client.chat.completions.create(
    model="gpt-5.1",
    messages=[{"role": "user", "content": "Tell me a story"}],
    stream=True
)

for chunk in stream:
    if chunk.choices[0].delta.content:
        print(chunk.choices[0].delta.content, end="")
"""
REPLY = """
{
  "id": "chatcmpl-xxx",
  "object": "chat.completion",
  "created": 1234567890,
  "model": "gpt-5.1",
  "choices": [
    {
      "index": 0,
      "message": {
        "role": "assistant",
        "content": "Hello! How can I help you today?"
      },
      "finish_reason": "stop"
    }
  ],
  "usage": {
    "prompt_tokens": 26,
    "completion_tokens": 10,
    "total_tokens": 36
  }
}
"""
STREAM = """\
data: {"id":"chatcmpl-xxx","choices":[{"delta":{"role":"assistant"}}]}

data: {"id":"chatcmpl-xxx","choices":[{"delta":{"content":"Hello"}}]}

data: {"id":"chatcmpl-xxx","choices":[{"delta":{"content":"!"}}]}

data: {"id":"chatcmpl-xxx","choices":[{"delta":{},"finish_reason":"stop"}]}

data: [DONE]

"""
MODELS = (
    "gpt-5.1", "gpt-5.1-all", "gpt-5.1-thinking", "gpt-5.1-thinking-all", "gpt-5.2",
    "gemini-3-pro", "gemini-2.5-pro", "gemini-2.5-flash", "gemini-3-flash", "claude-4.5",
)  # fmt: skip
"""All that the page's form offers."""

HANG_GUARD_S = 60.0
"""Far above what anything here takes."""

FIXED = ("object", "role", "model", "index", "finish_reason")
"""Keys whose values are the page's, not only of the page's type."""

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="the program curl is not installed")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run `evalrun simulate` as a stranger would; yield what stands in the place of the page's host."""
    process = start_evalrun("simulate", "--port", "0", cwd=tmp_path_factory.mktemp("served"))
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=HANG_GUARD_S)


def run(arguments: list[str], **environment: str) -> str:
    """Run a program to its good end and return what it printed."""
    # Neither a proxy nor settings of the person who runs the tests are part of the page.
    told = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **environment}
    ended = subprocess.run(arguments, env=told, capture_output=True, text=True, timeout=HANG_GUARD_S, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def curl(command: str, host: str, home: Path) -> str:
    """Run one of the page's shell commands with the host changed."""
    return run(["sh", "-c", command.replace(HOST, host)], HOME=str(home), CURL_HOME=str(home))


def python(script: str, host: str) -> str:
    """Run one of the page's scripts with the host changed."""
    return run([sys.executable, "-c", script.replace(HOST, host)])


def check_shape(documented: Any, got: Any, key: str = "") -> None:
    """Check that a value has all that the page shows, of the page's types."""
    assert type(got) is type(documented), f"{key}: {got!r}"
    if isinstance(documented, Mapping):
        for name, value in documented.items():
            assert name in got, name
            check_shape(value, got[name], name)
    elif isinstance(documented, list):
        assert len(got) == len(documented), key
        for value, found in zip(documented, got, strict=True):
            check_shape(value, found, key)
    elif key in FIXED:
        assert got == documented, key


def read_events(text: str) -> list[str]:
    """Return the data of a stream's events: one line each, as the page shows them."""
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    return [block.removeprefix("data: ") for block in blocks]


@needs_curl
def test_curl_command_gets_the_documented_reply(host: str, tmp_path: Path) -> None:
    """The command with every parameter, the empty ones too, gets a text in the documented shape."""
    reply = json.loads(curl(CURL, host, tmp_path))
    check_shape(json.loads(REPLY), reply)
    (choice,) = reply["choices"]
    assert choice["message"]["content"].endswith("Hello!")
    assert "tool_calls" not in choice["message"]
    assert choice["logprobs"] is None
    assert reply["usage"]["total_tokens"] == reply["usage"]["prompt_tokens"] + reply["usage"]["completion_tokens"]


@needs_curl
def test_every_model_of_the_page_answers(host: str, tmp_path: Path) -> None:
    """Each model that the page offers is there, and says its own name."""
    replies = [json.loads(curl(CURL.replace('"gpt-5.1"', f'"{model}"'), host, tmp_path)) for model in MODELS]
    assert [reply.get("model") for reply in replies] == list(MODELS)


@needs_curl
def test_curl_command_gets_the_documented_stream(host: str, tmp_path: Path) -> None:
    """With `stream` turned on, the events come in the documented order and shape, and say what the reply says."""
    whole = json.loads(curl(CURL, host, tmp_path))
    *events, done = read_events(curl(CURL.replace('"stream": false', '"stream": true'), host, tmp_path))
    *documented, documented_done = read_events(STREAM)
    assert done == documented_done
    chunks = [json.loads(event) for event in events]
    opening, saying, *_, ending = (json.loads(event) for event in documented)
    check_shape(opening, chunks[0])
    for chunk in chunks[1:-1]:
        check_shape(saying, chunk)
    check_shape(ending, chunks[-1])
    assert chunks[-1]["choices"][0]["delta"] == {}
    texts = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks]
    assert "".join(texts) == whole["choices"][0]["message"]["content"]


def test_python_example_prints_the_reply(host: str) -> None:
    """The plain example prints what the model says to its last message."""
    printed = python(CLIENT + BASIC, host)
    assert printed.startswith("Simulated reply")
    assert printed.endswith("to: Hello!\n")


def test_python_example_prints_the_stream(host: str) -> None:
    """The streaming example prints the whole text, meets no chunk without a choice, and ends."""
    printed = python(CLIENT + STREAMING, host)
    assert printed.startswith("Simulated reply")
    assert printed.endswith("to: Tell me a story")


def test_check_shape_sees_what_is_missing() -> None:
    """The check of these tests fails for a key that is not there, another type and another fixed value."""
    for got in ({}, {"object": 1}, {"object": "other"}):
        with pytest.raises(AssertionError):
            check_shape({"object": "chat.completion"}, got)
