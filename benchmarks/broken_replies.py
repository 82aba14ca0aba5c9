"""How many broken replies a client takes for answers: `python -m benchmarks.broken_replies`.

The official SDK is asked, as its users call it, for every bent reply that evalrun's table of outcomes names a failure
(docs/quirks.md; each cell of that table is a test). It passes when it raises anything at all within the time that a
user might give it. What it returns without an error is a broken reply taken for an answer.
"""

import json
import sys
from collections import Counter
from importlib.metadata import version
from typing import Any

import openai

from tests.dispatch.bent import PARAMS, serve_simulator
from tests.quirk_outcomes import scan_cells
from tests.simulator.bending import SMALL

TIMEOUT_S = 3.0
FORMS = {"Q47": "Q47:0.05", "Q48:first-byte": "Q48:first-byte:30", "Q48:between": "Q48:between:30"}


def ask(client: openai.OpenAI, label: str, *, is_stream: bool) -> Any:
    """Return what the SDK makes of a bent reply; the whole text when it is streamed."""
    more = {name: value for name, value in PARAMS.get(label[:3], {}).items() if value is not None}
    if is_stream and "stream_options" not in PARAMS.get(label[:3], {}):
        more["stream_options"] = {"include_usage": True}
    quirk = SMALL.get(label, FORMS.get(label, label))
    made = client.chat.completions.create(
        model="m",
        messages=[{"role": "user", "content": "Which is the capital?"}],
        stream=is_stream,
        extra_headers={"X-Simulator-Quirk": quirk},
        **more,
    )
    return list(made) if is_stream else made


def main() -> None:
    """Ask for every failure of the table, and print what was taken for an answer."""
    tried: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    names: list[str] = []
    with serve_simulator() as url:
        client = openai.OpenAI(api_key="any", base_url=f"{url}/v1", max_retries=0, timeout=TIMEOUT_S)
        for label, is_stream, cell in scan_cells():
            if cell.is_answer or cell.status == "filtered":
                continue
            mode = "streamed" if is_stream else "not streamed"
            tried[mode] += 1
            try:
                ask(client, label, is_stream=is_stream)
            except (openai.OpenAIError, json.JSONDecodeError, UnicodeError, ValueError, OSError):
                continue
            except Exception as error:  # noqa: BLE001 - whatever a user would see as an error
                print(f"{label} {mode}: {type(error).__name__}", file=sys.stderr)
                continue
            taken[mode] += 1
            names.append(f"{label} {mode}")
    print(f"openai {version('openai')}, {tried.total()} broken replies, each asked for once, no retries")
    for mode, count in tried.items():
        print(f"{mode}: {taken[mode]} of {count} returned without an error")
    print("taken: " + ", ".join(names))


if __name__ == "__main__":
    main()
