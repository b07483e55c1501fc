"""Strategies: how a changed spec reaches the whole traffic, step by step."""

from datetime import timedelta
from typing import Any

import pytest

from yolofleet.plan.capacity import (
    Capacity,
    incoming,
    outgoing,
    parts,
    remaining,
    share_of,
    share_rounded_up,
)

V1, V2, V3 = ({"uri": f"https://models/{n}.onnx"} for n in (1, 2, 3))
STEPS = [{"weight": 10, "hold": "2m"}, {"weight": 50, "hold": "5m"}]
CANARY = {"strategy": "Canary", "steps": STEPS}
APPROVAL = {"strategy": "Canary", "steps": [{"weight": 10, "hold": "Approval"}]}
IN_PLACE = {"strategy": "InPlace"}
GPU = {"limits": {"nvidia.com/gpu": 1}, "requests": {"cpu": "1"}}


def released(world: Any, **spec: Any) -> str:
    """Bring the world to a settled release of V1; return its revision."""
    world.edit(**{"model": V1, **spec})
    world.settle()
    return world.status().stable.revision


def told(world: Any, kind: str = "Progressing") -> Any:
    return world.status().condition(kind)


def begun(world: Any, **spec: Any) -> tuple[str, str]:
    """Change the model; return the old revision and the one on its way."""
    old = world.status().stable.revision
    world.edit(**{"model": V2, **spec})
    world.reconcile()
    return old, world.status().rollout.revision


def turn(world: Any) -> None:
    """One round of the cluster: pods follow, the operator looks twice (it reads its route back)."""
    world.run_pods()
    world.reconcile()
    world.reconcile()


def lose(world: Any, *names: str) -> None:
    """Have no pod of these ready; the operator sees it, and reads its route back."""
    for name in names:
        world.deployments()[name]["status"]["availableReplicas"] = 0
    world.reconcile()
    world.reconcile()


def leave_the_mesh(world: Any) -> None:
    """Have Istio gone, and with it what was written for it."""
    world.mesh = False
    for kind in ("VirtualService", "DestinationRule"):
        for key in [key for key in world.children if key[0] == kind]:
            del world.children[key]


