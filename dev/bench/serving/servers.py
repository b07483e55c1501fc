"""The servers that are compared, and one of them while it runs."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from bench.serving.assets import HERE, Assets, environment
from bench.serving.load import BOUNDARY, form

READY_S: Final = 120
MARK: Final = "YOLOFLEET_BENCH"  # in the environment of every process of one server


class NotStarted(Exception):
    """Why, in a line; after it the end of the log."""


@dataclass(frozen=True, slots=True)
class Server:
    """What to start, and how it is asked."""

    name: str
    arguments: tuple[str, ...]  # {port} and {deadline_ms} are filled in
    path: str = "/predict"
    form: str = ""  # the field of the form; empty: the picture is the body
    sheds: bool = False  # takes a deadline, and refuses what it cannot answer in time
    stamped: bool = False  # is told when the client sent a request, as by a gateway
    replicas: int = 1  # processes that know nothing of each other; clients ask them in turns


@dataclass(frozen=True, slots=True)
class Cores:
    """Who runs where."""

    server: frozenset[int]
    client: frozenset[int]

    @classmethod
    def split(cls, clients: int = 1) -> "Cores":
        """Give each client a core of its own where the server keeps three or more."""
        every = sorted(os.sched_getaffinity(0))
        if len(every) < clients + 3:
            return cls(frozenset(every), frozenset(every))
        return cls(frozenset(every[:-clients]), frozenset(every[-clients:]))

    def __str__(self) -> str:
        """Say it in words."""
        if self.server == self.client:
            return f"server and client share {len(self.server)} cores"
        return f"server on {len(self.server)} cores, clients on {len(self.client)} more"


def servers(assets: Assets) -> tuple[Server, ...]:
    """List them, ours first."""
    peers = HERE / "peers"
    python, network = str(assets.python), str(assets.network)

    def peer(name: str, file: str, model: str, form: str = "") -> Server:
        return Server(name, (python, str(peers / file), model, "{port}"), form=form)

    return (
        yoloserve("yoloserve", assets),
        yoloserve("yoloserve fp32", assets, "--precision", "fp32"),
        peer("FastAPI + public package", "tutorial.py", str(assets.checkpoint), form="file"),
        peer("FastAPI + ONNX Runtime, square", "onnx_fastapi.py", str(assets.square)),
        peer("FastAPI + ONNX Runtime", "onnx_fastapi.py", network),
        peer("LitServe", "lit.py", network, form="request"),
        peer("Ray Serve", "ray_serve.py", network),
    )


def yoloserve(name: str, assets: Assets, *options: str) -> Server:
    """Describe ours with some options."""
    return Server(
        name,
        (
            *(sys.executable, "-m", "yoloserve", "serve"),
            *("--port", "{port}", "--deadline-ms", "{deadline_ms}"),
            *(*common(assets), *options),
        ),
        path="/v1/detect",
        sheds=True,
    )


def common(assets: Assets) -> tuple[str, ...]:
    """Return what every command of yoloserve is told here."""
    return "--model", assets.network.as_uri(), "--cache-dir", str(assets.folder / "yoloserve")


class Running:
    """A started server, with all processes that it made. port, url: of its first replica."""

    def __init__(self, server: Server, ports: Sequence[int], mark: str, ready_s: float) -> None:
        self.server = server
        self.port = ports[0]
        self.urls = [f"http://127.0.0.1:{port}{server.path}" for port in ports]
        self.url = self.urls[0]
        self.ready_s = ready_s
        self._mark = mark

    def memory_mib(self) -> float:
        """Sum the memory of its processes, what they share counted once (PSS)."""
        return sum(map(_pss_mib, marked(self._mark)))

    def cpu_s(self) -> dict[int, float]:
        """Tell the CPU time of each of its processes."""
        return {pid: _cpu_s(pid) for pid in marked(self._mark)}


@contextmanager
def running(
    server: Server,
    assets: Assets,
    cores: Cores,
    deadline_ms: float = 10_000,
    within_s: float = READY_S,
) -> Iterator[Running]:
    """Start a server, wait until all of it has answered a picture, and end all of it afterwards."""
    ports, mark = [free_port() for _ in range(server.replicas)], uuid.uuid4().hex
    log = assets.folder / f"{server.name.replace(' ', '-')}.log"
    began = time.perf_counter()
    replicas: list[subprocess.Popen[bytes]] = []
    try:
        with log.open("wb") as output:
            for port in ports:
                command = [
                    each.format(port=port, deadline_ms=deadline_ms) for each in server.arguments
                ]
                started = subprocess.Popen(
                    command,
                    env={**environment(), MARK: mark},
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=partial(os.sched_setaffinity, 0, cores.server),
                )
                replicas.append(started)
        target = Running(server, ports, mark, 0)
        for replica, url in zip(replicas, target.urls, strict=True):
            end = began + within_s
            _wait(server, replica, url, assets.pictures[0].read_bytes(), log, end)
        target.ready_s = time.perf_counter() - began
        yield target
    finally:
        for replica in replicas:
            replica.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            for replica in replicas:
                replica.wait(3)
        for pid in marked(mark):  # some leave processes behind
            _kill(pid)
        for replica in replicas:
            replica.wait()


def _wait(
    server: Server,
    process: "subprocess.Popen[bytes]",
    url: str,
    picture: bytes,
    log: Path,
    end: float,
) -> None:
    """Return when a picture was answered."""
    kind = f"multipart/form-data; boundary={BOUNDARY}" if server.form else "image/jpeg"
    body = form(server.form, picture) if server.form else picture
    while (left := end - time.perf_counter()) > 0 and process.poll() is None:
        request = urllib.request.Request(url, body, {"Content-Type": kind})
        try:
            with urllib.request.urlopen(request, timeout=left):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.05)
    why = "was not ready in time" if process.poll() is None else "ended"
    raise NotStarted(f"{server.name} {why}:\n{log.read_text()[-3000:]}")


def free_port() -> int:
    """Ask the kernel for a port."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def marked(mark: str) -> list[int]:
    """Find the processes that carry a mark in their environment."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            entries = (process / "environ").read_bytes().split(b"\0")
        except OSError:  # gone, or somebody else's
            continue
        if wanted in entries:
            found.append(int(process.name))
    return found


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _pss_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    told: Mapping[str, str] = dict(line.split(":", 1) for line in lines[1:])
    return int(told["Pss"].split()[0]) / 1024


def _cpu_s(pid: int) -> float:
    try:
        told = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    except OSError:
        return 0.0
    return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")
