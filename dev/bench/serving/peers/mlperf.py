"""One run of MLPerf's LoadGen against a server; in the peers' environment, which has it.

LoadGen knows no refusal. One that was refused is reported once its latency bound is over: it counts
as late, as every offered request that was not answered in time should.
"""

import asyncio
import json
import os
import re
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import aiohttp
import mlperf_loadgen as loadgen

AT_ONCE = 16  # of Offline, which hands over everything at its start


class System:
    """What is under test: an HTTP client on a loop of its own."""

    def __init__(self, url: str, pictures: list[bytes], bound_s: float) -> None:
        self._url = url
        self._pictures = pictures
        self._bound_s = bound_s
        self._headers = {"Content-Type": "image/jpeg"}
        if bound_s:
            self._headers["X-Deadline-Ms"] = f"{bound_s * 1000:.1f}"
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()

    async def _open(self) -> None:
        self._places = asyncio.Semaphore(100_000 if self._bound_s else AT_ONCE)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    def issue(self, samples: list[Any]) -> None:
        """Take queries from LoadGen; returns at once."""
        now = time.perf_counter()
        told = [(sample.id, sample.index) for sample in samples]
        self._loop.call_soon_threadsafe(self._start, told, now)

    def _start(self, told: list[tuple[int, int]], due: float) -> None:
        for number, index in told:
            task = self._loop.create_task(self._ask(number, index, due))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _ask(self, number: int, index: int, due: float) -> None:
        picture = self._pictures[index % len(self._pictures)]
        async with (
            self._places,
            self._session.post(self._url, data=picture, headers=self._headers) as answer,
        ):
            await answer.read()
        if answer.status != 200:
            await asyncio.sleep(due + self._bound_s + 0.001 - time.perf_counter())
        loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(number, 0, 0)])


def main(arguments: list[str]) -> None:
    """Run, and print what LoadGen's summary says."""
    url, scenario, rate, bound_s, seconds, *paths = arguments
    pictures = [Path(path).read_bytes() for path in paths]
    system = System(url, pictures, float(bound_s))
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, scenario)
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = int(float(seconds) * 1000)
    settings.min_query_count = 1
    settings.offline_expected_qps = settings.server_target_qps = float(rate)
    settings.server_target_latency_ns = int(float(bound_s) * 1e9)
    settings.server_target_latency_percentile = 0.99
    under_test = loadgen.ConstructSUT(system.issue, lambda: None)
    library = loadgen.ConstructQSL(len(pictures), len(pictures), lambda _: None, lambda _: None)
    with tempfile.TemporaryDirectory() as folder:
        logs = loadgen.LogSettings()
        logs.log_output = loadgen.LogOutputSettings()
        logs.log_output.outdir = folder
        loadgen.StartTestWithLogSettings(under_test, library, settings, logs)
        told = (Path(folder) / "mlperf_log_summary.txt").read_text()
    print(json.dumps({"rate": _number(told, RATE), "p99_s": _number(told, LATENCY) / 1e9}))
    sys.stdout.flush()
    os._exit(0)  # its threads do not end by themselves


RATE = r"(?:Samples per second|Completed samples per second)\s*:\s*([\d.e+]+)"
LATENCY = r"99\.00 percentile latency \(ns\)\s*:\s*(\d+)"


def _number(told: str, pattern: str) -> float:
    found = re.search(pattern, told)
    return float(found.group(1)) if found else 0.0


if __name__ == "__main__":
    main(sys.argv[1:])
