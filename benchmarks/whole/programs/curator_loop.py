"""The work by curator: DATASET BASE_URL CONCURRENCY."""

import json
import sys
from pathlib import Path
from typing import Any

from bespokelabs import curator


class Terse(curator.LLM):
    """Asks for a number."""

    def prompt(self, row: dict[str, Any]) -> list[dict[str, str]]:
        """Return the messages of a row."""
        return [
            {"role": "system", "content": "Answer with a number."},
            {"role": "user", "content": row["question"]},
        ]

    def parse(self, row: dict[str, Any], text: str) -> dict[str, Any]:
        """Return what is kept of an answer."""
        return {"id": row["id"], "text": text, "right": row["answer"] in text}


if __name__ == "__main__":
    dataset, base_url, concurrency = sys.argv[1:]
    backend = {
        "base_url": base_url,
        "api_key": "sk-benchmark",
        "max_concurrent_requests": int(concurrency),
        "max_requests_per_minute": 10_000_000,
        "max_tokens_per_minute": 10_000_000_000,
    }
    terse = Terse(
        model_name="m",
        backend="openai",
        backend_params=backend,
        generation_params={"temperature": 0, "max_tokens": 64},
    )
    with Path(dataset).open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    answers = terse(rows)
    assert len(answers.dataset) == len(rows)