class TestCanary:
    def test_a_step_whose_weight_is_there_already_begins_its_hold_at_once(self, world):
        """No route is written then, so that nothing but time would have it looked at again."""
        steps = [{"weight": 10, "hold": "Approval"}, {"weight": 50, "hold": "5m"}]
        rollout = {"strategy": "Canary", "steps": steps}
        old = released(world, replicas=1, rollout=rollout)
        _, new = begun(world)
        turn(world)
        world.broken = {V1["uri"]}
        turn(world)
        assert world.weights() == {old: 0, new: 100}, "nothing of stable is ready"
        world.edit(rollout={**rollout, "approved": {"revision": new, "step": 1}})
        world.reconcile()
        assert world.weights() == {old: 0, new: 100}
        assert told(world).reason == "Holding"
        assert world.decide().requeue_after == timedelta(minutes=5)

    def test_a_changed_spec_walks_the_steps_and_promotes_itself(self, world):
        released(world, replicas=4, rollout=CANARY)
        old, new = begun(world)
        assert world.weights() == {old: 100, new: 0}
        assert world.replicas() == {old: 4, new: 1}
        turn(world)
        assert world.weights() == {old: 90, new: 10}
        assert world.status().rollout.step == 1
        assert told(world).reason == "Holding"
        assert "step 1 of 2, 10 % to" in told(world).message
        world.now += timedelta(minutes=2)
        world.reconcile()
        assert world.replicas() == {old: 4, new: 2}, "capacity before traffic"
        assert world.weights() == {old: 75, new: 25}, "what one replica of four carries"
        turn(world)
        assert world.weights() == {old: 50, new: 50}
        world.now += timedelta(minutes=5)
        world.reconcile()
        assert world.replicas()[new] == 4
        assert world.status().stable.revision == old
        turn(world)
        assert world.weights() == {new: 100}
        assert world.status().stable.revision == new
        assert world.status().rollout is None
        world.settle()
        assert world.replicas() == {old: 0, new: 4}

    def test_the_hold_counts_from_when_the_router_has_the_weight(self, world):
        released(world, rollout=CANARY)
        _, new = begun(world)
        world.now += timedelta(hours=1)  # the pods take their time
        turn(world)
        assert world.weights()[new] == 10
        plan = world.reconcile()
        assert plan.requeue_after == timedelta(minutes=2)
        assert world.status().rollout.hold == "2m"

    def test_losing_its_pods_begins_the_hold_again(self, world):
        old = released(world, rollout=CANARY)
        _, new = begun(world)
        turn(world)
        world.now += timedelta(seconds=110)
        world.deployments()[new]["status"]["availableReplicas"] = 0
        world.reconcile()
        world.reconcile()
        assert world.weights() == {old: 100, new: 0}
        turn(world)
        world.now += timedelta(seconds=110)
        world.reconcile()
        assert world.weights()[new] == 10

    def test_approval_is_an_edit_bound_to_the_revision(self, world):
        steps = [{"weight": 10, "hold": "Approval"}]
        rollout = {"strategy": "Canary", "steps": steps}
        released(world, rollout=rollout)
        old, new = begun(world)
        turn(world)
        world.now += timedelta(days=1)
        world.reconcile()
        assert world.weights() == {old: 90, new: 10}
        assert told(world).reason == "AwaitingApproval"
        assert (
            f'"approved":{{"revision":"{new}","step":1,"despite":null,"failed":null}}'
            in told(world).message
        )
        world.edit(rollout={**rollout, "approved": {"revision": old, "step": 1}})
        world.settle()
        assert world.weights()[new] == 10, "the word for another revision does not count"
        world.edit(rollout={**rollout, "approved": {"revision": new, "step": 1}})
        world.settle()
        assert world.weights() == {new: 100}

    def test_pausing_keeps_weights_and_replicas_and_going_on_goes_on(self, world):
        released(world, replicas=4, rollout=CANARY)
        _, _ = begun(world)
        turn(world)
        before = world.weights(), world.replicas()
        world.edit(rollout={**CANARY, "paused": True})
        world.settle(40)
        assert (world.weights(), world.replicas()) == before
        assert told(world).reason == "Paused"
        world.edit(rollout=CANARY)
        world.settle(40)
        assert told(world).reason == "Settled"

    def test_a_pause_outlasts_what_becomes_of_stables_pods(self, world):
        released(world, replicas=1, rollout=CANARY)
        old, new = begun(world)
        turn(world)
        before = world.weights()
        world.edit(rollout={**CANARY, "paused": True})
        world.deployments()[old]["status"]["availableReplicas"] = 0
        world.reconcile()
        assert world.weights() == {old: 0, new: 100}
        turn(world)
        assert (world.weights(), world.status().stable.revision) == (before, old)

    def test_a_weight_that_was_lost_with_its_pods_comes_back_in_a_pause(self, world):
        old = released(world, replicas=3, rollout=CANARY)
        _, new = begun(world)
        turn(world)
        before = world.weights()
        world.edit(rollout={**CANARY, "paused": True})
        world.reconcile()
        for stable_too in (False, True):
            lose(world, new, *[old] * stable_too)
            assert world.weights() == {old: 100, new: 0}
            turn(world)
            assert world.weights() == before == {old: 90, new: 10}

    def test_a_pause_that_outlives_stable_leaves_all_to_who_restarts(self, world):
        """It answered all that there was, and did not once its only pod had been replaced."""
        old = released(world, replicas=3, rollout=CANARY)
        _, new = begun(world)
        turn(world)
        world.edit(rollout={**CANARY, "paused": True})
        world.broken = {V1["uri"]}
        turn(world)
        assert world.weights() == {old: 0, new: 100}
        lose(world, new)
        turn(world)
        assert world.weights() == {old: 0, new: 100}
        world.broken = set()
        turn(world)
        assert world.weights() == {old: 90, new: 10}

    def test_a_pause_before_a_step_is_reached_reaches_it_in_no_way(self, world):
        """What it gets because nothing else is alive, or had before its pods went, is no more."""
        old = released(world, replicas=4, rollout=CANARY)
        _, new = begun(world)
        turn(world)
        world.now += timedelta(minutes=2)
        world.reconcile()  # on its way from 10 to 50: one of two pods is there
        world.edit(rollout={**CANARY, "paused": True})
        world.reconcile()
        assert world.status().rollout.weight == 50
        for lost in ([new], [old], [old, new]):
            lose(world, *lost)
            turn(world)
            assert world.weights() == {old: 75, new: 25}

    def test_what_others_do_to_its_route_in_a_pause_is_put_right(self, world):
        old = released(world, replicas=3, rollout=CANARY)
        _, new = begun(world)
        turn(world)
        world.edit(rollout={**CANARY, "paused": True})
        world.reconcile()
        weighted = world.children["VirtualService", "gate"]["spec"]["http"][-1]["route"]
        for to, weight in zip(weighted, (100, 0), strict=True):
            to["weight"] = weight
        world.reconcile()
        assert world.weights() == {old: 90, new: 10}
        del world.children["VirtualService", "gate"]
        turn(world)
        assert world.weights() == {old: 90, new: 10}
        world.mesh = False
        del world.children["VirtualService", "gate"]
        turn(world)
        world.mesh = True
        turn(world)
        assert world.weights() == {old: 90, new: 10}

    @pytest.mark.parametrize("first", ["before", "beside"])
    def test_a_canary_beside_a_release_keeps_its_weight_whoever_restarts(self, world, first):
        """Its own is in the spec; but what is changed during a release is for afterwards."""
        old = released(world, replicas=3, canary={"model": V3, "weight": 20}, rollout=APPROVAL)
        canary = world.status().canary.revision
        if first == "before":
            lose(world, canary)
        world.edit(model=V2)
        world.reconcile()
        new = world.status().rollout.revision
        turn(world)
        turn(world)
        as_asked = {old: 70, new: 10, canary: 20}
        assert world.weights() == as_asked
        world.edit(canary={"model": V3, "weight": 5})
        for lost in ([canary], [old], [old, canary], [new, canary]):
            lose(world, *lost)
            world.reconcile()
            turn(world)
            turn(world)
            assert world.weights() == as_asked
        new_approved = {"revision": new, "step": 1}
        world.edit(rollout={**APPROVAL, "approved": new_approved})
        world.settle()
        assert world.weights() == {new: 95, canary: 5}

    def test_a_canary_leaves_the_release_what_its_steps_ask_for(self, world):
        """No weight is below zero, which no router takes."""
        steps = [{"weight": 50, "hold": "Approval"}]
        old = released(
            world,
            replicas=4,
            canary={"model": V3, "weight": 60},
            rollout={"strategy": "Canary", "steps": steps},
        )
        canary = world.status().canary.revision
        world.edit(model=V2)
        world.settle()
        new = world.status().rollout.revision
        assert world.weights() == {old: 0, new: 50, canary: 50}
        assert told(world).reason == "AwaitingApproval"
        approved = {"revision": new, "step": 1}
        world.edit(rollout={"strategy": "Canary", "steps": steps, "approved": approved})
        world.settle()
        assert world.weights() == {new: 40, canary: 60}

    @pytest.mark.parametrize("paused", [False, True])
    @pytest.mark.parametrize("strategy", ["BlueGreen", "Canary"])
    def test_a_promoted_canary_has_its_weight_again_with_its_pods(self, world, strategy, paused):
        rollout = {"strategy": strategy, "paused": paused}
        if strategy == "Canary":
            rollout["steps"] = [{"weight": 20, "hold": "Approval"}]
        old = released(world, replicas=4, rollout=rollout)
        world.edit(canary={"model": V2, "weight": 20})
        world.settle()
        world.edit(model=V2, canary=None)
        world.reconcile()
        new = world.status().rollout.revision
        for lost in ([new], [old], [old, new]):
            lose(world, *lost)
            for name, pods in ((old, 4), (new, 1)):  # the others of a second set take their time
                world.deployments()[name]["status"]["availableReplicas"] = pods
            world.reconcile()
            world.reconcile()
            assert world.weights() == {old: 80, new: 20}

    def test_putting_the_old_spec_back_calls_it_off(self, world):
        released(world, replicas=4, rollout=CANARY)
        old, new = begun(world)
        turn(world)
        world.edit(model=V1)
        world.reconcile()
        assert world.weights() == {old: 100}
        world.settle()
        assert world.replicas() == {old: 4, new: 0}

    def test_a_roll_back_to_a_released_revision_takes_no_steps(self, world):
        old = released(world, rollout=CANARY)
        begun(world)
        world.settle(40)
        assert world.status().stable.revision != old
        world.edit(model=V1)
        world.settle(3)
        assert world.weights() == {old: 100}

    def test_a_third_spec_walks_the_second_back_before_it_begins(self, world):
        released(world, replicas=4, rollout=CANARY)
        old, second = begun(world)
        turn(world)
        assert world.weights()[second] == 10
        world.edit(model=V3)
        world.reconcile()
        third = world.status().rollout.revision
        assert world.weights() == {old: 100, third: 0}
        world.run_pods()
        world.reconcile()
        assert world.weights() == {old: 90, third: 10}
        assert world.status().rollout.step == 1

    def test_a_lost_status_goes_on_at_the_weight_that_the_router_has(self, world):
        released(world, replicas=4, rollout=CANARY)
        old, new = begun(world)
        turn(world)
        world.now += timedelta(minutes=2)
        world.reconcile()
        turn(world)
        assert world.weights() == {old: 50, new: 50}
        world.raw["status"] = {"rollout": "garbage"}
        world.reconcile()
        assert world.weights() == {old: 50, new: 50}
        assert world.status().rollout.step == 2
        world.now += timedelta(minutes=4)
        world.reconcile()
        assert world.weights()[new] == 50, "the hold counts anew"

    def test_a_promoted_canary_begins_at_its_weight(self, world):
        released(world, replicas=4, rollout=CANARY)
        world.edit(canary={"model": V2, "weight": 50})
        world.settle()
        world.edit(model=V2, canary=None)
        world.reconcile()
        assert world.status().rollout.step == 2
        assert world.weights()[world.status().rollout.revision] == 50

    def test_without_istio_it_waits_and_says_so(self, world):
        world.mesh = False
        old = released(world, rollout=CANARY)
        begun(world)
        world.settle()
        assert world.selected() == old
        assert told(world).reason == "MeshAbsent"
        assert "strategy to BlueGreen" in told(world).message

    def test_removing_steps_in_mid_release_goes_on_from_the_weight(self, world):
        released(world, replicas=4, rollout=CANARY)
        begun(world)
        turn(world)
        world.edit(rollout={"strategy": "Canary", "steps": [{"weight": 5, "hold": "1m"}]})
        world.settle()
        assert told(world).reason == "Settled"


