"""Rounds of acquires by the Python library, for zae-limiter-bench: reads "OPS CONCURRENCY" lines, answers each with a JSON line."""

import asyncio
import json
import sys
import time

from zae_limiter import RateLimiter, Repository

KEYS = 64


async def acquire(limiter, number):
    begun = time.perf_counter()
    consume = {"rpm": 1, "tpm": 10}
    async with limiter.acquire(entity_id=f"python-{number % KEYS}", resource="gpt-4", consume=consume):
        pass
    return time.perf_counter() - begun


async def measured(limiter, ops, concurrency):
    numbers = iter(range(ops))
    latencies = []

    async def caller():
        for number in numbers:
            latencies.append(await acquire(limiter, number))

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(concurrency)))
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "latencies_us": [latency * 1e6 for latency in latencies],
    }


async def main(stack, namespace, endpoint):
    repository = await Repository.connect(namespace, stack=stack, region="us-east-1", endpoint_url=endpoint)
    limiter = RateLimiter(repository=repository)
    await measured(limiter, KEYS, 1)
    for line in sys.stdin:
        ops, concurrency = map(int, line.split())
        print(json.dumps(await measured(limiter, ops, concurrency)), flush=True)


asyncio.run(main(*sys.argv[1:]))
