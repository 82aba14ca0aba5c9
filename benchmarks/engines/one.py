"""One measurement in a process of its own; prints one JSON object.

`python -m benchmarks.engines.one CANDIDATE URL CA IN_FLIGHT SECONDS [--stream N_CHUNKS]`
"""

import argparse
import asyncio
import json
import os
import resource
import time
from pathlib import Path

from benchmarks.engines.clients import Post, open_client

PROMPT = "Which number comes next? " * 12


async def measure(post: Post, url: str, body: bytes, *, n_in_flight: int, seconds: float) -> dict[str, float]:
    """Keep a number of requests in flight for some seconds, after a round that only opens the connections."""
    await asyncio.gather(*(post(url, body) for _ in range(n_in_flight)))
    latencies: list[float] = []
    cpu_begin, begin = time.process_time(), time.perf_counter()
    end = begin + seconds

    async def work() -> None:
        while (sent := time.perf_counter()) < end:
            answer = await post(url, body)
            latencies.append(time.perf_counter() - sent)
            assert answer.status == 200
            assert answer.body

    await asyncio.gather(*(work() for _ in range(n_in_flight)))
    taken, cpu = time.perf_counter() - begin, time.process_time() - cpu_begin
    latencies.sort()
    return {
        "n": len(latencies),
        "per_s": len(latencies) / taken,
        "cpu_ms": cpu / len(latencies) * 1000,
        "p50_ms": latencies[len(latencies) // 2] * 1000,
        "p99_ms": latencies[int(len(latencies) * 0.99)] * 1000,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


async def measure_streams(post: Post, url: str, body: bytes, *, n_in_flight: int, n_chunks: int) -> dict[str, float]:
    """Read one round of streams at once, after a round that only opens the connections."""
    await asyncio.gather(*(post(url, body) for _ in range(n_in_flight)))
    cpu_begin, begin = time.process_time(), time.perf_counter()
    answers = await asyncio.gather(*(post(url, body) for _ in range(n_in_flight)))
    taken, cpu = time.perf_counter() - begin, time.process_time() - cpu_begin
    assert all(answer.body for answer in answers)
    return {"cpu_us_per_chunk": cpu / (n_in_flight * n_chunks) * 1e6, "wall_s": taken}


async def main() -> None:
    """Measure one candidate."""
    parser = argparse.ArgumentParser()
    parser.add_argument("candidate")
    parser.add_argument("url")
    parser.add_argument("ca", type=Path)
    parser.add_argument("in_flight", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--stream", type=int, metavar="N_CHUNKS")
    given = parser.parse_args()
    body = {"model": "gpt-5.1", "messages": [{"role": "user", "content": PROMPT}]}
    if given.stream:
        body["stream"] = True
    raw = json.dumps(body).encode()
    async with open_client(given.candidate, ca=given.ca, concurrency=given.in_flight) as post:
        if given.stream:
            found = await measure_streams(post, given.url, raw, n_in_flight=given.in_flight, n_chunks=given.stream)
        else:
            found = await measure(post, given.url, raw, n_in_flight=given.in_flight, seconds=given.seconds)
    print(json.dumps(found), flush=True)
    # Some candidates complain at exit about connections that they leave open; the figures are out.
    os._exit(0)


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
