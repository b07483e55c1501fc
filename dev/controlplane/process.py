"""The operator as a process of its own: started, probed, killed, and its log read."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from controlplane import ports
from controlplane.forked import Forked
from controlplane.kube import PATIENCE_S, eventually

MODULE: Final = "yolofleet.__main__"
SOURCES: Final = Path(__file__).resolve().parents[2] / "operator"
TICK_S: Final = 0.5
ANSWERS_S: Final = 60.0
"""An operator that shares its cores with many others answers late; one that is gone, at once."""

INHERITED: Final = dict(os.environ)
"""As of the import: pytest changes it with each test, while threads of ours start operators."""


class OperatorProcess:
    """One replica of the operator. fresh: from nothing, where its start is measured.

    patient: it loses no Lease by waiting for a processor (`forked.PATIENT_LEASE_S`). False where
    that loss is tested; a fresh one has the product's Lease, too.
    """

    def __init__(
        self,
        kubeconfig: Path,
        log: Path,
        environment: Mapping[str, str],
        module: str = MODULE,
        *,
        fresh: bool = False,
        patient: bool = True,
    ) -> None:
        self.port, self.debug_port = ports.reserve(2)
        self._log = log
        self._module = module
        self._fresh = fresh
        self._patient = patient
        self._environment = {
            **INHERITED,
            "PYTHONPATH": str(SOURCES),
            "KUBECONFIG": str(kubeconfig),
            "YOLOFLEET_METRICS_PORT": str(self.port),
            "YOLOFLEET_DEBUG_PORT": str(self.debug_port),
            "YOLOFLEET_IMAGE_CPU": "yoloserve:cpu",
            "YOLOFLEET_IMAGE_TORCH": "yoloserve:torch",
            "YOLOFLEET_IMAGE_GPU": "yoloserve:gpu",
            "YOLOFLEET_DRAIN_SECONDS": "1",  # a test need not wait for 30 s
            **environment,
        }
        self._process: subprocess.Popen[bytes] | Forked | None = None

    def start(self) -> None:
        """Start it, without waiting for anything."""
        if not self._fresh:
            self._process = Forked(
                self._module, self._log, self._environment, patient=self._patient
            )
            return
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                stdout=log,
                stderr=log,
                env=self._environment,
            )

    async def ready(self, timeout_s: float = PATIENCE_S) -> None:
        """Wait until /readyz answers 200. Fails with the log if the process ends."""

        async def answers() -> bool:
            if (status := self.exit_status()) is not None:
                raise RuntimeError(f"the operator exited with {status}:\n{self.text()[-4000:]}")
            return await asyncio.to_thread(self.probe, "readyz") == 200

        await eventually(answers, timeout_s)

    async def silent(
        self, seen: Callable[[], Awaitable[Any]], for_s: float, timeout_s: float = PATIENCE_S
    ) -> None:
        """Wait until `seen`, what it did so far, has been the same for so many seconds of its own.

        A process that gets no processor is silent too, and not done: a probe that it answers counts
        for the pause before it, however long the answer took. seen: None while it is at something.
        """
        deadline = time.monotonic() + timeout_s
        last, silent_s = await seen(), 0.0
        while silent_s < for_s:
            await asyncio.sleep(TICK_S)
            awake = await asyncio.to_thread(self.probe, "healthz")
            now = await seen()
            if awake and now is not None and now == last:
                silent_s += TICK_S
                continue
            assert time.monotonic() < deadline, f"does not come to rest: {now}"
            last, silent_s = now, 0.0

    def probe(self, path: str, timeout_s: float = ANSWERS_S) -> int:
        """Return the status with which a probe is answered; 0 without an answer."""
        try:
            with urllib.request.urlopen(self._url(path), timeout=timeout_s) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except (OSError, http.client.HTTPException):
            return 0

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of `name` that have `labels`; 0 if there are none."""
        with urllib.request.urlopen(self._url("metrics"), timeout=ANSWERS_S) as response:
            lines = response.read().decode().splitlines()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        values = [
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.split("{")[0].split(" ")[0] == name and all(each in line for each in wanted)
        ]
        return sum(values)

    def debug(self, path: str) -> Any:
        """Return what /debug answers at `path`. Raises `KeyError` on a 404."""
        try:
            url = f"http://127.0.0.1:{self.debug_port}/debug/{path}"
            with urllib.request.urlopen(url, timeout=ANSWERS_S) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            error.close()
            raise KeyError(path) from error

    def leads(self) -> bool:
        """Return whether this replica says that it leads; one that has just ended does not."""
        try:
            return self.metric("leader_election_master_status") == 1
        except (OSError, http.client.HTTPException):
            return False

    @property
    def pid(self) -> int:
        """Return the id of the process that was started last."""
        assert self._process is not None
        return self._process.pid

    def exit_status(self) -> int | None:
        """Return the exit status; None while it runs, or before it was started."""
        return self._process.poll() if self._process else None

    def signal(self, number: int) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for its end and return the exit status."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def terminate(self) -> int:
        """Ask it to end, as the kubelet does, and return the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it without warning."""
        if self._process and self._process.poll() is None:
            self.signal(signal.SIGKILL)
            self.wait()

    def text(self) -> str:
        """Return all that it logged."""
        return self._log.read_text() if self._log.exists() else ""

    def log(self, **fields: Any) -> list[dict[str, Any]]:
        """Return the lines that it logged with these `fields`."""
        whole = self.text().rpartition("\n")[0]  # the last line may be on its way
        lines = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return [line for line in lines if fields.items() <= line.items()]

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"
