"""Fault 22: another version of the operator takes over, forth and back."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from faults import heard, written
from faults.oracles import end, log_problems
from faults.size import AT_REST_S, QUIET_S, nightly
from faults.stage import Stage
from faults.theatre import Theatre
from faults.traces import A, B
from yolofleet.cluster import kinds

RECORDINGS = sorted((Path(__file__).parent / "written").glob("*.json"))
OTHERS = {
    "YOLOFLEET_IMAGE_CPU": "yoloserve:later",
    "YOLOFLEET_IMAGE_PULL_POLICY": "Always",
    "YOLOFLEET_DRAIN_SECONDS": "7",
}


async def take_over(stage: Stage, module: str, **environment: str) -> None:
    """Replace the operator by another, as a rollout of its Deployment does."""
    await end(stage)
    assert not log_problems(stage.operator.text())
    stage.operator = stage.replica(stage.proxy, module, **environment)
    stage.proxy.number_from_here()
    stage.operator.start()
    await stage.leading(stage.operator)


def of_each(sentinel: str) -> list[Any]:
    """Return the names of all specs; `make test` tries the one."""
    return [name if name == sentinel else nightly(name) for name in written.SPECS]


@pytest.mark.parametrize("name", of_each("canary"))
async def test_22_an_upgrade_and_a_downgrade_write_nothing(theatre: Theatre, name: str) -> None:
    """Other defaults, a higher render version: no pod changes, no spec, not even a status."""
    label = f"22 upgrade, downgrade: {name}"
    theatre.results[label, "steady"]["failed"] += 1
    async with theatre.stage() as stage:
        await stage.create(**written.SPECS[name])
        await stage.settled()
        if "autoscaling" in written.SPECS[name]:  # nobody measures here, which is told in a while
            await stage.says("AutoscalingLimited", "FailedGetResourceMetric")
        await stage.rest(AT_REST_S)
        before = await pods_of(stage)
        for module, environment in (("faults.later", OTHERS), (heard.__name__, {})):
            await take_over(stage, module, **environment)
            await asyncio.sleep(QUIET_S)
            assert not stage.proxy.writes, stage.operator.text()[-4000:]
        assert await pods_of(stage) == before
        await end(stage)
    theatre.results[label, "steady"].update({"failed": -1, "passed": 1})


@pytest.mark.nightly
async def test_22_a_release_begun_by_one_version_is_finished_by_another(theatre: Theatre) -> None:
    label = "22 upgrade in mid-release"
    theatre.results[label, "promote"]["failed"] += 1
    async with theatre.stage() as stage:
        await stage.create(**written.SPECS["canary"])
        await stage.settled()
        before = await pods_of(stage)
        await take_over(stage, "faults.later", **OTHERS)
        await stage.edit(model=B, canary=None)
        await stage.settled()
        promoted = await pods_of(stage)
        assert promoted["templates"] == before["templates"], "the promotion made other pods"
        await take_over(stage, heard.__name__)
        await stage.edit(model=A)
        await stage.settled()
        after = await pods_of(stage)
        assert after["templates"] == before["templates"], "the roll-back made other pods"
        await end(stage)
    theatre.results[label, "promote"].update({"failed": -1, "passed": 1})


async def pods_of(stage: Stage) -> dict[str, Any]:
    deployments = await stage.kube.list(kinds.DEPLOYMENT, stage.namespace)
    pods = await stage.kube.list(kinds.POD, stage.namespace)
    return {
        "templates": {d["metadata"]["name"]: d["spec"]["template"] for d in deployments},
        "generations": {d["metadata"]["name"]: d["metadata"]["generation"] for d in deployments},
        "pods": sorted(pod["metadata"]["uid"] for pod in pods),
    }


@pytest.mark.parametrize("name", of_each("full"))
@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.stem)
async def test_22_what_an_earlier_version_wrote_keeps_its_pods(
    theatre: Theatre, recording: Path, name: str
) -> None:
    label = f"22 after {recording.stem}"
    theatre.results[label, name]["failed"] += 1
    recorded = json.loads(recording.read_text())[name]  # noqa: ASYNC240 (once, and small)
    async with theatre.slots, theatre.empty_stage() as stage:
        await written.put_back(stage, recorded)
        before = await pods_of(stage)
        assert before["templates"]
        await stage.start()
        await stage.settled()
        await stage.rest(QUIET_S)
        after = await pods_of(stage)
        assert after["templates"] == before["templates"], "an upgrade from it restarts pods"
        await end(stage)
        assert not log_problems(stage.operator.text())
    theatre.results[label, name].update({"failed": -1, "passed": 1})
