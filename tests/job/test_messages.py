"""Prompts: byte-exact texts, templated parts, and files below files_root only."""

import base64
import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from evalrun.errors import AuthorError
from evalrun.job.plan import Plan
from tests.job.conftest import HEAD, fail, load, write_rows

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

IMAGE_JOB = (
    HEAD
    + "files_root: pictures\ndataset: d.jsonl\n"
    + 'prompts: [{name: p, messages: [{role: user, content: [{type: text, text: "{{ q }}"}, '
    + '{type: image_file, image_file: "{{ path }}", detail: low}]}]}]\n'
)


def build_messages(text: str, **options: Any) -> list[dict[str, Any]]:
    """Return the messages of a job's first request."""
    request = next(Plan(load(text, **options)).requests())
    messages: list[dict[str, Any]] = orjson.loads(request.body)["messages"]
    return messages


def refuse_plan(text: str) -> str:
    """Return the error of a job whose rows do not fit."""
    with pytest.raises(AuthorError) as caught:
        Plan(load(text)).check()
    return str(caught.value)


def test_d8_prompt_is_byte_exact() -> None:
    """No trailing newline is lost, no line end rewritten, no value rendered again."""
    Path("p.json").write_text('{"user": "a\\r\\nb {{ x }}\\n\\n"}')
    write_rows("d.jsonl", [{"id": "a", "answer": "", "x": "{{ 7*7 }}\r\n<b>&\u2028"}])
    text = HEAD + "prompts: [{name: p, file: p.json}]\ndataset: d.jsonl\n"
    assert build_messages(text) == [{"role": "user", "content": "a\r\nb {{ 7*7 }}\r\n<b>&\u2028\n\n"}]


def test_messages_template_strings_of_content_only() -> None:
    """Strings inside content parts are templates; every other key of a message passes through."""
    text = (
        HEAD
        + """\
vars: {tone: dry}
prompts:
  - name: p
    messages:
      - {role: system, content: "{{ vars.tone }}", name: "{{ x }}"}
      - {role: assistant, tool_calls: [{id: "{{ x }}"}]}
      - role: user
        content:
          - {type: text, text: "{{ x }} {{ repeat }}"}
          - {type: image_url, image_url: {url: "https://x.test/{{ x }}.png", detail: low}}
          - {type: input_audio, input_audio: {data: "{{ x }}", format: wav}}
          - {type: text, text: plain, cache: {at: [1, true, null, "{{ x }}"]}}
samples: [{id: s, answer: "", x: 1}]
"""
    )
    assert build_messages(text) == [
        {"role": "system", "content": "dry", "name": "{{ x }}"},
        {"role": "assistant", "tool_calls": [{"id": "{{ x }}"}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "1 0"},
                {"type": "image_url", "image_url": {"url": "https://x.test/1.png", "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": "1", "format": "wav"}},
                {"type": "text", "text": "plain", "cache": {"at": [1, True, None, "1"]}},
            ],
        },
    ]


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("{role: usr, content: x}", "unknown role text 'usr'\n    did you mean `user`?"),
        ("{content: x}", "a message needs a `role`"),
        ("{role: user}", "a message needs `content`"),
        ("{role: user, content: 5}", "`content` must be text or a list of parts, got 5"),
        ("{role: user, content: [x]}", "a content part must be a mapping, got text 'x'"),
        ("{role: user, content: [{image_file: x}]}", "`image_file` needs a `files_root`"),
        ('{role: user, content: "{% if %}"}', "the template does not compile: "),
    ],
)
def test_messages_that_are_none_are_refused_at_load(message: str, problem: str) -> None:
    """A message that no server takes is an error with its line."""
    problems = fail(HEAD + f"prompts:\n- name: p\n  messages:\n  - {message}\nsamples: [{{answer: x}}]\n")
    assert problems[0].startswith("job.yaml:6:")
    assert problem in problems[0]


def test_messages_column_is_data() -> None:
    """Messages of a row pass through untouched, from JSON and as JSON text."""
    messages = [{"role": "user", "content": "{{ 7*7 }}"}]
    for value in (messages, orjson.dumps(messages).decode()):
        write_rows("d.jsonl", [{"id": "a", "answer": "", "m": value}])
        assert build_messages(HEAD + "prompts: [{name: p, messages_column: m}]\ndataset: d.jsonl\n") == messages


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("hello", "column `m` is not a list of messages"),
        ([], "column `m` must be a list of messages, got a list"),
        ([{"content": "x"}], "message 0 of column `m` has no `role`"),
    ],
)
def test_messages_column_without_messages_is_refused(value: object, problem: str) -> None:
    """A row whose messages are none is an error with its line."""
    write_rows("d.jsonl", [{"id": "a", "answer": "", "m": value}])
    error = refuse_plan(HEAD + "prompts: [{name: p, messages_column: m}]\ndataset: d.jsonl\n")
    assert error.startswith(f"d.jsonl:1: {problem}")


def test_image_file_becomes_a_data_url() -> None:
    """An image below files_root is read and sent in the request."""
    Path("pictures").mkdir()
    Path("pictures/dot.png").write_bytes(PNG)
    write_rows("d.jsonl", [{"id": "a", "answer": "", "q": "what?", "path": "dot.png"}])
    (message,) = build_messages(IMAGE_JOB)
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    assert message["content"][1] == {"type": "image_url", "image_url": {"url": url, "detail": "low"}}


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("../secret.png", "the path '../secret.png' leads outside files_root"),
        ("/etc/passwd", "the path '/etc/passwd' leads outside files_root"),
        ("link.png", "the path 'link.png' leads outside files_root"),
        ("folder/../../secret.png", "leads outside files_root"),
        ("none.png", "there is no image file 'none.png' below files_root"),
        (".", "there is no image file '.' below files_root"),
        ("a\x00b", "the path 'a\\x00b' cannot be followed"),
        ("text.png", "the file 'text.png' is not a PNG, JPEG, GIF or WebP image"),
        ("file:///etc/passwd", "there is no image file 'file:///etc/passwd' below files_root"),
    ],
)
def test_c10_path_named_by_data_outside_files_root_is_refused(path: str, problem: str) -> None:
    """Whatever path a row names, nothing outside files_root is read, links included."""
    Path("pictures/folder").mkdir(parents=True)
    Path("secret.png").write_bytes(PNG)
    Path("pictures/text.png").write_text("hello")
    Path("pictures/link.png").symlink_to(os.path.abspath("secret.png"))  # noqa: PTH100 - the link's text matters here
    write_rows("d.jsonl", [{"id": "a", "answer": "", "q": "", "path": path}])
    error = refuse_plan(IMAGE_JOB)
    assert error.startswith("d.jsonl:1: ")
    assert problem in error


def test_files_root_that_is_no_folder_is_refused() -> None:
    """A wrong files_root is told at load."""
    write_rows("d.jsonl", [])
    assert fail(IMAGE_JOB) == ["job.yaml:3:1: `files_root` 'pictures' is not a folder"]