STEPS_BY_WORD = [{"weight": 10, "hold": "Approval"}, {"weight": 50, "hold": "Approval"}]
BY_WORD = {"strategy": "Canary", "steps": STEPS_BY_WORD}


class TestEditedInMidRelease:
    """What it is on its way to is no weight that it has: no step is walked or approved by that."""

    @staticmethod
    def approved(world: Any, old: str, new: str, *weights: int) -> None:
        """Walk what is left by approvals; `weights` are those of the steps, from the first on."""
        rollout = world.raw["spec"]["rollout"]
        steps = [step["weight"] for step in rollout["steps"]]
        for weight in weights:
            world.settle()
            assert world.status().stable.revision == old
            assert world.weights() == {old: 100 - weight, new: weight}
            assert told(world).reason == "AwaitingApproval"
            word = {"revision": new, "step": steps.index(weight) + 1}
            world.edit(rollout={**rollout, "approved": word})
        world.settle(30)
        assert world.status().stable.revision == new

    @pytest.mark.parametrize("paused", [False, True])
    @pytest.mark.parametrize("before", ["BlueGreen", "InPlace"])
    def test_another_strategy_walks_all_steps_above_what_it_has(self, world, before, paused):
        released(world, replicas=4, rollout={"strategy": before})
        world.broken = {V2["uri"]}
        old, new = begun(world)
        world.settle()
        if paused:
            world.edit(rollout={"strategy": before, "paused": True})
            world.settle()
        world.edit(rollout=BY_WORD)
        world.settle()
        assert (world.weights(), world.status().rollout.step) == ({old: 100, new: 0}, 1)
        world.broken = set()
        self.approved(world, old, new, 10, 50)

    def test_half_way_in_place_it_goes_on_at_the_first_step_not_below_that(self, world):
        old = released(world, replicas=4, rollout=IN_PLACE)
        _, new = begun(world)
        turn(world)
        turn(world)
        assert world.weights() == {old: 67, new: 33}
        world.edit(rollout=BY_WORD)
        self.approved(world, old, new, 50)

    def on_its_way_from_ten_to_fifty(self, world, *, hold):
        steps = [{"weight": 10, "hold": "1s"}, {"weight": 50, "hold": hold}]
        old = released(world, replicas=10, rollout={"strategy": "Canary", "steps": steps})
        _, new = begun(world)
        turn(world)
        world.now += timedelta(seconds=2)
        world.reconcile()
        assert (world.weights(), world.status().rollout.weight) == ({old: 90, new: 10}, 50)
        return old, new

    @pytest.mark.parametrize(
        ("steps", "left"),
        [
            ([(10, "1s"), (20, "Approval"), (40, "Approval")], (20, 40)),
            ([(10, "1s"), (20, "Approval"), (50, "Approval")], (20, 50)),
            ([(20, "Approval"), (50, "Approval")], (20, 50)),
        ],
    )
    def test_a_step_on_the_way_to_the_next_one_is_walked_too(self, world, steps, left):
        old, new = self.on_its_way_from_ten_to_fifty(world, hold="Approval")
        edited = [{"weight": weight, "hold": hold} for weight, hold in steps]
        world.edit(rollout={"strategy": "Canary", "steps": edited})
        self.approved(world, old, new, *left)

    @pytest.mark.parametrize(
        ("steps", "left"),
        [
            ([(10, "1s"), (20, "Approval")], (20,)),
            ([(10, "1s"), (20, "1h"), (40, "Approval")], (40,)),
            ([(10, "1s"), (20, "Approval"), (50, "1s")], (20,)),
            ([(10, "1s"), (20, "Approval"), (50, "Approval")], (20, 50)),
        ],
    )
    def test_nor_is_one_walked_or_approved_while_no_mesh_splits(self, world, steps, left):
        old, new = self.on_its_way_from_ten_to_fifty(world, hold="1h")
        leave_the_mesh(world)
        world.broken = {V1["uri"]}
        lose(world, old)
        edited = [{"weight": weight, "hold": hold} for weight, hold in steps]
        world.edit(rollout={"strategy": "Canary", "steps": edited})
        world.settle()
        assert world.status().stable.revision == old
        world.mesh, world.broken = True, set()
        world.settle(30)
        world.now += timedelta(hours=2)
        self.approved(world, old, new, *left)

    def test_a_step_by_word_that_is_added_without_a_mesh_is_walked_whatever_was(self, world):
        """There, all others are walked while nobody else is alive, and that is kept."""
        world.mesh = False
        quick = [{"weight": 10, "hold": "1s"}, {"weight": 50, "hold": "1s"}]
        old = released(world, replicas=4, rollout={"strategy": "Canary", "steps": quick})
        world.broken = {V1["uri"]}
        _, new = begun(world)
        lose(world, old)
        world.run_pods(1)
        for _ in range(6):
            world.now += timedelta(seconds=2)
            world.reconcile()
        assert (world.status().rollout.weight, world.status().rollout.step) == (100, 0)
        added = {"weight": 80, "hold": "Approval"}
        steps = {"strategy": "Canary", "steps": [*quick, added]}
        world.edit(rollout=steps)
        world.settle()
        assert world.status().stable.revision == old
        assert (world.status().rollout.weight, world.status().rollout.step) == (80, 3)
        world.edit(rollout={**steps, "approved": {"revision": new, "step": 3}})
        world.settle()
        assert world.status().stable.revision == new

    def test_before_the_first_step_is_reached_a_smaller_one_is_the_first(self, world):
        old = released(world, replicas=10, rollout=BY_WORD)
        _, new = begun(world)
        world.edit(rollout={**BY_WORD, "steps": [{"weight": 5, "hold": "Approval"}]})
        world.reconcile()
        assert (world.weights(), world.status().rollout.weight) == ({old: 100, new: 0}, 5)

    def test_a_step_that_is_added_behind_the_last_one_is_walked_and_that_not_again(self, world):
        half = {"weight": 50, "hold": "1h"}
        old = released(world, replicas=4, rollout={"strategy": "Canary", "steps": [half]})
        _, new = begun(world)
        turn(world)
        world.now += timedelta(hours=2)
        world.reconcile()
        assert (world.weights(), world.status().rollout.weight) == ({old: 50, new: 50}, 100)
        added = {"weight": 75, "hold": "Approval"}
        world.edit(rollout={"strategy": "Canary", "steps": [half, added]})
        self.approved(world, old, new, 75)


