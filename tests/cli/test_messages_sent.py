"""Messages and parameters on the wire: what a job or a dataset says arrives byte for byte."""

import json
from pathlib import Path
from typing import Any

import pytest

from evalrun.cli.main import main
from tests.fake_endpoint import FakeEndpoint

CONVERSATION: list[dict[str, Any]] = [
    {"role": "developer", "content": "Be terse.", "name": "rules"},
    {"role": "system", "content": [{"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}}]},
    {
        "role": "user",
        "name": "ann",
        "content": [
            {"type": "text", "text": "what is \u2028 this? ü {no template}"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:;base64,AA=="}},
            {"type": "video_url", "video_url": {"url": "x"}, "fps": 0.5},
        ],
    },
    {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "reasoning_content": "hm",
        "tool_calls": [
            {
                "id": "c1",
                "type": "function",
                "function": {"name": "look", "arguments": '{"at": 1.0}'},
                "extra_content": {"google": {"thought_signature": "c2ln"}},
            },
            {"id": "c2", "type": "custom", "custom": {"name": "run", "input": "ls"}},
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "seen"}]},
    {"role": "tool", "tool_call_id": "c2", "content": ""},
    {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "refusal": "no"},
    {"role": "assistant", "content": None, "audio": {"id": "audio_1"}},
    {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
    {"role": "function", "name": "f", "content": None},
    {"role": "user", "content": "go on", "x_unknown": {"deep": [1, 1e20, True, None, 12345678901234567890]}},
]
"""Every role, part and field of the contract, and keys that are in none."""

PARAMS: dict[str, Any] = {
    "temperature": 0.0,
    "stop": ["a"],
    "n": 1,
    "logit_bias": {"50256": -100},
    "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}, "strict": True}}],
    "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function"}]}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": "#"}}},
    "metadata": {"k": "v"},
    "x_unknown": {"deep": [None, 1.0]},
}


def encode(value: Any) -> bytes:
    """Return compact JSON, keys in their order."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def ask(folder: Path, prompt: dict[str, Any], row: dict[str, Any]) -> bytes:
    """Run a job of one row; return the body that the server got."""
    (folder / "d.jsonl").write_bytes(encode({"id": "a", **row}) + b"\n")
    with FakeEndpoint() as endpoint:
        content = {
            "endpoints": {"there": {"base_url": endpoint.base_url}},
            "models": [{"name": "m", "params": PARAMS}],
            "prompts": [{"name": "p", **prompt}],
            "dataset": "d.jsonl",
        }
        (folder / "job.json").write_bytes(encode(content))
        assert main(["run", str(folder / "job.json"), "-o", str(folder / "reports"), "--progress", "none"]) == 0
        (request,) = endpoint.requests
    return request.body


@pytest.mark.parametrize("as_text", [False, True])
def test_messages_of_a_dataset_arrive_byte_for_byte(tmp_path: Path, as_text: bool) -> None:
    """`messages_column` is data: roles, parts, unknown keys, numbers and braces reach the server unchanged."""
    cell = json.dumps(CONVERSATION) if as_text else CONVERSATION
    body = ask(tmp_path, {"messages_column": "chat"}, {"chat": cell})
    assert body == b'{"model":"m","messages":' + encode(CONVERSATION) + b"," + encode(PARAMS)[1:]


def test_messages_of_a_prompt_arrive_byte_for_byte(tmp_path: Path) -> None:
    """A prompt's messages pass through too; only the strings of `content` are templates."""
    prompt = {"messages": [*CONVERSATION, {"role": "user", "name": "{{ q }}", "content": "{{ q }}"}]}
    body = ask(tmp_path, prompt, {"q": "{{ 7*7 }}"})
    expected = [*CONVERSATION, {"role": "user", "name": "{{ q }}", "content": "{{ 7*7 }}"}]
    assert body == b'{"model":"m","messages":' + encode(expected) + b"," + encode(PARAMS)[1:]
