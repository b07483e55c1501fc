"""Fault 23: generated specs, applied fresh, over one another, and undone after a bad one."""

from enum import Enum
from functools import partial
from typing import Any

import pytest

from controlplane.kube import eventually
from faults import campaign
from faults.oracles import differences, end, log_problems, state_of
from faults.size import SEED, sized
from faults.stage import NAME, Stage
from faults.theatre import Theatre, each
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds
from yolofleet.runtime.client import Request
from yolofleet.runtime.errors import Conflict, Invalid

PAIRS = sized(4, 60)
CALM_S = 3.5


def test_23_specs_are_the_same_for_one_seed_and_differ_for_another() -> None:
    assert campaign.generated(5, 1) == campaign.generated(5, 1)
    assert campaign.generated(5, 1) != campaign.generated(5, 2)


@pytest.mark.nightly
async def test_23_generated_specs_over_one_another(theatre: Theatre) -> None:
    specs = campaign.generated(2 * PAIRS, SEED)
    pairs = zip(specs[:PAIRS], specs[PAIRS:], strict=True)  # one drawn after another is much alike
    plays: dict[str, Any] = {
        f"{number}": partial(play, theatre, *pair) for number, pair in enumerate(pairs)
    }
    told = await each(plays)
    wrong = {name: result for name, result in told.items() if result not in OUTCOMES}
    theatre.results[f"23 campaign, seed {SEED}", "generated"].update(
        OUTCOMES.get(result, "failed") for result in told.values()
    )
    assert not wrong, "\n\n".join(f"pair {name}: {result}" for name, result in wrong.items())
    accepted = [result for result in told.values() if result != "refused"]
    assert len(accepted) * 2 >= len(plays), f"admission refuses nearly all: {told}"


OUTCOMES = {"passed": "passed", "refused": "not reached"}


async def play(theatre: Theatre, other: campaign.Spec, spec: campaign.Spec) -> str:
    """Fresh; from another state; and back from a bad edit: the same end each time."""
    async with theatre.stage() as stage:
        if not await applied(stage, spec):
            return "refused"
        fresh, stored = await calm(stage)
        problems = campaign.inconsistencies(stored, fresh)
        alike = campaign.ends_alike(spec)
        await applied(stage, spec | {"model": {"uri": campaign.BROKEN}})
        await calm(stage)
        await applied(stage, spec)
        undone, _ = await calm(stage)
        problems += [f"undone: {told}" for told in differences(fresh, undone) if alike]
        await stage.delete()
        await eventually(partial(_nothing_left, stage))
        if await applied(stage, other):
            await calm(stage)
            if await applied(stage, spec) and alike and campaign.ends_alike(other):
                again, _ = await calm(stage)
                problems += [f"from another: {told}" for told in differences(fresh, again)]
        await end(stage)
        problems += log_problems(stage.operator.text())
        assert not problems, "\n".join([*problems, f"spec: {spec}", f"other: {other}"])
        return "passed"


async def _nothing_left(stage: Stage) -> bool:
    return not await stage.children()


async def applied(stage: Stage, spec: campaign.Spec) -> bool:
    """Make or replace the detector; False: admission refuses that spec."""
    return await eventually(partial(_put, stage, spec)) is Answer.DONE


class Answer(Enum):
    DONE = "done"
    REFUSED = "refused"


async def _put(stage: Stage, spec: campaign.Spec) -> Answer | None:
    raw = await stage.kube.find(kinds.DETECTOR, stage.namespace, NAME)
    try:
        if raw is None:
            await stage.create(**spec)
        else:
            path = kinds.DETECTOR.path(stage.namespace, NAME)
            await stage.kube.client.send(Request("PUT", path, {}, raw | {"spec": spec}))
    except Invalid:
        return Answer.REFUSED
    except Conflict:  # its status was written meanwhile
        return None
    return Answer.DONE


async def calm(stage: Stage) -> tuple[Manifest, Manifest]:
    """Wait until nothing moves; return the state, and the spec as it is stored."""

    async def looked_at() -> Manifest:
        raw = await stage.detector()
        assert raw["status"]["observedGeneration"] == raw["metadata"]["generation"]
        for deployment in await stage.kube.list(kinds.DEPLOYMENT, stage.namespace):
            ready = deployment.get("status", {}).get("availableReplicas", 0)
            broken = campaign.BROKEN in str(deployment)
            assert broken or ready == deployment["spec"]["replicas"], "pods are starting"
        await stage.assert_pods_are_as_told()
        return raw

    raw = await eventually(looked_at)
    await stage.rest(CALM_S)
    raw = await eventually(looked_at)
    return dict(await state_of(stage)), raw["spec"]
