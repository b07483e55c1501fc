"""Whatever users, pods and time do, in any order: what a release never does."""

import copy
from datetime import timedelta

from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.unit.conftest import World  # a state machine cannot ask for fixtures

from yolofleet.api.names import RELEASED_ANNOTATION, REVISION_LABEL
from yolofleet.plan.capacity import share_rounded_up

MODELS = [{"uri": f"https://models/{n}.onnx"} for n in range(4)]
canaries = st.none() | st.fixed_dictionaries(
    {"model": st.sampled_from(MODELS), "weight": st.integers(0, 100)},
    optional={"replicas": st.integers(1, 4)},
)
holds = st.sampled_from(["10s", "1m", "Approval"])
steps = st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True).flatmap(
    lambda weights: st.tuples(*(holds for _ in weights)).map(
        lambda held: [{"weight": w, "hold": h} for w, h in zip(sorted(weights), held, strict=True)]
    )
)
rollouts = st.one_of(
    st.just({}),
    st.just({"strategy": "BlueGreen"}),
    st.just({"strategy": "InPlace"}),
    st.fixed_dictionaries(
        {"strategy": st.just("Canary"), "steps": steps},
        optional={"maxSurge": st.sampled_from([1, 2, "50%"])},
    ),
)
GPU = {"limits": {"nvidia.com/gpu": 1}, "requests": {"cpu": "1"}}


