"""Faults 17, 19 and 21: who the detector is, who leads, and how a process ends."""

import asyncio
import signal
import time
from datetime import timedelta

import pytest

from controlplane.kube import eventually
from faults.faults import Held, Then, of
from faults.oracles import end, judge
from faults.proxy import Call, FaultProxy
from faults.size import sized
from faults.stage import LEASE, Stage
from faults.theatre import Theatre
from faults.traces import CREATE, DELETE, UPDATE
from yolofleet.cluster import kinds
from yolofleet.runtime import kind as api

MID_WRITE = ("deployments", "services", "virtualservices")


@pytest.mark.parametrize("kind", sized(MID_WRITE[:1], MID_WRITE))
async def test_17_a_detector_deleted_while_a_write_is_on_its_way_leaves_nothing(
    theatre: Theatre, kind: str
) -> None:
    expected = await theatre.reference(DELETE)
    async with theatre.broken(
        "17 deleted mid-write", CREATE, judged=expected, counts=False
    ) as stage:
        held = Held(of(kind, "patch"))
        with stage.proxy.suffering(held):
            await CREATE.step(stage)
            await eventually(lambda: held.struck)
            await stage.delete()
            await asyncio.sleep(0.5)
            held.release()
            await stage.rest(2)  # it finishes what it was at; garbage collection takes that


@pytest.mark.nightly
@pytest.mark.parametrize("kind", sized(MID_WRITE[:1], MID_WRITE))
async def test_17_a_namesake_with_a_new_uid_gets_children_of_its_own(
    theatre: Theatre, kind: str
) -> None:
    async with theatre.broken("17 recreated mid-write", CREATE, counts=False) as stage:
        held = Held(of(kind, "patch"))
        with stage.proxy.suffering(held):
            await CREATE.step(stage)
            await eventually(lambda: held.struck)
            await stage.delete()
            await CREATE.step(stage)
            held.release()


async def test_19_a_leader_that_slept_writes_nothing_when_it_wakes(theatre: Theatre) -> None:
    expected = await theatre.reference(UPDATE)
    async with (
        theatre.stage() as stage,
        FaultProxy(stage.plane.server, stage.plane.trust).running() as other,
    ):
        await UPDATE.prepare(stage)
        await end(stage)
        sleeper, old = stage.replica(stage.proxy, patient=False), stage.proxy
        stage.operator = stage.replica(other)
        try:
            sleeper.start()
            await stage.leading(sleeper)
            stage.operator.start()
            await stage.operator.ready()
            await stage.begin()
            sleeper.signal(signal.SIGSTOP)
            await UPDATE.step(stage)
            await stage.leading(stage.operator)
            stage.proxy = other
            await stage.settled()
            old.number_from_here()
            sleeper.signal(signal.SIGCONT)
            assert await asyncio.to_thread(sleeper.wait) == 1
            assert not old.writes, [str(call) for call in old.writes]
            await judge(stage, expected, retries=1)
        finally:
            sleeper.kill()
    theatre.results["19 leader asleep 15 s", UPDATE.name]["passed"] += 1


@pytest.mark.nightly
async def test_19_a_lease_that_is_deleted_is_made_again(theatre: Theatre) -> None:
    async with theatre.broken("19 Lease deleted", UPDATE) as stage:
        await UPDATE.step(stage)
        await stage.kube.delete(api.LEASE, stage.namespace, LEASE)
        await eventually(lambda: stage.kube.find(api.LEASE, stage.namespace, LEASE))


def _tells_of_a_drain(call: Call) -> bool:
    return (call.kind, call.subresource) == (kinds.DETECTOR.plural, "status") and (
        b'"Draining"' in call.body
    )


@pytest.mark.nightly
@pytest.mark.parametrize("hours", [-1, 1])
async def test_19_a_clock_that_jumps_by_an_hour(theatre: Theatre, hours: int) -> None:
    """In the middle of a release, with everything that is remembered stamped by the old clock."""
    expected = await theatre.reference(UPDATE)
    theatre.results[f"19 clock {hours:+} h", UPDATE.name]["failed"] += 1
    async with theatre.clock_stage() as (stage, clock):
        await UPDATE.prepare(stage)
        await stage.begin()
        jump = Then(_tells_of_a_drain, act=lambda: clock.shift(timedelta(hours=hours)))
        with stage.proxy.suffering(jump):
            await UPDATE.step(stage)
            await eventually(lambda: jump.struck)
        await judge(stage, expected, retries=1)
    theatre.results[f"19 clock {hours:+} h", UPDATE.name].update({"failed": -1, "passed": 1})


@pytest.mark.parametrize("kind", sized(MID_WRITE[:1], MID_WRITE))
async def test_21_sigterm_in_the_middle_of_a_write_gives_the_lease_back(
    theatre: Theatre, kind: str
) -> None:
    async with theatre.broken("21 SIGTERM mid-write", UPDATE, exits=(0,)) as stage:
        held = Held(of(kind, "patch"))
        with stage.proxy.suffering(held):
            await UPDATE.step(stage)
            await eventually(lambda: held.struck)
            began = time.monotonic()
            stage.restarts = False
            stage.operator.signal(signal.SIGTERM)
            await eventually(lambda: _given_back(stage))
            theatre.measured["21 Lease given back after SIGTERM, s"].append(
                time.monotonic() - began
            )
            held.release()
        stage.restarts = True


async def _given_back(stage: Stage) -> bool:
    lease = await stage.kube.get(api.LEASE, stage.namespace, LEASE)
    return not lease["spec"].get("holderIdentity")
