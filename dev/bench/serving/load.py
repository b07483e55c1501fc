"""The client, a process of its own: one job a line on stdin, one answer a line on stdout.

Open loops send at the times that were drawn, whether or not anything was answered, and count from
those times: a queue in the server cannot slow down those who would join it.
"""

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

BOUNDARY = "picture"
AFTER_REFUSAL_S = 0.02
GONE = 0  # in the place of a status: no answer while the client had patience

Sample = tuple[float, float, int]  # when it was due, how long it took (both in s), its status


def main() -> None:
    """Work through jobs until stdin ends."""
    with suppress(PermissionError):
        os.nice(-10)  # it measures: where it shares cores with the server, it must not wait
    # Not sys.stdout: with PYTHONUNBUFFERED what the pipe does not take at once is lost.
    answers = open(sys.stdout.fileno(), "w", closefd=False)  # noqa: SIM115 (as long as we run)
    for line in sys.stdin:
        job = json.loads(line)
        cpu = time.process_time()
        pictures = [Path(path).read_bytes() for path in job["pictures"]]
        samples = uvloop.run(_run(job, pictures))
        told = {"samples": samples, "cpu_s": time.process_time() - cpu}
        print(json.dumps(told), file=answers, flush=True)


async def _run(job: dict[str, Any], pictures: list[bytes]) -> list[Sample]:
    headers = dict(job["headers"])
    if job["form"]:
        headers["Content-Type"] = f"multipart/form-data; boundary={BOUNDARY}"
        pictures = [form(job["form"], picture) for picture in pictures]
    else:
        headers["Content-Type"] = "image/jpeg"
    bodies: Iterator[bytes] = cycle(pictures)
    urls = cycle(job["urls"])
    if job.get("unlike"):  # no two are the same, byte for byte
        bodies = (picture + b"%d" % time.time_ns() for picture in cycle(pictures))
    timeout = aiohttp.ClientTimeout(total=job["patience_s"])
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, headers=headers
    ) as session:

        async def ask() -> int:
            stamp = {"X-Request-Start": f"t={time.time():.3f}"} if job["stamped"] else None
            try:
                async with session.post(next(urls), data=next(bodies), headers=stamp) as answer:
                    await answer.read()
                    return answer.status
            except (aiohttp.ClientError, TimeoutError):
                return GONE

        if job["callers"]:
            return await _closed(ask, job["callers"], job["seconds"])
        return await _open(ask, job["rate"], job["seconds"], job["seed"])


def form(field: str, picture: bytes) -> bytes:
    """Put a picture into a form."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="a.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    return head.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()


async def _closed(ask: Callable[[], Awaitable[int]], callers: int, seconds: float) -> list[Sample]:
    """Let callers ask one after the other, each as soon as it has its answer."""
    samples: list[Sample] = []
    began = time.perf_counter()

    async def caller() -> None:
        while (due := time.perf_counter() - began) < seconds:
            status = await ask()
            samples.append((due, time.perf_counter() - began - due, status))
            if status != 200:
                await asyncio.sleep(AFTER_REFUSAL_S)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return samples


async def _open(
    ask: Callable[[], Awaitable[int]], rate: float, seconds: float, seed: int
) -> list[Sample]:
    """Ask at Poisson's times."""
    samples: list[Sample] = []
    draw = random.Random(seed)
    began = time.perf_counter()

    async def request(due: float) -> None:
        status = await ask()
        samples.append((due, time.perf_counter() - began - due, status))

    async with asyncio.TaskGroup() as tasks:
        due = draw.expovariate(rate)
        while due < seconds:
            await asyncio.sleep(max(0.0, began + due - time.perf_counter()))
            tasks.create_task(request(due))
            due += draw.expovariate(rate)
    return samples


if __name__ == "__main__":
    main()
