"""A loop over the openai SDK: DATASET ANSWERS BASE_URL CONCURRENCY [plain | uvloop | aiohttp].

Workers over one iterator, one client, its own retries; each answer is written as it comes, with its usage.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import TextIO

import openai


async def ask(rows: TextIO, out: TextIO, base_url: str, concurrency: int, how: str) -> None:
    """Ask every row and write every answer."""
    http_client = openai.DefaultAioHttpClient() if how == "aiohttp" else None
    async with openai.AsyncOpenAI(api_key="sk-benchmark", base_url=base_url, http_client=http_client) as client:

        async def work() -> None:
            for line in rows:
                row = json.loads(line)
                completion = await client.chat.completions.create(
                    model="m",
                    temperature=0,
                    max_tokens=64,
                    messages=[
                        {"role": "system", "content": "Answer with a number."},
                        {"role": "user", "content": row["question"]},
                    ],
                )
                text = completion.choices[0].message.content or ""
                usage = completion.usage
                answer = {
                    "id": row["id"],
                    "text": text,
                    "tokens": usage.total_tokens if usage else None,
                    "right": row["answer"] in text,
                }
                out.write(json.dumps(answer) + "\n")

        await asyncio.gather(*(work() for _ in range(concurrency)))


def main() -> None:
    """Open what is read and written, and ask."""
    dataset, answers, base_url, concurrency, how = sys.argv[1:]
    with Path(dataset).open(encoding="utf-8") as rows, Path(answers).open("w", encoding="utf-8") as out:
        run = asyncio.run
        if how == "uvloop":
            import uvloop

            run = uvloop.run
        run(ask(rows, out, base_url, int(concurrency), how))


if __name__ == "__main__":
    main()