class Releases(RuleBasedStateMachine):
    """Random edits, readiness, losses and clock steps, with a reconcile after any of them."""

    @initialize(stands_in=st.booleans())
    def start(self, stands_in):
        self.world = World()
        self.templates = {}
        if stands_in:
            self._let_one_stand_in()

    def _let_one_stand_in(self):
        """Without a mesh the first revision answers in the place of the second, which died."""
        world, (first, second) = self.world, MODELS[:2]
        world.mesh = False
        world.edit(model=first)
        world.settle(3)
        world.edit(model=second)
        for _ in range(3):
            world.reconcile()
            world.run_pods()
        world.broken = {second["uri"]}
        world.run_pods()
        world.reconcile()
        assert not world.ready(world.status().stable.revision)
        assert self._who_is_selected() & {n for n in world.replicas() if world.ready(n)}

    @rule(model=st.sampled_from(MODELS), replicas=st.integers(0, 4), canary=canaries)
    def edit(self, model, replicas, canary):
        if canary and canary["model"] == model:
            canary = None  # admission refuses a canary equal to stable
        if self.world.raw["spec"].get("rollout", {}).get("strategy") == "InPlace":
            canary = None  # and one beside a release in place
        self.world.edit(model=model, replicas=replicas, canary=canary)

    @rule(replicas=st.integers(0, 6))
    def scale(self, replicas):
        self.world.edit(replicas=replicas)

    @rule(rollout=rollouts)
    def choose_strategy(self, rollout):
        canary = self.world.raw["spec"].get("canary")
        self.world.edit(
            rollout=rollout, canary=None if rollout.get("strategy") == "InPlace" else canary
        )

    @rule(gpus=st.integers(0, 6))
    def ask_for_gpus(self, gpus):
        self.world.scheduler = True
        self.world.nodes = [
            {"metadata": {"name": "n"}, "status": {"allocatable": {"nvidia.com/gpu": str(gpus)}}}
        ]
        self.world.edit(resources=GPU)

    @rule()
    def pause_or_go_on(self):
        rollout = self.world.raw["spec"].get("rollout", {})
        self.world.edit(rollout={**rollout, "paused": not rollout.get("paused", False)})

    @rule()
    def approve(self):
        going = self.world.status().rollout
        if going and going.step:
            approved = {"revision": going.revision, "step": going.step}
            rollout = self.world.raw["spec"].get("rollout", {})
            self.world.edit(rollout={**rollout, "approved": approved})

    @rule()
    def promote(self):
        canary = self.world.raw["spec"].get("canary")
        if canary:
            self.world.edit(model=canary["model"], canary=None)

    @rule(model=st.sampled_from(MODELS))
    def break_or_heal(self, model):
        self.world.broken ^= {model["uri"]}

    @rule(step=st.integers(1, 3))
    def run_pods(self, step):
        self.world.run_pods(step)

    @rule(seconds=st.integers(-5, 60))
    def clock_steps(self, seconds):
        self.world.now += timedelta(seconds=seconds)

    @rule(data=st.data())
    def lose_pods(self, data):
        for deployment in self.world.deployments().values():
            status = deployment.setdefault("status", {})
            ready = status.get("availableReplicas", 0)
            status["availableReplicas"] = data.draw(st.integers(0, ready))

    @rule()
    def lose_status(self):
        self.world.raw["status"] = {"conditions": "lost"}

    @precondition(lambda self: self.world.deployments())
    @rule(written=st.integers(0, 8), told=st.booleans())
    def die_while_writing(self, written, told):
        thought = self.world.think()
        if told:
            self.world.raw["status"] = thought.status.dump()
        for manifest in thought.desired[:written]:
            self.world._write(manifest)

    @rule()
    def istio_comes_or_goes(self):
        self.world.mesh = not self.world.mesh
        if not self.world.mesh:
            gone = ("VirtualService", "DestinationRule")
            for key in [k for k in self.world.children if k[0] in gone]:
                del self.world.children[key]

    @rule()
    def reconcile(self):
        world = self.world
        before, pods = world.weights(), world.replicas()
        routed = {name for name, weight in before.items() if weight}
        ready = {name: min(world.ready(name), pods[name]) for name in pods}
        plan = world.reconcile()
        assert world.stands_for() in world.deployments()
        for name in routed & world.weights().keys():
            if world.weights()[name] and ready.get(name):
                spec = world.raw["spec"]
                alone = spec.get("rollout", {}).get("strategy") == "InPlace"
                by_consent = spec["replicas"] == 0 or (alone and spec["replicas"] == 1)
                assert world.replicas()[name] > 0 or by_consent, (
                    "a revision with traffic lost all its pods"
                )
        self._surge_is_bounded(pods, ready)
        self._the_last_one_ready_stays(ready)
        if world.mesh:
            self._routes_are_safe(ready, before)
            self._whoever_answers_goes_on(ready, before)
            self._no_capacity_goes_before_its_traffic(pods, ready, before)
        elif world.raw["spec"]["replicas"]:
            self._the_service_leads_to_those_that_may_answer(ready, plan)

    def _the_service_leads_to_those_that_may_answer(self, ready, plan):
        """And to nobody else, as long as they are there."""
        canary = self.world.raw["spec"].get("canary") or {}
        coming = plan.progress and plan.progress.revision
        released = {p.revision.name for p in plan.revisions if p.released}
        former = ready.keys() - {plan.stable, plan.target, plan.canary}
        dark = {plan.canary} - {None} if not canary.get("weight") else set()
        paused = {coming} - released if plan.progress and plan.progress.held else set()
        may = former & released | {plan.canary, coming} - {None} - dark - paused
        alive = {name for name, count in ready.items() if count}
        selected = self._who_is_selected()
        assert not selected & dark, "what is dark is shown"
        if plan.stable in alive:
            assert plan.stable in selected, "stable serves, and does not answer"
        elif may & alive:
            assert selected & may & alive, "nobody answers who may"
            assert not selected & paused, "what is paused answers though others may"

    def _who_is_selected(self):
        selector = self.world.children["Service", "gate"]["spec"]["selector"]
        running = {name for name, replicas in self.world.replicas().items() if replicas}
        return running & {selector.get(REVISION_LABEL, name) for name in running}

    def _surge_is_bounded(self, before, ready):
        detector, status = self.world.detector(), self.world.status()
        full = detector.spec.replicas or 0
        strategy = status.rollout.strategy if status.rollout else detector.spec.rollout.strategy
        surge = detector.spec.rollout.surge(strategy or "BlueGreen", full)
        canary = self.world.decide().canary
        after = {n: pods for n, pods in self.world.replicas().items() if n != canary}
        were = sum(before.get(n, 0) for n in after)
        stuck = not any(ready.get(n) for n in [status.stable.revision])
        bound = max(full + surge, were) + stuck  # stuck: one pod more is the way out
        assert sum(after.values()) <= bound, "too many pods"

    def _the_last_one_ready_stays(self, ready):
        """Of those that the detector was ever released on: a canary may be called off."""
        spec = self.world.raw["spec"]
        alone = spec.get("rollout", {}).get("strategy") == "InPlace"
        alive = {name for name, count in ready.items() if count}
        released = {
            name
            for name, deployment in self.world.deployments().items()
            if RELEASED_ANNOTATION in deployment["metadata"].get("annotations", {})
        }
        if not alive or not alive <= released or not spec["replicas"]:
            return
        by_consent = alone and spec["replicas"] == 1
        pods = self.world.replicas()
        assert by_consent or any(pods.get(name) for name in alive), "the last ready pods went"

    def _no_capacity_goes_before_its_traffic(self, pods, ready, before):
        """What the router was last seen to send somewhere can still be carried there."""
        full = self.world.raw["spec"]["replicas"] - self._gives_one_up()
        canary = self.world.decide().canary
        for name, weight in before.items():
            left = self.world.replicas().get(name, 0)
            shrunk = left < pods.get(name, 0) and name != canary and full > 0
            if shrunk and weight and ready.get(name):
                assert share_rounded_up(left, full) >= weight, "pods went before their traffic"

    def _routes_are_safe(self, ready, before):
        weights = self.world.weights()
        assert sum(weights.values()) == 100
        assert min(weights.values()) >= 0, "which no router takes"
        stable = self.world.status().stable.revision
        for name, weight in weights.items():
            others = any(ready.get(o) and weights[o] for o in weights if o != name)
            assert not (weight and not ready.get(name) and others and name != stable)
            if name != stable and ready.get(stable):
                full = max(self.world.raw["spec"]["replicas"] - self._gives_one_up(), 1)
                carries = 100 * ready.get(name, 0) // full
                assert weight <= max(carries, before.get(name, 0)), "raised above what it carries"

    def _whoever_answers_goes_on(self, ready, before):
        """As long as anything is to answer: at zero replicas that is a canary alone."""
        plan, spec = self.world.decide(), self.world.raw["spec"]
        canary = spec.get("canary") or {}
        alive = {name for name, weight in before.items() if weight and ready.get(name)}
        if alive and (spec["replicas"] or (plan.canary and canary.get("weight"))):
            weights = self.world.weights()
            answer = [name for name, weight in weights.items() if weight and ready.get(name)]
            assert answer, f"{alive} answered, and now nobody does: {weights}"
            if not spec["replicas"]:
                assert any(self.world.replicas()[name] for name in answer), "its pods go"

    def _gives_one_up(self):
        status, spec = self.world.status(), self.world.detector().spec
        strategy = status.rollout.strategy if status.rollout else spec.rollout.strategy
        return strategy == "InPlace"

    @invariant()
    def revisions_are_immutable(self):
        for name, deployment in self.world.deployments().items():
            pods = deployment["spec"]["template"]
            assert self.templates.setdefault(name, copy.deepcopy(pods)) == pods

    @rule()
    def left_alone_it_settles_and_stays(self):
        world = self.world
        world.broken = set()
        if world.nodes:
            world.nodes[0]["status"]["allocatable"]["nvidia.com/gpu"] = "9"
        rollout = {k: v for k, v in world.raw["spec"].get("rollout", {}).items() if k != "paused"}
        rollout["steps"] = [s | {"hold": "10s"} for s in rollout.get("steps", [])]
        world.edit(rollout=rollout)
        if rollout.get("strategy") == "Canary" and not world.mesh:
            world.mesh = True  # steps need it
        world.settle(30)
        status = world.status()
        want = world.decide()
        assert status.stable.revision == want.target
        if world.mesh:
            canary = world.raw["spec"].get("canary")
            assert world.weights()[want.stable] >= (0 if canary else 100)
        before = copy.deepcopy((world.children, world.raw["status"]))
        world.now += timedelta(minutes=10)
        world.reconcile()
        assert (world.children, world.raw["status"]) == before, "twice is once"


