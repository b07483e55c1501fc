"""One round of one server: ready, closed loops, open loops from half to twice its capacity."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any, Final

from bench.serving.assets import Assets, environment
from bench.serving.load import GONE, Sample
from bench.serving.servers import Cores, Running, Server, common, running

Numbers = dict[str, float]

CALLERS: Final = (4, 16)
SHORT_S: Final = 0.2
LONG_S: Final = 1.0
SERVICE_TIMES: Final = 17
SETTLE: Final = 0.15  # of a phase: what was answered before is not counted
PATIENCE_S: Final = 20.0
LAST_PATIENCE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long each phase of a round takes."""

    closed_s: float
    open_s: float
    engine_s: float


class Client:
    """The client's processes, which share what there is to ask."""

    def __init__(self, processes: Sequence["subprocess.Popen[str]"], assets: Assets) -> None:
        self._processes = processes
        self._pictures = [str(path) for path in assets.pictures]
        self.others: list[float] = []  # of each phase: cores that neither server nor client used

    def closed(
        self, target: Running, callers: int, seconds: float, *, patience_s: float = PATIENCE_S
    ) -> "Load":
        """Let `callers` ask one after the other."""
        many = len(self._processes)
        shares = [callers // many + (number < callers % many) for number in range(many)]
        jobs = [{"callers": share, "patience_s": patience_s} for share in shares if share]
        return self._run(target, seconds, jobs)

    def open(
        self,
        target: Running,
        rate: float,
        seconds: float,
        seed: int,
        *,
        deadline_s: float,
        patience_s: float = PATIENCE_S,
    ) -> "Load":
        """Send at Poisson's times; servers that take one are told the deadline."""
        many = len(self._processes)
        job = {
            "rate": rate / many,
            "patience_s": patience_s,
            "headers": {"X-Deadline-Ms": f"{deadline_s * 1000:.1f}"} if target.server.sheds else {},
        }
        # Poisson's times of several are those of one.
        return self._run(target, seconds, [job | {"seed": seed * many + n} for n in range(many)])

    def _run(self, target: Running, seconds: float, jobs: Sequence[dict[str, Any]]) -> "Load":
        usual = {
            "urls": target.urls,
            "form": target.server.form,
            "pictures": self._pictures,
            "seconds": seconds,
            "callers": 0,
            "headers": {},
            "stamped": target.server.stamped,
        }
        asked = self._processes[: len(jobs)]
        began, before, busy_before = time.perf_counter(), target.cpu_s(), busy_s()
        for process, job in zip(asked, jobs, strict=True):
            _say(process, usual | job)
        answers = list(map(_heard, asked))
        each = [after - before.get(pid, 0.0) for pid, after in target.cpu_s().items()]
        server_cpu_s, client_cpu_s = sum(each), sum(answer["cpu_s"] for answer in answers)
        others_s = busy_s() - busy_before - server_cpu_s - client_cpu_s
        self.others.append(max(0.0, others_s) / (time.perf_counter() - began))
        samples = [tuple(sample) for answer in answers for sample in answer["samples"]]
        busiest_s = max(each, default=0.0)
        return Load(seconds, samples, client_cpu_s, server_cpu_s, busiest_s, len(asked))


def _say(process: "subprocess.Popen[str]", job: dict[str, Any]) -> None:
    assert process.stdin
    process.stdin.write(json.dumps(job) + "\n")
    process.stdin.flush()


def _heard(process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdout
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    return answer


def busy_s(told: Path = Path("/proc/stat")) -> float:
    """Return how long all cores together have worked, in seconds."""
    ticks = [int(each) for each in told.read_text().splitlines()[0].split()[1:9]]
    idle, waiting_for_disk = ticks[3:5]
    return (sum(ticks) - idle - waiting_for_disk) / os.sysconf("SC_CLK_TCK")


@contextmanager
def client(assets: Assets, cores: Cores) -> Iterator[Client]:
    """Start the client, a process on each core that is its own, or one on those that it shares."""
    with ExitStack() as processes:
        many = 1 if cores.server & cores.client else len(cores.client)
        yield Client([processes.enter_context(_asking(cores)) for _ in range(many)], assets)


@contextmanager
def _asking(cores: Cores) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-m", "bench.serving.load"],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=partial(os.sched_setaffinity, 0, cores.client),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@dataclass(frozen=True, slots=True)
class Load:
    """What a phase gave."""

    seconds: float
    samples: Sequence[Sample]
    client_cpu_s: float
    server_cpu_s: float
    busiest_cpu_s: float  # of all its processes
    clients: int = 1  # processes

    def rate(self, within_s: float = float("inf")) -> float:
        """Count the good answers a second, `within_s` of when they were due.

        Those that came between the first moments and the last request: an answer that is still to
        come when the last request is sent belongs to no second of the phase.
        """
        began = self.seconds * SETTLE
        good = sum(
            began <= due + took <= self.seconds and status == 200 and took <= within_s
            for due, took, status in self.samples
        )
        return good / (self.seconds - began)

    def late(self, within_s: float) -> float:
        """Return the share of the requests that were answered as if good, and late or never."""
        late = sum(
            status in (GONE, 200) and (status == GONE or took > within_s)
            for _, took, status in self.samples
        )
        return late / max(1, len(self.samples))

    def cpu_ms(self) -> float:
        """Return the CPU time of the server for each good answer: neighbours change it little."""
        return self.server_cpu_s * 1000 / self._good()

    def busiest_cpu_ms(self) -> float:
        """Return the same of the process that has most of it: more cores do not help that one."""
        return self.busiest_cpu_s * 1000 / self._good()

    def clients_busy(self) -> float:
        """Return the share of a core that each client took: near 1 it is they who are slow."""
        return self.client_cpu_s / self.seconds / self.clients

    def _good(self) -> int:
        return max(1, sum(status == 200 for *_, status in self.samples))

    def refused(self) -> float:
        """Return the share of the requests that were told no."""
        refused = sum(status not in (GONE, 200) for _, _, status in self.samples)
        return refused / max(1, len(self.samples))

    def quantile_ms(self, share: float) -> float:
        """Return a quantile of how long those waited who were not refused, for nothing included."""
        took = sorted(took for _, took, status in self.samples if status in (GONE, 200))
        return took[min(len(took) - 1, int(share * len(took)))] * 1000 if took else 0.0


def one_round(
    server: Server, assets: Assets, cores: Cores, asking: Client, plan: Plan, seed: int
) -> Numbers:
    """Measure one server once."""
    asking.others.clear()
    numbers = _one_round(server, assets, cores, asking, plan, seed)
    return numbers | {"others_cores": mean(asking.others)}


def _one_round(
    server: Server, assets: Assets, cores: Cores, asking: Client, plan: Plan, seed: int
) -> Numbers:
    numbers: Numbers = {}
    if server.sheds:
        numbers |= engine_only(server, assets, cores, plan.engine_s)
    with running(server, assets, cores) as target:
        numbers["ready_s"] = target.ready_s
        asking.closed(target, CALLERS[0], plan.closed_s / 4)  # warm
        for callers in CALLERS:
            load = asking.closed(target, callers, plan.closed_s)
            numbers[f"closed_{callers}"] = load.rate()
            numbers[f"closed_{callers}_p99_ms"] = load.quantile_ms(0.99)
            numbers[f"closed_{callers}_cpu_ms"] = load.cpu_ms()
        numbers["client_cpu_share"] = load.client_cpu_s / (load.client_cpu_s + load.server_cpu_s)
        capacity = max(numbers[f"closed_{callers}"] for callers in CALLERS)
        numbers["capacity"] = capacity
        deadline_s = numbers["deadline_s"] = max(SHORT_S, SERVICE_TIMES / capacity)
        if not server.sheds:
            return numbers | _open_loops(target, asking, plan, seed, capacity, deadline_s)
    # What it may let in follows from its deadline, which is part of its configuration.
    with running(server, assets, cores, deadline_s * 1000) as target:
        asking.closed(target, CALLERS[0], plan.closed_s / 4)
        return numbers | _open_loops(target, asking, plan, seed, capacity, deadline_s)


def _open_loops(
    target: Running, asking: Client, plan: Plan, seed: int, capacity: float, deadline_s: float
) -> Numbers:
    numbers: Numbers = {}
    for share in (0.5, 0.8, 1.2, 2.0):
        load = asking.open(
            target,
            share * capacity,
            plan.open_s,
            seed,
            deadline_s=deadline_s,
            patience_s=LAST_PATIENCE_S if share == 2.0 else PATIENCE_S,  # it is ended after that
        )
        for name, within_s in (("", deadline_s), ("_short", SHORT_S), ("_1s", LONG_S)):
            numbers[f"goodput_{share}{name}"] = load.rate(within_s) / capacity
            numbers[f"late_{share}{name}"] = load.late(within_s)
        numbers[f"refused_{share}"] = load.refused()
        numbers[f"p50_ms_{share}"] = load.quantile_ms(0.5)
        numbers[f"p99_ms_{share}"] = load.quantile_ms(0.99)
    numbers["memory_mib"] = target.memory_mib()
    return numbers


def engine_only(server: Server, assets: Assets, cores: Cores, seconds: float) -> Numbers:
    """Ask yoloserve itself for the speed of its engine alone, and of its path without HTTP."""
    precision = (
        server.arguments[server.arguments.index("--precision") :][:2]
        if ("--precision" in server.arguments)
        else ()
    )
    told = subprocess.run(
        [
            *(sys.executable, "-m", "yoloserve", "bench", str(assets.pictures[0])),
            *(*common(assets), *precision, "--seconds", str(seconds)),
        ],
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
        preexec_fn=partial(os.sched_setaffinity, 0, cores.server),
    ).stdout
    return speeds_in(told)


def speeds_in(told: str) -> Numbers:
    """Read what `yoloserve bench` prints: "engine" and "path", pictures a second."""
    return {
        name: float(line.split("images/s")[0].split()[-1])
        for line in told.splitlines()
        for name, label in (("engine", "engine alone"), ("path", "whole path"))
        if line.startswith(label)
    }
