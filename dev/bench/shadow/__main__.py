"""P99 of a server with the shadow on beside the same server with it off, in turns.

The server has a core of its own; the client and a canary that answers at once share another. One
process throughout: `live.json` turns the shadow on and off. Prints one line of JSON: medians over
pairs of neighbouring rounds, and what became of the copies.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

from bench.serving.servers import free_port
from bench.shadow.stable import PORT
from demo_cluster.load import percentile
from demo_cluster.pictures import Picture, examples

STABLE, CANARY = "gate-00000000", "gate-11111111"
TOKEN: Final = "0123456789abcdef0123456789abcdef"
SETTLES_S: Final = 4.0  # the file is looked at each 2 s
READY_S: Final = 60


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.shadow", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="of each of both")
    parser.add_argument("--seconds", type=float, default=15, help="of one")
    parser.add_argument("--load", type=float, default=0.4, help="share of one caller's throughput")
    asked = parser.parse_args()
    with TemporaryDirectory() as folder, _running(Path(folder)) as bench:
        print(json.dumps(bench.measure(asked.rounds, asked.seconds, asked.load)))


class Bench:
    """The two servers, and what asks the first."""

    def __init__(self, folder: Path, port: int, evidence: int, client: "Client") -> None:
        self._live = folder / "live" / "live.json"
        self._url = f"http://127.0.0.1:{port}/v1/detect"
        self._evidence = f"http://127.0.0.1:{evidence}/evidence"
        self._client = client

    def measure(self, rounds: int, seconds: float, load: float) -> dict[str, Any]:
        """Return what two of each round say, medians first."""
        self._turn(on=False)
        alone = self._client.ask(self._url, seconds=3, callers=1)
        rate = load * len(alone) / 3
        pairs = []
        for number in range(rounds):
            order = (False, True) if number % 2 else (True, False)
            times = {on: self._round(on, rate, seconds, number) for on in order}
            pairs.append((times[True], times[False]))
            print(number, *(f"{each:.2f}" for both in pairs[-1] for each in both), file=sys.stderr)
        return {
            "rounds": rounds,
            "per_second": round(rate, 1),
            "p50_on_over_off": round(median(on[0] / off[0] for on, off in pairs), 3),
            "p99_on_over_off": round(median(on[1] / off[1] for on, off in pairs), 3),
            "p50_off_ms": round(median(off[0] for _, off in pairs), 2),
            "p99_off_ms": round(median(off[1] for _, off in pairs), 2),
            "p99_off_least_ms": round(min(off[1] for _, off in pairs), 2),
            "p99_off_most_ms": round(max(off[1] for _, off in pairs), 2),
            "copies": self._copies(),
        }

    def _round(self, on: bool, rate: float, seconds: float, seed: int) -> tuple[float, float]:
        self._turn(on=on)
        samples = self._client.ask(self._url, seconds=seconds, rate=rate, seed=seed)
        if failed := [status for _, _, status in samples if status != 200]:
            raise SystemExit(f"{len(failed)} requests failed: {sorted(set(failed))}")
        times = sorted(1000 * took for _, took, _ in samples)
        return percentile(times, 50), percentile(times, 99)

    def _turn(self, *, on: bool) -> None:
        until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        shadow = {"revision": CANARY, "percent": 100, "max_per_second": 1e6, "until": until}
        told = {"shadow": {**shadow, "token": TOKEN} if on else None}
        new = self._live.with_suffix(".new")
        new.write_text(json.dumps(told))
        new.rename(self._live)
        time.sleep(SETTLES_S)

    def _copies(self) -> dict[str, int]:
        with urllib.request.urlopen(self._evidence, timeout=5) as answer:
            told: dict[str, int] = json.load(answer)["shadow"][CANARY]["frames"]
        return told


class Client:
    """The client of `bench.serving`."""

    def __init__(self, process: "subprocess.Popen[str]", pictures: list[str]) -> None:
        self._process = process
        self._pictures = pictures

    def ask(self, url: str, **job: Any) -> list[tuple[float, float, int]]:
        """Return when each request was due, how long it took, and its status."""
        told = {
            "urls": [url],
            "form": "",
            "pictures": self._pictures,
            "callers": 0,
            "headers": {},
            "stamped": False,
            "unlike": True,  # what repeats is not shown
            "patience_s": 20,
            **job,
        }
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        samples: list[tuple[float, float, int]] = json.loads(self._process.stdout.readline())[
            "samples"
        ]
        return samples


@contextmanager
def _running(folder: Path) -> Iterator[Bench]:
    first, *others = sorted(os.sched_getaffinity(0))
    ours, theirs = {first}, set(others[:1]) or {first}
    pictures = examples()
    for picture in pictures:
        (folder / picture.name).write_bytes(picture.data)
    (folder / "live").mkdir()
    port, evidence, canary = free_port(), free_port(), free_port()
    settings = {
        "YOLOSERVE_REVISION": STABLE,
        "YOLOSERVE_NAME": "gate",
        "YOLOSERVE_NAMESPACE": "bench",
        "YOLOSERVE_LIVE_DIR": str(folder / "live"),
        "YOLOSERVE_EVIDENCE_PORT": str(evidence),
        PORT: str(canary),
    }
    with ExitStack() as stack:

        def start(cores: set[int], *arguments: str, **more: Any) -> "subprocess.Popen[str]":
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                env={**os.environ, **settings},
                preexec_fn=partial(os.sched_setaffinity, 0, cores),
                text=True,
                **more,
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
            return process

        serve = ("serve", "--port", str(port), "--deadline-ms", "10000")
        log = stack.enter_context((folder / "server.log").open("w"))
        start(ours, "bench.shadow.stable", *serve, stdout=log, stderr=log)
        answer = _first(f"http://127.0.0.1:{port}/v1/detect", pictures[0], folder / "server.log")
        (folder / "answer.json").write_text(json.dumps(_as_canary(answer)))
        start(theirs, "bench.shadow.canary", str(canary), CANARY, str(folder / "answer.json"))
        client = start(theirs, "bench.serving.load", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        names = [str(folder / picture.name) for picture in pictures]
        yield Bench(folder, port, evidence, Client(client, names))


def _first(url: str, picture: Picture, log: Path) -> dict[str, Any]:
    end = time.monotonic() + READY_S
    while True:
        request = urllib.request.Request(url, picture.data, {"Content-Type": "image/jpeg"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                told: dict[str, Any] = json.load(answer)
                return told
        except OSError:
            if time.monotonic() > end:
                raise SystemExit(f"the server did not start:\n{log.read_text()[-3000:]}") from None
            time.sleep(0.2)


def _as_canary(answer: dict[str, Any]) -> dict[str, Any]:
    classes = [f"class-{number}" for number in range(12)]
    told = {"classes": classes, "confidence": 0.25}
    return {**answer, "model": {**answer["model"], "revision": CANARY}, "shadow": told}


if __name__ == "__main__":
    main()
