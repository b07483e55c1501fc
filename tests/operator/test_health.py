"""/healthz and /readyz of a real process: false when it no longer hears, and they say why."""

import asyncio
import contextlib
import re
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from controlplane.kube import Kube, credentials_from
from controlplane.plane import OPERATOR, ControlPlane
from controlplane.process import OperatorProcess
from yolofleet.cluster import kinds
from yolofleet.runtime.kind import Kind

Eventually = Callable[..., Any]
NewOperator = Callable[..., OperatorProcess]

BOOKMARK = re.compile(rb'^{"type":"BOOKMARK"')


class Wire:
    """All that an operator and the API server say to each other; can swallow what watches tell."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self._credentials = credentials_from(plane.kubeconfig(OPERATOR))
        self._config = yaml.safe_load(plane.kubeconfig(OPERATOR).read_text())
        self.kubeconfig = folder / "wire.kubeconfig"
        self.swallows: dict[str, str] = {}  # kind's plural: "all", or "events" (not bookmarks)
        self._session = self._credentials.session()
        self._watches: list[web.Request] = []

    async def start(self) -> web.AppRunner:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        [cluster] = self._config["clusters"]
        cluster["cluster"] = {"server": f"http://127.0.0.1:{runner.addresses[0][1]}"}
        self.kubeconfig.write_text(yaml.safe_dump(self._config))
        return runner

    async def stop(self, runner: web.AppRunner) -> None:
        await self._session.close()
        await runner.cleanup()

    def heal(self) -> None:
        """Let everything through again, and cut what was open meanwhile."""
        self.swallows.clear()
        for watch in self._watches:
            if watch.transport:
                watch.transport.close()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        url = self._credentials.server + request.raw_path
        headers = {n: v for n, v in request.headers.items() if n not in ("Host", "Content-Length")}
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.request(
            request.method, url, headers=headers, data=await request.read() or None, timeout=timeout
        ) as answer:
            if request.query.get("watch") != "true":
                kept = {"Content-Type": answer.content_type}
                return web.Response(body=await answer.read(), status=answer.status, headers=kept)
            told = web.StreamResponse(status=answer.status)
            await told.prepare(request)
            self._watches.append(request)
            async for line in answer.content:
                swallowed = self.swallows.get(request.path.rsplit("/", 1)[-1])
                if not swallowed or (swallowed == "events" and BOOKMARK.match(line)):
                    await told.write(line)
            return told


@pytest.fixture
async def wire(plane: ControlPlane, tmp_path: Path) -> AsyncIterator[Wire]:
    one = Wire(plane, tmp_path)
    runner = await one.start()
    yield one
    await one.stop(runner)


async def health(operator: OperatorProcess, path: str = "healthz") -> SimpleNamespace:
    """Ask without a thread: the wire is served by this very loop."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{operator.port}/{path}") as answer,
    ):
        return SimpleNamespace(status=answer.status, text=await answer.text())


def a_child(kind: Kind, namespace: str, name: str, **spec: Any) -> dict[str, Any]:
    labels = {"app.kubernetes.io/managed-by": "yolofleet"}
    return {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": spec,
    }


def a_service(namespace: str, name: str) -> dict[str, Any]:
    ports = [{"port": 80, "protocol": "TCP"}]
    return a_child(kinds.SERVICE, namespace, name, ports=ports)


def a_budget(namespace: str, name: str) -> dict[str, Any]:
    return a_child(kinds.PDB, namespace, name, maxUnavailable=1)


async def test_deaf_watches_are_found_named_and_forgiven_once_they_hear(
    new_operator: NewOperator, wire: Wire, kube: Kube, namespace: str, eventually: Eventually
) -> None:
    """One stream is open and silent; another brings its bookmarks, and no event."""
    operator = new_operator(
        KUBECONFIG=str(wire.kubeconfig),
        YOLOFLEET_WATCH_SILENCE_SECONDS="10",
        YOLOFLEET_NAMESPACES=namespace,  # what other tests left is on its way out
    )
    operator.start()

    async def ready() -> bool:
        with contextlib.suppress(aiohttp.ClientConnectionError):
            return (await health(operator, "readyz")).status == 200
        return False

    await eventually(ready)
    await asyncio.sleep(12)
    assert await health(operator) == SimpleNamespace(status=200, text="ok")  # quiet, not deaf
    wire.swallows = {"services": "all", "poddisruptionbudgets": "events"}
    await kube.create(a_service(namespace, "untold"))
    await kube.create(a_budget(namespace, "untold"))

    async def both_named() -> bool:
        found = await health(operator)
        return found.status == 503 and all(
            f"the watch of {kind} is deaf: it has not told 1 change" in found.text
            for kind in ("Service", "PodDisruptionBudget")
        )

    await eventually(both_named)
    assert "Deployment" not in (await health(operator)).text
    held = await asyncio.to_thread(operator.metric, "yolofleet_children", kind="Service")
    assert held == 1, "the list that found it also repaired it"
    wire.heal()

    async def well() -> bool:
        return (await health(operator)).status == 200

    await eventually(well)


async def test_a_replica_that_stands_still_does_not_answer(
    operator: OperatorProcess,
) -> None:
    operator.signal(signal.SIGSTOP)
    try:
        assert await asyncio.to_thread(operator.probe, "healthz", 1.0) == 0
    finally:
        operator.signal(signal.SIGCONT)
    assert await asyncio.to_thread(operator.probe, "healthz") == 200
