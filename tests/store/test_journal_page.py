"""docs/journal.md holds what it promises: its commands run, and its tables name every key."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalrun.records import Attempt, Completion, Outcome, Started, Status, Usage
from evalrun.store.journal_fields import RECORDS
from evalrun.store.journal_format import encode_record, parse_body, parse_frame
from tests.store.fake_records import USAGE, make_attempt, make_outcome, make_started

PAGE = Path(__file__).resolve().parents[2] / "docs" / "journal.md"
GOLDEN = Path(__file__).parent / "golden" / "journal-1"
TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```(sh|python)\n([^`]*)```\n```text\n(.*?)```", TEXT, re.DOTALL)
SET_UP = re.findall(r"```sh\n([^`]*)```\n\n", TEXT)
"""What the page defines for the commands after it."""


@pytest.mark.parametrize(("language", "code", "expected"), EXAMPLES)
def test_example_prints_what_the_page_says(tmp_path: Path, language: str, code: str, expected: str) -> None:
    """Each command of the page, run on the golden journal, prints the text that stands below it."""
    if "jq " in code and shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    shutil.copytree(GOLDEN, tmp_path / "journal")
    code = "".join(SET_UP) + code if language == "sh" else code
    program = ["bash", "-euo", "pipefail", "-c"] if language == "sh" else [sys.executable, "-c"]
    environment = {**os.environ, "RUN": str(tmp_path), "LC_ALL": "C.UTF-8"}
    run = subprocess.run([*program, code], capture_output=True, text=True, env=environment, check=False)
    assert (run.stderr, run.stdout) == ("", expected)


def test_page_has_an_example_for_each_tool() -> None:
    """Examples in the shell and in Python are found: a page that was laid out anew would test nothing."""
    assert {language for language, _, _ in EXAMPLES} == {"sh", "python"}
    assert len(EXAMPLES) >= 6


USED = Usage(
    prompt_tokens=1,
    cached_tokens=1,
    cache_write_tokens=1,
    completion_tokens=1,
    reasoning_tokens=1,
    audio_input_tokens=1,
    audio_output_tokens=1,
    total_tokens=2,
    source=USAGE.source,
    raw="{}",
    reported_cost_usd=make_attempt(1).cost_usd,
    flags=("usage_inconsistent",),
)
FULL_ATTEMPT = make_attempt(
    1,
    wait_s=0.5,
    first_token_s=0.1,
    error_code="overloaded",
    error_message="try again",
    retry_after_s=1.5,
    usage=USED,
    maybe_billed=True,
)
FULL_COMPLETION = Completion(
    status=Status.OK,
    output="a",
    refusal="b",
    finish_reason="stop",
    reasoning="c",
    tool_calls="[]",
    choices="[]",
    logprobs="{}",
    response_id="d",
    response_model="e",
    system_fingerprint="f",
    service_tier="g",
    usage=USAGE,
    flags=("no_done",),
)
FULL_OUTCOME = make_outcome(
    1,
    error_code="overloaded",
    error_message="try again",
    is_permanent=True,
    is_billed_estimated=True,
    first_token_s=0.1,
    usage=USED,
    completion=FULL_COMPLETION,
    last_attempt=replace(FULL_ATTEMPT, usage=USAGE),
    reused_from="20261121-120000-000009",
    reused_row_id=make_started(2).row_id,
)


def read_body(record: Started | Attempt | Outcome) -> dict[str, Any]:
    """Return the body of the line that a record becomes."""
    frame = parse_frame(encode_record(record))
    assert frame is not None
    return parse_body(frame.body)


def test_every_field_of_a_full_record_is_set() -> None:
    """The records of this file leave nothing out, so that what is compared below is everything."""
    for record in (USED, FULL_ATTEMPT, FULL_COMPLETION, FULL_OUTCOME):
        assert [name for name in record.__slots__ if getattr(record, name) in (None, (), False)] == []


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("started", read_body(make_started(1))),
        ("attempt", read_body(FULL_ATTEMPT)),
        ("done", read_body(FULL_OUTCOME)),
        ("completion", read_body(FULL_OUTCOME)["completion"]),
        ("usage", read_body(FULL_OUTCOME)["usage"]),
    ],
)
def test_page_names_every_key_in_order(kind: str, body: dict[str, Any]) -> None:
    """The table of a record names the keys that are written, in their order, and no others."""
    assert [field.name for field in RECORDS[kind][1]] == list(body)


UNKNOWN_TO_AN_ATTEMPT: dict[str, Any] = dict.fromkeys(("latency_s", "http_status", "request_id", "cost_usd", "body"))
UNKNOWN_TO_AN_OUTCOME: dict[str, Any] = dict.fromkeys(
    (
        "http_status", "completion", "cost_usd", "billed_usd", "latency_s", "queue_s", "started_at", "finished_at",
        "last_attempt",
    )
)  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "record"),
    [
        ("attempt", make_attempt(1, 1, **UNKNOWN_TO_AN_ATTEMPT, usage=Usage())),
        ("done", make_outcome(1, **UNKNOWN_TO_AN_OUTCOME, usage=Usage())),
    ],
)
def test_page_says_which_keys_may_be_absent(kind: str, record: Attempt | Outcome) -> None:
    """What an empty record still holds is what the table does not call absent."""
    always = [field.name for field in RECORDS[kind][1] if not field.type.endswith("?")]
    assert sorted({*read_body(record)} - {"usage"}) == sorted({*always} - {"usage"})
