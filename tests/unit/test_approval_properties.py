"""What pods, status and time do, in any order: what nobody approved or judged is not released."""

from datetime import timedelta

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.unit.conftest import World  # a state machine cannot ask for fixtures

from yolofleet.analysis.margins import margins_hash
from yolofleet.api.analysis import AnalysisStatus, Stage, Verdict

OLD, NEW = {"uri": "https://models/old.onnx"}, {"uri": "https://models/new.onnx"}
APPROVAL = [{"weight": 10, "hold": "Approval"}]
WALKS = (
    APPROVAL,
    [*APPROVAL, {"weight": 50, "hold": "10s"}],
    [{"weight": 5, "hold": "10s"}, {"weight": 40, "hold": "Approval"}],
)


SHORT = [{"weight": 10, "hold": "10s"}]
JUDGED = (
    {"strategy": "BlueGreen", "analysis": {}},
    {"strategy": "Canary", "analysis": {}},
    {"strategy": "Canary", "analysis": {"onFailure": "Pause"}, "steps": SHORT},
)
NO_PASS = [verdict for verdict in Verdict if verdict is not Verdict.PASS]


class Unapproved(RuleBasedStateMachine):
    """A release that waits for a person, and everything that is no person's word."""

    @initialize(
        rollout=st.sampled_from(WALKS).map(lambda steps: {"strategy": "Canary", "steps": steps}),
        replicas=st.integers(1, 3),
        surge=st.sampled_from([None, 1]),
        mesh=st.booleans(),
        weight=st.sampled_from([None, 10, 30]),
    )
    def start(self, rollout, replicas, surge, mesh, weight):
        self.begin(rollout, replicas, surge, mesh, weight)

    def begin(self, rollout, replicas, surge, mesh, weight):
        self.world = world = World(mesh=mesh)
        self.rollout = rollout | ({"maxSurge": surge} if surge else {})
        self.had = 0
        steps = rollout.get("steps") or SHORT
        world.edit(model=OLD, replicas=replicas, rollout=self.rollout)
        world.settle(3)
        self.old = world.status().stable.revision
        if weight and weight <= steps[0]["weight"]:  # a canary that is promoted
            world.edit(canary={"model": NEW, "weight": weight})
            world.settle(3)
            self.lose_all_of_stable()
        world.edit(model=NEW, canary=None)
        world.reconcile()

    @rule()
    def lose_all_of_stable(self):
        if (deployment := self.world.deployments().get(self.old)) is not None:
            deployment.setdefault("status", {})["availableReplicas"] = 0
        self.world.reconcile()

    @rule(record=st.booleans())
    def lose_the_deployment_of_stable(self, record):
        self.world.reconcile()  # the Service is there by then
        self.world.children.pop(("Deployment", self.old), None)
        if record:
            self.world.children.pop(("ControllerRevision", self.old), None)
        self.world.reconcile()

    @rule(data=st.data())
    def lose_pods(self, data):
        for deployment in self.world.deployments().values():
            status = deployment.setdefault("status", {})
            status["availableReplicas"] = data.draw(
                st.integers(0, status.get("availableReplicas", 0))
            )

    @rule(step=st.integers(1, 3))
    def run_pods(self, step):
        self.world.run_pods(step)

    @rule(model=st.sampled_from([OLD, NEW]))
    def break_or_heal(self, model):
        self.world.broken ^= {model["uri"]}

    @rule(seconds=st.integers(-5, 60))
    def clock_steps(self, seconds):
        self.world.now += timedelta(seconds=seconds)

    @rule()
    def lose_status(self):
        self.world.raw["status"] = {"conditions": "lost"}

    @rule()
    def lose_the_service_and_status(self):
        known = {("Deployment", self.old), ("ControllerRevision", self.old)}
        if known & self.world.children.keys():  # else nothing is left that tells
            self.world.children.pop(("Service", "gate"), None)
            self.lose_status()

    @rule()
    def istio_comes_or_goes(self):
        self.world.mesh = not self.world.mesh
        if not self.world.mesh:
            for kind in ("VirtualService", "DestinationRule"):
                for key in [k for k in self.world.children if k[0] == kind]:
                    del self.world.children[key]

    @rule(replicas=st.integers(0, 3))
    def scale(self, replicas):
        self.world.edit(replicas=replicas)

    @rule()
    def pause_or_go_on(self):
        paused = self.world.raw["spec"]["rollout"].get("paused", False)
        self.world.edit(rollout={**self.rollout, "paused": not paused})

    @rule()
    def suspend_or_go_on(self):
        self.world.edit(suspend=not self.world.raw["spec"].get("suspend", False))

    @precondition(lambda self: "analysis" not in self.rollout)
    @rule(timed=st.sets(st.sampled_from([5, 15, 30, 60])), by_word=st.integers(1, 99))
    def edit_steps(self, timed, by_word):
        """What it had once may count as walked, and needs no word."""
        weights = dict.fromkeys(timed, "10s") | {max(by_word, self.had): "Approval"}
        steps = [{"weight": weight, "hold": weights[weight]} for weight in sorted(weights)]
        self.rollout = self.rollout | {"steps": steps}
        self.world.edit(rollout=self.rollout)

    @rule(rounds=st.integers(1, 3))
    def reconcile(self, rounds):
        for _ in range(rounds):
            self.world.reconcile()

    @invariant()
    def the_pointer_stays(self):
        if not hasattr(self, "old"):
            return
        assert self.world.decide().stable == self.old
        if ("Service", "gate") in self.world.children:
            assert self.world.selected() == self.old

    @invariant()
    def what_it_has_is_known(self):
        if hasattr(self, "old") and (rollout := self.world.status().rollout):
            self.had = max(self.had, *(share.weight for share in rollout.shares), 0)

    @rule()
    def traffic_goes_to_whoever_is_alive(self):
        world = self.world
        world.edit(suspend=False, rollout=self.rollout, replicas=2)
        world.broken = set()
        world.settle(6)
        self.lose_all_of_stable()
        new = world.decide().target
        world.reconcile()
        assert world.ready(new)
        if world.mesh:
            assert world.weights()[new] == 100
        assert world.children["Service", "gate"]["spec"]["selector"].keys() == {
            "yolofleet.io/detector"
        }

    def word(self, target):
        return {"approved": {"revision": target, "step": len(self.rollout["steps"])}}

    def teardown(self):
        """With a person's word it ends, though nothing of stable ever comes back."""
        if not hasattr(self, "old"):
            return
        world = self.world
        world.broken = {OLD["uri"]}
        target = world.decide().target
        world.edit(suspend=False, replicas=2, rollout=self.rollout | self.word(target))
        world.settle(12)
        assert world.status().stable.revision == target