class TestSurge:
    @pytest.mark.parametrize(("replicas", "surge"), [(3, 1), (4, "25%"), (5, 2), (7, "30%")])
    def test_pods_never_exceed_replicas_and_surge_and_all_serve(self, world, replicas, surge):
        steps = [{"weight": 20, "hold": "30s"}, {"weight": 60, "hold": "30s"}]
        rollout = {"strategy": "Canary", "steps": steps, "maxSurge": surge}
        old = released(world, replicas=replicas, rollout=rollout)
        begun(world)
        extra = world.detector().spec.rollout.surge("Canary", replicas)
        for _ in range(60):
            world.run_pods(1)
            world.reconcile()
            assert sum(world.replicas().values()) <= replicas + extra
            ready = {n: world.ready(n) for n in world.replicas()}
            for name, weight in world.weights().items():
                assert share_rounded_up(ready[name], replicas) >= weight
            world.now += timedelta(seconds=10)
        assert world.status().stable.revision != old
        assert world.replicas() == {old: 0, world.status().stable.revision: replicas}

    def test_calling_it_off_half_way_gives_the_old_one_its_replicas_back(self, world):
        steps = [{"weight": 60, "hold": "1h"}]
        rollout = {"strategy": "Canary", "steps": steps, "maxSurge": 1}
        released(world, replicas=3, rollout=rollout)
        old, new = begun(world)
        for _ in range(8):
            turn(world)
        assert world.weights() == {old: 40, new: 60}
        assert world.replicas() == {old: 2, new: 2}
        world.edit(model=V1)
        world.reconcile()
        assert world.weights() == {old: 67, new: 33}
        assert world.replicas() == {old: 2, new: 2}, "until the router is seen to have let go"
        for _ in range(20):
            world.run_pods()
            world.reconcile()
            assert sum(world.replicas().values()) <= 4
            world.now += timedelta(seconds=10)
        assert world.weights() == {old: 100}
        assert world.replicas() == {old: 3, new: 0}


