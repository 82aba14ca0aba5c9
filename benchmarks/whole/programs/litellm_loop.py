"""A loop over litellm's `acompletion`: DATASET ANSWERS BASE_URL CONCURRENCY."""

import asyncio
import json
import sys
from pathlib import Path
from typing import TextIO

import litellm


async def ask(rows: TextIO, out: TextIO, base_url: str, concurrency: int) -> None:
    """Ask every row and write every answer."""
    litellm.telemetry = False

    async def work() -> None:
        for line in rows:
            row = json.loads(line)
            completion = await litellm.acompletion(
                model="openai/m",
                api_base=base_url,
                api_key="sk-benchmark",
                temperature=0,
                max_tokens=64,
                messages=[
                    {"role": "system", "content": "Answer with a number."},
                    {"role": "user", "content": row["question"]},
                ],
            )
            text = completion.choices[0].message.content or ""
            answer = {"id": row["id"], "text": text, "right": row["answer"] in text}
            out.write(json.dumps(answer) + "\n")

    await asyncio.gather(*(work() for _ in range(concurrency)))


def main() -> None:
    """Open what is read and written, and ask."""
    dataset, answers, base_url, concurrency = sys.argv[1:]
    with Path(dataset).open(encoding="utf-8") as rows, Path(answers).open("w", encoding="utf-8") as out:
        asyncio.run(ask(rows, out, base_url, int(concurrency)))


if __name__ == "__main__":
    main()
