"""Faults 5, 6 and 10 to 12: the API server and etcd crash, freeze, forget, or have had enough."""

import asyncio
import json
import random
import signal
import time
import urllib.request

import pytest

from controlplane.kube import Kube, connect, eventually
from controlplane.plane import ControlPlane
from faults.faults import Refused, SmallPages, any_call
from faults.size import SEED, nightly, sized
from faults.stage import NAME
from faults.theatre import Theatre
from faults.traces import PROMOTE, STEADY, UPDATE, Trace
from yolofleet.cluster import kinds

STORM_S = sized(6, 60)
LEADER = (0, 1)
"""Whoever cannot renew the Lease for ten seconds has to end with 1, and starts again."""

OTHERS = ("Pod ", "ReplicaSet ")
"""What a controller made whose answer was lost it may make again, and take one back."""


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("status", "share", "trace"),
    [(429, 0.5, UPDATE), (503, 0.3, PROMOTE), (500, 0.3, UPDATE)],
    ids=["429-update", "503-promote", "500-update"],
)
async def test_12_a_server_that_has_had_enough(
    theatre: Theatre, status: int, share: float, trace: Trace
) -> None:
    headers = {"Retry-After": "1"} if status == 429 else {}
    storm = Refused(any_call, status=status, share=share, headers=headers, dice=random.Random(SEED))
    label = f"12 storm of {status} ({share:.0%})"
    async with theatre.broken(label, trace, retries=5) as stage:
        with stage.proxy.suffering(storm):
            await trace.step(stage)
            await asyncio.sleep(STORM_S)
            await eventually(lambda: storm.struck)


@pytest.mark.nightly
@pytest.mark.alone
async def test_05_a_deletion_lost_in_a_restart_of_the_server_is_repaired(theatre: Theatre) -> None:
    """The server freezes, another deletes a child, the first is killed and starts anew."""
    plane = theatre.plane
    async with theatre.broken(
        "5 deletion, then a new server", STEADY, counts=False, safe=False, exits=LEADER
    ) as stage:
        await asyncio.sleep(1)
        plane.apiserver.signal(signal.SIGSTOP)
        second = await asyncio.to_thread(plane.another_apiserver)
        try:
            async with connect(second.kubeconfig) as client:
                await Kube(client).delete(kinds.SERVICE, stage.namespace, NAME)
        finally:
            second.program.stop(signal.SIGKILL)
        await asyncio.to_thread(plane.restart_apiserver)
        began = time.monotonic()
        await eventually(lambda: stage.kube.find(kinds.SERVICE, stage.namespace, NAME))
        theatre.measured["5 repaired after a restart of the server, s"].append(
            time.monotonic() - began
        )


@pytest.mark.alone
@pytest.mark.parametrize("seconds", sized([5], [5, 60, 300]))
@pytest.mark.parametrize("how", ["SIGSTOP", nightly("SIGKILL")])
async def test_10_an_api_server_that_is_away(theatre: Theatre, how: str, seconds: int) -> None:
    plane = theatre.plane
    async with theatre.broken(
        f"10 API server {how} {seconds} s", UPDATE, retries=2, exits=LEADER, net=OTHERS
    ) as stage:
        await UPDATE.step(stage)
        await asyncio.sleep(0.3)
        if how == "SIGSTOP":
            plane.apiserver.signal(signal.SIGSTOP)
            await asyncio.sleep(seconds)
            plane.apiserver.signal(signal.SIGCONT)
        else:
            await asyncio.to_thread(plane.restart_apiserver, signal.SIGKILL, seconds)


@pytest.mark.alone
@pytest.mark.parametrize("seconds", sized([5], [30]))
async def test_11_an_etcd_that_is_frozen(theatre: Theatre, seconds: int) -> None:
    async with theatre.broken(
        f"11 etcd SIGSTOP {seconds} s", UPDATE, retries=2, exits=LEADER, net=OTHERS
    ) as stage:
        await UPDATE.step(stage)
        await asyncio.sleep(0.3)
        theatre.plane.etcd.signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        theatre.plane.etcd.signal(signal.SIGCONT)


@pytest.mark.nightly
async def test_06_a_list_whose_rest_was_forgotten_is_begun_anew(theatre: Theatre) -> None:
    """Pages of one, and a 410 for the second page of the first two lists that have one."""
    forgotten = Refused(lambda call: "continue" in call.query, times=2, status=410)
    async with theatre.broken("6 list forgotten half way", STEADY, retries=0, exits=(-9,)) as stage:
        stage.proxy.faults += [SmallPages(1), forgotten]
        stage.operator.kill()
        await eventually(lambda: forgotten.struck == 2)


@pytest.mark.alone
async def test_06_a_watch_whose_past_was_compacted_begins_anew(theatre: Theatre) -> None:
    """Cut off, a child deleted, everything before compacted, the server new: all must be listed."""
    async with theatre.broken(
        "6 compaction while cut off", STEADY, counts=False, safe=False, exits=LEADER
    ) as stage:
        await asyncio.sleep(1)
        theatre.plane.apiserver.signal(signal.SIGSTOP)
        second = await asyncio.to_thread(theatre.plane.another_apiserver)
        try:
            async with connect(second.kubeconfig) as client:
                await Kube(client).delete(kinds.VIRTUAL_SERVICE, stage.namespace, NAME)
            compact(theatre.plane)
        finally:
            second.program.stop(signal.SIGKILL)
        await asyncio.to_thread(theatre.plane.restart_apiserver)


def compact(plane: ControlPlane) -> None:
    """Let etcd forget every version but the newest."""
    revision = _etcd(plane, "range", {"key": "AA=="})["header"]["revision"]
    _etcd(plane, "compaction", {"revision": revision, "physical": True})


def _etcd(plane: ControlPlane, call: str, body: dict[str, object]) -> dict[str, dict[str, str]]:
    flag = "--listen-client-urls="
    url = next(a.removeprefix(flag) for a in plane.etcd.arguments if a.startswith(flag))
    request = urllib.request.Request(f"{url}/v3/kv/{call}", data=json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, dict[str, str]] = json.load(answer)
    return found