class TestSize:
    """`replicas` changed in the middle of a release, which may be held for days."""

    @staticmethod
    def held(world: Any, weight: int, **spec: Any) -> tuple[str, str]:
        steps = [{"weight": weight, "hold": "Approval"}]
        rollout = {"strategy": "Canary", "steps": steps, **spec.pop("rollout", {})}
        old = released(world, rollout=rollout, **spec)
        begun(world)
        world.settle()
        return old, world.status().rollout.revision

    @pytest.mark.parametrize("surge", [{}, {"maxSurge": 1}])
    @pytest.mark.parametrize("weight", [10, 50])
    @pytest.mark.parametrize("sizes", [(1, 6), (6, 2, 6), (3, 5, 4, 7), (4, 0, 4)])
    def test_both_follow_it_within_the_surge(self, world, sizes, weight, surge):
        first, *rest = sizes
        old, new = self.held(world, weight, replicas=first, rollout=surge)
        for full in rest:
            world.edit(replicas=full)
            extra = world.detector().spec.rollout.surge("Canary", full)
            before = sum(world.replicas().values())
            for _ in range(20):
                world.reconcile()
                assert sum(world.replicas().values()) <= max(before, full + extra)
                world.run_pods(1)
                world.now += timedelta(seconds=10)
            size = world.replicas()
            assert size[old] <= full
            if not full:
                assert size == {old: 0, new: 0}
                continue
            assert world.weights() == {old: 100 - weight, new: weight}
            assert told(world).reason == "AwaitingApproval"
            for name, given in world.weights().items():
                assert share_rounded_up(world.ready(name), full) >= given
            if not surge:
                assert size[old] == full
            assert f"{size[old]} of {size[old]} replicas" in told(world, "Ready").message
        approved = {"revision": new, "step": 1}
        world.edit(rollout={**world.raw["spec"]["rollout"], "approved": approved})
        world.settle(30)
        assert world.replicas() == {old: 0, new: rest[-1]}

    def test_both_have_it_from_the_first_step_on_where_the_model_changes_with_it(self, world):
        old = released(world, replicas=2, rollout=CANARY)
        begun(world, replicas=10)
        turn(world)
        turn(world)
        new = world.status().rollout.revision
        assert world.replicas() == {old: 10, new: 1}
        assert world.weights() == {old: 90, new: 10}

    @pytest.mark.parametrize(
        ("rollout", "full", "olds"),
        [
            (CANARY, 3, 3),
            (CANARY, 6, 6),
            ({"strategy": "BlueGreen"}, 3, 3),
            ({"strategy": "BlueGreen"}, 6, 6),
            (IN_PLACE, 3, 2),
            (IN_PLACE, 6, 5),
        ],
    )
    def test_the_old_one_follows_it_in_a_pause_and_the_new_one_waits(
        self, world, rollout, full, olds
    ):
        released(world, replicas=4, rollout=rollout)
        world.broken.add(V2["uri"])
        old, new = begun(world)
        turn(world)
        came = world.replicas()[new]
        world.edit(rollout={**rollout, "paused": True}, replicas=full)
        world.settle()
        assert world.replicas() == {old: olds, new: came}
        world.broken.clear()
        world.edit(rollout=rollout)
        world.settle(40)
        assert world.replicas() == {old: 0, new: full}

    @pytest.mark.parametrize(
        ("rollout", "before", "after"),
        [
            ({"strategy": "BlueGreen"}, (2, 2), (6, 2)),
            (CANARY, (2, 1), (6, 1)),
            ({**CANARY, "maxSurge": 1}, (2, 1), (6, 1)),
            (IN_PLACE, (1, 1), (5, 1)),
        ],
    )
    def test_of_one_that_cannot_start_no_more_is_made_and_the_old_one_follows_it(
        self, world, rollout, before, after
    ):
        released(world, replicas=2, rollout=rollout)
        world.broken.add(V2["uri"])
        old, new = begun(world)
        turn(world)
        assert world.replicas() == dict(zip((old, new), before, strict=True))
        waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
        world.pods = [
            {
                "metadata": {"name": "p", "labels": {"yolofleet.io/revision": new}},
                "status": {"containerStatuses": [{"name": "yoloserve", "state": waiting}]},
            }
        ]
        world.edit(replicas=6)
        world.settle()
        assert world.replicas() == dict(zip((old, new), after, strict=True))
        assert told(world).status == "False"
        assert told(world, "Ready").message == f"{old}: {after[0]} of {after[0]} replicas are ready"
        world.pods, world.broken = [], set()
        world.settle(60)
        assert world.replicas() == {old: 0, new: 6}

    def test_without_a_surge_of_its_own_the_old_one_is_no_larger_than_it(self, world):
        old, new = self.held(world, 10, replicas=10)
        world.edit(replicas=4)
        world.settle()
        assert world.replicas() == {old: 4, new: 1}

    def test_what_others_scaled_the_workload_to_is_no_size(self, world):
        old, new = self.held(world, 10, replicas=2, driftPolicy="Report")
        world.deployments()[old]["spec"]["replicas"] = 9
        world.edit(replicas=3)
        world.reconcile()
        assert world.replicas() == {old: 3, new: 1}

    @pytest.mark.parametrize(("gpus", "olds"), [(5, 3), (6, 4), (7, 5), (9, 6)])
    def test_the_old_one_leaves_the_room_that_the_step_needs(self, world, gpus, olds):
        world.scheduler, world.nodes = True, TestAccelerators.nodes(3)
        old, new = self.held(world, 30, replicas=2, resources=GPU)
        world.nodes = TestAccelerators.nodes(gpus)
        world.edit(replicas=6)
        for _ in range(20):
            world.reconcile()
            world.run_pods()
            assert not [p for p in world.pods if not p["spec"].get("nodeName")], "none is Pending"
        assert world.replicas() == {old: olds, new: 2}
        assert world.weights() == {old: 70, new: 30}
        lacks = told(world, "GPUAvailable").status == "False"
        assert lacks == (olds < 6)


