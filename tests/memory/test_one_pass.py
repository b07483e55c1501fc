"""One pass tells what it did: what a change costs in passes and in writes of status."""

from typing import Any

import pytest

from faults.traces import SPEC, A, B
from memory_cluster import operator
from memory_cluster.world import World
from yolofleet.cluster.sampler import Sampler
from yolofleet.plan.judging import Subject


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the keys of all passes."""
    done: list[str] = []
    reconcile = operator.reconcile

    async def counted(key: str, deps: operator.Deps) -> Any:
        done.append(key)
        return await reconcile(key, deps)

    monkeypatch.setattr(operator, "reconcile", counted)
    return done


@pytest.mark.parametrize(
    ("before", "change", "most"),
    [
        ({}, {}, 2),  # the second when its pods are ready
        ({"canary": {"weight": 10, "model": B}}, {"canary": {"weight": 20}}, 1),
        ({"canary": {"weight": 10, "model": B}}, {"canary": None}, 3),
        ({"model": A}, {"model": B}, 4),
    ],
    ids=["a new detector", "a weight", "the end of a canary", "a model"],
)
async def test_a_change_takes_no_pass_only_to_tell_what_was_done(passes, before, change, most):
    world = World()
    await world.create(**SPEC | before)
    if change:
        await world.settle()
        passes.clear()
        world.suffer()
        await world.edit(**change)
    await world.settle()
    published = [each for each in world.writes() if "yolodetectors" in each]
    assert len(passes) <= most
    assert len(published) <= most
    assert world.condition("Released")["status"] == "True"
    assert not world.restless


@pytest.mark.parametrize(
    "change", [{"model": B}, {"canary": {"model": B, "weight": 10}}], ids=["a release", "a canary"]
)
async def test_who_is_judged_is_known_as_well_as_after_another_pass(monkeypatch, change):
    """What the pods of a revision can tell is known once it was written: in that same pass."""
    followed: list[Subject | None] = []
    follow = Sampler.follow

    def seen(sampler: Sampler, key: str, subject: Subject | None) -> None:
        followed.append(subject)
        follow(sampler, key, subject)

    world = World()
    rollout = {"strategy": "Canary", "steps": [{"weight": 10, "hold": "30s"}], "analysis": {}}
    await world.create(**SPEC | {"rollout": rollout})
    await world.settle()
    monkeypatch.setattr(Sampler, "follow", seen)
    pod = {"spec": {"hostNetwork": True}}  # no NetworkPolicy holds there: they tell nothing
    await world.edit(**change, podTemplate=pod)
    await world.operator.work()
    assert followed[-1]
    assert "hostNetwork" in followed[-1].unpaired
