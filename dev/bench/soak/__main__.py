"""`python -m bench.soak [--minutes 30] [--load 1.2]`: above capacity, watched for what grows.

Starts a server of the bundled detector, measures what it can answer, and then sends that times
`--load`, at random moments (Poisson), with some callers who hang up. Once a second it reads memory
and open files. Fails when memory still grows after the first fifth, when files are left open, when
an answer came late, or when anything but 200, 503 or 504 was answered.

The client runs on the same machine and takes its share of it: figures of throughput are not what
this is for.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

ROOT = Path(__file__).parents[3]
PICTURES = sorted((ROOT / "examples" / "images").glob("*.jpg"))
MOST_GROWTH_MIB_PER_HOUR = 20.0
MOST_MORE_FILES = 20
HANGS_UP = 0.01  # of the callers
IN_FLIGHT = 256  # more than any queue here: a client that waits would hide the overload
ALLOWED = {200, 503, 504}


@dataclass
class Watched:
    """What was seen of one server."""

    pid: int
    deadline_s: float
    seconds: list[float] = field(default_factory=list)
    memory_mib: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    late: int = 0
    hung_up: int = 0

    def look(self, since_s: float) -> None:
        """Read the process's memory and open files."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        self.seconds.append(since_s)
        self.memory_mib.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
        self.files.append(len(os.listdir(f"/proc/{self.pid}/fd")))

    def growth_mib_per_hour(self) -> float:
        """Fit a line to the memory after the first fifth."""
        settled = len(self.seconds) // 5
        if len(self.seconds) - settled < 3:
            return 0.0
        slope = np.polyfit(self.seconds[settled:], self.memory_mib[settled:], 1)[0]
        return float(slope * 3600)

    def faults(self) -> list[str]:
        """Say what should not be."""
        growth, settled = self.growth_mib_per_hour(), len(self.files) // 5
        more = max(self.files[-5:]) - max(self.files[settled : settled + 5])
        wrong = {status: count for status, count in self.statuses.items() if status not in ALLOWED}
        found = (
            (growth > MOST_GROWTH_MIB_PER_HOUR, f"memory grows by {growth:.1f} MiB an hour"),
            (more > MOST_MORE_FILES, f"{more} more files are open than at the start"),
            (bool(wrong), f"answers that should not be: {wrong}"),
            (not self.statuses[200], "nothing was answered"),
        )
        return [told for is_so, told in found if is_so]


def start(folder: str, deadline_ms: float) -> tuple[subprocess.Popen[str], str]:
    """Start a server; returns it and its address once it is ready."""
    environment = os.environ | {
        "YOLOSERVE_PORT": "0",
        "YOLOSERVE_DEADLINE_MS": str(deadline_ms),
        "YOLOSERVE_CACHE_DIR": folder,
        "PYTHONPATH": str(ROOT / "serving_image"),
    }
    command = [sys.executable, "-m", "yoloserve", "serve"]
    server = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert server.stderr
    for line in server.stderr:
        if line.startswith("{") and (told := json.loads(line))["message"] == "ready":
            return server, told["url"]
    raise SystemExit("the server did not start")


async def capacity(client: httpx.AsyncClient, seconds: float) -> float:
    """Measure what is answered a second when four callers never pause."""
    end, answered = time.monotonic() + seconds, 0
    pictures = [path.read_bytes() for path in PICTURES]

    async def caller() -> None:
        nonlocal answered
        while time.monotonic() < end:
            reply = await client.post("/v1/detect", content=random.choice(pictures))
            answered += reply.status_code == 200

    await asyncio.gather(*(caller() for _ in range(4)))
    return answered / seconds


async def soak(
    client: httpx.AsyncClient, watched: Watched, per_second: float, minutes: float
) -> None:
    """Send at random moments, whatever comes back, and look at the server each second."""
    began = time.monotonic()
    end = began + minutes * 60
    pictures = [path.read_bytes() for path in PICTURES]
    under_way: set[asyncio.Task[None]] = set()

    async def call() -> None:
        patience_s = 0.01 if random.random() < HANGS_UP else 30.0
        try:
            reply = await asyncio.wait_for(
                client.post("/v1/detect", content=random.choice(pictures)), patience_s
            )
        except (TimeoutError, httpx.TransportError):
            watched.hung_up += 1
            return
        watched.statuses[reply.status_code] += 1
        if reply.status_code == 200:
            watched.late += reply.json()["timing_ms"]["total"] > watched.deadline_s * 1000

    async def look() -> None:
        while time.monotonic() < end:
            watched.look(time.monotonic() - began)
            await asyncio.sleep(1)

    looking = asyncio.create_task(look())
    due = began
    while (now := time.monotonic()) < end:
        due += random.expovariate(per_second)
        if due > now:
            await asyncio.sleep(due - now)
        if len(under_way) < IN_FLIGHT:
            task = asyncio.create_task(call())
            under_way.add(task)
            task.add_done_callback(under_way.discard)
    await looking
    await asyncio.gather(*under_way)


async def run(minutes: float, load: float, deadline_ms: float) -> int:
    """Soak one server; returns 1 if anything is wrong with it."""
    with tempfile.TemporaryDirectory() as folder:
        server, url = start(folder, deadline_ms)
        assert server.stderr
        drain = asyncio.create_task(asyncio.to_thread(server.stderr.read))
        limits = httpx.Limits(max_connections=IN_FLIGHT)
        try:
            async with httpx.AsyncClient(base_url=url, limits=limits, timeout=30) as client:
                can = await capacity(client, 5)
                watched = Watched(server.pid, deadline_ms / 1000)
                await soak(client, watched, load * can, minutes)
        finally:
            server.send_signal(signal.SIGTERM)
            code = await asyncio.to_thread(server.wait)
            await drain
    faults = watched.faults() + ([f"it ended with {code}"] if code else [])
    if watched.late:
        faults.append(f"{watched.late} late answers")
    told = {
        "minutes": minutes,
        "capacity_per_s": round(can, 1),
        "load": load,
        "statuses": {str(status): count for status, count in sorted(watched.statuses.items())},
        "hung_up": watched.hung_up,
        "late": watched.late,
        "memory_mib": [round(watched.memory_mib[0], 1), round(watched.memory_mib[-1], 1)],
        "growth_mib_per_hour": round(watched.growth_mib_per_hour(), 2),
        "files": [watched.files[0], max(watched.files), watched.files[-1]],
        "faults": faults,
    }
    print(f"soak-result: {json.dumps(told)}")
    return 1 if faults else 0


def main() -> int:
    """Read the options and soak."""
    parser = argparse.ArgumentParser("bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--load", type=float, default=1.2, help="times the capacity")
    parser.add_argument("--deadline-ms", type=float, default=500)
    given = parser.parse_args()
    return asyncio.run(run(given.minutes, given.load, given.deadline_ms))


if __name__ == "__main__":
    sys.exit(main())