class TestInPlace:
    @pytest.mark.parametrize("mesh", [True, False])
    @pytest.mark.parametrize("replicas", [2, 3, 5])
    def test_replica_by_replica_and_never_one_more(self, world, replicas, mesh):
        world.mesh = mesh
        old = released(world, replicas=replicas, rollout=IN_PLACE)
        begun(world)
        for _ in range(40):
            assert sum(world.replicas().values()) <= replicas
            serving = [n for n in world.replicas() if world.ready(n)]
            assert sum(world.ready(n) for n in serving) >= replicas - 1
            if mesh:
                assert all(world.ready(n) for n, w in world.weights().items() if w)
            world.run_pods(1)
            world.reconcile()
            world.now += timedelta(seconds=10)
        new = world.status().stable.revision
        assert new != old
        assert world.replicas() == {old: 0, new: replicas}

    def test_the_only_replica_goes_first_and_that_is_said(self, world):
        released(world, replicas=1, rollout=IN_PLACE)
        old, new = begun(world)
        assert world.replicas() == {old: 0, new: 0}
        turn(world)
        assert world.replicas() == {old: 0, new: 1}
        assert told(world, "Ready").status == "False"
        turn(world)
        assert world.status().stable.revision == new
        assert told(world, "Ready").status == "True"

    def test_a_broken_one_takes_one_replica_at_most_and_can_be_called_off(self, world):
        released(world, replicas=3, rollout=IN_PLACE)
        world.broken.add(V2["uri"])
        old, new = begun(world)
        for _ in range(10):
            turn(world)
        assert world.replicas() == {old: 2, new: 1}
        assert world.weights() == {old: 100, new: 0}
        world.edit(model=V1)
        world.settle()
        assert world.replicas() == {old: 3, new: 0}

    def test_paused_in_the_middle_each_has_its_part_again_with_its_pods(self, world):
        released(world, replicas=4, rollout=IN_PLACE)
        old, new = begun(world)
        turn(world)
        turn(world)
        halfway = world.weights()
        assert halfway == {old: 67, new: 33}
        world.edit(rollout={**IN_PLACE, "paused": True})
        world.reconcile()
        for lost in ([new], [old], [old, new]):
            lose(world, *lost)
            world.run_pods()
            world.reconcile()
            assert world.weights() == halfway

    def test_a_pause_leaves_stable_its_pods_when_it_blinks(self, world):
        """The other one answers everything for a moment, with as many pods as that takes."""
        released(world, replicas=3, rollout=IN_PLACE)
        old, new = begun(world)
        for _ in range(2):
            turn(world)
        world.run_pods()
        world.reconcile()
        halfway = {old: 50, new: 50}, {old: 1, new: 2}
        assert (world.weights(), world.replicas()) == halfway
        world.edit(rollout={**IN_PLACE, "paused": True})
        turn(world)
        lose(world, old)
        assert world.weights() == {old: 0, new: 100}
        turn(world)
        assert (world.weights(), world.replicas()) == halfway

    def test_without_a_mesh_one_service_spans_both_until_it_is_done(self, world):
        world.mesh = False
        old = released(world, replicas=3, rollout=IN_PLACE)
        begun(world)
        turn(world)
        turn(world)
        service = world.children["Service", "gate"]["spec"]["selector"]
        assert service == {"yolofleet.io/detector": "gate"}
        world.raw["status"] = {}
        world.reconcile()
        assert world.status().stable.revision == old, "the Service remembers whom it stands for"
        world.settle(20)
        assert world.selected() == world.status().stable.revision != old


