"""Workers over one httpx client as httpx makes it by default: DATASET ANSWERS BASE_URL CONCURRENCY."""

import asyncio
import json
import sys
from pathlib import Path
from typing import TextIO

import httpx


async def ask(rows: TextIO, out: TextIO, base_url: str, concurrency: int) -> None:
    """Ask every row and write every answer; only the timeout is longer than the default of 5 s."""
    headers = {"authorization": "Bearer sk-benchmark"}
    async with httpx.AsyncClient(headers=headers, timeout=120) as client:

        async def work() -> None:
            for line in rows:
                row = json.loads(line)
                messages = [
                    {"role": "system", "content": "Answer with a number."},
                    {"role": "user", "content": row["question"]},
                ]
                body = {"model": "m", "temperature": 0, "max_tokens": 64, "messages": messages}
                reply = await client.post(f"{base_url}/chat/completions", json=body)
                reply.raise_for_status()
                text = reply.json()["choices"][0]["message"]["content"]
                out.write(json.dumps({"id": row["id"], "text": text, "right": row["answer"] in text}) + "\n")

        await asyncio.gather(*(work() for _ in range(concurrency)))


def main() -> None:
    """Open what is read and written, and ask."""
    dataset, answers, base_url, concurrency = sys.argv[1:]
    with Path(dataset).open(encoding="utf-8") as rows, Path(answers).open("w", encoding="utf-8") as out:
        asyncio.run(ask(rows, out, base_url, int(concurrency)))


if __name__ == "__main__":
    main()