Releases.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, phases=set(Phase) - {Phase.shrink}
)
TestReleases = Releases.TestCase


WAYS = (
    {"strategy": "BlueGreen"},
    {"strategy": "InPlace"},
    {"strategy": "Canary", "steps": [{"weight": w, "hold": "10s"} for w in (20, 60)]},
    {"strategy": "Canary", "steps": [{"weight": 50, "hold": "10s"}], "maxSurge": 1},
)


def lose_its_objects(world, *kinds):
    for key in [key for key in world.children if key[0] in kinds]:
        del world.children[key]


def lose_pods_of(world, place):
    names = sorted(world.deployments())
    world.deployments()[names[place % len(names)]]["status"]["availableReplicas"] = 0


def edit_the_route(world, place):
    route = world.children.get(("VirtualService", "gate"))
    for position, to in enumerate(route["spec"]["http"][-1]["route"] if route else ()):
        to["weight"] = 100 if position == place else 0


def lose_istio_for_a_moment(world, _place):
    world.mesh = False
    lose_its_objects(world, "VirtualService", "DestinationRule")
    world.reconcile()
    world.mesh = True


HAPPENS = {
    "pods are lost": lose_pods_of,
    "pods are back": lambda world, _place: world.run_pods(1),
    "the route is lost": lambda world, _place: lose_its_objects(world, "VirtualService"),
    "the route is edited": edit_the_route,
    "istio goes and comes": lose_istio_for_a_moment,
    "the operator dies": lambda world, place: [
        world._write(manifest) for manifest in world.think().desired[:place]
    ],
}


@given(
    way=st.sampled_from(WAYS),
    replicas=st.integers(1, 4),
    weight=st.none() | st.integers(1, 60),
    promoted=st.booleans(),
    turns=st.lists(st.tuples(st.booleans(), st.sampled_from([0, 12])), max_size=8),
    story=st.lists(st.tuples(st.sampled_from(sorted(HAPPENS)), st.integers(0, 4)), max_size=10),
)
def test_weights_outlast_whatever_happens_in_a_pause(way, replicas, weight, promoted, turns, story):
    beside = {"model": MODELS[2], "weight": weight}
    canary = beside if weight and way["strategy"] != "InPlace" else None
    world = World()
    world.edit(model=MODELS[0], replicas=replicas, rollout=way, canary=canary)
    world.settle(4)
    if canary and promoted:
        world.edit(model=MODELS[2], canary=None)
    else:
        world.edit(model=MODELS[1])
    world.reconcile()
    for runs, seconds in turns:
        if runs:
            world.run_pods(1)
        world.now += timedelta(seconds=seconds)
        world.reconcile()
    world.edit(rollout={**way, "paused": True})
    world.reconcile()
    world.reconcile()
    assume(world.status().rollout)
    before = world.weights()
    for what, place in story:
        HAPPENS[what](world, place)
        world.reconcile()
    world.settle(5)
    after = world.weights()
    assert {n: w for n, w in after.items() if w} == {n: w for n, w in before.items() if w}