class TestAccelerators:
    @staticmethod
    def nodes(*gpus: int) -> list[dict[str, Any]]:
        return [
            {
                "metadata": {"name": f"n{number}"},
                "spec": {},
                "status": {"allocatable": {"nvidia.com/gpu": str(count)}},
            }
            for number, count in enumerate(gpus)
        ]

    def test_without_a_spare_one_replicas_are_swapped_in_place(self, world):
        world.scheduler, world.nodes = True, self.nodes(2, 1)
        old = released(world, replicas=3, resources=GPU)
        begun(world)
        assert world.status().rollout.strategy == "InPlace"
        for _ in range(30):
            assert not [p for p in world.pods if not p["spec"].get("nodeName")], "none is Pending"
            world.run_pods()
            world.reconcile()
            world.now += timedelta(seconds=10)
        new = world.status().stable.revision
        assert world.replicas() == {old: 0, new: 3}

    @pytest.mark.parametrize("begins", [{}, {"rollout": IN_PLACE}])
    def test_half_way_in_place_an_autoscaler_makes_it_blue_green(self, world, begins):
        """It owns stable's number, so that nothing would be given up for a swap any more."""
        world.scheduler, world.nodes = True, self.nodes(4)
        old = released(world, replicas=4, resources=GPU, **begins)
        _, new = begun(world)
        turn(world)
        assert world.replicas() == {old: 3, new: 1}
        scaled = {"minReplicas": 2, "maxReplicas": 4, "cpu": 70}
        world.edit(replicas=None, autoscaling=scaled, rollout=None)
        world.settle()
        assert world.status().rollout.strategy == "BlueGreen"
        assert "2 more replicas have no room" in told(world, "GPUAvailable").message
        assert world.replicas() == {old: 3, new: 1}
        world.nodes = self.nodes(6)
        world.settle()
        assert told(world).reason == "Settled"
        assert world.replicas() == {old: 0, new: 3}

    def test_scaled_to_one_half_way_in_place_that_one_is_not_stopped_without_consent(self, world):
        world.scheduler, world.nodes = True, self.nodes(2)
        released(world, replicas=2, resources=GPU)
        world.broken = {V2["uri"]}
        old, new = begun(world)
        assert world.status().rollout.strategy == "InPlace"
        world.edit(replicas=1)
        world.settle()
        assert world.replicas() == {old: 1, new: 1}
        assert world.ready(old)
        world.broken = set()
        world.settle()
        assert world.replicas() == {old: 0, new: 1}

    @pytest.mark.parametrize(
        "between",
        [
            {"replicas": 1},
            {"replicas": None, "autoscaling": {"minReplicas": 2, "maxReplicas": 4, "cpu": 70}},
        ],
        ids=["one replica", "an autoscaler"],
    )
    @pytest.mark.parametrize("replicas", [3, 4])
    def test_a_swap_in_place_goes_on_after_what_it_could_not_go_on_by(
        self, world, between, replicas
    ):
        """Else it is a whole set for ever, which never fits, and stable has lost a part of it."""
        world.scheduler, world.nodes = True, self.nodes(4)
        old = released(world, replicas=4, resources=GPU)
        _, new = begun(world)
        turn(world)
        assert world.replicas() == {old: 3, new: 1}
        world.edit(**between)
        world.reconcile()
        assert world.status().rollout.strategy == "BlueGreen"
        world.edit(replicas=replicas, autoscaling=None)
        world.settle(40)
        assert told(world).reason == "Settled"
        assert world.replicas() == {old: 0, new: replicas}

    def test_in_place_with_fewer_than_are_asked_for_is_told_for_how_many_it_would_go_on(
        self, world
    ):
        world.scheduler, world.nodes = True, self.nodes(3)
        old = released(world, replicas=3, resources=GPU, rollout=IN_PLACE)
        world.edit(model=V2, replicas=4)
        world.settle(20)
        assert told(world).reason == "Missing"
        assert "Or set spec.replicas to 3: the release goes on among these" in told(world).message
        world.edit(replicas=3)
        world.settle(30)
        assert told(world).reason == "Settled"
        assert world.replicas() == {old: 0, world.status().stable.revision: 3}

    def test_with_a_whole_set_to_spare_it_is_blue_green(self, world):
        world.scheduler, world.nodes = True, self.nodes(4, 4)
        released(world, replicas=3, resources=GPU)
        begun(world)
        assert world.status().rollout.strategy == "BlueGreen"
        world.settle()
        assert told(world).reason == "Settled"

    def test_the_only_replica_is_not_stopped_without_consent(self, world):
        world.scheduler, world.nodes = True, self.nodes(1)
        released(world, replicas=1, resources=GPU)
        old, new = begun(world)
        world.settle()
        assert world.replicas() == {old: 1, new: 0}
        assert "spec.rollout.strategy to InPlace" in told(world, "GPUAvailable").message
        assert told(world).reason == "Missing"
        world.edit(rollout=IN_PLACE)
        world.settle(20)
        assert world.status().stable.revision == new
        assert world.replicas() == {old: 0, new: 1}

    @pytest.mark.parametrize(
        ("gpus", "before", "changed", "way_out"),
        [
            (
                3,
                {"autoscaling": {"minReplicas": 3, "maxReplicas": 5, "load": 70}},
                {},
                "set spec.replicas to 3 in the place of spec.autoscaling and spec.rollout.strategy"
                " to InPlace: replica",
            ),
            (
                3,
                {},
                {"canary": {"model": V3, "weight": 5}},
                "set spec.rollout.strategy to InPlace without spec.canary: replica",
            ),
            (
                3,
                {"rollout": CANARY},
                {},
                "set spec.rollout.strategy to InPlace without spec.rollout.steps: replica",
            ),
            (5, {"rollout": CANARY}, {}, "set spec.rollout.maxSurge to 1: never more than one pod"),
            (
                6,
                {"canary": {"model": V3, "weight": 5}},
                {},
                "remove spec.canary: gate-",
            ),
        ],
    )
    def test_the_way_out_that_is_named_is_allowed(self, world, gpus, before, changed, way_out):
        world.scheduler, world.nodes = True, self.nodes(gpus)
        scaled = "autoscaling" in before
        released(world, replicas=None if scaled else 3, resources=GPU, **before)
        begun(world, **changed)
        for _ in range(30):
            world.run_pods()
            world.reconcile()
            world.now += timedelta(seconds=30)
        assert f". Or {way_out}" in told(world, "GPUAvailable").message

    def test_others_that_are_faster_leave_a_whole_set_to_go_on_in_place(self, world):
        world.scheduler, world.nodes = True, self.nodes(4, 4)
        released(world, replicas=4, resources=GPU)
        old, new = begun(world)
        assert world.replicas() == {old: 4, new: 4}
        theirs = {"containers": [{"name": "a", "resources": {"limits": {"nvidia.com/gpu": "2"}}}]}
        world.others = [{"metadata": {"name": "theirs"}, "spec": {"nodeName": "n1"} | theirs}]
        world.settle(40)
        assert told(world).reason == "Settled"
        assert world.replicas() == {old: 0, new: 4}

    @pytest.mark.parametrize("held", [{"suspend": True}, {"rollout": {"paused": True}}])
    def test_who_is_held_stays_a_whole_set_though_room_is_short_for_a_moment(self, world, held):
        world.scheduler, world.nodes = True, self.nodes(4, 4)
        released(world, replicas=4, resources=GPU, rollout={"paused": True})
        begun(world)
        world.edit(**held)
        world.nodes = self.nodes(4)
        world.reconcile()
        world.nodes = self.nodes(4, 4)
        world.reconcile()
        assert world.status().rollout.strategy == "BlueGreen"

    def test_asked_for_blue_green_begins_no_second_set_that_does_not_fit_whole(self, world):
        world.scheduler, world.nodes = True, self.nodes(4)
        released(world, replicas=3, resources=GPU, rollout={"strategy": "BlueGreen"})
        old, new = begun(world)
        world.settle()
        assert world.replicas() == {old: 3, new: 0}
        assert "2 more replicas have no room" in told(world, "GPUAvailable").message
        world.nodes = self.nodes(6)
        world.settle()
        assert world.replicas() == {old: 0, new: 3}

    def test_growing_beyond_the_nodes_makes_no_pending_pod(self, world):
        world.scheduler, world.nodes = True, self.nodes(2)
        stable = released(world, replicas=4, resources=GPU)
        assert world.replicas() == {stable: 2}
        assert told(world, "GPUAvailable").status == "False"
        assert told(world, "Ready").status == "True"