Unapproved.TestCase.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, phases=set(Phase) - {Phase.shrink}
)
TestUnapproved = Unapproved.TestCase


class Unjudged(Unapproved):
    """A release that waits for a proof, and everything that is none."""

    @initialize(
        rollout=st.sampled_from(JUDGED),
        replicas=st.integers(1, 3),
        mesh=st.booleans(),
        weight=st.sampled_from([None, 10]),
    )
    def start(self, rollout, replicas, mesh, weight):
        self.begin(rollout, replicas, None, mesh, weight)

    def word(self, _target):
        return {"analysis": None}

    @rule(verdict=st.sampled_from(NO_PASS), stage=st.sampled_from(Stage))
    def be_looked_at(self, verdict, stage):
        if (trial := self.world.decide().trial) is None:
            return
        by = margins_hash(self.world.detector().spec.rollout.analysis)
        self.world.analysis = AnalysisStatus(
            revision=trial.revision,
            against=trial.against,
            stage=stage,
            verdict=verdict,
            margins_hash=by,
        )

    @rule()
    def forget_what_was_seen(self):
        self.world.analysis = None


Unjudged.TestCase.settings = Unapproved.TestCase.settings
TestUnjudged = Unjudged.TestCase


@pytest.mark.parametrize("mesh", [True, False])
@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("surge", [{}, {"maxSurge": 1}])
def test_a_release_whose_stable_is_dead_for_good_ends_by_its_own_steps(
    world, mesh, replicas, surge
):
    steps = [{"weight": 10, "hold": "1m"}, {"weight": 50, "hold": "1m"}]
    world.mesh = mesh
    world.edit(
        model=OLD, replicas=replicas, rollout={"strategy": "Canary", "steps": steps, **surge}
    )
    world.settle()
    old = world.status().stable.revision
    world.broken = {OLD["uri"]}
    world.edit(model=NEW)
    world.settle(3)
    assert world.status().stable.revision == old
    world.settle(30)
    assert world.status().stable.revision != old
    assert world.replicas() == {old: 0, world.status().stable.revision: replicas}


@pytest.mark.parametrize("mesh", [True, False])
def test_losing_the_deployment_of_stable_and_its_record_releases_nothing(world, mesh):
    steps = [{"weight": 10, "hold": "Approval"}]
    world.mesh = mesh
    world.edit(model=OLD, replicas=1, rollout={"strategy": "Canary", "steps": steps})
    world.settle()
    old = world.status().stable.revision
    world.edit(model=NEW)
    world.settle(3)
    new = world.decide().target
    for kind in ("Deployment", "ControllerRevision"):
        del world.children[kind, old]
    world.settle()
    assert world.status().stable.revision == old
    assert f"the Deployment {old} was deleted" in world.status().condition("Ready").message
    assert ("Service", old) in world.children
    if mesh:
        assert world.weights() == {old: 0, new: 100}
    world.edit(model=OLD)
    world.settle()
    assert world.replicas() == {old: 1, new: 0}
    assert world.status().condition("Ready").status == "True"


def test_a_canary_that_is_promoted_while_stable_is_partly_back_waits_as_well():
    """It has all requests but one pod's share, which nobody gave it."""
    world = World(mesh=True)
    rollout = {"strategy": "Canary", "steps": APPROVAL}
    world.edit(model=OLD, replicas=10, rollout=rollout)
    world.settle()
    old = world.status().stable.revision
    world.edit(canary={"model": NEW, "weight": 10, "replicas": 10})
    world.settle()
    for left in (0, 1):
        world.deployments()[old]["status"]["availableReplicas"] = left
        for _ in range(4):
            world.reconcile()
    assert world.weights()[old] == 10
    world.edit(model=NEW, canary=None)
    for _ in range(4):
        world.reconcile()
    world.settle()
    assert world.status().stable.revision == old
    assert world.status().rollout.step == 1