@pytest.mark.parametrize("full", range(1, 12))
def test_what_is_carried_and_what_is_left_make_a_whole(full):
    for ready in range(1, full):
        assert share_of(ready, full) + share_rounded_up(full - ready, full) == 100
        assert parts(share_of(ready, full), full) == ready


@pytest.mark.parametrize(
    ("capacity", "goal", "running", "others", "wanted"),
    [
        (Capacity(4, 4), 100, 0, 4, 4),
        (Capacity(4, 4), 10, 0, 4, 1),
        (Capacity(4, 1), 100, 0, 4, 1),
        (Capacity(4, 1), 100, 1, 4, 1),
        (Capacity(4, 0), 100, 0, 4, 0),
        (Capacity(4, 0), 100, 0, 3, 1),
        (Capacity(4, 4), 50, 3, 4, 3),  # what runs is not taken back by a smaller step
        (Capacity(4, 4), 100, 9, 4, 4),
    ],
)
def test_the_incoming_one_gets_what_the_surge_leaves(capacity, goal, running, others, wanted):
    given = incoming(capacity, goal, running=running, kept=running, others=others, stuck=False)
    assert given == wanted


def test_with_nothing_of_the_old_ready_one_pod_more_is_the_way_out():
    assert incoming(Capacity(3, 1), 100, running=0, kept=0, others=9, stuck=True) == 1


@pytest.mark.parametrize(("others", "left"), [(4, 2), (5, 1), (9, 1)])
def test_the_incoming_one_gives_up_what_it_serves_nobody_with_where_others_need_room(others, left):
    given = incoming(Capacity(3, 3), 100, running=2, kept=1, others=others, stuck=False)
    assert given == left


@pytest.mark.parametrize(
    ("capacity", "goal", "ready_new", "weight_new", "left"),
    [
        (Capacity(4, 4), 50, 2, 50, 4),  # a whole second set fits: nothing is given up
        (Capacity(3, 1), 100, 0, 0, 3),
        (Capacity(3, 1), 100, 1, 33, 2),
        (Capacity(3, 1), 100, 1, 0, 3),  # ready, but the router does not have it yet
        (Capacity(3, 1), 100, 0, 33, 3),  # the router has it, but it is not ready
        (Capacity(3, 0), 100, 0, 0, 2),
        (Capacity(3, 0), 100, 1, 50, 1),
        (Capacity(2, 0), 100, 1, 99, 1),
        (Capacity(1, 0), 100, 0, 0, 0),
    ],
)
def test_the_old_gives_up_what_the_router_has_moved(capacity, goal, ready_new, weight_new, left):
    running = capacity.full
    given = outgoing(capacity, goal, running=running, ready_new=ready_new, weight_new=weight_new)
    assert given == left


def test_a_former_revision_keeps_the_pods_that_its_weight_needs():
    assert remaining(4, running=4, weight=10) == 1
    assert remaining(4, running=4, weight=50) == 2
    assert remaining(4, running=4, weight=1) == 1
    assert remaining(0, running=1, weight=100) == 0


def test_a_status_that_is_lost_while_stable_comes_back_walks_no_step(world):
    """Three of four of its pods carry what a step further leaves it: that shows nothing."""
    steps = [{"weight": 10, "hold": "1m"}, {"weight": 50, "hold": "1m"}]
    rollout = {"strategy": "Canary", "steps": steps}
    world.edit(model=V1, replicas=4, rollout=rollout)
    world.settle()
    old = world.status().stable.revision
    world.edit(model=V2)
    world.settle(4)
    world.edit(rollout=rollout | {"paused": True})
    world.settle(1)
    assert world.status().rollout.step == 1
    world.deployments()[old]["status"]["availableReplicas"] = 0
    for _ in range(2):
        world.reconcile()
    for _ in range(3):
        world.run_pods(1)
        world.reconcile()
    assert (world.ready(old), world.weights()[old]) == (3, 75)
    world.raw["status"] = {}
    world.settle()
    assert world.status().rollout.step == 1
    assert world.weights()[old] == 90
